//! The gateway of ZOLOZ against a server that answers byte for byte what a test tells it to.
//!
//! The server signs with the provider's test key of the published vectors, which prove that key's signatures.

#![cfg(test)]

use std::fmt::Write;
use std::time::Duration;

use bytes::Bytes;
use checkback::clock::Clock;
use checkback::domain::{FinalStatus, Outcome, ProviderError, Trouble};
use checkback::entropy::Entropy;
use checkback::provider::http::{HttpClient, HttpSettings};
use checkback::provider::zoloz::keys::{MerchantKey, ZolozKey};
use checkback::provider::zoloz::sign::{self, AccessKey, Content};
use checkback::provider::zoloz::{Auth, Gateway, ZolozClient, ZolozSettings, cipher};
use checkback::provider::{CheckRequest, Provider};
use chrono::{DateTime, Utc};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const PATH: &str = "/api/v1/zoloz/connect/checkresult";
const CLIENT: &str = "2188000000000017";
const TIME: &str = "2026-01-15T08:30:01+0000";
const SECRET: &str = "-_8-T1prfI2er7DB0uP0BRYnOElaa3yNnq-wwdLj9P8";
const PASSED: &str = r#"{"result":{"resultStatus":"S","resultCode":"SUCCESS","resultMessage":"ok"},"connectResult":"Success","extFaceInfo":{"faceScore":89.1,"faceAttack":false}}"#;

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Encrypted,
    Plain,
    AkSk,
}

fn key(owner: &str, name: &str) -> String {
    let vectors: Value = serde_json::from_str(include_str!("../vectors/zoloz.json")).unwrap();
    vectors["keys"][owner][name].as_str().unwrap().to_owned()
}

fn private(owner: &str) -> MerchantKey {
    MerchantKey::read(&key(owner, "private_key_pkcs8_pem")).unwrap()
}

fn public(owner: &str) -> ZolozKey {
    ZolozKey::read(&key(owner, "public_key_spki_pem")).unwrap()
}

fn access_key() -> AccessKey {
    AccessKey::new(&"CANARYACCESS".into(), &SECRET.into()).unwrap()
}

fn auth(mode: Mode) -> Auth {
    match mode {
        Mode::AkSk => Auth::AkSk(access_key()),
        _ => Auth::Rsa {
            merchant: Box::new(private("merchant")),
            zoloz: Box::new(public("zoloz")),
            encrypt: mode == Mode::Encrypted,
        },
    }
}

fn start() -> DateTime<Utc> {
    "2026-01-15T08:30:00Z".parse().unwrap()
}

/// What the server answers: a status line's rest, headers, a body.
#[derive(Clone)]
struct Reply {
    status: &'static str,
    headers: String,
    body: Vec<u8>,
}

impl Reply {
    fn unsigned(status: &'static str, body: &str) -> Self {
        Self { status, headers: String::new(), body: body.as_bytes().to_vec() }
    }

    fn header(mut self, name: &str, value: &str) -> Self {
        write!(self.headers, "{name}: {value}\r\n").unwrap();
        self
    }

    /// Signed as the provider does for such an account.
    fn signed(mode: Mode, status: &'static str, body: &str) -> Self {
        let content = Content { path: PATH, client_id: CLIENT, time: TIME, body: body.as_bytes() };
        let signature = match mode {
            Mode::AkSk => access_key().sign(&content),
            _ => sign::rsa256(&private("zoloz"), &content).unwrap(),
        };
        Self::unsigned(status, body).header("Response-Time", TIME).header("Signature", &signature)
    }

    fn encrypted(body: &str) -> Self {
        let (sealed, header) = cipher::seal(&public("merchant"), &Entropy::seeded(3), body.as_bytes()).unwrap();
        Self::signed(Mode::Encrypted, "200 OK", std::str::from_utf8(&sealed).unwrap()).header("Encrypt", &header)
    }
}

struct Seen {
    head: String,
    body: Bytes,
}

impl Seen {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (given, value) = line.split_once(": ")?;
            given.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

async fn serve(listener: &TcpListener, reply: Reply) -> Seen {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let mut seen = Seen { head: String::from_utf8(head).unwrap(), body: Bytes::new() };
    let length = seen.header("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    seen.body = body.into();
    let Reply { status, headers, body } = reply;
    let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n{headers}\r\n", body.len());
    stream.write_all(&[head.as_bytes(), &body].concat()).await.unwrap();
    seen
}

fn http() -> HttpClient {
    let time = Duration::from_secs(10);
    HttpClient::new(HttpSettings { connect: time, total: time, max_body: 1 << 20 }).unwrap()
}

fn settings(mode: Mode, listener: &TcpListener) -> ZolozSettings {
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    ZolozSettings { endpoint: endpoint.parse().unwrap(), client_id: CLIENT.to_owned(), auth: auth(mode) }
}

async fn call(mode: Mode, reply: Reply) -> (Result<Bytes, ProviderError>, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gateway = Gateway::new(settings(mode, &listener), http(), Clock::manual(start()), Entropy::seeded(1));
    let body = Bytes::from_static(br#"{"bizId":"b1","transactionId":"t1"}"#);
    let (answer, seen) = tokio::join!(gateway.call(PATH, body), serve(&listener, reply));
    let shown = format!("{gateway:?} {answer:?}");
    assert!(!shown.contains("CANARY") && !shown.contains(&SECRET[..8]) && !shown.contains("PRIVATE"), "{shown}");
    (answer, seen)
}

async fn error(mode: Mode, reply: Reply) -> ProviderError {
    call(mode, reply).await.0.unwrap_err()
}

fn result(status: &str, code: &str) -> String {
    format!(r#"{{"result":{{"resultStatus":"{status}","resultCode":"{code}","resultMessage":"m"}}}}"#)
}

#[tokio::test]
async fn a_plain_request_is_signed_over_the_bytes_that_are_sent() {
    let (answer, seen) = call(Mode::Plain, Reply::signed(Mode::Plain, "200 OK", PASSED)).await;
    assert_eq!(&*answer.unwrap(), PASSED.as_bytes());
    assert!(seen.head.starts_with(&format!("POST {PATH} HTTP/1.1\r\n")), "{}", seen.head);
    assert_eq!(&*seen.body, br#"{"bizId":"b1","transactionId":"t1"}"#);
    assert_eq!(seen.header("client-id"), Some(CLIENT));
    assert_eq!(seen.header("request-time"), Some("2026-01-15T08:30:00+0000"));
    assert_eq!(seen.header("content-type"), Some("application/json; charset=UTF-8"));
    assert!(seen.header("user-agent").is_some_and(|agent| agent.starts_with("checkback/")));
    assert!(seen.header("encrypt").is_none() && seen.header("auth-type").is_none());
    let content = Content { path: PATH, client_id: CLIENT, time: "2026-01-15T08:30:00+0000", body: &seen.body };
    assert!(sign::verify_rsa256(&public("merchant"), &content, seen.header("signature").unwrap()));
}

#[tokio::test]
async fn an_encrypted_request_is_signed_over_its_ciphertext_and_its_answer_decrypted() {
    let (answer, seen) = call(Mode::Encrypted, Reply::encrypted(PASSED)).await;
    assert_eq!(&*answer.unwrap(), PASSED.as_bytes());
    assert_eq!(seen.header("content-type"), Some("text/plain; charset=UTF-8"));
    let content = Content { path: PATH, client_id: CLIENT, time: "2026-01-15T08:30:00+0000", body: &seen.body };
    assert!(sign::verify_rsa256(&public("merchant"), &content, seen.header("signature").unwrap()));
    let header = seen.header("encrypt").unwrap().to_owned();
    assert_eq!(cipher::unwrap(&private("zoloz"), &header).unwrap().len(), 32);
    let plain = cipher::open(&private("zoloz"), &Entropy::seeded(2), &header, seen.body).unwrap();
    assert_eq!(&*plain, br#"{"bizId":"b1","transactionId":"t1"}"#);
}

#[tokio::test]
async fn an_access_key_signs_without_a_list() {
    let (answer, seen) = call(Mode::AkSk, Reply::signed(Mode::AkSk, "200 OK", PASSED)).await;
    assert_eq!(&*answer.unwrap(), PASSED.as_bytes());
    assert_eq!(seen.header("auth-type"), Some("AKSK"));
    assert_eq!(seen.header("access-key"), Some("CANARYACCESS"));
    let content = Content { path: PATH, client_id: CLIENT, time: "2026-01-15T08:30:00+0000", body: &seen.body };
    assert_eq!(seen.header("signature"), Some(&*access_key().sign(&content)));
}

#[tokio::test]
async fn an_answer_may_be_plain_or_encrypted_whatever_the_request_was() {
    let code = result("F", "PARAM_ILLEGAL");
    let (answer, _) = call(Mode::Encrypted, Reply::signed(Mode::Encrypted, "200 OK", &code)).await;
    assert_eq!(&*answer.unwrap(), code.as_bytes());
    let (answer, _) = call(Mode::Plain, Reply::encrypted(PASSED)).await;
    assert_eq!(&*answer.unwrap(), PASSED.as_bytes());
}

#[tokio::test]
async fn an_answer_without_a_right_signature_says_nothing_about_a_verification() {
    for mode in [Mode::Plain, Mode::Encrypted, Mode::AkSk] {
        let signed = Reply::signed(mode, "200 OK", PASSED);
        let mut altered = signed.clone();
        altered.body = PASSED.replace("89.1", "99.1").into_bytes();
        let mut other_time = signed.clone();
        other_time.headers = other_time.headers.replace(TIME, "2026-01-15T08:30:02+0000");
        for (reply, code) in [
            (Reply::unsigned("200 OK", PASSED), "response_unsigned"),
            (Reply::unsigned("200 OK", PASSED).header("Response-Time", TIME), "response_unsigned"),
            (Reply::unsigned("200 OK", ""), "response_unsigned"),
            (altered, "response_signature"),
            (other_time, "response_signature"),
            (Reply::unsigned("200 OK", &result("F", "NOT_SAME_PERSON")), "response_unsigned"),
            (Reply::unsigned("200 OK", &result("F", "INVALID_ARGUMENT")), "response_unsigned"),
            (Reply::unsigned("200 OK", &result("F", "NO_INTERFACE_DEF")), "response_unsigned"),
            (Reply::unsigned("200 OK", &result("F", "REQUEST_TRAFFIC_EXCEED_LIMIT")), "response_unsigned"),
        ] {
            let error = error(mode, reply).await;
            assert!(matches!(error, ProviderError::Unavailable { .. }), "{error:?}");
            assert_eq!(error.code(), code);
        }
    }
}

#[tokio::test]
async fn trouble_with_credentials_is_believed_without_a_signature_and_pauses_the_account() {
    for (code, trouble) in [
        ("SIGNATURE_INVALID", Trouble::BadSignature),
        ("KEY_NOT_FOUND", Trouble::BadKey),
        ("MERCHANT_NOT_FOUND", Trouble::BadKey),
        ("OAUTH_FAIL", Trouble::NoPermission),
        ("OAUTH_RESOURCE_CODE_FAIL", Trouble::NoPermission),
        ("ACCESS_DENIED", Trouble::NoPermission),
    ] {
        for status in ["200 OK", "401 Unauthorized", "500 Oops"] {
            match error(Mode::Encrypted, Reply::unsigned(status, &result("F", code))).await {
                ProviderError::Account { trouble: found, code: given } => assert_eq!((found, &*given), (trouble, code)),
                other => panic!("{code}: {other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn a_refused_signature_is_the_clocks_fault_when_the_clocks_differ() {
    let refused = Reply::unsigned("200 OK", &result("F", "SIGNATURE_INVALID"));
    for (date, trouble) in [
        ("Thu, 15 Jan 2026 08:34:00 GMT", Trouble::BadSignature),
        ("Thu, 15 Jan 2026 08:36:00 GMT", Trouble::ClockSkew),
        ("Thu, 15 Jan 2026 08:10:00 GMT", Trouble::ClockSkew),
    ] {
        for reply in [refused.clone(), Reply::signed(Mode::Plain, "200 OK", &result("F", "SIGNATURE_INVALID"))] {
            let outcome = call(Mode::Plain, reply.clone().header("Date", date)).await.0;
            match outcome {
                Err(ProviderError::Account { trouble: found, .. }) => assert_eq!(found, trouble, "{date}"),
                // What is signed and no matter of the clock is left to whoever reads the answer.
                Ok(_) => assert!(trouble == Trouble::BadSignature && !reply.headers.is_empty()),
                Err(other) => panic!("{other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn a_message_that_cannot_be_decrypted_is_one_error_whatever_is_wrong() {
    let good = Reply::encrypted(PASSED);
    let encrypt = |header: &str| {
        let mut reply = good.clone();
        reply.headers =
            reply.headers.lines().filter(|line| !line.starts_with("Encrypt")).fold(String::new(), |mut all, line| {
                write!(all, "{line}\r\n").unwrap();
                all
            });
        if header.is_empty() { reply } else { reply.header("Encrypt", header) }
    };
    let (_, other) = cipher::seal(&public("other"), &Entropy::seeded(4), b"{}").unwrap();
    let (_, ours) = cipher::seal(&public("merchant"), &Entropy::seeded(5), b"{}").unwrap();
    let mut seen = Vec::new();
    for reply in [
        encrypt(""),
        encrypt("algorithm=RSA_AES"),
        encrypt("algorithm=RSA_AES, symmetricKey=AAAA"),
        encrypt(&ours.replace("RSA_AES", "RSA_DES")),
        // A key for somebody else; a sound key that is not this message's.
        encrypt(&other),
        encrypt(&ours),
        Reply::signed(Mode::Encrypted, "200 OK", PASSED).header("Encrypt", &ours),
    ] {
        let error = error(Mode::Encrypted, reply).await;
        assert_eq!(error.code(), "response_unreadable");
        seen.push(format!("{error:?}"));
    }
    seen.dedup();
    assert_eq!(seen.len(), 1, "{seen:?}");
    let aksk = error(Mode::AkSk, Reply::signed(Mode::AkSk, "200 OK", PASSED).header("Encrypt", &ours)).await;
    assert_eq!(aksk.code(), "response_unreadable");
}

#[tokio::test]
async fn without_an_answer_of_the_provider_the_status_decides() {
    for (status, code) in [("500 Oops", "http_500"), ("503 Busy", "http_503"), ("302 Found", "http_302")] {
        for reply in [Reply::unsigned(status, ""), Reply::signed(Mode::Plain, status, "oops")] {
            let error = error(Mode::Plain, reply).await;
            assert!(matches!(error, ProviderError::Unavailable { .. }), "{error:?}");
            assert_eq!(error.code(), code);
        }
    }
    for status in ["400 Bad", "404 Nowhere", "405 Not so"] {
        let error = error(Mode::Plain, Reply::unsigned(status, "no")).await;
        let ProviderError::Account { trouble, .. } = error else { panic!("{error:?}") };
        assert_eq!(trouble, Trouble::Configuration);
    }
    let throttled = Reply::unsigned("429 Slow down", "<html>").header("Retry-After", "7");
    let error = error(Mode::Plain, throttled).await;
    let ProviderError::Throttled { retry_after, .. } = error else { panic!("{error:?}") };
    assert_eq!(retry_after, Some(Duration::from_secs(7)));
}

#[tokio::test]
async fn a_web_page_is_the_firewall_and_not_the_account() {
    for reply in [
        Reply::unsigned("403 Forbidden", "<!DOCTYPE html><html></html>"),
        Reply::unsigned("200 OK", "\n <html></html>"),
        Reply::unsigned("405 Not so", "blocked").header("Content-Type", "Text/HTML; charset=utf-8"),
    ] {
        let error = error(Mode::Encrypted, reply).await;
        assert_eq!(error.code(), "html_answer");
        assert!(matches!(&error, ProviderError::Unavailable { reason, .. } if reason.contains("firewall")), "{error}");
    }
}

#[tokio::test]
async fn a_signed_code_counts_whatever_the_status() {
    for status in ["200 OK", "400 Bad", "500 Oops"] {
        let code = result("F", "INVALID_ARGUMENT");
        let (answer, _) = call(Mode::Plain, Reply::signed(Mode::Plain, status, &code)).await;
        assert_eq!(&*answer.unwrap(), code.as_bytes());
    }
}

#[tokio::test]
async fn an_account_turns_verified_answers_into_outcomes() {
    let large = format!(r#"{},"pad":"{}"}}"#, &PASSED[..PASSED.len() - 1], "x".repeat(400_000));
    for (mode, reply, expected) in [
        (Mode::Encrypted, Reply::encrypted(PASSED), Some(FinalStatus::Passed)),
        (Mode::Encrypted, Reply::encrypted(&large), Some(FinalStatus::Passed)),
        (Mode::AkSk, Reply::signed(Mode::AkSk, "200 OK", PASSED), Some(FinalStatus::Passed)),
        (Mode::Plain, Reply::signed(Mode::Plain, "200 OK", &result("F", "NOT_SAME_PERSON")), Some(FinalStatus::Failed)),
        (Mode::Plain, Reply::signed(Mode::Plain, "200 OK", &result("F", "PROCESSING")), None),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client =
            ZolozClient::new(settings(mode, &listener), false, http(), Clock::manual(start()), Entropy::seeded(1));
        let request = CheckRequest { transaction_id: "t1".to_owned(), merchant_biz_id: "b1".to_owned(), product: None };
        let (outcome, _) = tokio::join!(client.check_result(&request), serve(&listener, reply));
        match (outcome.unwrap(), expected) {
            (Outcome::Finished(finding), Some(status)) => assert_eq!(finding.status, status),
            (Outcome::Running(code), None) => assert_eq!(code, "PROCESSING"),
            (other, _) => panic!("{other:?}"),
        }
    }
}

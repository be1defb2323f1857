//! The Alibaba adapter against a server that answers byte for byte what a test tells it to.

#![cfg(test)]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use checkback::clock::Clock;
use checkback::domain::{Outcome, ProviderError, Trouble};
use checkback::entropy::Entropy;
use checkback::provider::alibaba::credentials::Credentials;
use checkback::provider::alibaba::endpoint::Endpoint;
use checkback::provider::alibaba::{AlibabaClient, AlibabaSettings, Signature};
use checkback::provider::http::{HttpClient, HttpSettings};
use checkback::provider::{CheckRequest, Provider};
use chrono::{DateTime, TimeDelta, Utc};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const PASSED: &str =
    r#"{"RequestId":"R","Code":"Success","Message":"success","Result":{"Passed":"Y","SubCode":"200"}}"#;

/// What the server does with one connection.
#[derive(Clone)]
enum Reply {
    /// Sends these bytes and closes.
    Bytes(Vec<u8>),
    /// Sends these bytes and then nothing more.
    Hang(Vec<u8>),
}

fn answer(status: &str, headers: &str, body: &str) -> Reply {
    let length = body.len();
    Reply::Bytes(
        format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n{headers}\r\n{body}")
            .into_bytes(),
    )
}

fn start() -> DateTime<Utc> {
    "2026-01-15T08:30:00Z".parse().unwrap()
}

fn settings(signature: Signature, endpoint: &str, token: Option<&str>) -> AlibabaSettings {
    AlibabaSettings {
        endpoint: Endpoint::explicit(endpoint, false).unwrap(),
        signature,
        credentials: Credentials::new("testid".to_owned(), "CANARY-SECRET".into(), token.map(Into::into))
            .unwrap()
            .into(),
        images: false,
    }
}

fn short() -> HttpSettings {
    HttpSettings { connect: Duration::from_millis(500), total: Duration::from_millis(500), max_body: 4096 }
}

fn request() -> CheckRequest {
    CheckRequest {
        transaction_id: "hksb CANARY/1".to_owned(),
        merchant_biz_id: "e0c34a77f5ac40a5aa5e6ed20c350101".to_owned(),
        product: None,
    }
}

async fn serve(listener: &TcpListener, replies: Vec<Reply>, seen: &Mutex<Vec<String>>) {
    let mut open = Vec::new();
    for reply in replies {
        let (mut stream, _) = listener.accept().await.unwrap();
        let head = read_head(&mut stream).await;
        seen.lock().unwrap().push(head);
        match reply {
            // The client may have hung up already, which is what some tests are about.
            Reply::Bytes(bytes) => drop(stream.write_all(&bytes).await),
            Reply::Hang(bytes) => {
                let _ = stream.write_all(&bytes).await;
                open.push(stream);
            }
        }
    }
    std::future::pending::<()>().await;
}

async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// Asks once for each reply, and returns the outcomes and the requests the server saw.
async fn ask_with(
    signature: Signature,
    token: Option<&str>,
    images: bool,
    http: HttpSettings,
    replies: Vec<Reply>,
) -> (Vec<Result<Outcome, ProviderError>>, Vec<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let client = AlibabaClient::new(
        AlibabaSettings { images, ..settings(signature, &address, token) },
        HttpClient::new(http).unwrap(),
        Clock::manual(start()),
        Entropy::seeded(1),
    );
    let seen = Arc::new(Mutex::new(Vec::new()));
    let asked = async {
        let mut outcomes = Vec::new();
        for _ in 0..replies.len() {
            outcomes.push(client.check_result(&request()).await);
        }
        outcomes
    };
    let outcomes = tokio::select! {
        outcomes = asked => outcomes,
        () = serve(&listener, replies.clone(), &seen) => unreachable!("the server never ends"),
    };
    assert!(!format!("{client:?} {outcomes:?}").contains("CANARY"));
    let seen = seen.lock().unwrap().clone();
    (outcomes, seen)
}

async fn ask(replies: Vec<Reply>) -> Vec<Result<Outcome, ProviderError>> {
    ask_with(Signature::Acs3, None, false, short(), replies).await.0
}

fn line(outcome: &Result<Outcome, ProviderError>) -> String {
    match outcome {
        Ok(Outcome::Finished(found)) => found.status.to_string(),
        Ok(Outcome::Running(code)) => format!("running {code}"),
        Err(ProviderError::Throttled { code, retry_after }) => format!("throttled {code} {retry_after:?}"),
        Err(ProviderError::Account { trouble, code }) => format!("{} {code}", trouble.as_str()),
        Err(ProviderError::Refused { code, .. }) => format!("refused {code}"),
        Err(ProviderError::Unavailable { code, .. }) => format!("unavailable {code}"),
    }
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines()
        .filter_map(|line| line.split_once(": "))
        .find(|(other, _)| other.eq_ignore_ascii_case(name))
        .map(|(_, value)| value)
}

#[tokio::test]
async fn an_acs3_call_is_a_post_with_everything_in_query_and_headers() {
    let (outcomes, seen) =
        ask_with(Signature::Acs3, Some("token"), false, short(), vec![answer("200 OK", "", PASSED); 2]).await;
    assert_eq!(outcomes.iter().map(line).collect::<Vec<_>>(), ["passed", "passed"]);
    let first = &seen[0];
    assert!(
        first.starts_with(
            "POST /?MerchantBizId=e0c34a77f5ac40a5aa5e6ed20c350101&TransactionId=hksb%20CANARY%2F1 HTTP/1.1\r\n"
        ),
        "{first}"
    );
    assert!(header(first, "host").unwrap().starts_with("127.0.0.1:"));
    for (name, value) in [
        ("x-acs-action", "CheckResult"),
        ("x-acs-version", "2022-08-09"),
        ("x-acs-date", "2026-01-15T08:30:00Z"),
        ("x-acs-accesskey-id", "testid"),
        ("x-acs-security-token", "token"),
        ("user-agent", concat!("checkback/", env!("CARGO_PKG_VERSION"))),
    ] {
        assert_eq!(header(first, name), Some(value), "{name}");
    }
    assert!(
        header(first, "authorization").unwrap().starts_with("ACS3-HMAC-SHA256 Credential=testid,SignedHeaders=host;")
    );
    assert_eq!(header(first, "content-length").unwrap_or("0"), "0");
    assert_ne!(header(first, "x-acs-signature-nonce"), header(&seen[1], "x-acs-signature-nonce"));
}

#[tokio::test]
async fn an_hmac_sha1_call_carries_its_signature_in_the_query() {
    let (outcomes, seen) =
        ask_with(Signature::HmacSha1, Some("to+ken"), true, short(), vec![answer("200 OK", "", PASSED)]).await;
    assert_eq!(line(&outcomes[0]), "passed");
    let target = seen[0].split(' ').nth(1).unwrap();
    for part in [
        "AccessKeyId=testid",
        "Action=CheckResult",
        "Format=JSON",
        "SignatureMethod=HMAC-SHA1",
        "SignatureVersion=1.0",
        "Timestamp=2026-01-15T08%3A30%3A00Z",
        "Version=2022-08-09",
        "SecurityToken=to%2Bken",
        "IsReturnImage=Y",
        "TransactionId=hksb%20CANARY%2F1",
        "Signature=",
    ] {
        assert!(target.contains(part), "{part} in {target}");
    }
    assert_eq!(header(&seen[0], "authorization"), None);
}

#[tokio::test]
async fn the_code_decides_before_the_status() {
    let replies = vec![
        answer(
            "404 Not Found",
            "",
            r#"{"RequestId":"R","HostId":"h","Code":"ProcessNotCompleted","Message":"CANARY"}"#,
        ),
        answer("403 Forbidden", "x-acs-retry-after: 1500\r\n", r#"{"Code":"Throttling.Api","Message":"CANARY"}"#),
        answer("400 Bad Request", "", r#"{"code":"TransactionIdInvalid"}"#),
        answer(
            "400 Bad Request",
            "content-type: text/xml\r\n",
            "<Error><Code>SignatureDoesNotMatch</Code><Message>CANARY</Message></Error>",
        ),
        answer("403 Forbidden", "", r#"{"Code":"Forbidden.AccountAccessDenied"}"#),
        answer("429 Too Many Requests", "x-acs-retry-after: 20\r\n", "slow down"),
        answer("200 OK", "", r#"{"Code":"InternalError"}"#),
        answer("500 Internal Server Error", "", PASSED),
        answer("200 OK", "", r#"{"Code":"200","Result":{"Passed":"N","SubCode":"204"}}"#),
        answer("200 OK", "", r#"{"Code":"Success"}"#),
        answer("200 OK", "", r#"{"Result":{"Passed":"Y"}}"#),
    ];
    assert_eq!(
        ask(replies).await.iter().map(line).collect::<Vec<_>>(),
        [
            "running ProcessNotCompleted",
            "throttled Throttling.Api Some(1.5s)",
            "refused TransactionIdInvalid",
            "bad_signature SignatureDoesNotMatch",
            "not_activated Forbidden.AccountAccessDenied",
            "throttled http_429 Some(20ms)",
            "unavailable InternalError",
            "unavailable Success",
            "failed",
            "unavailable result_missing",
            "unavailable http_200",
        ]
    );
}

#[tokio::test]
async fn an_unreadable_answer_is_a_fault_that_passes() {
    let replies = vec![
        answer("200 OK", "", ""),
        answer("200 OK", "content-type: text/html\r\n", "<html>login</html>"),
        answer("200 OK", "", &PASSED[..40]),
        answer("200 OK", "", "\u{1}\u{2}garbage"),
        answer("502 Bad Gateway", "", "<html>502</html>"),
    ];
    assert_eq!(
        ask(replies).await.iter().map(line).collect::<Vec<_>>(),
        [
            "unavailable unreadable_answer",
            "unavailable unreadable_answer",
            "unavailable unreadable_answer",
            "unavailable unreadable_answer",
            "unavailable http_502",
        ]
    );
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let replies = vec![
        answer("302 Found", "location: /other\r\n", ""),
        answer("307 Temporary Redirect", "location: /other\r\n", ""),
    ];
    let (outcomes, seen) = ask_with(Signature::Acs3, None, false, short(), replies).await;
    assert_eq!(outcomes.iter().map(line).collect::<Vec<_>>(), ["unavailable http_302", "unavailable http_307"]);
    assert!(seen.iter().all(|head| head.starts_with("POST /?")), "{seen:?}");
}

#[tokio::test]
async fn a_connection_that_breaks_is_a_fault_that_passes() {
    let cut = format!("HTTP/1.1 200 OK\r\ncontent-length: 400\r\n\r\n{PASSED}").into_bytes();
    let replies = vec![
        Reply::Bytes(Vec::new()),
        Reply::Bytes(b"HTTP/1.1 200".to_vec()),
        Reply::Bytes(b"SSH-2.0\r\n\r\n".to_vec()),
        Reply::Bytes(cut),
    ];
    for outcome in ask(replies).await {
        assert_eq!(line(&outcome), "unavailable connection_broken");
    }
}

#[tokio::test]
async fn the_time_limit_covers_the_whole_answer() {
    let http = HttpSettings { total: Duration::from_millis(100), ..short() };
    let started = format!("HTTP/1.1 200 OK\r\ncontent-length: 400\r\n\r\n{PASSED}").into_bytes();
    let replies = vec![Reply::Hang(Vec::new()), Reply::Hang(started)];
    let (outcomes, _) = ask_with(Signature::Acs3, None, false, http, replies).await;
    assert_eq!(outcomes.iter().map(line).collect::<Vec<_>>(), ["unavailable timeout", "unavailable timeout"]);
}

#[tokio::test]
async fn an_answer_over_the_limit_is_refused_whether_announced_or_not() {
    // Announced: refused without waiting for bytes that never come. Not announced: refused once there are too many.
    let announced = b"HTTP/1.1 200 OK\r\ncontent-length: 4097\r\n\r\n".to_vec();
    let chunk = format!("{:x}\r\n{}\r\n", 1024, "x".repeat(1024));
    let chunked = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{}", chunk.repeat(5)).into_bytes();
    let http = HttpSettings { total: Duration::from_secs(20), ..short() };
    let replies = vec![Reply::Hang(announced), Reply::Hang(chunked)];
    let (outcomes, _) = ask_with(Signature::Acs3, None, false, http, replies).await;
    assert_eq!(
        outcomes.iter().map(line).collect::<Vec<_>>(),
        ["unavailable body_too_large", "unavailable body_too_large"]
    );
    let padded = format!("{PASSED}{}", " ".repeat(4096 - PASSED.len()));
    assert_eq!(line(&ask(vec![answer("200 OK", "", &padded)]).await[0]), "passed");
}

#[tokio::test]
async fn nobody_listening_is_a_fault_that_passes() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let client = AlibabaClient::new(
        settings(Signature::Acs3, &address, None),
        HttpClient::new(short()).unwrap(),
        Clock::manual(start()),
        Entropy::seeded(1),
    );
    let outcome = client.check_result(&request()).await;
    assert_eq!(line(&outcome), "unavailable connect_failed");
    assert!(!format!("{outcome:?} {}", outcome.as_ref().unwrap_err()).contains("CANARY"));
}

#[tokio::test]
async fn an_http_error_shows_no_url() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/?TransactionId=CANARY", listener.local_addr().unwrap());
    drop(listener);
    let client = HttpClient::new(short()).unwrap();
    let error = client
        .send(http::Method::POST, url.parse().unwrap(), http::HeaderMap::new(), bytes::Bytes::new())
        .await
        .unwrap_err();
    let mut shown = format!("{error:?} {error}");
    let mut cause: Option<&dyn std::error::Error> = std::error::Error::source(&error);
    assert!(cause.is_some());
    while let Some(error) = cause {
        shown.push_str(&error.to_string());
        cause = error.source();
    }
    assert!(!shown.contains("CANARY"), "{shown}");
}

fn refused_time(date: DateTime<Utc>) -> Reply {
    let date = date.format("date: %a, %d %b %Y %H:%M:%S GMT\r\n").to_string();
    answer("400 Bad Request", &date, r#"{"Code":"InvalidTimeStamp.Expired"}"#)
}

#[tokio::test]
async fn a_refused_time_is_corrected_once_from_the_providers_date() {
    let theirs = start() - TimeDelta::days(31);
    let replies = vec![refused_time(theirs), answer("200 OK", "", PASSED), refused_time(theirs)];
    let (outcomes, seen) = ask_with(Signature::Acs3, None, false, short(), replies).await;
    assert_eq!(
        outcomes.iter().map(line).collect::<Vec<_>>(),
        ["unavailable InvalidTimeStamp.Expired", "passed", "clock_skew InvalidTimeStamp.Expired"]
    );
    let dates: Vec<_> = seen.iter().map(|head| header(head, "x-acs-date").unwrap()).collect();
    assert_eq!(dates, ["2026-01-15T08:30:00Z", "2025-12-15T08:30:00Z", "2025-12-15T08:30:00Z"]);
}

#[tokio::test]
async fn a_date_that_does_not_help_is_not_taken() {
    let ahead = "date: Tue, 15 Jan 2036 08:30:00 GMT\r\n";
    let replies = vec![
        refused_time(start() + TimeDelta::seconds(59)),
        refused_time(start() + TimeDelta::days(401)),
        answer("400 Bad Request", "date: soon\r\n", r#"{"Code":"InvalidTimeStamp.Format"}"#),
        answer("400 Bad Request", "", r#"{"Code":"InvalidTimeStamp.Expired"}"#),
        answer("500 Internal Server Error", ahead, r#"{"Code":"InternalError"}"#),
        answer("200 OK", "", PASSED),
    ];
    let (outcomes, seen) = ask_with(Signature::Acs3, None, false, short(), replies).await;
    for outcome in &outcomes[..4] {
        assert!(matches!(outcome, Err(ProviderError::Account { trouble: Trouble::ClockSkew, .. })), "{outcome:?}");
    }
    assert!(seen.iter().all(|head| header(head, "x-acs-date") == Some("2026-01-15T08:30:00Z")));
}

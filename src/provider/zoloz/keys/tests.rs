use serde_json::Value;

use super::*;

// Throw-away keys, made for these tests alone.
const EC_PRIVATE: &str = "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgXD4p2VZOspaRn6IoxsrxHKJ4ycK1KKhnPht/CRmtKXKhRANCAAQJ\
    X8q4n7qy7eRI2kLJHck22IYqsV/pSAqOSgeV//9xTN3LSHMFekh7DHSlBViO7Xx5Fad8aQxLZ3wN8WYog5N8";
const EC_PUBLIC: &str = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAECV/KuJ+6su3kSNpCyR3JNtiGKrFf6UgKjkoHlf//cUzdy0hzBXpIewx0pQVYju18\
    eRWnfGkMS2d8DfFmKIOTfA==";
const RSA_1024_PRIVATE: &str = "MIICdQIBADANBgkqhkiG9w0BAQEFAASCAl8wggJbAgEAAoGBAK2/aPMhSBCIEqAnQl1G874ecXjeRT7eauJ9bmIbYRiUOmeFWzPS\
    I09rwtVGQ/ovUAH2vwsrKyqhpUZXCpU+axJbPPz78mNYDDRPC2EYIWzVdaQDuX65z7ckdcbhDkPNoGrShHKhi496pyb651nkyvEH\
    lT+bG+h176uswQij8/svAgMBAAECgYAoW7jOGOH7bRAegWAJ+KwvcjTbZY3iH5nmSEp2oXN5WR0D5Ncdf2dSUG6uSacKmyjTe/Q+\
    bOWW/ns8joVXy2rlM6j8GJMmw1wuazYA2PHbB8zds2w6F3F1a3Kts4yQDl/11CEzkp/5ibIq/TrwjBErykmvCFCkm4Xqs48ziYDE\
    2QJBANfihWe+2VXey14L7CjEE42o4DcF5x8fgvM0Qe/UKy7KNJts9iIADmYn3cuEwFaykuZ3NlWjGxzm8yyPh22SxzMCQQDOCHTU\
    ERwWEopmY0vaUK+sZhuG+xrUh0HzM2hZoxsk3YG8wALVJjtHl1bId+kHzVWLjw47eK+LvonkzyArH8wVAkAZVAlEz75d9cK0aP+v\
    FLoaj6qmqfmgzCin8gSeZ60dUzny1kjWWl1WHO1HuG58fX0ArxHf4EAJFwuGudwwvdzDAkBg/qApegiT55SaUSLTm2qoqcVJzYs7\
    BJYqrUfx8xSDTXiXaHms6Pu9X2TuqWzeTG96bRWRL+bMzh3SxyPoyWZlAkAFKpm1pcwb4cAcitMH6k3s3tqAZOJ73KjdeiqEKx07\
    xd3x0bFlNroZsz1Ck7wEcUrZE+ky8EoSyCCzndITdDot";
const RSA_1024_PUBLIC: &str = "MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQCtv2jzIUgQiBKgJ0JdRvO+HnF43kU+3mrifW5iG2EYlDpnhVsz0iNPa8LVRkP6\
    L1AB9r8LKysqoaVGVwqVPmsSWzz8+/JjWAw0TwthGCFs1XWkA7l+uc+3JHXG4Q5DzaBq0oRyoYuPeqcm+udZ5MrxB5U/mxvode+r\
    rMEIo/P7LwIDAQAB";

fn vectors() -> Value {
    serde_json::from_str(include_str!("../../../../tests/vectors/zoloz.json")).unwrap()
}

fn key(owner: &str, name: &str) -> String {
    vectors()["keys"][owner][name].as_str().unwrap().to_owned()
}

fn private() -> String {
    key("merchant", "private_key_pkcs8_pem")
}

fn public() -> String {
    key("merchant", "public_key_spki_pem")
}

fn base64(pem: &str) -> String {
    pem.lines().filter(|line| !line.starts_with('-')).collect()
}

/// The key inside PKCS#8 or `SubjectPublicKeyInfo`, which both end with it.
fn inner(pem: &str, start: usize) -> String {
    use base64::engine::general_purpose::STANDARD;
    STANDARD.encode(&STANDARD.decode(base64(pem)).unwrap()[start..])
}

#[test]
fn a_key_is_read_in_every_usual_form() {
    let (private, public) = (private(), public());
    let (pkcs1_private, pkcs1_public) = (inner(&private, 26), inner(&public, 24));
    for text in [
        private.clone(),
        base64(&private),
        format!("  {}\n", base64(&private).trim_end_matches('=')),
        private.replace('\n', "\\n"),
        private.replace('\n', "\r\n"),
        format!("Bag Attributes\n    friendlyName: x\n{private}"),
        pkcs1_private.clone(),
        format!("-----BEGIN RSA PRIVATE KEY-----\n{pkcs1_private}\n-----END RSA PRIVATE KEY-----\n"),
    ] {
        MerchantKey::read(&text).unwrap_or_else(|error| panic!("{error}: {}", &text[..30]));
    }
    for text in [
        public.clone(),
        base64(&public),
        pkcs1_public.clone(),
        format!("-----BEGIN RSA PUBLIC KEY-----\n{pkcs1_public}\n-----END RSA PUBLIC KEY-----\n"),
    ] {
        ZolozKey::read(&text).unwrap_or_else(|error| panic!("{error}: {}", &text[..30]));
    }
}

#[test]
fn what_is_no_private_key_is_refused_with_its_reason() {
    let (private, public) = (private(), public());
    let relabelled = |label: &str| private.replace("PRIVATE KEY", label);
    for (text, error) in [
        ("", KeyError::NotAKey),
        ("not base64 at all!", KeyError::NotAKey),
        ("aGVsbG8gd29ybGQ=", KeyError::Damaged),
        (&private[..200], KeyError::Damaged),
        (&base64(&private)[..200], KeyError::Damaged),
        (&public, KeyError::PublicKey),
        (&base64(&public), KeyError::PublicKey),
        (&format!("{private}{private}"), KeyError::SeveralKeys),
        (&relabelled("CERTIFICATE"), KeyError::Certificate),
        (&relabelled("ENCRYPTED PRIVATE KEY"), KeyError::Encrypted),
        (&relabelled("EC PRIVATE KEY"), KeyError::NotRsa),
        (EC_PRIVATE, KeyError::NotRsa),
        (RSA_1024_PRIVATE, KeyError::TooShort),
        (
            "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nAAAA\n-----END RSA PRIVATE KEY-----",
            KeyError::Encrypted,
        ),
    ] {
        assert_eq!(MerchantKey::read(text).unwrap_err(), error, "{}", &text[..text.len().min(40)]);
    }
}

#[test]
fn what_is_no_public_key_is_refused_with_its_reason() {
    let (private, public) = (private(), public());
    for (text, error) in [
        ("", KeyError::NotAKey),
        (&public[..100], KeyError::Damaged),
        (&private, KeyError::PrivateKey),
        (&base64(&private), KeyError::PrivateKey),
        (&public.replace("PUBLIC KEY", "CERTIFICATE"), KeyError::Certificate),
        (EC_PUBLIC, KeyError::NotRsa),
        (RSA_1024_PUBLIC, KeyError::TooShort),
    ] {
        assert_eq!(ZolozKey::read(text).unwrap_err(), error, "{}", &text[..text.len().min(40)]);
    }
}

#[test]
fn neither_debug_output_nor_an_error_shows_a_key() {
    let (private, public) = (private(), public());
    let shown = format!("{:?} {:?}", MerchantKey::read(&private).unwrap(), ZolozKey::read(&public).unwrap());
    assert_eq!(shown, "MerchantKey(redacted) ZolozKey(redacted)");
    let broken = format!("{}CANARY", base64(&private));
    let error = MerchantKey::read(&broken).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("CANARY"));
}

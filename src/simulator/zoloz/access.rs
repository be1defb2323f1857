//! Who calls, and in which of the two modes: the signature of a request is checked, its body decrypted, and the answer
//! signed and encrypted as the request was.

use std::borrow::Cow;

use anyhow::Context as _;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Response, header};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Map, Value};

use super::clients::{AccessKey, Client, ZolozKeys};
use super::keys::PrivateKey;
use super::{cipher, sign};
use crate::simulator::faults::FaultKind;

/// How far a caller's clock may be off. The provider does not say; this is what Alibaba allows.
const WINDOW: TimeDelta = TimeDelta::minutes(15);
const JSON: &str = "application/json; charset=UTF-8";
const ENCRYPTED: &str = "text/plain; charset=UTF-8";

/// Why a call is refused, in the provider's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: Cow<'static, str>,
    pub(super) message: String,
}

impl Refusal {
    pub(super) fn new(code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into() }
    }

    pub(super) fn missing(name: &str) -> Self {
        Self::new("PARAM_MISSING", format!("{name} is missing"))
    }

    pub(super) fn illegal(name: &str) -> Self {
        Self::new("PARAM_ILLEGAL", format!("{name} is not valid"))
    }
}

/// A caller that names a client and, in AK/SK mode, an access key that exist. Whether it is the client, its signature
/// shows.
pub(super) struct Caller<'k> {
    pub(super) client: &'k Client,
    /// In AK/SK mode.
    access_key: Option<&'k AccessKey>,
}

/// A request as it was meant.
pub(super) struct Message {
    pub(super) text: String,
    pub(super) members: Map<String, Value>,
    /// The length of the AES key, when the request was encrypted.
    pub(super) key_length: Option<usize>,
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).and_then(|value| value.to_str().ok()).filter(|value| !value.is_empty())
}

impl<'k> Caller<'k> {
    /// A refusal here is answered unsigned: nobody is there to sign for.
    pub(super) fn identify(keys: &'k ZolozKeys, headers: &HeaderMap) -> Result<Self, Refusal> {
        let client = text(headers, "client-id")
            .and_then(|id| keys.client(id))
            .ok_or_else(|| Refusal::new("MERCHANT_NOT_FOUND", "the merchant does not exist"))?;
        let access_key = match text(headers, "auth-type") {
            None => None,
            Some("AKSK") => {
                let name = text(headers, "access-key");
                let found = client.access_keys.iter().find(|key| Some(&*key.name) == name);
                Some(found.ok_or_else(|| Refusal::new("KEY_NOT_FOUND", "the access key does not exist"))?)
            }
            Some(_) => return Err(Refusal::new("KEY_NOT_FOUND", "the auth type is not known")),
        };
        Ok(Self { client, access_key })
    }

    /// The signature over what came.
    pub(super) fn check(&self, path: &str, headers: &HeaderMap, body: &[u8]) -> Result<(), Refusal> {
        let wrong = || Refusal::new("SIGNATURE_INVALID", "the signature is not valid");
        let time = text(headers, "request-time").ok_or_else(|| Refusal::missing("Request-Time"))?;
        let signature = text(headers, "signature").ok_or_else(wrong)?;
        let content = sign::content(path, &self.client.id, time, body);
        let right = match self.access_key {
            Some(key) => sign::hmac_verifies(&key.hmac, &content, signature),
            None => {
                sign::read_signature(signature).is_some_and(|bytes| self.client.merchant.verifies(&content, &bytes))
            }
        };
        if right { Ok(()) } else { Err(wrong()) }
    }

    /// What a request with a right signature says.
    pub(super) fn open(&self, headers: &HeaderMap, body: &[u8]) -> Result<Message, Refusal> {
        let wrong = |what: &str| Refusal::new("MSG_PARSE_ERROR", what);
        let (plain, key_length) = match text(headers, "encrypt") {
            None => (Cow::Borrowed(body), None),
            Some(encrypt) => {
                // One answer for all that can go wrong here: to tell more would help to break the encryption.
                let opened = || {
                    let allowed = self.access_key.is_none();
                    let key = self.client.own.unwrap_key(&sign::read_encrypt(encrypt).filter(|_| allowed)?)?;
                    Some((cipher::decrypt(&key, body)?, key.len()))
                };
                let (plain, length) = opened().ok_or_else(|| wrong("the message cannot be decrypted"))?;
                (Cow::Owned(plain), Some(length))
            }
        };
        let text = String::from_utf8(plain.into_owned()).map_err(|_| wrong("the message is not UTF-8"))?;
        let members = serde_json::from_str(&text).map_err(|_| wrong("the message is not a JSON object"))?;
        Ok(Message { text, members, key_length })
    }

    /// The answer, signed over the bytes that are sent. `key`: the AES key it is encrypted with. `flaw`: what is made
    /// wrong on purpose; `stranger` gives another key to sign with.
    pub(super) fn seal(
        &self,
        path: &str,
        now: DateTime<Utc>,
        plain: String,
        key: Option<&[u8]>,
        flaw: Option<FaultKind>,
        stranger: impl FnOnce() -> anyhow::Result<PrivateKey>,
    ) -> anyhow::Result<Response<Body>> {
        let (mut body, content_type) = match key {
            Some(key) => (cipher::encrypt(key, plain.into_bytes()).context("encryption")?.into_bytes(), ENCRYPTED),
            None => (plain.into_bytes(), JSON),
        };
        let time = sign::write_time(now);
        let content = sign::content(path, &self.client.id, &time, &body);
        let wrong_key = flaw == Some(FaultKind::WrongKey);
        let signature = match self.access_key {
            Some(_) if wrong_key => sign::hmac_signature(&sign::hmac_key("AAAA").context("a short key")?, &content),
            Some(key) => sign::hmac_signature(&key.hmac, &content),
            None if wrong_key => sign::signature_header(&stranger()?.sign(&content).context("signing")?),
            None => sign::signature_header(&self.client.own.sign(&content).context("signing")?),
        };
        if flaw == Some(FaultKind::Tamper) {
            tamper(&mut body);
        }
        let mut response = respond(body, content_type);
        let headers = response.headers_mut();
        headers.insert("response-time", HeaderValue::try_from(time)?);
        if flaw != Some(FaultKind::Unsigned) {
            headers.insert("signature", HeaderValue::try_from(signature)?);
        }
        if let Some(key) = key {
            let wrapped = self.client.merchant.wrap_key(key).context("wrapping")?;
            headers.insert("encrypt", HeaderValue::try_from(sign::encrypt_header(&wrapped))?);
        }
        Ok(response)
    }
}

/// The provider answers everything with 200.
fn respond(body: Vec<u8>, content_type: &'static str) -> Response<Body> {
    let mut response = Response::new(body.into());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// An answer nobody signed.
pub(super) fn unsigned(body: String) -> Response<Body> {
    respond(body.into_bytes(), JSON)
}

/// The time of a request with a right signature.
pub(super) fn check_time(headers: &HeaderMap, now: DateTime<Utc>) -> Result<(), Refusal> {
    let signed_at = text(headers, "request-time").and_then(sign::read_time);
    let signed_at = signed_at.ok_or_else(|| Refusal::illegal("Request-Time"))?;
    if (now - signed_at).abs() > WINDOW {
        return Err(Refusal::new("ACCESS_DENIED", "Request-Time is too far from the time of the server"));
    }
    Ok(())
}

/// Changes one character in the second half and inside a text, so that JSON stays JSON and Base64 stays Base64.
fn tamper(body: &mut [u8]) {
    let middle = body.len() / 2;
    let is_json = body.starts_with(b"{");
    let (mut inside, mut escaped) = (!is_json, false);
    for (at, byte) in body.iter_mut().enumerate() {
        match *byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => inside = !inside,
            old if inside && at >= middle && old.is_ascii_alphanumeric() => {
                *byte = if old == b'A' { b'B' } else { b'A' };
                return;
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tampering_changes_one_character_and_leaves_json() {
        for good in [
            r#"{"result":{"resultStatus":"S"},"connectResult":"Failure"}"#,
            r#"{"message":"aaaaaaaaaaaa\"","faceAttack":false,"faceScore":12.75,"n":1,"text":"b"}"#,
        ] {
            let mut body = good.as_bytes().to_vec();
            tamper(&mut body);
            assert_eq!(good.bytes().zip(&body).filter(|(before, after)| before != *after).count(), 1);
            assert!(serde_json::from_slice::<Value>(&body).is_ok(), "{}", String::from_utf8_lossy(&body));
        }
        let mut base64 = b"AAAA////AAAA".to_vec();
        tamper(&mut base64);
        assert!(base64.starts_with(b"AAAA////") && base64 != b"AAAA////AAAA");
    }
}

//! One call through the provider's gateway: signed, encrypted if the account says so, and its answer verified.
//!
//! No answer without a valid signature says anything about a verification. What is believed of such an answer only
//! delays: a status, and that the gateway does not know the account. Whoever stands in the middle could delay anyway.

use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use http::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use url::Url;

use super::answer::{self, Auth, ENCRYPT, Refusal, SIGNATURE};
use super::sign::{self, Content};
use super::{cipher, codes};
use crate::clock::Clock;
use crate::domain::{ProviderError, Trouble};
use crate::entropy::Entropy;
use crate::provider::http::{HttpAnswer, HttpClient};

const CLIENT_ID: HeaderName = HeaderName::from_static("client-id");
const REQUEST_TIME: HeaderName = HeaderName::from_static("request-time");
const AUTH_TYPE: HeaderName = HeaderName::from_static("auth-type");
const ACCESS_KEY: HeaderName = HeaderName::from_static("access-key");
const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=UTF-8");
const CIPHERTEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=UTF-8");

/// Clocks that differ by more may be why a signature is refused.
const CLOCK_TOLERANCE: TimeDelta = TimeDelta::minutes(5);
/// The longest wait that is taken from an answer.
const LONGEST_WAIT: Duration = Duration::from_hours(1);
/// An answer that is not verified is looked into for its code only up to this length.
const LONGEST_DIAGNOSIS: usize = 64 << 10;

#[derive(Debug)]
pub struct ZolozSettings {
    /// Without path.
    pub endpoint: Url,
    /// Plain ASCII.
    pub client_id: String,
    pub auth: Auth,
}

/// One account's way to the provider.
#[derive(Debug)]
pub struct Gateway {
    settings: ZolozSettings,
    http: HttpClient,
    clock: Clock,
    entropy: Entropy,
}

impl Gateway {
    pub fn new(settings: ZolozSettings, http: HttpClient, clock: Clock, entropy: Entropy) -> Self {
        Self { settings, http, clock, entropy }
    }

    /// Makes one call: `body` is JSON. Brings the JSON of the answer, which was verified; what it says is left to the
    /// caller.
    pub async fn call(&self, path: &str, body: Bytes) -> Result<Bytes, ProviderError> {
        self.open(path, self.send(path, body).await?)
    }

    /// The first half of a call: sends the request, encrypted if the account says so and signed with a fresh time.
    pub async fn send(&self, path: &str, body: Bytes) -> Result<HttpAnswer, ProviderError> {
        let (headers, body) = self
            .request(path, body)
            .map_err(|_| unavailable("request_signing", "the request could not be signed or encrypted"))?;
        let mut url = self.settings.endpoint.clone();
        url.set_path(path);
        let sent = self.http.send(http::Method::POST, url, headers, body).await;
        sent.map_err(|error| unavailable(error.code(), &error.to_string()))
    }

    /// The second half: verifies and decrypts the answer. Takes long for a large one.
    pub fn open(&self, path: &str, answer: HttpAnswer) -> Result<Bytes, ProviderError> {
        let auth = &self.settings.auth;
        if let Err(refusal) = answer::verify(auth, path, &self.settings.client_id, &answer) {
            return Err(self.unverified(&answer, refusal));
        }
        let (status, retry_after, is_skewed) = (answer.status.as_u16(), retry_after(&answer), self.is_skewed(&answer));
        let body = answer::read(auth, &self.entropy, answer).map_err(|refusal| {
            of_status(status, retry_after).unwrap_or_else(|| unavailable(refusal.code(), &refusal.to_string()))
        })?;
        // An error may well come with a status of its own; its code says more than that.
        match result_code(&body) {
            Some(code) if is_skewed && is_signature_refused(&code) => {
                Err(ProviderError::Account { trouble: Trouble::ClockSkew, code: codes::shown(&code) })
            }
            None => of_status(status, retry_after).map_or(Ok(body), Err),
            Some(_) => Ok(body),
        }
    }

    fn request(&self, path: &str, plain: Bytes) -> Result<(HeaderMap, Bytes), aws_lc_rs::error::Unspecified> {
        let time = sign::wire_time(self.clock.now());
        let client_id = &*self.settings.client_id;
        let mut headers = HeaderMap::with_capacity(8);
        headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
        headers.insert(CLIENT_ID, plain_value(client_id));
        headers.insert(REQUEST_TIME, plain_value(&time));
        headers.insert(CONTENT_TYPE, JSON);
        let mut body = plain;
        let signature = match &self.settings.auth {
            Auth::Rsa { merchant, zoloz, encrypt } => {
                if *encrypt {
                    let (sealed, header) = cipher::seal(zoloz, &self.entropy, &body)?;
                    body = sealed;
                    headers.insert(ENCRYPT, secret_value(&header));
                    headers.insert(CONTENT_TYPE, CIPHERTEXT);
                }
                sign::rsa256(merchant, &Content { path, client_id, time: &time, body: &body })?
            }
            Auth::AkSk(key) => {
                headers.insert(AUTH_TYPE, HeaderValue::from_static("AKSK"));
                headers.insert(ACCESS_KEY, secret_value(key.id()));
                key.sign(&Content { path, client_id, time: &time, body: &body })
            }
        };
        headers.insert(SIGNATURE, secret_value(&signature));
        Ok((headers, body))
    }

    /// What is made of an answer that does not count.
    fn unverified(&self, answer: &HttpAnswer, refusal: Refusal) -> ProviderError {
        let status = answer.status.as_u16();
        if status == 429 {
            return ProviderError::Throttled { code: "http_429".to_owned(), retry_after: retry_after(answer) };
        }
        if is_html(answer) {
            let reason = "a web page came instead of an answer: the provider's firewall, or a proxy in between, \
                          refused the call";
            return unavailable("html_answer", reason);
        }
        if let Some(code) = result_code(&answer.body)
            && let Some(trouble) = codes::credential_trouble(&code)
        {
            let skewed = is_signature_refused(&code) && self.is_skewed(answer);
            let trouble = if skewed { Trouble::ClockSkew } else { trouble };
            return ProviderError::Account { trouble, code: codes::shown(&code) };
        }
        of_status(status, retry_after(answer)).unwrap_or_else(|| unavailable(refusal.code(), &refusal.to_string()))
    }

    fn is_skewed(&self, answer: &HttpAnswer) -> bool {
        let theirs = answer.header("date").and_then(|date| DateTime::parse_from_rfc2822(date).ok());
        theirs.is_some_and(|theirs| (theirs.with_timezone(&Utc) - self.clock.now()).abs() > CLOCK_TOLERANCE)
    }
}

fn is_signature_refused(code: &str) -> bool {
    codes::credential_trouble(code) == Some(Trouble::BadSignature)
}

/// What a status says that is no success, where nothing else says more.
fn of_status(status: u16, retry_after: Option<Duration>) -> Option<ProviderError> {
    let code = format!("http_{status}");
    Some(match status {
        200..=299 => return None,
        429 => ProviderError::Throttled { code, retry_after },
        408 => unavailable(&code, "it ran out of time"),
        400..=499 => ProviderError::Account { trouble: Trouble::Configuration, code },
        300..=399 => unavailable(&code, "it redirects, which is not followed; is the endpoint right?"),
        _ => unavailable(&code, "it, or a gateway before it, reports a fault"),
    })
}

fn unavailable(code: &str, reason: &str) -> ProviderError {
    ProviderError::Unavailable { code: code.to_owned(), reason: reason.to_owned() }
}

/// `Retry-After` in seconds.
fn retry_after(answer: &HttpAnswer) -> Option<Duration> {
    let seconds = answer.header("retry-after")?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST_WAIT))
}

fn is_html(answer: &HttpAnswer) -> bool {
    let said = answer.header("content-type").and_then(|kind| kind.trim_start().get(..9));
    said.is_some_and(|kind| kind.eq_ignore_ascii_case("text/html")) || answer.body.trim_ascii_start().starts_with(b"<")
}

fn result_code(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Envelope {
        result: ResultPart,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct ResultPart {
        result_code: String,
    }
    if body.len() > LONGEST_DIAGNOSIS {
        return None;
    }
    serde_json::from_slice::<Envelope>(body).ok().map(|envelope| envelope.result.result_code)
}

fn plain_value(value: &str) -> HeaderValue {
    HeaderValue::from_str(value).expect("settings are checked to be plain text, and the rest is made of it")
}

/// Shown as `Sensitive` by whoever prints headers.
fn secret_value(value: &str) -> HeaderValue {
    let mut value = plain_value(value);
    value.set_sensitive(true);
    value
}

//! Alibaba Cloud ID Verification (Cloudauth-intl, API version 2022-08-09), as a [`Provider`].
//!
//! One attempt is one call, because calls are budgeted; whoever asked decides about the next one. Images and links are
//! taken out of an answer while it is read; those that are evidence go beside the finding.

pub mod callback;
pub mod codes;
pub mod credentials;
mod delete;
pub mod endpoint;
mod initialize;
pub mod outcome;
pub mod sign;
mod verify_log;
pub mod wire;

use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue};
use secrecy::ExposeSecret;
use serde_json::{Map, Value};

use crate::clock::Clock;
use crate::domain::{Outcome, ProviderError, Trouble};
use crate::entropy::Entropy;

use self::credentials::SigningKeys;
use self::endpoint::Endpoint;
use self::sign::{Acs3Request, FORM_TYPE, Parameter, Signer};
use super::http::{HttpAnswer, HttpClient, HttpError};
use super::images::Wanted;
use super::initialize::{Beside, InitializeAnswer, InitializeRequest, Prepared, WrongMember};
use super::{Answer, CheckRequest, DeleteAnswer, Explanation, Probe, Provider, read_body};

const VERSION: &str = "2022-08-09";
const METHOD: &str = "POST";

const ACTION: HeaderName = HeaderName::from_static("x-acs-action");
const API_VERSION: HeaderName = HeaderName::from_static("x-acs-version");
const DATE: HeaderName = HeaderName::from_static("x-acs-date");
const NONCE: HeaderName = HeaderName::from_static("x-acs-signature-nonce");
const CONTENT_SHA256: HeaderName = HeaderName::from_static("x-acs-content-sha256");
const ACCESS_KEY_ID: HeaderName = HeaderName::from_static("x-acs-accesskey-id");
const SECURITY_TOKEN: HeaderName = HeaderName::from_static("x-acs-security-token");

/// A correction is kept only if it moves the signed time by more than this.
const SMALLEST_CORRECTION: TimeDelta = TimeDelta::minutes(1);
/// Rehearsals move the clock by a month and more; what is beyond this is no clock but a broken header.
const LARGEST_CORRECTION: TimeDelta = TimeDelta::days(400);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signature {
    Acs3,
    HmacSha1,
}

#[derive(Clone, Debug)]
pub struct AlibabaSettings {
    pub endpoint: Endpoint,
    pub signature: Signature,
    /// A key of its own ([`credentials::Credentials`]), or the chain.
    pub credentials: SigningKeys,
    /// Ask for images with the result.
    pub images: bool,
}

/// One account. Shared by all who ask for it: the clock correction is the account's.
#[derive(Debug)]
pub struct AlibabaClient {
    endpoint: Endpoint,
    host: HeaderValue,
    signature: Signature,
    keys: SigningKeys,
    images: bool,
    http: HttpClient,
    clock: Clock,
    entropy: Entropy,
    /// Seconds to add to our clock before signing.
    correction: AtomicI64,
}

/// A readable answer of any operation.
struct Called {
    status: u16,
    retry_after: Option<String>,
    reading: wire::Reading,
    body: Bytes,
}

/// Why there is no readable answer.
enum NotCalled {
    Http(HttpError),
    /// Nothing was done: there is no key, or the signed time is refused.
    Before(ProviderError),
    Unreadable(HttpAnswer),
}

impl From<NotCalled> for ProviderError {
    fn from(error: NotCalled) -> Self {
        match error {
            NotCalled::Http(error) => Self::Unavailable { code: error.code().to_owned(), reason: error.to_string() },
            NotCalled::Before(error) => error,
            NotCalled::Unreadable(answer) => unreadable(&answer),
        }
    }
}

impl AlibabaClient {
    pub fn new(settings: AlibabaSettings, http: HttpClient, clock: Clock, entropy: Entropy) -> Self {
        let host = HeaderValue::from_str(settings.endpoint.host_header()).expect("a host from a URL is plain text");
        Self {
            host,
            endpoint: settings.endpoint,
            signature: settings.signature,
            keys: settings.credentials,
            images: settings.images,
            http,
            clock,
            entropy,
            correction: AtomicI64::new(0),
        }
    }

    async fn check(&self, request: &CheckRequest) -> Result<Outcome, ProviderError> {
        let query = [
            ("TransactionId", &*request.transaction_id),
            ("MerchantBizId", &*request.merchant_biz_id),
            ("IsReturnImage", "Y"),
        ];
        let query = if self.images { &query[..] } else { &query[..2] };
        let wanted = if self.images { wire::VIDEO_AND_IMAGES } else { wire::VIDEO };
        let mut called = self.call("CheckResult", query, &[], wanted).await?;
        let code = called.reading.code.as_deref();
        if called.status == 200 && code.is_some_and(codes::is_success) {
            called.reading.evidence.asked_for_images = self.images;
            return outcome::interpret(called.reading);
        }
        codes::classify(called.status, code, called.retry_after.as_deref())
    }

    /// Asks about a transaction that nobody has: whoever may ask at all is told that there is none.
    async fn ask_about_nothing(&self) -> Result<(), ProviderError> {
        let nobodys = self.entropy.hex32();
        let request = CheckRequest { transaction_id: nobodys.clone(), merchant_biz_id: nobodys, product: None };
        match self.check(&request).await {
            Ok(_) | Err(ProviderError::Refused { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Makes one signed call with a fresh time and nonce. A refused time is dealt with here, for all operations.
    async fn call(
        &self,
        operation: &str,
        query: &[Parameter<'_>],
        form: &[Parameter<'_>],
        wanted: Wanted,
    ) -> Result<Called, NotCalled> {
        let key = self.keys.current().await.map_err(NotCalled::Before)?;
        let correction = self.correction.load(Ordering::Relaxed);
        let time = self.clock.now() + TimeDelta::seconds(correction);
        let nonce = self.entropy.hex32();
        let (query, headers, body) = match self.signature {
            Signature::Acs3 => self.acs3(&key, operation, time, &nonce, query, form),
            Signature::HmacSha1 => self.rpc(&key, operation, time, &nonce, query, form),
        };
        let mut url = self.endpoint.base().clone();
        url.set_query(Some(&query));
        let answer = self.http.send(http::Method::POST, url, headers, body).await.map_err(NotCalled::Http)?;
        let status = answer.status.as_u16();
        let body = answer.body.clone();
        // A service that stops meanwhile has not read it.
        let Some(Ok(reading)) = read_body(body.len(), move || wire::read(&body, wanted)).await else {
            return Err(NotCalled::Unreadable(answer));
        };
        if reading.code.as_deref().is_some_and(codes::is_timestamp) {
            let code = reading.code.unwrap_or_default();
            return Err(NotCalled::Before(self.correct_clock(answer.header("date"), correction, code)));
        }
        if reading.code.as_deref().is_some_and(codes::is_of_the_key) {
            self.keys.doubt(&key);
        }
        let retry_after = answer.header("x-acs-retry-after").map(str::to_owned);
        Ok(Called { status, retry_after, reading, body: answer.body })
    }

    fn acs3(
        &self,
        key: &Signer,
        operation: &str,
        time: DateTime<Utc>,
        nonce: &str,
        query: &[Parameter<'_>],
        form: &[Parameter<'_>],
    ) -> (String, HeaderMap, Bytes) {
        let body = sign::encoded(form);
        let content_type = (!body.is_empty()).then_some(FORM_TYPE);
        let signed = key.acs3(&Acs3Request {
            method: METHOD,
            host: self.endpoint.host_header(),
            action: operation,
            version: VERSION,
            time,
            nonce,
            query,
            content_type,
            body: body.as_bytes(),
            headers: &[],
        });
        let mut headers = self.headers(content_type);
        headers.insert(API_VERSION, HeaderValue::from_static(VERSION));
        for (name, value) in
            [(ACTION, operation), (DATE, &*signed.date), (NONCE, nonce), (CONTENT_SHA256, &*signed.body_sha256)]
        {
            headers.insert(name, plain(value));
        }
        headers.insert(AUTHORIZATION, secret(&signed.authorization));
        let credentials = key.credentials();
        if let Some(token) = credentials.security_token() {
            headers.insert(ACCESS_KEY_ID, plain(credentials.access_key_id()));
            headers.insert(SECURITY_TOKEN, secret(token.expose_secret()));
        }
        (signed.query, headers, body.into())
    }

    fn rpc(
        &self,
        key: &Signer,
        operation: &str,
        time: DateTime<Utc>,
        nonce: &str,
        query: &[Parameter<'_>],
        form: &[Parameter<'_>],
    ) -> (String, HeaderMap, Bytes) {
        let date = sign::timestamp(time);
        let mut parameters = key.rpc_parameters(operation, VERSION, &date, nonce);
        parameters.extend_from_slice(query);
        let in_query = parameters.len();
        parameters.extend_from_slice(form);
        let signed = key.rpc(METHOD, &parameters);
        parameters.truncate(in_query);
        parameters.push(("Signature", &signed.signature));
        let body = sign::encoded(form);
        let headers = self.headers((!body.is_empty()).then_some(FORM_TYPE));
        (sign::encoded(&parameters), headers, body.into())
    }

    fn headers(&self, content_type: Option<&'static str>) -> HeaderMap {
        let mut headers = HeaderMap::with_capacity(12);
        headers.insert(HOST, self.host.clone());
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        if let Some(kind) = content_type {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        }
        headers
    }

    /// The provider refused the time signed with `used` as correction: takes its clock from the answer. If that is
    /// news, the next attempt may well succeed; if not, correcting does not help and somebody must look.
    fn correct_clock(&self, date: Option<&str>, used: i64, code: String) -> ProviderError {
        let theirs = date.and_then(|date| DateTime::parse_from_rfc2822(date).ok());
        let Some(theirs) = theirs else { return ProviderError::Account { trouble: Trouble::ClockSkew, code } };
        let needed = theirs.with_timezone(&Utc) - self.clock.now();
        let change = needed - TimeDelta::seconds(used);
        if needed.abs() > LARGEST_CORRECTION || change.abs() <= SMALLEST_CORRECTION {
            return ProviderError::Account { trouble: Trouble::ClockSkew, code };
        }
        self.correction.store(needed.num_seconds(), Ordering::Relaxed);
        ProviderError::Unavailable {
            code,
            reason: format!(
                "this machine's clock differs from the provider's by {} s; further calls are signed with the \
                 provider's time",
                needed.num_seconds()
            ),
        }
    }
}

impl Provider for AlibabaClient {
    fn check_result<'a>(&'a self, request: &'a CheckRequest) -> Answer<'a> {
        Box::pin(self.check(request))
    }

    fn probe(&self) -> Probe<'_> {
        Box::pin(self.ask_about_nothing())
    }

    fn explain<'a>(&'a self, request: &'a CheckRequest) -> Explanation<'a> {
        Box::pin(verify_log::explain(self, request))
    }

    fn delete<'a>(&'a self, request: &'a CheckRequest) -> DeleteAnswer<'a> {
        Box::pin(self.delete_result(request))
    }

    fn prepare(&self, members: Map<String, Value>, _: Beside<'_>) -> Result<Prepared, Vec<WrongMember>> {
        initialize::prepare(members)
    }

    fn initialize<'a>(&'a self, request: &'a InitializeRequest) -> InitializeAnswer<'a> {
        Box::pin(self.start(request))
    }

    fn is_billed(&self, sub_code: &str) -> Option<bool> {
        codes::is_billed(sub_code)
    }
}

/// Neither JSON nor the provider's XML: of a fault the status says more than that.
fn unreadable(answer: &HttpAnswer) -> ProviderError {
    let status = answer.status.as_u16();
    if answer.status.is_success() {
        let reason = "its answer is empty, cut off or not JSON".to_owned();
        return ProviderError::Unavailable { code: "unreadable_answer".to_owned(), reason };
    }
    match codes::classify(status, None, answer.header("x-acs-retry-after")) {
        Err(error) => error,
        Ok(_) => ProviderError::Unavailable { code: "unreadable_answer".to_owned(), reason: "no code".to_owned() },
    }
}

fn plain(value: &str) -> HeaderValue {
    HeaderValue::from_str(value).expect("keys were checked to be plain text, and the rest is made of it")
}

/// Shown as `Sensitive` by whoever prints headers.
fn secret(value: &str) -> HeaderValue {
    let mut value = plain(value);
    value.set_sensitive(true);
    value
}

#[cfg(test)]
mod tests;

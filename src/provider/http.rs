//! The one HTTP client that asks providers: time-outs, the size limit and the connection pool are set here.
//!
//! It follows no redirects (a signed request is for one host), uses no proxy (neither `HTTP_PROXY` and its
//! kin nor the system's), and never repeats a call whose request may have reached the provider. Errors hold
//! no URL, because a query names transactions. What an answer means is left to the adapters.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, StatusCode};
use reqwest::redirect::Policy;
use url::Url;

#[derive(Clone, Copy, Debug)]
pub struct HttpSettings {
    /// Until the connection stands, names and TLS included.
    pub connect: Duration,
    /// Until the last byte of the answer is here, connecting included.
    pub total: Duration,
    /// The longest body that is read, in bytes.
    pub max_body: usize,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self { connect: Duration::from_secs(5), total: Duration::from_secs(30), max_body: 64 << 20 }
    }
}

/// Shared by all accounts; clones share the connections.
#[derive(Clone, Debug)]
pub struct HttpClient {
    client: reqwest::Client,
    max_body: usize,
}

/// An answer, whatever its status.
pub struct HttpAnswer {
    pub status: StatusCode,
    pub body: Bytes,
    headers: HeaderMap,
}

impl HttpAnswer {
    pub fn new(status: StatusCode, headers: HeaderMap, body: Bytes) -> Self {
        Self { status, body, headers }
    }

    /// A header that is there and is plain text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

impl std::fmt::Debug for HttpAnswer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpAnswer")
            .field("status", &self.status)
            .field("bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    #[error("no connection could be made")]
    Connect(#[source] reqwest::Error),
    #[error("no whole answer came in time")]
    Timeout(#[source] reqwest::Error),
    #[error("the answer is longer than {limit} bytes")]
    BodyTooLarge { limit: usize },
    #[error("the connection broke or the answer is no HTTP")]
    Broken(#[source] reqwest::Error),
}

impl HttpError {
    /// A stable name for logs and histories.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Connect(_) => "connect_failed",
            Self::Timeout(_) => "timeout",
            Self::BodyTooLarge { .. } => "body_too_large",
            Self::Broken(_) => "connection_broken",
        }
    }
}

impl From<reqwest::Error> for HttpError {
    fn from(error: reqwest::Error) -> Self {
        let error = error.without_url();
        // Also when connecting took too long: what counts is that nothing was sent.
        if error.is_connect() {
            Self::Connect(error)
        } else if error.is_timeout() {
            Self::Timeout(error)
        } else {
            Self::Broken(error)
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the HTTP client cannot be built; are the system's root certificates installed?")]
pub struct BuildError(#[source] reqwest::Error);

impl HttpClient {
    pub fn new(settings: HttpSettings) -> Result<Self, BuildError> {
        #[expect(clippy::disallowed_methods, reason = "this is the one place that makes clients for providers")]
        let builder = reqwest::Client::builder();
        let client = builder
            .user_agent(concat!("checkback/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(settings.connect)
            .timeout(settings.total)
            .redirect(Policy::none())
            .referer(false)
            .retry(reqwest::retry::never())
            .no_proxy()
            .tcp_nodelay(true)
            .tcp_keepalive(Duration::from_secs(30))
            .pool_idle_timeout(Duration::from_secs(50))
            .build()
            .map_err(BuildError)?;
        Ok(Self { client, max_body: settings.max_body })
    }

    /// Makes one call. Every status is an answer; only the lack of a whole one is an error.
    pub async fn send(
        &self,
        method: Method,
        url: Url,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<HttpAnswer, HttpError> {
        let mut request = self.client.request(method, url).headers(headers);
        if !body.is_empty() {
            request = request.body(body);
        }
        let mut response = request.send().await?;
        let status = response.status();
        let body = self.read(&mut response).await?;
        Ok(HttpAnswer { status, body, headers: std::mem::take(response.headers_mut()) })
    }

    async fn read(&self, response: &mut reqwest::Response) -> Result<Bytes, HttpError> {
        let too_large = HttpError::BodyTooLarge { limit: self.max_body };
        let announced = response.content_length().unwrap_or(0);
        if announced > self.max_body as u64 {
            return Err(too_large);
        }
        // Most answers come in one piece, which then needs no copy.
        let Some(first) = response.chunk().await? else { return Ok(Bytes::new()) };
        if first.len() > self.max_body {
            return Err(too_large);
        }
        let Some(second) = response.chunk().await? else { return Ok(first) };
        let mut body = BytesMut::with_capacity(usize::try_from(announced).unwrap_or(0));
        body.extend_from_slice(&first);
        let mut next = Some(second);
        while let Some(chunk) = next {
            if body.len() + chunk.len() > self.max_body {
                return Err(too_large);
            }
            body.extend_from_slice(&chunk);
            next = response.chunk().await?;
        }
        Ok(body.freeze())
    }
}

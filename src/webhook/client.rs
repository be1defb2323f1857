//! The one client that sends events: its own connections, no proxy, no redirect, fifteen seconds for the whole.
//!
//! Errors hold no URL, which may hold a secret, and what is kept of an answer is in [`super::excerpt`].

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use reqwest::redirect::Policy;
use tokio::time::{Instant, timeout_at};
use url::Url;
use uuid::Uuid;

use super::address::{NoMetadata, Refused};
use super::excerpt::excerpt;
use super::sign::{SigningKey, signatures};

const CONNECT: Duration = Duration::from_secs(5);
/// The whole attempt, the answer included.
const TOTAL: Duration = Duration::from_secs(15);
/// Of the answer; a longer one is left, and its connection with it.
const MOST_READ: usize = 16 << 10;

/// Sends to all endpoints. Clones share the connections.
#[derive(Clone, Debug)]
pub struct WebhookClient {
    client: reqwest::Client,
    total: Duration,
}

/// What is sent to whom.
#[derive(Debug)]
pub struct Message<'a> {
    /// The same at each attempt.
    pub id: Uuid,
    pub url: &'a Url,
    pub body: String,
    /// At least one.
    pub keys: &'a [SigningKey],
    /// Of this attempt.
    pub at: DateTime<Utc>,
}

/// An attempt that is over.
#[derive(Debug)]
pub struct Sent {
    pub end: Result<Delivered, DeliveryError>,
    /// Of the answer.
    pub status: Option<u16>,
    pub duration: Duration,
    /// The beginning of the answer, redacted.
    pub answer: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivered;

/// Why an attempt failed. Each says itself what comes of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeliveryError {
    /// It wants nothing any more.
    #[error("the endpoint answered 410: it wants no more events")]
    Gone,
    #[error("the endpoint answered {status}; redirects are not followed")]
    Redirected { status: u16 },
    #[error("the endpoint answered {status}")]
    Refused { status: u16, retry_after: Option<Duration> },
    #[error("no answer came in time")]
    Timeout,
    #[error("no connection could be made")]
    Unreachable,
    #[error("the name of the endpoint leads to a metadata service")]
    Forbidden,
    #[error("the connection broke or the answer is no HTTP")]
    Broken,
}

impl DeliveryError {
    /// A stable name for metrics and histories.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::Redirected { .. } => "redirected",
            Self::Refused { .. } => "refused",
            Self::Timeout => "timeout",
            Self::Unreachable => "unreachable",
            Self::Forbidden => "forbidden",
            Self::Broken => "broken",
        }
    }

    /// How long the endpoint asks to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Nothing more may be sent there.
    pub fn disables(&self) -> bool {
        *self == Self::Gone
    }
}

impl From<reqwest::Error> for DeliveryError {
    fn from(error: reqwest::Error) -> Self {
        let mut cause = std::error::Error::source(&error);
        while let Some(found) = cause {
            if found.is::<Refused>() {
                return Self::Forbidden;
            }
            cause = found.source();
        }
        if error.is_connect() {
            Self::Unreachable
        } else if error.is_timeout() {
            Self::Timeout
        } else {
            Self::Broken
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the HTTP client for webhooks cannot be built; are the system's root certificates installed?")]
pub struct ClientError(#[source] reqwest::Error);

impl WebhookClient {
    pub fn new() -> Result<Self, ClientError> {
        Self::with_limit(TOTAL)
    }

    /// `total`: how long an attempt may take.
    pub fn with_limit(total: Duration) -> Result<Self, ClientError> {
        #[expect(clippy::disallowed_methods, reason = "the one place that makes the client for webhooks")]
        let builder = reqwest::Client::builder();
        let client = builder
            .user_agent(concat!("checkback/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT.min(total))
            .redirect(Policy::none())
            .referer(false)
            .retry(reqwest::retry::never())
            .no_proxy()
            .dns_resolver(NoMetadata)
            .tcp_nodelay(true)
            .pool_idle_timeout(Duration::from_secs(50))
            .build()
            .map_err(ClientError)?;
        Ok(Self { client, total })
    }

    /// Makes one attempt. Whether it was received is known only where it was answered with 2xx.
    pub async fn send(&self, message: &Message<'_>) -> Sent {
        let started = Instant::now();
        let until = started + self.total;
        let answered = timeout_at(until, self.request(message).send()).await;
        let response = match answered.map_err(|_| DeliveryError::Timeout).and_then(|sent| Ok(sent?)) {
            Ok(response) => response,
            Err(error) => return Sent { end: Err(error), status: None, duration: started.elapsed(), answer: None },
        };
        let status = response.status();
        let end = judge(status, response.headers(), message.at);
        // What it says does not change what its status means, so an answer that breaks off is as good.
        let answer = timeout_at(until, beginning(response)).await.ok().and_then(|bytes| excerpt(&bytes));
        Sent { end, status: Some(status.as_u16()), duration: started.elapsed(), answer }
    }

    fn request(&self, message: &Message<'_>) -> reqwest::RequestBuilder {
        let timestamp = message.at.timestamp();
        let signatures = signatures(message.keys, message.id, timestamp, &message.body);
        self.client
            .post(message.url.clone())
            .header(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .header("webhook-id", message.id.to_string())
            .header("webhook-timestamp", timestamp)
            .header("webhook-signature", signatures)
            .body(message.body.clone())
    }
}

fn judge(status: StatusCode, headers: &HeaderMap, now: DateTime<Utc>) -> Result<Delivered, DeliveryError> {
    let code = status.as_u16();
    if status.is_success() {
        Ok(Delivered)
    } else if status == StatusCode::GONE {
        Err(DeliveryError::Gone)
    } else if status.is_redirection() {
        Err(DeliveryError::Redirected { status: code })
    } else {
        let retry_after = headers.get(header::RETRY_AFTER).and_then(|value| retry_after(value.to_str().ok()?, now));
        Err(DeliveryError::Refused { status: code, retry_after })
    }
}

/// Seconds, or a date of HTTP.
fn retry_after(text: &str, now: DateTime<Utc>) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    httpdate::parse_http_date(text.trim()).ok()?.duration_since(SystemTime::from(now)).ok()
}

/// Reads on to the end where it is near, so that the connection can be used again.
async fn beginning(mut response: reqwest::Response) -> Bytes {
    let mut read = Vec::new();
    while let Ok(Some(piece)) = response.chunk().await {
        read.extend_from_slice(&piece);
        if read.len() > MOST_READ {
            break;
        }
    }
    read.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_2xx_is_delivered_and_a_redirect_is_none() {
        let judge = |code| judge(StatusCode::from_u16(code).unwrap(), &HeaderMap::new(), DateTime::UNIX_EPOCH);
        for good in [200, 201, 202, 204, 299] {
            assert_eq!(judge(good), Ok(Delivered));
        }
        for moved in [301, 302, 307, 308] {
            assert_eq!(judge(moved), Err(DeliveryError::Redirected { status: moved }));
        }
        assert!(judge(410).unwrap_err().disables());
        for refused in [400, 404, 429, 500, 503] {
            assert_eq!(judge(refused), Err(DeliveryError::Refused { status: refused, retry_after: None }));
        }
    }

    #[test]
    fn retry_after_is_read_as_seconds_and_as_a_date() {
        let now = DateTime::from_timestamp(784_111_777, 0).unwrap();
        assert_eq!(retry_after("120", now), Some(Duration::from_mins(2)));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:59:37 GMT", now), Some(Duration::from_mins(10)));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:39:37 GMT", now), None, "it is over");
        for wrong in ["", "soon", "-1", "1.5"] {
            assert_eq!(retry_after(wrong, now), None);
        }
    }
}

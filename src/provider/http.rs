//! The one HTTP client that asks providers: time-outs, the size limit and the connection pool are set here.
//!
//! It follows no redirects (a signed request is for one host), uses no proxy (neither `HTTP_PROXY` and its
//! kin nor the system's), and never repeats a call whose request may have reached the provider. Errors hold
//! no URL, because a query names transactions. What an answer means is left to the adapters.
//!
//! Large answers share one budget of memory: an answer takes its room before its body is read and gives it back when
//! the body is dropped, so that any number of calls at once holds no more bytes than that, and small answers never
//! wait for large ones.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, StatusCode};
use reqwest::redirect::Policy;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};
use url::Url;

/// Answers up to this length need no room.
pub const SMALL_BODY: usize = 256 << 10;
/// What all large answers may hold together, unless the longest answer allowed is longer.
const ROOM: usize = 64 << 20;
/// Longer than any connection lives.
const FOREVER: Duration = Duration::from_hours(24 * 365);
/// Room is counted in pieces of this size.
const PIECE: usize = 1 << 10;

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
    total: Duration,
    max_body: usize,
    room: Arc<Semaphore>,
}

/// Room that a large answer holds until this is dropped.
#[derive(Debug, Default)]
pub struct Room(Option<OwnedSemaphorePermit>);

impl Room {
    /// Lets the room go together with the bytes that were made from its answer.
    #[must_use]
    pub fn held_by(self, bytes: Bytes) -> Bytes {
        struct Held(Bytes, #[expect(dead_code, reason = "it is there to be dropped")] OwnedSemaphorePermit);
        impl AsRef<[u8]> for Held {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }
        match self.0 {
            Some(permit) => Bytes::from_owner(Held(bytes, permit)),
            None => bytes,
        }
    }
}

/// An answer, whatever its status.
pub struct HttpAnswer {
    pub status: StatusCode,
    pub body: Bytes,
    /// Belongs to the body: whoever keeps the one keeps the other.
    pub room: Room,
    headers: HeaderMap,
}

impl HttpAnswer {
    pub fn new(status: StatusCode, headers: HeaderMap, body: Bytes) -> Self {
        Self { status, body, room: Room::default(), headers }
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
    #[error("too many large answers came at once: there was no room for this one in time")]
    NoRoom,
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
            Self::NoRoom => "no_room",
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

/// An answer whose body is read as it comes, however long that takes.
#[derive(Debug)]
pub struct HttpStream {
    pub status: StatusCode,
    response: reqwest::Response,
    max_body: usize,
}

impl HttpStream {
    /// The next piece; `None` at the end.
    pub async fn piece(&mut self) -> Result<Option<Bytes>, HttpError> {
        Ok(self.response.chunk().await?)
    }

    /// What is left of the body, for an answer that is no stream after all.
    pub async fn rest(mut self) -> Result<Bytes, HttpError> {
        let mut body = BytesMut::new();
        while let Some(piece) = self.piece().await? {
            if body.len() + piece.len() > self.max_body {
                return Err(HttpError::BodyTooLarge { limit: self.max_body });
            }
            body.extend_from_slice(&piece);
        }
        Ok(body.freeze())
    }
}

impl HttpClient {
    pub fn new(settings: HttpSettings) -> Result<Self, BuildError> {
        Self::with_room(settings, ROOM)
    }

    /// `room`: what all large answers may hold together, in bytes; at least the longest answer.
    pub fn with_room(settings: HttpSettings, room: usize) -> Result<Self, BuildError> {
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
        // The longest answer always fits, so that no call waits for more than there is.
        let pieces = room.max(settings.max_body).div_ceil(PIECE);
        Ok(Self { client, total: settings.total, max_body: settings.max_body, room: Arc::new(Semaphore::new(pieces)) })
    }

    /// Makes one call. Every status is an answer; only the lack of a whole one is an error.
    pub async fn send(
        &self,
        method: Method,
        url: Url,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<HttpAnswer, HttpError> {
        let until = Instant::now() + self.total;
        let mut request = self.client.request(method, url).headers(headers);
        if !body.is_empty() {
            request = request.body(body);
        }
        let mut response = request.send().await?;
        let status = response.status();
        let (body, room) = self.read(&mut response, until).await?;
        Ok(HttpAnswer { status, body, room, headers: std::mem::take(response.headers_mut()) })
    }

    /// Asks for a body without an end. Only connecting is limited in time here: who reads decides how long a silence
    /// may last.
    pub async fn stream(&self, url: Url, headers: HeaderMap) -> Result<HttpStream, HttpError> {
        let response = self.client.get(url).headers(headers).timeout(FOREVER).send().await?;
        Ok(HttpStream { status: response.status(), response, max_body: self.max_body })
    }

    async fn read(&self, response: &mut reqwest::Response, until: Instant) -> Result<(Bytes, Room), HttpError> {
        let too_large = HttpError::BodyTooLarge { limit: self.max_body };
        let announced = match response.content_length().map(usize::try_from) {
            Some(Ok(length)) if length <= self.max_body => Some(length),
            Some(_) => return Err(too_large),
            None => None,
        };
        let mut room = Room::default();
        // Before the first byte, so that what waits is in the network's buffers and not in ours.
        if let Some(length) = announced.filter(|length| *length > SMALL_BODY) {
            room = self.take_room(length, until).await?;
        }
        // Most answers come in one piece, which then needs no copy.
        let Some(first) = response.chunk().await? else { return Ok((Bytes::new(), room)) };
        if first.len() > self.max_body {
            return Err(too_large);
        }
        if announced == Some(first.len()) {
            return Ok((first, room));
        }
        let Some(second) = response.chunk().await? else { return Ok((first, room)) };
        let mut body = BytesMut::with_capacity(announced.unwrap_or(first.len() + second.len()));
        body.extend_from_slice(&first);
        let mut next = Some(second);
        while let Some(chunk) = next {
            let length = body.len() + chunk.len();
            if length > self.max_body {
                return Err(too_large);
            }
            if length > SMALL_BODY && announced.is_none() && room.0.is_none() {
                room = self.take_room(self.max_body, until).await?;
            }
            body.extend_from_slice(&chunk);
            next = response.chunk().await?;
        }
        Ok((body.freeze(), room))
    }

    /// Once for each answer and never more than there is, so that calls cannot wait for each other.
    async fn take_room(&self, bytes: usize, until: Instant) -> Result<Room, HttpError> {
        let pieces = u32::try_from(bytes.div_ceil(PIECE)).map_err(|_| HttpError::NoRoom)?;
        let permit = timeout_at(until, Arc::clone(&self.room).acquire_many_owned(pieces)).await;
        // The semaphore is never closed, so the inner error does not come about.
        permit.ok().and_then(Result::ok).map(|permit| Room(Some(permit))).ok_or(HttpError::NoRoom)
    }
}

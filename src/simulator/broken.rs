//! Bodies that no API would send, for faults of any provider.

use std::io;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, Response, header};
use futures_util::stream;

/// One more than the service may read.
const HUGE: u64 = 65 * 1024 * 1024;
const CHUNK: usize = 64 * 1024;

/// A proxy's page.
pub(super) fn html(title: &str) -> Response<Body> {
    let page = format!("<html><head><title>{title}</title></head><body><h1>{title}</h1></body></html>");
    let mut response = Response::new(page.into());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html"));
    response
}

/// The connection breaks after `start`.
pub(super) fn cut_off(start: impl Into<Bytes>) -> Body {
    let end = Err(io::Error::new(io::ErrorKind::ConnectionAborted, "cut off on demand"));
    Body::from_stream(stream::iter([Ok(start.into()), end]))
}

/// A JSON text that never closes, made while it is sent.
pub(super) fn huge(start: &'static str, bytes: Option<u64>) -> Body {
    let chunk = Bytes::from(vec![b'a'; CHUNK]);
    let chunks = usize::try_from(bytes.unwrap_or(HUGE) / CHUNK as u64 + 1).unwrap_or(usize::MAX);
    let start = std::iter::once(Bytes::from_static(start.as_bytes()));
    let all = start.chain(std::iter::repeat_n(chunk, chunks));
    Body::from_stream(stream::iter(all.map(Ok::<_, io::Error>)))
}

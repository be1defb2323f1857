//! Bodies that no API would send, for faults of any provider.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, Response, header};
use futures_util::{StreamExt, stream};

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

/// One byte at a time. The whole is announced, so it can be told from a broken one.
pub(super) fn drip(bytes: &'static [u8], pause: Duration) -> Body {
    let dripping = stream::iter(bytes.chunks(1)).then(move |byte| async move {
        tokio::time::sleep(pause).await;
        Ok::<_, io::Error>(Bytes::from_static(byte))
    });
    Body::from_stream(dripping)
}

/// The connection ends before as much has come as was announced.
pub(super) fn shorter_than_announced(bytes: &'static [u8]) -> Body {
    Body::new(Short { bytes: Some(Bytes::from_static(bytes)), announced: bytes.len() as u64 + 1000 })
}

struct Short {
    bytes: Option<Bytes>,
    announced: u64,
}

impl hyper::body::Body for Short {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<hyper::body::Frame<Bytes>, io::Error>>> {
        let end = || Err(io::Error::new(io::ErrorKind::ConnectionAborted, "shorter than announced, on demand"));
        Poll::Ready(Some(self.bytes.take().map_or_else(end, |bytes| Ok(hyper::body::Frame::data(bytes)))))
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        hyper::body::SizeHint::with_exact(self.announced)
    }
}

/// A JSON text that never closes, made while it is sent.
pub(super) fn huge(start: &'static str, bytes: Option<u64>) -> Body {
    let chunk = Bytes::from(vec![b'a'; CHUNK]);
    let chunks = usize::try_from(bytes.unwrap_or(HUGE) / CHUNK as u64 + 1).unwrap_or(usize::MAX);
    let start = std::iter::once(Bytes::from_static(start.as_bytes()));
    let all = start.chain(std::iter::repeat_n(chunk, chunks));
    Body::from_stream(stream::iter(all.map(Ok::<_, io::Error>)))
}

//! Reading bodies within their bounds.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::Problem;

/// The largest body that is read.
pub const MOST_BYTES: usize = 64 * 1024;
/// The largest that may hold pictures.
pub const MOST_LARGE_BYTES: usize = 8 * 1024 * 1024;
/// How long headers, and then the body, may take to arrive.
pub const ARRIVAL: Duration = Duration::from_secs(10);

/// The whole body, or why it cannot be had.
pub async fn read(headers: &HeaderMap, body: Body) -> Result<Bytes, Problem> {
    read_up_to(MOST_BYTES, headers, body).await
}

async fn read_up_to(most: usize, headers: &HeaderMap, body: Body) -> Result<Bytes, Problem> {
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > most as u64) {
        return Err(Problem::body_too_large());
    }
    match tokio::time::timeout(ARRIVAL, Limited::new(body, most).collect()).await {
        Err(_) => Err(Problem::body_too_slow()),
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Problem::body_too_large()),
        Ok(Err(_)) => Err(Problem::body_malformed("The body broke off before its end.")),
    }
}

/// A JSON body; `None` when it is empty.
pub async fn json<T: DeserializeOwned>(headers: &HeaderMap, body: Body) -> Result<Option<T>, Problem> {
    parse(headers, &read(headers, body).await?)
}

/// The same, where `may_be_large` says whether a body over [`MOST_BYTES`] is one of those that may.
pub async fn large_json(
    headers: &HeaderMap,
    body: Body,
    may_be_large: impl FnOnce(&RawValue) -> bool,
) -> Result<Option<Box<RawValue>>, Problem> {
    let bytes = read_up_to(MOST_LARGE_BYTES, headers, body).await?;
    let parsed: Result<Option<Box<RawValue>>, _> = parse(headers, &bytes);
    if bytes.len() > MOST_BYTES && !matches!(&parsed, Ok(Some(parsed)) if may_be_large(parsed)) {
        return Err(Problem::body_too_large());
    }
    parsed
}

fn parse<T: DeserializeOwned>(headers: &HeaderMap, bytes: &[u8]) -> Result<Option<T>, Problem> {
    if bytes.is_empty() {
        return Ok(None);
    }
    if !is_json(headers) {
        return Err(Problem::body_unsupported());
    }
    serde_json::from_slice(bytes)
        .map(Some)
        // The parser's message may quote the body.
        .map_err(|error| {
            Problem::body_malformed(format!(
                "It is not the expected JSON (line {}, column {}).",
                error.line(),
                error.column()
            ))
        })
}

fn is_json(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

//! `GET /verifications/{id}`: one verification; `?wait=SECONDS` answers as soon as it is final.

use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::body::{VerificationBody, render};
use super::query::Query;
use super::{PathId, parse_id};
use crate::domain::VerificationId;
use crate::http::auth::Scope;
use crate::http::{Api, Problem, answered};
use crate::store::Record;

const LONGEST_WAIT: u64 = 60;

/// Show a verification, and wait for its verdict
///
/// With `wait` it answers as soon as the verification is final, else when the time is over.
#[utoipa::path(
    get,
    path = "/verifications/{id}",
    operation_id = "show_verification",
    tag = "verifications",
    params(
        ("id" = String, Path, format = "uuid", description = "The `id` that registering returned."),
        ("wait" = Option<u64>, Query, maximum = 60, description = "Seconds.", example = 30),
        ("If-None-Match" = Option<String>, Header, description = "`ETag`s that you have."),
    ),
    responses(
        (status = 200, description = "As it stands.", body = VerificationBody,
            headers(("ETag" = String, description = "Changes with the body."))),
        (status = 304, description = "You have it already.",
            headers(("ETag" = String, description = "The one that you have."))),
    ),
    extensions(
        ("x-required-scope" = json!("read")),
        ("x-problems" = json!(["query_invalid", "verification_not_found", "database_unavailable"])),
    ),
)]
pub async fn show(State(api): State<Api>, id: PathId, uri: Uri, headers: HeaderMap) -> Result<Response, Problem> {
    api.keys.require(&headers, Scope::Read)?;
    let mut query = Query::of(&uri);
    let wait = query.take("wait", |text| {
        text.parse().ok().filter(|seconds| *seconds <= LONGEST_WAIT).ok_or("must be a whole number from 0 to 60")
    });
    query.finish()?;
    let record = wait_for(&api, parse_id(id)?, Duration::from_secs(wait.unwrap_or(0))).await?;
    respond(&api, &record, &headers)
}

async fn wait_for(api: &Api, id: VerificationId, wait: Duration) -> Result<Record, Problem> {
    let store = &api.service.store;
    let read = async || answered(store.record(id)).await?.ok_or_else(Problem::verification_not_found);
    let until = Instant::now() + wait;
    while Instant::now() < until {
        let announced = api.service.finals.subscribe(id);
        if answered(store.is_final(id)).await?.ok_or_else(Problem::verification_not_found)? {
            break;
        }
        tokio::select! {
            _ = announced => {
                let record = read().await?;
                if record.status.is_final() {
                    return Ok(record);
                }
            }
            () = tokio::time::sleep_until(until) => break,
            // A stopping service answers with what it knows; the caller asks again elsewhere.
            () = api.tasks.stopping() => break,
        }
    }
    read().await
}

/// The record, or 304 where the caller has it already.
fn respond(api: &Api, record: &Record, headers: &HeaderMap) -> Result<Response, Problem> {
    let account = api.service.accounts.get(&record.account).map(AsRef::as_ref);
    let body = serde_json::to_vec(&render(record, account)).map_err(|_| Problem::internal())?;
    let tag = format!("\"{}\"", hex::encode(&Sha256::digest(&body)[..16]));
    let tag_header = HeaderValue::from_str(&tag).map_err(|_| Problem::internal())?;
    let known =
        headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok()).any(|value| {
            value.split(',').any(|known| known.trim() == "*" || known.trim().trim_start_matches("W/") == tag)
        });
    if known {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, tag_header)]).into_response());
    }
    let kind = HeaderValue::from_static("application/json");
    Ok(([(header::ETAG, tag_header), (header::CONTENT_TYPE, kind)], body).into_response())
}

//! `GET /verifications/{id}/raw`: the provider's answer behind the verdict. The one place where document data is found.

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Uri, header};
use axum::response::{IntoResponse, Response};

use super::query::Query;
use super::{PathId, parse_id};
use crate::http::auth::Scope;
use crate::http::{Api, Problem, REQUEST_ID, answered};
use crate::store::{AnswerRead, Reader};

/// The provider's answer behind the verdict
///
/// As it came, without images and links. Document data is found here and in no other answer. The read is in the history
/// before the first byte is sent.
#[utoipa::path(
    get,
    path = "/verifications/{id}/raw",
    operation_id = "show_answer",
    tag = "verifications",
    params(
        ("id" = String, Path, format = "uuid", description = "The `id` that registering returned."),
        ("revision" = Option<i32>, Query, minimum = 1, maximum = 2_147_483_647,
            description = "Of an earlier verdict; the current one when absent."),
    ),
    responses((status = 200, description = "The provider's JSON.", body = Object, content_type = "application/json",
        headers(("Cache-Control" = String, description = "`no-store`")))),
    extensions(
        ("x-required-scope" = json!("evidence")),
        ("x-problems" = json!(["query_invalid", "verification_not_found", "answer_not_found", "database_unavailable"])),
    ),
)]
pub async fn raw(State(api): State<Api>, id: PathId, uri: Uri, headers: HeaderMap) -> Result<Response, Problem> {
    let key = api.keys.require(&headers, Scope::Evidence)?;
    let mut query = Query::of(&uri);
    let revision = query.take("revision", |text| {
        text.parse().ok().filter(|revision| *revision > 0).ok_or("must be a whole number from 1")
    });
    query.finish()?;
    let request_id = headers.get(&REQUEST_ID).and_then(|id| id.to_str().ok());
    let reader = Reader { key, request_id };
    let read = answered(api.service.read_answer(parse_id(id)?, revision, &reader)).await?;
    let AnswerRead::Read(answer) = read else { return Err(refusal(&read, revision)) };
    let kind = HeaderValue::from_static("application/json");
    let caching = HeaderValue::from_static("no-store");
    Ok(([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, caching)], answer).into_response())
}

/// Why there is no answer to show.
pub(in crate::http) fn refusal(read: &AnswerRead, revision: Option<i32>) -> Problem {
    match (read, revision) {
        (AnswerRead::NotFound | AnswerRead::Read(_), _) => Problem::verification_not_found(),
        (AnswerRead::NoVerdict, Some(revision)) => Problem::answer_not_found(format!(
            "The verification has no revision {revision}. Its history names those that it has."
        )),
        (AnswerRead::NoVerdict, None) => Problem::answer_not_found(
            "The verification has no verdict yet. `GET /verifications/{id}?wait=60` answers as soon as it has one.",
        ),
        (AnswerRead::NotKept(status), _) => Problem::answer_not_found(format!(
            "The verification is {status}, and no answer of the provider is kept for it: there was none, as its \
             `reason` says, or the time of retention.raw_answer is over."
        )),
        (AnswerRead::Erased, _) => Problem::answer_not_found(
            "The verification was erased. `GET /verifications/{id}/history` says when and by whom.",
        ),
    }
}

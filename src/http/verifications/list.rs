//! `GET /verifications`: pages, newest first. What is at risk is listed by [`super::at_risk`].

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::at_risk;
use super::body::{VerificationBody, render};
use super::query::Query;
use crate::domain::risk::RiskKind;
use crate::domain::{Status, VerificationId};
use crate::http::auth::Scope;
use crate::http::openapi::words;
use crate::http::{Api, Problem, answered};
use crate::store::{Filter, Record};

pub(in crate::http) const LIMIT: i64 = 50;
/// What is said of a cursor that cannot be read.
pub(in crate::http) const CURSOR: &str = "must be the next_cursor of an earlier page, unchanged";
const MOST: i64 = 200;

/// Written as it stands, never through a JSON value: that would lose digits of the metadata's numbers.
#[derive(Serialize, ToSchema)]
#[schema(as = Verifications, description = "One page.")]
pub(in crate::http) struct Page<'a> {
    pub items: Vec<VerificationBody<'a>>,
    /// Send it as `cursor` for the next page; null on the last.
    #[schema(required)]
    pub next_cursor: Option<String>,
}

/// List verifications
///
/// Newest first, filtered. What is registered meanwhile does not move the pages. With `at_risk` it is another list:
/// what the provider deletes soon, least time left first; it goes with `account`, `limit` and `cursor` alone.
#[utoipa::path(
    get,
    path = "/verifications",
    operation_id = "list_verifications",
    tag = "verifications",
    params(
        ("status" = Option<String>, Query, extensions(("x-enum" = json!(words::statuses()))), example = "passed"),
        ("account" = Option<String>, Query, max_length = 128, pattern = "^[^\\x00]*$", example = "alibaba-sg"),
        ("transaction_id" = Option<String>, Query, max_length = 128, pattern = "^[^\\x00]*$"),
        ("merchant_biz_id" = Option<String>, Query, max_length = 128, pattern = "^[^\\x00]*$"),
        ("registered_after" = Option<String>, Query, format = DateTime, description = "At this time or later."),
        ("registered_before" = Option<String>, Query, format = DateTime, description = "Before this time."),
        ("at_risk" = Option<String>, Query, extensions(("x-enum" = json!(words::risks()))),
            description = "What the provider deletes soon."),
        ("limit" = Option<i64>, Query, minimum = 1, maximum = 200, description = "Items of a page; 50 when absent.", example = 50),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before."),
    ),
    responses((status = 200, description = "One page.", body = Page)),
    extensions(
        ("x-required-scope" = json!("read")),
        ("x-problems" = json!(["query_invalid", "database_unavailable"])),
    ),
)]
pub async fn list(State(api): State<Api>, uri: Uri, headers: HeaderMap) -> Result<Response, Problem> {
    api.keys.require(&headers, Scope::Read)?;
    let mut query = Query::of(&uri);
    let mut wants_at_risk = false;
    let kind = query.take("at_risk", |text| {
        wants_at_risk = true;
        text.parse::<RiskKind>().map_err(|_| "must be video or result")
    });
    if wants_at_risk {
        return at_risk::list(&api, kind, query).await;
    }
    let filter = parse(query)?;
    let (records, next_cursor) = page(&api, &filter).await?;
    let items: Vec<_> = records
        .iter()
        .map(|record| render(record, api.service.accounts.get(&record.account).map(AsRef::as_ref)))
        .collect();
    Ok(Json(Page { items, next_cursor }).into_response())
}

/// As many as the filter wants, and where the next page begins.
pub(in crate::http) async fn page(api: &Api, filter: &Filter) -> Result<(Vec<Record>, Option<String>), Problem> {
    let mut records = answered(api.service.store.list(&Filter { limit: filter.limit + 1, ..filter.clone() })).await?;
    let next_cursor = next_page(&mut records, filter.limit, |last| cursor(last.id));
    Ok((records, next_cursor))
}

/// Cuts a page of `limit` off what was read, which is one more where there is a next page; then the cursor that leads
/// there from the last that is left.
pub(in crate::http) fn next_page<T>(
    rows: &mut Vec<T>,
    limit: i64,
    cursor: impl FnOnce(&T) -> String,
) -> Option<String> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let has_more = rows.len() > limit;
    rows.truncate(limit);
    rows.last().filter(|_| has_more).map(cursor)
}

fn cursor(id: VerificationId) -> String {
    URL_SAFE_NO_PAD.encode(id.0.as_bytes())
}

pub(in crate::http) fn parse_cursor(text: &str) -> Option<VerificationId> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    Uuid::from_slice(&bytes).ok().map(VerificationId)
}

pub(in crate::http) fn parse_time(text: &str) -> Result<DateTime<Utc>, &'static str> {
    DateTime::parse_from_rfc3339(text)
        .map(|time| time.to_utc())
        .map_err(|_| "must be a time such as 2026-01-31T12:00:00Z")
}

pub(in crate::http) fn text(text: &str) -> Result<String, &'static str> {
    if text.chars().count() <= 128 { Ok(text.to_owned()) } else { Err("must have at most 128 characters") }
}

pub(in crate::http) fn parse_limit(text: &str) -> Result<i64, &'static str> {
    text.parse().ok().filter(|limit| (1..=MOST).contains(limit)).ok_or("must be a whole number from 1 to 200")
}

fn parse(mut query: Query) -> Result<Filter, Problem> {
    let filter = Filter {
        status: query.take("status", |text| {
            text.parse::<Status>()
                .map_err(|_| "must be waiting, collecting, passed, failed, review, void, expired or unresolvable")
        }),
        account: query.take("account", text),
        transaction_id: query.take("transaction_id", text),
        merchant_biz_id: query.take("merchant_biz_id", text),
        registered_after: query.take("registered_after", parse_time),
        registered_before: query.take("registered_before", parse_time),
        below: query.take("cursor", |text| parse_cursor(text).ok_or(CURSOR)),
        limit: query.take("limit", parse_limit).unwrap_or(LIMIT),
    };
    query.finish()?;
    Ok(filter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_reads_back_and_a_broken_one_is_refused() {
        let id = VerificationId(Uuid::from_u128(42));
        assert_eq!(parse_cursor(&cursor(id)), Some(id));
        for broken in ["", "x", "AAAA", "!!!!", &"A".repeat(23)] {
            assert_eq!(parse_cursor(broken), None, "{broken}");
        }
    }
}

//! `/rechecks`: asking the provider again about everything that a filter matches.

use std::time::Duration;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;
use uuid::Uuid;

use super::auth::Scope;
use super::error::FieldError;
use super::openapi::requests::RecheckRequest;
use super::openapi::words;
use super::verifications::body::time;
use super::verifications::list::{CURSOR, LIMIT, next_page, parse_limit, parse_time, text};
use super::verifications::query::Query;
use super::{Api, Problem, answered, answered_within, body};
use crate::domain::FinalStatus;
use crate::service::recheck::Estimate;
use crate::store::{Recheck, RecheckFilter};

/// Counting reads every verdict of the filter's statuses and times.
const COUNTING: Duration = Duration::from_mins(1);

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Wish {
    filter: Option<Value>,
    dry_run: Option<Value>,
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

/// Null matches everything.
#[derive(Serialize, ToSchema)]
struct FilterBody<'a> {
    #[schema(schema_with = words::maybe_final_status, required)]
    status: Option<&'static str>,
    #[schema(required)]
    account: Option<&'a str>,
    #[schema(required)]
    sub_code: Option<&'a str>,
    #[schema(required)]
    reason_contains: Option<&'a str>,
    #[schema(required, format = DateTime)]
    registered_after: Option<String>,
    #[schema(required, format = DateTime)]
    registered_before: Option<String>,
}

/// Asking again about everything that a filter matches.
#[derive(Serialize, ToSchema)]
#[schema(as = Recheck)]
pub(super) struct RecheckBody<'a> {
    #[schema(format = "uuid")]
    id: String,
    #[schema(schema_with = words::recheck_state)]
    state: &'static str,
    #[schema(inline)]
    filter: FilterBody<'a>,
    /// How many the filter matched at the beginning.
    matched: i64,
    /// Asked about, or passed over.
    done: i64,
    /// Of those, passed over because they had an open check already, or were erased.
    skipped: i64,
    /// In line, not asked about yet.
    waiting: i64,
    /// Have another verdict since.
    revised: i64,
    #[schema(format = DateTime)]
    created_at: String,
    /// The name of the key; null with `auth.mode = "none"`.
    #[schema(required)]
    created_by: Option<&'a str>,
    #[schema(required, format = DateTime)]
    ended_at: Option<String>,
    /// Only in the answer that says how long it takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = words::estimate)]
    estimate: Option<Value>,
}

/// The answer to a wish.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = Begun)]
pub(super) enum Begun<'a> {
    Recheck(Box<RecheckBody<'a>>),
    DryRun(DryRun),
}

/// What a recheck would ask about.
#[derive(Serialize, ToSchema)]
pub(super) struct DryRun {
    matched: i64,
    /// By account and status.
    #[schema(schema_with = words::counts)]
    accounts: Map<String, Value>,
    #[schema(schema_with = words::estimate)]
    estimate: Value,
}

/// One page.
#[derive(Serialize, ToSchema)]
pub(super) struct Rechecks<'a> {
    items: Vec<RecheckBody<'a>>,
    /// Send it as `cursor` for the next page; null on the last.
    #[schema(required)]
    next_cursor: Option<String>,
}

fn render(recheck: &Recheck) -> RecheckBody<'_> {
    let filter = &recheck.filter;
    RecheckBody {
        id: recheck.id.to_string(),
        state: recheck.state.as_str(),
        filter: FilterBody {
            status: filter.status.map(FinalStatus::as_str),
            account: filter.account.as_deref(),
            sub_code: filter.sub_code.as_deref(),
            reason_contains: filter.reason_contains.as_deref(),
            registered_after: filter.registered_after.map(time),
            registered_before: filter.registered_before.map(time),
        },
        matched: recheck.matched,
        done: recheck.done,
        skipped: recheck.skipped,
        waiting: recheck.waiting,
        revised: recheck.revised,
        created_at: time(recheck.created_at),
        created_by: recheck.created_by.as_deref(),
        ended_at: recheck.ended_at.map(time),
        estimate: None,
    }
}

fn seconds(estimate: &Estimate) -> Value {
    json!({ "seconds": estimate.takes.as_secs().saturating_add(u64::from(estimate.takes.subsec_nanos() > 0)) })
}

/// Ask again about everything that a filter matches
///
/// About final verifications, at the rate that nothing else of the account needs. While a recheck with the same filter
/// runs, the same wish is answered with 200 and that one.
#[utoipa::path(
    post,
    path = "/rechecks",
    operation_id = "begin_recheck",
    tag = "rechecks",
    request_body(content = RecheckRequest, examples(
        ("dry_run" = (summary = "Only count", value = json!({
            "filter": {"status": "unresolvable", "account": "alibaba-sg"}, "dry_run": true}))),
        ("begin" = (summary = "Begin", value = json!({
            "filter": {"status": "unresolvable", "account": "alibaba-sg"}}))),
    )),
    responses(
        (status = 201, description = "It began.", body = RecheckBody,
            headers(("Location" = String, description = "Where it is shown.")),
            links(
                ("show" = (operation_id = "show_recheck", parameters(("id" = "$response.body#/id")))),
                ("stop" = (operation_id = "stop_recheck", parameters(("id" = "$response.body#/id")))),
            )),
        (status = 200, description = "With `dry_run` what it would ask about, else the same one that runs.",
            body = Begun),
    ),
    extensions(
        ("x-required-scope" = json!("operate")),
        ("x-problems" = json!([
            "body_malformed", "body_unsupported", "body_too_large", "body_invalid", "database_unavailable",
        ])),
    ),
)]
pub async fn create(State(api): State<Api>, request: Request) -> Result<Response, Problem> {
    let (parts, content) = request.into_parts();
    let by = api.keys.require(&parts.headers, Scope::Operate)?;
    let (filter, dry_run) = parse(&api, body::json::<Value>(&parts.headers, content).await?)?;
    let estimate = answered_within(COUNTING, api.service.estimate_recheck(&filter)).await?;
    if dry_run {
        let accounts: Map<String, Value> = estimate.parts.iter().fold(Map::new(), |mut accounts, part| {
            let statuses = accounts.entry(part.account.clone()).or_insert_with(|| json!({}));
            statuses[part.status.as_str()] = part.matched.into();
            accounts
        });
        let body = DryRun { matched: estimate.matched(), accounts, estimate: seconds(&estimate) };
        return Ok(Json(Begun::DryRun(body)).into_response());
    }
    let (id, is_new) = answered(api.service.begin_recheck(&filter, &estimate.parts, by)).await?;
    let recheck = answered(api.service.store.recheck(id)).await?.ok_or_else(Problem::recheck_not_found)?;
    let body = RecheckBody { estimate: Some(seconds(&estimate)), ..render(&recheck) };
    let place = HeaderValue::from_str(&format!("/rechecks/{id}")).map_err(|_| Problem::internal())?;
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, [(header::LOCATION, place)], Json(Begun::Recheck(Box::new(body)))).into_response())
}

/// List rechecks, newest first
#[utoipa::path(
    get,
    path = "/rechecks",
    operation_id = "list_rechecks",
    tag = "rechecks",
    params(
        ("limit" = Option<i64>, Query, minimum = 1, maximum = 200, description = "Items of a page; 50 when absent.", example = 50),
        ("cursor" = Option<String>, Query, format = "uuid", description = "`next_cursor` of the page before."),
    ),
    responses((status = 200, description = "One page.", body = Rechecks)),
    extensions(
        ("x-required-scope" = json!("read")),
        ("x-problems" = json!(["query_invalid", "database_unavailable"])),
    ),
)]
pub async fn list(State(api): State<Api>, uri: Uri, headers: HeaderMap) -> Result<Response, Problem> {
    api.keys.require(&headers, Scope::Read)?;
    let mut query = Query::of(&uri);
    let below = query.take("cursor", |text| text.parse::<Uuid>().map_err(|_| CURSOR));
    let limit = query.take("limit", parse_limit).unwrap_or(LIMIT);
    query.finish()?;
    let mut rechecks = answered(api.service.store.rechecks(below.unwrap_or(Uuid::max()), limit + 1)).await?;
    let next_cursor = next_page(&mut rechecks, limit, |last| last.id.to_string());
    let items = rechecks.iter().map(render).collect();
    Ok(Json(Rechecks { items, next_cursor }).into_response())
}

type PathId = Result<Path<String>, PathRejection>;

fn parse_id(id: PathId) -> Result<Uuid, Problem> {
    id.ok().and_then(|Path(text)| text.parse().ok()).ok_or_else(Problem::recheck_not_found)
}

/// How far a recheck has come
#[utoipa::path(
    get,
    path = "/rechecks/{id}",
    operation_id = "show_recheck",
    tag = "rechecks",
    params(("id" = String, Path, format = "uuid", description = "The `id` that `POST /rechecks` returned.")),
    responses((status = 200, description = "As it stands.", body = RecheckBody)),
    extensions(
        ("x-required-scope" = json!("read")),
        ("x-problems" = json!(["recheck_not_found", "database_unavailable"])),
    ),
)]
pub async fn show(State(api): State<Api>, id: PathId, headers: HeaderMap) -> Result<Response, Problem> {
    api.keys.require(&headers, Scope::Read)?;
    answer(&api, parse_id(id)?).await
}

/// Stop a recheck
///
/// Nothing more comes into line, and what waits there untouched is taken back. Checks that were made once already go on.
#[utoipa::path(
    delete,
    path = "/rechecks/{id}",
    operation_id = "stop_recheck",
    tag = "rechecks",
    params(("id" = String, Path, format = "uuid", description = "The `id` that `POST /rechecks` returned.")),
    responses((status = 200, description = "As it stands.", body = RecheckBody)),
    extensions(
        ("x-required-scope" = json!("operate")),
        ("x-problems" = json!(["recheck_not_found", "database_unavailable"])),
    ),
)]
pub async fn stop(State(api): State<Api>, id: PathId, headers: HeaderMap) -> Result<Response, Problem> {
    api.keys.require(&headers, Scope::Operate)?;
    let id = parse_id(id)?;
    answered(api.service.store.stop_recheck(id, api.service.clock.now())).await?;
    answer(&api, id).await
}

async fn answer(api: &Api, id: Uuid) -> Result<Response, Problem> {
    let recheck = answered(api.service.store.recheck(id)).await?.ok_or_else(Problem::recheck_not_found)?;
    Ok(Json(render(&recheck)).into_response())
}

/// The filter, and whether only to count.
fn parse(api: &Api, body: Option<Value>) -> Result<(RecheckFilter, bool), Problem> {
    let object = |_| Problem::body_invalid(vec![FieldError::new("", "the body must be an object")]);
    let wish: Wish = serde_json::from_value(body.unwrap_or_else(|| json!({}))).map_err(object)?;
    let mut errors: Vec<_> =
        wish.unknown.into_iter().map(|(name, _)| FieldError::new(name, "is not a member of this request")).collect();
    let dry_run = match wish.dry_run {
        None | Some(Value::Null) => false,
        Some(Value::Bool(dry_run)) => dry_run,
        Some(_) => {
            errors.push(FieldError::new("dry_run", "must be true or false"));
            false
        }
    };
    let filter = if let Some(Value::Object(members)) = wish.filter {
        parse_filter(api, members, &mut errors)
    } else {
        errors.push(FieldError::new("filter", "is required: an object, {} for every final verification"));
        RecheckFilter::default()
    };
    if errors.is_empty() { Ok((filter, dry_run)) } else { Err(Problem::body_invalid(errors)) }
}

fn parse_filter(api: &Api, mut members: Map<String, Value>, errors: &mut Vec<FieldError>) -> RecheckFilter {
    let mut take = |name: &'static str, read: &dyn Fn(&str) -> Result<(), &'static str>| {
        let message = match members.remove(name) {
            None | Some(Value::Null) => return None,
            Some(Value::String(text)) if text.is_empty() || text.contains('\0') => "must be a text that is not empty",
            Some(Value::String(text)) => match read(&text) {
                Ok(()) => return Some(text),
                Err(message) => message,
            },
            Some(_) => "must be a text",
        };
        errors.push(FieldError::new(format!("filter.{name}"), message));
        None
    };
    let short = |given: &str| text(given).map(drop);
    let is_time = |given: &str| parse_time(given).map(drop);
    let status = take("status", &|given| {
        given
            .parse::<FinalStatus>()
            .map(drop)
            .map_err(|_| "must be passed, failed, review, void, expired or unresolvable")
    });
    let account = take("account", &|given| {
        if api.service.accounts.contains_key(given) { Ok(()) } else { Err("is not an account in the configuration") }
    });
    let filter = RecheckFilter {
        status: status.and_then(|text| text.parse().ok()),
        account,
        sub_code: take("sub_code", &short),
        reason_contains: take("reason_contains", &short),
        registered_after: take("registered_after", &is_time).and_then(|text| parse_time(&text).ok()),
        registered_before: take("registered_before", &is_time).and_then(|text| parse_time(&text).ok()),
    };
    let unknown = members.into_iter();
    errors.extend(unknown.map(|(name, _)| FieldError::new(format!("filter.{name}"), "is not a member of a filter")));
    filter
}

//! `/webhooks`: how endpoints fare, what is on its way to them, and sending it again.

use std::time::Duration;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::auth::Scope;
use super::error::FieldError;
use super::openapi::requests::ReplayRequest;
use super::openapi::words;
use super::verifications::body::time;
use super::verifications::list::{CURSOR, LIMIT, next_page, parse_limit, parse_time, text};
use super::verifications::query::Query;
use super::{Api, Problem, answered, answered_within, body};
use crate::domain::EventType;
use crate::service::webhooks::Endpoint;
use crate::store::{DeliveryFilter, DeliveryRow, DeliveryState, EndpointRow, ReplayFilter};

/// For how long one request begins deliveries anew.
const REPLAYING: Duration = Duration::from_secs(20);
/// Counting reads each event of the window, and a step of a replay may wait for others.
const COUNTING: Duration = Duration::from_mins(1);

/// How an endpoint fares.
#[derive(Serialize, ToSchema)]
#[schema(as = Endpoint)]
pub(super) struct EndpointBody<'a> {
    name: &'a str,
    /// Without what may be secret; null where it is not configured any more.
    #[schema(required)]
    url: Option<&'a str>,
    /// The types of events that it takes.
    events: Vec<&'static str>,
    #[schema(schema_with = words::endpoint_state)]
    state: &'static str,
    #[schema(required, format = DateTime)]
    disabled_at: Option<String>,
    #[schema(required)]
    disabled_reason: Option<&'a str>,
    /// Attempts in a row that failed.
    failures: u32,
    #[schema(required, format = DateTime)]
    paused_until: Option<String>,
    /// Deliveries that are still to be made.
    pending: i64,
    /// Deliveries that were given up.
    failed: i64,
    #[schema(required, format = DateTime)]
    next_due_at: Option<String>,
    #[schema(required, format = DateTime)]
    last_success_at: Option<String>,
    #[schema(required, format = DateTime)]
    last_failure_at: Option<String>,
    #[schema(required)]
    last_failure: Option<&'a str>,
}

/// All endpoints that are configured or have deliveries.
#[derive(Serialize, ToSchema)]
pub(super) struct Endpoints<'a> {
    items: Vec<EndpointBody<'a>>,
}

fn render_endpoint<'a>(row: &'a EndpointRow, endpoint: Option<&'a Endpoint>) -> EndpointBody<'a> {
    let state = match (endpoint, row.disabled_at, row.failures) {
        (None, _, _) => "not_configured",
        (_, Some(_), _) => "disabled",
        (_, None, 0) => "ok",
        _ => "failing",
    };
    EndpointBody {
        name: &row.endpoint,
        url: endpoint.map(|endpoint| endpoint.shown_url.as_str()),
        events: endpoint.map(|it| it.types.iter().map(|wanted| wanted.as_str()).collect()).unwrap_or_default(),
        state,
        disabled_at: row.disabled_at.map(time),
        disabled_reason: row.disabled_reason.as_deref(),
        failures: row.failures,
        paused_until: row.paused_until.map(time),
        pending: row.pending,
        failed: row.failed,
        next_due_at: row.next_due_at.map(time),
        last_success_at: row.last_success_at.map(time),
        last_failure_at: row.last_failure_at.map(time),
        last_failure: row.last_failure.as_deref(),
    }
}

/// How the endpoints of webhooks fare
#[utoipa::path(
    get,
    path = "/webhooks",
    operation_id = "list_endpoints",
    tag = "webhooks",
    responses((status = 200, description = "All of them.", body = Endpoints)),
    extensions(
        ("x-required-scope" = json!("read")),
        ("x-problems" = json!(["query_invalid", "database_unavailable"])),
    ),
)]
pub async fn list(State(api): State<Api>, uri: Uri, headers: HeaderMap) -> Result<Response, Problem> {
    api.keys.require(&headers, Scope::Read)?;
    Query::of(&uri).finish()?;
    let rows = answered(api.service.store.endpoints()).await?;
    let body = |row| render_endpoint(row, api.service.endpoint(&row.endpoint).map(AsRef::as_ref));
    Ok(Json(Endpoints { items: rows.iter().map(body).collect() }).into_response())
}

/// One event on its way to one endpoint.
#[derive(Serialize, ToSchema)]
#[schema(as = Delivery)]
struct DeliveryBody<'a> {
    /// `webhook-id` of each attempt.
    event_id: String,
    endpoint: &'a str,
    #[schema(format = "uuid")]
    verification_id: String,
    r#type: &'a str,
    #[schema(format = DateTime)]
    occurred_at: String,
    #[schema(schema_with = words::delivery_state)]
    status: &'a str,
    attempts: u32,
    /// How often it was begun anew.
    replays: u32,
    #[schema(required, format = DateTime)]
    next_attempt_at: Option<String>,
    #[schema(required)]
    last_attempt: Option<LastAttempt<'a>>,
    #[schema(required, format = DateTime)]
    ended_at: Option<String>,
}

/// How the last attempt went.
#[derive(Serialize, ToSchema)]
struct LastAttempt<'a> {
    #[schema(format = DateTime)]
    at: String,
    #[schema(required)]
    result: Option<&'a str>,
    /// Of the answer, if there was one.
    #[schema(required)]
    status: Option<i32>,
    #[schema(required)]
    duration_ms: Option<i64>,
}

/// One page.
#[derive(Serialize, ToSchema)]
pub(super) struct Deliveries<'a> {
    items: Vec<DeliveryBody<'a>>,
    /// Send it as `cursor` for the next page; null on the last.
    #[schema(required)]
    next_cursor: Option<String>,
}

impl<'a> From<&'a DeliveryRow> for DeliveryBody<'a> {
    fn from(row: &'a DeliveryRow) -> Self {
        let last_attempt = row.last_attempt_at.map(|at| LastAttempt {
            at: time(at),
            result: row.last_result.as_deref(),
            status: row.last_status,
            duration_ms: row.last_duration_ms,
        });
        Self {
            event_id: row.event_id.to_string(),
            endpoint: &row.endpoint,
            verification_id: row.verification.to_string(),
            r#type: &row.r#type,
            occurred_at: time(row.occurred_at),
            status: &row.state,
            attempts: row.attempts,
            replays: row.replays,
            next_attempt_at: row.next_attempt_at.map(time),
            last_attempt,
            ended_at: row.ended_at.map(time),
        }
    }
}

/// List deliveries, newest first
#[utoipa::path(
    get,
    path = "/webhooks/deliveries",
    operation_id = "list_deliveries",
    tag = "webhooks",
    params(
        ("endpoint" = Option<String>, Query, max_length = 128, pattern = "^[^\\x00]*$"),
        ("status" = Option<String>, Query, extensions(("x-enum" = json!(words::delivery_states()))), example = "failed"),
        ("verification_id" = Option<String>, Query, format = "uuid"),
        ("limit" = Option<i64>, Query, minimum = 1, maximum = 200, description = "Items of a page; 50 when absent.", example = 50),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before."),
    ),
    responses((status = 200, description = "One page.", body = Deliveries)),
    extensions(
        ("x-required-scope" = json!("read")),
        ("x-problems" = json!(["query_invalid", "database_unavailable"])),
    ),
)]
pub async fn deliveries(State(api): State<Api>, uri: Uri, headers: HeaderMap) -> Result<Response, Problem> {
    api.keys.require(&headers, Scope::Read)?;
    let mut query = Query::of(&uri);
    let state = |text: &str| {
        let known = DeliveryState::ALL.into_iter().find(|state| state.as_str() == text);
        known.ok_or("must be pending, delivered or failed")
    };
    let limit = query.take("limit", parse_limit).unwrap_or(LIMIT);
    let filter = DeliveryFilter {
        endpoint: query.take("endpoint", text),
        state: query.take("status", state),
        verification: query
            .take("verification_id", |text| text.parse().map_err(|_| "must be the id of a verification")),
        below: query.take("cursor", |text| text.parse().ok().filter(|id| *id > 0).ok_or(CURSOR)),
        limit: limit + 1,
    };
    query.finish()?;
    let mut rows = answered(api.service.store.deliveries(&filter)).await?;
    let next_cursor = next_page(&mut rows, limit, |last| last.id.to_string());
    let items = rows.iter().map(DeliveryBody::from).collect();
    Ok(Json(Deliveries { items, next_cursor }).into_response())
}

type PathName = Result<Path<String>, PathRejection>;

fn name(path: PathName) -> Result<String, Problem> {
    path.map(|Path(name)| name).map_err(|_| Problem::endpoint_unknown())
}

/// Enable an endpoint again
///
/// One that answered 410, or is paused after failures, gets its deliveries again at once.
#[utoipa::path(
    post,
    path = "/webhooks/{name}/enable",
    operation_id = "enable_endpoint",
    tag = "webhooks",
    params(("name" = String, Path, description = "Of an endpoint in the configuration.", example = "merchant-app")),
    responses((status = 200, description = "As it stands.", body = EndpointBody)),
    extensions(
        ("x-required-scope" = json!("operate")),
        ("x-problems" = json!(["endpoint_unknown", "database_unavailable"])),
    ),
)]
pub async fn enable(State(api): State<Api>, path: PathName, headers: HeaderMap) -> Result<Response, Problem> {
    let by = api.keys.require(&headers, Scope::Operate)?;
    let name = name(path)?;
    if !answered(api.service.enable_endpoint(&name, by)).await? {
        return Err(Problem::endpoint_unknown());
    }
    let rows = answered(api.service.store.endpoints()).await?;
    let row = rows.iter().find(|row| row.endpoint == name).ok_or_else(Problem::endpoint_unknown)?;
    Ok(Json(render_endpoint(row, api.service.endpoint(&name).map(AsRef::as_ref))).into_response())
}

/// Send a test event, signed
#[utoipa::path(
    post,
    path = "/webhooks/{name}/test",
    operation_id = "test_endpoint",
    tag = "webhooks",
    params(("name" = String, Path, description = "Of an endpoint in the configuration.", example = "merchant-app")),
    responses((status = 200, description = "How it went.", body = Tested)),
    extensions(("x-required-scope" = json!("operate")), ("x-problems" = json!(["endpoint_unknown"]))),
)]
pub async fn test(State(api): State<Api>, path: PathName, headers: HeaderMap) -> Result<Response, Problem> {
    api.keys.require(&headers, Scope::Operate)?;
    let sent = api.service.test_endpoint(&name(path)?).await.ok_or_else(Problem::endpoint_unknown)?;
    let failure = sent.end.as_ref().err();
    let body = Tested {
        result: failure.map_or("delivered", |error| error.code()),
        status: sent.status,
        reason: failure.map(ToString::to_string),
        duration_ms: u64::try_from(sent.duration.as_millis()).unwrap_or(u64::MAX),
        answer: sent.answer,
    };
    Ok(Json(body).into_response())
}

/// How a test event was taken.
#[derive(Serialize, ToSchema)]
pub(super) struct Tested {
    #[schema(schema_with = words::text)]
    result: &'static str,
    /// Of the answer, if there was one.
    #[schema(required)]
    status: Option<u16>,
    #[schema(required)]
    reason: Option<String>,
    duration_ms: u64,
    /// Its first bytes, without what may be secret.
    #[schema(required)]
    answer: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Wish {
    event_id: Option<Value>,
    verification_id: Option<Value>,
    endpoint: Option<Value>,
    since: Option<Value>,
    until: Option<Value>,
    types: Option<Value>,
    dry_run: Option<Value>,
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

/// Deliver events anew
///
/// Of one event, one verification, or a window of one endpoint.
#[utoipa::path(
    post,
    path = "/webhooks/replay",
    operation_id = "replay_events",
    tag = "webhooks",
    request_body(content = ReplayRequest, example = json!({
        "endpoint": "merchant-app", "since": "2026-11-21T00:00:00Z", "dry_run": true})),
    responses((status = 200, description = "With `dry_run` how many it would be.", body = Replayed)),
    extensions(
        ("x-required-scope" = json!("operate")),
        ("x-problems" = json!([
            "body_malformed", "body_unsupported", "body_too_large", "body_invalid", "database_unavailable",
        ])),
    ),
)]
pub async fn replay(State(api): State<Api>, request: Request) -> Result<Response, Problem> {
    let (parts, content) = request.into_parts();
    let by = api.keys.require(&parts.headers, Scope::Operate)?;
    let (filter, dry_run) = parse(&api, body::json::<Value>(&parts.headers, content).await?)?;
    if dry_run {
        let matched = answered_within(COUNTING, api.service.store.count_replay(&filter)).await?;
        return Ok(Json(Replayed::Counted { matched }).into_response());
    }
    let (begun, complete) = answered_within(COUNTING, api.service.replay(&filter, by, REPLAYING)).await?;
    Ok(Json(Replayed::Begun { begun, complete }).into_response())
}

/// What a replay does, or would do.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(super) enum Replayed {
    Counted {
        matched: i64,
    },
    /// Where not `complete`, send the same again.
    Begun {
        begun: i64,
        complete: bool,
    },
}

/// What begins anew, and whether only to count.
fn parse(api: &Api, body: Option<Value>) -> Result<(ReplayFilter, bool), Problem> {
    let object = |_| Problem::body_invalid(vec![FieldError::new("", "the body must be an object")]);
    let wish: Wish = serde_json::from_value(body.unwrap_or_else(|| json!({}))).map_err(object)?;
    let mut errors: Vec<_> =
        wish.unknown.into_iter().map(|(name, _)| FieldError::new(name, "is not a member of this request")).collect();
    let mut wrong = |name: &'static str, message: &'static str| errors.push(FieldError::new(name, message));
    let dry_run = match given(wish.dry_run) {
        None => false,
        Some(Value::Bool(dry_run)) => dry_run,
        Some(_) => {
            wrong("dry_run", "must be true or false");
            false
        }
    };
    let mut filter = None;
    let event = given(wish.event_id);
    let verification = given(wish.verification_id);
    let endpoint = given(wish.endpoint);
    let window = [("since", given(wish.since)), ("until", given(wish.until)), ("types", given(wish.types))];
    match (event, verification, endpoint) {
        (Some(event), None, None) => match event.as_str().and_then(|text| text.parse().ok()) {
            Some(id) => filter = Some(ReplayFilter::Event(id)),
            None => wrong("event_id", "must be the id of an event"),
        },
        (None, Some(verification), None) => match verification.as_str().and_then(|text| text.parse().ok()) {
            Some(id) => filter = Some(ReplayFilter::Verification(id)),
            None => wrong("verification_id", "must be the id of a verification"),
        },
        (None, None, Some(endpoint)) => {
            filter = parse_window(api, &endpoint, &window, &mut wrong);
        }
        _ => wrong("", "exactly one of event_id, verification_id and endpoint is required"),
    }
    if !matches!(filter, None | Some(ReplayFilter::Window { .. })) {
        for (name, value) in &window {
            if value.is_some() {
                wrong(name, "goes with endpoint alone");
            }
        }
    }
    match filter {
        Some(filter) if errors.is_empty() => Ok((filter, dry_run)),
        _ => Err(Problem::body_invalid(errors)),
    }
}

/// `null` counts as absent.
fn given(value: Option<Value>) -> Option<Value> {
    value.filter(|value| !value.is_null())
}

fn parse_window(
    api: &Api,
    endpoint: &Value,
    window: &[(&'static str, Option<Value>); 3],
    wrong: &mut impl FnMut(&'static str, &'static str),
) -> Option<ReplayFilter> {
    let [since, until, types] = window;
    let known = endpoint.as_str().and_then(|name| api.service.endpoint(name));
    if known.is_none() {
        wrong("endpoint", "is not an endpoint in the configuration");
    }
    let mut read = |(name, value): &(&'static str, Option<Value>), default: Option<DateTime<Utc>>| match value {
        None if default.is_some() => default,
        None => {
            wrong(name, "is required");
            None
        }
        Some(value) => {
            let time = value.as_str().and_then(|text| parse_time(text).ok());
            if time.is_none() {
                wrong(name, "must be a time such as 2026-01-31T12:00:00Z");
            }
            time
        }
    };
    let (since, until) = (read(since, None), read(until, Some(api.service.clock.now())));
    let wanted: Option<Vec<EventType>> = match &types.1 {
        None => known.map(|endpoint| endpoint.types.clone()),
        Some(Value::Array(names)) => {
            names.iter().map(|name| name.as_str().and_then(|name| name.parse().ok())).collect()
        }
        Some(_) => None,
    };
    if wanted.is_none() && types.1.is_some() {
        wrong("types", "must be a list of types of events");
    }
    let types = wanted?.into_iter().map(EventType::as_str).collect();
    Some(ReplayFilter::Window { endpoint: known?.name.clone(), since: since?, until: until?, types })
}

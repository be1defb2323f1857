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

use super::auth::Scope;
use super::error::FieldError;
use super::verifications::body::time;
use super::verifications::list::{LIMIT, parse_limit, parse_time, text};
use super::verifications::query::Query;
use super::{Api, Problem, answered, answered_within, body};
use crate::domain::EventType;
use crate::service::webhooks::Endpoint;
use crate::store::{DeliveryFilter, DeliveryRow, DeliveryState, EndpointRow, ReplayFilter};

/// For how long one request begins deliveries anew.
const REPLAYING: Duration = Duration::from_secs(20);
/// Counting reads each event of the window, and a step of a replay may wait for others.
const COUNTING: Duration = Duration::from_mins(1);

#[derive(Serialize)]
struct EndpointBody<'a> {
    name: &'a str,
    /// Without what may be secret; null where it is not configured any more.
    url: Option<&'a str>,
    events: Vec<&'static str>,
    state: &'static str,
    disabled_at: Option<String>,
    disabled_reason: Option<&'a str>,
    failures: u32,
    paused_until: Option<String>,
    pending: i64,
    failed: i64,
    next_due_at: Option<String>,
    last_success_at: Option<String>,
    last_failure_at: Option<String>,
    last_failure: Option<&'a str>,
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

/// `GET /webhooks`
pub async fn list(State(api): State<Api>, uri: Uri, headers: HeaderMap) -> Result<Response, Problem> {
    api.keys.require(&headers, Scope::Read)?;
    Query::of(&uri).finish()?;
    let rows = answered(api.service.store.endpoints()).await?;
    let body = |row| render_endpoint(row, api.service.endpoint(&row.endpoint).map(AsRef::as_ref));
    Ok(Json(json!({ "items": rows.iter().map(body).collect::<Vec<_>>() })).into_response())
}

#[derive(Serialize)]
struct DeliveryBody<'a> {
    event_id: String,
    endpoint: &'a str,
    verification_id: String,
    r#type: &'a str,
    occurred_at: String,
    status: &'a str,
    attempts: u32,
    replays: u32,
    next_attempt_at: Option<String>,
    last_attempt: Option<LastAttempt<'a>>,
    ended_at: Option<String>,
}

#[derive(Serialize)]
struct LastAttempt<'a> {
    at: String,
    result: Option<&'a str>,
    status: Option<i32>,
    duration_ms: Option<i64>,
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

/// `GET /webhooks/deliveries`
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
        below: query.take("cursor", |text| {
            text.parse().ok().filter(|id| *id > 0).ok_or("must be the next_cursor of an earlier page, unchanged")
        }),
        limit: limit + 1,
    };
    query.finish()?;
    let mut rows = answered(api.service.store.deliveries(&filter)).await?;
    let most = usize::try_from(limit).unwrap_or(usize::MAX);
    let has_more = rows.len() > most;
    rows.truncate(most);
    let next_cursor = rows.last().filter(|_| has_more).map(|last| last.id.to_string());
    let items: Vec<_> = rows.iter().map(DeliveryBody::from).collect();
    Ok(Json(json!({ "items": items, "next_cursor": next_cursor })).into_response())
}

type PathName = Result<Path<String>, PathRejection>;

fn name(path: PathName) -> Result<String, Problem> {
    path.map(|Path(name)| name).map_err(|_| Problem::endpoint_unknown())
}

/// `POST /webhooks/{name}/enable`
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

/// `POST /webhooks/{name}/test`
pub async fn test(State(api): State<Api>, path: PathName, headers: HeaderMap) -> Result<Response, Problem> {
    api.keys.require(&headers, Scope::Operate)?;
    let sent = api.service.test_endpoint(&name(path)?).await.ok_or_else(Problem::endpoint_unknown)?;
    let failure = sent.end.as_ref().err();
    Ok(Json(json!({
        "result": failure.map_or("delivered", |error| error.code()),
        "status": sent.status,
        "reason": failure.map(ToString::to_string),
        "duration_ms": u64::try_from(sent.duration.as_millis()).unwrap_or(u64::MAX),
        "answer": sent.answer,
    }))
    .into_response())
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

/// `POST /webhooks/replay`
pub async fn replay(State(api): State<Api>, request: Request) -> Result<Response, Problem> {
    let (parts, content) = request.into_parts();
    let by = api.keys.require(&parts.headers, Scope::Operate)?;
    let (filter, dry_run) = parse(&api, body::json::<Value>(&parts.headers, content).await?)?;
    if dry_run {
        let matched = answered_within(COUNTING, api.service.store.count_replay(&filter)).await?;
        return Ok(Json(json!({ "matched": matched })).into_response());
    }
    let (begun, complete) = answered_within(COUNTING, api.service.replay(&filter, by, REPLAYING)).await?;
    Ok(Json(json!({ "begun": begun, "complete": complete })).into_response())
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

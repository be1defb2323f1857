//! Control over HTTP, under `/_sim`: the same functions as in-process. A wrong body is refused with what is wrong.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderValue, Response, StatusCode, header};
use axum::routing::{get, post};
use axum::{Extension, Router};
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::alibaba::commands::{Complete, SendCallbacks};
use super::clock::ClockMove;
use super::faults::Fault;
use super::serve::Peer;
use super::state::SimulatorState;
use super::{ControlError, alibaba};

const HELP: &str = "\
Simulator of identity-verification providers. The Alibaba Cloud ID Verification API is at /, ZOLOZ is at /api/.

POST   /_sim/transactions                 make a transaction: {\"passed\":\"N\",\"sub_code\":\"204\"}; {} will pass
GET    /_sim/transactions/{id}            its state
POST   /_sim/transactions/{id}/complete   the person finishes: {} as chosen, {\"passed\":\"N\",\"callbacks\":0} otherwise
POST   /_sim/transactions/{id}/callbacks  only call back: {\"callback_url\":\"http://127.0.0.1:8080/callbacks/a\"}
POST   /_sim/transactions                 at ZOLOZ: {\"provider\":\"zoloz\",\"result_code\":\"NOT_SAME_PERSON\"}
POST   /_sim/transactions/{id}/complete   at ZOLOZ: {\"connect_result\":\"VoidTimeout\"}, {\"redirect\":true} for the browser's way
GET    /_sim/zoloz-keys                   the test keys for a client of ZOLOZ, to callers on this machine
POST   /_sim/faults                       {\"operation\":\"CheckResult\",\"kind\":\"status\",\"status\":503,\"times\":2}
DELETE /_sim/faults                       no more faults
GET    /_sim/clock                        the simulator's time
POST   /_sim/clock                        {\"advance\":\"31d\"}, {\"advance_seconds\":-60} or {\"set\":\"2030-01-01T00:00:00Z\"}
GET    /_sim/calls?after=0                what was received and what was called back, one line each
";

type Shared = State<Arc<SimulatorState>>;
type Answer = Result<Response<Body>, ControlError>;

pub(super) fn routes() -> Router<Arc<SimulatorState>> {
    Router::new()
        .route("/_sim", get(async || text(HELP.to_owned())))
        .route("/_sim/transactions", post(create))
        .route("/_sim/transactions/{id}", get(show))
        .route("/_sim/transactions/{id}/complete", post(complete))
        .route("/_sim/transactions/{id}/callbacks", post(send_callbacks))
        .route("/_sim/faults", post(add_fault).delete(clear_faults))
        .route("/_sim/clock", get(show_clock).post(move_clock))
        .route("/_sim/calls", get(calls))
        .route("/_sim/zoloz-keys", get(zoloz_keys))
}

impl axum::response::IntoResponse for ControlError {
    fn into_response(self) -> Response<Body> {
        let status = match &self {
            Self::UnknownTransaction(_) => StatusCode::NOT_FOUND,
            Self::TransactionExists(_) => StatusCode::CONFLICT,
            Self::Invalid(_) => StatusCode::BAD_REQUEST,
        };
        answer(status, &json!({"error": self.to_string()}))
    }
}

fn answer(status: StatusCode, body: &impl Serialize) -> Response<Body> {
    let body = serde_json::to_vec(body).unwrap_or_default();
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn text(text: String) -> Response<Body> {
    let mut response = Response::new(text.into());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// An empty body means `{}`.
fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, ControlError> {
    let body = if body.trim_ascii().is_empty() { b"{}" } else { body };
    serde_json::from_slice(body).map_err(|error| ControlError::Invalid(format!("the body cannot be used: {error}")))
}

async fn create(State(state): Shared, body: Bytes) -> Answer {
    let created = state.create(parse(&body)?)?;
    Ok(answer(StatusCode::CREATED, &created))
}

async fn show(State(state): Shared, Path(id): Path<String>) -> Answer {
    if let Some(view) = state.zoloz.view(&id) {
        return Ok(answer(StatusCode::OK, &view));
    }
    let view = state.alibaba.view(&id).ok_or(ControlError::UnknownTransaction(id))?;
    Ok(answer(StatusCode::OK, &view))
}

async fn complete(State(state): Shared, Path(id): Path<String>, body: Bytes) -> Answer {
    if state.zoloz.knows(&id) {
        let completed = state.zoloz.complete(&id, parse(&body)?, state.clock.now())?;
        return Ok(answer(StatusCode::OK, &completed));
    }
    let command: Complete = parse(&body)?;
    let completed = alibaba::control::complete(&state, &id, command).await?;
    Ok(answer(StatusCode::OK, &completed))
}

async fn send_callbacks(State(state): Shared, Path(id): Path<String>, body: Bytes) -> Answer {
    if state.zoloz.knows(&id) {
        let reason = "ZOLOZ calls nobody back; complete the transaction with {\"redirect\":true} and follow the URL";
        return Err(ControlError::Invalid(reason.to_owned()));
    }
    let command: SendCallbacks = parse(&body)?;
    let statuses = alibaba::control::send_callbacks(&state, &id, command).await?;
    Ok(answer(StatusCode::OK, &json!({"callback_statuses": statuses})))
}

async fn add_fault(State(state): Shared, body: Bytes) -> Answer {
    let fault: Fault = parse(&body)?;
    state.faults.add(fault)?;
    Ok(answer(StatusCode::CREATED, &json!({})))
}

async fn clear_faults(State(state): Shared) -> StatusCode {
    state.faults.clear();
    StatusCode::NO_CONTENT
}

/// Only to callers on this machine: keys do not travel, not even those of tests.
async fn zoloz_keys(State(state): Shared, peer: Option<Extension<Peer>>) -> Response<Body> {
    if peer.is_some_and(|Extension(Peer(address))| address.ip().is_loopback()) {
        return answer(StatusCode::OK, &state.zoloz.keys().for_merchants());
    }
    answer(StatusCode::FORBIDDEN, &json!({"error": "the keys are shown to callers on this machine only"}))
}

async fn show_clock(State(state): Shared) -> Response<Body> {
    let now = state.clock.now().to_rfc3339_opts(SecondsFormat::Micros, true);
    answer(StatusCode::OK, &json!({"now": now}))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MoveClock {
    advance: Option<String>,
    advance_seconds: Option<i64>,
    set: Option<DateTime<Utc>>,
}

impl MoveClock {
    fn step(self) -> Result<ClockMove, ControlError> {
        let wrong = |text: &str| ControlError::Invalid(text.to_owned());
        match (self.advance, self.advance_seconds, self.set) {
            (Some(text), None, None) => {
                let by = humantime::parse_duration(&text)
                    .ok()
                    .and_then(|by| TimeDelta::from_std(by).ok())
                    .ok_or_else(|| wrong("advance must be a duration such as 90s, 30m or 31d"))?;
                Ok(ClockMove::Advance(by))
            }
            (None, Some(seconds), None) => {
                let by = TimeDelta::try_seconds(seconds).ok_or_else(|| wrong("advance_seconds is too large"))?;
                Ok(ClockMove::Advance(by))
            }
            (None, None, Some(to)) => Ok(ClockMove::Set(to)),
            _ => Err(wrong("give exactly one of advance, advance_seconds and set")),
        }
    }
}

async fn move_clock(State(state): Shared, body: Bytes) -> Answer {
    let step = parse::<MoveClock>(&body)?.step()?;
    state.clock.apply(step);
    Ok(show_clock(State(state)).await)
}

/// The header `x-sim-calls` says how many were seen; as `after` of the next request it gives what is new.
async fn calls(State(state): Shared, RawQuery(query): RawQuery) -> Answer {
    let mut after = 0;
    for (name, value) in form_urlencoded::parse(query.as_deref().unwrap_or("").as_bytes()) {
        let number = value.parse::<u64>().ok().filter(|_| name == "after");
        after = number.ok_or_else(|| ControlError::Invalid("only ?after=NUMBER is understood".to_owned()))?;
    }
    let calls = state.calls.after(after);
    let seen = calls.last().map_or(after, |call| call.number);
    let mut lines = String::with_capacity(calls.len() * 96);
    for call in &calls {
        let _ = writeln!(lines, "{call}");
    }
    let mut response = text(lines);
    response.headers_mut().insert("x-sim-calls", HeaderValue::from(seen));
    Ok(response)
}

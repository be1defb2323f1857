//! From an HTTP request to an operation and back: faults, access, rate, answer. Each call is recorded once.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, Method, Response, Uri, header};
use chrono::{DateTime, Utc};

use super::operations::{Context, Operation};
use super::refusal::{JSON, Refusal, respond};
use super::request::ApiRequest;
use super::videos::VIDEO;
use crate::simulator::broken;
use crate::simulator::clock::http_date;
use crate::simulator::faults::{ErrorForm, Fault, FaultKind, Provider};
use crate::simulator::state::SimulatorState;

const VERSION: &str = "2022-08-09";

/// An answer and the code under which it is recorded.
type Answer = (Response<Body>, Cow<'static, str>);

/// The API, `/`.
pub(in crate::simulator) async fn call(
    State(state): State<Arc<SimulatorState>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let received_at = state.clock.real_now();
    let request = ApiRequest::read(&method, &uri, &headers, &body);
    let operation = request.action().and_then(Operation::named);
    let name = match (operation, request.action()) {
        (Some(operation), _) => Cow::Borrowed(operation.name()),
        (None, Some(unknown)) => Cow::Owned(unknown.to_owned()),
        (None, None) => Cow::Borrowed("-"),
    };
    let transaction_id = request.parameter("TransactionId");
    let recording = state.calls.begin(received_at, name.clone(), transaction_id);
    let fault = state.faults.take(Provider::Alibaba, &name, false, transaction_id, || state.random.fraction());
    let form = fault.as_ref().map_or(ErrorForm::Json, |fault| fault.form);
    let skew = fault.as_deref().and_then(Fault::skew);
    let request_id = state.random.request_id();

    let admitted = admit(&state, &request, operation, received_at, state.clock.now() + skew.unwrap_or_default());
    if let Some(ms) = fault.as_ref().and_then(|fault| fault.delay_ms) {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
    // After the wait: what is answered is what is true then.
    let now = state.clock.now() + skew.unwrap_or_default();
    let refused = |refusal: Refusal| {
        let code = refusal.code.clone();
        (refusal.into_response(&request_id, request.host(), form), code)
    };
    let (mut response, code) = match admitted {
        Err(refusal) => refused(refusal),
        Ok(operation) => {
            let faulty = fault.as_ref().and_then(|fault| faulty(fault, &request_id, request.host()));
            faulty.unwrap_or_else(|| {
                let context = Context { request: &request, request_id: &request_id, now };
                match state.alibaba.execute(operation, &context) {
                    Ok(reply) => (respond(reply.status, JSON, reply.body), Cow::Borrowed("Success")),
                    Err(refusal) => refused(refusal),
                }
            })
        }
    };
    if skew.is_some() {
        response.headers_mut().insert(header::DATE, http_date(now));
    }
    recording.finish(response.status().as_u16(), code);
    response
}

fn admit(
    state: &SimulatorState,
    request: &ApiRequest<'_>,
    operation: Option<Operation>,
    received_at: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Result<Operation, Refusal> {
    if ![Method::GET, Method::POST].contains(request.method) {
        return Err(Refusal::new("UnsupportedHTTPMethod"));
    }
    if request.action().is_none() {
        return Err(Refusal::missing("Action"));
    }
    let operation = operation.ok_or_else(|| Refusal::new("InvalidAction.NotFound"))?;
    match request.common("x-acs-version", "Version") {
        None => return Err(Refusal::missing("Version")),
        Some(VERSION) => {}
        Some(_) => return Err(Refusal::new("InvalidVersion")),
    }
    state.alibaba.auth.check(request, now)?;
    let wait = |ms| Refusal::new("Throttling.Api").retry_after(ms);
    state.alibaba.rates.admit(operation as usize, received_at).map_err(wait)?;
    Ok(operation)
}

/// Evidence videos, `/_sim/videos/{file}`.
pub(in crate::simulator) async fn video(
    State(state): State<Arc<SimulatorState>>,
    Path(file): Path<String>,
    RawQuery(query): RawQuery,
) -> Response<Body> {
    let id = file.strip_suffix(".webm").unwrap_or(&file);
    let recording = state.calls.begin(state.clock.real_now(), Cow::Borrowed("Video"), Some(id));
    let fault = state.faults.take(Provider::Alibaba, "Video", true, Some(id), || state.random.fraction());
    if let Some(fault) = &fault
        && fault.kind != FaultKind::Drip
        && let Some(ms) = fault.delay_ms
    {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
    let request_id = state.random.request_id();
    let now = state.clock.now();
    let body = match &fault {
        Some(fault) if fault.kind == FaultKind::Drip => {
            broken::drip(VIDEO, Duration::from_millis(fault.delay_ms.unwrap_or(1000)))
        }
        Some(fault) if fault.kind == FaultKind::WrongLength => broken::shorter_than_announced(VIDEO),
        _ => Body::from(VIDEO),
    };
    let faulty = fault.and_then(|fault| faulty(&fault, &request_id, "videos"));
    let (response, code) = faulty.unwrap_or_else(|| {
        let refused = |status, code: &'static str, message: &'static str| {
            let refusal = Refusal { status, code: code.into(), message: message.into(), retry_after_ms: None };
            (refusal.into_response(&request_id, "videos", ErrorForm::Xml), Cow::Borrowed(code))
        };
        if !state.alibaba.videos.link_works(id, query.as_deref().unwrap_or(""), now) {
            refused(403, "AccessDenied", "Request has expired.")
        } else if !state.alibaba.transactions.with(id, |transaction| transaction.has_video(now)).unwrap_or(false) {
            refused(404, "NoSuchKey", "The specified key does not exist.")
        } else {
            (respond(200, "video/webm", body), Cow::Borrowed("Success"))
        }
    });
    recording.finish(response.status().as_u16(), code);
    response
}

/// The answer of a fault; `None` for those that leave the answer as it is.
fn faulty(fault: &Fault, request_id: &str, host: &str) -> Option<Answer> {
    let refused = |code: &str| {
        let status = fault.status.or((fault.kind == FaultKind::Status).then_some(500));
        let mut refusal = Refusal::new(code.to_owned()).adjusted(status, fault.message.as_deref());
        refusal.retry_after_ms = fault.retry_after_ms;
        let code = refusal.code.clone();
        (refusal.into_response(request_id, host, fault.form), code)
    };
    let text = |status: u16, content_type, body: Body, name| (respond(status, content_type, body), Cow::Borrowed(name));
    let status = fault.status.unwrap_or(200);
    Some(match fault.kind {
        // Answers are not signed here: the last three do not fit this provider and never come.
        FaultKind::Delay
        | FaultKind::Drip
        | FaultKind::WrongLength
        | FaultKind::Skew
        | FaultKind::Tamper
        | FaultKind::WrongKey
        | FaultKind::Unsigned => {
            return None;
        }
        FaultKind::Status => {
            let code = match fault.status {
                Some(503) => "ServiceUnavailable",
                _ => "InternalError",
            };
            refused(fault.code.as_deref().unwrap_or(code))
        }
        FaultKind::Code => refused(fault.code.as_deref().unwrap_or("InternalError")),
        FaultKind::Throttle => refused(fault.code.as_deref().unwrap_or("Throttling.User")),
        FaultKind::Html => {
            text(fault.status.unwrap_or(502), "text/html", broken::html("502 Bad Gateway").into_body(), "Html")
        }
        FaultKind::Empty => text(status, JSON, Body::empty(), "Empty"),
        FaultKind::Garbage => {
            text(status, JSON, format!("{{\"RequestId\":\"{request_id}\",\"Code\":\"Succ\u{0}").into(), "Garbage")
        }
        FaultKind::CutOff => {
            let start = format!("{{\"RequestId\":\"{request_id}\",\"Code\":");
            text(status, JSON, broken::cut_off(start), "CutOff")
        }
        FaultKind::Huge => text(status, JSON, broken::huge("{\"RequestId\":\"", fault.bytes), "Huge"),
    })
}

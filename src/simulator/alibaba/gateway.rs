//! From an HTTP request to an operation and back: faults, access, rate, answer. Each call is recorded once.

use std::borrow::Cow;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, Method, Response, Uri, header};
use chrono::{DateTime, TimeDelta, Utc};
use futures_util::stream;

use super::operations::{Context, Operation};
use super::refusal::{JSON, Refusal, respond};
use super::request::ApiRequest;
use super::videos::VIDEO;
use crate::simulator::clock::{http_date, real_now};
use crate::simulator::faults::{ErrorForm, Fault, FaultKind};
use crate::simulator::state::SimulatorState;

const VERSION: &str = "2022-08-09";
/// One more than the service may read.
const HUGE: u64 = 65 * 1024 * 1024;
const CHUNK: usize = 64 * 1024;

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
    let received_at = real_now();
    let request = ApiRequest::read(&method, &uri, &headers, &body);
    let operation = request.action().and_then(Operation::named);
    let name = match (operation, request.action()) {
        (Some(operation), _) => Cow::Borrowed(operation.name()),
        (None, Some(unknown)) => Cow::Owned(unknown.to_owned()),
        (None, None) => Cow::Borrowed("-"),
    };
    let transaction_id = request.parameter("TransactionId");
    let recording = state.calls.begin(received_at, name.clone(), transaction_id);
    let fault = state.faults.take(&name, false, transaction_id, || state.random.fraction());
    let form = fault.as_ref().map_or(ErrorForm::Json, |fault| fault.form);
    let skew = fault.as_ref().and_then(|fault| skew(fault));
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
    state.alibaba.rates.admit(operation, received_at).map_err(wait)?;
    Ok(operation)
}

/// Evidence videos, `/_sim/videos/{file}`.
pub(in crate::simulator) async fn video(
    State(state): State<Arc<SimulatorState>>,
    Path(file): Path<String>,
    RawQuery(query): RawQuery,
) -> Response<Body> {
    let id = file.strip_suffix(".webm").unwrap_or(&file);
    let recording = state.calls.begin(real_now(), Cow::Borrowed("Video"), Some(id));
    let fault = state.faults.take("Video", true, Some(id), || state.random.fraction());
    if let Some(ms) = fault.as_ref().and_then(|fault| fault.delay_ms) {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
    let request_id = state.random.request_id();
    let now = state.clock.now();
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
            (respond(200, "video/webm", VIDEO), Cow::Borrowed("Success"))
        }
    });
    recording.finish(response.status().as_u16(), code);
    response
}

fn skew(fault: &Fault) -> Option<TimeDelta> {
    if fault.kind == FaultKind::Skew { fault.skew_seconds.and_then(TimeDelta::try_seconds) } else { None }
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
        FaultKind::Delay | FaultKind::Skew => return None,
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
            let page = "<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>";
            text(fault.status.unwrap_or(502), "text/html", page.into(), "Html")
        }
        FaultKind::Empty => text(status, JSON, Body::empty(), "Empty"),
        FaultKind::Garbage => {
            text(status, JSON, format!("{{\"RequestId\":\"{request_id}\",\"Code\":\"Succ\u{0}").into(), "Garbage")
        }
        FaultKind::CutOff => {
            let start = Ok(Bytes::from(format!("{{\"RequestId\":\"{request_id}\",\"Code\":")));
            let end = Err(io::Error::new(io::ErrorKind::ConnectionAborted, "cut off on demand"));
            text(status, JSON, Body::from_stream(stream::iter([start, end])), "CutOff")
        }
        FaultKind::Huge => text(status, JSON, huge(fault.bytes.unwrap_or(HUGE)), "Huge"),
    })
}

/// A JSON text that never closes, made while it is sent.
fn huge(bytes: u64) -> Body {
    let chunk = Bytes::from(vec![b'a'; CHUNK]);
    let chunks = usize::try_from(bytes / CHUNK as u64 + 1).unwrap_or(usize::MAX);
    let start = std::iter::once(Bytes::from_static(b"{\"RequestId\":\""));
    let all = start.chain(std::iter::repeat_n(chunk, chunks));
    Body::from_stream(stream::iter(all.map(Ok::<_, io::Error>)))
}

//! From an HTTP request to an operation and back: signature, decryption, faults, time, rate, answer. Each call is
//! recorded once, without anything of its body but the transaction id.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, Response, StatusCode, Uri, header};
use chrono::{DateTime, Utc};

use super::access::{Caller, Message, Refusal, check_time, unsigned};
use super::operations::{self, OPERATIONS, Reply};
use super::outcome::{Answer, usual_message};
use crate::simulator::broken;
use crate::simulator::clock::http_date;
use crate::simulator::faults::{Fault, FaultKind, Provider};
use crate::simulator::state::SimulatorState;

/// The API, below `/api/`.
pub(in crate::simulator) async fn call(
    State(state): State<Arc<SimulatorState>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let received_at = state.clock.real_now();
    let path = uri.path();
    let operation = operations::at(path);
    let name = operation.map_or_else(|| Cow::Owned(path.to_owned()), |index| Cow::Borrowed(OPERATIONS[index].name));
    if method != Method::POST {
        let recording = state.calls.begin(received_at, name, None);
        recording.finish(405, Cow::Borrowed("MethodNotAllowed"));
        return with_status(broken::html("405 Method Not Allowed"), 405);
    }

    let keys = state.zoloz.keys();
    let caller = Caller::identify(&keys, &headers);
    let opened = caller.as_ref().map_err(Clone::clone).and_then(|caller| {
        caller.check(path, &headers, &body)?;
        caller.open(&headers, &body)
    });
    let transaction_id = opened.as_ref().ok().and_then(|message| message.members.get("transactionId")?.as_str());
    let recording = state.calls.begin(received_at, name.clone(), transaction_id);
    let fault = state.faults.take(Provider::Zoloz, &name, false, transaction_id, || state.random.fraction());
    let skew = fault.as_deref().and_then(Fault::skew).unwrap_or_default();
    let admitted = opened.and_then(|message| {
        check_time(&headers, state.clock.now() + skew)?;
        let index = operation.ok_or_else(|| Refusal::new("NO_INTERFACE_DEF", "the interface is not defined"))?;
        let too_many = |_| Refusal::new("REQUEST_TRAFFIC_EXCEED_LIMIT", usual_message("REQUEST_TRAFFIC_EXCEED_LIMIT"));
        state.zoloz.rates.admit(index, received_at).map_err(too_many)?;
        Ok((index, message))
    });
    if let Some(ms) = fault.as_ref().and_then(|fault| fault.delay_ms) {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
    // After the wait: what is answered is what is true then.
    let now = state.clock.now() + skew;
    let answering = Answering { state: &state, path, now, caller: caller.as_ref().ok() };
    let (mut response, code) = match admitted {
        Err(refusal) => answering.refused(refusal, None, None),
        Ok((index, message)) => answering.answer(index, &message, fault.as_deref()),
    };
    if !skew.is_zero() {
        response.headers_mut().insert(header::DATE, http_date(now));
    }
    recording.finish(response.status().as_u16(), code);
    response
}

/// An answer and the code under which it is recorded.
type Recorded = (Response<Body>, Cow<'static, str>);

struct Answering<'a> {
    state: &'a SimulatorState,
    path: &'a str,
    now: DateTime<Utc>,
    caller: Option<&'a Caller<'a>>,
}

impl Answering<'_> {
    fn answer(&self, index: usize, message: &Message, fault: Option<&Fault>) -> Recorded {
        let flaw = fault.map(|fault| fault.kind);
        if let Some(fault) = fault
            && let Some(recorded) = self.faulty(fault, message)
        {
            return recorded;
        }
        let client_id = self.caller.map_or("", |caller| &caller.client.id);
        match self.state.zoloz.execute(OPERATIONS[index].action, client_id, message, self.now) {
            Ok(reply) => self.sealed(&reply, message.key_length, flaw),
            Err(refusal) => self.refused(refusal, message.key_length, flaw),
        }
    }

    fn refused(&self, refusal: Refusal, key_length: Option<usize>, flaw: Option<FaultKind>) -> Recorded {
        let status = if refusal.code == "SYSTEM_ERROR" { "U" } else { "F" };
        self.sealed(&Answer::plain(status, refusal.code, &refusal.message).into(), key_length, flaw)
    }

    /// Encrypted when the request was, and signed when there is somebody to sign for.
    fn sealed(&self, reply: &Reply, key_length: Option<usize>, flaw: Option<FaultKind>) -> Recorded {
        let code = reply.answer.code.clone();
        let text = reply.answer.body.to_string();
        let length = key_length.map(|length| reply.aes_bits.map_or(length, |bits| usize::from(bits / 8)));
        (self.sign(text, length, flaw), code)
    }

    fn sign(&self, text: String, key_length: Option<usize>, flaw: Option<FaultKind>) -> Response<Body> {
        let Some(caller) = self.caller else { return unsigned(text) };
        let random = self.state.random.bytes::<32>();
        let key = key_length.map(|length| &random[..length.min(random.len())]);
        let sealed = caller.seal(self.path, self.now, text, key, flaw, super::Zoloz::stranger);
        sealed.unwrap_or_else(|_| with_status(broken::html("500 Internal Server Error"), 500))
    }

    /// The answer of a fault; `None` for those that leave the answer to the operation.
    fn faulty(&self, fault: &Fault, message: &Message) -> Option<Recorded> {
        let coded = |usual: &str| {
            let code = fault.code.clone().unwrap_or_else(|| usual.to_owned());
            let text = fault.message.as_deref().unwrap_or(usual_message(&code)).to_owned();
            Refusal::new(code, text)
        };
        let status = fault.status.unwrap_or(200);
        let plain = |response, name| Some((with_status(response, status), Cow::Borrowed(name)));
        match fault.kind {
            FaultKind::Delay
            | FaultKind::Drip
            | FaultKind::WrongLength
            | FaultKind::Skew
            | FaultKind::Tamper
            | FaultKind::WrongKey
            | FaultKind::Unsigned => None,
            // Something before the gateway: it signs nothing.
            FaultKind::Status => {
                let refusal = coded("SYSTEM_ERROR");
                let body = Answer::plain("U", refusal.code.clone(), &refusal.message).body;
                Some((with_status(unsigned(body.to_string()), fault.status.unwrap_or(500)), refusal.code))
            }
            FaultKind::Code | FaultKind::Throttle => {
                let refusal = coded("REQUEST_TRAFFIC_EXCEED_LIMIT");
                let (response, code) = self.refused(refusal, message.key_length, None);
                Some((with_status(response, status), code))
            }
            FaultKind::Html => {
                let response = with_status(broken::html("403 Forbidden"), fault.status.unwrap_or(403));
                Some((response, Cow::Borrowed("Html")))
            }
            FaultKind::Empty => plain(unsigned(String::new()), "Empty"),
            // Signed, so that the trouble is in the text and not in the signature.
            FaultKind::Garbage => {
                plain(self.sign("{\"result\":{\"resultStatus\":\"S".to_owned(), message.key_length, None), "Garbage")
            }
            FaultKind::CutOff => plain(Response::new(broken::cut_off("{\"result\":")), "CutOff"),
            FaultKind::Huge => plain(Response::new(broken::huge("{\"result\":\"", fault.bytes)), "Huge"),
        }
    }
}

fn with_status(mut response: Response<Body>, status: u16) -> Response<Body> {
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response
}

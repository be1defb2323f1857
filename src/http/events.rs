//! `GET /events`: what happens, as server-sent events, until the caller or the service goes.
//!
//! The stream begins with the id after which it goes on, and repeats where it stands with each sign of life, so that a
//! caller who comes back misses nothing even where nothing was for him. A slow caller is let go: he comes back with
//! `Last-Event-ID`.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use chrono::{DateTime, Utc};
use futures_util::stream;
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::error::FieldError;
use super::verifications::body::time;
use super::verifications::query::Query;
use super::{Api, Problem, answered};
use crate::clock::earlier;
use crate::domain::HistoryKind;
use crate::http::auth::Scope;
use crate::service::live::{Event, Listener, NotListening, Start};
use crate::store::LiveRow;

/// How often the caller hears that the connection lives.
const SIGN_OF_LIFE: Duration = Duration::from_secs(15);
/// What a caller is told to wait before coming back.
const COME_BACK_MS: u64 = 2000;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Asks nginx and its kin to pass on each piece as it comes.
const BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// What is told of a row's detail: how it went. Nothing of an answer but its code.
const TOLD: [&str; 9] = ["action", "attempt", "code", "endpoint", "evidence", "outcome", "read", "result", "state"];

pub async fn listen(State(api): State<Api>, uri: Uri, headers: HeaderMap) -> Result<Response, Problem> {
    api.keys.require(&headers, Scope::Read)?;
    let now = api.service.clock.now();
    let mut query = Query::of(&uri);
    let kinds = query.take("kind", kinds);
    let account = query.take("account", |text| Ok(text.to_owned()));
    let since = query.take("since", |text| since(text, now));
    query.finish()?;
    // Whoever comes back has the same query as the first time.
    let start = match (last_event_id(&headers)?, since) {
        (Some(id), _) => Start::After(id),
        (None, Some(since)) => Start::Since(since),
        (None, None) => Start::Now,
    };
    let listener = answered(api.service.live.listen(start)).await?;
    let filter = Filter { kinds, account };
    let streaming = Streaming {
        listener,
        filter,
        stopping: Box::pin(api.tasks.stopping()),
        next_sign: Instant::now() + SIGN_OF_LIFE,
        is_begun: false,
    };
    let pieces = stream::unfold(streaming, |mut streaming| async {
        let piece = streaming.next().await?;
        Some((Ok::<_, Infallible>(piece), streaming))
    });
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (BUFFERING, HeaderValue::from_static("no")),
    ];
    Ok((headers, Body::from_stream(pieces)).into_response())
}

impl From<NotListening> for Problem {
    fn from(error: NotListening) -> Self {
        match error {
            NotListening::Full => Self::too_many_listeners(),
            NotListening::Unknown(_) => last_event_id_invalid(
                "names an event that was never told here; is this another database? leave it out, or use since",
            ),
            NotListening::Database(error) => error.into(),
        }
    }
}

fn last_event_id_invalid(message: &'static str) -> Problem {
    Problem::query_invalid(vec![FieldError::new("Last-Event-ID", message)])
}

/// An empty one counts as none, as browsers mean it.
fn last_event_id(headers: &HeaderMap) -> Result<Option<i64>, Problem> {
    let Some(value) = headers.get(LAST_EVENT_ID).filter(|value| !value.is_empty()) else { return Ok(None) };
    let digits = value.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    let id = digits.and_then(|text| text.parse().ok());
    id.map(Some).ok_or_else(|| last_event_id_invalid("must be the id of an event, as it was sent"))
}

fn kinds(text: &str) -> Result<Vec<String>, &'static str> {
    let known = |kind: &str| HistoryKind::ALL.iter().any(|known| known.as_str() == kind);
    let kinds: Vec<String> = text.split(',').map(|kind| kind.trim().to_owned()).collect();
    if kinds.iter().all(|kind| known(kind)) {
        Ok(kinds)
    } else {
        Err("must be kinds of history with commas between: registered, callback, check, evidence, verdict, webhook, \
             operator, erased")
    }
}

fn since(text: &str, now: DateTime<Utc>) -> Result<DateTime<Utc>, &'static str> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Ok(time.to_utc());
    }
    let ago = humantime::parse_duration(text);
    ago.map(|ago| earlier(now, ago)).map_err(|_| "must be a time like 2026-01-31T12:00:00Z, or so long ago, like 2h")
}

struct Filter {
    kinds: Option<Vec<String>>,
    account: Option<String>,
}

impl Filter {
    fn passes(&self, row: &LiveRow) -> bool {
        self.kinds.as_ref().is_none_or(|kinds| kinds.contains(&row.kind))
            && self.account.as_ref().is_none_or(|account| *account == row.account)
    }
}

struct Streaming {
    listener: Listener,
    filter: Filter,
    stopping: Pin<Box<dyn Future<Output = ()> + Send>>,
    next_sign: Instant,
    is_begun: bool,
}

impl Streaming {
    /// The next piece of the body; `None` at its end.
    async fn next(&mut self) -> Option<Bytes> {
        let piece = if self.is_begun { self.piece().await? } else { self.position(&format!("retry: {COME_BACK_MS}")) };
        self.is_begun = true;
        self.next_sign = Instant::now() + SIGN_OF_LIFE;
        Some(piece)
    }

    async fn piece(&mut self) -> Option<Bytes> {
        loop {
            let events = tokio::select! {
                biased;
                () = &mut self.stopping => return None,
                events = self.listener.next() => events?,
                () = tokio::time::sleep_until(self.next_sign) => return Some(self.position(": all is well")),
            };
            let passing = |event: &&Arc<Event>| self.filter.passes(&event.row);
            let mut rendered = events.iter().filter(passing).map(|event| event.rendered(render));
            let Some(first) = rendered.next() else { continue };
            let mut piece = BytesMut::from(first);
            rendered.for_each(|event| piece.extend_from_slice(&event));
            return Some(piece.freeze());
        }
    }

    /// An id without data moves what the caller comes back with, and is no event.
    fn position(&self, line: &str) -> Bytes {
        format!("{line}\nid: {}\n\n", self.listener.position()).into()
    }
}

#[derive(Serialize)]
struct EventBody<'a> {
    r#type: String,
    timestamp: String,
    data: Data<'a>,
}

#[derive(Serialize)]
struct Data<'a> {
    id: String,
    account: &'a str,
    merchant_biz_id: &'a str,
    status: &'a str,
    revision: Option<i64>,
    #[serde(flatten)]
    told: Map<String, Value>,
}

/// The event on the wire.
fn render(row: &LiveRow) -> Bytes {
    let mut detail: Map<String, Value> = serde_json::from_str(row.detail.get()).unwrap_or_default();
    // A verdict says how it was then, whatever came later.
    let then = detail.remove("status").filter(|_| row.kind == HistoryKind::Verdict.as_str());
    let status = then.as_ref().and_then(Value::as_str).unwrap_or(&row.status);
    let revision = then.as_ref().and_then(|_| detail.get("revision")?.as_i64()).or(row.revision.map(i64::from));
    let what = match row.kind.as_str() {
        "verdict" => status,
        "evidence" if detail.get("state").is_some_and(|state| state == "stored") => "evidence_stored",
        kind => kind,
    };
    let body = EventBody {
        r#type: format!("verification.{what}"),
        timestamp: time(row.at),
        data: Data {
            id: row.verification.to_string(),
            account: &row.account,
            merchant_biz_id: &row.merchant_biz_id,
            status,
            revision,
            told: {
                // What a callback claims must not look like a verdict.
                let is_told = |name: &str| TOLD.contains(&name) || (name == "sub_code" && row.kind == "verdict");
                detail.retain(|name, value| is_told(name) && !value.is_null());
                detail
            },
        },
    };
    let mut text = format!("id: {}\nevent: {}\ndata: ", row.id, row.kind);
    // JSON on one line; a body of texts and numbers always can be written.
    let _ = write!(text, "{}", serde_json::to_string(&body).unwrap_or_default());
    text.push_str("\n\n");
    text.into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use serde_json::value::RawValue;
    use uuid::Uuid;

    use super::*;
    use crate::domain::VerificationId;

    fn row(kind: &str, detail: &Value) -> LiveRow {
        LiveRow {
            id: 7,
            at: DateTime::from_timestamp(1_800_000_000, 0).unwrap(),
            kind: kind.to_owned(),
            detail: RawValue::from_string(detail.to_string()).unwrap(),
            verification: VerificationId(Uuid::from_u128(1)),
            account: "alibaba-sg".to_owned(),
            merchant_biz_id: "biz".to_owned(),
            status: "passed".to_owned(),
            revision: Some(2),
        }
    }

    fn body(kind: &str, detail: &Value) -> Value {
        let text = String::from_utf8(render(&row(kind, detail)).to_vec()).unwrap();
        let lines: Vec<&str> = text.split('\n').collect();
        assert_eq!((lines.len(), lines[0], lines[3], lines[4]), (5, "id: 7", "", ""), "{text}");
        assert_eq!(lines[1], format!("event: {kind}"));
        serde_json::from_str(lines[2].strip_prefix("data: ").unwrap()).unwrap()
    }

    #[test]
    fn a_verdict_is_told_as_it_was_then() {
        let body = body("verdict", &json!({"status": "failed", "revision": 1, "sub_code": "204", "reason": "long"}));
        assert_eq!(
            body,
            json!({"type": "verification.failed", "timestamp": "2027-01-15T08:00:00.000000Z", "data": {
                "id": "00000000-0000-0000-0000-000000000001", "account": "alibaba-sg", "merchant_biz_id": "biz",
                "status": "failed", "revision": 1, "sub_code": "204"
            }})
        );
    }

    #[test]
    fn other_kinds_have_the_status_of_now_and_how_it_went() {
        let check =
            body("check", &json!({"attempt": 3, "outcome": "unavailable", "code": "timeout", "duration_ms": 1}));
        assert_eq!(check["type"], "verification.check");
        assert_eq!((&check["data"]["status"], &check["data"]["revision"]), (&json!("passed"), &json!(2)));
        assert_eq!((&check["data"]["outcome"], &check["data"]["attempt"]), (&json!("unavailable"), &json!(3)));
        assert_eq!(check["data"].get("duration_ms"), None);
        let stored = body("evidence", &json!({"evidence": "video", "state": "stored", "sha256": "ab"}));
        assert_eq!(stored["type"], "verification.evidence_stored");
        assert_eq!(body("evidence", &json!({"read": "raw", "by": "ops"}))["type"], "verification.evidence");
        assert_eq!(body("erased", &json!({}))["type"], "verification.erased");
        let callback = body("callback", &json!({"passed": "Y", "sub_code": "200"}));
        assert_eq!((callback["data"].get("sub_code"), callback["data"].get("passed")), (None, None));
    }

    #[test]
    fn a_beginning_is_a_time_or_so_long_ago() {
        let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        assert_eq!(since("2h", now), Ok(now - chrono::TimeDelta::hours(2)));
        assert_eq!(since("2027-01-15T08:00:00Z", now), Ok(now));
        assert!(since("yesterday", now).is_err());
        assert!(kinds("verdict,check").is_ok() && kinds("verdict,").is_err() && kinds("verdicts").is_err());
    }

    #[test]
    fn what_to_come_back_with_is_a_number() {
        let read = |text: &str| {
            let headers = HeaderMap::from_iter([(LAST_EVENT_ID, HeaderValue::from_str(text).unwrap())]);
            last_event_id(&headers).map_err(|problem| problem.code())
        };
        assert_eq!(last_event_id(&HeaderMap::new()).unwrap(), None);
        assert_eq!((read(""), read("0"), read("12")), (Ok(None), Ok(Some(0)), Ok(Some(12))));
        for wrong in ["-1", "+1", "1.5", "x", "99999999999999999999"] {
            assert_eq!(read(wrong), Err("query_invalid"), "{wrong}");
        }
    }
}

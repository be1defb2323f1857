//! Everything that happened, in words, oldest first.

use chrono::{DateTime, Utc};
use maud::{Markup, html};
use serde_json::{Map, Value};

use super::layout::clock;
use crate::domain::HistoryKind;
use crate::service::why::span;
use crate::store::HistoryRow;

/// Members that are said in the sentence; the others follow it.
const SAID: [&str; 19] = [
    "attempt",
    "outcome",
    "code",
    "duration_ms",
    "status",
    "sub_code",
    "reason",
    "evidence",
    "state",
    "read",
    "by",
    "passed",
    "revision",
    "initialized",
    "action",
    "recheck",
    "source",
    "endpoint",
    "result",
];

pub fn timeline(rows: &[HistoryRow], registered_at: DateTime<Utc>) -> Markup {
    html! {
        @if rows.is_empty() { p.calm { "The history was destroyed by its age." } }
        ol.timeline {
            @for row in rows {
                @let detail = serde_json::from_str::<Map<String, Value>>(row.detail.get()).unwrap_or_default();
                li class=(row.kind.as_str()) {
                    p.at { (clock(row.at)) span.muted { " +" (span(row.at - registered_at)) } }
                    p { strong { (row.kind.as_str()) } " " (sentence(row.kind, &detail)) }
                    @let rest = rest(&detail);
                    @if !rest.is_empty() { p.muted { (rest) } }
                }
            }
        }
    }
}

fn text(detail: &Map<String, Value>, name: &str) -> Option<String> {
    match detail.get(name)? {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

fn sentence(kind: HistoryKind, detail: &Map<String, Value>) -> String {
    let part = |name: &str| text(detail, name);
    let bracketed = |name: &str| part(name).map(|text| format!(" ({text})")).unwrap_or_default();
    match kind {
        HistoryKind::Registered if detail.get("initialized") == Some(&Value::Bool(true)) => "started here".to_owned(),
        HistoryKind::Registered => String::new(),
        HistoryKind::Callback if part("source").as_deref() == Some("return") => {
            "the person's browser came back".to_owned()
        }
        HistoryKind::Callback => match (part("passed"), part("sub_code")) {
            (None, None) => "it claims nothing".to_owned(),
            (passed, code) => {
                let parts = [passed.map(|text| format!("passed {text}")), code.map(|text| format!("code {text}"))];
                format!("it claims {}", parts.into_iter().flatten().collect::<Vec<_>>().join(", "))
            }
        },
        HistoryKind::Check => format!(
            "{}: {}{}{}",
            part("attempt").unwrap_or_default(),
            part("outcome").unwrap_or_default().replace('_', " "),
            bracketed("code"),
            part("duration_ms").map(|time| format!(", {time} ms")).unwrap_or_default()
        ),
        HistoryKind::Verdict => format!(
            "{}{}{}",
            part("status").unwrap_or_default(),
            bracketed("sub_code"),
            part("reason").map(|reason| format!(": {reason}")).unwrap_or_default()
        ),
        HistoryKind::Evidence => match part("read") {
            Some(read) => {
                let what = if read == "raw" { "the provider's answer".to_owned() } else { read.replace('_', " ") };
                format!("{} looked at {what}", part("by").unwrap_or_else(|| "somebody".to_owned()))
            }
            None => format!(
                "{}: {}{}",
                part("evidence").unwrap_or_default().replace('_', " "),
                part("state").unwrap_or_default(),
                bracketed("reason")
            ),
        },
        HistoryKind::Operator if detail.get("recheck") == Some(&Value::Bool(true)) => {
            "ask the provider again".to_owned()
        }
        HistoryKind::Operator => "ask the provider now".to_owned(),
        HistoryKind::Erased => format!(
            "by {}{}",
            part("by").unwrap_or_else(|| "somebody".to_owned()),
            part("reason").map(|reason| format!(": {reason}")).unwrap_or_default()
        ),
        HistoryKind::Webhook => format!(
            "to {}, attempt {}: {}{}{}",
            part("endpoint").unwrap_or_default(),
            part("attempt").unwrap_or_default(),
            part("result").unwrap_or_default(),
            bracketed("status"),
            part("reason").map(|reason| format!(", {reason}")).unwrap_or_default()
        ),
    }
}

/// What the sentence leaves out.
fn rest(detail: &Map<String, Value>) -> String {
    let others = detail.iter().filter(|(name, value)| !SAID.contains(&name.as_str()) && !value.is_null());
    let said = others.map(|(name, value)| {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        format!("{} {value}", name.replace('_', " "))
    });
    said.collect::<Vec<_>>().join(" · ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(kind: HistoryKind, detail: &str) -> String {
        sentence(kind, &serde_json::from_str(detail).unwrap())
    }

    #[test]
    fn what_happened_is_said_in_words() {
        let check = r#"{"attempt":3,"outcome":"account_failing","code":"SignatureDoesNotMatch","duration_ms":35}"#;
        assert_eq!(said(HistoryKind::Check, check), "3: account failing (SignatureDoesNotMatch), 35 ms");
        assert_eq!(said(HistoryKind::Callback, r#"{"passed":"Y","sub_code":null}"#), "it claims passed Y");
        assert_eq!(
            said(HistoryKind::Evidence, r#"{"read":"face_image","by":"ops","request_id":"r"}"#),
            "ops looked at face image"
        );
        assert_eq!(
            said(HistoryKind::Evidence, r#"{"evidence":"video","state":"missed","reason":"over"}"#),
            "video: missed (over)"
        );
        assert_eq!(said(HistoryKind::Operator, r#"{"action":"collect","recheck":true}"#), "ask the provider again");
        let verdict = r#"{"status":"failed","sub_code":"204","reason":"Not the same.","revision":1}"#;
        assert_eq!(said(HistoryKind::Verdict, verdict), "failed (204): Not the same.");
    }

    #[test]
    fn what_is_not_said_follows() {
        let detail = serde_json::from_str(r#"{"attempt":1,"notes":["odd"],"flow":"interrupted","x":null}"#).unwrap();
        let rest = rest(&detail);
        assert!(rest.contains("flow interrupted") && rest.contains("notes [\"odd\"]") && !rest.contains('x'), "{rest}");
    }
}

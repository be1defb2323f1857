//! The words and the small shapes of answers, as schemas: lists are those of the code, so that a new word shows.

use serde_json::{Value, json};
use utoipa::openapi::{RefOr, Schema};

use crate::domain::history::HistoryKind;
use crate::domain::risk::RiskKind;
use crate::domain::{EvidenceKind, EvidenceState, FinalStatus, Status};
use crate::service::why::{CODES, Who};
use crate::store::{DeliveryState, Discrepancy, EvidencePart, ProviderPart, RecheckState};

/// A schema as it stands in the document.
fn schema(value: Value) -> RefOr<Schema> {
    serde_json::from_value(value).expect("a schema written here can be read, as the test of the whole document shows")
}

fn words(words: &[&str]) -> RefOr<Schema> {
    schema(json!({ "type": "string", "enum": words }))
}

pub fn statuses() -> Vec<&'static str> {
    let all = [Status::Waiting, Status::Collecting].into_iter().chain(FinalStatus::ALL.map(Status::Final));
    all.map(Status::as_str).collect()
}

pub fn risks() -> [&'static str; 2] {
    RiskKind::ALL.map(RiskKind::as_str)
}

pub fn evidence_kinds() -> [&'static str; 5] {
    EvidenceKind::ALL.map(EvidenceKind::as_str)
}

pub fn status() -> RefOr<Schema> {
    words(&statuses())
}

pub fn final_status() -> RefOr<Schema> {
    words(&FinalStatus::ALL.map(FinalStatus::as_str))
}

/// A final status, or null for all of them.
pub fn maybe_final_status() -> RefOr<Schema> {
    let mut all: Vec<Value> = FinalStatus::ALL.map(|status| status.as_str().into()).to_vec();
    all.push(Value::Null);
    schema(json!({ "type": ["string", "null"], "enum": all }))
}

pub fn evidence_kind() -> RefOr<Schema> {
    words(&evidence_kinds())
}

pub fn evidence_state() -> RefOr<Schema> {
    words(&EvidenceState::ALL.map(EvidenceState::as_str))
}

pub fn recheck_state() -> RefOr<Schema> {
    words(&[RecheckState::Running, RecheckState::Finished, RecheckState::Stopped].map(RecheckState::as_str))
}

pub fn why_code() -> RefOr<Schema> {
    words(&CODES)
}

pub fn who() -> RefOr<Schema> {
    words(&Who::ALL.map(Who::as_str))
}

pub fn discrepancy() -> RefOr<Schema> {
    words(&Discrepancy::ALL.map(Discrepancy::as_str))
}

pub fn delivery_states() -> Vec<&'static str> {
    DeliveryState::ALL.iter().map(|state| state.as_str()).collect()
}

pub fn delivery_state() -> RefOr<Schema> {
    words(&delivery_states())
}

pub fn endpoint_state() -> RefOr<Schema> {
    words(&["ok", "failing", "disabled", "not_configured"])
}

pub fn accepted() -> RefOr<Schema> {
    words(&["accepted"])
}

pub fn unmatched() -> RefOr<Schema> {
    words(&["unmatched"])
}

pub fn text() -> RefOr<Schema> {
    schema(json!({ "type": "string" }))
}

pub fn alive() -> RefOr<Schema> {
    words(&["alive"])
}

pub fn readiness() -> RefOr<Schema> {
    words(&["ready", "unready"])
}

pub fn time() -> RefOr<Schema> {
    schema(json!({ "type": "string", "format": "date-time" }))
}

pub fn scores() -> RefOr<Schema> {
    schema(json!({ "type": "object", "description": "The provider's numbers; empty before the verdict.",
        "additionalProperties": { "type": "number" }, "examples": [{ "face_comparison": 99.99, "face_attack": 1.2 }] }))
}

pub fn signals() -> RefOr<Schema> {
    let known = json!({
        "face_passed": { "type": "boolean" }, "face_attack": { "type": "boolean" },
        "face_occlusion": { "type": "boolean" }, "age": { "type": "integer" },
        "gender": { "type": "string", "enum": ["M", "F"] }, "face_registered": { "type": "boolean" },
    });
    schema(json!({ "type": "object", "properties": known, "additionalProperties": true,
        "description": "What else the provider says about the person; empty before the verdict." }))
}

pub fn metadata() -> RefOr<Schema> {
    schema(json!({ "type": ["object", "null"], "additionalProperties": true,
        "description": "Yours, equal as JSON.", "examples": [{ "order": "A-17" }] }))
}

pub fn client() -> RefOr<Schema> {
    let text = json!({ "type": ["string", "null"] });
    schema(json!({ "type": ["object", "null"],
        "description": "Only in the answer to `initialize`: what the client SDK needs. Null once a day has passed.",
        "required": ["transaction_id", "transaction_url", "protocol", "client_cfg"],
        "properties": { "transaction_id": text, "transaction_url": text, "protocol": text, "client_cfg": text } }))
}

pub fn history_items() -> RefOr<Schema> {
    let kinds = HistoryKind::ALL.map(HistoryKind::as_str);
    schema(json!({ "type": "array", "description": "Oldest first.", "items": {
        "type": "object", "required": ["at", "kind"], "additionalProperties": true,
        "description": "The time and the kind, then the members of the kind.",
        "properties": {
            "at": { "type": "string", "format": "date-time" }, "kind": { "type": "string", "enum": kinds },
        } } }))
}

pub fn destroyed() -> RefOr<Schema> {
    let time = json!({ "type": ["string", "null"], "format": "date-time" });
    let reason = json!({ "type": ["string", "null"] });
    let database = json!({ "type": "object", "required": ["what", "where", "state", "rows", "at"], "properties": {
        "what": { "type": "string" }, "where": { "type": "string", "enum": ["database"] },
        "state": { "type": "string", "enum": ["destroyed"] }, "rows": { "type": "integer", "minimum": 0 },
        "at": { "type": "string", "format": "date-time" } } });
    let states = [EvidencePart::Pending, EvidencePart::Destroyed].map(EvidencePart::as_str);
    let evidence = json!({ "type": "object",
        "required": ["what", "where", "state", "objects", "at", "reason", "next_attempt_at"], "properties": {
        "what": { "type": "string" }, "where": { "type": "string", "enum": ["evidence store"] },
        "state": { "type": "string", "enum": states },
        "objects": { "type": "integer", "minimum": 0 }, "at": time, "reason": reason, "next_attempt_at": time } });
    let states = [ProviderPart::Pending, ProviderPart::Destroyed, ProviderPart::Refused, ProviderPart::NotOffered]
        .map(ProviderPart::as_str);
    let provider = json!({ "type": "object",
        "required": ["what", "where", "state", "at", "reason", "next_attempt_at"], "properties": {
        "what": { "type": "string" }, "where": { "type": "string", "enum": ["provider"] },
        "state": { "type": "string", "enum": states },
        "at": time, "reason": reason, "next_attempt_at": time } });
    schema(json!({ "type": "array", "description": "Each thing, and where it was.",
        "items": { "oneOf": [database, evidence, provider] } }))
}

pub fn estimate() -> RefOr<Schema> {
    schema(json!({ "type": "object", "required": ["seconds"],
        "description": "At the rate that nothing else of the account needs at the moment.",
        "properties": { "seconds": { "type": "integer", "minimum": 0 } } }))
}

/// By account, then by status.
pub fn counts() -> RefOr<Schema> {
    schema(json!({ "type": "object", "description": "By account and status.", "additionalProperties": {
        "type": "object", "additionalProperties": { "type": "integer", "minimum": 0 } } }))
}

pub fn states() -> RefOr<Schema> {
    let members: serde_json::Map<_, _> =
        statuses().into_iter().map(|status| (status.to_owned(), json!({ "type": "integer", "minimum": 0 }))).collect();
    schema(json!({ "type": "object", "description": "How many are in each status.", "required": statuses(),
        "properties": members }))
}

pub fn database() -> RefOr<Schema> {
    schema(json!({ "type": "object", "required": ["status"],
        "properties": { "status": { "type": "string", "enum": ["ok", "unavailable"] } } }))
}

pub fn migrations() -> RefOr<Schema> {
    schema(json!({ "type": "object", "required": ["status"], "properties": {
        "status": { "type": "string", "enum": ["current", "pending", "newer", "foreign", "unknown"] },
        "pending": { "type": "integer", "minimum": 1 },
        "newer": { "type": "integer", "minimum": 1 } } }))
}

pub fn accounts() -> RefOr<Schema> {
    schema(json!({ "type": "object", "description": "By the account's name.", "additionalProperties": {
        "type": "object", "required": ["status"], "properties": {
            "status": { "type": "string", "enum": ["ok", "failing", "unknown"] },
            "reason": { "type": "string" }, "code": { "type": "string" },
            "since": { "type": "string", "format": "date-time" },
        } } }))
}

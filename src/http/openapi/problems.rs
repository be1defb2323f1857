//! Problems in the document: each code with an example, which is the very body that is sent.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::http::error::FieldError;
use crate::http::{CODES, Problem};
use crate::service::accept_callback::NotAccepted;
use crate::service::batch::Turned;

/// One problem of each code.
pub fn one_of_each() -> Vec<Problem> {
    let id = "01a20052-106c-74b8-b008-29321547fb36";
    let reference = "a4b6228db1423ae5081339bb2fea84ef";
    let transaction = "hksbd5b4dfdf6b71176a57174345482d";
    vec![
        Problem::unauthorized(),
        Problem::scope_missing("read"),
        Problem::body_malformed("It is not the expected JSON (line 1, column 14)."),
        Problem::body_unsupported(),
        Problem::body_too_large(),
        Problem::body_too_slow(),
        Problem::body_invalid(vec![
            FieldError::new("account", "is not an account in the configuration"),
            FieldError::new("order", "is not a member of this request"),
        ]),
        Problem::query_invalid(vec![FieldError::new("limit", "must be a whole number from 1 to 200")]),
        Problem::not_found(),
        Problem::method_not_allowed(),
        Problem::verification_not_found(),
        Problem::answer_not_found("The verification has no revision 2. Its history names those that it has."),
        Problem::evidence_not_found("The face_image is erased."),
        Problem::evidence_sealed(),
        Problem::evidence_unavailable(),
        Problem::recheck_not_found(),
        Problem::transaction_conflict(id, &["merchant_biz_id", "metadata"]),
        Problem::already_final(
            "It is passed. To ask the provider again all the same, send {\"recheck\":true} with a key that has the \
             scope operate.",
        ),
        Problem::account_unknown(),
        Problem::transaction_unknown(),
        Problem::callback_token_mismatch(),
        Problem::callback_malformed("Nothing was recorded: transactionId is missing."),
        Problem::callback_unsupported(),
        Problem::idempotency_key_invalid(),
        Problem::idempotency_key_reused(),
        Problem::initialize_in_progress(),
        Problem::initialize_refused("InvalidParameter"),
        Problem::initialize_lost("timeout", "2026-11-21T22:55:07.884852Z", reference),
        Problem::initialize_unstored(transaction, reference),
        Problem::throttled(Duration::from_secs(2)),
        Problem::account_failing("bad_key", "InvalidAccessKeyId.NotFound", Duration::from_secs(5)),
        Problem::provider_unavailable("connect"),
        Problem::return_state_invalid(),
        Problem::database_unavailable(),
        NotAccepted::Turned(Turned::Full).into(),
        NotAccepted::Turned(Turned::Stopping).into(),
        Problem::internal(),
    ]
}

fn bodies() -> Vec<Value> {
    one_of_each().iter().map(|problem| serde_json::to_value(problem.body()).expect("texts are JSON")).collect()
}

/// `components.examples`
pub fn examples() -> Value {
    let named = bodies().into_iter().map(|body| {
        let name = body["code"].as_str().unwrap_or_default().to_owned();
        (name, json!({ "summary": body["title"], "value": body }))
    });
    named.collect::<Map<_, _>>().into()
}

/// The refusals of one status.
pub struct Refusals {
    pub description: String,
    /// Of `application/problem+json`.
    pub content: Value,
    pub headers: Vec<(&'static str, Value)>,
}

/// The answers that these codes make, by status.
pub fn responses(codes: &[&str]) -> BTreeMap<String, Refusals> {
    let mut by_status: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (code, status) in CODES.into_iter().filter(|(code, _)| codes.contains(code)) {
        by_status.entry(status.to_string()).or_default().push(code);
    }
    by_status.into_iter().map(|(status, codes)| (status, refusals(&codes))).collect()
}

fn refusals(codes: &[&str]) -> Refusals {
    let problems: Vec<Problem> = one_of_each().into_iter().filter(|problem| codes.contains(&problem.code())).collect();
    let examples: Map<String, Value> = codes
        .iter()
        .map(|code| ((*code).to_owned(), json!({ "$ref": format!("#/components/examples/{code}") })))
        .collect();
    let of_code = json!({ "type": "object", "properties": { "code": { "enum": codes } } });
    let mut headers = Vec::new();
    if problems.iter().any(|problem| problem.retry_after.is_some()) {
        headers.push(("Retry-After", json!({ "$ref": "#/components/headers/RetryAfter" })));
    }
    if codes.iter().any(|code| CODES.contains(&(code, 401))) {
        headers.push(("WWW-Authenticate", json!({ "$ref": "#/components/headers/Challenge" })));
    }
    Refusals {
        description: codes.iter().map(|code| format!("`{code}`")).collect::<Vec<_>>().join(", "),
        content: json!({
            "schema": { "allOf": [{ "$ref": "#/components/schemas/Problem" }, of_code] },
            "examples": examples,
        }),
        headers,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_an_example() {
        let made: Vec<_> = one_of_each().iter().map(Problem::code).collect();
        for (code, _) in CODES {
            let count = made.iter().filter(|made| **made == code).count();
            assert_eq!(count, 1, "make one example of {code} in one_of_each()");
        }
    }
}

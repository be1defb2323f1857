//! `DELETE /verifications/{id}`: everything about the person is destroyed, and the answer is the receipt.

use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::body::time;
use super::{PathId, parse_id};
use crate::http::auth::Scope;
use crate::http::error::FieldError;
use crate::http::openapi::requests::EraseRequest;
use crate::http::openapi::words;
use crate::http::{Api, PATIENCE, Problem, body};
use crate::service::erase::LONGEST_REASON;
use crate::store::{Erasure, EvidencePart, ProviderPart};

/// How long the request waits for the parts outside the database.
const WAIT: Duration = Duration::from_secs(10);

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Wish {
    reason: Option<Value>,
    #[serde(flatten)]
    unknown: serde_json::Map<String, Value>,
}

/// What was destroyed, and what is left to be. It holds no personal data and is kept.
#[derive(Serialize, ToSchema)]
pub(in crate::http) struct Receipt<'a> {
    #[schema(format = "uuid")]
    id: String,
    #[schema(format = DateTime)]
    erased_at: String,
    /// The name of the key; null with `auth.mode = "none"`.
    #[schema(required)]
    by: Option<&'a str>,
    #[schema(required)]
    reason: Option<&'a str>,
    /// Nothing is pending.
    complete: bool,
    #[schema(schema_with = words::destroyed)]
    destroyed: Vec<Value>,
}

/// Destroy everything about the person
///
/// Here and at the provider. The answer is the receipt, which is kept; the same again answers with the first one as it
/// stands then. The body may be left out.
#[utoipa::path(
    delete,
    path = "/verifications/{id}",
    operation_id = "erase_verification",
    tag = "verifications",
    params(("id" = String, Path, format = "uuid", description = "The `id` that registering returned.")),
    request_body(content = EraseRequest, example = json!({"reason": "request 4711"})),
    responses((status = 200, description = "The receipt.", body = Receipt)),
    extensions(
        ("x-required-scope" = json!("erase")),
        ("x-optional-body" = json!(true)),
        ("x-problems" = json!([
            "body_malformed", "body_unsupported", "body_too_large", "body_invalid", "verification_not_found",
            "database_unavailable",
        ])),
    ),
)]
pub async fn erase(State(api): State<Api>, id: PathId, request: Request) -> Result<Response, Problem> {
    let (parts, content) = request.into_parts();
    let by = api.keys.require(&parts.headers, Scope::Erase)?;
    let reason = reason(body::json::<Value>(&parts.headers, content).await?)?;
    let id = parse_id(id)?;
    let patience = if api.tasks.is_stopping() { Duration::ZERO } else { WAIT };
    let erasing = api.service.erase(id, by, reason.as_deref(), patience);
    let erased =
        tokio::time::timeout(WAIT + PATIENCE, erasing).await.map_err(|_| Problem::database_unavailable())??;
    let erasure = erased.ok_or_else(Problem::verification_not_found)?;
    Ok(Json(receipt(&erasure)).into_response())
}

fn reason(body: Option<Value>) -> Result<Option<String>, Problem> {
    let Some(body) = body else { return Ok(None) };
    let wish: Wish = serde_json::from_value(body)
        .map_err(|_| Problem::body_invalid(vec![FieldError::new("", "the body must be an object")]))?;
    let mut errors: Vec<_> =
        wish.unknown.into_iter().map(|(name, _)| FieldError::new(name, "is not a member of this request")).collect();
    let reason = match wish.reason {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) if text.chars().count() <= LONGEST_REASON && !text.chars().any(char::is_control) => {
            Some(text).filter(|text| !text.is_empty())
        }
        Some(_) => {
            errors.push(FieldError::new("reason", "must be a text of at most 200 characters without line breaks"));
            None
        }
    };
    if errors.is_empty() { Ok(reason) } else { Err(Problem::body_invalid(errors)) }
}

fn receipt(erasure: &Erasure) -> Receipt<'_> {
    let found = erasure.destroyed;
    let at = time(erasure.erased_at);
    let mut destroyed: Vec<Value> = [
        ("scores", found.scores),
        ("raw_answer", found.raw_answer),
        ("metadata", found.metadata),
        ("return_url", found.return_url),
        ("callback_token", found.callback_token),
        ("client_answer", found.client_answer),
        ("callbacks", found.callbacks),
        ("history_details", found.history_details),
    ]
    .into_iter()
    .map(|(what, rows)| json!({ "what": what, "where": "database", "state": "destroyed", "rows": rows, "at": at }))
    .collect();
    destroyed.push(json!({
        "what": "evidence",
        "where": "evidence store",
        "state": erasure.evidence.as_str(),
        "objects": erasure.evidence_objects,
        "at": erasure.evidence_at.map(time),
        "reason": erasure.evidence_reason,
        "next_attempt_at": erasure.due_at.filter(|_| erasure.evidence == EvidencePart::Pending).map(time),
    }));
    destroyed.push(json!({
        "what": "result",
        "where": "provider",
        "state": erasure.provider.as_str(),
        "at": erasure.provider_at.map(time),
        "reason": erasure.provider_reason,
        "next_attempt_at": erasure.due_at.filter(|_| erasure.provider == ProviderPart::Pending).map(time),
    }));
    Receipt {
        id: erasure.id.to_string(),
        erased_at: at,
        by: erasure.by.as_deref(),
        reason: erasure.reason.as_deref(),
        complete: erasure.due_at.is_none(),
        destroyed,
    }
}

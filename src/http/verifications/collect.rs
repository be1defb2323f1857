//! `POST /verifications/{id}/collect`: ask the provider now, because the app knows that the person finished.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::{PathId, parse_id};
use crate::http::auth::Scope;
use crate::http::error::FieldError;
use crate::http::openapi::requests::CollectRequest;
use crate::http::openapi::words;
use crate::http::{Api, Problem, answered, body};
use crate::store::Collect;

/// A check is due.
#[derive(Serialize, ToSchema)]
pub(in crate::http) struct Collecting {
    #[schema(format = "uuid")]
    id: String,
    #[schema(schema_with = words::accepted)]
    status: &'static str,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Wish {
    recheck: Option<Value>,
    #[serde(flatten)]
    unknown: serde_json::Map<String, Value>,
}

/// Ask the provider now
///
/// Because your app knows that the person finished. The body may be left out. On a final one other than `void` and
/// `expired` it is refused, unless `recheck` is true, which needs the scope `operate` too.
#[utoipa::path(
    post,
    path = "/verifications/{id}/collect",
    operation_id = "collect_verification",
    tag = "verifications",
    params(("id" = String, Path, format = "uuid", description = "The `id` that registering returned.")),
    request_body(content = CollectRequest, examples(
        ("finished" = (summary = "The person finished", value = json!({}))),
        ("recheck" = (summary = "Once more about a final one", value = json!({"recheck": true}))),
    )),
    responses((status = 202, description = "A check is due.", body = Collecting)),
    extensions(
        ("x-required-scope" = json!("register")),
        ("x-optional-body" = json!(true)),
        ("x-problems" = json!([
            "body_malformed", "body_unsupported", "body_too_large", "body_invalid", "verification_not_found",
            "already_final", "database_unavailable",
        ])),
    ),
)]
pub async fn collect(State(api): State<Api>, id: PathId, request: Request) -> Result<Response, Problem> {
    let (parts, content) = request.into_parts();
    api.keys.require(&parts.headers, Scope::Register)?;
    let recheck = recheck(body::json::<Value>(&parts.headers, content).await?)?;
    if recheck {
        api.keys.require(&parts.headers, Scope::Operate)?;
    }
    let id = parse_id(id)?;
    match answered(api.service.collect(id, recheck)).await? {
        Collect::Accepted => {
            let body = Collecting { id: id.to_string(), status: "accepted" };
            Ok((StatusCode::ACCEPTED, Json(body)).into_response())
        }
        Collect::NotFound => Err(Problem::verification_not_found()),
        Collect::AlreadyFinal(status) => Err(Problem::already_final(format!(
            "It is {status}. To ask the provider again all the same, send {{\"recheck\":true}} with a key that has the \
             scope operate."
        ))),
        Collect::Erased => Err(Problem::already_final(
            "It was erased, so the provider is never asked about it again. Begin a new transaction with the person.",
        )),
    }
}

fn recheck(body: Option<Value>) -> Result<bool, Problem> {
    let Some(body) = body else { return Ok(false) };
    let wish: Wish = serde_json::from_value(body)
        .map_err(|_| Problem::body_invalid(vec![FieldError::new("", "the body must be an object")]))?;
    let mut errors: Vec<_> =
        wish.unknown.into_iter().map(|(name, _)| FieldError::new(name, "is not a member of this request")).collect();
    let recheck = match wish.recheck {
        None | Some(Value::Null) => false,
        Some(Value::Bool(recheck)) => recheck,
        Some(_) => {
            errors.push(FieldError::new("recheck", "must be true or false"));
            false
        }
    };
    if errors.is_empty() { Ok(recheck) } else { Err(Problem::body_invalid(errors)) }
}

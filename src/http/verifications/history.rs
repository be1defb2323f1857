//! `GET /verifications/{id}/history`: everything that happened, oldest first.

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::body::time;
use super::{PathId, parse_id};
use crate::http::auth::Scope;
use crate::http::openapi::words;
use crate::http::{Api, Problem, answered};
use crate::store::HistoryRow;

/// Everything that happened, oldest first
///
/// What a callback claims is kept as a claim and reaches no verdict.
#[utoipa::path(
    get,
    path = "/verifications/{id}/history",
    operation_id = "show_history",
    tag = "verifications",
    params(("id" = String, Path, format = "uuid", description = "The `id` that registering returned.")),
    responses((status = 200, description = "The history.", body = History)),
    extensions(
        ("x-required-scope" = json!("read")),
        ("x-problems" = json!(["verification_not_found", "database_unavailable"])),
    ),
)]
pub async fn history(State(api): State<Api>, id: PathId, headers: HeaderMap) -> Result<Response, Problem> {
    api.keys.require(&headers, Scope::Read)?;
    let rows = answered(api.service.store.history(parse_id(id)?)).await?.ok_or_else(Problem::verification_not_found)?;
    Ok(Json(History { items: rows.iter().map(item).collect() }).into_response())
}

/// What happened to one verification.
#[derive(Serialize, ToSchema)]
pub(in crate::http) struct History {
    /// Oldest first.
    #[schema(schema_with = words::history_items)]
    items: Vec<Map<String, Value>>,
}

/// The time and the kind, then the members of the kind.
fn item(row: &HistoryRow) -> Map<String, Value> {
    let mut item = Map::from_iter([
        ("at".to_owned(), Value::from(time(row.at))),
        ("kind".to_owned(), Value::from(row.kind.as_str())),
    ]);
    if let Ok(detail) = serde_json::from_str::<Map<String, Value>>(row.detail.get()) {
        for (name, value) in detail {
            item.entry(name).or_insert(value);
        }
    }
    item
}

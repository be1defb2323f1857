//! `GET /verifications/{id}/history`: everything that happened, oldest first.

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use super::body::time;
use super::{PathId, parse_id};
use crate::http::auth::Scope;
use crate::http::{Api, Problem, answered};
use crate::store::HistoryRow;

pub async fn history(State(api): State<Api>, id: PathId, headers: HeaderMap) -> Result<Response, Problem> {
    api.keys.require(&headers, Scope::Read)?;
    let rows = answered(api.service.store.history(parse_id(id)?)).await?.ok_or_else(Problem::verification_not_found)?;
    let items: Vec<_> = rows.iter().map(item).collect();
    Ok(Json(json!({ "items": items })).into_response())
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

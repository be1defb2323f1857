//! Whether the process lives, and whether it can do its work.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use super::{Api, answered};
use crate::store::Migrations;

pub async fn live() -> Response {
    Json(json!({ "status": "alive" })).into_response()
}

/// Ready: the database answers and has this program's migrations; newer ones on top are no hindrance, or an upgrade
/// would take all replicas away that are not replaced yet. An account in trouble is named, but does not
/// make the service unready: everything else goes on.
pub async fn ready(State(api): State<Api>) -> Response {
    let store = &api.service.store;
    let found = answered(store.migrations()).await;
    let is_ready = found.as_ref().is_ok_and(|found| found.are_enough());
    let (database, migrations) = match found {
        Ok(Migrations::Current) => ("ok", json!({ "status": "current" })),
        Ok(Migrations::Pending(count)) => ("ok", json!({ "status": "pending", "pending": count })),
        Ok(Migrations::Newer(count)) => ("ok", json!({ "status": "newer", "newer": count })),
        Ok(Migrations::Foreign) => ("ok", json!({ "status": "foreign" })),
        Err(_) => ("unavailable", json!({ "status": "unknown" })),
    };
    let mut accounts: Map<String, Value> =
        api.service.accounts.keys().map(|name| (name.clone(), json!({ "status": "unknown" }))).collect();
    if is_ready && let Ok(known) = answered(store.account_health()).await {
        for health in known {
            let Some(shown) = accounts.get_mut(&health.account) else { continue };
            *shown = match health.failing {
                None => json!({ "status": "ok" }),
                Some(failing) => json!({
                    "status": "failing",
                    "reason": failing.reason,
                    "code": failing.code,
                    "since": super::verifications::body::time(failing.since),
                }),
            };
        }
    }
    let body = json!({
        "status": if is_ready { "ready" } else { "unready" },
        "database": { "status": database },
        "migrations": migrations,
        "accounts": accounts,
    });
    let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(body)).into_response()
}

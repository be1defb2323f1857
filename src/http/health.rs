//! Whether the process lives, and whether it can do its work.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::openapi::words;
use super::{Api, answered};
use crate::store::Migrations;

/// The process lives.
#[derive(Serialize, ToSchema)]
pub struct Alive {
    #[schema(schema_with = words::alive)]
    status: &'static str,
}

/// Each part, and the whole.
#[derive(Serialize, ToSchema)]
pub struct Readiness {
    #[schema(schema_with = words::readiness)]
    status: &'static str,
    #[schema(schema_with = words::database)]
    database: Value,
    #[schema(schema_with = words::migrations)]
    migrations: Value,
    /// By the account's name.
    #[schema(schema_with = words::accounts)]
    accounts: Map<String, Value>,
}

/// Whether the process lives
#[utoipa::path(
    get,
    path = "/healthz",
    operation_id = "show_health",
    tag = "service",
    responses((status = 200, description = "It lives.", body = Alive)),
    extensions(
        ("x-listener" = json!("both")),
        ("x-required-scope" = json!(null)),
        ("x-problems" = json!([])),
    ),
)]
pub async fn live() -> Response {
    Json(Alive { status: "alive" }).into_response()
}

/// Whether the service can do its work
///
/// Ready: the database answers and has this program's migrations; newer ones on top are no hindrance, or an upgrade
/// would take all replicas away that are not replaced yet. An account in trouble is named, but does not
/// make the service unready: everything else goes on.
#[utoipa::path(
    get,
    path = "/readyz",
    operation_id = "show_readiness",
    tag = "service",
    responses(
        (status = 200, description = "Ready.", body = Readiness),
        (status = 503, description = "The database does not answer, or its migrations are not this version's.",
            body = Readiness),
    ),
    extensions(("x-required-scope" = json!(null)), ("x-problems" = json!([]))),
)]
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
    let body = Readiness {
        status: if is_ready { "ready" } else { "unready" },
        database: json!({ "status": database }),
        migrations,
        accounts,
    };
    let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(body)).into_response()
}

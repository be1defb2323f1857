//! `GET /docs`: the API's document as a page. It is made here, needs no script, and fetches nothing from anywhere.

mod render;

use std::sync::LazyLock;

use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use super::auth::Scope;
use super::{Api, Problem, openapi};

const STYLE: &str = include_str!("style.css");
/// What each problem code means, in words.
const PROBLEMS: &str = include_str!("../../../docs/problems.md");

static PAGE: LazyLock<String> = LazyLock::new(|| render::render(openapi::parsed(), PROBLEMS, STYLE));

/// Nothing but the page's own style.
static POLICY: LazyLock<String> = LazyLock::new(|| {
    let style = STANDARD.encode(Sha256::digest(STYLE));
    format!(
        "default-src 'none'; style-src 'sha256-{style}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
});

/// This document, as a page
#[utoipa::path(
    get,
    path = "/docs",
    operation_id = "show_page",
    tag = "service",
    responses((status = 200, description = "The page.", body = String, content_type = "text/html")),
    extensions(("x-required-scope" = json!("read")), ("x-problems" = json!([]))),
)]
pub async fn show(State(api): State<Api>, headers: HeaderMap) -> Result<Response, Problem> {
    api.keys.require(&headers, Scope::Read)?;
    Ok(page())
}

/// The page itself, for whoever may see it.
pub(super) fn page() -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, POLICY.as_str()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    (headers, PAGE.as_str()).into_response()
}

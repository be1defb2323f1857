//! The API's document (OpenAPI 3.1): made of the attributes at the handlers, and what they have in common.
//!
//! `openapi.json` at the top of the repository is what [`document`] makes, and a test holds it to that. Every route is
//! in the document, and nothing else is.

mod complete;
mod problems;
pub mod requests;
pub mod words;

use std::sync::LazyLock;

use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use utoipa::OpenApi;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};

use super::auth::Scope;
use super::{
    Api, Problem, callbacks, docs, events, health, metrics, problem_body, rechecks, reconcile, returns, verifications,
    webhooks,
};

const DESCRIPTION: &str = "\
Checkback ends every identity verification that was registered with the provider's verdict, or with a written reason \
why not.

Two listeners: the internal one is for your own services, the public one is what the provider and the person's browser \
reach. A path of one is 404 on the other; `x-listener` and `servers` say which serves an operation.

A key is sent as `Authorization: Bearer <key>`. `x-required-scope` names the scope that it needs; null: no key is \
needed. Bodies are JSON of at most 64 KiB (8 MiB with `initialize`) and arrive within 10 seconds. Times are RFC 3339 in \
UTC. Members and query parameters that are not listed are refused; null in a body, and an empty value in a query, count \
as absent. A request that can be read as GET can be sent as HEAD too.";

#[derive(OpenApi)]
#[openapi(
    info(title = "Checkback", description = DESCRIPTION),
    servers((url = "http://127.0.0.1:8081", description = "The internal listener.")),
    tags(
        (name = "verifications", description = "Register, read, ask again, erase."),
        (name = "rechecks", description = "Ask again about many."),
        (name = "webhooks", description = "What is sent to your own services, and sending it again."),
        (name = "callbacks", description = "What the provider and the person's browser reach."),
        (name = "service", description = "Health, metrics, and this document."),
    ),
    components(schemas(problem_body::Body)),
    paths(
        verifications::register::register,
        verifications::list::list,
        verifications::show::show,
        verifications::history::history,
        verifications::why::why,
        verifications::raw::raw,
        verifications::evidence::evidence,
        verifications::collect::collect,
        verifications::erase::erase,
        rechecks::create,
        rechecks::list,
        rechecks::show,
        rechecks::stop,
        reconcile::reconcile,
        events::listen,
        webhooks::list,
        webhooks::deliveries,
        webhooks::replay,
        webhooks::enable,
        webhooks::test,
        callbacks::accept,
        callbacks::accept_posted,
        returns::go_on,
        health::live,
        health::ready,
        metrics::render,
        show,
        docs::show,
    ),
)]
struct Handlers;

static DOCUMENT: LazyLock<(Value, String)> = LazyLock::new(|| {
    let mut handlers = Handlers::openapi();
    let key = Http::builder()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("A key whose SHA-256 is in the configuration under `auth.keys`."))
        .build();
    handlers.components.get_or_insert_default().add_security_scheme("key", SecurityScheme::Http(key));
    let mut document = serde_json::to_value(&handlers).expect("a document is JSON");
    complete::complete(&mut document);
    let mut text = serde_json::to_string_pretty(&document).expect("a document is JSON");
    text.push('\n');
    (document, text)
});

/// The document, as `openapi.json` holds it.
pub fn document() -> &'static str {
    &DOCUMENT.1
}

/// The document to read in.
pub fn parsed() -> &'static Value {
    &DOCUMENT.0
}

/// This document
///
/// OpenAPI 3.1, made from the code of the version that runs.
#[utoipa::path(
    get,
    path = "/openapi.json",
    operation_id = "show_document",
    tag = "service",
    responses((status = 200, description = "The document.", body = Object)),
    extensions(("x-required-scope" = json!("read")), ("x-problems" = json!([]))),
)]
pub async fn show(State(api): State<Api>, headers: HeaderMap) -> Result<Response, Problem> {
    api.keys.require(&headers, Scope::Read)?;
    Ok(([(header::CONTENT_TYPE, "application/json")], document()).into_response())
}

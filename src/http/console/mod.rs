//! `/console`: the pages for people, on the internal listener.
//!
//! Pages are whole HTML documents and everything on them works without JavaScript; with it they keep themselves up to
//! date. Who may see or do what is decided by the same keys and scopes as in the API. Whatever comes from outside the
//! program is escaped by the templates; nothing is ever put into a page as it is.

mod accounts;
mod actions;
mod assets;
mod chart;
mod configuration;
mod form;
mod layout;
mod now;
mod refusal;
mod reveal;
mod session;
mod timeline;
mod unmatched;
mod verification;
mod verifications;
mod viewer;
mod webhooks;

use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware;
use axum::response::Response;
use axum::routing::{get, post};
use tokio::sync::{Mutex, OnceCell};

use super::Api;
use now::Overview;
use refusal::Refused;
use session::SessionKey;

type Page = Result<Response, refusal::Refusal>;

/// A setting in effect and where it came from; nothing in it is secret.
#[derive(Clone, Debug)]
pub struct Setting {
    pub key: String,
    pub value: String,
    pub origin: String,
}

/// What the console keeps between requests.
#[derive(Debug, Default)]
pub struct Console {
    /// What `checkback config` prints.
    pub settings: Vec<Setting>,
    /// Read at the first use.
    session_key: OnceCell<SessionKey>,
    /// The first page as it was a moment ago: however many look at it, the database is asked once.
    overview: Mutex<Option<Arc<Overview>>>,
}

impl Console {
    pub fn new(settings: Vec<Setting>) -> Self {
        Self { settings, ..Self::default() }
    }

    /// Those whose name begins so, without it.
    fn section<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a Setting)> {
        self.settings.iter().filter_map(move |setting| Some((setting.key.strip_prefix(prefix)?, setting)))
    }
}

/// Only what comes from here, nothing inline, in no frame.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

pub fn router() -> Router<Api> {
    Router::new()
        .route("/console", get(now::page))
        .route("/console/login", get(viewer::login).post(viewer::sign_in))
        .route("/console/logout", post(viewer::sign_out))
        .route("/console/find", get(verifications::find))
        .route("/console/verifications", get(verifications::page))
        .route("/console/verifications/{id}", get(verification::page))
        .route("/console/verifications/{id}/collect", post(actions::collect))
        .route("/console/verifications/{id}/recheck", post(actions::recheck))
        .route("/console/verifications/{id}/erase", post(actions::erase))
        .route("/console/verifications/{id}/raw", post(reveal::raw))
        .route("/console/verifications/{id}/evidence/{kind}", post(reveal::evidence))
        .route("/console/unmatched", get(unmatched::page))
        .route("/console/webhooks", get(webhooks::page))
        .route("/console/webhooks/{name}/enable", post(webhooks::enable))
        .route("/console/accounts", get(accounts::page))
        .route("/console/configuration", get(configuration::page))
        .route("/console/docs", get(configuration::api_docs))
        .route("/console/assets/{name}", get(assets::asset))
        .layer(middleware::map_response(protect))
}

/// What every answer carries.
async fn protect(mut response: Response) -> Response {
    let headers = response.headers_mut();
    let always: [(HeaderName, &str); 4] = [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        // With no referrer at all, forms would be sent with the origin "null".
        (header::REFERRER_POLICY, "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ];
    for (name, value) in always {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(HeaderValue::from_static(POLICY));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

//! The two listeners: one for providers and browsers, one for the merchant's own services.
//!
//! A path of one is 404 on the other, so that only the callback side need be reachable from outside.

mod auth;
mod body;
mod callbacks;
mod console;
mod docs;
mod error;
mod events;
mod field_error;
mod health;
mod metrics;
mod openapi;
mod problem_body;
mod rechecks;
mod reconcile;
mod returns;
mod server;
mod verifications;
mod webhooks;

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use metrics_exporter_prometheus::PrometheusHandle;
use tower::ServiceBuilder;
use tower_http::catch_panic::CatchPanicLayer;
use tracing::warn;

use crate::lifecycle::Tasks;
use crate::service::Service;

pub use auth::{Key, Keys, Scope};
pub use console::{Console, Setting};
pub use error::{CODES, Problem};
use metrics::CountLayer;
pub use openapi::document;
pub use server::serve;

/// How long the database may take for one step of a request.
const PATIENCE: Duration = Duration::from_secs(5);

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What handlers work with. Clones share it, because each request takes one.
#[derive(Clone)]
pub struct Api(Arc<Parts>);

/// What an [`Api`] is made of.
pub struct Parts {
    pub service: Service,
    pub keys: Keys,
    /// `/metrics` needs no key.
    pub open_metrics: bool,
    pub metrics: PrometheusHandle,
    pub console: Console,
    /// Waiting requests are answered early when these stop.
    pub tasks: Tasks,
}

impl Api {
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }
}

impl Deref for Api {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

/// What the internet reaches.
pub fn public_router(api: &Api) -> Router {
    let router = Router::new()
        .route("/callbacks/{account}", get(callbacks::accept).post(callbacks::accept_posted))
        .route("/returns/{account}", get(returns::go_on))
        .route("/healthz", get(health::live));
    finish(router, api, "public")
}

/// What the merchant's services and operators reach.
pub fn internal_router(api: &Api) -> Router {
    let router = Router::new()
        .route("/verifications", get(verifications::list::list).post(verifications::register::register))
        .route("/verifications/{id}", get(verifications::show::show).delete(verifications::erase::erase))
        .route("/verifications/{id}/history", get(verifications::history::history))
        .route("/verifications/{id}/why", get(verifications::why::why))
        .route("/verifications/{id}/raw", get(verifications::raw::raw))
        .route("/verifications/{id}/evidence/{kind}", get(verifications::evidence::evidence))
        .route("/verifications/{id}/collect", post(verifications::collect::collect))
        .route("/rechecks", get(rechecks::list).post(rechecks::create))
        .route("/rechecks/{id}", get(rechecks::show).delete(rechecks::stop))
        .route("/reconcile", get(reconcile::reconcile))
        .route("/webhooks", get(webhooks::list))
        .route("/webhooks/deliveries", get(webhooks::deliveries))
        .route("/webhooks/replay", post(webhooks::replay))
        .route("/webhooks/{name}/enable", post(webhooks::enable))
        .route("/webhooks/{name}/test", post(webhooks::test))
        .route("/events", get(events::listen))
        .route("/openapi.json", get(openapi::show))
        .route("/docs", get(docs::show))
        .route("/metrics", get(metrics::render))
        .route("/healthz", get(health::live))
        .route("/readyz", get(health::ready))
        .merge(console::router());
    // Outermost, so that answers of no route carry the id too.
    finish(router, api, "internal").layer(middleware::from_fn_with_state(api.clone(), request_id))
}

fn finish(router: Router<Api>, api: &Api, listener: &'static str) -> Router {
    router
        .fallback(|| async { Problem::not_found() })
        .method_not_allowed_fallback(|| async { Problem::method_not_allowed() })
        // As one layer, because the router puts each layer into a box of its own, for each request.
        .layer(ServiceBuilder::new().layer(CountLayer::new(listener)).layer(CatchPanicLayer::custom(after_panic)))
        .with_state(api.clone())
}

/// What a panic says may hold data; the panic hook has logged its place.
fn after_panic(_: Box<dyn std::any::Any + Send>) -> Response {
    Problem::internal().into_response()
}

/// What the database makes of a request, or that it took too long: a caller must not hang with the database.
async fn answered<T, E>(asked: impl Future<Output = Result<T, E>>) -> Result<T, Problem>
where
    Problem: From<E>,
{
    answered_within(PATIENCE, asked).await
}

/// The same, for what reads much.
async fn answered_within<T, E>(patience: Duration, asked: impl Future<Output = Result<T, E>>) -> Result<T, Problem>
where
    Problem: From<E>,
{
    let Ok(answer) = tokio::time::timeout(patience, asked).await else {
        warn!("the database did not answer a request in time");
        return Err(Problem::database_unavailable());
    };
    Ok(answer?)
}

/// Takes the caller's request id, or makes one, and returns it. Handlers find it in the request's headers.
async fn request_id(
    axum::extract::State(api): axum::extract::State<Api>,
    mut request: Request,
    next: Next,
) -> Response {
    let given = request.headers().get(&REQUEST_ID).filter(|id| is_plain(id)).cloned();
    let id = given
        .unwrap_or_else(|| HeaderValue::from_str(&api.service.entropy.hex32()).expect("hex digits are a header value"));
    request.headers_mut().insert(REQUEST_ID, id.clone());
    let mut response = next.run(request).await;
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

/// Short and printable, so that it can stand in logs.
fn is_plain(id: &HeaderValue) -> bool {
    let bytes = id.as_bytes();
    !bytes.is_empty() && bytes.len() <= 128 && bytes.iter().all(u8::is_ascii_graphic)
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;

    #[tokio::test]
    async fn what_a_panic_says_reaches_nobody() {
        let handler = async || -> Response { panic!("CANARY-FACE") };
        let router: Router = Router::new().fallback(handler).layer(CatchPanicLayer::custom(after_panic));
        let answer = router.oneshot(Request::new(Body::empty())).await.unwrap();
        assert_eq!(answer.status(), 500);
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        let body = std::str::from_utf8(&body).unwrap();
        assert!(body.contains("\"internal\"") && !body.contains("CANARY"), "{body}");
    }
}

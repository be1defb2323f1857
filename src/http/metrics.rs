//! `/metrics`, and the counting of requests.

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::auth::Scope;
use super::{Api, Problem};

pub async fn render(State(api): State<Api>, headers: HeaderMap) -> Result<Response, Problem> {
    if !api.open_metrics {
        api.keys.require(&headers, Scope::Read)?;
    }
    api.metrics.run_upkeep();
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
    Ok((kind, api.metrics.render()).into_response())
}

/// Counts by route, never by path: a path may hold anything.
pub async fn count(listener: &'static str, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().cloned();
    let response = next.run(request).await;
    let route = route.as_ref().map_or("", MatchedPath::as_str).to_owned();
    let status = response.status().as_u16().to_string();
    ::metrics::counter!("checkback_http_requests_total", "listener" => listener, "route" => route, "status" => status)
        .increment(1);
    response
}

//! `/metrics`, and the counting of requests.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll, ready};

use ::metrics::Counter;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{self, HeaderMap, header};
use axum::response::{IntoResponse, Response};
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use super::auth::Scope;
use super::{Api, Problem};

/// Metrics, as Prometheus reads them
///
/// Needs no key with `server.open_metrics = true`.
#[utoipa::path(
    get,
    path = "/metrics",
    operation_id = "show_metrics",
    tag = "service",
    responses((status = 200, description = "Text format 0.0.4.", body = String, content_type = "text/plain")),
    extensions(("x-required-scope" = json!("read")), ("x-problems" = json!([]))),
)]
pub async fn render(State(api): State<Api>, headers: HeaderMap) -> Result<Response, Problem> {
    if !api.open_metrics {
        api.keys.require(&headers, Scope::Read)?;
    }
    api.metrics.run_upkeep();
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
    Ok((kind, api.metrics.render()).into_response())
}

/// Counts requests by route, never by path: a path may hold anything.
#[derive(Clone)]
pub struct CountLayer(Arc<Counts>);

impl CountLayer {
    pub fn new(listener: &'static str) -> Self {
        Self(Arc::new(Counts { listener, counters: RwLock::default() }))
    }
}

impl<S> Layer<S> for CountLayer {
    type Service = Count<S>;

    fn layer(&self, inner: S) -> Count<S> {
        Count { inner, counts: Arc::clone(&self.0) }
    }
}

#[derive(Clone)]
pub struct Count<S> {
    inner: S,
    counts: Arc<Counts>,
}

impl<S, B> Service<Request> for Count<S>
where
    S: Service<Request, Response = http::Response<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Counted<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let route = request.extensions().get::<MatchedPath>().cloned();
        Counted { inner: self.inner.call(request), route, counts: Arc::clone(&self.counts) }
    }
}

pin_project! {
    pub struct Counted<F> {
        #[pin]
        inner: F,
        route: Option<MatchedPath>,
        counts: Arc<Counts>,
    }
}

impl<F, B, E> Future for Counted<F>
where
    F: Future<Output = Result<http::Response<B>, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let answer = ready!(this.inner.poll(context));
        if let Ok(response) = &answer {
            let route = this.route.as_ref().map_or("", MatchedPath::as_str);
            this.counts.count(route, response.status().as_u16());
        }
        Poll::Ready(answer)
    }
}

/// The counters of one listener, made once for each route and status.
struct Counts {
    listener: &'static str,
    counters: RwLock<HashMap<String, HashMap<u16, Counter>>>,
}

impl Counts {
    fn count(&self, route: &str, status: u16) {
        let counters = self.counters.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(counter) = counters.get(route).and_then(|statuses| statuses.get(&status)) {
            return counter.increment(1);
        }
        drop(counters);
        let counter = ::metrics::counter!("checkback_http_requests_total", "listener" => self.listener,
            "route" => route.to_owned(), "status" => status.to_string());
        counter.increment(1);
        let mut counters = self.counters.write().unwrap_or_else(PoisonError::into_inner);
        counters.entry(route.to_owned()).or_default().insert(status, counter);
    }
}

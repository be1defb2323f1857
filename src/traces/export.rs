//! How spans leave the process: in batches from a thread of the library, encoded by the library, sent by the one HTTP
//! client.
//!
//! A batch that the collector does not take is lost, which is told and counted: nothing may wait for a trace.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use opentelemetry::trace::TracerProvider;
use opentelemetry::{Context, KeyValue};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{
    BatchSpanProcessor, Sampler, SdkTracerProvider, Span, SpanData, SpanExporter, SpanProcessor,
};
use prost::Message;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::{mpsc, oneshot};
use tracing::{info, warn};
use url::Url;

use super::{On, Traces};
use crate::lifecycle::Tasks;
use crate::provider::http::{BuildError, HttpClient, HttpSettings};

/// Marks a span that is not to be sent.
pub(super) const DISCARDED: &str = "checkback.discarded";
/// How long a stop waits for the last spans.
pub(super) const LAST_WORDS: Duration = Duration::from_secs(1);

const CONNECT: Duration = Duration::from_secs(2);
const TOTAL: Duration = Duration::from_secs(5);
/// A collector has little to say.
const LONGEST_ANSWER: usize = 64 << 10;

/// Where traces go.
#[derive(Clone, Debug)]
pub struct Settings {
    /// With the path that takes traces.
    pub endpoint: Url,
    /// Names and values of headers.
    pub headers: Vec<(String, SecretString)>,
    /// The share of traces that is kept, from 0 to 1.
    pub ratio: f64,
}

impl Traces {
    /// Starts sending. The requests are made on `tasks`, which must outlive whoever makes spans.
    pub fn to(settings: &Settings, tasks: &Tasks) -> Result<Self, BuildError> {
        let client = HttpClient::new(HttpSettings { connect: CONNECT, total: TOTAL, max_body: LONGEST_ANSWER })?;
        let collector = Collector { client, endpoint: settings.endpoint.clone(), headers: headers(&settings.headers) };
        let (queue, waiting) = mpsc::channel(1);
        tasks.spawn(send_all(collector, waiting, tasks.clone()));
        let exporter = Exporter { queue, resource: ResourceAttributesWithSchema::default() };
        let resource = Resource::builder_empty()
            .with_service_name("checkback")
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .build();
        let provider = SdkTracerProvider::builder()
            .with_sampler(sampler(settings.ratio))
            .with_resource(resource)
            .with_span_processor(Kept(BatchSpanProcessor::builder(exporter).build()))
            .build();
        Ok(Self::of(provider, settings.ratio))
    }

    pub(super) fn of(provider: SdkTracerProvider, ratio: f64) -> Self {
        let tracer = provider.tracer("checkback");
        Self(Some(Arc::new(On { provider, tracer, sampler: Sampler::TraceIdRatioBased(ratio) })))
    }
}

/// Who is known decides for the trace it began; else the id of the trace decides, so that all replicas decide alike.
pub(super) fn sampler(ratio: f64) -> Sampler {
    Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(ratio)))
}

/// The configuration has checked that they are headers.
fn headers(given: &[(String, SecretString)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in given {
        let name = HeaderName::from_bytes(name.as_bytes());
        if let (Ok(name), Ok(mut value)) = (name, HeaderValue::from_str(value.expose_secret())) {
            value.set_sensitive(true);
            headers.insert(name, value);
        }
    }
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
    headers
}

/// Everything but what was discarded: nobody outside can fill the collector with requests that were refused.
#[derive(Debug)]
struct Kept(BatchSpanProcessor);

impl SpanProcessor for Kept {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.0.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        if !span.attributes.iter().any(|attribute| attribute.key.as_str() == DISCARDED) {
            self.0.on_end(span);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.0.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.0.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.0.set_resource(resource);
    }
}

/// An encoded batch, and who waits until it is sent.
type Batch = (Bytes, oneshot::Sender<()>);

/// The library asks from a thread that has no runtime, so the batch is handed to a task that has one.
#[derive(Debug)]
struct Exporter {
    queue: mpsc::Sender<Batch>,
    resource: ResourceAttributesWithSchema,
}

impl SpanExporter for Exporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let resource_spans = group_spans_by_resource_and_scope(batch, &self.resource);
        let body = ExportTraceServiceRequest { resource_spans }.encode_to_vec();
        let (sender, sent) = oneshot::channel();
        self.queue.send((body.into(), sender)).await.map_err(|_| OTelSdkError::AlreadyShutdown)?;
        sent.await.map_err(|_| OTelSdkError::AlreadyShutdown)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.resource = resource.into();
    }
}

struct Collector {
    client: HttpClient,
    endpoint: Url,
    headers: HeaderMap,
}

impl Collector {
    /// Sends a batch once; what went wrong, if anything did.
    async fn send(&self, body: Bytes) -> Option<String> {
        match self.client.send(Method::POST, self.endpoint.clone(), self.headers.clone(), body).await {
            Ok(answer) if answer.status.is_success() => None,
            Ok(answer) => Some(format!("the collector answered {}", answer.status.as_u16())),
            Err(error) => Some(error.to_string()),
        }
    }
}

async fn send_all(collector: Collector, mut waiting: mpsc::Receiver<Batch>, tasks: Tasks) {
    let mut fails = false;
    loop {
        let next = tokio::select! {
            next = waiting.recv() => next,
            () = tasks.stopping() => None,
        };
        let Some((body, sender)) = next else { return };
        let problem = collector.send(body).await;
        let result = if problem.is_some() { "failed" } else { "sent" };
        metrics::counter!("checkback_trace_batches_total", "result" => result).increment(1);
        // Once, and once more when it is over: a collector that is down must not fill the log.
        match &problem {
            Some(problem) if !fails => warn!("traces cannot be sent: {problem}"),
            None if fails => info!("traces are sent again"),
            _ => {}
        }
        fails = problem.is_some();
        // A stop does not wait for long.
        let _ = sender.send(());
    }
}

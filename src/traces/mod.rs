//! Traces: what happened to a verification, from its callback to its verdict, as spans for an OTLP collector.
//!
//! Without an endpoint nothing here does anything. The parts of one trace may be far apart and in several replicas, so
//! they are tied together by a W3C `traceparent`, which the hint carries into the history and the check finds there.
//! A span names accounts, our ids of verifications, counts and codes; never a transaction, a token, or anything out of
//! an answer.

mod export;

use std::fmt;
use std::sync::Arc;

use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::{Span as _, SpanBuilder, SpanContext, Status, TraceContextExt, Tracer};
use opentelemetry::{Context, KeyValue, Value};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SamplingDecision, SdkTracer, SdkTracerProvider, ShouldSample};

pub use export::Settings;
pub use opentelemetry::trace::SpanKind;

/// The header, and the member of a row in the history, that ties spans together.
pub const TRACEPARENT: &str = "traceparent";

/// Where the spans of this process go; clones share it.
#[derive(Clone, Default)]
pub struct Traces(Option<Arc<On>>);

struct On {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
    /// Whether a trace that begins here, or that a stranger began, is kept.
    sampler: Sampler,
}

impl fmt::Debug for Traces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Traces(on)" } else { "Traces(off)" })
    }
}

/// What a span belongs to.
#[derive(Clone, Copy, Debug)]
pub enum Parent<'a> {
    /// A trace begins, or goes on where the `traceparent` of a trusted caller or of our own says.
    Known(Option<&'a str>),
    /// As `Known`, but whether it is kept is for us to say: anybody may write such a header.
    Stranger(Option<&'a str>),
}

impl Traces {
    /// No traces.
    pub fn off() -> Self {
        Self::default()
    }

    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Starts a span; nothing where its trace is not kept. A `traceparent` that is none counts as absent.
    pub fn start(&self, name: &'static str, kind: SpanKind, parent: Parent<'_>) -> Span {
        let Some(on) = &self.0 else { return Span(None) };
        let (text, is_stranger) = match parent {
            Parent::Known(text) => (text, false),
            Parent::Stranger(text) => (text, true),
        };
        let context = match text.and_then(parse) {
            Some(found) if is_stranger => match on.judge(&found) {
                Some(kept) => Context::new().with_remote_span_context(kept),
                None => return Span(None),
            },
            Some(found) => Context::new().with_remote_span_context(found),
            None => Context::new(),
        };
        Span::begin(&on.tracer, name, kind, &context)
    }

    /// Sends what is waiting to be sent.
    pub async fn flush(&self) {
        let Some(on) = self.0.clone() else { return };
        // What could not be sent is told and counted where it was tried.
        drop(tokio::task::spawn_blocking(move || on.provider.force_flush()).await);
    }

    /// Sends what is waiting to be sent, and nothing after it.
    pub async fn shut_down(&self) {
        let Some(on) = self.0.clone() else { return };
        drop(tokio::task::spawn_blocking(move || on.provider.shutdown_with_timeout(export::LAST_WORDS)).await);
    }
}

impl On {
    /// The stranger's trace, if it is one that we keep.
    fn judge(&self, found: &SpanContext) -> Option<SpanContext> {
        let sampled = self.sampler.should_sample(None, found.trace_id(), "", &SpanKind::Server, &[], &[]);
        (sampled.decision == SamplingDecision::RecordAndSample).then(|| {
            let flags = found.trace_flags().with_sampled(true);
            SpanContext::new(found.trace_id(), found.span_id(), flags, true, found.trace_state().clone())
        })
    }
}

/// A header with one value, as the library reads it.
struct Header<'a>(&'a str);

impl Extractor for Header<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        (key == TRACEPARENT).then_some(self.0)
    }

    fn keys(&self) -> Vec<&str> {
        vec![TRACEPARENT]
    }
}

fn parse(text: &str) -> Option<SpanContext> {
    let context = TraceContextPropagator::new().extract_with_context(&Context::new(), &Header(text));
    let found = context.span().span_context().clone();
    found.is_valid().then_some(found)
}

/// Something that takes time. It ends when it is dropped.
pub struct Span(Option<Box<Recorded>>);

struct Recorded {
    span: opentelemetry_sdk::trace::Span,
    tracer: SdkTracer,
}

impl Span {
    /// A span of no trace.
    pub fn none() -> Self {
        Self(None)
    }

    fn begin(tracer: &SdkTracer, name: &'static str, kind: SpanKind, context: &Context) -> Self {
        let span = tracer.build_with_context(SpanBuilder::from_name(name).with_kind(kind), context);
        Self(span.span_context().is_sampled().then(|| Box::new(Recorded { span, tracer: tracer.clone() })))
    }

    /// A part of this one.
    #[must_use]
    pub fn child(&self, name: &'static str, kind: SpanKind) -> Self {
        let Some(parent) = &self.0 else { return Self(None) };
        let context = Context::new().with_remote_span_context(parent.span.span_context().clone());
        Self::begin(&parent.tracer, name, kind, &context)
    }

    /// Says more about it. Never with anything that identifies a person or a transaction.
    pub fn set(&mut self, name: &'static str, value: impl Into<Value>) {
        if let Some(recorded) = &mut self.0 {
            recorded.span.set_attribute(KeyValue::new(name, value));
        }
    }

    /// It did not succeed; `code` as in the log.
    pub fn fail(&mut self, code: &str) {
        if let Some(recorded) = &mut self.0 {
            recorded.span.set_status(Status::error(code.to_owned()));
        }
    }

    /// It is not sent after all.
    pub fn discard(mut self) {
        self.set(export::DISCARDED, true);
    }

    /// What ties a later span, here or elsewhere, to this one.
    pub fn traceparent(&self) -> Option<String> {
        let context = self.0.as_ref()?.span.span_context();
        let flags = context.trace_flags().to_u8();
        Some(format!("00-{}-{}-{flags:02x}", context.trace_id(), context.span_id()))
    }

    /// The trace's id, for the log.
    pub fn trace_id(&self) -> Option<String> {
        Some(self.0.as_ref()?.span.span_context().trace_id().to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    fn header(flags: &str) -> String {
        format!("00-{TRACE}-00f067aa0ba902b7-{flags}")
    }

    fn with_ratio(ratio: f64) -> Traces {
        let provider = SdkTracerProvider::builder().with_sampler(export::sampler(ratio)).build();
        Traces::of(provider, ratio)
    }

    #[test]
    fn without_an_endpoint_there_are_no_spans() {
        let span = Traces::off().start("callback", SpanKind::Server, Parent::Stranger(Some(&header("01"))));
        assert!(span.traceparent().is_none() && span.trace_id().is_none());
        assert!(span.child("part", SpanKind::Internal).0.is_none());
    }

    #[test]
    fn a_trace_goes_on_where_the_header_says() {
        let span = with_ratio(1.0).start("callback", SpanKind::Server, Parent::Stranger(Some(&header("00"))));
        assert_eq!(span.trace_id().unwrap(), TRACE);
        let child = span.child("part", SpanKind::Internal);
        assert_eq!(child.trace_id().unwrap(), TRACE);
        let (outer, inner) = (span.traceparent().unwrap(), child.traceparent().unwrap());
        assert!(outer != inner && outer.starts_with("00-") && outer.ends_with("-01") && outer.len() == 55, "{outer}");
        assert_eq!(parse(&outer).unwrap().trace_id().to_string(), TRACE);
    }

    #[test]
    fn what_is_no_traceparent_begins_a_trace_of_its_own() {
        for wrong in ["", "00", "00-0-0-01", &header("01").to_uppercase(), &header("zz"), "ff-1-1-01", "\u{e9}"] {
            let span = with_ratio(1.0).start("callback", SpanKind::Server, Parent::Stranger(Some(wrong)));
            assert_ne!(span.trace_id().unwrap(), TRACE, "{wrong}");
        }
    }

    #[test]
    fn a_stranger_cannot_have_a_trace_kept_and_a_known_caller_can() {
        let none = with_ratio(0.0);
        let sampled = header("01");
        assert!(none.start("callback", SpanKind::Server, Parent::Stranger(Some(&sampled))).0.is_none());
        assert!(none.start("collect", SpanKind::Server, Parent::Known(Some(&sampled))).0.is_some());
        assert!(none.start("collect", SpanKind::Server, Parent::Known(None)).0.is_none());
        assert!(with_ratio(1.0).start("collect", SpanKind::Server, Parent::Known(Some(&header("00")))).0.is_none());
    }
}

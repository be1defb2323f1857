//! Traces as a collector receives them, over OTLP.
#![expect(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::http::HeaderMap;
use axum::routing::post;
use checkback::simulator::{Complete, CreateTransaction};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use serde_json::json;
use tokio::net::TcpListener;

use super::support::app::{ACCOUNT, Setup, TestApp};
use super::support::receiver::Receiver;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";
/// Names of spans, and what they say.
const CHECK: [&str; 4] = ["checkback.account", "checkback.verification.id", "checkback.attempt", "checkback.outcome"];

fn traceparent(flags: &str) -> String {
    format!("00-{TRACE}-{PARENT}-{flags}")
}

/// Takes what comes, and remembers it.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<(HeaderMap, Bytes)>>>);

impl Collector {
    /// Starts it; returns its address too.
    #[expect(clippy::disallowed_methods, reason = "the collector ends with the test's runtime")]
    async fn start() -> (Self, String) {
        let collector = Self::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let received = collector.clone();
        let router = Router::new().route(
            "/v1/traces",
            post(async move |headers: HeaderMap, body: Bytes| {
                received.0.lock().unwrap().push((headers, body));
            }),
        );
        drop(tokio::spawn(async move { axum::serve(listener, router).await.unwrap() }));
        (collector, address)
    }

    fn spans(&self) -> Vec<Span> {
        let received = self.0.lock().unwrap();
        let requests = received.iter().map(|(_, body)| ExportTraceServiceRequest::decode(body.clone()).unwrap());
        let resources = requests.flat_map(|request| request.resource_spans);
        resources.flat_map(|resource| resource.scope_spans).flat_map(|scope| scope.spans).collect()
    }
}

fn named<'a>(spans: &'a [Span], name: &str) -> Option<&'a Span> {
    spans.iter().find(|span| span.name == name)
}

fn said(span: &Span, name: &str) -> Option<String> {
    let value = span.attributes.iter().find(|attribute| attribute.key == name)?.value.clone()?.value?;
    match value {
        Value::StringValue(text) => Some(text),
        Value::IntValue(number) => Some(number.to_string()),
        _ => None,
    }
}

/// A traced service and what it sends to.
async fn traced(ratio: f64) -> (TestApp, Collector) {
    let (collector, address) = Collector::start().await;
    let more = format!(
        "[telemetry]\notlp_endpoint = '{address}'\notlp_headers = ['x-scope=CANARY-HEADER']\nsampling_ratio = {ratio:?}"
    );
    (TestApp::with(Setup { more, ..Setup::default() }).await, collector)
}

/// A person who is done, without a callback of the simulator's own.
async fn done(test: &TestApp) -> (String, String) {
    let (transaction, id) = test.begin(CreateTransaction::default(), json!({})).await;
    test.simulator.complete(&transaction, Complete { callbacks: Some(0), ..Complete::default() }).await.unwrap();
    (transaction, id)
}

async fn callback(test: &TestApp, transaction: &str, traceparent: &str) -> u16 {
    let url = test.public(&format!("/callbacks/{ACCOUNT}?transactionId={transaction}&passed=Y&subCode=200"));
    test.http.get(url).header("traceparent", traceparent).send().await.unwrap().status().as_u16()
}

/// What was sent once the check is among it.
async fn collected(test: &TestApp, collector: &Collector) -> Vec<Span> {
    test.until("the check is traced", async || {
        test.app.as_ref().unwrap().service.traces.flush().await;
        let spans = collector.spans();
        named(&spans, "check").is_some().then_some(spans)
    })
    .await
}

#[tokio::test]
async fn one_trace_leads_from_the_callback_to_the_verdict() {
    let (mut test, collector) = traced(1.0).await;
    let (transaction, id) = done(&test).await;
    assert_eq!(callback(&test, "of-nobody", &traceparent("01")).await, 404);
    assert_eq!(callback(&test, &transaction, &traceparent("01")).await, 200);
    test.final_verification(&id).await;
    let spans = collected(&test, &collector).await;
    let span = |name: &str| named(&spans, name).unwrap_or_else(|| panic!("no {name}"));
    for span in &spans {
        assert_eq!(hex::encode(&span.trace_id), TRACE, "{}", span.name);
    }
    assert_eq!(spans.iter().filter(|span| span.name == "callback").count(), 1, "the refused one leaves none");
    assert_eq!(hex::encode(&span("callback").parent_span_id), PARENT);
    let check = span("check");
    assert_eq!(check.parent_span_id, span("callback").span_id);
    for part in ["wait for the slot", "CheckResult", "verdict"] {
        assert_eq!(span(part).parent_span_id, check.span_id, "{part}");
    }
    let told = CHECK.map(|name| said(check, name).unwrap());
    assert_eq!(told, [ACCOUNT, &id, "1", "finished"]);
    assert_eq!(said(span("verdict"), "checkback.status").as_deref(), Some("passed"));
    let history = test.history(&id).await;
    let heard = history.iter().find(|item| item["kind"] == "callback").unwrap();
    let kept = heard["traceparent"].as_str().unwrap();
    assert_eq!(kept, format!("00-{TRACE}-{}-01", hex::encode(&span("callback").span_id)));
    // A stop sends what is left.
    test.stop().await;
    let received = collector.0.lock().unwrap();
    for (headers, body) in received.iter() {
        assert_eq!(headers["x-scope"], "CANARY-HEADER");
        assert_eq!(headers["content-type"], "application/x-protobuf");
        let shown = String::from_utf8_lossy(body);
        assert!(!shown.contains(&transaction) && !shown.contains("of-nobody") && !shown.contains("CANARY"));
    }
}

#[tokio::test]
async fn a_collect_keeps_the_trace_of_whoever_asked_and_a_callback_cannot() {
    let (test, collector) = traced(0.0).await;
    let (transaction, id) = done(&test).await;
    assert_eq!(callback(&test, &transaction, &traceparent("01")).await, 200);
    test.final_verification(&id).await;
    let history = test.history(&id).await;
    let heard = history.iter().find(|item| item["kind"] == "callback").unwrap();
    assert!(heard.get("traceparent").is_none(), "{heard}");
    let (_, id) = done(&test).await;
    let request = test.request(reqwest::Method::POST, &format!("/verifications/{id}/collect"));
    let answer = request.header("traceparent", traceparent("01")).json(&json!({})).send().await.unwrap();
    assert_eq!(answer.status(), 202);
    test.final_verification(&id).await;
    let spans = collected(&test, &collector).await;
    let (asked, check) = (named(&spans, "collect").unwrap(), named(&spans, "check").unwrap());
    assert_eq!(hex::encode(&asked.parent_span_id), PARENT);
    assert_eq!((check.parent_span_id.as_slice(), said(check, CHECK[1])), (asked.span_id.as_slice(), Some(id)));
    assert!(named(&spans, "callback").is_none());
}

#[tokio::test]
async fn a_trace_reaches_the_merchants_app() {
    let (collector, address) = Collector::start().await;
    let receiver = Receiver::start().await;
    let section = receiver.section("app", &["whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"], &[]);
    let more = format!("[telemetry]\notlp_endpoint = '{address}'\n{section}");
    let test = TestApp::with(Setup { more, ..Setup::default() }).await;
    let (transaction, id) = done(&test).await;
    assert_eq!(callback(&test, &transaction, &traceparent("01")).await, 200);
    test.final_verification(&id).await;
    let spans = test
        .until("the delivery is traced", async || {
            test.app.as_ref().unwrap().service.traces.flush().await;
            let spans = collector.spans();
            named(&spans, "webhook").is_some().then_some(spans)
        })
        .await;
    let sent = named(&spans, "webhook").unwrap();
    assert_eq!(hex::encode(&sent.trace_id), TRACE);
    assert_eq!(sent.parent_span_id, named(&spans, "callback").unwrap().span_id);
    assert_eq!(said(sent, "checkback.endpoint").as_deref(), Some("app"));
    let got = receiver.received().remove(0).header("traceparent");
    assert_eq!(got, format!("00-{TRACE}-{}-01", hex::encode(&sent.span_id)));
}

#[tokio::test]
async fn without_a_collector_nothing_is_kept_of_a_trace() {
    let test = TestApp::start().await;
    let (transaction, id) = done(&test).await;
    assert_eq!(callback(&test, &transaction, &traceparent("01")).await, 200);
    test.final_verification(&id).await;
    let history = test.history(&id).await;
    let heard = history.iter().find(|item| item["kind"] == "callback").unwrap();
    assert_eq!(heard.as_object().unwrap().keys().collect::<Vec<_>>(), ["at", "kind", "passed", "sub_code"]);
}

#[tokio::test]
async fn a_collector_that_is_down_holds_nothing_up() {
    let more = "[telemetry]\notlp_endpoint = 'http://127.0.0.1:9'".to_owned();
    let mut test = TestApp::with(Setup { more, ..Setup::default() }).await;
    let (transaction, id) = done(&test).await;
    assert_eq!(callback(&test, &transaction, &traceparent("01")).await, 200);
    assert_eq!(test.final_verification(&id).await["status"], "passed");
    test.app.as_ref().unwrap().service.traces.flush().await;
    let shown = test.get("/metrics").await.text().await.unwrap();
    assert!(shown.contains("checkback_trace_batches_total{result=\"failed\"}"), "{shown}");
    test.stop().await;
}

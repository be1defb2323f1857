//! Whatever comes in, the answer is never a 5xx: both routers, fed directly, so that not even a URL parser tidies up.

use std::collections::BTreeSet;

use axum::body::Body;
use axum::http::{Request, header};
use checkback::http::{self, Api, Key, Keys, Parts, Scope};
use checkback::lifecycle::Tasks;
use checkback::telemetry;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use sha2::{Digest, Sha256};
use tower::ServiceExt;

use super::register_plain;
use crate::support::app::{KEY, TestApp};

const CASES: u32 = 150;

/// Texts that resemble what is expected, and others.
fn texts() -> impl Strategy<Value = String> {
    prop_oneof![
        "[ -~]{0,40}",
        "(status|limit|cursor|wait|account|transaction_id|registered_after|transactionId|callbackToken|passed|=|&|%[0-9a-f]{2}|%|[a-z0-9]|\\+){0,16}",
        "(\\{|\\}|\\[|\\]|\"|:|,|null|1e999|-0|\"\\\\u0000\"|\"\\\\ud800\"|\"account\":|\"transaction_id\":|\"metadata\":|\"recheck\":|\"a\"){0,16}",
        // A registration that is almost right.
        "(\"[a-z]{0,3}\"|1|null|\\{\\}|\\[\\{\"a\":1e9999\\}\\]|\"\\\\u0000\"|\"http://x/\\\\n\")".prop_flat_map(|value| {
            let member = "(account|transaction_id|merchant_biz_id|callback_token|product|expect_video|return_url|metadata|recheck|initialize)";
            member.prop_map(move |member| format!("{{\"transaction_id\":\"t\",\"{member}\":{value}}}"))
        }),
        any::<String>(),
    ]
}

fn requests(id: &str) -> impl Strategy<Value = Request<Body>> + use<> {
    let paths = [
        "/verifications".to_owned(),
        format!("/verifications/{id}"),
        format!("/verifications/{id}/history"),
        format!("/verifications/{id}/collect"),
        format!("/verifications/{id}/why"),
        "/console/verifications".to_owned(),
        format!("/console/verifications/{id}"),
        "/console/find".to_owned(),
        "/console/login".to_owned(),
        "/callbacks/alibaba-sg".to_owned(),
        "/callbacks/%ff".to_owned(),
    ];
    let kinds = ["application/json", "application/x-www-form-urlencoded", "text/plain"];
    (
        prop::sample::select(vec!["GET", "POST"]),
        prop::sample::select(paths.to_vec()),
        texts(),
        prop::sample::select(kinds.to_vec()),
        prop_oneof![texts().prop_map(String::into_bytes), prop::collection::vec(any::<u8>(), 0..64)],
        prop::collection::vec(0x20..=0x7e_u8, 0..20),
    )
        .prop_filter_map("no HTTP request", |(method, path, query, kind, body, id)| {
            Request::builder()
                .method(method)
                .uri(format!("{path}?{query}"))
                .header(header::AUTHORIZATION, format!("Bearer {KEY}"))
                .header(header::CONTENT_TYPE, kind)
                .header(header::IF_NONE_MATCH, id.as_slice())
                .header("x-request-id", id)
                .body(Body::from(body))
                .ok()
        })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_is_answered_with_a_server_error() {
    let test = TestApp::start().await;
    let id = register_plain(&test, "t").await;
    let key = Key {
        name: "test".to_owned(),
        sha256: Sha256::digest(KEY).into(),
        scopes: BTreeSet::from([Scope::Register, Scope::Read, Scope::Operate]),
    };
    let api = Api::new(Parts {
        service: test.app.as_ref().unwrap().service.clone(),
        keys: Keys::Known(vec![key]),
        open_metrics: false,
        metrics: telemetry::metrics().unwrap(),
        console: http::Console::default(),
        tasks: Tasks::new(),
    });
    let (public, internal) = (http::public_router(&api), http::internal_router(&api));
    let runtime = tokio::runtime::Handle::current();
    let run = move || -> Result<(), String> {
        let mut runner = TestRunner::new(Config { cases: CASES, failure_persistence: None, ..Config::default() });
        runner
            .run(&requests(&id), |request| {
                let described = format!("{request:?}");
                let is_page = request.uri().path().starts_with("/console");
                let router = if request.uri().path().starts_with("/callbacks") { &public } else { &internal };
                // A wait may be asked for; what counts is that it begins well.
                let answer = runtime.block_on(async {
                    let answer = router.clone().oneshot(request);
                    tokio::time::timeout(std::time::Duration::from_millis(500), answer).await
                });
                let Ok(answer) = answer else { return Ok(()) };
                let response = answer.expect("a router always answers");
                let status = response.status();
                prop_assert!(!status.is_server_error(), "{status} to {described}");
                if status.is_client_error() {
                    let kind = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
                    let expected = if is_page { "text/html; charset=utf-8" } else { "application/problem+json" };
                    // What no route of the console takes is a problem of the API.
                    let is_as_expected = kind == Some(expected) || is_page && status == 405;
                    prop_assert!(is_as_expected, "{kind:?} to {described}");
                }
                Ok(())
            })
            .map_err(|error| error.to_string())
    };
    tokio::task::spawn_blocking(run).await.unwrap().unwrap();
}

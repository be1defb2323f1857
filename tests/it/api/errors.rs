use bytes::Bytes;
use http_body_util::StreamBody;
use hyper::body::Frame;
use reqwest::{Method, RequestBuilder, header};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::{problem, register_plain, wrong_fields};
use crate::support::app::{KEY, Setup, TestApp};

/// Keys that each lack all scopes but one.
pub fn keys_of_one_scope() -> String {
    let key = |scope: &str| {
        let digest = hex::encode(Sha256::digest(format!("only-{scope}")));
        format!("[[auth.keys]]\nname = \"only-{scope}\"\nsha256 = \"{digest}\"\nscopes = [\"{scope}\"]\n")
    };
    ["register", "read", "evidence", "operate", "erase"].map(key).concat()
}

#[tokio::test]
async fn without_a_known_key_every_endpoint_is_refused() {
    let test = TestApp::start().await;
    let id = register_plain(&test, "t").await;
    let one = format!("/verifications/{id}");
    for (method, path) in [
        (Method::POST, "/verifications".to_owned()),
        (Method::GET, "/verifications".to_owned()),
        (Method::GET, one.clone()),
        (Method::GET, format!("{one}/history")),
        (Method::GET, format!("{one}/raw")),
        (Method::POST, format!("{one}/collect")),
        (Method::DELETE, one.clone()),
        (Method::GET, "/verifications?at_risk=video".to_owned()),
        (Method::GET, "/rechecks".to_owned()),
        (Method::POST, "/rechecks".to_owned()),
        (Method::GET, "/rechecks/x".to_owned()),
        (Method::DELETE, "/rechecks/x".to_owned()),
        (Method::GET, "/reconcile".to_owned()),
        (Method::GET, "/metrics".to_owned()),
    ] {
        let plain = || test.http.request(method.clone(), test.internal(&path));
        for request in [
            plain(),
            plain().bearer_auth("unknown"),
            plain().bearer_auth(""),
            plain().header(header::AUTHORIZATION, KEY),
            plain().basic_auth(KEY, Some(KEY)),
        ] {
            let response = request.send().await.unwrap();
            assert_eq!(response.headers()[header::WWW_AUTHENTICATE], "Bearer");
            problem(response, 401, "unauthorized").await;
        }
    }
}

#[tokio::test]
async fn a_key_opens_only_what_its_scope_says() {
    let test = TestApp::with(Setup { more: keys_of_one_scope(), ..Setup::default() }).await;
    let id = register_plain(&test, "t").await;
    let one = format!("/verifications/{id}");
    let collect = format!("{one}/collect");
    for (method, path, scope) in [
        (Method::POST, "/verifications", "register"),
        (Method::GET, "/verifications", "read"),
        (Method::GET, &one, "read"),
        (Method::GET, &format!("{one}/history"), "read"),
        (Method::GET, &format!("{one}/raw"), "evidence"),
        (Method::POST, &collect, "register"),
        (Method::DELETE, &one, "erase"),
        (Method::GET, "/verifications?at_risk=video", "read"),
        (Method::GET, "/rechecks", "read"),
        (Method::POST, "/rechecks", "operate"),
        (Method::GET, "/rechecks/x", "read"),
        (Method::DELETE, "/rechecks/x", "operate"),
        (Method::GET, "/reconcile", "read"),
        (Method::GET, "/metrics", "read"),
    ] {
        for other in ["register", "read", "evidence", "operate", "erase"] {
            let request = test.http.request(method.clone(), test.internal(path)).bearer_auth(format!("only-{other}"));
            let response = request.send().await.unwrap();
            if other == scope {
                assert!(!matches!(response.status().as_u16(), 401 | 403), "{method} {path} with {other}");
            } else {
                let problem = problem(response, 403, "scope_missing").await;
                assert!(problem["detail"].as_str().unwrap().contains(&format!("`{scope}`")), "{problem}");
            }
        }
    }
    let recheck =
        test.http.post(test.internal(&collect)).bearer_auth("only-register").json(&json!({ "recheck": true }));
    let problem = problem(recheck.send().await.unwrap(), 403, "scope_missing").await;
    assert!(problem["detail"].as_str().unwrap().contains("`operate`"), "{problem}");
}

fn posts(test: &TestApp, id: &str) -> [RequestBuilder; 2] {
    ["/verifications".to_owned(), format!("/verifications/{id}/collect")].map(|path| test.request(Method::POST, &path))
}

#[tokio::test]
async fn a_body_that_is_no_json_is_malformed() {
    let test = TestApp::start().await;
    let id = register_plain(&test, "t").await;
    for body in ["{", "nonsense", "{\"a\":1}x", "{\"a\":\u{1}}", "[1,]"] {
        for request in posts(&test, &id) {
            let response = request.header(header::CONTENT_TYPE, "application/json").body(body).send().await.unwrap();
            let problem = problem(response, 400, "body_malformed").await;
            assert!(problem.get("errors").is_none());
        }
    }
    for request in posts(&test, &id) {
        let body = b"{\"transaction_id\":\"\xff\"}".to_vec();
        let response = request.header(header::CONTENT_TYPE, "application/json").body(body).send().await.unwrap();
        problem(response, 400, "body_malformed").await;
    }
    let [registration, _] = posts(&test, &id);
    problem(registration.send().await.unwrap(), 400, "body_malformed").await;
}

#[tokio::test]
async fn json_that_is_no_object_is_invalid() {
    let test = TestApp::start().await;
    let id = register_plain(&test, "t").await;
    for body in ["[]", "1", "null", "\"text\""] {
        for request in posts(&test, &id) {
            let response = request.header(header::CONTENT_TYPE, "application/json").body(body).send().await.unwrap();
            let problem = problem(response, 422, "body_invalid").await;
            assert_eq!(wrong_fields(&problem), [""], "{body}");
        }
    }
}

#[tokio::test]
async fn a_body_of_another_type_is_unsupported() {
    let test = TestApp::start().await;
    let id = register_plain(&test, "t").await;
    for kind in ["text/plain", "application/x-www-form-urlencoded", "application/jsonx", "text/json"] {
        for request in posts(&test, &id) {
            let response = request.header(header::CONTENT_TYPE, kind).body("{}").send().await.unwrap();
            problem(response, 415, "body_unsupported").await;
        }
    }
    for request in posts(&test, &id) {
        problem(request.body("{}").send().await.unwrap(), 415, "body_unsupported").await;
    }
    let [registration, _] = posts(&test, &id);
    let registration = registration.header(header::CONTENT_TYPE, "Application/JSON; charset=utf-8");
    assert_eq!(registration.body(r#"{"transaction_id":"t"}"#).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_body_over_64_kib_is_too_large() {
    let test = TestApp::start().await;
    let id = register_plain(&test, "t").await;
    let padded = |bytes: usize| {
        let body = r#"{"transaction_id":"t"}"#;
        format!("{body}{}", " ".repeat(bytes - body.len()))
    };
    let [registration, _] = posts(&test, &id);
    let registration = registration.header(header::CONTENT_TYPE, "application/json").body(padded(64 * 1024));
    assert_eq!(registration.send().await.unwrap().status(), 200);
    for bytes in [64 * 1024 + 1, 1024 * 1024] {
        for request in posts(&test, &id) {
            let request = request.header(header::CONTENT_TYPE, "application/json").body(padded(bytes));
            problem(request.send().await.unwrap(), 413, "body_too_large").await;
        }
    }
    // Sent in pieces, its length is not known before.
    for request in posts(&test, &id) {
        let pieces = (0..5).map(|_| Ok::<_, std::io::Error>(Frame::data(Bytes::from(" ".repeat(16 * 1024)))));
        let body = reqwest::Body::wrap(StreamBody::new(futures_util::stream::iter(pieces)));
        let request = request.header(header::CONTENT_TYPE, "application/json").body(body);
        problem(request.send().await.unwrap(), 413, "body_too_large").await;
    }
}

#[tokio::test]
async fn every_wrong_value_of_a_query_is_told_at_once() {
    let test = TestApp::start().await;
    let id = register_plain(&test, "t").await;
    let path = "/verifications?limit=201&status=done&cursor=%21&registered_after=yesterday&registered_before=1\
                &more=1&account=a&account=a&transaction_id=%ff";
    let problem_of_list = problem(test.get(path).await, 422, "query_invalid").await;
    assert_eq!(
        wrong_fields(&problem_of_list),
        ["account", "cursor", "limit", "more", "registered_after", "registered_before", "status", "transaction_id"]
    );
    for query in [
        "limit=0",
        "limit=-1",
        "limit=x",
        "limit=1.5",
        "limit=99999999999999999999",
        "status=Passed",
        "status=passed,failed",
        "cursor=AAAA",
        "cursor=x%00",
        "transaction_id=a%00",
        "registered_after=2026-01-01",
    ] {
        problem(test.get(&format!("/verifications?{query}")).await, 422, "query_invalid").await;
    }
    for wait in ["61", "-1", "1.5", "soon", "99999999999999999999999"] {
        let problem = problem(test.get(&format!("/verifications/{id}?wait={wait}")).await, 422, "query_invalid").await;
        assert_eq!(wrong_fields(&problem), ["wait"]);
    }
    problem(test.get(&format!("/verifications/{id}?more=1")).await, 422, "query_invalid").await;
    for revision in ["0", "-1", "one", "99999999999"] {
        let path = format!("/verifications/{id}/raw?revision={revision}");
        assert_eq!(wrong_fields(&problem(test.get(&path).await, 422, "query_invalid").await), ["revision"]);
    }
}

#[tokio::test]
async fn unknown_ids_are_not_found() {
    let test = TestApp::start().await;
    for id in ["01980c5e-8c1f-7d52-a3c4-0a6b5f7e9d21", "x", "%ff", "%00", "..%2f"] {
        let one = format!("/verifications/{id}");
        problem(test.get(&one).await, 404, "verification_not_found").await;
        problem(test.get(&format!("{one}/history")).await, 404, "verification_not_found").await;
        problem(test.get(&format!("{one}/raw")).await, 404, "verification_not_found").await;
        let collect = test.request(Method::POST, &format!("{one}/collect")).send().await.unwrap();
        problem(collect, 404, "verification_not_found").await;
    }
}

#[tokio::test]
async fn a_path_of_one_listener_is_not_found_on_the_other() {
    let test = TestApp::start().await;
    let id = register_plain(&test, "t").await;
    for path in [
        "/verifications".to_owned(),
        format!("/verifications/{id}"),
        format!("/verifications/{id}/history"),
        format!("/verifications/{id}/raw"),
        format!("/verifications/{id}/collect"),
        "/rechecks".to_owned(),
        "/reconcile".to_owned(),
        "/metrics".to_owned(),
        "/readyz".to_owned(),
        "/".to_owned(),
        "/callbacks".to_owned(),
        "/callbacks/".to_owned(),
        "/callbacks/alibaba-sg/more".to_owned(),
    ] {
        for method in [Method::GET, Method::POST] {
            let request = test.http.request(method, test.public(&path)).bearer_auth(KEY);
            problem(request.send().await.unwrap(), 404, "not_found").await;
        }
    }
    for path in ["/callbacks/alibaba-sg?transactionId=t", "/", "/verifications/", "/unknown"] {
        problem(test.get(path).await, 404, "not_found").await;
    }
}

#[tokio::test]
async fn a_method_that_does_not_fit_is_refused_with_those_that_do() {
    let test = TestApp::start().await;
    let id = register_plain(&test, "t").await;
    for (url, method, allowed) in [
        (test.internal("/verifications"), Method::PUT, vec!["GET", "POST"]),
        (test.internal(&format!("/verifications/{id}")), Method::POST, vec!["GET", "DELETE"]),
        (test.internal(&format!("/verifications/{id}/raw")), Method::POST, vec!["GET"]),
        (test.internal(&format!("/verifications/{id}/collect")), Method::GET, vec!["POST"]),
        (test.internal("/rechecks"), Method::PUT, vec!["GET", "POST"]),
        (test.internal("/rechecks/x"), Method::PUT, vec!["DELETE", "GET"]),
        (test.internal("/reconcile"), Method::POST, vec!["GET"]),
        (test.internal("/readyz"), Method::POST, vec!["GET"]),
        (test.public("/callbacks/alibaba-sg"), Method::PUT, vec!["GET", "POST"]),
        (test.public("/callbacks/alibaba-sg"), Method::DELETE, vec!["GET", "POST"]),
        (test.public("/healthz"), Method::POST, vec!["GET"]),
    ] {
        let response = test.http.request(method.clone(), &url).bearer_auth(KEY).send().await.unwrap();
        let allow = response.headers()[header::ALLOW].to_str().unwrap().to_owned();
        let mut listed: Vec<_> = allow.split(',').map(str::trim).filter(|method| *method != "HEAD").collect();
        listed.sort_unstable();
        assert_eq!(listed, allowed, "{method} {url}");
        problem(response, 405, "method_not_allowed").await;
    }
}

#[tokio::test]
async fn request_ids_are_taken_over_or_made() {
    let test = TestApp::start().await;
    for path in ["/verifications", "/verifications/x", "/unknown", "/healthz", "/verifications?limit=x"] {
        let response = test.request(Method::GET, path).header("X-Request-Id", "my-id-17").send().await.unwrap();
        assert_eq!(response.headers()["x-request-id"], "my-id-17", "{path}");
    }
    let response = test.request(Method::PUT, "/verifications").header("X-Request-Id", "my-id").send().await.unwrap();
    assert_eq!(response.headers()["x-request-id"], "my-id");
    let (one, two) = (test.get("/verifications").await, test.get("/unknown").await);
    let (one, two) = (&one.headers()["x-request-id"], &two.headers()["x-request-id"]);
    assert!(one != two && one.len() == 32 && two.len() == 32, "{one:?} {two:?}");
    // One that could spoil a log line is replaced.
    let long = "x".repeat(129);
    for bad in ["with space", "", long.as_str()] {
        let response = test.request(Method::GET, "/healthz").header("X-Request-Id", bad).send().await.unwrap();
        assert_ne!(response.headers()["x-request-id"], bad);
    }
}

#[tokio::test]
async fn requests_are_counted_by_route() {
    let test = TestApp::start().await;
    test.get("/verifications/x/history").await;
    test.get("/unknown/secret-in-a-path").await;
    let metrics = test.get("/metrics").await;
    assert!(metrics.headers()[header::CONTENT_TYPE].to_str().unwrap().starts_with("text/plain"));
    let shown = metrics.text().await.unwrap();
    let line = r#"checkback_http_requests_total{listener="internal",route="/verifications/{id}/history",status="404"}"#;
    assert!(shown.contains(line), "{shown}");
    assert!(!shown.contains("secret-in-a-path"));
}

#[tokio::test]
async fn stopping_answers_who_waits() {
    let mut test = TestApp::start().await;
    let id = register_plain(&test, "t").await;
    let waiting = test.request(Method::GET, &format!("/verifications/{id}?wait=60"));
    let app = test.app.take().unwrap();
    let finals = app.service.finals.clone();
    let (response, ()) = tokio::join!(waiting.send(), async {
        test.until("somebody waits", || async { (!finals.awaited().is_empty()).then_some(()) }).await;
        app.shut_down().await;
    });
    let response = response.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.json::<serde_json::Value>().await.unwrap()["final"], false);
}

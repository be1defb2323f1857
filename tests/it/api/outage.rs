//! The database goes away and comes back.

use std::time::{Duration, Instant};

use reqwest::{Method, Response};
use serde_json::json;

use super::{problem, register_plain};
use crate::support::app::{ACCOUNT, TestApp};

/// One request to each endpoint that needs the database.
async fn ask_everything(test: &TestApp, id: &str) -> Vec<Response> {
    let one = format!("/verifications/{id}");
    let callback = format!("/callbacks/{ACCOUNT}?transactionId=t&callbackToken=x");
    let requests = [
        test.request(Method::POST, "/verifications").json(&json!({ "transaction_id": "t-during" })),
        test.request(Method::GET, "/verifications"),
        test.request(Method::GET, &one),
        test.request(Method::GET, &format!("{one}?wait=30")),
        test.request(Method::GET, &format!("{one}/history")),
        test.request(Method::GET, &format!("{one}/raw")),
        test.request(Method::POST, &format!("{one}/collect")),
        test.request(Method::DELETE, &one),
        test.http.get(test.public(&callback)),
        test.http.post(test.public(&callback)),
    ];
    let answers = requests.map(reqwest::RequestBuilder::send);
    futures_util::future::join_all(answers).await.into_iter().map(Result::unwrap).collect()
}

async fn all_are_refused(answers: Vec<Response>) {
    for response in answers {
        let wait: u32 = response.headers()["retry-after"].to_str().unwrap().parse().unwrap();
        assert!(wait > 0);
        let path = response.url().path().to_owned();
        let problem = problem(response, 503, "database_unavailable").await;
        assert!(!problem.to_string().contains("sqlx"), "{path}: {problem}");
    }
}

#[tokio::test]
async fn while_the_database_is_down_requests_are_refused_and_then_all_goes_on() {
    let test = TestApp::start().await;
    let id = register_plain(&test, "t").await;
    test.database.set_reachable(false).await;
    all_are_refused(ask_everything(&test, &id).await).await;
    let ready = test.http.get(test.internal("/readyz")).send().await.unwrap();
    assert_eq!(ready.status(), 503);
    let ready: serde_json::Value = ready.json().await.unwrap();
    assert_eq!(ready["database"]["status"], "unavailable", "{ready}");
    for url in [test.internal("/healthz"), test.public("/healthz")] {
        assert_eq!(test.http.get(url).send().await.unwrap().status(), 200);
    }
    assert_eq!(test.get("/metrics").await.status(), 200);
    // What needs no database is answered as always.
    problem(test.get("/unknown").await, 404, "not_found").await;
    problem(test.get("/verifications?limit=x").await, 422, "query_invalid").await;

    test.database.set_reachable(true).await;
    let path = format!("/verifications/{id}");
    test.until("it recovers", || async { (test.get(&path).await.status() == 200).then_some(()) }).await;
    assert_eq!(test.http.get(test.internal("/readyz")).send().await.unwrap().status(), 200);
    assert_eq!(
        test.get_json("/verifications").await["items"].as_array().unwrap().len(),
        1,
        "nothing half-done is left"
    );
    let callback = test.callback("t", None).await;
    assert_eq!(callback.status(), 200);
    test.until("the check goes on", || async { (test.provider_calls("CheckResult") > 0).then_some(()) }).await;
}

#[tokio::test]
async fn connections_that_died_while_idle_cost_no_request() {
    let test = TestApp::start().await;
    let id = register_plain(&test, "t").await;
    // Several connections are open, then all die, as when the server is restarted.
    let path = format!("/verifications/{id}");
    futures_util::future::join_all((0..20).map(|_| test.get_json(&path))).await;
    test.database.set_reachable(false).await;
    // Connections that were used a moment ago are trusted, so the outage has to last for a moment.
    let begun = Instant::now();
    test.until("a moment is over", async || (begun.elapsed() > Duration::from_millis(300)).then_some(())).await;
    test.database.set_reachable(true).await;
    let answers = futures_util::future::join_all((0..20).map(|_| test.get(&path))).await;
    assert!(answers.iter().all(|answer| answer.status() == 200), "{answers:?}");
}

#[tokio::test]
async fn a_database_that_hangs_is_down_too() {
    let test = TestApp::start().await;
    let id = register_plain(&test, "t").await;
    let pool = test.database.pool().await;
    let mut blocking = pool.begin().await.unwrap();
    sqlx::raw_sql("LOCK TABLE verifications, hints, history IN ACCESS EXCLUSIVE MODE")
        .execute(&mut *blocking)
        .await
        .unwrap();
    all_are_refused(ask_everything(&test, &id).await).await;
    blocking.rollback().await.unwrap();
    test.until("it recovers by itself", || async {
        (test.get(&format!("/verifications/{id}")).await.status() == 200).then_some(())
    })
    .await;
    test.until("callbacks too", || async { (test.callback("t", None).await.status() == 200).then_some(()) }).await;
}

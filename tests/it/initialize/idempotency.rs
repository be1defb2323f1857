//! The merchant's own retry: one key, at most one call that may have made something.

use std::time::Duration;

use checkback::simulator::{Fault, FaultKind};
use futures_util::future::join_all;
use serde_json::{Value, json};

use super::{body, calls, post, problem, started};
use crate::support::app::{ACCOUNT, TestApp};

fn fault(kind: FaultKind) -> Fault {
    Fault { operation: Some("Initialize".to_owned()), kind, ..Fault::default() }
}

#[tokio::test]
async fn the_same_again_with_its_key_is_answered_without_a_call() {
    let test = TestApp::start().await;
    let first = started(post(&test, &body(), Some("k")).await, 201).await;
    let again = started(post(&test, &body(), Some("k")).await, 200).await;
    assert_eq!(again, first);
    // Another replica, and null for absent.
    let replica = test.replica().await;
    let mut wish = body();
    wish["product"] = Value::Null;
    let url = format!("http://{}/verifications", replica.internal);
    let request = test.http.post(url).bearer_auth(crate::support::app::KEY).header("Idempotency-Key", "k").json(&wish);
    assert_eq!(started(request.send().await.unwrap(), 200).await, first);
    replica.shut_down().await;
    assert_eq!(calls(&test), 1);
    // Without the key, or with another, each request is its own.
    let other = started(post(&test, &body(), Some("other")).await, 201).await;
    let none = started(post(&test, &body(), None).await, 201).await;
    let none_again = started(post(&test, &body(), None).await, 201).await;
    let ids: std::collections::BTreeSet<_> =
        [&first, &other, &none, &none_again].iter().map(|it| it["transaction_id"].to_string()).collect();
    assert_eq!(ids.len(), 4);
    assert_eq!(calls(&test), 4);
}

#[tokio::test]
async fn the_same_key_with_another_body_is_refused() {
    let test = TestApp::start().await;
    started(post(&test, &body(), Some("k")).await, 201).await;
    let mut wish = body();
    wish["initialize"]["MerchantUserId"] = json!("u-2");
    let told = problem(post(&test, &wish, Some("k")).await, 409, "idempotency_key_reused").await;
    assert!(!told.to_string().contains("u-2"));
    assert_eq!(calls(&test), 1);
}

#[tokio::test]
async fn of_many_at_once_with_one_key_one_calls() {
    let test = TestApp::start().await;
    test.simulator.add_fault(Fault { delay_ms: Some(300), ..fault(FaultKind::Delay) }).unwrap();
    let wish = body();
    let answers = join_all((0..8).map(|_| post(&test, &wish, Some("k")))).await;
    let mut made = 0;
    for answer in answers {
        match answer.status().as_u16() {
            201 => made += 1,
            // It came after the first was done.
            200 => {}
            _ => {
                assert!(answer.headers().contains_key("retry-after"));
                problem(answer, 409, "initialize_in_progress").await;
            }
        }
    }
    assert_eq!(made, 1);
    assert_eq!(calls(&test), 1);
    started(post(&test, &wish, Some("k")).await, 200).await;
}

#[tokio::test]
async fn a_lost_answer_is_recorded_and_never_leads_to_a_second_call() {
    let test = TestApp::start().await;
    for (key, kind, code) in [
        ("cut", FaultKind::CutOff, "connection_broken"),
        ("status", FaultKind::Status, "InternalError"),
        ("html", FaultKind::Html, "http_502"),
        ("garbage", FaultKind::Garbage, "unreadable_answer"),
        ("empty", FaultKind::Empty, "unreadable_answer"),
    ] {
        test.simulator.add_fault(fault(kind)).unwrap();
        let before = calls(&test);
        let mut told = Vec::new();
        for _ in 0..3 {
            told.push(problem(post(&test, &body(), Some(key)).await, 502, "initialize_lost").await);
        }
        assert_eq!(calls(&test), before + 1, "{key}");
        assert_eq!(told[0], told[1]);
        assert_eq!(told[1], told[2]);
        let detail = told[0]["detail"].as_str().unwrap();
        assert!(detail.contains(code), "{key}: {detail}");
        let mut other = body();
        other["merchant_biz_id"] = json!("b");
        problem(post(&test, &other, Some(key)).await, 409, "idempotency_key_reused").await;
    }
    assert_eq!(test.get_json("/verifications").await["items"], json!([]));
    let pool = test.database.pool().await;
    let lost: i64 =
        sqlx::query_scalar("SELECT count(*) FROM initializations WHERE state = 'lost' AND finished_at IS NOT NULL")
            .fetch_one(&pool)
            .await
            .unwrap();
    assert_eq!(lost, 5);
    let metrics = test.get("/metrics").await.text().await.unwrap();
    let line = format!("checkback_initializations_total{{account=\"{ACCOUNT}\",outcome=\"lost\"}}");
    assert!(metrics.contains(&line), "{metrics}");
}

#[tokio::test]
async fn a_caller_that_hangs_up_finds_the_answer_under_its_key() {
    let test = TestApp::start().await;
    test.simulator.add_fault(Fault { delay_ms: Some(500), ..fault(FaultKind::Delay) }).unwrap();
    let wish = body();
    let asking = post(&test, &wish, Some("k"));
    tokio::select! {
        biased;
        _ = asking => panic!("the answer is late"),
        () = test.until("the call arrives", async || (calls(&test) == 1).then_some(())) => {}
    }
    let found = test
        .until("it was finished all the same", async || {
            let response = post(&test, &wish, Some("k")).await;
            if response.status() == 409 { None } else { Some(started(response, 200).await) }
        })
        .await;
    assert!(found["client"].is_object());
    assert_eq!(calls(&test), 1);
}

#[tokio::test]
async fn a_process_that_died_during_the_call_leaves_it_lost() {
    let mut test = TestApp::start().await;
    test.simulator.add_fault(Fault { delay_ms: Some(60_000), ..fault(FaultKind::Delay) }).unwrap();
    let wish = body();
    {
        let asking = post(&test, &wish, Some("k"));
        tokio::select! {
            biased;
            _ = asking => panic!("the answer is late"),
            () = test.until("the call arrives", async || (calls(&test) == 1).then_some(())) => {}
        }
    }
    // The stop drops what takes too long.
    test.restart().await;
    problem(post(&test, &wish, Some("k")).await, 409, "initialize_in_progress").await;
    test.advance(Duration::from_secs(61));
    let told = problem(post(&test, &wish, Some("k")).await, 502, "initialize_lost").await;
    test.app.as_ref().unwrap().service.tidy_initializations().await.unwrap();
    let pool = test.database.pool().await;
    let state: String = sqlx::query_scalar("SELECT state FROM initializations").fetch_one(&pool).await.unwrap();
    assert_eq!(state, "lost");
    assert_eq!(problem(post(&test, &wish, Some("k")).await, 502, "initialize_lost").await, told);
    assert_eq!(calls(&test), 1);
}

#[tokio::test]
async fn a_database_that_goes_away_during_the_call_costs_no_transaction() {
    let test = TestApp::start().await;
    test.simulator.add_fault(Fault { delay_ms: Some(700), ..fault(FaultKind::Delay) }).unwrap();
    let wish = body();
    let (response, ()) = tokio::join!(post(&test, &wish, Some("k")), async {
        test.until("the call arrives", async || (calls(&test) == 1).then_some(())).await;
        test.database.set_reachable(false).await;
        // Until the answer was there and could not be stored.
        test.until("the answer is out", async || {
            test.simulator
                .call_log()
                .iter()
                .any(|call| call.operation == "Initialize" && call.status == 200)
                .then_some(())
        })
        .await;
        problem(post(&test, &wish, Some("k")).await, 503, "database_unavailable").await;
        test.database.set_reachable(true).await;
    });
    let made = started(response, 201).await;
    assert_eq!(started(post(&test, &wish, Some("k")).await, 200).await["id"], made["id"]);
    assert_eq!(calls(&test), 1);
}

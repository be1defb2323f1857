//! What is refused before the provider is asked, and what the provider refuses.

use std::time::Duration;

use checkback::simulator::{Fault, FaultKind};
use futures_util::future::join_all;
use serde_json::{Value, json};

use super::{body, calls, members, post, problem, started, wrong_fields};
use crate::support::app::{ACCOUNT, Setup, TestApp};

fn fault(kind: FaultKind) -> Fault {
    Fault { operation: Some("Initialize".to_owned()), kind, ..Fault::default() }
}

fn code(code: &str) -> Fault {
    Fault { code: Some(code.to_owned()), ..fault(FaultKind::Code) }
}

async fn states(test: &TestApp) -> Vec<(String, Option<String>)> {
    let pool = test.database.pool().await;
    sqlx::query_as("SELECT state, code FROM initializations ORDER BY initialization_id").fetch_all(&pool).await.unwrap()
}

#[tokio::test]
async fn every_wrong_member_is_told_at_once_and_nothing_is_sent() {
    let test = TestApp::start().await;
    let wrong = json!({
        "transaction_id": "t", "callback_token": "c", "merchant_biz_id": "a b", "order": 1,
        "initialize": {
            "CallbackUrl": "https://a.example", "CallbackToken": "t", "MerchantBizId": "m", "ReturnUrl": "https://a",
            "Timestamp": "now", "Deep": { "a": 1 },
        },
    });
    let told = problem(post(&test, &wrong, None).await, 422, "body_invalid").await;
    assert_eq!(
        wrong_fields(&told),
        [
            "callback_token",
            "initialize.CallbackToken",
            "initialize.CallbackUrl",
            "initialize.Deep",
            "initialize.MerchantBizId",
            "initialize.ProductCode",
            "initialize.ReturnUrl",
            "initialize.Timestamp",
            "merchant_biz_id",
            "order",
            "transaction_id",
        ]
    );
    for value in [json!([]), json!("x"), json!(1), json!(true)] {
        let told = problem(post(&test, &json!({ "initialize": value }), None).await, 422, "body_invalid").await;
        assert_eq!(wrong_fields(&told), ["initialize"]);
    }
    let told =
        problem(post(&test, &json!({ "initialize": members(), "account": "nobody" }), None).await, 422, "body_invalid")
            .await;
    assert_eq!(wrong_fields(&told), ["account"]);
    problem(post(&test, &body(), Some(&"k".repeat(129))).await, 400, "idempotency_key_invalid").await;
    let own = json!({ "account": ACCOUNT, "transaction_id": "started-by-the-app" });
    problem(post(&test, &own, Some("with a blank")).await, 400, "idempotency_key_invalid").await;
    assert_eq!(calls(&test), 0);
    assert!(states(&test).await.is_empty());
}

#[tokio::test]
async fn what_the_provider_refuses_frees_the_key_and_makes_no_verification() {
    let test = TestApp::start().await;
    let mut wish = body();
    wish["initialize"]["SceneCode"] = json!("not a scene");
    let told = problem(post(&test, &wish, Some("k")).await, 422, "initialize_refused").await;
    assert!(told["detail"].as_str().unwrap().contains("InvalidParameter"), "{told}");
    assert!(!told.to_string().contains("not a scene"), "{told}");
    assert_eq!(test.get_json("/verifications").await["items"], json!([]));
    assert_eq!(states(&test).await, [("refused".to_owned(), Some("InvalidParameter".to_owned()))]);
    // Mended, with the same key.
    started(post(&test, &body(), Some("k")).await, 201).await;
    assert_eq!(calls(&test), 2);
}

#[tokio::test]
async fn a_provider_that_is_not_reached_made_nothing() {
    let test = TestApp::with(Setup { more: crate::api::OTHER_ACCOUNT.to_owned(), ..Setup::default() }).await;
    let mut wish = body();
    wish["account"] = json!("other");
    for _ in 0..2 {
        let response = post(&test, &wish, Some("k")).await;
        assert!(response.headers().contains_key("retry-after"));
        problem(response, 503, "provider_unavailable").await;
    }
    assert_eq!(states(&test).await, vec![("refused".to_owned(), Some("connect_failed".to_owned())); 2]);
}

#[tokio::test]
async fn trouble_of_the_account_holds_the_next_call_back_and_one_probe_mends_it() {
    let test = TestApp::start().await;
    test.simulator.add_fault(code("Forbidden.AccountAccessDenied")).unwrap();
    let told = problem(post(&test, &body(), Some("k")).await, 503, "account_failing").await;
    assert!(told["detail"].as_str().unwrap().contains("not_activated"), "{told}");
    let ready = test.get_json("/readyz").await;
    assert_eq!(ready["accounts"][ACCOUNT]["status"], "failing", "{ready}");
    let response = post(&test, &body(), Some("k")).await;
    let wait: u64 = response.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert_eq!(wait, 5);
    problem(response, 503, "account_failing").await;
    assert_eq!(calls(&test), 1, "nothing is sent before the probe");
    // No open work is needed for the probe.
    test.advance(Duration::from_secs(wait));
    started(post(&test, &body(), Some("k")).await, 201).await;
    assert_eq!(test.get_json("/readyz").await["accounts"][ACCOUNT]["status"], "ok");
}

#[tokio::test]
async fn throttling_holds_the_account_for_the_time_that_the_provider_names() {
    let test = TestApp::start().await;
    test.simulator.add_fault(Fault { retry_after_ms: Some(30_000), ..fault(FaultKind::Throttle) }).unwrap();
    let response = post(&test, &body(), None).await;
    assert_eq!(response.headers()["retry-after"], "30");
    problem(response, 429, "throttled").await;
    let response = post(&test, &body(), None).await;
    assert_eq!(response.headers()["retry-after"], "30");
    problem(response, 429, "throttled").await;
    assert_eq!(calls(&test), 1);
    test.advance(Duration::from_secs(30));
    started(post(&test, &body(), None).await, 201).await;
}

#[tokio::test]
async fn calls_take_their_slots_from_the_accounts_rate_and_the_rest_is_told_to_come_later() {
    let test = TestApp::with(Setup { account: "qps = 3".to_owned(), ..Setup::default() }).await;
    let wish = body();
    let answers = join_all((0..20).map(|_| post(&test, &wish, None))).await;
    let mut made = 0;
    for answer in answers {
        if answer.status() == 201 {
            made += 1;
        } else {
            assert!(answer.headers().contains_key("retry-after"));
            problem(answer, 429, "throttled").await;
        }
    }
    assert_eq!(made, calls(&test), "who is told to come later sent nothing");
    assert!((2..=9).contains(&made), "{made}");
    let mut times: Vec<_> = test.simulator.call_log().iter().map(|call| call.received_at).collect();
    times.sort_unstable();
    for window in times.windows(4) {
        assert!((window[3] - window[0]).num_milliseconds() >= 1000, "{window:?}");
    }
    assert_eq!(states(&test).await.len(), made, "and left no trace");
}

#[tokio::test]
async fn a_clock_that_is_off_is_corrected_and_made_nothing() {
    let test = TestApp::start().await;
    for _ in 0..2 {
        test.simulator.add_fault(Fault { skew_seconds: Some(3600), ..fault(FaultKind::Skew) }).unwrap();
    }
    problem(post(&test, &body(), Some("k")).await, 503, "provider_unavailable").await;
    started(post(&test, &body(), Some("k")).await, 201).await;
}

#[tokio::test]
async fn without_the_database_nothing_is_sent() {
    let test = TestApp::start().await;
    test.database.set_reachable(false).await;
    for key in [None, Some("k")] {
        problem(post(&test, &body(), key).await, 503, "database_unavailable").await;
    }
    test.database.set_reachable(true).await;
    assert_eq!(calls(&test), 0);
    let made: Value = test
        .until("it recovers", async || {
            let response = post(&test, &body(), Some("k")).await;
            if response.status() == 201 { response.json().await.ok() } else { None }
        })
        .await;
    assert!(made["client"].is_object());
    assert_eq!(calls(&test), 1);
}

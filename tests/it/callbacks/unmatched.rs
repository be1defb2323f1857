use std::time::Duration;

use checkback::simulator::{Complete, CreateTransaction};
use sqlx::PgPool;

use super::*;

const TOKEN: &str = "callback_token = \"right-for-the-account\"";

async fn kept(pool: &PgPool, account: &str) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM unmatched_callbacks WHERE account = $1")
        .bind(account)
        .fetch_one(pool)
        .await
        .unwrap()
}

#[tokio::test]
async fn a_registration_that_comes_later_finds_its_callback() {
    for token in [None, Some("right-for-the-account"), Some("its-own")] {
        let setup = Setup { account: format!("qps = 100000\n{TOKEN}"), ..Setup::default() };
        let test = TestApp::with(setup).await;
        let created = test.simulator.create(CreateTransaction::default()).unwrap().transaction_id;
        test.simulator.complete(&created, Complete::default()).await.unwrap();
        unmatched(test.callback(&created, Some("right-for-the-account")).await).await;
        unmatched(test.callback(&created, Some("right-for-the-account")).await).await;
        let called_back_at = test.clock.now();
        test.advance(Duration::from_mins(1));
        let body = json!({ "transaction_id": created, "callback_token": token });
        let response = test.post("/verifications", &body).await;
        assert_eq!(response.status(), 201);
        let registered: Value = response.json().await.unwrap();
        assert_eq!(registered["status"], "collecting", "{registered}");
        let id = registered["id"].as_str().unwrap();
        let body = test.final_verification(id).await;
        assert_eq!(body["status"], "passed");
        let time = |value: &Value| chrono::DateTime::parse_from_rfc3339(value.as_str().unwrap()).unwrap().to_utc();
        assert_eq!(time(&body["callback_at"]), called_back_at);
        assert_eq!(callbacks(&test, id).await[0]["before_registration"], 2);
        assert_eq!(kept(&test.database.pool().await, ACCOUNT).await, 0);
    }
}

#[tokio::test]
async fn without_the_right_token_of_the_account_nothing_is_kept() {
    let account = "nothing-kept";
    let test = TestApp::with(account_of_its_own(account, TOKEN)).await;
    for query in ["transactionId=t", "transactionId=t&callbackToken=wrong"] {
        problem(send(&test, account, query, None).await, 404, "transaction_unknown").await;
    }
    assert_eq!(kept(&test.database.pool().await, account).await, 0);
    assert_eq!((counted(account, "transaction_unknown"), counted(account, "unmatched")), (2, 0));
}

#[tokio::test]
async fn ten_thousand_are_kept_and_the_oldest_go_first() {
    let account = "full";
    let test = TestApp::with(account_of_its_own(account, TOKEN)).await;
    let pool = test.database.pool().await;
    sqlx::query(
        "INSERT INTO unmatched_callbacks (account, transaction_id, received_at)
        SELECT $1, 'old-' || n, $2::timestamptz - make_interval(secs => n) FROM generate_series(1, 9999) AS n",
    )
    .bind(account)
    .bind(test.clock.now())
    .execute(&pool)
    .await
    .unwrap();
    sqlx::query("INSERT INTO unmatched_callbacks (account, transaction_id, received_at) VALUES ($1, 't', $2)")
        .bind(ACCOUNT)
        .bind(test.clock.now() - chrono::TimeDelta::hours(20))
        .execute(&pool)
        .await
        .unwrap();
    let there = async |id: &str| -> bool {
        sqlx::query_scalar("SELECT EXISTS (SELECT FROM unmatched_callbacks WHERE account = $1 AND transaction_id = $2)")
            .bind(account)
            .bind(id)
            .fetch_one(&pool)
            .await
            .unwrap()
    };
    for n in 0..3 {
        unmatched(
            send(&test, account, &format!("transactionId=new-{n}&callbackToken=right-for-the-account"), None).await,
        )
        .await;
        assert_eq!(kept(&pool, account).await, 10_000);
    }
    for n in 0..3 {
        assert!(there(&format!("new-{n}")).await);
    }
    assert!(!there("old-9999").await && !there("old-9998").await && there("old-9997").await);
    assert_eq!(kept(&pool, ACCOUNT).await, 1, "the limit is each account's own");
    assert_eq!(counted(account, "unmatched"), 3);
    assert!(telemetry::metrics().unwrap().render().contains("checkback_unmatched_dropped_total"));
}

#[tokio::test]
async fn after_a_day_it_is_forgotten() {
    let mut test = TestApp::with(account_of_its_own("forgotten", TOKEN)).await;
    let pool = test.database.pool().await;
    unmatched(send(&test, "forgotten", "transactionId=old&callbackToken=right-for-the-account", None).await).await;
    test.advance(Duration::from_hours(1));
    unmatched(send(&test, "forgotten", "transactionId=young&callbackToken=right-for-the-account", None).await).await;
    test.advance(Duration::from_hours(23) + Duration::from_secs(1));
    // It is looked for at the start, and then every minute.
    test.restart().await;
    test.until("it is forgotten", async || (kept(&pool, "forgotten").await == 1).then_some(())).await;
    let old = register_at(&test, "forgotten", "old", None).await;
    assert_eq!(test.verification(&old).await["status"], "waiting");
    let young = register_at(&test, "forgotten", "young", None).await;
    assert_eq!(test.verification(&young).await["status"], "collecting");
}

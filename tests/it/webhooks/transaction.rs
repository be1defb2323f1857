//! A verdict and its event are one: neither is there without the other, whoever dies.

use std::time::Duration;

use checkback::simulator::{Complete, CreateTransaction};
use serde_json::json;

use super::{attempted, deliveries, passed, received, with_one};
use crate::support::app::launch;
use crate::support::receiver::{Answer, Receiver};

#[tokio::test]
async fn a_verdict_whose_event_cannot_be_written_is_not_written_either() {
    let receiver = Receiver::start().await;
    let test = with_one(&receiver).await;
    let pool = test.database.pool().await;
    sqlx::raw_sql("ALTER TABLE deliveries ADD CONSTRAINT planted CHECK (false) NOT VALID")
        .execute(&pool)
        .await
        .unwrap();
    let (transaction, id) = test.begin(CreateTransaction::default(), json!({})).await;
    test.simulator.complete(&transaction, Complete { callbacks: Some(0), ..Complete::default() }).await.unwrap();
    test.collect(&id).await;
    let body = test
        .until("it is put off", async || {
            let body = test.verification(&id).await;
            body["last_error"].as_str().is_some_and(|error| error.contains("refused to store")).then_some(body)
        })
        .await;
    assert_eq!(body["final"], false);
    let written: i64 = sqlx::query_scalar("SELECT (SELECT count(*) FROM verdicts) + (SELECT count(*) FROM events)")
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(written, 0);
    sqlx::raw_sql("ALTER TABLE deliveries DROP CONSTRAINT planted").execute(&pool).await.unwrap();
    test.advance(Duration::from_mins(11));
    assert_eq!(test.final_verification(&id).await["status"], "passed");
    received(&test, &receiver, 1).await;
}

#[tokio::test]
async fn what_a_worker_was_sending_when_it_died_is_sent_by_another() {
    let receiver = Receiver::start().await;
    receiver.script([Answer::Silence]);
    let mut test = with_one(&receiver).await;
    test.stop().await;
    // The dying one has a runtime of its own, which ends without a word.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (config, url, clock) = (test.config.clone(), test.database.url().to_owned(), test.clock.clone());
    test.app = Some(runtime.spawn(async move { launch(&config, &url, clock, true).await }).await.unwrap());
    let id = passed(&test).await;
    received(&test, &receiver, 1).await;
    let dead = test.app.take();
    runtime.shutdown_background();
    drop(dead);
    let pool = test.database.pool().await;
    let later =
        "CREATE OR REPLACE FUNCTION database_now() RETURNS timestamptz LANGUAGE sql VOLATILE PARALLEL RESTRICTED
        AS $$ SELECT clock_timestamp() + interval '11 s' $$";
    sqlx::raw_sql(later).execute(&pool).await.unwrap();
    test.app = Some(test.replica().await);
    let requests = received(&test, &receiver, 2).await;
    assert_eq!(requests[0].event_id(), requests[1].event_id());
    let delivery = attempted(&test, &id, 1).await;
    assert_eq!((&delivery["status"], &delivery["attempts"]), (&json!("delivered"), &json!(1)));
}

#[tokio::test]
async fn a_verdict_that_was_stored_before_the_process_died_is_told_after_the_restart() {
    let receiver = Receiver::start().await;
    let mut test = with_one(&receiver).await;
    // Nothing is leased as long as the endpoint is disabled, as if the process had died before.
    let pool = test.database.pool().await;
    let disable = "UPDATE endpoints SET disabled_at = now(), disabled_reason = 'planted'";
    test.until("the endpoint is known", async || {
        let done = sqlx::raw_sql(disable).execute(&pool).await.unwrap();
        (done.rows_affected() == 1).then_some(())
    })
    .await;
    passed(&test).await;
    test.stop().await;
    assert_eq!(receiver.count(), 0);
    sqlx::raw_sql("UPDATE endpoints SET disabled_at = NULL, disabled_reason = NULL").execute(&pool).await.unwrap();
    test.app = Some(test.replica().await);
    received(&test, &receiver, 1).await;
}

#[tokio::test]
async fn a_service_that_stops_gives_back_what_it_was_sending() {
    let receiver = Receiver::start().await;
    receiver.script([Answer::Silence]);
    let mut test = with_one(&receiver).await;
    passed(&test).await;
    received(&test, &receiver, 1).await;
    test.stop().await;
    let leased: i64 = sqlx::query_scalar("SELECT count(*) FROM deliveries WHERE lease_token IS NOT NULL")
        .fetch_one(&test.database.pool().await)
        .await
        .unwrap();
    assert_eq!(leased, 0);
    test.app = Some(test.replica().await);
    test.until("delivered", async || deliveries(&test, "status=delivered").await.pop()).await;
}

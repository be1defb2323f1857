//! What is under way while a verification is erased changes nothing afterwards.

use std::time::Duration;

use checkback::simulator::{Complete, CreateTransaction, Fault, FaultKind};
use futures_util::future::join_all;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgPool};

use super::{TOKEN, completed, decided, entry, erase, everything};
use crate::api::problem;
use crate::support::app::{KEY, TestApp, launch};
use crate::support::database::somebody_waits;

async fn number(pool: &PgPool, statement: &'static str) -> i64 {
    sqlx::query_scalar(statement).fetch_one(pool).await.unwrap()
}

/// Moves the time of leases on.
pub async fn move_database_clock(pool: &PgPool, seconds: u32) {
    let function = format!(
        "CREATE OR REPLACE FUNCTION database_now() RETURNS timestamptz LANGUAGE sql VOLATILE PARALLEL RESTRICTED
        AS 'SELECT clock_timestamp() + interval ''{seconds} s'''"
    );
    sqlx::raw_sql(AssertSqlSafe(function)).execute(pool).await.unwrap();
}

#[tokio::test]
async fn a_check_that_is_under_way_loses_its_lease_and_stores_nothing() {
    let test = TestApp::start().await;
    let (transaction, id) = test.begin(CreateTransaction::default(), everything()).await;
    test.simulator.complete(&transaction, Complete { callbacks: Some(0), ..Complete::default() }).await.unwrap();
    let slow = Fault {
        operation: Some("CheckResult".into()),
        kind: FaultKind::Delay,
        delay_ms: Some(700),
        ..Fault::default()
    };
    test.simulator.add_fault(slow).unwrap();
    test.callback(&transaction, Some(TOKEN)).await;
    test.until("it asks", async || (test.calls_for("CheckResult", &transaction) == 1).then_some(())).await;
    let receipt = erase(&test, &id).await;
    assert_eq!(receipt["complete"], true, "{receipt}");
    let shown = test.verification(&id).await;
    assert_eq!((&shown["status"], &shown["reason"]), (&json!("void"), &json!("erased")));
    assert!(shown["callback_at"].is_string(), "when it was called back is a time: {shown}");
    test.until("the answer has come", async || {
        let calls = test.simulator.call_log();
        calls.iter().any(|call| call.operation == "CheckResult" && call.status != 0).then_some(())
    })
    .await;
    // A second flow goes the same way behind it, through the same queues.
    decided(&test).await;
    assert_eq!(test.verification(&id).await, shown);
    let pool = test.database.pool().await;
    let verdicts: Vec<(String, i64)> =
        sqlx::query_as("SELECT status, count(answer) FROM verdicts GROUP BY 1 ORDER BY 1")
            .fetch_all(&pool)
            .await
            .unwrap();
    assert_eq!(verdicts, [("passed".to_owned(), 1), ("void".to_owned(), 0)]);
}

#[tokio::test]
async fn two_replicas_erase_once() {
    let mut test = TestApp::start().await;
    let other = test.replica().await;
    let (transaction, id) = decided(&test).await;
    let addresses = [test.app.as_ref().unwrap().internal, other.internal];
    let deletes = addresses.iter().cycle().take(6).map(|address| {
        let url = format!("http://{address}/verifications/{id}");
        test.http.delete(url).bearer_auth(KEY).send()
    });
    let mut receipts = Vec::new();
    for response in join_all(deletes).await {
        let response = response.unwrap();
        assert_eq!(response.status(), 200);
        receipts.push(response.json::<Value>().await.unwrap());
    }
    assert_eq!(receipts[0]["complete"], true, "{}", receipts[0]);
    for receipt in &receipts {
        assert_eq!(receipt, &receipts[0]);
    }
    assert_eq!(test.calls_for("DeleteVerifyResult", &transaction), 1);
    let erased = test.history(&id).await.iter().filter(|item| item["kind"] == "erased").count();
    assert_eq!(erased, 1);
    other.shut_down().await;
    test.stop().await;
}

#[tokio::test]
async fn a_callback_that_is_worked_in_during_the_erasure_is_dropped() {
    let test = TestApp::start().await;
    let (transaction, id) = test.begin(CreateTransaction::default(), everything()).await;
    // Void, so that a hint would ask once more.
    test.advance(Duration::from_hours(25));
    assert_eq!(test.final_verification(&id).await["status"], "void");
    let before = test.history(&id).await;
    let pool = test.database.pool().await;
    let mut erasure = pool.begin().await.unwrap();
    sqlx::query("SELECT FROM verifications FOR UPDATE").execute(&mut *erasure).await.unwrap();
    assert_eq!(test.callback(&transaction, Some(TOKEN)).await.status(), 200);
    somebody_waits(&pool, "").await;
    sqlx::query("UPDATE verifications SET erased_at = now()").execute(&mut *erasure).await.unwrap();
    erasure.commit().await.unwrap();
    test.until("no hint", async || (number(&pool, "SELECT count(*) FROM hints").await == 0).then_some(())).await;
    assert_eq!(test.history(&id).await, before);
    assert_eq!(number(&pool, "SELECT count(*) FROM collect_jobs").await, 0);
}

#[tokio::test]
async fn an_answer_that_is_asked_for_during_the_erasure_is_not_shown() {
    let test = TestApp::start().await;
    let (_, id) = decided(&test).await;
    let before = test.history(&id).await;
    let pool = test.database.pool().await;
    let mut erasure = pool.begin().await.unwrap();
    sqlx::query("SELECT FROM verifications FOR UPDATE").execute(&mut *erasure).await.unwrap();
    let path = format!("/verifications/{id}/raw");
    let reading = test.get(&path);
    let erasing = async {
        somebody_waits(&pool, "").await;
        sqlx::query("UPDATE verifications SET erased_at = now()").execute(&mut *erasure).await.unwrap();
        erasure.commit().await.unwrap();
    };
    let (answer, ()) = tokio::join!(reading, erasing);
    let refused = problem(answer, 404, "answer_not_found").await;
    assert!(refused["detail"].as_str().unwrap().contains("erased"), "{refused}");
    assert_eq!(test.history(&id).await, before, "nothing was read");
}

#[tokio::test]
async fn a_recheck_that_somebody_left_brings_nothing_back() {
    let test = TestApp::start().await;
    let answers =
        ["Y", "N"].map(|passed| checkback::simulator::Answer { passed: Some(passed.to_owned()), ..Default::default() });
    let (transaction, id) = test
        .begin(CreateTransaction { answers: answers.into(), completed: Some(true), ..Default::default() }, everything())
        .await;
    test.callback(&transaction, Some(TOKEN)).await;
    assert_eq!(test.final_verification(&id).await["status"], "passed");
    // The provider keeps its result, so that the recheck finds another one.
    test.simulator
        .add_fault(Fault {
            operation: Some("DeleteVerifyResult".into()),
            kind: FaultKind::Code,
            code: Some("InvalidAction".into()),
            ..Fault::default()
        })
        .unwrap();
    erase(&test, &id).await;
    let before = (test.verification(&id).await, test.history(&id).await);
    let pool = test.database.pool().await;
    sqlx::query("INSERT INTO collect_jobs (verification_id, account, lane, due_at, recheck) SELECT verification_id, account, 3, erased_at, true FROM verifications")
        .execute(&pool).await.unwrap();
    test.app.as_ref().unwrap().service.wakes.all_accounts();
    test.until("no job", async || (number(&pool, "SELECT count(*) FROM collect_jobs").await == 0).then_some(())).await;
    assert_eq!(test.calls_for("CheckResult", &transaction), 2);
    assert_eq!((test.verification(&id).await, test.history(&id).await), before);
    assert_eq!(number(&pool, "SELECT count(*) FROM verdicts").await, 1);
}

#[tokio::test]
async fn an_erasure_whose_worker_dies_is_finished_by_another() {
    let mut test = TestApp::start().await;
    let (transaction, id) = decided(&test).await;
    test.stop().await;
    // The dying one has a runtime of its own, which ends without a word.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (config, url, clock) = (test.config.clone(), test.database.url().to_owned(), test.clock.clone());
    let dying = runtime.spawn(async move { launch(&config, &url, clock, true).await }).await.unwrap();
    let slow = Fault {
        operation: Some("DeleteVerifyResult".into()),
        kind: FaultKind::Delay,
        delay_ms: Some(60_000),
        ..Fault::default()
    };
    test.simulator.add_fault(slow).unwrap();
    let url = format!("http://{}/verifications/{id}", dying.internal);
    let request = test.http.delete(url).bearer_auth(KEY).send();
    let killed = async {
        test.until("it deletes", async || (test.calls_for("DeleteVerifyResult", &transaction) == 1).then_some(()))
            .await;
        runtime.shutdown_background();
    };
    let (answer, ()) = tokio::join!(request, killed);
    assert!(answer.is_err(), "it died before it could answer");
    test.app = Some(test.replica().await);
    let pool = test.database.pool().await;
    let receipt = erase_without_waiting(&test, &id).await;
    assert_eq!((entry(&receipt, "scores")["state"].as_str(), &receipt["complete"]), (Some("destroyed"), &json!(false)));
    move_database_clock(&pool, 30).await;
    let receipt = completed(&test, &id).await;
    assert_eq!(entry(&receipt, "result")["state"], "destroyed");
    assert_eq!(test.calls_for("DeleteVerifyResult", &transaction), 2);
    std::mem::forget(dying);
}

/// The receipt as it stands.
async fn erase_without_waiting(test: &TestApp, id: &str) -> Value {
    let service = &test.app.as_ref().unwrap().service;
    let erasure = service.store.erasure(id.parse().unwrap()).await.unwrap().unwrap();
    json!({ "complete": erasure.due_at.is_none(), "destroyed": [{ "what": "scores", "state": "destroyed", "rows": erasure.destroyed.scores }] })
}

#[tokio::test]
async fn a_failure_at_any_step_of_the_transaction_destroys_nothing() {
    let test = TestApp::start().await;
    let (_, id) = decided(&test).await;
    let before = (test.verification(&id).await, test.history(&id).await);
    let pool = test.database.pool().await;
    sqlx::raw_sql(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql
        AS $$ BEGIN RAISE EXCEPTION 'no room' USING ERRCODE = 'disk_full'; END $$",
    )
    .execute(&pool)
    .await
    .unwrap();
    for (table, when) in [
        ("verdicts", "UPDATE"),
        ("verifications", "UPDATE"),
        ("history", "UPDATE"),
        ("history", "INSERT"),
        ("erasures", "INSERT"),
    ] {
        let trigger = format!(
            "CREATE CONSTRAINT TRIGGER refuse AFTER {when} ON {table} DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse()"
        );
        sqlx::raw_sql(AssertSqlSafe(trigger)).execute(&pool).await.unwrap();
        problem(super::delete(&test, &id).await, 503, "database_unavailable").await;
        sqlx::raw_sql(AssertSqlSafe(format!("DROP TRIGGER refuse ON {table}"))).execute(&pool).await.unwrap();
        assert_eq!((test.verification(&id).await, test.history(&id).await), before, "{when} {table}");
        assert_eq!(test.provider_calls("DeleteVerifyResult"), 0);
    }
    assert_eq!(erase(&test, &id).await["complete"], true);
}

#[tokio::test]
async fn what_was_done_and_could_not_be_recorded_is_done_again() {
    let test = TestApp::start().await;
    let (transaction, id) = decided(&test).await;
    let pool = test.database.pool().await;
    // Only the recording of an attempt is refused, not the lease before it.
    sqlx::raw_sql("CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql
        AS $$ BEGIN RAISE EXCEPTION 'no room' USING ERRCODE = 'disk_full'; END $$;
        CREATE TRIGGER refuse BEFORE UPDATE ON erasures FOR EACH ROW WHEN (NEW.attempts > OLD.attempts) EXECUTE FUNCTION refuse()").execute(&pool).await.unwrap();
    let service = test.app.as_ref().unwrap().service.clone();
    service.erase(id.parse().unwrap(), None, None, Duration::ZERO).await.unwrap();
    let calls = async |count: usize| {
        test.until("the call", async || (test.calls_for("DeleteVerifyResult", &transaction) >= count).then_some(()))
            .await;
    };
    calls(1).await;
    // The lease of the one that could not be recorded runs out.
    move_database_clock(&pool, 30).await;
    calls(2).await;
    sqlx::raw_sql("DROP TRIGGER refuse ON erasures").execute(&pool).await.unwrap();
    move_database_clock(&pool, 60).await;
    let receipt = completed(&test, &id).await;
    assert_eq!((entry(&receipt, "result")["state"].as_str(), receipt["by"].as_str()), (Some("destroyed"), None));
    assert!(test.calls_for("DeleteVerifyResult", &transaction) >= 2);
}

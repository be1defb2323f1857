use checkback::simulator::{CreateTransaction, Fault, FaultKind};
use serde_json::{Value, json};

use super::{problem, register_plain};
use crate::support::app::{ACCOUNT, Setup, TestApp};

async fn ready(test: &TestApp) -> (u16, Value) {
    let response = test.http.get(test.internal("/readyz")).send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

#[tokio::test]
async fn both_listeners_say_that_they_live_without_a_key() {
    let test = TestApp::start().await;
    for url in [test.internal("/healthz"), test.public("/healthz")] {
        let response = test.http.get(url).send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.json::<Value>().await.unwrap(), json!({ "status": "alive" }));
    }
}

#[tokio::test]
async fn readiness_names_each_part() {
    let test = TestApp::start().await;
    let (status, body) = ready(&test).await;
    assert_eq!(status, 200);
    assert_eq!(
        body,
        json!({
            "status": "ready", "database": { "status": "ok" }, "migrations": { "status": "current" },
            "accounts": { ACCOUNT: { "status": "ok" } },
        })
    );
}

#[tokio::test]
async fn a_failing_account_is_named_and_does_not_make_the_service_unready() {
    let test = TestApp::start().await;
    let refused = Fault {
        kind: FaultKind::Code,
        code: Some("InvalidAccessKeyId.NotFound".into()),
        share: Some(1.0),
        ..Fault::default()
    };
    test.simulator.add_fault(refused).unwrap();
    let (_, id) = test.begin(CreateTransaction::default(), json!({})).await;
    test.post(&format!("/verifications/{id}/collect"), &json!({})).await;
    let body = test
        .until("the account is failing", || async {
            let (status, body) = ready(&test).await;
            assert_eq!(status, 200, "{body}");
            (body["accounts"][ACCOUNT]["status"] == "failing").then_some(body)
        })
        .await;
    let account = &body["accounts"][ACCOUNT];
    assert_eq!((&account["reason"], &body["status"]), (&json!("bad_key"), &json!("ready")));
    assert_eq!(account["code"], "InvalidAccessKeyId.NotFound");
    assert!(!body.to_string().contains(&test.simulator_address.to_string()), "who has no key learns no endpoint");
    assert!(account["since"].as_str().unwrap().ends_with('Z'));
    assert_eq!(test.verification(&id).await["status"], "collecting", "an account's trouble is nobody else's fault");
    // Mended, it goes on by itself.
    test.simulator.clear_faults();
    test.advance(std::time::Duration::from_mins(1));
    test.until("the account is well", || async {
        (ready(&test).await.1["accounts"][ACCOUNT]["status"] == "ok").then_some(())
    })
    .await;
}

#[tokio::test]
async fn pending_migrations_make_it_unready_until_they_are_applied() {
    let mut test = TestApp::start().await;
    test.stop().await;
    let pool = test.database.pool().await;
    sqlx::raw_sql("DROP SCHEMA public CASCADE; CREATE SCHEMA public").execute(&pool).await.unwrap();
    test.app = Some(test.replica_that_migrates(false).await);
    let (status, body) = ready(&test).await;
    assert_eq!(status, 503);
    assert_eq!((&body["status"], &body["database"]["status"]), (&json!("unready"), &json!("ok")));
    assert_eq!(body["migrations"]["status"], "pending");
    assert!(body["migrations"]["pending"].as_u64().unwrap() > 0, "{body}");
    let refused = test.post("/verifications", &json!({ "transaction_id": "t" })).await;
    assert!(refused.headers().contains_key("retry-after"));
    problem(refused, 503, "database_unavailable").await;
    assert_eq!(test.http.get(test.internal("/healthz")).send().await.unwrap().status(), 200);
    // Another process applies them; this one takes up its work without a restart.
    test.replica().await.shut_down().await;
    assert_eq!(ready(&test).await.0, 200);
    let id = register_plain(&test, "unknown-to-the-provider").await;
    test.post(&format!("/verifications/{id}/collect"), &json!({})).await;
    assert_eq!(test.final_verification(&id).await["status"], "unresolvable");
}

#[tokio::test]
async fn accounts_are_enrolled_once_the_migrations_are_applied() {
    let mut test = TestApp::start().await;
    test.stop().await;
    let pool = test.database.pool().await;
    sqlx::raw_sql("DROP SCHEMA public CASCADE; CREATE SCHEMA public").execute(&pool).await.unwrap();
    test.app = Some(test.replica_that_migrates(false).await);
    // `checkback migrate` knows no accounts.
    test.app.as_ref().unwrap().service.store.migrate().await.unwrap();
    let id = register_plain(&test, "unknown-to-the-provider").await;
    test.post(&format!("/verifications/{id}/collect"), &json!({})).await;
    assert_eq!(test.final_verification(&id).await["status"], "unresolvable");
    assert_eq!(test.get_json("/verifications").await["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_database_with_other_migrations_is_foreign() {
    let test = TestApp::start().await;
    sqlx::raw_sql("UPDATE _sqlx_migrations SET checksum = 'other' WHERE version = 1")
        .execute(&test.database.pool().await)
        .await
        .unwrap();
    let (status, body) = ready(&test).await;
    assert_eq!((status, &body["migrations"]["status"]), (503, &json!("foreign")));
}

#[tokio::test]
async fn a_replica_of_the_version_before_goes_on_and_starts_when_a_newer_one_has_migrated() {
    let mut test = TestApp::start().await;
    sqlx::raw_sql(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
        VALUES (9999, 'of the next version', true, 'sum', 0)",
    )
    .execute(&test.database.pool().await)
    .await
    .unwrap();
    for _ in 0..2 {
        let (status, body) = ready(&test).await;
        assert_eq!((status, &body["migrations"]), (200, &json!({ "status": "newer", "newer": 1 })));
        test.restart().await;
    }
    let id = register_plain(&test, "unknown-to-the-provider").await;
    test.post(&format!("/verifications/{id}/collect"), &json!({})).await;
    assert_eq!(test.final_verification(&id).await["status"], "unresolvable");
}

#[tokio::test]
async fn metrics_need_no_key_when_they_are_open_and_nothing_else_opens_with_them() {
    let mut test = TestApp::start().await;
    test.stop().await;
    test.config = test.config.replacen("[server]", "[server]\nopen_metrics = true", 1);
    test.restart().await;
    let metrics = test.http.get(test.internal("/metrics")).send().await.unwrap();
    assert_eq!(metrics.status(), 200);
    let list = test.http.get(test.internal("/verifications")).send().await.unwrap();
    problem(list, 401, "unauthorized").await;
}

#[tokio::test]
async fn without_keys_everybody_may_do_everything() {
    let mut test = TestApp::with(Setup::default()).await;
    test.stop().await;
    test.config = test.config.replacen("[[auth.keys]]", "[auth]\nmode = \"none\"\n[[auth.keys]]", 1);
    test.restart().await;
    let response = test.http.get(test.internal("/verifications")).send().await.unwrap();
    assert_eq!(response.status(), 200);
}

//! One erasure, undisturbed.

use checkback::simulator::{Complete, CreateTransaction};
use reqwest::Method;
use serde_json::{Value, json};

use super::{TOKEN, attempted, completed, decided, delete, entry, erase, everything};
use crate::api::{problem, register, register_plain, wrong_fields};
use crate::evidence::with_images;
use crate::support::app::{ACCOUNT, Setup, TestApp};

#[tokio::test]
async fn the_bare_fact_stays_and_everything_else_is_destroyed() {
    let test = TestApp::with(with_images()).await;
    let (transaction, id) = decided(&test).await;
    let before = test.verification(&id).await;
    let request = test.request(Method::DELETE, &format!("/verifications/{id}"));
    let response = request.json(&json!({ "reason": "request 4711" })).send().await.unwrap();
    assert_eq!(response.status(), 200);
    let receipt: Value = response.json().await.unwrap();
    assert_eq!(
        (&receipt["id"], &receipt["by"], &receipt["reason"]),
        (&json!(id), &json!("test"), &json!("request 4711"))
    );
    assert_eq!(receipt["complete"], true, "{receipt}");
    for (what, rows) in [
        ("scores", 1),
        ("raw_answer", 1),
        ("metadata", 1),
        ("return_url", 1),
        ("callback_token", 1),
        ("client_answer", 0),
        ("callbacks", 0),
    ] {
        let entry = entry(&receipt, what);
        assert_eq!(
            (&entry["where"], &entry["state"], &entry["rows"]),
            (&json!("database"), &json!("destroyed"), &json!(rows)),
            "{entry}"
        );
        assert_eq!(entry["at"], receipt["erased_at"]);
    }
    for (what, place) in [("evidence", "evidence store"), ("result", "provider")] {
        let entry = entry(&receipt, what);
        assert_eq!(
            (&entry["where"], &entry["state"], &entry["reason"]),
            (&json!(place), &json!("destroyed"), &Value::Null),
            "{entry}"
        );
        assert!(entry["at"].is_string() && entry["next_attempt_at"].is_null(), "{entry}");
    }
    let after = test.verification(&id).await;
    let mut expected = before.clone();
    for (member, value) in [
        ("sub_code", Value::Null),
        ("reason", Value::Null),
        ("scores", json!({})),
        ("signals", json!({})),
        ("metadata", Value::Null),
        ("erased_at", receipt["erased_at"].clone()),
        ("evidence", after["evidence"].clone()),
    ] {
        expected[member] = value;
    }
    assert_eq!(after, expected);
    problem(test.get(&format!("/verifications/{id}/raw")).await, 404, "answer_not_found").await;
    let history = test.history(&id).await;
    // Both images were stored at once, in any order.
    let (evidence, history): (Vec<Value>, Vec<Value>) =
        history.into_iter().partition(|item| item["kind"] == "evidence");
    assert_eq!(evidence.len(), 2);
    for item in &evidence {
        let members: Vec<&str> = item.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!((members.len(), &item["state"]), (4, &json!("stored")), "{item}");
    }
    let shown: Vec<Value> = history
        .iter()
        .map(|item| {
            let mut item = item.clone();
            item.as_object_mut().unwrap().remove("at");
            item
        })
        .collect();
    assert_eq!(
        shown,
        [
            json!({ "kind": "registered" }),
            json!({ "kind": "callback" }),
            json!({ "kind": "check", "attempt": 1, "outcome": "finished" }),
            json!({ "kind": "verdict", "status": "passed", "revision": 1 }),
            json!({ "kind": "erased", "by": "test", "reason": "request 4711" }),
        ]
    );
    // At the provider it is really gone.
    assert_eq!(test.calls_for("DeleteVerifyResult", &transaction), 1);
    let pool = test.database.pool().await;
    let left: (Option<String>, Option<Vec<u8>>, Option<Value>) =
        sqlx::query_as("SELECT return_url, callback_token_sha256, metadata FROM verifications")
            .fetch_one(&pool)
            .await
            .unwrap();
    assert_eq!(left, (None, None, None));
}

#[tokio::test]
async fn again_is_the_first_receipt() {
    let test = TestApp::start().await;
    let (transaction, id) = decided(&test).await;
    let first = erase(&test, &id).await;
    test.advance(std::time::Duration::from_secs(60));
    let request = test.request(Method::DELETE, &format!("/verifications/{id}"));
    let again: Value = request.json(&json!({ "reason": "another" })).send().await.unwrap().json().await.unwrap();
    assert_eq!(again, first);
    assert_eq!(test.calls_for("DeleteVerifyResult", &transaction), 1);
    let erased = test.history(&id).await.iter().filter(|item| item["kind"] == "erased").count();
    assert_eq!(erased, 1);
}

#[tokio::test]
async fn one_that_is_open_ends_as_void_and_is_not_asked_about() {
    let test = TestApp::start().await;
    let (transaction, id) = test.begin(CreateTransaction::default(), everything()).await;
    let path = format!("/verifications/{id}?wait=30");
    let reading = test.get_json(&path);
    let erasing = erase(&test, &id);
    let (shown, receipt) = tokio::join!(reading, erasing);
    assert_eq!(
        (&shown["status"], &shown["reason"], &shown["final"]),
        (&json!("void"), &json!("erased"), &json!(true)),
        "{shown}"
    );
    assert_eq!((&shown["revision"], &shown["final_at"]), (&json!(1), &receipt["erased_at"]));
    assert_eq!(test.history(&id).await[1]["reason"], "erased");
    // Nothing is there to be deleted before the person is done; it may be there later.
    let result = entry(&receipt, "result");
    assert_eq!((&result["state"], &receipt["complete"]), (&json!("pending"), &json!(false)), "{receipt}");
    assert!(result["reason"].as_str().unwrap().contains("no result yet"), "{result}");
    test.simulator.complete(&transaction, Complete { callbacks: Some(0), ..Complete::default() }).await.unwrap();
    test.advance(std::time::Duration::from_mins(5));
    let receipt = completed(&test, &id).await;
    assert_eq!(entry(&receipt, "result")["state"], "destroyed");
    assert_eq!(test.provider_calls("CheckResult"), 0);
}

#[tokio::test]
async fn a_flow_that_nobody_completes_has_nothing_to_delete_in_the_end() {
    let test = TestApp::start().await;
    let (_, id) = test.begin(CreateTransaction::default(), everything()).await;
    erase(&test, &id).await;
    for attempts in 2..=6 {
        test.advance(std::time::Duration::from_hours(6));
        attempted(&test, &id, attempts).await;
    }
    let receipt = erase(&test, &id).await;
    let result = entry(&receipt, "result");
    assert_eq!((&result["state"], &receipt["complete"]), (&json!("refused"), &json!(true)), "{receipt}");
    let calls = test.provider_calls("DeleteVerifyResult");
    assert!((4..=9).contains(&calls), "{calls}");
}

#[tokio::test]
async fn what_does_not_exist_cannot_be_erased_and_a_wrong_reason_erases_nothing() {
    let test = TestApp::start().await;
    problem(delete(&test, "01a20052-106c-74b8-b008-29321547fb36").await, 404, "verification_not_found").await;
    problem(delete(&test, "no-id").await, 404, "verification_not_found").await;
    let id = register_plain(&test, "t").await;
    for body in [
        json!({ "reason": 5 }),
        json!({ "reason": "x".repeat(201) }),
        json!({ "reason": "a\nb" }),
        json!({ "reson": "x" }),
    ] {
        let request = test.request(Method::DELETE, &format!("/verifications/{id}")).json(&body);
        let refused = problem(request.send().await.unwrap(), 422, "body_invalid").await;
        assert_eq!(wrong_fields(&refused).len(), 1, "{body}");
    }
    assert_eq!(test.verification(&id).await["status"], "waiting");
}

#[tokio::test]
async fn the_same_transaction_registered_again_is_the_erased_one() {
    let test = TestApp::start().await;
    let (transaction, id) = decided(&test).await;
    erase(&test, &id).await;
    let body = |changed: Value| {
        let mut body = everything();
        body["account"] = json!(ACCOUNT);
        body["transaction_id"] = json!(transaction);
        for (name, value) in changed.as_object().unwrap() {
            body[name] = value.clone();
        }
        body
    };
    // What is gone cannot differ.
    let destroyed =
        json!({ "metadata": { "order": "B-18" }, "return_url": "https://other.example/", "callback_token": "another" });
    for changed in [json!({}), destroyed] {
        let (status, again) = register(&test, &body(changed)).await;
        assert_eq!((status, &again["id"], &again["status"]), (200, &json!(id), &json!("passed")));
        assert_eq!((&again["metadata"], &again["scores"]), (&Value::Null, &json!({})));
    }
    let (status, refused) = register(&test, &body(json!({ "merchant_biz_id": "other" }))).await;
    assert_eq!((status, &refused["code"]), (409, &json!("transaction_conflict")), "{refused}");
    let pool = test.database.pool().await;
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM verifications WHERE metadata IS NOT NULL")
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(left, 0);
}

#[tokio::test]
async fn nothing_asks_about_an_erased_one_again() {
    let mut test = TestApp::with(Setup {
        account: "qps = 100000\ncallback_token = \"the-token-of-the-account\"".to_owned(),
        ..Setup::default()
    })
    .await;
    for status in ["passed", "void"] {
        let (transaction, id) = if status == "passed" {
            decided(&test).await
        } else {
            test.begin(CreateTransaction::default(), everything()).await
        };
        test.simulator.complete(&transaction, Complete { callbacks: Some(0), ..Complete::default() }).await.unwrap();
        erase(&test, &id).await;
        let before = (test.verification(&id).await, test.history(&id).await);
        assert_eq!(before.0["status"], status);
        let checks = test.calls_for("CheckResult", &transaction);
        for body in [json!({}), json!({ "recheck": true })] {
            let refused =
                problem(test.post(&format!("/verifications/{id}/collect"), &body).await, 409, "already_final").await;
            assert!(refused["detail"].as_str().unwrap().contains("erased"), "{refused}");
        }
        // Here it is not known any more; at a replica that met it before it is.
        for token in [Some(TOKEN), Some("wrong-token-of-nobody"), None] {
            assert_eq!(test.callback(&transaction, token).await.status(), 200, "{token:?}");
        }
        test.restart().await;
        assert_eq!(test.callback(&transaction, Some(TOKEN)).await.status(), 200);
        test.advance(std::time::Duration::from_hours(2));
        let pool = test.database.pool().await;
        test.until("no hint is left", async || {
            let left: i64 = sqlx::query_scalar("SELECT count(*) FROM hints").fetch_one(&pool).await.unwrap();
            (left == 0).then_some(())
        })
        .await;
        assert_eq!((test.verification(&id).await, test.history(&id).await), before);
        assert_eq!(test.calls_for("CheckResult", &transaction), checks);
        let jobs: i64 = sqlx::query_scalar("SELECT count(*) FROM collect_jobs").fetch_one(&pool).await.unwrap();
        assert_eq!(jobs, 0);
    }
}

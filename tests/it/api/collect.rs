use std::time::Duration;

use checkback::simulator::{Answer, Complete, CreateTransaction};
use reqwest::{Method, header};
use serde_json::{Value, json};

use super::{problem, register_plain, wrong_fields};
use crate::support::app::TestApp;

async fn collect(test: &TestApp, id: &str, body: Option<Value>) -> reqwest::Response {
    let request = test.request(Method::POST, &format!("/verifications/{id}/collect"));
    match body {
        Some(body) => request.json(&body),
        None => request,
    }
    .send()
    .await
    .unwrap()
}

/// Moves time on until `give_up_after` is over and the verification is void.
async fn give_up(test: &TestApp, id: &str) -> Value {
    test.advance(Duration::from_hours(24));
    let body = test.final_verification(id).await;
    assert_eq!(body["status"], "void", "{body}");
    body
}

#[tokio::test]
async fn without_a_body_the_provider_is_asked_now() {
    let test = TestApp::start().await;
    let (transaction, id) = test.begin(CreateTransaction::default(), json!({})).await;
    test.simulator.complete(&transaction, Complete::default()).await.unwrap();
    let response = collect(&test, &id, None).await;
    assert_eq!(response.status(), 202);
    assert_eq!(response.json::<Value>().await.unwrap()["id"], id.as_str());
    assert_eq!(test.final_verification(&id).await["status"], "passed");
    let kinds: Vec<Value> = test.history(&id).await.iter().map(|item| item["kind"].clone()).collect();
    assert_eq!(kinds, ["registered", "operator", "check", "verdict"]);
    assert_eq!(test.provider_calls("CheckResult"), 1);
}

#[tokio::test]
async fn empty_wishes_are_wishes_too() {
    let test = TestApp::start().await;
    for (n, body) in [json!({}), json!({ "recheck": false }), json!({ "recheck": null }), json!({ "recheck": true })]
        .into_iter()
        .enumerate()
    {
        let id = register_plain(&test, &format!("t-{n}")).await;
        assert_eq!(collect(&test, &id, Some(body)).await.status(), 202);
        assert_ne!(test.verification(&id).await["status"], "waiting", "somebody said that the person finished");
    }
    let id = register_plain(&test, "t-empty").await;
    let request = test.request(Method::POST, &format!("/verifications/{id}/collect"));
    let empty = request.header(header::CONTENT_TYPE, "application/json").body("").send().await.unwrap();
    assert_eq!(empty.status(), 202);
}

#[tokio::test]
async fn wrong_wishes_are_refused() {
    let test = TestApp::start().await;
    let id = register_plain(&test, "t").await;
    let response = collect(&test, &id, Some(json!({ "recheck": "yes", "force": 1 }))).await;
    assert_eq!(wrong_fields(&problem(response, 422, "body_invalid").await), ["force", "recheck"]);
    assert_eq!(test.verification(&id).await["status"], "waiting");
}

#[tokio::test]
async fn a_final_one_is_asked_about_again_only_with_recheck() {
    let test = TestApp::start().await;
    let answers = vec![
        Answer { passed: Some("N".into()), sub_code: Some("204".into()), ..Answer::default() },
        Answer { passed: Some("N".into()), sub_code: Some("204".into()), ..Answer::default() },
        Answer { passed: Some("Y".into()), sub_code: Some("200".into()), ..Answer::default() },
    ];
    let (_, id) = test.begin(CreateTransaction { answers, ..CreateTransaction::default() }, json!({})).await;
    assert_eq!(collect(&test, &id, None).await.status(), 202);
    let first = test.final_verification(&id).await;
    assert_eq!((&first["status"], &first["revision"]), (&json!("failed"), &json!(1)));
    for body in [None, Some(json!({})), Some(json!({ "recheck": false }))] {
        let refused = problem(collect(&test, &id, body).await, 409, "already_final").await;
        assert!(refused["detail"].as_str().unwrap().contains("failed"), "{refused}");
    }
    assert_eq!(test.provider_calls("CheckResult"), 1);
    // The same answer changes nothing.
    assert_eq!(collect(&test, &id, Some(json!({ "recheck": true }))).await.status(), 202);
    test.until("the check is done", || async {
        test.verification(&id).await["next_attempt_at"].is_null().then_some(())
    })
    .await;
    assert_eq!(test.provider_calls("CheckResult"), 2);
    let same = test.verification(&id).await;
    assert_eq!((&same["status"], &same["revision"]), (&json!("failed"), &json!(1)));
    // Another answer is a new revision, and the one before stays in the history.
    test.advance(Duration::from_secs(1));
    assert_eq!(collect(&test, &id, Some(json!({ "recheck": true }))).await.status(), 202);
    let other = test
        .until("the second revision", || async {
            Some(test.verification(&id).await).filter(|body| body["revision"] == 2)
        })
        .await;
    assert_eq!((&other["status"], &other["final"]), (&json!("passed"), &json!(true)));
    let verdicts: Vec<Value> = test.history(&id).await.into_iter().filter(|item| item["kind"] == "verdict").collect();
    assert_eq!(verdicts.len(), 2, "{verdicts:?}");
    assert_eq!((&verdicts[0]["status"], &verdicts[1]["status"]), (&json!("failed"), &json!("passed")));
}

#[tokio::test]
async fn a_void_one_is_asked_about_again_without_more() {
    let test = TestApp::start().await;
    let (transaction, id) = test.begin(CreateTransaction::default(), json!({})).await;
    let void = give_up(&test, &id).await;
    let before = test.provider_calls("CheckResult");
    test.simulator.complete(&transaction, Complete::default()).await.unwrap();
    assert_eq!(collect(&test, &id, None).await.status(), 202);
    let found = test
        .until("a verdict", || async { Some(test.verification(&id).await).filter(|body| body["revision"] == 2) })
        .await;
    assert_eq!((&void["revision"], &found["status"]), (&json!(1), &json!("passed")));
    assert_eq!(test.provider_calls("CheckResult"), before + 1);
}

#[tokio::test]
async fn a_void_one_without_news_stays_void() {
    let test = TestApp::start().await;
    let (_, id) = test.begin(CreateTransaction::default(), json!({})).await;
    give_up(&test, &id).await;
    let before = test.provider_calls("CheckResult");
    assert_eq!(collect(&test, &id, None).await.status(), 202);
    test.until("the check is done", || async {
        let body = test.verification(&id).await;
        (body["next_attempt_at"].is_null() && test.provider_calls("CheckResult") > before).then_some(())
    })
    .await;
    let body = test.verification(&id).await;
    assert_eq!((&body["status"], &body["revision"]), (&json!("void"), &json!(1)));
    assert_eq!(test.provider_calls("CheckResult"), before + 1, "one check, no schedule");
}

#[tokio::test]
async fn an_expired_one_is_asked_about_again_without_more() {
    let test = TestApp::start().await;
    let (transaction, id) = test.begin(CreateTransaction::default(), json!({})).await;
    // The service is down until the provider's time is over by the service's clock alone.
    let mut test = test;
    test.stop().await;
    test.clock.advance(Duration::from_hours(24 * 32));
    test.restart().await;
    let expired = test.final_verification(&id).await;
    assert_eq!(expired["status"], "expired", "{expired}");
    assert_eq!(test.provider_calls("CheckResult"), 0, "nothing is attempted after the deadline");
    test.simulator.move_clock(checkback::simulator::ClockMove::Advance(chrono::TimeDelta::days(32)));
    test.simulator.complete(&transaction, Complete::default()).await.unwrap();
    assert_eq!(collect(&test, &id, None).await.status(), 202);
    let found = test
        .until("a verdict", || async { Some(test.verification(&id).await).filter(|body| body["revision"] == 2) })
        .await;
    assert_eq!(found["status"], "passed", "{found}");
}

#[tokio::test]
async fn asking_twice_asks_the_provider_at_most_twice() {
    let test = TestApp::start().await;
    let (_, id) = test.begin(CreateTransaction::default(), json!({})).await;
    let (one, two) = tokio::join!(collect(&test, &id, None), collect(&test, &id, None));
    assert_eq!((one.status().as_u16(), two.status().as_u16()), (202, 202));
    test.until("a check", || async { (test.history(&id).await.len() >= 4).then_some(()) }).await;
    assert!(test.provider_calls("CheckResult") <= 2);
    let operator = test.history(&id).await.iter().filter(|item| item["kind"] == "operator").count();
    assert_eq!(operator, 2, "each wish is in the history");
}

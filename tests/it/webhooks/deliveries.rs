//! What is told to whom, and that the specification's own library believes it.

use std::collections::BTreeSet;
use std::time::Duration;

use checkback::config::{EVENTS, Environment, load_text};
use checkback::domain::EventType;
use checkback::simulator::{Answer as ProviderAnswer, Complete, CreateTransaction};
use http::HeaderMap;
use serde_json::{Value, json};
use standardwebhooks::Webhook;

use super::{OTHER, SECRET, attempted, deliveries, passed, received, with, with_one};
use crate::support::app::{Setup, TestApp};
use crate::support::receiver::{Answer, Receiver};

fn types(receiver: &Receiver, id: &str) -> Vec<String> {
    let bodies = receiver.received().into_iter().map(|request| request.json());
    let own = bodies.filter(|body| body["data"]["id"] == id);
    own.map(|body| body["type"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn the_types_of_events_are_those_of_the_configuration() {
    assert_eq!(EventType::ALL.map(EventType::as_str), EVENTS);
}

#[test]
fn the_configuration_on_the_page_is_sound() {
    let page = include_str!("../../../docs/webhooks.md");
    let section = page.split("```toml\n").nth(1).unwrap().split("\n```").next().unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, format!("{SECRET}\n{OTHER}\n")).unwrap();
    let section = section.replace("/run/secrets/webhook", file.path().to_str().unwrap());
    let nothing = Environment::from_pairs([("", ""); 0]);
    let loaded = load_text("page.toml", &section, &nothing).unwrap_or_else(|wrong| panic!("{wrong}"));
    assert_eq!((loaded.config.webhooks[0].secrets.len(), loaded.config.webhooks[0].events.len()), (2, 2));
}

#[tokio::test]
async fn a_verdict_is_told_in_a_thin_body_that_the_official_library_verifies_with_either_secret() {
    let receiver = Receiver::start().await;
    let test = with(&[receiver.section("app", &[SECRET, OTHER], &[])]).await;
    let id = passed(&test).await;
    let request = received(&test, &receiver, 1).await.remove(0);
    let shown = test.verification(&id).await;
    assert_eq!(
        request.json(),
        json!({ "type": "verification.passed", "timestamp": shown["final_at"], "data": {
            "id": id, "account": shown["account"], "merchant_biz_id": shown["merchant_biz_id"], "status": "passed",
            "revision": 1,
        } })
    );
    assert_eq!(request.path, "/app?token=planted");
    assert_eq!(request.header("content-type"), "application/json");
    assert_eq!(request.timestamp(), test.clock.now().timestamp());
    assert_eq!(request.header("webhook-signature").matches("v1,").count(), 2);

    let verify = |secret: &str, body: &str, headers: &HeaderMap| {
        Webhook::new(secret).unwrap().verify(body.as_bytes(), headers).is_ok()
    };
    let changed = |name: &'static str, value: String| {
        let mut headers = request.headers.clone();
        headers.insert(name, value.parse().unwrap());
        headers
    };
    assert!(verify(SECRET, &request.body, &request.headers) && verify(OTHER, &request.body, &request.headers));
    assert!(!verify("whsec_QkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkI=", &request.body, &request.headers));
    assert!(!verify(SECRET, &request.body.replace("passed", "failed"), &request.headers));
    assert!(!verify(SECRET, &request.body, &changed("webhook-id", "another".into())));
    for off in [-301, 301, 1] {
        let time = (request.timestamp() + off).to_string();
        assert!(!verify(SECRET, &request.body, &changed("webhook-timestamp", time)), "{off}");
    }
    let delivery = attempted(&test, &id, 1).await;
    assert_eq!((&delivery["status"], &delivery["attempts"]), (&json!("delivered"), &json!(1)));
    assert_eq!(delivery["event_id"], request.event_id());
}

#[tokio::test]
async fn an_attempt_is_in_the_history_with_a_redacted_answer() {
    let receiver = Receiver::start().await;
    let body = "no such user jane@example.com, token: abc, 3173019876543210";
    receiver.script([Answer::Text(format!("500 X\r\ncontent-length: {}\r\n\r\n{body}", body.len()))]);
    let test = with_one(&receiver).await;
    let id = passed(&test).await;
    attempted(&test, &id, 1).await;
    let found: Vec<Value> = test.history(&id).await.into_iter().filter(|item| item["kind"] == "webhook").collect();
    assert_eq!(found.len(), 1);
    assert!(found[0]["duration_ms"].is_u64(), "{}", found[0]);
    for (name, expected) in [
        ("endpoint", json!("app")),
        ("type", json!("verification.passed")),
        ("attempt", json!(1)),
        ("result", json!("refused")),
        ("status", json!(500)),
        ("reason", json!("the endpoint answered 500")),
        ("answer", json!("no such user […], token: […], […]")),
    ] {
        assert_eq!(found[0][name], expected, "{name}");
    }
    let metrics = test.get("/metrics").await.text().await.unwrap();
    assert!(metrics.contains("checkback_webhook_attempts_total{result=\"refused\"}"), "{metrics}");
    assert!(!metrics.contains("planted"));
}

#[tokio::test]
async fn each_endpoint_hears_what_it_wants_and_nothing_is_written_that_nobody_wants() {
    let (one, two) = (Receiver::start().await, Receiver::start().await);
    let test = with(&[
        one.section("one", &[SECRET], &["verification.passed"]),
        two.section("two", &[SECRET], &["verification.erased", "verification.void"]),
    ])
    .await;
    let (first, second) = (passed(&test).await, passed(&test).await);
    received(&test, &one, 2).await;
    let (_, open) = test.begin(CreateTransaction::default(), json!({})).await;
    for id in [&second, &open] {
        let erased = test.request(reqwest::Method::DELETE, &format!("/verifications/{id}")).send().await.unwrap();
        assert_eq!(erased.status(), 200);
    }
    received(&test, &two, 3).await;
    assert_eq!(types(&one, &first), ["verification.passed"]);
    assert_eq!(types(&two, &second), ["verification.erased"]);
    let ended: BTreeSet<String> = types(&two, &open).into_iter().collect();
    assert_eq!(Vec::from_iter(ended), ["verification.erased", "verification.void"]);
    // A failed one is wanted by nobody.
    let (transaction, failed) = test.begin(CreateTransaction::default(), json!({})).await;
    let complete = Complete { passed: Some("N".into()), sub_code: Some("204".into()), ..Complete::default() };
    test.simulator.complete(&transaction, complete).await.unwrap();
    test.collect(&failed).await;
    assert_eq!(test.final_verification(&failed).await["status"], "failed");
    let events: i64 = sqlx::query_scalar("SELECT count(*) FROM events WHERE verification_id = $1")
        .bind(failed.parse::<sqlx::types::Uuid>().unwrap())
        .fetch_one(&test.database.pool().await)
        .await
        .unwrap();
    assert_eq!(events, 0);
    assert!(deliveries(&test, &format!("verification_id={failed}")).await.is_empty());
}

#[tokio::test]
async fn every_other_end_is_told_and_so_is_a_later_revision() {
    let receiver = Receiver::start().await;
    let test = with_one(&receiver).await;
    let unknown = ProviderAnswer {
        code: Some("TransactionIdInvalid".into()),
        message: Some("unknown".into()),
        status: Some(400),
        ..ProviderAnswer::default()
    };
    let passed = ProviderAnswer { passed: Some("Y".into()), sub_code: Some("200".into()), ..ProviderAnswer::default() };
    let answers = vec![unknown, passed];
    let (_, id) = test.begin(CreateTransaction { answers, ..Default::default() }, json!({})).await;
    test.collect(&id).await;
    assert_eq!(test.final_verification(&id).await["status"], "unresolvable");
    test.recheck(&id).await;
    received(&test, &receiver, 2).await;
    assert_eq!(types(&receiver, &id), ["verification.unresolvable", "verification.passed"]);
    assert_eq!(receiver.received()[1].json()["data"]["revision"], 2);
    // The same answer once more is no event.
    test.recheck(&id).await;
    test.until("the recheck is over", async || {
        let attempts = test.verification(&id).await["attempts"].as_u64().unwrap();
        (attempts >= 3).then_some(())
    })
    .await;
    assert_eq!(deliveries(&test, &format!("verification_id={id}")).await.len(), 2);
    // One that nobody completes.
    let (_, void) = test.begin(CreateTransaction::default(), json!({})).await;
    test.until("it is given up", async || {
        test.advance_to(test.clock.now() + chrono::TimeDelta::hours(3)).await;
        (test.verification(&void).await["final"] == true).then_some(())
    })
    .await;
    received(&test, &receiver, 3).await;
    assert_eq!(types(&receiver, &void), ["verification.void"]);
}

#[tokio::test]
async fn stored_evidence_is_told_once_when_the_last_piece_has_ended() {
    let receiver = Receiver::start().await;
    let more = receiver.section("app", &[SECRET], &["verification.evidence_stored"]);
    let account = "qps = 100000\nreturn_images = true".to_owned();
    let test = TestApp::with(Setup { account, more, ..Setup::default() }).await;
    let answer = json!({ "RequestId": "r", "Code": "Success", "Message": "success", "Result": {
        "Passed": "Y", "SubCode": "200",
        "ExtFaceInfo": json!({ "facePassed": "Y", "faceImg": picture(1) }).to_string(),
        "ExtIdInfo": json!({ "idImage": picture(2), "idBackImage": picture(3) }).to_string(),
    } });
    let answers = vec![ProviderAnswer { body: Some(answer.to_string()), ..ProviderAnswer::default() }];
    let (_, id) = test
        .begin(
            CreateTransaction { answers, completed: Some(true), ..Default::default() },
            json!({ "product": "eKYC_PRO" }),
        )
        .await;
    test.collect(&id).await;
    test.final_verification(&id).await;
    let request = received(&test, &receiver, 1).await.remove(0);
    assert_eq!(request.json()["type"], "verification.evidence_stored");
    assert_eq!(request.json()["data"]["status"], "passed");
    let evidence = test.verification(&id).await["evidence"].as_array().unwrap().clone();
    assert!(evidence.len() >= 3 && evidence.iter().all(|one| one["state"] != "pending"), "{evidence:?}");
    assert_eq!(deliveries(&test, &format!("verification_id={id}")).await.len(), 1);
}

fn picture(mark: u8) -> String {
    use base64::Engine;
    let mut bytes = b"\xFF\xD8\xFF\xE0\0\x10JFIF\0".to_vec();
    bytes.extend([mark; 500]);
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[tokio::test]
async fn an_erasure_leaves_nothing_of_answers_also_of_attempts_that_come_after_it() {
    let receiver = Receiver::start().await;
    let answer = "500 X\r\ncontent-length: 12\r\n\r\nsorry, Juana";
    receiver.answer(Answer::Text(answer.to_owned()));
    let test = with_one(&receiver).await;
    let id = passed(&test).await;
    attempted(&test, &id, 1).await;
    let erased = test.request(reqwest::Method::DELETE, &format!("/verifications/{id}")).send().await.unwrap();
    assert_eq!(erased.status(), 200);
    test.advance(Duration::from_secs(6));
    // The first event again, and that it is erased.
    received(&test, &receiver, 3).await;
    let attempts = async || {
        let history = test.history(&id).await;
        history.into_iter().filter(|item| item["kind"] == "webhook").collect::<Vec<_>>()
    };
    let found = test.until("all are in the history", async || Some(attempts().await).filter(|it| it.len() >= 3)).await;
    for attempt in &found {
        assert!(attempt["answer"].is_null() && attempt["endpoint"] == "app" && attempt["status"] == 500, "{attempt}");
    }
}

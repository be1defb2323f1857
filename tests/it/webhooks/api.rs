//! What operators see and do: lists, replays, enabling, test events, changed secrets.

use std::time::Duration;

use checkback::config::{Environment, load_text};
use checkback::domain::{Keep, RetentionClass};
use reqwest::Method;
use serde_json::{Value, json};
use standardwebhooks::Webhook;

use super::{OTHER, SECRET, attempted, deliveries, endpoint, passed, received, with, with_one};
use crate::api::{problem, wrong_fields};
use crate::support::receiver::{Answer, Receiver};

#[tokio::test]
async fn endpoints_are_listed_with_how_they_fare_and_without_secrets() {
    let receiver = Receiver::start().await;
    let mut test =
        with(&[receiver.section("app", &[SECRET], &["verification.passed"]), receiver.section("crm", &[SECRET], &[])])
            .await;
    let id = passed(&test).await;
    received(&test, &receiver, 2).await;
    test.until("both are delivered", async || (deliveries(&test, "status=delivered").await.len() == 2).then_some(()))
        .await;
    let shown = test.get("/webhooks").await.text().await.unwrap();
    assert!(!shown.contains("planted") && !shown.contains("whsec_"), "{shown}");
    let shown = endpoint(&test, "app").await;
    assert_eq!(shown["state"], "ok");
    assert_eq!(shown["events"], json!(["verification.passed"]));
    assert_eq!((&shown["pending"], &shown["failed"]), (&json!(0), &json!(0)));
    assert!(shown["last_success_at"].is_string());
    assert_eq!(endpoint(&test, "crm").await["events"].as_array().unwrap().len(), 8);

    let page = test.get_json("/webhooks/deliveries?limit=1").await;
    let cursor = page["next_cursor"].as_str().unwrap();
    let next = test.get_json(&format!("/webhooks/deliveries?limit=1&cursor={cursor}")).await;
    assert_ne!(page["items"][0]["endpoint"], next["items"][0]["endpoint"]);
    assert_eq!(next["next_cursor"], Value::Null);
    assert_eq!(next["items"][0]["verification_id"], id);
    let wrong = test.get("/webhooks/deliveries?status=lost&limit=0&cursor=x&verification_id=x&a=b").await;
    let wrong = problem(wrong, 422, "query_invalid").await;
    assert_eq!(wrong_fields(&wrong), ["a", "cursor", "limit", "status", "verification_id"]);

    // One that is configured no more is still there.
    test.config = test.config.replace("name = \"crm\"", "name = \"new\"");
    test.restart().await;
    test.until("the new one is known", async || {
        let body = test.get_json("/webhooks").await;
        (body["items"].as_array().unwrap().len() == 3).then_some(())
    })
    .await;
    let shown = endpoint(&test, "crm").await;
    assert_eq!((&shown["state"], &shown["url"]), (&json!("not_configured"), &Value::Null));
}

#[tokio::test]
async fn a_replay_counts_first_and_sends_again_by_event_verification_and_time() {
    let (receiver, other) = (Receiver::start().await, Receiver::start().await);
    let test =
        with(&[receiver.section("app", &[SECRET], &[]), other.section("new", &[SECRET], &["verification.erased"])])
            .await;
    let began = test.clock.now();
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(passed(&test).await);
        test.advance(Duration::from_mins(1));
    }
    test.until("all are delivered", async || (deliveries(&test, "status=delivered").await.len() == 3).then_some(()))
        .await;
    let ask = async |body: Value| {
        let answer = test.post("/webhooks/replay", &body).await;
        assert_eq!(answer.status(), 200);
        answer.json::<Value>().await.unwrap()
    };
    let event = deliveries(&test, &format!("verification_id={}", ids[0])).await[0]["event_id"].clone();
    for filter in [
        json!({ "event_id": event }),
        json!({ "verification_id": ids[0] }),
        json!({ "endpoint": "app", "since": began, "until": began + chrono::TimeDelta::seconds(30) }),
    ] {
        let before = receiver.count();
        let mut dry = filter.clone();
        dry["dry_run"] = json!(true);
        assert_eq!(ask(dry).await, json!({ "matched": 1 }));
        assert_eq!(receiver.count(), before);
        assert_eq!(ask(filter).await, json!({ "begun": 1, "complete": true }));
        received(&test, &receiver, before + 1).await;
        assert_eq!(receiver.received()[before].event_id(), event.as_str().unwrap());
        test.until("delivered", async || (deliveries(&test, "status=delivered").await.len() == 3).then_some(())).await;
    }
    assert_eq!(deliveries(&test, &format!("verification_id={}", ids[0])).await[0]["replays"], 3);
    // An endpoint hears of what it had not wanted then.
    let late = json!({ "endpoint": "new", "since": began, "types": ["verification.passed"], "dry_run": true });
    assert_eq!(ask(late.clone()).await, json!({ "matched": 3 }));
    let mut late = late;
    late["dry_run"] = json!(false);
    assert_eq!(ask(late).await, json!({ "begun": 3, "complete": true }));
    received(&test, &other, 3).await;
    assert_eq!(
        ask(json!({ "event_id": "01a20052-106c-74b8-b008-29321547fb36" })).await,
        json!({ "begun": 0, "complete": true })
    );
}

#[tokio::test]
async fn what_is_pending_is_left_alone_by_a_replay() {
    let receiver = Receiver::start().await;
    receiver.answer(Answer::Status(500));
    let test = with_one(&receiver).await;
    let id = passed(&test).await;
    let before = attempted(&test, &id, 1).await;
    let answer = test.post("/webhooks/replay", &json!({ "verification_id": id })).await;
    assert_eq!(answer.json::<Value>().await.unwrap()["begun"], 0);
    assert_eq!(attempted(&test, &id, 1).await, before);
}

#[tokio::test]
async fn wrong_wishes_are_refused_with_every_member() {
    let receiver = Receiver::start().await;
    let test = with_one(&receiver).await;
    for (body, fields) in [
        (json!({}), vec![""]),
        (json!({ "event_id": "x", "dry_run": 1 }), vec!["dry_run", "event_id"]),
        (json!({ "verification_id": "x", "more": 1 }), vec!["more", "verification_id"]),
        (json!({ "event_id": "x", "endpoint": "app" }), vec![""]),
        (json!({ "endpoint": "nobody", "until": "x", "types": "x" }), vec!["endpoint", "since", "types", "until"]),
        (json!({ "endpoint": "app", "since": "2026-01-01T00:00:00Z", "types": ["x"] }), vec!["types"]),
        (json!({ "event_id": "01a20052-106c-74b8-b008-29321547fb36", "since": "2026-01-01T00:00:00Z" }), vec!["since"]),
    ] {
        let answer = test.post("/webhooks/replay", &body).await;
        let wrong = problem(answer, 422, "body_invalid").await;
        assert_eq!(wrong_fields(&wrong), fields, "{body}");
    }
    problem(test.post("/webhooks/nobody/enable", &json!({})).await, 404, "endpoint_unknown").await;
    problem(test.post("/webhooks/nobody/test", &json!({})).await, 404, "endpoint_unknown").await;
}

#[tokio::test]
async fn a_test_event_is_signed_and_sent_at_once_and_stored_nowhere() {
    let receiver = Receiver::start().await;
    let test = with_one(&receiver).await;
    let answer: Value = test.post("/webhooks/app/test", &json!({})).await.json().await.unwrap();
    assert_eq!((&answer["result"], &answer["status"]), (&json!("delivered"), &json!(204)));
    let request = receiver.received().remove(0);
    assert_eq!(request.json()["type"], "checkback.test");
    Webhook::new(SECRET).unwrap().verify(request.body.as_bytes(), &request.headers).unwrap();
    receiver.answer(Answer::Status(401));
    let answer: Value = test.post("/webhooks/app/test", &json!({})).await.json().await.unwrap();
    assert_eq!(answer["result"], "refused");
    assert_eq!(answer["reason"], "the endpoint answered 401");
    assert!(deliveries(&test, "").await.is_empty());
}

#[tokio::test]
async fn reading_and_acting_need_their_scopes() {
    use sha2::{Digest, Sha256};
    let receiver = Receiver::start().await;
    let key = |name: &str, scope: &str| {
        let digest = hex::encode(Sha256::digest(name));
        format!("[[auth.keys]]\nname = \"{name}\"\nsha256 = \"{digest}\"\nscopes = [\"{scope}\"]\n")
    };
    let test = with(&[
        receiver.section("app", &[SECRET], &[]),
        key("a-key-that-reads", "read"),
        key("a-key-that-operates", "operate"),
    ])
    .await;
    for (method, path, scope) in [
        (Method::GET, "/webhooks", "read"),
        (Method::GET, "/webhooks/deliveries", "read"),
        (Method::POST, "/webhooks/replay", "operate"),
        (Method::POST, "/webhooks/app/enable", "operate"),
        (Method::POST, "/webhooks/app/test", "operate"),
    ] {
        for (key, has) in [("a-key-that-reads", "read"), ("a-key-that-operates", "operate")] {
            let request = test.http.request(method.clone(), test.internal(path)).bearer_auth(key);
            let answer = request.send().await.unwrap();
            assert_eq!(answer.status() == 403, has != scope, "{path} with {has}: {}", answer.status());
        }
        let answer = test.http.request(method, test.internal(path)).send().await.unwrap();
        problem(answer, 401, "unauthorized").await;
    }
}

#[tokio::test]
async fn changed_secrets_sign_from_then_on_and_both_sign_while_one_replaces_the_other() {
    let receiver = Receiver::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secrets");
    std::fs::write(&file, SECRET).unwrap();
    let section = receiver.section("app", &[], &[]).replace("secrets = []", &format!("secrets_file = {file:?}"));
    let test = with(&[section]).await;
    let environment = Environment::from_pairs([("DATABASE_URL", test.database.url())]);
    let loaded = load_text("test", &test.config, &environment).unwrap();
    let mut rotation = test.app.as_ref().unwrap().rotation(&loaded, &environment).unwrap();
    for (number, secrets, expected) in
        [(1, SECRET, (true, false)), (2, "both", (true, true)), (3, OTHER, (false, true))]
    {
        let held = if secrets == "both" { format!("{OTHER}\n{SECRET}\n") } else { secrets.to_owned() };
        std::fs::write(&file, held).unwrap();
        assert_eq!(rotation.look().await.len(), usize::from(number > 1));
        passed(&test).await;
        let request = received(&test, &receiver, number).await.remove(number - 1);
        let verifies = |secret| Webhook::new(secret).unwrap().verify(request.body.as_bytes(), &request.headers).is_ok();
        assert_eq!((verifies(SECRET), verifies(OTHER)), expected);
    }
    std::fs::write(&file, "whsec_short").unwrap();
    assert!(rotation.look().await.is_empty(), "what is no secret leaves the one before it");
}

#[tokio::test]
async fn what_was_delivered_is_kept_for_its_time_and_what_is_pending_stays() {
    let receiver = Receiver::start().await;
    let test = with_one(&receiver).await;
    let delivered = passed(&test).await;
    attempted(&test, &delivered, 1).await;
    receiver.answer(Answer::Status(500));
    let pending = passed(&test).await;
    attempted(&test, &pending, 1).await;
    let service = test.app.as_ref().unwrap().service.clone();
    let keep = Keep { class: RetentionClass::Webhooks, time: Duration::from_hours(1) };
    let retain = async || service.retain(keep).await.unwrap();
    let first = test.until("its turn", async || retain().await).await;
    assert_eq!(first.destroyed, 0);
    test.clock.advance(Duration::from_hours(2));
    let done = test.until("its turn", async || retain().await).await;
    assert_eq!(done.destroyed, 1);
    let left = deliveries(&test, "").await;
    assert!(left.len() == 1 && left[0]["verification_id"] == pending, "{left:?}");
    let events: i64 =
        sqlx::query_scalar("SELECT count(*) FROM events").fetch_one(&test.database.pool().await).await.unwrap();
    assert_eq!(events, 1);
}

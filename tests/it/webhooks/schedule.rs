//! When an event is sent again, and when it is not.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

use super::{SECRET, attempted, deliveries, endpoint, passed, received, with, with_one};
use crate::support::app::{TestApp, time};
use crate::support::receiver::{Answer, Received, Receiver};

/// Moves the clock to the next attempt of the delivery.
async fn advance_to_next(test: &TestApp, delivery: &Value) -> DateTime<Utc> {
    let next = time(&delivery["next_attempt_at"]);
    test.advance_to(next).await;
    next
}

#[tokio::test]
async fn ten_attempts_follow_the_schedule_and_then_the_delivery_failed_until_it_is_replayed() {
    let receiver = Receiver::start().await;
    receiver.answer(Answer::Status(500));
    let test = with_one(&receiver).await;
    let id = passed(&test).await;
    let waits = [5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400];
    for (attempt, wait) in (1..).zip(waits) {
        let delivery = attempted(&test, &id, attempt).await;
        assert_eq!(delivery["status"], "pending");
        let planned = time(&delivery["next_attempt_at"]) - time(&delivery["last_attempt"]["at"]);
        let (least, most) = (TimeDelta::seconds(wait), TimeDelta::milliseconds(wait * 1100));
        assert!(least <= planned && planned <= most, "attempt {attempt}: {planned}");
        advance_to_next(&test, &delivery).await;
    }
    let delivery = attempted(&test, &id, 10).await;
    assert_eq!((&delivery["status"], &delivery["next_attempt_at"]), (&json!("failed"), &Value::Null));
    let requests = receiver.received();
    assert_eq!(requests.len(), 10);
    assert!(requests.iter().all(|request| request.event_id() == requests[0].event_id()), "the id stays");
    assert!(requests.iter().all(|request| request.body == requests[0].body), "and so does the body");
    assert!(requests.is_sorted_by_key(Received::timestamp));
    test.advance(Duration::from_hours(100));
    assert_eq!(deliveries(&test, "status=failed").await.len(), 1);
    assert_eq!(endpoint(&test, "app").await["failed"], 1);

    receiver.answer(Answer::Status(200));
    let replay = test.post("/webhooks/replay", &json!({ "verification_id": id })).await;
    assert_eq!(replay.json::<Value>().await.unwrap(), json!({ "begun": 1, "complete": true }));
    test.until("delivered", async || deliveries(&test, "status=delivered").await.pop()).await;
    assert_eq!(receiver.received()[10].event_id(), requests[0].event_id());
    assert_eq!(endpoint(&test, "app").await["state"], "ok");
}

#[tokio::test]
async fn retry_after_is_honoured_where_it_is_later() {
    let receiver = Receiver::start().await;
    let asks = |wait: &str| Answer::Text(format!("503 X\r\nretry-after: {wait}\r\ncontent-length: 0\r\n\r\n"));
    let test = with_one(&receiver).await;
    let date = test.clock.now() + TimeDelta::minutes(90);
    receiver.script([
        asks("1"),
        asks("7200"),
        asks(&date.format("%a, %d %b %Y %H:%M:%S GMT").to_string()),
        asks("9999999"),
    ]);
    let id = passed(&test).await;
    let mut planned = Vec::new();
    for attempt in 1..=4 {
        let delivery = attempted(&test, &id, attempt).await;
        let wait = time(&delivery["next_attempt_at"]) - time(&delivery["last_attempt"]["at"]);
        planned.push(wait.num_seconds());
        if attempt == 2 {
            // Before the date of the third answer, which would else be over.
            test.advance_to(time(&delivery["next_attempt_at"])).await;
            continue;
        }
        advance_to_next(&test, &delivery).await;
    }
    assert!((5..=6).contains(&planned[0]), "{planned:?}");
    assert_eq!(planned[1], 7200);
    assert!((1800..=1981).contains(&planned[2]), "a date that is over counts for nothing: {planned:?}");
    assert_eq!(planned[3], 86_400, "at most a day");
}

#[tokio::test]
async fn a_date_in_retry_after_is_waited_for() {
    let receiver = Receiver::start().await;
    let test = with_one(&receiver).await;
    let date = test.clock.now() + TimeDelta::minutes(90);
    let answer = date.format("429 X\r\nretry-after: %a, %d %b %Y %H:%M:%S GMT\r\ncontent-length: 0\r\n\r\n");
    receiver.script([Answer::Text(answer.to_string())]);
    let id = passed(&test).await;
    let delivery = attempted(&test, &id, 1).await;
    assert_eq!(time(&delivery["next_attempt_at"]).timestamp(), date.timestamp());
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_counts_as_a_failure() {
    let (receiver, other) = (Receiver::start().await, Receiver::start().await);
    let answer = format!("307 X\r\nlocation: http://{}/\r\ncontent-length: 0\r\n\r\n", other.address);
    receiver.script([Answer::Text(answer)]);
    let test = with_one(&receiver).await;
    let id = passed(&test).await;
    let delivery = attempted(&test, &id, 1).await;
    assert_eq!((&delivery["status"], &delivery["last_attempt"]["result"]), (&json!("pending"), &json!("redirected")));
    assert_eq!(other.count(), 0);
    advance_to_next(&test, &delivery).await;
    assert_eq!(attempted(&test, &id, 2).await["status"], "delivered");
}

#[tokio::test]
async fn an_endpoint_that_answers_410_gets_nothing_more_until_it_is_enabled_and_then_everything() {
    let receiver = Receiver::start().await;
    receiver.script([Answer::Status(410)]);
    let test = with_one(&receiver).await;
    let first = passed(&test).await;
    attempted(&test, &first, 1).await;
    let shown = endpoint(&test, "app").await;
    assert_eq!(shown["state"], "disabled");
    assert_eq!(shown["disabled_reason"], "the endpoint answered 410: it wants no more events");
    let second = passed(&test).await;
    for _ in 0..3 {
        test.advance_to(test.clock.now() + TimeDelta::hours(1)).await;
    }
    assert_eq!(receiver.count(), 1);
    assert_eq!(endpoint(&test, "app").await["pending"], 2);
    let enabled = test.post("/webhooks/app/enable", &json!({})).await;
    assert_eq!(enabled.json::<Value>().await.unwrap()["state"], "ok");
    received(&test, &receiver, 3).await;
    for id in [&first, &second] {
        test.until("delivered", async || {
            deliveries(&test, &format!("verification_id={id}&status=delivered")).await.pop()
        })
        .await;
    }
}

#[tokio::test]
async fn a_failing_endpoint_is_probed_by_one_delivery_at_a_time_and_gets_the_rest_once_it_is_well() {
    let receiver = Receiver::start().await;
    receiver.answer(Answer::Status(500));
    let test = with_one(&receiver).await;
    for _ in 0..5 {
        let id = passed(&test).await;
        attempted(&test, &id, 1).await;
    }
    let mut ids = Vec::new();
    for _ in 0..12 {
        ids.push(passed(&test).await);
    }
    assert_eq!(receiver.count(), 5, "none of the twelve is tried before the pause is over");
    assert_eq!(endpoint(&test, "app").await["state"], "failing");
    // 5 s, 10 s, 20 s, 40 s, 60 s, 60 s: one each.
    for (number, pause) in (1..).zip([5, 10, 20, 40, 60, 60]) {
        let paused_until = time(&endpoint(&test, "app").await["paused_until"]);
        assert_eq!(paused_until - test.clock.now(), TimeDelta::seconds(pause));
        test.advance_to(paused_until).await;
        test.until("the probe is over", async || {
            let shown = endpoint(&test, "app").await;
            (shown["failures"] == 5 + number).then_some(())
        })
        .await;
        assert_eq!(receiver.count(), 5 + number);
    }
    receiver.answer(Answer::Status(200));
    test.advance_to(test.clock.now() + TimeDelta::minutes(1)).await;
    // Those that were not tried yet are due; the others come by their own schedule.
    for id in &ids {
        let query = format!("verification_id={id}");
        test.until("delivered", async || {
            test.advance(Duration::from_secs(30));
            (deliveries(&test, &query).await[0]["status"] == "delivered").then_some(())
        })
        .await;
    }
    assert_eq!(endpoint(&test, "app").await["state"], "ok");
}

#[tokio::test]
async fn a_slow_endpoint_delays_no_other() {
    let (slow, quick) = (Receiver::start().await, Receiver::start().await);
    slow.answer(Answer::Silence);
    let test = with(&[slow.section("slow", &[SECRET], &[]), quick.section("quick", &[SECRET], &[])]).await;
    for _ in 0..20 {
        passed(&test).await;
    }
    received(&test, &quick, 20).await;
    test.until("all are delivered", async || {
        (deliveries(&test, "endpoint=quick&status=delivered").await.len() == 20).then_some(())
    })
    .await;
    assert_eq!(slow.count(), 8, "as many as there is room for");
    assert_eq!(deliveries(&test, "endpoint=slow&status=pending").await.len(), 20);
}

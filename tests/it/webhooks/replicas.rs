//! Several services on one database, and receivers that are down or are killed: nothing is lost.

use std::collections::HashMap;

use chrono::TimeDelta;

use super::{SECRET, deliveries, passed, with};
use crate::support::app::TestApp;
use crate::support::receiver::{Answer, Receiver};

/// One of four: together they must leave connections for other tests.
async fn with_few_connections(receiver: &Receiver) -> TestApp {
    with(&[receiver.section("app", &[SECRET], &[]), "[database]\nmax_connections = 4".to_owned()]).await
}

/// Has four services deliver `count` events while the receiver answers so for an hour, and well afterwards.
async fn nothing_is_lost(answers: [Answer; 2], count: usize) {
    let receiver = Receiver::start().await;
    let test = with_few_connections(&receiver).await;
    let others = [test.replica().await, test.replica().await, test.replica().await];
    let wake = || others.iter().for_each(|app| app.service.wake_webhooks());
    receiver.answer(answers[0].clone());
    let started = test.clock.now();
    let mut ids = Vec::new();
    for _ in 0..count {
        ids.push(passed(&test).await);
        wake();
    }
    let mut step = 0;
    while test.clock.now() - started < TimeDelta::hours(1) {
        test.advance_to(test.clock.now() + TimeDelta::seconds(30)).await;
        receiver.answer(answers[step % 2].clone());
        step += 1;
        wake();
    }
    receiver.answer(Answer::Status(200));
    test.until("all are delivered", async || {
        test.advance_to(test.clock.now() + TimeDelta::minutes(5)).await;
        wake();
        (deliveries(&test, "status=delivered&limit=200").await.len() == count).then_some(())
    })
    .await;
    let requests = receiver.received();
    let mut by_event: HashMap<String, Vec<i64>> = HashMap::new();
    for request in &requests {
        by_event
            .entry(request.json()["data"]["id"].as_str().unwrap().to_owned())
            .or_default()
            .push(request.timestamp());
    }
    assert_eq!(by_event.len(), count, "each arrived");
    for id in &ids {
        let times = &by_event[id];
        assert!(times.is_sorted(), "{times:?}");
        let delivery = deliveries(&test, &format!("verification_id={id}")).await.remove(0);
        assert_eq!(delivery["attempts"], times.len(), "no attempt was made twice, and none was forgotten");
        // No attempt came before its time.
        for (pair, wait) in times.windows(2).zip([5, 300, 1800, 7200]) {
            assert!(pair[1] - pair[0] >= wait - 1, "{times:?}");
        }
    }
    for other in others {
        other.shut_down().await;
    }
}

#[tokio::test]
async fn four_replicas_deliver_everything_to_an_endpoint_that_was_down_for_an_hour() {
    Box::pin(nothing_is_lost([Answer::Status(503), Answer::Status(503)], 12)).await;
}

#[tokio::test]
async fn four_replicas_deliver_everything_to_a_receiver_that_is_killed_again_and_again() {
    Box::pin(nothing_is_lost([Answer::Cut, Answer::Status(502)], 12)).await;
}

#[tokio::test]
async fn four_replicas_send_each_event_once_where_all_is_well() {
    let receiver = Receiver::start().await;
    let test = with_few_connections(&receiver).await;
    let others = [test.replica().await, test.replica().await, test.replica().await];
    for _ in 0..30 {
        passed(&test).await;
        for app in &others {
            app.service.wake_webhooks();
        }
    }
    test.until("all are delivered", async || {
        (deliveries(&test, "status=delivered&limit=200").await.len() == 30).then_some(())
    })
    .await;
    assert_eq!(receiver.count(), 30);
    for other in others {
        other.shut_down().await;
    }
}

//! `[retention]`: what is kept for a limited time goes when it is over, not before, in small steps.

use std::time::Duration;

use checkback::clock::Clock;
use checkback::domain::{Keep, RetentionClass};
use checkback::service::retention::NotRetained;
use checkback::store::Retained;
use chrono::TimeDelta;
use serde_json::{Value, json};
use sqlx::PgPool;

use super::api::problem;
use super::erasure::{decided, move_database_clock};
use super::evidence::with_images;
use super::support::app::{Setup, TestApp, launch};

const HOUR: Duration = Duration::from_hours(1);

async fn retain(test: &TestApp, class: RetentionClass) -> Option<Retained> {
    let service = &test.app.as_ref().unwrap().service;
    service.retain(Keep { class, time: HOUR }).await.unwrap()
}

async fn number(pool: &PgPool, statement: &'static str) -> i64 {
    sqlx::query_scalar(statement).fetch_one(pool).await.unwrap()
}

/// A verification decided an hour ago but for the time of the last move; then everything of the class is due.
async fn due_after_one_more_second(test: &TestApp, class: RetentionClass) -> String {
    let (_, id) = decided(test).await;
    test.advance(HOUR - Duration::from_secs(1));
    assert_eq!(retain(test, class).await.unwrap().destroyed, 0, "its time is not over");
    test.advance(Duration::from_secs(1));
    id
}

async fn kinds(test: &TestApp, id: &str) -> Vec<String> {
    test.history(id).await.iter().map(|item| item["kind"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn answers_go_when_their_time_is_over() {
    let test = TestApp::start().await;
    let id = due_after_one_more_second(&test, RetentionClass::RawAnswer).await;
    let before = test.verification(&id).await;
    let step = retain(&test, RetentionClass::RawAnswer).await.unwrap();
    assert_eq!(step, Retained { destroyed: 1, more: false, overdue: Duration::ZERO });
    problem(test.get(&format!("/verifications/{id}/raw")).await, 404, "answer_not_found").await;
    assert_eq!(test.verification(&id).await, before);
    assert_eq!(retain(&test, RetentionClass::RawAnswer).await.unwrap().destroyed, 0);
}

#[tokio::test]
async fn scores_go_and_the_verdict_stays() {
    let test = TestApp::start().await;
    let id = due_after_one_more_second(&test, RetentionClass::Scores).await;
    let mut expected = test.verification(&id).await;
    assert_ne!(expected["scores"], json!({}));
    assert_eq!(retain(&test, RetentionClass::Scores).await.unwrap().destroyed, 1);
    expected["scores"] = json!({});
    expected["signals"] = json!({});
    assert_eq!(test.verification(&id).await, expected);
}

#[tokio::test]
async fn evidence_goes_row_first_and_object_after() {
    let test = TestApp::with(with_images()).await;
    let id = due_after_one_more_second(&test, RetentionClass::Evidence).await;
    let away = test.evidence.with_extension("away");
    // A store that does not answer: the row is marked and the object is waited for.
    std::fs::rename(&test.evidence, &away).unwrap();
    std::fs::write(&test.evidence, "no folder").unwrap();
    let service = &test.app.as_ref().unwrap().service;
    let keep = Keep { class: RetentionClass::Evidence, time: HOUR };
    assert!(matches!(service.retain(keep).await, Err(NotRetained::Evidence(_))));
    let piece = test.verification(&id).await["evidence"][0].clone();
    assert_eq!(piece["state"], "erased", "{piece}");
    assert!(piece["reason"].as_str().unwrap().contains("retention.evidence"), "{piece}");
    problem(test.get(&format!("/verifications/{id}/evidence/face_image")).await, 404, "evidence_not_found").await;
    std::fs::remove_file(&test.evidence).unwrap();
    std::fs::rename(&away, &test.evidence).unwrap();
    let pool = test.database.pool().await;
    assert_eq!(number(&pool, "SELECT count(object) FROM evidence").await, 2);
    retain(&test, RetentionClass::Evidence).await.unwrap();
    assert_eq!(number(&pool, "SELECT count(object) FROM evidence").await, 0);
    let folder = test.evidence.join("alibaba-sg").join(&id);
    assert!(!folder.exists() || folder.read_dir().unwrap().next().is_none());
}

#[tokio::test]
async fn callbacks_and_the_rest_of_the_history_have_times_of_their_own() {
    let test = TestApp::start().await;
    let id = due_after_one_more_second(&test, RetentionClass::Callbacks).await;
    let all = kinds(&test, &id).await;
    assert_eq!(retain(&test, RetentionClass::Callbacks).await.unwrap().destroyed, 1);
    let left: Vec<_> = all.iter().filter(|kind| *kind != "callback").cloned().collect();
    assert_eq!(kinds(&test, &id).await, left);
    let body = test.verification(&id).await;
    assert!(body["callback_at"].is_string());
    // A row of the present is counted from the present.
    test.get(&format!("/verifications/{id}/raw")).await;
    let count = u64::try_from(left.len()).unwrap();
    assert_eq!(retain(&test, RetentionClass::History).await.unwrap().destroyed, count);
    assert_eq!(kinds(&test, &id).await, ["evidence"]);
    test.advance(HOUR);
    retain(&test, RetentionClass::History).await.unwrap();
    assert_eq!(test.history(&id).await, [] as [Value; 0], "it is there, and its history is over");
    assert_eq!(test.verification(&id).await, body);
}

#[tokio::test]
async fn many_are_destroyed_in_steps_and_what_is_behind_is_told() {
    let test = TestApp::start().await;
    let pool = test.database.pool().await;
    let now = test.clock.now();
    // From 30 hours ago to now, two a minute: 58 hours' worth would be more than is due.
    sqlx::query(
        "INSERT INTO verdicts (verification_id, revision, account, status, reason, scores, signals, answer, decided_at, checks)
        SELECT gen_random_uuid(), 1, 'alibaba-sg', 'passed', 'r', '{\"a\":1}', '{}', 'answer', $1 - make_interval(mins => n / 2), 1
        FROM generate_series(0, 1799) n",
    )
    .bind(now)
    .execute(&pool)
    .await
    .unwrap();
    let due = number(&pool, "SELECT count(*) FROM verdicts").await - 120;
    let mut destroyed = 0;
    let mut steps = Vec::new();
    loop {
        let step = retain(&test, RetentionClass::RawAnswer).await.unwrap();
        destroyed += step.destroyed;
        steps.push(step);
        if !step.more {
            break;
        }
    }
    assert_eq!(i64::try_from(destroyed).unwrap(), due);
    assert_eq!(steps.iter().map(|step| step.destroyed).collect::<Vec<_>>(), [500, 500, 500, 180]);
    let overdue: Vec<u64> = steps.iter().map(|step| step.overdue.as_secs() / 60).collect();
    assert_eq!(overdue, [590, 340, 90, 0]);
    assert_eq!(number(&pool, "SELECT count(answer) FROM verdicts").await, 120);
    // Each class has its own place.
    assert_eq!(number(&pool, "SELECT count(*) FROM verdicts WHERE scores::text = '{}'").await, 0);
}

#[tokio::test]
async fn one_replica_at_a_time_works_on_a_class() {
    let test = TestApp::start().await;
    due_after_one_more_second(&test, RetentionClass::RawAnswer).await;
    let pool = test.database.pool().await;
    let mut other = pool.begin().await.unwrap();
    sqlx::query("SELECT FROM retention_cursors WHERE class = 'raw_answer' FOR UPDATE")
        .execute(&mut *other)
        .await
        .unwrap();
    assert_eq!(retain(&test, RetentionClass::RawAnswer).await, None);
    assert!(retain(&test, RetentionClass::Scores).await.is_some());
    other.rollback().await.unwrap();
    assert_eq!(retain(&test, RetentionClass::RawAnswer).await.unwrap().destroyed, 1);
}

#[tokio::test]
async fn what_was_committed_late_is_found_within_the_hour() {
    let test = TestApp::start().await;
    due_after_one_more_second(&test, RetentionClass::RawAnswer).await;
    retain(&test, RetentionClass::RawAnswer).await.unwrap();
    let pool = test.database.pool().await;
    sqlx::query(
        "INSERT INTO verdicts (verification_id, revision, account, status, reason, scores, signals, answer, decided_at, checks)
        SELECT gen_random_uuid(), 1, account, status, reason, scores, signals, 'late', decided_at - interval '1 minute', 1
        FROM verdicts",
    )
    .execute(&pool)
    .await
    .unwrap();
    assert_eq!(retain(&test, RetentionClass::RawAnswer).await.unwrap().destroyed, 0, "it is behind the cursor");
    test.advance(HOUR);
    assert_eq!(retain(&test, RetentionClass::RawAnswer).await.unwrap().destroyed, 1);
}

#[tokio::test]
async fn a_wrong_clock_destroys_nothing() {
    let mut test = TestApp::start().await;
    decided(&test).await;
    test.stop().await;
    let pool = test.database.pool().await;
    sqlx::query("UPDATE verdicts SET decided_at = decided_at - interval '30 minutes'").execute(&pool).await.unwrap();
    // Its own offset is meant; the machine's clock is two hours behind the database's.
    let clock = Clock::system(TimeDelta::hours(5));
    let app = launch(&test.config, test.database.url(), clock, true).await;
    move_database_clock(&pool, 7200).await;
    let keep = Keep { class: RetentionClass::RawAnswer, time: HOUR };
    let Err(NotRetained::Clock { difference }) = app.service.retain(keep).await else { panic!("it trusts the clock") };
    assert_eq!(difference.num_minutes(), -120);
    move_database_clock(&pool, 0).await;
    assert_eq!(app.service.retain(keep).await.unwrap().unwrap().destroyed, 1);
    app.shut_down().await;
}

#[tokio::test]
async fn the_service_does_it_by_itself_where_it_is_configured() {
    let more = "[retention]\nraw_answer = \"1h\"\nhistory = \"1h\"".to_owned();
    let test = TestApp::with(Setup { more, ..Setup::default() }).await;
    let (_, id) = decided(&test).await;
    test.advance(HOUR);
    let pool = test.database.pool().await;
    test.until("the answer is gone", async || {
        (number(&pool, "SELECT count(answer) FROM verdicts").await == 0).then_some(())
    })
    .await;
    test.until("the history is gone", async || (kinds(&test, &id).await == ["callback"]).then_some(())).await;
    assert_ne!(test.verification(&id).await["scores"], json!({}));
    let metrics = test.get("/metrics").await.text().await.unwrap();
    for line in [
        "checkback_retention_destroyed_total{class=\"raw_answer\"}",
        "checkback_retention_overdue_seconds{class=\"history\"}",
    ] {
        assert!(metrics.contains(line), "{line}");
    }
}

//! What the provider deletes soon: the list, and what the log is told about it.

use std::collections::BTreeSet;
use std::time::Duration;

use checkback::domain::risk::RiskKind;
use checkback::store::{RiskCount, Store, Window};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;
use sqlx::PgPool;
use uuid::Uuid;

use super::api::{problem, wrong_fields};
use super::support::app::{ACCOUNT, TestApp};
use super::support::database::database;
use super::support::planted::{held_job, id_at, registered, verdict};

const MINUTE: TimeDelta = TimeDelta::minutes(1);

/// An open verification that was heard of `hinted` ago, or of which nothing was heard.
async fn open(pool: &PgPool, registered_at: DateTime<Utc>, hinted_at: Option<DateTime<Utc>>, video: bool) -> Uuid {
    let id = id_at(registered_at, u64::from(hinted_at.is_some()));
    registered(pool, id, registered_at, video).await;
    held_job(pool, id, hinted_at, false).await;
    id
}

async fn listed(test: &TestApp, query: &str) -> (Vec<String>, Option<String>) {
    let body = test.get_json(&format!("/verifications?{query}")).await;
    let ids = body["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect();
    (ids, body["next_cursor"].as_str().map(str::to_owned))
}

#[tokio::test]
async fn what_used_half_of_its_time_is_listed_by_the_time_that_is_left() {
    let test = TestApp::start().await;
    let pool = test.database.pool().await;
    let now = test.clock.now();
    let heard = async |minutes: i64, video: bool| {
        let at = now - MINUTE * i32::try_from(minutes).unwrap();
        open(&pool, at - TimeDelta::seconds(30), Some(at), video).await.to_string()
    };
    let unheard = async |minutes: i64| {
        let at = now - TimeDelta::hours(24) - TimeDelta::minutes(minutes);
        open(&pool, at, None, true).await.to_string()
    };
    let (ten_left, four_left) = (heard(20, true).await, heard(26, true).await);
    let fourteen_left = unheard(16).await;
    // More than half is left, no video, over.
    for not in [heard(10, true).await, heard(21, false).await, heard(31, true).await, unheard(14).await] {
        assert_ne!(not, four_left);
    }
    // It has its verdict, and is asked about again.
    let recheck = id_at(now - TimeDelta::minutes(25), 9);
    registered(&pool, recheck, now - TimeDelta::minutes(25), true).await;
    verdict(&pool, recheck, now, "passed", "200").await;
    held_job(&pool, recheck, Some(now - TimeDelta::minutes(24)), true).await;

    let expected = [four_left, ten_left, fourteen_left];
    let (ids, next) = listed(&test, "at_risk=video").await;
    assert_eq!((ids.as_slice(), next), (expected.as_slice(), None));
    let (mut paged, mut cursor) = (Vec::new(), String::new());
    loop {
        let (ids, next) = listed(&test, &format!("at_risk=video&limit=1&cursor={cursor}&account={ACCOUNT}")).await;
        assert_eq!(ids.len(), 1);
        paged.extend(ids);
        match next {
            Some(next) => cursor = next,
            None => break,
        }
    }
    assert_eq!(paged, expected);
    assert_eq!(listed(&test, "at_risk=video&account=nobody").await, (vec![], None));
    assert_eq!(listed(&test, "at_risk=result").await, (vec![], None), "of 30 days half an hour is not much");
}

#[tokio::test]
async fn a_video_that_is_not_stored_yet_is_listed_also_after_the_verdict() {
    let mut test = TestApp::start().await;
    let pool = test.database.pool().await;
    let now = test.clock.now();
    for (n, state, minutes, leased) in [
        (1, "pending", 14, true),
        (2, "pending", 4, true),
        (3, "pending", 16, true),
        (4, "pending", -1, true),
        (5, "missed", 5, false),
    ] {
        let id = id_at(now - TimeDelta::hours(1), n);
        registered(&pool, id, now - TimeDelta::hours(1), true).await;
        verdict(&pool, id, now, "passed", "200").await;
        sqlx::query(
            "INSERT INTO evidence (verification_id, kind, account, state, noted_at, deadline, due_at, lease_token,
                leased_until)
            SELECT $1, kind, $2, $3, $4, $5, $5, CASE WHEN $6 THEN $1 END, CASE WHEN $6 THEN TIMESTAMPTZ '2100-01-01' END
            FROM unnest(ARRAY['video', 'face_image']) AS kind",
        )
        .bind(id)
        .bind(ACCOUNT)
        .bind(state)
        .bind(now)
        .bind(now + TimeDelta::minutes(minutes))
        .bind(leased)
        .execute(&pool)
        .await
        .unwrap();
    }
    let at = |n| id_at(now - TimeDelta::hours(1), n).to_string();
    let (ids, _) = listed(&test, "at_risk=video").await;
    assert_eq!(ids, [at(2), at(1)]);
    assert_eq!(listed(&test, "at_risk=result").await, (vec![], None));
    // The service may have warned of them already.
    test.stop().await;
    sqlx::query("DELETE FROM risk_warnings").execute(&pool).await.unwrap();
    let store = Store::new(test.database.options(), 1);
    assert_eq!(videos(&store, now).await, [(50, 2, 2, 2), (80, 2, 1, 1), (95, 2, 0, 0)]);
}

#[tokio::test]
async fn results_are_listed_by_their_own_time() {
    let test = TestApp::start().await;
    let pool = test.database.pool().await;
    let now = test.clock.now();
    let days = |days: i64| now - TimeDelta::days(days);
    let late = open(&pool, days(29), Some(days(29)), false).await;
    let half = open(&pool, days(16), Some(days(16)), false).await;
    open(&pool, days(14), Some(days(14)), false).await;
    // Nothing was heard of it, so its time began a day later.
    let unheard = open(&pool, days(17), None, false).await;
    let (ids, _) = listed(&test, "at_risk=result").await;
    assert_eq!(ids[0], late.to_string());
    assert_eq!(ids.iter().cloned().collect::<BTreeSet<_>>(), [late, half, unheard].map(|id| id.to_string()).into());
    let items = test.get_json("/verifications?at_risk=result").await["items"].clone();
    assert_eq!(items[0]["deadlines"]["result"].as_str().unwrap()[..10], (now + TimeDelta::days(1)).to_rfc3339()[..10]);
    assert_eq!(items[0]["status"], "collecting");
}

#[tokio::test]
async fn a_wrong_kind_and_what_does_not_go_with_it_are_refused() {
    let test = TestApp::start().await;
    let refused = problem(test.get("/verifications?at_risk=face&limit=0").await, 422, "query_invalid").await;
    assert_eq!(wrong_fields(&refused), ["at_risk", "limit"]);
    let query = "at_risk=video&status=passed&transaction_id=x&merchant_biz_id=x&registered_after=2026-01-01T00:00:00Z\
                 &registered_before=2026-01-01T00:00:00Z&cursor=AAAA&other=1";
    let refused = problem(test.get(&format!("/verifications?{query}")).await, 422, "query_invalid").await;
    assert_eq!(
        wrong_fields(&refused),
        ["cursor", "merchant_biz_id", "other", "registered_after", "registered_before", "status", "transaction_id"]
    );
    assert_eq!(listed(&test, "at_risk=").await, (vec![], None), "an empty value counts as none");
}

fn windows() -> [Window<'static>; 2] {
    let give_up_after = Duration::from_hours(24);
    let window = |kind, retention| Window { account: ACCOUNT, kind, give_up_after, retention };
    [window(RiskKind::Video, Duration::from_mins(30)), window(RiskKind::Result, Duration::from_hours(24 * 30))]
}

/// The counts of videos, by the share that is used.
async fn videos(store: &Store, now: DateTime<Utc>) -> Vec<(i16, u64, u64, u64)> {
    let counts = store.count_at_risk(&windows(), now).await.unwrap();
    let of = |count: &RiskCount| (count.percent, count.at_risk, count.reached, count.fresh);
    counts.iter().filter(|count| count.kind == RiskKind::Video).map(of).collect()
}

#[tokio::test]
async fn a_check_that_is_due_for_long_and_not_made_is_late() {
    let database = database().await;
    let (store, pool) = (Store::new(database.options(), 2), database.pool().await);
    let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
    let id = open(&pool, now - TimeDelta::minutes(6), Some(now - TimeDelta::minutes(5)), true).await;
    let due = "UPDATE collect_jobs SET due_at = $1, lease_token = NULL, leased_until = NULL";
    for (seconds, is_late) in [(89, false), (90, true)] {
        sqlx::query(due).bind(now - TimeDelta::seconds(seconds)).execute(&pool).await.unwrap();
        let found = store.at_risk(&windows()[..1], None, 10, now).await.unwrap();
        let expected = is_late.then(|| (id, now + TimeDelta::minutes(25)));
        assert_eq!(found.iter().map(|(record, at)| (record.id.0, *at)).next(), expected, "{seconds}");
        let counted = videos(&store, now).await;
        assert_eq!(counted.iter().map(|count| (count.1, count.2)).next(), is_late.then_some((1, 0)));
    }
    assert_eq!(
        store.oldest_due(&[ACCOUNT, "other"], now).await.unwrap(),
        [(ACCOUNT.to_owned(), now - TimeDelta::seconds(90))]
    );
}

#[tokio::test]
async fn each_share_is_told_once_by_one_replica_and_again_when_there_is_something_new() {
    let database = database().await;
    let (store, other) = (Store::new(database.options(), 2), Store::new(database.options(), 2));
    let pool = database.pool().await;
    let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
    let heard = async |minutes: i64| {
        let at = now - TimeDelta::minutes(minutes);
        open(&pool, at - TimeDelta::seconds(minutes), Some(at), true).await;
    };
    assert!(videos(&store, now).await.is_empty());
    for minutes in [16, 17, 25] {
        heard(minutes).await;
    }
    assert_eq!(videos(&store, now).await, [(50, 3, 3, 3), (80, 3, 1, 1), (95, 3, 0, 0)]);
    let counts = store.count_at_risk(&windows(), now).await.unwrap();
    let first = counts.iter().map(|count| count.first_deadline).collect::<Vec<_>>();
    let five = Some(now + TimeDelta::minutes(5));
    assert_eq!(first, [five, five, None]);

    let take = async |store: &Store, percent, now| {
        store.take_risk_warning(ACCOUNT, RiskKind::Video, percent, now).await.unwrap()
    };
    let (one, two) = tokio::join!(take(&store, 50, now), take(&other, 50, now));
    assert!(one != two, "one of two replicas tells it");
    assert!(take(&store, 80, now).await, "each share has its own line");
    let soon = now + TimeDelta::seconds(59);
    assert!(!take(&store, 50, soon).await, "at most every minute");
    // Another comes to it, and one goes on to the next share.
    heard(14).await;
    let later = now + MINUTE + TimeDelta::seconds(1);
    assert_eq!(videos(&store, later).await, [(50, 4, 4, 1), (80, 4, 1, 0), (95, 4, 0, 0)]);
    assert!(take(&store, 50, later).await);
    assert_eq!(videos(&store, later).await[0], (50, 4, 4, 0), "there is nothing new");
    // A clock that is set back does not silence the log.
    let earlier = now - TimeDelta::seconds(10);
    assert_eq!(videos(&store, earlier).await[0], (50, 3, 3, 3));
    assert!(take(&store, 50, earlier).await);
}

#[tokio::test]
async fn the_service_keeps_the_gauges_and_tells_it() {
    let test = TestApp::start().await;
    let pool = test.database.pool().await;
    let at = test.clock.now() - TimeDelta::minutes(20);
    open(&pool, at, Some(at), true).await;
    test.until("it is told", async || {
        let told: Vec<(String, i16)> =
            sqlx::query_as("SELECT kind, percent FROM risk_warnings").fetch_all(&pool).await.unwrap();
        (told == [("video".to_owned(), 50)]).then_some(())
    })
    .await;
    let metrics = test.get("/metrics").await.text().await.unwrap();
    // All tests of this process share the gauges.
    for name in [
        format!("checkback_at_risk{{account=\"{ACCOUNT}\",kind=\"video\"}}"),
        format!("checkback_at_risk{{account=\"{ACCOUNT}\",kind=\"result\"}}"),
        format!("checkback_oldest_due_seconds{{account=\"{ACCOUNT}\"}}"),
    ] {
        assert!(metrics.contains(&name), "{name}\n{metrics}");
    }
    let body: Value = test.get_json("/verifications?at_risk=video").await;
    assert_eq!(body["items"].as_array().unwrap().len(), 1);
}

//! Several services on one database: nothing is done twice, nothing is left undone, the budget is shared.
#![expect(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

use std::collections::HashMap;
use std::time::{Duration, Instant};

use checkback::app::App;
use checkback::domain::schedule::Lane;
use checkback::domain::{FinalStatus, VerificationId};
use checkback::simulator::{Call, Complete, CreateTransaction, Fault, FaultKind};
use checkback::store::{CheckedFinal, CheckedOpen, Lease, LeasedJob, Pace, Rate, Signal, Standing, Store};
use chrono::{DateTime, TimeDelta, Utc};
use futures_util::future::join_all;
use serde_json::{Value, json};
use uuid::Uuid;

use super::support::app::{ACCOUNT, Setup, TestApp, launch};
use super::support::database::somebody_waits;

const TOKEN: &str = "the-right-token-of-this";
/// For how long a refused rate is remembered.
const MEMORY: Duration = Duration::from_mins(10);

async fn with_qps(qps: u32) -> TestApp {
    // A server that keeps to its default of 100 connections has to do for two of these tests side by side.
    let more = "[database]\nmax_connections = 8".to_owned();
    TestApp::with(Setup { account: format!("qps = {qps}"), more, ..Setup::default() }).await
}

/// Finished flows: (transaction, verification).
async fn finished(test: &TestApp, count: usize) -> Vec<(String, String)> {
    let mut made = Vec::new();
    for _ in 0..count {
        let begun = test.begin(CreateTransaction::default(), json!({ "callback_token": TOKEN })).await;
        test.simulator.complete(&begun.0, Complete { callbacks: Some(0), ..Complete::default() }).await.unwrap();
        made.push(begun);
    }
    made
}

async fn call_back(test: &TestApp, app: &App, transaction: &str) {
    let url = format!("http://{}/callbacks/{ACCOUNT}?transactionId={transaction}&callbackToken={TOKEN}", app.public);
    assert_eq!(test.http.get(url).send().await.unwrap().status(), 200);
}

fn checks(test: &TestApp) -> Vec<Call> {
    test.simulator.call_log().into_iter().filter(|call| call.operation == "CheckResult").collect()
}

/// The most calls that any second saw.
fn busiest_second(calls: &[Call]) -> usize {
    let mut times: Vec<_> = calls.iter().map(|call| call.received_at).collect();
    times.sort_unstable();
    let within =
        |start: usize| times[start..].iter().take_while(|at| **at - times[start] < TimeDelta::seconds(1)).count();
    (0..times.len()).map(within).max().unwrap_or(0)
}

async fn one_verdict_each(test: &TestApp, count: usize) {
    let pool = test.database.pool().await;
    test.until("all verdicts", async || {
        let found: i64 = sqlx::query_scalar("SELECT count(*) FROM verdicts").fetch_one(&pool).await.unwrap();
        (usize::try_from(found).unwrap() >= count).then_some(())
    })
    .await;
    let (rows, revisions, open): (i64, i64, i64) = sqlx::query_as(
        "SELECT count(*), sum(revision)::bigint, (SELECT count(*) FROM collect_jobs) FROM verdicts WHERE status = 'passed'",
    )
    .fetch_one(&pool)
    .await
    .unwrap();
    assert_eq!((usize::try_from(rows).unwrap(), usize::try_from(revisions).unwrap(), open), (count, count, 0));
}

async fn the_same_callbacks_everywhere(replicas: usize, delay_ms: u64) {
    let test = with_qps(100_000).await;
    let mut others = Vec::new();
    for _ in 1..replicas {
        others.push(test.replica().await);
    }
    if delay_ms > 0 {
        let fault = Fault { kind: FaultKind::Delay, delay_ms: Some(delay_ms), share: Some(1.0), ..Fault::default() };
        test.simulator.add_fault(fault).unwrap();
    }
    let made = finished(&test, 60).await;
    let apps: Vec<&App> = test.app.iter().chain(&others).collect();
    let sent = made.iter().flat_map(|(transaction, _)| apps.iter().map(move |app| (transaction, app)));
    join_all(sent.map(|(transaction, app)| call_back(&test, app, transaction))).await;
    one_verdict_each(&test, made.len()).await;
    let mut by_transaction: HashMap<_, Vec<_>> = HashMap::new();
    for call in checks(&test) {
        by_transaction.entry(call.transaction_id.clone().unwrap()).or_default().push(call.received_at);
    }
    assert_eq!(by_transaction.len(), made.len());
    for (transaction, times) in by_transaction {
        assert_eq!(times.len(), 1, "{transaction} was asked about at {times:?}");
    }
    let pool = test.database.pool().await;
    let (callbacks, left): (i64, i64) =
        sqlx::query_as("SELECT count(*) FILTER (WHERE kind = 'callback'), (SELECT count(*) FROM hints) FROM history")
            .fetch_one(&pool)
            .await
            .unwrap();
    let expected = i64::try_from(made.len() * replicas).unwrap();
    assert_eq!(callbacks + left, expected, "each callback is in the history once");
    for other in others {
        other.shut_down().await;
    }
}

#[tokio::test]
async fn two_replicas_ask_once_about_each_and_store_one_verdict() {
    the_same_callbacks_everywhere(2, 0).await;
}

#[tokio::test]
async fn four_replicas_have_one_call_under_way_for_each_while_the_provider_is_slow() {
    the_same_callbacks_everywhere(4, 250).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_replicas_share_the_accounts_calls_a_second() {
    let test = with_qps(20).await;
    let others = [test.replica().await, test.replica().await, test.replica().await];
    // Polls, fresh ones and faults together.
    test.simulator.add_fault(Fault { share: Some(0.1), ..Fault::default() }).unwrap();
    let made = finished(&test, 70).await;
    let apps: Vec<&App> = test.app.iter().chain(&others).collect();
    join_all(
        made.iter().take(40).zip(apps.iter().cycle()).map(|((transaction, _), app)| call_back(&test, app, transaction)),
    )
    .await;
    test.advance(Duration::from_mins(5));
    test.until("most are asked about", async || {
        // Retries of faults wait for the clock.
        test.advance(Duration::from_millis(20));
        (checks(&test).len() >= 76 || test.verification(&made[69].1).await["final"] == true).then_some(())
    })
    .await;
    test.simulator.clear_faults();
    let pool = test.database.pool().await;
    test.until("all verdicts", async || {
        test.advance(Duration::from_millis(50));
        let found: i64 = sqlx::query_scalar("SELECT count(*) FROM verdicts").fetch_one(&pool).await.unwrap();
        (found == 70).then_some(())
    })
    .await;
    one_verdict_each(&test, 70).await;
    let calls = checks(&test);
    let busiest = busiest_second(&calls);
    assert!(busiest <= 20, "{busiest} calls in one second");
    let took = calls.last().unwrap().received_at - calls[0].received_at;
    let pace = f64::from(u32::try_from(calls.len()).unwrap()) * 1000.0
        / f64::from(i32::try_from(took.num_milliseconds()).unwrap());
    assert!(pace > 8.0, "only {pace:.1} calls a second of 20 were used");
    for other in others {
        other.shut_down().await;
    }
}

#[tokio::test]
async fn a_reader_at_one_replica_hears_of_a_verdict_that_another_stores() {
    let mut test = with_qps(100_000).await;
    let (transaction, id) = finished(&test, 1).await.remove(0);
    let other = test.replica().await;
    // A reader on the second; the callback goes to the first.
    let reading = {
        let url = format!("http://{}/verifications/{id}?wait=30", other.internal);
        let request = test.http.get(url).bearer_auth(super::support::app::KEY).send();
        async move { request.await.unwrap().json::<Value>().await.unwrap() }
    };
    let store = other.service.clone();
    let mut signals = store.store.signals().await.unwrap();
    let deciding = async {
        test.until("the reader waits", async || (!store.finals.awaited().is_empty()).then_some(())).await;
        let started = Instant::now();
        call_back(&test, test.app.as_ref().unwrap(), &transaction).await;
        started
    };
    let (body, started) = tokio::join!(reading, deciding);
    assert_eq!(body["status"], "passed");
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    // The reader would be found by itself within a second; that it is told is what is shown here.
    let told = async {
        loop {
            if let Signal::Final(ids) = signals.next().await.unwrap() {
                return ids;
            }
        }
    };
    let told = tokio::time::timeout(Duration::from_secs(10), told).await.unwrap();
    assert_eq!(told.iter().map(ToString::to_string).collect::<Vec<_>>(), [id]);
    drop(signals);
    other.shut_down().await;
    test.stop().await;
}

#[tokio::test]
async fn a_replica_that_dies_is_replaced_within_fifteen_seconds() {
    let mut test = with_qps(100_000).await;
    let (transaction, id) = finished(&test, 1).await.remove(0);
    test.stop().await;
    // The dying one has a runtime of its own, which ends without a word.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (config, url, clock) = (test.config.clone(), test.database.url().to_owned(), test.clock.clone());
    let dying = runtime.spawn(async move { launch(&config, &url, clock, true).await }).await.unwrap();
    let fault = Fault { kind: FaultKind::Delay, delay_ms: Some(60_000), times: Some(1), ..Fault::default() };
    test.simulator.add_fault(fault).unwrap();
    call_back(&test, &dying, &transaction).await;
    test.until("it asks", async || (test.calls_for("CheckResult", &transaction) == 1).then_some(())).await;
    test.app = Some(test.replica().await);
    let died = Instant::now();
    runtime.shutdown_background();
    let body = test.final_verification(&id).await;
    assert!(died.elapsed() < Duration::from_secs(15), "{:?}", died.elapsed());
    assert_eq!((&body["status"], &body["revision"]), (&json!("passed"), &json!(1)));
    assert_eq!(test.calls_for("CheckResult", &transaction), 2);
    drop(dying);
}

#[tokio::test]
async fn what_a_wrong_configuration_kept_open_goes_on_after_a_restart_with_the_right_one() {
    let mut test = with_qps(100_000).await;
    let right = test.config.clone();
    test.config = right.replace(&test.simulator_address.to_string(), "127.0.0.1:1");
    test.restart().await;
    let (transaction, id) = finished(&test, 1).await.remove(0);
    call_back(&test, test.app.as_ref().unwrap(), &transaction).await;
    let body = test.attempted(&id, 1).await;
    assert!(body["last_error"].as_str().unwrap().contains("connect_failed"), "{body}");
    test.config = right;
    test.restart().await;
    test.advance(Duration::from_mins(10));
    let body = test.final_verification(&id).await;
    assert_eq!((&body["status"], &body["last_error"]), (&json!("passed"), &Value::Null));
}

#[tokio::test]
async fn a_service_that_stops_leaves_no_lease_behind() {
    let mut test = with_qps(1).await;
    for (transaction, _) in finished(&test, 5).await {
        call_back(&test, test.app.as_ref().unwrap(), &transaction).await;
    }
    let fault = Fault { kind: FaultKind::Delay, delay_ms: Some(60_000), share: Some(1.0), ..Fault::default() };
    test.simulator.add_fault(fault).unwrap();
    test.until("a call is under way", async || (test.provider_calls("CheckResult") > 0).then_some(())).await;
    let pool = test.database.pool().await;
    let started = Instant::now();
    test.stop().await;
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    let leased: i64 = sqlx::query_scalar("SELECT count(*) FROM collect_jobs WHERE lease_token IS NOT NULL")
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(leased, 0);
}

/// A store without a service, and one leased job.
async fn leased() -> (TestApp, Store, LeasedJob, DateTime<Utc>) {
    let mut test = with_qps(100).await;
    let (transaction, id) = test.begin(CreateTransaction::default(), json!({ "callback_token": TOKEN })).await;
    test.stop().await;
    let store = Store::new(test.database.options(), 4);
    let now = test.clock.now() + TimeDelta::minutes(5);
    let mut jobs = store.lease_due(lease(now, Uuid::from_u128(1), 10)).await.unwrap().jobs;
    let job = jobs.pop().unwrap();
    assert_eq!((job.id.to_string(), &job.transaction_id), (id, &transaction));
    (test, store, job, now)
}

fn lease(now: DateTime<Utc>, token: Uuid, limit: i64) -> Lease<'static> {
    Lease {
        account: ACCOUNT,
        token,
        limit,
        length: Duration::from_secs(10),
        rate: Rate {
            qps: 100,
            slack: Duration::from_millis(100),
            horizon: Duration::from_millis(100),
            bulk_horizon: Duration::from_millis(100),
            recovery: 0.05,
        },
        now,
        next_probe_at: now + TimeDelta::seconds(60),
        videos_gone: now - TimeDelta::minutes(30),
        turn: None,
    }
}

fn passed(id: VerificationId, token: Uuid, at: DateTime<Utc>) -> CheckedFinal {
    CheckedFinal {
        id,
        token,
        status: FinalStatus::Passed,
        sub_code: Some("200".into()),
        reason: "passed".into(),
        scores: "{}".into(),
        signals: "{}".into(),
        answer: None,
        last_error: None,
        check_detail: Some("{}".into()),
        at,
        recheck: false,
        replaces: true,
        evidence: Vec::new(),
    }
}

fn open(id: VerificationId, token: Uuid, at: DateTime<Utc>) -> CheckedOpen {
    CheckedOpen {
        id,
        token,
        lane: Some(Lane::Retry),
        due_at: at,
        running: 1,
        faults: 0,
        last_error: Some("late".into()),
        check_detail: Some("{}".into()),
        at,
    }
}

/// Everything that a late worker could have changed.
async fn everything(test: &TestApp) -> String {
    sqlx::query_scalar(
        "SELECT concat((SELECT json_agg(j) FROM collect_jobs j), (SELECT json_agg(v) FROM verdicts v),
            (SELECT json_agg(h) FROM history h))",
    )
    .fetch_one(&test.database.pool().await)
    .await
    .unwrap()
}

#[tokio::test]
async fn a_worker_whose_lease_was_lost_changes_nothing() {
    let (test, store, job, now) = leased().await;
    let before = everything(&test).await;
    let other = Uuid::from_u128(2);
    assert!(store.record_final(&[passed(job.id, other, now)]).await.unwrap().is_empty());
    assert!(store.record_open(&[open(job.id, other, now)]).await.unwrap().is_empty());
    assert!(store.renew_leases(&[(job.id, other)], Duration::from_mins(1)).await.unwrap().is_empty());
    assert_eq!(store.release_leases(&[(job.id, other)]).await.unwrap(), 0);
    assert_eq!(everything(&test).await, before);
    // Given back, its old token is worth nothing either.
    assert_eq!(store.release_leases(&[(job.id, job.token)]).await.unwrap(), 1);
    let before = everything(&test).await;
    assert!(store.record_final(&[passed(job.id, job.token, now)]).await.unwrap().is_empty());
    assert!(store.record_open(&[open(job.id, job.token, now)]).await.unwrap().is_empty());
    assert!(store.renew_leases(&[(job.id, job.token)], Duration::from_mins(1)).await.unwrap().is_empty());
    assert_eq!(everything(&test).await, before);
}

#[tokio::test]
async fn a_leased_job_is_leased_to_nobody_else_and_a_stored_verdict_stays_the_only_one() {
    let (test, store, job, now) = leased().await;
    assert!(store.lease_due(lease(now, Uuid::from_u128(2), 10)).await.unwrap().jobs.is_empty());
    assert_eq!(store.renew_leases(&[(job.id, job.token)], Duration::from_mins(1)).await.unwrap(), [job.id]);
    assert!(store.recover_leases().await.unwrap().is_empty(), "it stands for a minute more");
    let recorded = store.record_final(&[passed(job.id, job.token, now)]).await.unwrap();
    assert_eq!(recorded.iter().map(|recorded| recorded.revision).collect::<Vec<_>>(), [Some(1)]);
    let before = everything(&test).await;
    assert!(store.record_final(&[passed(job.id, job.token, now)]).await.unwrap().is_empty());
    assert_eq!(everything(&test).await, before);
}

#[tokio::test]
async fn a_lease_that_ran_out_is_taken_back() {
    let (test, store, job, now) = leased().await;
    store.renew_leases(&[(job.id, job.token)], Duration::ZERO).await.unwrap();
    let taken = test
        .until("it is taken back", async || {
            let accounts = store.recover_leases().await.unwrap();
            (!accounts.is_empty()).then_some(accounts)
        })
        .await;
    assert_eq!(taken, [ACCOUNT]);
    let again = store.lease_due(lease(now, Uuid::from_u128(3), 10)).await.unwrap().jobs;
    assert_eq!(again.iter().map(|job| job.id).collect::<Vec<_>>(), [job.id]);
    assert!(store.record_final(&[passed(job.id, job.token, now)]).await.unwrap().is_empty(), "the first was too late");
}

#[tokio::test]
async fn a_hint_that_meets_the_end_of_its_job_is_worked_into_its_verdict() {
    let (test, store, job, now) = leased().await;
    let pool = test.database.pool().await;
    sqlx::query(
        "INSERT INTO hints (account, lane, verification_id, at, kind, authenticated, detail)
        VALUES ($1, 1, $2, $3, 'callback', true, '{}')",
    )
    .bind(ACCOUNT)
    .bind(job.id.0)
    .bind(now)
    .execute(&pool)
    .await
    .unwrap();
    // The job ends as void while the hint's statement waits for it.
    let mut ending = pool.begin().await.unwrap();
    sqlx::query("DELETE FROM collect_jobs").execute(&mut *ending).await.unwrap();
    sqlx::query(
        "INSERT INTO verdicts (verification_id, revision, account, status, reason, scores, signals, decided_at, checks)
        VALUES ($1, 1, $2, 'void', 'given up', '{}', '{}', $3, 1)",
    )
    .bind(job.id.0)
    .bind(ACCOUNT)
    .bind(now)
    .execute(&mut *ending)
    .await
    .unwrap();
    let taking = store.take_hints(10, now);
    let committing = async {
        somebody_waits(&pool, "").await;
        ending.commit().await.unwrap();
    };
    let (taken, ()) = tokio::join!(taking, committing);
    assert_eq!(taken.unwrap().nudged.len(), 1);
    assert_eq!(store.take_hints(10, now).await.unwrap().taken, 0, "it was taken once");
    let (jobs, recheck): (i64, Option<bool>) =
        sqlx::query_as("SELECT count(*), bool_and(recheck) FROM collect_jobs").fetch_one(&pool).await.unwrap();
    assert_eq!((jobs, recheck), (1, Some(true)), "the void one is asked about again");
    let remembered: i64 =
        sqlx::query_scalar("SELECT count(*) FROM history WHERE kind = 'callback'").fetch_one(&pool).await.unwrap();
    assert_eq!(remembered, 1);
}

#[tokio::test]
async fn slots_never_exceed_the_rate_in_any_second_and_reach_no_further_than_the_horizon() {
    let test = with_qps(100).await;
    let mut test = test;
    for _ in 0..60 {
        test.begin(CreateTransaction::default(), json!({})).await;
    }
    test.stop().await;
    let (store, pool) = (Store::new(test.database.options(), 4), test.database.pool().await);
    let now = test.clock.now() + TimeDelta::minutes(5);
    sqlx::query("UPDATE collect_jobs SET lane = 1").execute(&pool).await.unwrap();
    let mut total = 0;
    let mut first_free: DateTime<Utc> = sqlx::query_scalar("SELECT database_now()").fetch_one(&pool).await.unwrap();
    while total < 60 {
        let jobs = store.lease_due(lease(now, Uuid::from_u128(1), 1000)).await.unwrap().jobs;
        // At 99 a second less a tenth, a tenth of a second holds nine.
        assert!(jobs.len() <= 10, "{}", jobs.len());
        assert!(jobs.iter().all(|job| job.slot_in <= 0.101), "{:?}", jobs.last().map(|job| job.slot_in));
        let (free, ahead): (DateTime<Utc>, bool) =
            sqlx::query_as("SELECT next_slot_at, next_slot_at < database_now() + interval '112 ms' FROM accounts")
                .fetch_one(&pool)
                .await
                .unwrap();
        let slots = i32::try_from(jobs.len()).unwrap();
        assert!(slots == 0 || free - first_free >= TimeDelta::microseconds(11_120) * slots, "slots were given twice");
        assert!(ahead, "slots are taken no further ahead than the horizon");
        first_free = first_free.max(free);
        total += slots;
    }
    // Those that missed their slots get others behind all that were taken.
    let before: DateTime<Utc> = sqlx::query_scalar("SELECT next_slot_at FROM accounts WHERE account = $1")
        .bind(ACCOUNT)
        .fetch_one(&pool)
        .await
        .unwrap();
    let taken = store.take_slots(ACCOUNT, lease(now, Uuid::nil(), 1).rate, Pace::Urgent, 3, now).await.unwrap();
    let after: DateTime<Utc> = sqlx::query_scalar("SELECT next_slot_at FROM accounts WHERE account = $1")
        .bind(ACCOUNT)
        .fetch_one(&pool)
        .await
        .unwrap();
    assert!(taken.len() == 3 && taken.is_sorted(), "{taken:?}");
    assert!(after - before >= TimeDelta::milliseconds(33));
}

#[tokio::test]
async fn throttling_halves_the_rate_which_comes_back_by_itself() {
    let mut test = with_qps(100).await;
    for _ in 0..80 {
        test.begin(CreateTransaction::default(), json!({})).await;
    }
    test.stop().await;
    let store = Store::new(test.database.options(), 4);
    let pool = test.database.pool().await;
    let now = test.clock.now() + TimeDelta::minutes(5);
    sqlx::query("UPDATE collect_jobs SET lane = 1").execute(&pool).await.unwrap();
    // With all slots free again, how many fit into the horizon tells the rate.
    let fits = async |at: DateTime<Utc>| {
        let mut fewest = usize::MAX;
        // A database that is interrupted in the middle of its statement takes the time gone by for room.
        for _ in 0..3 {
            sqlx::query("UPDATE accounts SET next_slot_at = 'epoch', next_bulk_at = 'epoch', recent_slots = '{}'")
                .execute(&pool)
                .await
                .unwrap();
            let jobs = store.lease_due(lease(at, Uuid::from_u128(9), 1000)).await.unwrap().jobs;
            let held: Vec<_> = jobs.iter().map(|job| (job.id, job.token)).collect();
            store.release_leases(&held).await.unwrap();
            fewest = fewest.min(jobs.len());
        }
        fewest
    };
    assert_eq!(fits(now).await, 9);
    let until = store.throttle_account(ACCOUNT, 100, 0.05, MEMORY, None, now).await.unwrap();
    assert_eq!(until, now + TimeDelta::seconds(1));
    assert_eq!(fits(now).await, 0, "the account is held");
    assert_eq!(fits(until - TimeDelta::microseconds(1)).await, 0);
    // Halved, and a twentieth of the whole has come back in that second.
    assert_eq!(fits(until).await, 5);
    assert_eq!(fits(now + TimeDelta::seconds(6)).await, 8);
    assert_eq!(fits(now + TimeDelta::seconds(10)).await, 9);
    assert_eq!(fits(now + TimeDelta::seconds(600)).await, 9, "and never more than the whole");
    // Answers that were under way when the hold began lower it no further, and a longer named time counts.
    let now = now + TimeDelta::seconds(600);
    store.throttle_account(ACCOUNT, 100, 0.05, MEMORY, None, now).await.unwrap();
    let until = store.throttle_account(ACCOUNT, 100, 0.05, MEMORY, Some(Duration::from_secs(9)), now).await.unwrap();
    assert_eq!(until, now + TimeDelta::seconds(9));
    assert_eq!(store.throttle_account(ACCOUNT, 100, 0.05, MEMORY, None, now).await.unwrap(), until);
    let rate: f64 = sqlx::query_scalar("SELECT rate FROM accounts").fetch_one(&pool).await.unwrap();
    assert!((rate - 50.0).abs() < 0.001, "{rate}");
}

#[tokio::test]
async fn a_failing_account_gets_one_job_at_its_time_and_all_when_it_is_well() {
    let (test, store, job, now) = leased().await;
    store.release_leases(&[(job.id, job.token)]).await.unwrap();
    assert!(store.mark_failing(ACCOUNT, "bad_key", "InvalidAccessKeyId.NotFound", false, now).await.unwrap());
    let probe_at = now + TimeDelta::seconds(5);
    assert!(store.lease_due(lease(now, Uuid::from_u128(1), 10)).await.unwrap().jobs.is_empty());
    assert_eq!(store.next_due(ACCOUNT).await.unwrap(), Some(probe_at));
    let probes = store.lease_due(lease(probe_at, Uuid::from_u128(2), 10)).await.unwrap().jobs;
    assert!(probes.len() == 1 && probes[0].standing == Standing::Probed);
    store.release_leases(&[(job.id, Uuid::from_u128(2))]).await.unwrap();
    assert!(
        store.lease_due(lease(probe_at, Uuid::from_u128(3), 10)).await.unwrap().jobs.is_empty(),
        "one probe at a time"
    );
    // A probe that was not sent is due again; one that got lost a minute later.
    store.return_probe(ACCOUNT, probe_at).await.unwrap();
    let probes = store.lease_due(lease(probe_at, Uuid::from_u128(4), 10)).await.unwrap().jobs;
    assert_eq!(probes.len(), 1);
    store.release_leases(&[(job.id, Uuid::from_u128(4))]).await.unwrap();
    assert_eq!(store.next_due(ACCOUNT).await.unwrap(), Some(probe_at + TimeDelta::seconds(60)));
    assert!(store.mark_well(ACCOUNT, None).await.unwrap());
    let jobs = store.lease_due(lease(probe_at, Uuid::from_u128(5), 10)).await.unwrap().jobs;
    assert!(jobs.len() == 1 && jobs[0].standing == Standing::Well);
    drop(test);
}

//! The budget of calls: whoever asks, by whichever pace, from whichever replica, no second holds more than the account
//! allows, and what is allowed is used.
#![expect(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

use std::time::Duration;

use checkback::domain::VerificationId;
use checkback::domain::schedule::Lane;
use checkback::entropy::Entropy;
use checkback::service::pace::Slot;
use checkback::store::{CallSlot, LaneTurn, Lease, Leased, Outage, Pace, Rate, Store};
use chrono::{DateTime, TimeDelta, Utc};
use futures_util::future::join_all;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use sqlx::PgPool;
use tokio::time::Instant;
use uuid::Uuid;

use super::support::app::{Setup, TestApp};
use super::support::database::{TestDatabase, database, somebody_waits, stop_clock};

const ACCOUNT: &str = "alibaba-sg";
const SLACK: Duration = Duration::from_millis(100);

/// A store whose database has the time that the test says.
struct Budget {
    store: Store,
    pool: PgPool,
    now: DateTime<Utc>,
    _database: TestDatabase,
}

fn rate(qps: u32) -> Rate {
    Rate {
        qps,
        slack: SLACK,
        horizon: Duration::from_millis(100),
        bulk_horizon: Duration::from_millis(5),
        recovery: 0.05,
    }
}

impl Budget {
    async fn new() -> Self {
        let database = database().await;
        let (store, pool) = (Store::new(database.options(), 4), database.pool().await);
        store.add_accounts(&[ACCOUNT.to_owned()]).await.unwrap();
        let now = stop_clock(&pool).await;
        Self { store, pool, now, _database: database }
    }

    async fn advance(&mut self, by: TimeDelta) {
        self.now += by;
        sqlx::query("UPDATE test_clock SET at = $1").bind(self.now).execute(&self.pool).await.unwrap();
    }

    /// All slots free, the whole rate.
    async fn renew(&self) {
        sqlx::query("DELETE FROM accounts").execute(&self.pool).await.unwrap();
        self.store.add_accounts(&[ACCOUNT.to_owned()]).await.unwrap();
    }

    /// Jobs that were hinted, or registered, `ago` and are due since then.
    async fn jobs(&self, lane: Lane, count: i32, ago: TimeDelta) {
        let statement = "WITH made AS (
                INSERT INTO collect_jobs (verification_id, account, lane, due_at, hinted_at)
                SELECT gen_random_uuid(), $1, $2, $3, CASE WHEN $2 < 3 THEN $3 END
                FROM generate_series(1, $4)
                RETURNING verification_id
            )
            INSERT INTO verifications (verification_id, account, transaction_id, merchant_biz_id, expect_video,
                registered_at)
            SELECT verification_id, $1, verification_id::text, 'b', false, $3
            FROM made";
        let insert = sqlx::query(statement).bind(ACCOUNT).bind(lane.as_i16()).bind(self.now - ago).bind(count);
        insert.execute(&self.pool).await.unwrap();
    }

    async fn lease(&self, qps: u32, turn: Option<LaneTurn>) -> Leased {
        let lease = Lease {
            account: ACCOUNT,
            token: Entropy::system().token(),
            limit: 50,
            length: Duration::from_secs(10),
            rate: rate(qps),
            now: self.now,
            next_probe_at: self.now + TimeDelta::minutes(1),
            videos_gone: self.now - TimeDelta::minutes(30),
            turn,
        };
        self.store.lease_due(lease).await.unwrap()
    }

    /// As [`Budget::lease`]; what was leased is due again.
    async fn lease_and_return(&self, qps: u32, turn: Option<LaneTurn>) -> Vec<(Lane, DateTime<Utc>)> {
        let jobs = self.lease(qps, turn).await.jobs;
        let held: Vec<_> = jobs.iter().map(|job| (job.id, job.token)).collect();
        self.store.release_leases(&held).await.unwrap();
        jobs.iter().map(|job| (job.lane, self.at(job.slot_in))).collect()
    }

    fn at(&self, slot_in: f64) -> DateTime<Utc> {
        assert!(slot_in >= 0.0, "a slot lies {slot_in} s back");
        self.now + TimeDelta::nanoseconds(nanoseconds(slot_in))
    }

    async fn throttle(&self, qps: u32) -> DateTime<Utc> {
        self.store.throttle_account(ACCOUNT, qps, 0.05, Duration::from_mins(10), None, self.now).await.unwrap()
    }

    async fn rate(&self, qps: u32) -> f64 {
        self.store.poll_load(ACCOUNT, rate(qps), self.now).await.unwrap().rate
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a few seconds")]
fn nanoseconds(seconds: f64) -> i64 {
    (seconds * 1e9).round() as i64
}

/// Calls that are sent at their slots and arrive up to the slack later: no second may hold more than `qps` of them,
/// however they arrive.
fn check(slots: &mut [DateTime<Utc>], qps: u32, seed: u64) {
    slots.sort_unstable();
    let qps = usize::try_from(qps).unwrap();
    let window = TimeDelta::seconds(1) + TimeDelta::from_std(SLACK).unwrap();
    for (first, next) in slots.iter().zip(slots.iter().skip(qps)) {
        assert!(*next - *first >= window, "seed {seed}: {} calls within {} from {first}", qps + 1, *next - *first);
    }
}

/// One random run: leases of all kinds of jobs, lanes' turns, lone calls, calls that missed their slot, throttling.
async fn run(budget: &mut Budget, seed: u64) -> (u32, usize) {
    let mut random = SmallRng::seed_from_u64(seed);
    let rates = [1, 2, 3, 4, 7, 10, 13, 21, 22, 23, 30, 50, 120];
    let qps = rates[random.random_range(0..rates.len())];
    // Some runs are all urgent, some have only a few urgent ones among others.
    let urgent = random.random_range(0.0..1.0);
    let throttling = random.random_bool(0.3);
    budget.renew().await;
    let mut slots = Vec::new();
    for _ in 0..150 {
        let due_before = budget.now;
        let pace = if random.random_bool(urgent) { Pace::Urgent } else { Pace::Bulk };
        match random.random_range(0..100) {
            0..70 => {
                let turn = match random.random_range(0..10) {
                    0..4 => Some(LaneTurn { lane: Lane::Retry, due_before, pace }),
                    4..6 => Some(LaneTurn { lane: Lane::Poll, due_before, pace }),
                    _ if random.random_bool(urgent) => Some(LaneTurn { lane: Lane::Fresh, due_before, pace }),
                    _ => None,
                };
                slots.extend(budget.lease_and_return(qps, turn).await.into_iter().map(|(_, slot)| slot));
            }
            70..80 => {
                let next_probe_at = budget.now;
                let taken = budget.store.take_call_slot(ACCOUNT, rate(qps), pace, budget.now, next_probe_at).await;
                if let CallSlot::Granted { slot_in, .. } = taken.unwrap() {
                    slots.push(budget.at(slot_in));
                }
            }
            80..84 => {
                let most = random.random_range(1..5);
                let taken = budget.store.take_slots(ACCOUNT, rate(qps), pace, most, budget.now).await.unwrap();
                slots.extend(taken.into_iter().map(|slot_in| budget.at(slot_in)));
            }
            84 if throttling => drop(budget.throttle(qps).await),
            _ => {}
        }
        let most = if random.random_bool(0.5) { 20 } else { 1500 / i64::from(qps) };
        budget.advance(TimeDelta::microseconds(random.random_range(0..=most * 1000))).await;
    }
    let granted = slots.len();
    check(&mut slots, qps, seed);
    (qps, granted)
}

#[tokio::test]
async fn no_second_holds_more_calls_than_allowed_whoever_asks_for_what() {
    let mut budget = Budget::new().await;
    for lane in Lane::ALL {
        budget.jobs(lane, 60, TimeDelta::minutes(2)).await;
    }
    let (mut all, mut several) = (0, 0);
    for seed in 0..40 {
        let (qps, granted) = run(&mut budget, seed).await;
        all += granted;
        several += usize::from(granted > usize::try_from(qps).unwrap());
        budget.advance(TimeDelta::minutes(20)).await;
    }
    assert!(all > 1000 && several > 20, "{all} slots, {several} runs with more than a second's worth");
}

/// How many calls of what is due fit into four seconds.
async fn in_four_seconds(budget: &mut Budget, qps: u32) -> usize {
    budget.renew().await;
    let (until, mut slots) = (budget.now + TimeDelta::seconds(4), Vec::new());
    while budget.now < until {
        slots.extend(budget.lease_and_return(qps, None).await.into_iter().map(|(_, slot)| slot));
        budget.advance(TimeDelta::milliseconds(5)).await;
    }
    check(&mut slots, qps, 0);
    slots.len()
}

#[tokio::test]
async fn what_is_allowed_is_used() {
    let mut budget = Budget::new().await;
    budget.jobs(Lane::Fresh, 60, TimeDelta::seconds(1)).await;
    for (qps, least) in [(1, 4), (3, 11), (10, 36), (22, 75)] {
        let calls = in_four_seconds(&mut budget, qps).await;
        assert!(calls >= least, "{calls} urgent calls in 4 s at {qps} a second");
    }
    sqlx::query("DELETE FROM collect_jobs").execute(&budget.pool).await.unwrap();
    budget.jobs(Lane::Retry, 60, TimeDelta::seconds(1)).await;
    for (qps, least) in [(1, 4), (3, 7), (10, 31), (22, 74)] {
        let calls = in_four_seconds(&mut budget, qps).await;
        assert!(calls >= least, "{calls} other calls in 4 s at {qps} a second");
    }
}

#[tokio::test]
async fn an_urgent_call_is_sent_at_once_however_much_else_is_due() {
    let mut budget = Budget::new().await;
    budget.jobs(Lane::Retry, 100, TimeDelta::seconds(1)).await;
    for qps in [3, 10, 22] {
        budget.renew().await;
        let (mut slots, mut waits) = (Vec::new(), Vec::new());
        for step in 0..1300 {
            // Fresh ones now and then, at all phases of the others' spacing.
            if step % 401 == 400 {
                sqlx::query("UPDATE collect_jobs SET lane = 1 WHERE verification_id = (SELECT min(verification_id::text)::uuid FROM collect_jobs WHERE lane = 2)")
                    .execute(&budget.pool)
                    .await
                    .unwrap();
                let leased = budget.lease_and_return(qps, None).await;
                assert_eq!(leased[0].0, Lane::Fresh, "at {qps} a second");
                waits.push(leased[0].1 - budget.now);
                slots.extend(leased.into_iter().map(|(_, slot)| slot));
                sqlx::query("UPDATE collect_jobs SET lane = 2").execute(&budget.pool).await.unwrap();
            }
            slots.extend(budget.lease_and_return(qps, None).await.into_iter().map(|(_, slot)| slot));
            budget.advance(TimeDelta::milliseconds(3)).await;
        }
        let longest = waits.iter().max().unwrap();
        assert!(*longest <= TimeDelta::milliseconds(5), "{longest} at {qps} a second: {waits:?}");
        check(&mut slots, qps, 0);
    }
}

#[tokio::test]
async fn a_rate_that_is_refused_again_and_again_is_tried_again_only_slowly() {
    let mut budget = Budget::new().await;
    budget.throttle(100).await;
    budget.advance(TimeDelta::seconds(10)).await;
    assert!((budget.rate(100).await - 100.0).abs() < 0.01, "after the first time it is back within ten seconds");
    budget.throttle(100).await;
    let refused_at = budget.now;
    budget.advance(TimeDelta::seconds(8)).await;
    assert!((budget.rate(100).await - 90.0).abs() < 0.01, "up to a tenth below what was refused as before");
    budget.advance(TimeDelta::seconds(8)).await;
    assert!((budget.rate(100).await - 92.0).abs() < 0.01, "and from there twenty times as slowly");
    budget.throttle(100).await;
    budget.advance(TimeDelta::seconds(60)).await;
    let rate = budget.rate(100).await;
    // Nine tenths of 92 are 82.8, reached after 7.4 s.
    assert!((rate - (82.8 + 52.64 * 0.25)).abs() < 0.1, "{rate}");
    budget.advance(TimeDelta::minutes(10)).await;
    assert!((budget.rate(100).await - 100.0).abs() < 0.01, "after a while it is the whole again");
    budget.throttle(100).await;
    budget.advance(TimeDelta::seconds(10)).await;
    assert!((budget.rate(100).await - 100.0).abs() < 0.01, "{refused_at} is forgotten");
}

#[tokio::test]
async fn a_database_whose_clock_was_set_back_gives_slots_again() {
    let mut budget = Budget::new().await;
    budget.jobs(Lane::Fresh, 5, TimeDelta::days(3)).await;
    assert_eq!(budget.lease_and_return(10, None).await.len(), 1);
    budget.advance(TimeDelta::days(-1)).await;
    assert_eq!(budget.lease_and_return(10, None).await.len(), 1);
}

async fn leased_lanes(budget: &Budget, calls: usize) -> Vec<i64> {
    let mut order = Vec::new();
    for _ in 0..calls {
        sqlx::query("UPDATE accounts SET next_slot_at = 'epoch', next_bulk_at = 'epoch', recent_slots = '{}'")
            .execute(&budget.pool)
            .await
            .unwrap();
        let job = budget.lease(10, None).await.jobs.remove(0);
        order.push((budget.now - job.hinted_at.unwrap_or(job.registered_at)).num_minutes());
    }
    order
}

#[tokio::test]
async fn within_a_lane_the_earliest_deadline_goes_first_and_videos_that_are_gone_are_passed_over() {
    let mut budget = Budget::new().await;
    for minutes in [5, 29, 31, 12] {
        budget.jobs(Lane::Video, 1, TimeDelta::minutes(minutes)).await;
    }
    for minutes in [300, 2000, 40] {
        budget.jobs(Lane::Retry, 1, TimeDelta::minutes(minutes)).await;
    }
    budget.jobs(Lane::Fresh, 1, TimeDelta::minutes(3)).await;
    budget.jobs(Lane::Poll, 1, TimeDelta::minutes(9000)).await;
    // Of the retries, the one with the earliest deadline is not due yet, and all became due in another order.
    sqlx::query(
        "UPDATE collect_jobs SET due_at = $1::timestamptz - (hinted_at - 'epoch') / 1e9
            + CASE WHEN hinted_at < $1::timestamptz - interval '1000 minutes' THEN interval '1 hour' ELSE '0' END
        WHERE lane IN (0, 2)",
    )
    .bind(budget.now)
    .execute(&budget.pool)
    .await
    .unwrap();
    assert_eq!(leased_lanes(&budget, 7).await, [29, 12, 5, 3, 300, 40, 9000]);
    let sorted = budget.store.sort_lanes(ACCOUNT, budget.now - TimeDelta::minutes(30), budget.now, 10).await.unwrap();
    assert_eq!((sorted.moved, sorted.is_all), (1, true));
    assert_eq!(leased_lanes(&budget, 1).await, [31], "it is a retry now");
    budget.advance(TimeDelta::hours(1)).await;
    assert_eq!(leased_lanes(&budget, 1).await, [2060], "and this one is due");
}

#[tokio::test]
async fn what_waited_long_is_fresh_no_more_and_a_late_collect_for_a_video_that_is_gone_is_fresh() {
    let budget = Budget::new().await;
    for (lane, ago) in [(Lane::Fresh, 59), (Lane::Fresh, 61), (Lane::Video, 61), (Lane::Video, 7200)] {
        budget.jobs(lane, 1, TimeDelta::seconds(ago)).await;
    }
    sqlx::query(
        "UPDATE collect_jobs SET due_at = $1, nudged_at = $1 WHERE hinted_at < $1::timestamptz - interval '1 hour'",
    )
    .bind(budget.now)
    .execute(&budget.pool)
    .await
    .unwrap();
    let (gone, stale) = (budget.now - TimeDelta::minutes(30), budget.now - TimeDelta::minutes(1));
    assert_eq!(budget.store.sort_lanes(ACCOUNT, gone, stale, 10).await.unwrap().moved, 2);
    let lanes: Vec<(i16, i64)> = sqlx::query_as(
        "SELECT lane, extract(epoch FROM $1 - hinted_at)::bigint FROM collect_jobs ORDER BY lane, hinted_at",
    )
    .bind(budget.now)
    .fetch_all(&budget.pool)
    .await
    .unwrap();
    assert_eq!(lanes, [(0, 61), (1, 7200), (1, 59), (2, 61)]);
    assert_eq!(budget.store.sort_lanes(ACCOUNT, gone, stale, 10).await.unwrap().moved, 0);
}

const OUTAGE: Outage = Outage { calls: 20, verifications: 5, lasting: Duration::from_secs(30), reason: "unreachable" };

/// So many calls without an answer, two seconds apart, about so many verifications; whether the account fails then.
async fn unanswered(budget: &mut Budget, calls: u128, verifications: u128) -> bool {
    let mut failing = false;
    for n in 0..calls {
        let of = VerificationId(Uuid::from_u128(n % verifications));
        failing |=
            budget.store.note_unanswered(ACCOUNT, of, OUTAGE, "connect_failed", false, budget.now).await.unwrap();
        budget.advance(TimeDelta::seconds(2)).await;
    }
    failing
}

#[tokio::test]
async fn a_provider_that_answers_nobody_is_unreachable_and_a_few_poisoned_ones_are_not() {
    let mut budget = Budget::new().await;
    assert!(!unanswered(&mut budget, 60, 4).await, "four alone may be poisoned");
    budget.store.settle_account(ACCOUNT).await.unwrap();
    assert!(!unanswered(&mut budget, 19, 7).await);
    budget.store.settle_account(ACCOUNT).await.unwrap();
    assert!(!unanswered(&mut budget, 19, 7).await, "an answer in between begins the count anew");
    assert!(unanswered(&mut budget, 1, 1).await);
    let health = budget.store.account_health().await.unwrap().remove(0);
    let failing = health.failing.unwrap();
    assert_eq!((failing.reason.as_str(), failing.code.as_str()), ("unreachable", "connect_failed"));
    assert_eq!(health.probe_at.unwrap(), budget.now - TimeDelta::seconds(2) + TimeDelta::seconds(5));
    // A probe without an answer makes the next one wait longer, and changes no other reason.
    let of = VerificationId(Uuid::nil());
    for seconds in [10, 20, 40, 60, 60] {
        let is_new = budget.store.note_unanswered(ACCOUNT, of, OUTAGE, "x", true, budget.now).await.unwrap();
        let probe_at = budget.store.account_health().await.unwrap()[0].probe_at.unwrap();
        assert_eq!((is_new, probe_at - budget.now), (false, TimeDelta::seconds(seconds)));
    }
    assert!(!budget.store.mark_well(ACCOUNT, Some("bad_key")).await.unwrap(), "it failed for another reason");
    assert!(budget.store.mark_well(ACCOUNT, Some("unreachable")).await.unwrap());
    assert!(!unanswered(&mut budget, 19, 7).await, "and it counts from the beginning");
}

#[tokio::test]
async fn twenty_calls_at_once_that_nobody_answers_are_no_outage_yet() {
    let budget = Budget::new().await;
    for n in 0..100 {
        let of = VerificationId(Uuid::from_u128(n));
        assert!(!budget.store.note_unanswered(ACCOUNT, of, OUTAGE, "x", false, budget.now).await.unwrap());
    }
}

#[tokio::test]
async fn calls_that_missed_their_slots_take_others_together_and_leave_connections_to_the_rest() {
    let more = "[database]\nmax_connections = 4".to_owned();
    let test = TestApp::with(Setup { account: "qps = 50".to_owned(), more, ..Setup::default() }).await;
    let service = test.app.as_ref().unwrap().service.clone();
    let account = service.accounts.get(ACCOUNT).unwrap();
    let pool = test.database.pool().await;
    let mut transaction = pool.begin().await.unwrap();
    sqlx::query("SELECT FROM accounts FOR UPDATE").execute(&mut *transaction).await.unwrap();
    let now = Instant::now();
    let missed = Slot::new(now, now, -1.0, Pace::Urgent);
    let all = join_all((0..20).map(|_| service.wait_for_slot(account, missed)));
    let meanwhile = async {
        somebody_waits(&pool, "-- take_slots").await;
        // Connections are given in turn, so this one comes behind whatever else is to stand in line by itself.
        let other = service.store.is_final(VerificationId(Uuid::nil())).await;
        assert_eq!(other.expect("a connection is free"), None);
        transaction.commit().await.unwrap();
        Instant::now()
    };
    let (_, free_at) = tokio::join!(all, meanwhile);
    // At 50 a second the slots are 22 ms apart.
    assert!(
        free_at.elapsed() >= Duration::from_millis(19 * 22),
        "{:?}: not each had a slot of its own",
        free_at.elapsed()
    );
}

//! The short way of callbacks: worked in and leased by one statement, which ends where the long way ends.
#![expect(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

use std::time::Duration;

use checkback::store::{HintsLeft, Lease, LeasedHinted, LeasedJob, Rate, Store};
use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgPool;
use uuid::Uuid;

use super::support::database::{TestDatabase, database, somebody_waits, stop_clock};

const TOKEN: Uuid = Uuid::from_u128(7);
const LONG: &str = "long";
const SHORT: &str = "short";

struct Bed {
    store: Store,
    pool: PgPool,
    now: DateTime<Utc>,
    _database: TestDatabase,
}

impl Bed {
    async fn new() -> Self {
        let database = database().await;
        let (store, pool) = (Store::new(database.options(), 8), database.pool().await);
        store.add_accounts(&[LONG.to_owned(), SHORT.to_owned()]).await.unwrap();
        let now = stop_clock(&pool).await;
        Self { store, pool, now, _database: database }
    }

    async fn run(&self, statement: &'static str) {
        sqlx::raw_sql(statement).execute(&self.pool).await.unwrap();
    }

    /// Registered an hour ago; its next poll is in five minutes.
    async fn registered(&self, account: &str, n: u128) -> Uuid {
        let id = Uuid::from_u128(n);
        sqlx::query(
            "WITH v AS (
                INSERT INTO verifications (verification_id, account, transaction_id, merchant_biz_id, expect_video,
                    registered_at)
                VALUES ($1, $2, $1::text, 'b', false, $3)
            )
            INSERT INTO collect_jobs (verification_id, account, lane, due_at)
            VALUES ($1, $2, 3, $4)",
        )
        .bind(id)
        .bind(account)
        .bind(self.now - TimeDelta::hours(1))
        .bind(self.now + TimeDelta::minutes(5))
        .execute(&self.pool)
        .await
        .unwrap();
        id
    }

    async fn hint(&self, account: &str, id: Uuid, lane: i16, kind: &str, authenticated: bool) {
        sqlx::query(
            "INSERT INTO hints (account, lane, verification_id, at, kind, authenticated, detail)
            SELECT $1, $2, $3, $4 + make_interval(secs => count(*) * 0.001), $5, $6, json_build_object('n', count(*))
            FROM hints
            WHERE account = $1",
        )
        .bind(account)
        .bind(lane)
        .bind(id)
        .bind(self.now - TimeDelta::seconds(1))
        .bind(kind)
        .bind(authenticated)
        .execute(&self.pool)
        .await
        .unwrap();
    }

    async fn called_back(&self, account: &str, n: u128) -> Uuid {
        let id = self.registered(account, n).await;
        self.hint(account, id, 1, "callback", true).await;
        id
    }

    fn lease<'a>(&self, account: &'a str, qps: u32, limit: i64) -> Lease<'a> {
        Lease {
            account,
            token: TOKEN,
            limit,
            length: Duration::from_secs(10),
            rate: Rate {
                qps,
                slack: Duration::from_millis(100),
                horizon: Duration::from_millis(100),
                bulk_horizon: Duration::from_millis(5),
                recovery: 0.05,
            },
            now: self.now,
            next_probe_at: self.now + TimeDelta::minutes(1),
            videos_gone: self.now - TimeDelta::minutes(30),
            turn: None,
        }
    }

    async fn short_way(&self, qps: u32, limit: i64) -> LeasedHinted {
        self.store.lease_hinted(&self.lease(SHORT, qps, limit)).await.unwrap()
    }

    /// All that the tables hold of an account, without what is different in any case.
    async fn rows(&self, account: &str) -> Vec<String> {
        sqlx::query_scalar(
            "SELECT (to_jsonb(j) - ARRAY['verification_id', 'account'])::text
                || coalesce((SELECT json_agg(to_jsonb(h) - ARRAY['history_id', 'verification_id'] ORDER BY history_id)
                    FROM history h WHERE h.verification_id = j.verification_id)::text, '')
            FROM collect_jobs j
            WHERE account = $1
            UNION ALL
            SELECT (to_jsonb(a) - 'account')::text
            FROM accounts a
            WHERE account = $1
            ORDER BY 1",
        )
        .bind(account)
        .fetch_all(&self.pool)
        .await
        .unwrap()
    }

    async fn hints_left(&self) -> i64 {
        sqlx::query_scalar("SELECT count(*) FROM hints").fetch_one(&self.pool).await.unwrap()
    }

    async fn is_leased(&self, id: Uuid) -> bool {
        sqlx::query_scalar("SELECT lease_token = $2 FROM collect_jobs WHERE verification_id = $1 AND lease_token = $2")
            .bind(id)
            .bind(TOKEN)
            .fetch_optional(&self.pool)
            .await
            .unwrap()
            .unwrap_or(false)
    }
}

/// A leased job without its id.
fn told(job: &LeasedJob) -> String {
    let mut job = job.clone();
    job.transaction_id.clear();
    job.id.0 = Uuid::nil();
    format!("{job:?}")
}

#[tokio::test]
async fn the_short_way_ends_where_the_long_way_ends() {
    let bed = Bed::new().await;
    bed.run("UPDATE accounts SET next_slot_at = database_now() + interval '7 ms', other_calls = 40").await;
    let call_back = async |account, base: u128| {
        for (n, lane, authenticated) in [(1, 1, true), (2, 0, true), (3, 1, true), (4, 1, true), (5, 1, false)] {
            let id = bed.registered(account, base + n).await;
            bed.hint(account, id, lane, "callback", authenticated).await;
        }
        // Polled without success before, and due for the next poll.
        for (n, due_in) in [(1, TimeDelta::seconds(-90)), (4, TimeDelta::minutes(1)), (5, TimeDelta::minutes(1))] {
            let update = "UPDATE collect_jobs SET faults = 3, running = 2, checks = 5, last_error = 'x', due_at = $2
                WHERE verification_id = $1";
            let update = sqlx::query(update).bind(Uuid::from_u128(base + n)).bind(bed.now + due_in);
            update.execute(&bed.pool).await.unwrap();
        }
    };
    call_back(LONG, 100).await;
    assert_eq!(bed.store.take_hints(100, bed.now).await.unwrap().nudged.len(), 5);
    let long = bed.store.lease_due(bed.lease(LONG, 100, 50)).await.unwrap();
    assert_eq!(long.jobs.len(), 5);

    call_back(SHORT, 200).await;
    let short = bed.short_way(100, 50).await;
    assert_eq!(short.rest, HintsLeft::None);
    let tell = |jobs: &[LeasedJob]| jobs.iter().map(told).collect::<Vec<_>>();
    assert_eq!(tell(&short.jobs), tell(&long.jobs));
    assert_eq!(bed.rows(SHORT).await, bed.rows(LONG).await);
    assert_eq!(bed.hints_left().await, 0);
}

#[tokio::test]
async fn what_is_not_the_first_callback_of_an_open_verification_goes_the_long_way() {
    let bed = Bed::new().await;
    let first = bed.called_back(SHORT, 1).await;
    let twice = bed.called_back(SHORT, 2).await;
    bed.hint(SHORT, twice, 1, "callback", true).await;
    let (repeated, leased, nudged) =
        (bed.called_back(SHORT, 3).await, bed.called_back(SHORT, 4).await, bed.called_back(SHORT, 5).await);
    bed.run(
        "UPDATE collect_jobs SET callbacks = 1, callback_at = database_now()
        WHERE verification_id = '00000000-0000-0000-0000-000000000003';
        UPDATE collect_jobs SET lease_token = gen_random_uuid(), leased_until = database_now() + interval '5 s'
        WHERE verification_id = '00000000-0000-0000-0000-000000000004';
        UPDATE collect_jobs SET nudged_at = database_now()
        WHERE verification_id = '00000000-0000-0000-0000-000000000005'",
    )
    .await;
    let collected = bed.registered(SHORT, 6).await;
    bed.hint(SHORT, collected, 1, "collect", true).await;
    // Somebody has ended this one.
    let closed = bed.called_back(SHORT, 7).await;
    bed.run("DELETE FROM collect_jobs WHERE verification_id = '00000000-0000-0000-0000-000000000007'").await;

    let short = bed.short_way(100, 50).await;
    assert_eq!(short.rest, HintsLeft::Others);
    let ids: Vec<Uuid> = short.jobs.iter().map(|job| job.id.0).collect();
    assert_eq!(ids, [first, twice]);
    for id in [repeated, leased, nudged, collected, closed] {
        assert!(!bed.is_leased(id).await, "{id}");
    }
    assert_eq!(bed.hints_left().await, 6);
    bed.store.take_hints(100, bed.now).await.unwrap();
    assert_eq!(bed.hints_left().await, 0);
    let remembered: i64 = sqlx::query_scalar("SELECT count(*) FROM history WHERE kind IN ('callback', 'operator')")
        .fetch_one(&bed.pool)
        .await
        .unwrap();
    assert_eq!(remembered, 8, "each once");
    let callbacks: i32 = sqlx::query_scalar("SELECT callbacks FROM collect_jobs WHERE verification_id = $1")
        .bind(twice)
        .fetch_one(&bed.pool)
        .await
        .unwrap();
    assert_eq!(callbacks, 2);
}

#[tokio::test]
async fn no_more_is_taken_than_there_is_room_and_budget_for() {
    let bed = Bed::new().await;
    for n in 1..=3 {
        bed.called_back(SHORT, n).await;
    }
    let leased = bed.short_way(100, 2).await;
    assert_eq!((leased.jobs.len(), leased.rest), (2, HintsLeft::More));
    let leased = bed.short_way(100, 2).await;
    assert_eq!((leased.jobs.len(), leased.rest), (1, HintsLeft::None));
    // A small account is counted call by call.
    bed.run("UPDATE accounts SET next_slot_at = 'epoch', next_bulk_at = 'epoch', recent_slots = '{}'").await;
    for n in 4..=6 {
        bed.called_back(SHORT, n).await;
    }
    let leased = bed.short_way(3, 50).await;
    assert_eq!((leased.jobs.len(), leased.rest), (1, HintsLeft::Others));
    assert!(leased.jobs[0].slot_in.abs() < f64::EPSILON);
    let leased = bed.short_way(3, 50).await;
    assert_eq!((leased.jobs.len(), leased.rest), (0, HintsLeft::Others), "its next slot is beyond the horizon");
    assert_eq!(bed.hints_left().await, 2);
}

#[tokio::test]
async fn an_account_that_is_not_well_goes_the_long_way() {
    let bed = Bed::new().await;
    let id = bed.called_back(SHORT, 1).await;
    for unwell in [
        "UPDATE accounts SET hold_until = database_now() + interval '1 s'",
        "UPDATE accounts SET failing_since = database_now(), probe_at = database_now() - interval '1 s'",
        "UPDATE accounts SET throttles = 1",
        "UPDATE accounts SET unanswered = 1",
        "DELETE FROM accounts",
    ] {
        bed.run(unwell).await;
        let leased = bed.short_way(100, 50).await;
        assert_eq!((leased.jobs.len(), leased.rest), (0, HintsLeft::Others), "{unwell}");
        assert!(!bed.is_leased(id).await, "{unwell}");
        assert_eq!(bed.hints_left().await, 1, "{unwell}");
        bed.run("DELETE FROM accounts").await;
        bed.store.add_accounts(&[SHORT.to_owned()]).await.unwrap();
    }
    // A hold that is over holds nothing.
    bed.run("UPDATE accounts SET hold_until = database_now()").await;
    assert_eq!(bed.short_way(100, 50).await.jobs.len(), 1);
}

#[tokio::test]
async fn two_at_once_share_the_hints_and_the_slots() {
    let bed = Bed::new().await;
    for n in 1..=40 {
        bed.called_back(SHORT, n).await;
    }
    let rounds = futures_util::future::join_all((0..8).map(|_| bed.short_way(1_000, 10))).await;
    let mut jobs: Vec<LeasedJob> = rounds.into_iter().flat_map(|round| round.jobs).collect();
    // Hints that another one looked at were passed over.
    while jobs.len() < 40 {
        let more = bed.short_way(1_000, 10).await.jobs;
        assert!(!more.is_empty(), "{} leased", jobs.len());
        jobs.extend(more);
    }
    jobs.sort_by(|a, b| a.slot_in.total_cmp(&b.slot_in));
    let apart: Vec<f64> = jobs.windows(2).map(|two| two[1].slot_in - two[0].slot_in).collect();
    assert!(apart.iter().all(|apart| *apart > 0.001), "{apart:?}");
    jobs.sort_by_key(|job| job.id.0);
    jobs.dedup_by_key(|job| job.id.0);
    assert_eq!((jobs.len(), bed.hints_left().await), (40, 0));
}

#[tokio::test]
async fn a_job_that_ends_meanwhile_leaves_its_hint() {
    let bed = Bed::new().await;
    bed.called_back(SHORT, 1).await;
    let mut ending = bed.pool.begin().await.unwrap();
    sqlx::query("DELETE FROM collect_jobs").execute(&mut *ending).await.unwrap();
    let committing = async {
        somebody_waits(&bed.pool, "").await;
        ending.commit().await.unwrap();
    };
    let (leased, ()) = tokio::join!(bed.short_way(100, 50), committing);
    assert_eq!((leased.jobs.len(), leased.rest), (0, HintsLeft::Others));
    let calls: i64 = sqlx::query_scalar("SELECT other_calls FROM accounts WHERE account = $1")
        .bind(SHORT)
        .fetch_one(&bed.pool)
        .await
        .unwrap();
    assert_eq!((bed.hints_left().await, calls), (1, 0), "no slot was taken");
}

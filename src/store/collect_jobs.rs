//! Leased work: which verification is asked about next, and by whom. What came of it is stored in `checked`.
//!
//! A lease is a token and a time by the database's clock. Every write of a worker names its token; a write whose
//! lease is lost changes nothing. One row lock on the account makes replicas take turns at leasing, so the slots that
//! they take for their calls never overlap.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use super::records::first_id_at;
use super::{Store, StoreError};
use crate::domain::VerificationId;

/// How an account's calls are paced.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// Calls a second that the provider allows.
    pub qps: u32,
    /// How much later than its slot a call may arrive at the provider without breaking the limit there.
    pub slack: Duration,
    /// How far ahead slots are taken.
    pub horizon: Duration,
    /// What a lowered rate wins back each second, as a share of `qps`.
    pub recovery: f64,
}

/// What a worker asks for.
#[derive(Clone, Copy, Debug)]
pub struct Lease<'a> {
    pub account: &'a str,
    pub token: Uuid,
    pub limit: i64,
    pub length: Duration,
    pub rate: Rate,
    pub now: DateTime<Utc>,
    /// While the account fails: when it is probed after this probe, should that one get lost.
    pub next_probe_at: DateTime<Utc>,
}

/// Whose deadline is over: hinted until `hinted_before`, or never hinted and registered until `registered_before`.
#[derive(Clone, Copy, Debug)]
pub struct Overdue<'a> {
    pub account: &'a str,
    pub token: Uuid,
    pub limit: i64,
    pub length: Duration,
    pub hinted_before: DateTime<Utc>,
    pub registered_before: DateTime<Utc>,
}

/// How an account was when a job of it was leased.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Well,
    /// Its last answers were throttled.
    Throttled,
    /// It fails, and this job's call is the one probe.
    Probed,
}

/// A verification that this worker may ask about until its lease runs out.
#[derive(Clone, Debug)]
pub struct LeasedJob {
    pub id: VerificationId,
    pub token: Uuid,
    pub transaction_id: String,
    pub merchant_biz_id: String,
    pub product: Option<String>,
    pub expect_video: bool,
    pub registered_at: DateTime<Utc>,
    pub hinted_at: Option<DateTime<Utc>>,
    pub callback_at: Option<DateTime<Utc>>,
    pub recheck: bool,
    pub checks: u32,
    pub running: u32,
    pub faults: u32,
    /// Seconds until the slot of its call, counted when the database answered; below zero when it has passed.
    pub slot_in: f64,
    /// How its account was when the lease was taken.
    pub standing: Standing,
}

/// What was leased at once.
#[derive(Clone, Debug)]
pub struct Leased {
    pub jobs: Vec<LeasedJob>,
    /// The budget and the limit left room for more, so these are all that were due. Never when there are none: the
    /// account may be held, or have no budget.
    pub is_all: bool,
}

fn count(value: i32) -> u32 {
    u32::try_from(value).unwrap_or(0)
}

impl Store {
    /// Leases what is due, most urgent first, as far as the account's budget reaches within the horizon.
    ///
    /// A held account gets nothing; a failing one gets one probe when its time has come.
    pub async fn lease_due(&self, lease: Lease<'_>) -> Result<Leased, StoreError> {
        let rows = sqlx::query!(
            r#"-- lease_due
            WITH account AS MATERIALIZED (
                SELECT account, failing_since IS NOT NULL AS failing, throttles > 0 AS throttled, slot_at,
                    (1 + $9::double precision) * 1.001 / effective AS spacing,
                    CASE
                        WHEN hold_until > $2 THEN 0
                        WHEN failing_since IS NOT NULL THEN CASE WHEN probe_at <= $2 THEN 1 ELSE 0 END
                        ELSE least($3::bigint, greatest(0, floor(($7::double precision
                                - extract(epoch FROM slot_at - database_now())::double precision)
                            * effective / (1 + $9::double precision))::bigint + 1))
                    END AS most
                FROM (
                    SELECT *, greatest(next_slot_at, database_now()) AS slot_at,
                        CASE
                            WHEN rate IS NULL THEN $6::double precision
                            ELSE least($6::double precision, rate + $6::double precision * $8::double precision
                                * greatest(0, extract(epoch FROM $2 - rate_at)::double precision))
                        END AS effective
                    FROM accounts
                    WHERE account = $1
                    FOR UPDATE
                ) locked
            ), candidates AS MATERIALIZED (
                SELECT c.verification_id, c.lane, c.due_at
                FROM unnest(ARRAY[0, 1, 2, 3]::smallint[]) AS lanes (lane)
                CROSS JOIN LATERAL (
                    SELECT j.verification_id, j.lane, j.due_at
                    FROM collect_jobs j
                    WHERE j.account = $1
                    AND j.lane = lanes.lane
                    AND j.lease_token IS NULL
                    AND j.due_at <= $2
                    ORDER BY j.due_at
                    LIMIT (SELECT most FROM account)
                ) c
                ORDER BY c.lane, c.due_at
                LIMIT (SELECT most FROM account)
            ), picked AS MATERIALIZED (
                SELECT j.verification_id
                FROM collect_jobs j
                WHERE j.verification_id = ANY (ARRAY(SELECT verification_id FROM candidates))
                AND j.lease_token IS NULL
                AND j.due_at <= $2
                FOR UPDATE OF j SKIP LOCKED
            ), leased AS (
                UPDATE collect_jobs j
                SET lease_token = $4, nudged_again = false, leased_until = database_now() + make_interval(secs => $5)
                WHERE j.verification_id = ANY (ARRAY(SELECT verification_id FROM picked))
                RETURNING j.verification_id, j.lane, j.due_at, j.hinted_at, j.callback_at, j.recheck, j.checks,
                    j.running, j.faults
            ), moved AS (
                UPDATE accounts a
                SET next_slot_at = b.slot_at + make_interval(secs => b.spacing * l.jobs),
                    probe_at = CASE WHEN b.failing THEN $10 ELSE a.probe_at END
                FROM account b, (SELECT count(*) AS jobs FROM leased) l
                WHERE a.account = b.account
                AND l.jobs > 0
            )
            SELECT l.verification_id AS "verification_id!", v.transaction_id AS "transaction_id!",
                v.merchant_biz_id AS "merchant_biz_id!", v.product, v.expect_video AS "expect_video!",
                v.registered_at AS "registered_at!", l.hinted_at, l.callback_at, l.recheck AS "recheck!", l.checks AS "checks!", l.running AS "running!",
                l.faults AS "faults!", a.failing AS "failing!", a.throttled AS "throttled!", a.most AS "most!",
                (extract(epoch FROM a.slot_at - database_now())::double precision
                    + a.spacing * (row_number() OVER (ORDER BY l.lane, l.due_at) - 1)) AS "slot_in!"
            FROM leased l
            CROSS JOIN LATERAL (
                SELECT *
                FROM verifications
                WHERE verifications.verification_id = l.verification_id
                LIMIT 1
            ) v
            CROSS JOIN account a
            CROSS JOIN (SELECT set_config('synchronous_commit', 'off', true)) AS quick
            ORDER BY l.lane, l.due_at"#,
            lease.account,
            lease.now,
            lease.limit,
            lease.token,
            lease.length.as_secs_f64(),
            f64::from(lease.rate.qps),
            lease.rate.horizon.as_secs_f64(),
            lease.rate.recovery,
            lease.rate.slack.as_secs_f64(),
            lease.next_probe_at,
        )
        .fetch_all(&self.pool)
        .await?;
        let is_all = rows.first().is_some_and(|row| i64::try_from(rows.len()).is_ok_and(|count| count < row.most));
        let jobs = rows
            .into_iter()
            .map(|row| LeasedJob {
                id: VerificationId(row.verification_id),
                token: lease.token,
                transaction_id: row.transaction_id,
                merchant_biz_id: row.merchant_biz_id,
                product: row.product,
                expect_video: row.expect_video,
                registered_at: row.registered_at,
                hinted_at: row.hinted_at,
                callback_at: row.callback_at,
                recheck: row.recheck,
                checks: count(row.checks),
                running: count(row.running),
                faults: count(row.faults),
                slot_in: row.slot_in,
                standing: match (row.failing, row.throttled) {
                    (true, _) => Standing::Probed,
                    (false, true) => Standing::Throttled,
                    (false, false) => Standing::Well,
                },
            })
            .collect();
        Ok(Leased { jobs, is_all })
    }

    /// Leases jobs whose deadline is over, which are ended without a call. So neither a short budget nor an account
    /// in trouble keeps them waiting, and they take no slot from the others.
    pub async fn lease_overdue(&self, overdue: Overdue<'_>) -> Result<Vec<LeasedJob>, StoreError> {
        let Overdue { account, token, limit, length, hinted_before, registered_before } = overdue;
        let rows = sqlx::query!(
            r#"-- lease_overdue
            WITH overdue AS (
                SELECT j.verification_id
                FROM collect_jobs j
                JOIN verifications v USING (verification_id)
                WHERE j.account = $1
                -- Nothing is hinted before it is registered, and ids are in the order of registration.
                AND j.verification_id < $7
                AND j.lease_token IS NULL
                AND coalesce(j.hinted_at <= $5, v.registered_at <= $6)
                LIMIT $3
                FOR UPDATE OF j SKIP LOCKED
            ), leased AS (
                UPDATE collect_jobs j
                SET lease_token = $2, nudged_again = false, leased_until = database_now() + make_interval(secs => $4)
                FROM overdue o
                WHERE j.verification_id = o.verification_id
                RETURNING j.verification_id, j.hinted_at, j.callback_at, j.recheck, j.checks, j.running, j.faults
            )
            SELECT l.verification_id AS "verification_id!", v.transaction_id AS "transaction_id!",
                v.merchant_biz_id AS "merchant_biz_id!", v.product, v.expect_video AS "expect_video!",
                v.registered_at AS "registered_at!", l.hinted_at, l.callback_at, l.recheck AS "recheck!",
                l.checks AS "checks!", l.running AS "running!", l.faults AS "faults!"
            FROM leased l
            JOIN verifications v USING (verification_id)"#,
            account,
            token,
            limit,
            length.as_secs_f64(),
            hinted_before,
            registered_before,
            first_id_at(hinted_before + TimeDelta::milliseconds(1)),
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows
            .into_iter()
            .map(|row| LeasedJob {
                id: VerificationId(row.verification_id),
                token,
                transaction_id: row.transaction_id,
                merchant_biz_id: row.merchant_biz_id,
                product: row.product,
                expect_video: row.expect_video,
                registered_at: row.registered_at,
                hinted_at: row.hinted_at,
                callback_at: row.callback_at,
                recheck: row.recheck,
                checks: count(row.checks),
                running: count(row.running),
                faults: count(row.faults),
                slot_in: 0.0,
                standing: Standing::Well,
            })
            .collect())
    }

    /// When the account's next job is due, or later, when the account is held or failing until then; `None` when
    /// nothing is scheduled. Leased jobs do not count.
    pub async fn next_due(&self, account: &str) -> Result<Option<DateTime<Utc>>, StoreError> {
        let due = sqlx::query_scalar!(
            r#"-- next_due
            SELECT CASE WHEN min(c.due_at) IS NOT NULL THEN greatest(min(c.due_at), (
                SELECT greatest(a.hold_until, CASE WHEN a.failing_since IS NOT NULL THEN a.probe_at END)
                FROM accounts a
                WHERE a.account = $1
            )) END
            FROM unnest(ARRAY[0, 1, 2, 3]::smallint[]) AS lanes (lane)
            CROSS JOIN LATERAL (
                SELECT j.due_at
                FROM collect_jobs j
                WHERE j.account = $1
                AND j.lane = lanes.lane
                AND j.lease_token IS NULL
                ORDER BY j.due_at
                LIMIT 1
            ) c"#,
            account
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(due)
    }

    /// Makes leases last for `length` from now; returns the jobs whose lease still stood.
    pub async fn renew_leases(
        &self,
        jobs: &[(VerificationId, Uuid)],
        length: Duration,
    ) -> Result<Vec<VerificationId>, StoreError> {
        let (ids, tokens): (Vec<Uuid>, Vec<Uuid>) = jobs.iter().map(|(id, token)| (id.0, *token)).unzip();
        let renewed = sqlx::query_scalar!(
            "-- renew_leases
            UPDATE collect_jobs j
            SET leased_until = database_now() + make_interval(secs => $3)
            FROM unnest($1::uuid[], $2::uuid[]) AS i (verification_id, token)
            WHERE j.verification_id = i.verification_id
            AND j.lease_token = i.token
            RETURNING j.verification_id",
            &ids,
            &tokens,
            length.as_secs_f64()
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(renewed.into_iter().map(VerificationId).collect())
    }

    /// Gives leases back unused, at a stop. Jobs whose lease was lost are left alone.
    pub async fn release_leases(&self, jobs: &[(VerificationId, Uuid)]) -> Result<u64, StoreError> {
        let (ids, tokens): (Vec<Uuid>, Vec<Uuid>) = jobs.iter().map(|(id, token)| (id.0, *token)).unzip();
        let done = sqlx::query!(
            "-- release_leases
            UPDATE collect_jobs j
            SET lease_token = NULL, leased_until = NULL
            FROM unnest($1::uuid[], $2::uuid[]) AS i (verification_id, token)
            WHERE j.verification_id = i.verification_id
            AND j.lease_token = i.token",
            &ids,
            &tokens
        )
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected())
    }

    /// Makes jobs available again whose lease ran out; returns the accounts they belong to.
    pub async fn recover_leases(&self) -> Result<Vec<String>, StoreError> {
        let accounts = sqlx::query_scalar!(
            "-- recover_leases
            UPDATE collect_jobs j
            SET lease_token = NULL, leased_until = NULL
            FROM (
                SELECT verification_id
                FROM collect_jobs
                WHERE lease_token IS NOT NULL
                AND leased_until < database_now()
                ORDER BY leased_until
                LIMIT 1000
                FOR UPDATE SKIP LOCKED
            ) dead
            WHERE j.verification_id = dead.verification_id
            RETURNING j.account"
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(accounts)
    }
}

//! Leased work: jobs whose deadline is over, and the leases themselves. What is due is leased in `lease_due`, what came
//! of it is stored in `checks`.
//!
//! A lease is a token and a time by the database's clock. Every write of a worker names its token; a write whose
//! lease is lost changes nothing.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use super::lease_due::{LeasedJob, Pace, Standing, count, lane};
use super::records::first_id_at;
use super::{Store, StoreError};
use crate::domain::VerificationId;

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

/// What [`Store::sort_lanes`] did.
#[derive(Clone, Copy, Debug)]
pub struct Sorted {
    pub moved: i64,
    pub is_all: bool,
}

impl Store {
    /// Leases jobs whose deadline is over, which are ended without a call. So neither a short budget nor an account
    /// in trouble keeps them waiting, and they take no slot from the others.
    pub async fn lease_overdue(&self, overdue: Overdue<'_>) -> Result<Vec<LeasedJob>, StoreError> {
        let Overdue { account, token, limit, length, hinted_before, registered_before } = overdue;
        let rows = sqlx::query!(
            r#"-- lease_overdue
            WITH overdue AS (
                SELECT j.verification_id
                FROM collect_jobs j
                CROSS JOIN LATERAL (
                    SELECT registered_at
                    FROM verifications
                    WHERE verifications.verification_id = j.verification_id
                    LIMIT 1
                ) v
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
                WHERE j.verification_id = ANY (ARRAY(SELECT verification_id FROM overdue))
                RETURNING j.verification_id, j.lane, j.hinted_at, j.callback_at, j.recheck, j.checks, j.running, j.faults
            )
            SELECT l.verification_id AS "verification_id!", v.transaction_id AS "transaction_id!",
                v.merchant_biz_id AS "merchant_biz_id!", v.product, v.expect_video AS "expect_video!",
                v.registered_at AS "registered_at!", l.hinted_at, l.callback_at, l.recheck AS "recheck!",
                l.checks AS "checks!", l.running AS "running!", l.faults AS "faults!", l.lane AS "lane!"
            FROM leased l
            CROSS JOIN LATERAL (
                SELECT *
                FROM verifications
                WHERE verifications.verification_id = l.verification_id
                LIMIT 1
            ) v"#,
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
        rows.into_iter()
            .map(|row| {
                Ok(LeasedJob {
                    id: VerificationId(row.verification_id),
                    token,
                    lane: lane(row.lane, row.verification_id)?,
                    pace: Pace::Urgent,
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
            })
            .collect()
    }

    /// When the account's next job is due, or later, when the account is held or failing until then; `None` when
    /// nothing is scheduled. Leased jobs do not count.
    pub async fn next_due(&self, account: &str) -> Result<Option<DateTime<Utc>>, StoreError> {
        let due = sqlx::query_scalar!(
            r#"-- next_due
            SELECT CASE WHEN c.due_at IS NOT NULL THEN greatest(c.due_at, (
                SELECT greatest(a.hold_until, CASE WHEN a.failing_since IS NOT NULL THEN a.probe_at END)
                FROM accounts a
                WHERE a.account = $1
            )) END
            FROM first_due($1) c"#,
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
            WHERE j.verification_id = ANY ($1)
            AND j.verification_id = i.verification_id
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
            WHERE j.verification_id = ANY ($1)
            AND j.verification_id = i.verification_id
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
            WHERE j.verification_id = ANY (ARRAY(
                SELECT verification_id
                FROM collect_jobs
                WHERE lease_token IS NOT NULL
                AND leased_until < database_now()
                ORDER BY leased_until
                LIMIT 1000
                FOR UPDATE SKIP LOCKED
            ))
            RETURNING j.account"
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(accounts)
    }

    /// Puts jobs into the lane that they belong in by now, `limit` from each: out of the lane of videos those whose
    /// video is gone (hinted until `videos_gone`), out of that of fresh ones those due for so long that they are fresh
    /// no more. What was asked for after `stale` is fresh.
    pub async fn sort_lanes(
        &self,
        account: &str,
        videos_gone: DateTime<Utc>,
        stale: DateTime<Utc>,
        limit: i64,
    ) -> Result<Sorted, StoreError> {
        let row = sqlx::query!(
            r#"-- sort_lanes
            WITH wrong AS (
                SELECT w.verification_id
                FROM unnest(ARRAY[0, 1]::smallint[], ARRAY[$2, $3]::timestamptz[]) AS lanes (lane, until)
                CROSS JOIN LATERAL (
                    SELECT j.verification_id
                    FROM collect_jobs j
                    WHERE j.account = $1
                    AND j.lane = lanes.lane
                    AND j.lease_token IS NULL
                    AND lane_place(j.lane, j.hinted_at, j.due_at) <= lanes.until
                    ORDER BY lane_place(j.lane, j.hinted_at, j.due_at)
                    LIMIT $4
                ) w
            ), locked AS (
                SELECT j.verification_id
                FROM collect_jobs j
                WHERE j.verification_id = ANY (ARRAY(SELECT verification_id FROM wrong))
                -- As in `lease_due`.
                AND num_nulls(j.lease_token) = 1
                FOR UPDATE OF j SKIP LOCKED
            ), moved AS (
                UPDATE collect_jobs j
                SET lane = CASE WHEN j.lane = 0 AND j.nudged_at > $3 AND j.due_at > $3 THEN 1 ELSE 2 END
                WHERE j.verification_id = ANY (ARRAY(SELECT verification_id FROM locked))
                RETURNING j.verification_id
            )
            SELECT (SELECT count(*) FROM moved) AS "moved!", (SELECT count(*) FROM wrong) AS "found!""#,
            account,
            videos_gone,
            stale,
            limit
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(Sorted { moved: row.moved, is_all: row.found < limit })
    }
}

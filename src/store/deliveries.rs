//! Deliveries: leases on events that are due at an endpoint, and how each attempt ended. A write whose lease is lost
//! changes nothing.

use std::time::Duration;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{Store, StoreError};
use crate::domain::{Event, VerificationId};

/// What is to be leased.
#[derive(Clone, Debug)]
pub struct DeliveryLease<'a> {
    pub endpoint: &'a str,
    pub token: Uuid,
    pub limit: i64,
    pub length: Duration,
    /// Attempts in a row that failed, after which one delivery at a time is given.
    pub failing_after: i32,
    /// The next one then, should nobody write how this one ended.
    pub probe_over_at: DateTime<Utc>,
    pub now: DateTime<Utc>,
}

/// A delivery that this worker may attempt until its lease runs out.
#[derive(Clone, Debug)]
pub struct LeasedDelivery {
    pub id: i64,
    pub token: Uuid,
    pub endpoint: String,
    /// Attempts made before.
    pub attempts: u32,
    pub event: Event,
}

/// How an attempt ended.
#[derive(Clone, Debug)]
pub struct Attempt<'a> {
    pub id: i64,
    pub token: Uuid,
    pub end: AttemptEnd,
    /// In a word.
    pub result: &'static str,
    /// Of the answer; `None` where there was none.
    pub status: Option<u16>,
    /// Why it failed, in words of ours.
    pub reason: Option<&'a str>,
    pub duration: Duration,
    /// The beginning of the answer, with everything taken out that could be personal or secret.
    pub answer: Option<&'a str>,
    /// The endpoint wants nothing any more.
    pub disables: bool,
    pub at: DateTime<Utc>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptEnd {
    Delivered,
    Again(DateTime<Utc>),
    GivenUp,
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

impl Store {
    /// Leases what is due at an endpoint, the longest due first, also what dead workers held. Nothing where it is
    /// disabled; where it fails, one at a time.
    pub async fn lease_deliveries(&self, lease: &DeliveryLease<'_>) -> Result<Vec<LeasedDelivery>, StoreError> {
        let rows = sqlx::query!(
            r#"-- lease_deliveries
            WITH probe AS (
                UPDATE endpoints
                SET paused_until = $7
                WHERE endpoint = $1
                AND disabled_at IS NULL
                AND failures >= $6
                AND (paused_until IS NULL OR paused_until <= $5)
                AND EXISTS (
                    SELECT
                    FROM deliveries
                    WHERE deliveries.endpoint = $1
                    AND state = 'pending'
                    AND due_at <= $5
                    AND (leased_until IS NULL OR leased_until < database_now())
                )
                RETURNING endpoint
            ), room AS MATERIALIZED (
                SELECT CASE WHEN failures < $6 THEN $3 ELSE (SELECT count(*) FROM probe) END AS room
                FROM endpoints
                WHERE endpoint = $1
                AND disabled_at IS NULL
            ), due AS MATERIALIZED (
                SELECT delivery_id
                FROM deliveries
                WHERE endpoint = $1
                AND state = 'pending'
                AND due_at <= $5
                AND (leased_until IS NULL OR leased_until < database_now())
                ORDER BY due_at, delivery_id
                LIMIT coalesce((SELECT room FROM room), 0)
                FOR UPDATE SKIP LOCKED
            ), leased AS (
                UPDATE deliveries
                SET lease_token = $2, leased_until = database_now() + make_interval(secs => $4)
                WHERE delivery_id = ANY (ARRAY(SELECT delivery_id FROM due))
                RETURNING delivery_id, event_id, endpoint, due_at, attempts
            )
            SELECT l.delivery_id AS "delivery_id!", l.endpoint AS "endpoint!", l.attempts AS "attempts!",
                e.event_id AS "event_id!", e.verification_id AS "verification_id!", e.type AS "type!",
                e.account AS "account!", e.merchant_biz_id AS "merchant_biz_id!", e.status AS "status!",
                e.revision AS "revision!", e.occurred_at AS "occurred_at!"
            FROM leased l
            CROSS JOIN (SELECT set_config('synchronous_commit', 'off', true)) AS quick
            CROSS JOIN LATERAL (
                SELECT *
                FROM events
                WHERE events.event_id = l.event_id
                LIMIT 1
            ) e
            ORDER BY l.due_at, l.delivery_id"#,
            lease.endpoint,
            lease.token,
            lease.limit,
            lease.length.as_secs_f64(),
            lease.now,
            lease.failing_after,
            lease.probe_over_at,
        )
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter()
            .map(|row| {
                let inconsistent =
                    |_| StoreError::Inconsistent { table: "events", column: "type", row: row.event_id.to_string() };
                let event = Event {
                    id: row.event_id,
                    r#type: row.r#type.parse().map_err(inconsistent)?,
                    verification: VerificationId(row.verification_id),
                    account: row.account,
                    merchant_biz_id: row.merchant_biz_id,
                    status: row.status,
                    revision: row.revision,
                    occurred_at: row.occurred_at,
                };
                Ok(LeasedDelivery {
                    id: row.delivery_id,
                    token: lease.token,
                    endpoint: row.endpoint,
                    attempts: u32::try_from(row.attempts).unwrap_or(0),
                    event,
                })
            })
            .collect()
    }

    /// Makes a lease last for `length` from now. False when it was lost.
    pub async fn renew_delivery(&self, id: i64, token: Uuid, length: Duration) -> Result<bool, StoreError> {
        let done = sqlx::query!(
            "-- renew_delivery
            UPDATE deliveries
            SET leased_until = database_now() + make_interval(secs => $3)
            WHERE delivery_id = $1
            AND lease_token = $2",
            id,
            token,
            length.as_secs_f64()
        )
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Gives leases back that nothing was done under, or whose attempt was cut off at a stop.
    pub async fn release_deliveries(&self, leases: &[(i64, Uuid)]) -> Result<u64, StoreError> {
        let (ids, tokens): (Vec<i64>, Vec<Uuid>) = leases.iter().copied().unzip();
        let done = sqlx::query!(
            "-- release_deliveries
            UPDATE deliveries d
            SET lease_token = NULL, leased_until = NULL
            FROM unnest($1::bigint[], $2::uuid[]) AS i (delivery_id, token)
            WHERE d.delivery_id = ANY ($1)
            AND d.delivery_id = i.delivery_id
            AND d.lease_token = i.token",
            &ids,
            &tokens
        )
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected())
    }

    /// Stores how an attempt ended, what the history says of it, and how the endpoint fares: after `failing_after`
    /// failures in a row the next attempt waits 5 s, doubling to 60 s. False when the lease was lost; then nothing
    /// changes.
    pub async fn record_attempt(&self, attempt: &Attempt<'_>, failing_after: i32) -> Result<bool, StoreError> {
        let (state, due_at) = match attempt.end {
            AttemptEnd::Delivered => ("delivered", None),
            AttemptEnd::Again(due_at) => ("pending", Some(due_at)),
            AttemptEnd::GivenUp => ("failed", None),
        };
        let recorded = sqlx::query_scalar!(
            r#"-- record_attempt
            WITH done AS (
                UPDATE deliveries
                SET state = $3::text, due_at = coalesce($4, due_at), attempts = attempts + 1, lease_token = NULL,
                    leased_until = NULL, last_attempt_at = $5::timestamptz, last_result = $6, last_status = $7, last_duration_ms = $8,
                    ended_at = CASE WHEN $3 <> 'pending' THEN $5 END
                WHERE delivery_id = $1
                AND lease_token = $2
                -- The same as being pending, but no index serves it: that of what is pending might be read whole.
                AND ended_at IS NULL
                RETURNING event_id, endpoint, verification_id, attempts
            ), told AS (
                SELECT d.*, e.type
                FROM done d
                CROSS JOIN LATERAL (
                    SELECT type
                    FROM events
                    WHERE events.event_id = d.event_id
                    LIMIT 1
                ) e
            ), known AS MATERIALIZED (
                -- An erasure waits for this, or is over first: then nothing of the answer is kept.
                SELECT verification_id, erased_at
                FROM verifications
                WHERE verification_id = ANY (ARRAY(SELECT verification_id FROM done))
                FOR KEY SHARE
            ), remembered AS (
                INSERT INTO history (verification_id, at, kind, detail)
                SELECT t.verification_id, $5, 'webhook', json_strip_nulls(json_build_object('endpoint', t.endpoint,
                    'event_id', t.event_id, 'type', t.type, 'attempt', t.attempts, 'result', $6::text, 'status', $7::integer,
                    'reason', $9::text, 'duration_ms', $8::bigint,
                    'answer', CASE WHEN k.erased_at IS NULL THEN $10::text END))
                FROM told t
                JOIN known k USING (verification_id)
            ), well AS (
                UPDATE endpoints
                SET failures = 0, paused_until = NULL, last_success_at = $5
                WHERE endpoint = ANY (ARRAY(SELECT endpoint FROM done))
                AND $3 = 'delivered'
                -- Not at each, because they would wait for each other.
                AND (failures > 0 OR last_success_at IS NULL OR last_success_at < $5::timestamptz - interval '10 s')
            ), unwell AS (
                UPDATE endpoints
                SET failures = failures + 1,
                    paused_until = CASE
                        WHEN failures + 1 >= $11
                        THEN $5::timestamptz + least(power(2, least(failures + 1 - $11, 4)) * 5, 60) * interval '1 s'
                    END,
                    last_failure_at = $5,
                    last_failure = $9,
                    disabled_at = CASE WHEN $12 THEN coalesce(disabled_at, $5) ELSE disabled_at END,
                    disabled_reason = CASE WHEN $12 THEN coalesce(disabled_reason, $9) ELSE disabled_reason END
                WHERE endpoint = ANY (ARRAY(SELECT endpoint FROM done))
                AND $3 <> 'delivered'
            )
            SELECT count(*) AS "count!"
            FROM done"#,
            attempt.id,
            attempt.token,
            state,
            due_at,
            attempt.at,
            attempt.result,
            attempt.status.map(i32::from),
            millis(attempt.duration),
            attempt.reason,
            attempt.answer,
            failing_after,
            attempt.disables,
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(recorded == 1)
    }

    /// When the longest due delivery of `endpoint` is or was due; `None`: nothing is pending.
    pub async fn oldest_delivery(&self, endpoint: &str) -> Result<Option<DateTime<Utc>>, StoreError> {
        let due_at = sqlx::query_scalar!(
            "-- oldest_delivery
            SELECT due_at
            FROM deliveries
            WHERE endpoint = $1
            AND state = 'pending'
            ORDER BY due_at, delivery_id
            LIMIT 1",
            endpoint
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(due_at)
    }
}

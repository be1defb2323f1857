//! Feeding: what a recheck in bulk matches becomes jobs, a little at a time.
//!
//! A part's `seen` is moved by the statement that inserts the jobs, under the lock of the part's row: so no
//! verification is taken twice or passed over, whichever replica feeds and whenever it dies. From then on its jobs are
//! rechecks like any other.

use chrono::{DateTime, Utc};
use sqlx::types::Json;
use uuid::Uuid;

use super::rechecks::RecheckFilter;
use super::{Session, Store, StoreError};
use crate::domain::schedule::Lane;

/// How many verdicts one step looks at, and how many jobs it inserts at most.
const LOOKED_AT: i64 = 5000;
const BATCH: i64 = 500;

/// What one step of feeding did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fed {
    pub queued: i64,
    /// There is room and there may be more to put there.
    pub more: bool,
}

impl Store {
    /// The accounts that a running recheck has still to feed.
    pub async fn feeding_accounts(&self) -> Result<Vec<String>, StoreError> {
        let accounts = sqlx::query_scalar!(
            "-- feeding_accounts
            SELECT DISTINCT account
            FROM recheck_parts
            WHERE state = 'feeding'"
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(accounts)
    }

    /// Puts the next verifications of the account's oldest recheck in line, while fewer than `most` wait there: of
    /// rechecks in any lane, and of due polls, which come first.
    pub async fn feed_recheck(&self, account: &str, most: i64, now: DateTime<Utc>) -> Result<Fed, StoreError> {
        let mut transaction = self.pool.begin().await?;
        let part = sqlx::query!(
            r#"-- feed_recheck: the part
            SELECT p.recheck_id, p.status, p.seen, r.filter AS "filter!: Json<RecheckFilter>", r.created_at
            FROM recheck_parts p
            JOIN rechecks r USING (recheck_id)
            WHERE p.account = $1
            AND p.state = 'feeding'
            ORDER BY p.recheck_id, p.status
            LIMIT 1
            FOR UPDATE OF p SKIP LOCKED"#,
            account
        )
        .fetch_optional(&mut *transaction)
        .await?;
        let Some(part) = part else { return Ok(Fed::default()) };
        let room = room(&mut transaction, account, most, now).await?;
        if room <= 0 {
            // Nothing was written; dropped, it would hold the part a moment longer than this call.
            transaction.commit().await?;
            return Ok(Fed::default());
        }
        let filter = part.filter.0;
        let fed = sqlx::query!(
            r#"-- feed_recheck
            WITH looked_at AS MATERIALIZED (
                SELECT d.verification_id, d.checks, d.sub_code, d.reason, d.decided_at
                FROM verdicts d
                WHERE d.account = $2
                AND d.status = $3
                AND d.superseded_at IS NULL
                AND d.verification_id > $4
                AND d.verification_id < $5
                ORDER BY d.verification_id
                LIMIT $6
            ), wanted AS MATERIALIZED (
                SELECT verification_id, checks
                FROM looked_at
                WHERE decided_at <= $7
                AND ($8::text IS NULL OR sub_code = $8)
                AND ($9::text IS NULL OR position($9 IN reason) > 0)
                ORDER BY verification_id
                LIMIT $10
            ), alive AS MATERIALIZED (
                -- An erasure holds these rows until it is committed. Of what it erased nothing is asked any more.
                SELECT verification_id
                FROM verifications
                WHERE verification_id = ANY (ARRAY(SELECT verification_id FROM wanted))
                AND erased_at IS NULL
                ORDER BY verification_id
                FOR KEY SHARE
            ), queued AS (
                INSERT INTO collect_jobs (verification_id, account, lane, due_at, hinted_at, recheck, checks, recheck_id)
                SELECT verification_id, $2, $11, $12, $12, true, checks, $1
                FROM wanted
                JOIN alive USING (verification_id)
                ORDER BY verification_id
                ON CONFLICT (verification_id) DO NOTHING
                RETURNING verification_id
            ), remembered AS (
                INSERT INTO history (verification_id, at, kind, detail)
                SELECT verification_id, $12, 'operator',
                    json_build_object('action', 'collect', 'recheck', true, 'recheck_id', $1)
                FROM queued
            ), counted AS (
                SELECT (SELECT count(*) FROM looked_at) AS looked_at, (SELECT count(*) FROM wanted) AS wanted,
                    (SELECT count(*) FROM queued) AS queued,
                    -- Of a full batch no more was looked at than its last.
                    (SELECT verification_id FROM wanted ORDER BY verification_id DESC LIMIT 1) AS last_wanted,
                    (SELECT verification_id FROM looked_at ORDER BY verification_id DESC LIMIT 1) AS last_looked_at
            )
            UPDATE recheck_parts p
            SET seen = CASE WHEN c.wanted = $10 THEN c.last_wanted ELSE coalesce(c.last_looked_at, p.seen) END,
                queued = p.queued + c.queued,
                skipped = p.skipped + c.wanted - c.queued,
                state = CASE WHEN c.wanted < $10 AND c.looked_at < $6 THEN 'fed' ELSE p.state END
            FROM counted c
            WHERE p.recheck_id = $1
            AND p.account = $2
            AND p.status = $3
            RETURNING c.queued AS "queued!""#,
            part.recheck_id,
            account,
            part.status,
            part.seen,
            filter.ids(part.created_at).1,
            LOOKED_AT,
            part.created_at,
            filter.sub_code,
            filter.reason_contains,
            room.min(BATCH),
            Lane::Poll.as_i16(),
            now,
        )
        .fetch_one(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(Fed { queued: fed.queued, more: room > fed.queued })
    }

    /// Ends the rechecks whose last check is done; returns which.
    pub async fn end_rechecks(&self, now: DateTime<Utc>) -> Result<Vec<Uuid>, StoreError> {
        let ended = sqlx::query_scalar!(
            "-- end_rechecks
            UPDATE rechecks r
            SET finished_at = $1
            WHERE finished_at IS NULL
            AND stopped_at IS NULL
            AND NOT EXISTS (
                SELECT
                FROM recheck_parts p
                WHERE p.recheck_id = r.recheck_id
                AND p.state = 'feeding'
            )
            AND NOT EXISTS (
                SELECT
                FROM collect_jobs j
                WHERE j.recheck_id = r.recheck_id
            )
            RETURNING recheck_id",
            now
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(ended)
    }
}

/// How many more may wait.
async fn room(connection: &mut Session, account: &str, most: i64, now: DateTime<Utc>) -> Result<i64, StoreError> {
    let waiting = sqlx::query_scalar!(
        r#"-- feed_recheck: what waits
        SELECT greatest(
            (
                SELECT count(*)
                FROM (SELECT FROM collect_jobs WHERE recheck_id IS NOT NULL AND account = $1 LIMIT $2) a
            ), (
                SELECT count(*)
                FROM (
                    SELECT
                    FROM collect_jobs j
                    WHERE j.account = $1
                    AND j.lane = $3
                    AND j.lease_token IS NULL
                    -- Of polls that is due_at.
                    AND lane_place(j.lane, j.hinted_at, j.due_at) <= $4
                    LIMIT $2
                ) b
            )
        ) AS "waiting!""#,
        account,
        most,
        Lane::Poll.as_i16(),
        now,
    )
    .fetch_one(connection)
    .await?;
    Ok(most - waiting)
}

//! Rechecks in bulk: what an operator wants asked again, and how far that has come.
//!
//! A recheck has one part for each account and final status. Feeding moves a part's `seen` in the statement that
//! inserts the jobs, under the lock of the part's row: so no verification is taken twice or passed over, whichever
//! replica feeds and whenever it dies. From then on its jobs are rechecks like any other.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use sqlx::types::Json;
use uuid::Uuid;

use super::records::first_id_at;
use super::{Store, StoreError};
use crate::domain::FinalStatus;
use crate::domain::schedule::Lane;

/// How many verdicts one step looks at, and how many jobs it inserts at most.
const LOOKED_AT: i64 = 5000;
const BATCH: i64 = 500;

/// Which final verifications are asked about again. What is none matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecheckFilter {
    pub status: Option<FinalStatus>,
    pub account: Option<String>,
    pub sub_code: Option<String>,
    /// Exactly so, in the reason of the verdict.
    pub reason_contains: Option<String>,
    pub registered_after: Option<DateTime<Utc>>,
    pub registered_before: Option<DateTime<Utc>>,
}

impl RecheckFilter {
    /// From this id, and below the second. Nothing that was registered after the wish is part of it.
    fn ids(&self, wished_at: DateTime<Utc>) -> (Uuid, Uuid) {
        let until = self.registered_before.map_or(wished_at, |before| before.min(wished_at));
        (self.registered_after.map_or(Uuid::nil(), first_id_at), first_id_at(until))
    }

    fn statuses(&self) -> Vec<&'static str> {
        match self.status {
            Some(status) => vec![status.as_str()],
            None => FinalStatus::ALL.map(FinalStatus::as_str).to_vec(),
        }
    }
}

/// How many verifications of an account and a status a filter matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MatchedPart {
    pub account: String,
    pub status: String,
    pub matched: i64,
}

pub struct NewRecheck<'a> {
    pub id: Uuid,
    pub filter: &'a RecheckFilter,
    pub parts: &'a [MatchedPart],
    pub now: DateTime<Utc>,
    pub by: Option<&'a str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecheckState {
    Running,
    Finished,
    Stopped,
}

impl RecheckState {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Finished => "finished",
            Self::Stopped => "stopped",
        }
    }
}

/// A recheck as it stands.
#[derive(Clone, Debug)]
pub struct Recheck {
    pub id: Uuid,
    pub filter: RecheckFilter,
    pub state: RecheckState,
    pub created_at: DateTime<Utc>,
    pub created_by: Option<String>,
    /// When it finished or was stopped.
    pub ended_at: Option<DateTime<Utc>>,
    pub matched: i64,
    /// Of those, asked about or passed over.
    pub done: i64,
    /// Passed over, because they had an open job.
    pub skipped: i64,
    /// Put in line and not asked about yet.
    pub waiting: i64,
    /// Have another verdict since.
    pub revised: i64,
}

/// What one step of feeding did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fed {
    pub queued: i64,
    /// There is room and there may be more to put there.
    pub more: bool,
}

impl Store {
    /// Counts what the filter matches. Reads each verdict of its statuses and ids once.
    pub async fn count_recheck(
        &self,
        filter: &RecheckFilter,
        accounts: &[&str],
        now: DateTime<Utc>,
    ) -> Result<Vec<MatchedPart>, StoreError> {
        let (from, until) = filter.ids(now);
        let rows = sqlx::query!(
            r#"-- count_recheck
            SELECT a.account AS "account!", s.status AS "status!", c.matched AS "matched!"
            FROM unnest($1::text[]) AS a (account)
            CROSS JOIN unnest($2::text[]) AS s (status)
            CROSS JOIN LATERAL (
                SELECT count(*) AS matched
                FROM verdicts d
                WHERE d.account = a.account COLLATE "C"
                AND d.status = s.status COLLATE "C"
                AND d.superseded_at IS NULL
                AND d.verification_id >= $3
                AND d.verification_id < $4
                AND ($5::text IS NULL OR d.sub_code = $5)
                AND ($6::text IS NULL OR position($6 IN d.reason) > 0)
            ) c
            WHERE c.matched > 0
            ORDER BY a.account, s.status"#,
            accounts as _,
            &filter.statuses() as _,
            from,
            until,
            filter.sub_code,
            filter.reason_contains,
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows
            .into_iter()
            .map(|row| MatchedPart { account: row.account, status: row.status, matched: row.matched })
            .collect())
    }

    /// How many checks of the account are due until `until`, leased ones and those of bulk rechecks aside; at most
    /// `most`.
    pub async fn count_due(&self, account: &str, until: DateTime<Utc>, most: i64) -> Result<i64, StoreError> {
        let due = sqlx::query_scalar!(
            r#"-- count_due
            SELECT count(*) AS "due!"
            FROM (
                SELECT
                FROM unnest(ARRAY[0, 1, 2, 3]::smallint[]) AS lanes (lane)
                CROSS JOIN LATERAL (
                    SELECT
                    FROM collect_jobs j
                    WHERE j.account = $1
                    AND j.lane = lanes.lane
                    AND j.lease_token IS NULL
                    AND j.due_at <= $2
                    AND j.recheck_id IS NULL
                    LIMIT $3
                ) c
                LIMIT $3
            ) d"#,
            account,
            until,
            most,
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(due)
    }

    /// Stores the wish, or finds the running recheck with the same filter; false then.
    pub async fn create_recheck(&self, new: &NewRecheck<'_>) -> Result<(Uuid, bool), StoreError> {
        let mut transaction = self.pool.begin().await?;
        // Two of the same wish at once: the second finds the first.
        sqlx::query!("-- create_recheck: in turn\nSELECT pg_advisory_xact_lock(hashtextextended('rechecks', 0))")
            .fetch_one(&mut *transaction)
            .await?;
        let running = sqlx::query!(
            r#"-- create_recheck: those that run
            SELECT recheck_id, filter AS "filter!: Json<RecheckFilter>"
            FROM rechecks
            WHERE finished_at IS NULL
            AND stopped_at IS NULL"#
        )
        .fetch_all(&mut *transaction)
        .await?;
        if let Some(same) = running.into_iter().find(|row| row.filter.0 == *new.filter) {
            return Ok((same.recheck_id, false));
        }
        let accounts: Vec<&str> = new.parts.iter().map(|part| part.account.as_str()).collect();
        let statuses: Vec<&str> = new.parts.iter().map(|part| part.status.as_str()).collect();
        let matched: Vec<i64> = new.parts.iter().map(|part| part.matched).collect();
        let (from, _) = new.filter.ids(new.now);
        // The lowest id of all is no verification's.
        let seen = Uuid::from_u128(from.as_u128().saturating_sub(1));
        sqlx::query!(
            "-- create_recheck
            WITH wish AS (
                INSERT INTO rechecks (recheck_id, filter, created_at, created_by)
                VALUES ($1, $2, $3, $4)
            )
            INSERT INTO recheck_parts (recheck_id, account, status, matched, seen)
            SELECT $1, p.account, p.status, p.matched, $5
            FROM unnest($6::text[], $7::text[], $8::bigint[]) AS p (account, status, matched)",
            new.id,
            Json(new.filter) as _,
            new.now,
            new.by,
            seen,
            &accounts as _,
            &statuses as _,
            &matched,
        )
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok((new.id, true))
    }

    pub async fn recheck(&self, id: Uuid) -> Result<Option<Recheck>, StoreError> {
        Ok(self.rechecks_among(Some(id), Uuid::max(), 1).await?.pop())
    }

    /// Newest first, from below the id.
    pub async fn rechecks(&self, below: Uuid, limit: i64) -> Result<Vec<Recheck>, StoreError> {
        self.rechecks_among(None, below, limit).await
    }

    async fn rechecks_among(&self, id: Option<Uuid>, below: Uuid, limit: i64) -> Result<Vec<Recheck>, StoreError> {
        let rows = sqlx::query!(
            r#"-- rechecks
            SELECT r.recheck_id, r.filter AS "filter!: Json<RecheckFilter>", r.created_at, r.created_by, r.finished_at,
                r.stopped_at, p.matched AS "matched!", p.queued AS "queued!", p.skipped AS "skipped!",
                (
                    SELECT count(*)
                    FROM collect_jobs j
                    WHERE j.recheck_id = r.recheck_id
                ) AS "waiting!",
                (
                    SELECT count(*)
                    FROM recheck_revisions v
                    WHERE v.recheck_id = r.recheck_id
                ) AS "revised!"
            FROM rechecks r
            CROSS JOIN LATERAL (
                SELECT coalesce(sum(matched), 0)::bigint AS matched, coalesce(sum(queued), 0)::bigint AS queued,
                    coalesce(sum(skipped), 0)::bigint AS skipped
                FROM recheck_parts
                WHERE recheck_parts.recheck_id = r.recheck_id
            ) p
            WHERE ($1::uuid IS NULL OR r.recheck_id = $1)
            AND r.recheck_id < $2
            ORDER BY r.recheck_id DESC
            LIMIT $3"#,
            id,
            below,
            limit,
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows
            .into_iter()
            .map(|row| Recheck {
                id: row.recheck_id,
                filter: row.filter.0,
                state: match (row.finished_at, row.stopped_at) {
                    (_, Some(_)) => RecheckState::Stopped,
                    (Some(_), None) => RecheckState::Finished,
                    (None, None) => RecheckState::Running,
                },
                created_at: row.created_at,
                created_by: row.created_by,
                ended_at: row.stopped_at.or(row.finished_at),
                matched: row.matched,
                done: row.queued + row.skipped - row.waiting,
                skipped: row.skipped,
                waiting: row.waiting,
                revised: row.revised,
            })
            .collect())
    }

    /// Stops a running recheck and takes back what waits untouched; checks that are under way, and what a callback or
    /// `collect` asked for meanwhile, go on. On one that has ended it does nothing.
    pub async fn stop_recheck(&self, id: Uuid, now: DateTime<Utc>) -> Result<(), StoreError> {
        let mut transaction = self.pool.begin().await?;
        // After whoever feeds a part has committed: what it inserted is seen below.
        let parts = sqlx::query!(
            "-- stop_recheck: the parts
            SELECT account, status
            FROM recheck_parts
            WHERE recheck_id = $1
            ORDER BY account, status
            FOR UPDATE",
            id
        )
        .fetch_all(&mut *transaction)
        .await?;
        let stopped = sqlx::query!(
            "-- stop_recheck
            UPDATE rechecks
            SET stopped_at = $2
            WHERE recheck_id = $1
            AND finished_at IS NULL
            AND stopped_at IS NULL",
            id,
            now
        )
        .execute(&mut *transaction)
        .await?;
        if stopped.rows_affected() == 0 {
            return Ok(());
        }
        // What was asked about already keeps its job, or its checks would be counted nowhere.
        let taken_back = sqlx::query!(
            r#"-- stop_recheck: take back
            WITH untouched AS (
                DELETE FROM collect_jobs j
                USING verdicts d
                WHERE j.recheck_id = $1
                AND j.lease_token IS NULL
                AND j.callbacks = 0
                AND j.nudged_at IS NULL
                AND d.verification_id = j.verification_id
                AND d.superseded_at IS NULL
                AND d.checks = j.checks
                RETURNING j.account, d.status
            )
            SELECT account AS "account!", status AS "status!", count(*) AS "jobs!"
            FROM untouched
            GROUP BY account, status"#,
            id
        )
        .fetch_all(&mut *transaction)
        .await?;
        for part in parts {
            let jobs = taken_back
                .iter()
                .find(|row| row.account == part.account && row.status == part.status)
                .map_or(0, |row| row.jobs);
            sqlx::query!(
                "-- stop_recheck: a part
                UPDATE recheck_parts
                SET state = CASE state WHEN 'feeding' THEN 'stopped' ELSE state END, queued = queued - $4
                WHERE recheck_id = $1
                AND account = $2
                AND status = $3",
                id,
                part.account,
                part.status,
                jobs,
            )
            .execute(&mut *transaction)
            .await?;
        }
        transaction.commit().await?;
        Ok(())
    }

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
            ), queued AS (
                INSERT INTO collect_jobs (verification_id, account, lane, due_at, hinted_at, recheck, checks, recheck_id)
                SELECT verification_id, $2, $11, $12, $12, true, checks, $1
                FROM wanted
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
async fn room(connection: &mut PgConnection, account: &str, most: i64, now: DateTime<Utc>) -> Result<i64, StoreError> {
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
                    FROM collect_jobs
                    WHERE account = $1
                    AND lane = $3
                    AND lease_token IS NULL
                    AND due_at <= $4
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

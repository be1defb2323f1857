//! Rechecks in bulk: what an operator wants asked again, and how far that has come. A recheck has one part for each
//! account and final status; how a part becomes jobs is in `feed_rechecks`.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use sqlx::types::Json;
use uuid::Uuid;

use super::records::first_id_at;
use super::{Store, StoreError};
use crate::domain::FinalStatus;

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
    pub(super) fn ids(&self, wished_at: DateTime<Utc>) -> (Uuid, Uuid) {
        // Ids know times to the millisecond.
        let now = wished_at + TimeDelta::milliseconds(1);
        let until = self.registered_before.map_or(now, |before| before.min(now));
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
                (
                    SELECT
                    FROM collect_jobs j
                    WHERE j.account = $1
                    AND j.lane IN (0, 2)
                    AND j.lease_token IS NULL
                    AND j.due_at <= $2
                    AND j.recheck_id IS NULL
                    LIMIT $3
                )
                UNION ALL
                (
                    SELECT
                    FROM collect_jobs j
                    WHERE j.account = $1
                    AND j.lane IN (1, 3)
                    AND j.lease_token IS NULL
                    -- Of these lanes that is due_at.
                    AND lane_place(j.lane, j.hinted_at, j.due_at) <= $2
                    AND j.recheck_id IS NULL
                    LIMIT $3
                )
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
            WITH mine AS MATERIALIZED (
                SELECT j.verification_id, d.status, d.checks
                FROM collect_jobs j
                CROSS JOIN LATERAL (
                    SELECT status, checks
                    FROM verdicts
                    WHERE verdicts.verification_id = j.verification_id
                    AND superseded_at IS NULL
                    ORDER BY revision DESC
                    LIMIT 1
                ) d
                WHERE j.recheck_id = $1
            ), untouched AS (
                DELETE FROM collect_jobs j
                USING mine d
                WHERE j.verification_id = ANY (ARRAY(SELECT verification_id FROM mine))
                AND j.verification_id = d.verification_id
                AND j.recheck_id = $1
                AND j.lease_token IS NULL
                AND j.callbacks = 0
                AND j.nudged_at IS NULL
                AND j.checks = d.checks
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
}

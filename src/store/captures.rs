//! Captures: leases on evidence that is on its way into the evidence store, how each ends, and what is asked for again.

use std::time::Duration;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::events::lock_evidence;
use super::evidence::{CaptureKey, MissedEvidence, NotStored, OrphanedCapture, StoredEvidence, kind_of};
use super::pool::Transaction;
use super::{Store, StoreError};
use crate::domain::schedule::Lane;
use crate::domain::{EventType, VerificationId};

fn columns_of(keys: &[CaptureKey]) -> (Vec<Uuid>, Vec<&'static str>, Vec<Uuid>) {
    (
        keys.iter().map(|key| key.id.0).collect(),
        keys.iter().map(|key| key.kind.as_str()).collect(),
        keys.iter().map(|key| key.token).collect(),
    )
}

impl Store {
    /// Writes down a complete object. False when the lease was lost: the object is nobody's then.
    pub async fn store_evidence(&self, key: CaptureKey, stored: &StoredEvidence<'_>) -> Result<bool, StoreError> {
        let mut transaction = self.begin_ending(key.id).await?;
        let rows = sqlx::query_scalar!(
            r#"-- store_evidence
            WITH stored AS (
                UPDATE evidence
                SET state = 'stored', stored_at = $4, object = $5, content_type = $6, bytes = $7, sha256 = $8,
                    sealed = $9, reason = NULL, lease_token = NULL, leased_until = NULL
                WHERE verification_id = $1
                AND kind = $2
                AND lease_token = $3
                AND state = 'pending'
                RETURNING verification_id
            ), remembered AS (
                INSERT INTO history (verification_id, at, kind, detail)
                SELECT verification_id, $4, 'evidence', json_build_object('evidence', $2::text, 'state', 'stored',
                    'content_type', $6::text, 'bytes', $7::bigint, 'sha256', encode($8::bytea, 'hex'))
                FROM stored
            )
            SELECT count(*) AS "count!"
            FROM stored"#,
            key.id.0,
            key.kind.as_str(),
            key.token,
            stored.at,
            stored.object,
            stored.content_type,
            stored.bytes,
            &stored.sha256[..],
            stored.is_sealed,
        )
        .fetch_one(&mut *transaction)
        .await?;
        self.commit_ending(transaction, key.id, rows == 1, stored.at).await
    }

    /// Ends a capture that stored nothing. False when its lease was lost, or its verification was erased.
    pub async fn end_capture(
        &self,
        key: CaptureKey,
        reason: &str,
        next: NotStored,
        at: DateTime<Utc>,
    ) -> Result<bool, StoreError> {
        let due_at = match next {
            NotStored::Again(due_at) => Some(due_at),
            NotStored::Missed => None,
        };
        let mut transaction = self.begin_ending(key.id).await?;
        let rows = sqlx::query_scalar!(
            r#"-- end_capture
            WITH ended AS (
                UPDATE evidence
                SET state = CASE WHEN state = 'pending' AND $5::timestamptz IS NULL THEN 'missed' ELSE state END,
                    reason = CASE WHEN state = 'pending' THEN $4 ELSE reason END,
                    due_at = coalesce($5, due_at), lease_token = NULL, leased_until = NULL
                WHERE verification_id = $1
                AND kind = $2
                AND lease_token = $3
                RETURNING verification_id, state
            ), remembered AS (
                INSERT INTO history (verification_id, at, kind, detail)
                SELECT verification_id, $6, 'evidence',
                    json_build_object('evidence', $2::text, 'state', state, 'reason', $4::text)
                FROM ended
                WHERE state = 'missed'
            )
            SELECT count(*) AS "count!"
            FROM ended
            WHERE state IN ('pending', 'missed')"#,
            key.id.0,
            key.kind.as_str(),
            key.token,
            reason,
            due_at,
            at,
        )
        .fetch_one(&mut *transaction)
        .await?;
        self.commit_ending(transaction, key.id, rows == 1, at).await
    }

    /// A transaction that ends a piece of evidence, and may be the last of its verification to do so.
    async fn begin_ending(&self, id: VerificationId) -> Result<Transaction, StoreError> {
        let mut transaction = self.pool.begin().await?;
        if self.is_wanted(EventType::EvidenceStored) {
            lock_evidence(&mut transaction, &[id.0]).await?;
        }
        Ok(transaction)
    }

    /// Commits it, with the event that follows.
    async fn commit_ending(
        &self,
        mut transaction: Transaction,
        id: VerificationId,
        has_ended: bool,
        at: DateTime<Utc>,
    ) -> Result<bool, StoreError> {
        if has_ended && self.is_wanted(EventType::EvidenceStored) {
            self.write_evidence_events(&mut transaction, &[id.0], at).await?;
        }
        transaction.commit().await?;
        Ok(has_ended)
    }

    /// Makes the leases of captures last for `length` from now; returns the tokens of those that still stand. One
    /// whose verification was erased does not.
    pub async fn renew_captures(&self, keys: &[CaptureKey], length: Duration) -> Result<Vec<Uuid>, StoreError> {
        let (ids, kinds, tokens) = columns_of(keys);
        let renewed = sqlx::query_scalar!(
            r#"-- renew_captures
            UPDATE evidence e
            SET leased_until = database_now() + make_interval(secs => $4)
            FROM unnest($1::uuid[], $2::text[], $3::uuid[]) AS i (verification_id, kind, token)
            WHERE e.verification_id = ANY ($1)
            AND e.verification_id = i.verification_id
            AND e.kind = i.kind
            AND e.lease_token = i.token
            AND e.state = 'pending'
            RETURNING e.lease_token AS "lease_token!""#,
            &ids,
            &kinds as _,
            &tokens,
            length.as_secs_f64()
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(renewed)
    }

    /// Gives captures back at a stop: the provider is asked again for what they were to bring.
    pub async fn release_captures(&self, keys: &[CaptureKey], now: DateTime<Utc>) -> Result<u64, StoreError> {
        let (ids, kinds, tokens) = columns_of(keys);
        let done = sqlx::query!(
            "-- release_captures
            UPDATE evidence e
            SET lease_token = NULL, leased_until = NULL, due_at = $4,
                reason = coalesce(e.reason, 'the service stopped while it was being stored')
            FROM unnest($1::uuid[], $2::text[], $3::uuid[]) AS i (verification_id, kind, token)
            WHERE e.verification_id = ANY ($1)
            AND e.verification_id = i.verification_id
            AND e.kind = i.kind
            AND e.lease_token = i.token
            AND e.state = 'pending'",
            &ids,
            &kinds as _,
            &tokens,
            now
        )
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected())
    }

    /// Takes captures back whose lease ran out. Those of erased verifications are returned instead: what their worker
    /// may have left is to be destroyed before [`Store::forget_capture`].
    pub async fn recover_captures(&self, now: DateTime<Utc>) -> Result<Vec<OrphanedCapture>, StoreError> {
        let rows = sqlx::query!(
            r#"-- recover_captures
            WITH dead AS MATERIALIZED (
                SELECT verification_id, kind, account, state, lease_token
                FROM evidence
                WHERE lease_token IS NOT NULL
                AND leased_until < database_now()
                ORDER BY leased_until
                LIMIT 1000
                FOR UPDATE SKIP LOCKED
            ), recovered AS (
                UPDATE evidence e
                SET lease_token = NULL, leased_until = NULL, due_at = $1,
                    reason = coalesce(e.reason, 'the process that was storing it ended')
                FROM dead d
                WHERE d.state = 'pending'
                AND e.verification_id = ANY (ARRAY(SELECT verification_id FROM dead))
                AND e.verification_id = d.verification_id
                AND e.kind = d.kind
            )
            SELECT verification_id, kind, account, lease_token AS "token!"
            FROM dead
            WHERE state <> 'pending'"#,
            now
        )
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter()
            .map(|row| {
                Ok(OrphanedCapture {
                    account: row.account,
                    key: CaptureKey {
                        id: VerificationId(row.verification_id),
                        kind: kind_of(&row.kind, row.verification_id)?,
                        token: row.token,
                    },
                })
            })
            .collect()
    }

    /// Clears the lease of a capture after which nothing is left.
    pub async fn forget_capture(&self, key: CaptureKey) -> Result<(), StoreError> {
        sqlx::query!(
            "-- forget_capture
            UPDATE evidence
            SET lease_token = NULL, leased_until = NULL
            WHERE verification_id = $1
            AND kind = $2
            AND lease_token = $3
            AND state <> 'pending'",
            key.id.0,
            key.kind.as_str(),
            key.token,
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Makes a recheck of each verification whose evidence is to be asked for again, a video's before all else. One
    /// that is being asked about anyway is left to that. Should the recheck end without bringing it, it is asked for
    /// once more, ever more slowly. Returns the accounts with new work.
    pub async fn ask_again(
        &self,
        accounts: &[String],
        now: DateTime<Utc>,
        limit: i64,
    ) -> Result<Vec<String>, StoreError> {
        let accounts = sqlx::query_scalar!(
            r#"-- ask_again
            WITH due AS MATERIALIZED (
                SELECT verification_id, kind, account
                FROM evidence
                WHERE state = 'pending'
                AND lease_token IS NULL
                AND due_at <= $2
                AND deadline > $2
                AND account = ANY ($1)
                ORDER BY due_at
                LIMIT $3
                FOR UPDATE SKIP LOCKED
            ), moved AS (
                UPDATE evidence e
                SET attempts = e.attempts + 1,
                    due_at = $2 + power(2, least(e.attempts - 1, 16)) * CASE
                        WHEN e.kind = 'video' THEN interval '30 s'
                        ELSE interval '5 min'
                    END
                FROM due d
                WHERE e.verification_id = ANY (ARRAY(SELECT verification_id FROM due))
                AND e.verification_id = d.verification_id
                AND e.kind = d.kind
            ), wanted AS (
                SELECT verification_id, account, min(CASE WHEN kind = 'video' THEN $4::smallint ELSE $5 END) AS lane
                FROM due
                GROUP BY verification_id, account
            ), asked AS (
                INSERT INTO collect_jobs (verification_id, account, lane, due_at, callback_at, hinted_at, nudged_at,
                    recheck, checks)
                SELECT w.verification_id, w.account, w.lane, $2, d.callback_at, d.hinted_at, $2, true, d.checks
                FROM wanted w
                CROSS JOIN LATERAL (
                    SELECT callback_at, hinted_at, checks
                    FROM verdicts
                    WHERE verdicts.verification_id = w.verification_id
                    AND superseded_at IS NULL
                    ORDER BY revision DESC
                    LIMIT 1
                ) d
                ORDER BY w.verification_id
                ON CONFLICT (verification_id) DO NOTHING
                RETURNING account
            )
            SELECT DISTINCT account AS "account!"
            FROM asked"#,
            accounts,
            now,
            limit,
            Lane::Video.as_i16(),
            Lane::Retry.as_i16(),
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(accounts)
    }

    /// Ends what the provider has deleted by now and nobody is capturing any more.
    pub async fn miss_evidence(&self, now: DateTime<Utc>, limit: i64) -> Result<Vec<MissedEvidence>, StoreError> {
        let mut transaction = self.pool.begin().await?;
        let rows = sqlx::query!(
            r#"-- miss_evidence
            WITH over AS MATERIALIZED (
                SELECT verification_id, kind
                FROM evidence
                WHERE state = 'pending'
                AND lease_token IS NULL
                AND deadline <= $1
                ORDER BY deadline
                LIMIT $2
                FOR UPDATE SKIP LOCKED
            ), missed AS (
                UPDATE evidence e
                SET state = 'missed',
                    reason = coalesce(e.reason, 'it was not stored') || ', until the provider deleted it'
                FROM over o
                WHERE e.verification_id = ANY (ARRAY(SELECT verification_id FROM over))
                AND e.verification_id = o.verification_id
                AND e.kind = o.kind
                RETURNING e.verification_id, e.kind, e.account, e.reason
            ), remembered AS (
                INSERT INTO history (verification_id, at, kind, detail)
                SELECT verification_id, $1, 'evidence',
                    json_build_object('evidence', kind, 'state', 'missed', 'reason', reason)
                FROM missed
                ORDER BY verification_id, kind
            )
            SELECT verification_id AS "verification_id!", kind AS "kind!", account AS "account!", reason AS "reason!"
            FROM missed"#,
            now,
            limit
        )
        .fetch_all(&mut *transaction)
        .await?;
        if !rows.is_empty() && self.is_wanted(EventType::EvidenceStored) {
            let mut ids: Vec<Uuid> = rows.iter().map(|row| row.verification_id).collect();
            ids.sort_unstable();
            lock_evidence(&mut transaction, &ids).await?;
            self.write_evidence_events(&mut transaction, &ids, now).await?;
        }
        transaction.commit().await?;
        rows.into_iter()
            .map(|row| {
                Ok(MissedEvidence {
                    id: VerificationId(row.verification_id),
                    account: row.account,
                    kind: kind_of(&row.kind, row.verification_id)?,
                    reason: row.reason,
                })
            })
            .collect()
    }
}

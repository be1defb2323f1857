//! What there is of each verification's evidence, and who captures it. The bytes are not here.
//!
//! A capture is a lease like any other: a token and a time by the database's clock, and a write whose lease is lost
//! changes nothing. Evidence that is pending and leased by nobody is asked for again, with a recheck, until its
//! deadline.

use std::fmt;
use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use super::checks::{CheckedFinal, Recorded};
use super::{Reader, Store, StoreError};
use crate::domain::schedule::Lane;
use crate::domain::{EvidenceKind, EvidenceState, VerificationId};

/// What an answer says about one kind of evidence.
#[derive(Clone, Debug)]
pub struct EvidenceNote {
    pub kind: EvidenceKind,
    pub account: String,
    pub state: NotedState,
    /// When the provider deletes it.
    pub deadline: DateTime<Utc>,
}

#[derive(Clone, Debug)]
pub enum NotedState {
    /// This worker has it at hand and captures it under this lease.
    Captured {
        token: Uuid,
        length: Duration,
    },
    /// The answer held it, and it could not be kept at that moment; the provider is asked again.
    PutOff {
        due_at: DateTime<Utc>,
        reason: String,
    },
    Absent {
        reason: String,
    },
    Missed {
        reason: String,
    },
}

/// A capture that this worker may go on with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CaptureLease {
    pub kind: EvidenceKind,
    pub token: Uuid,
    /// Answers that it was tried from, this one included.
    pub attempts: u32,
    /// Never later than an earlier answer said.
    pub deadline: DateTime<Utc>,
}

/// Names one capture under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CaptureKey {
    pub id: VerificationId,
    pub kind: EvidenceKind,
    pub token: Uuid,
}

/// A complete object, about to be written down.
#[derive(Clone, Debug)]
pub struct StoredEvidence<'a> {
    pub at: DateTime<Utc>,
    pub object: &'a str,
    pub content_type: &'a str,
    pub bytes: i64,
    pub sha256: &'a [u8; 32],
    pub is_sealed: bool,
}

/// How a capture ended without an object.
#[derive(Clone, Copy, Debug)]
pub enum NotStored {
    /// The provider is asked again then.
    Again(DateTime<Utc>),
    /// Asking again would bring the same.
    Missed,
}

/// Evidence that ended as missed.
#[derive(Clone, Debug)]
pub struct MissedEvidence {
    pub id: VerificationId,
    pub account: String,
    pub kind: EvidenceKind,
    pub reason: String,
}

/// A capture whose worker died after its verification was erased: it may have left an object.
#[derive(Clone, Debug)]
pub struct OrphanedCapture {
    pub account: String,
    pub key: CaptureKey,
}

/// Where an object is that is read.
#[derive(Clone)]
pub struct EvidenceRow {
    pub state: EvidenceState,
    pub reason: Option<String>,
    pub object: Option<EvidenceObject>,
}

#[derive(Clone, PartialEq, Eq)]
pub struct EvidenceObject {
    pub name: String,
    pub content_type: String,
    pub bytes: u64,
    pub sha256: [u8; 32],
    pub is_sealed: bool,
}

impl fmt::Debug for EvidenceRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EvidenceRow").field("state", &self.state).finish_non_exhaustive()
    }
}

fn inconsistent(column: &'static str, id: Uuid) -> StoreError {
    StoreError::Inconsistent { table: "evidence", column, row: id.to_string() }
}

fn kind_of(text: &str, id: Uuid) -> Result<EvidenceKind, StoreError> {
    text.parse().map_err(|_| inconsistent("kind", id))
}

fn columns_of(keys: &[CaptureKey]) -> (Vec<Uuid>, Vec<&'static str>, Vec<Uuid>) {
    (
        keys.iter().map(|key| key.id.0).collect(),
        keys.iter().map(|key| key.kind.as_str()).collect(),
        keys.iter().map(|key| key.token).collect(),
    )
}

/// Writes down what answers brought of evidence, in the transaction of their verdicts, and leases what is captured
/// now. What is stored or erased stays as it is, and so does what somebody else captures.
pub(super) async fn note(
    connection: &mut PgConnection,
    checks: &[&CheckedFinal],
    recorded: &mut [Recorded],
) -> Result<(), StoreError> {
    let (mut ids, mut times) = (Vec::new(), Vec::new());
    let (mut kinds, mut accounts, mut states) = (Vec::new(), Vec::new(), Vec::new());
    let (mut reasons, mut deadlines, mut due) = (Vec::new(), Vec::new(), Vec::new());
    let (mut tokens, mut lengths) = (Vec::new(), Vec::new());
    for check in checks {
        // Without its lease a check changes nothing.
        if !recorded.iter().any(|recorded| recorded.id == check.id) {
            continue;
        }
        for note in &check.evidence {
            let (state, token, length, due_at, reason) = match &note.state {
                NotedState::Captured { token, length } => {
                    ("pending", Some(*token), length.as_secs_f64(), check.at, None)
                }
                NotedState::PutOff { due_at, reason } => ("pending", None, 0.0, *due_at, Some(reason.as_str())),
                NotedState::Absent { reason } => ("absent", None, 0.0, check.at, Some(reason.as_str())),
                NotedState::Missed { reason } => ("missed", None, 0.0, check.at, Some(reason.as_str())),
            };
            ids.push(check.id.0);
            times.push(check.at);
            kinds.push(note.kind.as_str());
            accounts.push(note.account.as_str());
            states.push(state);
            reasons.push(reason);
            deadlines.push(note.deadline);
            due.push(due_at);
            tokens.push(token);
            lengths.push(length);
        }
    }
    if ids.is_empty() {
        return Ok(());
    }
    let rows = sqlx::query!(
        r#"-- note_evidence
        WITH noted AS (
            INSERT INTO evidence AS e (verification_id, kind, account, state, noted_at, deadline, attempts, due_at,
                reason, lease_token, leased_until)
            SELECT i.verification_id, i.kind, i.account, i.state, i.at, i.deadline, (i.state = 'pending')::integer,
                i.due_at, i.reason, i.token,
                CASE WHEN i.token IS NOT NULL THEN database_now() + make_interval(secs => i.seconds) END
            FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::timestamptz[], $6::timestamptz[],
                $7::timestamptz[], $8::text[], $9::uuid[], $10::double precision[])
                AS i (verification_id, kind, account, state, at, deadline, due_at, reason, token, seconds)
            ORDER BY i.verification_id, i.kind
            ON CONFLICT (verification_id, kind) DO UPDATE
            SET state = CASE WHEN excluded.state = 'absent' THEN 'missed' ELSE excluded.state END,
                deadline = least(e.deadline, excluded.deadline),
                attempts = e.attempts + excluded.attempts,
                due_at = excluded.due_at,
                reason = CASE
                    WHEN excluded.state = 'pending' THEN coalesce(excluded.reason, e.reason)
                    WHEN e.reason IS NOT NULL THEN e.reason || '; asked again, the provider no longer had it'
                    ELSE excluded.reason
                END,
                lease_token = excluded.lease_token,
                leased_until = excluded.leased_until
            WHERE e.lease_token IS NULL
            AND (e.state = 'pending' OR (e.state IN ('absent', 'missed') AND excluded.state = 'pending'))
            RETURNING e.verification_id, e.kind, e.state, e.noted_at, e.deadline, e.attempts, e.reason, e.lease_token
        ), remembered AS (
            INSERT INTO history (verification_id, at, kind, detail)
            SELECT n.verification_id, i.at, 'evidence',
                json_build_object('evidence', n.kind, 'state', n.state, 'reason', n.reason)
            FROM noted n
            JOIN unnest($1::uuid[], $2::text[], $5::timestamptz[]) AS i (verification_id, kind, at)
                USING (verification_id, kind)
            WHERE n.state <> 'pending'
            ORDER BY n.verification_id, n.kind
        )
        SELECT verification_id AS "verification_id!", kind AS "kind!", state AS "state!", deadline AS "deadline!",
            attempts AS "attempts!", lease_token
        FROM noted"#,
        &ids,
        &kinds as _,
        &accounts as _,
        &states as _,
        &times,
        &deadlines,
        &due,
        &reasons as _,
        &tokens as _,
        &lengths,
    )
    .fetch_all(connection)
    .await?;
    for row in rows {
        let kind = kind_of(&row.kind, row.verification_id)?;
        let Some(recorded) = recorded.iter_mut().find(|recorded| recorded.id.0 == row.verification_id) else {
            continue;
        };
        match row.lease_token {
            Some(token) => recorded.captures.push(CaptureLease {
                kind,
                token,
                attempts: u32::try_from(row.attempts).unwrap_or(0),
                deadline: row.deadline,
            }),
            None if row.state != "pending" => {
                let state = row.state.parse().map_err(|_| inconsistent("state", row.verification_id))?;
                recorded.evidence_ended.push((kind, state));
            }
            None => {}
        }
    }
    Ok(())
}

impl Store {
    /// Writes down a complete object. False when the lease was lost: the object is nobody's then.
    pub async fn store_evidence(&self, key: CaptureKey, stored: &StoredEvidence<'_>) -> Result<bool, StoreError> {
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
        .fetch_one(&self.pool)
        .await?;
        Ok(rows == 1)
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
        .fetch_one(&self.pool)
        .await?;
        Ok(rows == 1)
    }

    /// Makes the leases of captures last for `length` from now.
    pub async fn renew_captures(&self, keys: &[CaptureKey], length: Duration) -> Result<(), StoreError> {
        let (ids, kinds, tokens) = columns_of(keys);
        sqlx::query!(
            "-- renew_captures
            UPDATE evidence e
            SET leased_until = database_now() + make_interval(secs => $4)
            FROM unnest($1::uuid[], $2::text[], $3::uuid[]) AS i (verification_id, kind, token)
            WHERE e.verification_id = i.verification_id
            AND e.kind = i.kind
            AND e.lease_token = i.token",
            &ids,
            &kinds as _,
            &tokens,
            length.as_secs_f64()
        )
        .execute(&self.pool)
        .await?;
        Ok(())
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
            WHERE e.verification_id = i.verification_id
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
    /// that is being asked about anyway is left to that. Returns the accounts with new work.
    pub async fn ask_again(
        &self,
        accounts: &[String],
        now: DateTime<Utc>,
        look_again_at: DateTime<Utc>,
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
                LIMIT $4
                FOR UPDATE SKIP LOCKED
            ), moved AS (
                UPDATE evidence e
                SET due_at = $3
                FROM due d
                WHERE e.verification_id = d.verification_id
                AND e.kind = d.kind
            ), wanted AS (
                SELECT verification_id, account, min(CASE WHEN kind = 'video' THEN $5::smallint ELSE $6 END) AS lane
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
            look_again_at,
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
                WHERE e.verification_id = o.verification_id
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
        .fetch_all(&self.pool)
        .await?;
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

    /// Where one piece of evidence stands. The outer `None`: there is no such verification; the inner one: it has none
    /// of this kind.
    pub async fn evidence(
        &self,
        id: VerificationId,
        kind: EvidenceKind,
    ) -> Result<Option<Option<EvidenceRow>>, StoreError> {
        let row = sqlx::query!(
            r#"-- evidence
            SELECT e.state AS "state?", e.reason, e.object, e.content_type, e.bytes, e.sha256, e.sealed
            FROM verifications v
            LEFT JOIN LATERAL (
                SELECT *
                FROM evidence
                WHERE evidence.verification_id = v.verification_id
                AND evidence.kind = $2
                LIMIT 1
            ) e ON true
            WHERE v.verification_id = $1"#,
            id.0,
            kind.as_str(),
        )
        .fetch_optional(&self.pool)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let Some(state) = row.state else { return Ok(Some(None)) };
        let state = state.parse().map_err(|_| inconsistent("state", id.0))?;
        let object = match (row.object, row.content_type, row.bytes, row.sha256, row.sealed) {
            (Some(name), Some(content_type), Some(bytes), Some(sha256), Some(is_sealed)) => Some(EvidenceObject {
                name,
                content_type,
                bytes: u64::try_from(bytes).map_err(|_| inconsistent("bytes", id.0))?,
                sha256: sha256.try_into().map_err(|_| inconsistent("sha256", id.0))?,
                is_sealed,
            }),
            _ => None,
        };
        let object = object.filter(|_| state == EvidenceState::Stored);
        Ok(Some(Some(EvidenceRow { state, reason: row.reason, object })))
    }

    /// Records who reads an object. False when it is there no more: then nothing may be shown of it.
    pub async fn record_evidence_read(
        &self,
        id: VerificationId,
        kind: EvidenceKind,
        object: &str,
        reader: &Reader<'_>,
        at: DateTime<Utc>,
    ) -> Result<bool, StoreError> {
        let done = sqlx::query!(
            "-- record_evidence_read
            INSERT INTO history (verification_id, at, kind, detail)
            SELECT verification_id, $4, 'evidence',
                json_build_object('read', kind, 'by', $5::text, 'request_id', $6::text)
            FROM evidence
            WHERE verification_id = $1
            AND kind = $2
            AND object = $3
            AND state = 'stored'",
            id.0,
            kind.as_str(),
            object,
            at,
            reader.key,
            reader.request_id,
        )
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected() == 1)
    }
}

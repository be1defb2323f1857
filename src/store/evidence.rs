//! What there is of each verification's evidence, and who captures it. The bytes are not here.
//!
//! A capture is a lease like any other: a token and a time by the database's clock, and a write whose lease is lost
//! changes nothing. Evidence that is pending and leased by nobody is asked for again, with a recheck, until its
//! deadline.

use std::fmt;
use std::time::Duration;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::checks::{CheckedFinal, Recorded};
use super::{Reader, Session, Store, StoreError};
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
    /// How often the provider was asked for it.
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

pub(super) fn kind_of(text: &str, id: Uuid) -> Result<EvidenceKind, StoreError> {
    text.parse().map_err(|_| inconsistent("kind", id))
}

/// Writes down what answers brought of evidence, in the transaction of their verdicts, and leases what is captured
/// now. What is stored or erased stays as it is, and so does what somebody else captures.
pub(super) async fn note(
    connection: &mut Session,
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
                attempts = greatest(e.attempts, excluded.attempts),
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
            FROM (
                SELECT verification_id, kind
                FROM evidence
                WHERE verification_id = $1
                AND kind = $2
                AND object = $3
                AND state = 'stored'
                -- An erasure waits for whoever reads, or is over first.
                FOR SHARE
            ) stored",
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

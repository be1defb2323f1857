//! What an erasure destroyed where, and the work on it that is still to be done outside the database: leased like a
//! check, and safe to repeat.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::types::Json;
use uuid::Uuid;

use super::erasures::Destroyed;
use super::{Store, StoreError};
use crate::domain::VerificationId;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EvidencePart {
    Pending,
    Destroyed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProviderPart {
    Pending,
    Destroyed,
    /// The provider will not, for a reason.
    Refused,
    /// The provider has no call for this.
    NotOffered,
}

impl EvidencePart {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Destroyed => "destroyed",
        }
    }
}

impl ProviderPart {
    const ALL: [Self; 4] = [Self::Pending, Self::Destroyed, Self::Refused, Self::NotOffered];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Destroyed => "destroyed",
            Self::Refused => "refused",
            Self::NotOffered => "not_offered",
        }
    }
}

/// What was destroyed where, and what is still to be.
#[derive(Clone, Debug)]
pub struct Erasure {
    pub id: VerificationId,
    pub erased_at: DateTime<Utc>,
    pub by: Option<String>,
    pub reason: Option<String>,
    pub destroyed: Destroyed,
    pub evidence: EvidencePart,
    pub evidence_objects: i64,
    pub evidence_reason: Option<String>,
    pub evidence_at: Option<DateTime<Utc>>,
    pub provider: ProviderPart,
    pub provider_reason: Option<String>,
    pub provider_at: Option<DateTime<Utc>>,
    pub attempts: u32,
    /// `None`: complete.
    pub due_at: Option<DateTime<Utc>>,
}

/// The parts of an erasure outside the database that this worker may work on until its lease runs out.
#[derive(Clone, Debug)]
pub struct LeasedErasure {
    pub id: VerificationId,
    pub token: Uuid,
    pub account: String,
    pub transaction_id: String,
    pub merchant_biz_id: String,
    pub product: Option<String>,
    pub erased_at: DateTime<Utc>,
    pub open_until: Option<DateTime<Utc>>,
    pub evidence: EvidencePart,
    pub provider: ProviderPart,
    pub provider_reason: Option<String>,
    pub attempts: u32,
}

/// What an attempt brought.
#[derive(Clone, Debug)]
pub struct ErasureAttempt {
    pub id: VerificationId,
    pub token: Uuid,
    pub evidence: EvidencePart,
    pub evidence_objects: i64,
    pub evidence_reason: Option<String>,
    pub provider: ProviderPart,
    pub provider_reason: Option<String>,
    /// When to try again, should anything be pending.
    pub due_at: DateTime<Utc>,
    pub at: DateTime<Utc>,
}

fn evidence_part(state: &str) -> EvidencePart {
    if state == EvidencePart::Destroyed.as_str() { EvidencePart::Destroyed } else { EvidencePart::Pending }
}

fn provider_part(state: &str, id: Uuid) -> Result<ProviderPart, StoreError> {
    ProviderPart::ALL.into_iter().find(|part| part.as_str() == state).ok_or_else(|| StoreError::Inconsistent {
        table: "erasures",
        column: "provider_state",
        row: id.to_string(),
    })
}

fn count(value: i32) -> u32 {
    u32::try_from(value).unwrap_or(0)
}

impl Store {
    /// The receipt; `None` when it was not erased.
    pub async fn erasure(&self, id: VerificationId) -> Result<Option<Erasure>, StoreError> {
        let row = sqlx::query!(
            r#"-- erasure
            SELECT erased_at, erased_by, reason, destroyed AS "destroyed: Json<Destroyed>", evidence_state,
                evidence_objects, evidence_reason, evidence_at, provider_state, provider_reason, provider_at, attempts,
                due_at
            FROM erasures
            WHERE verification_id = $1"#,
            id.0
        )
        .fetch_optional(&self.pool)
        .await?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(Erasure {
            id,
            erased_at: row.erased_at,
            by: row.erased_by,
            reason: row.reason,
            destroyed: row.destroyed.0,
            evidence: evidence_part(&row.evidence_state),
            evidence_objects: row.evidence_objects,
            evidence_reason: row.evidence_reason,
            evidence_at: row.evidence_at,
            provider: provider_part(&row.provider_state, id.0)?,
            provider_reason: row.provider_reason,
            provider_at: row.provider_at,
            attempts: count(row.attempts),
            due_at: row.due_at,
        }))
    }

    /// Leases erasures whose next attempt is due, also those whose worker died.
    pub async fn lease_erasures(
        &self,
        token: Uuid,
        limit: i64,
        length: Duration,
        now: DateTime<Utc>,
    ) -> Result<Vec<LeasedErasure>, StoreError> {
        let rows = sqlx::query!(
            r#"-- lease_erasures
            WITH due AS MATERIALIZED (
                SELECT verification_id
                FROM erasures
                WHERE due_at <= $4
                AND (leased_until IS NULL OR leased_until < database_now())
                ORDER BY due_at
                LIMIT $2
                FOR UPDATE SKIP LOCKED
            ), leased AS (
                UPDATE erasures
                SET lease_token = $1, leased_until = database_now() + make_interval(secs => $3)
                WHERE verification_id = ANY (ARRAY(SELECT verification_id FROM due))
                RETURNING *
            )
            SELECT l.verification_id AS "verification_id!", l.account AS "account!", v.transaction_id AS "transaction_id!",
                v.merchant_biz_id AS "merchant_biz_id!", v.product, l.erased_at AS "erased_at!", l.open_until,
                l.evidence_state AS "evidence_state!",
                l.provider_state AS "provider_state!", l.provider_reason, l.attempts AS "attempts!"
            FROM leased l
            CROSS JOIN LATERAL (
                SELECT *
                FROM verifications
                WHERE verifications.verification_id = l.verification_id
                LIMIT 1
            ) v"#,
            token,
            limit,
            length.as_secs_f64(),
            now
        )
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter()
            .map(|row| {
                Ok(LeasedErasure {
                    id: VerificationId(row.verification_id),
                    token,
                    account: row.account,
                    transaction_id: row.transaction_id,
                    merchant_biz_id: row.merchant_biz_id,
                    product: row.product,
                    erased_at: row.erased_at,
                    open_until: row.open_until,
                    evidence: evidence_part(&row.evidence_state),
                    provider: provider_part(&row.provider_state, row.verification_id)?,
                    provider_reason: row.provider_reason,
                    attempts: count(row.attempts),
                })
            })
            .collect()
    }

    /// Whether a capture is under way, which may still bring an object. On an erased one no new capture begins.
    pub async fn is_captured(&self, id: VerificationId) -> Result<bool, StoreError> {
        let captured = sqlx::query_scalar!(
            r#"-- is_captured
            SELECT EXISTS (
                SELECT
                FROM evidence
                WHERE verification_id = $1
                AND lease_token IS NOT NULL
            ) AS "captured!""#,
            id.0
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(captured)
    }

    /// The objects that an erased verification had in the evidence store.
    pub async fn erased_objects(&self, id: VerificationId) -> Result<Vec<String>, StoreError> {
        let objects = sqlx::query_scalar!(
            r#"-- erased_objects
            SELECT object AS "object!"
            FROM evidence
            WHERE verification_id = $1
            AND object IS NOT NULL
            ORDER BY kind"#,
            id.0
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(objects)
    }

    /// Stores what an attempt brought and gives its lease back. False when the lease was lost; then nothing changes.
    pub async fn record_erasure(&self, attempt: &ErasureAttempt) -> Result<bool, StoreError> {
        let is_complete = attempt.evidence != EvidencePart::Pending && attempt.provider != ProviderPart::Pending;
        let done = sqlx::query_scalar!(
            r#"-- record_erasure
            WITH done AS (
                UPDATE erasures
                SET evidence_at = CASE WHEN evidence_state = 'pending' AND $3 <> 'pending' THEN $9 ELSE evidence_at END,
                    provider_at = CASE WHEN provider_state = 'pending' AND $6 <> 'pending' THEN $9 ELSE provider_at END,
                    evidence_state = $3,
                    evidence_objects = evidence_objects + $4,
                    evidence_reason = $5,
                    provider_state = $6,
                    provider_reason = $7,
                    due_at = $8,
                    attempts = attempts + 1,
                    lease_token = NULL,
                    leased_until = NULL
                WHERE verification_id = $1
                AND lease_token = $2
                RETURNING verification_id
            ), forgotten AS (
                UPDATE evidence
                SET object = NULL
                WHERE verification_id = $1
                AND $3 <> 'pending'
                AND object IS NOT NULL
                AND EXISTS (SELECT FROM done)
            )
            SELECT count(*) AS "count!"
            FROM done"#,
            attempt.id.0,
            attempt.token,
            attempt.evidence.as_str(),
            attempt.evidence_objects,
            attempt.evidence_reason,
            attempt.provider.as_str(),
            attempt.provider_reason,
            (!is_complete).then_some(attempt.due_at),
            attempt.at
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(done > 0)
    }
}

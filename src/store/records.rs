//! Reading verifications and their history.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::value::RawValue;
use sqlx::types::Json;
use uuid::Uuid;

use super::hints::parse_final;
use super::{Store, StoreError};
use crate::domain::{FinalStatus, HistoryKind, Status, VerificationId};

/// A verification as it stands.
pub struct Record {
    pub id: VerificationId,
    pub account: String,
    pub transaction_id: String,
    pub merchant_biz_id: String,
    pub product: Option<String>,
    pub expect_video: bool,
    pub metadata: Option<Box<RawValue>>,
    pub registered_at: DateTime<Utc>,
    pub status: Status,
    pub verdict: Option<RecordVerdict>,
    pub callback_at: Option<DateTime<Utc>>,
    pub hinted_at: Option<DateTime<Utc>>,
    pub checks: u32,
    pub due_at: Option<DateTime<Utc>>,
    pub checking: bool,
    pub last_error: Option<String>,
    pub erased_at: Option<DateTime<Utc>>,
    /// By kind.
    pub evidence: Vec<RecordEvidence>,
}

/// One piece of a verification's evidence, as it stands.
#[derive(Debug, Deserialize)]
pub struct RecordEvidence {
    pub kind: String,
    pub state: String,
    pub content_type: Option<String>,
    pub bytes: Option<u64>,
    /// In hex.
    pub sha256: Option<String>,
    pub stored_at: Option<DateTime<Utc>>,
    pub reason: Option<String>,
}

/// The current verdict of a final verification.
pub struct RecordVerdict {
    pub revision: i32,
    pub status: FinalStatus,
    pub sub_code: Option<String>,
    /// `None`: erased.
    pub reason: Option<String>,
    pub scores: Box<RawValue>,
    pub signals: Box<RawValue>,
    pub decided_at: DateTime<Utc>,
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record").field("id", &self.id).field("status", &self.status).finish_non_exhaustive()
    }
}

impl fmt::Debug for RecordVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordVerdict")
            .field("revision", &self.revision)
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
pub struct HistoryRow {
    pub at: DateTime<Utc>,
    pub kind: HistoryKind,
    pub detail: Box<RawValue>,
}

/// Which verifications a list shows, newest first.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub status: Option<Status>,
    pub account: Option<String>,
    pub transaction_id: Option<String>,
    pub merchant_biz_id: Option<String>,
    pub registered_after: Option<DateTime<Utc>>,
    pub registered_before: Option<DateTime<Utc>>,
    /// Only ids below this one: where the page before ended.
    pub below: Option<VerificationId>,
    pub limit: i64,
}

/// The lowest id that a registration at `time` can have.
pub(super) fn first_id_at(time: DateTime<Utc>) -> Uuid {
    let millis = u64::try_from(time.timestamp_millis()).unwrap_or(0);
    uuid::Builder::from_unix_timestamp_millis(millis, &[0; 10]).into_uuid()
}

impl Store {
    pub async fn record(&self, id: VerificationId) -> Result<Option<Record>, StoreError> {
        Ok(self.records(&[id.0]).await?.pop())
    }

    /// Whether a verification is final, for a third of what its record costs; `None` when it is not there.
    pub async fn is_final(&self, id: VerificationId) -> Result<Option<bool>, StoreError> {
        let is_final = sqlx::query_scalar!(
            r#"-- is_final
            SELECT (
                -- Its order is that of the key, so no other index serves.
                SELECT revision
                FROM verdicts d
                WHERE d.verification_id = v.verification_id
                AND d.superseded_at IS NULL
                ORDER BY revision DESC
                LIMIT 1
            ) IS NOT NULL AS "is_final!"
            FROM verifications v
            WHERE v.verification_id = $1"#,
            id.0
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(is_final)
    }

    /// Newest first; ids that are not there are left out.
    pub(super) async fn records(&self, ids: &[Uuid]) -> Result<Vec<Record>, StoreError> {
        let rows = sqlx::query!(
            r#"-- records
            SELECT verification_id AS "verification_id!", account AS "account!", transaction_id AS "transaction_id!",
                merchant_biz_id AS "merchant_biz_id!", product, expect_video AS "expect_video!",
                metadata AS "metadata: Json<Box<RawValue>>", registered_at AS "registered_at!", status AS "status!",
                revision, sub_code, reason, scores AS "scores: Json<Box<RawValue>>",
                signals AS "signals: Json<Box<RawValue>>", decided_at, callback_at, hinted_at, checks AS "checks!",
                due_at, checking AS "checking!", last_error, erased_at,
                e.evidence AS "evidence: Json<Vec<RecordEvidence>>"
            FROM verification_records r
            LEFT JOIN LATERAL (
                SELECT json_agg(json_build_object('kind', kind, 'state', state, 'content_type', content_type,
                    'bytes', bytes, 'sha256', encode(sha256, 'hex'), 'stored_at', stored_at, 'reason', reason)
                    ORDER BY kind) AS evidence
                FROM evidence
                WHERE evidence.verification_id = r.verification_id
            ) e ON true
            WHERE verification_id = ANY($1)
            ORDER BY verification_id DESC"#,
            ids
        )
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter()
            .map(|row| {
                let id = VerificationId(row.verification_id);
                let verdict = match (row.revision, row.scores, row.signals, row.decided_at) {
                    (Some(revision), Some(Json(scores)), Some(Json(signals)), Some(decided_at)) => {
                        Some(RecordVerdict {
                            revision,
                            status: parse_final(&row.status, id)?,
                            sub_code: row.sub_code,
                            reason: row.reason,
                            scores,
                            signals,
                            decided_at,
                        })
                    }
                    _ => None,
                };
                Ok(Record {
                    id,
                    account: row.account,
                    transaction_id: row.transaction_id,
                    merchant_biz_id: row.merchant_biz_id,
                    product: row.product,
                    expect_video: row.expect_video,
                    metadata: row.metadata.map(|Json(metadata)| metadata),
                    registered_at: row.registered_at,
                    status: row.status.parse().map_err(|_| StoreError::Inconsistent {
                        table: "verification_records",
                        column: "status",
                        row: id.to_string(),
                    })?,
                    verdict,
                    callback_at: row.callback_at,
                    hinted_at: row.hinted_at,
                    checks: u32::try_from(row.checks).unwrap_or(0),
                    due_at: row.due_at,
                    checking: row.checking,
                    last_error: row.last_error,
                    erased_at: row.erased_at,
                    evidence: row.evidence.map(|Json(evidence)| evidence).unwrap_or_default(),
                })
            })
            .collect()
    }

    /// A page of verifications, newest first.
    ///
    /// Each filter that can be rare has an index in the order of ids, so a page costs the same however much lies
    /// around it.
    pub async fn list(&self, filter: &Filter) -> Result<Vec<Record>, StoreError> {
        let from = filter.registered_after.map_or(Uuid::nil(), first_id_at);
        let to = filter.registered_before.map_or(Uuid::max(), first_id_at);
        let below = filter.below.map_or(Uuid::max(), |id| id.0).min(to);
        let status = filter.status.map(Status::as_str);
        let account = filter.account.as_deref();
        let ids = if let Some(transaction_id) = &filter.transaction_id {
            sqlx::query_scalar!(
                r#"-- list: by transaction
                SELECT verification_id AS "id!"
                FROM verification_records
                WHERE account IN (SELECT account FROM accounts)
                AND transaction_id = $1
                AND ($2::text IS NULL OR merchant_biz_id = $2)
                AND ($3::text IS NULL OR account = $3)
                AND ($4::text IS NULL OR status = $4)
                AND verification_id >= $5
                AND verification_id < $6
                ORDER BY verification_id DESC
                LIMIT $7"#,
                transaction_id,
                filter.merchant_biz_id.as_deref(),
                account,
                status,
                from,
                below,
                filter.limit
            )
            .fetch_all(&self.pool)
            .await?
        } else if let Some(merchant_biz_id) = &filter.merchant_biz_id {
            sqlx::query_scalar!(
                r#"-- list: by merchant biz id
                SELECT verification_id AS "id!"
                FROM verification_records
                WHERE merchant_biz_id = $1
                AND ($2::text IS NULL OR account = $2)
                AND ($3::text IS NULL OR status = $3)
                AND verification_id >= $4
                AND verification_id < $5
                ORDER BY verification_id DESC
                LIMIT $6"#,
                merchant_biz_id,
                account,
                status,
                from,
                below,
                filter.limit
            )
            .fetch_all(&self.pool)
            .await?
        } else {
            match filter.status {
                Some(Status::Final(_)) => {
                    sqlx::query_scalar!(
                        r#"-- list: by final status
                        SELECT c.verification_id AS "id!"
                        FROM accounts a
                        CROSS JOIN LATERAL (
                            SELECT d.verification_id
                            FROM verdicts d
                            WHERE d.account = a.account
                            AND d.status = $1
                            AND d.superseded_at IS NULL
                            AND d.verification_id >= $3
                            AND d.verification_id < $4
                            ORDER BY d.verification_id DESC
                            LIMIT $5
                        ) c
                        WHERE $2::text IS NULL OR a.account = $2
                        ORDER BY c.verification_id DESC
                        LIMIT $5"#,
                        status.unwrap_or_default(),
                        account,
                        from,
                        below,
                        filter.limit
                    )
                    .fetch_all(&self.pool)
                    .await?
                }
                Some(open) => {
                    sqlx::query_scalar!(
                        r#"-- list: by open status
                        SELECT j.verification_id AS "id!"
                        FROM collect_jobs j
                        WHERE NOT j.recheck
                        AND ($2::text IS NULL OR j.account = $2)
                        AND j.verification_id >= $3
                        AND j.verification_id < $4
                        AND $1 = (
                            j.hinted_at IS NOT NULL
                            OR j.callback_at IS NOT NULL
                            OR EXISTS (SELECT FROM hints h WHERE h.verification_id = j.verification_id)
                        )
                        ORDER BY j.verification_id DESC
                        LIMIT $5"#,
                        open == Status::Collecting,
                        account,
                        from,
                        below,
                        filter.limit
                    )
                    .fetch_all(&self.pool)
                    .await?
                }
                None => {
                    sqlx::query_scalar!(
                        r#"-- list: newest
                        SELECT c.verification_id AS "id!"
                        FROM accounts a
                        CROSS JOIN LATERAL (
                            SELECT v.verification_id
                            FROM verifications v
                            WHERE v.account = a.account
                            AND v.verification_id >= $2
                            AND v.verification_id < $3
                            ORDER BY v.verification_id DESC
                            LIMIT $4
                        ) c
                        WHERE $1::text IS NULL OR a.account = $1
                        ORDER BY c.verification_id DESC
                        LIMIT $4"#,
                        account,
                        from,
                        below,
                        filter.limit
                    )
                    .fetch_all(&self.pool)
                    .await?
                }
            }
        };
        self.records(&ids).await
    }

    /// Everything that happened, oldest first; `None` when there is no such verification. Callbacks that were
    /// accepted a moment ago are there too.
    pub async fn history(&self, id: VerificationId) -> Result<Option<Vec<HistoryRow>>, StoreError> {
        let rows = sqlx::query!(
            r#"-- history
            SELECT at AS "at!", kind AS "kind!", detail AS "detail!: Json<Box<RawValue>>"
            FROM (
                SELECT at, kind, detail, history_id, 0 AS part
                FROM history
                WHERE verification_id = $1
                UNION ALL
                SELECT at, CASE kind WHEN 'collect' THEN 'operator' ELSE kind END, detail, hint_id, 1
                FROM hints
                WHERE verification_id = $1
                AND EXISTS (SELECT FROM verifications WHERE verification_id = $1 AND erased_at IS NULL)
            ) AS everything
            ORDER BY at, part, history_id"#,
            id.0
        )
        .fetch_all(&self.pool)
        .await?;
        // Retention may have left nothing of one that is there.
        if rows.is_empty() && !self.is_registered(id).await? {
            return Ok(None);
        }
        rows.into_iter()
            .map(|row| {
                Ok(HistoryRow {
                    at: row.at,
                    kind: row.kind.parse().map_err(|_| StoreError::Inconsistent {
                        table: "history",
                        column: "kind",
                        row: id.to_string(),
                    })?,
                    detail: row.detail.0,
                })
            })
            .collect::<Result<_, _>>()
            .map(Some)
    }

    async fn is_registered(&self, id: VerificationId) -> Result<bool, StoreError> {
        let found = sqlx::query_scalar!(
            r#"-- is_registered
            SELECT EXISTS (SELECT FROM verifications WHERE verification_id = $1) AS "found!""#,
            id.0
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(found)
    }

    /// Of these verifications, those that are final.
    pub async fn final_among(&self, ids: &[Uuid]) -> Result<Vec<VerificationId>, StoreError> {
        let found = sqlx::query_scalar!(
            "-- final_among
            SELECT DISTINCT verification_id
            FROM verdicts
            WHERE verification_id = ANY ($1)",
            ids
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(found.into_iter().map(VerificationId).collect())
    }
}

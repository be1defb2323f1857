//! Reading the history of all verifications in the order of its ids, and knowing which of them are still to come. What
//! is made of that is the service's (`service/live.rs`).

use chrono::{DateTime, Utc};
use serde_json::value::RawValue;
use sqlx::types::Json;

use super::{Store, StoreError};
use crate::domain::VerificationId;

/// Rows of about the same time may have their ids in another order: so many are looked through for the lowest.
const NEIGHBOURS: i64 = 1000;

/// Something that happened, with what its verification is when it is read.
#[derive(Clone, Debug)]
pub struct LiveRow {
    /// Grows over all verifications.
    pub id: i64,
    pub at: DateTime<Utc>,
    /// As stored: a newer version may write kinds that are not known here.
    pub kind: String,
    pub detail: Box<RawValue>,
    pub verification: VerificationId,
    pub account: String,
    pub merchant_biz_id: String,
    pub status: String,
    pub revision: Option<i32>,
}

impl Store {
    /// The last id that was given to a row of the history, whether or not that row is or will ever be committed; 0
    /// before the first.
    pub async fn last_history_drawn(&self) -> Result<i64, StoreError> {
        let last = sqlx::query_scalar!(
            r#"-- last_history_drawn
            SELECT coalesce(pg_sequence_last_value('history_history_id_seq'::regclass), 0) AS "last!""#
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(last)
    }

    /// The transactions that write to the history at this moment, by name. Whoever inserts there holds this lock from
    /// before it draws an id until its rows are visible to all, or gone.
    pub async fn history_writers(&self) -> Result<Vec<String>, StoreError> {
        let writers = sqlx::query_scalar!(
            r#"-- history_writers
            SELECT DISTINCT virtualtransaction AS "writer!"
            FROM pg_locks
            WHERE locktype = 'relation'
            AND relation = 'history'::regclass
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
            AND mode = 'RowExclusiveLock'
            AND granted"#
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(writers)
    }

    /// Rows with ids above `after` up to `upto`, at most `limit` of them, the lowest first.
    pub async fn live_rows(&self, after: i64, upto: i64, limit: i64) -> Result<Vec<LiveRow>, StoreError> {
        let rows = sqlx::query!(
            r#"-- live_rows
            SELECT h.history_id AS "id!", h.at AS "at!", h.kind AS "kind!", h.detail AS "detail!: Json<Box<RawValue>>",
                h.verification_id AS "verification_id!", r.account, r.merchant_biz_id, r.status, r.revision AS "revision?"
            FROM (
                SELECT history_id, at, kind, detail, verification_id
                FROM history
                WHERE history_id > $1
                AND history_id <= $2
                ORDER BY history_id
                LIMIT $3
            ) h
            LEFT JOIN LATERAL (
                SELECT account, merchant_biz_id, status, revision
                FROM verification_records
                WHERE verification_records.verification_id = h.verification_id
                LIMIT 1
            ) r ON true
            ORDER BY h.history_id"#,
            after,
            upto,
            limit
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows
            .into_iter()
            .map(|row| LiveRow {
                id: row.id,
                at: row.at,
                kind: row.kind,
                detail: row.detail.0,
                verification: VerificationId(row.verification_id),
                // They are there with every row that the service wrote.
                account: row.account.unwrap_or_default(),
                merchant_biz_id: row.merchant_biz_id.unwrap_or_default(),
                status: row.status.unwrap_or_default(),
                revision: row.revision,
            })
            .collect())
    }

    /// The lowest id of what happened at `since` or soon after; `None` when nothing has happened since.
    pub async fn first_history_since(&self, since: DateTime<Utc>) -> Result<Option<i64>, StoreError> {
        let first = sqlx::query_scalar!(
            "-- first_history_since
            SELECT min(history_id)
            FROM (
                SELECT history_id
                FROM history
                WHERE at >= $1
                ORDER BY at, history_id
                LIMIT $2
            ) soon",
            since,
            NEIGHBOURS
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(first)
    }

    /// Returns when everything that was committed before is on the disk, also what did not wait for that itself.
    pub async fn flush(&self) -> Result<(), StoreError> {
        // A message to nobody: its commit flushes the log up to itself.
        sqlx::query_scalar!(
            r#"-- flush
            SELECT pg_logical_emit_message(true, 'checkback', '') IS NOT NULL AS "is_flushed!""#
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(())
    }
}

//! What is destroyed because its time is over.
//!
//! Each class has a cursor: how far it has come, in the order of an index by time. A step destroys the next few rows
//! behind it, however many were destroyed before, and moves it on in the same transaction. Whoever works on a class
//! holds its cursor's row, so the replicas never do the same twice.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use super::{Session, Store, StoreError};
use crate::domain::{EvidenceKind, RetentionClass, VerificationId};

/// Rows may be committed a moment after the time they carry; so now and then the cursor goes back by so much.
pub(super) const BACK: TimeDelta = TimeDelta::hours(1);

/// Why evidence is gone.
const EVIDENCE_OVER: &str = "the time of retention.evidence is over";

/// What one step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retained {
    /// Verdicts, or rows of the history, that lost what belongs to the class.
    pub destroyed: u64,
    /// There may be more whose time is over.
    pub more: bool,
    /// How long ago the time was over of what comes next; nothing when there is none.
    pub overdue: Duration,
}

/// Where a class stands.
struct Place {
    at: DateTime<Utc>,
    id: Uuid,
    row: i64,
}

/// What a step found behind the place.
struct Found {
    picked: i64,
    destroyed: i64,
    last: Option<Place>,
}

impl Store {
    /// Destroys the next of a class, at most `limit` rows, whose time was over at `before`. `None` when somebody else
    /// is at it.
    pub async fn retain(
        &self,
        class: RetentionClass,
        before: DateTime<Utc>,
        limit: i64,
        now: DateTime<Utc>,
    ) -> Result<Option<Retained>, StoreError> {
        let mut transaction = self.pool.begin().await?;
        let cursor = sqlx::query!(
            "-- retain: whose turn it is
            SELECT passed_at, passed_id, passed_row, back_at
            FROM retention_cursors
            WHERE class = $1
            FOR UPDATE SKIP LOCKED",
            class.as_str()
        )
        .fetch_optional(&mut *transaction)
        .await?;
        let Some(cursor) = cursor else { return Ok(None) };
        let mut place = Place { at: cursor.passed_at, id: cursor.passed_id, row: cursor.passed_row };
        let goes_back = now - cursor.back_at >= BACK;
        if goes_back {
            place = Place { at: place.at - BACK, id: Uuid::nil(), row: 0 };
        }
        let found = match class {
            RetentionClass::Evidence | RetentionClass::RawAnswer | RetentionClass::Scores => {
                retain_verdicts(&mut transaction, &place, before, limit, class).await?
            }
            RetentionClass::Callbacks => retain_history(&mut transaction, &place, before, limit, true).await?,
            RetentionClass::History => retain_history(&mut transaction, &place, before, limit, false).await?,
            RetentionClass::Webhooks => retain_deliveries(&mut transaction, &place, before, limit).await?,
        };
        let more = found.picked >= limit;
        let place = found.last.unwrap_or(place);
        sqlx::query!(
            "-- retain: how far it came
            UPDATE retention_cursors
            SET passed_at = $2, passed_id = $3, passed_row = $4, back_at = CASE WHEN $5 THEN $6 ELSE back_at END
            WHERE class = $1",
            class.as_str(),
            place.at,
            place.id,
            place.row,
            goes_back,
            now
        )
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        let overdue = if more { (before - place.at).to_std().unwrap_or_default() } else { Duration::ZERO };
        Ok(Some(Retained { destroyed: u64::try_from(found.destroyed).unwrap_or(0), more, overdue }))
    }

    /// Evidence whose time is over, and whose object is still there.
    pub async fn retained_evidence(
        &self,
        limit: i64,
    ) -> Result<Vec<(VerificationId, EvidenceKind, String)>, StoreError> {
        let rows = sqlx::query!(
            r#"-- retained_evidence
            SELECT verification_id, kind, object AS "object!"
            FROM evidence
            WHERE state = 'erased'
            AND object IS NOT NULL
            ORDER BY verification_id
            LIMIT $1"#,
            limit
        )
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter()
            .map(|row| {
                let kind = row.kind.parse().map_err(|_| StoreError::Inconsistent {
                    table: "evidence",
                    column: "kind",
                    row: row.verification_id.to_string(),
                })?;
                Ok((VerificationId(row.verification_id), kind, row.object))
            })
            .collect()
    }

    /// Writes down that the object is deleted.
    pub async fn forget_object(&self, id: VerificationId, kind: EvidenceKind, object: &str) -> Result<(), StoreError> {
        sqlx::query!(
            "-- forget_object
            UPDATE evidence
            SET object = NULL
            WHERE verification_id = $1
            AND kind = $2
            AND object = $3
            AND state = 'erased'",
            id.0,
            kind.as_str(),
            object
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}

/// Of evidence only the rows are marked: their objects are deleted afterwards, and a capture that is still under way
/// destroys what it brings.
async fn retain_verdicts(
    connection: &mut Session,
    place: &Place,
    before: DateTime<Utc>,
    limit: i64,
    class: RetentionClass,
) -> Result<Found, StoreError> {
    let row = sqlx::query!(
        r#"-- retain: verdicts
        WITH picked AS MATERIALIZED (
            SELECT decided_at, verification_id
            FROM verdicts
            WHERE (decided_at, verification_id) > ($1, $2)
            AND decided_at <= $3
            ORDER BY decided_at, verification_id
            LIMIT $4
        ), cleared AS (
            UPDATE verdicts
            SET answer = CASE WHEN $5 = 'raw_answer' THEN NULL ELSE answer END,
                scores = CASE WHEN $5 = 'scores' THEN '{}' ELSE scores END,
                signals = CASE WHEN $5 = 'scores' THEN '{}' ELSE signals END
            WHERE verification_id = ANY (ARRAY(SELECT verification_id FROM picked))
            AND decided_at <= $3
            AND CASE $5
                WHEN 'raw_answer' THEN answer IS NOT NULL
                WHEN 'scores' THEN scores::text <> '{}' OR signals::text <> '{}'
                ELSE false
            END
            RETURNING revision
        ), marked AS (
            UPDATE evidence
            SET state = 'erased', reason = $6
            WHERE verification_id = ANY (ARRAY(SELECT verification_id FROM picked))
            AND state IN ('pending', 'stored')
            AND $5 = 'evidence'
            RETURNING kind
        ), last AS (
            SELECT decided_at, verification_id
            FROM picked
            ORDER BY decided_at DESC, verification_id DESC
            LIMIT 1
        )
        SELECT (SELECT count(*) FROM picked) AS "picked!",
            (SELECT count(*) FROM cleared) + (SELECT count(*) FROM marked) AS "destroyed!",
            (SELECT decided_at FROM last) AS at, (SELECT verification_id FROM last) AS id"#,
        place.at,
        place.id,
        before,
        limit,
        class.as_str(),
        EVIDENCE_OVER
    )
    .fetch_one(connection)
    .await?;
    let last = row.at.zip(row.id).map(|(at, id)| Place { at, id, row: 0 });
    Ok(Found { picked: row.picked, destroyed: row.destroyed, last })
}

async fn retain_history(
    connection: &mut Session,
    place: &Place,
    before: DateTime<Utc>,
    limit: i64,
    callbacks: bool,
) -> Result<Found, StoreError> {
    let row = sqlx::query!(
        r#"-- retain: history
        WITH picked AS MATERIALIZED (
            SELECT at, history_id, verification_id, kind
            FROM history
            WHERE (at, history_id) > ($1, $2)
            AND at <= $3
            ORDER BY at, history_id
            LIMIT $4
        ), gone AS (
            DELETE FROM history h
            USING picked p
            WHERE h.verification_id = ANY (ARRAY(SELECT verification_id FROM picked))
            AND h.verification_id = p.verification_id
            AND h.history_id = p.history_id
            AND (p.kind = 'callback') = $5
            RETURNING h.history_id
        ), last AS (
            SELECT at, history_id
            FROM picked
            ORDER BY at DESC, history_id DESC
            LIMIT 1
        )
        SELECT (SELECT count(*) FROM picked) AS "picked!", (SELECT count(*) FROM gone) AS "destroyed!",
            (SELECT at FROM last) AS at, (SELECT history_id FROM last) AS id"#,
        place.at,
        place.row,
        before,
        limit,
        callbacks
    )
    .fetch_one(connection)
    .await?;
    let last = row.at.zip(row.id).map(|(at, row)| Place { at, id: Uuid::nil(), row });
    Ok(Found { picked: row.picked, destroyed: row.destroyed, last })
}

/// Deliveries that ended, and their events once none is left.
async fn retain_deliveries(
    connection: &mut Session,
    place: &Place,
    before: DateTime<Utc>,
    limit: i64,
) -> Result<Found, StoreError> {
    let row = sqlx::query!(
        r#"-- retain: deliveries
        WITH picked AS MATERIALIZED (
            SELECT ended_at, delivery_id
            FROM deliveries
            WHERE state <> 'pending'
            AND (ended_at, delivery_id) > ($1, $2)
            AND ended_at <= $3
            ORDER BY ended_at, delivery_id
            LIMIT $4
            FOR UPDATE
        ), gone AS (
            DELETE FROM deliveries
            WHERE delivery_id = ANY (ARRAY(SELECT delivery_id FROM picked))
            RETURNING delivery_id, event_id
        ), told AS (
            DELETE FROM events
            WHERE event_id = ANY (ARRAY(SELECT event_id FROM gone))
            AND NOT EXISTS (
                SELECT
                FROM deliveries d
                WHERE d.event_id = events.event_id
                AND d.delivery_id <> ALL (ARRAY(SELECT delivery_id FROM gone))
                -- Else it becomes a join, which may read all of both.
                OFFSET 0
            )
        ), last AS (
            SELECT ended_at, delivery_id
            FROM picked
            ORDER BY ended_at DESC, delivery_id DESC
            LIMIT 1
        )
        SELECT (SELECT count(*) FROM picked) AS "picked!", (SELECT count(*) FROM gone) AS "destroyed!",
            (SELECT ended_at FROM last) AS at, (SELECT delivery_id FROM last) AS id"#,
        place.at,
        place.row,
        before,
        limit
    )
    .fetch_one(connection)
    .await?;
    let last = row.at.zip(row.id).map(|(at, row)| Place { at, id: Uuid::nil(), row });
    Ok(Found { picked: row.picked, destroyed: row.destroyed, last })
}

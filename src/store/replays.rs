//! Replays: deliveries that an operator has begin anew, all attempts included. What is pending anyway is left alone.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{Store, StoreError};
use crate::domain::VerificationId;

/// Which deliveries begin anew.
#[derive(Clone, Debug)]
pub enum ReplayFilter {
    /// Of one event, to all its endpoints.
    Event(Uuid),
    /// Of all events of one verification.
    Verification(VerificationId),
    /// Of all events of these types and times to one endpoint, also where that had not wanted them then.
    Window { endpoint: String, since: DateTime<Utc>, until: DateTime<Utc>, types: Vec<&'static str> },
}

/// What a step of a replay by time did.
#[derive(Clone, Copy, Debug)]
pub struct Replayed {
    pub begun: i64,
    /// Where the next step goes on; `None`: there is no more.
    pub next: Option<(DateTime<Utc>, Uuid)>,
}

impl Store {
    /// How many deliveries would begin anew.
    pub async fn count_replay(&self, filter: &ReplayFilter) -> Result<i64, StoreError> {
        let count = match filter {
            ReplayFilter::Event(_) | ReplayFilter::Verification(_) => {
                sqlx::query_scalar!(
                    r#"-- count_replay
                    SELECT count(*) AS "count!"
                    FROM deliveries
                    WHERE event_id = ANY ($1)
                    AND state <> 'pending'"#,
                    &self.events_of(filter).await?
                )
                .fetch_one(&self.pool)
                .await?
            }
            ReplayFilter::Window { endpoint, since, until, types } => {
                sqlx::query_scalar!(
                    r#"-- count_replay: by time
                    SELECT count(*) AS "count!"
                    FROM events e
                    LEFT JOIN LATERAL (
                        SELECT state
                        FROM deliveries
                        WHERE deliveries.event_id = e.event_id
                        AND deliveries.endpoint = $1
                        LIMIT 1
                    ) d ON true
                    WHERE e.occurred_at >= $2
                    AND e.occurred_at < $3
                    AND e.type = ANY ($4)
                    AND d.state IS DISTINCT FROM 'pending'"#,
                    endpoint,
                    since,
                    until,
                    types as _
                )
                .fetch_one(&self.pool)
                .await?
            }
        };
        Ok(count)
    }

    async fn events_of(&self, filter: &ReplayFilter) -> Result<Vec<Uuid>, StoreError> {
        let ReplayFilter::Verification(verification) = filter else {
            return Ok(if let ReplayFilter::Event(id) = filter { vec![*id] } else { Vec::new() });
        };
        let events = sqlx::query_scalar!(
            "-- events_of
            SELECT event_id
            FROM events
            WHERE verification_id = $1",
            verification.0
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(events)
    }

    /// Has deliveries begin anew, those of a window at most `limit` events at a time, from `from` on.
    pub async fn replay(
        &self,
        filter: &ReplayFilter,
        from: Option<(DateTime<Utc>, Uuid)>,
        limit: i64,
        now: DateTime<Utc>,
    ) -> Result<Replayed, StoreError> {
        let ReplayFilter::Window { endpoint, since, until, types } = filter else {
            let done = sqlx::query!(
                "-- replay
                UPDATE deliveries
                SET state = 'pending', due_at = $2, attempts = 0, replays = replays + 1, ended_at = NULL
                WHERE event_id = ANY ($1)
                AND state <> 'pending'",
                &self.events_of(filter).await?,
                now
            )
            .execute(&self.pool)
            .await?;
            return Ok(Replayed { begun: i64::try_from(done.rows_affected()).unwrap_or(i64::MAX), next: None });
        };
        let (from_at, from_id) = from.unwrap_or((*since, Uuid::nil()));
        let row = sqlx::query!(
            r#"-- replay: by time
            WITH picked AS MATERIALIZED (
                SELECT event_id, verification_id, occurred_at
                FROM events
                WHERE (occurred_at, event_id) > ($1, $2)
                AND occurred_at < $3
                AND type = ANY ($4)
                ORDER BY occurred_at, event_id
                LIMIT $5
            ), begun AS (
                INSERT INTO deliveries AS d (event_id, endpoint, verification_id, due_at)
                SELECT event_id, $6, verification_id, $7
                FROM picked
                ORDER BY event_id
                ON CONFLICT (event_id, endpoint) DO UPDATE
                SET state = 'pending', due_at = excluded.due_at, attempts = 0, replays = d.replays + 1, ended_at = NULL
                WHERE d.state <> 'pending'
                RETURNING delivery_id
            ), last AS (
                SELECT occurred_at, event_id
                FROM picked
                ORDER BY occurred_at DESC, event_id DESC
                LIMIT 1
            )
            SELECT (SELECT count(*) FROM picked) AS "picked!", (SELECT count(*) FROM begun) AS "begun!",
                (SELECT occurred_at FROM last) AS at, (SELECT event_id FROM last) AS id"#,
            from_at,
            from_id,
            until,
            types as _,
            limit,
            endpoint,
            now
        )
        .fetch_one(&self.pool)
        .await?;
        let next = row.at.zip(row.id).filter(|_| row.picked >= limit);
        Ok(Replayed { begun: row.begun, next })
    }
}

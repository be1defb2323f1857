//! Endpoints as replicas and operators see them, and the lists of their deliveries.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{Store, StoreError};
use crate::domain::VerificationId;

/// How an endpoint fares.
#[derive(Clone, Debug)]
pub struct EndpointRow {
    pub endpoint: String,
    pub disabled_at: Option<DateTime<Utc>>,
    pub disabled_reason: Option<String>,
    /// In a row.
    pub failures: u32,
    pub paused_until: Option<DateTime<Utc>>,
    pub last_success_at: Option<DateTime<Utc>>,
    pub last_failure_at: Option<DateTime<Utc>>,
    pub last_failure: Option<String>,
    pub pending: i64,
    pub failed: i64,
    /// When the first of the pending ones is or was due.
    pub next_due_at: Option<DateTime<Utc>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryState {
    Pending,
    Delivered,
    Failed,
}

impl DeliveryState {
    pub const ALL: [Self; 3] = [Self::Pending, Self::Delivered, Self::Failed];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Failed => "failed",
        }
    }
}

/// Which deliveries a list shows, newest first.
#[derive(Clone, Debug, Default)]
pub struct DeliveryFilter {
    pub endpoint: Option<String>,
    pub state: Option<DeliveryState>,
    pub verification: Option<VerificationId>,
    /// Only those written before this one.
    pub below: Option<i64>,
    pub limit: i64,
}

#[derive(Clone, Debug)]
pub struct DeliveryRow {
    pub id: i64,
    pub event_id: Uuid,
    pub endpoint: String,
    pub verification: VerificationId,
    pub r#type: String,
    pub occurred_at: DateTime<Utc>,
    pub state: String,
    pub attempts: u32,
    pub replays: u32,
    /// `None`: no attempt is to come.
    pub next_attempt_at: Option<DateTime<Utc>>,
    pub last_attempt_at: Option<DateTime<Utc>>,
    pub last_result: Option<String>,
    pub last_status: Option<i32>,
    pub last_duration_ms: Option<i64>,
    pub ended_at: Option<DateTime<Utc>>,
}

impl Store {
    /// Gives endpoints their rows, without which nothing of theirs is leased.
    pub async fn add_endpoints(&self, endpoints: &[String]) -> Result<(), StoreError> {
        sqlx::query!(
            "-- add_endpoints
            INSERT INTO endpoints (endpoint)
            SELECT endpoint
            FROM unnest($1::text[]) AS i (endpoint)
            ORDER BY endpoint
            ON CONFLICT (endpoint) DO NOTHING",
            endpoints
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// All endpoints that were ever configured, by name.
    pub async fn endpoints(&self) -> Result<Vec<EndpointRow>, StoreError> {
        let rows = sqlx::query!(
            r#"-- endpoints
            SELECT e.*,
                (SELECT count(*) FROM deliveries d WHERE d.endpoint = e.endpoint AND d.state = 'pending') AS "pending!",
                (SELECT count(*) FROM deliveries d WHERE d.endpoint = e.endpoint AND d.state = 'failed') AS "failed!",
                (
                    SELECT due_at
                    FROM deliveries d
                    WHERE d.endpoint = e.endpoint
                    AND d.state = 'pending'
                    ORDER BY due_at, delivery_id
                    LIMIT 1
                ) AS next_due_at
            FROM endpoints e
            ORDER BY e.endpoint"#
        )
        .fetch_all(&self.pool)
        .await?;
        let rows = rows.into_iter().map(|row| EndpointRow {
            endpoint: row.endpoint,
            disabled_at: row.disabled_at,
            disabled_reason: row.disabled_reason,
            failures: u32::try_from(row.failures).unwrap_or(0),
            paused_until: row.paused_until,
            last_success_at: row.last_success_at,
            last_failure_at: row.last_failure_at,
            last_failure: row.last_failure,
            pending: row.pending,
            failed: row.failed,
            next_due_at: row.next_due_at,
        });
        Ok(rows.collect())
    }

    /// Enables an endpoint and forgets its failures, so that everything due is sent at once. False when there is none.
    pub async fn enable_endpoint(&self, endpoint: &str) -> Result<bool, StoreError> {
        let done = sqlx::query!(
            "-- enable_endpoint
            UPDATE endpoints
            SET disabled_at = NULL, disabled_reason = NULL, failures = 0, paused_until = NULL
            WHERE endpoint = $1",
            endpoint
        )
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// A page of deliveries, newest first. Each filter has an index in that order.
    pub async fn deliveries(&self, filter: &DeliveryFilter) -> Result<Vec<DeliveryRow>, StoreError> {
        let below = filter.below.unwrap_or(i64::MAX);
        let state = filter.state.map(DeliveryState::as_str);
        let ids = if let Some(verification) = filter.verification {
            sqlx::query_scalar!(
                "-- deliveries: by verification
                SELECT delivery_id
                FROM deliveries
                WHERE verification_id = $1
                AND ($2::text IS NULL OR endpoint = $2)
                AND ($3::text IS NULL OR state = $3)
                AND delivery_id < $4
                ORDER BY delivery_id DESC
                LIMIT $5",
                verification.0,
                filter.endpoint.as_deref(),
                state,
                below,
                filter.limit
            )
            .fetch_all(&self.pool)
            .await?
        } else {
            let states = DeliveryState::ALL.map(DeliveryState::as_str);
            sqlx::query_scalar!(
                r#"-- deliveries: newest
                SELECT c.delivery_id AS "delivery_id!"
                FROM endpoints e
                CROSS JOIN unnest($6::text[]) AS s (state)
                CROSS JOIN LATERAL (
                    SELECT d.delivery_id
                    FROM deliveries d
                    WHERE d.endpoint = e.endpoint
                    AND d.state = s.state
                    AND d.delivery_id < $3
                    ORDER BY d.delivery_id DESC
                    LIMIT $4
                ) c
                WHERE ($1::text IS NULL OR e.endpoint = $1)
                AND ($2::text IS NULL OR s.state = $2)
                ORDER BY c.delivery_id DESC
                LIMIT $5"#,
                filter.endpoint.as_deref(),
                state,
                below,
                filter.limit,
                filter.limit,
                &states as _,
            )
            .fetch_all(&self.pool)
            .await?
        };
        let rows = sqlx::query!(
            r#"-- deliveries
            SELECT d.*, e.type AS "type!", e.occurred_at AS "occurred_at!"
            FROM deliveries d
            CROSS JOIN LATERAL (
                SELECT type, occurred_at
                FROM events
                WHERE events.event_id = d.event_id
                LIMIT 1
            ) e
            WHERE d.delivery_id = ANY ($1)
            ORDER BY d.delivery_id DESC"#,
            &ids
        )
        .fetch_all(&self.pool)
        .await?;
        let rows = rows.into_iter().map(|row| DeliveryRow {
            id: row.delivery_id,
            event_id: row.event_id,
            endpoint: row.endpoint,
            verification: VerificationId(row.verification_id),
            r#type: row.r#type,
            occurred_at: row.occurred_at,
            next_attempt_at: row.ended_at.is_none().then_some(row.due_at),
            state: row.state,
            attempts: u32::try_from(row.attempts).unwrap_or(0),
            replays: u32::try_from(row.replays).unwrap_or(0),
            last_attempt_at: row.last_attempt_at,
            last_result: row.last_result,
            last_status: row.last_status,
            last_duration_ms: row.last_duration_ms,
            ended_at: row.ended_at,
        });
        Ok(rows.collect())
    }
}

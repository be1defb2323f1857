//! Events of webhooks, written in the transaction of what they tell, each with a delivery for every endpoint that wants
//! it. Where no endpoint wants a type, nothing is written and nothing is asked.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::checks::{CheckedFinal, Recorded};
use super::{Session, Store, StoreError};
use crate::domain::{EventType, VerificationId};
use crate::entropy::Entropy;

/// Which endpoints want which types of events.
#[derive(Clone, Debug)]
pub struct Subscriptions {
    by_type: Arc<BTreeMap<EventType, Vec<String>>>,
    entropy: Entropy,
}

impl Subscriptions {
    /// `entropy` makes the events' ids.
    pub fn new(endpoints: impl IntoIterator<Item = (String, Vec<EventType>)>, entropy: Entropy) -> Self {
        let mut by_type: BTreeMap<EventType, Vec<String>> = BTreeMap::new();
        for (endpoint, types) in endpoints {
            for wanted in types {
                by_type.entry(wanted).or_default().push(endpoint.clone());
            }
        }
        Self { by_type: Arc::new(by_type), entropy }
    }

    fn endpoints(&self, wanted: EventType) -> &[String] {
        self.by_type.get(&wanted).map_or(&[], Vec::as_slice)
    }
}

/// Something that happened. What is told of it is read where it is written.
#[derive(Clone, Copy, Debug)]
pub(super) struct NewEvent {
    pub id: VerificationId,
    pub r#type: EventType,
    pub at: DateTime<Utc>,
}

impl Store {
    /// A store that writes events for these.
    #[must_use]
    pub fn with_subscriptions(self, subscriptions: Subscriptions) -> Self {
        Self { subscriptions: Some(subscriptions), ..self }
    }

    /// Whether any endpoint wants this.
    pub(super) fn is_wanted(&self, event: EventType) -> bool {
        self.subscriptions.as_ref().is_some_and(|subscriptions| !subscriptions.endpoints(event).is_empty())
    }

    /// Writes events of verdicts that were just recorded in the same transaction.
    pub(super) async fn write_verdict_events(
        &self,
        connection: &mut Session,
        checks: &[&CheckedFinal],
        recorded: &[Recorded],
    ) -> Result<(), StoreError> {
        let events: Vec<NewEvent> = checks
            .iter()
            .filter(|check| recorded.iter().any(|recorded| recorded.id == check.id && recorded.revision.is_some()))
            .map(|check| NewEvent { id: check.id, r#type: check.status.into(), at: check.at })
            .collect();
        self.write_events(connection, &events).await
    }

    /// Writes events of evidence that ended with answers just recorded, the rest being stored before.
    pub(super) async fn write_noted_events(
        &self,
        connection: &mut Session,
        checks: &[&CheckedFinal],
        recorded: &[Recorded],
    ) -> Result<(), StoreError> {
        let ended = recorded.iter().filter(|recorded| !recorded.evidence_ended.is_empty());
        let mut ids: Vec<Uuid> = ended.map(|recorded| recorded.id.0).collect();
        let Some(at) = checks.iter().map(|check| check.at).max() else { return Ok(()) };
        if ids.is_empty() || !self.is_wanted(EventType::EvidenceStored) {
            return Ok(());
        }
        ids.sort_unstable();
        lock_evidence(connection, &ids).await?;
        self.write_evidence_events(connection, &ids, at).await
    }

    /// Writes, of `ids`, an event for each whose evidence has ended, something of it being stored. Their rows must be
    /// locked: of two captures that end together the second sees what the first did.
    pub(super) async fn write_evidence_events(
        &self,
        connection: &mut Session,
        ids: &[Uuid],
        at: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        let ended = sqlx::query_scalar!(
            "-- evidence_ended
            SELECT verification_id
            FROM evidence
            WHERE verification_id = ANY ($1)
            GROUP BY verification_id
            HAVING bool_or(state = 'stored')
            AND NOT bool_or(state = 'pending')
            ORDER BY verification_id",
            ids
        )
        .fetch_all(&mut *connection)
        .await?;
        let new = |id| NewEvent { id: VerificationId(id), r#type: EventType::EvidenceStored, at };
        self.write_events(connection, &ended.into_iter().map(new).collect::<Vec<_>>()).await
    }

    /// Writes those that an endpoint wants. The verification must have its verdict by now.
    pub(super) async fn write_events(&self, connection: &mut Session, events: &[NewEvent]) -> Result<(), StoreError> {
        let Some(subscriptions) = &self.subscriptions else { return Ok(()) };
        let wanted: Vec<&NewEvent> = events.iter().filter(|event| self.is_wanted(event.r#type)).collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let event_ids: Vec<Uuid> = wanted.iter().map(|event| subscriptions.entropy.id(event.at)).collect();
        let ids: Vec<Uuid> = wanted.iter().map(|event| event.id.0).collect();
        let types: Vec<&str> = wanted.iter().map(|event| event.r#type.as_str()).collect();
        let times: Vec<DateTime<Utc>> = wanted.iter().map(|event| event.at).collect();
        let (mut endpoints, mut endpoint_types) = (Vec::new(), Vec::new());
        for (wanted, names) in subscriptions.by_type.iter() {
            for name in names {
                endpoints.push(name.as_str());
                endpoint_types.push(wanted.as_str());
            }
        }
        sqlx::query!(
            "-- write_events
            WITH written AS (
                INSERT INTO events (event_id, verification_id, type, account, merchant_biz_id, status, revision,
                    occurred_at)
                SELECT i.event_id, i.verification_id, i.type, v.account, v.merchant_biz_id, d.status, d.revision, i.at
                FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::timestamptz[])
                    AS i (event_id, verification_id, type, at)
                CROSS JOIN LATERAL (
                    SELECT account, merchant_biz_id
                    FROM verifications
                    WHERE verifications.verification_id = i.verification_id
                    LIMIT 1
                ) v
                CROSS JOIN LATERAL (
                    SELECT status, revision
                    FROM verdicts
                    WHERE verdicts.verification_id = i.verification_id
                    AND superseded_at IS NULL
                    ORDER BY revision DESC
                    LIMIT 1
                ) d
                RETURNING event_id, verification_id, type, occurred_at
            )
            INSERT INTO deliveries (event_id, endpoint, verification_id, due_at)
            SELECT w.event_id, s.endpoint, w.verification_id, w.occurred_at
            FROM written w
            JOIN unnest($5::text[], $6::text[]) AS s (endpoint, type) ON s.type = w.type
            ORDER BY w.event_id, s.endpoint",
            &event_ids,
            &ids,
            &types as _,
            &times,
            &endpoints as _,
            &endpoint_types as _,
        )
        .execute(connection)
        .await?;
        Ok(())
    }
}

/// Locks the evidence of verifications, in one order for everybody, so that of those who end the last two pieces
/// one comes second.
pub(super) async fn lock_evidence(connection: &mut Session, ids: &[Uuid]) -> Result<(), StoreError> {
    sqlx::query!(
        "-- lock_evidence
        SELECT FROM evidence
        WHERE verification_id = ANY ($1)
        ORDER BY verification_id, kind
        FOR UPDATE",
        ids
    )
    .execute(connection)
    .await?;
    Ok(())
}

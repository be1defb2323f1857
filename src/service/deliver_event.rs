//! Delivering an event: what is leased, one attempt, and what its end means for the delivery and its endpoint.

use std::time::Duration;

use tracing::{debug, info, warn};

use super::Service;
use super::webhooks::{Endpoint, Unsigned};
use crate::clock::later;
use crate::domain::schedule::{DELIVERY_ATTEMPTS, after_delivery};
use crate::store::{Attempt, AttemptEnd, DeliveryLease, LeasedDelivery, StoreError};
use crate::webhook::Sent;

/// How long a lease lasts without being renewed.
pub const LEASE: Duration = Duration::from_secs(10);
/// Attempts that take longer renew it this often.
pub const RENEWAL: Duration = Duration::from_millis(2500);
/// An endpoint that failed so often in a row gets one delivery at a time.
const FAILING_AFTER: i32 = 5;
/// A probe whose end nobody wrote is thought dead after this.
const PROBE: Duration = Duration::from_secs(15);

impl Service {
    /// Leases what is due at an endpoint, at most `limit`.
    pub async fn lease_deliveries(&self, endpoint: &str, limit: i64) -> Result<Vec<LeasedDelivery>, StoreError> {
        let now = self.clock.now();
        let lease = DeliveryLease {
            endpoint,
            token: self.entropy.token(),
            limit,
            length: LEASE,
            failing_after: FAILING_AFTER,
            probe_over_at: later(now, PROBE),
            now,
        };
        self.store.lease_deliveries(&lease).await
    }

    /// One attempt. `None` when the lease was lost meanwhile: somebody else sends it, perhaps again.
    pub async fn send_event(&self, endpoint: &Endpoint, leased: &LeasedDelivery) -> Option<Sent> {
        let webhooks = self.webhooks.as_ref()?;
        let event = &leased.event;
        let message = Unsigned { id: event.id, body: event.body(), at: self.clock.now() };
        tokio::select! {
            sent = webhooks.send(endpoint, message) => Some(sent),
            () = self.lease_lost(leased) => None,
        }
    }

    /// Renews the lease as long as it stands.
    async fn lease_lost(&self, leased: &LeasedDelivery) {
        let mut good_until = tokio::time::Instant::now() + LEASE - RENEWAL / 2;
        loop {
            tokio::time::sleep(RENEWAL).await;
            match self.store.renew_delivery(leased.id, leased.token, LEASE).await {
                Ok(true) => good_until = tokio::time::Instant::now() + LEASE - RENEWAL / 2,
                Ok(false) => return,
                Err(_) if tokio::time::Instant::now() >= good_until => return,
                Err(error) => debug!(error = &error as &dyn std::error::Error, "a lease could not be renewed yet"),
            }
        }
    }

    /// Stores how an attempt ended. False when its lease was lost.
    pub async fn record_attempt(&self, leased: &LeasedDelivery, sent: &Sent) -> Result<bool, StoreError> {
        let at = self.clock.now();
        let attempts = leased.attempts + 1;
        let (result, reason) = match &sent.end {
            Ok(_) => ("delivered", None),
            Err(error) => (error.code(), Some(error.to_string())),
        };
        let end = match &sent.end {
            Ok(_) => AttemptEnd::Delivered,
            Err(error) => match after_delivery(attempts, error.retry_after(), self.entropy.fraction()) {
                Some(wait) => AttemptEnd::Again(later(at, wait)),
                None => AttemptEnd::GivenUp,
            },
        };
        let disables = sent.end.as_ref().is_err_and(crate::webhook::DeliveryError::disables);
        let attempt = Attempt {
            id: leased.id,
            token: leased.token,
            end,
            result,
            status: sent.status,
            reason: reason.as_deref(),
            duration: sent.duration,
            answer: sent.answer.as_deref(),
            disables,
            at,
        };
        if !self.store.record_attempt(&attempt, FAILING_AFTER).await? {
            return Ok(false);
        }
        metrics::counter!("checkback_webhook_attempts_total", "result" => result).increment(1);
        let (id, endpoint) = (leased.event.verification, leased.endpoint.as_str());
        let duration_ms = u64::try_from(sent.duration.as_millis()).unwrap_or(u64::MAX);
        match (end, reason) {
            (AttemptEnd::GivenUp, Some(reason)) => {
                tracing::error!(verification.id = %id, endpoint, attempt = attempts, duration_ms,
                    "{reason}; the event was sent {DELIVERY_ATTEMPTS} times and is given up until somebody replays it");
            }
            (_, Some(reason)) if disables => {
                tracing::error!(verification.id = %id, endpoint, attempt = attempts, duration_ms,
                    "{reason}; nothing is sent there until somebody enables it");
            }
            (_, Some(reason)) => {
                warn!(verification.id = %id, endpoint, attempt = attempts, duration_ms, "{reason}; it is sent again");
            }
            (_, None) if attempts > 1 => {
                info!(verification.id = %id, endpoint, attempt = attempts, duration_ms, "an event is delivered at last");
            }
            (_, None) => debug!(verification.id = %id, endpoint, duration_ms, "an event is delivered"),
        }
        Ok(true)
    }
}

//! The loop that delivers the events of one endpoint. Each endpoint has its own, with its own room, so that one that is
//! slow or down delays no other.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tracing::{debug, error, info, warn};
use uuid::Uuid;

use super::POLL;
use super::steps::persist;
use super::upkeep::stops_within;
use crate::lifecycle::Tasks;
use crate::service::Service;
use crate::service::webhooks::{Endpoint, Webhooks};
use crate::store::LeasedDelivery;

/// Attempts under way at a time, for each endpoint and replica.
const MOST_ATTEMPTS: usize = 8;
/// How often the gauges are set.
const GAUGES: Duration = Duration::from_secs(5);

#[derive(Clone)]
pub(super) struct Deliveries {
    service: Service,
    tasks: Tasks,
    /// Leases whose attempt has not ended.
    held: Arc<Mutex<HashSet<(i64, Uuid)>>>,
}

impl Deliveries {
    /// Starts the loops of all endpoints.
    pub fn start(service: &Service, tasks: &Tasks) -> Self {
        let deliveries = Self { service: service.clone(), tasks: tasks.clone(), held: Arc::default() };
        for endpoint in service.webhooks.iter().flat_map(Webhooks::all) {
            tasks.spawn(deliveries.clone().deliver(Arc::clone(endpoint)));
            tasks.spawn(deliveries.clone().measure(Arc::clone(endpoint)));
        }
        deliveries
    }

    async fn deliver(self, endpoint: Arc<Endpoint>) {
        // With `--no-migrate` the table may come later.
        while let Err(error) = self.service.store.add_endpoints(std::slice::from_ref(&endpoint.name)).await {
            debug!(error = &error as &dyn std::error::Error, "the endpoints are not stored yet");
            if stops_within(&self.tasks, POLL).await {
                return;
            }
        }
        let permits = Arc::new(Semaphore::new(MOST_ATTEMPTS));
        let stopping = self.tasks.stopping();
        tokio::pin!(stopping);
        loop {
            // Room for at least one; then as many as there is room for.
            let first = tokio::select! {
                biased;
                () = &mut stopping => return,
                permit = Arc::clone(&permits).acquire_owned() => permit,
            };
            let Ok(first) = first else { return };
            let room = permits.available_permits() + 1;
            let leased = match self.service.lease_deliveries(&endpoint.name, i64::try_from(room).unwrap_or(1)).await {
                Ok(leased) => leased,
                Err(error) => {
                    if !error.is_unavailable() {
                        error!(
                            endpoint = endpoint.name,
                            error = &error as &dyn std::error::Error,
                            "due deliveries could not be leased"
                        );
                    }
                    Vec::new()
                }
            };
            let is_all = leased.len() < room;
            let mut first = Some(first);
            for delivery in leased {
                self.held().insert((delivery.id, delivery.token));
                // No more were leased than there was room for, and nobody else takes permits.
                let Some(permit) = first.take().or_else(|| Arc::clone(&permits).try_acquire_owned().ok()) else {
                    break;
                };
                self.tasks.spawn(self.clone().attempt(Arc::clone(&endpoint), delivery, permit));
            }
            drop(first);
            if is_all {
                tokio::select! {
                    () = endpoint.woken() => {}
                    () = tokio::time::sleep(POLL) => {}
                    () = &mut stopping => return,
                }
            }
        }
    }

    async fn attempt(self, endpoint: Arc<Endpoint>, leased: LeasedDelivery, permit: OwnedSemaphorePermit) {
        let lost = || {
            warn!(verification.id = %leased.event.verification, endpoint = endpoint.name,
                "the lease of a delivery was lost; somebody else sends it");
        };
        match self.service.send_event(&endpoint, &leased).await {
            None => lost(),
            Some(sent) => match persist(|| self.service.record_attempt(&leased, &sent)).await {
                Ok(true) => {
                    // A failing endpoint that is well again takes more at once.
                    if leased.attempts > 0 && sent.end.is_ok() {
                        endpoint.wake();
                    }
                }
                Ok(false) => lost(),
                Err(error) => warn!(verification.id = %leased.event.verification, endpoint = endpoint.name,
                    error = &error as &dyn std::error::Error,
                    "the end of an attempt could not be written down; it is sent again"),
            },
        }
        self.held().remove(&(leased.id, leased.token));
        drop(permit);
    }

    fn held(&self) -> std::sync::MutexGuard<'_, HashSet<(i64, Uuid)>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the gauges of an endpoint.
    async fn measure(self, endpoint: Arc<Endpoint>) {
        loop {
            let started = Instant::now();
            if let Ok(due_at) = self.service.store.oldest_delivery(&endpoint.name).await {
                let now = self.service.clock.now();
                let late = due_at.and_then(|due_at| (now - due_at).to_std().ok()).unwrap_or_default();
                metrics::gauge!("checkback_webhook_oldest_due_seconds", "endpoint" => endpoint.name.clone())
                    .set(late.as_secs_f64());
            }
            if stops_within(&self.tasks, GAUGES.saturating_sub(started.elapsed())).await {
                return;
            }
        }
    }

    /// Gives back what a stop cut short.
    pub async fn release(&self) {
        let left: Vec<(i64, Uuid)> = self.held().iter().copied().collect();
        if left.is_empty() {
            return;
        }
        match self.service.store.release_deliveries(&left).await {
            Ok(released) => info!(released, "deliveries under way were given back"),
            Err(error) => warn!(
                error = &error as &dyn std::error::Error,
                "deliveries could not be given back; their leases run out by themselves"
            ),
        }
    }
}

//! Background work: taking hints, asking the provider, capturing evidence, delivering
//! events, replacing workers that died.
//!
//! Each replica runs the same loops. They look at once when something happened here, soon when it happened elsewhere,
//! and every second in any case.

mod at_risk;
mod captures;
mod checks;
mod deliveries;
mod dispatch;
mod erasures;
mod in_flight;
mod lanes;
mod rechecks;
mod retention;
pub mod steps;
mod turns;
mod upkeep;

use std::sync::Arc;
use std::time::Duration;

use crate::domain::Keep;
use crate::lifecycle::Tasks;
use crate::service::Service;

pub use captures::{Captures, Failed as CaptureFailed};
use checks::Checks;
use deliveries::Deliveries;
pub use in_flight::InFlight;
pub use turns::Turns;

/// How long a lease lasts without being renewed. A dead worker's jobs are taken again after this and [`RECOVERY`].
pub const LEASE: Duration = Duration::from_secs(10);
/// Leases of calls that take long are renewed this often.
pub const RENEWAL: Duration = Duration::from_millis(2500);
/// How often leases that ran out are looked for.
pub const RECOVERY: Duration = Duration::from_secs(2);
/// The safety net: how long a loop sleeps at most before it looks by itself.
pub const POLL: Duration = Duration::from_secs(1);
/// Calls under way at a time, for each account and replica. At 50 calls a second this allows answers of two seconds.
pub const MOST_IN_FLIGHT: usize = 128;

/// How long the queues of results may take to empty at a stop.
const QUEUE_GRACE: Duration = Duration::from_secs(1);

/// The loops of one replica.
pub struct Engine {
    tasks: Tasks,
    queues: Tasks,
    in_flight: Arc<InFlight>,
    captures: Captures,
    deliveries: Deliveries,
    service: Service,
}

impl Engine {
    /// Starts all loops. What is not in `keep` is kept forever.
    pub fn start(service: Service, keep: &[Keep]) -> Self {
        // Two sets of tasks: the queues of results must outlive the checks that fill them.
        let (tasks, queues) = (Tasks::new(), Tasks::new());
        let in_flight = Arc::new(InFlight::default());
        let captures = Captures::new(service.clone(), tasks.clone());
        let checks = Checks::start(service.clone(), Arc::clone(&in_flight), captures.clone(), tasks.clone(), &queues);
        tasks.spawn(dispatch::take_hints(service.clone(), tasks.clone()));
        for account in service.accounts.values() {
            tasks.spawn(dispatch::lease(service.clone(), Arc::clone(account), checks.clone(), tasks.clone()));
            tasks.spawn(dispatch::end_overdue(Arc::clone(account), checks.clone(), tasks.clone()));
            tasks.spawn(lanes::sort(service.clone(), Arc::clone(account), tasks.clone()));
            tasks.spawn(lanes::plan_polls(service.clone(), Arc::clone(account), tasks.clone()));
        }
        let deliveries = Deliveries::start(&service, &tasks);
        tasks.spawn(erasures::erase(service.clone(), tasks.clone()));
        for keep in keep {
            tasks.spawn(retention::retain(service.clone(), *keep, tasks.clone()));
        }
        tasks.spawn(upkeep::enrol(service.clone(), tasks.clone()));
        tasks.spawn(upkeep::recover(service.clone(), tasks.clone()));
        tasks.spawn(upkeep::renew(service.clone(), Arc::clone(&in_flight), tasks.clone()));
        tasks.spawn(captures.clone().renew());
        tasks.spawn(captures.clone().look_after());
        tasks.spawn(upkeep::listen(service.clone(), tasks.clone()));
        tasks.spawn(upkeep::tidy(service.clone(), tasks.clone()));
        tasks.spawn(at_risk::watch(service.clone(), tasks.clone()));
        tasks.spawn(rechecks::feed(service.clone(), tasks.clone()));
        service.wakes.start(service.store.clone(), &tasks);
        Self { tasks, queues, in_flight, captures, deliveries, service }
    }

    /// Finishes what is in flight, at most for `grace`, and gives the leases of the rest back.
    pub async fn shut_down(self, grace: Duration) {
        self.tasks.shut_down(grace).await;
        self.queues.shut_down(QUEUE_GRACE).await;
        self.captures.release().await;
        self.deliveries.release().await;
        let left = self.in_flight.left();
        if left.is_empty() {
            return;
        }
        match self.service.store.release_leases(&left).await {
            Ok(released) => tracing::info!(released, "checks under way were given back"),
            Err(error) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                "leases could not be given back; they run out by themselves"
            ),
        }
    }
}

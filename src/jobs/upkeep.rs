//! The loops that keep the others sound: leases of the dead, leases of the slow, signals, old leftovers.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use super::in_flight::InFlight;
use super::{POLL, RECOVERY, RENEWAL, steps};
use crate::lifecycle::Tasks;
use crate::service::Service;
use crate::store::Signal;

const TIDY: Duration = Duration::from_mins(1);
/// How long to wait before listening again after that failed.
const LISTEN_AGAIN: Duration = Duration::from_secs(5);

/// True when the service stops before `time` is over.
pub(super) async fn stops_within(tasks: &Tasks, time: Duration) -> bool {
    tokio::time::timeout(time, tasks.stopping()).await.is_ok()
}

/// Gives each account its row, without which its work is never leased. The table may not be there yet: with
/// `--no-migrate` somebody else applies the migrations later.
pub(super) async fn enrol(service: Service, tasks: Tasks) {
    let names: Vec<String> = service.accounts.keys().cloned().collect();
    while let Err(error) = service.store.add_accounts(&names).await {
        debug!(error = &error as &dyn std::error::Error, "the accounts are not stored yet");
        if stops_within(&tasks, POLL).await {
            return;
        }
    }
    service.wakes.all_accounts();
}

/// Makes the work of dead workers available again.
pub(super) async fn recover(service: Service, tasks: Tasks) {
    loop {
        match service.store.recover_leases().await {
            Ok(accounts) if accounts.is_empty() => {}
            Ok(accounts) => {
                info!(checks = accounts.len(), "leases ran out and were taken back");
                service.wakes.all_accounts();
            }
            Err(error) => debug!(error = &error as &dyn std::error::Error, "leases could not be looked through"),
        }
        if stops_within(&tasks, RECOVERY).await {
            return;
        }
    }
}

/// Renews the leases of calls that take long. Runs until the checks have ended, also during a stop.
pub(super) async fn renew(service: Service, in_flight: Arc<InFlight>, tasks: Tasks) {
    loop {
        if tasks.is_stopping() {
            if in_flight.is_empty() {
                return;
            }
            tokio::time::sleep(RENEWAL / 10).await;
        } else {
            stops_within(&tasks, RENEWAL).await;
        }
        steps::renew(&service, &in_flight, Instant::now()).await;
    }
}

/// Hears what other replicas did, and looks by itself where signals may be lost.
pub(super) async fn listen(service: Service, tasks: Tasks) {
    let stopping = tasks.stopping();
    tokio::pin!(stopping);
    loop {
        tokio::select! {
            () = hear(&service) => {}
            () = &mut stopping => return,
        }
        let look_until = Instant::now() + LISTEN_AGAIN;
        while Instant::now() < look_until {
            look(&service).await;
            if stops_within(&tasks, POLL).await {
                return;
            }
        }
    }
}

/// Handles signals until the connection for them is lost for good.
async fn hear(service: &Service) {
    let mut signals = match service.store.signals().await {
        Ok(signals) => signals,
        Err(error) => {
            warn!(error = &error as &dyn std::error::Error, "signals of other replicas cannot be heard");
            return;
        }
    };
    loop {
        let signal = tokio::select! {
            signal = signals.next() => signal,
            () = tokio::time::sleep(POLL) => {
                look(service).await;
                continue;
            }
        };
        match signal {
            Ok(Signal::Work(account)) => service.wakes.account(&account),
            Ok(Signal::Final(ids)) => service.finals.announce(&ids),
            Ok(Signal::Missed) => look(service).await,
            Err(error) => {
                warn!(error = &error as &dyn std::error::Error, "the connection for signals was lost");
                return;
            }
        }
    }
}

/// The safety net of those who wait for a verdict.
async fn look(service: &Service) {
    let awaited = service.finals.awaited();
    if awaited.is_empty() {
        return;
    }
    match service.store.final_among(&awaited).await {
        Ok(found) => service.finals.announce(&found),
        Err(error) => debug!(error = &error as &dyn std::error::Error, "waiting readers could not be served"),
    }
}

/// Forgets unmatched callbacks that nobody registered for, and what Initialize left behind.
pub(super) async fn tidy(service: Service, tasks: Tasks) {
    loop {
        steps::forget_unmatched(&service).await;
        if let Err(error) = service.tidy_initializations().await {
            error!(error = &error as &dyn std::error::Error, "calls of Initialize could not be looked through");
        }
        if stops_within(&tasks, TIDY).await {
            return;
        }
    }
}

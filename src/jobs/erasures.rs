//! The loop that finishes erasures: what is to be deleted outside the database.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tracing::error;

use super::POLL;
use crate::lifecycle::Tasks;
use crate::service::Service;

/// Attempts under way at a time, for each replica.
const MOST_ERASURES: usize = 16;

pub(super) async fn erase(service: Service, tasks: Tasks) {
    let permits = Arc::new(Semaphore::new(MOST_ERASURES));
    let stopping = tasks.stopping();
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
        let leased = match service.lease_erasures(i64::try_from(room).unwrap_or(1)).await {
            Ok(leased) => leased,
            Err(error) => {
                if !error.is_transient() {
                    error!(error = &error as &dyn std::error::Error, "due erasures could not be leased");
                }
                Vec::new()
            }
        };
        let is_all = leased.len() < room;
        let mut first = Some(first);
        for erasure in leased {
            // No more were leased than there was room for, and nobody else takes permits.
            let Some(permit) = first.take().or_else(|| Arc::clone(&permits).try_acquire_owned().ok()) else { break };
            let service = service.clone();
            tasks.spawn(async move {
                service.attempt_erasure(erasure).await;
                drop(permit);
            });
        }
        drop(first);
        if is_all {
            tokio::select! {
                () = service.wakes.wait_for_erasures() => {}
                () = tokio::time::sleep(POLL) => {}
                () = &mut stopping => return,
            }
        }
    }
}

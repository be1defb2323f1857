//! The loop that puts what rechecks in bulk match into line, a little at a time.

use std::time::Duration;

use tracing::{error, info};

use super::upkeep::stops_within;
use crate::lifecycle::Tasks;
use crate::service::Service;
use crate::store::StoreError;

const LOOK: Duration = Duration::from_secs(1);

pub(super) async fn feed(service: Service, tasks: Tasks) {
    loop {
        if let Err(error) = step(&service, &tasks).await
            && !error.is_transient()
        {
            error!(error = &error as &dyn std::error::Error, "rechecks could not be put in line");
        }
        if stops_within(&tasks, LOOK).await {
            return;
        }
    }
}

async fn step(service: &Service, tasks: &Tasks) -> Result<(), StoreError> {
    for name in service.store.feeding_accounts().await? {
        // One that is not configured any more waits until it is again, or the recheck is stopped.
        let Some(account) = service.accounts.get(&name) else { continue };
        let mut queued = 0;
        loop {
            let fed = service.store.feed_recheck(&name, account.recheck_room(), service.clock.now()).await?;
            queued += fed.queued;
            if !fed.more || tasks.is_stopping() {
                break;
            }
        }
        if queued > 0 {
            service.wakes.account(&name);
            service.wakes.tell_others([name], &[]);
        }
    }
    for id in service.store.end_rechecks(service.clock.now()).await? {
        if let Some(recheck) = service.store.recheck(id).await? {
            info!(recheck.id = %id, checks = recheck.done, revised = recheck.revised,
                "a recheck in bulk is finished");
        }
    }
    Ok(())
}

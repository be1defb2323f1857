//! The loop that destroys what is kept for a limited time: a short step, a short rest, for as long as there is
//! something to do.

use std::time::Duration;

use tracing::{error, info};

use super::upkeep::stops_within;
use crate::domain::Keep;
use crate::lifecycle::Tasks;
use crate::service::Service;

/// Between two steps, so that others come first.
const REST: Duration = Duration::from_millis(50);
/// When nothing's time is over.
const IDLE: Duration = Duration::from_secs(5);
/// After a failure.
const AFTER_FAILURE: Duration = Duration::from_secs(30);

pub(super) async fn retain(service: Service, keep: Keep, tasks: Tasks) {
    let class = keep.class.as_str();
    let mut destroyed = 0;
    loop {
        let rest = match service.retain(keep).await {
            Ok(Some(step)) => {
                destroyed += step.destroyed;
                if !step.more && destroyed > 0 {
                    info!(class, destroyed, "what was kept long enough is destroyed");
                    destroyed = 0;
                }
                if step.more { REST } else { IDLE }
            }
            Ok(None) => IDLE,
            Err(failure) => {
                metrics::counter!("checkback_retention_failures_total", "class" => class).increment(1);
                error!(
                    class,
                    error = &failure as &dyn std::error::Error,
                    "what was kept long enough could not be destroyed"
                );
                AFTER_FAILURE
            }
        };
        if stops_within(&tasks, rest).await {
            return;
        }
    }
}

//! The loop that says how many minutes are left: gauges, and a line in the log when there is something new.

use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, error, warn};

use super::upkeep::stops_within;
use crate::lifecycle::Tasks;
use crate::service::Service;
use crate::service::at_risk::RiskWarning;

const LOOK: Duration = Duration::from_secs(5);
/// A look reads all open work, so with much of it looks are rarer: they take at most one part in so many of the time.
const REST: u32 = 20;

/// From this share on nothing is left but to act.
const URGENT: i16 = 95;

pub(super) async fn watch(service: Service, tasks: Tasks) {
    loop {
        let started = Instant::now();
        match service.look_at_risk().await {
            Ok(warnings) => warnings.iter().for_each(tell),
            Err(error) => debug!(error = &error as &dyn std::error::Error, "what is at risk could not be counted"),
        }
        if stops_within(&tasks, LOOK.max(started.elapsed() * REST)).await {
            return;
        }
    }
}

fn tell(warning: &RiskWarning) {
    let count = &warning.count;
    let (kind, left_seconds) = (count.kind.as_str(), warning.left.as_secs());
    if count.percent >= URGENT {
        error!(
            account = count.account,
            kind,
            percent = count.percent,
            count = count.reached,
            fresh = count.fresh,
            left_seconds,
            "{warning}"
        );
    } else {
        warn!(
            account = count.account,
            kind,
            percent = count.percent,
            count = count.reached,
            fresh = count.fresh,
            left_seconds,
            "{warning}"
        );
    }
}

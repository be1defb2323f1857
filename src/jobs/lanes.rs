//! The loops that keep the lanes of one account true: each job in the lane it belongs in, polls within the budget.

use std::sync::Arc;
use std::time::Duration;

use tracing::debug;

use super::POLL;
use super::upkeep::stops_within;
use crate::lifecycle::Tasks;
use crate::service::Service;
use crate::service::account::{Account, earlier};
use crate::service::polls::PollWatch;

/// What has waited in lane `Fresh` for longer is fresh no more.
const FRESH: Duration = Duration::from_mins(1);
/// How many jobs of a lane change it by one statement.
const STEP: i64 = 500;
/// How often the polls are planned anew.
const PLAN: Duration = Duration::from_mins(1);

/// Takes out of the urgent lanes what is urgent no more.
pub(super) async fn sort(service: Service, account: Arc<Account>, tasks: Tasks) {
    loop {
        let now = service.clock.now();
        let videos_gone = earlier(now, account.video_retention);
        let is_all = match service.store.sort_lanes(&account.name, videos_gone, earlier(now, FRESH), STEP).await {
            Ok(sorted) => {
                if sorted.moved > 0 {
                    service.wakes.account(&account.name);
                }
                sorted.is_all
            }
            Err(error) => {
                debug!(error = &error as &dyn std::error::Error, account = account.name, "lanes could not be sorted");
                true
            }
        };
        if tasks.is_stopping() || (is_all && stops_within(&tasks, POLL).await) {
            return;
        }
    }
}

/// Plans the polls.
pub(super) async fn plan_polls(service: Service, account: Arc<Account>, tasks: Tasks) {
    let mut watch = PollWatch::default();
    loop {
        if let Err(error) = service.plan_polls(&account, &mut watch).await {
            debug!(error = &error as &dyn std::error::Error, account = account.name, "polls could not be planned");
        }
        if stops_within(&tasks, PLAN).await {
            return;
        }
    }
}

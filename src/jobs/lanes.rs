//! The loops that keep the lanes of one account true: each job in the lane it belongs in, polls within the budget.

use std::sync::Arc;
use std::time::Duration;

use tracing::debug;

use super::upkeep::stops_within;
use super::{POLL, steps};
use crate::lifecycle::Tasks;
use crate::service::Service;
use crate::service::account::Account;
use crate::service::polls::PollWatch;

/// How often the polls are planned anew.
const PLAN: Duration = Duration::from_mins(1);

/// Takes out of the urgent lanes what is urgent no more.
pub(super) async fn sort(service: Service, account: Arc<Account>, tasks: Tasks) {
    loop {
        let more = steps::sort_lanes(&service, &account).await.unwrap_or_else(|error| {
            debug!(error = &error as &dyn std::error::Error, account = account.name, "lanes could not be sorted");
            false
        });
        if tasks.is_stopping() || (!more && stops_within(&tasks, POLL).await) {
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

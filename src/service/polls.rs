//! Polls within what the budget leaves: how often each waiting verification can be asked about, and what is said when
//! that is less often than the schedule wants.
//!
//! A population that is too large for the rate is polled evenly: the waits that are shorter than the interval which the
//! free calls allow become as long as it. So a late poll is not made up for, nobody waits for ever, and what is due is
//! what was seen least recently. The last poll of each stays at its `give_up_after`.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use tracing::{info, warn};

use super::Service;
use super::account::Account;
use super::pace::bulk_rate;
use crate::domain::schedule::{FIRST_POLL, after_running};
use crate::store::{PollLoad, StoreError};

/// What others leave never sinks below this share of the rate: it is what [`crate::jobs`] gives to lanes that wait.
const LEAST_SHARE: f64 = 0.05;

/// How often at most it is said that there are too many.
const SAY_AGAIN: TimeDelta = TimeDelta::minutes(10);

/// What the waiting verifications of an account need, and what they get.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PollPlan {
    pub waiting: u64,
    /// Polls a second by the schedule.
    pub wanted: f64,
    /// Polls a second that others leave.
    pub free: f64,
    /// The shortest time between two polls of one verification; zero while the schedule holds.
    pub interval: Duration,
    /// The QPS with which the schedule would hold.
    pub sufficient_qps: u32,
}

/// Plans for `waiting` verifications by their number of answers so far. `rate`: what the account may make a second now,
/// of `qps`; `others`: what other calls take of it.
pub fn plan(waiting: &[(u32, u64)], qps: u32, rate: f64, others: f64) -> PollPlan {
    let mut groups: Vec<(f64, f64)> = waiting
        .iter()
        .map(|(running, count)| {
            let wait = if *running == 0 { FIRST_POLL } else { after_running(false, *running).1 };
            (wait.as_secs_f64(), as_f64(*count))
        })
        .collect();
    groups.sort_by(|a, b| a.0.total_cmp(&b.0));
    let wanted: f64 = groups.iter().map(|(wait, count)| count / wait).sum();
    let free = (bulk_rate(qps, rate) - others).max(rate * LEAST_SHARE);
    let interval = if wanted <= free { Duration::ZERO } else { interval(&groups, wanted, free) };
    PollPlan {
        waiting: waiting.iter().map(|(_, count)| count).sum(),
        wanted,
        free,
        interval,
        sufficient_qps: (1..=1_000_000)
            .find(|qps| bulk_rate(*qps, f64::from(*qps)) >= wanted + others)
            .unwrap_or(u32::MAX),
    }
}

/// The interval with which `free` polls a second do: as many of the shortest waits as needed are made as long as it.
fn interval(groups: &[(f64, f64)], wanted: f64, free: f64) -> Duration {
    let (mut counted, mut longer, mut interval) = (0.0, wanted, 0.0);
    for (n, (wait, count)) in groups.iter().enumerate() {
        counted += count;
        longer -= count / wait;
        let left = free - longer;
        if left > 0.0 {
            interval = counted / left;
            if groups.get(n + 1).is_none_or(|(next, _)| interval <= *next) {
                break;
            }
        }
    }
    Duration::try_from_secs_f64(interval.ceil()).unwrap_or(Duration::MAX)
}

#[expect(clippy::cast_precision_loss, reason = "an estimate")]
fn as_f64(count: u64) -> f64 {
    count as f64
}

/// What was known of an account's other calls when they were last counted.
#[derive(Debug, Default)]
pub struct PollWatch {
    counted: Option<(i64, DateTime<Utc>)>,
    warned_at: Option<DateTime<Utc>>,
}

impl Service {
    /// Plans the polls of an account anew, and says when they are too many.
    pub async fn plan_polls(&self, account: &Account, watch: &mut PollWatch) -> Result<PollPlan, StoreError> {
        let now = self.clock.now();
        let load = self.store.poll_load(&account.name, account.rate(), now).await?;
        let plan = plan(&load.waiting, account.qps, load.rate, watch.others(&load, now));
        account.pacing.set_poll_interval(plan.interval.min(account.give_up_after));
        let name = || account.name.clone();
        metrics::gauge!("checkback_polls_wanted_per_second", "account" => name()).set(plan.wanted);
        metrics::gauge!("checkback_polls_free_per_second", "account" => name()).set(plan.free);
        metrics::gauge!("checkback_poll_interval_seconds", "account" => name()).set(plan.interval.as_secs_f64());
        watch.report(account, &plan, now);
        Ok(plan)
    }
}

impl PollWatch {
    /// Calls a second that were no polls, since they were last counted.
    fn others(&mut self, load: &PollLoad, now: DateTime<Utc>) -> f64 {
        let before = self.counted.replace((load.other_calls, now));
        let Some((calls, at)) = before else { return 0.0 };
        let seconds = (now - at).to_std().unwrap_or_default().as_secs_f64().max(1.0);
        as_f64(u64::try_from(load.other_calls - calls).unwrap_or(0)) / seconds
    }

    fn report(&mut self, account: &Account, plan: &PollPlan, now: DateTime<Utc>) {
        if plan.interval.is_zero() {
            if self.warned_at.take().is_some() {
                info!(
                    account = account.name,
                    waiting = plan.waiting,
                    "waiting verifications are polled on schedule again"
                );
            }
        } else if self.warned_at.is_none_or(|at| now - at >= SAY_AGAIN) {
            self.warned_at = Some(now);
            warn!(
                account = account.name,
                waiting = plan.waiting,
                qps = account.qps,
                sufficient_qps = plan.sufficient_qps,
                "{plan}"
            );
        }
    }
}

impl std::fmt::Display for PollPlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let minutes = Duration::from_secs(self.interval.as_secs().div_ceil(60) * 60);
        write!(
            f,
            "{} waiting verifications need {:.1} polls a second, {:.1} are free: each is polled every {} instead; \
             qps = {} would suffice",
            self.waiting,
            self.wanted,
            self.free,
            humantime::format_duration(minutes),
            self.sufficient_qps
        )
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_population_within_the_rate_keeps_its_schedule() {
        let plan = plan(&[(0, 300), (3, 4000)], 10, 10.0, 0.0);
        assert_eq!((plan.waiting, plan.interval), (4300, Duration::ZERO));
        assert!((plan.wanted - (1.0 + 4000.0 / 2400.0)).abs() < 1e-9, "{plan:?}");
    }

    #[test]
    fn one_that_is_too_large_is_polled_evenly_and_the_numbers_are_told() {
        // After 3 answers a poll is due every 40 minutes.
        let plan = plan(&[(3, 50_000)], 10, 10.0, 1.0);
        assert_eq!(
            plan.to_string(),
            "50000 waiting verifications need 20.8 polls a second, 7.2 are free: each is polled every 1h 57m instead; \
             qps = 26 would suffice"
        );
    }

    #[test]
    fn what_others_take_leaves_a_twentieth() {
        let plan = plan(&[(0, 1000)], 10, 10.0, 9.0);
        assert!((plan.free - 0.5).abs() < 1e-9 && plan.interval == Duration::from_secs(2000), "{plan:?}");
    }

    proptest! {
        #[test]
        fn the_planned_interval_spends_what_is_free_and_no_more(
            waiting in prop::collection::vec((0_u32..12, 1_u64..100_000), 1..8),
            qps in 1_u32..100,
            others in 0.0..50.0_f64,
        ) {
            let plan = plan(&waiting, qps, f64::from(qps), others);
            let spent: f64 = waiting
                .iter()
                .map(|(running, count)| {
                    let wait = if *running == 0 { FIRST_POLL } else { after_running(false, *running).1 };
                    as_f64(*count) / wait.max(plan.interval).as_secs_f64()
                })
                .sum();
            prop_assert!(spent <= plan.free * 1.000_001, "{spent} {plan:?}");
            prop_assert!(plan.interval.is_zero() || spent >= plan.free * 0.97, "{spent} {plan:?}");
            let enough = plan.sufficient_qps;
            prop_assert!(bulk_rate(enough, f64::from(enough)) >= plan.wanted + others);
        }
    }
}

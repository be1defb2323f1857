//! An account's pace and health, which all replicas share: when a call may be sent, and what its answer says about the
//! account. Every operation counts against one rate.

use std::sync::atomic::Ordering;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::Service;
use super::account::Account;
use super::collect_result::AccountEffect;
use crate::clock::later;
use crate::domain::{Trouble, schedule};
use crate::store::{CallSlot, Outage, Pace, Rate, Standing, StoreError};

/// How far apart calls are placed, so that no second sees more than the provider allows even when each arrives up to
/// [`SLACK`] late. That costs a tenth of the rate.
const SLACK: Duration = Duration::from_millis(100);
/// A call that could not be sent within this of its slot takes another slot; the rest of [`SLACK`] is the network's.
const LATEST: Duration = Duration::from_millis(50);
/// How far ahead the slots of urgent calls are taken.
pub const HORIZON: Duration = Duration::from_millis(100);
/// An urgent call that comes meanwhile stands behind the others, so these are taken as late as a sleep allows.
pub const BULK_HORIZON: Duration = Duration::from_millis(5);
/// After throttling a twentieth of the rate comes back each second.
const RATE_RECOVERY: f64 = 0.05;
/// A rate that is refused within this of the last throttling is remembered: it is no passing trouble.
const REFUSED_MEMORY: Duration = Duration::from_mins(10);

/// When the provider counts as down. What is poisoned makes up a few verifications, and others are answered meanwhile.
const OUTAGE: Outage = Outage { calls: 20, verifications: 5, lasting: Duration::from_secs(30), reason: UNREACHABLE };
const UNREACHABLE: &str = Trouble::Unreachable.as_str();

/// How many further slots a call takes that comes too late for its own.
const SPARE_SLOTS: u32 = 4;
/// How long to wait before a slot is asked for again when that failed.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// How long a call that somebody waits for may stand in line for its slot.
const IN_LINE: Duration = Duration::from_secs(2);
/// How soon a slot must come for a call that nobody waits for.
const WHILE_IDLE: Duration = Duration::from_secs(2);
const SHORTEST_WAIT: Duration = Duration::from_millis(2);
const LONGEST_WAIT: Duration = Duration::from_millis(500);

/// Calls a second that are left for retries and polls when nothing is urgent, of an account that may make `rate`. The
/// same as in `account_pace`.
pub fn bulk_rate(qps: u32, rate: f64) -> f64 {
    let second = (1.0 + SLACK.as_secs_f64()) * 1.001;
    let calls = if qps >= 22 {
        (rate - 1.0).max(rate / 2.0)
    } else if rate >= 3.0 {
        rate.floor() - 1.0
    } else {
        rate.min(rate.floor().max(1.0))
    };
    calls / second
}

impl Account {
    pub fn rate(&self) -> Rate {
        Rate { qps: self.qps, slack: SLACK, horizon: HORIZON, bulk_horizon: BULK_HORIZON, recovery: RATE_RECOVERY }
    }
}

/// When a call may be sent. The slot is by the database's clock; here it is known to lie between what the slot's
/// distance makes of the time of asking and of the time of the answer.
#[derive(Clone, Copy, Debug)]
pub struct Slot {
    pub asked_at: Instant,
    pub pace: Pace,
    /// Not before this: the slot has come for certain.
    from: Instant,
    /// Not after this: the slot may be too long ago.
    until: Instant,
}

impl Slot {
    pub fn new(asked_at: Instant, answered_at: Instant, slot_in: f64, pace: Pace) -> Self {
        let ahead = Duration::try_from_secs_f64(slot_in.max(0.0)).unwrap_or_default();
        let behind = Duration::try_from_secs_f64((-slot_in).max(0.0)).unwrap_or_default();
        let until = (asked_at + ahead + LATEST).checked_sub(behind).unwrap_or(asked_at);
        Self { asked_at, pace, from: answered_at + ahead, until }
    }

    /// What to do at `now`.
    pub fn turn(&self, now: Instant) -> Turn {
        match now {
            now if now < self.from => Turn::WaitUntil(self.from),
            now if now <= self.until => Turn::Send,
            _ => Turn::Missed,
        }
    }
}

/// What a call does that has a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    WaitUntil(Instant),
    Send,
    /// It came too late for its slot.
    Missed,
}

/// Why a call may not be made now. Nothing was sent.
#[derive(Debug, thiserror::Error)]
pub enum NoSlot {
    /// The account's rate is spent, or the provider throttles.
    #[error("the account's rate is spent")]
    Spent { retry_after: Duration },
    #[error("the account is failing ({code})")]
    Failing { reason: String, code: String, retry_after: Duration },
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Service {
    /// Returns when the call may be sent. A call that comes too late for its slot takes another, a few times: with a
    /// database that answers late no slot is ever known well enough, and then the pace alone must do.
    pub async fn wait_for_slot(&self, account: &Account, mut slot: Slot) {
        let mut slots = 1;
        loop {
            if let Turn::WaitUntil(from) = slot.turn(Instant::now()) {
                tokio::time::sleep_until(from).await;
            }
            if slot.turn(Instant::now()) == Turn::Send || slots > SPARE_SLOTS {
                return;
            }
            match self.slots.take(account, slot.pace).await {
                Some(next) => {
                    slot = next;
                    slots += 1;
                }
                None => tokio::time::sleep(AFTER_FAILURE).await,
            }
        }
    }

    /// Takes a slot for a call that can as well be left out; `None` where there is none soon.
    pub async fn take_idle_slot(&self, account: &Account) -> Option<Slot> {
        let until = Instant::now() + WHILE_IDLE;
        loop {
            let (now, asked_at) = (self.clock.now(), Instant::now());
            let next_probe_at = later(now, schedule::after_probe(u32::MAX));
            let taking = self.store.take_call_slot(&account.name, account.rate(), Pace::Bulk, now, next_probe_at);
            match taking.await {
                Ok(CallSlot::Granted { slot_in, .. }) => {
                    return Some(Slot::new(asked_at, Instant::now(), slot_in, Pace::Bulk));
                }
                Ok(CallSlot::Busy { slot_in }) => {
                    let wait = Duration::try_from_secs_f64(slot_in).unwrap_or_default().max(SHORTEST_WAIT);
                    if Instant::now() + wait > until {
                        return None;
                    }
                    tokio::time::sleep(wait).await;
                }
                _ => return None,
            }
        }
    }

    /// Takes a slot for a call that somebody waits for, one after the other. On a failing account it is the probe, so
    /// that an account without open work is tried again too.
    pub async fn stand_in_line(&self, account: &Account) -> Result<(Slot, Standing), NoSlot> {
        let until = Instant::now() + IN_LINE;
        let Ok(_turn) = tokio::time::timeout_at(until, account.starting.line.lock()).await else {
            return Err(NoSlot::Spent { retry_after: IN_LINE });
        };
        loop {
            let now = self.clock.now();
            let asked_at = Instant::now();
            let next_probe_at = later(now, schedule::after_probe(u32::MAX));
            let taking = self.store.take_call_slot(&account.name, account.rate(), Pace::Urgent, now, next_probe_at);
            match tokio::time::timeout_at(until + IN_LINE, taking).await.map_err(|_| StoreError::timed_out())?? {
                CallSlot::Granted { slot_in, standing } => {
                    return Ok((Slot::new(asked_at, Instant::now(), slot_in, Pace::Urgent), standing));
                }
                CallSlot::Busy { slot_in } => {
                    let slot_in = Duration::try_from_secs_f64(slot_in).unwrap_or_default();
                    let wait = slot_in.saturating_sub(HORIZON).clamp(SHORTEST_WAIT, LONGEST_WAIT);
                    if Instant::now() + wait > until {
                        return Err(NoSlot::Spent { retry_after: slot_in });
                    }
                    tokio::time::sleep(wait).await;
                }
                CallSlot::Held { until } => return Err(NoSlot::Spent { retry_after: left(now, until) }),
                CallSlot::Failing(failing, probe_at) => {
                    let retry_after = left(now, probe_at.unwrap_or(now));
                    return Err(NoSlot::Failing { reason: failing.reason, code: failing.code, retry_after });
                }
            }
        }
    }

    /// Keeps the account's shared state. A failure here costs nothing but a call: the next answer says it again.
    pub async fn tell_account(&self, account: &Account, standing: Standing, effect: AccountEffect) {
        let store = &self.store;
        let now = self.clock.now();
        let probed = standing == Standing::Probed;
        let unsettled = &account.pacing.unsettled;
        let told = match effect {
            AccountEffect::Well if probed => self.mark_well(account, None).await,
            AccountEffect::Well => {
                if unsettled.swap(false, Ordering::Relaxed) || standing == Standing::Unsettled {
                    store.settle_account(&account.name).await
                } else {
                    Ok(())
                }
            }
            AccountEffect::Unknown => Ok(()),
            AccountEffect::Unanswered { of, code } => {
                unsettled.store(true, Ordering::Relaxed);
                store.note_unanswered(&account.name, of, OUTAGE, &code, probed, now).await.map(|is_new| {
                    if is_new {
                        metrics::gauge!("checkback_account_failing", "account" => account.name.clone()).set(1);
                        error!(account = account.name, code, "the account is failing: {}", Trouble::Unreachable);
                    }
                })
            }
            AccountEffect::Throttled { retry_after } => {
                unsettled.store(true, Ordering::Relaxed);
                let throttled = store
                    .throttle_account(&account.name, account.qps, RATE_RECOVERY, REFUSED_MEMORY, retry_after, now)
                    .await;
                match throttled {
                    // Who throttles is there.
                    Ok(_) if probed => self.mark_well(account, Some(UNREACHABLE)).await,
                    throttled => throttled.map(drop),
                }
            }
            AccountEffect::Failing { trouble, code } => {
                let marked = store.mark_failing(&account.name, trouble.as_str(), &code, probed, now).await;
                metrics::gauge!("checkback_account_failing", "account" => account.name.clone()).set(1);
                marked.map(|is_new| {
                    if is_new {
                        error!(account = account.name, code, "the account is failing: {trouble}");
                    }
                })
            }
        };
        if let Err(error) = told {
            warn!(
                error = &error as &dyn std::error::Error,
                account = account.name,
                "the state of the account could not be stored"
            );
        }
    }

    /// After a probe that succeeded: everything goes on at once.
    async fn mark_well(&self, account: &Account, reason: Option<&str>) -> Result<(), StoreError> {
        if self.store.mark_well(&account.name, reason).await? {
            info!(account = account.name, "the account is well again");
            metrics::gauge!("checkback_account_failing", "account" => account.name.clone()).set(0);
            self.wakes.account(&account.name);
            self.wakes.tell_others([account.name.clone()], &[]);
        }
        Ok(())
    }
}

fn left(now: DateTime<Utc>, until: DateTime<Utc>) -> Duration {
    (until - now).to_std().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_call_is_sent_neither_before_its_slot_nor_long_after() {
        let asked_at = Instant::now();
        let answered_at = asked_at + Duration::from_millis(10);
        let ahead = Slot::new(asked_at, answered_at, 0.2, Pace::Urgent);
        assert_eq!(ahead.from, answered_at + Duration::from_millis(200));
        assert_eq!(ahead.until, asked_at + Duration::from_millis(200) + LATEST);
        let passed = Slot::new(asked_at, answered_at, -0.03, Pace::Bulk);
        assert_eq!((passed.from, passed.until), (answered_at, asked_at + LATEST - Duration::from_millis(30)));
    }
}

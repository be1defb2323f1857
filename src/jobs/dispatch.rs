//! The two loops that bring work to the checks: hints into jobs, due jobs into leases.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tracing::error;

use super::checks::Checks;
use super::{LEASE, MOST_IN_FLIGHT, POLL};
use crate::domain::schedule::{self, Lane};
use crate::lifecycle::Tasks;
use crate::service::Service;
use crate::service::account::{Account, earlier, later};
use crate::service::pace::{BULK_HORIZON, HORIZON, Slot};
use crate::store::{Lease, Leased, Pace, StoreError, TakenHints, Turn};

/// How many hints are worked in by one statement.
const HINTS: i64 = 256;

/// How often hints are tried again soon: connections of the pool may have died, transactions have met.
const TRIES_AT_ONCE: u32 = 4;

/// The shortest and the longest sleep while the budget keeps due work waiting.
const SHORTEST_WAIT: Duration = Duration::from_millis(2);
const LONGEST_WAIT: Duration = Duration::from_millis(500);

/// How long to wait after two transactions met, or after a connection broke: a database that is gone refuses at once.
const AFTER_CONFLICT: Duration = Duration::from_millis(20);

/// Works hints into jobs as they come.
pub(super) async fn take_hints(service: Service, tasks: Tasks) {
    let stopping = tasks.stopping();
    tokio::pin!(stopping);
    let mut failures = 0;
    loop {
        let more = match service.store.take_hints(HINTS, service.clock.now()).await {
            Ok(taken) => {
                let more = i64::try_from(taken.taken).is_ok_and(|taken| taken == HINTS);
                announce(&service, &taken);
                failures = 0;
                more
            }
            // Not for ever: a database that is down must not be asked without a pause.
            Err(error) if error.is_transient() && failures < TRIES_AT_ONCE => {
                failures += 1;
                tokio::time::sleep(AFTER_CONFLICT).await;
                true
            }
            Err(error) => {
                complain("hints could not be worked in", &error);
                false
            }
        };
        if tasks.is_stopping() {
            return;
        }
        if !more {
            tokio::select! {
                () = service.wakes.wait_for_hints() => {}
                () = tokio::time::sleep(POLL) => {}
                () = &mut stopping => return,
            }
        }
    }
}

fn announce(service: &Service, taken: &TakenHints) {
    let mut accounts: Vec<&str> = taken.nudged.iter().map(|nudged| nudged.account.as_str()).collect();
    accounts.sort_unstable();
    accounts.dedup();
    for account in &accounts {
        service.wakes.account(account);
    }
    service.wakes.tell_others(accounts.into_iter().map(str::to_owned), &[]);
    for nudged in &taken.nudged {
        let (first, repeats) = (u64::from(nudged.first), u64::from(nudged.callbacks) - u64::from(nudged.first));
        for (result, count) in [("accepted", first), ("repeat", repeats)] {
            if count > 0 {
                metrics::counter!("checkback_callbacks_total", "account" => nudged.account.clone(),
                    "result" => result)
                .increment(count);
            }
        }
    }
}

/// Leases what is due for one account and hands it to the checks.
pub(super) async fn lease(service: Service, account: Arc<Account>, checks: Checks, tasks: Tasks) {
    let permits = Arc::new(Semaphore::new(MOST_IN_FLIGHT));
    let mut rest = Rest::default();
    let mut turns = Turns::default();
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
        let now = service.clock.now();
        let leased_at = Instant::now();
        let turn = turns.next(now);
        let room = i64::try_from(permits.available_permits() + 1).unwrap_or(1);
        let leased = service
            .store
            .lease_due(Lease {
                account: &account.name,
                token: service.entropy.token(),
                limit: if turn.is_some() { 1 } else { room },
                length: LEASE,
                rate: account.rate(),
                now,
                next_probe_at: later(now, schedule::after_probe(u32::MAX)),
                videos_gone: earlier(now, account.video_retention),
                turn,
            })
            .await;
        match leased {
            Ok(leased) => {
                let answered_at = Instant::now();
                turns.took(turn, &leased);
                let Leased { jobs, is_all, urgent_in, bulk_in } = leased;
                let mut permit = Some(first);
                for job in jobs {
                    let permit = match permit.take() {
                        Some(permit) => permit,
                        // No more were leased than there was room for, and nobody else takes permits.
                        None => match Arc::clone(&permits).try_acquire_owned() {
                            Ok(permit) => permit,
                            Err(_) => break,
                        },
                    };
                    let slot = Slot::new(leased_at, answered_at, job.slot_in, job.pace);
                    checks.spawn(Arc::clone(&account), job, slot, permit);
                }
                // None leased gives the first one back.
                let none = permit.take().is_some();
                if turn.is_none() && (none || is_all) {
                    // Where an urgent call could have had its slot, none is due.
                    let to_urgent = urgent_in - HORIZON.as_secs_f64();
                    let slot_in = if to_urgent > 0.0 { to_urgent } else { bulk_in };
                    tokio::select! {
                        () = rest.until_something_is_due(&service, &account, is_all, slot_in) => {}
                        () = &mut stopping => return,
                    }
                }
            }
            Err(error) => {
                drop(first);
                if !error.is_transient() {
                    complain("due checks could not be leased", &error);
                }
                tokio::select! {
                    () = tokio::time::sleep(POLL) => {}
                    () = &mut stopping => return,
                }
            }
        }
    }
}

/// Ends what was not collected before its deadline, whatever the account's budget and health.
pub(super) async fn end_overdue(account: Arc<Account>, checks: Checks, tasks: Tasks) {
    let stopping = tasks.stopping();
    tokio::pin!(stopping);
    loop {
        let more = match checks.end_all_overdue(&account).await {
            Ok(more) => more,
            Err(error) => {
                complain("verifications could not be looked through for passed deadlines", &error);
                false
            }
        };
        if tasks.is_stopping() {
            return;
        }
        if !more {
            tokio::select! {
                () = tokio::time::sleep(POLL) => {}
                () = &mut stopping => return,
            }
        }
    }
}

/// Of the calls of an account, one in so many goes to a lane that more urgent ones keep waiting.
const SHARE: usize = 10;
/// For how long something of it must have been due.
const KEPT_WAITING: Duration = Duration::from_mins(1);
/// A lane in which nothing waited is looked at again after this.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Sees to it that no lane starves: after nine calls of others, the one that has waited too long in lane
/// [`Lane::Retry`] or [`Lane::Poll`], by turns.
#[derive(Default)]
struct Turns {
    calls: usize,
    urgent_calls: usize,
    last: Option<Lane>,
    empty_since: [Option<Instant>; 2],
    /// There was no slot for the turn: others may take what there is before it is tried again.
    had_no_slot: bool,
}

impl Turns {
    const LANES: [Lane; 2] = [Lane::Retry, Lane::Poll];

    fn next(&mut self, now: DateTime<Utc>) -> Option<Turn> {
        if std::mem::take(&mut self.had_no_slot) || self.calls + 1 < SHARE {
            return None;
        }
        let waits = |lane: &Lane| {
            let empty_since = self.empty_since[usize::from(*lane == Lane::Poll)];
            empty_since.is_none_or(|since| since.elapsed() >= LOOK_AGAIN)
        };
        let mut lanes = Self::LANES.into_iter().filter(waits);
        let lane = lanes.clone().find(|lane| Some(*lane) != self.last).or_else(|| lanes.next())?;
        // Where urgent calls take all there is, only their pace brings another one through.
        let pace = if self.urgent_calls * 2 > self.calls { Pace::Urgent } else { Pace::Bulk };
        Some(Turn { lane, due_before: earlier(now, KEPT_WAITING), pace })
    }

    fn took(&mut self, turn: Option<Turn>, leased: &Leased) {
        match turn {
            None => {
                self.calls += leased.jobs.len();
                self.urgent_calls += leased.jobs.iter().filter(|job| job.pace == Pace::Urgent).count();
            }
            Some(turn) if leased.jobs.is_empty() && !has_slot(turn.pace, leased) => self.had_no_slot = true,
            Some(turn) if leased.jobs.is_empty() => {
                self.empty_since[usize::from(turn.lane == Lane::Poll)] = Some(Instant::now());
            }
            Some(turn) => *self = Self { last: Some(turn.lane), empty_since: self.empty_since, ..Self::default() },
        }
    }
}

fn has_slot(pace: Pace, leased: &Leased) -> bool {
    match pace {
        Pace::Urgent => leased.urgent_in <= HORIZON.as_secs_f64(),
        Pace::Bulk => leased.bulk_in <= BULK_HORIZON.as_secs_f64(),
    }
}

/// Sleeping until there may be something to lease.
#[derive(Default)]
struct Rest {
    /// When the next job was due when it was last asked, and when that was. What becomes due earlier than that is
    /// told by a wake, or found after [`POLL`].
    known: Option<(Option<DateTime<Utc>>, Instant)>,
}

impl Rest {
    /// `is_all`: everything due has just been leased, so what is due now is new. `slot_in`: seconds until a slot can
    /// be had again.
    async fn until_something_is_due(&mut self, service: &Service, account: &Account, is_all: bool, slot_in: f64) {
        let now = service.clock.now();
        match self.next_due(service, account, now).await {
            Some(due_at) if due_at <= now && is_all => {}
            // Something is due, so the budget is spent, or another replica has just locked it. A hold or a failing
            // account makes `due_at` later. What comes meanwhile may be urgent and find a free place.
            Some(due_at) if due_at <= now => {
                let wait = Duration::try_from_secs_f64(slot_in).unwrap_or_default();
                let wait = if wait.is_zero() { AFTER_CONFLICT } else { wait.clamp(SHORTEST_WAIT, LONGEST_WAIT) };
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = service.wakes.wait_for_work(&account.name) => {}
                }
            }
            Some(due_at) => tokio::select! {
                () = service.clock.sleep_until(due_at) => {}
                () = service.wakes.wait_for_work(&account.name) => {}
                () = tokio::time::sleep(POLL) => {}
            },
            None => tokio::select! {
                () = service.wakes.wait_for_work(&account.name) => {}
                () = tokio::time::sleep(POLL) => {}
            },
        }
    }

    async fn next_due(&mut self, service: &Service, account: &Account, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        if let Some((next, asked_at)) = self.known
            && asked_at.elapsed() < POLL
            && next.is_none_or(|due_at| due_at > now)
        {
            return next;
        }
        let asked_at = Instant::now();
        match service.store.next_due(&account.name).await {
            Ok(next) => {
                self.known = Some((next, asked_at));
                next
            }
            Err(error) => {
                complain("the next due check could not be read", &error);
                None
            }
        }
    }
}

fn complain(what: &'static str, error: &StoreError) {
    error!(error = error as &dyn std::error::Error, "{what}");
}

//! The two loops that bring work to the checks: hints into jobs, due jobs into leases.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tracing::error;

use super::checks::Checks;
use super::{MOST_IN_FLIGHT, POLL, Turns, steps};
use crate::lifecycle::Tasks;
use crate::service::Service;
use crate::service::account::Account;
use crate::service::pace::{HORIZON, Slot};
use crate::service::wake::Woken;
use crate::store::{HintsLeft, Leased, LeasedJob, StoreError};

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
        let more = match steps::take_hints(&service).await {
            Ok(taken) => {
                failures = 0;
                steps::is_full(&taken)
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
        let room = permits.available_permits() + 1;
        let woken = service.wakes.woken(&account.name);
        let leased_at = Instant::now();
        let leased = if rest.is_short(woken, service.clock.now()) {
            lease_hinted(&service, &account, room).await
        } else {
            if woken.hints {
                service.wakes.hints();
            }
            lease_due(&service, &account, &mut turns, room, leased_at).await
        };
        match leased {
            Ok((jobs, next)) => {
                let answered_at = Instant::now();
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
                drop(permit);
                rest.leased(next);
                if let Next::Sleep { is_all, slot_in } = next {
                    tokio::select! {
                        () = rest.until_something_is_due(&service, &account, is_all, slot_in) => {}
                        () = &mut stopping => return,
                    }
                }
            }
            Err(error) => {
                drop(first);
                rest.leased(Next::Again);
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

/// What the loop does after it has leased.
#[derive(Clone, Copy)]
enum Next {
    /// There may be more to lease.
    Again,
    /// `is_all`: everything due was leased. `slot_in`: seconds until a slot can be had again.
    Sleep { is_all: bool, slot_in: f64 },
}

/// The short way of hints while nothing else is due: one statement works them in and leases their jobs.
async fn lease_hinted(service: &Service, account: &Account, room: usize) -> Result<(Vec<LeasedJob>, Next), StoreError> {
    let leased = steps::lease_hinted(service, account, room).await;
    match leased.as_ref().map_or(HintsLeft::Others, |leased| leased.rest) {
        HintsLeft::None => {}
        HintsLeft::More => service.wakes.hinted(&account.name),
        HintsLeft::Others => service.wakes.hints(),
    }
    Ok((leased?.jobs, Next::Sleep { is_all: true, slot_in: 0.0 }))
}

async fn lease_due(
    service: &Service,
    account: &Account,
    turns: &mut Turns,
    room: usize,
    at: Instant,
) -> Result<(Vec<LeasedJob>, Next), StoreError> {
    let (in_turn, leased) = steps::lease(service, account, turns, room, at).await?;
    let Leased { jobs, is_all, urgent_in, bulk_in } = leased;
    let next = if !in_turn && (jobs.is_empty() || is_all) {
        // Where an urgent call could have had its slot, none is due.
        let to_urgent = urgent_in - HORIZON.as_secs_f64();
        Next::Sleep { is_all, slot_in: if to_urgent > 0.0 { to_urgent } else { bulk_in } }
    } else {
        Next::Again
    };
    Ok((jobs, next))
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

    /// Whether the short way will do: there are hints, and nothing else is due.
    fn is_short(&self, woken: Woken, now: DateTime<Utc>) -> bool {
        woken.hints && !woken.work && self.is_nothing_due(now)
    }

    /// Where not all was leased, nobody tells again of what is left: what was known before says nothing any more.
    fn leased(&mut self, next: Next) {
        if !matches!(next, Next::Sleep { is_all: true, .. }) {
            self.known = None;
        }
    }

    /// Nothing was due a moment ago, or has become due since. What a wake told is not known here.
    fn is_nothing_due(&self, now: DateTime<Utc>) -> bool {
        self.known.is_some_and(|(next, asked_at)| asked_at.elapsed() < POLL && next.is_none_or(|due_at| due_at > now))
    }

    async fn next_due(&mut self, service: &Service, account: &Account, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        if let Some((next, _)) = self.known
            && self.is_nothing_due(now)
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

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    const HINTED: Woken = Woken { work: false, hints: true };

    #[test]
    fn hints_alone_go_the_short_way_while_it_is_known_that_nothing_is_due() {
        let now = DateTime::UNIX_EPOCH + TimeDelta::days(10_000);
        let mut rest = Rest::default();
        assert!(!rest.is_short(HINTED, now), "nothing is known at the start");
        rest.known = Some((None, Instant::now()));
        assert!(rest.is_short(HINTED, now));
        assert!(!rest.is_short(Woken { work: true, ..HINTED }, now));
        assert!(!rest.is_short(Woken { hints: false, ..HINTED }, now));
        rest.known = Some((Some(now + TimeDelta::seconds(1)), Instant::now()));
        assert!(rest.is_short(HINTED, now));
        assert!(!rest.is_short(HINTED, now + TimeDelta::seconds(1)), "it has become due");
    }

    #[test]
    fn what_was_left_closes_the_short_way_until_the_database_was_asked() {
        let known = Some((None, Instant::now()));
        let after = |next| {
            let mut rest = Rest { known };
            rest.leased(next);
            rest.is_short(HINTED, DateTime::UNIX_EPOCH)
        };
        assert!(after(Next::Sleep { is_all: true, slot_in: 0.0 }));
        assert!(
            !after(Next::Sleep { is_all: false, slot_in: 0.0 }),
            "the budget was spent, or another replica was there"
        );
        assert!(!after(Next::Again), "a lane had its turn, or there was no room for more");
    }
}

//! Wake-ups: who waits for work in this process is woken at once, other replicas by a signal soon after.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tracing::debug;

use crate::domain::VerificationId;
use crate::lifecycle::Tasks;
use crate::store::{Signal, Store};

/// Signals to other replicas go out at most this often; what gathers meanwhile goes together.
const SIGNAL_INTERVAL: Duration = Duration::from_millis(20);

#[derive(Clone, Debug)]
pub struct Wakes(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    hints: Notify,
    erasures: Notify,
    evidence: Notify,
    accounts: BTreeMap<String, AccountWakes>,
    outgoing: Mutex<Outgoing>,
    has_outgoing: Notify,
}

/// Why the loop of an account was woken. Set before it is notified, so that it finds them.
#[derive(Debug, Default)]
struct AccountWakes {
    has_work: AtomicBool,
    has_hints: AtomicBool,
    notify: Notify,
}

impl AccountWakes {
    fn wake(&self) {
        self.has_work.store(true, Ordering::Release);
        self.notify.notify_one();
    }
}

/// What there may be for an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Woken {
    /// Jobs that are due.
    pub work: bool,
    /// Hints that were accepted here.
    pub hints: bool,
}

#[derive(Debug, Default)]
struct Outgoing {
    work: BTreeSet<String>,
    finals: Vec<VerificationId>,
}

impl Wakes {
    pub fn new(accounts: impl Iterator<Item = String>) -> Self {
        Self(Arc::new(Shared {
            hints: Notify::new(),
            erasures: Notify::new(),
            evidence: Notify::new(),
            accounts: accounts.map(|account| (account, AccountWakes::default())).collect(),
            outgoing: Mutex::default(),
            has_outgoing: Notify::new(),
        }))
    }

    /// There are new hints.
    pub fn hints(&self) {
        self.0.hints.notify_one();
    }

    pub async fn wait_for_hints(&self) {
        self.0.hints.notified().await;
    }

    /// There is a new erasure.
    pub fn erasures(&self) {
        self.0.erasures.notify_one();
    }

    pub async fn wait_for_erasures(&self) {
        self.0.erasures.notified().await;
    }

    /// There are new hints of `account`.
    pub fn hinted(&self, account: &str) {
        match self.0.accounts.get(account) {
            Some(wakes) => {
                wakes.has_hints.store(true, Ordering::Release);
                wakes.notify.notify_one();
            }
            None => self.hints(),
        }
    }

    /// There may be work for `account`; known here only.
    pub fn account(&self, account: &str) {
        if let Some(wakes) = self.0.accounts.get(account) {
            wakes.wake();
        }
    }

    /// There may be work for all accounts, and evidence to look after.
    pub fn all_accounts(&self) {
        self.0.accounts.values().for_each(AccountWakes::wake);
        self.0.evidence.notify_one();
    }

    /// There may be evidence to ask for again.
    pub fn evidence(&self) {
        self.0.evidence.notify_one();
    }

    pub async fn wait_for_evidence(&self) {
        self.0.evidence.notified().await;
    }

    /// Resolves when there may be work for `account`, or hints.
    pub async fn wait_for_work(&self, account: &str) {
        let Some(wakes) = self.0.accounts.get(account) else { return std::future::pending().await };
        // A notification may be left of what was looked at already.
        while !wakes.has_work.load(Ordering::Acquire) && !wakes.has_hints.load(Ordering::Acquire) {
            wakes.notify.notified().await;
        }
    }

    /// What `account` was woken for since the last time. Look after this, not before.
    pub fn woken(&self, account: &str) -> Woken {
        let Some(wakes) = self.0.accounts.get(account) else { return Woken { work: false, hints: false } };
        Woken {
            work: wakes.has_work.swap(false, Ordering::AcqRel),
            hints: wakes.has_hints.swap(false, Ordering::AcqRel),
        }
    }

    /// Tells the other replicas, soon.
    pub fn tell_others(&self, accounts: impl IntoIterator<Item = String>, finals: &[VerificationId]) {
        {
            let mut outgoing = self.0.outgoing.lock().unwrap_or_else(PoisonError::into_inner);
            outgoing.work.extend(accounts);
            outgoing.finals.extend_from_slice(finals);
        }
        self.0.has_outgoing.notify_one();
    }

    /// Sends what [`Wakes::tell_others`] gathers, until the service stops.
    pub fn start(&self, store: Store, tasks: &Tasks) {
        let (shared, stopping) = (Arc::clone(&self.0), tasks.stopping());
        tasks.spawn(async move {
            tokio::pin!(stopping);
            loop {
                tokio::select! {
                    () = shared.has_outgoing.notified() => {}
                    () = &mut stopping => return,
                }
                let outgoing = std::mem::take(&mut *shared.outgoing.lock().unwrap_or_else(PoisonError::into_inner));
                let work = outgoing.work.into_iter().map(Signal::Work);
                let finals = (!outgoing.finals.is_empty()).then_some(Signal::Final(outgoing.finals));
                for signal in work.chain(finals) {
                    if let Err(error) = store.signal(&signal).await {
                        // The others look by themselves too.
                        debug!(error = &error as &dyn std::error::Error, "a signal was not sent");
                    }
                }
                tokio::time::sleep(SIGNAL_INTERVAL).await;
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn an_account_is_woken_once_for_what_there_is() {
        let wakes = Wakes::new(["sg".to_owned()].into_iter());
        assert_eq!(wakes.wait_for_work("sg").now_or_never(), None);
        wakes.hinted("sg");
        assert_eq!(wakes.wait_for_work("sg").now_or_never(), Some(()));
        assert_eq!(wakes.woken("sg"), Woken { work: false, hints: true });
        // While its loop is busy two things happen, and it looks at both.
        wakes.hinted("sg");
        wakes.account("sg");
        assert_eq!(wakes.woken("sg"), Woken { work: true, hints: true });
        assert_eq!(wakes.wait_for_work("sg").now_or_never(), None, "the notification that is left tells nothing new");
        assert_eq!(wakes.woken("sg"), Woken { work: false, hints: false });
    }

    #[tokio::test]
    async fn hints_of_an_account_without_a_loop_are_worked_in_all_the_same() {
        let wakes = Wakes::new(std::iter::empty());
        wakes.hinted("gone");
        assert_eq!(wakes.wait_for_hints().now_or_never(), Some(()));
    }
}

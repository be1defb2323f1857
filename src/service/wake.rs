//! Wake-ups: who waits for work in this process is woken at once, other replicas by a signal soon after.

use std::collections::{BTreeMap, BTreeSet};
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
    accounts: BTreeMap<String, Notify>,
    outgoing: Mutex<Outgoing>,
    has_outgoing: Notify,
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
            accounts: accounts.map(|account| (account, Notify::new())).collect(),
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

    /// There may be work for `account`; known here only.
    pub fn account(&self, account: &str) {
        if let Some(notify) = self.0.accounts.get(account) {
            notify.notify_one();
        }
    }

    /// There may be work for all accounts, and evidence to look after.
    pub fn all_accounts(&self) {
        self.0.accounts.values().for_each(Notify::notify_one);
        self.0.evidence.notify_one();
    }

    /// There may be evidence to ask for again.
    pub fn evidence(&self) {
        self.0.evidence.notify_one();
    }

    pub async fn wait_for_evidence(&self) {
        self.0.evidence.notified().await;
    }

    pub async fn wait_for_work(&self, account: &str) {
        match self.0.accounts.get(account) {
            Some(notify) => notify.notified().await,
            None => std::future::pending().await,
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

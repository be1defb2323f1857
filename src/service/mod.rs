//! What the service does, one file a deed: accept a callback, register, initialize, collect, read an answer, keep
//! evidence, take a browser back, deliver an event, erase. The only writers of the store.

pub mod accept_callback;
pub mod account;
pub mod at_risk;
pub mod batch;
pub mod collect_result;
pub mod counts;
pub mod deliver_event;
pub mod erase;
pub mod evidence;
pub mod finals;
pub mod initialize;
pub mod live;
pub mod pace;
pub mod polls;
pub mod read_answer;
pub mod recheck;
pub mod reconcile;
pub mod refused;
pub mod register;
pub mod retention;
pub mod returns;
mod slot_queue;
#[cfg(test)]
mod testing;
pub mod wake;
pub mod webhooks;
pub mod why;

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::OnceCell;

use crate::clock::Clock;
use crate::domain::{ReturnKey, VerificationId};
use crate::entropy::Entropy;
use crate::evidence::EvidenceStore;
use crate::lifecycle::Tasks;
use crate::store::{Collect, Store, StoreError};
use crate::traces::{Span, Traces};

use accept_callback::CallbackQueue;
use account::Account;
use evidence::Evidence;
use finals::Finals;
use live::Live;
use slot_queue::SlotQueue;
use wake::Wakes;
use webhooks::Webhooks;

/// Everything that the service works with; clones share it.
#[derive(Clone)]
pub struct Service {
    pub store: Store,
    pub clock: Clock,
    pub entropy: Entropy,
    pub accounts: Arc<BTreeMap<String, Arc<Account>>>,
    pub callbacks: CallbackQueue,
    pub finals: Finals,
    /// Who waits for an attempt at the parts of an erasure that are outside the database.
    pub erasures: Finals,
    pub wakes: Wakes,
    pub live: Live,
    pub evidence: Evidence,
    pub traces: Traces,
    /// `None`: no endpoint is configured.
    pub webhooks: Option<Webhooks>,
    slots: SlotQueue,
    /// Read at the first use.
    return_key: Arc<OnceCell<ReturnKey>>,
}

impl Service {
    /// The parts, with the queues' tasks started on `tasks`.
    pub fn new(
        store: Store,
        evidence: EvidenceStore,
        clock: Clock,
        entropy: Entropy,
        accounts: Vec<Account>,
        tasks: &Tasks,
    ) -> Self {
        let accounts: BTreeMap<_, _> =
            accounts.into_iter().map(|account| (account.name.clone(), Arc::new(account))).collect();
        let wakes = Wakes::new(accounts.keys().cloned());
        let callbacks = CallbackQueue::start(store.clone(), wakes.clone(), tasks);
        let slots = SlotQueue::start(store.clone(), clock.clone(), tasks);
        let finals = Finals::default();
        let live = Live::start(store.clone(), finals.clone(), tasks);
        Self {
            store,
            clock,
            entropy,
            accounts: Arc::new(accounts),
            callbacks,
            slots,
            finals,
            erasures: Finals::default(),
            wakes,
            live,
            evidence: Evidence::new(evidence),
            traces: Traces::off(),
            webhooks: None,
            return_key: Arc::default(),
        }
    }

    /// Traced from now on, which clones made before are not.
    #[must_use]
    pub fn traced(self, traces: Traces) -> Self {
        Self { traces, ..self }
    }

    /// With endpoints that are told of events. The store must write events for them.
    #[must_use]
    pub fn with_webhooks(self, webhooks: Option<Webhooks>) -> Self {
        Self { webhooks, ..self }
    }

    /// Records the wish to ask the provider now.
    pub async fn collect(&self, id: VerificationId, recheck: bool) -> Result<Collect, StoreError> {
        self.collect_traced(id, recheck, &Span::none()).await
    }

    /// As [`Service::collect`], for a request whose trace goes on with the check.
    pub async fn collect_traced(&self, id: VerificationId, recheck: bool, span: &Span) -> Result<Collect, StoreError> {
        let collect = self.store.collect(id, recheck, span.traceparent().as_deref(), self.clock.now()).await?;
        if collect == Collect::Accepted {
            self.wakes.hints();
        }
        Ok(collect)
    }
}

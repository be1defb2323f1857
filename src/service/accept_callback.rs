//! Accepting callbacks: recorded in batches, each answered only after its batch is committed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tracing::{error, warn};

use super::batch::{Batcher, Bounds, Turned};
use super::refused::RefusedCallbacks;
use super::wake::Wakes;
use crate::lifecycle::Tasks;
use crate::store::{Arrival, Arrived, Store, StoreError};

pub use crate::provider::alibaba::callback::{Body, MalformedCallback, Notice};

const BOUNDS: Bounds = Bounds { name: "callbacks", queued: 8192, in_flight: 2, batch: 256 };

/// How long recording a batch may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// A callback that was not recorded; the provider is told to come again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAccepted {
    #[error(transparent)]
    Turned(#[from] Turned),
    #[error("the database does not answer")]
    Database,
}

#[derive(Clone, Debug)]
pub struct CallbackQueue {
    batcher: Batcher<Arrival, Result<Arrived, NotAccepted>>,
    /// Whose token was wrong.
    pub refused: Arc<RefusedCallbacks>,
}

impl CallbackQueue {
    pub fn start(store: Store, wakes: Wakes, tasks: &Tasks) -> Self {
        let refused = Arc::new(RefusedCallbacks::default());
        let shared = Arc::new((store, wakes, Arc::clone(&refused)));
        let batcher = Batcher::start(tasks, BOUNDS, move |arrivals| {
            let shared = Arc::clone(&shared);
            async move { flush(&shared.0, &shared.1, &shared.2, arrivals).await }
        });
        Self { batcher, refused }
    }

    /// Returns once what became of the callback is committed.
    pub async fn accept(&self, arrival: Arrival) -> Result<Arrived, NotAccepted> {
        self.batcher.submit(arrival).await?
    }
}

async fn flush(
    store: &Store,
    wakes: &Wakes,
    refused: &RefusedCallbacks,
    arrivals: Vec<Arrival>,
) -> Vec<Result<Arrived, NotAccepted>> {
    let answers: Vec<_> = match attempt(store, &arrivals).await {
        Ok(arrived) => arrived.into_iter().map(Ok).collect(),
        // One that the database cannot hold must not take its neighbours down.
        Err(StoreError::Refused(_)) if arrivals.len() > 1 => {
            let mut answers = Vec::with_capacity(arrivals.len());
            for arrival in &arrivals {
                let alone = attempt(store, std::slice::from_ref(arrival)).await;
                answers.push(alone.map(|arrived| arrived[0]).map_err(|error| report(&error)));
            }
            answers
        }
        Err(error) => {
            let refused = report(&error);
            vec![Err(refused); arrivals.len()]
        }
    };
    let mut hinted = BTreeSet::new();
    for (arrival, answer) in arrivals.iter().zip(&answers) {
        match answer {
            Ok(Arrived::Accepted) => {
                hinted.insert(arrival.account.as_str());
            }
            Ok(Arrived::TokenMismatch) => refused.note(&arrival.account, &arrival.transaction_id, arrival.at),
            _ => {}
        }
    }
    for account in hinted {
        wakes.hinted(account);
    }
    answers
}

/// Tries again where that can help: a connection that died in the pool, two transactions that met.
async fn attempt(store: &Store, arrivals: &[Arrival]) -> Result<Vec<Arrived>, StoreError> {
    let mut tries = 0;
    loop {
        tries += 1;
        // A database that hangs must not hold up what comes after.
        let accepting = tokio::time::timeout(PATIENCE, store.accept_callbacks(arrivals));
        match accepting.await.unwrap_or_else(|_| Err(StoreError::timed_out())) {
            Ok((arrived, dropped)) => {
                if dropped.0 > 0 {
                    metrics::counter!("checkback_unmatched_dropped_total").increment(dropped.0);
                    warn!(dropped = dropped.0, "too many unmatched callbacks: the oldest were dropped");
                }
                return Ok(arrived);
            }
            Err(error) if error.is_transient() && tries < 4 => {}
            Err(error) => return Err(error),
        }
    }
}

fn report(error: &StoreError) -> NotAccepted {
    error!(error = error as &dyn std::error::Error, "callbacks could not be recorded");
    NotAccepted::Database
}

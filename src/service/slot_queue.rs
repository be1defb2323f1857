//! Slots for calls that came too late for theirs, taken together.
//!
//! A statement that takes a slot holds the account's row until it is committed. When a database that answers late, or a
//! busy machine, makes many calls late at once, a statement for each of them would take all connections to stand in line
//! for that row, and make the next ones late too.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use tokio::time::Instant;
use tracing::warn;

use super::account::Account;
use super::batch::{Batcher, Bounds};
use super::pace::Slot;
use crate::clock::Clock;
use crate::lifecycle::Tasks;
use crate::store::{Pace, Rate, Store};

const BOUNDS: Bounds = Bounds { name: "slots", queued: 1024, in_flight: 2, batch: 128 };

/// A call that came too late.
#[derive(Debug)]
struct Late {
    account: String,
    rate: Rate,
    pace: Pace,
}

#[derive(Clone, Debug)]
pub struct SlotQueue(Batcher<Late, Option<Slot>>);

impl SlotQueue {
    pub fn start(store: Store, clock: Clock, tasks: &Tasks) -> Self {
        Self(Batcher::start(tasks, BOUNDS, move |late| {
            let (store, clock) = (store.clone(), clock.clone());
            async move { take(&store, &clock, &late).await }
        }))
    }

    /// Takes another slot. `None`: the database gave none, or the service stops.
    pub async fn take(&self, account: &Account, pace: Pace) -> Option<Slot> {
        let late = Late { account: account.name.clone(), rate: account.rate(), pace };
        self.0.submit_patiently(late).await.ok().flatten()
    }
}

async fn take(store: &Store, clock: &Clock, late: &[Late]) -> Vec<Option<Slot>> {
    let mut lines: BTreeMap<_, Vec<usize>> = BTreeMap::new();
    for (place, call) in late.iter().enumerate() {
        lines.entry((&call.account, call.pace == Pace::Bulk)).or_default().push(place);
    }
    let mut slots = vec![None; late.len()];
    let taking = lines.values().map(|line| take_for(store, clock, &late[line[0]], line.len()));
    for (line, taken) in lines.values().zip(join_all(taking).await) {
        for (place, slot) in line.iter().zip(taken) {
            slots[*place] = Some(slot);
        }
    }
    slots
}

/// `count` slots, the earliest first; fewer where the database fails.
async fn take_for(store: &Store, clock: &Clock, call: &Late, count: usize) -> Vec<Slot> {
    let mut slots = Vec::with_capacity(count);
    while slots.len() < count {
        let asked_at = Instant::now();
        match store.take_slots(&call.account, call.rate, call.pace, count - slots.len(), clock.now()).await {
            Ok(taken) => {
                let answered_at = Instant::now();
                slots.extend(taken.into_iter().map(|slot_in| Slot::new(asked_at, answered_at, slot_in, call.pace)));
            }
            Err(error) => {
                warn!(
                    error = &error as &dyn std::error::Error,
                    account = call.account,
                    "no slot could be taken for a call"
                );
                break;
            }
        }
    }
    slots
}

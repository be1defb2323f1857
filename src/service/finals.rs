//! Who waits for something to happen to a verification: that it becomes final, or that its erasure was worked on.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, oneshot};
use uuid::Uuid;

use crate::domain::VerificationId;

/// Waiting readers by verification; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Finals(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<HashMap<Uuid, Vec<oneshot::Sender<()>>>>,
    any: Notify,
}

impl Finals {
    /// Subscribe first, then read: what becomes final in between is not missed.
    pub fn subscribe(&self, id: VerificationId) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        let mut waiting = self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let senders = waiting.entry(id.0).or_default();
        senders.retain(|sender| !sender.is_closed());
        senders.push(sender);
        receiver
    }

    /// Wakes the readers of these.
    pub fn announce(&self, ids: &[VerificationId]) {
        self.0.any.notify_one();
        let mut waiting = self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.is_empty() {
            return;
        }
        for sender in ids.iter().filter_map(|id| waiting.remove(&id.0)).flatten() {
            // The reader may have gone away.
            let _ = sender.send(());
        }
    }

    /// Resolves when any were announced since the last time. For one who waits.
    pub async fn announced(&self) {
        self.0.any.notified().await;
    }

    /// Those that somebody still waits for.
    pub fn awaited(&self) -> Vec<Uuid> {
        let mut waiting = self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|_, senders| senders.iter().any(|sender| !sender.is_closed()));
        waiting.keys().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_reader_is_woken_once_and_one_who_left_is_forgotten() {
        let finals = Finals::default();
        let id = VerificationId(Uuid::from_u128(1));
        let gone = finals.subscribe(VerificationId(Uuid::from_u128(2)));
        let reader = finals.subscribe(id);
        drop(gone);
        assert_eq!(finals.awaited(), [id.0]);
        finals.announce(&[id]);
        assert!(reader.await.is_ok());
        assert!(finals.awaited().is_empty());
    }
}

//! Callbacks that were refused for their token, as this process saw them: so that somebody who asks why a verification
//! waits can be told. Nothing of them is stored, and nothing follows from them.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use chrono::{DateTime, Utc};
use hashlink::LruCache;

/// Transactions that are remembered; the one that was refused longest ago is forgotten first.
const MOST: usize = 4096;

/// What was refused about one transaction since the start of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    pub callbacks: u64,
    pub last_at: DateTime<Utc>,
}

pub struct RefusedCallbacks(Mutex<LruCache<(String, String), Refused>>);

impl Default for RefusedCallbacks {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(MOST)))
    }
}

impl fmt::Debug for RefusedCallbacks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RefusedCallbacks")
    }
}

impl RefusedCallbacks {
    pub fn note(&self, account: &str, transaction_id: &str, at: DateTime<Utc>) {
        let key = (account.to_owned(), transaction_id.to_owned());
        // Whoever panicked while holding it left a sound cache.
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let callbacks = seen.get(&key).map_or(0, |refused| refused.callbacks) + 1;
        seen.insert(key, Refused { callbacks, last_at: at });
    }

    pub fn of(&self, account: &str, transaction_id: &str) -> Option<Refused> {
        let key = (account.to_owned(), transaction_id.to_owned());
        self.0.lock().unwrap_or_else(PoisonError::into_inner).peek(&key).copied()
    }

    /// Account, transaction and what was refused about it, the latest first.
    pub fn latest(&self, limit: usize) -> Vec<(String, String, Refused)> {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let latest = seen.iter().rev().take(limit);
        latest.map(|((account, transaction), refused)| (account.clone(), transaction.clone(), *refused)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_counted_for_each_transaction() {
        let refused = RefusedCallbacks::default();
        let at = |second| DateTime::from_timestamp(second, 0).unwrap();
        refused.note("a", "t", at(1));
        refused.note("a", "t", at(2));
        refused.note("b", "t", at(3));
        assert_eq!(refused.of("a", "t"), Some(Refused { callbacks: 2, last_at: at(2) }));
        assert_eq!(refused.of("a", "u"), None);
        let latest = refused.latest(1);
        assert_eq!((latest.len(), &*latest[0].0, latest[0].2.last_at), (1, "b", at(3)));
    }
}

//! Nonces that were used, so that none is used twice.
//!
//! Memory is bounded: each shard keeps two generations, and a generation ends after 30 minutes or when it is full. A
//! nonce is therefore remembered for 30 minutes, unless millions of calls come in that time. Only a keyed 64-bit hash
//! of a nonce is kept; that two of a million differ in text and agree in hash has odds of about one in 30 million.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};

use chrono::{DateTime, TimeDelta, Utc};

const SHARDS: usize = 16;
const FULL: usize = 128 * 1024;
const KEPT: TimeDelta = TimeDelta::minutes(30);

struct Shard {
    current: HashSet<u64>,
    previous: HashSet<u64>,
    since: DateTime<Utc>,
}

pub(super) struct Nonces {
    hasher: RandomState,
    shards: [Mutex<Shard>; SHARDS],
}

impl Nonces {
    pub(super) fn new() -> Self {
        let shard = |_| {
            Mutex::new(Shard { current: HashSet::new(), previous: HashSet::new(), since: DateTime::<Utc>::UNIX_EPOCH })
        };
        Self { hasher: RandomState::new(), shards: std::array::from_fn(shard) }
    }

    /// False when the nonce was used before.
    pub(super) fn use_up(&self, nonce: &str, now: DateTime<Utc>) -> bool {
        let hash = self.hasher.hash_one(nonce);
        // The remainder is below SHARDS, so it fits.
        let index = usize::try_from(hash % SHARDS as u64).unwrap_or(0);
        let mut shard = self.shards[index].lock().unwrap_or_else(PoisonError::into_inner);
        if (now - shard.since).abs() >= KEPT || shard.current.len() >= FULL {
            shard.previous = std::mem::take(&mut shard.current);
            shard.since = now;
        }
        !shard.previous.contains(&hash) && shard.current.insert(hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_is_good_once_and_forgotten_after_an_hour_at_most() {
        let nonces = Nonces::new();
        let start = DateTime::<Utc>::UNIX_EPOCH + TimeDelta::days(20_000);
        assert!(nonces.use_up("a", start));
        assert!(!nonces.use_up("a", start));
        assert!(!nonces.use_up("a", start + TimeDelta::minutes(31)));
        assert!(nonces.use_up("a", start + TimeDelta::minutes(62)));
    }

    #[test]
    fn memory_is_bounded() {
        let nonces = Nonces::new();
        let now = DateTime::<Utc>::UNIX_EPOCH + TimeDelta::days(20_000);
        for shard in &nonces.shards {
            let mut shard = shard.lock().unwrap();
            shard.since = now;
            shard.current = (0..FULL as u64).collect();
        }
        assert!(nonces.use_up("a", now));
        let sizes: Vec<_> = nonces.shards.iter().map(|shard| shard.lock().unwrap().current.len()).collect();
        assert!(sizes.contains(&1), "{sizes:?}");
    }
}

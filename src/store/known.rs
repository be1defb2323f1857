//! What callbacks need to know of the verifications registered or called back lately, without asking the database.
//!
//! Sound because rows of `verifications` are never updated but by an erasure: what was committed once stays true, on
//! every replica. A callback of an erased one that is still known somewhere is recorded as a hint, which `take_hints`
//! drops.
//! What is not here is looked up, so forgetting costs a look-up and nothing else.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use hashlink::LruCache;
use sha2::{Digest, Sha256};

use crate::domain::{TokenHash, VerificationId};

/// About 150 bytes each.
const MOST: usize = 65_536;

/// Half a SHA-256 of account and transaction: shorter than the two, and nobody can make another pair fit.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key([u8; 16]);

impl Key {
    fn of(account: &str, transaction_id: &str) -> Self {
        let mut hash = Sha256::new();
        hash.update(account.as_bytes());
        // A name of an account holds no such byte.
        hash.update([0]);
        hash.update(transaction_id.as_bytes());
        let hash: [u8; 32] = hash.finalize().into();
        let mut half = [0; 16];
        half.copy_from_slice(&hash[..16]);
        Self(half)
    }
}

/// A registered verification, as far as a callback needs it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Registration {
    pub id: VerificationId,
    pub expect_video: bool,
    pub token: Option<TokenHash>,
}

/// The registrations seen last.
pub(super) struct Known(Mutex<LruCache<Key, Registration>>);

impl Default for Known {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(MOST)))
    }
}

impl fmt::Debug for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Known")
    }
}

impl Known {
    /// Remembers a registration that is committed.
    pub fn remember(&self, account: &str, transaction_id: &str, registration: Registration) {
        let key = Key::of(account, transaction_id);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key, registration);
    }

    pub fn forget(&self, account: &str, transaction_id: &str) {
        let key = Key::of(account, transaction_id);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
    }

    pub fn find(&self, account: &str, transaction_id: &str) -> Option<Registration> {
        let key = Key::of(account, transaction_id);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&key).copied()
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn registration(n: u128) -> Registration {
        Registration { id: VerificationId(Uuid::from_u128(n)), expect_video: false, token: None }
    }

    #[test]
    fn a_transaction_is_found_under_its_own_account_only() {
        let known = Known::default();
        known.remember("sg", "t1", registration(1));
        known.remember("hk", "t1", registration(2));
        assert_eq!(known.find("sg", "t1").unwrap().id.0.as_u128(), 1);
        assert_eq!(known.find("hk", "t1").unwrap().id.0.as_u128(), 2);
        assert!(known.find("sgt1", "").is_none() && known.find("s", "gt1").is_none());
    }

    #[test]
    fn the_ones_not_used_for_longest_are_forgotten_first() {
        let known = Known::default();
        for n in 0..=MOST {
            known.remember("sg", &n.to_string(), registration(n as u128));
            known.find("sg", "0");
        }
        assert!(known.find("sg", "0").is_some() && known.find("sg", &MOST.to_string()).is_some());
        assert!(known.find("sg", "1").is_none());
    }
}

//! The only source of randomness: ids, nonces and jitter. A test seeds it and gets the same run twice.

use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, Utc};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use uuid::Uuid;

/// A shared generator; clones draw from the same stream.
#[derive(Clone)]
pub struct Entropy(Arc<Mutex<StdRng>>);

impl std::fmt::Debug for Entropy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Entropy")
    }
}

impl Entropy {
    /// A cryptographically secure stream, seeded by the operating system.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that asks the system for randomness")]
    pub fn system() -> Self {
        Self(Arc::new(Mutex::new(StdRng::from_rng(&mut rand::rng()))))
    }

    /// A stream that repeats itself for the same seed; for tests.
    pub fn seeded(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(StdRng::seed_from_u64(seed))))
    }

    /// Unguessable bytes: keys.
    pub fn bytes<const N: usize>(&self) -> [u8; N] {
        // A generator is never left half-changed by a panic, so a poisoned lock holds a sound one.
        self.0.lock().unwrap_or_else(PoisonError::into_inner).random()
    }

    /// A time-ordered id (`UUIDv7`) for something that happened at `now`.
    pub fn id(&self, now: DateTime<Utc>) -> Uuid {
        let millis = u64::try_from(now.timestamp_millis()).unwrap_or(0);
        uuid::Builder::from_unix_timestamp_millis(millis, &self.bytes()).into_uuid()
    }

    /// An unguessable name of 32 lower-case hex digits: nonces, references, tokens.
    pub fn hex32(&self) -> String {
        hex::encode(self.bytes::<16>())
    }

    /// An unguessable id that carries no time: lease tokens.
    pub fn token(&self) -> Uuid {
        uuid::Builder::from_random_bytes(self.bytes()).into_uuid()
    }

    /// A key for signing.
    pub fn secret(&self) -> [u8; 32] {
        self.bytes()
    }

    /// A number in `0.0..1.0`, for jitter.
    pub fn fraction(&self) -> f64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).random()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_run() {
        let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let (a, b) = (Entropy::seeded(7), Entropy::seeded(7));
        assert_eq!(a.id(now), b.id(now));
        assert_eq!(a.hex32(), b.hex32());
        assert_ne!(a.hex32(), a.hex32());
    }

    #[test]
    fn ids_are_version_seven_and_ordered_by_time() {
        let entropy = Entropy::system();
        let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let earlier = entropy.id(now);
        let later = entropy.id(now + chrono::TimeDelta::milliseconds(1));
        assert_eq!(earlier.get_version_num(), 7);
        assert!(earlier < later);
    }
}

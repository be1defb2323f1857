//! The simulator's own randomness: ids, the share of calls a fault hits, the key of video links.

use std::sync::{Mutex, PoisonError};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

pub(super) struct Random(Mutex<StdRng>);

impl Random {
    /// The same stream for the same seed; without one, seeded by the operating system.
    #[expect(clippy::disallowed_methods, reason = "the simulator is independent of the service's randomness")]
    pub(super) fn new(seed: Option<u64>) -> Self {
        Self(Mutex::new(seed.map_or_else(|| StdRng::from_rng(&mut rand::rng()), StdRng::seed_from_u64)))
    }

    pub(super) fn bytes<const N: usize>(&self) -> [u8; N] {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).random()
    }

    /// `2 * N` lower-case hex digits.
    pub(super) fn hex<const N: usize>(&self) -> String {
        hex::encode(self.bytes::<N>())
    }

    /// An upper-case UUID, as the provider names its requests.
    pub(super) fn request_id(&self) -> String {
        let id = uuid::Builder::from_random_bytes(self.bytes()).into_uuid();
        id.hyphenated().encode_upper(&mut uuid::Uuid::encode_buffer()).to_owned()
    }

    /// A number in `0.0..1.0`.
    pub(super) fn fraction(&self) -> f64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).random()
    }
}

//! The limit of calls a second, per operation. Windows are seconds of the real clock: moving the simulator's clock
//! gives nobody more calls.

use std::sync::atomic::{AtomicU64, Ordering};

use chrono::{DateTime, Utc};

/// Second and count in one word: the lower bits count.
const COUNT_BITS: u32 = 24;

pub(super) struct Rates {
    limit: Option<u32>,
    windows: Box<[AtomicU64]>,
}

impl Rates {
    /// `operations`: how many there are.
    pub(super) fn new(limit: Option<u32>, operations: usize) -> Self {
        Self { limit, windows: (0..operations).map(|_| AtomicU64::new(0)).collect() }
    }

    /// Counts the call, or says in how many milliseconds the next second begins.
    pub(super) fn admit(&self, operation: usize, now: DateTime<Utc>) -> Result<(), u64> {
        let Some(limit) = self.limit else { return Ok(()) };
        let second = u64::try_from(now.timestamp()).unwrap_or(0);
        let next = |word: u64| {
            let count = if word >> COUNT_BITS == second { word & ((1 << COUNT_BITS) - 1) } else { 0 };
            (count < u64::from(limit)).then_some(second << COUNT_BITS | (count + 1))
        };
        match self.windows[operation].fetch_update(Ordering::Relaxed, Ordering::Relaxed, next) {
            Ok(_) => Ok(()),
            Err(_) => Err(u64::from(1000 - now.timestamp_subsec_millis().min(999))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_operation_has_its_own_calls_in_each_second() {
        let rates = Rates::new(Some(2), 2);
        let at = DateTime::from_timestamp_millis(1_700_000_000_250).unwrap();
        assert_eq!(rates.admit(0, at), Ok(()));
        assert_eq!(rates.admit(0, at), Ok(()));
        assert_eq!(rates.admit(0, at), Err(750));
        assert_eq!(rates.admit(1, at), Ok(()));
        let later = DateTime::from_timestamp_millis(1_700_000_001_000).unwrap();
        assert_eq!(rates.admit(0, later), Ok(()));
    }

    #[test]
    fn without_a_limit_nothing_is_refused() {
        let rates = Rates::new(None, 1);
        assert!((0..100).all(|_| rates.admit(0, DateTime::UNIX_EPOCH).is_ok()));
    }
}

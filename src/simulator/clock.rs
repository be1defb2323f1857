//! The simulator's own time: the real clock plus an offset that tests and people move.
//!
//! Everything a provider decides by time (signature windows, video links, retention) reads [`SimulatorClock::now`].
//! The record of calls, and the limits on their rate, read [`SimulatorClock::real_now`]: they are about real seconds.
//! A clock that stands still ([`Settings::clock_stands_at`](super::Settings)) knows no real time, and all of it is its own.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};

use axum::http::HeaderValue;
use chrono::{DateTime, TimeDelta, Utc};

/// The machine's time, which no test can move.
#[expect(clippy::disallowed_methods, reason = "the simulator is independent of the service and has its own clock")]
fn machine_now() -> DateTime<Utc> {
    Utc::now()
}

/// How to move the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockMove {
    /// Forward, or back when negative.
    Advance(TimeDelta),
    Set(DateTime<Utc>),
}

pub(super) struct SimulatorClock {
    /// Added to the machine's time, or to the epoch by a clock that stands still.
    offset_micros: AtomicI64,
    stands: bool,
    date: Mutex<(i64, HeaderValue)>,
}

impl SimulatorClock {
    /// `stands_at`: it goes only when it is moved.
    pub(super) fn new(stands_at: Option<DateTime<Utc>>) -> Self {
        let now = stands_at.unwrap_or_else(machine_now);
        Self {
            offset_micros: AtomicI64::new(stands_at.map_or(0, |at| at.timestamp_micros())),
            stands: stands_at.is_some(),
            date: Mutex::new((now.timestamp(), http_date(now))),
        }
    }

    fn base(&self) -> DateTime<Utc> {
        if self.stands { DateTime::UNIX_EPOCH } else { machine_now() }
    }

    pub(super) fn now(&self) -> DateTime<Utc> {
        let offset = TimeDelta::microseconds(self.offset_micros.load(Ordering::Relaxed));
        let base = self.base();
        base.checked_add_signed(offset).unwrap_or(base)
    }

    /// The time that moves leave alone.
    pub(super) fn real_now(&self) -> DateTime<Utc> {
        if self.stands { self.now() } else { machine_now() }
    }

    pub(super) fn apply(&self, step: ClockMove) {
        match step {
            ClockMove::Advance(by) => {
                self.offset_micros.fetch_add(by.num_microseconds().unwrap_or(0), Ordering::Relaxed);
            }
            ClockMove::Set(to) => {
                let offset = to.signed_duration_since(self.base()).num_microseconds().unwrap_or(0);
                // Rounded up: right after being set a clock that goes must not stand before `to`.
                self.offset_micros.store(offset.saturating_add(i64::from(!self.stands)), Ordering::Relaxed);
            }
        }
    }

    /// The `Date` header of now; formatted once a second.
    pub(super) fn date_header(&self) -> HeaderValue {
        let now = self.now();
        let mut cached = self.date.lock().unwrap_or_else(PoisonError::into_inner);
        if cached.0 != now.timestamp() {
            *cached = (now.timestamp(), http_date(now));
        }
        cached.1.clone()
    }
}

/// The form of `Date` headers.
pub(super) fn http_date(at: DateTime<Utc>) -> HeaderValue {
    let text = at.format("%a, %d %b %Y %H:%M:%S GMT").to_string();
    HeaderValue::try_from(text).expect("a formatted time is visible ASCII")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moves_add_up_and_a_set_time_replaces_them() {
        let clock = SimulatorClock::new(None);
        clock.apply(ClockMove::Advance(TimeDelta::days(31)));
        clock.apply(ClockMove::Advance(TimeDelta::days(-1)));
        let ahead = clock.now() - clock.real_now();
        assert!(ahead > TimeDelta::days(29) && ahead <= TimeDelta::days(30), "{ahead}");

        let target = DateTime::parse_from_rfc3339("2030-01-02T03:04:05Z").unwrap().to_utc();
        clock.apply(ClockMove::Set(target));
        assert!(clock.now() >= target);
        assert!((clock.now() - target).num_seconds() < 60);
        assert!(clock.date_header().to_str().unwrap().starts_with("Wed, 02 Jan 2030 03:0"));
    }
    #[test]
    fn a_clock_that_stands_still_goes_only_when_it_is_moved() {
        let start = DateTime::parse_from_rfc3339("2030-01-02T03:04:05Z").unwrap().to_utc();
        let clock = SimulatorClock::new(Some(start));
        assert_eq!((clock.now(), clock.real_now()), (start, start));
        clock.apply(ClockMove::Advance(TimeDelta::milliseconds(250)));
        let later = start + TimeDelta::milliseconds(250);
        assert_eq!((clock.now(), clock.real_now()), (later, later));
        clock.apply(ClockMove::Set(start));
        assert_eq!((clock.now(), clock.real_now()), (start, start));
    }
}

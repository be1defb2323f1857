//! The only source of time. Everything else is handed a [`Clock`].
//!
//! A clock is the system's (moved by `serve --clock-offset`), the system's with jumps (the demo), or one that a test
//! moves by hand, so that thirty days pass in a second. Waiting until a time goes through the clock too: a test that moves it wakes
//! whoever waited for the time it moved past.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use tokio::sync::watch;

/// Times are kept to the microsecond, which is what Postgres stores: a time read back equals the one written.
const SUBSECOND_DIGITS: u16 = 6;

/// The longest real sleep before the system clock is looked at again, so that a jump of it is noticed.
const LONGEST_SLEEP: Duration = Duration::from_secs(5);

#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System { offset: TimeDelta },
    Jumping(Arc<watch::Sender<TimeDelta>>),
    Manual(Arc<watch::Sender<DateTime<Utc>>>),
}

impl Clock {
    /// The system's clock, moved by `offset` (zero in production).
    pub fn system(offset: TimeDelta) -> Self {
        Self(Source::System { offset })
    }

    /// The system's clock, which [`Clock::advance`] moves on.
    pub fn jumping() -> Self {
        Self(Source::Jumping(Arc::new(watch::Sender::new(TimeDelta::zero()))))
    }

    /// A clock that stands still at `start` until [`Clock::advance`] moves it.
    pub fn manual(start: DateTime<Utc>) -> Self {
        Self(Source::Manual(Arc::new(watch::Sender::new(start.trunc_subsecs(SUBSECOND_DIGITS)))))
    }

    #[expect(clippy::disallowed_methods, reason = "this is the one place that asks the system for the time")]
    pub fn now(&self) -> DateTime<Utc> {
        match &self.0 {
            Source::System { offset } => (Utc::now() + *offset).trunc_subsecs(SUBSECOND_DIGITS),
            Source::Jumping(offset) => (Utc::now() + *offset.borrow()).trunc_subsecs(SUBSECOND_DIGITS),
            Source::Manual(now) => *now.borrow(),
        }
    }

    /// What the machine's own clock says, whatever offset this one has; `None` where it does not follow the machine.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that asks the system for the time")]
    pub fn machine_now(&self) -> Option<DateTime<Utc>> {
        match &self.0 {
            Source::System { .. } | Source::Jumping(_) => Some(Utc::now()),
            Source::Manual(_) => None,
        }
    }

    /// Moves a manual or a jumping clock and wakes those who waited for a time it passed.
    ///
    /// # Panics
    /// On a system clock, which nobody can move.
    pub fn advance(&self, by: Duration) {
        match &self.0 {
            Source::System { .. } => panic!("the system's clock cannot be moved"),
            Source::Jumping(offset) => {
                offset.send_modify(|offset| *offset += TimeDelta::from_std(by).unwrap_or_default());
            }
            Source::Manual(now) => now.send_modify(|now| *now += by),
        }
    }

    /// Puts a manual clock to `time`, which may be in its past: clocks of machines are set back too.
    ///
    /// # Panics
    /// On any other clock.
    pub fn set(&self, time: DateTime<Utc>) {
        let Source::Manual(now) = &self.0 else { panic!("only a manual clock can be put to a time") };
        now.send_replace(time.trunc_subsecs(SUBSECOND_DIGITS));
    }

    /// Returns once the clock has reached `time`.
    pub async fn sleep_until(&self, time: DateTime<Utc>) {
        match &self.0 {
            Source::System { .. } => loop {
                let Ok(left) = (time - self.now()).to_std() else { return };
                if left.is_zero() {
                    return;
                }
                tokio::time::sleep(left.min(LONGEST_SLEEP)).await;
            },
            Source::Jumping(offset) => {
                let mut jumps = offset.subscribe();
                loop {
                    let Ok(left) = (time - self.now()).to_std() else { return };
                    if left.is_zero() {
                        return;
                    }
                    tokio::select! {
                        () = tokio::time::sleep(left.min(LONGEST_SLEEP)) => {}
                        _ = jumps.changed() => {}
                    }
                }
            }
            Source::Manual(now) => {
                // The sender lives as long as `self`, so waiting cannot fail.
                let _ = now.subscribe().wait_for(|now| *now >= time).await;
            }
        }
    }
}

/// `time` moved back by `by`, at most to 1970, when nothing was registered.
pub fn earlier(time: DateTime<Utc>, by: Duration) -> DateTime<Utc> {
    let moved = TimeDelta::from_std(by).ok().and_then(|by| time.checked_sub_signed(by));
    moved.unwrap_or(DateTime::UNIX_EPOCH).max(DateTime::UNIX_EPOCH)
}

/// `time` moved on by `by`, at most to the end of time.
pub fn later(time: DateTime<Utc>, by: Duration) -> DateTime<Utc> {
    TimeDelta::from_std(by).ok().and_then(|by| time.checked_add_signed(by)).unwrap_or(DateTime::<Utc>::MAX_UTC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_manual_clock_wakes_those_whose_time_has_come() {
        let clock = Clock::manual(DateTime::from_timestamp(1_000_000, 0).unwrap());
        let until = clock.now() + TimeDelta::days(30);
        let waiting = {
            let clock = clock.clone();
            async move {
                clock.sleep_until(until).await;
                clock.now()
            }
        };
        let moving = async {
            clock.advance(Duration::from_hours(24 * 31));
        };
        let (woken_at, ()) = tokio::join!(waiting, moving);
        assert!(woken_at >= until);
    }

    #[tokio::test]
    async fn a_jumping_clock_goes_by_itself_and_wakes_those_it_jumps_past() {
        let clock = Clock::jumping();
        let before = clock.now();
        clock.sleep_until(before + TimeDelta::milliseconds(2)).await;
        assert!(clock.now() >= before + TimeDelta::milliseconds(2));
        let until = before + TimeDelta::days(30);
        let moving = async { clock.advance(Duration::from_hours(24 * 31)) };
        tokio::join!(clock.sleep_until(until), moving);
        assert!(clock.now() >= until);
    }

    #[test]
    fn a_manual_clock_can_be_set_back() {
        let start = DateTime::from_timestamp(1_000_000, 0).unwrap();
        let clock = Clock::manual(start);
        clock.set(start - TimeDelta::hours(1));
        assert_eq!(clock.now(), start - TimeDelta::hours(1));
    }

    #[test]
    fn an_offset_moves_the_system_clock() {
        let moved = Clock::system(TimeDelta::days(31)).now();
        let real = Clock::system(TimeDelta::zero()).now();
        assert!((moved - real - TimeDelta::days(31)).num_seconds().abs() < 5);
    }
}

//! Turns: how the lanes that more urgent ones keep waiting get their share of an account's calls.

use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::Instant;

use crate::domain::schedule::Lane;
use crate::service::account::earlier;
use crate::service::pace::{BULK_HORIZON, HORIZON};
use crate::store::{LaneTurn, Leased, Pace};

/// Of the calls of an account, one in so many goes to a lane that more urgent ones keep waiting.
const SHARE: usize = 10;
/// For how long something of it must have been due.
const KEPT_WAITING: Duration = Duration::from_mins(1);
/// A lane in which nothing waited is looked at again after this.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Sees to it that no lane starves: after nine calls of others, the one that has waited too long in lane
/// [`Lane::Retry`] or [`Lane::Poll`], by turns.
#[derive(Debug, Default)]
pub struct Turns {
    calls: usize,
    urgent_calls: usize,
    last: Option<Lane>,
    empty_since: [Option<Instant>; 2],
    /// There was no slot for the turn: others may take what there is before it is tried again.
    had_no_slot: bool,
}

impl Turns {
    const LANES: [Lane; 2] = [Lane::Retry, Lane::Poll];

    /// The lane whose turn it is at `at`, by the business clock `now`, if it is one's.
    pub fn next(&mut self, now: DateTime<Utc>, at: Instant) -> Option<LaneTurn> {
        if std::mem::take(&mut self.had_no_slot) || self.calls + 1 < SHARE {
            return None;
        }
        let waits = |lane: &Lane| {
            let empty_since = self.empty_since[usize::from(*lane == Lane::Poll)];
            empty_since.is_none_or(|since| at.saturating_duration_since(since) >= LOOK_AGAIN)
        };
        let mut lanes = Self::LANES.into_iter().filter(waits);
        let lane = lanes.clone().find(|lane| Some(*lane) != self.last).or_else(|| lanes.next())?;
        // Where urgent calls take all there is, only their pace brings another one through.
        let pace = if self.urgent_calls * 2 > self.calls { Pace::Urgent } else { Pace::Bulk };
        Some(LaneTurn { lane, due_before: earlier(now, KEPT_WAITING), pace })
    }

    /// Notes what was leased, in a lane's turn or out of all.
    pub fn took(&mut self, turn: Option<LaneTurn>, leased: &Leased, at: Instant) {
        match turn {
            None => {
                self.calls += leased.jobs.len();
                self.urgent_calls += leased.jobs.iter().filter(|job| job.pace == Pace::Urgent).count();
            }
            Some(turn) if leased.jobs.is_empty() && !has_slot(turn.pace, leased) => self.had_no_slot = true,
            Some(turn) if leased.jobs.is_empty() => {
                self.empty_since[usize::from(turn.lane == Lane::Poll)] = Some(at);
            }
            Some(turn) => *self = Self { last: Some(turn.lane), empty_since: self.empty_since, ..Self::default() },
        }
    }
}

fn has_slot(pace: Pace, leased: &Leased) -> bool {
    match pace {
        Pace::Urgent => leased.urgent_in <= HORIZON.as_secs_f64(),
        Pace::Bulk => leased.bulk_in <= BULK_HORIZON.as_secs_f64(),
    }
}

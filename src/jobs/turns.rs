//! Turns: how the lanes that more urgent ones keep waiting get their share of an account's calls.

use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::Instant;

use crate::clock::earlier;
use crate::domain::schedule::Lane;
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

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use uuid::Uuid;

    use super::*;
    use crate::domain::VerificationId;
    use crate::store::{LeasedJob, Standing};

    fn leased(jobs: usize, pace: Pace, slot_in: f64) -> Leased {
        let job = LeasedJob {
            id: VerificationId(Uuid::nil()),
            token: Uuid::nil(),
            lane: Lane::Fresh,
            pace,
            transaction_id: String::new(),
            merchant_biz_id: String::new(),
            product: None,
            expect_video: false,
            registered_at: DateTime::UNIX_EPOCH,
            hinted_at: None,
            callback_at: None,
            recheck: false,
            checks: 0,
            running: 0,
            faults: 0,
            slot_in: 0.0,
            standing: Standing::Well,
        };
        Leased { jobs: vec![job; jobs], is_all: false, urgent_in: slot_in, bulk_in: slot_in }
    }

    fn now() -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::days(10_000)
    }

    /// Calls one after the other while everything is due; what each was for.
    fn calls(turns: &mut Turns, pace: Pace, count: usize) -> Vec<Option<Lane>> {
        let one = leased(1, pace, 0.0);
        let call = |_| {
            let turn = turns.next(now(), Instant::now());
            turns.took(turn, &one, Instant::now());
            turn.map(|turn| turn.lane)
        };
        (0..count).map(call).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn one_call_in_ten_is_the_turn_of_retries_or_of_polls() {
        let mut turns = Turns::default();
        let order = calls(&mut turns, Pace::Urgent, 100);
        let count = |lane| order.iter().filter(|turn| **turn == lane).count();
        assert_eq!((count(Some(Lane::Retry)), count(Some(Lane::Poll)), count(None)), (5, 5, 90));
    }

    #[tokio::test(start_paused = true)]
    async fn only_what_waits_for_a_minute_has_a_turn_and_by_the_pace_of_those_it_waits_for() {
        for pace in [Pace::Urgent, Pace::Bulk] {
            let mut turns = Turns::default();
            turns.took(None, &leased(9, pace, 0.0), Instant::now());
            let turn = turns.next(now(), Instant::now()).unwrap();
            assert_eq!((turn.lane, turn.pace, turn.due_before), (Lane::Retry, pace, now() - TimeDelta::minutes(1)));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_lane_in_which_nothing_waits_leaves_its_turn_to_the_other_and_is_looked_at_again_later() {
        let mut turns = Turns::default();
        turns.took(None, &leased(9, Pace::Urgent, 0.0), Instant::now());
        let turn = turns.next(now(), Instant::now());
        turns.took(turn, &leased(0, Pace::Urgent, 0.0), Instant::now());
        assert_eq!(turns.next(now(), Instant::now()).unwrap().lane, Lane::Poll);
        let turn = turns.next(now(), Instant::now());
        turns.took(turn, &leased(0, Pace::Urgent, 0.0), Instant::now());
        assert!(turns.next(now(), Instant::now()).is_none(), "nothing waits");
        tokio::time::advance(LOOK_AGAIN).await;
        assert_eq!(turns.next(now(), Instant::now()).unwrap().lane, Lane::Retry);
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_without_a_slot_is_tried_again_after_others_had_the_chance() {
        let mut turns = Turns::default();
        turns.took(None, &leased(9, Pace::Bulk, 0.0), Instant::now());
        let turn = turns.next(now(), Instant::now());
        turns.took(turn, &leased(0, Pace::Bulk, 0.06), Instant::now());
        assert!(turns.next(now(), Instant::now()).is_none(), "an urgent one may come first");
        assert_eq!(turns.next(now(), Instant::now()).unwrap().lane, Lane::Retry);
    }
}

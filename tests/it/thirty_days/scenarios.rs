//! Two days of which everything is counted: the provider away for six hours, and callbacks that get lost.

use std::fmt;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::plan::{Failure, Happening, Outage, Person, Plan, around};
use super::queue::{DAY, HOUR, MILLISECOND, MINUTE, Moment, SECOND};
use super::world::World;

const AWAY: i64 = 6 * HOUR;

/// The provider is away for six hours in which `people` finish and are called back for, a third of them with a video.
pub fn provider_away(seed: u64, people: usize, qps: u32) -> Plan {
    let mut random = StdRng::seed_from_u64(seed);
    let people = (0..people)
        .map(|n| {
            let finishes = random.random_range(MINUTE..AWAY);
            Person {
                registers_at: Moment(finishes - MINUTE),
                finishes_at: Some(Moment(finishes)),
                passes: true,
                expects_video: n % 3 == 0,
                own_token: true,
                pending: 0,
                callbacks: vec![Moment(finishes + 300 * MILLISECOND)],
                forged: None,
            }
        })
        .collect();
    let failure = Failure::Down(Outage::Unavailable);
    let happenings = vec![(Moment(-MINUTE), Happening::Fails { failure, lasts: AWAY + MINUTE })];
    Plan { qps, happenings, ..Plan::quiet(seed, people) }
}

/// What was saved of what was waiting, beside what could have been.
pub struct Saved {
    pub people: usize,
    pub videos: usize,
    /// Videos that were still there when the provider was back, and when it was first found to be.
    pub alive_at_return: usize,
    pub alive_when_found: usize,
    /// What earliest deadline first saves, one call after the other at the account's pace from that moment on.
    pub videos_at_best: usize,
    pub videos_had: usize,
    pub results_had: usize,
    /// Calls about videos that could still be had, and how many of them came before one with an earlier deadline.
    pub video_calls: usize,
    pub out_of_order: usize,
    pub found_after: i64,
    pub done_after: i64,
    pub calls: u64,
}

/// How long the video of a person can be had.
fn video_until(world: &World, n: usize) -> Option<Moment> {
    let person = &world.plan.people[n];
    person.finishes_at.filter(|_| person.expects_video).map(|at| at.plus(world.plan.video_retention))
}

impl Saved {
    pub fn of(world: &World) -> Self {
        let back = Moment(AWAY);
        let people = 0..world.people.len();
        let asked: Vec<(Moment, usize)> = {
            let mut asked: Vec<_> = people.clone().filter_map(|n| Some((world.people[n].asked_at?, n))).collect();
            asked.sort_unstable();
            asked
        };
        let found = asked.first().map_or(back, |(at, _)| *at);
        let last = asked.last().map_or(back, |(at, _)| *at);
        let alive =
            |at: Moment| people.clone().filter(|n| video_until(world, *n).is_some_and(|until| until > at)).count();
        // Unit calls, all released: at each slot the earliest deadline that can still be kept.
        let mut deadlines: Vec<Moment> = people.clone().filter_map(|n| video_until(world, n)).collect();
        deadlines.sort_unstable();
        let spacing = 1_101 * MILLISECOND / i64::from(world.plan.qps);
        let (mut at, mut videos_at_best) = (found, 0);
        for deadline in deadlines {
            if deadline > at {
                videos_at_best += 1;
                at = at.plus(spacing);
            }
        }
        let in_time = |(at, n): &(Moment, usize)| video_until(world, *n).filter(|until| until > at);
        let order: Vec<Moment> = asked.iter().filter_map(in_time).collect();
        let mut earliest_after = Moment(i64::MAX);
        let mut out_of_order = 0;
        for deadline in order.iter().rev() {
            out_of_order += usize::from(*deadline > earliest_after);
            earliest_after = earliest_after.min(*deadline);
        }
        let is_result = |n: &usize| {
            world.people[*n].verdict.as_ref().is_some_and(|(_, status)| matches!(status.as_str(), "passed" | "failed"))
        };
        Self {
            people: world.people.len(),
            videos: people.clone().filter(|n| video_until(world, *n).is_some()).count(),
            alive_at_return: alive(back),
            alive_when_found: alive(found),
            videos_at_best,
            videos_had: order.len(),
            results_had: people.clone().filter(is_result).count(),
            video_calls: order.len(),
            out_of_order,
            found_after: found.0 - back.0,
            done_after: last.0 - back.0,
            calls: world.explored.calls,
        }
    }
}

impl fmt::Display for Saved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "provider away for 6 h, {} waiting, {} with a video", self.people, self.videos)?;
        writeln!(f, "| | saved | optimum |")?;
        writeln!(f, "|---|---|---|")?;
        writeln!(f, "| results | {} | {} |", self.results_had, self.people)?;
        writeln!(f, "| videos | {} | {} |", self.videos_had, self.videos_at_best)?;
        writeln!(
            f,
            "videos left at the return: {}, when it was found {} s later: {}; the last was asked about {} min after the return",
            self.alive_at_return,
            self.found_after / SECOND,
            self.alive_when_found,
            self.done_after / MINUTE
        )?;
        write!(
            f,
            "{} calls in all; of {} about videos that were there, {} came before one with an earlier deadline",
            self.calls, self.video_calls, self.out_of_order
        )
    }
}

/// A day on which 30 % of the callbacks get lost, 10 % come twice and 10 % before the registration. People finish after
/// a median of 75 s, one in 24 takes more than five minutes.
pub fn lost_callbacks(seed: u64, people: usize) -> Plan {
    let mut random = StdRng::seed_from_u64(seed);
    let people = (0..people)
        .map(|n| {
            let registers = random.random_range(0..DAY);
            let takes = around(&mut random, 75 * SECOND, 0.8);
            let calls = |times: &[i64]| times.iter().map(|at| Moment(*at)).collect::<Vec<_>>();
            let (finishes, callbacks) = match n % 10 {
                0..3 => (registers + takes, Vec::new()),
                3 => (registers + takes, calls(&[registers + takes + SECOND, registers + takes + 40 * SECOND])),
                4 => (registers - 2 * SECOND, calls(&[registers - SECOND])),
                _ => (registers + takes, calls(&[registers + takes + SECOND])),
            };
            Person {
                registers_at: Moment(registers),
                finishes_at: Some(Moment(finishes)),
                passes: n % 7 > 0,
                expects_video: false,
                own_token: n % 10 != 4,
                pending: 0,
                callbacks,
                forged: None,
            }
        })
        .collect();
    Plan { replicas: 2, ..Plan::quiet(seed, people) }
}

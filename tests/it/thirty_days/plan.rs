//! What will happen, drawn from the seed before anything does: who registers and finishes when, which callbacks come,
//! what fails when. What the replicas make of it is drawn while the simulation runs.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::queue::{DAY, HOUR, MILLISECOND, MINUTE, Moment, SECOND};

/// How long results are kept in an eventful run: longer than the latest callback is late, shorter than one outage.
const RETENTION: i64 = 8 * HOUR;

/// One person's check.
#[derive(Clone, Debug)]
pub struct Person {
    pub registers_at: Moment,
    /// `None`: never.
    pub finishes_at: Option<Moment>,
    pub passes: bool,
    pub expects_video: bool,
    /// The verification has a token of its own; else the account's counts.
    pub own_token: bool,
    /// So many answers say that the result is pending.
    pub pending: u32,
    /// When the provider's callbacks arrive.
    pub callbacks: Vec<Moment>,
    /// When one arrives with a wrong token.
    pub forged: Option<Moment>,
}

/// How the provider fails.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Failure {
    /// Nothing of it answers.
    Down(Outage),
    /// A share of its answers are faults.
    Flaky(f64),
    /// It says that the key is unknown.
    BadKey,
    /// The next calls are throttled, each with a wait of so many milliseconds, if it names one.
    Throttles { calls: u32, wait_ms: Option<u64> },
}

/// What an outage looks like from outside.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Outage {
    Unavailable,
    CutOff,
    Html,
    Garbage,
    Empty,
}

#[derive(Clone, Copy, Debug)]
pub enum Happening {
    Fails {
        failure: Failure,
        lasts: i64,
    },
    /// A replica is killed and starts again after so long.
    Kill {
        replica: usize,
        down: i64,
    },
    /// One stops softly, as for a new version.
    Stop {
        replica: usize,
        down: i64,
    },
    /// A replica stands still, as a machine does that is short of memory.
    Stall {
        replica: usize,
        lasts: i64,
    },
    /// The clock of a replica is off by so much from now on.
    ReplicaClock {
        replica: usize,
        off: i64,
    },
    /// The clock of the database is off by so much from now on.
    DatabaseClock {
        off: i64,
    },
}

#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub replicas: usize,
    pub qps: u32,
    /// What the account is configured to take for the provider's retention. Shorter than the real 30 days, so that
    /// deadlines pass within a run.
    pub result_retention: i64,
    pub video_retention: i64,
    pub give_up_after: i64,
    pub people: Vec<Person>,
    pub happenings: Vec<(Moment, Happening)>,
    /// The chance that a replica is killed right after any one of its steps.
    pub kill_chance: f64,
    /// The chance that a replica stands still for some seconds after any one of its steps.
    pub stall_chance: f64,
    /// The chance that a request comes too late for its slot, that an answer is slow, or that none comes.
    pub slow_chance: f64,
}

impl Plan {
    /// Nothing happens but what the people do.
    pub fn quiet(seed: u64, people: Vec<Person>) -> Self {
        Self {
            seed,
            replicas: 1,
            qps: 10,
            result_retention: 30 * DAY,
            video_retention: 30 * MINUTE,
            give_up_after: DAY,
            people,
            happenings: Vec::new(),
            kill_chance: 0.0,
            stall_chance: 0.0,
            slow_chance: 0.0,
        }
    }

    /// Everything at once.
    pub fn eventful(seed: u64, people: usize, days: i64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let random = &mut random;
        let replicas = random.random_range(1..=3);
        // Half of the people come in campaigns of half an hour, so that the budget is short at times.
        let campaigns: Vec<i64> = (0..4).map(|_| random.random_range(0..days * DAY)).collect();
        let people = (0..people).map(|_| person(random, &campaigns, days)).collect::<Vec<_>>();
        let happenings = happenings(random, &people, &campaigns, replicas, days);
        Self {
            replicas,
            qps: random.random_range(1..=4),
            result_retention: RETENTION,
            stall_chance: 0.003,
            kill_chance: 0.002,
            slow_chance: 0.05,
            happenings,
            ..Self::quiet(seed, people)
        }
    }
}

fn pick<T: Copy>(random: &mut StdRng, of: &[T]) -> T {
    of[random.random_range(0..of.len())]
}

/// Many times short, sometimes long: `median` times or by something around one.
pub fn around(random: &mut StdRng, median: i64, spread: f64) -> i64 {
    // The sum of twelve is as good as normal here.
    let normal: f64 = (0..12).map(|_| random.random::<f64>()).sum::<f64>() - 6.0;
    let factor = (spread * normal).exp();
    #[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "times of days")]
    let drawn = (median as f64 * factor) as i64;
    drawn
}

fn person(random: &mut StdRng, campaigns: &[i64], days: i64) -> Person {
    let registers_at = if random.random_bool(0.5) {
        random.random_range(0..days * DAY)
    } else {
        pick(random, campaigns) + random.random_range(0..30 * MINUTE)
    };
    // Most finish within minutes, some hours later, some never.
    let finishes_at = match random.random_range(0..100) {
        0..8 => None,
        8..18 => Some(registers_at + random.random_range(10 * MINUTE..20 * HOUR)),
        // Before our side hears of the transaction.
        18..26 => Some(registers_at - random.random_range(SECOND..5 * MINUTE)),
        _ => Some(registers_at + around(random, 90 * SECOND, 0.8).min(HOUR)),
    };
    let mut callbacks = Vec::new();
    if let Some(finished) = finishes_at {
        let copies = match random.random_range(0..100) {
            0..25 => 0,
            25..80 => 1,
            80..95 => 2,
            _ => 13,
        };
        for copy in 0..copies {
            let late = match random.random_range(0..10) {
                0 => random.random_range(MINUTE..5 * HOUR),
                1..4 => random.random_range(SECOND..MINUTE),
                _ => random.random_range(50 * MILLISECOND..SECOND),
            };
            // Copies come together or hours later.
            let later = if copy == 0 { 0 } else { pick(random, &[1, SECOND, MINUTE, HOUR]) };
            callbacks.push(Moment(finished + late + later));
        }
    }
    let forged = random.random_bool(0.05).then(|| Moment(registers_at + random.random_range(SECOND..HOUR)));
    Person {
        registers_at: Moment(registers_at),
        finishes_at: finishes_at.map(Moment),
        passes: random.random_bool(0.8),
        expects_video: random.random_bool(0.3),
        own_token: random.random_bool(0.5),
        pending: if random.random_bool(0.1) { random.random_range(1..=4) } else { 0 },
        callbacks,
        forged,
    }
}

fn happenings(
    random: &mut StdRng,
    people: &[Person],
    campaigns: &[i64],
    replicas: usize,
    days: i64,
) -> Vec<(Moment, Happening)> {
    let mut all = Vec::new();
    let outages = [Outage::Unavailable, Outage::CutOff, Outage::Html, Outage::Garbage, Outage::Empty];
    let anywhere = |random: &mut StdRng| Moment(random.random_range(0..days * DAY));
    for number in 0..6 {
        // Some where it hurts: as a campaign begins.
        let at = match number {
            0 | 1 => Moment(pick(random, campaigns) - MINUTE),
            5 => people[random.random_range(0..people.len())].registers_at,
            _ => anywhere(random),
        };
        // One is longer than results are kept.
        let lasts = match number {
            0 | 1 => random.random_range(10 * MINUTE..HOUR),
            5 => RETENTION + random.random_range(HOUR..3 * HOUR),
            _ => random.random_range(10 * MINUTE..3 * HOUR),
        };
        all.push((at, Happening::Fails { failure: Failure::Down(pick(random, &outages)), lasts }));
    }
    for _ in 0..4 {
        let failure = Failure::Flaky(random.random_range(0.1..0.6));
        all.push((anywhere(random), Happening::Fails { failure, lasts: random.random_range(HOUR..4 * HOUR) }));
    }
    for _ in 0..2 {
        let lasts = random.random_range(10 * MINUTE..2 * HOUR);
        all.push((anywhere(random), Happening::Fails { failure: Failure::BadKey, lasts }));
    }
    // The rest happens where something is going on: right around what the people do.
    let near = |random: &mut StdRng| {
        let person = &people[random.random_range(0..people.len())];
        let moments: Vec<Moment> = [Some(person.registers_at), person.finishes_at]
            .into_iter()
            .flatten()
            .chain(person.callbacks.clone())
            .collect();
        let poll = person.registers_at.plus(pick(random, &[5, 15, 35]) * MINUTE);
        let moment = if random.random_bool(0.3) { poll } else { pick(random, &moments) };
        moment.plus(random.random_range(-SECOND..2 * SECOND))
    };
    for _ in 0..8 {
        let wait_ms = random.random_bool(0.5).then(|| random.random_range(500..60_000));
        let failure = Failure::Throttles { calls: random.random_range(1..=12), wait_ms };
        all.push((near(random), Happening::Fails { failure, lasts: HOUR }));
    }
    for _ in 0..12 {
        let down = pick(random, &[SECOND, 5 * SECOND, 20 * SECOND, 2 * MINUTE, HOUR]);
        all.push((near(random), Happening::Kill { replica: random.random_range(0..replicas), down }));
    }
    for _ in 0..4 {
        let down = random.random_range(SECOND..MINUTE);
        all.push((near(random), Happening::Stop { replica: random.random_range(0..replicas), down }));
    }
    for _ in 0..30 {
        let lasts = random.random_range(SECOND..40 * SECOND);
        all.push((near(random), Happening::Stall { replica: random.random_range(0..replicas), lasts }));
    }
    for _ in 0..6 {
        let replica = random.random_range(0..replicas);
        let off = pick(random, &[-20 * MINUTE, -5 * MINUTE, -SECOND, SECOND, 5 * MINUTE, 20 * MINUTE]);
        let at = near(random);
        all.push((at, Happening::ReplicaClock { replica, off }));
        all.push((at.plus(random.random_range(MINUTE..12 * HOUR)), Happening::ReplicaClock { replica, off: 0 }));
    }
    for _ in 0..4 {
        let off = random.random_range(-30 * SECOND..60 * SECOND);
        let at = near(random);
        all.push((at, Happening::DatabaseClock { off }));
        all.push((at.plus(random.random_range(MINUTE..HOUR)), Happening::DatabaseClock { off: 0 }));
    }
    all
}

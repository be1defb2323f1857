//! What happens next: events in the order of their virtual time, and of their making where times are equal.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;

use chrono::{DateTime, Utc};

/// Microseconds since the simulation began, which is what Postgres keeps of a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Moment(pub i64);

pub const MILLISECOND: i64 = 1_000;
pub const SECOND: i64 = 1_000 * MILLISECOND;
pub const MINUTE: i64 = 60 * SECOND;
pub const HOUR: i64 = 60 * MINUTE;
pub const DAY: i64 = 24 * HOUR;

/// 2030-01-01 00:00 UTC.
const BEGINNING: i64 = 1_893_456_000 * SECOND;

impl Moment {
    pub fn plus(self, micros: i64) -> Self {
        Self(self.0 + micros)
    }

    pub fn time(self) -> DateTime<Utc> {
        DateTime::from_timestamp_micros(BEGINNING + self.0).expect("a time of this century")
    }

    pub fn of(time: DateTime<Utc>) -> Self {
        Self(time.timestamp_micros() - BEGINNING)
    }

    /// For the clock of the database.
    pub fn unix_micros(self) -> i64 {
        BEGINNING + self.0
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let day = self.0.div_euclid(DAY);
        write!(f, "day {day:2} {}", self.time().format("%H:%M:%S%.6f"))
    }
}

struct Entry<T> {
    at: Moment,
    number: u64,
    event: T,
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<T> Eq for Entry<T> {}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Entry<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

pub struct Queue<T> {
    heap: BinaryHeap<Reverse<Entry<T>>>,
    made: u64,
}

impl<T> Queue<T> {
    pub fn new() -> Self {
        Self { heap: BinaryHeap::new(), made: 0 }
    }

    pub fn push(&mut self, at: Moment, event: T) {
        self.made += 1;
        self.heap.push(Reverse(Entry { at, number: self.made, event }));
    }

    pub fn pop(&mut self) -> Option<(Moment, T)> {
        self.heap.pop().map(|Reverse(entry)| (entry.at, entry.event))
    }
}

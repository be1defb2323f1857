//! When the provider is asked next. Pure arithmetic: the time, the attempts and the jitter come in.
//!
//! | situation | next check |
//! |---|---|
//! | nothing heard | 5 min after registration, doubling to 6 h |
//! | not completed, after a hint | 2 s, 5 s, 10 s, 30 s, 1 min, 2 min, 5 min, then as if nothing was heard |
//! | fault | 1 s doubling to 10 min, full jitter |
//! | throttled | what the provider names, else 1 s doubling to 1 min |
//! | evidence not captured | a video: at once, then 10 s doubling to 3 min; an image: 1 min doubling to 6 h |
//! | account in trouble | one probe at 5 s doubling to 60 s |
//! | webhook not delivered | after 5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 14 h, 20 h, 24 h |
//! | endpoint of webhooks in trouble | one delivery at 5 s doubling to 60 s |

use std::time::Duration;

use super::EvidenceKind;

/// The first poll of a verification that nothing was heard of.
pub const FIRST_POLL: Duration = Duration::from_mins(5);
const LONGEST_POLL: Duration = Duration::from_hours(6);
const LONGEST_VIDEO_WAIT: Duration = Duration::from_mins(3);
const LONGEST_FAULT: Duration = Duration::from_mins(10);
const LONGEST_THROTTLE: Duration = Duration::from_mins(1);
const LONGEST_PROBE: Duration = Duration::from_mins(1);
const SHORTEST_PROBE: Duration = Duration::from_secs(5);

/// A hint without authentication, or a repeated one, makes a check due at most this often.
pub const HINT_INTERVAL: Duration = Duration::from_secs(30);

/// The waits after a hint while the provider says that the person has not finished.
const AFTER_HINT: [Duration; 7] = [
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(30),
    Duration::from_mins(1),
    Duration::from_mins(2),
    Duration::from_mins(5),
];

/// The waits between the attempts of a delivery, as the Standard Webhooks specification recommends them.
const AFTER_DELIVERY: [Duration; 9] = [
    Duration::from_secs(5),
    Duration::from_mins(5),
    Duration::from_mins(30),
    Duration::from_hours(2),
    Duration::from_hours(5),
    Duration::from_hours(10),
    Duration::from_hours(14),
    Duration::from_hours(20),
    Duration::from_hours(24),
];

/// Attempts at a delivery before it is given up.
pub const DELIVERY_ATTEMPTS: u32 = 10;

/// The longest that an endpoint may ask a delivery to wait.
const LONGEST_RETRY_AFTER: Duration = Duration::from_hours(24);

/// Which work goes first when the account's rate does not allow all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(i16)]
pub enum Lane {
    /// An evidence video is deleted soon.
    Video = 0,
    /// A callback or `collect` said that the person finished.
    Fresh = 1,
    /// An earlier check brought no result.
    Retry = 2,
    /// Nothing was heard: only what nothing else needs is spent on it.
    Poll = 3,
}

impl Lane {
    pub const ALL: [Self; 4] = [Self::Video, Self::Fresh, Self::Retry, Self::Poll];

    pub fn as_i16(self) -> i16 {
        self as i16
    }
}

/// How long to wait after the `running`-th answer in a row that there is no result yet.
///
/// `hinted`: a callback or `collect` was heard, and `running` counts from then.
pub fn after_running(hinted: bool, running: u32) -> (Lane, Duration) {
    let index = running.saturating_sub(1) as usize;
    if !hinted {
        return (Lane::Poll, doubling(FIRST_POLL, running, LONGEST_POLL));
    }
    if let Some(wait) = AFTER_HINT.get(index) {
        return (Lane::Retry, *wait);
    }
    let polls = running.saturating_sub(u32::try_from(AFTER_HINT.len()).unwrap_or(u32::MAX));
    (Lane::Poll, doubling(FIRST_POLL, polls, LONGEST_POLL))
}

/// How long to wait after the `faults`-th fault in a row. Full jitter: anything between nothing and the step, so
/// that a thousand checks that failed together do not come back together.
pub fn after_fault(faults: u32, fraction: f64) -> Duration {
    doubling(Duration::from_secs(1), faults.saturating_sub(1), LONGEST_FAULT).mul_f64(fraction.clamp(0.0, 1.0))
}

/// How long until the provider is asked again for evidence, after `attempts` answers that it could not be captured
/// from. A dead link is replaced at once the first time; a video has minutes, images have days. Half jitter.
pub fn after_capture(kind: EvidenceKind, attempts: u32, fraction: f64) -> Duration {
    let (first, longest) = match kind {
        EvidenceKind::Video if attempts <= 1 => return Duration::ZERO,
        EvidenceKind::Video => (Duration::from_secs(5), LONGEST_VIDEO_WAIT),
        _ => (Duration::from_mins(1), LONGEST_POLL),
    };
    doubling(first, attempts.saturating_sub(1), longest).mul_f64(0.5 + fraction.clamp(0.0, 1.0) / 2.0)
}

/// How long an account holds still after the `throttles`-th throttling in a row that named no time.
pub fn after_throttle(throttles: u32) -> Duration {
    doubling(Duration::from_secs(1), throttles.saturating_sub(1), LONGEST_THROTTLE)
}

/// How long after its `attempts`-th attempt a delivery is tried again; `None`: it is given up. Up to a tenth of the wait
/// is added, so that what failed together does not come back together. `retry_after`: what the endpoint asked for.
pub fn after_delivery(attempts: u32, retry_after: Option<Duration>, fraction: f64) -> Option<Duration> {
    let wait = AFTER_DELIVERY.get(attempts.saturating_sub(1) as usize)?;
    let wait = wait.mul_f64(1.0 + fraction.clamp(0.0, 1.0) / 10.0);
    Some(wait.max(retry_after.unwrap_or_default().min(LONGEST_RETRY_AFTER)))
}

/// How long until a failing account is probed again, after `probes` probes that failed.
pub fn after_probe(probes: u32) -> Duration {
    doubling(SHORTEST_PROBE, probes, LONGEST_PROBE)
}

/// `first` doubled `times` times, at most `longest`.
fn doubling(first: Duration, times: u32, longest: Duration) -> Duration {
    let factor = 1_u32.checked_shl(times.min(31)).unwrap_or(u32::MAX);
    first.checked_mul(factor).unwrap_or(longest).min(longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(durations: impl Iterator<Item = Duration>) -> Vec<u64> {
        durations.map(|wait| wait.as_secs()).collect()
    }

    #[test]
    fn unheard_verifications_are_polled_ever_more_slowly() {
        let waits = seconds((1..=9).map(|n| after_running(false, n).1));
        assert_eq!(waits, [600, 1200, 2400, 4800, 9600, 19_200, 21_600, 21_600, 21_600]);
    }

    #[test]
    fn after_a_hint_the_short_steps_come_first_then_the_slow_schedule() {
        let waits = seconds((1..=9).map(|n| after_running(true, n).1));
        assert_eq!(waits, [2, 5, 10, 30, 60, 120, 300, 600, 1200]);
        assert_eq!(after_running(true, 7).0, Lane::Retry);
        assert_eq!(after_running(true, 8).0, Lane::Poll);
    }

    #[test]
    fn faults_double_to_ten_minutes_with_full_jitter() {
        let most = seconds((1..=12).map(|n| after_fault(n, 1.0)));
        assert_eq!(most, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 600]);
        assert_eq!(after_fault(5, 0.0), Duration::ZERO);
        assert_eq!(after_fault(u32::MAX, 1.0), Duration::from_mins(10));
    }

    #[test]
    fn a_dead_link_is_replaced_at_once_and_then_ever_more_slowly() {
        let video = seconds((1..=8).map(|n| after_capture(EvidenceKind::Video, n, 1.0)));
        assert_eq!(video, [0, 10, 20, 40, 80, 160, 180, 180]);
        let image = seconds((1..=4).map(|n| after_capture(EvidenceKind::FaceImage, n, 0.0)));
        assert_eq!(image, [30, 60, 120, 240]);
        assert_eq!(after_capture(EvidenceKind::FaceImage, u32::MAX, 1.0), Duration::from_hours(6));
    }

    #[test]
    fn deliveries_are_tried_ten_times_over_three_days_and_wait_longer_where_they_are_asked_to() {
        let waits = seconds((1..DELIVERY_ATTEMPTS).map(|n| after_delivery(n, None, 0.0).unwrap()));
        assert_eq!(waits, [5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400]);
        assert_eq!(after_delivery(DELIVERY_ATTEMPTS, Some(Duration::from_secs(1)), 0.0), None);
        assert_eq!(after_delivery(2, None, 1.0), Some(Duration::from_secs(330)));
        let asked = |seconds| after_delivery(1, Some(Duration::from_secs(seconds)), 0.0).unwrap().as_secs();
        assert_eq!([asked(1), asked(60), asked(1_000_000)], [5, 60, 86_400]);
    }

    #[test]
    fn throttling_and_probes_are_capped_at_a_minute() {
        assert_eq!(seconds((1..=8).map(after_throttle)), [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(seconds((0..=5).map(after_probe)), [5, 10, 20, 40, 60, 60]);
    }
}

//! The record of what was received and what was sent back: the last calls, in the order of their arrival.
//!
//! A call is written when it arrives and completed when it is answered, so that one whose caller gave up is seen too.
//! Holds operation, transaction and code only, never a token, a secret or an answer. Lines are made when asked for.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, SecondsFormat, Utc};

/// The longest operation name or transaction id that is kept.
const LONGEST_NAME: usize = 128;

/// One call of a provider operation, one download of a video, or one callback that was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// 1 for the first call of this simulator.
    pub number: u64,
    /// When it arrived (a callback: when it was sent), in real time, however the simulator's clock was moved;
    /// by a clock that stands still, in its time.
    pub received_at: DateTime<Utc>,
    pub operation: Cow<'static, str>,
    pub transaction_id: Option<Box<str>>,
    /// The HTTP status of the answer; 0 while there is none.
    pub status: u16,
    /// The provider's code, the kind of a fault, `Pending` before the answer, `CallerGone` when nobody waited for it.
    pub code: Cow<'static, str>,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.received_at.to_rfc3339_opts(SecondsFormat::Micros, true);
        let id = self.transaction_id.as_deref().unwrap_or("-");
        write!(f, "{at} {} {} {} {}", OneWord(&self.operation), OneWord(id), self.status, OneWord(&self.code))
    }
}

/// A text from outside as one word, so that a line stays one line with five words.
struct OneWord<'a>(&'a str);

impl fmt::Display for OneWord<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write as _;
        if self.0.is_empty() {
            return f.write_char('-');
        }
        for c in self.0.chars() {
            f.write_char(if c.is_whitespace() || c.is_control() { '?' } else { c })?;
        }
        Ok(())
    }
}

#[derive(Default)]
struct Ring {
    /// Calls that were pushed out.
    dropped: u64,
    calls: VecDeque<Call>,
}

pub(super) struct CallLog {
    ring: Mutex<Ring>,
    capacity: usize,
}

impl CallLog {
    pub(super) fn new(capacity: usize) -> Self {
        Self { ring: Mutex::default(), capacity: capacity.max(1) }
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn begin(
        &self,
        received_at: DateTime<Utc>,
        operation: Cow<'static, str>,
        transaction_id: Option<&str>,
    ) -> Recording<'_> {
        let operation = if operation.len() > LONGEST_NAME { cut(&operation).to_owned().into() } else { operation };
        let transaction_id = transaction_id.map(|id| Box::from(cut(id)));
        let mut ring = self.ring();
        if ring.calls.len() == self.capacity {
            ring.calls.pop_front();
            ring.dropped += 1;
        }
        let number = ring.dropped + ring.calls.len() as u64 + 1;
        let code = Cow::Borrowed("Pending");
        ring.calls.push_back(Call { number, received_at, operation, transaction_id, status: 0, code });
        Recording { log: self, number, answered: false }
    }

    fn finish(&self, number: u64, status: u16, code: Cow<'static, str>) {
        let mut ring = self.ring();
        let index = number.checked_sub(ring.dropped + 1).and_then(|index| usize::try_from(index).ok());
        // Pushed out while it was being answered: there is nothing to complete.
        if let Some(call) = index.and_then(|index| ring.calls.get_mut(index)) {
            call.status = status;
            call.code = code;
        }
    }

    /// Calls received so far, those pushed out included.
    pub(super) fn count(&self) -> u64 {
        let ring = self.ring();
        ring.dropped + ring.calls.len() as u64
    }

    /// The calls that are kept, without the first `after` ever received.
    pub(super) fn after(&self, after: u64) -> Vec<Call> {
        let ring = self.ring();
        let skip = usize::try_from(after.saturating_sub(ring.dropped)).unwrap_or(usize::MAX);
        ring.calls.iter().skip(skip).cloned().collect()
    }
}

fn cut(text: &str) -> &str {
    let end = text.char_indices().map(|(start, c)| start + c.len_utf8()).take_while(|end| *end <= LONGEST_NAME).last();
    &text[..end.unwrap_or(0)]
}

/// A call that has arrived; dropping it unanswered says that its caller went away.
pub(super) struct Recording<'a> {
    log: &'a CallLog,
    number: u64,
    answered: bool,
}

impl Recording<'_> {
    pub(super) fn finish(mut self, status: u16, code: Cow<'static, str>) {
        self.answered = true;
        self.log.finish(self.number, status, code);
    }
}

impl Drop for Recording<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.log.finish(self.number, 0, Cow::Borrowed("CallerGone"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at() -> DateTime<Utc> {
        DateTime::parse_from_rfc3339("2026-01-01T00:00:00.123456Z").unwrap().to_utc()
    }

    #[test]
    fn a_line_has_five_words_whatever_the_caller_sent() {
        let log = CallLog::new(10);
        log.begin(at(), "CheckResult".into(), Some("hksb1")).finish(200, "Success".into());
        log.begin(at(), "x\ny z".to_owned().into(), None).finish(404, "InvalidAction.NotFound".into());
        let lines: Vec<_> = log.after(0).iter().map(ToString::to_string).collect();
        assert_eq!(lines[0], "2026-01-01T00:00:00.123456Z CheckResult hksb1 200 Success");
        assert_eq!(lines[1], "2026-01-01T00:00:00.123456Z x?y?z - 404 InvalidAction.NotFound");
    }

    #[test]
    fn the_oldest_are_pushed_out_and_numbers_go_on() {
        let log = CallLog::new(2);
        let first = log.begin(at(), "A".into(), None);
        log.begin(at(), "B".into(), None).finish(200, "Success".into());
        log.begin(at(), "C".into(), None).finish(200, "Success".into());
        first.finish(500, "InternalError".into());
        assert_eq!(log.count(), 3);
        let kept: Vec<_> = log.after(0).into_iter().map(|call| (call.number, call.status)).collect();
        assert_eq!(kept, [(2, 200), (3, 200)]);
        assert_eq!(log.after(2).len(), 1);
        assert!(log.after(3).is_empty());
    }

    #[test]
    fn a_caller_that_went_away_is_seen() {
        let log = CallLog::new(2);
        drop(log.begin(at(), "CheckResult".into(), None));
        assert_eq!(log.after(0)[0].code, "CallerGone");
    }

    #[test]
    fn long_names_are_cut_between_characters() {
        let log = CallLog::new(1);
        log.begin(at(), "A".into(), Some(&"é".repeat(100))).finish(200, "Success".into());
        assert_eq!(log.after(0)[0].transaction_id.as_deref(), Some("é".repeat(64).as_str()));
    }
}

//! The provider's memory: transactions from initialize to the deletion of their data.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, TimeDelta, Utc};

use super::commands::{ZolozOutcome, ZolozProduct};
use super::outcome::{Answer, usual_message};

/// How many days the data are kept by this simulated account.
const RETENTION_DAYS: i64 = 30;

/// The `h5ModeConfig` of initialize, as far as the browser's way back needs it.
#[derive(Clone, Debug, Default)]
pub(super) struct H5 {
    pub(super) complete: Option<String>,
    pub(super) interrupt: Option<String>,
    pub(super) state: Option<String>,
}

pub(super) struct Transaction {
    pub(super) client_id: Box<str>,
    pub(super) biz_id: Box<str>,
    pub(super) product: ZolozProduct,
    pub(super) outcome: Arc<ZolozOutcome>,
    /// The last one stays; empty without a script.
    pub(super) script: VecDeque<Arc<ZolozOutcome>>,
    pub(super) completed_at: Option<DateTime<Utc>>,
    pub(super) interrupted: Option<String>,
    pub(super) processing_calls: u32,
    pub(super) deleted: bool,
    pub(super) gone_code: Option<String>,
    pub(super) aes_bits: Option<u16>,
    pub(super) h5: H5,
}

impl Transaction {
    /// One that has not begun.
    pub(super) fn new(client_id: &str, biz_id: &str, product: ZolozProduct) -> Self {
        Self {
            client_id: client_id.into(),
            biz_id: biz_id.into(),
            product,
            outcome: Arc::default(),
            script: VecDeque::new(),
            completed_at: None,
            interrupted: None,
            processing_calls: 0,
            deleted: false,
            gone_code: None,
            aes_bits: None,
            h5: H5::default(),
        }
    }

    /// One call of checkresult.
    pub(super) fn check(&mut self, now: DateTime<Utc>, images: bool) -> Answer {
        let Some(completed_at) = self.completed_at else { return self.product.unfinished(false) };
        if self.deleted || now >= deleted_at(completed_at) {
            let code = self.gone_code.as_deref().unwrap_or("INVALID_ARGUMENT");
            return match code {
                "SUCCESS" => self.product.without_data(&self.outcome),
                _ => Answer::plain("F", code.to_owned().into(), usual_message(code)),
            };
        }
        if self.processing_calls > 0 {
            self.processing_calls -= 1;
            return self.product.unfinished(true);
        }
        let next = if self.script.len() > 1 { self.script.pop_front() } else { self.script.front().cloned() };
        self.product.finished(&next.unwrap_or_else(|| Arc::clone(&self.outcome)), images)
    }
}

/// The batch deletes by whole days: what is kept for one day and was made on the 10th goes with the 12th.
fn deleted_at(completed_at: DateTime<Utc>) -> DateTime<Utc> {
    let day = completed_at.date_naive().and_time(chrono::NaiveTime::MIN).and_utc();
    day + TimeDelta::days(RETENTION_DAYS + 1)
}

#[derive(Default)]
pub(super) struct Transactions(Mutex<HashMap<Box<str>, Transaction>>);

impl Transactions {
    fn all(&self) -> MutexGuard<'_, HashMap<Box<str>, Transaction>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// False when the id is taken; then nothing changes.
    pub(super) fn insert(&self, id: &str, transaction: Transaction) -> bool {
        let mut all = self.all();
        if all.contains_key(id) {
            return false;
        }
        all.insert(id.into(), transaction);
        true
    }

    /// `None` when there is no such transaction.
    pub(super) fn with<T>(&self, id: &str, then: impl FnOnce(&mut Transaction) -> T) -> Option<T> {
        self.all().get_mut(id).map(then)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_are_deleted_with_a_day_after_the_last_one() {
        let at = |text: &str| DateTime::parse_from_rfc3339(text).unwrap().to_utc();
        assert_eq!(deleted_at(at("2026-01-01T00:00:00Z")), at("2026-02-01T00:00:00Z"));
        assert_eq!(deleted_at(at("2026-01-01T23:59:59Z")), at("2026-02-01T00:00:00Z"));
    }
}

//! The provider's memory: transactions from Initialize to the end of their retention.
//!
//! Locks are per shard and held only while one transaction is read or changed.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, TimeDelta, Utc};
use secrecy::SecretString;

use super::outcome::{Outcome, Priority, Product};
use super::refusal::Refusal;

const SHARDS: usize = 64;
/// How long the result can be asked for after the completion.
pub(super) const RESULT_KEPT: TimeDelta = TimeDelta::days(30);
/// How long the video exists after the completion.
pub(super) const VIDEO_KEPT: TimeDelta = TimeDelta::minutes(30);

/// What a check says when it is neither refused nor scripted text.
pub(super) enum Checked {
    Outcome { outcome: Arc<Outcome>, images: bool, video: bool },
    Text { status: u16, body: Arc<str> },
}

/// A scripted answer, prepared.
pub(super) enum Scripted {
    Outcome(Arc<Outcome>),
    Refused(Refusal),
    Text { status: u16, body: Arc<str> },
}

/// What the merchant had deleted. Deleted texts are gone from the outcome itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Deleted {
    Nothing,
    Images,
    All,
}

/// What only a few transactions have.
#[derive(Default)]
pub(super) struct Extras {
    /// The last one stays; never emptied.
    pub(super) script: VecDeque<Scripted>,
    pub(super) gone_code: Option<String>,
    pub(super) interrupted: Option<String>,
}

pub(super) struct Transaction {
    pub(super) merchant_biz_id: Box<str>,
    pub(super) product_code: Box<str>,
    pub(super) product: Product,
    pub(super) priority: Option<Priority>,
    pub(super) callback_url: Option<Box<str>>,
    pub(super) return_url: Option<Box<str>>,
    pub(super) callback_token: Option<SecretString>,
    pub(super) doc_video: bool,
    pub(super) outcome: Arc<Outcome>,
    pub(super) completed_at: Option<DateTime<Utc>>,
    pub(super) not_completed_calls: u32,
    pub(super) pending_calls: u32,
    /// CheckResult has shown a result.
    pub(super) shown: bool,
    pub(super) deleted: Deleted,
    pub(super) extras: Option<Box<Extras>>,
}

impl Transaction {
    /// One that has not begun.
    pub(super) fn new(merchant_biz_id: &str, product_code: &str, product: Product, outcome: Arc<Outcome>) -> Self {
        Self {
            merchant_biz_id: merchant_biz_id.into(),
            product_code: product_code.into(),
            product,
            priority: None,
            callback_url: None,
            return_url: None,
            callback_token: None,
            doc_video: false,
            outcome,
            completed_at: None,
            not_completed_calls: 0,
            pending_calls: 0,
            shown: false,
            deleted: Deleted::Nothing,
            extras: None,
        }
    }

    /// One call of CheckResult. `pending` is the answer while the result is pending.
    pub(super) fn check(
        &mut self,
        now: DateTime<Utc>,
        images: bool,
        pending: &Arc<Outcome>,
    ) -> Result<Checked, Refusal> {
        let Some(completed_at) = self.completed_at else { return Err(Refusal::new("ProcessNotCompleted")) };
        let since = now - completed_at;
        if since >= RESULT_KEPT || self.deleted == Deleted::All {
            let code = self.extras.as_ref().and_then(|extras| extras.gone_code.clone());
            return Err(code.map_or_else(|| Refusal::new("TransactionIdInvalid"), Refusal::new));
        }
        if self.not_completed_calls > 0 {
            self.not_completed_calls -= 1;
            return Err(Refusal::new("ProcessNotCompleted"));
        }
        if self.pending_calls > 0 {
            self.pending_calls -= 1;
            return Ok(Checked::Outcome { outcome: Arc::clone(pending), images: false, video: false });
        }
        let video = self.has_video(now);
        let images = images && self.deleted == Deleted::Nothing;
        let outcome = match self.extras.as_mut().and_then(|extras| next(&mut extras.script)) {
            Some(Scripted::Refused(refusal)) => return Err(refusal),
            Some(Scripted::Text { status, body }) => return Ok(Checked::Text { status, body }),
            Some(Scripted::Outcome(outcome)) => outcome,
            None => Arc::clone(&self.outcome),
        };
        self.shown = true;
        Ok(Checked::Outcome { outcome, images, video })
    }

    /// The video can be downloaded.
    pub(super) fn has_video(&self, now: DateTime<Utc>) -> bool {
        let kept = self.doc_video && self.deleted == Deleted::Nothing;
        kept && self.completed_at.is_some_and(|completed_at| now - completed_at < VIDEO_KEPT)
    }

    pub(super) fn extras(&mut self) -> &mut Extras {
        self.extras.get_or_insert_default()
    }

    pub(super) fn interrupted(&self) -> Option<&str> {
        self.extras.as_ref().and_then(|extras| extras.interrupted.as_deref())
    }
}

fn next(script: &mut VecDeque<Scripted>) -> Option<Scripted> {
    if script.len() > 1 {
        return script.pop_front();
    }
    script.front().map(|last| match last {
        Scripted::Outcome(outcome) => Scripted::Outcome(Arc::clone(outcome)),
        Scripted::Refused(refusal) => Scripted::Refused(refusal.clone()),
        Scripted::Text { status, body } => Scripted::Text { status: *status, body: Arc::clone(body) },
    })
}

type Shard = HashMap<Box<str>, Transaction>;

pub(super) struct Transactions {
    hasher: RandomState,
    shards: [Mutex<Shard>; SHARDS],
}

impl Transactions {
    pub(super) fn new() -> Self {
        Self { hasher: RandomState::new(), shards: std::array::from_fn(|_| Mutex::default()) }
    }

    fn shard(&self, id: &str) -> MutexGuard<'_, Shard> {
        // The remainder is below SHARDS, so it fits.
        let index = usize::try_from(self.hasher.hash_one(id) % SHARDS as u64).unwrap_or(0);
        self.shards[index].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// False when the id is taken; then nothing changes.
    pub(super) fn insert(&self, id: &str, transaction: Transaction) -> bool {
        let mut shard = self.shard(id);
        if shard.contains_key(id) {
            return false;
        }
        shard.insert(id.into(), transaction);
        true
    }

    /// `None` when there is no such transaction.
    pub(super) fn with<T>(&self, id: &str, then: impl FnOnce(&mut Transaction) -> T) -> Option<T> {
        self.shard(id).get_mut(id).map(then)
    }
}

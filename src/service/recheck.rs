//! Rechecks in bulk: at what pace, and how long that takes.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::Service;
use super::account::Account;
use crate::clock::later;
use crate::store::{MatchedPart, NewRecheck, RecheckFilter, StoreError};

/// So much of an account's rate may wait in line at a time.
const WAITING: Duration = Duration::from_mins(2);
/// At least so many, however low the rate.
const FEWEST: f64 = 10.0;
/// What else will need the rate is estimated by what is due within this time.
const AHEAD: Duration = Duration::from_mins(5);
/// The share of the rate that is thought to be free when nothing seems to be.
const LEAST_FREE: f64 = 0.05;

/// What a filter matches, and how long asking about it takes.
#[derive(Clone, Debug, PartialEq)]
pub struct Estimate {
    pub parts: Vec<MatchedPart>,
    /// At the rate that nothing else needs now.
    pub takes: Duration,
}

impl Estimate {
    pub fn matched(&self) -> i64 {
        self.parts.iter().map(|part| part.matched).sum()
    }
}

impl Account {
    /// Calls a second, as they are placed.
    fn paced_rate(&self) -> f64 {
        f64::from(self.qps) / (1.0 + self.rate().slack.as_secs_f64())
    }

    /// How many verifications of rechecks may wait in line.
    #[expect(clippy::cast_possible_truncation, reason = "a rate is far below 2^53, and a cast stops at the limit")]
    pub fn recheck_room(&self) -> i64 {
        (self.paced_rate() * WAITING.as_secs_f64()).max(FEWEST) as i64
    }
}

#[expect(clippy::cast_precision_loss, reason = "it is an estimate")]
fn ratio(count: i64) -> f64 {
    count as f64
}

impl Service {
    /// Counts what the filter matches in the accounts that are configured.
    pub async fn estimate_recheck(&self, filter: &RecheckFilter) -> Result<Estimate, StoreError> {
        let now = self.clock.now();
        let wanted = |account: &&str| filter.account.as_ref().is_none_or(|wanted| wanted == account);
        let accounts: Vec<&str> = self.accounts.keys().map(String::as_str).filter(wanted).collect();
        let parts = self.store.count_recheck(filter, &accounts, now).await?;
        let mut takes = Duration::ZERO;
        for account in accounts {
            let matched: i64 = parts.iter().filter(|part| part.account == account).map(|part| part.matched).sum();
            let Some(account) = self.accounts.get(account).filter(|_| matched > 0) else { continue };
            // Accounts go on beside each other.
            takes = takes.max(self.time_for(account, matched, now).await?);
        }
        Ok(Estimate { parts, takes })
    }

    async fn time_for(&self, account: &Account, matched: i64, now: DateTime<Utc>) -> Result<Duration, StoreError> {
        let rate = account.paced_rate();
        let most = account.recheck_room().saturating_mul(4);
        let due = self.store.count_due(&account.name, later(now, AHEAD), most).await?;
        let free = (rate - ratio(due) / AHEAD.as_secs_f64()).max(rate * LEAST_FREE);
        Ok(Duration::try_from_secs_f64(ratio(matched) / free).unwrap_or(Duration::MAX))
    }

    /// Begins a recheck, or finds the running one with the same filter. False: it was running.
    pub async fn begin_recheck(
        &self,
        filter: &RecheckFilter,
        parts: &[MatchedPart],
        by: Option<&str>,
    ) -> Result<(uuid::Uuid, bool), StoreError> {
        let now = self.clock.now();
        self.store.create_recheck(&NewRecheck { id: self.entropy.id(now), filter, parts, now, by }).await
    }
}

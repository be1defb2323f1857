//! What the metrics say of the whole: how many verifications there are in each state, how the accounts are, whether the
//! service is ready. From the database, so every replica shows the same.

use std::sync::Arc;

use uuid::Uuid;

use super::Service;
use super::account::Account;
use crate::domain::{EvidenceKind, FinalStatus, RetentionClass, VerificationId};
use crate::store::{Migrations, StoreError};

/// How many finished verifications one statement counts: some milliseconds of the database's time.
const PART: u32 = 20_000;

/// How far the counting of finished verifications has come. A round begins anew when it is over, so what changes is
/// counted by the next round, and nothing can drift.
#[derive(Debug)]
pub struct FinalRound {
    /// What is still to be counted, the next last.
    left: Vec<(Arc<Account>, FinalStatus)>,
    after: VerificationId,
    sum: u64,
}

impl FinalRound {
    pub fn new(service: &Service) -> Self {
        let of = |account: &Arc<Account>| FinalStatus::ALL.map(|status| (Arc::clone(account), status));
        let left = service.accounts.values().flat_map(of).collect();
        Self { left, after: VerificationId(Uuid::nil()), sum: 0 }
    }
}

impl Service {
    /// Shows every counter that somebody is warned by, at nothing: one that appears with its first event would not look
    /// like a rise.
    pub fn show_counters(&self) {
        for account in self.accounts.keys() {
            for result in
                ["accepted", "repeat", "unmatched", "token_mismatch", "transaction_unknown", "malformed", "unavailable"]
            {
                metrics::counter!("checkback_callbacks_total", "account" => account.clone(), "result" => result)
                    .increment(0);
            }
            for outcome in ["finished", "running", "throttled", "account_failing", "refused", "unavailable"] {
                metrics::counter!("checkback_checks_total", "account" => account.clone(), "outcome" => outcome)
                    .increment(0);
            }
            metrics::counter!("checkback_initializations_total", "account" => account.clone(), "outcome" => "lost")
                .increment(0);
            metrics::counter!("checkback_registrations_total", "account" => account.clone()).increment(0);
            metrics::counter!("checkback_expired_total", "account" => account.clone()).increment(0);
            for status in FinalStatus::ALL {
                metrics::counter!("checkback_verdicts_total", "account" => account.clone(), "status" => status.as_str())
                    .increment(0);
            }
        }
        for kind in EvidenceKind::ALL {
            for state in ["stored", "absent", "missed"] {
                metrics::counter!("checkback_evidence_total", "kind" => kind.as_str(), "state" => state).increment(0);
            }
        }
        for class in RetentionClass::ALL {
            metrics::counter!("checkback_retention_failures_total", "class" => class.as_str()).increment(0);
        }
        metrics::counter!("checkback_leases_lost_total").increment(0);
        metrics::counter!("checkback_unmatched_dropped_total").increment(0);
    }

    /// Brings the gauges of accounts and open work up to date, and says whether the service is ready.
    pub async fn look_at_whole(&self) -> Result<(), StoreError> {
        let is_ready = self.store.migrations().await.map(Migrations::are_enough);
        metrics::gauge!("checkback_ready").set(if matches!(is_ready, Ok(true)) { 1.0 } else { 0.0 });
        if !is_ready? {
            return Ok(());
        }
        for health in self.store.account_health().await? {
            if self.accounts.contains_key(&health.account) {
                metrics::gauge!("checkback_account_failing", "account" => health.account)
                    .set(if health.failing.is_some() { 1.0 } else { 0.0 });
            }
        }
        let open = self.store.count_open().await?;
        for account in self.accounts.keys() {
            let found = open.iter().find(|count| count.account == *account);
            let (waiting, collecting) = found.map_or((0, 0), |count| (count.waiting, count.collecting));
            for (status, count) in [("waiting", waiting), ("collecting", collecting)] {
                metrics::gauge!("checkback_verifications", "account" => account.clone(), "status" => status)
                    .set(super::at_risk::as_f64(count));
            }
        }
        Ok(())
    }

    /// Counts the next part of the finished verifications. False when the round is over.
    pub async fn count_finals(&self, round: &mut FinalRound) -> Result<bool, StoreError> {
        let Some((account, status)) = round.left.last() else { return Ok(false) };
        let part = self.store.count_final_part(&account.name, *status, round.after, PART).await?;
        round.sum += part.count;
        if let Some(next) = part.next {
            round.after = next;
            return Ok(true);
        }
        metrics::gauge!("checkback_verifications", "account" => account.name.clone(), "status" => status.as_str())
            .set(super::at_risk::as_f64(round.sum));
        round.left.pop();
        (round.after, round.sum) = (VerificationId(Uuid::nil()), 0);
        Ok(!round.left.is_empty())
    }
}

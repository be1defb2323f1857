//! Erasing a verification: the database at once, the evidence store and the provider by attempts that go on until each
//! has ended.
//!
//! What is outside the database can be deleted twice without harm, so an attempt that was cut off anywhere is made
//! again. Every attempt at the provider takes a slot of the account's rate like any other call.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::Service;
use super::account::Account;
use super::collect_result::AccountEffect;
use super::pace::NoSlot;
use crate::clock::later;
use crate::domain::schedule::{after_fault, after_probe, after_running};
use crate::domain::{ProviderError, Trouble, VerificationId};
use crate::evidence::StorageError;
use crate::provider::{CheckRequest, Deletion};
use crate::store::{
    Erasure, ErasureAttempt, EvidencePart, LeasedErasure, NewErasure, ProviderPart, Standing, StoreError,
};

/// How long a lease lasts. Each part of an attempt ends before it.
pub const LEASE: Duration = Duration::from_secs(15);
const PART: Duration = Duration::from_secs(12);

/// How long an account that is not configured here is waited for before it is looked for again.
const UNKNOWN_ACCOUNT: Duration = Duration::from_mins(10);
/// How long the provider is asked at most where nobody knows how long it keeps results.
const LONGEST_ASKING: TimeDelta = TimeDelta::days(31);

/// A capture that was under way is called off or over soon; how often that is looked for.
const CAPTURE_LOOK: Duration = Duration::from_millis(100);
const AGAIN: Duration = Duration::from_secs(1);

/// The longest reason that a caller may give, in characters.
pub const LONGEST_REASON: usize = 200;

/// What came of one part in one attempt.
struct Part<S> {
    state: S,
    reason: Option<String>,
    /// When to try again, where it is pending.
    due_at: DateTime<Utc>,
}

/// What the evidence store had.
struct Gone {
    objects: u64,
    /// Stored once, and not there.
    missing: usize,
}

#[derive(Debug, thiserror::Error)]
enum NotDestroyed {
    #[error(transparent)]
    Evidence(#[from] StorageError),
    #[error(transparent)]
    Database(#[from] StoreError),
}

impl Service {
    /// Erases, and waits up to `patience` for the parts outside the database. `None` when there is no such
    /// verification. Again on an erased one: the first receipt, as it stands now.
    pub async fn erase(
        &self,
        id: VerificationId,
        by: Option<&str>,
        reason: Option<&str>,
        patience: Duration,
    ) -> Result<Option<Erasure>, StoreError> {
        let Some(record) = self.store.record(id).await? else { return Ok(None) };
        if record.erased_at.is_none() {
            let account = self.accounts.get(&record.account);
            let at = self.clock.now();
            let open_until = account.map_or(at, |account| later(record.registered_at, account.give_up_after));
            let new = NewErasure {
                id,
                account: &record.account,
                transaction_id: &record.transaction_id,
                by,
                reason,
                open_until,
                at,
            };
            if self.erase_here(&new).await? {
                info!(verification.id = %id, account = record.account, "verification is erased");
                metrics::counter!("checkback_erasures_total", "account" => record.account.clone()).increment(1);
                // Whoever waits for a verdict has his answer.
                self.finals.announce(&[id]);
                self.wakes.tell_others([], &[id]);
                self.wakes.erasures();
                self.wake_webhooks();
            }
        }
        self.wait_for_erasure(id, patience).await
    }

    /// Two transactions that met are no reason to refuse.
    async fn erase_here(&self, new: &NewErasure<'_>) -> Result<bool, StoreError> {
        const TRIES: u32 = 4;
        let mut tries = 1;
        loop {
            match self.store.erase(new).await {
                Err(error) if error.is_transient() && tries < TRIES => tries += 1,
                other => return other,
            }
        }
    }

    /// The receipt as soon as an attempt was made, whoever made it.
    async fn wait_for_erasure(&self, id: VerificationId, patience: Duration) -> Result<Option<Erasure>, StoreError> {
        /// Another replica may be the one who makes it.
        const LOOK: Duration = Duration::from_millis(250);
        let until = Instant::now() + patience;
        loop {
            let attempted = self.erasures.subscribe(id);
            let erasure = self.store.erasure(id).await?;
            let is_untried = erasure.as_ref().is_some_and(|erasure| erasure.attempts == 0);
            if !is_untried || Instant::now() >= until {
                return Ok(erasure);
            }
            tokio::select! {
                _ = attempted => {}
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    /// Leases what is due.
    pub async fn lease_erasures(&self, limit: i64) -> Result<Vec<LeasedErasure>, StoreError> {
        self.store.lease_erasures(self.entropy.token(), limit, LEASE, self.clock.now()).await
    }

    /// One attempt at what is pending of a leased erasure.
    pub async fn attempt_erasure(&self, leased: LeasedErasure) {
        let (evidence, provider) = tokio::join!(self.erase_evidence(&leased), self.erase_at_provider(&leased));
        let ((evidence, objects), provider) = (evidence, provider);
        let pending = [
            (evidence.state == EvidencePart::Pending).then_some(evidence.due_at),
            (provider.state == ProviderPart::Pending).then_some(provider.due_at),
        ];
        let at = self.clock.now();
        let attempt = ErasureAttempt {
            id: leased.id,
            token: leased.token,
            evidence: evidence.state,
            evidence_objects: objects,
            evidence_reason: evidence.reason,
            provider: provider.state,
            provider_reason: provider.reason,
            due_at: pending.into_iter().flatten().min().unwrap_or(at),
            at,
        };
        match self.store.record_erasure(&attempt).await {
            Ok(true) => self.erasures.announce(&[leased.id]),
            Ok(false) => {
                warn!(verification.id = %leased.id, "the lease of an erasure was lost; somebody else makes it");
            }
            // The lease runs out, and it is made again.
            Err(error) => error!(verification.id = %leased.id, error = &error as &dyn std::error::Error,
                "an erasure could not be recorded; it is made again"),
        }
    }

    async fn erase_evidence(&self, leased: &LeasedErasure) -> (Part<EvidencePart>, i64) {
        let now = self.clock.now();
        if leased.evidence == EvidencePart::Destroyed {
            return (Part { state: EvidencePart::Destroyed, reason: None, due_at: now }, 0);
        }
        let destroyed = tokio::time::timeout(PART, self.destroy_all_evidence(leased)).await;
        let (problem, wait) = match destroyed {
            Ok(Ok(Gone { objects, missing })) => {
                let reason = (missing > 0).then(|| {
                    warn!(verification.id = %leased.id, account = leased.account, missing,
                        "objects that were stored are not in the evidence store: is it the right one, and mounted?");
                    format!("{missing} that were stored were not there any more")
                });
                let objects = i64::try_from(objects).unwrap_or(i64::MAX);
                return (Part { state: EvidencePart::Destroyed, reason, due_at: now }, objects);
            }
            Ok(Err(problem)) => {
                error!(verification.id = %leased.id, account = leased.account, attempt = leased.attempts + 1,
                    error = &problem as &dyn std::error::Error, "evidence could not be destroyed; it is tried again");
                (problem.to_string(), after_fault(leased.attempts + 1, self.entropy.fraction()))
            }
            Err(_) => ("a capture that was under way has not ended, or the evidence store is slow".to_owned(), AGAIN),
        };
        let due_at = later(self.clock.now(), wait);
        (Part { state: EvidencePart::Pending, reason: Some(problem), due_at }, 0)
    }

    /// Destroys what the evidence store has, and once more when no capture is under way any more.
    async fn destroy_all_evidence(&self, leased: &LeasedErasure) -> Result<Gone, NotDestroyed> {
        let store = &self.evidence.store;
        let names = self.store.erased_objects(leased.id).await?;
        let mut objects = 0;
        while self.store.is_captured(leased.id).await? {
            objects += store.delete_all(&leased.account, leased.id).await?;
            tokio::time::sleep(CAPTURE_LOOK).await;
        }
        objects += store.delete_all(&leased.account, leased.id).await?;
        // A store that is broken may list nothing and say no more.
        for name in &names {
            store.delete(name).await?;
        }
        Ok(Gone { objects, missing: names.len().saturating_sub(usize::try_from(objects).unwrap_or(usize::MAX)) })
    }

    async fn erase_at_provider(&self, leased: &LeasedErasure) -> Part<ProviderPart> {
        let now = self.clock.now();
        if leased.provider != ProviderPart::Pending {
            return Part { state: leased.provider, reason: leased.provider_reason.clone(), due_at: now };
        }
        let Some(account) = self.accounts.get(&leased.account) else {
            let reason = "the account is not in the configuration";
            return pending_until(leased.erased_at + LONGEST_ASKING, now, later(now, UNKNOWN_ACCOUNT), reason);
        };
        let give_up_at = later(later(leased.erased_at, account.give_up_after), account.result_retention);
        let part = match tokio::time::timeout(PART, self.ask_to_delete(account, leased)).await {
            Ok(part) => part,
            Err(_) => Part {
                state: ProviderPart::Pending,
                reason: Some("the provider did not answer in time".to_owned()),
                due_at: later(now, after_fault(leased.attempts + 1, self.entropy.fraction())),
            },
        };
        match part {
            Part { state: ProviderPart::Pending, reason: Some(reason), due_at } => {
                pending_until(give_up_at, self.clock.now(), due_at, &reason)
            }
            part => part,
        }
    }

    /// One call, within its slot.
    async fn ask_to_delete(&self, account: &Account, leased: &LeasedErasure) -> Part<ProviderPart> {
        let pending = |reason: String, wait: Duration| Part {
            state: ProviderPart::Pending,
            reason: Some(reason),
            due_at: later(self.clock.now(), wait),
        };
        let (slot, standing) = match self.stand_in_line(account).await {
            Ok(granted) => granted,
            Err(NoSlot::Spent { retry_after }) => {
                return pending("the account's rate is spent".to_owned(), retry_after.max(Duration::from_secs(1)));
            }
            Err(NoSlot::Failing { code, retry_after, .. }) => {
                return pending(
                    format!("the account is failing ({code})"),
                    retry_after.clamp(Duration::from_secs(1), after_probe(u32::MAX)),
                );
            }
            Err(NoSlot::Store(error)) => {
                warn!(verification.id = %leased.id, error = &error as &dyn std::error::Error,
                    "no slot could be taken for an erasure");
                return pending("the database did not answer".to_owned(), Duration::from_secs(1));
            }
        };
        self.wait_for_slot(account, slot).await;
        let request = CheckRequest {
            transaction_id: leased.transaction_id.clone(),
            merchant_biz_id: leased.merchant_biz_id.clone(),
            product: leased.product.clone(),
        };
        let result = account.provider().delete(&request).await;
        metrics::counter!("checkback_erasure_calls_total", "account" => account.name.clone(),
            "outcome" => outcome_name(&result))
        .increment(1);
        let fault = after_fault(leased.attempts + 1, self.entropy.fraction());
        let part = match &result {
            Ok(Deletion::Deleted) => ended(ProviderPart::Destroyed, None, self.clock.now()),
            Ok(Deletion::NotOffered { code }) => {
                let reason = format!("not available for this product ({code})");
                ended(ProviderPart::NotOffered, Some(reason), self.clock.now())
            }
            Ok(Deletion::Declined { code }) => self.declined(leased, code),
            Err(ProviderError::Refused { code, .. }) if is_unknown(code) => {
                let reason = format!("unknown transaction: the provider holds nothing under it ({code})");
                ended(ProviderPart::Refused, Some(reason), self.clock.now())
            }
            Err(ProviderError::Refused { code, reason }) => {
                ended(ProviderPart::Refused, Some(format!("{reason} ({code})")), self.clock.now())
            }
            Err(error @ ProviderError::Throttled { retry_after, .. }) => {
                pending(error.to_string(), retry_after.unwrap_or(fault).max(Duration::from_secs(1)))
            }
            Err(error @ ProviderError::Account { .. }) => pending(error.to_string(), fault.max(after_probe(0))),
            Err(error @ ProviderError::Unavailable { .. }) => pending(error.to_string(), fault),
        };
        if let Err(error) = &result {
            warn!(verification.id = %leased.id, account = account.name, attempt = leased.attempts + 1,
                code = error.code(), "the provider did not delete: {error}");
        }
        self.tell_account(account, standing, effect(&result, standing)).await;
        part
    }

    /// The provider did not delete and does not say why. Before the person completed the flow there is nothing to
    /// delete, and there may be something later: so it is asked again until nobody can complete it any more.
    fn declined(&self, leased: &LeasedErasure, code: &str) -> Part<ProviderPart> {
        let now = self.clock.now();
        if let Some(until) = leased.open_until.filter(|until| now < *until) {
            return Part {
                state: ProviderPart::Pending,
                reason: Some(format!("there is no result yet that could be deleted ({code})")),
                due_at: later(now, after_running(false, leased.attempts).1).min(until),
            };
        }
        let reason = format!("the provider declines, or has nothing of it ({code})");
        ended(ProviderPart::Refused, Some(reason), now)
    }
}

fn ended(state: ProviderPart, reason: Option<String>, now: DateTime<Utc>) -> Part<ProviderPart> {
    Part { state, reason, due_at: now }
}

/// Pending, unless the next attempt would be after `last`: then the provider has deleted it by itself, and is not
/// asked any more.
fn pending_until(last: DateTime<Utc>, now: DateTime<Utc>, due_at: DateTime<Utc>, reason: &str) -> Part<ProviderPart> {
    if due_at <= last {
        return Part { state: ProviderPart::Pending, reason: Some(reason.to_owned()), due_at };
    }
    let reason = format!("not deleted on request before the provider's own retention was over: {reason}");
    ended(ProviderPart::Refused, Some(reason), now)
}

fn is_unknown(code: &str) -> bool {
    ["TransactionIdInvalid", "TRANSACTION_RECORD_AUTHORITY_ERROR", "INVALID_ARGUMENT"].contains(&code)
}

fn outcome_name(result: &Result<Deletion, ProviderError>) -> &'static str {
    match result {
        Ok(Deletion::Deleted) => "deleted",
        Ok(Deletion::Declined { .. }) => "declined",
        Ok(Deletion::NotOffered { .. }) => "not_offered",
        Err(ProviderError::Throttled { .. }) => "throttled",
        Err(ProviderError::Account { .. }) => "account_failing",
        Err(ProviderError::Refused { .. }) => "refused",
        Err(ProviderError::Unavailable { .. }) => "unavailable",
    }
}

/// What the answer says about the account. A key that may collect results and not delete them is well: results must
/// not wait for it.
fn effect(result: &Result<Deletion, ProviderError>, standing: Standing) -> AccountEffect {
    match result {
        Ok(_) | Err(ProviderError::Refused { .. }) => AccountEffect::Well,
        Err(ProviderError::Throttled { retry_after, .. }) => AccountEffect::Throttled { retry_after: *retry_after },
        Err(ProviderError::Account { trouble: Trouble::NoPermission | Trouble::Configuration, .. })
            if standing != Standing::Probed =>
        {
            AccountEffect::Unknown
        }
        Err(ProviderError::Account { trouble, code }) => {
            AccountEffect::Failing { trouble: *trouble, code: code.clone() }
        }
        Err(ProviderError::Unavailable { .. }) => AccountEffect::Unknown,
    }
}

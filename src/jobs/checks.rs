//! One check: wait for the slot, ask the provider, store what came of it under the lease.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_util::future::join_all;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::LEASE;
use super::captures::Captures;
use super::in_flight::InFlight;
use crate::domain::{FinalStatus, FoundEvidence, Outcome, ProviderError};
use crate::lifecycle::Tasks;
use crate::provider::CheckRequest;
use crate::service::Service;
use crate::service::account::Account;
use crate::service::batch::{Batcher, Bounds};
use crate::service::collect_result::{self, Checked, Decision};
use crate::service::evidence::Answered;
use crate::service::pace::Slot;
use crate::store::{CheckedFinal, CheckedOpen, LeasedJob, Overdue, Recorded, Standing, StoreError};

const BOUNDS: Bounds = Bounds { queued: 1024, in_flight: 2, batch: 128 };

/// Storing a result is tried again for about half a minute: asking the provider again would cost more.
const STORE_TRIES: u32 = 40;
const LONGEST_STORE_WAIT: Duration = Duration::from_secs(1);

/// How many verifications are ended together when their deadlines are over.
const MOST_OVERDUE: i64 = 128;

#[derive(Clone)]
pub(super) struct Checks {
    service: Service,
    in_flight: Arc<InFlight>,
    captures: Captures,
    tasks: Tasks,
    finals: Batcher<CheckedFinal, Option<Recorded>>,
    opens: Batcher<CheckedOpen, bool>,
}

impl Checks {
    pub fn start(service: Service, in_flight: Arc<InFlight>, captures: Captures, tasks: Tasks, queues: &Tasks) -> Self {
        let finals = {
            let service = service.clone();
            Batcher::start(queues, BOUNDS, move |checks| {
                let service = service.clone();
                async move { store_finals(&service, checks).await }
            })
        };
        let opens = {
            let service = service.clone();
            Batcher::start(queues, BOUNDS, move |checks| {
                let service = service.clone();
                async move { store_opens(&service, checks).await }
            })
        };
        Self { service, in_flight, captures, tasks, finals, opens }
    }

    /// Runs the check of a leased job on a task of its own. `permit` is given back when all is stored.
    pub fn spawn(&self, account: Arc<Account>, job: LeasedJob, slot: Slot, permit: OwnedSemaphorePermit) {
        let checks = self.clone();
        self.tasks.spawn(async move {
            checks.run(&account, job, slot).await;
            drop(permit);
        });
    }

    async fn run(&self, account: &Arc<Account>, job: LeasedJob, slot: Slot) {
        let call_off = self.in_flight.add(job.id, job.token, slot.asked_at);
        if self.end_overdue(account, &job).await {
            return;
        }
        let stopping = self.tasks.stopping();
        tokio::select! {
            biased;
            () = self.in_flight.lost(job.id, job.token, &call_off) => return self.lost(&job),
            () = stopping => return self.in_flight.set_aside(job.id, job.token),
            () = self.service.wait_for_slot(account, slot) => {}
        }
        // The deadline may have come while the call waited for its slot.
        if self.end_overdue(account, &job).await {
            return;
        }
        let request = CheckRequest {
            transaction_id: job.transaction_id.clone(),
            merchant_biz_id: job.merchant_biz_id.clone(),
            product: job.product.clone(),
        };
        let asked_at = Instant::now();
        let mut result = tokio::select! {
            biased;
            () = self.in_flight.lost(job.id, job.token, &call_off) => return self.lost(&job),
            result = account.provider.check_result(&request) => result,
        };
        let took = asked_at.elapsed();
        let name = account.name.clone();
        metrics::histogram!("checkback_check_duration_seconds", "account" => name.clone()).record(took);
        metrics::counter!("checkback_checks_total", "account" => name,
            "outcome" => collect_result::outcome_name(&result))
        .increment(1);
        if let Err(error @ (ProviderError::Unavailable { .. } | ProviderError::Throttled { .. })) = &result {
            warn!(verification.id = %job.id, account = account.name, attempt = job.checks + 1, code = error.code(),
                "{error}");
        }
        self.service.tell_account(account, job.standing, collect_result::account_effect(&result)).await;
        let checked = Checked { at: self.service.clock.now(), took, fraction: self.service.entropy.fraction() };
        let found = match &mut result {
            Ok(Outcome::Finished(finding)) => std::mem::take(&mut finding.evidence),
            _ => FoundEvidence::default(),
        };
        match collect_result::decide(account, &job, result, checked) {
            Decision::Final(check) if check.replaces => {
                let answered = Answered { account, job: &job, at: checked.at };
                let token = || self.service.entropy.token();
                let (evidence, captures) = self.service.evidence.plan(answered, found, token);
                if let Some(recorded) = self.store_final(account, &job, CheckedFinal { evidence, ..check }).await {
                    self.captures.start(account, &recorded, captures);
                }
            }
            Decision::Final(check) => drop(self.store_final(account, &job, check).await),
            Decision::Open(check) => {
                match self.opens.submit_patiently(check).await {
                    // Whoever leases may be asleep for longer than until then.
                    Ok(true) => self.service.wakes.account(&account.name),
                    Err(_) => {}
                    Ok(false) => self.lost(&job),
                }
            }
        }
        self.in_flight.remove(job.id, job.token);
    }

    /// Leases and ends what is over for one account; true when there may be more.
    pub async fn end_all_overdue(&self, account: &Account) -> Result<bool, StoreError> {
        let now = self.service.clock.now();
        let Some(hinted_before) = earlier(now, account.result_retention) else { return Ok(false) };
        let registered_before = earlier(hinted_before, account.give_up_after).unwrap_or(DateTime::UNIX_EPOCH);
        let leased_at = Instant::now();
        let jobs = self
            .service
            .store
            .lease_overdue(Overdue {
                account: &account.name,
                token: self.service.entropy.token(),
                limit: MOST_OVERDUE,
                length: LEASE,
                hinted_before,
                registered_before,
            })
            .await?;
        let more = i64::try_from(jobs.len()).is_ok_and(|count| count == MOST_OVERDUE);
        for job in &jobs {
            self.in_flight.add(job.id, job.token, leased_at);
        }
        // Together, so that they share the flushes.
        join_all(jobs.iter().map(|job| self.end_overdue(account, job))).await;
        for job in &jobs {
            self.in_flight.remove(job.id, job.token);
        }
        Ok(more)
    }

    /// Ends a leased verification without a call if its deadline is over.
    async fn end_overdue(&self, account: &Account, job: &LeasedJob) -> bool {
        let now = self.service.clock.now();
        let Some(expired) = collect_result::expire(account, job, now) else { return false };
        if job.standing == Standing::Probed
            && let Err(error) = self.service.store.return_probe(&account.name, now).await
        {
            warn!(error = &error as &dyn std::error::Error, account = account.name, "a probe could not be given back");
        }
        drop(self.store_final(account, job, expired).await);
        self.in_flight.remove(job.id, job.token);
        true
    }

    /// What was stored; nothing when the lease was lost.
    async fn store_final(&self, account: &Account, job: &LeasedJob, check: CheckedFinal) -> Option<Recorded> {
        let (status, decided_at) = (check.status, check.at);
        let Ok(Some(recorded)) = self.finals.submit_patiently(check).await else {
            self.lost(job);
            return None;
        };
        if recorded.again {
            self.service.wakes.account(&account.name);
        }
        let Some(revision) = recorded.revision else { return Some(recorded) };
        let name = account.name.clone();
        metrics::counter!("checkback_verdicts_total", "account" => name.clone(), "status" => status.as_str())
            .increment(1);
        if let Some(delay) = recorded.callback_at.and_then(|at| (decided_at - at).to_std().ok()) {
            metrics::histogram!("checkback_verdict_delay_seconds", "account" => name.clone()).record(delay);
        }
        let deadlines = account.deadlines(job.registered_at, job.hinted_at);
        if status == FinalStatus::Expired {
            metrics::counter!("checkback_expired_total", "account" => name).increment(1);
            error!(verification.id = %job.id, account = account.name,
                "the result was not collected before the provider deleted it");
        } else {
            let margin = (deadlines.result - decided_at).to_std().unwrap_or(Duration::ZERO);
            metrics::histogram!("checkback_deadline_margin_seconds", "kind" => "result").record(margin);
            info!(verification.id = %job.id, account = account.name, attempt = job.checks + 1, revision,
                "verification is {status}");
        }
        Some(recorded)
    }

    fn lost(&self, job: &LeasedJob) {
        self.in_flight.remove(job.id, job.token);
        metrics::counter!("checkback_leases_lost_total").increment(1);
        warn!(verification.id = %job.id, "the lease of a check was lost; somebody else asks");
    }
}

/// `time` moved back by `by`; none before 1970, when nothing was registered.
fn earlier(time: DateTime<Utc>, by: Duration) -> Option<DateTime<Utc>> {
    let by = chrono::TimeDelta::from_std(by).ok()?;
    time.checked_sub_signed(by).filter(|earlier| *earlier > DateTime::UNIX_EPOCH)
}

/// Tries until the database answers, as long as asking the provider again would cost more than waiting.
pub(super) async fn persist<T, F>(mut attempt: impl FnMut() -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let mut wait = Duration::from_millis(20);
    for _ in 1..STORE_TRIES {
        match attempt().await {
            Err(error) if error.is_unavailable() => {
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(LONGEST_STORE_WAIT);
            }
            other => return other,
        }
    }
    attempt().await
}

async fn store_finals(service: &Service, checks: Vec<CheckedFinal>) -> Vec<Option<Recorded>> {
    let recorded = match persist(|| service.store.record_final(&checks)).await {
        Ok(recorded) => recorded,
        Err(StoreError::Refused(error)) => {
            error!(error = &error as &dyn std::error::Error, "results could not be stored together");
            store_one_by_one(service, &checks).await
        }
        Err(error) => {
            error!(error = &error as &dyn std::error::Error, "results could not be stored; they will be asked again");
            return checks.iter().map(|_| None).collect();
        }
    };
    let ids: Vec<_> = recorded.iter().filter(|recorded| recorded.revision.is_some()).map(|it| it.id).collect();
    service.finals.announce(&ids);
    service.wakes.tell_others([], &ids);
    let mut by_id: std::collections::HashMap<_, _> =
        recorded.into_iter().map(|recorded| (recorded.id, recorded)).collect();
    checks.iter().map(|check| by_id.remove(&check.id)).collect()
}

/// One result that the database cannot hold must not take its neighbours down; it is put off, visibly.
async fn store_one_by_one(service: &Service, checks: &[CheckedFinal]) -> Vec<Recorded> {
    let mut recorded = Vec::with_capacity(checks.len());
    for check in checks {
        match service.store.record_final(std::slice::from_ref(check)).await {
            Ok(rows) => recorded.extend(rows),
            Err(error) => {
                error!(verification.id = %check.id, error = &error as &dyn std::error::Error,
                    "a result could not be stored");
                let put_off = CheckedOpen {
                    id: check.id,
                    token: check.token,
                    lane: None,
                    due_at: check.at + chrono::TimeDelta::minutes(10),
                    running: 0,
                    faults: 1,
                    last_error: Some("the database refused to store the result".to_owned()),
                    check_detail: None,
                    at: check.at,
                };
                if let Err(error) = service.store.record_open(&[put_off]).await {
                    warn!(error = &error as &dyn std::error::Error, "the lease will run out by itself");
                }
            }
        }
    }
    recorded
}

async fn store_opens(service: &Service, checks: Vec<CheckedOpen>) -> Vec<bool> {
    match persist(|| service.store.record_open(&checks)).await {
        Ok(recorded) => {
            let recorded: std::collections::HashSet<_> = recorded.into_iter().collect();
            checks.iter().map(|check| recorded.contains(&check.id)).collect()
        }
        Err(error) => {
            error!(error = &error as &dyn std::error::Error, "attempts could not be stored; their leases run out");
            vec![false; checks.len()]
        }
    }
}

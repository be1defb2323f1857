//! One check: wait for the slot, ask the provider, store what came of it under the lease.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::captures::Captures;
use super::in_flight::InFlight;
use super::steps;
use crate::domain::FinalStatus;
use crate::lifecycle::Tasks;
use crate::service::Service;
use crate::service::account::Account;
use crate::service::batch::{Batcher, Bounds};
use crate::service::collect_result::{Decision, outcome_name};
use crate::service::pace::Slot;
use crate::store::{CheckedFinal, CheckedOpen, LeasedJob, Recorded, StoreError};
use crate::traces::{Parent, Span, SpanKind};

const FINALS: Bounds = Bounds { name: "finals", queued: 1024, in_flight: 2, batch: 128 };
const OPENS: Bounds = Bounds { name: "opens", ..FINALS };

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
            Batcher::start(queues, FINALS, move |checks| {
                let service = service.clone();
                async move { steps::store_finals(&service, &checks).await }
            })
        };
        let opens = {
            let service = service.clone();
            Batcher::start(queues, OPENS, move |checks| {
                let service = service.clone();
                async move { steps::store_opens(&service, &checks).await }
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
        let mut span = self.span(account, &job).await;
        let stopping = self.tasks.stopping();
        let waiting = span.child("wait for the slot", SpanKind::Internal);
        tokio::select! {
            biased;
            () = self.in_flight.lost(job.id, job.token, &call_off) => return self.lost(&job),
            () = stopping => return self.in_flight.set_aside(job.id, job.token),
            () = self.service.wait_for_slot(account, slot) => {}
        }
        drop(waiting);
        // The deadline may have come while the call waited for its slot.
        if self.end_overdue(account, &job).await {
            return;
        }
        let asked_at = Instant::now();
        let mut asking = span.child("CheckResult", SpanKind::Client);
        let mut result = tokio::select! {
            biased;
            () = self.in_flight.lost(job.id, job.token, &call_off) => return self.lost(&job),
            result = steps::ask(account, &job) => result,
        };
        let took = asked_at.elapsed();
        if let Err(error) = &result {
            asking.fail(error.code());
        }
        drop(asking);
        span.set("checkback.outcome", outcome_name(&result));
        let flow = tokio::select! {
            biased;
            () = self.in_flight.lost(job.id, job.token, &call_off) => return self.lost(&job),
            flow = steps::explain(&self.service, account, &job, &result) => flow,
        };
        let found = steps::take_evidence(&mut result);
        match steps::judge(&self.service, account, &job, result, took, flow.as_ref()).await {
            Decision::Final(check) => {
                let (check, captures) = steps::with_evidence(&self.service, account, &job, check, found);
                if let Some(recorded) = self.store_final(account, &job, check, &span).await {
                    self.captures.start(account, &recorded, captures);
                }
            }
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

    /// The check's span, in the trace of the hint that led to it; one of its own where none did, or none is known.
    async fn span(&self, account: &Account, job: &LeasedJob) -> Span {
        if !self.service.traces.is_on() {
            return Span::none();
        }
        let traceparent = match job.hinted_at.or(job.callback_at) {
            Some(_) => self.service.store.traceparent(job.id).await.unwrap_or_default(),
            None => None,
        };
        let mut span = self.service.traces.start("check", SpanKind::Consumer, Parent::Known(traceparent.as_deref()));
        span.set("checkback.account", account.name.clone());
        span.set("checkback.verification.id", job.id.to_string());
        span.set("checkback.attempt", i64::from(job.checks) + 1);
        span
    }

    /// Leases and ends what is over for one account; true when there may be more.
    pub async fn end_all_overdue(&self, account: &Account) -> Result<bool, StoreError> {
        let leased_at = Instant::now();
        let jobs = steps::lease_overdue(&self.service, account).await?;
        for job in &jobs {
            self.in_flight.add(job.id, job.token, leased_at);
        }
        // Together, so that they share the flushes.
        join_all(jobs.iter().map(|job| self.end_overdue(account, job))).await;
        for job in &jobs {
            self.in_flight.remove(job.id, job.token);
        }
        Ok(steps::all_overdue(jobs.len()))
    }

    /// Ends a leased verification without a call if its deadline is over.
    async fn end_overdue(&self, account: &Account, job: &LeasedJob) -> bool {
        let Some(expired) = steps::end_if_overdue(&self.service, account, job).await else { return false };
        drop(self.store_final(account, job, expired, &Span::none()).await);
        self.in_flight.remove(job.id, job.token);
        true
    }

    /// What was stored; nothing when the lease was lost.
    async fn store_final(
        &self,
        account: &Account,
        job: &LeasedJob,
        check: CheckedFinal,
        span: &Span,
    ) -> Option<Recorded> {
        let (status, decided_at) = (check.status, check.at);
        let mut storing = span.child("verdict", SpanKind::Internal);
        storing.set("checkback.status", status.as_str());
        let Ok(Some(recorded)) = self.finals.submit_patiently(check).await else {
            storing.fail("lease_lost");
            self.lost(job);
            return None;
        };
        drop(storing);
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
                trace.id = span.trace_id(), "verification is {status}");
        }
        Some(recorded)
    }

    fn lost(&self, job: &LeasedJob) {
        self.in_flight.remove(job.id, job.token);
        metrics::counter!("checkback_leases_lost_total").increment(1);
        warn!(verification.id = %job.id, "the lease of a check was lost; somebody else asks");
    }
}

//! The steps that the loops are made of, without their waiting: each does one thing and returns. The loops take them
//! when their time has come; so does the simulation of thirty days in the tests, whose time is its own.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use super::in_flight::InFlight;
use super::{LEASE, RENEWAL, Turns};
use crate::clock::{earlier, later};
use crate::domain::{Flow, FoundEvidence, Outcome, ProviderError, schedule};
use crate::provider::CheckRequest;
use crate::service::Service;
use crate::service::account::Account;
use crate::service::collect_result::{self, Checked, Decision};
use crate::service::evidence::{Answered, Capture};
use crate::store::{
    CheckedFinal, CheckedOpen, LaneTurn, Lease, Leased, LeasedHinted, LeasedJob, Overdue, Recorded, Standing,
    StoreError, TakenHints,
};

/// How many hints are worked in by one statement.
const HINTS: usize = 256;

/// What has waited in lane `Fresh` for longer is fresh no more.
const FRESH: Duration = Duration::from_mins(1);
/// How many jobs of a lane change it by one statement.
const SORTED: i64 = 500;

/// How many verifications are ended together when their deadlines are over.
const MOST_OVERDUE: i64 = 128;

/// Storing a result is tried again for about half a minute: asking the provider again would cost more.
const STORE_TRIES: u32 = 40;
const LONGEST_STORE_WAIT: Duration = Duration::from_secs(1);

/// How long unmatched callbacks are kept.
const KEEP_UNMATCHED: TimeDelta = TimeDelta::hours(24);

/// Works hints into jobs. As many as [`is_full`] says mean that there may be more.
pub async fn take_hints(service: &Service) -> Result<TakenHints, StoreError> {
    let limit = i64::try_from(HINTS).unwrap_or(i64::MAX);
    let taken = service.store.take_hints(limit, service.clock.now()).await?;
    announce(service, &taken);
    Ok(taken)
}

/// Whether these were all hints that one statement takes.
pub fn is_full(taken: &TakenHints) -> bool {
    taken.taken == HINTS
}

fn announce(service: &Service, taken: &TakenHints) {
    let mut accounts: Vec<&str> = taken.nudged.iter().map(|nudged| nudged.account.as_str()).collect();
    accounts.sort_unstable();
    accounts.dedup();
    for account in &accounts {
        service.wakes.account(account);
    }
    service.wakes.tell_others(accounts.into_iter().map(str::to_owned), &[]);
    for nudged in &taken.nudged {
        let first = u64::from(nudged.first);
        count_callbacks(&nudged.account, "accepted", first);
        count_callbacks(&nudged.account, "repeat", u64::from(nudged.callbacks) - first);
    }
}

fn count_callbacks(account: &str, result: &'static str, count: u64) {
    if count > 0 {
        metrics::counter!("checkback_callbacks_total", "account" => account.to_owned(), "result" => result)
            .increment(count);
    }
}

/// Leases what is due for one account, at most `room`, as far as its budget reaches. True beside it when it was the turn
/// of one lane alone, so that others may have more that is due.
pub async fn lease(
    service: &Service,
    account: &Account,
    turns: &mut Turns,
    room: usize,
    at: Instant,
) -> Result<(bool, Leased), StoreError> {
    let now = service.clock.now();
    let turn = turns.next(now, at);
    let leased = service.store.lease_due(a_lease(service, account, turn, room, now)).await?;
    turns.took(turn, &leased, at);
    Ok((turn.is_some(), leased))
}

/// Works in and leases at once what people have just finished, at most `room`. For when nothing else of the account is
/// due.
pub async fn lease_hinted(service: &Service, account: &Account, room: usize) -> Result<LeasedHinted, StoreError> {
    let leased = service.store.lease_hinted(&a_lease(service, account, None, room, service.clock.now())).await?;
    count_callbacks(&account.name, "accepted", u64::try_from(leased.jobs.len()).unwrap_or(u64::MAX));
    Ok(leased)
}

fn a_lease<'a>(
    service: &Service,
    account: &'a Account,
    turn: Option<LaneTurn>,
    room: usize,
    now: DateTime<Utc>,
) -> Lease<'a> {
    Lease {
        account: &account.name,
        token: service.entropy.token(),
        limit: if turn.is_some() { 1 } else { i64::try_from(room).unwrap_or(1) },
        length: LEASE,
        rate: account.rate(),
        now,
        next_probe_at: later(now, schedule::after_probe(u32::MAX)),
        videos_gone: earlier(now, account.video_retention),
        turn,
    }
}

/// Puts jobs of one account into the lanes that they belong in by now; true when there may be more.
pub async fn sort_lanes(service: &Service, account: &Account) -> Result<bool, StoreError> {
    let now = service.clock.now();
    let videos_gone = earlier(now, account.video_retention);
    let sorted = service.store.sort_lanes(&account.name, videos_gone, earlier(now, FRESH), SORTED).await?;
    if sorted.moved > 0 {
        service.wakes.account(&account.name);
    }
    Ok(!sorted.is_all)
}

/// Leases what is over for one account. As many as [`all_overdue`] says mean that there may be more.
pub async fn lease_overdue(service: &Service, account: &Account) -> Result<Vec<LeasedJob>, StoreError> {
    let now = service.clock.now();
    let hinted_before = earlier(now, account.result_retention);
    let registered_before = earlier(hinted_before, account.give_up_after);
    service
        .store
        .lease_overdue(Overdue {
            account: &account.name,
            token: service.entropy.token(),
            limit: MOST_OVERDUE,
            length: LEASE,
            hinted_before,
            registered_before,
        })
        .await
}

/// Whether so many leased overdue jobs were all that one statement takes.
pub(super) fn all_overdue(jobs: usize) -> bool {
    i64::try_from(jobs).is_ok_and(|count| count == MOST_OVERDUE)
}

/// How a leased verification ends whose deadline is over; nothing is asked about it any more. `None` before that.
pub async fn end_if_overdue(service: &Service, account: &Account, job: &LeasedJob) -> Option<CheckedFinal> {
    let now = service.clock.now();
    let expired = collect_result::expire(account, job, now)?;
    if job.standing == Standing::Probed
        && let Err(error) = service.store.return_probe(&account.name, now).await
    {
        warn!(error = &error as &dyn std::error::Error, account = account.name, "a probe could not be given back");
    }
    Some(expired)
}

/// Asks the provider once about a leased verification.
pub async fn ask(account: &Account, job: &LeasedJob) -> Result<Outcome, ProviderError> {
    account.provider().check_result(&request(job)).await
}

fn request(job: &LeasedJob) -> CheckRequest {
    CheckRequest {
        transaction_id: job.transaction_id.clone(),
        merchant_biz_id: job.merchant_biz_id.clone(),
        product: job.product.clone(),
    }
}

/// Asks the provider how far the person came, where `result` ends a flow that nobody completed and nothing else needs
/// the calls of the account. `None` where it was not asked or could not say.
pub async fn explain(
    service: &Service,
    account: &Account,
    job: &LeasedJob,
    result: &Result<Outcome, ProviderError>,
) -> Option<Flow> {
    if !may_be_explained(service, account, job, result).await {
        return None;
    }
    let slot = service.take_idle_slot(account).await?;
    service.wait_for_slot(account, slot).await;
    explain_now(service, account, job).await
}

/// Whether it is worth a call that nothing else needs to ask how far the person came.
pub async fn may_be_explained(
    service: &Service,
    account: &Account,
    job: &LeasedJob,
    result: &Result<Outcome, ProviderError>,
) -> bool {
    let now = service.clock.now();
    if job.standing != Standing::Well || !collect_result::gives_up(account, job, result, now) {
        return false;
    }
    // All operations share one rate, so this call never saves another one: it must not take a slot from any.
    service.store.next_due(&account.name).await.is_ok_and(|due_at| due_at.is_none_or(|due_at| due_at > now))
}

/// Asks how far the person came; the slot of that call has come.
pub async fn explain_now(service: &Service, account: &Account, job: &LeasedJob) -> Option<Flow> {
    match account.provider().explain(&request(job)).await {
        Ok(flow) => flow,
        Err(error) => {
            debug!(verification.id = %job.id, account = account.name, code = error.code(),
                "how far the person came could not be asked: {error}");
            if matches!(error, ProviderError::Throttled { .. }) {
                service.tell_account(account, job.standing, collect_result::account_effect(job.id, &Err(error))).await;
            }
            None
        }
    }
}

/// What an answer brought besides the verdict, taken out of it before it is judged.
pub fn take_evidence(result: &mut Result<Outcome, ProviderError>) -> FoundEvidence {
    match result {
        Ok(Outcome::Finished(finding)) => std::mem::take(&mut finding.evidence),
        _ => FoundEvidence::default(),
    }
}

/// A final check with what is to be written down about evidence, and what is to be captured once it is stored. Ends
/// without a result say nothing about evidence.
pub fn with_evidence(
    service: &Service,
    account: &Account,
    job: &LeasedJob,
    check: CheckedFinal,
    found: FoundEvidence,
) -> (CheckedFinal, Vec<Capture>) {
    if !check.replaces {
        return (check, Vec::new());
    }
    let answered = Answered { account, job, at: check.at };
    let (evidence, captures) = service.evidence.plan(answered, found, || service.entropy.token());
    (CheckedFinal { evidence, ..check }, captures)
}

/// Keeps what the answer says about the account, and decides what it means for the verification. Nothing of that is
/// stored yet.
pub async fn judge(
    service: &Service,
    account: &Account,
    job: &LeasedJob,
    result: Result<Outcome, ProviderError>,
    took: Duration,
    flow: Option<&Flow>,
) -> Decision {
    let name = account.name.clone();
    metrics::histogram!("checkback_check_duration_seconds", "account" => name.clone()).record(took);
    metrics::counter!("checkback_checks_total", "account" => name,
        "outcome" => collect_result::outcome_name(&result))
    .increment(1);
    if let Err(error @ (ProviderError::Unavailable { .. } | ProviderError::Throttled { .. })) = &result {
        warn!(verification.id = %job.id, account = account.name, attempt = job.checks + 1, code = error.code(),
            "{error}");
    }
    service.tell_account(account, job.standing, collect_result::account_effect(job.id, &result)).await;
    let checked = Checked { at: service.clock.now(), took, fraction: service.entropy.fraction(), flow };
    collect_result::decide(account, job, result, checked)
}

/// Stores results, and tells who waits for them. `None` for those whose lease was lost.
pub async fn store_finals(service: &Service, checks: &[CheckedFinal]) -> Vec<Option<Recorded>> {
    let recorded = match persist(|| service.store.record_final(checks)).await {
        Ok(recorded) => recorded,
        Err(StoreError::Refused(error)) => {
            error!(error = &error as &dyn std::error::Error, "results could not be stored together");
            store_one_by_one(service, checks).await
        }
        Err(error) => {
            error!(error = &error as &dyn std::error::Error, "results could not be stored; they will be asked again");
            return checks.iter().map(|_| None).collect();
        }
    };
    let ids: Vec<_> = recorded.iter().filter(|recorded| recorded.revision.is_some()).map(|it| it.id).collect();
    service.finals.announce(&ids);
    service.wakes.tell_others([], &ids);
    if !ids.is_empty() {
        service.wake_webhooks();
    }
    let mut by_id: HashMap<_, _> = recorded.into_iter().map(|recorded| (recorded.id, recorded)).collect();
    checks.iter().map(|check| by_id.remove(&check.id)).collect()
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

/// Stores attempts that brought no result yet. False for those whose lease was lost.
pub async fn store_opens(service: &Service, checks: &[CheckedOpen]) -> Vec<bool> {
    match persist(|| service.store.record_open(checks)).await {
        Ok(recorded) => {
            let recorded: HashSet<_> = recorded.into_iter().collect();
            checks.iter().map(|check| recorded.contains(&check.id)).collect()
        }
        Err(error) => {
            error!(error = &error as &dyn std::error::Error, "attempts could not be stored; their leases run out");
            vec![false; checks.len()]
        }
    }
}

/// Renews what has not been renewed for long.
pub async fn renew(service: &Service, in_flight: &InFlight, now: Instant) {
    let old = in_flight.older_than(RENEWAL, now);
    if old.is_empty() {
        return;
    }
    match service.store.renew_leases(&old, LEASE).await {
        Ok(renewed) => in_flight.renewed(&old, &renewed, now),
        Err(error) => warn!(error = &error as &dyn std::error::Error, "leases could not be renewed"),
    }
}

/// Forgets callbacks that nobody registered for.
pub async fn forget_unmatched(service: &Service) {
    match service.store.forget_unmatched(service.clock.now() - KEEP_UNMATCHED).await {
        Ok(0) => {}
        Ok(forgotten) => info!(forgotten, "unmatched callbacks were a day old and are forgotten"),
        Err(error) => error!(error = &error as &dyn std::error::Error, "old callbacks could not be forgotten"),
    }
}

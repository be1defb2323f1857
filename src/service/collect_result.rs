//! What follows from asking the provider: a verdict, another attempt, or an account in trouble.
//!
//! [`decide`] is the whole of the rules and does no I/O. Nothing in it comes from a callback but the times.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::json;

use super::account::{Account, Deadlines};
use crate::clock::later;
use crate::domain::schedule::{Lane, after_fault, after_running};
use crate::domain::{FinalStatus, Flow, Outcome, ProviderError, Trouble, VerificationId};
use crate::store::{CheckedFinal, CheckedOpen, LeasedJob};

/// The provider's word for "the person is done, the result is not": the flow is not void, however long it takes.
const PENDING: &str = "P";

/// Faults of a verification that the provider's log says is finished while there is no result. More than faults alone
/// come to.
const CONTRADICTED: u32 = 1_000_000;

/// A quarter of what is left grows ever shorter; this ends it.
const SHORTEST_VIDEO_WAIT: Duration = Duration::from_secs(2);

/// What to store of a check.
#[derive(Debug)]
pub enum Decision {
    Final(CheckedFinal),
    Open(CheckedOpen),
}

/// What a check says about its account.
#[derive(Debug, PartialEq, Eq)]
pub enum AccountEffect {
    Well,
    Throttled {
        retry_after: Option<Duration>,
    },
    Failing {
        trouble: Trouble,
        code: String,
    },
    /// The provider gave no usable answer about this verification.
    Unanswered {
        of: VerificationId,
        code: String,
    },
    /// Nothing: the call did not get through.
    Unknown,
}

/// The circumstances of one check.
#[derive(Clone, Copy, Debug)]
pub struct Checked<'a> {
    pub at: DateTime<Utc>,
    pub took: Duration,
    /// Jitter, in `0.0..1.0`.
    pub fraction: f64,
    /// Of a flow that is given up now: how far the person came, where the provider said so.
    pub flow: Option<&'a Flow>,
}

/// The outcome's label in metrics and history.
pub fn outcome_name(result: &Result<Outcome, ProviderError>) -> &'static str {
    match result {
        Ok(Outcome::Finished(_)) => "finished",
        Ok(Outcome::Running(_)) => "running",
        Err(ProviderError::Throttled { .. }) => "throttled",
        Err(ProviderError::Account { .. }) => "account_failing",
        Err(ProviderError::Refused { .. }) => "refused",
        Err(ProviderError::Unavailable { .. }) => "unavailable",
    }
}

/// What the check says about its account.
pub fn account_effect(of: VerificationId, result: &Result<Outcome, ProviderError>) -> AccountEffect {
    match result {
        Ok(_) | Err(ProviderError::Refused { .. }) => AccountEffect::Well,
        Err(ProviderError::Throttled { retry_after, .. }) => AccountEffect::Throttled { retry_after: *retry_after },
        Err(ProviderError::Account { trouble, code }) => {
            AccountEffect::Failing { trouble: *trouble, code: code.clone() }
        }
        Err(ProviderError::Unavailable { code, .. }) => AccountEffect::Unanswered { of, code: code.clone() },
    }
}

/// Ends a verification whose deadline is over, without asking: nothing is attempted after it.
pub fn expire(account: &Account, job: &LeasedJob, now: DateTime<Utc>) -> Option<CheckedFinal> {
    let deadlines = account.deadlines(job.registered_at, job.hinted_at);
    if now < deadlines.result {
        return None;
    }
    let kept = humantime::format_duration(account.result_retention);
    let reason = format!("The provider keeps results for {kept}. That time is over and no result could be read.");
    Some(CheckedFinal { check_detail: None, ..without_result(job, FinalStatus::Expired, reason, now) })
}

/// A final state that is not the provider's verdict. It never replaces one.
fn without_result(job: &LeasedJob, status: FinalStatus, reason: String, at: DateTime<Utc>) -> CheckedFinal {
    CheckedFinal {
        id: job.id,
        token: job.token,
        status,
        sub_code: None,
        reason,
        scores: "{}".to_owned(),
        signals: "{}".to_owned(),
        answer: None,
        last_error: None,
        check_detail: None,
        at,
        recheck: job.recheck,
        replaces: false,
        evidence: Vec::new(),
    }
}

/// What to store of the provider's answer.
pub fn decide(
    account: &Account,
    job: &LeasedJob,
    result: Result<Outcome, ProviderError>,
    checked: Checked<'_>,
) -> Decision {
    let deadlines = account.deadlines(job.registered_at, job.hinted_at);
    let detail = check_detail(job, &result, checked);
    let open = |lane, due_at: DateTime<Utc>, running, faults, last_error| {
        Decision::Open(CheckedOpen {
            id: job.id,
            token: job.token,
            lane,
            // The deadline itself is the last time that anything is done about a verification.
            due_at: due_at.min(deadlines.result),
            running,
            faults,
            last_error: Some(last_error),
            check_detail: Some(detail.clone()),
            at: checked.at,
        })
    };
    match result {
        Ok(Outcome::Finished(finding)) => Decision::Final(CheckedFinal {
            sub_code: finding.sub_code,
            scores: json!(finding.scores).to_string(),
            signals: json!(finding.signals).to_string(),
            answer: Some(finding.answer),
            check_detail: Some(detail),
            replaces: true,
            ..without_result(job, finding.status, finding.reason, checked.at)
        }),
        Ok(Outcome::Running(code)) => {
            // What is finished has a result in a moment: it is asked for once more, at once.
            if checked.flow == Some(&Flow::Finished) && job.faults < CONTRADICTED {
                return open(Some(Lane::Retry), checked.at, job.running + 1, CONTRADICTED, code);
            }
            if let Some(mut reason) = ends_unfinished(account, job, &code, deadlines, checked.at) {
                if let Some(flow) = checked.flow {
                    reason = format!("{reason} {flow}");
                }
                return Decision::Final(CheckedFinal {
                    check_detail: Some(detail),
                    last_error: Some(code),
                    ..without_result(job, FinalStatus::Void, reason, checked.at)
                });
            }
            let running = job.running + 1;
            let (lane, mut wait) = after_running(was_hinted(job), running);
            if lane == Lane::Poll {
                wait = wait.max(account.pacing.poll_interval());
            }
            let (lane, wait) = video_first(job, lane, wait, deadlines, checked.at);
            let mut due_at = later(checked.at, wait);
            if code != PENDING && checked.at < deadlines.give_up_at {
                due_at = due_at.min(deadlines.give_up_at);
            }
            open(Some(lane), due_at, running, 0, code)
        }
        Err(ProviderError::Refused { code, reason }) => Decision::Final(CheckedFinal {
            check_detail: Some(detail),
            last_error: Some(code.clone()),
            ..without_result(
                job,
                FinalStatus::Unresolvable,
                format!("The provider refuses this transaction: {reason} ({code})."),
                checked.at,
            )
        }),
        Err(error @ ProviderError::Unavailable { .. }) => {
            let faults = job.faults + 1;
            // A poll stays a poll: what nothing was heard of must not take the budget of the rest.
            let lane = if job.lane == Lane::Poll { Lane::Poll } else { Lane::Retry };
            let wait = after_fault(faults, checked.fraction);
            let (lane, wait) = video_first(job, lane, wait, deadlines, checked.at);
            open(Some(lane), later(checked.at, wait), job.running, faults, error.to_string())
        }
        Err(error @ (ProviderError::Throttled { .. } | ProviderError::Account { .. })) => {
            // The account holds still as a whole; this job is ready as soon as it goes on.
            open(None, checked.at, job.running, job.faults, error.to_string())
        }
    }
}

/// While a video can still be had, its deadline is the nearest of all, and no wait takes more than a quarter of what is
/// left until then.
fn video_first(
    job: &LeasedJob,
    lane: Lane,
    wait: Duration,
    deadlines: Deadlines,
    now: DateTime<Utc>,
) -> (Lane, Duration) {
    let left = (deadlines.video - now).to_std().unwrap_or_default();
    if !job.expect_video || job.hinted_at.is_none() || left <= SHORTEST_VIDEO_WAIT {
        return (lane, wait);
    }
    (Lane::Video, wait.min((left / 4).max(SHORTEST_VIDEO_WAIT)))
}

fn was_hinted(job: &LeasedJob) -> bool {
    job.hinted_at.is_some() || job.callback_at.is_some()
}

/// Why an answer of "not finished" is the last one; `None` while there is time left.
fn ends_unfinished(
    account: &Account,
    job: &LeasedJob,
    code: &str,
    deadlines: Deadlines,
    now: DateTime<Utc>,
) -> Option<String> {
    if job.recheck {
        return Some("There is still no result.".to_owned());
    }
    if code == PENDING || now < deadlines.give_up_at {
        return None;
    }
    let given = humantime::format_duration(account.give_up_after);
    Some(format!("The person did not complete the check within {given} of its registration."))
}

/// Whether this answer ends a verification that nobody completed: what the provider knows of the flow is then worth a
/// call. Not a second one.
pub fn gives_up(
    account: &Account,
    job: &LeasedJob,
    result: &Result<Outcome, ProviderError>,
    now: DateTime<Utc>,
) -> bool {
    let Ok(Outcome::Running(code)) = result else { return false };
    let deadlines = account.deadlines(job.registered_at, job.hinted_at);
    !job.recheck && job.faults < CONTRADICTED && ends_unfinished(account, job, code, deadlines, now).is_some()
}

/// The history's row of a check: codes and times, nothing out of the answer.
fn check_detail(job: &LeasedJob, result: &Result<Outcome, ProviderError>, checked: Checked<'_>) -> String {
    let code = match result {
        Ok(Outcome::Finished(finding)) => finding.sub_code.as_deref(),
        Ok(Outcome::Running(code)) => Some(code.as_str()),
        Err(error) => Some(error.code()),
    };
    let notes = match result {
        Ok(Outcome::Finished(finding)) if !finding.notes.is_empty() => Some(&finding.notes),
        _ => None,
    };
    let mut detail = json!({
        "attempt": job.checks + 1,
        "outcome": outcome_name(result),
        "code": code,
        "duration_ms": u64::try_from(checked.took.as_millis()).unwrap_or(u64::MAX),
    });
    if let Some(notes) = notes {
        detail["notes"] = json!(notes);
    }
    if let Some(flow) = checked.flow {
        detail["flow"] = json!(flow.as_str());
        if let Flow::Interrupted { page, code } = flow {
            detail["interrupted_at"] = json!({ "page": page, "code": code });
        }
    }
    detail.to_string()
}

#[cfg(test)]
#[path = "collect_result_tests.rs"]
mod tests;

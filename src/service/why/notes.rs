//! What is to be known besides what keeps a verification where it is: what may be lost, evidence, callbacks that were
//! worth nothing.

use super::words::{counted, span, time};
use super::{Situation, Statement, Who, deadlines};
use crate::clock::later;
use crate::domain::risk::half;
use crate::domain::{EvidenceKind, EvidenceState};
use crate::store::VideoWork;

/// What can be lost of an open one.
pub(super) fn at_risk(situation: &Situation<'_>) -> Vec<Statement> {
    let Situation { record, now, .. } = *situation;
    let (Some(account), Some(deadlines)) = (situation.account, deadlines(situation)) else { return Vec::new() };
    let mut all = Vec::new();
    if record.expect_video && record.hinted_at.is_some() {
        if deadlines.video <= now {
            let summary =
                format!("The provider deleted the video at {}, before a result was read.", time(deadlines.video));
            all.push(
                Statement::new("video_deadline_over", Who::Nobody, summary)
                    .next("The verdict is still collected; the video will be missed.", None),
            );
        } else if deadlines.video <= later(now, half(account.video_retention)) {
            let summary = format!("The provider deletes the video in {}.", span(deadlines.video - now));
            all.push(
                Statement::new("video_at_risk", Who::Operator, summary).next("It is deleted there.", deadlines.video),
            );
        }
    }
    if deadlines.result > now && deadlines.result <= later(now, half(account.result_retention)) {
        let summary = format!("The provider deletes the result in {}.", span(deadlines.result - now));
        all.push(
            Statement::new("result_at_risk", Who::Operator, summary)
                .remedy("Mend what keeps the check from succeeding before that.")
                .next("It ends as expired.", deadlines.result),
        );
    }
    all
}

/// What is to be known besides.
pub(super) fn notes(situation: &Situation<'_>, main: &str) -> Vec<Statement> {
    let Situation { record, .. } = *situation;
    let mut all = Vec::new();
    if record.erased_at.is_some() {
        return all;
    }
    for evidence in &record.evidence {
        let is_video = evidence.kind == EvidenceKind::Video.as_str();
        let reason = evidence.reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
        if evidence.state == EvidenceState::Missed.as_str() {
            let code = if is_video { "video_missed" } else { "image_missed" };
            let summary = format!("The {} is lost{reason}.", evidence.kind);
            all.push(Statement::new(code, Who::Nobody, summary));
        } else if evidence.state == EvidenceState::Pending.as_str() {
            all.push(pending(&evidence.kind, &reason, is_video.then_some(situation.around.video.as_ref()).flatten()));
        }
    }
    if let Some(refused) = situation.refused.filter(|_| main != "callback_token_wrong") {
        let summary = format!("{} for it came with a wrong token.", counted(refused.callbacks, "callback"));
        all.push(
            Statement::new("callback_token_wrong", Who::App, summary)
                .remedy("Register the callback_token that Initialize was given as CallbackToken."),
        );
    }
    if record.verdict.is_none() && record.hinted_at.is_none() && record.callback_at.is_some() {
        let summary = "A callback came, and there is no token to tell whether it is the provider's: it makes a check due \
                       at most every 30 seconds and starts no deadline.";
        all.push(Statement::new("callback_unauthenticated", Who::App, summary).remedy("Register a callback_token."));
    }
    let interval = situation.account.map(|account| account.pacing.poll_interval()).unwrap_or_default();
    if main == "waiting_for_person" && !interval.is_zero() {
        let summary = format!(
            "More verifications wait than the account's rate allows to poll on schedule: each is polled every {}.",
            humantime::format_duration(interval)
        );
        all.push(Statement::new("polls_stretched", Who::Operator, summary).remedy("Raise qps of the account."));
    }
    all
}

fn pending(kind: &str, reason: &str, video: Option<&VideoWork>) -> Statement {
    let Some(video) = video else {
        return Statement::new("image_pending", Who::Nobody, format!("The {kind} is not stored yet{reason}."))
            .next("It is stored, or the provider is asked for it again.", None);
    };
    let asked = if video.attempts > 0 {
        format!(" after {}", counted(u64::from(video.attempts), "attempt"))
    } else {
        String::new()
    };
    let summary =
        format!("The video is not stored yet{asked}{reason}. The provider deletes it at {}.", time(video.deadline));
    match video.due_at {
        Some(due_at) => {
            Statement::new("video_pending", Who::Provider, summary).next("The provider is asked for it again.", due_at)
        }
        None => Statement::new("video_pending", Who::Nobody, summary).next("It is being downloaded.", None),
    }
}

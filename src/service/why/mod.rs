//! Why a verification is where it is, who must act, and what happens next, in words for people and a code for programs.
//!
//! [`decide`] is the whole of the rules and does no I/O: it looks at what is stored, at the account as it is configured
//! here, and at the time. It changes nothing and promises nothing; what really happens next is decided by
//! [`super::collect_result`].

use std::fmt;

use chrono::{DateTime, TimeDelta, Utc};

use super::Service;
use super::account::{Account, Deadlines};
use super::refused::Refused;
use crate::domain::schedule::Lane;
use crate::domain::{FinalStatus, Status, Trouble, VerificationId};
use crate::store::{
    Erasure, EvidencePart, LostInitialization, ProviderPart, Record, RecordVerdict, StoreError, Surroundings, Work,
};

mod codes;
mod notes;
mod words;

pub use codes::CODES;
use notes::{at_risk, notes};
pub use words::span;
use words::{counted, sentence, time};

/// The provider's word for "the person is done, the result is not".
const PENDING: &str = "P";
/// A check that is due for longer than this waits for its turn.
const LATE: TimeDelta = TimeDelta::seconds(30);
/// What [`super::collect_result`] notes where the provider's log and its result contradict each other.
const CONTRADICTED: u32 = 1_000_000;

/// Who can move it on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// It goes on by itself, or is at its end.
    Nobody,
    /// Whose identity is checked.
    Person,
    Provider,
    /// The merchant's app.
    App,
    /// Whoever runs the service.
    Operator,
}

impl Who {
    pub const ALL: [Self; 5] = [Self::Nobody, Self::Person, Self::Provider, Self::App, Self::Operator];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Nobody => "nobody",
            Self::Person => "person",
            Self::Provider => "provider",
            Self::App => "app",
            Self::Operator => "operator",
        }
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One thing that is so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// One of [`CODES`].
    pub code: &'static str,
    pub who: Who,
    /// What is so, and why.
    pub summary: String,
    /// What whoever must act can do.
    pub remedy: Option<String>,
    /// What happens next by itself.
    pub next: Option<String>,
    /// When, where that is known.
    pub next_at: Option<DateTime<Utc>>,
}

impl Statement {
    fn new(code: &'static str, who: Who, summary: impl Into<String>) -> Self {
        Self { code, who, summary: summary.into(), remedy: None, next: None, next_at: None }
    }

    fn remedy(self, remedy: impl Into<String>) -> Self {
        Self { remedy: Some(remedy.into()), ..self }
    }

    fn next(self, next: impl Into<String>, at: impl Into<Option<DateTime<Utc>>>) -> Self {
        Self { next: Some(next.into()), next_at: at.into(), ..self }
    }
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Why {
    pub id: VerificationId,
    /// `None`: there is no verification, only a call that was to make one.
    pub status: Option<Status>,
    /// What keeps it where it is.
    pub main: Statement,
    /// What else is to be known, most important first.
    pub also: Vec<Statement>,
}

/// What is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Situation<'a> {
    pub record: &'a Record,
    pub around: &'a Surroundings,
    /// As it is configured here.
    pub account: Option<&'a Account>,
    pub erasure: Option<&'a Erasure>,
    /// What this process refused for its token.
    pub refused: Option<Refused>,
    pub now: DateTime<Utc>,
}

impl Service {
    /// `None` when the id names no verification, and no lost call of Initialize by its merchant biz id either.
    pub async fn why(&self, id: VerificationId) -> Result<Option<Why>, StoreError> {
        let Some(mut around) = self.store.surroundings(id).await? else {
            let lost = self.store.lost_initializations(Some(id.0), 1).await?;
            return Ok(lost.first().map(|lost| Why { id, status: None, main: lost_call(lost), also: Vec::new() }));
        };
        let Some(mut record) = self.store.record(id).await? else { return Ok(None) };
        // It may have moved on in between: what is open has work.
        if around.work.is_none() && !record.status.is_final() {
            around = self.store.surroundings(id).await?.unwrap_or_default();
            let Some(again) = self.store.record(id).await? else { return Ok(None) };
            record = again;
        }
        let erasure = if record.erased_at.is_some() { self.store.erasure(id).await? } else { None };
        let situation = Situation {
            record: &record,
            around: &around,
            account: self.accounts.get(&record.account).map(AsRef::as_ref),
            erasure: erasure.as_ref(),
            refused: self.callbacks.refused.of(&record.account, &record.transaction_id),
            now: self.clock.now(),
        };
        Ok(Some(decide(&situation)))
    }
}

/// Why it is where it is.
pub fn decide(situation: &Situation<'_>) -> Why {
    let record = situation.record;
    let mut all = match (&record.verdict, record.erased_at) {
        (_, Some(erased_at)) => vec![erased(situation, erased_at)],
        (Some(verdict), None) => {
            let mut all = Vec::new();
            if let Some(work) = situation.around.work.as_ref().filter(|work| work.recheck) {
                all.push(blocked(situation).unwrap_or_else(|| recheck(situation, work)));
            }
            all.push(ended(situation, verdict));
            all
        }
        (None, None) => {
            let mut all = vec![open(situation)];
            all.extend(at_risk(situation));
            all
        }
    };
    all.extend(notes(situation, all[0].code));
    let main = all.remove(0);
    Why { id: record.id, status: Some(record.status), main, also: all }
}

/// A call of Initialize that never became a verification.
pub fn lost_call(lost: &LostInitialization) -> Statement {
    Statement::new(
        "initialize_lost",
        Who::App,
        format!(
            "Initialize was called at {} and brought no usable answer ({}). The provider may have made a transaction; \
             nobody knows its id, so nobody can use it.",
            time(lost.started_at),
            lost.code
        ),
    )
    .remedy("Begin anew with a new Idempotency-Key. To ask the provider about it, name the MerchantBizId.")
}

fn deadlines(situation: &Situation<'_>) -> Option<Deadlines> {
    situation.account.map(|account| account.deadlines(situation.record.registered_at, situation.record.hinted_at))
}

fn open(situation: &Situation<'_>) -> Statement {
    let Situation { record, now, .. } = *situation;
    let Some(work) = &situation.around.work else {
        return Statement::new(
            "work_missing",
            Who::Operator,
            "It is open, and there is no work on it. That must never be.",
        )
        .remedy(
            "Run `checkback reconcile` and report what it says. POST /verifications/{id}/collect helps nothing here.",
        );
    };
    if let Some(deadlines) = deadlines(situation).filter(|deadlines| deadlines.result <= now) {
        return Statement::new(
            "deadline_over",
            Who::Nobody,
            format!("The provider kept the result until {}. That time is over.", time(deadlines.result)),
        )
        .next("It ends as expired, without another call.", now);
    }
    if work.leased {
        return running(work);
    }
    if let Some(statement) = blocked(situation) {
        return statement;
    }
    let due_at = record.due_at.unwrap_or(work.due_at);
    if due_at <= now { due(situation, work, due_at) } else { scheduled(situation, work, due_at) }
}

fn running(work: &Work) -> Statement {
    if work.lease_over {
        return Statement::new(
            "worker_lost",
            Who::Nobody,
            "Whoever was asking the provider is dead or cut off from the database.",
        )
        .next("Another worker asks again within 15 seconds.", None);
    }
    Statement::new("check_running", Who::Provider, "The provider is being asked at this moment.")
        .next("Its answer is stored, or the check is tried again; a call takes 30 seconds at most.", None)
}

/// The account keeps it from being asked about, whatever its own state is.
fn blocked(situation: &Situation<'_>) -> Option<Statement> {
    let Situation { record, now, .. } = *situation;
    let name = &record.account;
    if situation.account.is_none() {
        let statement = Statement::new(
            "account_not_configured",
            Who::Operator,
            format!("The account {name} is not in the configuration any more, so nobody asks its provider."),
        );
        return Some(statement.remedy(format!(
            "Put [accounts.{name}] back into the configuration and restart; the work goes on by itself."
        )));
    }
    let health = situation.around.health.as_ref()?;
    if let Some(failing) = &health.failing {
        let trouble = Trouble::ALL.into_iter().find(|trouble| trouble.as_str() == failing.reason);
        let code = trouble.map_or("account_failing", codes::of_trouble);
        let who = if trouble == Some(Trouble::Unreachable) { Who::Provider } else { Who::Operator };
        let summary = format!(
            "The account {name} is failing since {}: {} ({}). All its work waits.",
            time(failing.since),
            failing.reason,
            failing.code
        );
        let mut statement =
            Statement::new(code, who, summary).next("One call tries whether it is mended.", health.probe_at);
        let remedy = trouble.map_or("a newer version of the service says what this means", Trouble::remedy);
        statement.remedy = Some(sentence(remedy));
        return Some(statement);
    }
    let until = health.hold_until.filter(|until| *until > now)?;
    let statement = Statement::new(
        "throttled",
        Who::Provider,
        format!("The provider throttles the account {name}: it makes no call for {}.", span(until - now)),
    );
    Some(
        statement
            .remedy("If that happens often, set qps of the account to what the provider really allows.")
            .next("The account goes on, more slowly for a while.", until),
    )
}

fn due(situation: &Situation<'_>, work: &Work, due_at: DateTime<Utc>) -> Statement {
    let late = situation.now - due_at;
    if late < LATE {
        let heard = if situation.record.callback_at.is_some() { "A callback was accepted, and a" } else { "A" };
        return Statement::new("check_due", Who::Nobody, format!("{heard} check is due."))
            .next("The provider is asked.", due_at);
    }
    let (late, qps) = (span(late), situation.account.map_or(0, |account| account.qps));
    let remedy = "Raise qps of the account if the provider allows more; checkback_polls_wanted_per_second and \
                  checkback_oldest_due_seconds say how much is needed. If nothing is asked at all, see whether the \
                  service runs and /readyz.";
    if work.lane == Lane::Poll {
        let summary = format!(
            "Nothing was heard of it, and its poll is {late} late: {qps} calls a second are too few for all that wait, \
             and polls get what others leave."
        );
        return Statement::new("poll_late", Who::Operator, summary)
            .remedy(remedy)
            .next("It is polled in its turn, the longest due first.", None);
    }
    let summary = format!("A check is due since {late}: {qps} calls a second are too few for what is more urgent.");
    Statement::new("check_late", Who::Operator, summary)
        .remedy(remedy)
        .next("The provider is asked in its turn, the earliest deadline first.", None)
}

fn scheduled(situation: &Situation<'_>, work: &Work, due_at: DateTime<Utc>) -> Statement {
    let Situation { record, now, .. } = *situation;
    let error = record.last_error.as_deref().unwrap_or_default();
    if work.faults >= CONTRADICTED || error == PENDING {
        let summary = "The person is done, and the provider has no result yet.";
        return Statement::new("result_pending", Who::Provider, summary).next("The provider is asked again.", due_at);
    }
    if work.faults > 0 {
        let times = if work.faults == 1 { "once".to_owned() } else { format!("{} times in a row", work.faults) };
        return Statement::new("retry_scheduled", Who::Provider, format!("Asking failed {times}: {error}."))
            .next(format!("Attempt {} follows.", record.checks + 1), due_at);
    }
    if record.hinted_at.is_some() || record.callback_at.is_some() {
        if work.running == 0 {
            return Statement::new("check_due", Who::Nobody, "A callback was accepted, and a check is due.")
                .next("The provider is asked.", due_at);
        }
        let since = record
            .hinted_at
            .or(record.callback_at)
            .map_or_else(String::new, |at| format!(" It was said {} ago that the person finished.", span(now - at)));
        let summary = format!("The provider says that the flow is not completed ({error}).{since}");
        return Statement::new("not_completed", Who::Person, summary)
            .remedy("The person may have come back to the flow: they have to finish it.")
            .next("The provider is asked again.", due_at);
    }
    let last = deadlines(situation).is_some_and(|deadlines| due_at >= deadlines.give_up_at);
    let next = if last { "The last poll: without a result it ends as void." } else { "The provider is polled." };
    if let Some(refused) = situation.refused {
        let summary = format!(
            "{} for it came with a wrong token, the last {} ago, and no right one.",
            counted(refused.callbacks, "callback"),
            span(now - refused.last_at)
        );
        return Statement::new("callback_token_wrong", Who::App, summary)
            .remedy(
                "Register the callback_token that Initialize was given as CallbackToken. For this one send POST \
                 /verifications/{id}/collect.",
            )
            .next(next, due_at);
    }
    let summary = format!(
        "Registered {} ago, and nothing has said yet that the person finished.{}",
        span(now - record.registered_at),
        if record.checks > 0 {
            format!(" Polled {}.", counted(u64::from(record.checks), "time"))
        } else {
            String::new()
        }
    );
    Statement::new("waiting_for_person", Who::Person, summary)
        .remedy("If your app knows that the person is done, send POST /verifications/{id}/collect.")
        .next(next, due_at)
}

fn recheck(situation: &Situation<'_>, work: &Work) -> Statement {
    if work.leased {
        let running = running(work);
        return Statement { code: "recheck_running", ..running };
    }
    let due_at = situation.record.due_at.unwrap_or(work.due_at);
    Statement::new(
        "recheck_due",
        Who::Nobody,
        "It has a verdict, and the provider is asked again: for evidence, or because somebody wished so.",
    )
    .next("Another answer becomes a new revision.", due_at)
}

/// What ended it.
fn ended(situation: &Situation<'_>, verdict: &RecordVerdict) -> Statement {
    let reason = verdict.reason.as_deref().unwrap_or("Its reason was destroyed.");
    let code = match &verdict.sub_code {
        Some(code) if !reason.contains(code.as_str()) => format!(" ({code})"),
        _ => String::new(),
    };
    let say = |code_name, who, what: &str| Statement::new(code_name, who, format!("{what}: {reason}{code}"));
    let begin_anew = "Begin a new transaction with the person if you still need a verdict.";
    match verdict.status {
        FinalStatus::Passed => say("passed", Who::Nobody, "The provider says passed"),
        FinalStatus::Failed => say("failed", Who::Nobody, "The provider says failed"),
        FinalStatus::Review => say("review", Who::App, "The provider leaves it to you")
            .remedy("Look at the evidence and decide; the provider will not."),
        FinalStatus::Void if verdict.sub_code.is_some() => {
            say("void_ended", Who::App, "The flow ended without an outcome").remedy(begin_anew)
        }
        FinalStatus::Void => say("void_not_completed", Who::Person, "Nobody completed it")
            .remedy(begin_anew)
            .next("A callback, or POST /verifications/{id}/collect, has the provider asked once more.", None),
        FinalStatus::Expired => say("expired", Who::Operator, "Lost").remedy(format!(
            "Find out why no check succeeded until {}: the history says. {begin_anew}",
            time(deadlines(situation).map_or(verdict.decided_at, |deadlines| deadlines.result))
        )),
        FinalStatus::Unresolvable => say("unresolvable", Who::App, "The provider gives no result").remedy(
            "See that account and transaction_id are what the provider gave. When that is mended there, POST \
             /verifications/{id}/collect with {\"recheck\":true} asks again.",
        ),
    }
}

fn erased(situation: &Situation<'_>, erased_at: DateTime<Utc>) -> Statement {
    let at = time(erased_at);
    let pending = situation.erasure.and_then(|erasure| Some((erasure, erasure.due_at?)));
    let Some((erasure, due_at)) = pending else {
        return Statement::new(
            "erased",
            Who::Nobody,
            format!("It was erased at {at}; only ids, status and times are left."),
        );
    };
    let part = |place: &str, reason: Option<&String>| {
        format!("the {place}{}", reason.map(|reason| format!(" ({reason})")).unwrap_or_default())
    };
    let mut parts = Vec::new();
    let mut who = Who::Nobody;
    if erasure.evidence == EvidencePart::Pending {
        parts.push(part("evidence store", erasure.evidence_reason.as_ref()));
        who = Who::Operator;
    }
    if erasure.provider == ProviderPart::Pending {
        parts.push(part("provider", erasure.provider_reason.as_ref()));
        who = if situation.account.is_none() { Who::Operator } else { Who::Provider };
    }
    if erasure.attempts == 0 {
        who = Who::Nobody;
    }
    let summary = format!("It was erased here at {at}; still to be deleted at {}.", parts.join(" and "));
    Statement::new("erasing", who, summary).next(format!("Attempt {} follows.", erasure.attempts + 1), due_at)
}

#[cfg(test)]
mod tests;

//! Situations, each with the one code, who must act, and when what comes next comes.

use std::time::Duration;

use serde_json::value::RawValue;
use uuid::Uuid;

use super::super::testing::{account, start};
use super::Who::{App, Operator};
use super::*;
use crate::domain::{EvidenceKind, EvidenceState};
use crate::store::{AccountHealth, Destroyed, Failing, RecordEvidence, VideoWork};

/// A verification that was registered at the start; `now` is ten minutes later.
struct Case {
    record: Record,
    around: Surroundings,
    account: Option<Account>,
    erasure: Option<Erasure>,
    refused: Option<Refused>,
    now: DateTime<Utc>,
}

fn at(seconds: i64) -> DateTime<Utc> {
    start() + TimeDelta::seconds(seconds)
}

const NOW: i64 = 600;

fn waiting() -> Case {
    let record = Record {
        id: VerificationId(Uuid::from_u128(1)),
        account: "alibaba-sg".into(),
        transaction_id: "t".into(),
        merchant_biz_id: "b".into(),
        product: None,
        expect_video: false,
        metadata: None,
        registered_at: start(),
        status: Status::Waiting,
        verdict: None,
        callback_at: None,
        hinted_at: None,
        checks: 1,
        due_at: Some(at(900)),
        checking: false,
        last_error: Some("ProcessNotCompleted".into()),
        erased_at: None,
        evidence: Vec::new(),
    };
    let work = Work {
        lane: Lane::Poll,
        due_at: at(900),
        recheck: false,
        running: 1,
        faults: 0,
        leased: false,
        lease_over: false,
    };
    let health = AccountHealth { account: "alibaba-sg".into(), failing: None, hold_until: None, probe_at: None };
    let around = Surroundings { work: Some(work), video: None, health: Some(health) };
    Case { record, around, account: Some(account()), erasure: None, refused: None, now: at(NOW) }
}

fn collecting() -> Case {
    let mut case = waiting();
    case.record.status = Status::Collecting;
    case.record.callback_at = Some(at(540));
    case.record.hinted_at = Some(at(540));
    case.work().lane = Lane::Retry;
    case
}

fn ended(status: FinalStatus, sub_code: Option<&str>, reason: &str) -> Case {
    let mut case = collecting();
    case.around.work = None;
    case.record.due_at = None;
    case.record.status = Status::Final(status);
    let nothing = || RawValue::from_string("{}".into()).unwrap();
    case.record.verdict = Some(RecordVerdict {
        revision: 1,
        status,
        sub_code: sub_code.map(Into::into),
        reason: Some(reason.into()),
        scores: nothing(),
        signals: nothing(),
        decided_at: at(560),
    });
    case
}

fn passed() -> Case {
    ended(FinalStatus::Passed, Some("200"), "Authentication passed.")
}

impl Case {
    fn work(&mut self) -> &mut Work {
        self.around.work.as_mut().unwrap()
    }

    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    fn due(self, seconds: i64) -> Self {
        self.with(|case| {
            case.record.due_at = Some(at(seconds));
            case.work().due_at = at(seconds);
        })
    }

    fn failing(self, reason: &str) -> Self {
        self.with(|case| {
            let health = case.around.health.as_mut().unwrap();
            health.failing = Some(Failing { since: at(100), reason: reason.into(), code: "Code.Of.It".into() });
            health.probe_at = Some(at(630));
        })
    }

    fn evidence(self, kind: EvidenceKind, state: EvidenceState, reason: &str) -> Self {
        self.with(|case| {
            case.record.evidence.push(RecordEvidence {
                kind: kind.to_string(),
                state: state.to_string(),
                content_type: None,
                bytes: None,
                sha256: None,
                stored_at: None,
                reason: Some(reason.into()),
            });
        })
    }

    fn decide(&self) -> Why {
        decide(&Situation {
            record: &self.record,
            around: &self.around,
            account: self.account.as_ref(),
            erasure: self.erasure.as_ref(),
            refused: self.refused,
            now: self.now,
        })
    }
}

fn erased(pending: Option<(EvidencePart, ProviderPart)>) -> Case {
    ended(FinalStatus::Void, None, "erased").with(|case| {
        case.record.erased_at = Some(at(570));
        let (evidence, provider) = pending.unwrap_or((EvidencePart::Destroyed, ProviderPart::Destroyed));
        case.erasure = Some(Erasure {
            id: case.record.id,
            erased_at: at(570),
            by: None,
            reason: None,
            destroyed: Destroyed::default(),
            evidence,
            evidence_objects: 0,
            evidence_reason: None,
            evidence_at: None,
            provider,
            provider_reason: Some("the account is not in the configuration".into()),
            provider_at: None,
            attempts: 1,
            due_at: pending.map(|_| at(640)),
        });
    })
}

/// Code, who, when it goes on, and a piece of what is said.
type Expected = (&'static str, Who, Option<i64>, &'static str);

fn cases() -> Vec<(Case, Expected)> {
    use Who::{App, Nobody, Operator, Person, Provider};
    let refused = Some(Refused { callbacks: 3, last_at: at(590) });
    let work = |change: fn(&mut Work)| collecting().with(|case| change(case.work()));
    vec![
        (waiting(), ("waiting_for_person", Person, Some(900), "Registered 10m ago")),
        (waiting().with(|case| case.refused = refused), ("callback_token_wrong", App, Some(900), "3 callbacks")),
        (waiting().due(540), ("poll_late", Operator, None, "1m late: 10 calls a second are too few")),
        (waiting().due(590), ("check_due", Nobody, Some(590), "A check is due")),
        (collecting().due(600), ("check_due", Nobody, Some(600), "A callback was accepted")),
        (collecting().due(500), ("check_late", Operator, None, "due since 1m 40s")),
        (work(|work| work.leased = true), ("check_running", Provider, None, "at this moment")),
        (
            work(|work| {
                work.leased = true;
                work.lease_over = true;
            }),
            ("worker_lost", Nobody, None, "dead or cut off"),
        ),
        (
            collecting().with(|case| {
                case.work().faults = 4;
                case.record.last_error = Some("the provider could not be asked: 503 (http_503)".into());
            }),
            ("retry_scheduled", Provider, Some(900), "failed 4 times in a row: the provider could not be asked: 503"),
        ),
        (
            collecting().with(|case| case.around.health.as_mut().unwrap().hold_until = Some(at(660))),
            ("throttled", Provider, Some(660), "no call for 1m"),
        ),
        (collecting(), ("not_completed", Person, Some(900), "not completed (ProcessNotCompleted). It was said 1m ago")),
        (
            collecting().with(|case| case.record.last_error = Some("P".into())),
            ("result_pending", Provider, Some(900), "no result yet"),
        ),
        (work(|work| work.faults = 1_000_000), ("result_pending", Provider, Some(900), "no result yet")),
        (collecting().failing("no_credentials"), ("account_no_credentials", Operator, Some(630), "Code.Of.It")),
        (collecting().failing("bad_key"), ("account_bad_key", Operator, Some(630), "failing since")),
        (waiting().failing("bad_signature"), ("account_bad_signature", Operator, Some(630), "bad_signature")),
        (waiting().failing("no_permission"), ("account_no_permission", Operator, Some(630), "All its work waits")),
        (waiting().failing("not_activated"), ("account_not_activated", Operator, Some(630), "not_activated")),
        (waiting().failing("clock_skew"), ("account_clock_skew", Operator, Some(630), "clock_skew")),
        (waiting().failing("configuration"), ("account_configuration", Operator, Some(630), "configuration")),
        (waiting().failing("unreachable"), ("account_unreachable", Provider, Some(630), "unreachable")),
        (waiting().failing("of a later version"), ("account_failing", Operator, Some(630), "of a later version")),
        (
            waiting().with(|case| case.account = None),
            ("account_not_configured", Operator, None, "alibaba-sg is not in the configuration"),
        ),
        (
            collecting().with(|case| case.now = at(540 + 30 * 86_400)),
            ("deadline_over", Nobody, Some(540 + 30 * 86_400), "That time is over"),
        ),
        (collecting().with(|case| case.around.work = None), ("work_missing", Operator, None, "no work on it")),
        (
            passed().with(|case| {
                case.around.work = collecting().around.work;
                case.work().recheck = true;
                case.record.due_at = Some(at(700));
            }),
            ("recheck_due", Nobody, Some(700), "asked again"),
        ),
        (
            passed().with(|case| {
                case.around.work = collecting().around.work;
                case.work().recheck = true;
                case.work().leased = true;
            }),
            ("recheck_running", Provider, None, "at this moment"),
        ),
        (passed(), ("passed", Nobody, None, "passed: Authentication passed. (200)")),
        (
            ended(FinalStatus::Failed, Some("204"), "Not the same person."),
            ("failed", Nobody, None, "failed: Not the same person. (204)"),
        ),
        (ended(FinalStatus::Review, None, "Look at it."), ("review", App, None, "leaves it to you: Look at it.")),
        (
            ended(FinalStatus::Void, None, "The person did not complete the check within 1day of its registration."),
            ("void_not_completed", Person, None, "did not complete"),
        ),
        (
            ended(FinalStatus::Void, Some("VoidTimeout"), "The flow timed out."),
            ("void_ended", App, None, "without an outcome: The flow timed out. (VoidTimeout)"),
        ),
        (ended(FinalStatus::Expired, None, "That time is over."), ("expired", Operator, None, "Lost: That time")),
        (
            ended(FinalStatus::Unresolvable, None, "The provider refuses this transaction: unknown (x)."),
            ("unresolvable", App, None, "gives no result: The provider refuses"),
        ),
        (
            erased(Some((EvidencePart::Destroyed, ProviderPart::Pending))),
            ("erasing", Provider, Some(640), "the provider (the account is not"),
        ),
        (
            erased(Some((EvidencePart::Pending, ProviderPart::Destroyed))),
            ("erasing", Operator, Some(640), "the evidence store"),
        ),
        (erased(None), ("erased", Nobody, None, "only ids, status and times")),
    ]
}

#[test]
fn every_situation_has_its_answer() {
    let cases = cases();
    assert!(cases.len() >= 30);
    for (case, (code, who, next_at, piece)) in cases {
        let Why { main, .. } = case.decide();
        assert_eq!((main.code, main.who, main.next_at), (code, who, next_at.map(at)), "{main:?}");
        assert!(main.summary.contains(piece), "{code}: {}", main.summary);
        assert!(CODES.contains(&main.code), "{code}");
        // Who must act is told what to do.
        assert!(!matches!(main.who, Operator | App) || main.remedy.is_some() || main.code == "erasing", "{main:?}");
    }
}

#[test]
fn what_else_is_to_be_known_is_told_beside() {
    let video = |due_at: Option<i64>| VideoWork { deadline: at(2400), attempts: 2, due_at: due_at.map(at) };
    let expecting = || collecting().with(|case| case.record.expect_video = true);
    let beside: Vec<(Case, &str, Who, &str)> = vec![
        (
            passed().evidence(EvidenceKind::Video, EvidenceState::Pending, "the link answered 403").with(|case| {
                case.around.video = Some(video(Some(700)));
            }),
            "video_pending",
            Who::Provider,
            "after 2 attempts: the link answered 403",
        ),
        (
            passed().evidence(EvidenceKind::Video, EvidenceState::Missed, "the 30 minutes were over"),
            "video_missed",
            Who::Nobody,
            "The video is lost: the 30 minutes",
        ),
        (
            passed().evidence(EvidenceKind::FaceImage, EvidenceState::Pending, "no room"),
            "image_pending",
            Who::Nobody,
            "face_image is not stored yet: no room",
        ),
        (
            passed().evidence(EvidenceKind::FaceImage, EvidenceState::Missed, "the image is no Base64"),
            "image_missed",
            Who::Nobody,
            "no Base64",
        ),
        (expecting().with(|case| case.now = at(540 + 1200)), "video_at_risk", Operator, "deletes the video in 10m"),
        (expecting().with(|case| case.now = at(540 + 1800)), "video_deadline_over", Who::Nobody, "deleted the video"),
        (
            collecting().with(|case| case.now = at(540 + 29 * 86_400)),
            "result_at_risk",
            Operator,
            "deletes the result in 1d",
        ),
        (
            collecting().with(|case| case.refused = Some(Refused { callbacks: 1, last_at: at(500) })),
            "callback_token_wrong",
            App,
            "1 callback for it",
        ),
        (collecting().with(|case| case.record.hinted_at = None), "callback_unauthenticated", App, "every 30 seconds"),
        (
            waiting().with(|case| {
                case.account.as_ref().unwrap().pacing.set_poll_interval(Duration::from_mins(42));
            }),
            "polls_stretched",
            Operator,
            "every 42m",
        ),
        (
            passed().failing("bad_key").with(|case| {
                case.around.work = collecting().around.work;
                case.work().recheck = true;
            }),
            "passed",
            Who::Nobody,
            "Authentication passed",
        ),
    ];
    for (case, code, who, piece) in beside {
        let why = case.decide();
        let found = why.also.iter().find(|statement| statement.code == code);
        let found = found.unwrap_or_else(|| panic!("{code} is not in {why:?}"));
        assert!(found.who == who && found.summary.contains(piece), "{found:?}");
        assert!(CODES.contains(&found.code));
    }
    assert_eq!(waiting().decide().also, [], "nothing is said that is not to be known");
}

#[test]
fn a_recheck_that_cannot_be_made_says_why() {
    let case = passed().failing("bad_key").with(|case| {
        case.around.work = collecting().around.work;
        case.work().recheck = true;
    });
    assert_eq!(case.decide().main.code, "account_bad_key");
}

#[test]
fn the_last_poll_is_called_so() {
    let case = waiting().due(86_400);
    assert!(case.decide().main.next.unwrap().contains("ends as void"));
}

#[test]
fn every_code_is_there_once() {
    let mut codes = CODES.to_vec();
    codes.sort_unstable();
    codes.dedup();
    assert_eq!(codes.len(), CODES.len());
    for trouble in Trouble::ALL {
        assert!(CODES.contains(&codes::of_trouble(trouble)));
    }
    let lost = LostInitialization {
        account: "a".into(),
        merchant_biz_id: "b".into(),
        started_at: start(),
        code: "http_502".into(),
    };
    let statement = lost_call(&lost);
    assert!(CODES.contains(&statement.code) && statement.summary.contains("http_502"));
}

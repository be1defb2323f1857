use std::collections::BTreeMap;

use chrono::TimeDelta;
use serde_json::Map;

use super::*;
use crate::domain::{Finding, FoundEvidence};
use crate::service::testing::{account, job, start};

fn after(job: &LeasedJob, result: Result<Outcome, ProviderError>, hours: i64) -> Decision {
    let at = start() + TimeDelta::hours(hours);
    decide(&account(), job, result, Checked { at, took: Duration::from_millis(12), fraction: 1.0, flow: None })
}

fn not_completed() -> Outcome {
    Outcome::Running("ProcessNotCompleted".into())
}

fn unavailable() -> ProviderError {
    ProviderError::Unavailable { code: "InternalError".into(), reason: "fault".into() }
}

fn expect_open(decision: Decision) -> CheckedOpen {
    match decision {
        Decision::Open(open) => open,
        Decision::Final(end) => panic!("ended as {}", end.status),
    }
}

fn expect_final(decision: Decision) -> CheckedFinal {
    match decision {
        Decision::Final(end) => end,
        Decision::Open(open) => panic!("open until {}", open.due_at),
    }
}

#[test]
fn a_result_is_final_and_replaces_what_was_there() {
    let finding = Finding {
        status: FinalStatus::Failed,
        sub_code: Some("204".into()),
        reason: "The faces differ.".into(),
        scores: BTreeMap::from([("face_comparison".into(), 12.5)]),
        signals: Map::new(),
        answer: "{}".into(),
        notes: vec!["faceQuality is no number".into()],
        evidence: FoundEvidence::default(),
    };
    let end = expect_final(after(&job(true), Ok(Outcome::Finished(Box::new(finding))), 0));
    assert_eq!((end.status, end.sub_code.as_deref(), end.replaces), (FinalStatus::Failed, Some("204"), true));
    assert_eq!(end.scores, r#"{"face_comparison":12.5}"#);
    let detail: serde_json::Value = serde_json::from_str(&end.check_detail.unwrap()).unwrap();
    assert_eq!(
        detail,
        json!({"attempt": 4, "outcome": "finished", "code": "204", "duration_ms": 12,
               "notes": ["faceQuality is no number"]})
    );
}

#[test]
fn an_unfinished_flow_is_void_only_when_it_is_given_up() {
    let open = expect_open(after(&job(false), Ok(not_completed()), 23));
    assert_eq!(open.due_at, start() + TimeDelta::minutes(23 * 60 + 10));
    let last = expect_open(after(&LeasedJob { running: 9, ..job(false) }, Ok(not_completed()), 23));
    assert_eq!(last.due_at, start() + TimeDelta::hours(24), "the last poll is when the flow is given up");
    let end = expect_final(after(&job(false), Ok(not_completed()), 24));
    assert_eq!((end.status, end.replaces), (FinalStatus::Void, false));
}

#[test]
fn a_flow_that_is_given_up_tells_how_far_the_person_came() {
    let at = start() + TimeDelta::hours(24);
    let interrupted = Flow::Interrupted { page: Some("FACE".into()), code: Some("1003".into()) };
    let checked = Checked { at, took: Duration::ZERO, fraction: 1.0, flow: Some(&interrupted) };
    let end = expect_final(decide(&account(), &job(false), Ok(not_completed()), checked));
    assert_eq!(
        end.reason,
        "The person did not complete the check within 1day of its registration. The flow was interrupted at the page \
         FACE (code 1003)."
    );
    let detail: serde_json::Value = serde_json::from_str(&end.check_detail.unwrap()).unwrap();
    assert_eq!(
        (&detail["flow"], &detail["interrupted_at"]),
        (&json!("interrupted"), &json!({"page": "FACE", "code": "1003"}))
    );
    // What should be finished is asked about once more, and then that is said no more.
    let checked = Checked { flow: Some(&Flow::Finished), ..checked };
    let open = expect_open(decide(&account(), &job(false), Ok(not_completed()), checked));
    assert_eq!((open.lane, open.due_at), (Some(Lane::Retry), at));
    let again = LeasedJob { faults: open.faults, ..job(false) };
    assert!(!gives_up(&account(), &again, &Ok(not_completed()), at));
    assert_eq!(expect_final(after(&again, Ok(not_completed()), 24)).status, FinalStatus::Void);
    let given_up = |job: &LeasedJob, result: &_| gives_up(&account(), job, result, at);
    assert!(given_up(&job(false), &Ok(not_completed())));
    assert!(!given_up(&job(false), &Ok(Outcome::Running("P".into()))) && !given_up(&job(false), &Err(unavailable())));
    assert!(!given_up(&LeasedJob { recheck: true, ..job(false) }, &Ok(not_completed())));
    assert!(!gives_up(&account(), &job(false), &Ok(not_completed()), start()));
}

#[test]
fn a_pending_result_is_waited_for_until_its_deadline() {
    let open = expect_open(after(&LeasedJob { running: 20, ..job(true) }, Ok(Outcome::Running("P".into())), 100));
    assert_eq!(open.due_at, start() + TimeDelta::hours(106));
    let last = expect_open(after(&LeasedJob { running: 20, ..job(true) }, Ok(Outcome::Running("P".into())), 719));
    assert_eq!(last.due_at, start() + TimeDelta::days(30));
}

#[test]
fn nothing_is_attempted_after_the_deadline() {
    let hinted = job(true);
    assert!(expire(&account(), &hinted, start() + TimeDelta::days(30) - TimeDelta::seconds(1)).is_none());
    let end = expire(&account(), &hinted, start() + TimeDelta::days(30)).unwrap();
    assert_eq!((end.status, end.check_detail), (FinalStatus::Expired, None));
    assert!(expire(&account(), &job(false), start() + TimeDelta::days(30)).is_none());
    assert!(expire(&account(), &job(false), start() + TimeDelta::days(31)).is_some());
}

#[test]
fn faults_are_retried_with_growing_waits_in_their_own_lane() {
    let open = expect_open(after(&LeasedJob { faults: 4, ..job(true) }, Err(unavailable()), 0));
    assert_eq!((open.lane, open.due_at, open.faults), (Some(Lane::Retry), start() + TimeDelta::seconds(16), 5));
    assert_eq!(expect_open(after(&job(false), Err(unavailable()), 0)).lane, Some(Lane::Poll));
}

#[test]
fn while_a_video_can_be_had_retries_stay_in_its_lane() {
    let video = LeasedJob { expect_video: true, ..job(true) };
    for result in [Err(unavailable()), Ok(not_completed())] {
        assert_eq!(expect_open(after(&video, result, 0)).lane, Some(Lane::Video));
    }
    assert_eq!(expect_open(after(&video, Err(unavailable()), 1)).lane, Some(Lane::Retry), "its 30 minutes are over");
    let unheard = LeasedJob { expect_video: true, ..job(false) };
    assert_eq!(expect_open(after(&unheard, Err(unavailable()), 0)).lane, Some(Lane::Poll));
}

#[test]
fn while_a_video_can_be_had_no_wait_takes_more_than_a_quarter_of_what_is_left() {
    let video = LeasedJob { expect_video: true, faults: 12, running: 12, ..job(true) };
    let decided = |job: &LeasedJob, result, seconds: i64| {
        let at = start() + TimeDelta::seconds(seconds);
        let checked = Checked { at, took: Duration::ZERO, fraction: 1.0, flow: None };
        let open = expect_open(decide(&account(), job, result, checked));
        (open.lane, (open.due_at - at).num_seconds())
    };
    for result in [|| Err(unavailable()), || Ok(not_completed())] {
        // Of 30 minutes.
        assert_eq!(decided(&video, result(), 0), (Some(Lane::Video), 450));
        assert_eq!(decided(&video, result(), 1200), (Some(Lane::Video), 150));
        assert_eq!(decided(&video, result(), 1795), (Some(Lane::Video), 2));
    }
    assert_eq!(decided(&video, Err(unavailable()), 1799), (Some(Lane::Retry), 600));
}

#[test]
fn polls_that_the_budget_cannot_make_in_time_are_planned_further_apart() {
    let account = account();
    account.pacing.set_poll_interval(Duration::from_hours(2));
    let wait = |running, hours: i64| {
        let at = start() + TimeDelta::hours(hours);
        let checked = Checked { at, took: Duration::ZERO, fraction: 1.0, flow: None };
        let job = LeasedJob { running, ..job(false) };
        (expect_open(decide(&account, &job, Ok(not_completed()), checked)).due_at - at).num_minutes()
    };
    assert_eq!(wait(0, 1), 120, "by the schedule, ten minutes");
    assert_eq!(wait(9, 1), 360, "which is longer than needed");
    assert_eq!(wait(0, 23), 60, "the last one is when the flow is given up");
    assert_eq!(account.first_poll_at(start()), start() + TimeDelta::hours(2));
}

#[test]
fn trouble_of_the_account_costs_the_verification_nothing() {
    let errors = [
        ProviderError::Throttled { code: "Throttling.User".into(), retry_after: None },
        ProviderError::Account { trouble: Trouble::BadKey, code: "InvalidAccessKeyId.NotFound".into() },
    ];
    for error in errors {
        let open = expect_open(after(&LeasedJob { faults: 2, running: 1, ..job(true) }, Err(error), 0));
        assert_eq!((open.lane, open.due_at, open.faults, open.running), (None, start(), 2, 1));
    }
}

#[test]
fn a_refused_transaction_is_unresolvable() {
    let refused = ProviderError::Refused { code: "TransactionIdInvalid".into(), reason: "it is unknown".into() };
    let end = expect_final(after(&job(true), Err(refused), 0));
    assert_eq!((end.status, end.last_error.as_deref()), (FinalStatus::Unresolvable, Some("TransactionIdInvalid")));
}

#[test]
fn a_recheck_without_a_result_ends_and_replaces_nothing() {
    let recheck = LeasedJob { recheck: true, ..job(true) };
    assert!(!expect_final(after(&recheck, Ok(not_completed()), 0)).replaces);
    assert_eq!(expect_open(after(&recheck, Err(unavailable()), 0)).lane, Some(Lane::Retry));
    let in_bulk = LeasedJob { lane: Lane::Poll, ..recheck };
    assert_eq!(expect_open(after(&in_bulk, Err(unavailable()), 0)).lane, Some(Lane::Poll));
}

#[test]
fn debug_output_of_a_decision_shows_nothing_of_the_answer() {
    let finding = Finding {
        status: FinalStatus::Passed,
        sub_code: Some("200".into()),
        reason: "Authentication passed.".into(),
        scores: BTreeMap::from([("face_comparison".into(), 98.7654)]),
        signals: Map::from_iter([("face_registration_id".to_owned(), "CANARY-FACE".into())]),
        answer: "CANARY-DOCUMENT".into(),
        notes: vec![],
        evidence: FoundEvidence::default(),
    };
    let shown = format!("{:?}", after(&job(true), Ok(Outcome::Finished(Box::new(finding))), 0));
    assert!(shown.contains("Passed"));
    for secret in ["CANARY", "98.7654"] {
        assert!(!shown.contains(secret), "{secret} in {shown}");
    }
}

//! When the provider is asked: each row of the schedule, with real database and simulator and a clock moved by hand.
#![expect(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

use std::time::Duration;

use checkback::simulator::{Answer, Complete, CreateTransaction, Fault, FaultKind};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

use super::support::app::{ACCOUNT, Setup, TestApp, time};

const TOKEN: &str = "the-right-token-of-this";
const SECOND: Duration = Duration::from_secs(1);

fn minutes(minutes: i64) -> TimeDelta {
    TimeDelta::minutes(minutes)
}

fn with_token() -> Value {
    json!({ "callback_token": TOKEN })
}

async fn with(account: &str) -> TestApp {
    TestApp::with(Setup { account: format!("qps = 100000\n{account}"), ..Setup::default() }).await
}

fn due(body: &Value) -> DateTime<Utc> {
    time(&body["next_attempt_at"])
}

fn kind(kind: FaultKind) -> Fault {
    Fault { operation: Some("CheckResult".into()), kind, share: Some(1.0), ..Fault::default() }
}

/// A flow that nobody finishes; asking about it makes the service look at what is due.
async fn canary(test: &TestApp) -> String {
    test.begin(CreateTransaction::default(), json!({})).await.1
}

/// Lets the service look at what is due at the present time: returns when another check was made on demand.
async fn look(test: &TestApp, canary: &str) {
    let before = test.verification(canary).await["attempts"].as_u64().unwrap();
    test.collect(canary).await;
    test.attempted(canary, before + 1).await;
}

#[tokio::test]
async fn without_a_callback_polls_double_until_the_flow_is_given_up() {
    let test = TestApp::start().await;
    let (_, id) = test.begin(CreateTransaction::default(), json!({})).await;
    let registered = time(&test.verification(&id).await["registered_at"]);
    let canary = canary(&test).await;
    // 5 minutes, then twice as long each time, at most 6 hours; the last one when the 24 hours are over.
    let polls = [5, 15, 35, 75, 155, 315, 635, 995, 1355, 1440];
    for (number, poll) in (0..).zip(polls) {
        let body = test.attempted(&id, number).await;
        assert_eq!((&body["status"], due(&body) - registered), (&json!("waiting"), minutes(poll)));
        test.advance_to(registered + minutes(poll) - TimeDelta::seconds(1)).await;
        look(&test, &canary).await;
        test.advance(SECOND);
        test.attempted(&id, number + 1).await;
    }
    let body = test.final_verification(&id).await;
    assert_eq!(
        (&body["status"], &body["revision"], &body["next_attempt_at"]),
        (&json!("void"), &json!(1), &Value::Null)
    );
    assert_eq!(time(&body["final_at"]) - registered, minutes(1440));
    assert!(body["reason"].as_str().unwrap().contains("1day"), "{body}");
    let asked: Vec<_> = test.checks(&id).await.into_iter().map(|(at, _)| at - registered).collect();
    assert_eq!(asked, polls.map(minutes));
}

#[tokio::test]
async fn a_lost_callback_delays_a_verdict_and_does_not_lose_it() {
    let test = TestApp::start().await;
    let (transaction, id) = test.begin(CreateTransaction::default(), json!({})).await;
    test.simulator.complete(&transaction, Complete { callbacks: Some(0), ..Complete::default() }).await.unwrap();
    test.advance(Duration::from_mins(5));
    let body = test.final_verification(&id).await;
    assert_eq!((&body["status"], &body["callback_at"]), (&json!("passed"), &Value::Null));
}

#[tokio::test]
async fn after_a_callback_the_short_steps_come_first_then_the_polls() {
    let test = TestApp::start().await;
    let (transaction, id) = test.begin(CreateTransaction::default(), with_token()).await;
    let canary = canary(&test).await;
    test.advance(Duration::from_secs(100));
    assert_eq!(test.callback(&transaction, Some(TOKEN)).await.status(), 200);
    let start = test.clock.now();
    let mut expected = TimeDelta::zero();
    for (asked, wait) in (1..).zip([2, 5, 10, 30, 60, 120, 300, 600, 1200]) {
        let body = test.attempted(&id, asked).await;
        assert_eq!((&body["status"], &body["last_error"]), (&json!("collecting"), &json!("ProcessNotCompleted")));
        expected += TimeDelta::seconds(wait);
        assert_eq!(due(&body) - start, expected, "after {asked}");
        test.advance_to(start + expected - TimeDelta::seconds(1)).await;
        look(&test, &canary).await;
        test.advance(SECOND);
    }
    test.attempted(&id, 10).await;
    test.simulator.complete(&transaction, Complete::default()).await.unwrap();
    test.advance(Duration::from_hours(6));
    let body = test.final_verification(&id).await;
    assert_eq!((&body["status"], &body["attempts"]), (&json!("passed"), &json!(11)));
}

#[tokio::test]
async fn collect_asks_now_and_starts_the_schedule_anew() {
    let test = TestApp::start().await;
    let (_, id) = test.begin(CreateTransaction::default(), json!({})).await;
    test.advance(Duration::from_mins(5));
    test.attempted(&id, 1).await;
    for (attempts, seconds) in [(2, 2), (3, 5)] {
        if attempts == 2 {
            test.collect(&id).await;
        }
        let body = test.attempted(&id, attempts).await;
        assert_eq!(due(&body) - test.clock.now(), TimeDelta::seconds(seconds));
        test.advance(Duration::from_secs(seconds.unsigned_abs()));
    }
    let body = test.attempted(&id, 4).await;
    assert_eq!(due(&body) - test.clock.now(), TimeDelta::seconds(10));
    test.collect(&id).await;
    let body = test.attempted(&id, 5).await;
    assert_eq!(due(&body) - test.clock.now(), TimeDelta::seconds(2));
}

#[tokio::test]
async fn a_callback_without_any_token_asks_at_most_every_thirty_seconds_and_restarts_nothing() {
    let test = TestApp::start().await;
    let (transaction, id) = test.begin(CreateTransaction::default(), json!({})).await;
    let canary = canary(&test).await;
    let deadline = test.verification(&id).await["deadlines"]["result"].clone();
    assert_eq!(test.callback(&transaction, None).await.status(), 200);
    test.attempted(&id, 1).await;
    let start = test.clock.now();
    for seconds in [0, 2, 5, 12, 29] {
        test.advance_to(start + TimeDelta::seconds(seconds)).await;
        assert_eq!(test.callback(&transaction, None).await.status(), 200);
        look(&test, &canary).await;
        look(&test, &canary).await;
    }
    // The running schedule went on: asked at 0, 2, 7 and 17 seconds, whatever the callbacks said.
    let body = test.attempted(&id, 3).await;
    let asked: Vec<_> = test.checks(&id).await.into_iter().map(|(at, _)| (at - start).num_seconds()).collect();
    assert_eq!(asked, [0, 2, 12, 29], "{body}");
    test.advance_to(start + TimeDelta::seconds(31)).await;
    assert_eq!(test.callback(&transaction, None).await.status(), 200);
    let body = test.attempted(&id, 5).await;
    assert_eq!(due(&body) - test.clock.now(), TimeDelta::seconds(60), "the fifth step follows");
    assert_eq!(body["deadlines"]["result"], deadline, "no deadline moves without authentication");
}

#[tokio::test]
async fn faults_back_off_with_jitter_until_the_deadline_and_then_it_is_expired() {
    let test = with("result_retention = \"40m\"").await;
    let kinds = [FaultKind::Status, FaultKind::Garbage, FaultKind::CutOff, FaultKind::Html, FaultKind::Empty];
    let (transaction, id) = test.begin(CreateTransaction::default(), with_token()).await;
    test.simulator.complete(&transaction, Complete { callbacks: Some(0), ..Complete::default() }).await.unwrap();
    test.simulator.add_fault(kind(kinds[0])).unwrap();
    assert_eq!(test.callback(&transaction, Some(TOKEN)).await.status(), 200);
    let deadline = time(&test.verification(&id).await["deadlines"]["result"]);
    assert_eq!(deadline, test.clock.now() + minutes(40));
    let mut attempts = 0;
    loop {
        let body = test
            .until("another attempt or the end", async || {
                let body = test.verification(&id).await;
                (body["attempts"].as_u64().unwrap() > attempts || body["final"] == true).then_some(body)
            })
            .await;
        if body["final"] == true {
            break;
        }
        attempts = body["attempts"].as_u64().unwrap();
        assert_eq!(body["status"], "collecting");
        let wait = due(&body) - test.checks(&id).await.last().unwrap().0;
        let most = TimeDelta::seconds(1 << (attempts - 1).min(16)).min(minutes(10));
        assert!(wait >= TimeDelta::zero() && wait <= most, "{wait} after {attempts}");
        assert!(due(&body) <= deadline);
        test.simulator.clear_faults();
        test.simulator.add_fault(kind(kinds[usize::try_from(attempts).unwrap() % kinds.len()])).unwrap();
        test.advance_to(due(&body)).await;
    }
    let body = test.verification(&id).await;
    assert_eq!((&body["status"], time(&body["final_at"])), (&json!("expired"), deadline));
    let checks = test.checks(&id).await;
    assert!(checks.iter().all(|(at, outcome)| *at < deadline && outcome == "unavailable"), "{checks:?}");
    assert!(checks.len() >= 8, "{checks:?}");
    assert_eq!(test.calls_for("CheckResult", &transaction), checks.len(), "nothing is asked at the deadline");
    assert_eq!(body["attempts"].as_u64(), Some(checks.len() as u64));
    assert_eq!(test.verification(&id).await["revision"], 1);
}

#[tokio::test]
async fn an_endpoint_that_cannot_be_reached_is_a_fault_that_passes() {
    let more = "[accounts.nobody]\nkind = \"alibaba\"\nendpoint = \"http://127.0.0.1:1\"\naccess_key_id = \"id\"\n\
                access_key_secret = \"secret\"";
    let test = TestApp::with(Setup { more: more.to_owned(), ..Setup::default() }).await;
    let (_, id) = test.begin(CreateTransaction::default(), json!({ "account": "nobody" })).await;
    test.collect(&id).await;
    let body = test.attempted(&id, 1).await;
    assert_eq!(body["status"], "collecting");
    assert!(body["last_error"].as_str().unwrap().contains("connect_failed"), "{body}");
    assert!(due(&body) <= test.clock.now() + TimeDelta::seconds(1));
}

#[tokio::test]
async fn throttling_holds_the_account_for_the_time_that_the_provider_names() {
    let test = TestApp::start().await;
    let fault = Fault { kind: FaultKind::Throttle, retry_after_ms: Some(7_500), times: Some(1), ..Fault::default() };
    test.simulator.add_fault(fault).unwrap();
    let (transaction, id) = test.begin(CreateTransaction::default(), with_token()).await;
    test.simulator.complete(&transaction, Complete { callbacks: Some(0), ..Complete::default() }).await.unwrap();
    test.callback(&transaction, Some(TOKEN)).await;
    let body = test.attempted(&id, 1).await;
    assert!(body["last_error"].as_str().unwrap().contains("Throttling.User"), "{body}");
    let start = test.clock.now();
    test.advance(Duration::from_millis(7_499));
    for _ in 0..20 {
        assert_eq!(test.verification(&id).await["attempts"], 1);
    }
    test.advance(Duration::from_millis(1));
    let body = test.final_verification(&id).await;
    assert_eq!(body["status"], "passed");
    assert_eq!(time(&body["final_at"]) - start, TimeDelta::milliseconds(7_500));
}

#[tokio::test]
async fn throttling_without_a_time_backs_off_to_a_minute_and_a_good_answer_ends_it() {
    let test = TestApp::start().await;
    let store = test.app.as_ref().unwrap().service.store.clone();
    test.simulator.add_fault(kind(FaultKind::Throttle)).unwrap();
    let (transaction, id) = test.begin(CreateTransaction::default(), with_token()).await;
    test.callback(&transaction, Some(TOKEN)).await;
    for (asked, seconds) in (1..).zip([1, 2, 4, 8, 16, 32, 60, 60]) {
        test.attempted(&id, asked).await;
        let health = store.account_health().await.unwrap();
        assert_eq!(health[0].hold_until.unwrap() - test.clock.now(), TimeDelta::seconds(seconds));
        test.advance(Duration::from_secs(seconds.unsigned_abs()));
    }
    test.attempted(&id, 9).await;
    test.simulator.clear_faults();
    test.advance(Duration::from_mins(1));
    let body = test.attempted(&id, 10).await;
    assert_eq!(body["last_error"], "ProcessNotCompleted");
    test.simulator.add_fault(kind(FaultKind::Throttle)).unwrap();
    test.advance(Duration::from_secs(2));
    test.attempted(&id, 11).await;
    let health = store.account_health().await.unwrap();
    assert_eq!(health[0].hold_until.unwrap() - test.clock.now(), TimeDelta::seconds(1), "it starts anew");
}

#[tokio::test]
async fn a_pending_result_is_waited_for() {
    let test = TestApp::start().await;
    let (transaction, id) = test.begin(CreateTransaction::default(), with_token()).await;
    let complete = Complete { callbacks: Some(0), pending_calls: Some(2), ..Complete::default() };
    test.simulator.complete(&transaction, complete).await.unwrap();
    test.callback(&transaction, Some(TOKEN)).await;
    for (asked, seconds) in [(1, 2), (2, 5)] {
        let body = test.attempted(&id, asked).await;
        assert_eq!((&body["status"], &body["last_error"]), (&json!("collecting"), &json!("P")));
        assert_eq!(due(&body) - test.clock.now(), TimeDelta::seconds(seconds));
        test.advance(Duration::from_secs(seconds.unsigned_abs()));
    }
    let body = test.final_verification(&id).await;
    assert_eq!((&body["status"], &body["attempts"], &body["last_error"]), (&json!("passed"), &json!(3), &Value::Null));
}

#[tokio::test]
async fn a_pending_result_is_waited_for_longer_than_an_unfinished_flow() {
    let test = TestApp::start().await;
    let (transaction, id) = test.begin(CreateTransaction::default(), json!({})).await;
    let complete = Complete { callbacks: Some(0), passed: Some("P".into()), ..Complete::default() };
    test.simulator.complete(&transaction, complete).await.unwrap();
    test.advance(Duration::from_hours(25));
    let body = test.attempted(&id, 1).await;
    assert_eq!(body["final"], false, "{body}");
    test.simulator
        .complete(&transaction, Complete { callbacks: Some(0), passed: Some("N".into()), ..Complete::default() })
        .await
        .unwrap();
    test.advance_to(due(&body)).await;
    assert_eq!(test.final_verification(&id).await["status"], "failed");
}

#[tokio::test]
async fn a_refused_transaction_is_unresolvable_and_never_asked_about_again() {
    let test = TestApp::start().await;
    let body = json!({ "account": ACCOUNT, "transaction_id": "nobody-knows-this", "callback_token": TOKEN });
    let registered: Value = test.post("/verifications", &body).await.json().await.unwrap();
    let id = registered["id"].as_str().unwrap();
    test.callback("nobody-knows-this", Some(TOKEN)).await;
    let body = test.final_verification(id).await;
    assert_eq!((&body["status"], &body["last_error"]), (&json!("unresolvable"), &json!("TransactionIdInvalid")));
    let canary = canary(&test).await;
    test.callback("nobody-knows-this", Some(TOKEN)).await;
    test.advance(Duration::from_hours(24));
    look(&test, &canary).await;
    assert_eq!(test.calls_for("CheckResult", "nobody-knows-this"), 1);
    let answer = test.post(&format!("/verifications/{id}/collect"), &json!({})).await;
    assert_eq!(answer.status(), 409);
}

/// Never completed, given up.
async fn made_void(test: &TestApp) -> (String, String) {
    let (transaction, id) = test.begin(CreateTransaction::default(), with_token()).await;
    test.advance(Duration::from_hours(24));
    assert_eq!(test.final_verification(&id).await["status"], "void");
    (transaction, id)
}

#[tokio::test]
async fn a_callback_on_a_void_one_asks_once_and_a_verdict_is_its_second_revision() {
    let test = TestApp::start().await;
    let (transaction, id) = made_void(&test).await;
    let attempts = test.verification(&id).await["attempts"].as_u64().unwrap();
    // A forged one does nothing.
    assert_eq!(test.callback(&transaction, Some("a-wrong-token-for-this")).await.status(), 401);
    // Nothing found leaves it as it is.
    assert_eq!(test.callback(&transaction, Some(TOKEN)).await.status(), 200);
    test.until("a check without a result", async || (test.checks(&id).await.len() > 1).then_some(())).await;
    let body = test.verification(&id).await;
    assert_eq!(
        (&body["status"], &body["revision"], &body["next_attempt_at"]),
        (&json!("void"), &json!(1), &Value::Null)
    );
    assert!(!body["callback_at"].is_null());
    let base = test.clock.now();
    assert_eq!(time(&body["deadlines"]["result"]), base + TimeDelta::days(30), "the first callback is the base");
    test.advance(Duration::from_hours(12));
    let canary = canary(&test).await;
    look(&test, &canary).await;
    assert_eq!(test.calls_for("CheckResult", &transaction), 2);
    // A verdict found is the next revision.
    test.simulator.complete(&transaction, Complete { callbacks: Some(0), ..Complete::default() }).await.unwrap();
    test.collect(&id).await;
    let body = test
        .until("the second revision", async || {
            let body = test.verification(&id).await;
            (body["revision"] == 2).then_some(body)
        })
        .await;
    assert_eq!((&body["status"], time(&body["callback_at"])), (&json!("passed"), base));
    assert_eq!(time(&body["deadlines"]["result"]), base + TimeDelta::days(30), "later ones move nothing");
    assert!(body["attempts"].as_u64().unwrap() > attempts + 1, "attempts go on counting: {body}");
    let verdicts: Vec<_> = test.history(&id).await.into_iter().filter(|item| item["kind"] == "verdict").collect();
    let shown: Vec<_> = verdicts.iter().map(|item| (&item["status"], &item["revision"])).collect();
    assert_eq!(shown, [(&json!("void"), &json!(1)), (&json!("passed"), &json!(2))]);
}

#[tokio::test]
async fn an_expired_one_is_asked_about_once_more_when_a_callback_comes() {
    let test = with("result_retention = \"2h\"").await;
    let (transaction, id) = test.begin(CreateTransaction::default(), with_token()).await;
    test.simulator.complete(&transaction, Complete { callbacks: Some(0), ..Complete::default() }).await.unwrap();
    test.simulator.add_fault(kind(FaultKind::Status)).unwrap();
    test.advance(Duration::from_hours(26));
    let body = test.final_verification(&id).await;
    assert_eq!(body["status"], "expired");
    assert_eq!(test.calls_for("CheckResult", &transaction), 0, "nothing is attempted after the deadline");
    test.simulator.clear_faults();
    assert_eq!(test.callback(&transaction, Some(TOKEN)).await.status(), 200);
    let body = test
        .until("the second revision", async || {
            let body = test.verification(&id).await;
            (body["revision"] == 2).then_some(body)
        })
        .await;
    assert_eq!((&body["status"], &body["attempts"]), (&json!("passed"), &json!(1)));
}

#[tokio::test]
async fn the_deadline_ends_verifications_also_while_their_account_is_in_trouble() {
    let test = with("result_retention = \"1h\"\ngive_up_after = \"1h\"").await;
    let fault = Fault { code: Some("InvalidAccessKeyId.NotFound".into()), ..kind(FaultKind::Code) };
    test.simulator.add_fault(fault).unwrap();
    let mut ids = Vec::new();
    for _ in 0..20 {
        let (transaction, id) = test.begin(CreateTransaction::default(), with_token()).await;
        test.callback(&transaction, Some(TOKEN)).await;
        ids.push(id);
    }
    test.until("the account fails", async || {
        let ready = test.get_json("/readyz").await;
        (ready["accounts"][ACCOUNT]["status"] == "failing").then_some(())
    })
    .await;
    test.advance(Duration::from_hours(1));
    for id in &ids {
        assert_eq!(test.final_verification(id).await["status"], "expired");
    }
    // None of them took the place of a probe.
    let (_, id) =
        test.begin(CreateTransaction { completed: Some(true), ..CreateTransaction::default() }, json!({})).await;
    test.simulator.clear_faults();
    test.collect(&id).await;
    test.advance(Duration::from_mins(1));
    assert_eq!(test.final_verification(&id).await["status"], "passed");
}

/// One that passed, and whose provider will say something else from now on.
async fn passed(test: &TestApp, then: Answer) -> (String, String) {
    let answers = vec![Answer { passed: Some("Y".into()), sub_code: Some("200".into()), ..Answer::default() }, then];
    let (transaction, id) =
        test.begin(CreateTransaction { answers, ..CreateTransaction::default() }, with_token()).await;
    test.callback(&transaction, Some(TOKEN)).await;
    assert_eq!(test.final_verification(&id).await["status"], "passed");
    (transaction, id)
}

#[tokio::test]
async fn a_recheck_with_another_answer_is_a_new_revision_beside_the_old_one() {
    let test = TestApp::start().await;
    let then = Answer { passed: Some("N".into()), sub_code: Some("205".into()), ..Answer::default() };
    let (transaction, id) = passed(&test, then).await;
    let first = test.verification(&id).await;
    let refused = test.post(&format!("/verifications/{id}/collect"), &json!({})).await;
    assert_eq!(refused.status(), 409);
    test.advance(Duration::from_mins(1));
    test.callback(&transaction, Some(TOKEN)).await;
    let canary = canary(&test).await;
    look(&test, &canary).await;
    assert_eq!(test.calls_for("CheckResult", &transaction), 1, "a callback after the verdict asks nothing");
    test.recheck(&id).await;
    let body = test
        .until("the second revision", async || {
            let body = test.verification(&id).await;
            (body["revision"] == 2).then_some(body)
        })
        .await;
    assert_eq!((&body["status"], &body["sub_code"], &body["attempts"]), (&json!("failed"), &json!("205"), &json!(2)));
    assert_eq!(body["callback_at"], first["callback_at"]);
    assert_eq!(body["deadlines"], first["deadlines"]);
    let pool = test.database.pool().await;
    let rows: Vec<(i32, String, bool)> =
        sqlx::query_as("SELECT revision, status, superseded_at IS NULL FROM verdicts ORDER BY revision")
            .fetch_all(&pool)
            .await
            .unwrap();
    assert_eq!(rows, [(1, "passed".to_owned(), false), (2, "failed".to_owned(), true)]);
}

#[tokio::test]
async fn a_recheck_with_the_same_answer_or_none_leaves_the_verdict() {
    let test = TestApp::start().await;
    let same = Answer { passed: Some("Y".into()), sub_code: Some("200".into()), ..Answer::default() };
    for then in [same, Answer { code: Some("TransactionIdInvalid".into()), ..Answer::default() }] {
        let (transaction, id) = passed(&test, then).await;
        let first = test.verification(&id).await;
        test.recheck(&id).await;
        test.until("the recheck", async || (test.checks(&id).await.len() == 2).then_some(())).await;
        let body = test.verification(&id).await;
        for member in ["status", "revision", "sub_code", "final_at", "next_attempt_at", "deadlines"] {
            assert_eq!(body[member], first[member], "{member}");
        }
        assert_eq!(test.calls_for("CheckResult", &transaction), 2);
    }
}

#[tokio::test]
async fn a_recheck_long_after_the_deadline_asks_all_the_same() {
    let test = TestApp::start().await;
    let then = Answer { passed: Some("N".into()), sub_code: Some("204".into()), ..Answer::default() };
    let (_, id) = passed(&test, then).await;
    // The provider of this test forgets nothing: only the service's clock moves beyond the correction's reach.
    test.advance(Duration::from_hours(24 * 29));
    test.recheck(&id).await;
    test.until("the second revision", async || (test.verification(&id).await["revision"] == 2).then_some(())).await;
    test.advance(Duration::from_hours(24 * 40));
    test.recheck(&id).await;
    test.until("a third check", async || (test.checks(&id).await.len() == 3).then_some(())).await;
    let body = test.verification(&id).await;
    assert_eq!((&body["status"], &body["revision"]), (&json!("failed"), &json!(2)));
}

/// Holds the next answer about the transaction back, and waits until the provider was asked.
async fn asked_and_held(test: &TestApp, transaction: &str, ask: impl AsyncFnOnce()) {
    let before = test.calls_for("CheckResult", transaction);
    let fault = Fault {
        transaction_id: Some(transaction.to_owned()),
        kind: FaultKind::Code,
        code: Some("ProcessNotCompleted".into()),
        delay_ms: Some(300),
        times: Some(1),
        ..Fault::default()
    };
    test.simulator.add_fault(fault).unwrap();
    ask().await;
    test.until("the call", async || (test.calls_for("CheckResult", transaction) > before).then_some(())).await;
}

#[tokio::test]
async fn a_hint_while_the_provider_is_being_asked_leads_to_another_check() {
    let test = TestApp::start().await;
    let (transaction, id) = test.begin(CreateTransaction::default(), with_token()).await;
    asked_and_held(&test, &transaction, async || test.advance(Duration::from_mins(5))).await;
    test.simulator.complete(&transaction, Complete { callbacks: Some(0), ..Complete::default() }).await.unwrap();
    assert_eq!(test.callback(&transaction, Some(TOKEN)).await.status(), 200);
    let body = test.final_verification(&id).await;
    assert_eq!((&body["status"], &body["attempts"]), (&json!("passed"), &json!(2)));
    assert_eq!(test.calls_for("CheckResult", &transaction), 2);
}

#[tokio::test]
async fn a_hint_during_the_last_check_keeps_the_flow_from_being_given_up() {
    let test = TestApp::start().await;
    let (transaction, id) = test.begin(CreateTransaction::default(), with_token()).await;
    asked_and_held(&test, &transaction, async || test.advance(Duration::from_hours(24))).await;
    test.simulator.complete(&transaction, Complete { callbacks: Some(0), ..Complete::default() }).await.unwrap();
    assert_eq!(test.callback(&transaction, Some(TOKEN)).await.status(), 200);
    let body = test.final_verification(&id).await;
    assert_eq!((&body["status"], &body["revision"], &body["attempts"]), (&json!("passed"), &json!(1), &json!(2)));
}

#[tokio::test]
async fn a_hint_during_a_recheck_that_finds_nothing_leads_to_another() {
    let test = TestApp::start().await;
    let (transaction, id) = made_void(&test).await;
    asked_and_held(&test, &transaction, async || test.collect(&id).await).await;
    test.simulator.complete(&transaction, Complete { callbacks: Some(0), ..Complete::default() }).await.unwrap();
    test.collect(&id).await;
    let body = test
        .until("the second revision", async || {
            let body = test.verification(&id).await;
            (body["revision"] == 2).then_some(body)
        })
        .await;
    assert_eq!(body["status"], "passed");
}

#[tokio::test]
async fn images_are_neither_asked_for_nor_stored() {
    let test = TestApp::start().await;
    let (transaction, id) = test.begin(CreateTransaction::default(), with_token()).await;
    let ext = json!({ "faceImg": "Q0FOQVJZLUlNQUdF".repeat(100) });
    let complete = Complete { callbacks: Some(0), scores: ext.as_object().unwrap().clone(), ..Complete::default() };
    test.simulator.complete(&transaction, complete).await.unwrap();
    test.callback(&transaction, Some(TOKEN)).await;
    test.final_verification(&id).await;
    let pool = test.database.pool().await;
    let everything: String =
        sqlx::query_scalar("SELECT concat((SELECT json_agg(v) FROM verdicts v), (SELECT json_agg(h) FROM history h))")
            .fetch_one(&pool)
            .await
            .unwrap();
    assert!(everything.contains("faceComparisonScore"), "the answer itself is there: {everything}");
    assert!(!everything.contains("Q0FOQVJZ"), "no image is");
}

#[tokio::test]
async fn under_a_short_budget_videos_go_first_then_callbacks_then_polls() {
    let test = TestApp::with(Setup { account: "qps = 20".to_owned(), ..Setup::default() }).await;
    // A hold of ten minutes, so that everything is due when it ends.
    let throttle =
        Fault { kind: FaultKind::Throttle, retry_after_ms: Some(600_000), times: Some(1), ..Fault::default() };
    test.simulator.add_fault(throttle).unwrap();
    let first = canary(&test).await;
    test.collect(&first).await;
    test.attempted(&first, 1).await;
    let asked = test.provider_calls("CheckResult");
    let mut polled = Vec::new();
    let (mut videos, mut fresh) = (Vec::new(), Vec::new());
    for n in 0..24 {
        let body = json!({ "callback_token": TOKEN, "expect_video": n % 3 == 2 });
        let transaction = test.begin(CreateTransaction::default(), body).await.0;
        match n % 3 {
            0 => polled.push(transaction),
            1 => fresh.push(transaction),
            _ => videos.push(transaction),
        }
    }
    for transaction in fresh.iter().chain(&videos) {
        assert_eq!(test.callback(transaction, Some(TOKEN)).await.status(), 200);
    }
    let pool = test.database.pool().await;
    test.until("all hints are worked in", async || {
        let left: i64 = sqlx::query_scalar("SELECT count(*) FROM hints").fetch_one(&pool).await.unwrap();
        (left == 0).then_some(())
    })
    .await;
    test.advance(Duration::from_mins(10));
    test.until("all are asked about", async || (test.provider_calls("CheckResult") >= asked + 24).then_some(())).await;
    let order: Vec<_> = test
        .simulator
        .call_log()
        .iter()
        .skip(asked)
        .filter_map(|call| {
            let is = |list: &[String]| list.iter().any(|known| Some(known.as_str()) == call.transaction_id.as_deref());
            if is(&videos) {
                Some('v')
            } else if is(&fresh) {
                Some('f')
            } else {
                is(&polled).then_some('p')
            }
        })
        .collect();
    let place = |kind: char, last: bool| {
        let mut places = order.iter().enumerate().filter(|(_, found)| **found == kind).map(|(place, _)| place);
        if last { places.next_back() } else { places.next() }.expect("some")
    };
    // A call that misses its slot is sent a little later, so neighbours may change places.
    let slip = 3;
    assert!(place('v', true) < place('f', false) + slip, "{order:?}");
    // One call in ten is the turn of those that have been due for over a minute.
    let turns = order.iter().take(place('f', true)).filter(|kind| **kind == 'p').count();
    assert!(turns <= slip, "{order:?}");
    assert!(place('f', true) < place('p', true), "{order:?}");
}

#[tokio::test]
async fn a_flow_that_is_given_up_says_how_far_the_person_came() {
    let test = TestApp::start().await;
    let (never, never_id) = test.begin(CreateTransaction::default(), json!({})).await;
    let (broken, broken_id) = test.begin(CreateTransaction::default(), json!({})).await;
    let interrupted = Complete { interrupted: Some("1006".into()), ..Complete::default() };
    test.simulator.complete(&broken, interrupted).await.unwrap();
    // One after the other: what is due keeps the provider from being asked why.
    for (transaction, id, expected) in [
        (&never, &never_id, "The flow was never started."),
        (&broken, &broken_id, "The flow was interrupted at the page FACE (code 1006)."),
    ] {
        let pool = test.database.pool().await;
        sqlx::query("UPDATE collect_jobs SET due_at = '2100-01-01' WHERE verification_id <> $1::text::uuid")
            .bind(id)
            .execute(&pool)
            .await
            .unwrap();
        sqlx::query("UPDATE collect_jobs SET due_at = '2000-01-01' WHERE verification_id = $1::text::uuid")
            .bind(id)
            .execute(&pool)
            .await
            .unwrap();
        test.advance(Duration::from_hours(24));
        let body = test.final_verification(id).await;
        let reason = body["reason"].as_str().unwrap();
        assert_eq!(body["status"], "void");
        assert!(reason.contains("1day") && reason.ends_with(expected), "{reason}");
        assert_eq!(test.calls_for("CheckVerifyLog", transaction), 1);
        let check = test.history(id).await.into_iter().rfind(|item| item["kind"] == "check").unwrap();
        assert_eq!(check["flow"], if *transaction == never { "not_started" } else { "interrupted" });
    }
}

#[tokio::test]
async fn a_flow_that_is_given_up_ends_also_when_nobody_can_say_how_far_the_person_came() {
    let test = TestApp::start().await;
    let (transaction, id) = test.begin(CreateTransaction::default(), json!({})).await;
    test.simulator.add_fault(Fault { operation: Some("CheckVerifyLog".into()), ..kind(FaultKind::Status) }).unwrap();
    test.advance(Duration::from_hours(24));
    let body = test.final_verification(&id).await;
    assert_eq!(body["status"], "void");
    assert!(body["reason"].as_str().unwrap().ends_with("of its registration."), "{body}");
    assert_eq!(test.calls_for("CheckVerifyLog", &transaction), 1);
}

#[tokio::test]
async fn a_flow_that_finished_at_the_last_moment_is_asked_about_once_more() {
    let test = TestApp::start().await;
    let (transaction, id) = test.begin(CreateTransaction::default(), json!({})).await;
    test.simulator.complete(&transaction, Complete { callbacks: Some(0), ..Complete::default() }).await.unwrap();
    let unfinished =
        Fault { code: Some("ProcessNotCompleted".into()), times: Some(1), share: None, ..kind(FaultKind::Code) };
    test.simulator.add_fault(unfinished).unwrap();
    test.advance(Duration::from_hours(24));
    let body = test.final_verification(&id).await;
    assert_eq!((&body["status"], &body["revision"]), (&json!("passed"), &json!(1)));
    assert_eq!(test.calls_for("CheckResult", &transaction), 2);
}

#[tokio::test]
async fn while_the_provider_is_down_single_probes_are_sent_and_everything_goes_on_when_it_answers() {
    let test = TestApp::start().await;
    test.simulator.add_fault(kind(FaultKind::Status)).unwrap();
    let mut ids = Vec::new();
    for _ in 0..8 {
        let (transaction, id) = test.begin(CreateTransaction::default(), with_token()).await;
        test.simulator.complete(&transaction, Complete { callbacks: Some(0), ..Complete::default() }).await.unwrap();
        test.callback(&transaction, Some(TOKEN)).await;
        test.attempted(&id, 1).await;
        ids.push(id);
    }
    let failing = async || test.get_json("/readyz").await["accounts"][ACCOUNT].clone();
    test.until("the account fails", async || {
        test.advance(SECOND);
        (failing().await["status"] == "failing").then_some(())
    })
    .await;
    let shown = failing().await;
    assert_eq!((&shown["reason"], &shown["code"]), (&json!("unreachable"), &json!("InternalError")));
    let store = test.app.as_ref().unwrap().service.store.clone();
    let probe_at = async || store.account_health().await.unwrap()[0].probe_at.unwrap();
    test.advance_to(test.clock.now()).await;
    // What is due waits, however much it is, and its own waits do not grow.
    let before = test.provider_calls("CheckResult");
    let (transaction, late) = test.begin(CreateTransaction::default(), with_token()).await;
    test.simulator.complete(&transaction, Complete { callbacks: Some(0), ..Complete::default() }).await.unwrap();
    test.callback(&transaction, Some(TOKEN)).await;
    for probe in 1..=4 {
        test.advance_to(probe_at().await).await;
        test.until("another probe", async || (test.provider_calls("CheckResult") >= before + probe).then_some(()))
            .await;
    }
    test.advance_to(test.clock.now()).await;
    assert_eq!(test.provider_calls("CheckResult"), before + 4);
    assert_eq!(failing().await["reason"], "unreachable");
    test.simulator.clear_faults();
    let mended = test.clock.now();
    test.advance_to(probe_at().await).await;
    test.until("the account is well", async || (failing().await["status"] == "ok").then_some(())).await;
    for id in ids.iter().chain([&late]) {
        let body = test.verification(id).await;
        if body["final"] == false {
            test.advance_to(due(&body)).await;
        }
        assert_eq!(test.final_verification(id).await["status"], "passed");
    }
    assert!(test.clock.now() - mended < minutes(3), "{}", test.clock.now() - mended);
}

//! What each answer of the provider leads to: the verification, its account, the history.

use std::time::Duration;

use checkback::simulator::{ClockMove, Complete, CreateTransaction, ErrorForm, Fault, FaultKind};
use chrono::TimeDelta;
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};

use super::support::app::{ACCOUNT, Setup, TestApp, time};

const TOKEN: &str = "the-right-token-of-this";

/// A second account at the same provider.
const OTHER: &str = r#"
[accounts.other]
kind = "alibaba"
endpoint = "http://SIMULATOR"
access_key_id = "sim-key-id"
access_key_secret = "sim-key-secret"
qps = 100000
"#;

/// What a code leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// Asked again after a fixed time.
    Running,
    /// Asked again after at most a second, the first time.
    BackOff,
    /// The account holds still for a second.
    Held,
    Unresolvable,
    /// The account is in trouble, for this reason.
    Failing(&'static str),
}

fn code(code: &str) -> Fault {
    Fault { kind: FaultKind::Code, code: Some(code.to_owned()), ..Fault::default() }
}

/// A finished flow whose first check meets `fault`: what is stored of it.
async fn first_answer(fault: Fault) -> (TestApp, String, Value) {
    let test = TestApp::start().await;
    let (transaction, id) = test.begin(CreateTransaction::default(), json!({ "callback_token": TOKEN })).await;
    test.simulator.complete(&transaction, Complete { callbacks: Some(0), ..Complete::default() }).await.unwrap();
    test.simulator.add_fault(Fault { operation: Some("CheckResult".into()), ..fault }).unwrap();
    assert_eq!(test.callback(&transaction, Some(TOKEN)).await.status(), 200);
    let body = test.attempted(&id, 1).await;
    (test, id, body)
}

/// Each case with a service of its own, a few at a time.
async fn all(cases: impl IntoIterator<Item = (Fault, &'static str, Then)>) {
    stream::iter(cases).for_each_concurrent(4, |(fault, shown_code, then)| leads_to(fault, shown_code, then)).await;
}

async fn leads_to(fault: Fault, shown_code: &str, then: Then) {
    let what = format!("{fault:?}");
    let (test, id, body) = first_answer(fault).await;
    let history = test.history(&id).await;
    let check = history.iter().find(|item| item["kind"] == "check").unwrap_or_else(|| panic!("{what}: {history:?}"));
    let outcome = match then {
        Then::Running => "running",
        Then::BackOff => "unavailable",
        Then::Held => "throttled",
        Then::Unresolvable => "refused",
        Then::Failing(_) => "account_failing",
    };
    assert_eq!((&check["outcome"], &check["code"]), (&json!(outcome), &json!(shown_code)), "{what}");
    assert!(body["last_error"].as_str().unwrap().contains(shown_code), "{what}: {body}");
    let now = test.clock.now();
    let account = test.get_json("/readyz").await["accounts"][ACCOUNT].clone();
    match then {
        Then::Failing(reason) => {
            assert_eq!(account["status"], "failing", "{what}");
            assert_eq!((&account["reason"], &account["code"]), (&json!(reason), &json!(shown_code)), "{what}");
        }
        _ => assert_eq!(account["status"], "ok", "{what}"),
    }
    if then == Then::Unresolvable {
        assert_eq!((&body["status"], &body["next_attempt_at"]), (&json!("unresolvable"), &Value::Null), "{what}");
        assert_eq!(test.calls_for("CheckResult", body["transaction_id"].as_str().unwrap()), 1, "{what}");
        return;
    }
    assert_eq!(body["status"], "collecting", "{what}");
    let wait = match then {
        Then::Running => Duration::from_secs(2),
        Then::Failing(_) => Duration::from_secs(5),
        _ => Duration::from_secs(1),
    };
    if then == Then::Running {
        assert_eq!(time(&body["next_attempt_at"]), now + TimeDelta::from_std(wait).unwrap(), "{what}");
    }
    // The fault is over, so everything goes on by itself.
    test.advance(wait);
    let body = test.final_verification(&id).await;
    assert_eq!(
        (&body["status"], &body["attempts"], &body["last_error"]),
        (&json!("passed"), &json!(2), &Value::Null),
        "{what}"
    );
    test.until("the account is well", async || {
        let ready = test.get_json("/readyz").await;
        (ready["accounts"][ACCOUNT]["status"] == "ok").then_some(())
    })
    .await;
}

#[tokio::test]
async fn every_documented_code_has_its_consequence() {
    let table = [
        ("MissingParameter", Then::Unresolvable),
        ("InvalidParameter", Then::Unresolvable),
        ("TransactionIdInvalid", Then::Unresolvable),
        ("Forbidden.RAMUserAccessDenied", Then::Failing("no_permission")),
        ("Forbidden.AccountAccessDenied", Then::Failing("not_activated")),
        ("Throttling.Api", Then::Held),
        ("Throttling.User", Then::Held),
        ("Throttling", Then::Held),
        ("ProcessNotCompleted", Then::Running),
        ("InternalError", Then::BackOff),
        ("ServiceUnavailable", Then::BackOff),
        ("InvalidAccessKeyId.NotFound", Then::Failing("bad_key")),
        ("InvalidAccessKeyId.Inactive", Then::Failing("bad_key")),
        ("SignatureDoesNotMatch", Then::Failing("bad_signature")),
        ("InvalidTimeStamp.Expired", Then::Failing("clock_skew")),
        ("InvalidTimeStamp.Format", Then::Failing("clock_skew")),
        ("SignatureNonceUsed", Then::BackOff),
        ("SomethingThatNobodyDocumented", Then::BackOff),
    ];
    all(table.map(|(name, then)| (code(name), name, then))).await;
}

#[tokio::test]
async fn the_code_counts_and_not_the_status_in_every_form_of_the_error() {
    let table = [
        ("Throttling.Api", 429, ErrorForm::LowerCase, Then::Held),
        ("Throttling.User", 503, ErrorForm::Xml, Then::Held),
        ("TransactionIdInvalid", 404, ErrorForm::Xml, Then::Unresolvable),
        ("TransactionIdInvalid", 500, ErrorForm::LowerCase, Then::Unresolvable),
        ("ProcessNotCompleted", 400, ErrorForm::LowerCase, Then::Running),
        ("ProcessNotCompleted", 200, ErrorForm::Xml, Then::Running),
        ("Forbidden.AccountAccessDenied", 400, ErrorForm::LowerCase, Then::Failing("not_activated")),
        ("SignatureDoesNotMatch", 403, ErrorForm::Xml, Then::Failing("bad_signature")),
        ("InternalError", 200, ErrorForm::Json, Then::BackOff),
        ("ServiceUnavailable", 400, ErrorForm::LowerCase, Then::BackOff),
    ];
    all(table.map(|(name, status, form, then)| (Fault { status: Some(status), form, ..code(name) }, name, then))).await;
}

#[tokio::test]
async fn what_is_no_answer_of_the_provider_is_a_fault_that_passes() {
    let kind = |kind| Fault { kind, ..Fault::default() };
    let table = [
        (kind(FaultKind::Html), "http_502"),
        (Fault { status: Some(200), ..kind(FaultKind::Html) }, "unreadable_answer"),
        (Fault { status: Some(403), ..kind(FaultKind::Html) }, "http_403"),
        (kind(FaultKind::Empty), "unreadable_answer"),
        (Fault { status: Some(503), ..kind(FaultKind::Empty) }, "http_503"),
        (kind(FaultKind::Garbage), "unreadable_answer"),
        (kind(FaultKind::CutOff), "connection_broken"),
        (kind(FaultKind::Huge), "body_too_large"),
        (Fault { bytes: Some(1 << 20), ..kind(FaultKind::Huge) }, "unreadable_answer"),
    ];
    all(table.map(|(fault, shown_code)| (fault, shown_code, Then::BackOff))).await;
    leads_to(Fault { status: Some(429), ..kind(FaultKind::Html) }, "http_429", Then::Held).await;
}

#[tokio::test]
async fn an_account_in_trouble_is_probed_by_single_calls_and_resumes_by_itself() {
    let test = TestApp::with(Setup { account: "qps = 5".to_owned(), more: OTHER.to_owned(), ..Setup::default() }).await;
    let mut ids = Vec::new();
    for _ in 0..12 {
        let (transaction, id) = test.begin(CreateTransaction::default(), json!({ "callback_token": TOKEN })).await;
        test.simulator.complete(&transaction, Complete { callbacks: Some(0), ..Complete::default() }).await.unwrap();
        let fault = Fault {
            transaction_id: Some(transaction.clone()),
            share: Some(1.0),
            ..code("Forbidden.AccountAccessDenied")
        };
        test.simulator.add_fault(fault).unwrap();
        ids.push((transaction, id));
    }
    let asked = || ids.iter().map(|(transaction, _)| test.calls_for("CheckResult", transaction)).sum::<usize>();
    for (transaction, _) in &ids {
        test.callback(transaction, Some(TOKEN)).await;
    }
    let failing = async || {
        let ready = test.get_json("/readyz").await;
        (ready["accounts"][ACCOUNT]["status"] == "failing").then(|| ready["accounts"].clone())
    };
    let accounts = test.until("the account fails", failing).await;
    assert_eq!(accounts[ACCOUNT]["reason"], "not_activated");
    assert_eq!(accounts["other"]["status"], "ok");
    // What was under way when the first answer came still went out, a slot or two at this rate.
    let other = async || {
        let (transaction, id) = test
            .begin(
                CreateTransaction { completed: Some(true), ..CreateTransaction::default() },
                json!({ "account": "other" }),
            )
            .await;
        test.collect(&id).await;
        assert_eq!(test.final_verification(&id).await["status"], "passed");
        assert_eq!(test.calls_for("CheckResult", &transaction), 1);
    };
    other().await;
    let mut before = asked();
    assert!(before <= 3, "{before} calls before the account was known to fail");
    let store = test.app.as_ref().unwrap().service.store.clone();
    let probe_at = async || store.account_health().await.unwrap()[0].probe_at.unwrap();
    for step in [5, 10, 20, 40, 60, 60] {
        let next = probe_at().await;
        assert_eq!(next - test.clock.now(), TimeDelta::seconds(step));
        test.advance(Duration::from_secs(step.unsigned_abs() - 1));
        other().await;
        assert_eq!(asked(), before, "nothing is sent before its time");
        test.advance(Duration::from_secs(1));
        test.until("one probe", async || {
            (probe_at().await > next + TimeDelta::seconds(0) && asked() > before).then_some(())
        })
        .await;
        let now = test.clock.now();
        test.until("its answer", async || {
            let wait = probe_at().await - now;
            let expected = TimeDelta::seconds((step * 2).min(60));
            (wait == expected).then_some(())
        })
        .await;
        other().await;
        before += 1;
        assert_eq!(asked(), before, "one probe and no more");
    }
    for (_, id) in &ids {
        let body = test.verification(id).await;
        assert_eq!((&body["status"], &body["final"]), (&json!("collecting"), &json!(false)), "{body}");
    }
    test.simulator.clear_faults();
    test.advance(Duration::from_mins(1));
    for (_, id) in &ids {
        assert_eq!(test.final_verification(id).await["status"], "passed");
    }
    assert!(failing().await.is_none(), "the account is well again");
}

#[tokio::test]
async fn a_provider_whose_clock_differs_is_signed_for_with_its_own_time() {
    for minutes in [90, -90] {
        let test = TestApp::start().await;
        test.simulator.move_clock(ClockMove::Advance(TimeDelta::minutes(minutes)));
        let (transaction, id) = test.begin(CreateTransaction::default(), json!({ "callback_token": TOKEN })).await;
        test.simulator.complete(&transaction, Complete { callbacks: Some(0), ..Complete::default() }).await.unwrap();
        test.callback(&transaction, Some(TOKEN)).await;
        let body = test.attempted(&id, 1).await;
        if body["final"] == false {
            assert!(body["last_error"].as_str().unwrap().contains("InvalidTimeStamp"), "{body}");
        }
        test.advance(Duration::from_secs(1));
        assert_eq!(test.final_verification(&id).await["status"], "passed");
        let codes: Vec<_> = test.simulator.call_log().iter().map(|call| call.code.to_string()).collect();
        assert_eq!(codes, ["InvalidTimeStamp.Expired", "Success"]);
        assert_eq!(test.get_json("/readyz").await["accounts"][ACCOUNT]["status"], "ok");
        // The correction stays: the next one needs one call.
        let (transaction, id) =
            test.begin(CreateTransaction { completed: Some(true), ..CreateTransaction::default() }, json!({})).await;
        test.collect(&id).await;
        test.final_verification(&id).await;
        assert_eq!(test.calls_for("CheckResult", &transaction), 1);
    }
}

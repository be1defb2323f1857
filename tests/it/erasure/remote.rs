//! The provider's part of an erasure: what each of its answers leads to.

use std::time::Duration;

use checkback::simulator::{Fault, FaultKind, Settings, ZolozComplete, ZolozKeys, ZolozTransaction};
use serde_json::{Value, json};

use super::{attempted, completed, decided, entry, erase};
use crate::api::register;
use crate::support::app::{ACCOUNT, Setup, TestApp, zoloz_account};

fn deleting(fault: Fault) -> Fault {
    Fault { operation: Some("DeleteVerifyResult".into()), ..fault }
}

fn code(code: &str) -> Fault {
    deleting(Fault { kind: FaultKind::Code, code: Some(code.to_owned()), ..Fault::default() })
}

async fn account(test: &TestApp) -> Value {
    test.get_json("/readyz").await["accounts"][ACCOUNT]["status"].clone()
}

#[tokio::test]
async fn a_refusal_ends_it_with_its_word() {
    let test = TestApp::start().await;
    for (fault, state, reason) in [
        ("TransactionIdInvalid", "refused", "unknown transaction"),
        ("InvalidParameter", "refused", "InvalidParameter"),
        ("InvalidAction.NotFound", "not_offered", "not available for this product"),
    ] {
        let (transaction, id) = decided(&test).await;
        test.simulator.add_fault(code(fault)).unwrap();
        let receipt = erase(&test, &id).await;
        let result = entry(&receipt, "result");
        assert_eq!((&result["state"], &receipt["complete"]), (&json!(state), &json!(true)), "{receipt}");
        assert!(result["reason"].as_str().unwrap().contains(reason), "{result}");
        assert!(result["at"].is_string());
        assert_eq!(account(&test).await, "ok", "results of others must not wait for it");
        assert_eq!(test.calls_for("DeleteVerifyResult", &transaction), 1);
    }
}

#[tokio::test]
async fn a_provider_that_is_down_is_asked_again_until_it_answers() {
    let test = TestApp::start().await;
    for fault in [
        Fault::default(),
        Fault { kind: FaultKind::CutOff, ..Fault::default() },
        Fault { kind: FaultKind::Garbage, ..Fault::default() },
        code("InternalError"),
        code("SomethingNew"),
        code("Forbidden.RAMUserAccessDenied"),
        Fault { kind: FaultKind::Throttle, retry_after_ms: Some(3000), ..Fault::default() },
    ] {
        let what = format!("{fault:?}");
        let (transaction, id) = decided(&test).await;
        test.simulator.add_fault(deleting(Fault { times: Some(2), ..fault })).unwrap();
        let receipt = erase(&test, &id).await;
        let result = entry(&receipt, "result");
        assert_eq!((&result["state"], &receipt["complete"]), (&json!("pending"), &json!(false)), "{what}: {receipt}");
        assert!(
            result["reason"].is_string() && result["next_attempt_at"].is_string() && result["at"].is_null(),
            "{what}: {result}"
        );
        assert_eq!(entry(&receipt, "scores")["state"], "destroyed");
        assert_eq!(account(&test).await, "ok", "{what}");
        for attempts in [2, 3] {
            test.advance(Duration::from_mins(1));
            attempted(&test, &id, attempts).await;
        }
        let receipt = completed(&test, &id).await;
        assert_eq!(entry(&receipt, "result")["state"], "destroyed", "{what}");
        assert_eq!(test.calls_for("DeleteVerifyResult", &transaction), 3, "{what}");
    }
}

#[tokio::test]
async fn an_account_in_trouble_is_waited_for() {
    let test = TestApp::start().await;
    let (_, id) = decided(&test).await;
    test.simulator
        .add_fault(Fault {
            kind: FaultKind::Code,
            code: Some("InvalidAccessKeyId.NotFound".into()),
            share: Some(1.0),
            ..Fault::default()
        })
        .unwrap();
    let receipt = erase(&test, &id).await;
    assert_eq!(entry(&receipt, "result")["state"], "pending");
    assert_eq!(account(&test).await, "failing");
    let calls = test.provider_calls("DeleteVerifyResult");
    test.advance(Duration::from_secs(3));
    let (_, other) = test.begin(checkback::simulator::CreateTransaction::default(), json!({})).await;
    erase(&test, &other).await;
    assert_eq!(test.provider_calls("DeleteVerifyResult"), calls, "a failing account is probed by single calls only");
    test.simulator.clear_faults();
    test.advance(Duration::from_mins(2));
    let receipt = completed(&test, &id).await;
    assert_eq!(entry(&receipt, "result")["state"], "destroyed");
    assert_eq!(account(&test).await, "ok");
}

#[tokio::test]
async fn what_was_not_deleted_before_the_provider_did_so_itself_is_given_up() {
    let test = TestApp::start().await;
    let (_, id) = decided(&test).await;
    test.simulator.add_fault(deleting(Fault { share: Some(1.0), ..Fault::default() })).unwrap();
    assert_eq!(entry(&erase(&test, &id).await, "result")["state"], "pending");
    test.advance(Duration::from_hours(24 * 31));
    let receipt = completed(&test, &id).await;
    let result = entry(&receipt, "result");
    assert_eq!(result["state"], "refused");
    assert!(result["reason"].as_str().unwrap().contains("own retention was over"), "{result}");
}

#[tokio::test]
async fn without_its_account_the_rest_is_erased_and_the_provider_waits() {
    let mut test = TestApp::start().await;
    let (_, id) = decided(&test).await;
    test.stop().await;
    let whole = test.config.clone();
    test.config = whole.replace(&format!("[accounts.{ACCOUNT}]"), "[accounts.another]");
    test.app = Some(test.replica().await);
    let receipt = erase(&test, &id).await;
    let result = entry(&receipt, "result");
    assert_eq!(result["state"], "pending", "{receipt}");
    assert!(result["reason"].as_str().unwrap().contains("not in the configuration"));
    assert_eq!(entry(&receipt, "evidence")["state"], "destroyed");
    test.stop().await;
    test.config = whole;
    test.app = Some(test.replica().await);
    test.advance(Duration::from_mins(11));
    assert_eq!(entry(&completed(&test, &id).await, "result")["state"], "destroyed");
}

#[tokio::test]
async fn zoloz_deletes_the_private_data_and_says_so() {
    let keys = ZolozKeys::generate().unwrap();
    let more = zoloz_account("zoloz-sg", &keys);
    let test = TestApp::with(Setup {
        more,
        simulator: Settings { zoloz_keys: Some(keys), ..Settings::default() },
        ..Setup::default()
    })
    .await;
    let decided = async || {
        let transaction = test.simulator.create_zoloz(ZolozTransaction::default()).unwrap().transaction_id;
        test.simulator.complete_zoloz(&transaction, ZolozComplete::default()).unwrap();
        let (status, body) = register(&test, &json!({ "account": "zoloz-sg", "transaction_id": transaction })).await;
        assert_eq!(status, 201, "{body}");
        let id = body["id"].as_str().unwrap().to_owned();
        test.collect(&id).await;
        assert_eq!(test.final_verification(&id).await["status"], "passed");
        (transaction, id)
    };
    let (transaction, id) = decided().await;
    let receipt = erase(&test, &id).await;
    assert_eq!(
        (&entry(&receipt, "result")["state"], &receipt["complete"]),
        (&json!("destroyed"), &json!(true)),
        "{receipt}"
    );
    assert_eq!(test.calls_for("privacyinfo/delete", &transaction), 1);
    for (code, state) in [
        ("TRANSACTION_RECORD_AUTHORITY_ERROR", "refused"),
        ("NO_INTERFACE_DEF", "not_offered"),
        ("SYSTEM_ERROR", "pending"),
    ] {
        let (_, id) = decided().await;
        let fault = Fault {
            operation: Some("privacyinfo/delete".into()),
            kind: FaultKind::Code,
            code: Some(code.to_owned()),
            ..Fault::default()
        };
        test.simulator.add_fault(fault).unwrap();
        let receipt = erase(&test, &id).await;
        assert_eq!(entry(&receipt, "result")["state"], state, "{receipt}");
    }
}

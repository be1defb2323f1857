//! The evidence of what is erased.

use std::path::PathBuf;
use std::time::Duration;

use checkback::simulator::{Complete, CreateTransaction, Fault, FaultKind};
use serde_json::{Value, json};

use super::{TOKEN, attempted, completed, decided, entry, erase, everything};
use crate::api::problem;
use crate::evidence::{evidence, files, with_images};
use crate::support::app::TestApp;

#[tokio::test]
async fn images_are_destroyed_with_their_rows() {
    let test = TestApp::with(with_images()).await;
    let (_, other) = decided(&test).await;
    let (_, id) = decided(&test).await;
    assert_eq!(files(&test).len(), 4);
    let receipt = erase(&test, &id).await;
    let store = entry(&receipt, "evidence");
    assert_eq!((&store["state"], &store["objects"]), (&json!("destroyed"), &json!(2)), "{receipt}");
    let left = files(&test);
    assert_eq!(left.len(), 2);
    assert!(left.iter().all(|path| path.to_str().unwrap().contains(&other)), "the other's stay: {left:?}");
    let shown = test.verification(&id).await;
    let piece = &shown["evidence"][0];
    assert_eq!((&piece["kind"], &piece["state"]), (&json!("face_image"), &json!("erased")));
    for member in ["sha256", "bytes", "content_type", "reason"] {
        assert_eq!(piece[member], Value::Null, "{member}");
    }
    problem(test.get(&format!("/verifications/{id}/evidence/face_image")).await, 404, "evidence_not_found").await;
}

#[tokio::test]
async fn a_store_that_fails_is_tried_again_until_it_is_empty() {
    let test = TestApp::with(with_images()).await;
    let (_, id) = decided(&test).await;
    let away = test.evidence.with_extension("away");
    std::fs::rename(&test.evidence, &away).unwrap();
    std::fs::write(&test.evidence, "no folder").unwrap();
    let receipt = erase(&test, &id).await;
    let store = entry(&receipt, "evidence");
    assert_eq!((&store["state"], &receipt["complete"]), (&json!("pending"), &json!(false)), "{receipt}");
    assert!(store["reason"].is_string() && store["next_attempt_at"].is_string(), "{store}");
    assert_eq!(entry(&receipt, "result")["state"], "destroyed", "one part does not wait for the other");
    std::fs::remove_file(&test.evidence).unwrap();
    std::fs::rename(&away, &test.evidence).unwrap();
    test.advance(Duration::from_secs(2));
    let receipt = completed(&test, &id).await;
    assert_eq!(
        (&entry(&receipt, "evidence")["objects"], &entry(&receipt, "evidence")["reason"]),
        (&json!(2), &Value::Null)
    );
    assert_eq!(files(&test), [] as [PathBuf; 0]);
    assert_eq!(test.provider_calls("DeleteVerifyResult"), 1, "what has ended is not done again");
}

#[tokio::test]
async fn objects_that_are_not_there_are_told() {
    let test = TestApp::with(with_images()).await;
    let (_, id) = decided(&test).await;
    std::fs::remove_dir_all(&test.evidence).unwrap();
    let receipt = erase(&test, &id).await;
    let store = entry(&receipt, "evidence");
    assert_eq!((&store["state"], &store["objects"]), (&json!("destroyed"), &json!(0)), "{receipt}");
    assert!(store["reason"].as_str().unwrap().starts_with("2 that were stored"), "{store}");
}

#[tokio::test]
async fn a_capture_that_is_under_way_is_called_off() {
    let test = TestApp::with(with_images()).await;
    let mut registration = everything();
    registration["expect_video"] = json!(true);
    let (transaction, id) =
        test.begin(CreateTransaction { doc_video: true, ..CreateTransaction::default() }, registration).await;
    test.simulator.complete(&transaction, Complete { callbacks: Some(0), ..Complete::default() }).await.unwrap();
    let slow =
        Fault { operation: Some("Video".into()), kind: FaultKind::Delay, delay_ms: Some(60_000), ..Fault::default() };
    test.simulator.add_fault(slow).unwrap();
    test.callback(&transaction, Some(TOKEN)).await;
    test.until("it downloads", async || (test.calls_for("Video", &transaction) == 1).then_some(())).await;
    test.final_verification(&id).await;
    let receipt = erase(&test, &id).await;
    assert_eq!(entry(&receipt, "evidence")["state"], "destroyed", "{receipt}");
    assert_eq!(files(&test), [] as [PathBuf; 0]);
    assert_eq!(evidence(&test, &id).await["video"]["state"], "erased");
    // Nobody asks for it again.
    let calls = test.provider_calls("CheckResult");
    test.advance(Duration::from_mins(5));
    attempted(&test, &id, 1).await;
    decided(&test).await;
    assert_eq!(test.calls_for("CheckResult", &transaction), calls);
    assert_eq!(test.calls_for("Video", &transaction), 1);
}

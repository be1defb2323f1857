//! The evidence of what is erased.

use std::path::{Path, PathBuf};
use std::time::Duration;

use checkback::simulator::{Complete, CreateTransaction, Fault, FaultKind};
use serde_json::{Value, json};

use super::{TOKEN, attempted, completed, decided, entry, erase, everything};
use crate::api::problem;
use crate::support::app::TestApp;

/// Everything that lies in a folder, at any depth.
fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[tokio::test]
async fn images_are_destroyed_with_their_rows() {
    let test = TestApp::start().await;
    let (_, other) = decided(&test).await;
    let (_, id) = decided(&test).await;
    assert_eq!(files(&test.evidence).len(), 2);
    let receipt = erase(&test, &id).await;
    let evidence = entry(&receipt, "evidence");
    assert_eq!((&evidence["state"], &evidence["objects"]), (&json!("destroyed"), &json!(1)), "{receipt}");
    let left = files(&test.evidence);
    assert_eq!(left.len(), 1);
    assert!(left[0].to_str().unwrap().contains(&other), "the other's stays: {left:?}");
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
    let test = TestApp::start().await;
    let (_, id) = decided(&test).await;
    let away = test.evidence.with_extension("away");
    std::fs::rename(&test.evidence, &away).unwrap();
    std::fs::write(&test.evidence, "no folder").unwrap();
    let receipt = erase(&test, &id).await;
    let evidence = entry(&receipt, "evidence");
    assert_eq!((&evidence["state"], &receipt["complete"]), (&json!("pending"), &json!(false)), "{receipt}");
    assert!(evidence["reason"].is_string() && evidence["next_attempt_at"].is_string(), "{evidence}");
    assert_eq!(entry(&receipt, "result")["state"], "destroyed", "one part does not wait for the other");
    std::fs::remove_file(&test.evidence).unwrap();
    std::fs::rename(&away, &test.evidence).unwrap();
    test.advance(Duration::from_secs(2));
    let receipt = completed(&test, &id).await;
    assert_eq!(entry(&receipt, "evidence")["objects"], 1);
    assert_eq!(files(&test.evidence), [] as [PathBuf; 0]);
    assert_eq!(test.provider_calls("DeleteVerifyResult"), 1, "what has ended is not done again");
}

#[tokio::test]
async fn a_capture_that_is_under_way_is_called_off() {
    let test = TestApp::start().await;
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
    assert_eq!(files(&test.evidence), [] as [PathBuf; 0]);
    let video = &test.verification(&id).await["evidence"][1];
    assert_eq!((&video["kind"], &video["state"]), (&json!("video"), &json!("erased")));
    // Nobody asks for it again.
    let calls = test.provider_calls("CheckResult");
    test.advance(Duration::from_mins(5));
    attempted(&test, &id, 1).await;
    decided(&test).await;
    assert_eq!(test.calls_for("CheckResult", &transaction), calls);
    assert_eq!(test.calls_for("Video", &transaction), 1);
}

//! Secrets that change while the service runs.
#![expect(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

use std::path::Path;

use checkback::config::{Environment, load_text};
use checkback::rotation::Rotation;
use checkback::simulator::{Complete, CreateTransaction};
use serde_json::json;

use super::support::app::{ACCOUNT, TestApp};

const FIRST: &str = "the-first-token-of-the-account";
const SECOND: &str = "the-second-token-of-the-account";

/// A service whose secrets are in files of the folder.
async fn with_files(folder: &Path) -> (TestApp, Rotation) {
    let mut test = TestApp::start().await;
    test.stop().await;
    let path = |name: &str| folder.join(name).display().to_string();
    std::fs::write(path("secret"), "sim-key-secret\n").unwrap();
    std::fs::write(path("token"), FIRST).unwrap();
    test.config = test.config.replace(
        "access_key_secret = \"sim-key-secret\"",
        &format!("access_key_secret_file = \"{}\"\ncallback_token_file = \"{}\"", path("secret"), path("token")),
    );
    test.restart().await;
    let environment = Environment::from_pairs([("DATABASE_URL", test.database.url())]);
    let loaded = load_text("test", &test.config, &environment).unwrap();
    let rotation = test.app.as_ref().unwrap().rotation(&loaded, &environment).unwrap();
    (test, rotation)
}

#[tokio::test]
async fn a_mended_key_is_used_without_a_restart_and_its_account_is_probed_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let (test, mut rotation) = with_files(folder.path()).await;
    let secret = folder.path().join("secret");
    assert!(rotation.look().await.is_empty(), "nothing has changed");
    std::fs::write(&secret, "another-secret").unwrap();
    assert_eq!(rotation.look().await, [format!("accounts.{ACCOUNT}.access_key_secret")]);
    let (transaction, id) = test.begin(CreateTransaction::default(), json!({})).await;
    test.simulator.complete(&transaction, Complete { callbacks: Some(0), ..Complete::default() }).await.unwrap();
    test.collect(&id).await;
    test.until("the account fails", async || {
        let shown = test.get_json("/readyz").await["accounts"][ACCOUNT].clone();
        (shown["reason"] == "bad_signature").then_some(())
    })
    .await;
    std::fs::write(&secret, "sim-key-secret").unwrap();
    assert_eq!(rotation.look().await.len(), 1);
    // The clock stands still, so this is not the probe that would have come anyway.
    assert_eq!(test.final_verification(&id).await["status"], "passed");
}

#[tokio::test]
async fn what_cannot_be_read_or_used_leaves_the_value_before_it_and_keeps_no_other_back() {
    let folder = tempfile::tempdir().unwrap();
    let (test, mut rotation) = with_files(folder.path()).await;
    let (secret, token) = (folder.path().join("secret"), folder.path().join("token"));
    let accepted = async |token: &str| {
        let status = test.callback("of-nobody", Some(token)).await.status().as_u16();
        assert!([202, 404].contains(&status), "{status}");
        status == 202
    };
    // A folder in its place, no UTF-8, empty, and too short for a token.
    std::fs::remove_file(&secret).unwrap();
    std::fs::create_dir(&secret).unwrap();
    for wrong in [&b"\xff\xff"[..], b"\n", b"short"] {
        std::fs::write(&token, wrong).unwrap();
        assert!(rotation.look().await.is_empty());
        assert!(accepted(FIRST).await && !accepted("short").await);
    }
    std::fs::write(&token, SECOND).unwrap();
    assert_eq!(rotation.look().await, [format!("accounts.{ACCOUNT}.callback_token")]);
    assert!(accepted(SECOND).await && !accepted(FIRST).await);
    let (transaction, id) = test.begin(CreateTransaction::default(), json!({})).await;
    test.simulator.complete(&transaction, Complete { callbacks: Some(0), ..Complete::default() }).await.unwrap();
    test.collect(&id).await;
    assert_eq!(test.final_verification(&id).await["status"], "passed", "the key is the one of the start");
}

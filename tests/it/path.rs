//! The main path: registered, called back, asked for, stored.

use serde_json::json;

use super::support::app::TestApp;
use checkback::simulator::{Complete, CreateTransaction};

#[tokio::test]
async fn a_callback_brings_the_verdict() {
    let test = TestApp::start().await;
    let (transaction, id) =
        test.begin(CreateTransaction::default(), json!({ "callback_token": "the-right-token-of-this" })).await;
    assert_eq!(test.verification(&id).await["status"], "waiting");
    test.simulator.complete(&transaction, Complete::default()).await.unwrap();
    let answer = test.callback(&transaction, Some("the-right-token-of-this")).await;
    assert_eq!(answer.status(), 200);
    let body = test.final_verification(&id).await;
    assert_eq!((&body["status"], &body["sub_code"]), (&json!("passed"), &json!("200")), "{body}");
    assert!(body["scores"]["face_comparison"].as_f64().unwrap() > 90.0);
    let kinds: Vec<_> = test.history(&id).await.iter().map(|item| item["kind"].as_str().unwrap().to_owned()).collect();
    assert_eq!(kinds, ["registered", "callback", "check", "verdict"]);
    assert_eq!(test.provider_calls("CheckResult"), 1);
}

use checkback::simulator::{Complete, CreateTransaction};
use serde_json::{Value, json};

use super::register_plain;
use crate::support::app::TestApp;

#[tokio::test]
async fn a_registration_begins_the_history() {
    let test = TestApp::start().await;
    let id = register_plain(&test, "t").await;
    let items = test.history(&id).await;
    assert_eq!(items.len(), 1, "{items:?}");
    assert_eq!(items[0]["kind"], "registered");
    assert_eq!(items[0]["at"], test.verification(&id).await["registered_at"]);
}

#[tokio::test]
async fn everything_is_there_oldest_first_and_without_secrets() {
    let test = TestApp::start().await;
    let transaction = CreateTransaction { not_completed_calls: 1, ..CreateTransaction::default() };
    let (transaction, id) = test.begin(transaction, json!({ "callback_token": "SECRET-TOKEN" })).await;
    test.simulator.complete(&transaction, Complete::default()).await.unwrap();
    test.callback(&transaction, Some("SECRET-TOKEN")).await;
    test.until("the first check", || async { (test.history(&id).await.len() == 3).then_some(()) }).await;
    test.advance(std::time::Duration::from_secs(3));
    test.final_verification(&id).await;
    let items = test.history(&id).await;
    let kinds: Vec<_> = items.iter().map(|item| item["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["registered", "callback", "check", "check", "verdict"]);
    assert_eq!((&items[1]["passed"], &items[1]["sub_code"]), (&json!("Y"), &json!("200")));
    assert_eq!((&items[2]["attempt"], &items[2]["outcome"]), (&json!(1), &json!("running")));
    assert_eq!((&items[3]["attempt"], &items[3]["outcome"]), (&json!(2), &json!("finished")));
    assert_eq!((&items[4]["status"], &items[4]["revision"]), (&json!("passed"), &json!(1)));
    let times: Vec<&str> = items.iter().map(|item| item["at"].as_str().unwrap()).collect();
    assert!(times.is_sorted() && times.iter().all(|time| time.ends_with('Z')), "{times:?}");
    assert!(!Value::from(items).to_string().contains("SECRET"));
}

use checkback::simulator::{Complete, CreateTransaction};

use super::*;

#[tokio::test]
async fn repeats_are_counted_and_the_first_ten_are_kept() {
    let account = "repeats";
    let test = TestApp::with(account_of_its_own(account, "")).await;
    let id = register_at(&test, account, "t", Some("right")).await;
    for n in 0..14 {
        accepted(send(&test, account, &format!("transactionId=t&callbackToken=right&subCode={n}"), None).await).await;
    }
    test.until("all are worked in", async || (counted(account, "repeat") == 13).then_some(())).await;
    assert_eq!(counted(account, "accepted"), 1);
    let kept = callbacks(&test, &id).await;
    let claims: Vec<&str> = kept.iter().map(|item| item["sub_code"].as_str().unwrap()).collect();
    assert_eq!(claims, (0..10).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn after_the_verdict_a_callback_is_a_repeat_and_asks_nobody() {
    let test = TestApp::start().await;
    let (transaction, id) = test.begin(CreateTransaction::default(), json!({ "callback_token": "right" })).await;
    test.simulator.complete(&transaction, Complete::default()).await.unwrap();
    accepted(test.callback(&transaction, Some("right")).await).await;
    let verdict = test.final_verification(&id).await;
    for _ in 0..12 {
        accepted(test.callback(&transaction, Some("right")).await).await;
    }
    worked_in(&test).await;
    assert_eq!(test.verification(&id).await, verdict);
    assert_eq!(callbacks(&test, &id).await.len(), 10);
    assert_eq!(test.provider_calls("CheckResult"), 1);
    // The token is looked at all the same.
    problem(test.callback(&transaction, Some("wrong")).await, 401, "callback_token_mismatch").await;
}

#[tokio::test]
async fn a_callback_to_a_void_one_brings_the_verdict_after_all() {
    let test = TestApp::start().await;
    let (transaction, id) = test.begin(CreateTransaction::default(), json!({ "callback_token": "right" })).await;
    let (tokenless, tokenless_id) = test.begin(CreateTransaction::default(), json!({})).await;
    test.advance(std::time::Duration::from_hours(24));
    for id in [&id, &tokenless_id] {
        assert_eq!(test.final_verification(id).await["status"], "void");
    }
    for transaction in [&transaction, &tokenless] {
        test.simulator.complete(transaction, Complete::default()).await.unwrap();
    }
    accepted(test.callback(&tokenless, None).await).await;
    accepted(test.callback(&transaction, Some("right")).await).await;
    let found = test
        .until("a verdict", || async { Some(test.verification(&id).await).filter(|body| body["revision"] == 2) })
        .await;
    assert_eq!(found["status"], "passed");
    // Without a token nobody has shown that it came from the provider.
    assert_eq!(test.verification(&tokenless_id).await["status"], "void");
}

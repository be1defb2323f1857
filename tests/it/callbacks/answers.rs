use reqwest::{Method, StatusCode};
use serde_json::json;

use super::*;

#[tokio::test]
async fn each_way_to_send_it_is_accepted() {
    let test = TestApp::start().await;
    let json_body = r#"{"callbackToken":"right","transactionId":"t-5","passed":"Y","subCode":"200","x":[1]}"#;
    for (n, (query, body)) in [
        ("callbackToken=right&transactionId=t-0&passed=Y&subCode=200", None),
        ("CALLBACKTOKEN=right&TransactionID=t-1&PASSED=Y&subcode=200&unknown=%zz&&", None),
        ("callbackToken=r%69ght&transactionId=%74-2", None),
        ("", Some((FORM, "callbackToken=right&transactionId=t-3&passed=Y&subCode=200"))),
        ("callbackToken=right&passed=Y", Some((FORM, "transactionid=t-4&passed=Y"))),
        ("", Some((JSON, json_body))),
        ("transactionId=t-6&callbackToken=right&transactionId=t-6", Some(("text/plain", ""))),
        ("transactionId=t-7", Some(("Application/Json; charset=utf-8", r#"{"CallbackToken":"right"}"#))),
    ]
    .into_iter()
    .enumerate()
    {
        let id = register_at(&test, ACCOUNT, &format!("t-{n}"), Some("right")).await;
        accepted(send(&test, ACCOUNT, query, body).await).await;
        let history = callbacks(&test, &id).await;
        assert_eq!(history.len(), 1, "{query} {body:?}");
        let body = test.verification(&id).await;
        assert_eq!(body["callback_at"], history[0]["at"]);
        assert_ne!(body["status"], "waiting");
    }
}

#[tokio::test]
async fn nothing_that_a_callback_says_reaches_the_verdict() {
    let test = TestApp::start().await;
    let failing = checkback::simulator::CreateTransaction {
        passed: Some("N".into()),
        sub_code: Some("204".into()),
        ..Default::default()
    };
    let (transaction, id) = test.begin(failing, json!({ "callback_token": "right" })).await;
    test.simulator.complete(&transaction, checkback::simulator::Complete::default()).await.unwrap();
    let query = format!("transactionId={transaction}&callbackToken=right&passed=Y&subCode=200");
    accepted(send(&test, ACCOUNT, &query, None).await).await;
    let body = test.final_verification(&id).await;
    assert_eq!((&body["status"], &body["sub_code"]), (&json!("failed"), &json!("204")));
    let claim = &callbacks(&test, &id).await[0];
    assert_eq!((&claim["passed"], &claim["sub_code"]), (&json!("Y"), &json!("200")), "kept as a claim");
}

#[tokio::test]
async fn malformed_ones_are_refused_and_change_nothing() {
    let account = "malformed";
    let test = TestApp::with(account_of_its_own(account, "")).await;
    let id = register_at(&test, account, "t", Some("right")).await;
    let long = format!("callbackToken=right&transactionId={}", "x".repeat(129));
    let cases: Vec<(&str, Option<(&str, &str)>, u16, &str)> = vec![
        ("", None, 400, "callback_malformed"),
        ("callbackToken=right", None, 400, "callback_malformed"),
        ("transactionId=&callbackToken=right", None, 400, "callback_malformed"),
        (&long, None, 400, "callback_malformed"),
        ("transactionId=%ff", None, 400, "callback_malformed"),
        ("transactionId=t&callbackToken=%zz", None, 400, "callback_malformed"),
        ("transactionId=t&passed=%", None, 400, "callback_malformed"),
        ("transactionId=t%00", None, 400, "callback_malformed"),
        ("transactionId=t&transactionId=u&callbackToken=right", None, 400, "callback_malformed"),
        ("transactionId=t&callbackToken=right&CallbackToken=wrong", None, 400, "callback_malformed"),
        ("transactionId=t", Some((FORM, "transactionId=u&callbackToken=right")), 400, "callback_malformed"),
        (
            "transactionId=t",
            Some((JSON, r#"{"transactionId":"u","callbackToken":"right"}"#)),
            400,
            "callback_malformed",
        ),
        ("transactionId=t&callbackToken=right", Some((JSON, "{")), 400, "callback_malformed"),
        ("transactionId=t&callbackToken=right", Some((JSON, "[]")), 400, "callback_malformed"),
        ("transactionId=t&callbackToken=right", Some((JSON, r#"{"passed":true}"#)), 400, "callback_malformed"),
        ("callbackToken=right", Some((JSON, r#"{"transactionId":17}"#)), 400, "callback_malformed"),
        ("transactionId=t&callbackToken=right", Some(("text/plain", "x")), 415, "callback_unsupported"),
        (
            "transactionId=t&callbackToken=right",
            Some(("multipart/form-data; boundary=x", "x")),
            415,
            "callback_unsupported",
        ),
    ];
    let count = u64::try_from(cases.len()).unwrap();
    for (query, body, status, code) in cases {
        problem(send(&test, account, query, body).await, status, code).await;
    }
    assert_untouched(&test, &id).await;
    assert_eq!(counted(account, "malformed"), count);
    let id_of_128 = "x".repeat(128);
    register_at(&test, account, &id_of_128, Some("right")).await;
    accepted(send(&test, account, &format!("callbackToken=right&transactionId={id_of_128}"), None).await).await;
}

#[tokio::test]
async fn an_unknown_account_is_refused_and_is_no_label() {
    let test = TestApp::start().await;
    let before = counted("", "account_unknown");
    for account in ["nobody", "ALIBABA-SG", "%ff", "%00", "alibaba-sg%2f"] {
        problem(send(&test, account, "transactionId=t", None).await, 404, "account_unknown").await;
    }
    problem(send(&test, "nobody", "", Some(("text/plain", "x"))).await, 404, "account_unknown").await;
    assert!(counted("", "account_unknown") >= before + 6);
    assert!(!telemetry::metrics().unwrap().render().contains("ALIBABA-SG"));
}

#[tokio::test]
async fn an_unknown_transaction_is_refused() {
    let account = "unknown-transaction";
    let test = TestApp::with(account_of_its_own(account, "")).await;
    // Known at another account only.
    register_at(&test, ACCOUNT, "t", Some("right")).await;
    for query in ["transactionId=t&callbackToken=right", "transactionId=t", "transactionId=T&callbackToken=x"] {
        problem(send(&test, account, query, None).await, 404, "transaction_unknown").await;
    }
    assert_eq!(counted(account, "transaction_unknown"), 3);
}

#[tokio::test]
async fn other_methods_are_refused() {
    let test = TestApp::start().await;
    let id = register_at(&test, ACCOUNT, "t", None).await;
    for method in [Method::PUT, Method::DELETE, Method::PATCH, Method::OPTIONS] {
        let url = test.public(&format!("/callbacks/{ACCOUNT}?transactionId=t"));
        let response = test.http.request(method, url).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
    }
    assert_untouched(&test, &id).await;
}

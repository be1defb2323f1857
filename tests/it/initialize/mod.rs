//! `POST /verifications` with `initialize`: transactions that the service starts itself.

mod idempotency;
mod refusals;
mod zoloz;

use std::time::Duration;

use checkback::simulator::Complete;
use reqwest::{Method, Response};
use serde_json::{Value, json};

use super::api::{problem, wrong_fields};
use super::support::app::{ACCOUNT, Setup, TestApp};

/// The provider reaches nobody here; the simulator is told where to call when it calls.
const PUBLIC: &str = "http://127.0.0.1:9/idv";

fn reachable() -> Setup {
    Setup { server: format!("public_url = \"{PUBLIC}\""), ..Setup::default() }
}

fn members() -> Value {
    json!({ "ProductCode": "FACE_LIVENESS", "MetaInfo": "{\"deviceType\":\"h5\"}", "MerchantUserId": "u-1" })
}

fn body() -> Value {
    json!({ "account": ACCOUNT, "initialize": members() })
}

async fn post(test: &TestApp, body: &Value, key: Option<&str>) -> Response {
    let mut request = test.request(Method::POST, "/verifications").json(body);
    if let Some(key) = key {
        request = request.header("Idempotency-Key", key);
    }
    request.send().await.unwrap()
}

async fn started(response: Response, status: u16) -> Value {
    let actual = response.status().as_u16();
    let body: Value = response.json().await.unwrap();
    assert_eq!(actual, status, "{body}");
    body
}

fn calls(test: &TestApp) -> usize {
    test.provider_calls("Initialize")
}

#[tokio::test]
async fn a_started_transaction_goes_from_initialize_over_its_callback_to_the_verdict() {
    let test = TestApp::with(reachable()).await;
    let mut wish = body();
    wish["initialize"]["DocVideo"] = json!("Y");
    wish["metadata"] = json!({ "order": "A-17" });
    let response = post(&test, &wish, None).await;
    let location = response.headers()["location"].to_str().unwrap().to_owned();
    let verification = started(response, 201).await;
    let id = verification["id"].as_str().unwrap();
    let transaction_id = verification["transaction_id"].as_str().unwrap();
    assert_eq!(location, format!("/verifications/{id}"));
    assert_eq!(verification["status"], "waiting");
    assert_eq!(verification["product"], "FACE_LIVENESS");
    assert_eq!(verification["metadata"], json!({ "order": "A-17" }));
    let client = &verification["client"];
    assert_eq!(client["transaction_id"], transaction_id);
    assert!(client["transaction_url"].as_str().unwrap().ends_with(transaction_id), "{client}");
    assert_eq!((&client["protocol"], &client["client_cfg"]), (&json!("simulated"), &json!("{\"simulated\":true}")));
    assert!(test.verification(id).await.get("client").is_none(), "only the first answer tells it");

    let sent = test.simulator.transaction(transaction_id).unwrap();
    assert_eq!(sent.callback_url.as_deref(), Some(&*format!("{PUBLIC}/callbacks/{ACCOUNT}")));
    assert_eq!((sent.return_url, sent.doc_video, sent.has_callback_token), (None, true, true));
    assert_eq!(sent.merchant_biz_id, verification["merchant_biz_id"].as_str().unwrap());

    // The token is wanted.
    problem(test.callback(transaction_id, None).await, 401, "callback_token_mismatch").await;
    problem(test.callback(transaction_id, Some("guessed")).await, 401, "callback_token_mismatch").await;
    let complete = Complete {
        callback_url: Some(test.public(&format!("/callbacks/{ACCOUNT}"))),
        wait: true,
        ..Complete::default()
    };
    let completed = test.simulator.complete(transaction_id, complete).await.unwrap();
    assert_eq!(completed.callback_statuses, [200]);
    let last = test.final_verification(id).await;
    assert_eq!(last["status"], "passed");
    assert!(last["deadlines"]["video"].is_string(), "DocVideo means that a video is expected: {last}");
    let history = test.history(id).await;
    assert_eq!(history[0]["kind"], "registered");
    assert_eq!(history[0]["initialized"], true);
    assert_eq!(calls(&test), 1);
}

#[tokio::test]
async fn what_is_given_beside_initialize_goes_before_what_its_members_say() {
    let test = TestApp::start().await;
    let mut wish = body();
    wish["merchant_biz_id"] = json!("order17");
    wish["product"] = json!("mine");
    wish["expect_video"] = json!(true);
    wish["return_url"] = json!("https://shop.example/after?a=b");
    let verification = started(post(&test, &wish, None).await, 201).await;
    assert_eq!((&verification["merchant_biz_id"], &verification["product"]), (&json!("order17"), &json!("mine")));
    assert!(verification["deadlines"]["video"].is_string());
    let sent = test.simulator.transaction(verification["transaction_id"].as_str().unwrap()).unwrap();
    assert_eq!((&*sent.merchant_biz_id, &*sent.product_code), ("order17", "FACE_LIVENESS"));
    // Nobody outside reaches us, so the browser goes straight to the merchant and the polls find the result.
    assert_eq!(sent.return_url.as_deref(), Some("https://shop.example/after?a=b"));
    assert_eq!((sent.callback_url, sent.has_callback_token), (None, false));
    let id = verification["id"].as_str().unwrap();
    test.simulator
        .complete(&sent.transaction_id, Complete { callbacks: Some(0), ..Complete::default() })
        .await
        .unwrap();
    test.advance_to(test.clock.now() + chrono::TimeDelta::minutes(6)).await;
    assert_eq!(test.final_verification(id).await["status"], "passed");
}

#[tokio::test]
async fn a_picture_may_be_large_and_goes_into_the_body_of_the_call() {
    for signature in ["acs3", "hmac-sha1"] {
        let account = format!("qps = 100000\nsignature = \"{signature}\"");
        let test = TestApp::with(Setup { account, ..Setup::default() }).await;
        let mut wish = body();
        wish["initialize"]["FacePictureBase64"] = json!("+/8=".repeat(64 * 1024));
        wish["initialize"]["DocPageConfig"] = json!([{ "a": "ü &=+%" }]);
        started(post(&test, &wish, None).await, 201).await;
        wish["initialize"]["FacePictureBase64"] = json!("x".repeat(8 * 1024 * 1024));
        problem(post(&test, &wish, None).await, 413, "body_too_large").await;
        // Without `initialize` the room is as small as ever.
        let wish = json!({ "transaction_id": "t", "metadata": { "a": "x".repeat(64 * 1024) } });
        problem(post(&test, &wish, None).await, 413, "body_too_large").await;
        assert_eq!(calls(&test), 1);
    }
}

#[tokio::test]
async fn nothing_secret_is_stored_and_the_clients_answer_is_forgotten_after_a_day() {
    let test = TestApp::with(reachable()).await;
    let verification = started(post(&test, &body(), Some("k")).await, 201).await;
    let pool = test.database.pool().await;
    let kept = async || -> (Option<String>, String) {
        sqlx::query_as("SELECT client, state FROM initializations").fetch_one(&pool).await.unwrap()
    };
    let (client, state) = kept().await;
    assert!(client.unwrap().contains("simulated"));
    assert_eq!(state, "registered");
    test.advance(Duration::from_hours(23));
    test.app.as_ref().unwrap().service.tidy_initializations().await.unwrap();
    assert!(kept().await.0.is_some());
    test.advance(Duration::from_hours(2));
    test.app.as_ref().unwrap().service.tidy_initializations().await.unwrap();
    assert_eq!(kept().await.0, None);
    // The key still stands for the verification.
    let again = started(post(&test, &body(), Some("k")).await, 200).await;
    assert_eq!((&again["id"], &again["client"]), (&verification["id"], &Value::Null));
    test.advance(Duration::from_hours(24 * 30));
    test.app.as_ref().unwrap().service.tidy_initializations().await.unwrap();
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM initializations").fetch_one(&pool).await.unwrap();
    assert_eq!(rows, 0);
    assert_eq!(calls(&test), 1);
}

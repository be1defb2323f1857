//! `DELETE /verifications/{id}`: what is destroyed, what stays, and that nothing brings it back.

mod alone;
mod evidence;
mod races;
mod remote;

use checkback::simulator::{Complete, CreateTransaction};
use reqwest::{Method, Response};
use serde_json::{Value, json};

use super::support::app::TestApp;

pub use races::move_database_clock;

const TOKEN: &str = "the-right-token-of-this";

async fn delete(test: &TestApp, id: &str) -> Response {
    test.request(Method::DELETE, &format!("/verifications/{id}")).send().await.unwrap()
}

/// Erases and returns the receipt.
pub async fn erase(test: &TestApp, id: &str) -> Value {
    let response = delete(test, id).await;
    let status = response.status().as_u16();
    let body: Value = response.json().await.unwrap();
    assert_eq!(status, 200, "{body}");
    body
}

/// The entry of the receipt about `what`.
fn entry<'a>(receipt: &'a Value, what: &str) -> &'a Value {
    let entries = receipt["destroyed"].as_array().unwrap();
    entries.iter().find(|entry| entry["what"] == what).unwrap_or_else(|| panic!("no {what} in {receipt}"))
}

/// What a merchant registers with all its members.
fn everything() -> Value {
    json!({ "callback_token": TOKEN, "metadata": { "order": "A-17" }, "return_url": "https://shop.example/after",
        "merchant_biz_id": "b17", "product": "FACE_LIVENESS" })
}

/// A finished flow with a verdict: (transaction, verification).
pub async fn decided(test: &TestApp) -> (String, String) {
    let (transaction, id) = test.begin(CreateTransaction::default(), everything()).await;
    test.simulator.complete(&transaction, Complete { callbacks: Some(0), ..Complete::default() }).await.unwrap();
    assert_eq!(test.callback(&transaction, Some(TOKEN)).await.status(), 200);
    assert_eq!(test.final_verification(&id).await["status"], "passed");
    test.until("its evidence is stored", async || {
        let body = test.verification(&id).await;
        let evidence = body["evidence"].as_array().unwrap();
        evidence.iter().all(|piece| piece["state"] == "stored").then_some(())
    })
    .await;
    (transaction, id)
}

/// Waits until so many attempts at the parts outside the database are recorded.
async fn attempted(test: &TestApp, id: &str, attempts: u32) {
    let service = &test.app.as_ref().unwrap().service;
    let id = id.parse().unwrap();
    test.until(&format!("{attempts} attempts"), async || {
        service.wakes.erasures();
        let erasure = service.store.erasure(id).await.unwrap().unwrap();
        (erasure.due_at.is_none() || erasure.attempts >= attempts).then_some(())
    })
    .await;
}

/// Waits until the receipt is complete.
async fn completed(test: &TestApp, id: &str) -> Value {
    let id = id.to_owned();
    test.until("a complete receipt", async || {
        test.app.as_ref().unwrap().service.wakes.erasures();
        let receipt = erase(test, &id).await;
        (receipt["complete"] == true).then_some(receipt)
    })
    .await
}

//! Outgoing webhooks, from the verdict's transaction to the receiver.

mod api;
#[cfg(feature = "embedded-postgres")]
mod command;
mod deliveries;
mod replicas;
mod schedule;
mod transaction;

use checkback::simulator::{Complete, CreateTransaction};
use serde_json::{Value, json};

use super::support::app::{Setup, TestApp};
use super::support::receiver::{Received, Receiver};

pub const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
pub const OTHER: &str = "whsec_QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE=";

/// A service with these sections of webhooks.
pub async fn with(sections: &[String]) -> TestApp {
    TestApp::with(Setup { more: sections.join("\n"), ..Setup::default() }).await
}

/// A service with one endpoint that wants everything.
pub async fn with_one(receiver: &Receiver) -> TestApp {
    with(&[receiver.section("app", &[SECRET], &[])]).await
}

/// A verification whose verdict is there.
pub async fn passed(test: &TestApp) -> String {
    let (transaction, id) = test.begin(CreateTransaction::default(), json!({})).await;
    test.simulator.complete(&transaction, Complete { callbacks: Some(0), ..Complete::default() }).await.unwrap();
    test.collect(&id).await;
    assert_eq!(test.final_verification(&id).await["status"], "passed");
    id
}

/// Waits until so many requests have come.
pub async fn received(test: &TestApp, receiver: &Receiver, count: usize) -> Vec<Received> {
    test.until(&format!("{count} requests"), async || (receiver.count() >= count).then(|| receiver.received())).await
}

/// The deliveries that a query finds.
pub async fn deliveries(test: &TestApp, query: &str) -> Vec<Value> {
    test.get_json(&format!("/webhooks/deliveries?{query}")).await["items"].as_array().unwrap().clone()
}

/// Waits until the newest delivery of a verification has had so many attempts, and returns it.
pub async fn attempted(test: &TestApp, id: &str, attempts: u64) -> Value {
    test.until(&format!("{attempts} attempts to deliver"), async || {
        let found = deliveries(test, &format!("verification_id={id}")).await.into_iter().next()?;
        (found["attempts"].as_u64().unwrap() >= attempts).then_some(found)
    })
    .await
}

pub async fn endpoint(test: &TestApp, name: &str) -> Value {
    let body = test.get_json("/webhooks").await;
    body["items"].as_array().unwrap().iter().find(|item| item["name"] == name).unwrap().clone()
}

//! The HTTP contract of the internal listener, and of what both listeners share.

mod bad_input;
mod collect;
mod errors;
mod health;
mod history;
mod list;
mod outage;
mod raw;
mod register;
mod show;

use reqwest::{Response, header};
use serde_json::{Value, json};

use super::support::app::{ACCOUNT, TestApp};

/// Checks that `response` is the problem with this status and code, in the form that all problems have.
pub async fn problem(response: Response, status: u16, code: &str) -> Value {
    let content_type = response.headers().get(header::CONTENT_TYPE).cloned();
    let actual = response.status().as_u16();
    let text = response.text().await.unwrap();
    assert_eq!(actual, status, "{text}");
    assert_eq!(content_type.unwrap(), "application/problem+json", "{text}");
    let body: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(body["code"], code, "{body}");
    assert_eq!(body["status"], status, "{body}");
    assert_eq!(body["type"], format!("urn:checkback:problem:{code}"));
    for member in ["title", "detail"] {
        assert!(body[member].as_str().is_some_and(|text| !text.is_empty()), "{member}: {body}");
    }
    body
}

/// The names of the wrong members, sorted.
pub fn wrong_fields(problem: &Value) -> Vec<String> {
    let errors = problem["errors"].as_array().unwrap_or_else(|| panic!("no errors: {problem}"));
    let mut fields: Vec<_> = errors
        .iter()
        .map(|error| {
            assert!(error["message"].as_str().is_some_and(|text| !text.is_empty()), "{problem}");
            error["field"].as_str().unwrap().to_owned()
        })
        .collect();
    fields.sort_unstable();
    fields
}

/// Registers, and returns the status and the body.
pub async fn register(test: &TestApp, body: &Value) -> (u16, Value) {
    let response = test.post("/verifications", body).await;
    (response.status().as_u16(), response.json().await.unwrap())
}

/// Registers a transaction that only has to be there; returns its id.
pub async fn register_plain(test: &TestApp, transaction_id: &str) -> String {
    let (status, body) = register(test, &json!({ "account": ACCOUNT, "transaction_id": transaction_id })).await;
    assert_eq!(status, 201, "{body}");
    body["id"].as_str().unwrap().to_owned()
}

/// A second account, which no test asks the provider about.
pub const OTHER_ACCOUNT: &str = r#"
    [accounts.other]
    kind = "alibaba"
    endpoint = "http://127.0.0.1:9"
    access_key_id = "sim-key-id"
    access_key_secret = "sim-key-secret"
"#;

//! Incoming callbacks: every row of the contract's table.

mod answers;
mod batches;
mod limits;
mod repeats;
mod tokens;
mod unmatched;

use checkback::telemetry;
use reqwest::{Response, header};
use serde_json::{Value, json};

use super::api::problem;
use super::support::app::{ACCOUNT, Setup, TestApp};

const FORM: &str = "application/x-www-form-urlencoded";
const JSON: &str = "application/json";

/// A callback as it comes over the wire: the query and, for a POST, the body with its type.
async fn send(test: &TestApp, account: &str, query: &str, body: Option<(&str, &str)>) -> Response {
    let url = test.public(&format!("/callbacks/{account}?{query}"));
    match body {
        None => test.http.get(url),
        Some((kind, body)) => test.http.post(url).header(header::CONTENT_TYPE, kind).body(body.to_owned()),
    }
    .send()
    .await
    .unwrap()
}

async fn accepted(response: Response) {
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
    assert_eq!(response.json::<Value>().await.unwrap(), json!({ "status": "accepted" }));
}

async fn unmatched(response: Response) {
    assert_eq!(response.status(), 202);
    assert_eq!(response.json::<Value>().await.unwrap(), json!({ "status": "unmatched" }));
}

/// The callbacks in the history.
async fn callbacks(test: &TestApp, id: &str) -> Vec<Value> {
    test.history(id).await.into_iter().filter(|item| item["kind"] == "callback").collect()
}

/// Returns when no accepted callback is left that was not worked into jobs and history.
async fn worked_in(test: &TestApp) {
    let pool = test.database.pool().await;
    test.until("all hints are worked in", || async {
        let left: i64 = sqlx::query_scalar("SELECT count(*) FROM hints").fetch_one(&pool).await.unwrap();
        (left == 0).then_some(())
    })
    .await;
}

/// An account of its own, so that its counters belong to one test; nobody answers at its endpoint.
fn account_of_its_own(name: &str, more: &str) -> Setup {
    let account = format!(
        "[accounts.{name}]\nkind = \"alibaba\"\nendpoint = \"http://127.0.0.1:9\"\naccess_key_id = \"sim-key-id\"\n\
         access_key_secret = \"sim-key-secret\"\n{more}\n"
    );
    Setup { more: account, ..Setup::default() }
}

/// How many callbacks of the account ended so.
fn counted(account: &str, result: &str) -> u64 {
    let name = format!("checkback_callbacks_total{{account=\"{account}\",result=\"{result}\"}} ");
    let text = telemetry::metrics().unwrap().render();
    text.lines().find_map(|line| line.strip_prefix(&name)).map_or(0, |count| count.parse().unwrap())
}

/// Registers at an account; returns the id.
async fn register_at(test: &TestApp, account: &str, transaction_id: &str, token: Option<&str>) -> String {
    let body = json!({ "account": account, "transaction_id": transaction_id, "callback_token": token });
    let response = test.post("/verifications", &body).await;
    assert_eq!(response.status(), 201);
    response.json::<Value>().await.unwrap()["id"].as_str().unwrap().to_owned()
}

/// The verification is not touched by what must change nothing.
async fn assert_untouched(test: &TestApp, id: &str) {
    let body = test.verification(id).await;
    assert_eq!((&body["status"], &body["callback_at"]), (&json!("waiting"), &Value::Null), "{body}");
    assert!(callbacks(test, id).await.is_empty());
    assert_eq!(test.provider_calls("CheckResult"), 0);
}

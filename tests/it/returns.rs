//! `/returns/{account}`: the browser's way back.

use std::time::Duration;

use reqwest::{Response, header};
use serde_json::{Value, json};
use url::Url;

use super::api::{OTHER_ACCOUNT, problem};
use super::support::app::{ACCOUNT, Setup, TestApp};

const AFTER: &str = "https://shop.example/after-check?order=17";

async fn service() -> TestApp {
    let server = "public_url = \"http://127.0.0.1:9\"".to_owned();
    TestApp::with(Setup { server, more: OTHER_ACCOUNT.to_owned(), ..Setup::default() }).await
}

/// Starts a transaction with a return URL; returns its id and the state that the provider was given.
async fn start(test: &TestApp, return_url: &str) -> (String, String) {
    let wish = json!({
        "account": ACCOUNT, "return_url": return_url,
        "initialize": { "ProductCode": "FACE_LIVENESS", "MetaInfo": "{}", "MerchantUserId": "u" },
    });
    let response = test.post("/verifications", &wish).await;
    assert_eq!(response.status(), 201);
    let body: Value = response.json().await.unwrap();
    let sent = test.simulator.transaction(body["transaction_id"].as_str().unwrap()).unwrap();
    let url = Url::parse(&sent.return_url.unwrap()).unwrap();
    assert_eq!((url.host_str(), url.path()), (Some("127.0.0.1"), &*format!("/returns/{ACCOUNT}")));
    let pairs: Vec<_> = url.query_pairs().into_owned().collect();
    let [(name, state)] = &pairs[..] else { panic!("{pairs:?}") };
    assert_eq!(name, "state");
    (body["id"].as_str().unwrap().to_owned(), state.clone())
}

async fn come_back(test: &TestApp, account: &str, query: &str) -> Response {
    test.http.get(test.public(&format!("/returns/{account}?{query}"))).send().await.unwrap()
}

fn goes_to(response: &Response, url: &str) {
    assert_eq!(response.status(), 303);
    let headers = response.headers();
    assert_eq!(headers[header::LOCATION], url);
    assert_eq!(
        (&headers[header::REFERRER_POLICY], &headers[header::CACHE_CONTROL]),
        (&"no-referrer".parse().unwrap(), &"no-store".parse().unwrap())
    );
}

#[tokio::test]
async fn a_browser_that_comes_back_makes_the_check_due_and_goes_on() {
    let test = service().await;
    let (id, state) = start(&test, AFTER).await;
    let before = test.verification(&id).await;
    let transaction_id = before["transaction_id"].as_str().unwrap();
    test.simulator
        .complete(transaction_id, checkback::simulator::Complete { callbacks: Some(0), ..Default::default() })
        .await
        .unwrap();
    goes_to(&come_back(&test, ACCOUNT, &format!("state={state}&passed=N&subCode=204&x=%ff")).await, AFTER);
    let last = test.final_verification(&id).await;
    assert_eq!(last["status"], "passed", "what the browser says counts for nothing");
    assert_eq!(last["deadlines"]["result"], before["deadlines"]["result"], "and it moves no deadline");
    let history = test.history(&id).await;
    let callback = history.iter().find(|item| item["kind"] == "callback").unwrap();
    assert_eq!(callback["source"], "return");
    // Back and forward again.
    goes_to(&come_back(&test, ACCOUNT, &format!("state={state}")).await, AFTER);
}

#[tokio::test]
async fn repeats_ask_the_provider_at_most_every_thirty_seconds() {
    let test = service().await;
    let (id, state) = start(&test, AFTER).await;
    goes_to(&come_back(&test, ACCOUNT, &format!("state={state}")).await, AFTER);
    test.attempted(&id, 1).await;
    for _ in 0..20 {
        goes_to(&come_back(&test, ACCOUNT, &format!("state={state}")).await, AFTER);
    }
    // One second later nothing is due: the next is two seconds after the first.
    test.advance_to(test.clock.now() + chrono::TimeDelta::seconds(1)).await;
    assert_eq!(test.verification(&id).await["attempts"], 1);
    let kept = test.history(&id).await.iter().filter(|item| item["kind"] == "callback").count();
    assert_eq!(kept, 10);
}

#[tokio::test]
async fn the_state_is_found_in_the_response_of_an_h5_page() {
    let test = service().await;
    let (_, state) = start(&test, AFTER).await;
    let response = format!("%7B%22state%22%3A%22{state}%22%2C%22code%22%3A1003%2C%22subCode%22%3A%22Z5055%22%7D");
    for query in [
        format!("response={response}"),
        format!("state={state}?response={response}"),
        format!("state=wrong&response={response}"),
    ] {
        goes_to(&come_back(&test, ACCOUNT, &query).await, AFTER);
    }
}

#[tokio::test]
async fn what_was_not_made_here_for_this_account_leads_nowhere() {
    let test = service().await;
    let (id, state) = start(&test, AFTER).await;
    let mut flipped = state.clone().into_bytes();
    flipped[40] = if flipped[40] == b'A' { b'B' } else { b'A' };
    let flipped = String::from_utf8(flipped).unwrap();
    for query in [
        String::new(),
        "state=".to_owned(),
        format!("state={flipped}"),
        format!("state={}", &state[..63]),
        format!("state={id}"),
        "state=https://evil.example/".to_owned(),
        "response=%7B%22state%22%3A%22x%22%7D".to_owned(),
        format!("return_url=https://evil.example/&state={flipped}"),
    ] {
        let response = come_back(&test, ACCOUNT, &query).await;
        assert!(!response.headers().contains_key(header::LOCATION));
        problem(response, 400, "return_state_invalid").await;
    }
    // Right, and of another account.
    problem(come_back(&test, "other", &format!("state={state}")).await, 400, "return_state_invalid").await;
    problem(come_back(&test, "nobody", &format!("state={state}")).await, 404, "account_unknown").await;
    assert_eq!(test.verification(&id).await["status"], "waiting");
    assert_eq!(test.provider_calls("CheckResult"), 0);
    // Nothing in the request chooses the way.
    for more in ["return_url=https://evil.example/", "redirect=//evil.example", "url=https://evil.example"] {
        goes_to(&come_back(&test, ACCOUNT, &format!("{more}&state={state}&{more}")).await, AFTER);
    }
    problem(test.get(&format!("/returns/{ACCOUNT}?state={state}")).await, 404, "not_found").await;
}

#[tokio::test]
async fn states_outlive_a_restart_and_hold_at_every_replica() {
    let mut test = service().await;
    let (_, state) = start(&test, AFTER).await;
    test.restart().await;
    test.advance(Duration::from_hours(24 * 40));
    goes_to(&come_back(&test, ACCOUNT, &format!("state={state}")).await, AFTER);
    let replica = test.replica().await;
    let url = format!("http://{}/returns/{ACCOUNT}?state={state}", replica.public);
    goes_to(&test.http.get(url).send().await.unwrap(), AFTER);
    replica.shut_down().await;
}

#[tokio::test]
async fn without_an_address_the_browser_is_told_that_it_is_done() {
    let test = service().await;
    let (id, state) = start(&test, AFTER).await;
    let pool = test.database.pool().await;
    sqlx::query("UPDATE verifications SET return_url = NULL").execute(&pool).await.unwrap();
    let response = come_back(&test, ACCOUNT, &format!("state={state}")).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()[header::CONTENT_TYPE], "text/plain; charset=utf-8");
    assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
    test.attempted(&id, 1).await;
}

#[tokio::test]
async fn without_the_database_the_browser_is_asked_to_come_again() {
    let test = service().await;
    let (_, state) = start(&test, AFTER).await;
    test.database.set_reachable(false).await;
    let response = come_back(&test, ACCOUNT, &format!("state={state}")).await;
    assert!(response.headers().contains_key(header::RETRY_AFTER));
    problem(response, 503, "database_unavailable").await;
}

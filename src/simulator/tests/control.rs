//! Control over HTTP and the scripts of transactions.

use std::io::Write as _;

use serde_json::json;

use super::*;

async fn create(sim: &Sim, body: &Value) -> String {
    let answer = sim.control("POST", "/_sim/transactions", &body.to_string()).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    answer.json()["transaction_id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_transaction_is_made_and_completed_over_http() {
    let sim = Sim::start().await;
    let answer = sim.control("POST", "/_sim/transactions", r#"{"transaction_id":"t1","merchant_biz_id":"b1"}"#).await;
    assert_eq!((answer.status, answer.json()), (201, json!({"transaction_id": "t1", "merchant_biz_id": "b1"})));
    let again = sim.control("POST", "/_sim/transactions", r#"{"transaction_id":"t1"}"#).await;
    assert_eq!((again.status, again.json()), (409, json!({"error": "transaction t1 exists already"})));
    let done = sim.control("POST", "/_sim/transactions/t1/complete", "").await;
    let done = (done.status, done.json()["passed"].clone(), done.json()["sub_code"].clone());
    assert_eq!(done, (200, json!("Y"), json!("200")));
    assert_eq!(sim.control("GET", "/_sim/transactions/t1", "").await.json()["passed"], "Y");
    assert_eq!(sim.control("POST", "/_sim/transactions/t2/complete", "{}").await.status, 404);
    assert_eq!(sim.control("GET", "/_sim/transactions/t2", "").await.status, 404);
}

#[tokio::test]
async fn a_completion_chooses_the_outcome_or_keeps_the_chosen_one() {
    let sim = Sim::start().await;
    for (made, done, passed, sub_code) in [
        (json!({}), json!({}), "Y", "200"),
        (json!({"passed": "N"}), json!({}), "N", "204"),
        (json!({}), json!({"passed": "N", "sub_code": "205"}), "N", "205"),
        (json!({"passed": "N"}), json!({"sub_code": "200"}), "Y", "200"),
    ] {
        let id = create(&sim, &made).await;
        sim.control("POST", &format!("/_sim/transactions/{id}/complete"), &done.to_string()).await;
        let result = sim.result(&id).await.json()["Result"].clone();
        assert_eq!((&result["Passed"], &result["SubCode"]), (&json!(passed), &json!(sub_code)));
    }
}

#[tokio::test]
async fn unknown_members_and_wrong_bodies_are_named() {
    let sim = Sim::start().await;
    for (path, body, named) in [
        ("/_sim/transactions", r#"{"pased":"N"}"#, "pased"),
        ("/_sim/transactions", r#"{"answers":[{"pass":"N"}]}"#, "pass"),
        ("/_sim/transactions/t/complete", r#"{"callback":1}"#, "callback"),
        ("/_sim/transactions/t/callbacks", r#"{"token":1}"#, "token"),
        ("/_sim/faults", r#"{"kind":"explode"}"#, "explode"),
        ("/_sim/clock", r#"{"advance":"soon"}"#, "31d"),
        ("/_sim/clock", r#"{"advance":"1d","advance_seconds":1}"#, "exactly one"),
        ("/_sim/clock", "[", "body"),
    ] {
        let answer = sim.control("POST", path, body).await;
        assert_eq!(answer.status, 400, "{path} {body}");
        assert!(answer.json()["error"].as_str().unwrap().contains(named), "{}", answer.text);
    }
    assert_eq!(sim.control("GET", "/_sim/calls?before=1", "").await.status, 400);
}

#[tokio::test]
async fn answers_follow_the_script_and_the_last_one_stays() {
    let sim = Sim::start().await;
    let body = json!({"answers": [
        {"code": "ProcessNotCompleted"},
        {"passed": "P"},
        {"code": "Throttling.User", "retry_after_ms": 100},
        {"body": "not json", "status": 200},
        {"passed": "N", "sub_code": "206"},
        {"passed": "Y"},
    ]});
    let id = create(&sim, &body).await;
    let mut seen = Vec::new();
    for _ in 0..7 {
        let answer = sim.result(&id).await;
        let body: Value = serde_json::from_str(&answer.text).unwrap_or_default();
        let word = body["Result"]["Passed"].as_str().or(body["Code"].as_str()).unwrap_or("-").to_owned();
        seen.push((answer.status, word));
    }
    let wanted = [
        (404, "ProcessNotCompleted"),
        (200, "P"),
        (400, "Throttling.User"),
        (200, "-"),
        (200, "N"),
        (200, "Y"),
        (200, "Y"),
    ];
    assert_eq!(seen, wanted.map(|(status, word)| (status, word.to_owned())));
}

#[tokio::test]
async fn a_script_waits_for_a_completion_that_was_asked_for() {
    let sim = Sim::start().await;
    let body = json!({"completed": false, "not_completed_calls": 1, "pending_calls": 1, "answers": [{"passed": "N"}]});
    let id = create(&sim, &body).await;
    assert_eq!(sim.result(&id).await.status, 404);
    assert_eq!(sim.result(&id).await.status, 404);
    sim.control("POST", &format!("/_sim/transactions/{id}/complete"), "{}").await;
    assert_eq!(sim.result(&id).await.code(), "ProcessNotCompleted");
    assert_eq!(sim.result(&id).await.json()["Result"]["Passed"], "P");
    assert_eq!(sim.result(&id).await.json()["Result"]["Passed"], "N");
}

#[tokio::test]
async fn faults_and_clock_are_set_over_http() {
    let sim = Sim::start().await;
    let id = sim.passed().await;
    let fault = r#"{"operation":"CheckResult","kind":"status","status":503,"share":1.0}"#;
    assert_eq!(sim.control("POST", "/_sim/faults", fault).await.status, 201);
    assert_eq!(sim.result(&id).await.status, 503);
    assert_eq!(sim.result(&id).await.status, 503);
    assert_eq!(sim.control("DELETE", "/_sim/faults", "").await.status, 204);
    assert_eq!(sim.result(&id).await.status, 200);

    let set = sim.control("POST", "/_sim/clock", r#"{"set":"2030-01-01T00:00:00Z"}"#).await;
    assert!(set.json()["now"].as_str().unwrap().starts_with("2030-01-01T00:00:"));
    sim.control("POST", "/_sim/clock", r#"{"advance":"1d"}"#).await;
    sim.control("POST", "/_sim/clock", r#"{"advance_seconds":-7200}"#).await;
    let now = sim.control("GET", "/_sim/clock", "").await;
    assert!(now.json()["now"].as_str().unwrap().starts_with("2030-01-01T22:00:"), "{}", now.text);
    assert_eq!(rfc3339(now.date)[..14], *"2030-01-01T22:");
}

#[tokio::test]
async fn calls_are_told_line_by_line_and_from_where_the_reader_was() {
    let sim = Sim::start().await;
    let id = sim.passed().await;
    sim.result(&id).await;
    sim.result("nobody").await;
    let lines = sim.control("GET", "/_sim/calls", "").await.text;
    let ends: Vec<_> = lines.lines().map(|line| line.split_once(' ').unwrap().1).collect();
    assert_eq!(ends, [format!("CheckResult {id} 200 Success"), "CheckResult nobody 400 TransactionIdInvalid".into()]);
    let second = sim.control("GET", "/_sim/calls?after=1", "").await.text;
    assert_eq!(second.lines().count(), 1);
    assert_eq!(sim.control("GET", "/_sim/calls?after=2", "").await.text, "");
    assert_eq!(sim.simulator.call_count(), 2);
}

#[tokio::test]
async fn no_secret_or_token_is_in_calls_views_or_debug_output() {
    let sim = Sim::start().await;
    let more = [("CallbackUrl", "https://shop.example/cb"), ("CallbackToken", "SeCrEtToKeN")];
    let answer = sim.rpc(&sim.initialize(&more)).await;
    let id = answer.json()["Result"]["TransactionId"].as_str().unwrap().to_owned();
    let command = CreateTransaction { callback_token: Some("SeCrEtToKeN".into()), ..Default::default() };
    let shown = [
        sim.simulator.calls().join("\n"),
        sim.control("GET", &format!("/_sim/transactions/{id}"), "").await.text,
        format!("{command:?} {:?} {:?}", sim.simulator, Settings::default()),
    ];
    for text in shown {
        assert!(!text.contains("SeCrEtToKeN") && !text.contains(SECRET), "{text}");
    }
}

#[tokio::test]
async fn help_is_there() {
    let sim = Sim::start().await;
    assert!(sim.control("GET", "/_sim", "").await.text.contains("/_sim/transactions/{id}/complete"));
}

#[tokio::test]
async fn a_scenario_is_there_from_the_start() {
    for (text, faults) in [
        (r#"[{"transaction_id":"t1","completed":true}]"#, false),
        (r#"{"transactions":[{"transaction_id":"t1","completed":true}],"faults":[{"kind":"html"}]}"#, true),
    ] {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let sim = Sim::with(Settings { scenario: Some(file.path().into()), ..Settings::default() }).await;
        assert_eq!(sim.result("t1").await.status, if faults { 502 } else { 200 });
    }
}

#[test]
fn a_scenario_that_cannot_be_used_is_named() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(br#"{"transaction":[]}"#).unwrap();
    let settings = Settings { scenario: Some(file.path().into()), ..Settings::default() };
    let error = format!("{:#}", Simulator::new(&settings).unwrap_err());
    assert!(error.contains("cannot use scenario") && error.contains("transaction"), "{error}");
}

#[test]
fn ids_repeat_with_the_same_seed() {
    let id = |seed| {
        let simulator = Simulator::new(&Settings { seed, ..Settings::default() }).unwrap();
        simulator.create(CreateTransaction::default()).unwrap().transaction_id
    };
    assert_eq!(id(Some(1)), id(Some(1)));
    assert_ne!(id(Some(1)), id(Some(2)));
    assert_ne!(id(None), id(None));
}

#[tokio::test]
async fn serving_ends_when_told_to() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let simulator = Simulator::new(&Settings::default()).unwrap();
    simulator.serve(listener, std::future::ready(())).await.unwrap();
}

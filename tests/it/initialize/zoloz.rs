//! The same at ZOLOZ: Connect, with its H5 pages.

use checkback::simulator::{Fault, FaultKind, Settings, ZolozComplete, ZolozKeys};
use serde_json::{Value, json};

use super::{PUBLIC, post, problem, started, wrong_fields};
use crate::support::app::{Setup, TestApp, zoloz_account};

const NAME: &str = "zoloz-sg";
const AFTER: &str = "https://shop.example/after";
const INITIALIZE: &str = "connect/initialize";

async fn service() -> TestApp {
    let keys = ZolozKeys::generate().unwrap();
    TestApp::with(Setup {
        server: format!("public_url = \"{PUBLIC}\""),
        more: zoloz_account(NAME, &keys),
        simulator: Settings { zoloz_keys: Some(keys), ..Settings::default() },
        ..Setup::default()
    })
    .await
}

fn body() -> Value {
    json!({
        "account": NAME, "return_url": AFTER,
        "initialize": { "metaInfo": "MOB_H5", "userId": "u-1", "h5ModeConfig": { "locale": "en" } },
    })
}

fn calls(test: &TestApp) -> usize {
    test.provider_calls(INITIALIZE)
}

#[tokio::test]
async fn a_connect_transaction_goes_from_initialize_over_the_browsers_way_back_to_the_verdict() {
    let test = service().await;
    let verification = started(post(&test, &body(), Some("k")).await, 201).await;
    let transaction_id = verification["transaction_id"].as_str().unwrap();
    let client = &verification["client"];
    assert_eq!(client["transaction_id"], transaction_id);
    assert!(client["client_cfg"].is_string(), "{client}");
    assert_eq!((&client["transaction_url"], &client["protocol"]), (&Value::Null, &Value::Null));
    let sent = test.simulator.zoloz_transaction(transaction_id).unwrap();
    assert_eq!(sent.biz_id, verification["merchant_biz_id"].as_str().unwrap());

    let complete = ZolozComplete { redirect: true, ..ZolozComplete::default() };
    let redirect = test.simulator.complete_zoloz(transaction_id, complete).unwrap().redirect_url.unwrap();
    let way = redirect.strip_prefix(&format!("{PUBLIC}/returns/{NAME}?")).unwrap_or_else(|| panic!("{redirect}"));
    let response = test.http.get(test.public(&format!("/returns/{NAME}?{way}"))).send().await.unwrap();
    assert_eq!((response.status().as_u16(), &response.headers()["location"]), (303, &AFTER.parse().unwrap()));
    let last = test.final_verification(verification["id"].as_str().unwrap()).await;
    assert_eq!(last["status"], "passed", "{last}");
    assert_eq!(started(post(&test, &body(), Some("k")).await, 200).await["client"], *client);
    assert_eq!(calls(&test), 1);
}

#[tokio::test]
async fn a_lost_answer_is_recorded_and_never_leads_to_a_second_call() {
    let test = service().await;
    for (key, kind) in [("cut", FaultKind::CutOff), ("status", FaultKind::Status), ("garbage", FaultKind::Garbage)] {
        let before = calls(&test);
        test.simulator.add_fault(Fault { operation: Some(INITIALIZE.to_owned()), kind, ..Fault::default() }).unwrap();
        for _ in 0..2 {
            problem(post(&test, &body(), Some(key)).await, 502, "initialize_lost").await;
        }
        assert_eq!(calls(&test), before + 1, "{key}");
    }
}

#[tokio::test]
async fn what_is_ours_or_missing_is_told_and_what_the_provider_refuses_frees_the_key() {
    let test = service().await;
    let mut wish = body();
    wish["initialize"] = json!({ "bizId": "b", "userId": 7, "h5ModeConfig": { "state": "mine" } });
    let told = problem(post(&test, &wish, None).await, 422, "body_invalid").await;
    assert_eq!(
        wrong_fields(&told),
        ["initialize.bizId", "initialize.h5ModeConfig.state", "initialize.metaInfo", "initialize.userId"]
    );
    let mut wish = body();
    wish["product"] = json!("REALID");
    let told = problem(post(&test, &wish, None).await, 422, "body_invalid").await;
    assert_eq!(wrong_fields(&told), ["initialize"]);
    assert_eq!(calls(&test), 0);
    let mut wish = body();
    wish["initialize"]["metaInfo"] = json!("x".repeat(513));
    problem(post(&test, &wish, Some("k")).await, 422, "initialize_refused").await;
    started(post(&test, &body(), Some("k")).await, 201).await;
}

//! Control of ZOLOZ over HTTP.

use super::*;
use crate::simulator::ControlError;

async fn create(sim: &Sim, wish: &Value) -> String {
    let mut body = wish.clone();
    body["provider"] = json!("zoloz");
    let answer = sim.control("POST", "/_sim/transactions", &body.to_string()).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    answer.json()["transaction_id"].as_str().unwrap().to_owned()
}

async fn complete(sim: &Sim, id: &str, body: &Value) -> Value {
    let answer = sim.control("POST", &format!("/_sim/transactions/{id}/complete"), &body.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json()
}

#[tokio::test]
async fn a_completion_chooses_the_outcome_or_keeps_the_chosen_one() {
    let (sim, merchant) = set_up().await;
    for (made, done, code, verdict) in [
        (json!({}), json!({}), "SUCCESS", json!("Success")),
        (json!({"result_code": "NOT_SAME_PERSON"}), json!({}), "NOT_SAME_PERSON", json!("Failure")),
        (json!({}), json!({"result_code": "NOT_SAME_PERSON"}), "NOT_SAME_PERSON", json!("Failure")),
        (json!({}), json!({"connect_result": "VoidTimeout"}), "SUCCESS", json!("VoidTimeout")),
        (json!({}), json!({"connect_result": "Failure"}), "SUCCESS", json!("Failure")),
        (json!({}), json!({"face_attack": true}), "SUCCESS", json!("Failure")),
        (json!({}), json!({"result_code": "PROCESSING"}), "PROCESSING", json!("InProcess")),
        (json!({}), json!({"result_code": "UNABLE_GET_IMAGE"}), "UNABLE_GET_IMAGE", Value::Null),
        (json!({}), json!({"result_code": "SYSTEM_ERROR"}), "SYSTEM_ERROR", Value::Null),
    ] {
        let id = create(&sim, &made).await;
        let completed = complete(&sim, &id, &done).await;
        assert_eq!(
            (&completed["result_code"], &completed["product_result"]),
            (&json!(code), &verdict),
            "{made} {done}"
        );
        let answer = merchant.check(&sim, &id).await.json();
        assert_eq!((&answer["result"]["resultCode"], &answer["connectResult"]), (&json!(code), &verdict));
        let view = sim.control("GET", &format!("/_sim/transactions/{id}"), "").await.json();
        assert_eq!((&view["provider"], &view["result_code"]), (&json!("zoloz"), &json!(code)));
    }
}

#[tokio::test]
async fn details_of_the_answer_are_as_asked_for() {
    let (sim, merchant) = set_up().await;
    let wish = json!({"face_score": 61, "deeper_result": "Fail", "deeper_result_description": "deepfake",
        "patch": {"extFaceInfo": {"faceScore": "61.5", "refImage": null}, "more": [1]}});
    let answer = merchant.check(&sim, &finished(&sim, &wish)).await.json();
    let info = &answer["extFaceInfo"];
    assert_eq!((&info["faceScore"], info.get("refImage"), &answer["more"]), (&json!("61.5"), None, &json!([1])));
    assert_eq!((&info["deeperResult"], &info["deeperResultDescription"]), (&json!("Fail"), &json!("deepfake")));
}

#[tokio::test]
async fn answers_follow_the_script_after_what_is_worked_on() {
    let (sim, merchant) = set_up().await;
    let script = json!([{"result_code": "SYSTEM_ERROR"}, {"result_code": "NOT_SAME_PERSON"}, {}]);
    let id = create(&sim, &json!({"processing_calls": 1, "answers": script})).await;
    let mut codes = Vec::new();
    for _ in 0..5 {
        codes.push(merchant.check(&sim, &id).await.code());
    }
    assert_eq!(codes, ["PROCESSING", "SYSTEM_ERROR", "NOT_SAME_PERSON", "SUCCESS", "SUCCESS"]);
}

#[tokio::test]
async fn the_browser_is_sent_where_initialize_said() {
    let (sim, merchant) = set_up().await;
    let config = json!({"completeCallbackUrl": "https://shop.example/back?a=1", "state": "st+ä&1",
        "interruptCallbackUrl": "https://shop.example/broken"});
    let initialize = async || {
        let body = initialize_body(&json!({"h5ModeConfig": config}));
        merchant.post(&sim, INITIALIZE, &body).await.json()["transactionId"].as_str().unwrap().to_owned()
    };
    for (done, start, code, sub_code) in [
        (json!({}), "https://shop.example/back?a=1&response=", "1000", "Z5050"),
        (json!({"result_code": "NOT_SAME_PERSON"}), "https://shop.example/back?a=1&response=", "2006", "Z5051"),
        (json!({"interrupted": "Z5055"}), "https://shop.example/broken?response=", "1003", "Z5055"),
    ] {
        let id = initialize().await;
        let mut body = done.clone();
        body["redirect"] = json!(true);
        let completed = complete(&sim, &id, &body).await;
        let url = completed["redirect_url"].as_str().unwrap();
        assert!(url.starts_with(start), "{url}");
        let (_, response) = reqwest::Url::parse(url).unwrap().query_pairs().into_owned().last().unwrap();
        let wanted = json!({"state": "st+ä&1", "code": code, "subCode": sub_code, "extInfo": {}});
        assert_eq!(serde_json::from_str::<Value>(&response).unwrap(), wanted);
        let finished = merchant.check(&sim, &id).await.code() != "PROCESSING";
        assert_eq!(finished, done.get("interrupted").is_none());
    }
    let without = create(&sim, &json!({})).await;
    let refused = sim.control("POST", &format!("/_sim/transactions/{without}/complete"), r#"{"redirect":true}"#).await;
    assert!(refused.status == 400 && refused.text.contains("completeCallbackUrl"), "{}", refused.text);
    assert_eq!(sim.simulator.zoloz_transaction(&without).unwrap().completed_at, None);
}

#[tokio::test]
async fn unknown_members_and_what_makes_no_sense_are_named() {
    let (sim, _) = set_up().await;
    let id = create(&sim, &json!({})).await;
    let (at, complete) = ("/_sim/transactions", format!("/_sim/transactions/{id}/complete"));
    let callbacks = format!("/_sim/transactions/{id}/callbacks");
    for (path, body, named) in [
        (at, r#"{"provider":"zoloz","passed":"N"}"#, "passed"),
        (at, r#"{"provider":"zoloz","aes_bits":192}"#, "aes_bits"),
        (at, r#"{"provider":"zoloz","client_id":"nobody"}"#, "client_id"),
        (at, r#"{"provider":"zoloz","product":"nfc"}"#, "nfc"),
        (at, r#"{"provider":"zolos"}"#, "zolos"),
        (at, r#"{"result_code":"SUCCESS"}"#, "result_code"),
        (&*complete, r#"{"passed":"N"}"#, "passed"),
        (&*callbacks, "{}", "redirect"),
        ("/_sim/faults", r#"{"provider":"alibaba","kind":"tamper"}"#, "signed"),
    ] {
        let answer = sim.control("POST", path, body).await;
        assert_eq!(answer.status, 400, "{path} {body}");
        assert!(answer.json()["error"].as_str().unwrap().contains(named), "{}", answer.text);
    }
}

#[tokio::test]
async fn an_id_names_one_transaction_of_one_provider() {
    let (sim, _) = set_up().await;
    let zoloz = |id: &str| ZolozTransaction { transaction_id: Some(id.into()), ..ZolozTransaction::default() };
    let alibaba = |id: &str| CreateTransaction { transaction_id: Some(id.into()), ..CreateTransaction::default() };
    sim.simulator.create_zoloz(zoloz("z")).unwrap();
    sim.simulator.create(alibaba("a")).unwrap();
    let exists = |id: &str| ControlError::TransactionExists(id.into());
    assert_eq!(sim.simulator.create_zoloz(zoloz("z")).unwrap_err(), exists("z"));
    assert_eq!(sim.simulator.create_zoloz(zoloz("a")).unwrap_err(), exists("a"));
    assert_eq!(sim.simulator.create(alibaba("z")).unwrap_err(), exists("z"));
    let nobody = sim.simulator.complete_zoloz("a", ZolozComplete::default()).unwrap_err();
    assert_eq!(nobody, ControlError::UnknownTransaction("a".into()));
}

#[tokio::test]
async fn calls_are_told_without_what_they_carried() {
    let (sim, merchant) = set_up().await;
    let id = finished(&sim, &json!({}));
    let call = merchant.call(&sim, CHECK_RESULT, &check_body(&id), Mode::Encrypted(32));
    merchant.send(&sim, &call).await;
    merchant.check(&sim, "nobody").await;
    merchant.send(&sim, &Call { client_id: "x".into(), ..call }).await;
    merchant.post(&sim, "/api/v1/zoloz/none", &json!({})).await;
    let lines = sim.control("GET", "/_sim/calls", "").await.text;
    let ends: Vec<_> = lines.lines().map(|line| line.split_once(' ').unwrap().1).collect();
    assert_eq!(
        ends,
        [
            format!("connect/checkresult {id} 200 SUCCESS"),
            "connect/checkresult nobody 200 INVALID_ARGUMENT".into(),
            "connect/checkresult - 200 MERCHANT_NOT_FOUND".into(),
            "/api/v1/zoloz/none - 200 NO_INTERFACE_DEF".into(),
        ]
    );
}

#[tokio::test]
async fn a_scenario_may_hold_both_providers() {
    use std::io::Write as _;
    let text =
        r#"[{"transaction_id":"a","completed":true},{"provider":"zoloz","transaction_id":"z","completed":true}]"#;
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    let sim = Sim::with(Settings { scenario: Some(file.path().into()), ..Settings::default() }).await;
    assert_eq!(sim.result("a").await.status, 200);
    assert_eq!(Merchant::of(&sim.simulator).check(&sim, "z").await.code(), "SUCCESS");
}

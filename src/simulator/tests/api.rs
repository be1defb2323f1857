//! Who is let in, and what the operations answer.

use chrono::TimeDelta;
use serde_json::json;

use super::*;
use crate::simulator::ClockMove;

#[tokio::test]
async fn both_signatures_are_accepted_by_get_and_post() {
    let sim = Sim::start().await;
    let id = sim.passed().await;
    for method in ["POST", "GET"] {
        let signer = || Signer { method, ..sim.check(&id, &[("Odd", " a+b*~/=张")]) };
        for answer in [sim.acs3(&signer()).await, sim.rpc(&signer()).await] {
            assert_eq!(answer.status, 200, "{}", answer.text);
            let body = answer.json();
            assert_eq!((&body["Code"], &body["Message"]), (&json!("Success"), &json!("success")));
            assert_eq!((&body["Result"]["Passed"], &body["Result"]["SubCode"]), (&json!("Y"), &json!("200")));
            assert_eq!(body["RequestId"].as_str().unwrap().len(), 36);
            assert_eq!(answer.inner("ExtFaceInfo")["facePassed"], "Y");
        }
    }
}

#[tokio::test]
async fn parameters_of_a_form_are_signed_and_used() {
    let sim = Sim::start().await;
    let id = sim.passed().await;
    let mut signer = sim.signer("CheckVerifyLog", &[]);
    let form = [("TransactionId", id.clone()), ("MerchantBizId", "biz1".to_owned())];
    signer.parameters = form.to_vec();
    // Signed together with the query, then moved to the body.
    let request = sim.rpc_request(&signer).build().unwrap();
    let (body, rest): (Vec<_>, Vec<_>) = request
        .url()
        .query_pairs()
        .into_owned()
        .partition(|(name, _)| form.iter().any(|(form_name, _)| form_name == name));
    let encode =
        |pairs: Vec<(String, String)>| form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
    let send = |body: String| {
        let url = format!("http://{}/?{}", sim.host, encode(rest.clone()));
        sim.send(sim.client.post(url).header("content-type", "application/x-www-form-urlencoded").body(body))
    };
    let changed = send(encode(body.clone()) + "x").await;
    assert_eq!(changed.refusal(), (400, "SignatureDoesNotMatch".to_owned()));
    let answer = send(encode(body)).await;
    assert_eq!(answer.json()["Result"]["VerifyStatus"], "0", "{}", answer.text);
}

#[tokio::test]
async fn callers_that_cannot_be_trusted_are_refused() {
    let sim = Sim::start().await;
    let id = sim.passed().await;
    let good = || sim.check(&id, &[]);
    let at = |by: TimeDelta| rfc3339(sim.simulator.now() + by);
    for (wrong, status, code) in [
        (Signer { key: "other", ..good() }, 404, "InvalidAccessKeyId.NotFound"),
        (Signer { secret: "other", ..good() }, 400, "SignatureDoesNotMatch"),
        (Signer { date: at(TimeDelta::minutes(16)), ..good() }, 400, "InvalidTimeStamp.Expired"),
        (Signer { date: at(TimeDelta::minutes(-16)), ..good() }, 400, "InvalidTimeStamp.Expired"),
        (Signer { date: "2026-01-01 00:00:00".into(), ..good() }, 400, "InvalidTimeStamp.Format"),
        (Signer { nonce: String::new(), ..good() }, 400, "MissingParameter"),
        (Signer { action: "Describe", ..good() }, 404, "InvalidAction.NotFound"),
        (Signer { version: "2019-01-01", ..good() }, 400, "InvalidVersion"),
        (Signer { method: "PUT", ..good() }, 405, "UnsupportedHTTPMethod"),
    ] {
        for answer in [sim.acs3(&wrong).await, sim.rpc(&wrong).await] {
            assert_eq!(answer.refusal(), (status, code.to_owned()), "{}", answer.text);
            let body = answer.json();
            assert_eq!(body["HostId"], sim.host);
            assert!(body["Recommend"].as_str().unwrap().starts_with("https://"));
        }
    }
    for by in [14, -14] {
        let near = Signer { date: at(TimeDelta::minutes(by)), ..good() };
        assert_eq!(sim.acs3(&near).await.status, 200);
    }
}

#[tokio::test]
async fn a_nonce_works_once() {
    let sim = Sim::start().await;
    let id = sim.passed().await;
    let signer = sim.check(&id, &[]);
    // A call that was not signed rightly uses up nothing.
    assert_eq!(sim.acs3(&Signer { secret: "other", ..signer.clone() }).await.status, 400);
    assert_eq!(sim.acs3(&signer).await.status, 200);
    assert_eq!(sim.acs3(&signer).await.refusal(), (400, "SignatureNonceUsed".to_owned()));
    assert_eq!(sim.rpc(&signer).await.refusal(), (400, "SignatureNonceUsed".to_owned()));
}

#[tokio::test]
async fn every_provider_header_must_be_signed_and_the_hash_must_fit_the_body() {
    let sim = Sim::start().await;
    let id = sim.passed().await;
    let unsigned = sim.acs3_with(&sim.check(&id, &[]), &[("x-acs-security-token", "t")]);
    assert_eq!(sim.send(unsigned).await.refusal(), (400, "SignatureDoesNotMatch".to_owned()));
    let harmless = sim.acs3_with(&sim.check(&id, &[]), &[("accept", "*/*")]);
    assert_eq!(sim.send(harmless).await.status, 200);
    let other_body = sim.acs3_request(&sim.check(&id, &[])).body("a=b");
    assert_eq!(sim.send(other_body).await.refusal(), (400, "SignatureDoesNotMatch".to_owned()));
}

#[tokio::test]
async fn a_required_security_token_is_required() {
    let sim = Sim::with(Settings { security_token: Some("token-1".into()), ..Settings::default() }).await;
    let id = sim.passed().await;
    assert_eq!(sim.rpc(&sim.check(&id, &[])).await.refusal(), (400, "InvalidSecurityToken".to_owned()));
    assert_eq!(sim.rpc(&sim.check(&id, &[("SecurityToken", "token-1")])).await.status, 200);
}

#[tokio::test]
async fn transactions_that_cannot_be_answered_are_refused() {
    let sim = Sim::start().await;
    assert_eq!(sim.result("nobody").await.refusal(), (400, "TransactionIdInvalid".to_owned()));
    let open = sim.created(CreateTransaction::default());
    assert_eq!(sim.result(&open).await.refusal(), (404, "ProcessNotCompleted".to_owned()));
    let without_biz_id = sim.signer("CheckResult", &[("TransactionId", &open)]);
    assert_eq!(sim.acs3(&without_biz_id).await.refusal(), (400, "MissingParameter".to_owned()));
    let odd = sim.check(&open, &[("IsReturnImage", "yes")]);
    assert_eq!(sim.acs3(&odd).await.refusal(), (400, "InvalidParameter".to_owned()));
}

#[tokio::test]
async fn initialize_makes_a_transaction() {
    let sim = Sim::start().await;
    let more = [("CallbackUrl", "https://shop.example/cb"), ("CallbackToken", "tok"), ("DocVideo", "Y")];
    let answer = sim.acs3(&sim.initialize(&more)).await;
    let result = &answer.json()["Result"];
    let id = result["TransactionId"].as_str().unwrap();
    assert_eq!(id.len(), 32);
    assert!(["TransactionUrl", "Protocol", "ClientCfg"].iter().all(|name| result[name].is_string()));
    let view = sim.simulator.transaction(id).unwrap();
    assert!(view.doc_video && view.has_callback_token && view.completed_at.is_none());
    let second = sim.acs3(&sim.signer("InitializeV2", &[("ProductCode", "eKYC")])).await;
    assert_eq!(second.refusal(), (400, "MissingParameter".to_owned()));
}

#[tokio::test]
async fn initialize_refuses_what_the_documentation_forbids() {
    let sim = Sim::start().await;
    for (name, value, allowed) in [
        ("CallbackUrl", "http://shop.example/cb", false),
        ("CallbackUrl", "ftp://shop.example/cb", false),
        ("CallbackUrl", "not a url", false),
        ("CallbackUrl", "http://127.0.0.1:8080/cb", true),
        ("CallbackUrl", "http://[::1]:8080/cb", true),
        ("SceneCode", "a-b", false),
        ("SceneCode", "scene_1", true),
        ("DocVideo", "yes", false),
        ("ProcedurePriority", "url", true),
        ("ProcedurePriority", "none", false),
    ] {
        let answer = sim.acs3(&sim.initialize(&[(name, value)])).await;
        let wanted = if allowed { (200, "Success".to_owned()) } else { (400, "InvalidParameter".to_owned()) };
        assert_eq!(answer.refusal(), wanted, "{name}={value}");
    }
    let open = Sim::with(Settings { allow_http_callbacks: true, ..Settings::default() }).await;
    let answer = open.acs3(&open.initialize(&[("CallbackUrl", "http://checkback:8080/cb")])).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
}

#[tokio::test]
async fn images_come_only_when_asked_for() {
    let sim = Sim::start().await;
    let id = sim.passed().await;
    assert!(!sim.result(&id).await.text.contains("faceImg"));
    let with = sim.acs3(&sim.check(&id, &[("IsReturnImage", "Y")])).await;
    assert!(with.inner("ExtFaceInfo")["faceImg"].as_str().unwrap().starts_with("/9j/"));
}

#[tokio::test]
async fn a_video_link_expires_and_the_video_disappears() {
    let sim = Sim::start().await;
    let id = sim.created(CreateTransaction { doc_video: true, completed: Some(true), ..Default::default() });
    let link = async || sim.result(&id).await.inner("ExtFaceInfo")["docVideoUrl"].as_str().map(str::to_owned);
    let status = async |url: &str| sim.client.get(url).send().await.unwrap().status().as_u16();
    let later = |minutes| sim.simulator.move_clock(ClockMove::Advance(TimeDelta::minutes(minutes)));

    let first = link().await.unwrap();
    assert!(first.starts_with(&format!("http://{}/", sim.host)), "{first}");
    assert_eq!(status(&first).await, 200);
    assert_eq!(status(&first.replace("Signature=", "Signature=00")).await, 403);
    later(15);
    assert_eq!(status(&first).await, 403);
    let second = link().await.unwrap();
    assert_eq!(status(&second).await, 200);
    later(14);
    let third = link().await.unwrap();
    later(1);
    assert_eq!(status(&third).await, 404);
    assert_eq!(link().await, None);
    let videos: Vec<_> = sim.simulator.call_log().into_iter().filter(|call| call.operation == "Video").collect();
    assert_eq!(videos.iter().map(|call| call.status).collect::<Vec<_>>(), [200, 403, 403, 200, 404]);
}

#[tokio::test]
async fn no_video_is_offered_unless_it_was_asked_for() {
    let sim = Sim::start().await;
    let id = sim.passed().await;
    assert_eq!(sim.result(&id).await.inner("ExtFaceInfo").get("docVideoUrl"), None);
}

#[tokio::test]
async fn results_disappear_30_days_after_the_completion() {
    let sim = Sim::start().await;
    let id = sim.passed().await;
    let gone_code = Some("ProcessNotCompleted".to_owned());
    let other = sim.created(CreateTransaction { completed: Some(true), gone_code, ..Default::default() });
    sim.simulator.move_clock(ClockMove::Advance(TimeDelta::days(30) - TimeDelta::minutes(5)));
    let answer = sim.result(&id).await;
    assert_eq!(answer.status, 200);
    assert!((answer.date - sim.simulator.now()).num_seconds().abs() < 60);
    sim.simulator.move_clock(ClockMove::Advance(TimeDelta::minutes(5)));
    assert_eq!(sim.result(&id).await.refusal(), (400, "TransactionIdInvalid".to_owned()));
    assert_eq!(sim.result(&other).await.refusal(), (404, "ProcessNotCompleted".to_owned()));
}

#[tokio::test]
async fn too_many_calls_a_second_are_throttled_with_a_time_to_wait() {
    let sim = Sim::with(Settings { qps: Some(1), ..Settings::default() }).await;
    let id = sim.passed().await;
    let mut throttled = None;
    // A new second may begin between two calls, but not between all of them.
    for _ in 0..50 {
        let answer = sim.result(&id).await;
        if answer.status != 200 {
            throttled = Some(answer);
            break;
        }
    }
    let throttled = throttled.unwrap();
    assert_eq!(throttled.refusal(), (403, "Throttling.Api".to_owned()));
    let ms: u64 = throttled.retry_after.unwrap().parse().unwrap();
    assert!((1..=1000).contains(&ms), "{ms}");
    let initialized = sim.acs3(&sim.initialize(&[])).await;
    assert_eq!(initialized.status, 200, "the limit is per operation");
}

#[tokio::test]
async fn the_log_of_a_verification_tells_how_far_it_came() {
    let sim = Sim::start().await;
    let log = async |id: &str| {
        let signer = sim.signer("CheckVerifyLog", &[("TransactionId", id), ("MerchantBizId", "b")]);
        let result = sim.acs3(&signer).await.json()["Result"].clone();
        (result["VerifyStatus"].clone(), result["VerifyErrorCode"].clone())
    };
    let id = sim.created(CreateTransaction::default());
    assert_eq!(log(&id).await, (json!("2"), json!(null)));
    let broken_off = Complete { interrupted: Some("1006".into()), ..Complete::default() };
    sim.simulator.complete(&id, broken_off).await.unwrap();
    assert_eq!(log(&id).await, (json!("1"), json!("1006")));
    assert_eq!(sim.result(&id).await.refusal(), (404, "ProcessNotCompleted".to_owned()));
    assert_eq!(log(&sim.passed().await).await, (json!("0"), json!("1000")));
}

#[tokio::test]
async fn results_can_be_deleted_in_parts() {
    let sim = Sim::start().await;
    let delete = async |id: &str, what: &'static str| {
        let parameters = [("TransactionId", id), ("DeleteType", what), ("DeleteAfterQuery", "Y")];
        let answer = sim.acs3(&sim.signer("DeleteVerifyResult", &parameters)).await;
        answer.json()["Result"]["DeleteResult"].as_str().unwrap().to_owned()
    };
    let id = sim.passed().await;
    assert_eq!(delete(&id, "Img").await, "N", "it was not asked for yet");
    assert_eq!(sim.result(&id).await.status, 200);
    assert_eq!(delete(&id, "Img").await, "Y");
    assert!(!sim.acs3(&sim.check(&id, &[("IsReturnImage", "Y")])).await.text.contains("faceImg"));
    assert_eq!(delete(&id, "Text").await, "Y");
    assert_eq!(sim.result(&id).await.json()["Result"], json!({"Passed": "Y", "SubCode": "200"}));
    assert_eq!(delete(&id, "All").await, "Y");
    assert_eq!(sim.result(&id).await.refusal(), (400, "TransactionIdInvalid".to_owned()));
}

#[tokio::test]
async fn keepalive_is_answered() {
    let sim = Sim::start().await;
    assert_eq!(sim.rpc(&sim.signer("KeepaliveIntl", &[])).await.code(), "Success");
}

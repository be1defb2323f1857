//! Each kind of fault as a client of ZOLOZ sees it.

use super::*;
use crate::simulator::Fault;

fn fault(body: &str) -> Fault {
    serde_json::from_str(body).unwrap()
}

async fn faulty(sim: &Sim, merchant: &Merchant, body: &str, mode: Mode) -> Reply {
    let id = finished(sim, &json!({}));
    sim.simulator.add_fault(fault(body)).unwrap();
    let call = merchant.call(sim, CHECK_RESULT, &check_body(&id), mode);
    let answer = merchant.send(sim, &call).await;
    assert_eq!(merchant.send(sim, &call).await.result(), result(true, "S", "SUCCESS"), "one call is hit");
    answer
}

#[tokio::test]
async fn answers_can_be_tampered_with_signed_by_a_stranger_or_not_signed() {
    let (sim, merchant) = set_up().await;
    for kind in ["tamper", "wrong_key", "unsigned"] {
        let body = json!({"provider": "zoloz", "kind": kind}).to_string();
        for mode in [Mode::Rsa, Mode::AkSk] {
            let answer = faulty(&sim, &merchant, &body, mode).await;
            // All else is in order, so that only the check of the signature can tell.
            assert_eq!(answer.result(), result(false, "S", "SUCCESS"), "{kind} {mode:?}");
            assert_eq!(answer.json()["connectResult"], "Success");
        }
    }
    let encrypted = faulty(&sim, &merchant, r#"{"kind":"wrong_key"}"#, Mode::Encrypted(32)).await;
    assert_eq!((encrypted.signed, encrypted.encrypted, encrypted.code()), (false, Some(32), "SUCCESS".into()));
}

#[tokio::test]
async fn faults_of_signatures_leave_the_other_provider_alone() {
    let (sim, merchant) = set_up().await;
    sim.simulator.add_fault(fault(r#"{"kind":"tamper"}"#)).unwrap();
    sim.simulator.add_fault(fault(r#"{"provider":"zoloz","kind":"html"}"#)).unwrap();
    let id = sim.passed().await;
    assert_eq!(sim.result(&id).await.status, 200);
    assert!(!merchant.check(&sim, "nobody").await.signed);
    assert_eq!(
        merchant
            .reply(sim.client.post(format!("http://{}{CHECK_RESULT}", sim.host)), CHECK_RESULT, Mode::Rsa)
            .await
            .code(),
        "MERCHANT_NOT_FOUND"
    );
}

#[tokio::test]
async fn statuses_and_codes_are_as_asked_for() {
    let (sim, merchant) = set_up().await;
    for (body, status, signed, result_status, code) in [
        ("{}", 500, false, "U", "SYSTEM_ERROR"),
        (r#"{"status":503}"#, 503, false, "U", "SYSTEM_ERROR"),
        (r#"{"kind":"throttle"}"#, 200, true, "F", "REQUEST_TRAFFIC_EXCEED_LIMIT"),
        (r#"{"kind":"throttle","status":429}"#, 429, true, "F", "REQUEST_TRAFFIC_EXCEED_LIMIT"),
        (r#"{"kind":"code","code":"PRODUCT_QUOTA_LIMIT"}"#, 200, true, "F", "PRODUCT_QUOTA_LIMIT"),
        (r#"{"kind":"code","code":"SYSTEM_ERROR"}"#, 200, true, "U", "SYSTEM_ERROR"),
        (r#"{"kind":"delay","delay_ms":1}"#, 200, true, "S", "SUCCESS"),
    ] {
        let answer = faulty(&sim, &merchant, body, Mode::Rsa).await;
        assert_eq!((answer.status, answer.result()), (status, result(signed, result_status, code)), "{body}");
    }
}

#[tokio::test]
async fn answers_that_are_no_json() {
    let (sim, merchant) = set_up().await;
    let html = faulty(&sim, &merchant, r#"{"kind":"html"}"#, Mode::Rsa).await;
    assert!(html.status == 403 && !html.signed && html.text.starts_with("<html>"));
    let empty = faulty(&sim, &merchant, r#"{"kind":"empty"}"#, Mode::Rsa).await;
    assert_eq!((empty.status, empty.text.as_str()), (200, ""));
    for mode in MODES {
        let garbage = faulty(&sim, &merchant, r#"{"kind":"garbage"}"#, mode).await;
        assert!(garbage.signed && serde_json::from_str::<Value>(&garbage.text).is_err(), "{mode:?}");
    }
    let huge = faulty(&sim, &merchant, r#"{"kind":"huge","bytes":200000}"#, Mode::Rsa).await;
    assert!(huge.status == 200 && huge.text.len() > 200_000);
}

#[tokio::test]
async fn a_cut_off_answer_breaks_in_the_middle() {
    let (sim, merchant) = set_up().await;
    sim.simulator.add_fault(fault(r#"{"kind":"cut_off"}"#)).unwrap();
    let call = merchant.call(&sim, CHECK_RESULT, &check_body("t"), Mode::Rsa);
    let broken = match merchant.request(&sim, &call).send().await {
        Ok(response) => response.bytes().await.is_err(),
        Err(_) => true,
    };
    assert!(broken);
}

#[tokio::test]
async fn a_skewed_provider_refuses_good_times_and_shows_its_own() {
    let (sim, merchant) = set_up().await;
    sim.simulator.add_fault(fault(r#"{"kind":"skew","skew_seconds":3600}"#)).unwrap();
    let call = merchant.call(&sim, CHECK_RESULT, &check_body("t"), Mode::Rsa);
    let response = merchant.request(&sim, &call).send().await.unwrap();
    let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
    let ahead = |at: DateTime<Utc>| (at - sim.simulator.now()).num_seconds();
    let date = DateTime::parse_from_rfc2822(&header("date")).unwrap().to_utc();
    let time = sign::read_time(&header("response-time")).unwrap();
    assert!((3500..=3600).contains(&ahead(date)) && (3500..=3600).contains(&ahead(time)));
    assert!(response.text().await.unwrap().contains("ACCESS_DENIED"));
}

//! Each kind of fault as a client sees it.

use crate::simulator::FaultKind;

use super::*;
use crate::simulator::Fault;

async fn faulty(sim: &Sim, fault: Fault) -> Answered {
    let id = sim.passed().await;
    sim.simulator.add_fault(fault).unwrap();
    let answer = sim.result(&id).await;
    assert_eq!(sim.result(&id).await.status, 200, "one call is hit");
    answer
}

fn fault(body: &str) -> Fault {
    serde_json::from_str(body).unwrap()
}

#[tokio::test]
async fn statuses_and_codes_are_as_asked_for() {
    let sim = Sim::start().await;
    for (body, status, code) in [
        ("{}", 500, "InternalError"),
        (r#"{"status":503}"#, 503, "ServiceUnavailable"),
        (r#"{"status":502,"code":"Odd"}"#, 502, "Odd"),
        (r#"{"kind":"code","code":"Forbidden.RAMUserAccessDenied"}"#, 403, "Forbidden.RAMUserAccessDenied"),
        (r#"{"kind":"code","code":"Throttling.Api","status":429}"#, 429, "Throttling.Api"),
        (r#"{"kind":"code","code":"Brand.New"}"#, 400, "Brand.New"),
        (r#"{"kind":"throttle","retry_after_ms":250}"#, 400, "Throttling.User"),
    ] {
        let answer = faulty(&sim, fault(body)).await;
        assert_eq!(answer.refusal(), (status, code.to_owned()), "{body}");
        assert_eq!(answer.retry_after.is_some(), body.contains("retry_after"));
    }
}

#[tokio::test]
async fn error_bodies_come_in_three_forms() {
    let sim = Sim::start().await;
    let lower = faulty(&sim, fault(r#"{"form":"lower_case"}"#)).await;
    assert_eq!(lower.json()["code"], "InternalError");
    let xml = faulty(&sim, fault(r#"{"form":"xml","message":"a < b"}"#)).await;
    assert!(xml.text.contains("<Code>InternalError</Code>") && xml.text.contains("a &lt; b"), "{}", xml.text);
}

#[tokio::test]
async fn answers_that_are_no_json() {
    let sim = Sim::start().await;
    let html = faulty(&sim, fault(r#"{"kind":"html"}"#)).await;
    assert!(html.status == 502 && html.text.starts_with("<html>"));
    let empty = faulty(&sim, fault(r#"{"kind":"empty"}"#)).await;
    assert_eq!((empty.status, empty.text.as_str()), (200, ""));
    let garbage = faulty(&sim, fault(r#"{"kind":"garbage"}"#)).await;
    assert!(garbage.status == 200 && serde_json::from_str::<Value>(&garbage.text).is_err());
    let huge = faulty(&sim, fault(r#"{"kind":"huge","bytes":200000}"#)).await;
    assert!(huge.status == 200 && huge.text.len() > 200_000);
}

#[tokio::test]
async fn a_cut_off_answer_breaks_in_the_middle() {
    let sim = Sim::start().await;
    let id = sim.passed().await;
    sim.simulator.add_fault(Fault { kind: FaultKind::CutOff, ..Fault::default() }).unwrap();
    let broken = match sim.acs3_request(&sim.check(&id, &[])).send().await {
        Ok(response) => response.bytes().await.is_err(),
        Err(_) => true,
    };
    assert!(broken);
    assert_eq!(sim.simulator.call_log().last().unwrap().code, "CutOff");
}

#[tokio::test]
async fn a_skewed_provider_refuses_good_times_and_shows_its_own() {
    let sim = Sim::start().await;
    let answer = faulty(&sim, fault(r#"{"kind":"skew","skew_seconds":3600}"#)).await;
    assert_eq!(answer.refusal(), (400, "InvalidTimeStamp.Expired".to_owned()));
    let ahead = (answer.date - sim.simulator.now()).num_seconds();
    assert!((3500..=3600).contains(&ahead), "{ahead}");
}

#[tokio::test]
async fn a_delayed_answer_is_the_right_one_and_a_caller_that_gives_up_is_recorded() {
    let sim = Sim::start().await;
    let answer = faulty(&sim, fault(r#"{"kind":"delay","delay_ms":1}"#)).await;
    assert_eq!(answer.status, 200);

    let id = sim.passed().await;
    sim.simulator.add_fault(fault(r#"{"kind":"delay","delay_ms":600000}"#)).unwrap();
    let impatient = sim.acs3_request(&sim.check(&id, &[])).timeout(Duration::from_millis(50));
    assert!(impatient.send().await.unwrap_err().is_timeout());
    while sim.simulator.call_log().last().unwrap().code == "Pending" {
        tokio::task::yield_now().await;
    }
    assert_eq!(sim.simulator.call_log().last().unwrap().code, "CallerGone");
}

#[tokio::test]
async fn a_video_can_be_refused_by_name() {
    let sim = Sim::start().await;
    let id = sim.created(CreateTransaction { doc_video: true, completed: Some(true), ..Default::default() });
    let url = sim.result(&id).await.inner("ExtFaceInfo")["docVideoUrl"].as_str().unwrap().to_owned();
    sim.simulator.add_fault(fault(r#"{"operation":"Video","status":403,"code":"AccessDenied"}"#)).unwrap();
    let status = async || sim.client.get(&url).send().await.unwrap().status().as_u16();
    assert_eq!((status().await, status().await), (403, 200));
}

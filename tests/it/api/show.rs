use std::time::{Duration, Instant};

use checkback::simulator::{Complete, CreateTransaction};
use reqwest::{Method, header};
use serde_json::{Value, json};

use super::{problem, register_plain};
use crate::support::app::TestApp;

#[tokio::test]
async fn a_final_verification_has_its_verdict_in_every_member() {
    let test = TestApp::start().await;
    let (transaction, id) = test.begin(CreateTransaction::default(), json!({ "callback_token": "right" })).await;
    test.simulator.complete(&transaction, Complete::default()).await.unwrap();
    assert_eq!(test.callback(&transaction, Some("right")).await.status(), 200);
    let body = test.final_verification(&id).await;
    assert_eq!((&body["status"], &body["revision"], &body["attempts"]), (&json!("passed"), &json!(1), &json!(1)));
    assert_eq!((&body["next_attempt_at"], &body["last_error"]), (&Value::Null, &Value::Null));
    for time in ["registered_at", "callback_at", "final_at"] {
        assert!(body[time].as_str().unwrap().ends_with('Z'), "{time}: {body}");
    }
    assert!(body["scores"].as_object().unwrap().values().all(Value::is_number), "{body}");
    assert_eq!(body["signals"]["face_passed"], true);
    // From the callback on the provider keeps the result for thirty days.
    let time = |value: &Value| chrono::DateTime::parse_from_rfc3339(value.as_str().unwrap()).unwrap();
    assert_eq!((time(&body["deadlines"]["result"]) - time(&body["callback_at"])).num_days(), 30);
}

#[tokio::test]
async fn waiting_for_nothing_answers_at_once() {
    let test = TestApp::start().await;
    let id = register_plain(&test, "t").await;
    for query in ["", "?wait=0", "?wait="] {
        let body = test.get_json(&format!("/verifications/{id}{query}")).await;
        assert_eq!(body["status"], "waiting", "{query}");
    }
}

#[tokio::test]
async fn waiting_ends_with_the_time_asked_for() {
    let test = TestApp::start().await;
    let id = register_plain(&test, "t").await;
    let begun = Instant::now();
    let body = test.get_json(&format!("/verifications/{id}?wait=1")).await;
    assert_eq!(body["final"], false);
    assert!(begun.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn all_who_wait_are_answered_as_soon_as_it_is_final() {
    let test = TestApp::start().await;
    let (transaction, id) = test.begin(CreateTransaction::default(), json!({ "callback_token": "right" })).await;
    test.simulator.complete(&transaction, Complete::default()).await.unwrap();
    let path = format!("/verifications/{id}?wait=60");
    let finals = test.app.as_ref().unwrap().service.finals.clone();
    let waiting = futures_util::future::join_all((0..3).map(|_| test.get_json(&path)));
    let begun = Instant::now();
    let (answers, ()) = tokio::join!(waiting, async {
        test.until("somebody waits", || async { (!finals.awaited().is_empty()).then_some(()) }).await;
        assert_eq!(test.callback(&transaction, Some("right")).await.status(), 200);
    });
    assert!(begun.elapsed() < Duration::from_secs(20), "the answers came with the verdict, not with the time");
    assert!(answers.iter().all(|body| body["status"] == "passed"), "{answers:?}");
}

#[tokio::test]
async fn another_replica_wakes_who_waits_here() {
    let test = TestApp::start().await;
    let other = test.replica().await;
    let (transaction, id) = test.begin(CreateTransaction::default(), json!({ "callback_token": "right" })).await;
    test.simulator.complete(&transaction, Complete::default()).await.unwrap();
    let waiting = test.http.get(format!("http://{}/verifications/{id}?wait=60", other.internal));
    let waiting = waiting.bearer_auth(crate::support::app::KEY);
    let (answer, ()) = tokio::join!(waiting.send(), async {
        let finals = other.service.finals.clone();
        test.until("somebody waits", || async { (!finals.awaited().is_empty()).then_some(()) }).await;
        assert_eq!(test.callback(&transaction, Some("right")).await.status(), 200);
    });
    assert_eq!(answer.unwrap().json::<Value>().await.unwrap()["status"], "passed");
    other.shut_down().await;
}

#[tokio::test]
async fn an_unchanged_verification_is_not_sent_again() {
    let test = TestApp::start().await;
    let (transaction, id) = test.begin(CreateTransaction::default(), json!({ "callback_token": "right" })).await;
    let path = format!("/verifications/{id}");
    let first = test.get(&path).await;
    let tag = first.headers()[header::ETAG].to_str().unwrap().to_owned();
    assert!(tag.starts_with('"') && tag.ends_with('"') && tag.len() > 2, "{tag}");
    assert_eq!(first.headers()[header::CONTENT_TYPE], "application/json");
    let ask = |known: String| test.request(Method::GET, &path).header(header::IF_NONE_MATCH, known).send();
    for known in [tag.clone(), format!("\"other\", {tag}"), format!("W/{tag}"), "*".to_owned()] {
        let response = ask(known.clone()).await.unwrap();
        assert_eq!(response.status(), 304, "{known}");
        assert_eq!(response.headers()[header::ETAG], tag.as_str());
        assert!(response.bytes().await.unwrap().is_empty());
    }
    assert_eq!(ask("\"other\"".to_owned()).await.unwrap().status(), 200);
    test.simulator.complete(&transaction, Complete::default()).await.unwrap();
    assert_eq!(test.callback(&transaction, Some("right")).await.status(), 200);
    test.final_verification(&id).await;
    let changed = ask(tag.clone()).await.unwrap();
    assert_eq!(changed.status(), 200);
    assert_ne!(changed.headers()[header::ETAG], tag.as_str());
}

#[tokio::test]
async fn waiting_for_one_that_is_not_there_is_refused_at_once() {
    let test = TestApp::start().await;
    let response = test.get("/verifications/01980c5e-8c1f-7d52-a3c4-0a6b5f7e9d21?wait=60").await;
    problem(response, 404, "verification_not_found").await;
}

#[tokio::test]
async fn who_waits_with_a_tag_hears_of_a_change_at_once_and_of_none_at_the_end() {
    let test = TestApp::start().await;
    let (transaction, id) = test.begin(CreateTransaction::default(), json!({ "callback_token": "right" })).await;
    let tag = test.get(&format!("/verifications/{id}")).await.headers()[header::ETAG].clone();
    let ask = |wait: u32| {
        let path = format!("/verifications/{id}?wait={wait}");
        test.request(Method::GET, &path).header(header::IF_NONE_MATCH, tag.clone()).send()
    };
    let begun = Instant::now();
    assert_eq!(ask(1).await.unwrap().status(), 304);
    assert!(begun.elapsed() >= Duration::from_secs(1), "the wait ended unchanged");
    test.simulator.complete(&transaction, Complete::default()).await.unwrap();
    let finals = test.app.as_ref().unwrap().service.finals.clone();
    let (answer, ()) = tokio::join!(ask(60), async {
        test.until("somebody waits", || async { (!finals.awaited().is_empty()).then_some(()) }).await;
        assert_eq!(test.callback(&transaction, Some("right")).await.status(), 200);
    });
    let answer = answer.unwrap();
    assert_eq!(answer.status(), 200);
    assert_ne!(answer.headers()[header::ETAG], tag);
}

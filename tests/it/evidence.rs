//! Evidence from the provider's answer to the reader: stored, asked for again, missed with a reason, sealed.
//!
//! How many videos the long run has comes from the environment: `EVIDENCE_VIDEOS`.

#![cfg(test)]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use checkback::simulator::{Complete, CreateTransaction, Fault, FaultKind};
use chrono::TimeDelta;
use reqwest::StatusCode;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::support::app::{ACCOUNT, Setup, TestApp};
use super::support::environment;

pub fn with_images() -> Setup {
    Setup { account: "qps = 100000\nreturn_images = true".to_owned(), ..Setup::default() }
}

fn with_video() -> CreateTransaction {
    CreateTransaction { doc_video: true, ..CreateTransaction::default() }
}

fn video_fault(kind: FaultKind, times: u32) -> Fault {
    Fault { operation: Some("Video".to_owned()), kind, times: Some(times), ..Fault::default() }
}

/// The evidence of a verification by its kind.
pub async fn evidence(test: &TestApp, id: &str) -> BTreeMap<String, Value> {
    let body = test.verification(id).await;
    let list = body["evidence"].as_array().unwrap().clone();
    list.into_iter().map(|one| (one["kind"].as_str().unwrap().to_owned(), one)).collect()
}

/// Waits until the evidence of that kind is in one of these states.
async fn until_state(test: &TestApp, id: &str, kind: &str, state: &str) -> Value {
    test.until(&format!("{kind} {state}"), async || {
        let found = evidence(test, id).await.remove(kind)?;
        (found["state"] == state).then_some(found)
    })
    .await
}

/// A verification whose person has finished and whose verdict is there.
async fn finished(test: &TestApp, transaction: CreateTransaction, registration: Value) -> (String, String) {
    let (transaction, id) = test.begin(transaction, registration).await;
    test.simulator.complete(&transaction, Complete::default()).await.unwrap();
    test.collect(&id).await;
    test.final_verification(&id).await;
    (transaction, id)
}

async fn evidence_history(test: &TestApp, id: &str) -> Vec<Value> {
    test.history(id).await.into_iter().filter(|item| item["kind"] == "evidence").collect()
}

pub fn files(test: &TestApp) -> Vec<PathBuf> {
    fn walk(path: &std::path::Path, found: &mut Vec<PathBuf>) {
        let Ok(entries) = std::fs::read_dir(path) else { return };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() { walk(&path, found) } else { found.push(path) }
        }
    }
    let mut found = Vec::new();
    walk(&test.evidence, &mut found);
    found
}

/// Moves the clocks on second by second, each time only when nothing is under way, until `condition` holds.
async fn step_until(test: &TestApp, what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let pool = test.database.pool().await;
    let busy = "SELECT EXISTS (SELECT FROM hints)
        OR EXISTS (SELECT FROM collect_jobs WHERE lease_token IS NOT NULL OR due_at <= $1)
        OR EXISTS (SELECT FROM evidence WHERE state = 'pending' AND lease_token IS NULL AND due_at <= $1)";
    for _ in 0..40 * 60 {
        if condition().await {
            return;
        }
        test.until("at rest", async || {
            // Whoever was woken by the step has begun by then.
            for _ in 0..50 {
                tokio::task::yield_now().await;
            }
            if test.app.as_ref().unwrap().service.evidence.uploads_under_way() > 0 {
                return None;
            }
            let now = test.clock.now();
            let is_busy: bool = sqlx::query_scalar(busy).bind(now).fetch_one(&pool).await.unwrap();
            (!is_busy).then_some(())
        })
        .await;
        test.advance(Duration::from_secs(1));
    }
    panic!("not within 40 minutes: {what}");
}

async fn execute(test: &TestApp, statement: &str, id: &str) -> u64 {
    let id: sqlx::types::Uuid = id.parse().unwrap();
    let statement = sqlx::AssertSqlSafe(statement.to_owned());
    sqlx::query(statement).bind(id).execute(&test.database.pool().await).await.unwrap().rows_affected()
}

#[tokio::test]
async fn images_and_video_are_stored_and_read_back_with_their_hash() {
    let test = TestApp::with(with_images()).await;
    let (_, id) = finished(&test, with_video(), json!({ "expect_video": true })).await;
    for (kind, content_type) in
        [("face_image", "image/jpeg"), ("reference_image", "image/jpeg"), ("video", "video/webm")]
    {
        let stored = until_state(&test, &id, kind, "stored").await;
        assert_eq!((&stored["content_type"], &stored["reason"]), (&json!(content_type), &Value::Null));
        let answer = test.get(&format!("/verifications/{id}/evidence/{kind}")).await;
        assert_eq!(answer.status(), StatusCode::OK);
        let headers = answer.headers().clone();
        let bytes = answer.bytes().await.unwrap();
        let hash = Sha256::digest(&bytes);
        assert_eq!(headers["content-type"], content_type);
        assert_eq!(headers["cache-control"], "no-store");
        assert_eq!(headers["digest"], format!("sha-256={}", STANDARD.encode(hash)));
        assert_eq!(headers["content-length"], bytes.len().to_string());
        assert_eq!((&stored["sha256"], &stored["bytes"]), (&json!(hex::encode(hash)), &json!(bytes.len())));
    }
    let history = evidence_history(&test, &id).await;
    let of = |name: &str, value: &str| history.iter().filter(|item| item[name] == value).count();
    assert_eq!((of("state", "stored"), of("read", "face_image"), of("read", "video")), (3, 1, 1), "{history:?}");
    let read = history.iter().find(|item| item["read"] == "video").unwrap();
    assert_eq!(read["by"], "test");
    assert_eq!(test.verification(&id).await["revision"], 1);
    // Each file under its verification, and nothing unfinished.
    let files = files(&test);
    assert_eq!(files.len(), 3);
    assert!(files.iter().all(|file| file.starts_with(test.evidence.join(ACCOUNT).join(&id))), "{files:?}");
    let metrics = test.get("/metrics").await.text().await.unwrap();
    assert!(metrics.contains("checkback_evidence_total{kind=\"video\",state=\"stored\"}"));
    assert!(metrics.contains("checkback_deadline_margin_seconds_count{kind=\"video\"}"));
}

#[tokio::test]
async fn without_images_nothing_is_asked_for_and_nothing_written() {
    let test = TestApp::start().await;
    let (transaction, id) = finished(&test, CreateTransaction::default(), json!({})).await;
    assert!(evidence(&test, &id).await.is_empty());
    assert_eq!(test.calls_for("Video", &transaction), 0);
    assert!(files(&test).is_empty());
    let refused = test.get(&format!("/verifications/{id}/evidence/face_image")).await;
    assert_eq!(refused.status(), StatusCode::NOT_FOUND);
    let problem: Value = refused.json().await.unwrap();
    assert_eq!(problem["code"], "evidence_not_found");
}

#[tokio::test]
async fn a_video_that_was_expected_and_never_made_is_absent() {
    let test = TestApp::start().await;
    let (_, id) = finished(&test, CreateTransaction::default(), json!({ "expect_video": true })).await;
    let video = until_state(&test, &id, "video", "absent").await;
    assert!(video["reason"].as_str().unwrap().contains("the provider has no video"), "{video}");
    let history = evidence_history(&test, &id).await;
    assert_eq!((history.len(), &history[0]["state"]), (1, &json!("absent")));
}

#[tokio::test]
async fn a_video_that_was_asked_for_too_late_is_missed() {
    let test = TestApp::start().await;
    let (transaction, id) = test.begin(with_video(), json!({ "expect_video": true })).await;
    test.simulator
        .add_fault(Fault {
            kind: FaultKind::Status,
            operation: Some("CheckResult".into()),
            times: Some(1),
            ..Fault::default()
        })
        .unwrap();
    test.simulator.complete(&transaction, Complete::default()).await.unwrap();
    test.collect(&id).await;
    test.attempted(&id, 1).await;
    test.advance_to(test.clock.now() + TimeDelta::minutes(31)).await;
    test.final_verification(&id).await;
    let video = until_state(&test, &id, "video", "missed").await;
    assert!(video["reason"].as_str().unwrap().contains("after the provider had deleted"), "{video}");
    let refused: Value = test.get(&format!("/verifications/{id}/evidence/video")).await.json().await.unwrap();
    assert_eq!(refused["code"], "evidence_not_found");
    assert!(refused["detail"].as_str().unwrap().contains("is missed: "), "{refused}");
}

#[tokio::test]
async fn a_dead_link_is_replaced_by_asking_again_and_the_verdict_stays() {
    let test = TestApp::start().await;
    test.simulator.add_fault(Fault { status: Some(403), ..video_fault(FaultKind::Status, 1) }).unwrap();
    let (transaction, id) = finished(&test, with_video(), json!({})).await;
    until_state(&test, &id, "video", "stored").await;
    assert_eq!((test.calls_for("Video", &transaction), test.calls_for("CheckResult", &transaction)), (2, 2));
    let body = test.verification(&id).await;
    assert_eq!((&body["revision"], &body["status"], &body["attempts"]), (&json!(1), &json!("passed"), &json!(2)));
}

#[tokio::test]
async fn a_link_that_fails_for_the_moment_is_tried_again_without_another_call() {
    let test = TestApp::start().await;
    for kind in [FaultKind::Status, FaultKind::CutOff, FaultKind::WrongLength] {
        test.simulator.add_fault(video_fault(kind, 1)).unwrap();
    }
    let (transaction, id) = finished(&test, with_video(), json!({})).await;
    step_until(&test, "stored", async || evidence(&test, &id).await["video"]["state"] == "stored").await;
    assert_eq!((test.calls_for("Video", &transaction), test.calls_for("CheckResult", &transaction)), (4, 1));
    assert_eq!(files(&test).len(), 1, "nothing is left of the attempts that failed");
}

#[tokio::test]
async fn what_is_no_video_is_missed_and_not_stored() {
    let test = TestApp::start().await;
    test.simulator.add_fault(Fault { status: Some(200), ..video_fault(FaultKind::Html, 1) }).unwrap();
    let (_, id) = finished(&test, with_video(), json!({})).await;
    let video = until_state(&test, &id, "video", "missed").await;
    assert!(video["reason"].as_str().unwrap().contains("no type that is kept"), "{video}");
    assert!(files(&test).is_empty());
    // An operator may ask once more while the provider still has it.
    test.recheck(&id).await;
    until_state(&test, &id, "video", "stored").await;
}

#[tokio::test]
async fn a_link_that_is_dead_until_the_end_is_missed_with_the_reason() {
    let test = TestApp::start().await;
    test.simulator.add_fault(Fault { status: Some(403), ..video_fault(FaultKind::Status, 10_000) }).unwrap();
    let (_, id) = finished(&test, with_video(), json!({})).await;
    let deadline = test.clock.now() + TimeDelta::minutes(30);
    step_until(&test, "the deadline", async || test.clock.now() >= deadline).await;
    let video = until_state(&test, &id, "video", "missed").await;
    let reason = video["reason"].as_str().unwrap();
    assert_eq!(reason, "the provider's link answered 403, until the provider deleted it");
    let asked = test.provider_calls("CheckResult");
    assert!((2..=20).contains(&asked), "asked {asked} times");
    test.advance(Duration::from_hours(24));
    assert_eq!(test.provider_calls("CheckResult"), asked, "nobody asks for what is gone");
}

#[tokio::test]
async fn a_capture_whose_worker_died_is_done_by_another() {
    let test = TestApp::with(with_images()).await;
    let (transaction, id) = finished(&test, with_video(), json!({})).await;
    until_state(&test, &id, "video", "stored").await;
    for kind in ["face_image", "reference_image"] {
        until_state(&test, &id, kind, "stored").await;
    }
    // As a process leaves it that was killed while it wrote: an object that nobody knows, a lease that runs out.
    let dead = "UPDATE evidence SET state = 'pending', stored_at = NULL, object = NULL, content_type = NULL,
        bytes = NULL, sha256 = NULL, sealed = NULL, lease_token = gen_random_uuid(),
        leased_until = clock_timestamp() - interval '1 s' WHERE verification_id = $1";
    assert_eq!(execute(&test, dead, &id).await, 3);
    for kind in ["video", "face_image", "reference_image"] {
        until_state(&test, &id, kind, "stored").await;
    }
    assert_eq!(test.calls_for("CheckResult", &transaction), 2, "one call brings all");
    test.until("the dead worker's objects are gone", async || (files(&test).len() == 3).then_some(())).await;
}

#[tokio::test]
async fn what_was_erased_is_not_brought_back() {
    let test = TestApp::with(with_images()).await;
    let (_, id) = finished(&test, with_video(), json!({})).await;
    until_state(&test, &id, "video", "stored").await;
    until_state(&test, &id, "face_image", "stored").await;
    // Its worker died after it had stored an object and before it said so; meanwhile everything was erased.
    let file = files(&test).into_iter().find(|file| file.to_str().unwrap().contains("face_image")).unwrap();
    let token = file.file_name().unwrap().to_str().unwrap().strip_prefix("face_image-").unwrap().to_owned();
    let erased = format!(
        "UPDATE evidence SET state = 'erased', object = NULL, lease_token = '{token}',
            leased_until = clock_timestamp() - interval '1 s'
        WHERE verification_id = $1 AND kind = 'face_image'"
    );
    execute(&test, &erased, &id).await;
    test.until("destroyed", async || (!file.exists()).then_some(())).await;
    test.recheck(&id).await;
    test.attempted(&id, 2).await;
    test.advance_to(test.clock.now() + TimeDelta::minutes(1)).await;
    assert_eq!(evidence(&test, &id).await["face_image"]["state"], "erased");
    let refused: Value = test.get(&format!("/verifications/{id}/evidence/face_image")).await.json().await.unwrap();
    assert_eq!(refused["code"], "evidence_not_found");
}

#[tokio::test]
async fn a_store_that_fails_holds_up_no_verdict_and_gets_what_can_still_be_had() {
    let test = TestApp::with(with_images()).await;
    std::fs::remove_dir_all(&test.evidence).unwrap();
    std::fs::write(&test.evidence, "in the way").unwrap();
    let (_, id) = finished(&test, CreateTransaction::default(), json!({})).await;
    step_until(&test, "given up for now", async || {
        let reason = &evidence(&test, &id).await["face_image"]["reason"];
        reason.as_str().is_some_and(|reason| reason.contains("evidence store"))
    })
    .await;
    assert_eq!(evidence(&test, &id).await["face_image"]["state"], "pending");
    std::fs::remove_file(&test.evidence).unwrap();
    std::fs::create_dir(&test.evidence).unwrap();
    step_until(&test, "stored", async || evidence(&test, &id).await["face_image"]["state"] == "stored").await;
}

#[tokio::test]
async fn bytes_that_are_not_those_that_were_stored_are_not_given_out() {
    let test = TestApp::with(with_images()).await;
    let (_, id) = finished(&test, CreateTransaction::default(), json!({})).await;
    until_state(&test, &id, "face_image", "stored").await;
    let file = files(&test).into_iter().find(|file| file.to_str().unwrap().contains("face_image")).unwrap();
    let path = format!("/verifications/{id}/evidence/face_image");
    let right = std::fs::read(&file).unwrap();
    let mut wrong = right.clone();
    wrong[100] ^= 1;
    for bytes in [wrong, right[..300].to_vec(), [&right[..], b"more"].concat()] {
        std::fs::write(&file, bytes).unwrap();
        // The connection breaks before the end, of a short one before the beginning.
        let whole = async { test.request(reqwest::Method::GET, &path).send().await?.bytes().await };
        assert!(whole.await.is_err());
    }
    std::fs::remove_file(&file).unwrap();
    let refused = test.get(&path).await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.json::<Value>().await.unwrap()["code"], "evidence_unavailable");
}

#[tokio::test]
async fn sealed_evidence_is_served_where_there_is_an_identity_alone() {
    let identity = "AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX";
    let recipient = "age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj";
    let mut test = TestApp::with(Setup { evidence: format!("recipients = ['{recipient}']"), ..with_images() }).await;
    let (_, id) = finished(&test, CreateTransaction::default(), json!({})).await;
    let stored = until_state(&test, &id, "face_image", "stored").await;
    let path = format!("/verifications/{id}/evidence/face_image");
    let refused = test.get(&path).await;
    assert_eq!(refused.status(), StatusCode::CONFLICT);
    let problem: Value = refused.json().await.unwrap();
    assert!(
        problem["code"] == "evidence_sealed" && problem["detail"].as_str().unwrap().contains("age -d"),
        "{problem}"
    );
    assert!(std::fs::read(&files(&test)[0]).unwrap().starts_with(b"age-encryption.org"));
    assert!(evidence_history(&test, &id).await.iter().all(|item| item["read"].is_null()), "nobody read it");
    let key = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(key.path(), identity).unwrap();
    test.config = test.config.replace(
        &format!("recipients = ['{recipient}']"),
        &format!("recipients = ['{recipient}']\nidentity_file = '{}'", key.path().display()),
    );
    test.restart().await;
    let answer = test.get(&path).await;
    assert_eq!(answer.status(), StatusCode::OK);
    let bytes = answer.bytes().await.unwrap();
    assert_eq!(stored["sha256"], hex::encode(Sha256::digest(&bytes)));
    assert!(bytes.starts_with(b"\xFF\xD8\xFF"));
}

#[tokio::test]
async fn reading_needs_the_scope_and_a_known_kind() {
    let more = "[[auth.keys]]\nname = \"reader\"\nscopes = [\"read\"]\nsha256 = ".to_owned()
        + &format!("\"{}\"", hex::encode(Sha256::digest("only-read")));
    let test = TestApp::with(Setup { more, ..with_images() }).await;
    let (_, id) = finished(&test, CreateTransaction::default(), json!({})).await;
    until_state(&test, &id, "face_image", "stored").await;
    let path = format!("/verifications/{id}/evidence/face_image");
    let refused = test.http.get(test.internal(&path)).bearer_auth("only-read").send().await.unwrap();
    assert_eq!(refused.status(), StatusCode::FORBIDDEN);
    for (path, code) in [
        (format!("/verifications/{id}/evidence/voice"), "evidence_not_found"),
        (format!("/verifications/{id}/evidence/video"), "evidence_not_found"),
        ("/verifications/01980c5e-8c1f-7d52-a3c4-0a6b5f7e9d21/evidence/video".to_owned(), "verification_not_found"),
        ("/verifications/nonsense/evidence/video".to_owned(), "verification_not_found"),
    ] {
        let refused = test.get(&path).await;
        assert_eq!(refused.status(), StatusCode::NOT_FOUND, "{path}");
        assert_eq!(refused.json::<Value>().await.unwrap()["code"], code, "{path}");
    }
    assert!(evidence_history(&test, &id).await.iter().all(|item| item["read"].is_null()));
}

#[tokio::test]
async fn a_stop_gives_captures_back_and_the_next_start_asks_again() {
    let mut test = TestApp::start().await;
    test.simulator.add_fault(video_fault(FaultKind::Status, 1)).unwrap();
    let (transaction, id) = finished(&test, with_video(), json!({})).await;
    test.until("tried", async || (test.calls_for("Video", &transaction) == 1).then_some(())).await;
    // The clock stands still, so it would wait for its next attempt for ever.
    test.restart().await;
    until_state(&test, &id, "video", "stored").await;
    assert_eq!((test.calls_for("Video", &transaction), test.calls_for("CheckResult", &transaction)), (2, 2));
}

/// Many videos, each with faults of its own, and workers that die. What the provider would have given within its 30
/// minutes is stored; each other one says why not.
#[tokio::test]
async fn whatever_can_be_fetched_within_its_30_minutes_is_stored() {
    let videos = match environment::variable("EVIDENCE_VIDEOS") {
        Some(text) => text.to_str().and_then(|text| text.parse().ok()).expect("EVIDENCE_VIDEOS is a number"),
        None => 24,
    };
    let test = TestApp::with(with_images()).await;
    let mut all = Vec::new();
    for n in 0..videos {
        let (transaction, id) = test.begin(with_video(), json!({ "expect_video": true })).await;
        let of = |kind, times: u32| Fault { transaction_id: Some(transaction.clone()), ..video_fault(kind, times) };
        let dead = |times| Fault { status: Some(403), ..of(FaultKind::Status, times) };
        let faults = match n % 8 {
            0 => vec![],
            1 => vec![dead(1)],
            2 => vec![of(FaultKind::Status, 3)],
            3 => vec![of(FaultKind::CutOff, 2), dead(2)],
            4 => vec![of(FaultKind::WrongLength, 2), of(FaultKind::Empty, 0)],
            5 => vec![Fault { delay_ms: Some(1), ..of(FaultKind::Drip, 1) }],
            6 => vec![dead(3), of(FaultKind::Status, 4), dead(1)],
            _ => vec![dead(100_000)],
        };
        for fault in faults.into_iter().filter(|fault| fault.times != Some(0)) {
            test.simulator.add_fault(fault).unwrap();
        }
        test.simulator.complete(&transaction, Complete::default()).await.unwrap();
        all.push((n, transaction, id));
    }
    for (_, _, id) in &all {
        test.collect(id).await;
    }
    let pool = test.database.pool().await;
    let pending = "SELECT count(*) FROM evidence WHERE state = 'pending'";
    let kill = "UPDATE evidence SET leased_until = clock_timestamp() - interval '1 s', lease_token = gen_random_uuid()
        WHERE lease_token IS NOT NULL AND kind = 'video' AND get_byte(uuid_send(verification_id), 15) % 5 = 0";
    for (_, _, id) in &all {
        test.final_verification(id).await;
    }
    let began = test.clock.now();
    step_until(&test, "nothing pending", async || {
        // Workers that are killed: their leases are somebody else's from here on.
        if test.clock.now() - began < TimeDelta::minutes(2) {
            sqlx::query(kill).execute(&pool).await.unwrap();
        }
        let left: i64 = sqlx::query_scalar(pending).fetch_one(&pool).await.unwrap();
        left == 0
    })
    .await;
    let (mut stored, mut missed) = (0, 0);
    for (n, transaction, id) in &all {
        let video = evidence(&test, id).await.remove("video").unwrap();
        if n % 8 == 7 {
            missed += 1;
            assert_eq!(video["state"], "missed", "{n}: {video}");
            assert!(video["reason"].as_str().unwrap().contains("403"), "{n}: {video}");
            continue;
        }
        assert_eq!(video["state"], "stored", "{n} {transaction}: {video}");
        let at = super::support::app::time(&video["stored_at"]);
        assert!(at - began < TimeDelta::minutes(30), "{n}: {video}");
        let served = test.get(&format!("/verifications/{id}/evidence/video")).await.bytes().await.unwrap();
        assert_eq!(video["sha256"], hex::encode(Sha256::digest(&served)), "{n}");
        stored += 1;
    }
    assert_eq!(stored + missed, all.len());
    assert!(files(&test).iter().all(|file| file.extension().is_none()), "{:?}", files(&test));
}

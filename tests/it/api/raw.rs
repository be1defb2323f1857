//! The provider's answer behind a verdict: who gets it, what is recorded of that, and that nothing of it is elsewhere.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use checkback::simulator::{Answer, Complete, CreateTransaction};
use chrono::TimeDelta;
use reqwest::{Response, header};
use serde_json::{Map, Value, json};
use tracing_subscriber::fmt::format::FmtSpan;

use super::errors::keys_of_one_scope;
use super::{problem, register_plain};
use crate::support::app::{Setup, TestApp};

/// What the documents in these tests say. Nobody else says it.
const CANARIES: [&str; 6] = ["CANARY", "canary", "Zwölfender", "3173019876543210", "9021045678", "1987-06-05"];

fn canaries_in(text: &str) -> Vec<&'static str> {
    CANARIES.into_iter().filter(|canary| text.contains(canary)).collect()
}

/// Members of `Result` with document data wherever one may stand.
fn document_data() -> Map<String, Value> {
    let document = json!({
        "idNumber": "CANARY-A1234567", "name": "CANARY PERSON Zwölfender", "birthDate": "1987-06-05",
        "personal_number": 3_173_019_876_543_210_u64, "address": {"street": "canary lane 7"},
    });
    let parts = json!({
        "ExtIdInfo": {
            "ocrIdInfo": document, "ocrIdBackInfo": document, "ocrIdEditInfo": document.to_string(),
            "ocrIdInfoData": {"front": document, "back": [document]},
            "ocrIdPassed": "Y", "idFaceQualityScore": 88.5, "ocrNumberScore": "3173019876543210",
            "nameScore": "CANARY PERSON", "idNumber": "3173019876543210", "spoofInfo": {"spoofResult": "N"},
        },
        "ExtBasicInfo": {"certNo": "3173019876543210", "certName": "CANARY PERSON", "document": document},
        "ExtSourceInfo": {"govId": "3173019876543210", "dob": 9_021_045_678_u64, "fullName": "CANARY PERSON",
            "selfiePhoto": 0.8777},
        "ExtRiskInfo": {"phone": "CANARY-PHONE", "list": ["canary@example.com"]},
        "EkycResult": {"document": document},
        "ExtInfo": {"procedurePriority": "keep", "mrz": "P<CANARY<<9021045678"},
    });
    parts.as_object().unwrap().clone()
}

/// The same as the provider sends it: each part is JSON in a string.
fn in_strings(parts: &Map<String, Value>) -> Map<String, Value> {
    parts.iter().map(|(name, part)| (name.clone(), part.to_string().into())).collect()
}

/// Everything that is logged on this thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

async fn with_key(test: &TestApp, key: &str, path: &str) -> Response {
    test.http.get(test.internal(path)).bearer_auth(key).send().await.unwrap()
}

async fn reads(test: &TestApp, id: &str) -> Vec<Value> {
    test.history(id).await.into_iter().filter(|item| item["kind"] == "evidence").collect()
}

/// A verification with a verdict.
async fn finished(test: &TestApp, transaction: CreateTransaction) -> String {
    let (transaction, id) = test.begin(transaction, json!({})).await;
    test.simulator.complete(&transaction, Complete::default()).await.unwrap();
    test.collect(&id).await;
    test.final_verification(&id).await;
    id
}

/// All that the database holds but the answers.
async fn stored_elsewhere(test: &TestApp) -> String {
    let statement = "
        SELECT to_jsonb(t)::text FROM verification_records t
        UNION ALL SELECT to_jsonb(t)::text FROM verifications t
        UNION ALL SELECT to_jsonb(t)::text FROM collect_jobs t
        UNION ALL SELECT to_jsonb(t)::text FROM hints t
        UNION ALL SELECT to_jsonb(t)::text FROM history t
        UNION ALL SELECT to_jsonb(t)::text FROM accounts t
        UNION ALL SELECT to_jsonb(t)::text FROM unmatched_callbacks t
        UNION ALL SELECT (to_jsonb(t) - 'answer')::text FROM verdicts t";
    let rows: Vec<String> = sqlx::query_scalar(statement).fetch_all(&test.database.pool().await).await.unwrap();
    rows.join("\n")
}

#[tokio::test]
async fn document_data_is_found_behind_the_scope_evidence_and_nowhere_else() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_span_events(FmtSpan::FULL)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    // The whole service runs on this test's thread.
    let capturing = tracing::subscriber::set_default(subscriber);
    let test = TestApp::with(Setup { more: keys_of_one_scope(), ..Setup::default() }).await;
    let documents = document_data();
    let odd = [
        Answer { passed: Some("maybe".to_owned()), ext: documents.clone(), ..Answer::default() },
        Answer { body: Some(format!("{{\"Result\":{}", Value::from(documents.clone()))), ..Answer::default() },
        Answer { body: Some("<html>CANARY PERSON 3173019876543210</html>".to_owned()), ..Answer::default() },
        Answer {
            status: Some(500),
            code: Some("InternalError".to_owned()),
            message: Some("CANARY PERSON, 3173019876543210".to_owned()),
            ..Answer::default()
        },
    ];
    let attempts = u64::try_from(odd.len()).unwrap();
    let mut answers = Vec::from(odd);
    answers.push(Answer { ext: in_strings(&documents), ..Answer::default() });
    let scripted = CreateTransaction { product_code: Some("eKYC_PRO".to_owned()), answers, ..Default::default() };
    let (_, odd_id) = test.begin(scripted, json!({})).await;
    test.collect(&odd_id).await;

    let mut elsewhere = Vec::new();
    for attempt in 1..=attempts {
        let body = test.attempted(&odd_id, attempt).await;
        assert_ne!(body["last_error"], Value::Null);
        elsewhere.push(body.to_string());
        test.advance_to(test.clock.now() + TimeDelta::minutes(11)).await;
    }
    test.final_verification(&odd_id).await;
    let plain_id = finished(&test, CreateTransaction { ext: documents, ..Default::default() }).await;

    for id in [&odd_id, &plain_id] {
        let path = format!("/verifications/{id}/raw");
        for key in ["only-read", "only-register", "only-operate", "only-erase"] {
            let refused = problem(with_key(&test, key, &path).await, 403, "scope_missing").await;
            elsewhere.push(refused.to_string());
        }
        assert!(reads(&test, id).await.is_empty(), "a refusal is no read");
        let answer = with_key(&test, "only-evidence", &path).await;
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()[header::CONTENT_TYPE], "application/json");
        assert_eq!(answer.headers()[header::CACHE_CONTROL], "no-store");
        elsewhere.push(format!("{:?}", answer.headers()));
        let answer = answer.text().await.unwrap();
        assert_eq!(canaries_in(&answer), CANARIES, "{answer}");
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!((&answer["Code"], &answer["Result"]["Passed"]), (&json!("Success"), &json!("Y")));
        elsewhere
            .push(problem(test.get(&format!("{path}?revision=2")).await, 404, "answer_not_found").await.to_string());
        elsewhere.push(test.verification(id).await.to_string());
        elsewhere.push(Value::from(test.history(id).await).to_string());
    }
    for path in ["/verifications", "/metrics", "/readyz", "/healthz"] {
        elsewhere.push(test.get(path).await.text().await.unwrap());
    }
    elsewhere.push(stored_elsewhere(&test).await);
    drop(capturing);
    let log = log.text();
    assert!(log.contains("checkback::") && log.contains(&odd_id), "the log was not captured");
    elsewhere.push(log);
    for text in elsewhere {
        assert!(canaries_in(&text).is_empty(), "{:?} in {text}", canaries_in(&text));
    }
}

#[tokio::test]
async fn each_read_is_in_the_history_with_who_and_what() {
    let test = TestApp::with(Setup { more: keys_of_one_scope(), ..Setup::default() }).await;
    let id = finished(&test, CreateTransaction::default()).await;
    let path = format!("/verifications/{id}/raw");
    test.advance(Duration::from_secs(5));
    let request = test.http.get(test.internal(&path)).bearer_auth("only-evidence").header("X-Request-Id", "reads-17");
    assert_eq!(request.send().await.unwrap().status(), 200);
    let made = test.get(&path).await;
    let made = made.headers()["x-request-id"].to_str().unwrap();
    let reads = reads(&test, &id).await;
    let at = &reads[0]["at"];
    assert!(at.as_str() > test.verification(&id).await["final_at"].as_str());
    assert_eq!(
        reads,
        [("only-evidence", "reads-17"), ("test", made)].map(|(by, request_id)| json!({
            "at": at, "kind": "evidence", "read": "raw", "revision": 1, "by": by, "request_id": request_id,
        }))
    );
}

#[tokio::test]
async fn the_answer_of_each_revision_is_kept() {
    let test = TestApp::start().await;
    let answers = ["Y", "N"].map(|passed| Answer { passed: Some(passed.to_owned()), ..Answer::default() });
    let id = finished(&test, CreateTransaction { answers: Vec::from(answers), ..Default::default() }).await;
    test.recheck(&id).await;
    test.until("another verdict", async || (test.verification(&id).await["revision"] == 2).then_some(())).await;
    for (query, passed) in [("", "N"), ("?revision=1", "Y"), ("?revision=2", "N")] {
        let answer = test.get_json(&format!("/verifications/{id}/raw{query}")).await;
        assert_eq!(answer["Result"]["Passed"], passed, "{query}");
    }
    let revisions: Vec<_> = reads(&test, &id).await.iter().map(|item| item["revision"].as_u64().unwrap()).collect();
    assert_eq!(revisions, [2, 1, 2]);
}

#[tokio::test]
async fn where_there_is_no_answer_nothing_is_recorded() {
    let test = TestApp::start().await;
    let open = register_plain(&test, "t").await;
    let path = format!("/verifications/{open}/raw");
    let refused = problem(test.get(&path).await, 404, "answer_not_found").await;
    assert!(refused["detail"].as_str().unwrap().contains("no verdict yet"), "{refused}");
    // The simulator does not know the transaction, so it ends without an answer.
    test.collect(&open).await;
    assert_eq!(test.final_verification(&open).await["status"], "unresolvable");
    let refused = problem(test.get(&path).await, 404, "answer_not_found").await;
    assert!(refused["detail"].as_str().unwrap().contains("is unresolvable"), "{refused}");
    let refused = problem(test.get(&format!("{path}?revision=7")).await, 404, "answer_not_found").await;
    assert!(refused["detail"].as_str().unwrap().contains("no revision 7"), "{refused}");
    assert!(reads(&test, &open).await.is_empty());
}

#[tokio::test]
async fn a_read_that_cannot_be_recorded_brings_no_answer() {
    let test = TestApp::start().await;
    let id = finished(&test, CreateTransaction { ext: document_data(), ..Default::default() }).await;
    let path = format!("/verifications/{id}/raw");
    // Told at the commit, when the rows have been sent already: the last moment at which it can fail.
    sqlx::raw_sql(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql
            AS $$ BEGIN RAISE EXCEPTION 'no room' USING ERRCODE = 'disk_full'; END $$;
        CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON history DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION refuse()",
    )
    .execute(&test.database.pool().await)
    .await
    .unwrap();
    let refused = problem(test.get(&path).await, 503, "database_unavailable").await;
    assert!(canaries_in(&refused.to_string()).is_empty());
    assert!(reads(&test, &id).await.is_empty());
}

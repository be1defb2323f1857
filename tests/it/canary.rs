//! Marked values are planted wherever personal data and secrets come in, every flow is run, and then every place is
//! searched for each mark: logs at every level, metrics, problems, what the API shows, `Debug`, every column of every
//! table, the evidence store. Where a mark may be is written beside it; anywhere else it is a leak. After the erasure
//! none of those that came from or about the person is anywhere.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use checkback::provider::CheckRequest;
use checkback::simulator::{
    Answer, CreateTransaction, Fault, FaultKind, Settings, ZolozComplete, ZolozKeys, ZolozOutcome, ZolozTransaction,
};
use reqwest::Method;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgPool};
use tracing_subscriber::fmt::format::FmtSpan;

use super::api::register;
use super::erasure::erase;
use super::evidence::files;
use super::support::app::{ACCOUNT, KEY, Setup, TestApp, zoloz_account};

const ZOLOZ: &str = "zoloz-sg";

/// Where document data may be: in the answer as it came, and behind the scope `evidence`.
const ANSWER: &[&str] = &["verdicts.answer", "raw"];
const IMAGE: &[&str] = &["evidence store"];
/// What the merchant gave to be given back.
const GIVEN_BACK: &[&str] = &["verifications.metadata", "show", "list", "started"];
const NOWHERE: &[&str] = &[];

/// A planted value and where it may be found while the verification is not erased.
struct Mark {
    name: &'static str,
    text: String,
    allowed: &'static [&'static str],
    /// It is about the service and not about the person, so an erasure leaves it.
    stays: bool,
}

fn mark(name: &'static str, text: &str, allowed: &'static [&'static str]) -> Mark {
    Mark { name, text: text.to_owned(), allowed, stays: false }
}

/// A picture: what a JPEG begins with, and a marked rest.
fn picture(text: &str) -> Vec<u8> {
    let mut bytes = b"\xFF\xD8\xFF\xE0\0\x10JFIF\0".to_vec();
    for _ in 0..20 {
        bytes.extend_from_slice(text.as_bytes());
        bytes.extend_from_slice(b"\xE5\x01");
    }
    bytes
}

fn encoded(text: &str) -> String {
    STANDARD.encode(picture(text))
}

/// A piece of the picture's Base64 that nothing else looks like.
fn piece(text: &str) -> String {
    encoded(text)[60..110].to_owned()
}

/// Everything that is logged on this thread, where the whole service runs.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Texts with the place where each was found.
type Found = Vec<(String, Vec<u8>)>;

/// Every column of every table of ours.
async fn tables(pool: &PgPool) -> Found {
    let columns: Vec<(String, String)> = sqlx::query_as(
        "SELECT c.table_name::text, c.column_name::text
        FROM information_schema.columns c
        JOIN information_schema.tables t USING (table_schema, table_name)
        WHERE c.table_schema = 'public'
        AND t.table_type = 'BASE TABLE'
        AND c.table_name <> '_sqlx_migrations'",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    assert!(columns.len() > 80, "the tables are not where they were");
    let mut found = Found::new();
    for (table, column) in columns {
        let statement = format!("SELECT coalesce(string_agg({column}::text, E'\\n'), '') FROM {table}");
        let text: String = sqlx::query_scalar(AssertSqlSafe(statement)).fetch_one(pool).await.unwrap();
        found.push((format!("{table}.{column}"), text.into_bytes()));
    }
    found
}

fn stored(test: &TestApp) -> Found {
    let read = |path: std::path::PathBuf| {
        let mut bytes = path.to_str().unwrap().as_bytes().to_vec();
        bytes.extend(std::fs::read(&path).unwrap());
        ("evidence store".to_owned(), bytes)
    };
    files(test).into_iter().map(read).collect()
}

fn holds(bytes: &[u8], text: &str) -> bool {
    let hex = hex::encode(text);
    [text.as_bytes(), hex.as_bytes()].iter().any(|needle| bytes.windows(needle.len()).any(|window| window == *needle))
}

/// The marks that are where they may not be, each with its place.
fn leaks(marks: &[Mark], found: &Found, erased: bool) -> BTreeSet<String> {
    let mut leaks = BTreeSet::new();
    for mark in marks {
        for (place, bytes) in found {
            let allowed = (!erased || mark.stays) && mark.allowed.contains(&place.as_str());
            if !allowed && holds(bytes, &mark.text) {
                leaks.insert(format!("{} in {place}", mark.name));
            }
        }
    }
    leaks
}

async fn text(place: &str, response: reqwest::Response) -> (String, Vec<u8>) {
    let headers = format!("{:?}\n", response.headers());
    let mut bytes = headers.into_bytes();
    bytes.extend(response.bytes().await.unwrap());
    (place.to_owned(), bytes)
}

/// Everything that was ever told live.
async fn events(test: &TestApp, pool: &PgPool) -> (String, Vec<u8>) {
    let last: i64 = sqlx::query_scalar("SELECT max(history_id) FROM history").fetch_one(pool).await.unwrap();
    let mut response = test.request(Method::GET, "/events").header("Last-Event-ID", 0).send().await.unwrap();
    let (mut bytes, end) = (Vec::new(), format!("\nid: {last}\n"));
    while !holds(&bytes, &end) {
        bytes.extend(response.chunk().await.unwrap().expect("it goes on"));
    }
    ("events".to_owned(), bytes)
}

/// What Alibaba answers about the person, all of it marked.
fn alibaba_answer(video: &str) -> String {
    let document = json!({
        "idNumber": "CANARY-A1234567", "name": "CANARY PERSON Zwölfender", "birthDate": "1987-06-05",
        "personal_number": 3_173_019_876_543_210_u64, "address": {"street": "canary lane 7"},
    });
    json!({
        "RequestId": "r", "Code": "Success", "Message": "CANARY-MESSAGE",
        "Result": {
            "Passed": "Y", "SubCode": "200",
            "ExtFaceInfo": json!({
                "facePassed": "Y", "faceComparisonScore": 93.735_118, "faceAge": 37, "faceImg": encoded("CANARY-FACE"),
                "docVideoUrl": video, "faceRegistrationID": "CANARY-REGISTERED-FACE",
            }).to_string(),
            "ExtIdInfo": json!({
                "ocrIdInfo": document, "ocrIdEditInfo": {"name": "CANARY EDITED"}, "idImage": encoded("CANARY-DOCUMENT"),
                "idBackImage": encoded("CANARY-BACKSIDE"), "ocrIdPassed": "Y",
            }).to_string(),
            "ExtBasicInfo": {"certNo": "CANARY-CERT-99", "certName": "CANARY CERT NAME"},
            "ExtRiskInfo": {"phone": "+49-CANARY-PHONE", "list": ["canary@example.com"]},
            "ExtInfo": {"procedurePriority": "keep", "mrz": "P<CANARY<<9021045678"},
            "EkycResult": {"document": "CANARY-EKYC"},
        },
    })
    .to_string()
}

fn marks(zoloz: &ZolozKeys) -> Vec<Mark> {
    let credentials = zoloz.credentials().remove(0);
    let private_key = credentials.merchant_private_key.unwrap();
    let private_key = private_key.expose_secret().chars().filter(char::is_ascii_alphanumeric).skip(400).take(40);
    let private_key: String = private_key.collect();
    vec![
        mark("metadata", "CANARY-METADATA", GIVEN_BACK),
        mark("a name in the metadata", "CANARY-MEMBER", GIVEN_BACK),
        mark("metadata of one started here", "CANARY-STARTED", GIVEN_BACK),
        mark("return_url", "CANARY-RETURN", &["verifications.return_url"]),
        mark("callback token", "CANARY-TOKEN-0123456789", NOWHERE),
        mark("token of the account", "CANARY-ACCOUNT-TOKEN-01", NOWHERE),
        mark("wrong token in a query", "CANARY-WRONG-QUERY", NOWHERE),
        mark("wrong token in a form", "CANARY-WRONG-FORM", NOWHERE),
        mark("wrong token in JSON", "CANARY-WRONG-JSON", NOWHERE),
        mark("token of an unknown transaction", "CANARY-WRONG-UNKNOWN", NOWHERE),
        mark("what a callback claims", "CANARY-CLAIM", &["hints.detail", "history.detail", "history"]),
        mark("API key", KEY, NOWHERE),
        mark("unknown API key", "CANARY-UNKNOWN-KEY", NOWHERE),
        mark("secret of the access key", "sim-key-secret", NOWHERE),
        mark("private key of the merchant", &private_key, NOWHERE),
        mark("MetaInfo", "CANARY-METAINFO", NOWHERE),
        mark("MerchantUserId", "CANARY-USER", NOWHERE),
        mark("picture of Initialize", &piece("CANARY-SELFIE"), NOWHERE),
        mark("picture of Initialize, decoded", "CANARY-SELFIE", NOWHERE),
        mark("metaInfo of a body that is wrong", "CANARY-WRONG-BODY", NOWHERE),
        mark("name", "CANARY PERSON Zwölfender", ANSWER),
        mark("name as edited", "CANARY EDITED", ANSWER),
        mark("number of the document", "CANARY-A1234567", ANSWER),
        mark("personal number", "3173019876543210", ANSWER),
        mark("date of birth", "1987-06-05", ANSWER),
        mark("address", "canary lane 7", ANSWER),
        mark("certificate", "CANARY-CERT-99", ANSWER),
        mark("name on the certificate", "CANARY CERT NAME", ANSWER),
        mark("phone", "+49-CANARY-PHONE", ANSWER),
        mark("mail address", "canary@example.com", ANSWER),
        mark("machine readable zone", "CANARY<<9021045678", ANSWER),
        mark("result of eKYC", "CANARY-EKYC", ANSWER),
        mark("message of an answer", "CANARY-MESSAGE", ANSWER),
        mark("score", "93.735118", &["verdicts.answer", "raw", "verdicts.scores", "show", "list"]),
        mark(
            "id of a known face",
            "CANARY-REGISTERED-FACE",
            &["verdicts.answer", "raw", "verdicts.signals", "show", "list"],
        ),
        mark("face", "CANARY-FACE", IMAGE),
        mark("face in Base64", &piece("CANARY-FACE"), NOWHERE),
        mark("document", "CANARY-DOCUMENT", IMAGE),
        mark("document in Base64", &piece("CANARY-DOCUMENT"), NOWHERE),
        mark("back of the document", "CANARY-BACKSIDE", IMAGE),
        mark("link to a video", "CANARY-VIDEO", NOWHERE),
        mark("live face of ZOLOZ", "CANARY-ALIVE", IMAGE),
        mark("live face of ZOLOZ in Base64", &piece("CANARY-ALIVE"), NOWHERE),
        mark("enrolled face of ZOLOZ", "CANARY-ENROLLED", IMAGE),
        mark("document data of ZOLOZ", "CANARY-OCR", ANSWER),
        mark("message of ZOLOZ", "CANARY-ZOLOZ-MESSAGE", ANSWER),
        mark("message of an error", "CANARY-ERROR-MESSAGE", NOWHERE),
        mark("answer that is no answer", "CANARY-GARBAGE", NOWHERE),
        Mark {
            stays: true,
            ..mark(
                "reason of the erasure",
                "CANARY-REASON",
                &["erasures.reason", "history.detail", "history", "receipt"],
            )
        },
        mark("id of a request", "CANARY-REQUEST-ID", &["history.detail", "history", "raw"]),
    ]
}

#[test]
fn a_mark_is_found_as_text_and_as_hex_but_not_where_it_may_be() {
    let marks = [mark("one", "CANARY", &["here"])];
    let found = |place: &str, text: &str| (place.to_owned(), text.as_bytes().to_vec());
    let all =
        vec![found("here", "a CANARY"), found("there", "a CANARY"), found("hex", "43414e415259"), found("no", "CANAR")];
    assert_eq!(Vec::from_iter(leaks(&marks, &all, false)), ["one in hex", "one in there"]);
    assert_eq!(leaks(&marks, &all, true).len(), 3);
}

#[tokio::test]
async fn no_planted_value_is_found_where_it_does_not_belong_and_none_after_the_erasure() {
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
    let keys = ZolozKeys::generate().unwrap();
    let marks = marks(&keys);
    assert!(marks.len() >= 40);
    let test = TestApp::with(Setup {
        server: "public_url = \"http://127.0.0.1:9\"".to_owned(),
        account: "qps = 100000\nreturn_images = true\ncallback_token = \"CANARY-ACCOUNT-TOKEN-01\"".to_owned(),
        more: zoloz_account(ZOLOZ, &keys),
        simulator: Settings { zoloz_keys: Some(keys), ..Settings::default() },
        ..Setup::default()
    })
    .await;
    let pool = test.database.pool().await;
    let mut found = Found::new();
    let mut ids = Vec::new();

    // One at Alibaba, whose answers are bad in every way before the good one.
    let bad = Answer {
        status: Some(500),
        code: Some("InternalError".into()),
        message: Some("CANARY-ERROR-MESSAGE".into()),
        ..Answer::default()
    };
    let answers = vec![
        Answer { body: Some("<html>CANARY-GARBAGE CANARY PERSON Zwölfender</html>".into()), ..Answer::default() },
        Answer { body: Some("{\"Result\":{\"ExtIdInfo\":\"CANARY-GARBAGE".into()), ..Answer::default() },
        bad,
        Answer {
            body: Some(alibaba_answer(&format!("http://{}/CANARY-VIDEO?token=CANARY-VIDEO", test.simulator_address))),
            ..Answer::default()
        },
    ];
    let attempts = u64::try_from(answers.len()).unwrap();
    let registration = json!({
        "callback_token": "CANARY-TOKEN-0123456789", "return_url": "https://shop.example/CANARY-RETURN", "expect_video": true,
        "metadata": { "CANARY-MEMBER": "CANARY-METADATA" }, "product": "eKYC_PRO",
    });
    let (transaction, id) = test
        .begin(CreateTransaction { answers, completed: Some(true), ..Default::default() }, registration.clone())
        .await;
    ids.push(id.clone());
    for query in [
        format!("transactionId={transaction}&callbackToken=CANARY-WRONG-QUERY"),
        "transactionId=unknown&callbackToken=CANARY-WRONG-UNKNOWN".to_owned(),
        "callbackToken=CANARY-WRONG-QUERY&callbackToken=CANARY-WRONG-FORM".to_owned(),
    ] {
        found.push(
            text("problem", test.http.get(test.public(&format!("/callbacks/{ACCOUNT}?{query}"))).send().await.unwrap())
                .await,
        );
    }
    let callback = || test.http.post(test.public(&format!("/callbacks/{ACCOUNT}")));
    let form = callback().header("content-type", "application/x-www-form-urlencoded");
    let form = form.body(format!("transactionId={transaction}&callbackToken=CANARY-WRONG-FORM"));
    found.push(text("problem", form.send().await.unwrap()).await);
    let wrong = json!({ "transactionId": transaction, "callbackToken": "CANARY-WRONG-JSON" });
    found.push(text("problem", callback().json(&wrong).send().await.unwrap()).await);
    let right =
        json!({ "transactionId": transaction, "callbackToken": "CANARY-TOKEN-0123456789", "passed": "CANARY-CLAIM" });
    assert_eq!(callback().json(&right).send().await.unwrap().status(), 200);
    for attempt in 1..attempts {
        let body = test.attempted(&id, attempt).await;
        found.push(("error in the API".to_owned(), body["last_error"].to_string().into_bytes()));
        test.advance_to(test.clock.now() + chrono::TimeDelta::minutes(11)).await;
    }
    test.final_verification(&id).await;

    // One that is started here, with a picture, and one that is refused.
    let started = json!({
        "account": ACCOUNT, "metadata": { "a": "CANARY-STARTED" }, "return_url": "https://shop.example/CANARY-RETURN",
        "initialize": { "ProductCode": "FACE_VERIFY", "MetaInfo": "{\"a\":\"CANARY-METAINFO\"}", "MerchantUserId": "CANARY-USER",
            "FacePictureBase64": encoded("CANARY-SELFIE") },
    });
    let post = || test.request(Method::POST, "/verifications").header("Idempotency-Key", "one");
    let answer = post().json(&started).send().await.unwrap();
    assert_eq!(answer.status(), 201);
    let body = answer.text().await.unwrap();
    ids.push(serde_json::from_str::<Value>(&body).unwrap()["id"].as_str().unwrap().to_owned());
    found.push(("started".to_owned(), body.into_bytes()));
    let refusal = Fault {
        operation: Some("Initialize".into()),
        kind: FaultKind::Code,
        code: Some("InvalidParameter".into()),
        message: Some("CANARY-ERROR-MESSAGE".into()),
        ..Fault::default()
    };
    test.simulator.add_fault(refusal).unwrap();
    let again = test.request(Method::POST, "/verifications").json(&started).send().await.unwrap();
    assert_eq!(again.status(), 422);
    found.push(text("problem", again).await);

    // One at ZOLOZ, whose face is in its answer.
    let outcome = |code: Option<&str>| ZolozOutcome {
        result_code: code.map(str::to_owned),
        result_message: Some("CANARY-ZOLOZ-MESSAGE".to_owned()),
        patch: json!({
            "extFaceInfo": { "aliveImage": encoded("CANARY-ALIVE"), "refImage": encoded("CANARY-ENROLLED") },
            "extIdInfo": { "ocrResult": { "NAME": "CANARY-OCR" } },
        })
        .as_object()
        .unwrap()
        .clone(),
        ..ZolozOutcome::default()
    };
    let made = test
        .simulator
        .create_zoloz(ZolozTransaction { outcome: outcome(None), ..ZolozTransaction::default() })
        .unwrap();
    let zoloz_transaction = made.transaction_id;
    test.simulator
        .complete_zoloz(&zoloz_transaction, ZolozComplete { outcome: outcome(None), ..ZolozComplete::default() })
        .unwrap();
    for kind in [FaultKind::Tamper, FaultKind::Unsigned, FaultKind::WrongKey] {
        let fault = Fault { operation: Some("connect/checkresult".into()), kind, ..Fault::default() };
        test.simulator.add_fault(fault).unwrap();
    }
    let (status, body) = register(
        &test,
        &json!({ "account": ZOLOZ, "transaction_id": zoloz_transaction, "metadata": { "a": "CANARY-METADATA" } }),
    )
    .await;
    assert_eq!(status, 201, "{body}");
    let zoloz_id = body["id"].as_str().unwrap().to_owned();
    test.collect(&zoloz_id).await;
    for attempt in 1..=3 {
        let body = test.attempted(&zoloz_id, attempt).await;
        found.push(("error in the API".to_owned(), body["last_error"].to_string().into_bytes()));
        test.advance_to(test.clock.now() + chrono::TimeDelta::minutes(11)).await;
    }
    assert_eq!(test.final_verification(&zoloz_id).await["status"], "passed");
    ids.push(zoloz_id.clone());

    // Requests that are wrong.
    let mut conflict = registration.clone();
    conflict["account"] = json!(ACCOUNT);
    conflict["transaction_id"] = json!(transaction);
    conflict["metadata"] = json!({ "other": "CANARY-WRONG-BODY" });
    conflict["callback_token"] = json!("CANARY-WRONG-FORM");
    found.push(text("problem", test.post("/verifications", &conflict).await).await);
    found.push(
        text(
            "problem",
            test.post(
                "/verifications",
                &json!({ "account": "CANARY-WRONG-BODY", "transaction_id": 5, "metadata": "CANARY-WRONG-BODY" }),
            )
            .await,
        )
        .await,
    );
    let broken = test.request(Method::POST, "/verifications").header("content-type", "application/json");
    found.push(text("problem", broken.body("{\"metadata\": \"CANARY-WRONG-BODY").send().await.unwrap()).await);
    found.push(
        text(
            "problem",
            test.http.get(test.internal("/verifications")).bearer_auth("CANARY-UNKNOWN-KEY").send().await.unwrap(),
        )
        .await,
    );
    found.push(text("problem", test.get("/verifications?cursor=CANARY-WRONG-BODY").await).await);
    found.push(
        text(
            "returns",
            test.http.get(test.public(&format!("/returns/{ACCOUNT}?state=CANARY-WRONG-QUERY"))).send().await.unwrap(),
        )
        .await,
    );

    // What captures had to do is done, or will not be: the link leads nowhere.
    test.advance(Duration::from_hours(1));
    let evidence_settled = async || {
        let pending: i64 =
            sqlx::query_scalar("SELECT count(*) FROM evidence WHERE state = 'pending'").fetch_one(&pool).await.unwrap();
        (pending == 0).then_some(())
    };
    test.until("evidence has ended", evidence_settled).await;

    // Everything that is read.
    for id in &ids {
        let raw =
            test.request(Method::GET, &format!("/verifications/{id}/raw")).header("X-Request-Id", "CANARY-REQUEST-ID");
        found.push(text("raw", raw.send().await.unwrap()).await);
        found.push(text("show", test.get(&format!("/verifications/{id}")).await).await);
        found.push(text("history", test.get(&format!("/verifications/{id}/history")).await).await);
    }
    found.push(text("list", test.get("/verifications").await).await);
    found.push(events(&test, &pool).await);
    for path in ["/metrics", "/readyz", "/healthz"] {
        found.push(text(path, test.get(path).await).await);
    }
    let service = test.app.as_ref().unwrap().service.clone();
    for (account, transaction_id) in [(ACCOUNT, &transaction), (ZOLOZ, &zoloz_transaction)] {
        let request =
            CheckRequest { transaction_id: transaction_id.clone(), merchant_biz_id: "b".to_owned(), product: None };
        let result = service.accounts[account].provider().check_result(&request).await;
        assert!(result.is_ok(), "{result:?}");
        found
            .push(("Debug".to_owned(), format!("{result:?} {request:?} {:?}", service.accounts[account]).into_bytes()));
    }
    for id in &ids {
        let record = service.store.record(id.parse().unwrap()).await.unwrap();
        found.push(("Debug".to_owned(), format!("{record:?}").into_bytes()));
    }
    let whole = format!("{:?} {:?} {:?}", service.store, service.callbacks, service.evidence);
    found.push(("Debug".to_owned(), whole.into_bytes()));
    found.extend(tables(&pool).await);
    found.extend(stored(&test));
    assert_eq!(leaks(&marks, &found, false), BTreeSet::new());
    // Each was really planted: where it may be, it is.
    for mark in marks.iter().filter(|mark| !mark.allowed.is_empty() && !mark.stays) {
        let seen =
            found.iter().any(|(place, bytes)| mark.allowed.contains(&place.as_str()) && holds(bytes, &mark.text));
        assert!(seen, "{} is nowhere", mark.name);
    }

    // Then all are erased, and nothing of the persons is left.
    for id in &ids {
        let request =
            test.request(Method::DELETE, &format!("/verifications/{id}")).json(&json!({ "reason": "CANARY-REASON" }));
        let (_, receipt) = text("receipt", request.send().await.unwrap()).await;
        assert!(receipt.windows(10).any(|window| window == b"\"destroyed"));
        found.push(("receipt".to_owned(), receipt));
    }
    let receipt = erase(&test, &ids[0]).await;
    assert_eq!(receipt["complete"], true, "{receipt}");
    let mut after = tables(&pool).await;
    after.extend(stored(&test));
    for id in &ids {
        for path in ["", "/history", "/raw"] {
            let place = if path == "/history" { "history" } else { "problem" };
            after.push(text(place, test.get(&format!("/verifications/{id}{path}")).await).await);
        }
    }
    after.push(events(&test, &pool).await);
    after.extend(found.into_iter().filter(|(place, _)| place == "receipt"));
    after.push(text("/metrics", test.get("/metrics").await).await);
    drop(capturing);
    let log = log.0.lock().unwrap().clone();
    assert!(holds(&log, "checkback::") && holds(&log, &ids[0]), "the log was not captured");
    after.push(("log".to_owned(), log));
    assert_eq!(leaks(&marks, &after, true), BTreeSet::new());
}

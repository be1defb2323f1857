use reqwest::{Method, header};
use serde_json::{Value, json};

use super::{OTHER_ACCOUNT, problem, register, wrong_fields};
use crate::support::app::{ACCOUNT, Setup, TestApp};

/// Every member of a verification.
const MEMBERS: [&str; 21] = [
    "id",
    "account",
    "transaction_id",
    "merchant_biz_id",
    "product",
    "status",
    "final",
    "revision",
    "sub_code",
    "reason",
    "scores",
    "signals",
    "evidence",
    "registered_at",
    "callback_at",
    "final_at",
    "deadlines",
    "attempts",
    "next_attempt_at",
    "last_error",
    "metadata",
];

#[tokio::test]
async fn a_registration_with_the_least_has_every_member() {
    let test = TestApp::start().await;
    let (status, body) = register(&test, &json!({ "transaction_id": "t-least" })).await;
    assert_eq!(status, 201, "{body}");
    let members = body.as_object().unwrap();
    for member in MEMBERS {
        assert!(members.contains_key(member), "{member} is missing: {body}");
    }
    assert_eq!(members.len(), MEMBERS.len(), "{body}");
    for absent in ["product", "revision", "sub_code", "reason", "callback_at", "final_at", "last_error", "metadata"] {
        assert!(body[absent].is_null(), "{absent}: {body}");
    }
    assert_eq!(body["account"], ACCOUNT);
    assert_eq!((&body["status"], &body["final"], &body["attempts"]), (&json!("waiting"), &json!(false), &json!(0)));
    assert_eq!((&body["scores"], &body["signals"], &body["evidence"]), (&json!({}), &json!({}), &json!([])));
    assert!(body["deadlines"].as_object().unwrap().contains_key("video") && body["deadlines"]["video"].is_null());
    let reference = body["merchant_biz_id"].as_str().unwrap();
    assert!(reference.len() == 32 && reference.bytes().all(|byte| byte.is_ascii_hexdigit()), "{reference}");
}

#[tokio::test]
async fn ids_are_version_seven_and_times_end_in_z() {
    let test = TestApp::start().await;
    let (_, body) = register(&test, &json!({ "transaction_id": "t-times", "expect_video": true })).await;
    let id: uuid::Uuid = body["id"].as_str().unwrap().parse().unwrap();
    assert_eq!(id.get_version_num(), 7);
    let time = |value: &Value| {
        let shown = value.as_str().unwrap_or_else(|| panic!("{value} in {body}"));
        assert!(shown.ends_with('Z'), "{shown}");
        chrono::DateTime::parse_from_rfc3339(shown).unwrap().to_utc()
    };
    let registered = time(&body["registered_at"]);
    assert_eq!(registered, test.clock.now());
    assert_eq!((time(&body["next_attempt_at"]) - registered).num_seconds(), 300);
    // Nobody has finished yet, so the deadlines run from when the flow would be given up.
    assert_eq!((time(&body["deadlines"]["result"]) - registered).num_hours(), 31 * 24);
    assert_eq!((time(&body["deadlines"]["video"]) - registered).num_minutes(), 24 * 60 + 30);
}

#[tokio::test]
async fn the_same_again_answers_200_with_the_first_one() {
    let test = TestApp::start().await;
    let full = json!({
        "account": ACCOUNT, "transaction_id": "t-same", "merchant_biz_id": "order17", "callback_token": "token",
        "product": "FACE_LIVENESS", "expect_video": true, "return_url": "https://shop.example/after",
        "metadata": { "order": "A-17", "n": [1, 2] },
    });
    let response = test.post("/verifications", &full).await;
    assert_eq!(response.status(), 201);
    let location = response.headers()[header::LOCATION].to_str().unwrap().to_owned();
    let first: Value = response.json().await.unwrap();
    assert_eq!(location, format!("/verifications/{}", first["id"].as_str().unwrap()));
    let (status, again) = register(&test, &full).await;
    assert_eq!((status, &again), (200, &first));
    // Members that are left out are not compared.
    let (status, again) = register(&test, &json!({ "transaction_id": "t-same" })).await;
    assert_eq!((status, &again), (200, &first));
    let (status, again) = register(&test, &json!({ "transaction_id": "t-same", "product": null })).await;
    assert_eq!((status, &again), (200, &first));
    let mut spaced = test.request(Method::POST, "/verifications").header(header::CONTENT_TYPE, "application/json");
    spaced = spaced.body(r#"{"transaction_id":"t-same", "metadata": {"n" : [ 1,2 ], "order":"\u0041-17"} }"#);
    assert_eq!(spaced.send().await.unwrap().status(), 200, "equal as JSON is the same");
    assert_eq!(test.history(first["id"].as_str().unwrap()).await.len(), 1, "repeating leaves no trace");
}

#[tokio::test]
async fn each_member_that_differs_is_a_conflict_and_named() {
    let test = TestApp::start().await;
    let full = json!({
        "transaction_id": "t-conflict", "merchant_biz_id": "order17", "callback_token": "token",
        "product": "FACE_LIVENESS", "expect_video": true, "return_url": "https://shop.example/after",
        "metadata": { "order": "A-17" },
    });
    let (status, first) = register(&test, &full).await;
    assert_eq!(status, 201);
    for (member, other) in [
        ("merchant_biz_id", json!("order18")),
        ("callback_token", json!("Token")),
        ("product", json!("EKYC")),
        ("expect_video", json!(false)),
        ("return_url", json!("https://shop.example/after/")),
        ("metadata", json!({ "order": "A-17", "more": null })),
    ] {
        let mut body = full.clone();
        body[member] = other;
        let problem = problem(test.post("/verifications", &body).await, 409, "transaction_conflict").await;
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(&format!("differs in: {member}.")), "{detail}");
        assert!(detail.contains(first["id"].as_str().unwrap()), "{detail}");
        assert!(!detail.contains("oken\""), "{detail}");
    }
    // What was never given differs from what is given now.
    register(&test, &json!({ "transaction_id": "t-bare" })).await;
    for (member, value) in [
        ("merchant_biz_id", json!("order18")),
        ("callback_token", json!("x")),
        ("product", json!("EKYC")),
        ("return_url", json!("https://shop.example/")),
        ("metadata", json!({})),
    ] {
        let response = test.post("/verifications", &json!({ "transaction_id": "t-bare", member: value })).await;
        problem(response, 409, "transaction_conflict").await;
    }
    assert_eq!(test.verification(first["id"].as_str().unwrap()).await, first, "a conflict changes nothing");
}

#[tokio::test]
async fn registering_at_the_same_time_makes_one() {
    let test = TestApp::start().await;
    let body = json!({ "transaction_id": "t-race" });
    let answers = futures_util::future::join_all((0..12).map(|_| register(&test, &body))).await;
    let made = answers.iter().filter(|(status, _)| *status == 201).count();
    assert_eq!(made, 1, "{answers:?}");
    assert!(answers.iter().all(|(_, body)| body["id"] == answers[0].1["id"]), "{answers:?}");
}

#[tokio::test]
async fn metadata_comes_back_equal_as_json() {
    let test = TestApp::start().await;
    for (n, metadata) in [
        "{}",
        r#"{"n":12345678901234567890123456789,"small":0.1000000000000000055511151231257827,"e":1E+400,"z":-0.0}"#,
        r#"{"text":"张 \u00e9 \" \\ \/ \n \ud83d\ude00","deep":{"a":[[[null,true,false]]]},"":""}"#,
        r#"{"null":null,"not nul":"\\u0000"}"#,
    ]
    .into_iter()
    .enumerate()
    {
        let body = format!(r#" {{ "transaction_id" : "t-metadata-{n}" , "metadata" : {metadata} }} "#);
        let response = post_text(&test, &body).await;
        let (status, shown) = (response.status(), response.text().await.unwrap());
        assert_eq!(status, 201, "{shown}");
        let as_given = format!(r#""metadata":{metadata}}}"#);
        assert!(shown.ends_with(&as_given), "{shown}");
        let list = test.get(&format!("/verifications?transaction_id=t-metadata-{n}")).await;
        let (status, shown) = (list.status(), list.text().await.unwrap());
        assert_eq!(status, 200, "{shown}");
        assert!(shown.contains(&as_given), "{shown}");
        assert_eq!(post_text(&test, &body).await.status(), 200, "{metadata}");
    }
    // Numbers are compared in all their digits, however they are written.
    let again = |number: &str| {
        format!(
            r#"{{"transaction_id":"t-metadata-1","metadata":{{"small":0.1000000000000000055511151231257827,"e":10e399,"z":0,"n":{number}}}}}"#
        )
    };
    assert_eq!(post_text(&test, &again("12345678901234567890123456789.0")).await.status(), 200);
    assert_eq!(post_text(&test, &again("12345678901234567890123456788")).await.status(), 409);
}

async fn post_text(test: &TestApp, body: &str) -> reqwest::Response {
    let request = test.request(Method::POST, "/verifications").header(header::CONTENT_TYPE, "application/json");
    request.body(body.to_owned()).send().await.unwrap()
}

#[tokio::test]
async fn metadata_is_bounded_in_its_compact_form_and_holds_no_nul() {
    let test = TestApp::start().await;
    // {"k":"…"} has 8 bytes around the text.
    let fitting = "x".repeat(4096 - 8);
    let blanks = " ".repeat(5000);
    let body = format!(r#"{{"transaction_id":"t-4096","metadata":{{{blanks}"k" : "{fitting}"{blanks}}}}}"#);
    assert_eq!(post_text(&test, &body).await.status(), 201);
    let deep = format!("{}{}", r#"{"a":"#.repeat(200), "}".repeat(200)).replace("\":}", "\":1}");
    for metadata in [
        format!(r#"{{"k":"{fitting}x"}}"#),
        r#"{"k":"a\u0000b"}"#.to_owned(),
        r#"{"a\u0000b":1}"#.to_owned(),
        r#"{"a":[{"b":"\\\u0000"}]}"#.to_owned(),
        r#"{"half":"\ud800"}"#.to_owned(),
        "[]".to_owned(),
        "\"text\"".to_owned(),
        "1".to_owned(),
        deep,
    ] {
        let body = format!(r#"{{"transaction_id":"t-refused","metadata":{metadata}}}"#);
        let problem = problem(post_text(&test, &body).await, 422, "body_invalid").await;
        assert_eq!(wrong_fields(&problem), ["metadata"], "{metadata}");
    }
}

#[tokio::test]
async fn every_wrong_member_is_told_at_once() {
    let test = TestApp::start().await;
    let body = json!({
        "account": "nobody", "transaction_id": "x".repeat(129), "merchant_biz_id": "with space",
        "callback_token": "", "product": 7, "expect_video": "yes", "return_url": "javascript:alert(1)",
        "metadata": [], "order": 1, "Account": ACCOUNT, "initialize": null,
    });
    let problem = problem(test.post("/verifications", &body).await, 422, "body_invalid").await;
    assert_eq!(
        wrong_fields(&problem),
        [
            "Account",
            "account",
            "callback_token",
            "expect_video",
            "merchant_biz_id",
            "metadata",
            "order",
            "product",
            "return_url",
            "transaction_id",
        ]
    );
}

#[tokio::test]
async fn each_wrong_value_is_refused_by_itself() {
    let test = TestApp::start().await;
    for (member, value) in [
        ("transaction_id", json!("")),
        ("transaction_id", json!(" ")),
        ("transaction_id", json!("a\u{0}b")),
        ("transaction_id", json!("a\nb")),
        ("transaction_id", json!(17)),
        ("account", json!("nobody")),
        ("account", json!(1)),
        ("merchant_biz_id", json!("")),
        ("merchant_biz_id", json!("x".repeat(33))),
        ("merchant_biz_id", json!("é")),
        ("callback_token", json!("x".repeat(513))),
        ("callback_token", json!("a\u{0}")),
        ("product", json!("")),
        ("product", json!("FACE LIVENESS")),
        ("return_url", json!("/after")),
        ("return_url", json!("ftp://shop.example/")),
        ("return_url", json!("https://shop.example/\u{0}")),
        ("return_url", json!("https://shop.example/a\r\nb")),
        ("expect_video", json!(1)),
    ] {
        let mut body = json!({ "transaction_id": "t-wrong" });
        body[member] = value;
        let problem = problem(test.post("/verifications", &body).await, 422, "body_invalid").await;
        assert_eq!(wrong_fields(&problem), [member], "{body}");
    }
}

#[tokio::test]
async fn what_is_required_is_told_with_the_other_errors() {
    let test = TestApp::with(Setup { more: OTHER_ACCOUNT.to_owned(), ..Setup::default() }).await;
    for body in [json!({}), json!({ "account": null, "transaction_id": null })] {
        let problem = problem(test.post("/verifications", &body).await, 422, "body_invalid").await;
        assert_eq!(wrong_fields(&problem), ["account", "transaction_id"]);
    }
    for body in [json!({ "account": "nobody" }), json!({ "account": "nobody", "transaction_id": null })] {
        let problem = problem(test.post("/verifications", &body).await, 422, "body_invalid").await;
        assert_eq!(wrong_fields(&problem), ["account", "transaction_id"]);
    }
    // The same transaction id at two accounts is two transactions.
    let (first, one) = register(&test, &json!({ "account": ACCOUNT, "transaction_id": "t" })).await;
    let (second, two) = register(&test, &json!({ "account": "other", "transaction_id": "t" })).await;
    assert_eq!((first, second), (201, 201));
    assert_ne!(one["id"], two["id"]);
}

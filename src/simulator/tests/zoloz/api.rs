//! Who is let in, and what the operations answer.

use std::fmt::Write as _;

use chrono::TimeDelta;

use super::*;
use crate::simulator::ClockMove;

#[tokio::test]
async fn every_mode_gets_an_answer_in_its_own_way() {
    let (sim, merchant) = set_up().await;
    for mode in MODES {
        let initialized =
            merchant.send(&sim, &merchant.call(&sim, INITIALIZE, &initialize_body(&json!({})), mode)).await;
        assert_eq!(initialized.result(), result(true, "S", "SUCCESS"), "{mode:?} {}", initialized.text);
        let id = initialized.json()["transactionId"].as_str().unwrap().to_owned();
        assert!(id.len() <= 64 && initialized.json()["clientCfg"].is_string());
        let check = async || merchant.send(&sim, &merchant.call(&sim, CHECK_RESULT, &check_body(&id), mode)).await;
        let open = check().await;
        assert_eq!(
            (open.result(), &open.json()["connectResult"]),
            (result(true, "F", "PROCESSING"), &json!("InProcess"))
        );
        sim.simulator.complete_zoloz(&id, ZolozComplete::default()).unwrap();
        let answer = check().await;
        assert_eq!(answer.result(), result(true, "S", "SUCCESS"), "{mode:?}");
        assert_eq!(answer.json()["connectResult"], "Success");
        let info = &answer.json()["extFaceInfo"];
        assert_eq!((&info["faceAttack"], &info["deeperResult"]), (&json!(false), &json!("Success")));
        assert!(info["faceScore"].is_number() && info["aliveImage"].is_string() && info["refImage"].is_string());
        let (encrypted, content_type) = match mode {
            Mode::Encrypted(length) => (Some(length), "text/plain; charset=UTF-8"),
            Mode::Rsa | Mode::AkSk => (None, "application/json; charset=UTF-8"),
        };
        assert_eq!((answer.encrypted, &*answer.content_type, answer.status), (encrypted, content_type, 200));
    }
}

#[tokio::test]
async fn the_connectivity_check_gives_the_object_back_as_text() {
    let (sim, merchant) = set_up().await;
    let body = json!({"title": "hello", "n": 1});
    for mode in MODES {
        let answer = merchant.send(&sim, &merchant.call(&sim, AUTHENTICATION_TEST, &body, mode)).await;
        assert_eq!(answer.result(), result(true, "S", "SUCCESS"));
        let message = answer.json()["result"]["resultMessage"].as_str().unwrap().to_owned();
        assert_eq!(serde_json::from_str::<Value>(&message).unwrap(), body);
    }
}

#[tokio::test]
async fn callers_that_cannot_be_trusted_are_refused() {
    let (sim, merchant) = set_up().await;
    let id = finished(&sim, &json!({}));
    for mode in MODES {
        let good = || merchant.call(&sim, CHECK_RESULT, &check_body(&id), mode);
        let unknown = Call { client_id: "2188000000000099".into(), ..good() };
        assert_eq!(merchant.send(&sim, &unknown).await.result(), result(false, "F", "MERCHANT_NOT_FOUND"));
        if mode == Mode::AkSk {
            let unknown = Call { access_key: "OTHER".into(), ..good() };
            assert_eq!(merchant.send(&sim, &unknown).await.result(), result(false, "F", "KEY_NOT_FOUND"));
        }
        // The answer to a wrong signature is signed, and never encrypted: the message was not opened.
        let wrong = [
            merchant.request(&sim, &good()).body("{\"bizId\":\"b2\"}"),
            sim.client.post(format!("http://{}{DELETE}", sim.host)),
        ];
        for (index, request) in wrong.into_iter().enumerate() {
            let (client, request) = request.build_split();
            let mut request = request.unwrap();
            let path = if index == 0 { CHECK_RESULT } else { DELETE };
            if index == 1 {
                let built = merchant.request(&sim, &good()).build().unwrap();
                *request.headers_mut() = built.headers().clone();
                *request.body_mut() = Some(built.body().unwrap().as_bytes().unwrap().to_vec().into());
            }
            let request = reqwest::RequestBuilder::from_parts(client, request);
            let refused = merchant.reply(request, path, mode).await;
            assert_eq!(refused.result(), result(true, "F", "SIGNATURE_INVALID"), "{mode:?} {index}");
            assert_eq!((refused.encrypted, refused.status), (None, 200));
        }
    }
}

#[tokio::test]
async fn a_signature_of_another_kind_or_none_is_refused() {
    let (sim, merchant) = set_up().await;
    let call = merchant.call(&sim, AUTHENTICATION_TEST, &json!({}), Mode::Rsa);
    for signature in
        [None, Some("bare"), Some("algorithm=RSA512, signature=AAAA"), Some("algorithm=RSA256, signature=AAAA")]
    {
        let (client, request) = merchant.request(&sim, &call).build_split();
        let mut request = request.unwrap();
        request.headers_mut().remove("signature");
        if let Some(signature) = signature {
            request.headers_mut().insert("signature", signature.parse().unwrap());
        }
        let request = reqwest::RequestBuilder::from_parts(client, request);
        let refused = merchant.reply(request, AUTHENTICATION_TEST, Mode::Rsa).await;
        assert_eq!(refused.result(), result(true, "F", "SIGNATURE_INVALID"), "{signature:?}");
    }
    let timeless = Call { time: String::new(), ..call };
    assert_eq!(merchant.send(&sim, &timeless).await.code(), "PARAM_MISSING");
}

#[tokio::test]
async fn times_must_be_well_formed_and_near() {
    let (sim, merchant) = set_up().await;
    let at = |minutes| sign::write_time(sim.simulator.now() + TimeDelta::minutes(minutes));
    let call = merchant.call(&sim, AUTHENTICATION_TEST, &json!({}), Mode::Rsa);
    for (time, code) in [
        (at(14), "SUCCESS"),
        (at(-14), "SUCCESS"),
        (at(16), "ACCESS_DENIED"),
        (at(-16), "ACCESS_DENIED"),
        (rfc3339(sim.simulator.now()), "PARAM_ILLEGAL"),
    ] {
        let answer = merchant.send(&sim, &Call { time: time.clone(), ..call.clone() }).await;
        assert_eq!((answer.signed, answer.code()), (true, code.to_owned()), "{time}");
    }
}

#[tokio::test]
async fn messages_that_cannot_be_read_are_refused() {
    let (sim, merchant) = set_up().await;
    for mode in MODES {
        for body in ["not json", "[]", "\"text\"", ""] {
            let call = Call { body: body.into(), ..merchant.call(&sim, CHECK_RESULT, &json!({}), mode) };
            let answer = merchant.send(&sim, &call).await;
            assert_eq!(
                (answer.signed, answer.code(), answer.encrypted),
                (true, "MSG_PARSE_ERROR".into(), None),
                "{body}"
            );
        }
    }
    // A key that was wrapped for somebody else, under a right signature.
    let call = merchant.call(&sim, CHECK_RESULT, &check_body("t"), Mode::Encrypted(32));
    let foreign = merchant.own.public().unwrap().wrap_key(&[7; 32]).unwrap();
    let short = merchant.zoloz.wrap_key(&[7; 5]).unwrap();
    for header in
        [sign::encrypt_header(&foreign), sign::encrypt_header(&short), "algorithm=RSA_OAEP, symmetricKey=AA".into()]
    {
        let (client, request) = merchant.request(&sim, &call).build_split();
        let mut request = request.unwrap();
        request.headers_mut().insert("encrypt", header.parse().unwrap());
        let answer =
            merchant.reply(reqwest::RequestBuilder::from_parts(client, request), CHECK_RESULT, Mode::Rsa).await;
        assert_eq!((answer.signed, answer.code()), (true, "MSG_PARSE_ERROR".into()), "{header}");
    }
}

#[tokio::test]
async fn members_are_checked() {
    let (sim, merchant) = set_up().await;
    let id = finished(&sim, &json!({}));
    for (path, body, code) in [
        (CHECK_RESULT, json!({"transactionId": id}), "PARAM_MISSING"),
        (CHECK_RESULT, json!({"bizId": "b"}), "PARAM_MISSING"),
        (CHECK_RESULT, json!({"bizId": "", "transactionId": id}), "PARAM_MISSING"),
        (CHECK_RESULT, json!({"bizId": 7, "transactionId": id}), "PARAM_ILLEGAL"),
        (CHECK_RESULT, json!({"bizId": "b".repeat(33), "transactionId": id}), "PARAM_ILLEGAL"),
        (CHECK_RESULT, json!({"bizId": "b".repeat(32), "transactionId": id}), "SUCCESS"),
        (CHECK_RESULT, check_body("nobody"), "INVALID_ARGUMENT"),
        ("/api/v1/zoloz/realid/checkresult", check_body(&id), "INVALID_ARGUMENT"),
        (
            "/api/v1/zoloz/realid/checkresult",
            json!({"isReturnImage": "yes", "bizId": "b", "transactionId": id}),
            "PARAM_ILLEGAL",
        ),
        ("/api/v1/zoloz/connect/check", check_body(&id), "NO_INTERFACE_DEF"),
        ("/api/v1/zoloz/facecapture/checkresult", check_body(&id), "NO_INTERFACE_DEF"),
        (INITIALIZE, json!({"bizId": "b", "metaInfo": "m"}), "PARAM_MISSING"),
        (INITIALIZE, initialize_body(&json!({"userId": "u".repeat(65)})), "PARAM_ILLEGAL"),
        (INITIALIZE, initialize_body(&json!({"serviceLevel": "CONNECT0004"})), "PARAM_ILLEGAL"),
        (INITIALIZE, initialize_body(&json!({"h5ModeConfig": "x"})), "PARAM_ILLEGAL"),
        (INITIALIZE, initialize_body(&json!({"productConfig": []})), "PARAM_ILLEGAL"),
        (INITIALIZE, initialize_body(&json!({"serviceLevel": "CONNECT0001", "unknown": 1})), "SUCCESS"),
        (DELETE, json!({}), "PARAM_MISSING"),
        (DELETE, json!({"transactionId": "nobody"}), "TRANSACTION_RECORD_AUTHORITY_ERROR"),
    ] {
        let answer = merchant.post(&sim, path, &body).await;
        let wanted = (true, code.to_owned(), 200);
        assert_eq!((answer.signed, answer.code(), answer.status), wanted, "{path} {body}");
    }
}

#[tokio::test]
async fn a_refusal_of_an_encrypted_request_is_encrypted() {
    let (sim, merchant) = set_up().await;
    let call = merchant.call(&sim, CHECK_RESULT, &check_body("nobody"), Mode::Encrypted(16));
    let answer = merchant.send(&sim, &call).await;
    assert_eq!((answer.result(), answer.encrypted), (result(true, "F", "INVALID_ARGUMENT"), Some(16)));
}

#[tokio::test]
async fn the_key_of_an_answer_has_the_length_that_was_asked_for() {
    let (sim, merchant) = set_up().await;
    for (bits, length) in [(128, 16), (256, 32)] {
        let id = finished(&sim, &json!({"aes_bits": bits}));
        let other = if length == 16 { 32 } else { 16 };
        let call = merchant.call(&sim, CHECK_RESULT, &check_body(&id), Mode::Encrypted(other));
        assert_eq!(merchant.send(&sim, &call).await.encrypted, Some(length));
    }
}

#[tokio::test]
async fn an_answer_can_be_as_large_as_asked_for() {
    let (sim, merchant) = set_up().await;
    let id = finished(&sim, &json!({"image_bytes": 3_000_000}));
    let plain = merchant.check(&sim, &id).await;
    assert!(plain.signed && plain.text.len() > 8_000_000, "{}", plain.text.len());
    let call = merchant.call(&sim, CHECK_RESULT, &check_body(&id), Mode::Encrypted(32));
    assert_eq!(merchant.send(&sim, &call).await.text, plain.text);
}

#[tokio::test]
async fn other_methods_are_not_for_this_gateway() {
    let (sim, _) = set_up().await;
    let response = sim.client.get(format!("http://{}{CHECK_RESULT}", sim.host)).send().await.unwrap();
    assert_eq!(response.status(), 405);
}

#[tokio::test]
async fn too_many_calls_a_second_are_refused() {
    let sim = Sim::with(Settings { qps: Some(1), ..Settings::default() }).await;
    let merchant = Merchant::of(&sim.simulator);
    let id = finished(&sim, &json!({}));
    let mut refused = None;
    // A new second may begin between two calls, but not between all of them.
    for _ in 0..50 {
        let answer = merchant.check(&sim, &id).await;
        if answer.code() != "SUCCESS" {
            refused = Some(answer);
            break;
        }
    }
    assert_eq!(refused.unwrap().result(), result(true, "F", "REQUEST_TRAFFIC_EXCEED_LIMIT"));
    assert_eq!(
        merchant.post(&sim, AUTHENTICATION_TEST, &json!({})).await.code(),
        "SUCCESS",
        "the limit is per operation"
    );
}

#[tokio::test]
async fn data_disappear_when_their_time_is_over_or_on_demand() {
    let (sim, merchant) = set_up().await;
    let delete = async |id: &str| merchant.post(&sim, DELETE, &json!({"transactionId": id})).await.code();
    let deleted = finished(&sim, &json!({}));
    assert_eq!(delete(&deleted).await, "SUCCESS");
    assert_eq!(delete(&deleted).await, "SUCCESS", "it is repeatable");
    assert_eq!(merchant.check(&sim, &deleted).await.code(), "INVALID_ARGUMENT");

    let old = finished(&sim, &json!({}));
    let kept = finished(&sim, &json!({"gone_code": "SUCCESS", "connect_result": "Failure"}));
    sim.simulator.move_clock(ClockMove::Advance(TimeDelta::days(30)));
    assert_eq!(merchant.check(&sim, &old).await.code(), "SUCCESS");
    sim.simulator.move_clock(ClockMove::Advance(TimeDelta::days(1)));
    assert_eq!(merchant.check(&sim, &old).await.result(), result(true, "F", "INVALID_ARGUMENT"));
    let status = merchant.check(&sim, &kept).await.json();
    assert_eq!((&status["connectResult"], status.get("extFaceInfo")), (&json!("Failure"), None));
}

#[tokio::test]
async fn each_product_is_started_and_asked_at_its_own_path() {
    let (sim, merchant) = set_up().await;
    for (initialize, check, open, code, member, value) in [
        (
            "/api/v1/zoloz/realid/initialize",
            "/api/v1/zoloz/realid/checkresult",
            "S",
            "SUCCESS",
            "ekycResult",
            "Success",
        ),
        (
            "/api/v1a/zoloz/facecapture/initialize",
            "/api/v1a/zoloz/facecapture/checkresult",
            "S",
            "PROCESSING",
            "faceCaptureResult",
            "Success",
        ),
        (
            "/api/v1/zoloz/idrecognition/initialize",
            "/api/v1/zoloz/idrecognition/checkresult",
            "S",
            "PROCESSING",
            "recognitionResult",
            "Y",
        ),
        (
            "/api/v1/zoloz/videoverify/initialize",
            "/api/v1/zoloz/videoverify/checkresult",
            "S",
            "SUCCESS",
            "videoVerifyResult",
            "Success",
        ),
        (
            "/api/v1/zoloz/uapconnect/initialize",
            "/api/v1/zoloz/uapconnect/checkverify",
            "S",
            "SUCCESS",
            "verifyStatus",
            "SUCCESS",
        ),
    ] {
        let initialized = merchant.post(&sim, initialize, &initialize_body(&json!({}))).await;
        let id = initialized.json()["transactionId"].as_str().unwrap().to_owned();
        let before = merchant.post(&sim, check, &check_body(&id)).await;
        assert_eq!(before.result(), result(true, open, code), "{check}");
        assert_ne!(before.json()[member], value, "{check}");
        sim.simulator.complete_zoloz(&id, ZolozComplete::default()).unwrap();
        let after = merchant.post(&sim, check, &check_body(&id)).await;
        assert_eq!((after.code(), &after.json()[member]), ("SUCCESS".to_owned(), &json!(value)), "{check}");
    }
}

#[tokio::test]
async fn images_of_documents_come_as_the_product_gives_them() {
    let (sim, merchant) = set_up().await;
    for (product, path, usual) in [
        ("realid", "/api/v1/zoloz/realid/checkresult", false),
        ("idrecognition", "/api/v1/zoloz/idrecognition/checkresult", true),
    ] {
        let id = finished(&sim, &json!({"product": product}));
        let has_image = async |more: Value| {
            let mut body = check_body(&id);
            body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            merchant.post(&sim, path, &body).await.text.contains("/9j")
        };
        assert_eq!(has_image(json!({})).await, usual, "{product}");
        assert!(has_image(json!({"isReturnImage": "Y"})).await, "{product}");
        assert!(!has_image(json!({"isReturnImage": "N"})).await, "{product}");
    }
}

#[tokio::test]
async fn headers_are_written_in_canonical_case() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (sim, merchant) = set_up().await;
    let call = merchant.call(&sim, AUTHENTICATION_TEST, &json!({}), Mode::Encrypted(32));
    let request = merchant.request(&sim, &call).build().unwrap();
    let body = request.body().unwrap().as_bytes().unwrap();
    let mut text = format!("POST {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", call.path, sim.host);
    for (name, value) in request.headers() {
        write!(text, "{name}: {}\r\n", value.to_str().unwrap()).unwrap();
    }
    write!(text, "Content-Length: {}\r\n\r\n", body.len()).unwrap();
    let mut stream = tokio::net::TcpStream::connect(&sim.host).await.unwrap();
    stream.write_all(&[text.as_bytes(), body].concat()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    for name in ["Response-Time", "Signature", "Encrypt", "Content-Type"] {
        assert!(answer.contains(&format!("\r\n{name}: ")), "{name}: {answer}");
    }
}

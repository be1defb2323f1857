use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::domain::{Finding, Trouble};

fn ask(product: Product, answer: &Value) -> Result<Outcome, ProviderError> {
    interpret(product, answer.to_string().as_bytes(), false)
}

fn finding(product: Product, answer: &Value) -> Finding {
    match ask(product, answer) {
        Ok(Outcome::Finished(finding)) => *finding,
        other => panic!("{answer}: {other:?}"),
    }
}

/// The result in one word, with its code.
fn shown(product: Product, answer: &Value) -> String {
    match ask(product, answer) {
        Ok(Outcome::Running(code)) => format!("running {code}"),
        Ok(Outcome::Finished(found)) => {
            assert!(!found.reason.is_empty());
            format!("{} {}", found.status.as_str(), found.sub_code.unwrap_or_default())
        }
        Err(ProviderError::Throttled { code, .. }) => format!("throttled {code}"),
        Err(ProviderError::Account { trouble, code }) => format!("{} {code}", trouble.as_str()),
        Err(ProviderError::Refused { code, .. }) => format!("refused {code}"),
        Err(ProviderError::Unavailable { code, .. }) => format!("unavailable {code}"),
    }
}

fn result(status: &str, code: &str) -> Value {
    json!({"resultStatus": status, "resultCode": code, "resultMessage": "CANARY-MESSAGE"})
}

/// An answer of the product with that result, which states `value` and holds `more`.
fn answer(product: Product, result: &Value, value: &Value, more: &Value) -> Value {
    let mut answer = json!({ "result": result });
    if !value.is_null() {
        answer[product.result_member()] = value.clone();
    }
    for (name, value) in more.as_object().into_iter().flatten() {
        answer[name] = value.clone();
    }
    answer
}

/// What each product states when all went well.
fn success(product: Product) -> Value {
    match product {
        Product::IdRecognition => json!("Y"),
        Product::FaceCompare => json!(true),
        Product::ConnectV2 => json!("SUCCESS"),
        _ => json!("Success"),
    }
}

#[test]
fn the_rows_of_connects_verdict_table_hold_in_their_order() {
    let face = |attack: bool| json!({"extFaceInfo": {"faceScore": 97, "faceAttack": attack}});
    let deeper = |value: Value| json!({"extFaceInfo": {"faceAttack": false, "deeperResult": value}});
    let none = json!({});
    for (status, code, connect, more, expected) in [
        ("F", "NOT_SAME_PERSON", "Failure", face(true), "failed NOT_SAME_PERSON"),
        ("F", "NOT_SAME_PERSON", "Success", face(false), "failed NOT_SAME_PERSON"),
        ("S", "NOT_SAME_PERSON", "VoidTimeout", none.clone(), "failed NOT_SAME_PERSON"),
        ("F", "NOT_SAME_PERSON", "InProcess", none.clone(), "failed NOT_SAME_PERSON"),
        ("F", "NOT_SAME_PERSON", "", none.clone(), "failed NOT_SAME_PERSON"),
        ("S", "SUCCESS", "VoidTimeout", none.clone(), "void SUCCESS"),
        ("F", "PROCESSING", "VoidTimeout", none.clone(), "void PROCESSING"),
        ("F", "SYSTEM_ERROR", "VoidTimeout", none.clone(), "void SYSTEM_ERROR"),
        ("F", "PROCESSING", "", none.clone(), "running PROCESSING"),
        ("S", "PROCESSING", "Success", face(false), "running PROCESSING"),
        ("F", "PROCESSING", "InProcess", none.clone(), "running PROCESSING"),
        ("S", "SUCCESS", "InProcess", face(false), "running InProcess"),
        ("F", "SYSTEM_ERROR", "InProcess", none.clone(), "running InProcess"),
        ("F", "SYSTEM_ERROR", "Success", face(false), "unavailable SYSTEM_ERROR"),
        ("F", "UNABLE_GET_IMAGE", "Success", face(false), "refused UNABLE_GET_IMAGE"),
        ("F", "UNABLE_GET_IMAGE", "Failure", none.clone(), "refused UNABLE_GET_IMAGE"),
        ("S", "SUCCESS", "Failure", face(false), "failed SUCCESS"),
        ("S", "SUCCESS", "Failure", deeper(json!("Failure")), "failed SUCCESS"),
        ("S", "SUCCESS", "Success", face(true), "failed SUCCESS"),
        ("S", "SUCCESS", "Unheard", face(true), "failed SUCCESS"),
        ("S", "SUCCESS", "", face(true), "failed SUCCESS"),
        ("S", "SUCCESS", "Success", deeper(json!("Failure")), "review SUCCESS"),
        ("S", "SUCCESS", "Success", deeper(json!("Unheard")), "review SUCCESS"),
        ("S", "SUCCESS", "Success", deeper(json!(true)), "review SUCCESS"),
        ("S", "SUCCESS", "", deeper(json!("Failure")), "review SUCCESS"),
        ("S", "SUCCESS", "Success", face(false), "passed SUCCESS"),
        ("S", "SUCCESS", "Success", deeper(json!("Success")), "passed SUCCESS"),
        ("S", "SUCCESS", "Success", deeper(json!("")), "passed SUCCESS"),
        ("S", "SUCCESS", "Success", deeper(Value::Null), "passed SUCCESS"),
        ("S", "SUCCESS", "Success", none.clone(), "passed SUCCESS"),
        ("S", "SUCCESS", "", face(false), "passed SUCCESS"),
        ("S", "SUCCESS", "", none.clone(), "review SUCCESS"),
        ("S", "SUCCESS", "", json!({"extFaceInfo": {"faceScore": 97}}), "review SUCCESS"),
        ("S", "SUCCESS", "", json!({"extInfo": {"faceAttack": false}}), "review SUCCESS"),
        ("S", "SUCCESS", "Unheard", face(false), "review SUCCESS"),
        ("S", "SUCCESS", "SUCCESS", face(false), "review SUCCESS"),
        ("S", "SUCCESS", "Pending", face(false), "review SUCCESS"),
        ("F", "SUCCESS", "Success", face(false), "review SUCCESS"),
        ("U", "SUCCESS", "Success", face(false), "review SUCCESS"),
        ("", "SUCCESS", "Success", face(false), "review SUCCESS"),
        ("F", "SUCCESS", "", face(false), "review SUCCESS"),
        ("S", "SUCCESS", "Success", json!({"extFaceInfo": {"faceAttack": "maybe"}}), "review SUCCESS"),
        ("S", "SUCCESS", "Success", json!({"extFaceInfo": "no json"}), "review SUCCESS"),
        ("S", "SUCCESS", "Success", json!({"extFaceInfo": "{\"faceImg\":\"cut"}), "review SUCCESS"),
        ("S", "SUCCESS", "Success", json!({"extFaceInfo": [1]}), "review SUCCESS"),
    ] {
        let answer = answer(Product::Connect, &result(status, code), &json!(connect), &more);
        assert_eq!(shown(Product::Connect, &answer), expected, "{answer}");
    }
}

#[test]
fn each_result_of_each_product_has_its_status() {
    use Product::{ConnectV2, FaceCapture, FaceCompare, IdRecognition, Nfc, RealId, VideoVerify};
    for (product, value, expected) in [
        (RealId, json!("Success"), "passed"),
        (RealId, json!("Failure"), "failed"),
        (RealId, json!("Pending"), "review"),
        (RealId, json!("InProcess"), "running"),
        (RealId, json!("VoidTimeout"), "void"),
        (RealId, json!("Unheard"), "review"),
        (FaceCapture, json!("Success"), "passed"),
        (FaceCapture, json!("Failure"), "failed"),
        (FaceCapture, json!("VoidTimeout"), "void"),
        (FaceCapture, json!("InProcess"), "running"),
        (FaceCapture, json!("Pending"), "review"),
        (IdRecognition, json!("Y"), "passed"),
        (IdRecognition, json!("N"), "failed"),
        (IdRecognition, json!("Success"), "review"),
        (FaceCompare, json!(true), "passed"),
        (FaceCompare, json!(false), "failed"),
        (FaceCompare, json!("true"), "review"),
        (FaceCompare, json!("Success"), "review"),
        (Nfc, json!("Success"), "passed"),
        (Nfc, json!("Failure"), "failed"),
        (Nfc, json!("Unheard"), "review"),
        (VideoVerify, json!("Success"), "passed"),
        (VideoVerify, json!("Failure"), "failed"),
        (VideoVerify, json!("VoidTimeout"), "void"),
        (VideoVerify, json!("Unheard"), "review"),
        (ConnectV2, json!("INITIAL"), "running"),
        (ConnectV2, json!("PROCESSING"), "running"),
        (ConnectV2, json!("SUCCESS"), "passed"),
        (ConnectV2, json!("FAIL"), "failed"),
        (ConnectV2, json!("EXPIRED"), "void"),
        (ConnectV2, json!("Success"), "review"),
    ] {
        let answer = answer(product, &result("S", "SUCCESS"), &value, &json!({}));
        assert_eq!(shown(product, &answer).split(' ').next(), Some(expected), "{answer}");
    }
    for product in Product::ALL {
        for value in [Value::Null, json!(""), json!(7), json!(["Success"]), json!({"a": "Success"}), json!("success")] {
            let answer = answer(product, &result("S", "SUCCESS"), &value, &json!({}));
            assert_eq!(shown(product, &answer), "review SUCCESS", "{answer}");
        }
    }
}

#[test]
fn every_result_code_has_its_meaning_for_every_product() {
    for (status, code, expected) in [
        ("F", "NOT_SAME_PERSON", "failed"),
        ("F", "PROCESSING", "running"),
        ("S", "PROCESSING", "running"),
        ("F", "UNABLE_GET_IMAGE", "refused"),
        ("F", "INVALID_ARGUMENT", "refused"),
        ("F", "SYSTEM_ERROR", "unavailable"),
        ("U", "SYSTEM_ERROR", "unavailable"),
        ("F", "PARAM_MISSING", "refused"),
        ("F", "PARAM_ILLEGAL", "refused"),
        ("F", "MSG_PARSE_ERROR", "refused"),
        ("F", "SIGNATURE_INVALID", Trouble::BadSignature.as_str()),
        ("F", "KEY_NOT_FOUND", Trouble::BadKey.as_str()),
        ("F", "MERCHANT_NOT_FOUND", Trouble::BadKey.as_str()),
        ("F", "OAUTH_FAIL", Trouble::NoPermission.as_str()),
        ("F", "OAUTH_RESOURCE_CODE_FAIL", Trouble::NoPermission.as_str()),
        ("F", "ACCESS_DENIED", Trouble::NoPermission.as_str()),
        ("F", "NO_INTERFACE_DEF", Trouble::Configuration.as_str()),
        ("F", "REQUEST_TRAFFIC_EXCEED_LIMIT", "throttled"),
        ("F", "PRODUCT_QUOTA_LIMIT", Trouble::NotActivated.as_str()),
        ("F", "PROCESS_TIMEOUT", "unavailable"),
        ("F", "UNUSABLE", "refused"),
        ("U", "SOMETHING_NEW", "unavailable"),
        ("F", "SOMETHING_NEW", "refused"),
        ("S", "SOMETHING_NEW", "review"),
    ] {
        for product in Product::ALL {
            for value in [Value::Null, success(product)] {
                let answer = answer(product, &result(status, code), &value, &json!({}));
                assert_eq!(shown(product, &answer), format!("{expected} {code}"), "{answer}");
            }
        }
    }
    let unusable = answer(Product::FaceCapture, &result("F", "UNUSABLE"), &Value::Null, &json!({}));
    assert!(ask(Product::FaceCapture, &unusable).unwrap_err().to_string().contains("captured face"));
}

#[test]
fn an_answer_without_a_code_is_never_a_verdict_on_the_person() {
    for (result, expected) in [
        (json!({}), "unavailable no_code"),
        (json!({"resultStatus": "U"}), "unavailable no_code"),
        (json!({"resultStatus": "F"}), "refused no_code"),
        (json!({"resultStatus": "S"}), "review "),
        (json!({"resultStatus": "S", "resultCode": {"a": 1}}), "review "),
        (json!({"resultStatus": 7, "resultCode": "CANARY <script>"}), "unavailable no_code"),
        (Value::Null, "unavailable result_missing"),
        (json!("S"), "unavailable result_missing"),
        (json!([]), "unavailable result_missing"),
    ] {
        let answer =
            answer(Product::Connect, &result, &json!("Success"), &json!({"extFaceInfo": {"faceAttack": false}}));
        assert_eq!(shown(Product::Connect, &answer), expected, "{answer}");
    }
    for body in ["", "null", "[]", "{", "<html></html>", "{\"result\":", "\"{}\"", "{} {}"] {
        let error = interpret(Product::Connect, body.as_bytes(), false).unwrap_err();
        assert_eq!(error.code(), "unreadable_answer", "{body}");
    }
    assert!(interpret(Product::Connect, b"{\"a\":\"\xff\"}", false).is_err());
}

#[test]
fn real_id_states_nothing_without_the_status_s() {
    for (status, code, expected) in [
        ("F", "SUCCESS", "review SUCCESS"),
        ("U", "SYSTEM_ERROR", "unavailable SYSTEM_ERROR"),
        ("F", "INVALID_ARGUMENT", "refused INVALID_ARGUMENT"),
    ] {
        for value in ["Success", "VoidTimeout", "InProcess", "Failure"] {
            let answer = answer(Product::RealId, &result(status, code), &json!(value), &json!({}));
            assert_eq!(shown(Product::RealId, &answer), expected, "{answer}");
        }
    }
}

#[test]
fn an_attack_or_a_deepfake_is_never_passed_by_any_product() {
    for product in Product::ALL {
        for place in ["extFaceInfo", "extInfo"] {
            for (member, value, expected) in [
                ("faceAttack", json!(true), "failed SUCCESS"),
                ("faceAttack", json!("Y"), "failed SUCCESS"),
                ("faceAttack", json!("true"), "failed SUCCESS"),
                ("faceAttack", json!("unheard"), "review SUCCESS"),
                ("faceAttack", json!("N"), "passed SUCCESS"),
                ("faceAttack", json!(false), "passed SUCCESS"),
                ("deeperResult", json!("Failure"), "review SUCCESS"),
                ("deeperResult", json!("Success"), "passed SUCCESS"),
            ] {
                let more = json!({ place: { member: value } });
                let answer = answer(product, &result("S", "SUCCESS"), &success(product), &more);
                assert_eq!(shown(product, &answer), expected, "{answer}");
            }
        }
    }
}

#[test]
fn faces_that_are_the_same_on_a_poor_picture_are_for_a_person() {
    let more = json!({"score": "91.5", "face1ImageQualityResult": "PASS", "face2ImageQualityResult": "FAIL"});
    let found =
        finding(Product::FaceCompare, &answer(Product::FaceCompare, &result("S", "SUCCESS"), &json!(true), &more));
    assert_eq!(found.status, FinalStatus::Review);
    assert_eq!(json!(found.scores), json!({"face_comparison": 91.5}));
    assert_eq!(
        Value::Object(found.signals),
        json!({"same_person": true, "face1_image_quality_result": "PASS", "face2_image_quality_result": "FAIL"})
    );
}

/// For each product: an answer with every documented score and sub-code, and what is made of them.
#[test]
fn the_scores_and_signals_of_every_product_arrive_under_their_names() {
    for (product, more, scores, signals) in [
        (
            Product::Connect,
            json!({"extFaceInfo": {"faceScore": 97, "faceAttack": false, "deeperResult": "Success",
                "deeperResultDescription": "CANARY", "aliveImage": "CANARY", "refImage": "CANARY"}}),
            json!({"face_comparison": 97.0}),
            json!({"face_attack": false, "deeper": "Success"}),
        ),
        (
            Product::RealId,
            json!({
                "extFaceInfo": {"ekycResultFace": "Success", "faceScore": " 97.25 ", "faceQuality": "88",
                    "faceLivenessResult": "Success", "faceImg": "CANARY"},
                "extIdInfo": {"ekycResultDoc": "Success", "docErrorDetails": "BLUR,NO_FACE_DETECTED",
                    "spoofResult": {"TAMPER_CHECK": "N", "MATERIAL_CHECK": "Y"}, "docEdition": 3, "nameMatchScore": "0.5",
                    "ocrResult": {"CANARY": "x", "secretScore": 1}, "ocrResultScore": 2, "frontPageImg": "CANARY"},
                "extRiskInfo": {"ekycResultRisk": "Pending", "strategyPassResult": "N"},
            }),
            json!({"face_comparison": 97.25, "face_quality": 88.0, "name_match_score": 0.5}),
            json!({"ekyc_result_face": "Success", "face_liveness_result": "Success", "ekyc_result_doc": "Success",
                "doc_error_details": ["BLUR", "NO_FACE_DETECTED"],
                "spoof_result": {"TAMPER_CHECK": "N", "MATERIAL_CHECK": "Y"}, "ekyc_result_risk": "Pending",
                "strategy_pass_result": "N"}),
        ),
        (
            Product::FaceCapture,
            json!({"extInfo": {"faceAttack": false, "quality": "93.5", "rect": {"left": 1}, "imageContent": "CANARY"}}),
            json!({"quality": 93.5}),
            json!({"face_attack": false}),
        ),
        (
            Product::IdRecognition,
            json!({"recognitionErrorCode": "BLUR", "spoofResult": "N", "ocrResult": {"CANARY": "CANARY"},
                "extInfo": {"imageContent": ["CANARY"]}}),
            json!({}),
            json!({"recognition_error_code": "BLUR", "spoof_result": "N"}),
        ),
        (
            Product::Nfc,
            json!({"extBasicInfo": {"CANARY": "CANARY", "documentNumber": 1_234_567}, "extIdInfo": {"name": "CANARY"},
                "extFaceInfo": "{\"faceScore\":\"71\"}"}),
            json!({"face_comparison": 71.0}),
            json!({}),
        ),
        (
            Product::VideoVerify,
            json!({"extInfo": {"quality": "70", "qualityPassed": "true"}}),
            json!({"quality": 70.0}),
            json!({"quality_passed": true}),
        ),
        (Product::ConnectV2, json!({"validateResult": [{"CANARY": "CANARY"}]}), json!({}), json!({})),
    ] {
        let found = finding(product, &answer(product, &result("S", "SUCCESS"), &success(product), &more));
        assert_eq!(found.status, FinalStatus::Passed, "{product:?}");
        assert_eq!(json!(found.scores), scores, "{product:?}");
        assert_eq!(Value::Object(found.signals), signals, "{product:?}");
        assert!(found.notes.is_empty(), "{product:?} {:?}", found.notes);
        assert!(found.answer.contains("CANARY-MESSAGE") && !found.reason.contains("CANARY"));
    }
}

#[test]
fn the_document_on_products_names_all_that_is_read() {
    let document = include_str!("../../../docs/products.md");
    for product in Product::ALL {
        assert!(document.contains(&format!("| `{}` | {} |", product.name(), product.result_member())), "{product:?}");
    }
    for name in SCORES.iter().map(|(_, ours)| ours).chain(SIGNALS.iter().map(|(_, ours, _)| ours)) {
        assert!(document.contains(&format!("`{name}`")), "{name}");
    }
}

#[test]
fn the_example_of_a_rejected_answer_is_read() {
    let body = br#"{"result":{"resultStatus":"F","resultCode":"NOT_SAME_PERSON","resultMessage":"not same person"},
 "connectResult":"Failure","extFaceInfo":{"faceScore":12.75,"faceAttack":true}}"#;
    let Ok(Outcome::Finished(found)) = interpret(Product::Connect, body, false) else { panic!("no result") };
    assert_eq!((found.status, found.sub_code.as_deref()), (FinalStatus::Failed, Some("NOT_SAME_PERSON")));
    assert_eq!(json!(found.scores), json!({"face_comparison": 12.75}));
    assert_eq!(json!(found.signals), json!({"face_attack": true}));
}

#[test]
fn an_unknown_result_is_shown_as_the_provider_wrote_it_if_it_is_a_word() {
    let unknown = |value: &str| {
        finding(Product::RealId, &answer(Product::RealId, &result("S", "SUCCESS"), &json!(value), &json!({})))
    };
    assert_eq!(json!(unknown("VoidCancelled").signals), json!({"ekyc_result": "VoidCancelled"}));
    let odd = unknown("CANARY CANARY");
    assert!(odd.signals.is_empty() && odd.answer.contains("CANARY CANARY"));
    assert_eq!(odd.notes, ["ekycResult has an unexpected value and was left out"]);
}

#[test]
fn a_refused_document_has_its_reason_in_words() {
    for (code, words) in [
        (json!("NO_REQUIRED_ID"), "No document of the required kind was found."),
        (json!("BLUR"), "The picture of the document is blurred."),
        (json!("NO_FACE_DETECTED"), "No face was found on the document."),
        (json!("NOT_REAL_DOC"), "The document is not a real one."),
        (json!("UNKNOWN"), "The document was not recognised."),
        (Value::Null, "The document was not recognised."),
    ] {
        let more = json!({"recognitionErrorCode": code});
        let answer = answer(Product::IdRecognition, &result("S", "SUCCESS"), &json!("N"), &more);
        assert_eq!(finding(Product::IdRecognition, &answer).reason, words);
    }
}

#[test]
fn odd_scores_and_signals_are_left_out_and_noted_by_name_alone() {
    for (name, value) in [
        ("faceScore", json!("CANARY")),
        ("faceScore", json!("NaN")),
        ("faceScore", json!("1e999")),
        ("quality", json!(true)),
        ("docErrorDetails", json!("3275012345678901")),
        ("docErrorDetails", json!([{"CANARY": 1}])),
        ("spoofResult", json!({"TAMPER_CHECK": "CANARY CANARY"})),
        ("spoofResult", json!({"3275012345678901": "Y"})),
        ("ekycResultDoc", json!({"CANARY": 1})),
        ("qualityPassed", json!("CANARY")),
        ("recognitionErrorCode", json!(3_275_012_345_678_901_i64)),
    ] {
        let more = json!({"extIdInfo": {name: value}});
        let found =
            finding(Product::RealId, &answer(Product::RealId, &result("S", "SUCCESS"), &json!("Success"), &more));
        assert!(found.scores.is_empty() && found.signals.is_empty(), "{name}");
        assert_eq!(found.notes.len(), 1, "{name}");
        assert!(found.notes[0].starts_with(name) && !found.notes[0].contains("CANARY"), "{:?}", found.notes);
    }
}

#[test]
fn document_data_stays_in_the_answer_and_images_nowhere() {
    let document = json!({"name": "DOC-CANARY", "idNumber": "DOC-CANARY", "number": 3_275_012_345_678_901_i64,
        "deep": {"nameScore": 3_275_012_345_678_901_i64}});
    let image = "IMAGE-CANARY".repeat(400);
    for product in Product::ALL {
        for place in ["extIdInfo", "extBasicInfo", "extRiskInfo", "extInfo", "extFaceInfo", "validateResult", "other"] {
            for inner in [document.clone(), json!(document.to_string())] {
                let more = json!({
                    place: {"ocrResult": inner, "ocrResultDetail": inner, "basic": document, "name": "DOC-CANARY",
                        "faceImg": image, "aliveImage": "IMAGE-CANARY", "refImage": "IMAGE-CANARY",
                        "imageContent": ["IMAGE-CANARY"], "croppedFaceFromDoc": "IMAGE-CANARY", "unheard": image},
                    "ocrResult": inner, "name": "DOC-CANARY",
                });
                let found = finding(product, &answer(product, &result("S", "SUCCESS"), &success(product), &more));
                assert!(found.answer.contains("DOC-CANARY"), "{product:?} {place}");
                assert!(!found.answer.contains("IMAGE-CANARY"), "{product:?} {place} {}", found.answer);
                let rest =
                    format!("{found:?} {:?} {:?} {:?} {}", found.scores, found.signals, found.notes, found.reason);
                for canary in ["CANARY", "3275012345678901"] {
                    assert!(!rest.contains(canary), "{product:?} {place} {rest}");
                }
            }
        }
    }
}

#[test]
fn of_an_answer_of_many_mebibytes_only_the_rest_is_kept() {
    // With escapes, which a parser can only read into a copy.
    for image in ["A".repeat(4 << 20), "A\\/".repeat(4 << 18)] {
        let body = format!(
            "{{\"result\":{{\"resultStatus\":\"S\",\"resultCode\":\"SUCCESS\"}},\"connectResult\":\"Success\",\
             \"extFaceInfo\":{{\"faceAttack\":false,\"aliveImage\":\"{image}\",\"refImage\":\"{image}\"}}}}"
        );
        let Ok(Outcome::Finished(found)) = interpret(Product::Connect, body.as_bytes(), false) else {
            panic!("no result")
        };
        assert_eq!(found.status, FinalStatus::Passed);
        assert!(found.answer.capacity() <= 16 << 10, "{}", found.answer.capacity());
    }
}

fn any_answer() -> impl Strategy<Value = Value> {
    let name = prop_oneof![
        Just("result"),
        Just("resultCode"),
        Just("resultStatus"),
        Just("connectResult"),
        Just("ekycResult"),
        Just("samePerson"),
        Just("recognitionResult"),
        Just("verifyStatus"),
        Just("extFaceInfo"),
        Just("extInfo"),
        Just("faceAttack"),
        Just("deeperResult"),
        Just("faceScore"),
        Just("other"),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        prop_oneof![Just("S"), Just("F"), Just("SUCCESS"), Just("Success"), Just("Y"), Just("Failure")]
            .prop_map(Value::from),
    ];
    let value = leaf.prop_recursive(4, 48, 6, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            proptest::collection::btree_map(name.clone(), inner.clone(), 0..6)
                .prop_map(|map| map.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()),
            inner.prop_map(|value| Value::String(value.to_string())),
        ]
    });
    let status = prop_oneof![4 => Just("S"), 1 => Just("F"), 1 => Just("")];
    let code = prop_oneof![6 => Just("SUCCESS"), 1 => Just("PROCESSING"), 1 => Just("NOT_SAME_PERSON"), 1 => Just("X")];
    (value, status, code).prop_map(|(value, status, code)| {
        let mut value = if value.is_object() { value } else { json!({"connectResult": value}) };
        value["result"] = result(status, code);
        value
    })
}

proptest! {
    #[test]
    fn no_bytes_panic(body in proptest::collection::vec(any::<u8>(), 0..256)) {
        for product in Product::ALL {
            let _ = interpret(product, &body, false);
        }
    }

    #[test]
    fn nothing_passes_but_a_documented_success(value in any_answer(), at in 0..Product::ALL.len()) {
        let product = Product::ALL[at];
        let Ok(Outcome::Finished(found)) = ask(product, &value) else { return Ok(()) };
        prop_assert!(serde_json::from_str::<Value>(&found.answer).is_ok());
        prop_assert!(found.scores.values().all(|score| score.is_finite()));
        if found.status == FinalStatus::Passed {
            prop_assert_eq!(&value["result"]["resultStatus"], "S");
            prop_assert_eq!(&value["result"]["resultCode"], "SUCCESS");
            let stated = value.get(product.result_member()).filter(|value| !is_absent(value));
            prop_assert!(stated == Some(&success(product)) || (stated.is_none() && product == Product::Connect));
            for place in ["extFaceInfo", "extInfo"] {
                prop_assert!(value[place]["faceAttack"] != json!(true));
                prop_assert!(is_absent(&value[place]["deeperResult"]) || value[place]["deeperResult"] == "Success");
            }
        }
    }
}

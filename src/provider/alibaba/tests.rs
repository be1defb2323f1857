//! From the bytes of an answer to the outcome.

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::domain::{FinalStatus, Finding, Outcome, ProviderError};

use super::{outcome, wire};

fn interpreted(body: &str) -> Result<Outcome, ProviderError> {
    outcome::interpret(wire::read(body.as_bytes(), &[]).unwrap())
}

fn finding(result: &Value) -> Finding {
    let body = json!({"RequestId": "R", "Code": "Success", "Message": "success", "Result": result}).to_string();
    match interpreted(&body) {
        Ok(Outcome::Finished(finding)) => *finding,
        other => panic!("{other:?}"),
    }
}

/// A passed result with one Ext part, given as the provider does: as text.
fn with_part(name: &str, part: &Value) -> Finding {
    finding(&json!({"Passed": "Y", "SubCode": "200", name: part.to_string()}))
}

#[test]
fn passed_alone_decides_and_the_sub_code_gives_the_reason() {
    for (passed, sub_code, status, reason) in [
        ("Y", json!("200"), FinalStatus::Passed, "Authentication passed."),
        (" y ", json!(200), FinalStatus::Passed, "Authentication passed."),
        ("N", json!("204"), FinalStatus::Failed, "The faces differ, or the live photo is poor."),
        ("n", json!("205"), FinalStatus::Failed, "The liveness check found a risk."),
        (
            "N",
            json!("206"),
            FinalStatus::Failed,
            "A business policy decided so, or the device or its environment failed the check.",
        ),
        ("N", json!("233"), FinalStatus::Failed, "A similar face is already known."),
        ("N", json!("299"), FinalStatus::Failed, "The provider gave sub-code 299."),
        ("N", Value::Null, FinalStatus::Failed, "Authentication failed."),
        ("Y", json!(""), FinalStatus::Passed, "Authentication passed."),
    ] {
        let found = finding(&json!({"Passed": passed, "SubCode": sub_code}));
        assert_eq!((found.status, &*found.reason), (status, reason), "{passed} {sub_code}");
        assert!(found.notes.is_empty());
    }
    let odd = finding(&json!({"Passed": "N", "SubCode": "200"}));
    assert_eq!(odd.status, FinalStatus::Failed);
    assert_eq!(odd.reason, "Authentication failed, although the provider gave sub-code 200.");
    assert_eq!(odd.notes.len(), 1);
}

#[test]
fn an_ext_text_cannot_change_the_verdict() {
    let found = finding(&json!({
        "Passed": "N", "SubCode": "204",
        "ExtFaceInfo": json!({"facePassed": "Y", "Passed": "Y", "SubCode": "200"}).to_string(),
        "EkycResult": "{\"Passed\":\"Y\"}",
    }));
    assert_eq!(found.status, FinalStatus::Failed);
    assert_eq!(found.sub_code.as_deref(), Some("204"));
    assert_eq!(found.signals["face_passed"], true);
}

#[test]
fn pending_is_running_and_any_other_text_is_never_a_verdict() {
    for passed in ["P", "p", " P"] {
        let answer = json!({"Code": "Success", "Result": {"Passed": passed}}).to_string();
        assert!(matches!(interpreted(&answer), Ok(Outcome::Running(code)) if code == "P"));
    }
    for (result, code) in [
        (json!({"Passed": "YES"}), "passed_unknown"),
        (json!({"Passed": "T"}), "passed_unknown"),
        (json!({"Passed": true}), "passed_unknown"),
        (json!({"Passed": 1}), "passed_unknown"),
        (json!({"Passed": ["Y"]}), "passed_unknown"),
        (json!({"Passed": ""}), "result_missing"),
        (json!({"Passed": null}), "result_missing"),
        (json!({"SubCode": "200"}), "result_missing"),
        (json!({}), "result_missing"),
        (json!(null), "result_missing"),
        (json!([]), "result_missing"),
        (json!("Y"), "result_missing"),
    ] {
        let answer = json!({"Code": "Success", "Result": result}).to_string();
        let error = interpreted(&answer).unwrap_err();
        assert!(matches!(&error, ProviderError::Unavailable { .. }) && error.code() == code, "{result}: {error:?}");
    }
}

#[test]
fn the_documented_face_info_becomes_scores_and_signals() {
    let found = with_part(
        "ExtFaceInfo",
        &json!({
            "facePassed": "Y", "faceComparisonScore": 99.99, "faceAttack": "N", "faceAttackScore": "1.2",
            "faceQuality": 95.45, "faceOcclusion": "N", "guardRiskScore": " 3 ", "faceAge": "30", "faceGender": "M",
            "faceRegistrationResult": "1", "faceRegistrationID": "reg-1", "duplicateFace": "",
        }),
    );
    assert_eq!(
        json!(found.scores),
        json!({"face_comparison": 99.99, "face_quality": 95.45, "face_attack": 1.2, "guard_risk": 3.0})
    );
    assert_eq!(
        Value::Object(found.signals),
        json!({"face_passed": true, "face_attack": false, "face_occlusion": false, "age": 30, "gender": "M",
               "face_registered": true, "face_registration_id": "reg-1"})
    );
    assert!(found.notes.is_empty());
}

#[test]
fn every_other_score_keeps_its_name_in_snake_case() {
    let found = finding(&json!({
        "Passed": "Y",
        "ExtIdInfo": json!({"idFaceQualityScore": "88.5", "spoofInfo": {"spoofResult": "Y", "spoofType": "TAMPER", "tamperScore": 7},
            "ocrIdInfo": {"secretScore": 1}, "ocrIdScore": 2}).to_string(),
        "ExtSourceInfo": "{\"govId\":1.0,\"fullName\":\"1.0\",\"dob\":0.9,\"selfiePhoto\":0.8777,\"imgManipulationScore\":0.2253}",
        "ExtRiskInfo": {"authorityComparisonScore": 61},
        "ExtInfo": "{\"procedurePriority\":\"keep\"}",
    }));
    assert_eq!(
        json!(found.scores),
        json!({"id_face_quality_score": 88.5, "tamper_score": 7.0, "gov_id": 1.0, "full_name": 1.0, "dob": 0.9,
               "selfie_photo": 0.8777, "img_manipulation_score": 0.2253, "authority_comparison_score": 61.0})
    );
    assert_eq!(
        Value::Object(found.signals),
        json!({"spoof_result": true, "spoof_type": ["TAMPER"], "procedure_priority": "keep"})
    );
}

/// Every member of the documented parts that is neither an image nor a link, in the forms in which it comes.
#[test]
fn every_documented_member_arrives_under_its_name() {
    let found = finding(&json!({
        "Passed": "Y", "SubCode": "200",
        "ExtFaceInfo": json!({
            "facePassed": "Y", "faceComparisonScore": 99.99, "faceAttack": "N", "faceAttackScore": 1.5, "faceQuality": 95.45,
            "faceOcclusion": "N", "guardRiskScore": 3.25, "faceAge": "30", "faceGender": "F", "faceImg": "IMAGE-CANARY",
            "docVideoUrl": "https://h/IMAGE-CANARY", "faceRegistrationResult": "0", "faceRegistrationID": "reg-1",
            "duplicateFace": "face-1",
        }).to_string(),
        "ExtIdInfo": json!({
            "ocrIdInfo": json!({"name": "DOC-CANARY", "dobScore": 19_900_101}).to_string(),
            "ocrIdBackInfo": {"address": "DOC-CANARY"}, "ocrIdEditInfo": {"id_number": "DOC-CANARY"},
            "ocrIdInfoData": [{"idNumber": 3_275_012_345_678_901_i64}], "ocrIdPassed": "Y", "idFaceQualityScore": "88.5",
            "idImage": "IMAGE-CANARY", "idBackImage": "IMAGE-CANARY",
            "spoofInfo": json!({"spoofResult": "N", "spoofType": ["PHOTO_COPY", "SCREEN_REMARK"]}).to_string(),
        }).to_string(),
        "ExtSourceInfo": "{\"govId\":1.0,\"fullName\":1.0,\"dob\":0.9,\"selfiePhoto\":0.8777,\"liveness\":0.1152,\"imgManipulationScore\":0.2253}",
        "ExtInfo": "{\"procedurePriority\":\"url\"}",
        "ExtRiskInfo": "{\"riskScore\":\"7\",\"riskTags\":\"DOC-CANARY\"}",
        "ExtBasicInfo": "{\"name\":\"DOC-CANARY\",\"gender\":\"DOC-CANARY\",\"idNumber\":3275012345678901,\"matchScore\":0.5}",
        "EkycResult": "P",
    }));
    assert_eq!(found.status, FinalStatus::Passed);
    assert_eq!(
        json!(found.scores),
        json!({"face_comparison": 99.99, "face_attack": 1.5, "face_quality": 95.45, "guard_risk": 3.25,
               "id_face_quality_score": 88.5, "gov_id": 1.0, "full_name": 1.0, "dob": 0.9, "selfie_photo": 0.8777,
               "liveness": 0.1152, "img_manipulation_score": 0.2253, "risk_score": 7.0, "match_score": 0.5})
    );
    assert_eq!(
        json!(found.signals),
        json!({"face_passed": true, "face_attack": false, "face_occlusion": false, "age": 30, "gender": "F",
               "face_registered": false, "face_registration_id": "reg-1", "duplicate_face": "face-1",
               "ocr_id_passed": true, "spoof_result": false, "spoof_type": ["PHOTO_COPY", "SCREEN_REMARK"],
               "procedure_priority": "url", "ekyc_result": "P"})
    );
    assert!(found.notes.is_empty(), "{:?}", found.notes);
    for kept in ["DOC-CANARY", "3275012345678901", "ocrIdInfoData", "EkycResult"] {
        assert!(found.answer.contains(kept), "{kept}");
    }
    assert!(!found.answer.contains("IMAGE-CANARY"));
}

#[test]
fn document_data_becomes_no_score_signal_or_note_whatever_part_holds_it() {
    const NUMBER: i64 = 3_275_012_345_678_901;
    let document = json!({
        "name": "DOC-CANARY", "fullName": "DOC-CANARY", "govId": NUMBER, "dob": "19900101", "idNumber": NUMBER.to_string(),
        "id_number": NUMBER, "gender": "DOC-CANARY", "ocrIdInfo": {"numberScore": NUMBER}, "ocrNumberScore": NUMBER,
        "spoofInfo": {"spoofType": NUMBER.to_string(), "number": NUMBER}, "ekycResult": "DOC-CANARY",
        "duplicateFace": [{"faceId": "f", "name": "DOC-CANARY"}], "procedurePriority": "DOC CANARY DOC-CANARY",
    });
    for name in wire::PARTS {
        let found = with_part(name, &document);
        assert!(found.answer.contains("DOC-CANARY"), "{name}");
        let rest = format!("{found:?} {:?} {:?} {:?} {}", found.scores, found.signals, found.notes, found.reason);
        for canary in ["CANARY", "19900101", "3275012345678901"] {
            assert!(!rest.contains(canary), "{name} {rest}");
        }
        assert_eq!(json!(found.signals), json!({"duplicate_face": [{"faceId": "f"}]}), "{name}");
    }
}

#[test]
fn the_document_on_products_names_all_that_is_read() {
    let document = include_str!("../../../docs/products.md");
    let scores = outcome::SCORES.iter().map(|(_, ours)| ours);
    for name in scores.chain(outcome::SIGNALS.iter().map(|(_, ours, _)| ours)) {
        assert!(document.contains(&format!("`{name}`")), "{name}");
    }
    assert!(wire::PARTS.iter().all(|part| document.contains(part)));
}

#[test]
fn a_plain_ekyc_result_is_a_signal_and_any_other_text_is_not() {
    for text in ["Y", "N", "P", " Y "] {
        assert_eq!(
            json!(finding(&json!({"Passed": "N", "EkycResult": text})).signals),
            json!({"ekyc_result": text.trim()})
        );
    }
    for text in ["CANARY", "Y N", "7"] {
        let found = finding(&json!({"Passed": "Y", "EkycResult": text}));
        assert!(found.signals.is_empty(), "{text}");
        assert_eq!(found.notes, ["EkycResult holds no JSON object"]);
    }
    assert_eq!(finding(&json!({"Passed": "N", "EkycResult": "Y"})).status, FinalStatus::Failed);
}

#[test]
fn a_score_that_is_no_finite_number_is_left_out_and_noted_by_name_alone() {
    for value in
        [json!("NaN"), json!("inf"), json!("-Infinity"), json!("CANARY"), json!(true), json!([1]), json!("1e999")]
    {
        let found = with_part("ExtFaceInfo", &json!({"faceComparisonScore": value, "faceQuality": 1}));
        assert_eq!(json!(found.scores), json!({"face_quality": 1.0}), "{value}");
        assert_eq!(found.notes, ["faceComparisonScore is no finite number and was left out"]);
    }
    let found = with_part("ExtFaceInfo", &json!({"faceComparisonScore": "", "faceQuality": null}));
    assert!(found.scores.is_empty() && found.notes.is_empty());
}

#[test]
fn a_document_number_in_place_of_its_match_is_no_score() {
    for value in [json!(3_173_019_876_543_210_u64), json!("3173019876543210"), json!(-19_870_605), json!(100.1)] {
        let found = with_part("ExtSourceInfo", &json!({"govId": value, "dob": 100, "riskScore": 850}));
        assert_eq!(json!(found.scores), json!({"dob": 100.0, "risk_score": 850.0}), "{value}");
        assert_eq!(found.notes, ["govId is too large for a score and was left out"]);
    }
}

#[test]
fn a_signal_with_an_unexpected_value_is_left_out_and_noted_by_name_alone() {
    for (name, value) in [
        ("facePassed", json!("CANARY")),
        ("faceAttack", json!(1)),
        ("faceAge", json!("CANARY")),
        ("faceAge", json!(-1)),
        ("faceAge", json!(1e30)),
        ("faceGender", json!("CANARY")),
        ("faceRegistrationResult", json!([])),
        ("procedurePriority", json!("x".repeat(2000))),
    ] {
        let found = with_part("ExtFaceInfo", &json!({name: value}));
        assert!(found.signals.is_empty(), "{name}");
        assert_eq!(found.notes, [format!("{name} has an unexpected value and was left out")]);
    }
}

#[test]
fn a_duplicate_face_is_text_or_parsed_json() {
    let face = json!([{"faceGroupCode": "g", "faceId": "f", "merchantUserId": "u"}]);
    for (value, expected) in
        [(json!("known-1"), json!("known-1")), (json!(face.to_string()), face.clone()), (face.clone(), face.clone())]
    {
        assert_eq!(with_part("ExtFaceInfo", &json!({"duplicateFace": value})).signals["duplicate_face"], expected);
    }
}

#[test]
fn a_part_is_read_in_every_form_that_was_seen() {
    let part = json!({"faceComparisonScore": 50, "facePassed": "N"});
    let once = part.to_string();
    let twice = json!(once).to_string();
    for form in [part.clone(), json!(once), json!(twice), json!(format!("  {once}\n"))] {
        let found = finding(&json!({"Passed": "N", "ExtFaceInfo": form}));
        assert_eq!(found.scores["face_comparison"].to_bits(), 50.0_f64.to_bits(), "{form}");
        assert_eq!(found.signals["face_passed"], false);
    }
    for form in [json!(""), json!("  "), Value::Null] {
        let found = finding(&json!({"Passed": "N", "ExtFaceInfo": form}));
        assert!(found.scores.is_empty() && found.notes.is_empty(), "{form}");
    }
    for form in [json!("no json"), json!("{\"a\":"), json!(7), json!([]), json!("[]")] {
        let found = finding(&json!({"Passed": "N", "ExtFaceInfo": form}));
        assert!(found.scores.is_empty());
        assert_eq!(found.notes, ["ExtFaceInfo holds no JSON object"], "{form}");
    }
}

#[test]
fn a_result_in_a_string_and_lower_case_names_are_read() {
    let answer = json!({"code": "success", "result": json!({"passed": "Y", "subCode": "200"}).to_string()}).to_string();
    let reading = wire::read(answer.as_bytes(), &[]).unwrap();
    assert_eq!(reading.code.as_deref(), Some("success"));
    assert!(
        matches!(outcome::interpret(reading), Ok(Outcome::Finished(found)) if found.sub_code.as_deref() == Some("200"))
    );
}

#[test]
fn the_answer_is_kept_as_it_came_but_compact() {
    let body = "\u{feff} {\"Code\" : \"Success\",\n \"Result\": {\"Passed\":\"Y\", \"ExtRiskInfo\":\"{ \\\"z\\\" : 1.50, \\\"a\\\":\\\"\\u5f20\\\" }\",\
                \"x\":[1.50, 12345678901234567890123, null, true, []]}, \"B\":{}, \"A\":\"\\/\"} ";
    let kept = "{\"Code\":\"Success\",\"Result\":{\"Passed\":\"Y\",\"ExtRiskInfo\":\"{ \\\"z\\\" : 1.50, \\\"a\\\":\\\"\\u5f20\\\" }\",\
                \"x\":[1.50,12345678901234567890123,null,true,[]]},\"B\":{},\"A\":\"\\/\"}";
    let Ok(Outcome::Finished(found)) = interpreted(body) else { panic!("no result") };
    assert_eq!(found.answer, kept);
}

#[test]
fn images_and_links_are_taken_out_in_every_form() {
    let face = "CANARY-FACE";
    let long = "CANARYx/".repeat(600);
    let inner = json!({
        "faceImg": face, "id_image": face, "frontPicture": [face, {"a": face}], "other": long, "bgImageUrl": "https://h/CANARY",
        "docVideoUrl": "https://h/CANARY?sig=1", "small": "data:image/png;base64,CANARY", "faceQuality": 95.45,
        "selfiePhoto": "CANARY".repeat(100), "idBackImage": "", "deep": json!({"idImage": face, "keep": "kept"}).to_string(),
        "broken": "{\"faceImg\":\"CANARY",
    });
    for form in [inner.clone(), json!(inner.to_string()), json!(json!(inner.to_string()).to_string())] {
        let found = finding(&json!({"Passed": "Y", "SubCode": "200", "ExtFaceInfo": form}));
        let shown = format!("{found:?} {} {:?} {:?} {}", found.answer, found.notes, found.signals, found.reason);
        assert!(!shown.contains("CANARY"), "{shown}");
        assert!(found.answer.contains("kept"));
        assert!(serde_json::from_str::<Value>(&found.answer).is_ok());
        assert_eq!(found.scores["face_quality"].to_bits(), 95.45_f64.to_bits());
    }
    let found = finding(
        &json!({"Passed": "Y", "ExtFaceInfo": json!({"faceImg": face, "docVideoUrl": "https://h/"}).to_string()}),
    );
    let kept: Value = serde_json::from_str(&found.answer).unwrap();
    let part: Value = serde_json::from_str(kept["Result"]["ExtFaceInfo"].as_str().unwrap()).unwrap();
    assert_eq!(
        part,
        json!({"faceImg": {"omitted": "image", "bytes": 11}, "docVideoUrl": {"omitted": "link", "bytes": 10}})
    );
}

#[test]
fn a_long_text_that_is_no_image_is_kept() {
    let text = "one two ".repeat(1000);
    let found = finding(&json!({"Passed": "Y", "ExtBasicInfo": {"remark": text}}));
    assert!(found.answer.contains(&text) && !found.answer.contains("omitted"));
}

#[test]
fn nesting_without_end_is_taken_out_or_unreadable_and_never_a_panic() {
    let deep = |levels: usize| format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
    let body = format!("{{\"Code\":\"Success\",\"Result\":{{\"Passed\":\"Y\",\"x\":{}}}}}", deep(100));
    let Ok(Outcome::Finished(found)) = interpreted(&body) else { panic!("no result") };
    assert!(found.answer.contains("too_deep"));
    assert!(wire::read(format!("{{\"x\":{}", deep(100_000)).as_bytes(), &[]).is_err());
    let wrapped = (0..8).fold("CANARY".to_owned(), |text, _| json!(text).to_string());
    let found = finding(&json!({"Passed": "Y", "ExtFaceInfo": wrapped}));
    assert!(!found.answer.contains("CANARY") && found.answer.contains("too_deep"));
}

#[test]
fn what_is_neither_json_nor_the_xml_error_is_unreadable() {
    for body in [
        "",
        "  ",
        "null",
        "[]",
        "\"{}\"",
        "{",
        "{\"Code\":\"Success\",\"Result\":{\"Passed\":\"Y\"",
        "{\"Code\":\"Success\"} more",
        "{\"Code\":01}",
        "<html><body>502 Bad Gateway</body></html>",
        "<!DOCTYPE html><html></html>",
        "<Error><Code>InternalError</Code>",
        "<Error><Code>InternalError</Wrong></Error>",
        "<",
        "Bad Gateway",
    ] {
        assert!(wire::read(body.as_bytes(), &[]).is_err(), "{body}");
    }
    assert!(wire::read(b"{\"Code\":\"\xff\"}", &[]).is_err());
}

#[test]
fn an_xml_error_gives_its_code() {
    for body in [
        "<?xml version='1.0' encoding='UTF-8'?>\n<Error><RequestId>R</RequestId><HostId>h</HostId><Code> Throttling.User </Code><Message>m &amp; n</Message></Error>",
        "<Error><Code><![CDATA[x]]>Throttling.User</Code></Error>",
        "<Error><Detail><Code>Other</Code></Detail><code>Throttling.User</code></Error>",
    ] {
        let reading = wire::read(body.as_bytes(), &[]).unwrap();
        assert_eq!(reading.code.as_deref(), Some("Throttling.User"), "{body}");
        assert!(reading.result.is_none());
    }
    assert_eq!(wire::read(b"<Error></Error>", &[]).unwrap().code, None);
}

fn any_json() -> impl Strategy<Value = Value> {
    let name = prop_oneof![
        Just("Code".to_owned()),
        Just("Result".to_owned()),
        Just("Passed".to_owned()),
        Just("ExtFaceInfo".to_owned()),
        Just("faceImg".to_owned()),
        Just("faceComparisonScore".to_owned()),
        Just("spoofInfo".to_owned()),
        ".{0,6}",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        Just(json!("Y")),
    ];
    leaf.prop_recursive(5, 64, 8, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::Array),
            proptest::collection::btree_map(name.clone(), inner.clone(), 0..8)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
            inner.prop_map(|value| Value::String(value.to_string())),
        ]
    })
}

proptest! {
    #[test]
    fn no_bytes_panic(body in proptest::collection::vec(any::<u8>(), 0..256)) {
        if let Ok(reading) = wire::read(&body, &[]) {
            let _ = outcome::interpret(reading);
        }
    }

    #[test]
    fn no_answer_panics_and_only_passed_gives_a_verdict(mut value in any_json(), cut in 0_usize..4096) {
        if let Some(result) = value.get_mut("Result").and_then(Value::as_object_mut) {
            result.insert("Passed".to_owned(), json!("Y"));
        }
        let body = value.to_string();
        if let Ok(reading) = wire::read(body.as_bytes(), &[]) {
            prop_assert!(serde_json::from_str::<Value>(&reading.text).is_ok());
            let has_result = value.get("Result").is_some_and(Value::is_object);
            if let Ok(Outcome::Finished(found)) = outcome::interpret(reading) && has_result {
                prop_assert_eq!(found.status, FinalStatus::Passed);
                prop_assert!(found.scores.values().all(|score| score.is_finite()));
            }
        }
        if let Some(head) = body.get(..cut.min(body.len().saturating_sub(1))) {
            prop_assert!(wire::read(head.as_bytes(), &[]).is_err());
        }
    }
}

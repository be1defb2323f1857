//! What checkresult answers for each product. What the documentation leaves open is chosen once, here.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::commands::{ZolozOutcome, ZolozProduct};

/// The usual size of an image before Base64.
const IMAGE_BYTES: u32 = 900;
/// So much fits into one segment of a JPEG.
const SEGMENT: usize = 0xFFFF - 2;

/// An answer before it is signed.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) code: Cow<'static, str>,
    pub(super) product_result: Option<String>,
    pub(super) body: Value,
}

impl Answer {
    /// The envelope alone.
    pub(super) fn plain(status: &str, code: Cow<'static, str>, message: &str) -> Self {
        let body = json!({"result": {"resultStatus": status, "resultCode": code, "resultMessage": message}});
        Self { code, product_result: None, body }
    }

    pub(super) fn success() -> Self {
        Self::plain("S", Cow::Borrowed("SUCCESS"), "Success")
    }
}

impl ZolozProduct {
    /// The member that holds the verdict.
    fn result_name(self) -> &'static str {
        match self {
            Self::Connect => "connectResult",
            Self::RealId => "ekycResult",
            Self::FaceCapture => "faceCaptureResult",
            Self::IdRecognition => "recognitionResult",
            Self::VideoVerify => "videoVerifyResult",
            Self::UapConnect => "verifyStatus",
        }
    }

    /// How the product writes a good and a bad verdict.
    fn verdict(self, good: bool) -> &'static str {
        match (self, good) {
            (Self::IdRecognition, true) => "Y",
            (Self::IdRecognition, false) => "N",
            (Self::UapConnect, true) => "SUCCESS",
            (Self::UapConnect, false) => "FAIL",
            (_, true) => "Success",
            (_, false) => "Failure",
        }
    }

    /// A success by the code and by the verdict.
    pub(super) fn is_good(self, answer: &Answer) -> bool {
        answer.code == "SUCCESS" && answer.product_result.as_deref() == Some(self.verdict(true))
    }

    /// The answer while the person has not finished (`begun` false) or the provider is still at work.
    pub(super) fn unfinished(self, begun: bool) -> Answer {
        let message = "It is still under processing";
        let working = if begun { "PROCESSING" } else { "INITIAL" };
        let (status, code, result) = match self {
            Self::Connect => ("F", "PROCESSING", Some("InProcess")),
            Self::FaceCapture => ("S", "PROCESSING", Some("InProcess")),
            Self::IdRecognition => ("S", "PROCESSING", None),
            Self::RealId | Self::VideoVerify => ("S", "SUCCESS", Some("InProcess")),
            Self::UapConnect => ("S", "SUCCESS", Some(working)),
        };
        let mut answer = Answer::plain(status, Cow::Borrowed(code), message);
        if let Some(result) = result {
            answer.body[self.result_name()] = result.into();
            answer.product_result = Some(result.to_owned());
        }
        answer
    }

    /// The status stays, the data are gone.
    pub(super) fn without_data(self, outcome: &ZolozOutcome) -> Answer {
        let mut answer = self.finished(outcome, false);
        if let Some(members) = answer.body.as_object_mut() {
            members.retain(|name, _| name == "result" || name == self.result_name());
        }
        answer
    }

    pub(super) fn finished(self, outcome: &ZolozOutcome, images: bool) -> Answer {
        let code = outcome.result_code.clone().unwrap_or_else(|| "SUCCESS".to_owned());
        let result = match (&outcome.product_result, &*code) {
            (Some(result), _) => Some(result.clone()).filter(|result| !result.is_empty()),
            (None, "SUCCESS") => Some(self.verdict(outcome.face_attack != Some(true)).to_owned()),
            (None, "NOT_SAME_PERSON") => Some(self.verdict(false).to_owned()),
            (None, "PROCESSING") => self.unfinished(true).product_result,
            (None, _) => None,
        };
        let status = outcome.result_status.as_deref().unwrap_or(match &*code {
            "SUCCESS" => "S",
            "PROCESSING" if matches!(self, Self::FaceCapture | Self::IdRecognition) => "S",
            "SYSTEM_ERROR" if self != Self::Connect => "U",
            _ => "F",
        });
        let message = outcome.result_message.as_deref().unwrap_or(usual_message(&code));
        let mut answer = Answer::plain(status, Cow::Owned(code), message);
        if let Some(result) = &result {
            answer.body[self.result_name()] = result.as_str().into();
        }
        let has_data = ["SUCCESS", "NOT_SAME_PERSON"].contains(&&*answer.code)
            && !result.as_deref().is_some_and(|result| ["VoidTimeout", "InProcess", "PROCESSING"].contains(&result));
        if has_data {
            let good = &*answer.code == "SUCCESS" && result.as_deref() != Some(self.verdict(false));
            self.add_data(&mut answer.body, outcome, good, images);
        }
        merge(&mut answer.body, &outcome.patch);
        answer.product_result = result;
        answer
    }

    fn add_data(self, body: &mut Value, outcome: &ZolozOutcome, good: bool, images: bool) {
        let same = body["result"]["resultCode"] != "NOT_SAME_PERSON";
        let score = outcome.face_score.unwrap_or(if same { 96.5 } else { 12.75 });
        let attack = outcome.face_attack.unwrap_or(false);
        let part = if good { "Success" } else { "Failure" };
        let size = outcome.image_bytes.unwrap_or(IMAGE_BYTES);
        match self {
            Self::Connect => {
                body["extFaceInfo"] = json!({"faceScore": score, "faceAttack": attack, "aliveImage": image(size, 1),
                    "refImage": image(size, 2)});
                add_deeper(&mut body["extFaceInfo"], outcome);
            }
            Self::RealId => {
                body["extFaceInfo"] = json!({"ekycResultFace": part, "faceScore": score, "faceQuality": 93.5,
                    "faceLivenessResult": if attack { "Failure" } else { "Success" }});
                body["extIdInfo"] = json!({"ekycResultDoc": "Success", "docErrorDetails": "", "spoofResult": {},
                    "ocrResult": document()});
                body["extRiskInfo"] = json!({"ekycResultRisk": "Success", "strategyPassResult": "Success"});
                add_deeper(&mut body["extFaceInfo"], outcome);
                if images {
                    body["extFaceInfo"]["faceImg"] = image(size, 1).into();
                    body["extIdInfo"]["frontPageImg"] = image(size, 3).into();
                }
            }
            Self::FaceCapture => {
                body["extInfo"] = json!({"faceAttack": attack, "quality": 93.5,
                    "rect": {"left": 80, "top": 60, "right": 240, "bottom": 260}, "imageContent": image(size, 1)});
                add_deeper(&mut body["extInfo"], outcome);
            }
            Self::IdRecognition => {
                body["ocrResult"] = document();
                body["spoofResult"] = json!({});
                if !good {
                    body["recognitionErrorCode"] = "BLUR".into();
                }
                if images {
                    body["imageContent"] = json!([image(size, 3)]);
                }
            }
            // Here the quality is a text.
            Self::VideoVerify => body["extInfo"] = json!({"quality": "93.5", "qualityPassed": good}),
            Self::UapConnect => {
                body["validateResult"] = json!([{"type": "FACE", "result": if good { "SUCCESS" } else { "FAIL" }}]);
            }
        }
    }
}

fn add_deeper(info: &mut Value, outcome: &ZolozOutcome) {
    let result = outcome.deeper_result.as_deref().unwrap_or("Success");
    if !result.is_empty() {
        info["deeperResult"] = result.into();
        info["deeperResultDescription"] = outcome.deeper_result_description.as_deref().unwrap_or("").into();
    }
}

fn document() -> Value {
    json!({"ID_NUMBER": "SIM0000001", "NAME": "SIMULATED PERSON", "DATE_OF_BIRTH": "1996-01-01"})
}

pub(super) fn usual_message(code: &str) -> &'static str {
    match code {
        "SUCCESS" => "Success",
        "NOT_SAME_PERSON" => "not same person",
        "PROCESSING" => "It is still under processing",
        "UNABLE_GET_IMAGE" => "unable to get the image",
        "INVALID_ARGUMENT" => "the argument is not valid",
        "SYSTEM_ERROR" => "system error",
        "REQUEST_TRAFFIC_EXCEED_LIMIT" => "the request traffic exceeds the limit",
        "PRODUCT_QUOTA_LIMIT" => "the quota is used up",
        "UNUSABLE" => "the face is not usable",
        _ => "the request was refused",
    }
}

/// As RFC 7396 merges: objects at every depth, null takes away, all else replaces.
fn merge(target: &mut Value, patch: &Map<String, Value>) {
    let Some(target) = target.as_object_mut() else { return };
    for (name, value) in patch {
        match value {
            Value::Null => {
                target.remove(name);
            }
            Value::Object(inner) if target.get(name).is_some_and(Value::is_object) => {
                merge(&mut target[name], inner);
            }
            _ => {
                target.insert(name.clone(), value.clone());
            }
        }
    }
}

/// The Base64 of a JPEG that shows nothing: markers around comments of made-up bytes.
fn image(bytes: u32, number: u8) -> String {
    let size = usize::try_from(bytes).unwrap_or(usize::MAX).max(4);
    let mut jpeg = Vec::with_capacity(size);
    jpeg.extend([0xFF, 0xD8]);
    let mut filling = (0..=u8::MAX).cycle().skip(usize::from(number));
    // A comment takes four bytes for itself and the end of the file two.
    while let Some(room) = (size - jpeg.len()).checked_sub(6).filter(|room| *room > 0) {
        let length = room.min(SEGMENT);
        let written = u16::try_from(length + 2).unwrap_or(u16::MAX);
        jpeg.extend([0xFF, 0xFE]);
        jpeg.extend(written.to_be_bytes());
        jpeg.extend(filling.by_ref().take(length));
    }
    jpeg.extend([0xFF, 0xD9]);
    STANDARD.encode(jpeg)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connect(wish: Value) -> Value {
        ZolozProduct::Connect.finished(&serde_json::from_value(wish).unwrap(), true).body
    }

    #[test]
    fn what_is_not_given_fits_the_rest() {
        for (wish, status, code, result, data) in [
            (json!({}), "S", "SUCCESS", json!("Success"), true),
            (json!({"face_attack": true}), "S", "SUCCESS", json!("Failure"), true),
            (json!({"connect_result": "Failure"}), "S", "SUCCESS", json!("Failure"), true),
            (json!({"connect_result": "VoidTimeout"}), "S", "SUCCESS", json!("VoidTimeout"), false),
            (json!({"connect_result": "InProcess"}), "S", "SUCCESS", json!("InProcess"), false),
            (json!({"connect_result": ""}), "S", "SUCCESS", Value::Null, true),
            (json!({"result_code": "NOT_SAME_PERSON"}), "F", "NOT_SAME_PERSON", json!("Failure"), true),
            (json!({"result_code": "PROCESSING"}), "F", "PROCESSING", json!("InProcess"), false),
            (json!({"result_code": "UNABLE_GET_IMAGE"}), "F", "UNABLE_GET_IMAGE", Value::Null, false),
            (json!({"result_code": "SYSTEM_ERROR"}), "F", "SYSTEM_ERROR", Value::Null, false),
            (json!({"result_code": "ODD", "result_status": "U"}), "U", "ODD", Value::Null, false),
        ] {
            let body = connect(wish.clone());
            assert_eq!(body["result"]["resultStatus"], status, "{wish}");
            assert_eq!(body["result"]["resultCode"], code, "{wish}");
            assert_eq!(body["connectResult"], result, "{wish}");
            assert_eq!(body["extFaceInfo"].is_object(), data, "{wish}");
        }
    }

    #[test]
    fn the_documented_example_of_a_rejection_is_reproduced() {
        let patch = json!({"extFaceInfo": {"aliveImage": null, "refImage": null}});
        let wish = json!({"result_code": "NOT_SAME_PERSON", "face_attack": true, "deeper_result": "", "patch": patch});
        let wanted = json!({
            "result": {"resultStatus": "F", "resultCode": "NOT_SAME_PERSON", "resultMessage": "not same person"},
            "connectResult": "Failure", "extFaceInfo": {"faceScore": 12.75, "faceAttack": true}
        });
        assert_eq!(connect(wish), wanted);
    }

    #[test]
    fn images_have_the_size_that_was_asked_for_and_show_nothing() {
        for size in [0, 5, 900, 200_000] {
            let jpeg = STANDARD.decode(image(size, 1)).unwrap();
            assert!(jpeg.starts_with(&[0xFF, 0xD8]) && jpeg.ends_with(&[0xFF, 0xD9]), "{size}");
            assert!(usize::try_from(size).unwrap().abs_diff(jpeg.len()) <= 6, "{size}: {}", jpeg.len());
        }
        assert_ne!(image(900, 1), image(900, 2));
    }

    #[test]
    fn each_product_has_its_own_members() {
        let attack = ZolozOutcome { face_attack: Some(true), ..ZolozOutcome::default() };
        for (product, name, good, bad, data) in [
            (ZolozProduct::RealId, "ekycResult", "Success", "Failure", "extIdInfo"),
            (ZolozProduct::FaceCapture, "faceCaptureResult", "Success", "Failure", "extInfo"),
            (ZolozProduct::IdRecognition, "recognitionResult", "Y", "N", "ocrResult"),
            (ZolozProduct::VideoVerify, "videoVerifyResult", "Success", "Failure", "extInfo"),
            (ZolozProduct::UapConnect, "verifyStatus", "SUCCESS", "FAIL", "validateResult"),
        ] {
            let passed = product.finished(&ZolozOutcome::default(), false).body;
            assert_eq!((&passed[name], passed[data].is_null()), (&json!(good), false), "{product:?}");
            assert_eq!(product.finished(&attack, false).body[name], bad, "{product:?}");
            let bare = product.without_data(&attack).body;
            assert_eq!((&bare[name], bare[data].is_null()), (&json!(bad), true), "{product:?}");
        }
    }
}

//! From the provider's answer to our finding, for every product.
//!
//! The result code decides before the status, and of what contradicts each other the more negative counts. Only a
//! documented success is a pass; a result that is not known here is left to a person. The provider's free texts are
//! found in the kept answer alone.

use serde_json::{Map, Value};

use crate::domain::{FinalStatus, Finding, FoundEvidence, Outcome, ProviderError};
use crate::provider::findings::{
    Findings, Reader, is_absent, is_document, is_score, snake_case, word, words, yes_or_no,
};
use crate::provider::parts::{Part, member, part};

use super::codes::{self, Class};
use super::products::Product;
use super::wire;

/// The objects of an answer that hold scores and signals, besides the answer itself.
const PARTS: [&str; 5] = ["extFaceInfo", "extIdInfo", "extRiskInfo", "extBasicInfo", "extInfo"];

/// Those of them that may speak of the live face.
const FACE_PARTS: [&str; 2] = ["extFaceInfo", "extInfo"];

/// Scores by the provider's name in snake case, and ours.
const SCORES: [(&str, &str); 3] =
    [("face_score", "face_comparison"), ("face_quality", "face_quality"), ("quality", "quality")];

/// Signals by the provider's name in snake case, ours, and the form of their value.
const SIGNALS: [(&str, &str, Reader); 14] = [
    ("face_attack", "face_attack", flag),
    ("deeper_result", "deeper", word),
    ("face_liveness_result", "face_liveness_result", word),
    ("ekyc_result_face", "ekyc_result_face", word),
    ("ekyc_result_doc", "ekyc_result_doc", word),
    ("ekyc_result_risk", "ekyc_result_risk", word),
    ("strategy_pass_result", "strategy_pass_result", word),
    ("doc_error_details", "doc_error_details", words),
    ("spoof_result", "spoof_result", word_or_words_by_name),
    ("recognition_error_code", "recognition_error_code", word),
    ("face1_image_quality_result", "face1_image_quality_result", word),
    ("face2_image_quality_result", "face2_image_quality_result", word),
    ("same_person", "same_person", flag),
    ("quality_passed", "quality_passed", flag),
];

/// Turns a verified, decrypted answer into an outcome; its images are kept if `images` is set.
pub fn interpret(product: Product, body: &[u8], images: bool) -> Result<Outcome, ProviderError> {
    let Ok(answer) = wire::read(body, images) else {
        return Err(unavailable("unreadable_answer", "its answer is empty, cut off or not JSON"));
    };
    let Part::Object(result) = part(&answer.members, "result") else {
        return Err(unavailable("result_missing", "its answer does not say how the call went"));
    };
    let mut findings = Findings::default();
    let code = findings.code("resultCode", member(&result, "resultCode"));
    let given = code.as_deref().unwrap_or_default();
    let result_status = member(&result, "resultStatus").and_then(Value::as_str).unwrap_or_default().trim();
    let is_success = result_status == "S";
    let stated = match member(&answer.members, product.result_member()) {
        // Real ID promises its members only with the status S.
        Some(_) if product == Product::RealId && !is_success => Stated::Nothing,
        value => stated(product, value),
    };
    let (status, reason) = match (codes::classify(result_status, given), &stated) {
        (Class::Verdict, _) if given.eq_ignore_ascii_case("NOT_SAME_PERSON") => {
            (FinalStatus::Failed, "The faces differ, or the provider found a high risk of fraud.")
        }
        (_, Stated::Void) => (FinalStatus::Void, "The flow timed out without an outcome."),
        (Class::Running, _) => return Ok(Outcome::Running("PROCESSING".to_owned())),
        (_, Stated::Running(value)) => return Ok(Outcome::Running((*value).to_owned())),
        (Class::Verdict, stated) => verdict(product, stated, is_success, &answer.members),
        (Class::Refused(_), _) if product == Product::FaceCapture && given == "UNUSABLE" => {
            return Err(ProviderError::Refused {
                code: codes::shown(given),
                reason: "the captured face is unusable: the person must try again".to_owned(),
            });
        }
        (class, _) => match class.error(given) {
            Some(error) => return Err(error),
            None => (FinalStatus::Review, "The provider reports success with a code that is not known here."),
        },
    };
    collect(&mut findings, product, &answer.members);
    for name in PARTS {
        match part(&answer.members, name) {
            Part::Absent => {}
            Part::Object(part) => collect(&mut findings, product, &part),
            Part::Unreadable => findings.note(format!("{name} holds no JSON object")),
        }
    }
    if let (Stated::Unknown, Some(value)) = (&stated, member(&answer.members, product.result_member())) {
        // The other values are in our status; of this one a person must know.
        findings.signal(&snake_case(product.result_member()), product.result_member(), value, word);
    }
    let finding = findings.finish(status, code, reason.to_owned(), answer.text);
    // Which products have an image of the live face is nowhere said of those that gave none.
    let asked_for_images = images && matches!(product, Product::Connect | Product::FaceCapture | Product::RealId);
    let evidence = FoundEvidence { asked_for_images, ..answer.evidence };
    Ok(Outcome::Finished(Box::new(Finding { evidence, ..finding })))
}

/// What the product's own result says.
enum Stated {
    Nothing,
    Passed,
    Failed,
    /// Final: the provider leaves it to a person.
    Pending,
    Void,
    Running(&'static str),
    Unknown,
}

fn stated(product: Product, value: Option<&Value>) -> Stated {
    let Some(value) = value.filter(|value| !is_absent(value)) else { return Stated::Nothing };
    if product == Product::FaceCompare {
        return match value {
            Value::Bool(true) => Stated::Passed,
            Value::Bool(false) => Stated::Failed,
            _ => Stated::Unknown,
        };
    }
    let Some(text) = value.as_str().map(str::trim) else { return Stated::Unknown };
    match product {
        Product::IdRecognition => match text {
            "Y" => Stated::Passed,
            "N" => Stated::Failed,
            _ => Stated::Unknown,
        },
        Product::ConnectV2 => match text {
            "SUCCESS" => Stated::Passed,
            "FAIL" => Stated::Failed,
            "EXPIRED" => Stated::Void,
            "INITIAL" => Stated::Running("INITIAL"),
            "PROCESSING" => Stated::Running("PROCESSING"),
            _ => Stated::Unknown,
        },
        _ => match text {
            "Success" => Stated::Passed,
            "Failure" => Stated::Failed,
            "Pending" if product == Product::RealId => Stated::Pending,
            "VoidTimeout" => Stated::Void,
            "InProcess" => Stated::Running("InProcess"),
            _ => Stated::Unknown,
        },
    }
}

/// The verdict of an answer with the code SUCCESS, in the order in which the more negative comes first.
fn verdict(
    product: Product,
    stated: &Stated,
    is_success: bool,
    answer: &Map<String, Value>,
) -> (FinalStatus, &'static str) {
    if face_members(answer, "faceAttack").iter().any(|value| flag(value) == Some(true.into())) {
        return (FinalStatus::Failed, "The liveness check found an attack.");
    }
    if matches!(stated, Stated::Failed) {
        return (FinalStatus::Failed, failure(product, answer));
    }
    if let Some(doubt) = doubt(product, answer) {
        return (FinalStatus::Review, doubt);
    }
    match stated {
        Stated::Passed if is_success => (FinalStatus::Passed, "Authentication passed."),
        // The form that answers had before there was a result of the product.
        Stated::Nothing if is_success && product == Product::Connect && no_attack(answer) => {
            (FinalStatus::Passed, "Authentication passed.")
        }
        Stated::Passed => {
            (FinalStatus::Review, "The provider's result and the status of its answer contradict each other.")
        }
        Stated::Pending => (FinalStatus::Review, "The provider found a risk and leaves the decision to a person."),
        Stated::Nothing => (FinalStatus::Review, "The provider's answer holds no result."),
        _ => (FinalStatus::Review, "The provider's result is not known here; a person must decide."),
    }
}

/// Why a person must look although nothing says that the check failed.
fn doubt(product: Product, answer: &Map<String, Value>) -> Option<&'static str> {
    if FACE_PARTS.iter().any(|name| matches!(part(answer, name), Part::Unreadable)) {
        return Some("The provider's answer on the face cannot be read.");
    }
    if face_members(answer, "faceAttack").iter().any(|value| flag(value).is_none()) {
        return Some("The provider's answer on attacks cannot be read.");
    }
    if face_members(answer, "deeperResult").iter().any(|value| value.as_str().map(str::trim) != Some("Success")) {
        return Some("The check for deepfakes did not succeed; a person must decide.");
    }
    let is_poor = |name| member(answer, name).and_then(Value::as_str).map(str::trim) == Some("FAIL");
    if product == Product::FaceCompare && (is_poor("face1ImageQualityResult") || is_poor("face2ImageQualityResult")) {
        return Some("The provider compared faces although a picture is poor.");
    }
    None
}

/// Why the check failed, in our words.
fn failure(product: Product, answer: &Map<String, Value>) -> &'static str {
    match product {
        Product::Connect | Product::FaceCapture => "The provider found a high risk and advises rejection.",
        Product::RealId => "The provider rejects the identity.",
        Product::FaceCompare => "The faces differ, or a picture is poor.",
        Product::Nfc => "The chip of the document could not be verified.",
        Product::VideoVerify => "The video could not be verified.",
        Product::ConnectV2 => "Authentication failed.",
        Product::IdRecognition => match member(answer, "recognitionErrorCode").and_then(Value::as_str).map(str::trim) {
            Some("NO_REQUIRED_ID") => "No document of the required kind was found.",
            Some("BLUR") => "The picture of the document is blurred.",
            Some("NO_FACE_DETECTED") => "No face was found on the document.",
            Some("NOT_REAL_DOC") => "The document is not a real one.",
            _ => "The document was not recognised.",
        },
    }
}

/// What the answer says about the live face under that name; it stands in another part from product to product.
fn face_members(answer: &Map<String, Value>, name: &str) -> Vec<Value> {
    let found = |place: &&str| match part(answer, place) {
        Part::Object(part) => member(&part, name).filter(|value| !is_absent(value)).cloned(),
        Part::Absent | Part::Unreadable => None,
    };
    FACE_PARTS.iter().filter_map(found).collect()
}

fn no_attack(answer: &Map<String, Value>) -> bool {
    let Part::Object(face) = part(answer, "extFaceInfo") else { return false };
    member(&face, "faceAttack").and_then(flag) == Some(false.into())
}

/// Takes what is known out of one object.
fn collect(findings: &mut Findings, product: Product, members: &Map<String, Value>) {
    for (name, value) in members {
        if is_document(name) {
            continue;
        }
        let snake = snake_case(name);
        if let Some((_, ours, read)) = SIGNALS.iter().find(|(theirs, _, _)| *theirs == snake) {
            findings.signal(ours, name, value, *read);
        } else if let Some((_, ours)) = SCORES.iter().find(|(theirs, _)| *theirs == snake) {
            findings.score(ours, name, value);
        } else if product == Product::FaceCompare && snake == "score" {
            findings.score("face_comparison", name, value);
        } else if is_score(name) {
            findings.score(&snake, name, value);
        }
    }
}

fn flag(value: &Value) -> Option<Value> {
    match value.as_str().map(str::trim) {
        Some("true") => Some(true.into()),
        Some("false") => Some(false.into()),
        _ => yes_or_no(value),
    }
}

/// One word, or an object of words, such as one for each check of a document.
fn word_or_words_by_name(value: &Value) -> Option<Value> {
    match value {
        Value::Object(checks) => {
            let are_words = checks.iter().all(|(name, value)| {
                word(&Value::from(name.as_str())).is_some() && (value.is_null() || word(value).is_some())
            });
            (are_words && checks.len() <= 16).then(|| value.clone())
        }
        Value::String(text) if text.trim_start().starts_with('{') => {
            word_or_words_by_name(&serde_json::from_str::<Map<String, Value>>(text).ok()?.into())
        }
        _ => word(value),
    }
}

fn unavailable(code: &str, reason: &str) -> ProviderError {
    ProviderError::Unavailable { code: code.to_owned(), reason: reason.to_owned() }
}

#[cfg(test)]
#[path = "outcome_tests.rs"]
mod tests;

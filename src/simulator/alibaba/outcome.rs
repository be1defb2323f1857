//! What CheckResult says about a finished check: the members of `Result`, written once when the outcome is chosen, so
//! that an answer only joins prepared pieces.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

const FACE: &[u8] = include_bytes!("images/face.jpg");
const REFERENCE: &[u8] = include_bytes!("images/reference.jpg");
const ID_FRONT: &[u8] = include_bytes!("images/id_front.jpg");
const ID_BACK: &[u8] = include_bytes!("images/id_back.jpg");

/// Which parts a product's result has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Product {
    Face,
    Document,
    FaceAndDocument,
}

impl Product {
    pub(super) fn of(product_code: &str) -> Self {
        if product_code.starts_with("eKYC") {
            Self::FaceAndDocument
        } else if product_code.starts_with("ID_") {
            Self::Document
        } else {
            Self::Face
        }
    }
}

/// The documented values of `procedurePriority`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Priority {
    Keep,
    Url,
}

/// An outcome as it was asked for.
#[derive(Clone, Copy)]
pub(super) struct Wish<'a> {
    pub(super) passed: Option<&'a str>,
    pub(super) sub_code: Option<&'a str>,
    pub(super) scores: &'a Map<String, Value>,
    pub(super) ext: &'a Map<String, Value>,
}

impl<'a> Wish<'a> {
    /// True when nothing was asked for.
    pub(super) fn is_open(&self) -> bool {
        self.passed.is_none() && self.sub_code.is_none() && self.scores.is_empty() && self.ext.is_empty()
    }

    fn passed(&self) -> &'a str {
        match (self.passed, self.sub_code) {
            (Some(passed), _) => passed,
            (None, None | Some("200")) => "Y",
            (None, Some(_)) => "N",
        }
    }

    fn sub_code(&self) -> Option<&'a str> {
        self.sub_code.or(match self.passed() {
            "Y" => Some("200"),
            "N" => Some("204"),
            _ => None,
        })
    }
}

/// A written `Result` and where the link of the video goes into it.
struct Written {
    text: String,
    video_at: Option<usize>,
}

pub(super) struct Outcome {
    /// As callbacks repeat it.
    pub(super) passed: Box<str>,
    pub(super) sub_code: Option<Box<str>>,
    plain: Written,
    with_images: Written,
}

impl Outcome {
    fn new(wish: &Wish<'_>, product: Product, priority: Option<Priority>) -> Self {
        let (passed, sub_code) = (wish.passed(), wish.sub_code());
        Self {
            passed: passed.into(),
            sub_code: sub_code.map(Into::into),
            plain: write_result(wish, product, priority, false),
            with_images: write_result(wish, product, priority, true),
        }
    }

    /// Only `Passed` and `SubCode`: what is left when the texts were deleted.
    pub(super) fn bare(&self) -> Self {
        let empty = Map::new();
        let without = json!({"ExtFaceInfo": null, "ExtIdInfo": null});
        let ext = without.as_object().unwrap_or(&empty);
        let wish = Wish { passed: Some(&self.passed), sub_code: self.sub_code.as_deref(), scores: &empty, ext };
        Self::new(&wish, Product::Face, None)
    }

    /// Appends `"Result":{…}`.
    pub(super) fn write(&self, out: &mut String, images: bool, video_url: Option<&str>) {
        let Written { text, video_at } = if images { &self.with_images } else { &self.plain };
        let (Some(url), Some(at)) = (video_url, *video_at) else {
            out.push_str(text);
            return;
        };
        let (before, after) = text.split_at(at);
        out.push_str(before);
        out.push_str(if before.ends_with('{') { r#"\"docVideoUrl\":\""# } else { r#",\"docVideoUrl\":\""# });
        // Escaped twice already: the link is made of characters that JSON leaves alone.
        out.push_str(url);
        out.push_str(r#"\""#);
        out.push_str(after);
    }
}

fn write_result(wish: &Wish<'_>, product: Product, priority: Option<Priority>, images: bool) -> Written {
    let (passed, sub_code) = (wish.passed(), wish.sub_code());
    let mut members: Vec<(&str, Value)> = vec![("Passed", passed.into())];
    members.extend(sub_code.map(|sub_code| ("SubCode", sub_code.into())));
    // A pending check has nothing to show yet.
    if passed != "P" {
        if product != Product::Document {
            members.push(("ExtFaceInfo", face_info(wish, sub_code, images).to_string().into()));
        }
        if product != Product::Face {
            members.push(("ExtIdInfo", id_info(passed, images).to_string().into()));
        }
    }
    if let Some(priority) = priority {
        let value = if priority == Priority::Keep { "keep" } else { "url" };
        members.push(("ExtInfo", json!({"procedurePriority": value}).to_string().into()));
    }
    members.retain(|(name, _)| !wish.ext.contains_key(*name));
    members.extend(wish.ext.iter().filter(|(_, value)| !value.is_null()).map(|(name, v)| (name.as_str(), v.clone())));

    let mut written = Written { text: String::from("\"Result\":{"), video_at: None };
    for (index, (name, value)) in members.iter().enumerate() {
        if index > 0 {
            written.text.push(',');
        }
        written.text.push_str(&Value::from(*name).to_string());
        written.text.push(':');
        written.text.push_str(&value.to_string());
        if *name == "ExtFaceInfo" && !wish.ext.contains_key(*name) {
            // Before the last two characters, which close the inner object and the text that holds it.
            written.video_at = Some(written.text.len() - 2);
        }
    }
    written.text.push('}');
    written
}

fn face_info(wish: &Wish<'_>, sub_code: Option<&str>, images: bool) -> Value {
    let mut face = json!({
        "facePassed": if wish.passed() == "Y" { "Y" } else { "N" },
        "faceComparisonScore": 99.99,
        "faceAttack": "N",
        "faceAttackScore": 1.2,
        "faceQuality": 95.45,
        "faceOcclusion": "N",
        "guardRiskScore": 3.0,
        "faceAge": "30",
        "faceGender": "M",
    });
    match sub_code {
        Some("204") => face["faceComparisonScore"] = json!(41.27),
        Some("205") => {
            face["faceAttack"] = json!("Y");
            face["faceAttackScore"] = json!(98.6);
        }
        // The face itself is in order: the device is refused, or the person is known already.
        Some("206") => {
            face["facePassed"] = json!("Y");
            face["guardRiskScore"] = json!(97.5);
        }
        Some("233") => {
            face["facePassed"] = json!("Y");
            let known = json!([{"faceGroupCode": "simulated", "faceId": "face-1", "merchantUserId": "user-1"}]);
            face["duplicateFace"] = known.to_string().into();
        }
        _ => {}
    }
    if images {
        face["faceImg"] = STANDARD.encode(FACE).into();
        face["aliveImage"] = STANDARD.encode(FACE).into();
        face["refImage"] = STANDARD.encode(REFERENCE).into();
    }
    let mut members = match face {
        Value::Object(members) => members,
        _ => Map::new(),
    };
    for (name, value) in wish.scores {
        if value.is_null() {
            members.remove(name);
        } else {
            members.insert(name.clone(), value.clone());
        }
    }
    members.into()
}

fn id_info(passed: &str, images: bool) -> Value {
    let mut id = json!({
        "ocrIdInfo": {"idNumber": "SIM0000001", "name": "SIMULATED PERSON", "birthDate": "1996-01-01", "countryCode": "SIM"},
        "ocrIdEditInfo": {"name": "SIMULATED PERSON"},
        "ocrIdPassed": if passed == "Y" { "Y" } else { "N" },
        "idFaceQualityScore": 88.5,
        "spoofInfo": {"spoofResult": "N", "spoofType": []},
    });
    if images {
        id["idImage"] = STANDARD.encode(ID_FRONT).into();
        id["idBackImage"] = STANDARD.encode(ID_BACK).into();
    }
    id
}

type Usual = (Box<str>, Option<Box<str>>, Product, Option<Priority>);

/// Outcomes without special wishes are written once and shared.
#[derive(Default)]
pub(super) struct Outcomes(Mutex<HashMap<Usual, Arc<Outcome>>>);

/// So many different outcomes are shared; codes beyond that come from a caller that makes them up.
const MOST_SHARED: usize = 1000;

impl Outcomes {
    pub(super) fn choose(&self, wish: &Wish<'_>, product: Product, priority: Option<Priority>) -> Arc<Outcome> {
        if !wish.scores.is_empty() || !wish.ext.is_empty() {
            return Arc::new(Outcome::new(wish, product, priority));
        }
        let key = (wish.passed().into(), wish.sub_code().map(Into::into), product, priority);
        let mut shared = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(outcome) = shared.get(&key) {
            return Arc::clone(outcome);
        }
        let outcome = Arc::new(Outcome::new(wish, product, priority));
        if shared.len() < MOST_SHARED {
            shared.insert(key, Arc::clone(&outcome));
        }
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(wish: &Value, product: Product, images: bool, video: Option<&str>) -> Value {
        let empty = Map::new();
        let wish = Wish {
            passed: wish["passed"].as_str(),
            sub_code: wish["sub_code"].as_str(),
            scores: wish["scores"].as_object().unwrap_or(&empty),
            ext: wish["ext"].as_object().unwrap_or(&empty),
        };
        let mut text = String::from("{");
        Outcome::new(&wish, product, None).write(&mut text, images, video);
        text.push('}');
        serde_json::from_str::<Value>(&text).unwrap()["Result"].clone()
    }

    fn inner(result: &Value, name: &str) -> Value {
        serde_json::from_str(result[name].as_str().unwrap()).unwrap()
    }

    #[test]
    fn scores_fit_the_sub_code() {
        for (wish, passed, sub_code, member, value) in [
            (json!({}), "Y", "200", "faceComparisonScore", json!(99.99)),
            (json!({"passed": "N"}), "N", "204", "faceComparisonScore", json!(41.27)),
            (json!({"sub_code": "205"}), "N", "205", "faceAttack", json!("Y")),
            (json!({"sub_code": "206"}), "N", "206", "guardRiskScore", json!(97.5)),
            (json!({"passed": "Y", "sub_code": "204"}), "Y", "204", "facePassed", json!("Y")),
        ] {
            let result = result(&wish, Product::Face, false, None);
            assert_eq!((result["Passed"].as_str(), result["SubCode"].as_str()), (Some(passed), Some(sub_code)));
            assert_eq!(inner(&result, "ExtFaceInfo")[member], value, "{wish}");
        }
        let known = result(&json!({"sub_code": "233"}), Product::Face, false, None);
        assert!(inner(&known, "ExtFaceInfo")["duplicateFace"].as_str().unwrap().contains("faceId"));
    }

    #[test]
    fn a_pending_result_shows_nothing_else() {
        assert_eq!(result(&json!({"passed": "P"}), Product::Face, true, None), json!({"Passed": "P"}));
    }

    #[test]
    fn the_video_link_goes_into_the_face_info() {
        let url = "http://127.0.0.1:9090/_sim/videos/a.webm?Expires=1&Signature=ab";
        let usual = result(&json!({}), Product::Face, false, Some(url));
        assert_eq!(inner(&usual, "ExtFaceInfo")["docVideoUrl"], url);
        assert_eq!(inner(&usual, "ExtFaceInfo")["facePassed"], "Y");
        let own = result(&json!({"ext": {"ExtFaceInfo": ""}}), Product::Face, false, Some(url));
        assert_eq!(own["ExtFaceInfo"], "");
        let names = [
            "facePassed",
            "faceComparisonScore",
            "faceAttack",
            "faceAttackScore",
            "faceQuality",
            "faceOcclusion",
            "guardRiskScore",
            "faceAge",
            "faceGender",
        ];
        let scores: Map<_, _> = names.iter().map(|name| ((*name).to_owned(), Value::Null)).collect();
        let alone = result(&json!({"scores": scores}), Product::Face, false, Some(url));
        assert_eq!(inner(&alone, "ExtFaceInfo"), json!({"docVideoUrl": url}));
    }

    #[test]
    fn images_come_only_when_asked_for_and_are_jpeg() {
        let without = result(&json!({}), Product::FaceAndDocument, false, None);
        assert!(inner(&without, "ExtFaceInfo").get("faceImg").is_none());
        assert!(inner(&without, "ExtIdInfo").get("idImage").is_none());
        let with = result(&json!({}), Product::FaceAndDocument, true, None);
        for (info, name) in [("ExtFaceInfo", "faceImg"), ("ExtIdInfo", "idImage"), ("ExtIdInfo", "idBackImage")] {
            let image = STANDARD.decode(inner(&with, info)[name].as_str().unwrap()).unwrap();
            assert!(image.starts_with(&[0xFF, 0xD8]) && image.ends_with(&[0xFF, 0xD9]), "{name}");
        }
    }

    #[test]
    fn wishes_replace_add_and_take_away() {
        let wish = json!({"scores": {"faceAge": null, "faceQuality": "12.5"},
            "ext": {"ExtRiskInfo": {"a": 1}, "SubCode": null, "Passed": "maybe"}});
        let result = result(&wish, Product::Face, false, None);
        assert_eq!(result["Passed"], "maybe");
        assert_eq!(result["ExtRiskInfo"], json!({"a": 1}));
        assert!(result.get("SubCode").is_none());
        let face = inner(&result, "ExtFaceInfo");
        assert_eq!((face.get("faceAge"), &face["faceQuality"]), (None, &json!("12.5")));
    }

    #[test]
    fn usual_outcomes_are_shared() {
        let (outcomes, empty) = (Outcomes::default(), Map::new());
        let wish = Wish { passed: None, sub_code: None, scores: &empty, ext: &empty };
        let first = outcomes.choose(&wish, Product::Face, None);
        assert!(Arc::ptr_eq(&first, &outcomes.choose(&wish, Product::Face, None)));
        assert!(!Arc::ptr_eq(&first, &outcomes.choose(&wish, Product::Document, None)));
    }
}

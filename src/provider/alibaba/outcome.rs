//! From the provider's result to our finding: verdict, scores and signals.
//!
//! `Passed` alone decides, and only `Y` and `N` are verdicts; nothing in an Ext part can change one. What may become a
//! score or a signal at all is the rule of `findings.rs`; here are its lists. Every product answers with the same parts,
//! of which any may be missing. What is odd is noted by name, never by value.

use serde_json::{Map, Value};

use crate::domain::{FinalStatus, Finding, Outcome, ProviderError};
use crate::provider::findings::{
    Findings, Reader, is_document, is_score, number, short_text, snake_case, word, words, yes_or_no,
};
use crate::provider::parts::{Part, member, part};

use super::wire::{PARTS, Reading};

/// The members of `ExtSourceInfo` are named after what was matched (`govId`, `dob`). A match is at most 1, or 100 in
/// percent; a larger number is the matched thing itself, which is document data.
const HIGHEST_MATCH: f64 = 100.0;

const MOST_FACES: usize = 16;

/// Scores whose name here is not the provider's in snake case.
pub(super) const SCORES: [(&str, &str); 4] = [
    ("face_comparison_score", "face_comparison"),
    ("face_quality", "face_quality"),
    ("face_attack_score", "face_attack"),
    ("guard_risk_score", "guard_risk"),
];

/// Signals by the provider's name in snake case, ours, and the form of their value.
pub(super) const SIGNALS: [(&str, &str, Reader); 10] = [
    ("face_passed", "face_passed", yes_or_no),
    ("face_attack", "face_attack", yes_or_no),
    ("face_occlusion", "face_occlusion", yes_or_no),
    ("face_age", "age", age),
    ("face_gender", "gender", gender),
    ("face_registration_result", "face_registered", registered),
    ("face_registration_id", "face_registration_id", short_text),
    ("duplicate_face", "duplicate_face", known_faces),
    ("ocr_id_passed", "ocr_id_passed", yes_or_no),
    ("procedure_priority", "procedure_priority", word),
];

/// Turns a successful answer into an outcome. An answer without a verdict is an error, never a success.
pub fn interpret(reading: Reading) -> Result<Outcome, ProviderError> {
    let Some(result) = &reading.result else {
        return Err(unavailable("result_missing", "it reports success without a result"));
    };
    let status = match verdict(member(result, "Passed")) {
        Verdict::Final(status) => status,
        Verdict::Pending => return Ok(Outcome::Running("P".to_owned())),
        Verdict::Missing => return Err(unavailable("result_missing", "its result does not say whether it passed")),
        Verdict::Unknown => return Err(unavailable("passed_unknown", "its result is neither passed nor failed")),
    };
    let mut findings = Findings::default();
    let sub_code = findings.code("SubCode", member(result, "SubCode"));
    for name in PARTS {
        match part(result, name) {
            Part::Absent => {}
            Part::Object(part) => collect(&mut findings, &part, name),
            Part::Unreadable if name == "EkycResult" && member(result, name).and_then(ekyc_result).is_some() => {
                findings.signal("ekyc_result", name, member(result, name).unwrap_or(&Value::Null), ekyc_result);
            }
            Part::Unreadable => findings.note(format!("{name} holds no JSON object")),
        }
    }
    let reason = reason(&mut findings, status, sub_code.as_deref());
    let finding = findings.finish(status, sub_code, reason, reading.text);
    Ok(Outcome::Finished(Box::new(Finding { evidence: reading.evidence, ..finding })))
}

fn unavailable(code: &str, reason: &str) -> ProviderError {
    ProviderError::Unavailable { code: code.to_owned(), reason: reason.to_owned() }
}

enum Verdict {
    Final(FinalStatus),
    Pending,
    Missing,
    Unknown,
}

fn verdict(passed: Option<&Value>) -> Verdict {
    match passed {
        None | Some(Value::Null) => Verdict::Missing,
        Some(Value::String(text)) => match text.trim() {
            "Y" | "y" => Verdict::Final(FinalStatus::Passed),
            "N" | "n" => Verdict::Final(FinalStatus::Failed),
            "P" | "p" => Verdict::Pending,
            "" => Verdict::Missing,
            _ => Verdict::Unknown,
        },
        Some(_) => Verdict::Unknown,
    }
}

/// Why a verdict is what it is, for the server-side sub-codes that every product has.
fn meaning(sub_code: &str) -> Option<(FinalStatus, &'static str)> {
    Some(match sub_code {
        "200" => (FinalStatus::Passed, "Authentication passed."),
        "204" => (FinalStatus::Failed, "The faces differ, or the live photo is poor."),
        "205" => (FinalStatus::Failed, "The liveness check found a risk."),
        "206" => {
            (FinalStatus::Failed, "A business policy decided so, or the device or its environment failed the check.")
        }
        "233" => (FinalStatus::Failed, "A similar face is already known."),
        _ => return None,
    })
}

fn reason(findings: &mut Findings, status: FinalStatus, sub_code: Option<&str>) -> String {
    let verdict = if status == FinalStatus::Passed { "passed" } else { "failed" };
    let Some(sub_code) = sub_code else { return format!("Authentication {verdict}.") };
    match meaning(sub_code) {
        Some((usual, words)) if usual == status => words.to_owned(),
        Some(_) => {
            findings.note("Passed and SubCode contradict each other; Passed decides".to_owned());
            format!("Authentication {verdict}, although the provider gave sub-code {sub_code}.")
        }
        None => format!("The provider gave sub-code {sub_code}."),
    }
}

/// Takes what is known out of one Ext part.
fn collect(findings: &mut Findings, part: &Map<String, Value>, part_name: &str) {
    for (name, value) in part {
        let snake = snake_case(name);
        if let Some((_, ours, read)) = SIGNALS.iter().find(|(theirs, _, _)| *theirs == snake) {
            findings.signal(ours, name, value, *read);
        } else if name.eq_ignore_ascii_case("spoofInfo") {
            spoof(findings, part, name);
        } else if is_score(name) || snake == "face_quality" {
            score(findings, &snake, name, value);
        } else if part_name == "ExtSourceInfo" && !is_document(name) {
            likeness(findings, &snake, name, value);
        }
    }
}

/// How well the person's data match the data source.
fn likeness(findings: &mut Findings, snake: &str, name: &str, value: &Value) {
    if number(value).is_some_and(|number| number.abs() > HIGHEST_MATCH) {
        return findings.note(format!("{name} is too large for a score and was left out"));
    }
    score(findings, snake, name, value);
}

fn score(findings: &mut Findings, snake: &str, name: &str, value: &Value) {
    let ours = SCORES.iter().find(|(theirs, _)| *theirs == snake).map_or(snake, |(_, ours)| ours);
    findings.score(ours, name, value);
}

/// The anti-spoofing result of a document: `spoof_result` (true: suspicious) and `spoof_type`.
fn spoof(findings: &mut Findings, within: &Map<String, Value>, name: &str) {
    match part(within, name) {
        Part::Absent => {}
        Part::Unreadable => findings.note("spoofInfo holds no JSON object".to_owned()),
        Part::Object(spoof) => {
            for (theirs, ours, read) in
                [("spoofResult", "spoof_result", yes_or_no as Reader), ("spoofType", "spoof_type", words)]
            {
                if let Some(value) = member(&spoof, theirs) {
                    findings.signal(ours, theirs, value, read);
                }
            }
            for (name, value) in spoof.iter().filter(|(name, _)| is_score(name)) {
                score(findings, &snake_case(name), name, value);
            }
        }
    }
}

fn age(value: &Value) -> Option<Value> {
    let years = number(value)?.round();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range was checked just before")]
    (0.0..=150.0).contains(&years).then(|| Value::from(years as u8))
}

fn gender(value: &Value) -> Option<Value> {
    match value.as_str()?.trim() {
        "M" | "m" => Some("M".into()),
        "F" | "f" => Some("F".into()),
        _ => None,
    }
}

/// `1` is registered; every other text or number is not.
fn registered(value: &Value) -> Option<Value> {
    match value {
        Value::String(text) => Some((text.trim() == "1").into()),
        Value::Number(number) => Some((number.as_u64() == Some(1)).into()),
        _ => None,
    }
}

/// The id of a known face, or the list that sister operations give, parsed if it came as text. Of a list only the
/// documented members are taken.
fn known_faces(value: &Value) -> Option<Value> {
    let listed = |face: &Value| match face {
        Value::Object(members) => ["faceGroupCode", "faceId", "merchantUserId"]
            .into_iter()
            .filter_map(|name| Some((name.to_owned(), members.get(name)?)))
            .map(|(name, value)| Some((name, short_text(value)?)))
            .collect::<Option<Map<_, _>>>()
            .map(Value::Object),
        other => short_text(other),
    };
    match value {
        Value::Array(faces) if faces.len() <= MOST_FACES => {
            faces.iter().map(listed).collect::<Option<_>>().map(Value::Array)
        }
        Value::Object(_) => listed(value),
        Value::String(text) if text.trim_start().starts_with(['[', '{']) => {
            let parsed: Value = serde_json::from_str(text).ok()?;
            known_faces(&parsed)
        }
        other => short_text(other),
    }
}

/// The result of a product when it is plain text; what else it may hold is open.
fn ekyc_result(value: &Value) -> Option<Value> {
    let text = value.as_str()?.trim();
    ["Y", "N", "P", "Success", "Failure", "Pending"].contains(&text).then(|| text.into())
}

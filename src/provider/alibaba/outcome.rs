//! From the provider's result to our finding: verdict, scores and signals.
//!
//! `Passed` alone decides, and only `Y` and `N` are verdicts; nothing in an Ext part can change one. What is odd is
//! noted by name, never by value.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use serde_json::{Map, Value};

use crate::domain::{FinalStatus, Finding, Outcome, ProviderError};

use super::wire::{self, PARTS, Part, Reading};

/// More scores or signals than any product gives; the rest is left out.
const MOST_SCORES: usize = 64;
const LONGEST_NAME: usize = 64;
const LONGEST_SUB_CODE: usize = 64;
/// For texts among the signals.
const LONGEST_TEXT: usize = 1024;
const MOST_NOTES: usize = 16;

/// The members of `ExtSourceInfo` are named after what was matched (`govId`, `dob`). A match is at most 1, or 100 in
/// percent; a larger number is the matched thing itself, which is document data.
const HIGHEST_MATCH: f64 = 100.0;

/// Scores whose name here is not the provider's in snake case.
const SCORES: [(&str, &str); 4] = [
    ("face_comparison_score", "face_comparison"),
    ("face_quality", "face_quality"),
    ("face_attack_score", "face_attack"),
    ("guard_risk_score", "guard_risk"),
];

/// Turns a successful answer into an outcome. An answer without a verdict is an error, never a success.
pub fn interpret(reading: Reading) -> Result<Outcome, ProviderError> {
    let Some(result) = &reading.result else {
        return Err(unavailable("result_missing", "it reports success without a result"));
    };
    let status = match verdict(wire::member(result, "Passed")) {
        Verdict::Final(status) => status,
        Verdict::Pending => return Ok(Outcome::Running("P".to_owned())),
        Verdict::Missing => return Err(unavailable("result_missing", "its result does not say whether it passed")),
        Verdict::Unknown => return Err(unavailable("passed_unknown", "its result is neither passed nor failed")),
    };
    let mut findings = Findings::default();
    let sub_code = findings.sub_code(wire::member(result, "SubCode"));
    for name in PARTS {
        match wire::part(result, name) {
            Part::Absent => {}
            Part::Object(part) => findings.collect(&part, name),
            Part::Unreadable => findings.note(format!("{name} holds no JSON object")),
        }
    }
    let reason = findings.reason(status, sub_code.as_deref());
    Ok(Outcome::Finished(Box::new(Finding {
        status,
        reason,
        sub_code,
        scores: findings.scores,
        signals: findings.signals,
        answer: reading.text,
        notes: findings.notes,
    })))
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
fn words(sub_code: &str) -> Option<(FinalStatus, &'static str)> {
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

#[derive(Default)]
struct Findings {
    scores: BTreeMap<String, f64>,
    signals: Map<String, Value>,
    notes: Vec<String>,
}

impl Findings {
    fn note(&mut self, note: String) {
        if self.notes.len() < MOST_NOTES {
            self.notes.push(note);
        }
    }

    fn sub_code(&mut self, value: Option<&Value>) -> Option<String> {
        let text = match value {
            None | Some(Value::Null) => return None,
            Some(Value::String(text)) => text.trim().to_owned(),
            Some(Value::Number(number)) => number.to_string(),
            Some(_) => String::from('\0'),
        };
        if text.is_empty() {
            return None;
        }
        if text.chars().count() > LONGEST_SUB_CODE || text.chars().any(char::is_control) {
            self.note("SubCode is no short text".to_owned());
            return None;
        }
        Some(text)
    }

    fn reason(&mut self, status: FinalStatus, sub_code: Option<&str>) -> String {
        let verdict = if status == FinalStatus::Passed { "passed" } else { "failed" };
        let Some(sub_code) = sub_code else { return format!("Authentication {verdict}.") };
        match words(sub_code) {
            Some((usual, words)) if usual == status => words.to_owned(),
            Some(_) => {
                self.note("Passed and SubCode contradict each other; Passed decides".to_owned());
                format!("Authentication {verdict}, although the provider gave sub-code {sub_code}.")
            }
            None => format!("The provider gave sub-code {sub_code}."),
        }
    }

    /// Takes what is known out of one Ext part.
    fn collect(&mut self, part: &Map<String, Value>, part_name: &str) {
        for (name, value) in part {
            // What a document says is evidence, not a score or a signal, whatever its members are called.
            if name.get(..3).is_some_and(|head| head.eq_ignore_ascii_case("ocr")) {
                continue;
            }
            if name.eq_ignore_ascii_case("spoofInfo") {
                self.spoof(part, name);
            } else if !self.signal(name, value) && is_score(name, part_name) {
                self.score(name, value);
            }
        }
    }

    fn score(&mut self, name: &str, value: &Value) {
        if is_absent(value) {
            return;
        }
        if name.len() > LONGEST_NAME || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            return self.note("a score has an unusable name".to_owned());
        }
        let Some(number) = number(value) else {
            return self.note(format!("{name} is no finite number and was left out"));
        };
        if !has_score_name(name) && number.abs() > HIGHEST_MATCH {
            return self.note(format!("{name} is too large for a score and was left out"));
        }
        let snake = snake_case(name);
        let ours = SCORES.iter().find(|(theirs, _)| *theirs == snake).map_or(snake, |(_, ours)| (*ours).to_owned());
        if self.scores.len() >= MOST_SCORES {
            return;
        }
        if let Entry::Vacant(place) = self.scores.entry(ours) {
            place.insert(number);
        }
    }

    /// Whether the name is a signal's; an unusable value is noted and left out.
    fn signal(&mut self, name: &str, value: &Value) -> bool {
        let (ours, read): (&str, fn(&Value) -> Option<Value>) = match &*snake_case(name) {
            "face_passed" => ("face_passed", yes_or_no),
            "face_attack" => ("face_attack", yes_or_no),
            "face_occlusion" => ("face_occlusion", yes_or_no),
            "face_age" => ("age", age),
            "face_gender" => ("gender", gender),
            "face_registration_result" => ("face_registered", registered),
            "face_registration_id" => ("face_registration_id", short_text),
            "duplicate_face" => ("duplicate_face", text_or_json),
            "procedure_priority" => ("procedure_priority", short_text),
            _ => return false,
        };
        self.put(ours, name, value, read);
        true
    }

    /// The anti-spoofing result of a document: `spoof_result` (true: suspicious) and `spoof_type`.
    fn spoof(&mut self, part: &Map<String, Value>, name: &str) {
        match wire::part(part, name) {
            Part::Absent => {}
            Part::Unreadable => self.note("spoofInfo holds no JSON object".to_owned()),
            Part::Object(spoof) => {
                for (theirs, ours, read) in [
                    ("spoofResult", "spoof_result", yes_or_no as fn(&Value) -> Option<Value>),
                    ("spoofType", "spoof_type", kinds),
                ] {
                    if let Some(value) = wire::member(&spoof, theirs) {
                        self.put(ours, theirs, value, read);
                    }
                }
                for (name, value) in spoof.iter().filter(|(name, _)| is_score(name, "spoofInfo")) {
                    self.score(name, value);
                }
            }
        }
    }

    fn put(&mut self, ours: &str, theirs: &str, value: &Value, read: fn(&Value) -> Option<Value>) {
        if is_absent(value) || self.signals.contains_key(ours) {
            return;
        }
        match read(value) {
            Some(value) => {
                self.signals.insert(ours.to_owned(), value);
            }
            None => self.note(format!("{theirs} has an unexpected value and was left out")),
        }
    }
}

fn is_absent(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.trim().is_empty(),
        _ => false,
    }
}

fn is_score(name: &str, part_name: &str) -> bool {
    part_name == "ExtSourceInfo" || has_score_name(name)
}

fn has_score_name(name: &str) -> bool {
    name.ends_with("Score")
        || name.ends_with("_score")
        || name.eq_ignore_ascii_case("faceQuality")
        || name == "face_quality"
}

fn number(value: &Value) -> Option<f64> {
    let number = match value {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) => text.trim().parse().ok()?,
        _ => return None,
    };
    number.is_finite().then_some(number)
}

fn yes_or_no(value: &Value) -> Option<Value> {
    match value {
        Value::Bool(_) => Some(value.clone()),
        Value::String(text) => match text.trim() {
            "Y" | "y" => Some(true.into()),
            "N" | "n" => Some(false.into()),
            _ => None,
        },
        _ => None,
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

fn short_text(value: &Value) -> Option<Value> {
    let text = match value {
        Value::String(text) => text.trim().to_owned(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    is_short(&text).then(|| text.into())
}

fn is_short(text: &str) -> bool {
    text.len() <= LONGEST_TEXT && !text.chars().any(char::is_control)
}

/// A name of a known face, or the list that sister operations give, parsed if it came as text.
fn text_or_json(value: &Value) -> Option<Value> {
    match value {
        Value::Array(_) | Value::Object(_) => (value.to_string().len() <= LONGEST_TEXT).then(|| value.clone()),
        Value::String(text) if text.trim_start().starts_with(['[', '{']) && text.len() <= LONGEST_TEXT => {
            serde_json::from_str(text).ok().or_else(|| short_text(value))
        }
        other => short_text(other),
    }
}

/// `SCREEN_REMARK`, a list of such words, or that list as JSON text.
fn kinds(value: &Value) -> Option<Value> {
    let is_word = |text: &str| {
        text.len() <= LONGEST_NAME && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    let words: Vec<Value> = match text_or_json(value)? {
        Value::String(text) => text.split(',').map(|word| word.trim().into()).collect(),
        Value::Array(words) => words,
        _ => return None,
    };
    words.iter().all(|word| word.as_str().is_some_and(is_word)).then_some(Value::Array(words))
}

/// `faceComparisonScore` → `face_comparison_score`, `faceRegistrationID` → `face_registration_id`.
fn snake_case(name: &str) -> String {
    let mut snake = String::with_capacity(name.len() + 4);
    let mut after_lower = false;
    for character in name.chars() {
        if character.is_ascii_uppercase() && after_lower {
            snake.push('_');
        }
        after_lower = character.is_ascii_lowercase() || character.is_ascii_digit();
        snake.push(character.to_ascii_lowercase());
    }
    snake
}

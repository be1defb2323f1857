//! Scores, signals and notes, collected out of an answer by either adapter.
//!
//! Scores and signals are seen by everyone who may read verifications, document data only by those who may read
//! evidence. So the rule, for every product: **a number becomes a score only if its name is documented or ends in
//! `Score`; any other value becomes a signal only if its name is on the adapter's list, and only in the form that the
//! list gives it; and what stands below a name that begins with `ocr` is never looked at**. Everything else is found
//! in the kept answer alone. Notes name members, never their values.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use serde_json::{Map, Value};

use crate::domain::{FinalStatus, Finding, FoundEvidence};

/// More scores or signals than any product gives; the rest is left out.
const MOST_SCORES: usize = 64;
const LONGEST_NAME: usize = 64;
const LONGEST_CODE: usize = 64;
/// For texts among the signals.
const LONGEST_TEXT: usize = 1024;
const MOST_NOTES: usize = 16;
const MOST_WORDS: usize = 32;

/// How the value of a signal is read; `None` if it has another form.
pub type Reader = fn(&Value) -> Option<Value>;

#[derive(Default)]
pub struct Findings {
    scores: BTreeMap<String, f64>,
    signals: Map<String, Value>,
    notes: Vec<String>,
}

impl Findings {
    pub fn note(&mut self, note: String) {
        if self.notes.len() < MOST_NOTES {
            self.notes.push(note);
        }
    }

    /// Takes the number over as `ours`, unless a member read before has that name.
    pub fn score(&mut self, ours: &str, theirs: &str, value: &Value) {
        if is_absent(value) {
            return;
        }
        if !is_name(theirs) {
            return self.note("a score has an unusable name".to_owned());
        }
        let Some(number) = number(value) else {
            return self.note(format!("{theirs} is no finite number and was left out"));
        };
        if self.scores.len() >= MOST_SCORES {
            return;
        }
        if let Entry::Vacant(place) = self.scores.entry(ours.to_owned()) {
            place.insert(number);
        }
    }

    /// Takes the value over as `ours`, unless a member read before has that name.
    pub fn signal(&mut self, ours: &str, theirs: &str, value: &Value, read: Reader) {
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

    /// A code of the provider, kept as text.
    pub fn code(&mut self, theirs: &str, value: Option<&Value>) -> Option<String> {
        let text = match value {
            None | Some(Value::Null) => return None,
            Some(Value::String(text)) => text.trim().to_owned(),
            Some(Value::Number(number)) => number.to_string(),
            Some(_) => String::from('\0'),
        };
        if text.is_empty() {
            return None;
        }
        if text.chars().count() > LONGEST_CODE || text.chars().any(char::is_control) {
            self.note(format!("{theirs} is no short text"));
            return None;
        }
        Some(text)
    }

    /// The finding with everything collected, and no evidence yet; `answer` is the answer without images.
    pub fn finish(self, status: FinalStatus, sub_code: Option<String>, reason: String, answer: String) -> Finding {
        let Self { scores, signals, notes } = self;
        Finding { status, sub_code, reason, scores, signals, answer, notes, evidence: FoundEvidence::default() }
    }
}

/// What a document says is evidence, whatever the members below are called.
pub fn is_document(name: &str) -> bool {
    name.get(..3).is_some_and(|head| head.eq_ignore_ascii_case("ocr"))
}

/// A number under such a name is a score, documented or not.
pub fn is_score(name: &str) -> bool {
    !is_document(name) && (name.ends_with("Score") || name.ends_with("_score"))
}

pub fn is_absent(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.trim().is_empty(),
        _ => false,
    }
}

fn is_name(text: &str) -> bool {
    (1..=LONGEST_NAME).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

pub fn number(value: &Value) -> Option<f64> {
    let number = match value {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) => text.trim().parse().ok()?,
        _ => return None,
    };
    number.is_finite().then_some(number)
}

pub fn yes_or_no(value: &Value) -> Option<Value> {
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

pub fn short_text(value: &Value) -> Option<Value> {
    let text = match value {
        Value::String(text) => text.trim().to_owned(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    let is_short = text.len() <= LONGEST_TEXT && !text.chars().any(char::is_control);
    is_short.then(|| text.into())
}

/// One word of the provider's, such as `NOT_REAL_DOC`, or a flag.
pub fn word(value: &Value) -> Option<Value> {
    match value {
        Value::Bool(_) => Some(value.clone()),
        Value::String(text) => is_word(text.trim()).then(|| text.trim().into()),
        _ => None,
    }
}

/// Never a number, which might be a document's.
fn is_word(text: &str) -> bool {
    is_name(text) && text.starts_with(|first: char| first.is_ascii_alphabetic())
}

/// Such a word, several divided by commas, a list of them, or that list as JSON text; always as a list.
pub fn words(value: &Value) -> Option<Value> {
    let words: Vec<Value> = match value {
        Value::Array(words) => words.clone(),
        Value::String(text) if text.trim_start().starts_with('[') => serde_json::from_str(text).ok()?,
        Value::String(text) => text.split(',').map(|word| word.trim().into()).collect(),
        _ => return None,
    };
    let are_words = words.len() <= MOST_WORDS && words.iter().all(|word| word.as_str().is_some_and(is_word));
    are_words.then_some(Value::Array(words))
}

/// `faceComparisonScore` → `face_comparison_score`, `faceRegistrationID` → `face_registration_id`.
pub fn snake_case(name: &str) -> String {
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

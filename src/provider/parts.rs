//! Members of an answer in every form that providers give them: names in another case, and objects that are JSON in a
//! string, or in a string within a string.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::images::OMITTED;

/// How often JSON may be wrapped in a string.
const MOST_WRAPS: usize = 4;

/// The member of that name; the name in another case counts if it is not there.
pub fn member<'a>(object: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    object
        .get(name)
        .or_else(|| object.iter().find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value))
}

pub fn take(object: &mut Map<String, Value>, name: &str) -> Option<Value> {
    if let Some(value) = object.get_mut(name) {
        return Some(value.take());
    }
    object.iter_mut().find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value.take())
}

/// An object, or the object in a string, or in a string within a string.
pub fn unwrapped(value: Value) -> Option<Map<String, Value>> {
    match value {
        Value::Object(object) => Some(object),
        Value::String(text) => unwrapped_text(&text),
        _ => None,
    }
}

fn unwrapped_text(text: &str) -> Option<Map<String, Value>> {
    let mut value: Value = serde_json::from_str(text).ok()?;
    for _ in 1..MOST_WRAPS {
        match value {
            Value::Object(object) => return Some(object),
            Value::String(text) => value = serde_json::from_str(&text).ok()?,
            _ => return None,
        }
    }
    None
}

/// What a member that should be an object holds.
pub enum Part<'a> {
    Absent,
    Object(Cow<'a, Map<String, Value>>),
    /// There is something, but no object in any of the forms seen.
    Unreadable,
}

/// Reads a part or a nested member in any of its forms: object, JSON in a string, JSON in a string twice, empty.
pub fn part<'a>(object: &'a Map<String, Value>, name: &str) -> Part<'a> {
    match member(object, name) {
        None | Some(Value::Null) => Part::Absent,
        // Taken out while the answer was read, because nobody could say what it holds.
        Some(Value::Object(object)) if object.contains_key(OMITTED) => Part::Unreadable,
        Some(Value::Object(object)) => Part::Object(Cow::Borrowed(object)),
        Some(Value::String(text)) if text.trim().is_empty() => Part::Absent,
        Some(Value::String(text)) => {
            unwrapped_text(text).map_or(Part::Unreadable, |object| Part::Object(Cow::Owned(object)))
        }
        Some(_) => Part::Unreadable,
    }
}

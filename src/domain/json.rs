//! JSON of the merchant, kept as it was written: what may be stored, and when two texts mean the same.
//!
//! Numbers are handled in all their digits, which a parser that makes floats of them would lose.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

/// Deeper values are refused: most readers of JSON give up at 128.
const DEEPEST: usize = 100;

type Members<'a> = BTreeMap<String, &'a RawValue>;

/// The value taken apart by one level; numbers and words stay text.
#[derive(PartialEq)]
enum Value<'a> {
    Object(Vec<(String, &'a str)>),
    Array(Vec<&'a str>),
    Text(String),
    Word(&'a str),
}

fn take_apart(json: &str) -> serde_json::Result<Value<'_>> {
    let json = json.trim_ascii();
    Ok(match json.as_bytes().first() {
        Some(b'{') => {
            let members: Members<'_> = serde_json::from_str(json)?;
            Value::Object(members.into_iter().map(|(name, value)| (name, value.get())).collect())
        }
        Some(b'[') => {
            let items: Vec<&RawValue> = serde_json::from_str(json)?;
            Value::Array(items.into_iter().map(RawValue::get).collect())
        }
        Some(b'"') => Value::Text(serde_json::from_str(json)?),
        _ => Value::Word(json),
    })
}

/// Why an object of the merchant cannot be stored, if it cannot.
pub fn check_object(json: &RawValue) -> Result<(), &'static str> {
    if !json.get().trim_ascii().starts_with('{') {
        return Err("must be an object");
    }
    check(json.get(), 0)
}

fn check(json: &str, depth: usize) -> Result<(), &'static str> {
    if depth > DEEPEST {
        return Err("must not be nested more than 100 deep");
    }
    let text = |text: &str| if text.contains('\0') { Err("must not hold NUL characters") } else { Ok(()) };
    // What is JSON and cannot be read holds half of a surrogate pair.
    match take_apart(json).map_err(|_| "must hold whole Unicode characters only")? {
        Value::Object(members) => members.into_iter().try_for_each(|(name, value)| {
            text(&name)?;
            check(value, depth + 1)
        }),
        Value::Array(items) => items.into_iter().try_for_each(|item| check(item, depth + 1)),
        Value::Text(given) => text(&given),
        Value::Word(_) => Ok(()),
    }
}

/// Whether two texts are the same JSON value: blanks, escapes, the order of members and the spelling of numbers aside.
pub fn is_same(one: &str, other: &str) -> bool {
    let (Ok(one), Ok(other)) = (take_apart(one), take_apart(other)) else { return false };
    match (one, other) {
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len()
                && one.iter().zip(&other).all(|(one, other)| one.0 == other.0 && is_same(one.1, other.1))
        }
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(&other).all(|(one, other)| is_same(one, other))
        }
        (Value::Word(one), Value::Word(other)) => one == other || is_same_number(one, other),
        (one, other) => one == other,
    }
}

fn is_same_number(one: &str, other: &str) -> bool {
    matches!((Number::read(one), Number::read(other)), (Some(one), Some(other)) if one == other)
}

/// `0.digits × 10^exponent`; no zero at either end of the digits, so that equal numbers look equal.
#[derive(PartialEq)]
struct Number {
    negative: bool,
    digits: String,
    exponent: i64,
}

impl Number {
    /// `None` for a word, and for an exponent that no machine can hold.
    fn read(json: &str) -> Option<Self> {
        let (negative, json) = json.strip_prefix('-').map_or((false, json), |rest| (true, rest));
        if !json.starts_with(|first: char| first.is_ascii_digit()) {
            return None;
        }
        let (mantissa, exponent) = json.split_once(['e', 'E']).unwrap_or((json, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all = format!("{whole}{fraction}");
        let digits = all.trim_start_matches('0');
        let leading = i64::try_from(all.len() - digits.len()).ok()?;
        let digits = digits.trim_end_matches('0');
        if digits.is_empty() {
            return Some(Self { negative: false, digits: String::new(), exponent: 0 });
        }
        let exponent = exponent.parse::<i64>().ok()?;
        let exponent = exponent.checked_add(i64::try_from(whole.len()).ok()?)?.checked_sub(leading)?;
        Some(Self { negative, digits: digits.to_owned(), exponent })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn checked(json: &str) -> Result<(), &'static str> {
        check_object(&RawValue::from_string(json.to_owned()).unwrap())
    }

    #[test]
    fn spelling_makes_no_difference_and_every_digit_does() {
        for (one, other) in [
            (r#"{"a":1,"b":[true,null]}"#, r#" { "b" : [ true , null ] , "a" : 1.0 } "#),
            (r#""\u0041\n""#, "\"A\\u000a\""),
            ("100", "1e2"),
            ("0.10", "1E-1"),
            ("-0", "0.000e17"),
            ("1e400", "10.0e+399"),
            ("12345678901234567890123", "12345678901234567890123.000"),
            ("1e99999999999999999999", "1e99999999999999999999"),
        ] {
            assert!(is_same(one, other), "{one} and {other}");
        }
        for (one, other) in [
            ("12345678901234567890123", "12345678901234567890124"),
            ("1", "-1"),
            ("1", "10"),
            ("1", "\"1\""),
            ("null", "false"),
            ("{}", "[]"),
            (r#"{"a":1}"#, r#"{"a":1,"b":null}"#),
            (r#"{"a":1}"#, r#"{"b":1}"#),
            ("[1,2]", "[2,1]"),
            ("[1]", "[1,1]"),
            ("1e99999999999999999999", "1e99999999999999999998"),
        ] {
            assert!(!is_same(one, other), "{one} and {other}");
        }
    }

    #[test]
    fn what_cannot_be_given_back_is_refused() {
        for good in [r#"{"a":1e999,"b":"\\u0000","c":[{}]}"#, "{}"] {
            assert_eq!(checked(good), Ok(()), "{good}");
        }
        for bad in [r#"{"a":"\u0000"}"#, r#"{"\u0000":1}"#, r#"{"a":[["\ud800"]]}"#, "[]", "1", "null"] {
            assert!(checked(bad).is_err(), "{bad}");
        }
        let nested = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(checked(&nested(DEEPEST)), Ok(()));
        assert!(checked(&nested(DEEPEST + 1)).is_err());
    }

    proptest! {
        #[test]
        fn a_value_is_the_same_as_itself_however_it_is_laid_out(
            texts in proptest::collection::vec(".*", 0..4),
            whole in any::<i64>(),
            fraction in -1e9..1e9_f64,
        ) {
            let value = serde_json::json!({ "texts": texts, "deep": { "n": [whole, fraction, null] } });
            let pretty = serde_json::to_string_pretty(&value).unwrap();
            prop_assert!(is_same(&pretty, &value.to_string()));
            let other = serde_json::json!({ "texts": texts, "deep": { "n": [whole, fraction, true] } });
            prop_assert!(!is_same(&pretty, &other.to_string()));
        }
    }
}

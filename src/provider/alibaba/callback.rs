//! What an incoming callback says. It is a hint that there may be a result, never the result.
//!
//! Query and body are read as one: names without regard to case, a name repeated with another value refused.
//! Whether the transaction is known and the token right is for others to judge. A usual callback, a GET whose
//! values need no unescaping, costs no more than the texts that are kept.

use std::borrow::Cow;
use std::fmt;

use percent_encoding::percent_decode_str;
use secrecy::SecretString;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// In characters. The provider promises no form, so this and control characters are all that is checked.
const LONGEST_ID: usize = 128;
/// In characters; a hint that is longer is dropped.
const LONGEST_HINT: usize = 64;
/// In bytes; room for the 512 characters that a registration may ask for.
const LONGEST_TOKEN: usize = 2048;

/// The parsed callback.
#[derive(Debug)]
pub struct Notice {
    pub transaction_id: String,
    /// Hints, as the caller wrote them.
    pub passed: Option<String>,
    pub sub_code: Option<String>,
    pub callback_token: Option<SecretString>,
}

/// The body of a POST with its `Content-Type`.
#[derive(Clone, Copy)]
pub struct Body<'a> {
    pub content_type: Option<&'a str>,
    pub bytes: &'a [u8],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MalformedCallback {
    #[error("transactionId is missing or empty")]
    TransactionIdMissing,
    #[error("transactionId is longer than {LONGEST_ID} characters")]
    TransactionIdTooLong,
    #[error("transactionId holds control characters")]
    TransactionIdUnusable,
    #[error("callbackToken is longer than {LONGEST_TOKEN} bytes")]
    TokenTooLong,
    #[error("a parameter is not percent-encoded UTF-8")]
    BadEncoding,
    #[error("{0} is given twice with different values")]
    Repeated(&'static str),
    #[error("the body is not a JSON object")]
    JsonMalformed,
    #[error("{0} is no text")]
    NotText(&'static str),
    /// To be answered with 415.
    #[error("the body is neither a form nor JSON")]
    UnsupportedBody,
}

impl Notice {
    /// Reads a callback from the raw query and the body, if there is one. An empty body counts as none.
    pub fn parse(query: Option<&str>, body: Option<Body<'_>>) -> Result<Self, MalformedCallback> {
        let mut slots = Slots::default();
        if let Some(query) = query {
            slots.read_form(query)?;
        }
        if let Some(body) = body.filter(|body| !body.bytes.is_empty()) {
            slots.read_body(body)?;
        }
        slots.into_notice()
    }
}

#[derive(Clone, Copy)]
enum Name {
    TransactionId,
    Passed,
    SubCode,
    CallbackToken,
}

impl Name {
    const ALL: [(&'static str, Self); 4] = [
        ("transactionId", Self::TransactionId),
        ("passed", Self::Passed),
        ("subCode", Self::SubCode),
        ("callbackToken", Self::CallbackToken),
    ];

    fn find(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, found)| found)
    }

    fn as_str(self) -> &'static str {
        Self::ALL[self as usize].0
    }
}

#[derive(Default)]
struct Slots<'a>([Option<Cow<'a, str>>; 4]);

impl<'a> Slots<'a> {
    fn put(&mut self, name: Name, value: Cow<'a, str>) -> Result<(), MalformedCallback> {
        let slot = &mut self.0[name as usize];
        match slot {
            Some(first) if *first != value => Err(MalformedCallback::Repeated(name.as_str())),
            _ => {
                *slot = Some(value);
                Ok(())
            }
        }
    }

    fn take(&mut self, name: Name) -> Option<Cow<'a, str>> {
        self.0[name as usize].take().filter(|value| !value.is_empty())
    }

    fn read_body(&mut self, body: Body<'a>) -> Result<(), MalformedCallback> {
        let kind = body.content_type.unwrap_or_default();
        let kind = kind.split_once(';').map_or(kind, |(kind, _)| kind).trim();
        if kind.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            let form = std::str::from_utf8(body.bytes).map_err(|_| MalformedCallback::BadEncoding)?;
            self.read_form(form)
        } else if kind.eq_ignore_ascii_case("application/json") {
            self.read_json(body.bytes)
        } else {
            Err(MalformedCallback::UnsupportedBody)
        }
    }

    fn read_form(&mut self, form: &'a str) -> Result<(), MalformedCallback> {
        for pair in form.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            if let Some(name) = Name::find(&unescaped(name)?) {
                self.put(name, unescaped(value)?)?;
            }
        }
        Ok(())
    }

    fn read_json(&mut self, body: &'a [u8]) -> Result<(), MalformedCallback> {
        let mut parser = serde_json::Deserializer::from_slice(body);
        let known = parser.deserialize_map(Known).map_err(|_| MalformedCallback::JsonMalformed)?;
        parser.end().map_err(|_| MalformedCallback::JsonMalformed)?;
        for (name, value) in known {
            if !value.get().starts_with('"') {
                return Err(MalformedCallback::NotText(name.as_str()));
            }
            let Text(value) = serde_json::from_str(value.get()).map_err(|_| MalformedCallback::JsonMalformed)?;
            self.put(name, value)?;
        }
        Ok(())
    }

    fn into_notice(mut self) -> Result<Notice, MalformedCallback> {
        let id = self.take(Name::TransactionId).ok_or(MalformedCallback::TransactionIdMissing)?;
        if is_longer(&id, LONGEST_ID) {
            return Err(MalformedCallback::TransactionIdTooLong);
        }
        if id.chars().any(char::is_control) {
            return Err(MalformedCallback::TransactionIdUnusable);
        }
        if id.trim().is_empty() {
            return Err(MalformedCallback::TransactionIdMissing);
        }
        let token = self.take(Name::CallbackToken);
        if token.as_ref().is_some_and(|token| token.len() > LONGEST_TOKEN) {
            return Err(MalformedCallback::TokenTooLong);
        }
        Ok(Notice {
            transaction_id: id.into_owned(),
            passed: self.take(Name::Passed).and_then(hint),
            sub_code: self.take(Name::SubCode).and_then(hint),
            callback_token: token.map(|token| SecretString::from(token.into_owned())),
        })
    }
}

fn hint(text: Cow<'_, str>) -> Option<String> {
    let usable = !is_longer(&text, LONGEST_HINT) && !text.chars().any(char::is_control);
    usable.then(|| text.into_owned())
}

fn is_longer(text: &str, characters: usize) -> bool {
    // A character has at least one byte, so short texts need no counting.
    text.len() > characters && text.chars().count() > characters
}

/// A form's text: `+` is a blank, `%XX` a byte. Half an escape is refused rather than guessed at.
fn unescaped(text: &str) -> Result<Cow<'_, str>, MalformedCallback> {
    let bytes = text.as_bytes();
    if !bytes.iter().any(|byte| matches!(byte, b'%' | b'+')) {
        return Ok(Cow::Borrowed(text));
    }
    let whole = bytes
        .iter()
        .enumerate()
        .filter(|(_, byte)| **byte == b'%')
        .all(|(at, _)| bytes.get(at + 1..at + 3).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)));
    if !whole {
        return Err(MalformedCallback::BadEncoding);
    }
    let blanks: Cow<'_, str> = if text.contains('+') { text.replace('+', " ").into() } else { text.into() };
    let decoded = percent_decode_str(&blanks).decode_utf8().map_err(|_| MalformedCallback::BadEncoding)?;
    Ok(Cow::Owned(decoded.into_owned()))
}

#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// Collects the known members in order, repeated ones too.
struct Known;

impl<'de> Visitor<'de> for Known {
    type Value = Vec<(Name, &'de RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut known = Vec::new();
        while let Some(Text(name)) = map.next_key()? {
            let value = map.next_value()?;
            known.extend(Name::find(&name).map(|name| (name, value)));
        }
        Ok(known)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use secrecy::ExposeSecret;

    use super::*;

    fn get(query: &str) -> Result<Notice, MalformedCallback> {
        Notice::parse(Some(query), None)
    }

    fn post(query: Option<&str>, content_type: &str, body: &[u8]) -> Result<Notice, MalformedCallback> {
        Notice::parse(query, Some(Body { content_type: Some(content_type), bytes: body }))
    }

    const FORM: &str = "application/x-www-form-urlencoded; charset=utf-8";
    const JSON: &str = "Application/JSON";

    fn assert_sample(notice: &Notice) {
        assert_eq!(notice.transaction_id, "shaxxxx");
        assert_eq!(notice.passed.as_deref(), Some("Y"));
        assert_eq!(notice.sub_code.as_deref(), Some("200"));
        assert_eq!(notice.callback_token.as_ref().unwrap().expose_secret(), "1000004826");
    }

    #[test]
    fn names_match_without_regard_to_case_and_unknown_ones_are_ignored() {
        for query in [
            "callbackToken=1000004826&transactionId=shaxxxx&passed=Y&subCode=200",
            "CallbackToken=1000004826&TransactionID=shaxxxx&PASSED=Y&subcode=200&more=1&&x",
            "%63allbackToken=1000004826&transactionId=sha%78xxx&passed=Y&subCode=%32%30%30&more=%zz",
        ] {
            assert_sample(&get(query).unwrap());
        }
    }

    #[test]
    fn form_and_json_bodies_are_merged_with_the_query() {
        assert_sample(
            &post(Some("transactionId=shaxxxx&passed=Y"), FORM, b"callbackToken=1000004826&subCode=200&passed=Y")
                .unwrap(),
        );
        let json = br#" {"transactionid":"sha\u0078xxx","passed":"Y","subcode":"200","n":{"a":[1,null]},"callbackToken":"1000004826"} "#;
        assert_sample(&post(Some("subCode=200"), JSON, json).unwrap());
        assert_sample(&post(None, JSON, json).unwrap());
        let query = "callbackToken=1000004826&transactionId=shaxxxx&passed=Y&subCode=200";
        assert_sample(&Notice::parse(Some(query), Some(Body { content_type: None, bytes: b"" })).unwrap());
    }

    #[test]
    fn values_are_unescaped_once() {
        let notice = get("transactionId=a%2Bb+c%2526&callbackToken=%E5%BC%A0%3D%3D").unwrap();
        assert_eq!(notice.transaction_id, "a+b c%26");
        assert_eq!(notice.callback_token.unwrap().expose_secret(), "张==");
    }

    #[test]
    fn a_name_repeated_with_another_value_is_refused_and_with_the_same_is_not() {
        for query in
            ["transactionId=a&transactionId=b", "transactionId=a&TRANSACTIONID=b", "transactionId=a&transactionId="]
        {
            assert_eq!(get(query).unwrap_err(), MalformedCallback::Repeated("transactionId"), "{query}");
        }
        assert_eq!(get("transactionId=a&passed=Y&passed=N").unwrap_err(), MalformedCallback::Repeated("passed"));
        assert_eq!(get("transactionId=a&transactionId=%61").unwrap().transaction_id, "a");
        assert_eq!(
            post(Some("transactionId=a"), FORM, b"transactionId=b").unwrap_err(),
            MalformedCallback::Repeated("transactionId")
        );
        assert_eq!(
            post(None, JSON, br#"{"transactionId":"a","callbackToken":"x","CallbackToken":"y"}"#).unwrap_err(),
            MalformedCallback::Repeated("callbackToken")
        );
        assert_eq!(
            post(Some("transactionId=a"), JSON, br#"{"transactionId":"b"}"#).unwrap_err(),
            MalformedCallback::Repeated("transactionId")
        );
    }

    #[test]
    fn an_unusable_transaction_id_is_refused() {
        for (query, error) in [
            ("", MalformedCallback::TransactionIdMissing),
            ("passed=Y", MalformedCallback::TransactionIdMissing),
            ("transactionId", MalformedCallback::TransactionIdMissing),
            ("transactionId=", MalformedCallback::TransactionIdMissing),
            ("transactionId=%20+", MalformedCallback::TransactionIdMissing),
            ("transactionId=a%00", MalformedCallback::TransactionIdUnusable),
            ("transactionId=a%0Ab", MalformedCallback::TransactionIdUnusable),
            ("transactionId=%C2%85", MalformedCallback::TransactionIdUnusable),
            ("transactionId=%ff", MalformedCallback::BadEncoding),
            ("transactionId=%zz", MalformedCallback::BadEncoding),
            ("transactionId=a%4", MalformedCallback::BadEncoding),
            ("transactionId=a%", MalformedCallback::BadEncoding),
            ("transactionId=a&%zz=b", MalformedCallback::BadEncoding),
            ("transactionId=a&passed=%c3%28", MalformedCallback::BadEncoding),
        ] {
            assert_eq!(get(query).unwrap_err(), error, "{query}");
        }
        assert_eq!(Notice::parse(None, None).unwrap_err(), MalformedCallback::TransactionIdMissing);
    }

    #[test]
    fn the_length_of_a_transaction_id_counts_characters() {
        let id = "张".repeat(128);
        assert_eq!(get(&format!("transactionId={id}")).unwrap().transaction_id, id);
        assert_eq!(get(&format!("transactionId={id}x")).unwrap_err(), MalformedCallback::TransactionIdTooLong);
    }

    #[test]
    fn hints_that_are_no_short_text_are_dropped_and_a_long_token_is_refused() {
        let long = "9".repeat(65);
        let notice = get(&format!("transactionId=a&passed=%00&subCode={long}&callbackToken=")).unwrap();
        assert!(notice.passed.is_none() && notice.sub_code.is_none() && notice.callback_token.is_none());
        let token = "t".repeat(2048);
        assert!(get(&format!("transactionId=a&callbackToken={token}")).unwrap().callback_token.is_some());
        assert_eq!(
            get(&format!("transactionId=a&callbackToken={token}t")).unwrap_err(),
            MalformedCallback::TokenTooLong
        );
    }

    #[test]
    fn a_body_that_is_neither_form_nor_json_is_refused_as_unsupported() {
        for kind in ["text/plain", "multipart/form-data; boundary=x", "", "application/jsonx"] {
            assert_eq!(
                post(Some("transactionId=a"), kind, b"x").unwrap_err(),
                MalformedCallback::UnsupportedBody,
                "{kind}"
            );
        }
        let untyped = Some(Body { content_type: None, bytes: b"transactionId=a" });
        assert_eq!(Notice::parse(None, untyped).unwrap_err(), MalformedCallback::UnsupportedBody);
    }

    #[test]
    fn a_json_value_that_is_no_text_is_refused() {
        for value in ["1", "null", "true", "[]", "{}", r#"["a"]"#] {
            let body = format!(r#"{{"transactionId":"a","passed":{value}}}"#);
            assert_eq!(post(None, JSON, body.as_bytes()).unwrap_err(), MalformedCallback::NotText("passed"), "{value}");
        }
    }

    #[test]
    fn a_body_that_is_no_json_object_is_refused() {
        let deep = "[".repeat(100_000);
        for body in ["[]", "\"a\"", "1", "null", "{", "{} {}", r#"{"transactionId":"\ud800"}"#, "{\"a\":\u{1}}", &deep]
        {
            assert_eq!(
                post(Some("transactionId=a"), JSON, body.as_bytes()).unwrap_err(),
                MalformedCallback::JsonMalformed
            );
        }
        assert_eq!(post(None, JSON, b"{\"transactionId\":\"\xff\"}").unwrap_err(), MalformedCallback::JsonMalformed);
        assert_eq!(post(None, FORM, b"transactionId=\xff").unwrap_err(), MalformedCallback::BadEncoding);
    }

    #[test]
    fn debug_output_shows_no_token() {
        let shown = format!("{:?}", get("transactionId=a&callbackToken=CANARY").unwrap());
        assert!(!shown.contains("CANARY"), "{shown}");
        let shown = format!("{:?}", get("transactionId=a&callbackToken=CANARY&callbackToken=CANARY2").unwrap_err());
        assert!(!shown.contains("CANARY"), "{shown}");
    }

    proptest! {
        #[test]
        fn no_input_panics_and_what_is_accepted_is_sane(
            query in "(transactionId=|passed=|subCode|callbackToken=|&|=|%[0-9a-g]{0,2}|[+a-zA-Z0-9]|\\PC){0,24}",
            kind in prop_oneof![Just(FORM), Just(JSON), Just("text/plain")],
            body in proptest::collection::vec(any::<u8>(), 0..64),
            with_body in any::<bool>(),
        ) {
            let body = with_body.then_some(Body { content_type: Some(kind), bytes: &body });
            if let Ok(notice) = Notice::parse(Some(&query), body) {
                prop_assert!((1..=LONGEST_ID).contains(&notice.transaction_id.chars().count()));
                prop_assert!(!notice.transaction_id.chars().any(char::is_control));
            }
        }

        #[test]
        fn every_text_comes_through_escaping(id in "[^\\p{Cc}]{1,40}", token in ".{1,40}") {
            prop_assume!(!id.trim().is_empty());
            let query = form_of(&[("callbackToken", &token), ("transactionId", &id)]);
            let notice = get(&query).unwrap();
            prop_assert_eq!(&notice.transaction_id, &id);
            let given = notice.callback_token.unwrap();
            prop_assert_eq!(given.expose_secret(), &token);
            let json = serde_json::json!({"transactionId": id, "callbackToken": token}).to_string();
            prop_assert_eq!(post(Some(&query), JSON, json.as_bytes()).unwrap().transaction_id, id);
        }
    }

    fn form_of(pairs: &[(&str, &str)]) -> String {
        let pair = |(name, value): &(&str, &str)| {
            format!("{name}={}", percent_encoding::utf8_percent_encode(value, percent_encoding::NON_ALPHANUMERIC))
        };
        pairs.iter().map(pair).collect::<Vec<_>>().join("&")
    }
}

//! The temporary key in an answer of the metadata service, a URI or the token service.
//!
//! What is wrong with an answer is said without quoting it: it may hold the key.

use chrono::{DateTime, NaiveDateTime, TimeDelta, Utc};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::Value;

use super::super::super::http::HttpAnswer;
use super::super::codes;
use super::Credentials;
use super::chain::{Fetched, Lasts, Miss};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Key {
    code: Option<String>,
    access_key_id: Option<String>,
    access_key_secret: Option<SecretString>,
    security_token: Option<SecretString>,
    expiration: Option<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Wrapped {
    credentials: Key,
}

/// The metadata service and a URI: the key itself, with `Code` = `Success`.
pub(super) fn plain(whom: &str, answer: &HttpAnswer, now: DateTime<Utc>) -> Result<Fetched, Miss> {
    succeeded(whom, answer)?;
    let key: Key = read(whom, answer)?;
    match key.code.as_deref() {
        Some("Success") => key.fetched(whom, answer, now),
        Some(code) => Err(Miss::failed(format!("{whom} answered with the code {}", shown(code)))),
        None => Err(Miss::failed(format!("the answer of {whom} has no Code"))),
    }
}

/// The token service: the key is in `Credentials`.
pub(super) fn wrapped(whom: &str, answer: &HttpAnswer, now: DateTime<Utc>) -> Result<Fetched, Miss> {
    succeeded(whom, answer)?;
    read::<Wrapped>(whom, answer)?.credentials.fetched(whom, answer, now)
}

/// Any answer but 200 is a failure; its code is named where there is one.
pub(super) fn succeeded(whom: &str, answer: &HttpAnswer) -> Result<(), Miss> {
    if answer.status == http::StatusCode::OK {
        return Ok(());
    }
    let status = answer.status.as_u16();
    let code = serde_json::from_slice::<Value>(&answer.body).ok();
    let code = code.as_ref().and_then(|body| body.get("Code")?.as_str()).map(|code| format!(" {}", shown(code)));
    Err(Miss::failed(format!("{whom} answered {status}{}", code.unwrap_or_default())))
}

impl Key {
    fn fetched(self, whom: &str, answer: &HttpAnswer, now: DateTime<Utc>) -> Result<Fetched, Miss> {
        let missing = |part| Miss::failed(format!("the answer of {whom} has no {part}"));
        let secret = |text: &SecretString| !text.expose_secret().is_empty();
        let id = self.access_key_id.filter(|id| !id.is_empty()).ok_or_else(|| missing("AccessKeyId"))?;
        let key = self.access_key_secret.filter(secret).ok_or_else(|| missing("AccessKeySecret"))?;
        let token = self.security_token.filter(secret).ok_or_else(|| missing("SecurityToken"))?;
        let ends = self.expiration.ok_or_else(|| missing("Expiration"))?;
        let ends =
            time(&ends).ok_or_else(|| Miss::failed(format!("the Expiration in the answer of {whom} is no time")))?;
        // By the clock of whoever wrote it: ours may be wrong, or moved for a rehearsal.
        let theirs = answer.header("date").and_then(|date| DateTime::parse_from_rfc2822(date).ok());
        let left = ends - theirs.map_or(now, |theirs| theirs.with_timezone(&Utc));
        if left <= TimeDelta::zero() {
            return Err(Miss::failed(format!("the key from {whom} is over since {} s", -left.num_seconds())));
        }
        let ends = now.checked_add_signed(left).unwrap_or(DateTime::<Utc>::MAX_UTC);
        let credentials = Credentials::new(id, key, Some(token)).map_err(|error| Miss::failed(error.to_string()))?;
        Ok(Fetched { credentials, lasts: Lasts::Until(ends) })
    }
}

fn read<T: serde::de::DeserializeOwned>(whom: &str, answer: &HttpAnswer) -> Result<T, Miss> {
    // The parser's own words quote what it found.
    serde_json::from_slice(&answer.body)
        .map_err(|_| Miss::failed(format!("the answer of {whom} is no JSON with a key")))
}

/// A code as it may be logged.
fn shown(code: &str) -> &str {
    if codes::is_usable(code) { code } else { "(unreadable)" }
}

/// RFC 3339; also without zone (then UTC), with a zone without colon, or as seconds or milliseconds since 1970.
fn time(value: &Value) -> Option<DateTime<Utc>> {
    let number = |number: i64| {
        if number.abs() < 100_000_000_000 {
            DateTime::from_timestamp(number, 0)
        } else {
            DateTime::from_timestamp_millis(number)
        }
    };
    match value {
        Value::Number(seconds) => number(seconds.as_i64()?),
        Value::String(text) => {
            let text = text.trim();
            DateTime::parse_from_rfc3339(text)
                .or_else(|_| DateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f%z"))
                .map(|time| time.with_timezone(&Utc))
                .ok()
                .or_else(|| {
                    let plain = ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f"];
                    plain
                        .iter()
                        .find_map(|form| NaiveDateTime::parse_from_str(text, form).ok())
                        .map(|time| time.and_utc())
                })
                .or_else(|| number(text.parse().ok()?))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answer(status: u16, date: Option<&str>, body: &str) -> HttpAnswer {
        let mut headers = http::HeaderMap::new();
        headers.extend(date.map(|date| (http::header::DATE, date.parse().unwrap())));
        HttpAnswer::new(http::StatusCode::from_u16(status).unwrap(), headers, body.to_owned().into())
    }

    fn key(expiration: &Value) -> String {
        json!({
            "Code": "Success", "AccessKeyId": "STS.id", "AccessKeySecret": "CANARY-SECRET",
            "SecurityToken": "CANARY-TOKEN", "Expiration": expiration,
        })
        .to_string()
    }

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    const NOW: &str = "2026-01-15T08:30:00Z";

    fn end(expiration: &Value, date: Option<&str>) -> Result<DateTime<Utc>, String> {
        match plain("it", &answer(200, date, &key(expiration)), at(NOW)) {
            Ok(Fetched { lasts: Lasts::Until(end), .. }) => Ok(end),
            Ok(_) => panic!("a temporary key ends"),
            Err(miss) => Err(miss.reason),
        }
    }

    #[test]
    fn an_end_is_read_in_every_form() {
        for form in [
            json!("2026-01-15T09:30:00Z"),
            json!(" 2026-01-15T09:30:00.000Z "),
            json!("2026-01-15T17:30:00+08:00"),
            json!("2026-01-15T17:30:00+0800"),
            json!("2026-01-15T09:30:00"),
            json!("2026-01-15 09:30:00"),
            json!(1_768_469_400),
            json!("1768469400"),
            json!(1_768_469_400_000_i64),
        ] {
            assert_eq!(end(&form, None), Ok(at("2026-01-15T09:30:00Z")), "{form}");
        }
        for form in [json!("soon"), json!(""), json!(true), json!("2026-13-15T09:30:00Z"), json!(1.5)] {
            assert!(end(&form, None).unwrap_err().contains("Expiration"), "{form}");
        }
    }

    #[test]
    fn the_end_is_taken_by_the_clock_that_wrote_it() {
        let rehearsed = Some("Wed, 14 Jan 2026 08:30:00 GMT");
        assert_eq!(end(&json!("2026-01-14T09:30:00Z"), rehearsed), Ok(at("2026-01-15T09:30:00Z")));
        assert!(end(&json!("2026-01-14T09:30:00Z"), None).unwrap_err().contains("is over"));
        assert_eq!(end(&json!("2026-01-15T09:30:00Z"), Some("yesterday")), Ok(at("2026-01-15T09:30:00Z")));
    }

    #[test]
    fn what_is_wrong_is_said_without_quoting_the_answer() {
        for (status, body) in [
            (200, "CANARY".to_owned()),
            (200, "\"CANARY\"".to_owned()),
            (200, json!({"Code": "CANARY\n", "AccessKeyId": "CANARY"}).to_string()),
            (200, json!({"Code": "Success", "AccessKeyId": "CANARY"}).to_string()),
            (200, json!({"AccessKeyId": "CANARY"}).to_string()),
            (200, json!({"Code": "Success", "AccessKeyId": ["CANARY"]}).to_string()),
            (200, key(&json!("CANARY"))),
            (403, key(&json!("CANARY")).replace("Success", "CANARY CANARY")),
            (500, "CANARY".to_owned()),
        ] {
            let miss = plain("it", &answer(status, None, &body), at(NOW)).err().unwrap();
            assert!(miss.applies && !format!("{miss:?}").contains("CANARY"), "{miss:?} for {body}");
        }
        let refused = answer(403, None, r#"{"Code":"AuthenticationFail.OIDCToken.Expired","Message":"CANARY"}"#);
        let miss = wrapped("the token service", &refused, at(NOW)).err().unwrap();
        assert_eq!(miss.reason, "the token service answered 403 AuthenticationFail.OIDCToken.Expired");
    }
}

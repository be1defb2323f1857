//! What each of the provider's return codes means to us, in one table.
//!
//! The same code comes with different statuses, so the code decides first and the status only where there is no
//! code. A code that is not in the table is retried and never a success. The provider's own message is dropped:
//! for a wrong signature it repeats the whole request.

use std::time::Duration;

use crate::domain::{Outcome, ProviderError, Trouble};

/// The longest wait that is taken from an answer.
const LONGEST_WAIT: Duration = Duration::from_hours(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    Running,
    Throttled,
    Account(Trouble),
    Refused(&'static str),
    Unavailable(&'static str),
}

/// A row counts for its code and for the code followed by a dot and more; `Throttling` for every beginning.
const TABLE: &[(&str, Meaning)] = &[
    ("Throttling", Meaning::Throttled),
    ("ProcessNotCompleted", Meaning::Running),
    ("TransactionIdInvalid", Meaning::Refused("it does not know the transaction, or another region has it")),
    ("MissingParameter", Meaning::Refused("it misses a parameter")),
    ("InvalidParameter", Meaning::Refused("it does not take a parameter's value")),
    ("Forbidden.RAMUserAccessDenied", Meaning::Account(Trouble::NoPermission)),
    ("Forbidden.AccountAccessDenied", Meaning::Account(Trouble::NotActivated)),
    ("InvalidAccessKeyId", Meaning::Account(Trouble::BadKey)),
    ("InvalidSecurityToken", Meaning::Account(Trouble::BadKey)),
    ("SignatureDoesNotMatch", Meaning::Account(Trouble::BadSignature)),
    ("IncompleteSignature", Meaning::Account(Trouble::BadSignature)),
    ("InvalidTimeStamp", Meaning::Account(Trouble::ClockSkew)),
    ("InvalidAction", Meaning::Account(Trouble::Configuration)),
    ("InvalidVersion", Meaning::Account(Trouble::Configuration)),
    ("UnsupportedHTTPMethod", Meaning::Account(Trouble::Configuration)),
    ("SignatureNonceUsed", Meaning::Unavailable("it has seen the nonce of this attempt before")),
    ("InternalError", Meaning::Unavailable("it reports a fault of its own")),
    ("ServiceUnavailable", Meaning::Unavailable("it reports that it is not available")),
];

/// The values of SubCode that are billed, by the provider's page on CheckResult. Of the others it does not say.
const BILLED: [&str; 5] = ["200", "204", "205", "206", "233"];

/// Whether a result with this SubCode is billed; none where the provider does not say.
pub fn is_billed(sub_code: &str) -> Option<bool> {
    BILLED.contains(&sub_code).then_some(true)
}

pub fn is_success(code: &str) -> bool {
    code.eq_ignore_ascii_case("Success") || code == "200"
}

/// The code says that the signed time is off.
pub fn is_timestamp(code: &str) -> bool {
    covers("InvalidTimeStamp", code)
}

/// The code says that the key, or what was signed with it, is not taken.
pub fn is_of_the_key(code: &str) -> bool {
    matches!(of_code(code), Meaning::Account(Trouble::BadKey | Trouble::BadSignature))
}

/// Classifies an answer that brings no result. `retry_after` is the header `x-acs-retry-after` in milliseconds.
pub fn classify(status: u16, code: Option<&str>, retry_after: Option<&str>) -> Result<Outcome, ProviderError> {
    let code = code.map(str::trim).filter(|code| is_usable(code));
    let meaning = match code {
        Some(code) => of_code(code),
        None => of_status(status),
    };
    let code = code.map_or_else(|| format!("http_{status}"), str::to_owned);
    Err(match meaning {
        Meaning::Running => return Ok(Outcome::Running(code)),
        Meaning::Throttled => ProviderError::Throttled { code, retry_after: wait(retry_after) },
        Meaning::Account(trouble) => ProviderError::Account { trouble, code },
        Meaning::Refused(reason) => ProviderError::Refused { code, reason: reason.to_owned() },
        Meaning::Unavailable(reason) => ProviderError::Unavailable { code, reason: reason.to_owned() },
    })
}

fn of_code(code: &str) -> Meaning {
    TABLE
        .iter()
        .find(|(known, _)| covers(known, code))
        .map_or(Meaning::Unavailable("it answers with a code that is not known here"), |(_, meaning)| *meaning)
}

fn covers(known: &str, code: &str) -> bool {
    let Some((head, rest)) = code.split_at_checked(known.len()) else { return false };
    head.eq_ignore_ascii_case(known) && (rest.is_empty() || rest.starts_with('.') || known == "Throttling")
}

fn of_status(status: u16) -> Meaning {
    match status {
        429 => Meaning::Throttled,
        500..=599 => Meaning::Unavailable("it, or a gateway before it, reports a fault"),
        300..=399 => Meaning::Unavailable("it redirects, which is not followed; is the endpoint right?"),
        400..=499 => Meaning::Unavailable("it refuses the call without a code; is a proxy in between?"),
        _ => Meaning::Unavailable("it answers without a result and without a code"),
    }
}

/// The provider reports a fault of its own, which says nothing about what it did before.
pub fn is_fault(code: &str) -> bool {
    covers("InternalError", code) || covers("ServiceUnavailable", code)
}

/// What does not look like a code is not repeated in errors and histories.
pub(super) fn is_usable(code: &str) -> bool {
    !code.is_empty()
        && code.len() <= 96
        && code.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b':'))
}

fn wait(milliseconds: Option<&str>) -> Option<Duration> {
    let milliseconds: u64 = milliseconds?.trim().parse().ok()?;
    (milliseconds > 0).then(|| Duration::from_millis(milliseconds).min(LONGEST_WAIT))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(status: u16, code: Option<&str>) -> String {
        match classify(status, code, None) {
            Ok(Outcome::Running(code)) => format!("running {code}"),
            Ok(Outcome::Finished(_)) => "finished".to_owned(),
            Err(ProviderError::Throttled { code, retry_after }) => format!("throttled {code} {retry_after:?}"),
            Err(ProviderError::Account { trouble, code }) => format!("{} {code}", trouble.as_str()),
            Err(ProviderError::Refused { code, .. }) => format!("refused {code}"),
            Err(ProviderError::Unavailable { code, .. }) => format!("unavailable {code}"),
        }
    }

    #[test]
    fn every_documented_code_has_its_meaning_whatever_the_status() {
        for (code, kind) in [
            ("MissingParameter", "refused"),
            ("InvalidParameter", "refused"),
            ("InvalidParameter.TransactionId", "refused"),
            ("TransactionIdInvalid", "refused"),
            ("Forbidden.RAMUserAccessDenied", "no_permission"),
            ("Forbidden.AccountAccessDenied", "not_activated"),
            ("ProcessNotCompleted", "running"),
            ("InternalError", "unavailable"),
            ("InvalidAccessKeyId.NotFound", "bad_key"),
            ("InvalidAccessKeyId.Inactive", "bad_key"),
            ("InvalidSecurityToken.Expired", "bad_key"),
            ("SignatureDoesNotMatch", "bad_signature"),
            ("IncompleteSignature", "bad_signature"),
            ("InvalidTimeStamp.Expired", "clock_skew"),
            ("InvalidTimeStamp.Format", "clock_skew"),
            ("SignatureNonceUsed", "unavailable"),
            ("ServiceUnavailable", "unavailable"),
            ("InvalidAction.NotFound", "configuration"),
            ("InvalidVersion", "configuration"),
            ("UnsupportedHTTPMethod", "configuration"),
            ("InvalidParameterX", "unavailable"),
            ("Forbidden", "unavailable"),
            ("SomethingNew", "unavailable"),
            ("Success", "unavailable"),
            ("200", "unavailable"),
        ] {
            for status in [200, 400, 403, 404, 429, 500, 503] {
                assert_eq!(shown(status, Some(code)), format!("{kind} {code}"), "{status}");
            }
        }
        for code in ["Throttling", "Throttling.Api", "Throttling.User", "ThrottlingQuota", "throttling.user"] {
            for status in [200, 400, 403, 429, 503] {
                assert_eq!(shown(status, Some(code)), format!("throttled {code} None"));
            }
        }
    }

    #[test]
    fn without_a_code_the_status_decides_and_nothing_is_a_success() {
        assert_eq!(shown(429, None), "throttled http_429 None");
        for status in [200, 204, 301, 302, 307, 400, 401, 403, 404, 408, 500, 502, 503, 504, 599] {
            assert_eq!(shown(status, None), format!("unavailable http_{status}"));
        }
    }

    #[test]
    fn a_text_that_is_no_code_is_not_repeated() {
        let long = "x".repeat(97);
        for code in ["", "  ", "a b", "<script>", "CANARY CANARY", "Ü", &long] {
            assert_eq!(shown(500, Some(code)), "unavailable http_500", "{code:?}");
        }
    }

    #[test]
    fn the_named_wait_is_taken_if_positive_and_capped_at_an_hour() {
        for (header, expected) in [
            (Some("1500"), Some(Duration::from_millis(1500))),
            (Some(" 1 "), Some(Duration::from_millis(1))),
            (Some("999999999999"), Some(LONGEST_WAIT)),
            (Some("0"), None),
            (Some("-5"), None),
            (Some("soon"), None),
            (Some("99999999999999999999999999"), None),
            (None, None),
        ] {
            let Err(ProviderError::Throttled { retry_after, .. }) = classify(403, Some("Throttling.Api"), header)
            else {
                panic!("not throttled");
            };
            assert_eq!(retry_after, expected, "{header:?}");
        }
    }
}

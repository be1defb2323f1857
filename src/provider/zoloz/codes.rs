//! What each result code means to us, in one table for all products.
//!
//! The code decides, never the status: the same code comes with different statuses. The status counts only where
//! the code is not known. The provider's message is dropped. What a code with a verdict says is left to the product.

use crate::domain::{ProviderError, Trouble};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The product's own fields hold the verdict.
    Verdict,
    /// There is none yet; ask again later.
    Running,
    Throttled,
    Account(Trouble),
    /// Refused for good, and why.
    Refused(&'static str),
    /// A fault that passes, and which.
    Unavailable(&'static str),
    /// The call worked and its code is not known here: a person must look.
    Review,
}

const TABLE: &[(&str, Class)] = &[
    ("SUCCESS", Class::Verdict),
    ("NOT_SAME_PERSON", Class::Verdict),
    ("PROCESSING", Class::Running),
    ("UNABLE_GET_IMAGE", Class::Refused("the enrolled image is missing or unusable: the person must enrol again")),
    ("INVALID_ARGUMENT", Class::Refused("it does not know the transaction, or refuses a value of the request")),
    ("PARAM_MISSING", Class::Refused("it misses a member of the request")),
    ("PARAM_ILLEGAL", Class::Refused("it does not take a value of the request")),
    ("MSG_PARSE_ERROR", Class::Refused("it cannot read the request")),
    ("SIGNATURE_INVALID", Class::Account(Trouble::BadSignature)),
    ("KEY_NOT_FOUND", Class::Account(Trouble::BadKey)),
    ("MERCHANT_NOT_FOUND", Class::Account(Trouble::BadKey)),
    ("OAUTH_FAIL", Class::Account(Trouble::NoPermission)),
    ("OAUTH_RESOURCE_CODE_FAIL", Class::Account(Trouble::NoPermission)),
    ("ACCESS_DENIED", Class::Account(Trouble::NoPermission)),
    ("NO_INTERFACE_DEF", Class::Account(Trouble::Configuration)),
    ("PRODUCT_QUOTA_LIMIT", Class::Account(Trouble::NotActivated)),
    ("REQUEST_TRAFFIC_EXCEED_LIMIT", Class::Throttled),
    ("PROCESS_TIMEOUT", Class::Unavailable("it ran out of time")),
    ("SYSTEM_ERROR", Class::Unavailable("it reports a fault of its own")),
];

/// What may stand in an answer that is not signed, because the provider may not know with whom it talks. A lie about
/// it pauses the account's work until the next probe, and nothing more.
const CREDENTIALS: [&str; 6] = [
    "SIGNATURE_INVALID",
    "KEY_NOT_FOUND",
    "MERCHANT_NOT_FOUND",
    "OAUTH_FAIL",
    "OAUTH_RESOURCE_CODE_FAIL",
    "ACCESS_DENIED",
];

/// `status` and `code` are `resultStatus` and `resultCode`, empty where absent.
pub fn classify(status: &str, code: &str) -> Class {
    if let Some(class) = known(code) {
        return class;
    }
    match status.trim() {
        "S" | "s" => Class::Review,
        "F" | "f" => Class::Refused("it refuses the call with a code that is not known here"),
        _ => Class::Unavailable("it answers with a code that is not known here"),
    }
}

/// The trouble that even an answer without a valid signature may report.
pub fn credential_trouble(code: &str) -> Option<Trouble> {
    match known(code) {
        Some(Class::Account(trouble)) if CREDENTIALS.contains(&code.trim().to_ascii_uppercase().as_str()) => {
            Some(trouble)
        }
        _ => None,
    }
}

fn known(code: &str) -> Option<Class> {
    let code = code.trim();
    TABLE.iter().find(|(known, _)| known.eq_ignore_ascii_case(code)).map(|(_, class)| *class)
}

/// The code as it may be repeated in errors and histories: what does not look like one is not repeated.
pub fn shown(code: &str) -> String {
    let code = code.trim();
    let usable = (1..=96).contains(&code.len())
        && code.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b':'));
    if usable { code.to_owned() } else { "no_code".to_owned() }
}

impl Class {
    /// The error of a class that brings no outcome; `None` for a verdict, a running one and a review.
    pub fn error(self, code: &str) -> Option<ProviderError> {
        let code = shown(code);
        Some(match self {
            Self::Verdict | Self::Running | Self::Review => return None,
            Self::Throttled => ProviderError::Throttled { code, retry_after: None },
            Self::Account(trouble) => ProviderError::Account { trouble, code },
            Self::Refused(reason) => ProviderError::Refused { code, reason: reason.to_owned() },
            Self::Unavailable(reason) => ProviderError::Unavailable { code, reason: reason.to_owned() },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_documented_code_is_told_apart_whatever_its_status() {
        for (code, class) in [
            ("SUCCESS", Class::Verdict),
            ("NOT_SAME_PERSON", Class::Verdict),
            ("PROCESSING", Class::Running),
            ("REQUEST_TRAFFIC_EXCEED_LIMIT", Class::Throttled),
            ("SIGNATURE_INVALID", Class::Account(Trouble::BadSignature)),
            ("KEY_NOT_FOUND", Class::Account(Trouble::BadKey)),
            ("MERCHANT_NOT_FOUND", Class::Account(Trouble::BadKey)),
            ("OAUTH_FAIL", Class::Account(Trouble::NoPermission)),
            ("OAUTH_RESOURCE_CODE_FAIL", Class::Account(Trouble::NoPermission)),
            ("ACCESS_DENIED", Class::Account(Trouble::NoPermission)),
            ("NO_INTERFACE_DEF", Class::Account(Trouble::Configuration)),
            ("PRODUCT_QUOTA_LIMIT", Class::Account(Trouble::NotActivated)),
        ] {
            for status in ["S", "F", "U", ""] {
                assert_eq!(classify(status, code), class, "{code} {status}");
            }
        }
        for code in ["UNABLE_GET_IMAGE", "INVALID_ARGUMENT", "PARAM_MISSING", "PARAM_ILLEGAL", "MSG_PARSE_ERROR"] {
            assert!(matches!(classify("F", code), Class::Refused(_)), "{code}");
        }
        for code in ["SYSTEM_ERROR", "PROCESS_TIMEOUT"] {
            for status in ["F", "U"] {
                assert!(matches!(classify(status, code), Class::Unavailable(_)), "{code} {status}");
            }
        }
    }

    #[test]
    fn of_an_unknown_code_the_status_decides() {
        assert_eq!(classify("S", "BRAND_NEW"), Class::Review);
        assert!(matches!(classify("F", "BRAND_NEW"), Class::Refused(_)));
        for status in ["U", "", "X"] {
            assert!(matches!(classify(status, "BRAND_NEW"), Class::Unavailable(_)), "{status}");
        }
    }

    #[test]
    fn only_trouble_with_credentials_is_believed_without_a_signature() {
        for code in CREDENTIALS {
            assert!(credential_trouble(code).is_some(), "{code}");
        }
        for code in ["SUCCESS", "INVALID_ARGUMENT", "PRODUCT_QUOTA_LIMIT", "NO_INTERFACE_DEF", "SYSTEM_ERROR", ""] {
            assert_eq!(credential_trouble(code), None, "{code}");
        }
    }

    #[test]
    fn what_is_no_code_is_not_repeated() {
        assert_eq!(shown(" SYSTEM_ERROR "), "SYSTEM_ERROR");
        for code in ["", "a b", "<script>", &"x".repeat(97)] {
            assert_eq!(shown(code), "no_code", "{code}");
        }
        let error = classify("F", "a secret").error("a secret").unwrap();
        assert!(!error.to_string().contains("secret"));
    }
}

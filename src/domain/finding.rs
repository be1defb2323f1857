//! What asking the provider brought: an outcome in our words, or an error that says itself what to do next.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde_json::{Map, Value};

use super::{FinalStatus, FoundEvidence};

/// The provider answered about the transaction.
#[derive(Debug)]
pub enum Outcome {
    /// There is a result.
    Finished(Box<Finding>),
    /// There is none yet; ask again later. Holds the provider's own code for it.
    Running(String),
}

/// The provider's verdict in our terms, with what it is built on.
#[derive(Clone, PartialEq)]
pub struct Finding {
    pub status: FinalStatus,
    /// The provider's code for the result, kept as text.
    pub sub_code: Option<String>,
    /// Why, in words for people.
    pub reason: String,
    /// Finite numbers only, by their name in the API.
    pub scores: BTreeMap<String, f64>,
    pub signals: Map<String, Value>,
    /// The answer as it came, images taken out. Holds document data: only behind the scope `evidence`.
    pub answer: String,
    /// What was odd about the answer, for the history; never a value out of it.
    pub notes: Vec<String>,
    /// Images and the link to a video that came along.
    pub evidence: FoundEvidence,
}

impl fmt::Debug for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Finding")
            .field("status", &self.status)
            .field("sub_code", &self.sub_code)
            .finish_non_exhaustive()
    }
}

/// How far a person came whose flow brought no result, by the provider's own log of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Flow {
    NotStarted,
    Interrupted {
        /// The page that was shown last.
        page: Option<String>,
        /// The provider's code.
        code: Option<String>,
    },
    /// There should be a result.
    Finished,
}

impl Flow {
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::NotStarted => "not_started",
            Self::Interrupted { .. } => "interrupted",
            Self::Finished => "finished",
        }
    }
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotStarted => f.write_str("The flow was never started."),
            Self::Interrupted { page, code } => {
                f.write_str("The flow was interrupted")?;
                if let Some(page) = page {
                    write!(f, " at the page {page}")?;
                }
                if let Some(code) = code {
                    write!(f, " (code {code})")?;
                }
                f.write_str(".")
            }
            Self::Finished => f.write_str("The provider's log says that it was finished."),
        }
    }
}

/// Why there is no outcome. Each kind says who must act and when to ask again.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    /// Too many calls: wait `retry_after`, or back off, and lower the account's rate.
    #[error("the provider throttles this account ({code})")]
    Throttled { code: String, retry_after: Option<Duration> },
    /// The account, not the verification, is at fault: all its work pauses and resumes by itself.
    #[error("the account is in trouble: {trouble} ({code})")]
    Account { trouble: Trouble, code: String },
    /// The provider refuses this transaction for good.
    #[error("the provider refuses the transaction: {reason} ({code})")]
    Refused { code: String, reason: String },
    /// A fault that passes: 5xx, time-out, broken connection, unreadable answer. Back off and ask again.
    #[error("the provider could not be asked: {reason} ({code})")]
    Unavailable { code: String, reason: String },
}

impl ProviderError {
    /// The provider's code, or ours in lower case where the provider gave none.
    pub fn code(&self) -> &str {
        match self {
            Self::Throttled { code, .. }
            | Self::Account { code, .. }
            | Self::Refused { code, .. }
            | Self::Unavailable { code, .. } => code,
        }
    }
}

/// What is wrong with an account, in the words that operators see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// There is no key to sign with, so the provider was not asked.
    NoCredentials,
    BadKey,
    BadSignature,
    NoPermission,
    NotActivated,
    ClockSkew,
    Configuration,
    /// Call after call brought no usable answer.
    Unreachable,
}

impl Trouble {
    pub const ALL: [Self; 8] = [
        Self::NoCredentials,
        Self::BadKey,
        Self::BadSignature,
        Self::NoPermission,
        Self::NotActivated,
        Self::ClockSkew,
        Self::Configuration,
        Self::Unreachable,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoCredentials => "no_credentials",
            Self::BadKey => "bad_key",
            Self::BadSignature => "bad_signature",
            Self::NoPermission => "no_permission",
            Self::NotActivated => "not_activated",
            Self::ClockSkew => "clock_skew",
            Self::Configuration => "configuration",
            Self::Unreachable => "unreachable",
        }
    }

    /// What happened and what to do about it.
    pub fn remedy(self) -> &'static str {
        match self {
            Self::NoCredentials => {
                "there is no access key: set access_key_id and access_key_secret, or mend the step of the credential \
                 chain that the code names; the log says why each step gave none"
            }
            Self::BadKey => {
                "the key is unknown or disabled: check access_key_id, or for ZOLOZ client_id and access_key, at the \
                 provider"
            }
            Self::BadSignature => {
                "the signature is refused: check access_key_secret and the setting signature, or for ZOLOZ that the \
                 provider has the public half of merchant_private_key, or the secret_key"
            }
            Self::NoPermission => {
                "the key may not make this call: grant its RAM user AliyunAntCloudAuthFullAccess, or have ZOLOZ \
                 enable the product for this client_id"
            }
            Self::NotActivated => {
                "the service is not activated, its quota is used up or a bill is overdue: look at the provider's \
                 console"
            }
            Self::ClockSkew => "this machine's clock is off: synchronise it",
            Self::Configuration => "the provider refuses how it is called: check endpoint and product",
            Self::Unreachable => {
                "call after call brings no usable answer: the provider is down, or the way to it is broken (endpoint, \
                 proxy, network); work goes on by itself when it answers"
            }
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.remedy())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_shows_no_answer_and_no_score() {
        let finding = Finding {
            status: FinalStatus::Passed,
            sub_code: Some("200".into()),
            reason: "Authentication passed.".into(),
            scores: BTreeMap::from([("face_comparison".into(), 12.345)]),
            signals: Map::from_iter([("age".to_owned(), Value::from(77))]),
            answer: "CANARY-DOCUMENT".into(),
            notes: vec![],
            evidence: FoundEvidence::default(),
        };
        let shown = format!("{finding:?} {:?}", Outcome::Finished(Box::new(finding.clone())));
        for secret in ["CANARY", "12.345", "77"] {
            assert!(!shown.contains(secret), "{secret} in {shown}");
        }
    }
}

//! The kinds of things that happen to a verification, as its history and the live events name them.

use std::str::FromStr;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HistoryKind {
    Registered,
    Callback,
    Check,
    Evidence,
    Verdict,
    Webhook,
    Operator,
    Erased,
}

impl HistoryKind {
    pub const ALL: [Self; 8] = [
        Self::Registered,
        Self::Callback,
        Self::Check,
        Self::Evidence,
        Self::Verdict,
        Self::Webhook,
        Self::Operator,
        Self::Erased,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Registered => "registered",
            Self::Callback => "callback",
            Self::Check => "check",
            Self::Evidence => "evidence",
            Self::Verdict => "verdict",
            Self::Webhook => "webhook",
            Self::Operator => "operator",
            Self::Erased => "erased",
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("unknown kind of history")]
pub struct UnknownKind;

impl FromStr for HistoryKind {
    type Err = UnknownKind;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or(UnknownKind)
    }
}

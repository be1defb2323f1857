//! A verification: one identity check of one person, and the states it goes through.
//!
//! `waiting → collecting → final`. A final status never changes by itself: a later different answer is a new
//! revision beside the old one.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Names one verification everywhere; time-ordered, so that newest first is the order of ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct VerificationId(pub Uuid);

impl fmt::Display for VerificationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl FromStr for VerificationId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Uuid::parse_str(text).map(Self)
    }
}

/// Where a verification is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Registered; nothing has said yet that the person finished.
    Waiting,
    /// There may be a result: the check is due, running or being retried.
    Collecting,
    #[serde(untagged)]
    Final(FinalStatus),
}

/// How a verification ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinalStatus {
    Passed,
    Failed,
    /// The provider leaves it to a person.
    Review,
    /// The flow ended without an outcome.
    Void,
    /// The retention window closed before a result could be read.
    Expired,
    /// The provider refuses the transaction for good.
    Unresolvable,
}

impl FinalStatus {
    pub const ALL: [Self; 6] =
        [Self::Passed, Self::Failed, Self::Review, Self::Void, Self::Expired, Self::Unresolvable];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Review => "review",
            Self::Void => "void",
            Self::Expired => "expired",
            Self::Unresolvable => "unresolvable",
        }
    }

    /// `void` and `expired` say that no verdict was found, not that there is none: a new hint asks again.
    pub fn reopens_on_hint(self) -> bool {
        matches!(self, Self::Void | Self::Expired)
    }
}

impl Status {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Collecting => "collecting",
            Self::Final(status) => status.as_str(),
        }
    }

    pub fn is_final(self) -> bool {
        matches!(self, Self::Final(_))
    }
}

#[derive(Debug, thiserror::Error)]
#[error("unknown status")]
pub struct UnknownStatus;

impl FromStr for FinalStatus {
    type Err = UnknownStatus;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|status| status.as_str() == text).ok_or(UnknownStatus)
    }
}

impl FromStr for Status {
    type Err = UnknownStatus;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "waiting" => Ok(Self::Waiting),
            "collecting" => Ok(Self::Collecting),
            other => other.parse().map(Self::Final),
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for FinalStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_reads_back_and_is_the_same_in_json() {
        let all = [Status::Waiting, Status::Collecting].into_iter().chain(FinalStatus::ALL.map(Status::Final));
        for status in all {
            assert_eq!(status.as_str().parse::<Status>().unwrap(), status);
            assert_eq!(serde_json::to_value(status).unwrap(), status.as_str());
        }
        assert!("Passed".parse::<Status>().is_err());
    }
}

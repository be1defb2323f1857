//! What the provider deletes, and how much of its time may be used before somebody is told.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// What can be lost of an open verification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RiskKind {
    Video,
    Result,
}

impl RiskKind {
    pub const ALL: [Self; 2] = [Self::Video, Self::Result];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Video => "video",
            Self::Result => "result",
        }
    }
}

impl fmt::Display for RiskKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[derive(Debug, thiserror::Error)]
#[error("unknown kind")]
pub struct UnknownRiskKind;

impl FromStr for RiskKind {
    type Err = UnknownRiskKind;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or(UnknownRiskKind)
    }
}

/// Of how much of the provider's time the log tells that it is used, in percent.
pub const TOLD: [i16; 3] = [50, 80, 95];

/// From this share of the window on something is at risk.
pub fn half(window: Duration) -> Duration {
    window / 2
}

/// A check that somebody waits for and that has been due for so long is late.
pub fn late_after(window: Duration) -> Duration {
    (window / 20).min(Duration::from_hours(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_read_back() {
        for kind in RiskKind::ALL {
            assert_eq!(kind.as_str().parse::<RiskKind>().unwrap(), kind);
        }
        assert!("Video".parse::<RiskKind>().is_err());
    }

    #[test]
    fn what_is_late_follows_the_window_up_to_an_hour() {
        assert_eq!(late_after(Duration::from_mins(30)), Duration::from_secs(90));
        assert_eq!(late_after(Duration::from_hours(24 * 30)), Duration::from_hours(1));
    }
}

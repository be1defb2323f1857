//! Classes of data that may be kept for a limited time only, as the configuration names them.

use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RetentionClass {
    /// Images and videos.
    Evidence,
    /// The provider's answers.
    RawAnswer,
    /// Scores and signals.
    Scores,
    /// Rows of the history that callbacks left.
    Callbacks,
    /// All other rows of the history.
    History,
    /// Events that were told, or given up, by all their deliveries.
    Webhooks,
}

impl RetentionClass {
    pub const ALL: [Self; 6] =
        [Self::Evidence, Self::RawAnswer, Self::Scores, Self::Callbacks, Self::History, Self::Webhooks];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Evidence => "evidence",
            Self::RawAnswer => "raw_answer",
            Self::Scores => "scores",
            Self::Callbacks => "callbacks",
            Self::History => "history",
            Self::Webhooks => "webhooks",
        }
    }
}

/// How long a class is kept. A class that is kept forever has none of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    pub class: RetentionClass,
    /// For evidence, answers and scores from when the verification became final, for webhooks from their end; else from
    /// the time of the row.
    pub time: Duration,
}

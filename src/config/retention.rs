//! `[retention]`: how long each class of data is kept here.

use std::time::Duration;

use super::reader::{Outcome, Reader, duration};
use super::schema::{Field, Shape, field};

pub(super) const FIELDS: &[Field] = &[
    field("evidence", Shape::Value),
    field("raw_answer", Shape::Value),
    field("scores", Shape::Value),
    field("callbacks", Shape::Value),
    field("history", Shape::Value),
    field("webhooks", Shape::Value),
];

const FOREVER: &str = "forever";

/// `None` is for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    pub evidence: Option<Duration>,
    pub raw_answer: Option<Duration>,
    pub scores: Option<Duration>,
    pub callbacks: Option<Duration>,
    pub history: Option<Duration>,
    pub webhooks: Option<Duration>,
}

impl Retention {
    pub(super) fn read(reader: &mut Reader<'_>) -> Outcome<Self> {
        let [evidence, raw_answer, scores, callbacks, history, webhooks] =
            ["evidence", "raw_answer", "scores", "callbacks", "history", "webhooks"].map(|key| time(reader, key));
        Ok(Self {
            evidence: evidence?,
            raw_answer: raw_answer?,
            scores: scores?,
            callbacks: callbacks?,
            history: history?,
            webhooks: webhooks?,
        })
    }
}

fn time(reader: &mut Reader<'_>, key: &str) -> Outcome<Option<Duration>> {
    reader.parsed(key, FOREVER, |text| match text {
        FOREVER => Ok(None),
        text => duration(text).map(Some).map_err(|problem| format!("{problem}, or \"forever\"")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::{config, problems};

    #[test]
    fn all_but_webhooks_is_kept_for_ever_unless_a_time_is_given() {
        let kept = config("").retention;
        assert_eq!([kept.evidence, kept.raw_answer, kept.scores, kept.callbacks, kept.history], [None::<Duration>; 5]);
        assert_eq!(kept.webhooks, Some(Duration::from_hours(720)));
        let kept = config("[retention]\nraw_answer = '30d'\nscores = 'forever'").retention;
        assert_eq!((kept.raw_answer, kept.scores), (Some(Duration::from_hours(720)), None));
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for wrong in ["0s", "never", "", "4000d"] {
            let found = problems(&format!("[retention]\nevidence = '{wrong}'"));
            assert!(found.contains("retention.evidence (file test.toml): must be"), "{found}");
            assert!(found.contains("or \"forever\""), "{found}");
        }
        assert!(problems("[retention]\nevidences = '1d'").contains("did you mean `evidence`?"));
    }
}

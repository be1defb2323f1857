//! Times, spans and counts as the statements say them.

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};

/// To the second.
pub(super) fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// The two largest units of it; nothing is below a second.
pub fn span(time: TimeDelta) -> String {
    let seconds = time.num_seconds().max(0);
    let units = [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];
    let first = units.iter().position(|(_, length)| seconds >= *length).unwrap_or(3);
    let mut rest = seconds;
    let mut parts = Vec::new();
    for (name, length) in units.iter().skip(first).take(2) {
        if rest >= *length || parts.is_empty() {
            parts.push(format!("{}{name}", rest / length));
        }
        rest %= length;
    }
    parts.join(" ")
}

pub(super) fn counted(count: u64, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// As a sentence of its own.
pub(super) fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}.", letters.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_has_two_units_at_most() {
        let said = |seconds| span(TimeDelta::seconds(seconds));
        assert_eq!([said(-5), said(0), said(59), said(60)], ["0s", "0s", "59s", "1m"]);
        assert_eq!([said(252), said(7_200), said(7_260), said(90_061)], ["4m 12s", "2h", "2h 1m", "1d 1h"]);
    }

    #[test]
    fn one_is_singular() {
        assert_eq!([counted(1, "poll"), counted(2, "poll")], ["1 poll", "2 polls"]);
        assert_eq!(sentence("this machine's clock is off"), "This machine's clock is off.");
    }
}

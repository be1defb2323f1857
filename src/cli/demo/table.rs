//! How the cases are shown: a table that is drawn in place on a terminal, else a line for each change.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use super::board::{Seen, State, differences};
use super::cases::Case;

const RED: &str = "31";
const GREEN: &str = "32";
const YELLOW: &str = "33";
const BOLD: &str = "1";

/// Lines beside the cases: the head, a blank between the providers and another at the end, the scene, and where the
/// cursor rests.
const FRAME: usize = 5;

const HEAD: [&str; 8] = ["CASE", "ACCOUNT", "STATUS", "SCORE", "HEARD", "TOOK", "OK", "CHECKS"];
/// 100 in all.
const WIDTHS: [usize; 8] = [24, 11, 13, 6, 8, 7, 4, 27];

/// One line: each cell with its width and its colour. What is longer is cut.
fn line(cells: [(String, &str); 8], colours: bool) -> String {
    let mut line = String::new();
    for ((mut text, colour), width) in cells.into_iter().zip(WIDTHS) {
        if text.chars().count() > width {
            text = text.chars().take(width - 1).chain(['…']).collect();
        }
        let padding = width - text.chars().count();
        if colours && !colour.is_empty() {
            let _ = write!(line, "\x1b[{colour}m{text}\x1b[0m");
        } else {
            line.push_str(&text);
        }
        line.extend(std::iter::repeat_n(' ', padding));
    }
    line.trim_end().to_owned()
}

fn status(seen: &Seen) -> (String, &'static str) {
    let colour = match seen.status.as_str() {
        "passed" => GREEN,
        "failed" | "expired" => RED,
        _ => YELLOW,
    };
    (seen.status.clone(), colour)
}

/// Equal neighbours are counted.
fn squeezed(codes: &[String]) -> String {
    let groups = codes.chunk_by(|a, b| a == b).map(|group| match group.len() {
        1 => group[0].clone(),
        count => format!("{} x{count}", group[0]),
    });
    groups.collect::<Vec<_>>().join(", ")
}

/// A time in the unit that suits it.
fn took(took: Duration) -> String {
    match took.as_secs() {
        0 => format!("{} ms", took.as_millis()),
        1..=119 => format!("{:.1} s", took.as_secs_f64()),
        120..=7199 => format!("{} min", took.as_secs() / 60),
        7200..=172_799 => format!("{} h", took.as_secs() / 3600),
        _ => format!("{} d", took.as_secs() / 86_400),
    }
}

fn row(case: &Case, seen: &Seen, colours: bool) -> String {
    let is_over = seen.is_final || seen.error.is_some() || seen.trouble.is_some();
    let verdict = match (is_over, differences(case, seen).is_empty()) {
        (false, _) => (String::new(), ""),
        (true, true) => ("yes".to_owned(), GREEN),
        (true, false) => ("NO".to_owned(), RED),
    };
    let nothing = || if is_over { "-".to_owned() } else { String::new() };
    let heard = seen.heard.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    let heard = Some(heard).filter(|heard| !heard.is_empty());
    let took = seen.took.map(took).unwrap_or_default();
    let mut checks = squeezed(&seen.checks);
    if case.expected.evidence.is_some() && seen.is_final {
        let stored = seen.evidence.matches(" stored").count();
        checks = format!("{checks}; {stored} files stored");
    }
    let cells = [
        (case.name.to_owned(), ""),
        (case.account.to_owned(), ""),
        status(seen),
        (seen.score.clone().unwrap_or_else(nothing), ""),
        (heard.unwrap_or_else(nothing), ""),
        (took, ""),
        verdict,
        (checks, ""),
    ];
    line(cells, colours)
}

/// The lines of the table; a blank one between the providers.
pub fn table(cases: &[Case], seen: &[Seen], colours: bool) -> Vec<String> {
    let mut lines = vec![line(HEAD.map(|text| (text.to_owned(), BOLD)), colours)];
    let mut last = cases.first().map(|case| case.process.provider());
    for (case, seen) in cases.iter().zip(seen) {
        let provider = Some(case.process.provider());
        if provider != std::mem::replace(&mut last, provider) {
            lines.push(String::new());
        }
        lines.push(row(case, seen, colours));
    }
    lines
}

/// Standard output as the show uses it.
pub struct Screen<'a> {
    cases: &'a [Case],
    colours: bool,
    /// Drawn in place: how many lines are to be drawn over.
    drawn: Option<usize>,
    shown: State,
}

impl<'a> Screen<'a> {
    pub fn new(cases: &'a [Case], colours: bool) -> Self {
        let stdout = std::io::stdout();
        let is_terminal = stdout.is_terminal();
        // What has left the screen at the top cannot be drawn over.
        let fits =
            rustix::termios::tcgetwinsize(&stdout).is_ok_and(|size| usize::from(size.ws_row) >= cases.len() + FRAME);
        let shown = State { scene: String::new(), seen: vec![Seen::default(); cases.len()] };
        Self { cases, colours: colours && is_terminal, drawn: (is_terminal && fits).then_some(0), shown }
    }

    /// Shows what is new in `state`.
    pub fn show(&mut self, state: &State) {
        let text = match self.drawn {
            Some(lines) => {
                let mut all = table(self.cases, &state.seen, self.colours);
                all.push(String::new());
                all.push(state.scene.clone());
                self.drawn = Some(all.len());
                over(&all, lines)
            }
            None => news(self.cases, &self.shown, state),
        };
        self.shown = state.clone();
        write_out(&text);
    }

    /// The last look: the table stays on the screen.
    pub fn finish(&mut self, state: &State) {
        let state = State { scene: String::new(), ..state.clone() };
        if self.drawn.is_some() {
            return self.show(&state);
        }
        let lines = table(self.cases, &state.seen, self.colours);
        write_out(&format!("\n{}\n\n", lines.join("\n")));
    }
}

/// `lines` in place of the `old` lines above the cursor. A line that is too long is cut by the terminal.
fn over(lines: &[String], old: usize) -> String {
    let mut text = String::from("\x1b[?7l");
    if old > 0 {
        let _ = write!(text, "\x1b[{old}A");
    }
    for line in lines {
        let _ = writeln!(text, "\r\x1b[2K{line}");
    }
    text.push_str("\x1b[?7h");
    text
}

/// A line for each thing that is different.
fn news(cases: &[Case], old: &State, new: &State) -> String {
    let mut text = String::new();
    if new.scene != old.scene && !new.scene.is_empty() {
        let _ = writeln!(text, "-- {}", new.scene);
    }
    for ((case, old), new) in cases.iter().zip(&old.seen).zip(&new.seen) {
        if let Some(error) = new.error.as_ref().filter(|_| old.error.is_none()) {
            let _ = writeln!(text, "{}: {error}", case.name);
        }
        if old.status == new.status && old.checks.len() == new.checks.len() {
            continue;
        }
        let _ = write!(text, "{}: {}", case.name, new.status);
        if let Some(sub_code) = &new.sub_code {
            let _ = write!(text, " {sub_code}");
        }
        match new.checks.last() {
            Some(code) if !new.is_final => {
                let _ = write!(text, ", check {} brought {code}", new.checks.len());
            }
            _ => {}
        }
        if let Some(time) = new.took {
            let _ = write!(text, " after {}", took(time));
        }
        text.push('\n');
    }
    text
}

fn write_out(text: &str) {
    let mut out = std::io::stdout().lock();
    // A closed pipe is no error: whoever read has seen enough.
    let _closed_pipe = out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err();
}

#[cfg(test)]
mod tests {
    use super::super::board::as_expected;
    use super::super::cases::cases;
    use super::*;

    fn passed() -> Seen {
        Seen {
            heard: vec![200],
            status: "passed".to_owned(),
            sub_code: Some("200".to_owned()),
            score: Some("99.99".to_owned()),
            is_final: true,
            checks: vec!["200".to_owned()],
            took: Some(Duration::from_millis(12)),
            ..Seen::default()
        }
    }

    #[test]
    fn a_row_shows_everything_in_its_column() {
        let cases = &cases()[..2];
        let lines = table(cases, &[passed(), Seen::default()], false);
        assert_eq!(
            lines,
            [
                "CASE                    ACCOUNT    STATUS       SCORE HEARD   TOOK   OK  CHECKS",
                "passed                  alibaba-sg passed       99.99 200     12 ms  yes 200",
                "started by Checkback    alibaba-sg",
            ]
        );
    }

    #[test]
    fn the_table_is_at_most_a_hundred_columns_wide_and_cuts_only_checks() {
        let cases = cases();
        let seen: Vec<_> = cases.iter().map(as_expected).collect();
        let lines = table(&cases, &seen, false);
        assert_eq!(lines.len(), cases.len() + FRAME - 3, "a head and a blank line between two providers");
        for line in &lines {
            assert!(line.chars().count() <= 100, "{line}");
            assert!(line.chars().take(73).all(|c| c != '…'), "{line}");
        }
    }

    #[test]
    fn a_case_that_never_ends_is_judged_by_its_account() {
        let case = cases().into_iter().find(|case| case.expected.trouble.is_some()).unwrap();
        let seen = as_expected(&case);
        assert!(row(&case, &seen, false).contains(" yes "));
        let other = Seen { trouble: Some("clock_skew".to_owned()), ..seen.clone() };
        assert!(row(&case, &other, false).contains(" NO "));
        assert!(!row(&case, &Seen { trouble: None, ..seen }, false).contains(" yes "));
    }

    #[test]
    fn colours_change_no_width_and_are_left_out_on_request() {
        let cases = &cases()[..1];
        let coloured = &table(cases, &[passed()], true)[1];
        assert!(coloured.contains("\x1b[32mpassed\x1b[0m       99.99"), "{coloured:?}");
        assert!(!table(cases, &[passed()], false).concat().contains('\x1b'));
    }

    #[test]
    fn what_is_not_as_expected_stands_out() {
        let seen = Seen { status: "failed".to_owned(), ..passed() };
        assert!(table(&cases()[..1], &[seen], false)[1].contains(" NO "));
    }

    #[test]
    fn equal_codes_are_counted() {
        let codes = ["InternalError", "InternalError", "200"].map(str::to_owned);
        assert_eq!(squeezed(&codes), "InternalError x2, 200");
        assert_eq!(squeezed(&[]), "");
    }

    #[test]
    fn times_have_the_unit_that_suits_them() {
        let texts = [12, 1_500, 305_000, 86_700_000, 2_678_400_000].map(|ms| took(Duration::from_millis(ms)));
        assert_eq!(texts, ["12 ms", "1.5 s", "5 min", "24 h", "31 d"]);
    }

    #[test]
    fn without_a_terminal_only_changes_are_told() {
        let cases = &cases()[..1];
        let waiting = Seen { status: "waiting".to_owned(), ..Seen::default() };
        let old = State { scene: "a".to_owned(), seen: vec![waiting] };
        assert_eq!(news(cases, &old, &old), "");
        let new = State { scene: "b".to_owned(), seen: vec![passed()] };
        assert_eq!(news(cases, &old, &new), "-- b\npassed: passed 200 after 12 ms\n");
        let retried =
            Seen { status: "collecting".to_owned(), checks: vec!["InternalError".to_owned()], ..Seen::default() };
        let new = State { scene: "a".to_owned(), seen: vec![retried] };
        assert_eq!(news(cases, &old, &new), "passed: collecting, check 1 brought InternalError\n");
    }

    #[test]
    fn drawing_goes_over_what_was_drawn() {
        let text = over(&["one".to_owned(), "two".to_owned()], 2);
        assert_eq!(text, "\x1b[?7l\x1b[2A\r\x1b[2Kone\n\r\x1b[2Ktwo\n\x1b[?7h");
        assert!(!over(&["one".to_owned()], 0).contains('A'));
    }
}

//! What has been seen of each case, shared by those who act, look and draw; and how it differs from what must be.

use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch;

use super::cases::{Case, Checks, Ends};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The verification, once it is registered.
    pub id: Option<String>,
    /// How the service answered those who told it that the person is done; 0 for no answer.
    pub heard: Vec<u16>,
    pub status: String,
    pub sub_code: Option<String>,
    /// The score of the comparison of faces.
    pub score: Option<String>,
    pub is_final: bool,
    /// The codes of the checks, oldest first.
    pub checks: Vec<String>,
    /// What there is of images and videos.
    pub evidence: String,
    /// From the callback, or else the registration, to the end, by the service's clock.
    pub took: Option<Duration>,
    /// What is wrong with the account at the end.
    pub trouble: Option<String>,
    /// Why the case could not be played.
    pub error: Option<String>,
}

impl Seen {
    /// Takes over the service's body of the verification and the codes of its history.
    pub fn update(&mut self, body: &Value, checks: Vec<String>) {
        text(body, "status").unwrap_or_default().clone_into(&mut self.status);
        self.sub_code = text(body, "sub_code").map(str::to_owned);
        self.score = body["scores"]["face_comparison"].as_number().map(ToString::to_string);
        let evidence = body["evidence"].as_array().map(Vec::as_slice).unwrap_or_default();
        let one = |one: &Value| format!("{} {}", text(one, "kind").unwrap_or("?"), text(one, "state").unwrap_or("?"));
        self.evidence = evidence.iter().map(one).collect::<Vec<_>>().join(", ");
        self.is_final = body["final"] == true && evidence.iter().all(|one| one["state"] != "pending");
        self.checks = checks;
        let from = text(body, "callback_at").or_else(|| text(body, "registered_at"));
        self.took = from.zip(text(body, "final_at")).and_then(|(from, to)| {
            let from = chrono::DateTime::parse_from_rfc3339(from).ok()?;
            (chrono::DateTime::parse_from_rfc3339(to).ok()? - from).to_std().ok()
        });
    }
}

fn text<'a>(body: &'a Value, name: &str) -> Option<&'a str> {
    body[name].as_str()
}

/// The codes of the checks in a history.
pub fn checks(history: &Value) -> Vec<String> {
    let items = history["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    let checks = items.iter().filter(|item| item["kind"] == "check");
    checks.map(|check| check["code"].as_str().unwrap_or("?").to_owned()).collect()
}

/// How what was seen differs from what must be; empty when it does not.
pub fn differences(case: &Case, seen: &Seen) -> Vec<String> {
    if let Some(error) = &seen.error {
        return vec![format!("could not be played: {error}")];
    }
    let expected = &case.expected;
    let mut found = Vec::new();
    let mut compare = |what: &str, expected: String, seen: String| {
        if expected != seen {
            found.push(format!("{what}: expected {expected}, got {seen}"));
        }
    };
    compare("status", expected.status.to_owned(), or_nothing(Some(&seen.status)));
    compare("sub-code", or_nothing(expected.sub_code), or_nothing(seen.sub_code.as_deref()));
    compare("score", or_nothing(expected.score), or_nothing(seen.score.as_deref()));
    compare("answers to callbacks", join(expected.heard), join(&seen.heard));
    if let Some(evidence) = expected.evidence {
        compare("evidence", evidence.to_owned(), or_nothing(Some(&seen.evidence)));
    }
    compare("trouble of the account", or_nothing(expected.trouble), or_nothing(seen.trouble.as_deref()));
    match expected.checks {
        Checks::Exactly(checks) => compare("checks", join(checks), join(&seen.checks)),
        Checks::Begin(first) => {
            compare("first check", first.to_owned(), or_nothing(seen.checks.first().map(String::as_str)));
        }
    }
    found
}

fn or_nothing(text: Option<&str>) -> String {
    text.filter(|text| !text.is_empty()).unwrap_or("none").to_owned()
}

fn join<T: ToString>(items: &[T]) -> String {
    or_nothing(Some(&items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")))
}

/// The whole state of the show.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// What is going on.
    pub scene: String,
    pub seen: Vec<Seen>,
}

#[derive(Debug)]
pub struct Board(watch::Sender<State>);

impl Board {
    pub fn new(cases: usize) -> Self {
        Self(watch::Sender::new(State { scene: String::new(), seen: vec![Seen::default(); cases] }))
    }

    pub fn scene(&self, scene: &str) {
        self.0.send_modify(|state| scene.clone_into(&mut state.scene));
    }

    /// Changes what was seen of a case; wakes the others only when that is news.
    pub fn see(&self, case: usize, change: impl FnOnce(&mut Seen)) {
        self.0.send_if_modified(|state| {
            let Some(seen) = state.seen.get_mut(case) else { return false };
            let before = seen.clone();
            change(seen);
            *seen != before
        });
    }

    pub fn state(&self) -> State {
        self.0.borrow().clone()
    }

    pub fn changes(&self) -> watch::Receiver<State> {
        self.0.subscribe()
    }

    /// Waits until all cases that can have ended have, and those polled meanwhile were; at most for `patience`.
    pub async fn until_ended(&self, cases: &[Case], ends: Ends, patience: Duration) {
        let mut changes = self.changes();
        let ended = changes.wait_for(|state| {
            cases.iter().zip(&state.seen).all(|(case, seen)| {
                let ended = seen.is_final || seen.error.is_some();
                ended || (case.ends > ends && (ends < Ends::AtFirstPoll || !seen.checks.is_empty()))
            })
        });
        // Too late is not lost: what is missing is told at the end.
        let _too_late = tokio::time::timeout(patience, ended).await.is_err();
    }
}

/// What is seen of a case when all is well.
#[cfg(test)]
pub fn as_expected(case: &Case) -> Seen {
    let expected = &case.expected;
    Seen {
        heard: expected.heard.to_vec(),
        status: expected.status.to_owned(),
        sub_code: expected.sub_code.map(str::to_owned),
        score: expected.score.map(str::to_owned),
        is_final: case.ends != Ends::Never,
        checks: match expected.checks {
            Checks::Exactly(codes) => codes.iter().map(ToString::to_string).collect(),
            Checks::Begin(first) => vec![first.to_owned(); 12],
        },
        took: Some(Duration::from_millis(999)),
        trouble: expected.trouble.map(str::to_owned),
        ..Seen::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::cases::cases;
    use super::*;

    #[test]
    fn what_is_as_expected_has_no_differences() {
        for case in cases() {
            assert_eq!(differences(&case, &as_expected(&case)), Vec::<String>::new(), "{}", case.name);
        }
    }

    #[test]
    fn another_status_is_a_difference_in_every_case() {
        for case in cases() {
            let other = if case.expected.status == "passed" { "failed" } else { "passed" };
            let seen = Seen { status: other.to_owned(), ..as_expected(&case) };
            assert_eq!(differences(&case, &seen).len(), 1, "{}", case.name);
        }
    }

    #[test]
    fn each_difference_is_named() {
        let case = &cases()[0];
        let good = as_expected(case);
        for (seen, expected) in [
            (Seen { status: "failed".into(), ..good.clone() }, "status: expected passed, got failed"),
            (Seen { status: String::new(), ..good.clone() }, "status: expected passed, got none"),
            (Seen { sub_code: None, ..good.clone() }, "sub-code: expected 200, got none"),
            (Seen { heard: vec![401, 200], ..good.clone() }, "answers to callbacks: expected 200, got 401, 200"),
            (Seen { score: Some("1.5".into()), ..good.clone() }, "score: expected 99.99, got 1.5"),
            (
                Seen { trouble: Some("bad_key".into()), ..good.clone() },
                "trouble of the account: expected none, got bad_key",
            ),
            (Seen { checks: vec![], ..good.clone() }, "checks: expected 200, got none"),
            (Seen { error: Some("no answer".into()), ..good.clone() }, "could not be played: no answer"),
        ] {
            assert_eq!(differences(case, &seen), [expected]);
        }
    }

    #[test]
    fn what_the_service_says_is_read() {
        let mut seen = Seen::default();
        let body = json!({"status": "passed", "sub_code": "200", "final": true, "callback_at": null,
            "scores": {"face_comparison": 99.99, "face_quality": 95}, "registered_at": "2026-01-15T08:30:00.000000Z", "final_at": "2026-01-15T08:35:00.250000Z"});
        let history = json!({"items": [{"kind": "registered"}, {"kind": "check", "code": "P"}, {"kind": "check"}]});
        seen.update(&body, checks(&history));
        assert_eq!((seen.status.as_str(), seen.sub_code.as_deref(), seen.is_final), ("passed", Some("200"), true));
        assert_eq!((seen.took, seen.score.as_deref()), (Some(Duration::from_millis(300_250)), Some("99.99")));
        assert_eq!(seen.checks, ["P", "?"]);
    }

    #[tokio::test]
    async fn only_news_wakes_those_who_wait() {
        let board = Board::new(1);
        let changes = board.changes();
        board.see(0, |seen| seen.is_final = false);
        assert!(!changes.has_changed().unwrap());
        board.see(0, |seen| seen.is_final = true);
        assert!(changes.has_changed().unwrap());
    }
}

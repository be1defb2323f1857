//! The cases: what the person, the provider and the callbacks do in each, and what must come of it.

use std::time::Duration;

use crate::simulator::{ErrorForm, Fault, FaultKind};

/// The accounts of the demo. Trouble of one is kept apart from the others.
pub const MAIN: &str = "alibaba-sg";
pub const THROTTLED: &str = "alibaba-hk";
pub const KEY_REFUSED: &str = "alibaba-my";
/// The one without an account-wide token.
pub const WITHOUT_TOKEN: &str = "alibaba-id";
pub const ACCOUNTS: [&str; 4] = [MAIN, THROTTLED, KEY_REFUSED, WITHOUT_TOKEN];

/// The jumps of the clocks: each ends what could not end before.
pub const TO_FIRST_POLL: Duration = Duration::from_secs(5 * 60 + 5);
pub const TO_GIVING_UP: Duration = Duration::from_hours(24);
pub const TO_DEADLINE: Duration = Duration::from_hours(24 * 30);

/// What happens around the callback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Story {
    /// The person finishes and so many callbacks come.
    CalledBack(u32),
    /// The person finishes; the callback is lost.
    CallbackLost,
    /// The callback comes before the registration.
    CallbackEarly,
    /// Somebody who does not know the token calls first.
    CallbackForged,
    /// The merchant gave no token.
    NoToken,
    /// The provider does not know the transaction.
    Unknown,
    /// The person never finishes.
    Abandoned,
}

/// When a case can end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ends {
    Soon,
    AtFirstPoll,
    WhenGivenUp,
    AtDeadline,
}

/// The codes of the checks, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checks {
    Exactly(&'static [&'static str]),
    /// This one first; how many follow is up to chance.
    Begin(&'static str),
}

#[derive(Clone, Copy, Debug)]
pub struct Expected {
    pub status: &'static str,
    pub sub_code: Option<&'static str>,
    /// How the service answered the callbacks.
    pub callbacks: &'static [u16],
    pub checks: Checks,
}

#[derive(Clone, Debug)]
pub struct Case {
    pub name: &'static str,
    pub account: &'static str,
    /// The outcome that the provider has; `None`: passed.
    pub sub_code: Option<&'static str>,
    pub not_completed_calls: u32,
    pub pending_calls: u32,
    pub faults: Option<Fault>,
    pub story: Story,
    pub ends: Ends,
    pub expected: Expected,
}

impl Case {
    /// One that passes at once.
    fn new(name: &'static str) -> Self {
        Self {
            name,
            account: MAIN,
            sub_code: None,
            not_completed_calls: 0,
            pending_calls: 0,
            faults: None,
            story: Story::CalledBack(1),
            ends: Ends::Soon,
            expected: Expected {
                status: "passed",
                sub_code: Some("200"),
                callbacks: &[200],
                checks: Checks::Exactly(&["200"]),
            },
        }
    }

    /// One that the provider decides against the person.
    fn failed(name: &'static str, sub_code: &'static str, checks: &'static [&'static str]) -> Self {
        let case = Self::new(name);
        let expected =
            Expected { status: "failed", sub_code: Some(sub_code), checks: Checks::Exactly(checks), ..case.expected };
        Self { sub_code: Some(sub_code), expected, ..case }
    }

    fn story(self, story: Story, callbacks: &'static [u16]) -> Self {
        Self { story, expected: Expected { callbacks, ..self.expected }, ..self }
    }

    fn account(self, account: &'static str) -> Self {
        Self { account, ..self }
    }

    fn checks(self, checks: &'static [&'static str]) -> Self {
        Self { expected: Expected { checks: Checks::Exactly(checks), ..self.expected }, ..self }
    }

    fn faults(self, kind: FaultKind, times: u32) -> Self {
        Self { faults: Some(Fault { kind, times: Some(times), ..fault() }), ..self }
    }

    fn ends(self, ends: Ends) -> Self {
        Self { ends, ..self }
    }

    /// One that ends without a verdict of the provider.
    fn without_verdict(self, status: &'static str) -> Self {
        Self { expected: Expected { status, sub_code: None, ..self.expected }, ..self }
    }
}

fn fault() -> Fault {
    Fault { operation: Some("CheckResult".to_owned()), form: ErrorForm::Json, ..Fault::default() }
}

/// All cases, in the order in which they begin.
pub fn cases() -> Vec<Case> {
    let key_refused = Fault {
        kind: FaultKind::Code,
        code: Some("InvalidAccessKeyId.NotFound".to_owned()),
        times: Some(1),
        ..fault()
    };
    let throttled = Fault { kind: FaultKind::Throttle, retry_after_ms: Some(1200), times: Some(1), ..fault() };
    let down = Fault { kind: FaultKind::Status, share: Some(1.0), ..fault() };
    let deadline = Case::new("provider down 30 days");
    vec![
        Case::new("passed"),
        Case::failed("faces differ", "204", &["204"]),
        Case::failed("face not alive", "205", &["205"]),
        Case::failed("device not trusted", "206", &["206"]),
        Case::failed("face known already", "233", &["233"]),
        Case::new("callback lost").story(Story::CallbackLost, &[]).ends(Ends::AtFirstPoll),
        Case::new("callback twice").story(Story::CalledBack(2), &[200, 200]),
        Case::new("callback too early").story(Story::CallbackEarly, &[202]),
        Case::new("callback forged").story(Story::CallbackForged, &[401, 200]),
        Case::new("callback without token").story(Story::NoToken, &[200]).account(WITHOUT_TOKEN),
        Case::new("provider fails twice").faults(FaultKind::Status, 2).checks(&[
            "InternalError",
            "InternalError",
            "200",
        ]),
        Case { faults: Some(throttled), ..Case::new("provider throttles") }
            .account(THROTTLED)
            .checks(&["Throttling.User", "200"]),
        Case::new("provider sends garbage").faults(FaultKind::Garbage, 1).checks(&["unreadable_answer", "200"]),
        Case { not_completed_calls: 2, ..Case::new("result not there yet") }.checks(&[
            "ProcessNotCompleted",
            "ProcessNotCompleted",
            "200",
        ]),
        Case { pending_calls: 1, ..Case::failed("result pending", "204", &["P", "204"]) },
        Case { faults: Some(key_refused), ..Case::new("access key refused") }
            .account(KEY_REFUSED)
            .checks(&["InvalidAccessKeyId.NotFound", "200"]),
        Case::new("transaction unknown")
            .story(Story::Unknown, &[200])
            .checks(&["TransactionIdInvalid"])
            .without_verdict("unresolvable"),
        Case::new("person gives up")
            .story(Story::Abandoned, &[])
            .ends(Ends::WhenGivenUp)
            .checks(&["ProcessNotCompleted", "ProcessNotCompleted"])
            .without_verdict("void"),
        Case {
            faults: Some(down),
            expected: Expected { checks: Checks::Begin("InternalError"), ..deadline.expected },
            ..deadline
        }
        .account(WITHOUT_TOKEN)
        .ends(Ends::AtDeadline)
        .without_verdict("expired"),
        // The last to begin: the service is stopped right after its callback.
        Case { not_completed_calls: 1, ..Case::new("service restarted") }.checks(&["ProcessNotCompleted", "200"]),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_case_has_a_name_of_its_own_and_an_account_of_the_demo() {
        let cases = cases();
        assert!(cases.len() >= 14);
        let names: BTreeSet<_> = cases.iter().map(|case| case.name).collect();
        assert_eq!(names.len(), cases.len());
        assert!(cases.iter().all(|case| ACCOUNTS.contains(&case.account)));
    }

    #[test]
    fn trouble_of_an_account_meets_nobody_else() {
        for account in [THROTTLED, KEY_REFUSED] {
            assert_eq!(cases().iter().filter(|case| case.account == account).count(), 1, "{account}");
        }
    }
}

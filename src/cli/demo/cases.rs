//! The cases: what the person, the provider and whoever tells of it do in each, and what must come of it.

use std::time::Duration;

use crate::simulator::{Fault, FaultKind, Provider, ZolozOutcome, ZolozProduct};

/// The accounts of the demo. Trouble of one is kept apart from the others.
pub const MAIN: &str = "alibaba-sg";
pub const THROTTLED: &str = "alibaba-hk";
pub const KEY_REFUSED: &str = "alibaba-my";
/// The one without an account-wide token.
pub const WITHOUT_TOKEN: &str = "alibaba-id";
pub const ALIBABA: [&str; 4] = [MAIN, THROTTLED, KEY_REFUSED, WITHOUT_TOKEN];
/// With a pair of keys, and encrypted.
pub const ZOLOZ: &str = "zoloz-sg";
/// With an access key.
pub const ZOLOZ_AK_SK: &str = "zoloz-hk";
/// The one whose merchant key is not the one that the provider knows.
pub const ZOLOZ_WRONG_KEY: &str = "zoloz-id";

/// The jumps of the clocks: each ends what could not end before.
pub const TO_FIRST_POLL: Duration = Duration::from_secs(5 * 60 + 5);
pub const TO_GIVING_UP: Duration = Duration::from_hours(24);
pub const TO_DEADLINE: Duration = Duration::from_hours(24 * 30);

/// What happens until the service knows, or not, that the person is done.
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
    /// The person finishes, and the app says so to the service.
    Collected,
    /// The service itself starts the transaction. Alibaba calls back; from ZOLOZ the browser comes back.
    Initialized,
}

/// When a case can end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ends {
    Soon,
    AtFirstPoll,
    WhenGivenUp,
    AtDeadline,
    /// Not while the demo lasts.
    Never,
}

/// What the provider has to say once the person has finished.
#[derive(Clone, Debug)]
pub enum Process {
    Alibaba {
        /// `None`: passed.
        sub_code: Option<&'static str>,
        not_completed_calls: u32,
        pending_calls: u32,
    },
    Zoloz {
        product: ZolozProduct,
        outcome: Box<ZolozOutcome>,
        processing_calls: u32,
    },
}

impl Process {
    pub fn provider(&self) -> Provider {
        match self {
            Self::Alibaba { .. } => Provider::Alibaba,
            Self::Zoloz { .. } => Provider::Zoloz,
        }
    }
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
    /// The score of the comparison of faces.
    pub score: Option<&'static str>,
    /// How the service answered those who told it that the person is done.
    pub heard: &'static [u16],
    pub checks: Checks,
    /// What there is of images and videos, where the case is about them.
    pub evidence: Option<&'static str>,
    /// What is wrong with the account at the end.
    pub trouble: Option<&'static str>,
}

#[derive(Clone, Debug)]
pub struct Case {
    pub name: &'static str,
    pub account: &'static str,
    pub process: Process,
    pub fault: Option<Fault>,
    /// The provider records a video.
    pub video: bool,
    pub story: Story,
    pub ends: Ends,
    pub expected: Expected,
}

impl Case {
    /// One at Alibaba that passes at once.
    fn alibaba(name: &'static str) -> Self {
        Self {
            name,
            account: MAIN,
            process: Process::Alibaba { sub_code: None, not_completed_calls: 0, pending_calls: 0 },
            fault: None,
            video: false,
            story: Story::CalledBack(1),
            ends: Ends::Soon,
            expected: Expected {
                status: "passed",
                sub_code: Some("200"),
                score: Some("99.99"),
                heard: &[200],
                checks: Checks::Exactly(&["200"]),
                evidence: None,
                trouble: None,
            },
        }
    }

    /// One that Alibaba decides against the person.
    fn alibaba_failed(name: &'static str, code: &'static str, score: &'static str) -> Self {
        let case = Self::alibaba(name).verdict("failed", code, Some(score));
        Self { process: Process::Alibaba { sub_code: Some(code), not_completed_calls: 0, pending_calls: 0 }, ..case }
    }

    /// One with ZOLOZ Connect that passes at once.
    fn zoloz(name: &'static str) -> Self {
        let process = Process::Zoloz { product: ZolozProduct::Connect, outcome: Box::default(), processing_calls: 0 };
        let case = Self { account: ZOLOZ, process, ..Self::alibaba(name) }.verdict("passed", "SUCCESS", Some("96.5"));
        case.checks(&["SUCCESS"]).story(Story::Collected, &[202])
    }

    fn verdict(self, status: &'static str, sub_code: &'static str, score: Option<&'static str>) -> Self {
        Self { expected: Expected { status, sub_code: Some(sub_code), score, ..self.expected }, ..self }
    }

    fn story(self, story: Story, heard: &'static [u16]) -> Self {
        Self { story, expected: Expected { heard, ..self.expected }, ..self }
    }

    fn account(self, account: &'static str) -> Self {
        Self { account, ..self }
    }

    fn checks(self, checks: &'static [&'static str]) -> Self {
        Self { expected: Expected { checks: Checks::Exactly(checks), ..self.expected }, ..self }
    }

    /// The first check, where nobody knows how many follow.
    fn first_check(self, code: &'static str) -> Self {
        Self { expected: Expected { checks: Checks::Begin(code), ..self.expected }, ..self }
    }

    /// The process has no result for so many calls after the person finished.
    fn not_yet(self, calls: u32) -> Self {
        let process = match self.process {
            Process::Alibaba { sub_code, pending_calls, .. } => {
                Process::Alibaba { sub_code, not_completed_calls: calls, pending_calls }
            }
            Process::Zoloz { product, outcome, .. } => Process::Zoloz { product, outcome, processing_calls: calls },
        };
        Self { process, ..self }
    }

    /// Of ZOLOZ: this product says this.
    fn says(self, product: ZolozProduct, outcome: ZolozOutcome) -> Self {
        Self { process: Process::Zoloz { product, outcome: Box::new(outcome), processing_calls: 0 }, ..self }
    }

    /// The next checks go wrong: one, unless the fault says more.
    fn fault(self, fault: Fault) -> Self {
        Self { fault: Some(fault), ..self }
    }

    /// Its images and its video are stored.
    fn with_video(self) -> Self {
        let evidence = Some("face_image stored, reference_image stored, video stored");
        Self { video: true, expected: Expected { evidence, ..self.expected }, ..self }
    }

    /// Its account stays in trouble.
    fn trouble(self, trouble: &'static str) -> Self {
        Self { expected: Expected { trouble: Some(trouble), ..self.expected }, ..self }
    }

    fn ends(self, ends: Ends) -> Self {
        Self { ends, ..self }
    }

    /// One that ends without a verdict of the provider.
    fn without_verdict(self, status: &'static str) -> Self {
        Self { expected: Expected { status, sub_code: None, score: None, ..self.expected }, ..self }
    }
}

fn fault(kind: FaultKind) -> Fault {
    Fault { kind, ..Fault::default() }
}

/// All cases, those of a provider in the order in which they begin.
pub fn cases() -> Vec<Case> {
    let mut cases = alibaba();
    cases.extend(zoloz());
    cases
}

fn alibaba() -> Vec<Case> {
    let link_dead = Fault { operation: Some("Video".to_owned()), status: Some(403), ..fault(FaultKind::Status) };
    let key_refused = Fault { code: Some("InvalidAccessKeyId.NotFound".to_owned()), ..fault(FaultKind::Code) };
    vec![
        Case::alibaba("passed"),
        Case::alibaba("started by Checkback").story(Story::Initialized, &[200]),
        Case::alibaba_failed("faces differ", "204", "41.27").checks(&["204"]),
        Case::alibaba_failed("face not alive", "205", "99.99").checks(&["205"]),
        Case::alibaba_failed("device not trusted", "206", "99.99").checks(&["206"]),
        Case::alibaba_failed("face known already", "233", "99.99").checks(&["233"]),
        Case::alibaba("callback lost").story(Story::CallbackLost, &[]).ends(Ends::AtFirstPoll),
        Case::alibaba("callback twice").story(Story::CalledBack(2), &[200, 200]),
        Case::alibaba("callback too early").story(Story::CallbackEarly, &[202]),
        Case::alibaba("callback forged").story(Story::CallbackForged, &[401, 200]),
        Case::alibaba("callback without token").story(Story::NoToken, &[200]).account(WITHOUT_TOKEN),
        Case::alibaba("provider fails twice").fault(Fault { times: Some(2), ..fault(FaultKind::Status) }).checks(&[
            "InternalError",
            "InternalError",
            "200",
        ]),
        Case::alibaba("provider throttles")
            .fault(Fault { retry_after_ms: Some(1200), ..fault(FaultKind::Throttle) })
            .account(THROTTLED)
            .checks(&["Throttling.User", "200"]),
        Case::alibaba("provider sends garbage").fault(fault(FaultKind::Garbage)).checks(&["unreadable_answer", "200"]),
        Case::alibaba("result not there yet").not_yet(2).checks(&["ProcessNotCompleted", "ProcessNotCompleted", "200"]),
        Case {
            process: Process::Alibaba { sub_code: Some("204"), not_completed_calls: 0, pending_calls: 1 },
            ..Case::alibaba_failed("result pending", "204", "41.27")
        }
        .checks(&["P", "204"]),
        Case::alibaba("access key refused")
            .fault(key_refused)
            .account(KEY_REFUSED)
            .checks(&["InvalidAccessKeyId.NotFound", "200"]),
        Case::alibaba("with a video").with_video(),
        // The provider is asked for a new link.
        Case::alibaba("link of video dead").with_video().fault(link_dead).checks(&["200", "200"]),
        Case::alibaba("transaction unknown")
            .story(Story::Unknown, &[200])
            .checks(&["TransactionIdInvalid"])
            .without_verdict("unresolvable"),
        Case::alibaba("person gives up")
            .story(Story::Abandoned, &[])
            .ends(Ends::WhenGivenUp)
            .checks(&["ProcessNotCompleted", "ProcessNotCompleted"])
            .without_verdict("void"),
        Case::alibaba("provider down 30 days")
            .fault(Fault { share: Some(1.0), ..fault(FaultKind::Status) })
            .first_check("InternalError")
            .account(WITHOUT_TOKEN)
            .ends(Ends::AtDeadline)
            .without_verdict("expired"),
        // The last to begin: the service is stopped right after its callback.
        Case::alibaba("service restarted").not_yet(1).checks(&["ProcessNotCompleted", "200"]),
    ]
}

fn zoloz() -> Vec<Case> {
    use ZolozProduct::{Connect, FaceCapture, RealId};
    let code = |code: &str| ZolozOutcome { result_code: Some(code.to_owned()), ..ZolozOutcome::default() };
    let result = |result: &str| ZolozOutcome { product_result: Some(result.to_owned()), ..ZolozOutcome::default() };
    let attack = ZolozOutcome { face_attack: Some(true), ..ZolozOutcome::default() };
    let deeper = ZolozOutcome { deeper_result: Some("Failure".to_owned()), ..ZolozOutcome::default() };
    vec![
        Case::zoloz("app says it is done"),
        Case::zoloz("browser comes back").story(Story::Initialized, &[303]),
        Case::zoloz("still processing").not_yet(2).checks(&["PROCESSING", "PROCESSING", "SUCCESS"]),
        Case::zoloz("not the same person").says(Connect, code("NOT_SAME_PERSON")).checks(&["NOT_SAME_PERSON"]).verdict(
            "failed",
            "NOT_SAME_PERSON",
            Some("12.75"),
        ),
        Case::zoloz("face attack").says(Connect, attack).verdict("failed", "SUCCESS", Some("96.5")),
        Case::zoloz("left to a person").says(Connect, deeper).verdict("review", "SUCCESS", Some("96.5")),
        Case::zoloz("timed out at ZOLOZ").says(Connect, result("VoidTimeout")).verdict("void", "SUCCESS", None),
        Case::zoloz("Real ID fails").says(RealId, result("Failure")).verdict("failed", "SUCCESS", Some("96.5")),
        Case::zoloz("Face Capture passes")
            .says(FaceCapture, ZolozOutcome::default())
            .verdict("passed", "SUCCESS", None),
        Case::zoloz("with an access key").account(ZOLOZ_AK_SK),
        Case::zoloz("answer tampered with").fault(fault(FaultKind::Tamper)).checks(&["response_signature", "SUCCESS"]),
        Case::zoloz("answer by wrong key").fault(fault(FaultKind::WrongKey)).checks(&["response_signature", "SUCCESS"]),
        Case::zoloz("image missing")
            .says(Connect, code("UNABLE_GET_IMAGE"))
            .checks(&["UNABLE_GET_IMAGE"])
            .without_verdict("unresolvable"),
        Case::zoloz("merchant key wrong")
            .account(ZOLOZ_WRONG_KEY)
            .first_check("SIGNATURE_INVALID")
            .ends(Ends::Never)
            .trouble("bad_signature")
            .without_verdict("collecting"),
        Case::zoloz("person walks away")
            .story(Story::Abandoned, &[])
            .ends(Ends::WhenGivenUp)
            .checks(&["PROCESSING", "PROCESSING"])
            .without_verdict("void"),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_case_has_a_name_of_its_own_and_an_account_of_its_provider() {
        let cases = cases();
        let names: BTreeSet<_> = cases.iter().map(|case| case.name).collect();
        assert_eq!(names.len(), cases.len());
        for provider in [Provider::Alibaba, Provider::Zoloz] {
            let ours = cases.iter().filter(|case| case.process.provider() == provider);
            let accounts: BTreeSet<_> = ours.clone().map(|case| case.account).collect();
            let expected = match provider {
                Provider::Alibaba => BTreeSet::from(ALIBABA),
                Provider::Zoloz => BTreeSet::from([ZOLOZ, ZOLOZ_AK_SK, ZOLOZ_WRONG_KEY]),
            };
            assert_eq!(accounts, expected);
            assert!(ours.count() >= 14);
        }
    }

    #[test]
    fn trouble_of_an_account_meets_nobody_else() {
        for account in [THROTTLED, KEY_REFUSED, ZOLOZ_WRONG_KEY] {
            assert_eq!(cases().iter().filter(|case| case.account == account).count(), 1, "{account}");
        }
    }
}

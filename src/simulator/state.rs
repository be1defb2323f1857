//! What all parts of one simulator share.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;

use super::Settings;
use super::alibaba::Alibaba;
use super::calls::CallLog;
use super::clock::SimulatorClock;
use super::faults::Faults;
use super::random::Random;

/// How long a callback may take.
const CALLBACK_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) struct SimulatorState {
    pub(super) clock: SimulatorClock,
    pub(super) random: Arc<Random>,
    pub(super) calls: CallLog,
    pub(super) faults: Faults,
    /// Sends callbacks.
    pub(super) callbacks: reqwest::Client,
    pub(super) alibaba: Alibaba,
}

impl SimulatorState {
    pub(super) fn new(settings: &Settings) -> anyhow::Result<Self> {
        let random = Arc::new(Random::new(settings.seed));
        Ok(Self {
            clock: SimulatorClock::new(),
            calls: CallLog::new(settings.call_log_capacity),
            faults: Faults::default(),
            callbacks: callback_client().context("cannot make the client that sends callbacks")?,
            alibaba: Alibaba::new(settings, Arc::clone(&random)),
            random,
        })
    }
}

#[expect(clippy::disallowed_methods, reason = "the simulator is independent of the service's HTTP client")]
fn callback_client() -> reqwest::Result<reqwest::Client> {
    reqwest::Client::builder()
        .timeout(CALLBACK_TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .user_agent("provider-simulator")
        .build()
}

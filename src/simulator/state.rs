//! What all parts of one simulator share.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use serde::Deserialize;
use serde_json::Value;

use super::Settings;
use super::alibaba::Alibaba;
use super::calls::CallLog;
use super::clock::SimulatorClock;
use super::faults::{Faults, Provider};
use super::random::Random;
use super::zoloz::Zoloz;
use super::zoloz::commands::ZolozTransaction;
use super::{ControlError, CreateTransaction, CreatedTransaction};

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
    pub(super) zoloz: Zoloz,
}

impl SimulatorState {
    pub(super) fn new(settings: &Settings) -> anyhow::Result<Self> {
        let random = Arc::new(Random::new(settings.seed));
        Ok(Self {
            clock: SimulatorClock::new(settings.clock_stands_at),
            calls: CallLog::new(settings.call_log_capacity),
            faults: Faults::default(),
            callbacks: callback_client().context("cannot make the client that sends callbacks")?,
            alibaba: Alibaba::new(settings, Arc::clone(&random)),
            zoloz: Zoloz::new(settings, Arc::clone(&random)),
            random,
        })
    }

    /// An id names one transaction, whichever provider has it.
    pub(super) fn create(&self, transaction: NewTransaction) -> Result<CreatedTransaction, ControlError> {
        let now = self.clock.now();
        let taken = |id: &Option<String>, taken: bool| match id {
            Some(id) if taken => Err(ControlError::TransactionExists(id.clone())),
            _ => Ok(()),
        };
        match transaction {
            NewTransaction::Alibaba(command) => {
                let id = &command.transaction_id;
                taken(id, id.as_deref().is_some_and(|id| self.zoloz.knows(id)))?;
                self.alibaba.create(*command, now)
            }
            NewTransaction::Zoloz(command) => {
                let id = &command.transaction_id;
                taken(id, id.as_deref().is_some_and(|id| self.alibaba.view(id).is_some()))?;
                self.zoloz.create(*command, now)
            }
        }
    }
}

/// A transaction to make at the provider its member `provider` names, which is Alibaba when there is none.
#[derive(Debug, Deserialize)]
#[serde(try_from = "Value")]
pub(super) enum NewTransaction {
    Alibaba(Box<CreateTransaction>),
    Zoloz(Box<ZolozTransaction>),
}

impl TryFrom<Value> for NewTransaction {
    type Error = serde_json::Error;

    fn try_from(mut value: Value) -> Result<Self, Self::Error> {
        let provider = value.as_object_mut().and_then(|members| members.remove("provider"));
        let provider = provider.map(serde_json::from_value).transpose()?.unwrap_or_default();
        Ok(match provider {
            Provider::Alibaba => Self::Alibaba(serde_json::from_value(value)?),
            Provider::Zoloz => Self::Zoloz(serde_json::from_value(value)?),
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

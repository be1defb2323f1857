//! The identity-verification providers, simulated: for `checkback simulate`, the demo and the tests.
//!
//! Independent of the rest of the crate: it has its own wire types, its own signature check, its own clock and its own
//! randomness, because a fake that shares code with the client proves nothing. State lives in memory and ends with the
//! process. Each provider has a folder; `control` and the files beside it serve all of them.

mod alibaba;
mod broken;
mod calls;
mod clock;
mod control;
mod faults;
mod random;
mod rate;
mod serve;
mod state;
#[cfg(test)]
mod tests;
mod zoloz;

use std::fmt;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{Response, header};
use axum::middleware;
use axum::routing::{any, get};
use chrono::{DateTime, Utc};
use secrecy::SecretString;
use serde::Deserialize;
use tokio::net::TcpListener;

pub use self::alibaba::commands::{
    Answer, CallbackMethod, CallbackSpelling, Complete, CompletedTransaction, CreateTransaction, CreatedTransaction,
    SendCallbacks, TransactionView,
};
pub use self::calls::Call;
pub use self::clock::ClockMove;
pub use self::faults::{ErrorForm, Fault, FaultKind, Provider};
pub use self::zoloz::commands::{
    CompletedZoloz, ZolozComplete, ZolozOutcome, ZolozProduct, ZolozTransaction, ZolozView,
};
pub use self::zoloz::{ZolozCredentials, ZolozKeys};

use self::state::{NewTransaction, SimulatorState};

/// A reference photo travels in the body of Initialize.
const LARGEST_BODY: usize = 32 * 1024 * 1024;

#[derive(Clone, Debug)]
pub struct Settings {
    pub access_key_id: String,
    pub access_key_secret: SecretString,
    /// When set, every call must carry this token of a temporary key; else any token is taken.
    pub security_token: Option<SecretString>,
    /// Calls a second and operation; `None`: unlimited.
    pub qps: Option<u32>,
    /// Makes ids repeat from run to run.
    pub seed: Option<u64>,
    /// A JSON file with transactions and faults to begin with.
    pub scenario: Option<PathBuf>,
    /// How many calls are remembered.
    pub call_log_capacity: usize,
    /// Take a `CallbackUrl` with `http` to other machines too, for containers side by side.
    pub allow_http_callbacks: bool,
    /// The clock stands still at this time until it is moved, and calls are recorded and limited by it too.
    pub clock_stands_at: Option<DateTime<Utc>>,
    /// The clients of ZOLOZ; `None`: one with keys made at the first use, the same for all simulators of the process.
    pub zoloz_keys: Option<ZolozKeys>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            access_key_id: "sim-key-id".to_owned(),
            access_key_secret: "sim-key-secret".into(),
            security_token: None,
            qps: None,
            seed: None,
            scenario: None,
            call_log_capacity: 1_000_000,
            allow_http_callbacks: false,
            clock_stands_at: None,
            zoloz_keys: None,
        }
    }
}

/// Why control did not do what it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    #[error("there is no transaction {0}")]
    UnknownTransaction(String),
    #[error("transaction {0} exists already")]
    TransactionExists(String),
    #[error("{0}")]
    Invalid(String),
}

/// A scenario file. A list of transactions alone is one too.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Scenario {
    transactions: Vec<NewTransaction>,
    faults: Vec<Fault>,
}

impl Scenario {
    fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)?;
        Ok(if text.trim_start().starts_with('[') {
            Self { transactions: serde_json::from_str(&text)?, faults: Vec::new() }
        } else {
            serde_json::from_str(&text)?
        })
    }
}

/// A running simulator; clones are handles of the same one.
#[derive(Clone)]
pub struct Simulator(Arc<SimulatorState>);

impl fmt::Debug for Simulator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Simulator")
    }
}

impl Simulator {
    pub fn new(settings: &Settings) -> anyhow::Result<Self> {
        let simulator = Self(Arc::new(SimulatorState::new(settings)?));
        if let Some(path) = &settings.scenario {
            let wrong = || format!("cannot use scenario {}", path.display());
            let Scenario { transactions, faults } = Scenario::read(path).with_context(wrong)?;
            for transaction in transactions {
                simulator.0.create(transaction).with_context(wrong)?;
            }
            for fault in faults {
                simulator.add_fault(fault).with_context(wrong)?;
            }
        }
        Ok(simulator)
    }

    pub fn router(&self) -> Router {
        Router::new()
            .route("/", any(alibaba::gateway::call))
            .route("/_sim/videos/{file}", get(alibaba::gateway::video))
            .route("/api/{*path}", any(zoloz::gateway::call))
            .merge(control::routes())
            .layer(DefaultBodyLimit::max(LARGEST_BODY))
            .layer(middleware::map_response_with_state(Arc::clone(&self.0), with_date))
            .with_state(Arc::clone(&self.0))
    }

    /// Serves until `shutdown`; then what is in flight gets a second.
    pub async fn serve(
        self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> std::io::Result<()> {
        serve::serve(listener, self.router(), shutdown).await;
        Ok(())
    }

    /// Makes a transaction at Alibaba as if Initialize had been called for it.
    pub fn create(&self, command: CreateTransaction) -> Result<CreatedTransaction, ControlError> {
        self.0.create(NewTransaction::Alibaba(Box::new(command)))
    }

    /// Finishes a transaction and sends its callbacks, in the background unless `wait` is set.
    pub async fn complete(&self, id: &str, command: Complete) -> Result<CompletedTransaction, ControlError> {
        alibaba::control::complete(&self.0, id, command).await
    }

    /// Sends callbacks without finishing anything, also for transactions unknown here. Gives the status of each
    /// answer (0 for none) when `wait` is set, else nothing.
    pub async fn send_callbacks(&self, id: &str, command: SendCallbacks) -> Result<Vec<u16>, ControlError> {
        alibaba::control::send_callbacks(&self.0, id, command).await
    }

    pub fn transaction(&self, id: &str) -> Option<TransactionView> {
        self.0.alibaba.view(id)
    }

    /// Makes a transaction at ZOLOZ.
    pub fn create_zoloz(&self, command: ZolozTransaction) -> Result<CreatedTransaction, ControlError> {
        self.0.create(NewTransaction::Zoloz(Box::new(command)))
    }

    /// Finishes a transaction of ZOLOZ. There is no callback; the browser's way back is in the answer when asked for.
    pub fn complete_zoloz(&self, id: &str, command: ZolozComplete) -> Result<CompletedZoloz, ControlError> {
        self.0.zoloz.complete(id, command, self.0.clock.now())
    }

    pub fn zoloz_transaction(&self, id: &str) -> Option<ZolozView> {
        self.0.zoloz.view(id)
    }

    /// The keys of the clients of ZOLOZ.
    pub fn zoloz_keys(&self) -> ZolozKeys {
        self.0.zoloz.keys()
    }

    pub fn add_fault(&self, fault: Fault) -> Result<(), ControlError> {
        self.0.faults.add(fault)
    }

    pub fn clear_faults(&self) {
        self.0.faults.clear();
    }

    pub fn move_clock(&self, step: ClockMove) {
        self.0.clock.apply(step);
    }

    pub fn now(&self) -> DateTime<Utc> {
        self.0.clock.now()
    }

    /// The calls that are remembered, one line each, in the order of their arrival.
    pub fn calls(&self) -> Vec<String> {
        self.call_log().iter().map(ToString::to_string).collect()
    }

    pub fn call_log(&self) -> Vec<Call> {
        self.calls_after(0)
    }

    /// The calls that are remembered, without the first `after` ever received.
    pub fn calls_after(&self, after: u64) -> Vec<Call> {
        self.0.calls.after(after)
    }

    /// Calls received so far, forgotten ones included.
    pub fn call_count(&self) -> u64 {
        self.0.calls.count()
    }
}

/// All answers carry the simulator's time.
async fn with_date<B>(State(state): State<Arc<SimulatorState>>, mut response: Response<B>) -> Response<B> {
    response.headers_mut().entry(header::DATE).or_insert_with(|| state.clock.date_header());
    response
}

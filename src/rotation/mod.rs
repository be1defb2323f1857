//! Secrets that change while the service runs: files that settings name, and the chain of access keys.
//!
//! The files are looked at every few seconds and at SIGHUP. An account whose secret is another one gets a new provider,
//! an endpoint of webhooks other keys; calls under way end with the old one. What cannot be read or used leaves everything as it was, and is logged once.
//! Nothing but secrets is taken up: other settings need a restart.

mod providers;

use std::collections::BTreeSet;
use std::time::Duration;

use tracing::{info, warn};

use crate::app::signing_keys;
use crate::config::{Environment, Loaded};
use crate::domain::Trouble;
use crate::lifecycle::Reloads;
use crate::service::Service;

pub use providers::{Providers, callback_token};

/// How often the files are looked at.
const INTERVAL: Duration = Duration::from_secs(10);

/// What another secret may mend, so that it is worth a probe at once.
const OF_SECRETS: [&str; 3] =
    [Trouble::NoCredentials.as_str(), Trouble::BadKey.as_str(), Trouble::BadSignature.as_str()];

pub struct Rotation {
    loaded: Loaded,
    environment: Environment,
    providers: Providers,
    service: Service,
    /// Problems that were logged and are still there.
    known: BTreeSet<String>,
}

impl Rotation {
    pub fn new(loaded: Loaded, environment: Environment, providers: Providers, service: Service) -> Self {
        Self { loaded, environment, providers, service, known: BTreeSet::new() }
    }

    /// Looks until `stopping` resolves.
    pub async fn run(mut self, mut reloads: Reloads, stopping: impl Future<Output = ()>) {
        tokio::pin!(stopping);
        loop {
            tokio::select! {
                () = reloads.next() => {
                    info!("secrets are read again");
                    self.renew_chain().await;
                }
                () = tokio::time::sleep(INTERVAL) => {}
                () = &mut stopping => return,
            }
            self.look().await;
        }
    }

    /// Has the chain of access keys asked anew at its next use.
    pub async fn renew_chain(&self) {
        let Some(chain) = &self.providers.chain else { return };
        chain.refresh();
        for account in self.service.accounts.keys() {
            self.probe(account).await;
        }
    }

    /// Takes up what has changed in the files; returns the full names of the secrets in use from now on.
    pub async fn look(&mut self) -> Vec<String> {
        let reread = self.loaded.reread_secrets(&self.environment);
        let mut problems: BTreeSet<String> = reread.problems.into_iter().collect();
        let mut taken = Vec::new();
        for (name, settings) in &self.loaded.config.accounts {
            let prefix = format!("accounts.{name}.");
            let changed: Vec<&String> = reread.changed.iter().filter(|key| key.starts_with(&prefix)).collect();
            let Some(account) = self.service.accounts.get(name).filter(|_| !changed.is_empty()) else { continue };
            match self.providers.build(name, settings) {
                Ok(provider) => {
                    account.providers.set(provider);
                    account.callback_token.set(callback_token(settings));
                    info!(account = name, "changed secrets are in use: {}", words(&changed));
                    taken.extend(changed.into_iter().cloned());
                }
                Err(error) => {
                    problems.insert(format!("{error:#}"));
                }
            }
        }
        for (index, settings) in self.loaded.config.webhooks.iter().enumerate() {
            let prefix = format!("webhooks.{index}.");
            let changed: Vec<&String> = reread.changed.iter().filter(|key| key.starts_with(&prefix)).collect();
            let Some(endpoint) = self.service.endpoint(&settings.name).filter(|_| !changed.is_empty()) else {
                continue;
            };
            match signing_keys(settings) {
                Ok(keys) => {
                    endpoint.set_keys(keys);
                    info!(endpoint = endpoint.name, "changed secrets are in use: {}", words(&changed));
                    taken.extend(changed.into_iter().cloned());
                }
                Err(error) => {
                    problems.insert(format!("{error:#}"));
                }
            }
        }
        for problem in problems.difference(&self.known) {
            warn!("a changed secret is not taken up, the one before it stays in use: {problem}");
        }
        self.known = problems;
        for account in self.service.accounts.keys().filter(|name| {
            let prefix = format!("accounts.{name}.");
            taken.iter().any(|key| key.starts_with(&prefix))
        }) {
            self.probe(account).await;
        }
        taken
    }

    /// An account that failed for its key is tried at once.
    async fn probe(&self, account: &str) {
        match self.service.store.probe_now(account, &OF_SECRETS, self.service.clock.now()).await {
            Ok(true) => {
                self.service.wakes.account(account);
                self.service.wakes.tell_others([account.to_owned()], &[]);
            }
            Ok(false) => {}
            // Its next probe comes within a minute anyway.
            Err(error) => {
                warn!(error = &error as &dyn std::error::Error, account, "an account could not be probed at once");
            }
        }
    }
}

fn words(keys: &[&String]) -> String {
    keys.iter().map(|key| key.as_str()).collect::<Vec<_>>().join(", ")
}

//! The key in force, ready to sign. A temporary one is renewed before it ends, when somebody uses it: one renewal at a
//! time, and the key in hand serves as long as it is good.
//!
//! A key that cannot be had is trouble of the account, which the probes of the account try again.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, TimeDelta, Utc};
use tracing::{debug, info, warn};

use super::super::sign::Signer;
use super::Credentials;
use super::chain::{Chain, Fetched, Lasts, Step, Tried};
use crate::domain::{ProviderError, Trouble};

/// A key is renewed when a third of its life is left, and at the latest so long before its end; so do the SDKs.
const MARGIN: TimeDelta = TimeDelta::minutes(15);
/// How soon a renewal is tried again, be it that it failed or that the key had little life left from the start.
const PAUSE: TimeDelta = TimeDelta::seconds(30);
/// How often a file is looked at, so that a key replaced in it needs no restart.
const FILE_AGE: TimeDelta = TimeDelta::minutes(5);

/// Shared by all accounts that sign with the same keys; clones share the key.
#[derive(Clone)]
pub struct SigningKeys(Origin);

#[derive(Clone)]
enum Origin {
    Fixed(Arc<Signer>),
    Chain(Arc<Renewed>),
}

struct Renewed {
    chain: Chain,
    held: Mutex<Option<Held>>,
    /// Renewals that ended, so that who waited for one knows whether it was tried meanwhile.
    ended: AtomicU64,
    turn: tokio::sync::Mutex<Turn>,
}

#[derive(Clone)]
struct Held {
    signer: Arc<Signer>,
    /// When it was last fetched, or that was tried.
    tried_at: DateTime<Utc>,
    renew_at: DateTime<Utc>,
    ends_at: DateTime<Utc>,
}

/// What only the one who renews touches.
#[derive(Default)]
struct Turn {
    served: Option<Step>,
    /// How the last renewal failed, if it did.
    failed: Option<Failure>,
}

#[derive(Clone)]
struct Failure {
    code: String,
    /// In words, so that the same is not logged at each probe.
    said: String,
}

impl From<Credentials> for SigningKeys {
    fn from(credentials: Credentials) -> Self {
        Self(Origin::Fixed(Arc::new(Signer::new(credentials))))
    }
}

impl From<Chain> for SigningKeys {
    fn from(chain: Chain) -> Self {
        Self(Origin::Chain(Arc::new(Renewed {
            chain,
            held: Mutex::default(),
            ended: AtomicU64::new(0),
            turn: tokio::sync::Mutex::default(),
        })))
    }
}

impl SigningKeys {
    /// The key to sign with now. Asks nobody while the one in hand is fresh.
    pub async fn current(&self) -> Result<Arc<Signer>, ProviderError> {
        match &self.0 {
            Origin::Fixed(signer) => Ok(Arc::clone(signer)),
            Origin::Chain(renewed) => renewed.current().await,
        }
    }

    /// The next use looks for a newer key, because the operator says that there is one.
    pub fn refresh(&self) {
        if let Origin::Chain(renewed) = &self.0 {
            renewed.change(|held| held.renew_at = DateTime::UNIX_EPOCH);
        }
    }

    /// The provider refused this key: the next use looks for a newer one, at most every half minute.
    pub fn doubt(&self, refused: &Arc<Signer>) {
        if let Origin::Chain(renewed) = &self.0 {
            renewed.change(|held| {
                if Arc::ptr_eq(&held.signer, refused) {
                    held.renew_at = held.renew_at.min(held.tried_at + PAUSE);
                }
            });
        }
    }
}

impl Renewed {
    async fn current(&self) -> Result<Arc<Signer>, ProviderError> {
        let clock = &self.chain.clock;
        let held = self.held();
        let now = clock.now();
        if let Some(held) = held.as_ref().filter(|held| now < held.renew_at) {
            return Ok(Arc::clone(&held.signer));
        }
        let ended = self.ended.load(Ordering::Acquire);
        let mut turn = match held.filter(|held| now < held.ends_at) {
            // Good enough while somebody else renews it.
            Some(held) => match self.turn.try_lock() {
                Ok(turn) => turn,
                Err(_) => return Ok(held.signer),
            },
            None => self.turn.lock().await,
        };
        if let Some(held) = self.held().filter(|held| clock.now() < held.renew_at) {
            return Ok(held.signer);
        }
        match &turn.failed {
            // It was tried for all who waited.
            Some(failure) if self.ended.load(Ordering::Acquire) != ended => return Err(failure.error()),
            _ => {}
        }
        let result = self.renew(&mut turn).await;
        self.ended.fetch_add(1, Ordering::Release);
        result
    }

    async fn renew(&self, turn: &mut Turn) -> Result<Arc<Signer>, ProviderError> {
        let asked = self.chain.fetch(turn.served).await;
        let now = self.chain.clock.now();
        match asked {
            Ok((step, fetched, before)) => {
                match turn.served.replace(step) {
                    Some(_) if turn.failed.is_some() => {
                        info!(step = step.as_str(), "access keys come again from {step}");
                    }
                    Some(_) => debug!(step = step.as_str(), "the access key was renewed from {step}"),
                    None => info!(step = step.as_str(), "access keys come from {step}"),
                }
                if before.failed().is_some() {
                    warn!(step = step.as_str(), "steps before {step} were passed over: {before}");
                }
                turn.failed = None;
                let held = Held::new(fetched, now);
                let signer = Arc::clone(&held.signer);
                *self.lock() = Some(held);
                Ok(signer)
            }
            Err(tried) => {
                let still = self.held().filter(|held| now < held.ends_at);
                let failure = Failure::new(&tried);
                if turn.failed.as_ref().is_none_or(|last| last.said != failure.said) {
                    if let Some(held) = &still {
                        warn!(
                            code = failure.code,
                            ends_at = %held.ends_at,
                            "the access key could not be renewed, the one in hand stays in use: {tried}"
                        );
                    } else {
                        warn!(code = failure.code, "no access key could be had: {tried}");
                    }
                }
                let error = failure.error();
                turn.failed = Some(failure);
                self.change(|held| (held.tried_at, held.renew_at) = (now, now + PAUSE));
                still.map(|held| held.signer).ok_or(error)
            }
        }
    }

    fn held(&self) -> Option<Held> {
        self.lock().clone()
    }

    fn change(&self, change: impl FnOnce(&mut Held)) {
        if let Some(held) = self.lock().as_mut() {
            change(held);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Held>> {
        // It is written whole or not at all, so a poisoned lock holds a sound one.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn new(fetched: Fetched, now: DateTime<Utc>) -> Self {
        let (renew_at, ends_at) = match fetched.lasts {
            Lasts::Forever => (DateTime::<Utc>::MAX_UTC, DateTime::<Utc>::MAX_UTC),
            Lasts::WhileInFile => (now + FILE_AGE, DateTime::<Utc>::MAX_UTC),
            Lasts::Until(end) => ((end - ((end - now) / 3).max(MARGIN)).max(now + PAUSE), end),
        };
        Self { signer: Arc::new(Signer::new(fetched.credentials)), tried_at: now, renew_at, ends_at }
    }
}

impl Failure {
    fn new(tried: &Tried) -> Self {
        let step = tried.failed().map_or("none", Step::as_str);
        Self { code: format!("credentials_{step}"), said: tried.to_string() }
    }

    fn error(&self) -> ProviderError {
        ProviderError::Account { trouble: Trouble::NoCredentials, code: self.code.clone() }
    }
}

impl fmt::Debug for SigningKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Origin::Fixed(signer) => f.debug_tuple("SigningKeys").field(signer).finish(),
            Origin::Chain(renewed) => f
                .debug_tuple("SigningKeys")
                .field(&renewed.chain)
                .field(&renewed.held().map(|held| held.signer))
                .finish(),
        }
    }
}

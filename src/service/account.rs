//! An account at a provider, as the service sees it: its limits, its retention, who answers for it.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use chrono::{DateTime, Utc};

use url::Url;

use crate::clock::later;
use crate::domain::TokenHash;
use crate::domain::schedule::FIRST_POLL;
use crate::evidence::Downloader;
use crate::provider::Provider;

/// What the transactions need that we start ourselves.
#[derive(Debug, Default)]
pub struct Starting {
    /// Where the provider calls back; none where it cannot reach us.
    pub callback_url: Option<Url>,
    /// Where browsers come back to; none where they cannot reach us.
    pub returns_url: Option<Url>,
    /// Who wants to call at once stands in line.
    pub line: tokio::sync::Mutex<()>,
    /// It was said that the provider cannot reach us.
    pub was_said: AtomicBool,
}

/// What this replica knows of an account's pace. The rest of it is shared, in the database.
#[derive(Debug, Default)]
pub struct Pacing {
    /// An answer was throttled or missing since the last good one.
    pub unsettled: AtomicBool,
    /// Seconds that polls of one verification are at least apart.
    poll_interval: AtomicU64,
}

impl Pacing {
    /// The shortest time between two polls of one verification that the budget allows; zero while there is enough.
    pub fn poll_interval(&self) -> Duration {
        Duration::from_secs(self.poll_interval.load(Ordering::Relaxed))
    }

    pub fn set_poll_interval(&self, interval: Duration) {
        self.poll_interval.store(interval.as_secs(), Ordering::Relaxed);
    }
}

/// A value that may be replaced while it is in use: whoever has the old one goes on with it.
#[derive(Debug)]
pub struct Rotating<T>(RwLock<T>);

impl<T: Clone> Rotating<T> {
    pub fn new(value: T) -> Self {
        Self(RwLock::new(value))
    }

    pub fn get(&self) -> T {
        // It is replaced whole, so a poisoned lock holds a sound one.
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn set(&self, value: T) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = value;
    }
}

pub struct Account {
    pub name: String,
    /// Calls a second that the provider allows, over all replicas.
    pub qps: u32,
    pub result_retention: Duration,
    pub video_retention: Duration,
    pub give_up_after: Duration,
    /// What callbacks must carry where their verification has no token of its own.
    pub callback_token: Rotating<Option<TokenHash>>,
    pub starting: Starting,
    pub pacing: Pacing,
    pub providers: Rotating<Arc<dyn Provider>>,
    /// Where its videos may be downloaded from; none where there are no videos.
    pub downloader: Option<Downloader>,
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account").field("name", &self.name).field("qps", &self.qps).finish_non_exhaustive()
    }
}

/// When the provider deletes what belongs to one verification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// When a flow that nobody completed is given up.
    pub give_up_at: DateTime<Utc>,
    pub result: DateTime<Utc>,
    pub video: DateTime<Utc>,
}

impl Account {
    /// Who is asked now; with another key, somebody else the next time.
    pub fn provider(&self) -> Arc<dyn Provider> {
        self.providers.get()
    }

    /// Whether results of this product can be asked for; if not, why.
    pub fn check_product(&self, product: Option<&str>) -> Result<(), &'static str> {
        self.provider().check_product(product)
    }

    /// When a verification that was registered at `now` is first asked about, should nothing be heard.
    pub fn first_poll_at(&self, now: DateTime<Utc>) -> DateTime<Utc> {
        later(now, FIRST_POLL.max(self.pacing.poll_interval()).min(self.give_up_after))
    }

    /// The deadlines run from the first authenticated hint, and before there is one from when the flow is given up.
    pub fn deadlines(&self, registered_at: DateTime<Utc>, hinted_at: Option<DateTime<Utc>>) -> Deadlines {
        let give_up_at = later(registered_at, self.give_up_after);
        let base = hinted_at.unwrap_or(give_up_at);
        Deadlines { give_up_at, result: later(base, self.result_retention), video: later(base, self.video_retention) }
    }
}

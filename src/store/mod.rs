//! The database. All SQL is here; nothing outside knows a table.
//!
//! Every function is one transaction unless its name says otherwise, and none does anything else while one is open.
//! Statements that only move work (leases, taking hints) commit without waiting for the disk: losing one in a crash
//! puts the work back where it was. Whatever is acknowledged to somebody is flushed first.

mod accounts;
mod answers;
mod at_risk;
mod captures;
mod checks;
mod collect_jobs;
mod deliveries;
mod endpoints;
mod erasures;
mod error;
mod events;
mod evidence;
mod feed_rechecks;
mod hints;
mod initializations;
mod known;
mod lease_due;
mod live;
mod migrate;
mod overview;
mod receipts;
mod rechecks;
mod reconcile;
mod records;
mod replays;
mod retention;
mod returns;
mod secrets;
mod signals;
mod take_hints;
mod verifications;
mod why;

use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection, Executor, PgPool};

use known::Known;

pub use accounts::{AccountHealth, CallSlot, Failing, Outage, PollLoad};
pub use answers::{AnswerRead, Reader};
pub use at_risk::{RiskCount, RiskCursor, Window};
pub use checks::{CheckedFinal, CheckedOpen, Recorded};
pub use collect_jobs::{Overdue, Sorted};
pub use deliveries::{Attempt, AttemptEnd, LeasedDelivery};
pub use endpoints::{DeliveryFilter, DeliveryRow, DeliveryState, EndpointRow};
pub use erasures::{Destroyed, NewErasure};
pub use error::StoreError;
pub use events::Subscriptions;
pub use evidence::{
    CaptureKey, CaptureLease, EvidenceNote, EvidenceObject, EvidenceRow, MissedEvidence, NotStored, NotedState,
    OrphanedCapture, StoredEvidence,
};
pub use feed_rechecks::Fed;
pub use hints::{AccountToken, Arrival, Arrived, Collect};
pub use initializations::{Initialization, InitializationEnd, InitializationState, NewInitialization};
pub use lease_due::{LaneTurn, Lease, Leased, LeasedJob, Pace, Rate, Standing};
pub use live::LiveRow;
pub use migrate::{MigrationError, Migrations};
pub use overview::{Happened, OpenCount, RecentVerdict, Unmatched};
pub use receipts::{Erasure, ErasureAttempt, EvidencePart, LeasedErasure, ProviderPart};
pub use rechecks::{MatchedPart, NewRecheck, Recheck, RecheckFilter, RecheckState};
pub use reconcile::{Discrepancy, Sum};
pub use records::{Filter, HistoryRow, Record, RecordEvidence, RecordVerdict};
pub use replays::{ReplayFilter, Replayed};
pub use retention::Retained;
pub use returns::Returned;
pub use signals::{Signal, Signals};
pub use take_hints::{Nudged, TakenHints};
pub use verifications::{NewVerification, Registered};
pub use why::{LostInitialization, Surroundings, VideoWork, Work};

/// How long a request waits for a connection before it is told that the database does not answer.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3);

/// A connection that was idle for so long is tried before it is used: the server may have been restarted since. Busy
/// ones are not, which spares a round trip for each statement.
const TRY_AFTER: Duration = Duration::from_millis(250);

/// Every statement here has its index, also where a table is empty when the statement is first planned: a plan made
/// then would read the whole table until the next ANALYZE, when it may hold all of a morning's work. (Look-ups that
/// could be turned into joins are kept apart by `LIMIT 1` for the same reason.) What a scan is then thought to cost must
/// not start the compiler. And since the plan is the same whatever the values are, it is made once: planning a
/// statement again would cost several times its execution.
const SESSION: &str = "SET enable_seqscan = off; SET jit = off; SET plan_cache_mode = force_generic_plan";

/// A handle on the database; clones share one pool, and what is known without asking it.
#[derive(Clone, Debug)]
pub struct Store {
    pool: PgPool,
    known: Arc<Known>,
    /// `None`: nobody wants events.
    subscriptions: Option<Subscriptions>,
}

impl Store {
    /// A store on the database of `options`; connects at first use.
    pub fn new(options: PgConnectOptions, max_connections: u32) -> Self {
        let pool = PgPoolOptions::new()
            .max_connections(max_connections)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .test_before_acquire(false)
            .before_acquire(|connection, state| {
                Box::pin(async move {
                    if state.idle_for >= TRY_AFTER {
                        connection.ping().await?;
                    }
                    Ok(true)
                })
            })
            .after_connect(|connection, _| {
                Box::pin(async move {
                    connection.execute(SESSION).await?;
                    Ok(())
                })
            })
            .connect_lazy_with(options);
        Self { pool, known: Arc::new(Known::default()), subscriptions: None }
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query("SELECT 1").execute(&self.pool).await?;
        Ok(())
    }

    /// The time of the database.
    pub async fn database_now(&self) -> Result<chrono::DateTime<chrono::Utc>, StoreError> {
        let now = sqlx::query_scalar!(
            r#"-- database_now
            SELECT database_now() AS "now!""#
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(now)
    }

    /// Closes all connections once they are idle.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

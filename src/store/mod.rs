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
mod counts;
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
mod lease_hinted;
mod live;
mod migrate;
mod overview;
mod pool;
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

use sqlx::PgPool;

use known::Known;
use pool::{Pool, Session};

pub use accounts::{AccountHealth, CallSlot, Failing, Outage, PollLoad};
pub use answers::{AnswerRead, Reader};
pub use at_risk::{RiskCount, RiskCursor, Window};
pub use checks::{CheckedFinal, CheckedOpen, Recorded};
pub use collect_jobs::{Overdue, Sorted};
pub use counts::{FinalPart, OpenCount};
pub use deliveries::{Attempt, AttemptEnd, DeliveryLease, LeasedDelivery};
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
pub use lease_hinted::{HintsLeft, LeasedHinted};
pub use live::LiveRow;
pub use migrate::{MigrationError, Migrations};
pub use overview::{Happened, OpenWork, RecentVerdict, Unmatched};
pub use pool::{Access, SESSION};
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

/// A handle on the database; clones share one pool, and what is known without asking it.
#[derive(Clone, Debug)]
pub struct Store {
    pool: Pool,
    /// For what needs a session: LISTEN and migrations. `None`: a pooler is in the way, and nothing leads past it.
    sessions: Option<PgPool>,
    known: Arc<Known>,
    /// `None`: nobody wants events.
    subscriptions: Option<Subscriptions>,
}

impl Store {
    /// A store on the database; connects at first use.
    pub fn new(access: impl Into<Access>, max_connections: u32) -> Self {
        let (pool, sessions) = pool::connect(access.into(), max_connections);
        Self { pool, sessions, known: Arc::new(Known::default()), subscriptions: None }
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

    /// How many connections of this replica are busy, and how many more it may use at once.
    pub fn connections(&self) -> (u32, u32) {
        self.pool.in_use()
    }

    /// Closes all connections once they are idle.
    pub async fn close(&self) {
        if let Some(sessions) = &self.sessions {
            sessions.close().await;
        }
        self.pool.close().await;
    }
}

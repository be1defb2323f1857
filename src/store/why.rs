//! What is to be known of a verification to say why it is where it is: its work, its account, its video. Read by key, in
//! one statement, however many there are.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::lease_due::{count, lane};
use super::{AccountHealth, Failing, Store, StoreError};
use crate::domain::VerificationId;
use crate::domain::schedule::Lane;

/// The open work on a verification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Work {
    pub lane: Lane,
    pub due_at: DateTime<Utc>,
    /// There is a verdict already.
    pub recheck: bool,
    /// Answers in a row that there is no result yet.
    pub running: u32,
    /// Faults in a row.
    pub faults: u32,
    /// Somebody is asking the provider.
    pub leased: bool,
    /// Nobody renewed the lease: whoever held it is dead or cut off.
    pub lease_over: bool,
}

/// The video of a verification, once an answer named it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VideoWork {
    pub deadline: DateTime<Utc>,
    pub attempts: u32,
    /// When the provider is asked for it again; `None` while it is being captured.
    pub due_at: Option<DateTime<Utc>>,
}

/// What stands around a verification.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    pub work: Option<Work>,
    pub video: Option<VideoWork>,
    /// `None`: nobody ever had this account configured.
    pub health: Option<AccountHealth>,
}

/// A call of Initialize of which nobody knows what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostInitialization {
    pub account: String,
    pub merchant_biz_id: String,
    pub started_at: DateTime<Utc>,
    /// The provider's code, or ours in lower case.
    pub code: String,
}

impl Store {
    /// `None` when there is no such verification.
    pub async fn surroundings(&self, id: VerificationId) -> Result<Option<Surroundings>, StoreError> {
        let row = sqlx::query!(
            r#"-- surroundings
            SELECT j.lane AS "lane?", j.due_at AS "due_at?", j.recheck AS "recheck?", j.running AS "running?",
                j.faults AS "faults?", j.lease_token IS NOT NULL AS "leased!",
                coalesce(j.leased_until < database_now(), false) AS "lease_over!",
                e.deadline AS "deadline?", e.attempts AS "attempts?", e.due_at AS "evidence_due_at?",
                a.account AS "account?", a.hold_until AS "hold_until?", a.failing_since AS "failing_since?",
                a.failing_reason AS "failing_reason?", a.failing_code AS "failing_code?", a.probe_at AS "probe_at?"
            FROM verifications v
            LEFT JOIN LATERAL (
                SELECT *
                FROM collect_jobs
                WHERE collect_jobs.verification_id = v.verification_id
                LIMIT 1
            ) j ON true
            LEFT JOIN LATERAL (
                SELECT deadline, attempts, CASE WHEN lease_token IS NULL THEN due_at END AS due_at
                FROM evidence
                WHERE evidence.verification_id = v.verification_id
                AND kind = 'video'
                LIMIT 1
            ) e ON true
            LEFT JOIN LATERAL (
                SELECT *
                FROM accounts
                WHERE accounts.account = v.account
                LIMIT 1
            ) a ON true
            WHERE v.verification_id = $1"#,
            id.0
        )
        .fetch_optional(&self.pool)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let work = match (row.lane, row.due_at) {
            (Some(number), Some(due_at)) => Some(Work {
                lane: lane(number, id.0)?,
                due_at,
                recheck: row.recheck.unwrap_or_default(),
                running: count(row.running.unwrap_or_default()),
                faults: count(row.faults.unwrap_or_default()),
                leased: row.leased,
                lease_over: row.lease_over,
            }),
            _ => None,
        };
        let video = row.deadline.map(|deadline| VideoWork {
            deadline,
            attempts: count(row.attempts.unwrap_or_default()),
            due_at: row.evidence_due_at,
        });
        let health = row.account.map(|account| AccountHealth {
            account,
            failing: row.failing_since.map(|since| Failing {
                since,
                reason: row.failing_reason.unwrap_or_default(),
                code: row.failing_code.unwrap_or_default(),
            }),
            hold_until: row.hold_until,
            probe_at: row.probe_at,
        });
        Ok(Some(Surroundings { work, video, health }))
    }

    /// Calls of Initialize that were lost, the latest first. `merchant_biz_id`: only with this reference.
    pub async fn lost_initializations(
        &self,
        merchant_biz_id: Option<Uuid>,
        limit: i64,
    ) -> Result<Vec<LostInitialization>, StoreError> {
        // The form of the references that are made here.
        let merchant_biz_id = merchant_biz_id.map(|id| id.simple().to_string());
        let rows = sqlx::query!(
            "-- lost_initializations
            SELECT account, merchant_biz_id, started_at, code
            FROM initializations
            WHERE state = 'lost'
            AND ($1::text IS NULL OR merchant_biz_id = $1)
            ORDER BY started_at DESC
            LIMIT $2",
            merchant_biz_id,
            limit
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows
            .into_iter()
            .map(|row| LostInitialization {
                account: row.account,
                merchant_biz_id: row.merchant_biz_id,
                started_at: row.started_at,
                code: row.code.unwrap_or_default(),
            })
            .collect())
    }
}

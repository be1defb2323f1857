//! What people look at to see how it goes: bounded looks at what is newest and at open work. Nothing here counts what is
//! finished: each statement reads so many rows at most, however many there are.

use chrono::{DateTime, Utc};

use super::hints::parse_final;
use super::{Rate, Store, StoreError};
use crate::domain::{FinalStatus, HistoryKind, VerificationId};

/// A verdict as it was stored.
#[derive(Clone, Debug)]
pub struct RecentVerdict {
    pub id: VerificationId,
    pub account: String,
    pub status: FinalStatus,
    pub decided_at: DateTime<Utc>,
    /// First authenticated callback or collect.
    pub hinted_at: Option<DateTime<Utc>>,
}

/// Something that happened, without what.
#[derive(Clone, Debug)]
pub struct Happened {
    pub at: DateTime<Utc>,
    pub kind: HistoryKind,
    pub account: String,
}

/// Open work of an account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenWork {
    pub account: String,
    pub waiting: i64,
    pub collecting: i64,
    pub rechecks: i64,
}

/// A callback of a transaction that nobody has registered.
#[derive(Clone, Debug)]
pub struct Unmatched {
    pub account: String,
    pub transaction_id: String,
    pub received_at: DateTime<Utc>,
    pub callbacks: i32,
}

impl Store {
    /// The newest verdicts since then, newest first.
    pub async fn recent_verdicts(&self, since: DateTime<Utc>, limit: i64) -> Result<Vec<RecentVerdict>, StoreError> {
        let rows = sqlx::query!(
            "-- recent_verdicts
            SELECT verification_id, account, status, decided_at, hinted_at
            FROM verdicts
            WHERE decided_at >= $1
            ORDER BY decided_at DESC, verification_id DESC
            LIMIT $2",
            since,
            limit
        )
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter()
            .map(|row| {
                let id = VerificationId(row.verification_id);
                Ok(RecentVerdict {
                    id,
                    account: row.account,
                    status: parse_final(&row.status, id)?,
                    decided_at: row.decided_at,
                    hinted_at: row.hinted_at,
                })
            })
            .collect()
    }

    /// What happened since then, newest first.
    pub async fn recent_history(&self, since: DateTime<Utc>, limit: i64) -> Result<Vec<Happened>, StoreError> {
        let rows = sqlx::query!(
            r#"-- recent_history
            SELECT h.at AS "at!", h.kind AS "kind!", v.account AS "account!"
            FROM (
                SELECT at, history_id, kind, verification_id
                FROM history
                WHERE at >= $1
                ORDER BY at DESC, history_id DESC
                LIMIT $2
            ) h
            CROSS JOIN LATERAL (
                SELECT account
                FROM verifications
                WHERE verifications.verification_id = h.verification_id
                LIMIT 1
            ) v
            ORDER BY h.at DESC, h.history_id DESC"#,
            since,
            limit
        )
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter()
            .map(|row| {
                let kind = row.kind.parse().map_err(|_| StoreError::Inconsistent {
                    table: "history",
                    column: "kind",
                    row: row.at.to_string(),
                })?;
                Ok(Happened { at: row.at, kind, account: row.account })
            })
            .collect()
    }

    /// Open work by account, counted up to `limit` rows of it: a sum that reaches `limit` says "at least".
    pub async fn open_work(&self, limit: i64) -> Result<Vec<OpenWork>, StoreError> {
        let rows = sqlx::query!(
            r#"-- open_work
            SELECT account AS "account!",
                count(*) FILTER (WHERE NOT recheck AND NOT heard) AS "waiting!",
                count(*) FILTER (WHERE NOT recheck AND heard) AS "collecting!",
                count(*) FILTER (WHERE recheck) AS "rechecks!"
            FROM (
                SELECT account, recheck, hinted_at IS NOT NULL OR callback_at IS NOT NULL AS heard
                FROM collect_jobs
                LIMIT $1
            ) j
            GROUP BY account
            ORDER BY account"#,
            limit
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows
            .into_iter()
            .map(|row| OpenWork {
                account: row.account,
                waiting: row.waiting,
                collecting: row.collecting,
                rechecks: row.rechecks,
            })
            .collect())
    }

    /// About how many verifications there are, by the database's own statistics; `None` before it has any.
    pub async fn estimated_verifications(&self) -> Result<Option<i64>, StoreError> {
        let rows = sqlx::query_scalar!(
            r#"-- estimated_verifications
            SELECT reltuples::bigint AS "rows!"
            FROM pg_class
            WHERE oid = 'verifications'::regclass"#
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(Some(rows).filter(|rows| *rows > 0))
    }

    /// The callbacks of each account that wait for their registration, newest first, `limit` of each account.
    pub async fn unmatched(&self, limit: i64) -> Result<Vec<Unmatched>, StoreError> {
        let rows = sqlx::query!(
            r#"-- unmatched
            SELECT u.account AS "account!", u.transaction_id AS "transaction_id!", u.received_at AS "received_at!",
                u.callbacks AS "callbacks!"
            FROM accounts a
            CROSS JOIN LATERAL (
                SELECT *
                FROM unmatched_callbacks
                WHERE unmatched_callbacks.account = a.account
                ORDER BY received_at DESC
                LIMIT $1
            ) u
            ORDER BY u.received_at DESC, u.transaction_id"#,
            limit
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows
            .into_iter()
            .map(|row| Unmatched {
                account: row.account,
                transaction_id: row.transaction_id,
                received_at: row.received_at,
                callbacks: row.callbacks,
            })
            .collect())
    }

    /// The calls a second that an account may make at present: its QPS, or what throttling left of it.
    pub async fn present_rate(&self, account: &str, rate: Rate, now: DateTime<Utc>) -> Result<Option<f64>, StoreError> {
        let rate = sqlx::query_scalar!(
            r#"-- present_rate
            SELECT effective_rate(rate, rate_at, refused_rate, $2, $3, $4) AS "rate!"
            FROM accounts
            WHERE account = $1"#,
            account,
            f64::from(rate.qps),
            rate.recovery,
            now
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(rate)
    }
}

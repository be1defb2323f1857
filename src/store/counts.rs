//! How many verifications there are in each state, read in parts whose cost does not grow with what is finished; and what
//! ties a verification to its trace.

use super::{Store, StoreError};
use crate::domain::{FinalStatus, VerificationId};

/// Open verifications of one account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenCount {
    pub account: String,
    pub waiting: u64,
    pub collecting: u64,
}

/// A part of those with one final status, in the order of their ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FinalPart {
    pub count: u64,
    /// Where the next part begins; none when this was the last.
    pub next: Option<VerificationId>,
}

fn count(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

impl Store {
    /// Counts open work. It reads all of it, and nothing that is finished.
    pub async fn count_open(&self) -> Result<Vec<OpenCount>, StoreError> {
        let rows = sqlx::query!(
            r#"-- count_open
            SELECT account, count(*) FILTER (WHERE hinted_at IS NULL AND callback_at IS NULL) AS "waiting!",
                count(*) FILTER (WHERE hinted_at IS NOT NULL OR callback_at IS NOT NULL) AS "collecting!"
            FROM collect_jobs
            WHERE NOT recheck
            GROUP BY account"#
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows
            .into_iter()
            .map(|row| OpenCount {
                account: row.account,
                waiting: count(row.waiting),
                collecting: count(row.collecting),
            })
            .collect())
    }

    /// Counts at most `limit` verifications with this status, from the first after `after` on. It reads so many entries
    /// of `verdicts_by_status`.
    pub async fn count_final_part(
        &self,
        account: &str,
        status: FinalStatus,
        after: VerificationId,
        limit: u32,
    ) -> Result<FinalPart, StoreError> {
        let row = sqlx::query!(
            r#"-- count_final_part
            WITH part AS MATERIALIZED (
                SELECT verification_id
                FROM verdicts
                WHERE account = $1
                AND status = $2
                AND superseded_at IS NULL
                AND verification_id > $3
                ORDER BY verification_id
                LIMIT $4
            )
            SELECT (SELECT count(*) FROM part) AS "count!",
                (SELECT verification_id FROM part ORDER BY verification_id DESC LIMIT 1) AS last"#,
            account,
            status.as_str(),
            after.0,
            i64::from(limit),
        )
        .fetch_one(&self.pool)
        .await?;
        let count = count(row.count);
        let next = row.last.filter(|_| count == u64::from(limit)).map(VerificationId);
        Ok(FinalPart { count, next })
    }

    /// What the trace of this verification goes on from: the newest callback, or request to collect, that is traced.
    pub async fn traceparent(&self, id: VerificationId) -> Result<Option<String>, StoreError> {
        let traceparent = sqlx::query_scalar!(
            r#"-- traceparent
            SELECT detail ->> 'traceparent' AS "traceparent!"
            FROM history
            WHERE verification_id = $1
            AND kind IN ('callback', 'operator')
            AND detail ->> 'traceparent' IS NOT NULL
            ORDER BY history_id DESC
            LIMIT 1"#,
            id.0
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(traceparent)
    }
}

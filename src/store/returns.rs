//! Browsers on their way back from the provider.

use chrono::{DateTime, Utc};

use super::{Store, StoreError};
use crate::domain::VerificationId;
use crate::domain::schedule::Lane;

/// A browser that came back.
#[derive(Debug, PartialEq, Eq)]
pub struct Returned {
    /// Where it goes now.
    pub return_url: Option<String>,
}

impl Store {
    /// Records that the person's browser came back; `None` when the account has no such verification.
    ///
    /// The browser is the person's own, so this counts like a callback without a token: it makes a check due at most
    /// once in a while, and moves no deadline.
    pub async fn record_return(
        &self,
        account: &str,
        id: VerificationId,
        now: DateTime<Utc>,
    ) -> Result<Option<Returned>, StoreError> {
        let row = sqlx::query!(
            "-- record_return
            WITH verification AS (
                SELECT verification_id, account, return_url, expect_video, erased_at
                FROM verifications
                WHERE verification_id = $1
                AND account = $2
            ), hint AS (
                INSERT INTO hints (account, lane, verification_id, at, kind, authenticated, detail)
                SELECT account, CASE WHEN expect_video THEN $4::smallint ELSE $5::smallint END, verification_id, $3,
                    'callback', false, json_build_object('source', 'return')
                FROM verification
                WHERE erased_at IS NULL
            )
            SELECT return_url
            FROM verification",
            id.0,
            account,
            now,
            Lane::Video.as_i16(),
            Lane::Fresh.as_i16(),
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(row.map(|row| Returned { return_url: row.return_url }))
    }
}

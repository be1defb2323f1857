//! Calls of Initialize, so that none is made twice for one key and none is forgotten: a row is committed before the
//! call, and what came of it is stored together with the verification.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::verifications::insert;
use super::{NewVerification, Registered, Store, StoreError};
use crate::domain::VerificationId;

/// A call that is about to be made.
#[derive(Clone, Debug)]
pub struct NewInitialization {
    pub id: Uuid,
    pub account: String,
    pub key: Option<String>,
    pub request_sha256: [u8; 32],
    pub merchant_biz_id: String,
    pub started_at: DateTime<Utc>,
}

/// What stands under a key.
pub struct Initialization {
    pub request_sha256: Vec<u8>,
    pub started_at: DateTime<Utc>,
    pub merchant_biz_id: String,
    pub state: InitializationState,
}

pub enum InitializationState {
    /// The call may be under way, or its process died.
    Started,
    /// `client` is forgotten after a day.
    Registered { id: VerificationId, client: Option<String> },
    /// Nobody knows whether there is a transaction.
    Lost { code: String },
}

/// How a call ended that brought no verification: the provider's code, or ours in lower case.
#[derive(Clone, Copy)]
pub enum InitializationEnd<'a> {
    /// It made nothing: its key is free again.
    Refused(&'a str),
    /// Nobody knows what became of it.
    Lost(&'a str),
}

impl Store {
    /// What stands under the key, unless it is known to have made nothing.
    pub async fn initialization(&self, account: &str, key: &str) -> Result<Option<Initialization>, StoreError> {
        let row = sqlx::query!(
            "-- initialization
            SELECT initialization_id, request_sha256, started_at, merchant_biz_id, state, code, verification_id, client
            FROM initializations
            WHERE account = $1
            AND idempotency_key = $2
            AND state <> 'refused'",
            account,
            key
        )
        .fetch_optional(&self.pool)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let state = match (&*row.state, row.verification_id) {
            ("started", _) => InitializationState::Started,
            ("registered", Some(id)) => InitializationState::Registered { id: VerificationId(id), client: row.client },
            ("lost", _) => InitializationState::Lost { code: row.code.unwrap_or_default() },
            _ => {
                let row = row.initialization_id.to_string();
                return Err(StoreError::Inconsistent { table: "initializations", column: "state", row });
            }
        };
        Ok(Some(Initialization {
            request_sha256: row.request_sha256,
            started_at: row.started_at,
            merchant_biz_id: row.merchant_biz_id,
            state,
        }))
    }

    /// Records that the call is about to be made. False when its key is taken: then it must not be made.
    pub async fn start_initialization(&self, new: &NewInitialization) -> Result<bool, StoreError> {
        let done = sqlx::query!(
            "-- start_initialization
            INSERT INTO initializations (initialization_id, account, idempotency_key, request_sha256, merchant_biz_id,
                state, started_at)
            VALUES ($1, $2, $3, $4, $5, 'started', $6)
            ON CONFLICT (account, idempotency_key) WHERE state <> 'refused' DO NOTHING",
            new.id,
            new.account,
            new.key,
            &new.request_sha256[..],
            new.merchant_biz_id,
            new.started_at
        )
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected() > 0)
    }

    /// Stores the verification that a call made, with the answer for its client. Safe to repeat, also after one whose
    /// commit may or may not have been reached, and after the call was taken for lost.
    pub async fn register_initialized(
        &self,
        id: Uuid,
        new: &NewVerification,
        client: &str,
    ) -> Result<Registered, StoreError> {
        let mut transaction = self.pool.begin().await?;
        let registered = insert(&mut transaction, new).await?;
        let stored = match &registered {
            Registered::New { id, .. } | Registered::Same(id) => *id,
            Registered::Conflict { .. } => return Ok(registered),
        };
        sqlx::query!(
            "-- register_initialized
            UPDATE initializations
            SET state = 'registered', code = NULL, verification_id = $2, finished_at = $4,
                -- It may have been registered by its id, and erased, before this was stored.
                client = CASE WHEN NOT EXISTS (
                    SELECT FROM verifications
                    WHERE verification_id = $2
                    AND erased_at IS NOT NULL
                ) THEN $3 END
            WHERE initialization_id = $1
            AND state IN ('started', 'lost')",
            id,
            stored.0,
            client,
            new.registered_at
        )
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        self.remember(new, &registered);
        Ok(registered)
    }

    /// Records that the call brought no verification.
    pub async fn end_initialization(
        &self,
        id: Uuid,
        end: InitializationEnd<'_>,
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        let (state, code) = match end {
            InitializationEnd::Refused(code) => ("refused", code),
            InitializationEnd::Lost(code) => ("lost", code),
        };
        sqlx::query!(
            "-- end_initialization
            UPDATE initializations
            SET state = $2, code = $3, finished_at = $4
            WHERE initialization_id = $1
            AND state = 'started'",
            id,
            state,
            code,
            now
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Records all calls as lost that began before `before` and never ended; returns their accounts.
    pub async fn lose_unfinished_initializations(
        &self,
        before: DateTime<Utc>,
        code: &str,
        now: DateTime<Utc>,
    ) -> Result<Vec<String>, StoreError> {
        let accounts = sqlx::query_scalar!(
            "-- lose_unfinished_initializations
            UPDATE initializations
            SET state = 'lost', code = $2, finished_at = $3
            WHERE state = 'started'
            AND started_at < $1
            RETURNING account",
            before,
            code,
            now
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(accounts)
    }

    /// Forgets the answers for clients that were stored before `answered`, and all of calls begun before `started`;
    /// returns how many of both.
    pub async fn forget_initializations(
        &self,
        answered: DateTime<Utc>,
        started: DateTime<Utc>,
    ) -> Result<(u64, u64), StoreError> {
        let cleared = sqlx::query!(
            "-- forget_initializations: answers
            UPDATE initializations
            SET client = NULL
            WHERE client IS NOT NULL
            AND finished_at < $1",
            answered
        )
        .execute(&self.pool)
        .await?;
        let deleted = sqlx::query!(
            "-- forget_initializations
            DELETE FROM initializations
            WHERE started_at < $1",
            started
        )
        .execute(&self.pool)
        .await?;
        Ok((cleared.rows_affected(), deleted.rows_affected()))
    }
}

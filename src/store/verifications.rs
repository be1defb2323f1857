//! Registering, and what belongs to it: the first job, the history's first row, callbacks that came too early.

use chrono::{DateTime, Utc};
use serde_json::value::RawValue;
use sqlx::types::Json;

use super::known::Registration;
use super::{Session, Store, StoreError};
use crate::domain::schedule::Lane;
use crate::domain::{TokenHash, VerificationId, json};

/// What is registered. Members that were not given are `None` and are not compared with what is stored.
pub struct NewVerification {
    pub id: VerificationId,
    pub account: String,
    pub transaction_id: String,
    pub merchant_biz_id: Option<String>,
    /// Used when `merchant_biz_id` was not given.
    pub fresh_merchant_biz_id: String,
    pub product: Option<String>,
    pub expect_video: Option<bool>,
    pub return_url: Option<String>,
    pub callback_token: Option<TokenHash>,
    pub metadata: Option<Box<RawValue>>,
    pub registered_at: DateTime<Utc>,
    /// When the first poll is due.
    pub due_at: DateTime<Utc>,
    /// We started the transaction ourselves; the history says so.
    pub initialized: bool,
}

/// How a registration ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Registered {
    New {
        id: VerificationId,
        hinted: bool,
    },
    /// The same transaction was registered before, with the same data as far as it was given, and, when it was erased
    /// since, as far as it is left.
    Same(VerificationId),
    /// The same transaction was registered before, with other data in these members.
    Conflict {
        id: VerificationId,
        members: Vec<&'static str>,
    },
}

/// Two callers that touch the same unregistered transaction take turns on this lock, so that a callback and the
/// registration it belongs to cannot miss each other.
pub(super) async fn lock_transactions(
    connection: &mut Session,
    accounts: &[String],
    transaction_ids: &[String],
) -> Result<(), StoreError> {
    sqlx::query!(
        "-- lock_transactions
        SELECT count(pg_advisory_xact_lock(key))
        FROM (
            SELECT DISTINCT hashtextextended(account || ' ' || transaction_id, 0) AS key
            FROM unnest($1::text[], $2::text[]) AS t (account, transaction_id)
            ORDER BY key
        ) AS keys",
        accounts,
        transaction_ids
    )
    .fetch_one(connection)
    .await?;
    Ok(())
}

impl Store {
    /// Registers a verification, once for each (account, transaction id). Callbacks that came before are worked in.
    pub async fn register(&self, new: &NewVerification) -> Result<Registered, StoreError> {
        let mut transaction = self.pool.begin().await?;
        let registered = insert(&mut transaction, new).await?;
        transaction.commit().await?;
        self.remember(new, &registered);
        Ok(registered)
    }

    /// Callbacks of what was just committed need no look-up.
    pub(super) fn remember(&self, new: &NewVerification, registered: &Registered) {
        if matches!(registered, Registered::New { .. }) {
            let registration =
                Registration { id: new.id, expect_video: new.expect_video.unwrap_or(false), token: new.callback_token };
            self.known.remember(&new.account, &new.transaction_id, registration);
        }
    }
}

/// Registers within a transaction of the caller.
pub(super) async fn insert(connection: &mut Session, new: &NewVerification) -> Result<Registered, StoreError> {
    lock_transactions(connection, std::slice::from_ref(&new.account), std::slice::from_ref(&new.transaction_id))
        .await?;
    if let Some(existing) = compare_with_stored(connection, new).await? {
        return Ok(existing);
    }
    sqlx::query!(
        "-- register
        WITH verification AS (
            INSERT INTO verifications (verification_id, account, transaction_id, merchant_biz_id, product,
                expect_video, return_url, callback_token_sha256, metadata, registered_at)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9::text::json, $10)
        ), job AS (
            INSERT INTO collect_jobs (verification_id, account, lane, due_at)
            VALUES ($1, $2, $11, $12)
        )
        INSERT INTO history (verification_id, at, kind, detail)
        VALUES ($1, $10, 'registered',
            CASE WHEN $13 THEN json_build_object('initialized', true) ELSE '{}' END)",
        new.id.0,
        new.account,
        new.transaction_id,
        new.merchant_biz_id.as_ref().unwrap_or(&new.fresh_merchant_biz_id),
        new.product,
        new.expect_video.unwrap_or(false),
        new.return_url,
        new.callback_token.as_ref().map(|hash| &hash.as_bytes()[..]),
        // As text: a parameter of type json would go through jsonb, which rewrites what was given.
        new.metadata.as_ref().map(|metadata| metadata.get()),
        new.registered_at,
        Lane::Poll.as_i16(),
        new.due_at,
        new.initialized,
    )
    .execute(&mut *connection)
    .await?;
    let hinted = sqlx::query!(
        "-- register: callbacks that came before
        WITH early AS (
            DELETE FROM unmatched_callbacks
            WHERE account = $2
            AND transaction_id = $3
            RETURNING received_at, callbacks, passed, sub_code
        )
        INSERT INTO hints (account, lane, verification_id, at, kind, authenticated, detail)
        SELECT $2, $4, $1, received_at, 'callback', true,
            json_build_object('passed', passed, 'sub_code', sub_code, 'before_registration', callbacks)
        FROM early",
        new.id.0,
        new.account,
        new.transaction_id,
        if new.expect_video == Some(true) { Lane::Video.as_i16() } else { Lane::Fresh.as_i16() },
    )
    .execute(&mut *connection)
    .await?
    .rows_affected()
        > 0;
    Ok(Registered::New { id: new.id, hinted })
}

async fn compare_with_stored(
    connection: &mut Session,
    new: &NewVerification,
) -> Result<Option<Registered>, StoreError> {
    let stored = sqlx::query!(
        r#"-- compare_with_stored
        SELECT verification_id, merchant_biz_id, product, expect_video, return_url, callback_token_sha256,
            metadata AS "metadata: Json<Box<RawValue>>", erased_at IS NOT NULL AS "erased!"
        FROM verifications
        WHERE account = $1
        AND transaction_id = $2"#,
        new.account,
        new.transaction_id
    )
    .fetch_optional(connection)
    .await?;
    let Some(stored) = stored else { return Ok(None) };
    let id = VerificationId(stored.verification_id);
    let differs = [
        ("merchant_biz_id", new.merchant_biz_id.as_ref().is_some_and(|given| *given != stored.merchant_biz_id)),
        ("product", new.product.is_some() && new.product != stored.product),
        ("expect_video", new.expect_video.is_some_and(|given| given != stored.expect_video)),
        ("return_url", !stored.erased && new.return_url.is_some() && new.return_url != stored.return_url),
        (
            "callback_token",
            !stored.erased
                && new
                    .callback_token
                    .is_some_and(|given| stored.callback_token_sha256.as_deref() != Some(&given.as_bytes()[..])),
        ),
        (
            "metadata",
            !stored.erased
                && new.metadata.as_ref().is_some_and(|given| {
                    stored.metadata.is_none_or(|Json(stored)| !json::is_same(given.get(), stored.get()))
                }),
        ),
    ];
    let members: Vec<_> = differs.into_iter().filter_map(|(member, differs)| differs.then_some(member)).collect();
    Ok(Some(if members.is_empty() { Registered::Same(id) } else { Registered::Conflict { id, members } }))
}

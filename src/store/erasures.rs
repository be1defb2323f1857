//! Erasures: what the database holds about one person is destroyed in one transaction, which leaves a row that says
//! what is still to be done outside of it. That work, and the receipt, are in `receipts`.
//!
//! The transaction holds the row of `verifications` while it works. Whoever writes about a verification has its job, or
//! locks that row and looks at `erased_at`: so each of them is over before, and is erased with the rest, or comes
//! after and writes nothing.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::types::Json;

use super::events::NewEvent;
use super::verifications::lock_transactions;
use super::{Session, Store, StoreError};
use crate::domain::{EventType, VerificationId};

/// What the history keeps of a row's detail: which attempt, how it ended, and who acted. Nothing that came from the
/// provider or was written by a caller.
const KEPT_DETAILS: [&str; 15] = [
    "action",
    "attempt",
    "by",
    "endpoint",
    "event_id",
    "evidence",
    "initialized",
    "outcome",
    "read",
    "recheck",
    "result",
    "revision",
    "state",
    "status",
    "type",
];

/// Why a verification ended that its erasure ended.
pub const ERASED: &str = "erased";

/// A verification that is to be erased.
#[derive(Clone, Copy, Debug)]
pub struct NewErasure<'a> {
    pub id: VerificationId,
    pub account: &'a str,
    pub transaction_id: &'a str,
    /// Name of the API key; `None` where none is asked for.
    pub by: Option<&'a str>,
    pub reason: Option<&'a str>,
    /// Until when the person may complete a flow that has no verdict of the provider yet.
    pub open_until: DateTime<Utc>,
    pub at: DateTime<Utc>,
}

/// How many of each kind were destroyed in the database, by the names of the receipt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Destroyed {
    pub scores: i64,
    pub raw_answer: i64,
    pub metadata: i64,
    pub return_url: i64,
    pub callback_token: i64,
    pub client_answer: i64,
    pub callbacks: i64,
    pub history_details: i64,
}

impl Store {
    /// Destroys everything in the database but ids, status and times, ends what is open as void, and leaves the rest
    /// to [`Store::lease_erasures`]. False when it was erased before; then nothing changes.
    pub async fn erase(&self, new: &NewErasure<'_>) -> Result<bool, StoreError> {
        let mut transaction = self.pool.begin().await?;
        // Registrations and early callbacks of the same transaction take turns with this.
        lock_transactions(&mut transaction, &[new.account.to_owned()], &[new.transaction_id.to_owned()]).await?;
        let erased_at = sqlx::query_scalar!(
            "-- erase: who comes first
            SELECT erased_at
            FROM verifications
            WHERE verification_id = $1
            FOR UPDATE",
            new.id.0
        )
        .fetch_one(&mut *transaction)
        .await?;
        if erased_at.is_some() {
            return Ok(false);
        }
        let mut destroyed = Destroyed::default();
        // First, because pending evidence makes new work.
        clear_evidence(&mut transaction, new.id).await?;
        let open = take_open_work(&mut transaction, new.id).await?;
        destroyed.callbacks = open.hints;
        // Whoever stored a result has done so by now, or never will.
        let found = clear_verdicts(&mut transaction, new.id).await?;
        (destroyed.scores, destroyed.raw_answer) = (found.verdicts, found.answers);
        clear_registration(&mut transaction, new, &mut destroyed).await?;
        destroyed.history_details = clear_history(&mut transaction, new.id).await?;
        if found.verdicts == 0 {
            end_as_void(&mut transaction, new, &open).await?;
        }
        sqlx::query!(
            "-- erase: the receipt
            WITH remembered AS (
                INSERT INTO history (verification_id, at, kind, detail)
                VALUES ($1, $3, 'erased', json_build_object('by', $4::text, 'reason', $5::text))
            )
            INSERT INTO erasures (verification_id, account, erased_at, erased_by, reason, destroyed, open_until,
                evidence_state, provider_state, due_at)
            VALUES ($1, $2, $3, $4, $5, $6, $7, 'pending', 'pending', $3)",
            new.id.0,
            new.account,
            new.at,
            new.by,
            new.reason,
            Json(destroyed) as _,
            (!found.decided).then_some(new.open_until)
        )
        .execute(&mut *transaction)
        .await?;
        let told = |r#type| NewEvent { id: new.id, r#type, at: new.at };
        let ended = (found.verdicts == 0).then(|| told(EventType::Void));
        let events: Vec<_> = ended.into_iter().chain([told(EventType::Erased)]).collect();
        self.write_events(&mut transaction, &events).await?;
        transaction.commit().await?;
        self.known.forget(new.account, new.transaction_id);
        Ok(true)
    }
}

/// Takes everything out of the rows of evidence but the objects' names. What is in the store goes after the commit; a
/// capture under way loses its object, and then its lease, which stays until then.
async fn clear_evidence(connection: &mut Session, id: VerificationId) -> Result<(), StoreError> {
    sqlx::query!(
        "-- erase: evidence
        UPDATE evidence
        SET state = CASE WHEN state IN ('pending', 'stored') THEN 'erased' ELSE state END,
            reason = NULL, content_type = NULL, bytes = NULL, sha256 = NULL, sealed = NULL
        WHERE verification_id = $1",
        id.0
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// The open work that an erasure took away.
struct OpenWork {
    hints: i64,
    callback_at: Option<DateTime<Utc>>,
    hinted_at: Option<DateTime<Utc>>,
    checks: i32,
}

/// Takes the job away, so that whoever asks the provider loses the lease, and the hints that nobody is working in at
/// the moment; the others find no job and are dropped.
async fn take_open_work(connection: &mut Session, id: VerificationId) -> Result<OpenWork, StoreError> {
    let row = sqlx::query!(
        r#"-- erase: open work
        WITH waiting AS (
            DELETE FROM hints
            WHERE ctid = ANY (ARRAY(
                SELECT ctid
                FROM hints
                WHERE verification_id = $1
                FOR UPDATE SKIP LOCKED
            ))
            RETURNING kind, at, authenticated
        ), job AS (
            DELETE FROM collect_jobs
            WHERE verification_id = $1
            RETURNING callback_at, hinted_at, checks
        )
        SELECT count(*) AS "hints!",
            least(min(w.at) FILTER (WHERE w.kind = 'callback'), (SELECT callback_at FROM job)) AS callback_at,
            least(min(w.at) FILTER (WHERE w.authenticated), (SELECT hinted_at FROM job)) AS hinted_at,
            coalesce((SELECT checks FROM job), 0) AS "checks!"
        FROM waiting w"#,
        id.0
    )
    .fetch_one(connection)
    .await?;
    Ok(OpenWork { hints: row.hints, callback_at: row.callback_at, hinted_at: row.hinted_at, checks: row.checks })
}

/// What there was of verdicts.
struct ClearedVerdicts {
    verdicts: i64,
    answers: i64,
    /// The current one is the provider's own, so the flow is completed.
    decided: bool,
}

async fn clear_verdicts(connection: &mut Session, id: VerificationId) -> Result<ClearedVerdicts, StoreError> {
    let row = sqlx::query!(
        r#"-- erase: verdicts
        WITH found AS (
            SELECT count(*) AS verdicts, count(answer) AS answers,
                bool_or(superseded_at IS NULL AND status IN ('passed', 'failed', 'review')) AS decided
            FROM verdicts
            WHERE verification_id = $1
        ), cleared AS (
            UPDATE verdicts
            SET sub_code = NULL, reason = NULL, scores = '{}', signals = '{}', answer = NULL, last_error = NULL
            WHERE verification_id = $1
        )
        SELECT verdicts AS "verdicts!", answers AS "answers!", coalesce(decided, false) AS "decided!"
        FROM found"#,
        id.0
    )
    .fetch_one(connection)
    .await?;
    Ok(ClearedVerdicts { verdicts: row.verdicts, answers: row.answers, decided: row.decided })
}

/// What was registered, what the client of a started transaction was told, and callbacks that came too early.
async fn clear_registration(
    connection: &mut Session,
    new: &NewErasure<'_>,
    destroyed: &mut Destroyed,
) -> Result<(), StoreError> {
    let row = sqlx::query!(
        r#"-- erase: what was registered
        WITH found AS (
            SELECT metadata IS NOT NULL AS metadata, return_url IS NOT NULL AS return_url,
                callback_token_sha256 IS NOT NULL AS callback_token
            FROM verifications
            WHERE verification_id = $1
        ), cleared AS (
            UPDATE verifications
            SET metadata = NULL, return_url = NULL, callback_token_sha256 = NULL, erased_at = $4
            WHERE verification_id = $1
        ), started AS (
            UPDATE initializations
            SET client = NULL
            WHERE verification_id = $1
            AND client IS NOT NULL
            RETURNING initialization_id
        ), early AS (
            DELETE FROM unmatched_callbacks
            WHERE account = $2
            AND transaction_id = $3
            RETURNING account
        )
        SELECT metadata::integer::bigint AS "metadata!", return_url::integer::bigint AS "return_url!",
            callback_token::integer::bigint AS "callback_token!", (SELECT count(*) FROM started) AS "started!",
            (SELECT count(*) FROM early) AS "early!"
        FROM found"#,
        new.id.0,
        new.account,
        new.transaction_id,
        new.at
    )
    .fetch_one(connection)
    .await?;
    destroyed.metadata = row.metadata;
    destroyed.return_url = row.return_url;
    destroyed.callback_token = row.callback_token;
    destroyed.client_answer = row.started;
    destroyed.callbacks += row.early;
    Ok(())
}

/// Takes everything out of the history but kinds, times and what [`KEPT_DETAILS`] names; returns of how many rows.
async fn clear_history(connection: &mut Session, id: VerificationId) -> Result<i64, StoreError> {
    let kept: Vec<String> = KEPT_DETAILS.map(str::to_owned).to_vec();
    let done = sqlx::query!(
        "-- erase: history
        UPDATE history h
        SET detail = k.detail
        FROM (
            SELECT history_id, coalesce((
                SELECT json_object_agg(m.key, m.value)
                FROM json_each(detail) AS m (key, value)
                WHERE m.key = ANY ($2)
            ), '{}') AS detail
            FROM history
            WHERE verification_id = $1
        ) k
        WHERE h.verification_id = $1
        AND h.history_id = k.history_id
        AND EXISTS (
            SELECT
            FROM json_each(h.detail) AS m (key, value)
            WHERE m.key <> ALL ($2)
        )",
        id.0,
        &kept
    )
    .execute(connection)
    .await?;
    Ok(i64::try_from(done.rows_affected()).unwrap_or(i64::MAX))
}

async fn end_as_void(connection: &mut Session, new: &NewErasure<'_>, open: &OpenWork) -> Result<(), StoreError> {
    sqlx::query!(
        "-- erase: end it
        WITH remembered AS (
            INSERT INTO history (verification_id, at, kind, detail)
            VALUES ($1, $3, 'verdict', json_build_object('status', 'void', 'reason', $4::text, 'revision', 1))
        )
        INSERT INTO verdicts (verification_id, revision, account, status, reason, scores, signals, decided_at,
            callback_at, hinted_at, checks)
        VALUES ($1, 1, $2, 'void', $4, '{}', '{}', $3, $5, $6, $7)",
        new.id.0,
        new.account,
        new.at,
        ERASED,
        open.callback_at,
        open.hinted_at,
        open.checks
    )
    .execute(connection)
    .await?;
    Ok(())
}

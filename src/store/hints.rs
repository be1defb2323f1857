//! Hints: accepted callbacks and requests to collect.
//!
//! Accepting one is a single narrow insert, because it happens while a provider waits. Working it into the job and
//! the history happens right after, in [`Store::take_hints`], and is put back by a crash in between.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::verifications::lock_transactions;
use super::{Store, StoreError};
use crate::domain::schedule::{HINT_INTERVAL, Lane};
use crate::domain::{FinalStatus, TokenHash, VerificationId};

/// Of how many callbacks of one verification the history keeps a row.
const KEPT_CALLBACKS: i64 = 10;

/// How many unmatched callbacks of one account are kept.
const KEPT_UNMATCHED: i64 = 10_000;

/// What an arriving callback's token is worth where the verification has no token of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccountToken {
    /// The account has no token.
    Unset,
    Right,
    Wrong,
}

impl AccountToken {
    fn as_str(self) -> &'static str {
        match self {
            Self::Unset => "unset",
            Self::Right => "right",
            Self::Wrong => "wrong",
        }
    }
}

/// A callback that has just arrived.
#[derive(Clone, Debug)]
pub struct Arrival {
    pub account: String,
    pub transaction_id: String,
    pub token: Option<TokenHash>,
    pub account_token: AccountToken,
    /// What it claims; kept in the history as a claim.
    pub passed: Option<String>,
    pub sub_code: Option<String>,
    pub at: DateTime<Utc>,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrived {
    /// Recorded; the check is due.
    Accepted,
    /// Kept until its transaction is registered.
    Unmatched,
    TokenMismatch,
    Unknown,
}

/// What one account's unmatched callbacks lost because there were too many.
#[derive(Debug, Default)]
pub struct Dropped(pub u64);

/// The hints that were worked in.
#[derive(Debug, Default)]
pub struct TakenHints {
    pub nudged: Vec<Nudged>,
    /// How many rows were taken; as many as were asked for means that there may be more.
    pub taken: usize,
}

#[derive(Debug)]
pub struct Nudged {
    pub id: VerificationId,
    pub account: String,
    /// Callbacks worked in, and how many of them were the first of their verification (0 or 1).
    pub callbacks: u32,
    pub first: bool,
}

/// A request to ask the provider now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Collect {
    /// Recorded; the check is due.
    Accepted,
    NotFound,
    /// It is final, and only a recheck asks again.
    AlreadyFinal(FinalStatus),
}

/// The detail that the history shows of a callback.
#[derive(serde::Serialize)]
struct CallbackDetail<'a> {
    passed: Option<&'a str>,
    sub_code: Option<&'a str>,
}

fn callback_detail(arrival: &Arrival) -> String {
    let detail = CallbackDetail { passed: arrival.passed.as_deref(), sub_code: arrival.sub_code.as_deref() };
    serde_json::to_string(&detail).expect("two texts are JSON")
}

/// Records what it can: `Arrived::Accepted`, `TokenMismatch`, or `Unknown` for each arrival, in order.
async fn accept(connection: &mut PgConnection, arrivals: &[Arrival]) -> Result<Vec<Arrived>, StoreError> {
    let accounts: Vec<&str> = arrivals.iter().map(|arrival| arrival.account.as_str()).collect();
    let transaction_ids: Vec<&str> = arrivals.iter().map(|arrival| arrival.transaction_id.as_str()).collect();
    let tokens: Vec<Option<&[u8]>> =
        arrivals.iter().map(|arrival| arrival.token.as_ref().map(|hash| &hash.as_bytes()[..])).collect();
    let account_tokens: Vec<&str> = arrivals.iter().map(|arrival| arrival.account_token.as_str()).collect();
    let details: Vec<String> = arrivals.iter().map(callback_detail).collect();
    let times: Vec<DateTime<Utc>> = arrivals.iter().map(|arrival| arrival.at).collect();
    // Hashes are compared, so the time it takes says nothing about a token. A verification's own token replaces the
    // account's.
    let found = sqlx::query!(
        r#"-- accept_callbacks
        WITH found AS (
            SELECT i.n, i.at, i.detail, v.verification_id, v.account,
                CASE WHEN v.expect_video THEN 0 ELSE 1 END AS lane,
                CASE
                    WHEN v.callback_token_sha256 IS NULL THEN i.account_token
                    WHEN v.callback_token_sha256 = i.token THEN 'right'
                    ELSE 'wrong'
                END AS token
            FROM unnest($1::text[], $2::text[], $3::bytea[], $4::text[], $5::text[], $6::timestamptz[])
                WITH ORDINALITY AS i (account, transaction_id, token, account_token, detail, at, n)
            CROSS JOIN LATERAL (
                SELECT *
                FROM verifications
                WHERE verifications.account = i.account COLLATE "C"
                AND verifications.transaction_id = i.transaction_id COLLATE "C"
                LIMIT 1
            ) v
        ), recorded AS (
            INSERT INTO hints (account, lane, verification_id, at, kind, authenticated, detail)
            SELECT account, lane, verification_id, at, 'callback', token = 'right', detail::json
            FROM found
            WHERE token <> 'wrong'
        )
        SELECT n AS "n!", token <> 'wrong' AS "accepted!"
        FROM found"#,
        &accounts as _,
        &transaction_ids as _,
        &tokens as _,
        &account_tokens as _,
        &details,
        &times,
    )
    .fetch_all(connection)
    .await?;
    let mut arrived = vec![Arrived::Unknown; arrivals.len()];
    for row in found {
        let place = usize::try_from(row.n - 1).ok().and_then(|index| arrived.get_mut(index));
        if let Some(place) = place {
            *place = if row.accepted { Arrived::Accepted } else { Arrived::TokenMismatch };
        }
    }
    Ok(arrived)
}

impl Store {
    /// Records a batch of callbacks in one flushed transaction. The answers are in the order of the arrivals.
    ///
    /// Those whose transaction nobody registered are left `Unknown`, or, with the right token of the account, are
    /// kept as `Unmatched` by a second transaction.
    pub async fn accept_callbacks(&self, arrivals: &[Arrival]) -> Result<(Vec<Arrived>, Dropped), StoreError> {
        let mut arrived = {
            let mut connection = self.pool.acquire().await?;
            accept(&mut connection, arrivals).await?
        };
        let early: Vec<usize> = (0..arrivals.len())
            .filter(|&n| arrived[n] == Arrived::Unknown && arrivals[n].account_token == AccountToken::Right)
            .collect();
        let mut dropped = Dropped::default();
        if !early.is_empty() {
            let batch: Vec<Arrival> = early.iter().map(|&n| arrivals[n].clone()).collect();
            let (late, lost) = self.keep_unmatched(&batch).await?;
            dropped = lost;
            for (n, outcome) in early.into_iter().zip(late) {
                arrived[n] = outcome;
            }
        }
        Ok((arrived, dropped))
    }

    async fn keep_unmatched(&self, arrivals: &[Arrival]) -> Result<(Vec<Arrived>, Dropped), StoreError> {
        let mut transaction = self.pool.begin().await?;
        let accounts: Vec<String> = arrivals.iter().map(|arrival| arrival.account.clone()).collect();
        let ids: Vec<String> = arrivals.iter().map(|arrival| arrival.transaction_id.clone()).collect();
        lock_transactions(&mut transaction, &accounts, &ids).await?;
        // Somebody may have registered it since the first look.
        let mut arrived = accept(&mut transaction, arrivals).await?;
        for (outcome, arrival) in arrived.iter_mut().zip(arrivals) {
            if *outcome != Arrived::Unknown {
                continue;
            }
            sqlx::query!(
                "-- keep_unmatched
                INSERT INTO unmatched_callbacks (account, transaction_id, received_at, passed, sub_code)
                VALUES ($1, $2, $3, $4, $5)
                ON CONFLICT (account, transaction_id)
                DO UPDATE SET callbacks = unmatched_callbacks.callbacks + 1",
                arrival.account,
                arrival.transaction_id,
                arrival.at,
                arrival.passed,
                arrival.sub_code
            )
            .execute(&mut *transaction)
            .await?;
            *outcome = Arrived::Unmatched;
        }
        let mut distinct = accounts;
        distinct.sort_unstable();
        distinct.dedup();
        let mut dropped = 0;
        for account in distinct {
            dropped += sqlx::query!(
                "-- keep_unmatched: the oldest go first
                DELETE FROM unmatched_callbacks
                WHERE account = $1
                AND transaction_id IN (
                    SELECT transaction_id
                    FROM unmatched_callbacks
                    WHERE account = $1
                    ORDER BY received_at DESC, transaction_id
                    OFFSET $2
                )",
                account,
                KEPT_UNMATCHED
            )
            .execute(&mut *transaction)
            .await?
            .rows_affected();
        }
        transaction.commit().await?;
        Ok((arrived, Dropped(dropped)))
    }

    /// Forgets unmatched callbacks received before `before`; returns how many.
    pub async fn forget_unmatched(&self, before: DateTime<Utc>) -> Result<u64, StoreError> {
        let done = sqlx::query!(
            "-- forget_unmatched
            DELETE FROM unmatched_callbacks
            WHERE received_at < $1",
            before
        )
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected())
    }

    /// Records the merchant's request to ask the provider now.
    ///
    /// A final verification other than `void` and `expired` is asked about again only with `recheck`.
    pub async fn collect(&self, id: VerificationId, recheck: bool, now: DateTime<Utc>) -> Result<Collect, StoreError> {
        let mut transaction = self.pool.begin().await?;
        let found = sqlx::query!(
            r#"-- collect: what it is about
            SELECT v.account, v.expect_video, d.status AS "status?"
            FROM verifications v
            LEFT JOIN verdicts d ON d.verification_id = v.verification_id AND d.superseded_at IS NULL
            WHERE v.verification_id = $1"#,
            id.0
        )
        .fetch_optional(&mut *transaction)
        .await?;
        let Some(found) = found else { return Ok(Collect::NotFound) };
        let status = found.status.map(|status| parse_final(&status, id)).transpose()?;
        if let Some(status) = status
            && !status.reopens_on_hint()
            && !recheck
        {
            return Ok(Collect::AlreadyFinal(status));
        }
        sqlx::query!(
            "-- collect
            INSERT INTO hints (account, lane, verification_id, at, kind, authenticated, detail)
            VALUES ($1, $2, $3, $4, 'collect', true, json_build_object('action', 'collect', 'recheck', $5::boolean))",
            found.account,
            if found.expect_video { Lane::Video.as_i16() } else { Lane::Fresh.as_i16() },
            id.0,
            now,
            recheck
        )
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(Collect::Accepted)
    }

    /// Works up to `limit` hints into jobs and history.
    ///
    /// The first authenticated hint, and every `collect`, makes the check due now and starts its schedule anew.
    /// Repeats and hints without a token make it due at most once in [`HINT_INTERVAL`]. On `void` and `expired` an
    /// authenticated hint opens one recheck, on other final states only a `collect` that says so.
    ///
    /// A hint whose job ended while this statement waited for it finds neither job nor verdict; it is put back and
    /// taken again, when the verdict is seen.
    pub async fn take_hints(&self, limit: i64, now: DateTime<Utc>) -> Result<TakenHints, StoreError> {
        let rows = sqlx::query!(
            r#"-- take_hints
            WITH taken AS (
                -- By row address: the cost is that of the rows taken, however many wait behind them.
                DELETE FROM hints
                WHERE ctid = ANY (ARRAY(
                    SELECT ctid
                    FROM hints
                    ORDER BY account, lane, hint_id
                    LIMIT $1
                    FOR UPDATE SKIP LOCKED
                ))
                RETURNING hint_id, account, lane, verification_id, at, kind, authenticated, detail
            ), good AS (
                SELECT verification_id,
                    min(account) AS account,
                    min(lane) AS lane,
                    count(*) FILTER (WHERE kind = 'callback')::integer AS callbacks,
                    min(at) FILTER (WHERE kind = 'callback') AS callback_at,
                    min(at) FILTER (WHERE authenticated) AS hinted_at,
                    bool_or(kind = 'collect') AS collect,
                    bool_or(CASE WHEN kind = 'collect' THEN detail ->> 'recheck' = 'true' ELSE false END) AS recheck
                FROM taken
                GROUP BY verification_id
                ORDER BY verification_id
            ), jobs AS (
                UPDATE collect_jobs j
                SET callbacks = j.callbacks + g.callbacks,
                    callback_at = coalesce(j.callback_at, g.callback_at),
                    hinted_at = coalesce(j.hinted_at, g.hinted_at),
                    lane = CASE
                        WHEN g.collect
                            OR (g.hinted_at IS NOT NULL AND j.hinted_at IS NULL)
                            OR j.nudged_at IS NULL
                            OR j.nudged_at <= $3
                        THEN g.lane ELSE j.lane
                    END,
                    due_at = CASE
                        WHEN g.collect
                            OR (g.hinted_at IS NOT NULL AND j.hinted_at IS NULL)
                            OR j.nudged_at IS NULL
                            OR j.nudged_at <= $3
                        THEN least(j.due_at, $2) ELSE j.due_at
                    END,
                    nudged_at = CASE
                        WHEN g.collect
                            OR (g.hinted_at IS NOT NULL AND j.hinted_at IS NULL)
                            OR j.nudged_at IS NULL
                            OR j.nudged_at <= $3
                        THEN $2 ELSE j.nudged_at
                    END,
                    nudged_again = j.nudged_again OR g.collect
                        OR (g.hinted_at IS NOT NULL AND j.hinted_at IS NULL)
                        OR j.nudged_at IS NULL
                        OR j.nudged_at <= $3,
                    running = CASE
                        WHEN g.collect OR (g.hinted_at IS NOT NULL AND j.hinted_at IS NULL) OR j.callback_at IS NULL
                        THEN 0 ELSE j.running
                    END,
                    faults = CASE
                        WHEN g.collect OR (g.hinted_at IS NOT NULL AND j.hinted_at IS NULL)
                        THEN 0 ELSE j.faults
                    END
                FROM good g
                WHERE j.verification_id = g.verification_id
                RETURNING j.verification_id, j.callbacks - g.callbacks AS callbacks_before
            ), closed AS MATERIALIZED (
                SELECT g.*
                FROM good g
                WHERE NOT EXISTS (SELECT FROM jobs j WHERE j.verification_id = g.verification_id)
            ), missed AS MATERIALIZED (
                SELECT c.verification_id
                FROM closed c
                WHERE NOT EXISTS (SELECT FROM verdicts d WHERE d.verification_id = c.verification_id OFFSET 0)
            ), put_back AS (
                INSERT INTO hints (account, lane, verification_id, at, kind, authenticated, detail)
                SELECT t.account, t.lane, t.verification_id, t.at, t.kind, t.authenticated, t.detail
                FROM taken t
                JOIN missed m USING (verification_id)
                ORDER BY t.hint_id
            ), reopened AS (
                INSERT INTO collect_jobs (verification_id, account, lane, due_at, callback_at, callbacks, hinted_at,
                    nudged_at, recheck, checks)
                SELECT c.verification_id, c.account, c.lane, $2, c.callback_at, c.callbacks, c.hinted_at, $2, true,
                    d.checks
                FROM closed c
                CROSS JOIN LATERAL (
                    SELECT status, checks
                    FROM verdicts
                    WHERE verdicts.verification_id = c.verification_id
                    AND superseded_at IS NULL
                    LIMIT 1
                ) d
                WHERE c.recheck
                OR (d.status IN ('void', 'expired') AND c.hinted_at IS NOT NULL)
                ON CONFLICT (verification_id) DO NOTHING
            ), late AS (
                UPDATE verdicts d
                SET callback_at = coalesce(d.callback_at, c.callback_at),
                    hinted_at = coalesce(d.hinted_at, c.hinted_at)
                FROM closed c
                WHERE d.verification_id = ANY (ARRAY(SELECT verification_id FROM closed))
                AND d.verification_id = c.verification_id
                AND d.superseded_at IS NULL
                AND ((d.callback_at IS NULL AND c.callback_at IS NOT NULL)
                    OR (d.hinted_at IS NULL AND c.hinted_at IS NOT NULL))
            ), counted AS (
                SELECT g.verification_id,
                    CASE
                        WHEN j.verification_id IS NOT NULL THEN j.callbacks_before::bigint
                        ELSE (SELECT count(*) FROM history h
                            WHERE h.verification_id = g.verification_id AND h.kind = 'callback')
                    END AS before
                FROM good g
                LEFT JOIN jobs j USING (verification_id)
                WHERE NOT EXISTS (SELECT FROM missed m WHERE m.verification_id = g.verification_id)
            ), remembered AS (
                INSERT INTO history (verification_id, at, kind, detail)
                SELECT t.verification_id, t.at, CASE t.kind WHEN 'collect' THEN 'operator' ELSE t.kind END, t.detail
                FROM (
                    SELECT *, row_number() OVER (PARTITION BY verification_id, kind ORDER BY hint_id) AS place
                    FROM taken
                ) t
                JOIN counted c USING (verification_id)
                WHERE t.kind = 'collect'
                OR c.before + t.place <= $4
                ORDER BY t.hint_id
            )
            SELECT g.verification_id AS "verification_id!", g.account AS "account!", g.callbacks AS "callbacks!",
                c.before = 0 AS "first!", (SELECT count(*) FROM taken) AS "taken!"
            FROM good g
            JOIN counted c USING (verification_id)
            CROSS JOIN (SELECT set_config('synchronous_commit', 'off', true)) AS quick"#,
            limit,
            now,
            now - HINT_INTERVAL,
            KEPT_CALLBACKS
        )
        .fetch_all(&self.pool)
        .await?;
        let taken = rows.first().map_or(0, |row| usize::try_from(row.taken).unwrap_or(0));
        let nudged = rows
            .into_iter()
            .map(|row| Nudged {
                id: VerificationId(row.verification_id),
                account: row.account,
                callbacks: u32::try_from(row.callbacks).unwrap_or(0),
                first: row.first && row.callbacks > 0,
            })
            .collect();
        Ok(TakenHints { nudged, taken })
    }
}

pub(super) fn parse_final(status: &str, id: VerificationId) -> Result<FinalStatus, StoreError> {
    status.parse().map_err(|_| StoreError::Inconsistent { table: "verdicts", column: "status", row: id.to_string() })
}

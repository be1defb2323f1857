//! Hints: accepted callbacks and requests to collect.
//!
//! Accepting one is a single narrow insert, because it happens while a provider waits. Working it into the job and
//! the history happens right after, in [`Store::take_hints`], and is put back by a crash in between.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::known::{Known, Registration};
use super::verifications::lock_transactions;
use super::{Session, Store, StoreError};
use crate::domain::schedule::Lane;
use crate::domain::{FinalStatus, TokenHash, VerificationId};

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
    /// What its trace goes on from; none where it is not traced.
    pub traceparent: Option<String>,
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

/// A request to ask the provider now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Collect {
    /// Recorded; the check is due.
    Accepted,
    NotFound,
    /// It is final, and only a recheck asks again.
    AlreadyFinal(FinalStatus),
    /// It is final, and nothing asks again.
    Erased,
}

/// The detail that the history shows of a callback.
#[derive(serde::Serialize)]
struct CallbackDetail<'a> {
    passed: Option<&'a str>,
    sub_code: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<&'a str>,
}

fn callback_detail(arrival: &Arrival) -> String {
    let detail = CallbackDetail {
        passed: arrival.passed.as_deref(),
        sub_code: arrival.sub_code.as_deref(),
        traceparent: arrival.traceparent.as_deref(),
    };
    serde_json::to_string(&detail).expect("texts are JSON")
}

/// The detail that the history shows of a request to collect.
#[derive(serde::Serialize)]
struct CollectDetail<'a> {
    action: &'static str,
    recheck: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<&'a str>,
}

/// Records what it can of the `wanted` arrivals by looking their transactions up, and remembers what it finds.
async fn look_up_and_accept(
    connection: &mut Session,
    known: &Known,
    arrivals: &[Arrival],
    wanted: &[usize],
    arrived: &mut [Arrived],
) -> Result<(), StoreError> {
    let arrivals: Vec<&Arrival> = wanted.iter().map(|&n| &arrivals[n]).collect();
    let accounts: Vec<&str> = arrivals.iter().map(|arrival| arrival.account.as_str()).collect();
    let transaction_ids: Vec<&str> = arrivals.iter().map(|arrival| arrival.transaction_id.as_str()).collect();
    let tokens: Vec<Option<&[u8]>> =
        arrivals.iter().map(|arrival| arrival.token.as_ref().map(|hash| &hash.as_bytes()[..])).collect();
    let account_tokens: Vec<&str> = arrivals.iter().map(|arrival| arrival.account_token.as_str()).collect();
    let details: Vec<String> = arrivals.iter().map(|arrival| callback_detail(arrival)).collect();
    let times: Vec<DateTime<Utc>> = arrivals.iter().map(|arrival| arrival.at).collect();
    // Hashes are compared, so the time it takes says nothing about a token. A verification's own token replaces the
    // account's.
    let found = sqlx::query!(
        r#"-- look_up_and_accept
        WITH found AS (
            SELECT i.n, i.at, i.detail, v.verification_id, v.account, v.expect_video, v.callback_token_sha256,
                v.erased_at IS NOT NULL AS erased,
                CASE WHEN v.expect_video THEN 0 ELSE 1 END AS lane,
                CASE
                    -- Its token is gone, so none is wrong; nothing is recorded either.
                    WHEN v.erased_at IS NOT NULL THEN 'right'
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
            AND NOT erased
        )
        SELECT n AS "n!", token <> 'wrong' AS "accepted!", verification_id AS "verification_id!",
            expect_video AS "expect_video!", callback_token_sha256, erased AS "erased!"
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
    for row in found {
        let place = usize::try_from(row.n - 1).ok().and_then(|n| Some((*wanted.get(n)?, *arrivals.get(n)?)));
        let Some((place, arrival)) = place else { continue };
        arrived[place] = if row.accepted { Arrived::Accepted } else { Arrived::TokenMismatch };
        if row.erased {
            continue;
        }
        let id = VerificationId(row.verification_id);
        let token = row.callback_token_sha256.map(|hash| token_hash(&hash, id)).transpose()?;
        let registration = Registration { id, expect_video: row.expect_video, token };
        known.remember(&arrival.account, &arrival.transaction_id, registration);
    }
    Ok(())
}

/// Records callbacks of verifications that are known, each with whether it is authenticated.
async fn accept_known(connection: &mut Session, accepted: &[(&Arrival, Registration, bool)]) -> Result<(), StoreError> {
    let accounts: Vec<&str> = accepted.iter().map(|(arrival, ..)| arrival.account.as_str()).collect();
    let lanes: Vec<i16> = accepted.iter().map(|(_, known, _)| lane(known.expect_video).as_i16()).collect();
    let ids: Vec<Uuid> = accepted.iter().map(|(_, known, _)| known.id.0).collect();
    let times: Vec<DateTime<Utc>> = accepted.iter().map(|(arrival, ..)| arrival.at).collect();
    let authenticated: Vec<bool> = accepted.iter().map(|(.., authenticated)| *authenticated).collect();
    let details: Vec<String> = accepted.iter().map(|(arrival, ..)| callback_detail(arrival)).collect();
    sqlx::query!(
        "-- accept_known
        INSERT INTO hints (account, lane, verification_id, at, kind, authenticated, detail)
        SELECT account, lane, verification_id, at, 'callback', authenticated, detail::json
        FROM unnest($1::text[], $2::smallint[], $3::uuid[], $4::timestamptz[], $5::boolean[], $6::text[])
            AS i (account, lane, verification_id, at, authenticated, detail)",
        &accounts as _,
        &lanes,
        &ids,
        &times,
        &authenticated,
        &details,
    )
    .execute(connection)
    .await?;
    Ok(())
}

fn lane(expect_video: bool) -> Lane {
    if expect_video { Lane::Video } else { Lane::Fresh }
}

fn token_hash(stored: &[u8], id: VerificationId) -> Result<TokenHash, StoreError> {
    <[u8; 32]>::try_from(stored).map(TokenHash::from).map_err(|_| StoreError::Inconsistent {
        table: "verifications",
        column: "callback_token_sha256",
        row: id.to_string(),
    })
}

impl Store {
    /// Records a batch of callbacks in flushed transactions. The answers are in the order of the arrivals.
    ///
    /// Those whose transaction nobody registered are left `Unknown`, or, with the right token of the account, are
    /// kept as `Unmatched` by a second transaction.
    pub async fn accept_callbacks(&self, arrivals: &[Arrival]) -> Result<(Vec<Arrived>, Dropped), StoreError> {
        let mut arrived = vec![Arrived::Unknown; arrivals.len()];
        let (mut accepted, mut unknown) = (Vec::new(), Vec::new());
        for (n, arrival) in arrivals.iter().enumerate() {
            let Some(known) = self.known.find(&arrival.account, &arrival.transaction_id) else {
                unknown.push(n);
                continue;
            };
            // Of hashes, in constant time. A verification's own token replaces the account's.
            let worth = match known.token {
                None => arrival.account_token,
                Some(token) if arrival.token == Some(token) => AccountToken::Right,
                Some(_) => AccountToken::Wrong,
            };
            if worth == AccountToken::Wrong {
                arrived[n] = Arrived::TokenMismatch;
            } else {
                arrived[n] = Arrived::Accepted;
                accepted.push((arrival, known, worth == AccountToken::Right));
            }
        }
        if !accepted.is_empty() || !unknown.is_empty() {
            let mut connection = self.pool.acquire().await?;
            if !accepted.is_empty() {
                accept_known(&mut connection, &accepted).await?;
            }
            if !unknown.is_empty() {
                look_up_and_accept(&mut connection, &self.known, arrivals, &unknown, &mut arrived).await?;
            }
        }
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
        let mut arrived = vec![Arrived::Unknown; arrivals.len()];
        let all: Vec<usize> = (0..arrivals.len()).collect();
        look_up_and_accept(&mut transaction, &self.known, arrivals, &all, &mut arrived).await?;
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
    /// A final verification other than `void` and `expired` is asked about again only with `recheck`, an erased one never.
    pub async fn collect(
        &self,
        id: VerificationId,
        recheck: bool,
        traceparent: Option<&str>,
        now: DateTime<Utc>,
    ) -> Result<Collect, StoreError> {
        let mut transaction = self.pool.begin().await?;
        let found = sqlx::query!(
            r#"-- collect: what it is about
            SELECT v.account, v.expect_video, v.erased_at, d.status AS "status?"
            FROM verifications v
            LEFT JOIN LATERAL (
                SELECT status
                FROM verdicts
                WHERE verdicts.verification_id = v.verification_id
                AND superseded_at IS NULL
                ORDER BY revision DESC
                LIMIT 1
            ) d ON true
            WHERE v.verification_id = $1
            FOR KEY SHARE OF v"#,
            id.0
        )
        .fetch_optional(&mut *transaction)
        .await?;
        let Some(found) = found else { return Ok(Collect::NotFound) };
        if found.erased_at.is_some() {
            return Ok(Collect::Erased);
        }
        let status = found.status.map(|status| parse_final(&status, id)).transpose()?;
        if let Some(status) = status
            && !status.reopens_on_hint()
            && !recheck
        {
            return Ok(Collect::AlreadyFinal(status));
        }
        let detail = CollectDetail { action: "collect", recheck, traceparent };
        let detail = serde_json::to_string(&detail).expect("texts are JSON");
        sqlx::query!(
            "-- collect
            INSERT INTO hints (account, lane, verification_id, at, kind, authenticated, detail)
            VALUES ($1, $2, $3, $4, 'collect', true, $5::text::json)",
            found.account,
            lane(found.expect_video).as_i16(),
            id.0,
            now,
            detail
        )
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(Collect::Accepted)
    }
}

pub(super) fn parse_final(status: &str, id: VerificationId) -> Result<FinalStatus, StoreError> {
    status.parse().map_err(|_| StoreError::Inconsistent { table: "verdicts", column: "status", row: id.to_string() })
}

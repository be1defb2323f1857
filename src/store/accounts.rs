//! The state of an account that all replicas share: its pace, and whether it is in trouble.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::lease_due::count;
use super::{Pace, Rate, Standing, Store, StoreError};
use crate::domain::VerificationId;
use crate::domain::schedule::{after_probe, after_throttle};

/// After so many in a row the waits no longer grow.
const STEPS: u32 = 8;

/// The slowest pace that throttling leads to, calls a second.
const SLOWEST: f64 = 0.2;

/// How an account is.
#[derive(Clone, Debug, PartialEq)]
pub struct AccountHealth {
    pub account: String,
    pub failing: Option<Failing>,
    /// No call before this time, because the provider throttled.
    pub hold_until: Option<DateTime<Utc>>,
    pub probe_at: Option<DateTime<Utc>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failing {
    pub since: DateTime<Utc>,
    pub reason: String,
    pub code: String,
}

/// What there is to poll of an account.
#[derive(Clone, Debug)]
pub struct PollLoad {
    /// How many verifications wait in lane `Poll`, by their answers in a row that there is no result yet.
    pub waiting: Vec<(u32, u64)>,
    /// Calls so far that were no polls, over all replicas.
    pub other_calls: i64,
    /// Calls a second that the account may make at present.
    pub rate: f64,
}

/// When a provider counts as down.
#[derive(Clone, Copy, Debug)]
pub struct Outage {
    /// Calls in a row without a usable answer.
    pub calls: i32,
    /// The verifications that they were about; a few poisoned ones are no outage.
    pub verifications: i32,
    /// The time from the first of them on.
    pub lasting: Duration,
    pub reason: &'static str,
}

/// Whether a call that no job stands behind may be made now.
#[derive(Debug)]
pub enum CallSlot {
    /// In so many seconds; it is taken.
    Granted { slot_in: f64, standing: Standing },
    /// The next slot is too far ahead, in so many seconds.
    Busy { slot_in: f64 },
    /// The provider throttled: no call before this time.
    Held { until: DateTime<Utc> },
    /// No call before the next probe.
    Failing(Failing, Option<DateTime<Utc>>),
}

impl Store {
    /// Makes sure that each account has its row.
    pub async fn add_accounts(&self, accounts: &[String]) -> Result<(), StoreError> {
        sqlx::query!(
            "-- add_accounts
            INSERT INTO accounts (account)
            SELECT account
            FROM unnest($1::text[]) AS i (account)
            ORDER BY account
            ON CONFLICT (account) DO NOTHING",
            accounts
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    pub async fn account_health(&self) -> Result<Vec<AccountHealth>, StoreError> {
        let rows = sqlx::query!(
            "-- account_health
            SELECT account, hold_until, failing_since, failing_reason, failing_code, probe_at
            FROM accounts
            ORDER BY account"
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows
            .into_iter()
            .map(|row| AccountHealth {
                account: row.account,
                failing: row.failing_since.map(|since| Failing {
                    since,
                    reason: row.failing_reason.unwrap_or_default(),
                    code: row.failing_code.unwrap_or_default(),
                }),
                hold_until: row.hold_until,
                probe_at: row.probe_at,
            })
            .collect())
    }

    /// What there is to poll of an account, and what it may spend.
    pub async fn poll_load(&self, account: &str, rate: Rate, now: DateTime<Utc>) -> Result<PollLoad, StoreError> {
        let row = sqlx::query!(
            r#"-- poll_load: the account
            SELECT other_calls, effective_rate(rate, rate_at, refused_rate, $2, $3, $4) AS "rate!"
            FROM accounts
            WHERE account = $1"#,
            account,
            f64::from(rate.qps),
            rate.recovery,
            now
        )
        .fetch_one(&self.pool)
        .await?;
        let waiting = sqlx::query!(
            r#"-- poll_load: what waits
            SELECT running, count(*) AS "count!"
            FROM collect_jobs
            WHERE account = $1
            AND lane = 3
            AND lease_token IS NULL
            AND NOT recheck
            GROUP BY running"#,
            account
        )
        .fetch_all(&self.pool)
        .await?;
        let waiting = waiting.into_iter().map(|row| (count(row.running), u64::try_from(row.count).unwrap_or(0)));
        Ok(PollLoad { waiting: waiting.collect(), other_calls: row.other_calls, rate: row.rate })
    }

    /// Takes further slots for calls that missed their own; returns the seconds until each. There is at least one, and
    /// no more than `most`: an account of few calls a second gives one at a time, because the next depends on it.
    pub async fn take_slots(
        &self,
        account: &str,
        rate: Rate,
        pace: Pace,
        most: usize,
        now: DateTime<Utc>,
    ) -> Result<Vec<f64>, StoreError> {
        let row = sqlx::query!(
            r#"-- take_slots
            WITH account AS MATERIALIZED (
                SELECT a.account, p.*, CASE WHEN $6 THEN p.bulk_at ELSE p.urgent_at END AS slot_at,
                    CASE WHEN p.kept > 1 THEN 1 ELSE greatest(1, $7::bigint) END AS calls
                FROM (
                    SELECT *
                    FROM accounts
                    WHERE account = $1
                    FOR UPDATE
                ) a
                CROSS JOIN LATERAL account_pace(a, $3, $4, $5, $2) p
            ), moved AS (
                UPDATE accounts a
                SET next_slot_at = CASE
                        WHEN $6 THEN a.next_slot_at
                        ELSE b.slot_at + make_interval(secs => b.spacing * b.calls)
                    END,
                    next_bulk_at = greatest(b.next_bulk, b.slot_at) + make_interval(secs => b.spacing * b.calls),
                    recent_slots =
                        (b.slot_at + make_interval(secs => b.spacing * (b.calls - 1)) || b.recent)[1:b.kept]
                FROM account b
                WHERE a.account = b.account
            )
            SELECT extract(epoch FROM slot_at - database_now())::double precision AS "first_in!",
                spacing AS "spacing!", calls AS "calls!"
            FROM account"#,
            account,
            now,
            f64::from(rate.qps),
            rate.slack.as_secs_f64(),
            rate.recovery,
            pace == Pace::Bulk,
            i64::try_from(most).unwrap_or(i64::MAX),
        )
        .fetch_one(&self.pool)
        .await?;
        let calls = u32::try_from(row.calls).unwrap_or(1);
        Ok((0..calls).map(|n| row.first_in + row.spacing * f64::from(n)).collect())
    }

    /// Takes a slot within the horizon of its pace for a call that no job stands behind, if the account is not held. On
    /// a failing account it becomes the probe, when one is due.
    pub async fn take_call_slot(
        &self,
        account: &str,
        rate: Rate,
        pace: Pace,
        now: DateTime<Utc>,
        next_probe_at: DateTime<Utc>,
    ) -> Result<CallSlot, StoreError> {
        let horizon = if pace == Pace::Bulk { rate.bulk_horizon } else { rate.horizon };
        let row = sqlx::query!(
            r#"-- take_call_slot
            WITH account AS MATERIALIZED (
                SELECT a.account, a.hold_until, a.failing_since, a.failing_reason, a.failing_code, a.probe_at,
                    a.throttles > 0 OR a.unanswered > 0 AS unsettled, coalesce(a.hold_until > $2, false) AS held,
                    p.*, CASE WHEN $8 THEN p.bulk_at ELSE p.urgent_at END AS slot_at
                FROM (
                    SELECT *
                    FROM accounts
                    WHERE account = $1
                    FOR UPDATE
                ) a
                CROSS JOIN LATERAL account_pace(a, $3, $5, $4, $2) p
            ), taken AS (
                UPDATE accounts a
                SET next_slot_at = CASE
                        WHEN $8 THEN a.next_slot_at
                        ELSE b.slot_at + make_interval(secs => b.spacing)
                    END,
                    next_bulk_at = greatest(b.next_bulk, b.slot_at) + make_interval(secs => b.spacing),
                    recent_slots = (b.slot_at || b.recent)[1:b.kept],
                    other_calls = a.other_calls + 1,
                    probe_at = CASE WHEN b.failing_since IS NOT NULL THEN $7 ELSE a.probe_at END
                FROM account b
                WHERE a.account = b.account
                AND NOT b.held
                AND (b.failing_since IS NULL OR b.probe_at <= $2)
                AND b.slot_at <= b.database_at + make_interval(secs => $6)
                RETURNING a.account
            )
            SELECT EXISTS (SELECT FROM taken) AS "granted!", held AS "held!", hold_until, failing_since, failing_reason,
                failing_code, probe_at, unsettled AS "unsettled!",
                extract(epoch FROM slot_at - database_now())::double precision AS "slot_in!"
            FROM account"#,
            account,
            now,
            f64::from(rate.qps),
            rate.recovery,
            rate.slack.as_secs_f64(),
            horizon.as_secs_f64(),
            next_probe_at,
            pace == Pace::Bulk,
        )
        .fetch_one(&self.pool)
        .await?;
        let failing = row.failing_since.map(|since| Failing {
            since,
            reason: row.failing_reason.unwrap_or_default(),
            code: row.failing_code.unwrap_or_default(),
        });
        Ok(match (row.granted, row.hold_until, failing) {
            (true, _, failing) => {
                let standing = match failing {
                    Some(_) => Standing::Probed,
                    None if row.unsettled => Standing::Unsettled,
                    None => Standing::Well,
                };
                CallSlot::Granted { slot_in: row.slot_in, standing }
            }
            (false, Some(until), _) if row.held => CallSlot::Held { until },
            (false, _, Some(failing)) if row.probe_at.is_none_or(|at| at > now) => {
                CallSlot::Failing(failing, row.probe_at)
            }
            (false, ..) => CallSlot::Busy { slot_in: row.slot_in },
        })
    }

    /// Halves the pace and holds the account still for the time the provider named, or for a growing one. Answers
    /// that were under way when the hold began lower it no further. A rate that is refused within `memory` of the time
    /// before is remembered, and tried again only slowly. Returns the end of the hold.
    pub async fn throttle_account(
        &self,
        account: &str,
        qps: u32,
        recovery: f64,
        memory: Duration,
        named: Option<Duration>,
        now: DateTime<Utc>,
    ) -> Result<DateTime<Utc>, StoreError> {
        let steps: Vec<f64> = (1..=STEPS).map(|step| after_throttle(step).as_secs_f64()).collect();
        let until = sqlx::query_scalar!(
            r#"-- throttle_account
            UPDATE accounts
            SET hold_until = greatest(hold_until, $2::timestamptz + make_interval(secs => coalesce($3::double precision,
                    ($4::double precision[])[least(throttles + (CASE WHEN hold_until > $2 THEN 0 ELSE 1 END), cardinality($4::double precision[]))]))),
                throttles = CASE WHEN hold_until > $2 THEN greatest(throttles, 1) ELSE throttles + 1 END,
                rate = CASE
                    WHEN hold_until > $2 THEN coalesce(rate, $5)
                    ELSE greatest($6::double precision, 0.5 * effective_rate(rate, rate_at, refused_rate, $5, $7, $2))
                END,
                refused_rate = CASE
                    WHEN hold_until > $2 THEN refused_rate
                    WHEN rate_at > $2::timestamptz - make_interval(secs => $8)
                    THEN effective_rate(rate, rate_at, refused_rate, $5, $7, $2)
                END,
                rate_at = $2, unanswered = 0, unanswered_since = NULL, unanswered_of = '{}'
            WHERE account = $1
            RETURNING hold_until AS "hold_until!""#,
            account,
            now,
            named.map(|wait| wait.as_secs_f64()),
            &steps,
            f64::from(qps),
            SLOWEST,
            recovery,
            memory.as_secs_f64(),
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(until)
    }

    /// Notes that the account answered well again, after throttling or after no answers.
    pub async fn settle_account(&self, account: &str) -> Result<(), StoreError> {
        sqlx::query!(
            "-- settle_account
            UPDATE accounts
            SET throttles = 0, unanswered = 0, unanswered_since = NULL, unanswered_of = '{}'
            WHERE account = $1
            AND (throttles > 0 OR unanswered > 0)",
            account
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Counts a call without a usable answer. Enough of them in a row, over enough time and about enough verifications,
    /// say that the provider is down: the account is failing with `reason`. On a failing account a `probe` without an
    /// answer leaves the reason and makes the next one wait longer. True when the account was well before.
    pub async fn note_unanswered(
        &self,
        account: &str,
        of: VerificationId,
        outage: Outage,
        code: &str,
        probe: bool,
        now: DateTime<Utc>,
    ) -> Result<bool, StoreError> {
        let steps: Vec<f64> = (0..STEPS).map(|step| after_probe(step).as_secs_f64()).collect();
        let is_new = sqlx::query_scalar!(
            r#"-- note_unanswered
            UPDATE accounts a
            SET unanswered = a.unanswered + 1,
                unanswered_since = coalesce(a.unanswered_since, $2),
                unanswered_of = b.of,
                failing_since = CASE WHEN b.is_outage THEN $2 ELSE a.failing_since END,
                failing_reason = CASE WHEN b.is_outage THEN $3 ELSE a.failing_reason END,
                failing_code = CASE WHEN b.is_outage THEN $4 ELSE a.failing_code END,
                probe_at = CASE
                    WHEN b.is_outage THEN $2 + make_interval(secs => ($5::double precision[])[1])
                    WHEN a.failing_since IS NOT NULL AND $6
                    THEN $2 + make_interval(secs => ($5::double precision[])[least(a.probes + 2, cardinality($5::double precision[]))])
                    ELSE a.probe_at
                END,
                probes = CASE
                    WHEN b.is_outage THEN 0
                    WHEN a.failing_since IS NOT NULL AND $6 THEN a.probes + 1
                    ELSE a.probes
                END
            FROM (
                SELECT account, of,
                    failing_since IS NULL AND unanswered + 1 >= $7 AND cardinality(of) >= $8
                        AND coalesce(unanswered_since, $2) <= $2::timestamptz - make_interval(secs => $9) AS is_outage
                FROM (
                    SELECT account, failing_since, unanswered, unanswered_since,
                        CASE
                            WHEN $10 = ANY (unanswered_of) OR cardinality(unanswered_of) >= $8 THEN unanswered_of
                            ELSE unanswered_of || $10::uuid
                        END AS of
                    FROM accounts
                    WHERE account = $1
                    FOR UPDATE
                ) locked
            ) b
            WHERE a.account = b.account
            RETURNING b.is_outage AS "is_outage!""#,
            account,
            now,
            outage.reason,
            code,
            &steps,
            probe,
            outage.calls,
            outage.verifications,
            outage.lasting.as_secs_f64(),
            of.0,
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(is_new)
    }

    /// Marks the account as failing. `probe`: the answer came to the one call that tried again, so the next waits
    /// longer. True when the account was well before.
    pub async fn mark_failing(
        &self,
        account: &str,
        reason: &str,
        code: &str,
        probe: bool,
        now: DateTime<Utc>,
    ) -> Result<bool, StoreError> {
        let steps: Vec<f64> = (0..STEPS).map(|step| after_probe(step).as_secs_f64()).collect();
        let since = sqlx::query_scalar!(
            r#"-- mark_failing
            UPDATE accounts
            SET failing_since = coalesce(failing_since, $2),
                failing_reason = $3,
                failing_code = $4,
                unanswered = 0, unanswered_since = NULL, unanswered_of = '{}',
                probe_at = CASE
                    WHEN failing_since IS NULL THEN $2 + make_interval(secs => ($6::double precision[])[1])
                    WHEN $5 THEN $2 + make_interval(secs => ($6::double precision[])[least(probes + 2, cardinality($6::double precision[]))])
                    ELSE probe_at
                END,
                probes = CASE WHEN failing_since IS NULL THEN 0 WHEN $5 THEN probes + 1 ELSE probes END
            WHERE account = $1
            RETURNING failing_since AS "failing_since!""#,
            account,
            now,
            reason,
            code,
            probe,
            &steps,
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(since == now)
    }

    /// Makes the next probe due, because the one that was leased was not sent.
    pub async fn return_probe(&self, account: &str, now: DateTime<Utc>) -> Result<(), StoreError> {
        sqlx::query!(
            "-- return_probe
            UPDATE accounts
            SET probe_at = least(probe_at, $2)
            WHERE account = $1
            AND failing_since IS NOT NULL",
            account,
            now
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Marks the account as well, if it failed for `reason` (`None`: whatever it was). True when it did.
    pub async fn mark_well(&self, account: &str, reason: Option<&str>) -> Result<bool, StoreError> {
        let done = sqlx::query!(
            "-- mark_well
            UPDATE accounts
            SET failing_since = NULL, failing_reason = NULL, failing_code = NULL, probe_at = NULL, probes = 0,
                unanswered = 0, unanswered_since = NULL, unanswered_of = '{}'
            WHERE account = $1
            AND failing_since IS NOT NULL
            AND ($2::text IS NULL OR failing_reason = $2)",
            account,
            reason
        )
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected() > 0)
    }

    /// Makes a probe due now if the account fails for one of these reasons, because what they are about has changed.
    pub async fn probe_now(&self, account: &str, reasons: &[&str], now: DateTime<Utc>) -> Result<bool, StoreError> {
        let done = sqlx::query!(
            "-- probe_now
            UPDATE accounts
            SET probe_at = least(probe_at, $2), probes = 0
            WHERE account = $1
            AND failing_since IS NOT NULL
            AND failing_reason = ANY ($3)",
            account,
            now,
            reasons as _
        )
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected() > 0)
    }
}

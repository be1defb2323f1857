//! The state of an account that all replicas share: its pace, and whether it is in trouble.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::{Rate, Standing, Store, StoreError};
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

    /// Takes one more slot for a call that missed its own; returns the seconds until it.
    pub async fn take_slot(&self, account: &str, rate: Rate) -> Result<f64, StoreError> {
        let slot_in = sqlx::query_scalar!(
            r#"-- take_slot
            UPDATE accounts
            SET next_slot_at = greatest(next_slot_at, database_now())
                + make_interval(secs => (1 + $3::double precision) * 1.001 / least($2, coalesce(rate, $2)))
            WHERE account = $1
            RETURNING extract(epoch FROM next_slot_at
                - make_interval(secs => (1 + $3::double precision) * 1.001 / least($2, coalesce(rate, $2)))
                - database_now())::double precision AS "slot_in!""#,
            account,
            f64::from(rate.qps),
            rate.slack.as_secs_f64()
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(slot_in)
    }

    /// Takes a slot within the horizon for a call that no job stands behind, if the account is not held. On a failing
    /// account it becomes the probe, when one is due.
    pub async fn take_call_slot(
        &self,
        account: &str,
        rate: Rate,
        now: DateTime<Utc>,
        next_probe_at: DateTime<Utc>,
    ) -> Result<CallSlot, StoreError> {
        let row = sqlx::query!(
            r#"-- take_call_slot
            WITH account AS MATERIALIZED (
                SELECT *, (1 + $5::double precision) * 1.001 / effective AS spacing,
                    coalesce(hold_until > $2, false) AS held
                FROM (
                    SELECT *, greatest(next_slot_at, database_now()) AS slot_at,
                        CASE
                            WHEN rate IS NULL THEN $3::double precision
                            ELSE least($3::double precision, rate + $3::double precision * $4::double precision
                                * greatest(0, extract(epoch FROM $2 - rate_at)::double precision))
                        END AS effective
                    FROM accounts
                    WHERE account = $1
                    FOR UPDATE
                ) locked
            ), taken AS (
                UPDATE accounts a
                SET next_slot_at = b.slot_at + make_interval(secs => b.spacing),
                    probe_at = CASE WHEN b.failing_since IS NOT NULL THEN $7 ELSE a.probe_at END
                FROM account b
                WHERE a.account = b.account
                AND NOT b.held
                AND (b.failing_since IS NULL OR b.probe_at <= $2)
                AND b.slot_at <= database_now() + make_interval(secs => $6)
                RETURNING a.account
            )
            SELECT EXISTS (SELECT FROM taken) AS "granted!", held AS "held!", hold_until, failing_since, failing_reason,
                failing_code, probe_at, throttles > 0 AS "throttled!",
                extract(epoch FROM slot_at - database_now())::double precision AS "slot_in!"
            FROM account"#,
            account,
            now,
            f64::from(rate.qps),
            rate.recovery,
            rate.slack.as_secs_f64(),
            rate.horizon.as_secs_f64(),
            next_probe_at,
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
                    None if row.throttled => Standing::Throttled,
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
    /// that were under way when the hold began lower it no further. Returns the end of the hold.
    pub async fn throttle_account(
        &self,
        account: &str,
        qps: u32,
        recovery: f64,
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
                    ELSE greatest($6::double precision, 0.5 * least($5, coalesce(
                        rate + $5 * $7::double precision * greatest(0, extract(epoch FROM $2::timestamptz - rate_at)::double precision), $5)))
                END,
                rate_at = $2
            WHERE account = $1
            RETURNING hold_until AS "hold_until!""#,
            account,
            now,
            named.map(|wait| wait.as_secs_f64()),
            &steps,
            f64::from(qps),
            SLOWEST,
            recovery,
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(until)
    }

    /// Notes that the account answered well again after throttling.
    pub async fn end_throttling(&self, account: &str) -> Result<(), StoreError> {
        sqlx::query!(
            "-- end_throttling
            UPDATE accounts
            SET throttles = 0
            WHERE account = $1
            AND throttles > 0",
            account
        )
        .execute(&self.pool)
        .await?;
        Ok(())
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

    /// Marks the account as well. True when it was failing.
    pub async fn mark_well(&self, account: &str) -> Result<bool, StoreError> {
        let done = sqlx::query!(
            "-- mark_well
            UPDATE accounts
            SET failing_since = NULL, failing_reason = NULL, failing_code = NULL, probe_at = NULL, probes = 0
            WHERE account = $1
            AND failing_since IS NOT NULL",
            account
        )
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected() > 0)
    }
}

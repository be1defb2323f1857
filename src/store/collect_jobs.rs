//! Leased work: which verification is asked about next, by whom, and what came of it.
//!
//! A lease is a token and a time by the database's clock. Every write of a worker names its token; a write whose
//! lease is lost changes nothing. One row lock on the account makes replicas take turns at leasing, so the slots that
//! they take for their calls never overlap.

use std::fmt;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use super::records::first_id_at;
use super::{Store, StoreError};
use crate::domain::schedule::Lane;
use crate::domain::{FinalStatus, VerificationId};

/// How an account's calls are paced.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// Calls a second that the provider allows.
    pub qps: u32,
    /// How much later than its slot a call may arrive at the provider without breaking the limit there.
    pub slack: Duration,
    /// How far ahead slots are taken.
    pub horizon: Duration,
    /// What a lowered rate wins back each second, as a share of `qps`.
    pub recovery: f64,
}

/// What a worker asks for.
#[derive(Clone, Copy, Debug)]
pub struct Lease<'a> {
    pub account: &'a str,
    pub token: Uuid,
    pub limit: i64,
    pub length: Duration,
    pub rate: Rate,
    pub now: DateTime<Utc>,
    /// While the account fails: when it is probed after this probe, should that one get lost.
    pub next_probe_at: DateTime<Utc>,
}

/// Whose deadline is over: hinted until `hinted_before`, or never hinted and registered until `registered_before`.
#[derive(Clone, Copy, Debug)]
pub struct Overdue<'a> {
    pub account: &'a str,
    pub token: Uuid,
    pub limit: i64,
    pub length: Duration,
    pub hinted_before: DateTime<Utc>,
    pub registered_before: DateTime<Utc>,
}

/// A verification that this worker may ask about until its lease runs out.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a column of its own")]
pub struct LeasedJob {
    pub id: VerificationId,
    pub token: Uuid,
    pub transaction_id: String,
    pub merchant_biz_id: String,
    pub product: Option<String>,
    pub expect_video: bool,
    pub registered_at: DateTime<Utc>,
    pub hinted_at: Option<DateTime<Utc>>,
    pub callback_at: Option<DateTime<Utc>>,
    pub recheck: bool,
    pub checks: u32,
    pub running: u32,
    pub faults: u32,
    /// Seconds until the slot of its call, counted when the database answered; below zero when it has passed.
    pub slot_in: f64,
    /// The account fails, and this is the one probe.
    pub probe: bool,
    /// The account's last answers were throttled.
    pub throttled: bool,
}

/// A check that ended the verification.
#[derive(Clone)]
pub struct CheckedFinal {
    pub id: VerificationId,
    pub token: Uuid,
    pub status: FinalStatus,
    pub sub_code: Option<String>,
    pub reason: String,
    pub scores: String,
    pub signals: String,
    pub answer: Option<String>,
    pub last_error: Option<String>,
    /// Of the row in the history; none where the provider was not asked.
    pub check_detail: Option<String>,
    pub at: DateTime<Utc>,
    /// Only a verdict of the provider replaces an earlier one; anything else ends a recheck without a trace.
    pub replaces: bool,
}

impl fmt::Debug for CheckedFinal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CheckedFinal")
            .field("id", &self.id)
            .field("status", &self.status)
            .field("sub_code", &self.sub_code)
            .finish_non_exhaustive()
    }
}

/// A check after which the provider is to be asked again.
#[derive(Clone, Debug)]
pub struct CheckedOpen {
    pub id: VerificationId,
    pub token: Uuid,
    /// `None`: the lane that it was in.
    pub lane: Option<Lane>,
    pub due_at: DateTime<Utc>,
    pub running: u32,
    pub faults: u32,
    pub last_error: Option<String>,
    /// None where no call was made.
    pub check_detail: Option<String>,
    pub at: DateTime<Utc>,
}

/// What was stored of a final check.
#[derive(Clone, Debug)]
pub struct Recorded {
    pub id: VerificationId,
    /// The revision that was added; none when the answer was the known one.
    pub revision: Option<i32>,
    pub callback_at: Option<DateTime<Utc>>,
    /// A hint came meanwhile, so the provider is asked once more before it ends without a result.
    pub again: bool,
}

fn count(value: i32) -> u32 {
    u32::try_from(value).unwrap_or(0)
}

fn integer(value: u32) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}

impl Store {
    /// Leases what is due, most urgent first, as far as the account's budget reaches within the horizon.
    ///
    /// A held account gets nothing; a failing one gets one probe when its time has come.
    pub async fn lease_due(&self, lease: Lease<'_>) -> Result<Vec<LeasedJob>, StoreError> {
        let rows = sqlx::query!(
            r#"-- lease_due
            WITH account AS MATERIALIZED (
                SELECT account, failing_since IS NOT NULL AS failing, throttles > 0 AS throttled, slot_at,
                    (1 + $9::double precision) * 1.001 / effective AS spacing,
                    CASE
                        WHEN hold_until > $2 THEN 0
                        WHEN failing_since IS NOT NULL THEN CASE WHEN probe_at <= $2 THEN 1 ELSE 0 END
                        ELSE least($3::bigint, greatest(0, floor(($7::double precision
                                - extract(epoch FROM slot_at - clock_timestamp())::double precision)
                            * effective / (1 + $9::double precision))::bigint + 1))
                    END AS most
                FROM (
                    SELECT *, greatest(next_slot_at, clock_timestamp()) AS slot_at,
                        CASE
                            WHEN rate IS NULL THEN $6::double precision
                            ELSE least($6::double precision, rate + $6::double precision * $8::double precision
                                * greatest(0, extract(epoch FROM $2 - rate_at)::double precision))
                        END AS effective
                    FROM accounts
                    WHERE account = $1
                    FOR UPDATE
                ) locked
            ), candidates AS MATERIALIZED (
                SELECT c.verification_id, c.lane, c.due_at
                FROM unnest(ARRAY[0, 1, 2, 3]::smallint[]) AS lanes (lane)
                CROSS JOIN LATERAL (
                    SELECT j.verification_id, j.lane, j.due_at
                    FROM collect_jobs j
                    WHERE j.account = $1
                    AND j.lane = lanes.lane
                    AND j.lease_token IS NULL
                    AND j.due_at <= $2
                    ORDER BY j.due_at
                    LIMIT (SELECT most FROM account)
                ) c
                ORDER BY c.lane, c.due_at
                LIMIT (SELECT most FROM account)
            ), picked AS MATERIALIZED (
                SELECT j.verification_id
                FROM collect_jobs j
                JOIN candidates c USING (verification_id)
                WHERE j.lease_token IS NULL
                AND j.due_at <= $2
                FOR UPDATE OF j SKIP LOCKED
            ), leased AS (
                UPDATE collect_jobs j
                SET lease_token = $4, nudged_again = false, leased_until = clock_timestamp() + make_interval(secs => $5)
                FROM picked p
                WHERE j.verification_id = p.verification_id
                RETURNING j.verification_id, j.lane, j.due_at, j.hinted_at, j.callback_at, j.recheck, j.checks,
                    j.running, j.faults
            ), moved AS (
                UPDATE accounts a
                SET next_slot_at = b.slot_at + make_interval(secs => b.spacing * l.jobs),
                    probe_at = CASE WHEN b.failing THEN $10 ELSE a.probe_at END
                FROM account b, (SELECT count(*) AS jobs FROM leased) l
                WHERE a.account = b.account
                AND l.jobs > 0
            )
            SELECT l.verification_id AS "verification_id!", v.transaction_id AS "transaction_id!",
                v.merchant_biz_id AS "merchant_biz_id!", v.product, v.expect_video AS "expect_video!",
                v.registered_at AS "registered_at!", l.hinted_at, l.callback_at, l.recheck AS "recheck!", l.checks AS "checks!", l.running AS "running!",
                l.faults AS "faults!", a.failing AS "failing!", a.throttled AS "throttled!",
                (extract(epoch FROM a.slot_at - clock_timestamp())::double precision
                    + a.spacing * (row_number() OVER (ORDER BY l.lane, l.due_at) - 1)) AS "slot_in!"
            FROM leased l
            JOIN verifications v ON v.verification_id = l.verification_id
            CROSS JOIN account a
            CROSS JOIN (SELECT set_config('synchronous_commit', 'off', true)) AS quick
            ORDER BY l.lane, l.due_at"#,
            lease.account,
            lease.now,
            lease.limit,
            lease.token,
            lease.length.as_secs_f64(),
            f64::from(lease.rate.qps),
            lease.rate.horizon.as_secs_f64(),
            lease.rate.recovery,
            lease.rate.slack.as_secs_f64(),
            lease.next_probe_at,
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows
            .into_iter()
            .map(|row| LeasedJob {
                id: VerificationId(row.verification_id),
                token: lease.token,
                transaction_id: row.transaction_id,
                merchant_biz_id: row.merchant_biz_id,
                product: row.product,
                expect_video: row.expect_video,
                registered_at: row.registered_at,
                hinted_at: row.hinted_at,
                callback_at: row.callback_at,
                recheck: row.recheck,
                checks: count(row.checks),
                running: count(row.running),
                faults: count(row.faults),
                slot_in: row.slot_in,
                probe: row.failing,
                throttled: row.throttled,
            })
            .collect())
    }

    /// Leases jobs whose deadline is over, which are ended without a call. So neither a short budget nor an account
    /// in trouble keeps them waiting, and they take no slot from the others.
    pub async fn lease_overdue(&self, overdue: Overdue<'_>) -> Result<Vec<LeasedJob>, StoreError> {
        let Overdue { account, token, limit, length, hinted_before, registered_before } = overdue;
        let rows = sqlx::query!(
            r#"-- lease_overdue
            WITH overdue AS (
                SELECT j.verification_id
                FROM collect_jobs j
                JOIN verifications v USING (verification_id)
                WHERE j.account = $1
                -- Nothing is hinted before it is registered, and ids are in the order of registration.
                AND j.verification_id < $7
                AND j.lease_token IS NULL
                AND coalesce(j.hinted_at <= $5, v.registered_at <= $6)
                LIMIT $3
                FOR UPDATE OF j SKIP LOCKED
            ), leased AS (
                UPDATE collect_jobs j
                SET lease_token = $2, nudged_again = false, leased_until = clock_timestamp() + make_interval(secs => $4)
                FROM overdue o
                WHERE j.verification_id = o.verification_id
                RETURNING j.verification_id, j.hinted_at, j.callback_at, j.recheck, j.checks, j.running, j.faults
            )
            SELECT l.verification_id AS "verification_id!", v.transaction_id AS "transaction_id!",
                v.merchant_biz_id AS "merchant_biz_id!", v.product, v.expect_video AS "expect_video!",
                v.registered_at AS "registered_at!", l.hinted_at, l.callback_at, l.recheck AS "recheck!",
                l.checks AS "checks!", l.running AS "running!", l.faults AS "faults!"
            FROM leased l
            JOIN verifications v USING (verification_id)"#,
            account,
            token,
            limit,
            length.as_secs_f64(),
            hinted_before,
            registered_before,
            first_id_at(hinted_before + TimeDelta::milliseconds(1)),
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows
            .into_iter()
            .map(|row| LeasedJob {
                id: VerificationId(row.verification_id),
                token,
                transaction_id: row.transaction_id,
                merchant_biz_id: row.merchant_biz_id,
                product: row.product,
                expect_video: row.expect_video,
                registered_at: row.registered_at,
                hinted_at: row.hinted_at,
                callback_at: row.callback_at,
                recheck: row.recheck,
                checks: count(row.checks),
                running: count(row.running),
                faults: count(row.faults),
                slot_in: 0.0,
                probe: false,
                throttled: false,
            })
            .collect())
    }

    /// Takes one more slot for a call that missed its own; returns the seconds until it.
    pub async fn take_slot(&self, account: &str, rate: Rate) -> Result<f64, StoreError> {
        let slot_in = sqlx::query_scalar!(
            r#"-- take_slot
            UPDATE accounts
            SET next_slot_at = greatest(next_slot_at, clock_timestamp())
                + make_interval(secs => (1 + $3::double precision) * 1.001 / least($2, coalesce(rate, $2)))
            WHERE account = $1
            RETURNING extract(epoch FROM next_slot_at
                - make_interval(secs => (1 + $3::double precision) * 1.001 / least($2, coalesce(rate, $2)))
                - clock_timestamp())::double precision AS "slot_in!""#,
            account,
            f64::from(rate.qps),
            rate.slack.as_secs_f64()
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(slot_in)
    }

    /// When the account's next job is due, or later, when the account is held or failing until then; `None` when
    /// nothing is scheduled. Leased jobs do not count.
    pub async fn next_due(&self, account: &str) -> Result<Option<DateTime<Utc>>, StoreError> {
        let due = sqlx::query_scalar!(
            r#"-- next_due
            SELECT CASE WHEN min(c.due_at) IS NOT NULL THEN greatest(min(c.due_at), (
                SELECT greatest(a.hold_until, CASE WHEN a.failing_since IS NOT NULL THEN a.probe_at END)
                FROM accounts a
                WHERE a.account = $1
            )) END
            FROM unnest(ARRAY[0, 1, 2, 3]::smallint[]) AS lanes (lane)
            CROSS JOIN LATERAL (
                SELECT j.due_at
                FROM collect_jobs j
                WHERE j.account = $1
                AND j.lane = lanes.lane
                AND j.lease_token IS NULL
                ORDER BY j.due_at
                LIMIT 1
            ) c"#,
            account
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(due)
    }

    /// Makes leases last for `length` from now; returns the jobs whose lease still stood.
    pub async fn renew_leases(
        &self,
        jobs: &[(VerificationId, Uuid)],
        length: Duration,
    ) -> Result<Vec<VerificationId>, StoreError> {
        let (ids, tokens): (Vec<Uuid>, Vec<Uuid>) = jobs.iter().map(|(id, token)| (id.0, *token)).unzip();
        let renewed = sqlx::query_scalar!(
            "-- renew_leases
            UPDATE collect_jobs j
            SET leased_until = clock_timestamp() + make_interval(secs => $3)
            FROM unnest($1::uuid[], $2::uuid[]) AS i (verification_id, token)
            WHERE j.verification_id = i.verification_id
            AND j.lease_token = i.token
            RETURNING j.verification_id",
            &ids,
            &tokens,
            length.as_secs_f64()
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(renewed.into_iter().map(VerificationId).collect())
    }

    /// Gives leases back unused, at a stop. Jobs whose lease was lost are left alone.
    pub async fn release_leases(&self, jobs: &[(VerificationId, Uuid)]) -> Result<u64, StoreError> {
        let (ids, tokens): (Vec<Uuid>, Vec<Uuid>) = jobs.iter().map(|(id, token)| (id.0, *token)).unzip();
        let done = sqlx::query!(
            "-- release_leases
            UPDATE collect_jobs j
            SET lease_token = NULL, leased_until = NULL
            FROM unnest($1::uuid[], $2::uuid[]) AS i (verification_id, token)
            WHERE j.verification_id = i.verification_id
            AND j.lease_token = i.token",
            &ids,
            &tokens
        )
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected())
    }

    /// Makes jobs available again whose lease ran out; returns the accounts they belong to.
    pub async fn recover_leases(&self) -> Result<Vec<String>, StoreError> {
        let accounts = sqlx::query_scalar!(
            "-- recover_leases
            UPDATE collect_jobs j
            SET lease_token = NULL, leased_until = NULL
            FROM (
                SELECT verification_id
                FROM collect_jobs
                WHERE lease_token IS NOT NULL
                AND leased_until < clock_timestamp()
                ORDER BY leased_until
                LIMIT 1000
                FOR UPDATE SKIP LOCKED
            ) dead
            WHERE j.verification_id = dead.verification_id
            RETURNING j.account"
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(accounts)
    }

    /// Stores verdicts, their history, and the end of their jobs in one flushed statement. Checks whose lease was
    /// lost are left out of the answer and change nothing. Where a hint came while the provider was being asked, the
    /// absence of a result is not final: the next check is due at once.
    pub async fn record_final(&self, checks: &[CheckedFinal]) -> Result<Vec<Recorded>, StoreError> {
        let ids: Vec<Uuid> = checks.iter().map(|check| check.id.0).collect();
        let tokens: Vec<Uuid> = checks.iter().map(|check| check.token).collect();
        let statuses: Vec<&str> = checks.iter().map(|check| check.status.as_str()).collect();
        let sub_codes: Vec<Option<&str>> = checks.iter().map(|check| check.sub_code.as_deref()).collect();
        let reasons: Vec<&str> = checks.iter().map(|check| check.reason.as_str()).collect();
        let scores: Vec<&str> = checks.iter().map(|check| check.scores.as_str()).collect();
        let signals: Vec<&str> = checks.iter().map(|check| check.signals.as_str()).collect();
        let answers: Vec<Option<&str>> = checks.iter().map(|check| check.answer.as_deref()).collect();
        let errors: Vec<Option<&str>> = checks.iter().map(|check| check.last_error.as_deref()).collect();
        let details: Vec<Option<&str>> = checks.iter().map(|check| check.check_detail.as_deref()).collect();
        let times: Vec<DateTime<Utc>> = checks.iter().map(|check| check.at).collect();
        let replaces: Vec<bool> = checks.iter().map(|check| check.replaces).collect();
        let rows = sqlx::query!(
            r#"-- record_final
            WITH input AS MATERIALIZED (
                SELECT *
                FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[],
                    $8::text[], $9::text[], $10::text[], $11::timestamptz[], $12::boolean[])
                    AS i (verification_id, token, status, sub_code, reason, scores, signals, answer, last_error,
                        check_detail, at, replaces)
                ORDER BY verification_id
            ), held AS MATERIALIZED (
                SELECT j.verification_id, j.nudged_again AND i.status IN ('void', 'expired') AS too_early
                FROM collect_jobs j
                JOIN input i USING (verification_id)
                WHERE j.lease_token = i.token
                ORDER BY j.verification_id
                FOR UPDATE OF j
            ), reopened AS (
                UPDATE collect_jobs j
                SET lease_token = NULL, leased_until = NULL, due_at = i.at, running = 0,
                    checks = j.checks + (i.check_detail IS NOT NULL)::integer,
                    last_error = coalesce(i.last_error, j.last_error)
                FROM held h
                JOIN input i USING (verification_id)
                WHERE j.verification_id = h.verification_id
                AND h.too_early
                RETURNING j.verification_id
            ), done AS (
                DELETE FROM collect_jobs j
                USING held h
                WHERE j.verification_id = h.verification_id
                AND NOT h.too_early
                RETURNING j.verification_id, j.account, j.callback_at, j.hinted_at, j.checks, j.recheck
            ), decided AS MATERIALIZED (
                SELECT d.*, i.status, i.sub_code, i.reason, i.scores, i.signals, i.answer, i.last_error,
                    i.check_detail, i.at, p.revision AS known_revision,
                    coalesce(p.callback_at, d.callback_at) AS first_callback_at,
                    coalesce(p.hinted_at, d.hinted_at) AS first_hinted_at,
                    p.revision IS NULL
                        OR (i.replaces AND (p.status, p.sub_code) IS DISTINCT FROM (i.status, i.sub_code)) AS is_new
                FROM done d
                JOIN input i USING (verification_id)
                LEFT JOIN LATERAL (
                    SELECT v.revision, v.status, v.sub_code, v.callback_at, v.hinted_at
                    FROM verdicts v
                    WHERE d.recheck
                    AND v.verification_id = d.verification_id
                    AND v.superseded_at IS NULL
                ) p ON true
            ), superseded AS (
                UPDATE verdicts v
                SET superseded_at = d.at
                FROM decided d
                WHERE d.is_new
                AND v.verification_id = d.verification_id
                AND v.revision = d.known_revision
            ), confirmed AS (
                UPDATE verdicts v
                SET checks = d.checks + (d.check_detail IS NOT NULL)::integer
                FROM decided d
                WHERE NOT d.is_new
                AND v.verification_id = d.verification_id
                AND v.revision = d.known_revision
            ), verdict AS (
                INSERT INTO verdicts (verification_id, revision, account, status, sub_code, reason, scores, signals,
                    answer, decided_at, callback_at, hinted_at, checks, last_error)
                SELECT verification_id, coalesce(known_revision, 0) + 1, account, status, sub_code, reason,
                    scores::json, signals::json, answer, at, first_callback_at, first_hinted_at,
                    checks + (check_detail IS NOT NULL)::integer, last_error
                FROM decided
                WHERE is_new
            ), remembered AS (
                INSERT INTO history (verification_id, at, kind, detail)
                SELECT verification_id, at, 'check', check_detail::json
                FROM decided
                WHERE check_detail IS NOT NULL
                UNION ALL
                SELECT verification_id, i.at, 'check', i.check_detail::json
                FROM reopened
                JOIN input i USING (verification_id)
                WHERE i.check_detail IS NOT NULL
                UNION ALL
                SELECT verification_id, at, 'verdict', json_build_object('status', status, 'sub_code', sub_code,
                    'reason', reason, 'revision', coalesce(known_revision, 0) + 1)
                FROM decided
                WHERE is_new
            )
            SELECT verification_id AS "verification_id!",
                CASE WHEN is_new THEN coalesce(known_revision, 0) + 1 END AS "revision",
                callback_at, false AS "again!"
            FROM decided
            UNION ALL
            SELECT verification_id, NULL, NULL, true
            FROM reopened"#,
            &ids,
            &tokens,
            &statuses as _,
            &sub_codes as _,
            &reasons as _,
            &scores as _,
            &signals as _,
            &answers as _,
            &errors as _,
            &details as _,
            &times,
            &replaces,
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows
            .into_iter()
            .map(|row| Recorded {
                id: VerificationId(row.verification_id),
                revision: row.revision,
                callback_at: row.callback_at,
                again: row.again,
            })
            .collect())
    }

    /// Stores that checks brought no result yet and when to ask again. A hint that came while the provider was being
    /// asked makes the next check due at once. Returns those whose lease still stood.
    pub async fn record_open(&self, checks: &[CheckedOpen]) -> Result<Vec<VerificationId>, StoreError> {
        let ids: Vec<Uuid> = checks.iter().map(|check| check.id.0).collect();
        let tokens: Vec<Uuid> = checks.iter().map(|check| check.token).collect();
        let lanes: Vec<Option<i16>> = checks.iter().map(|check| check.lane.map(Lane::as_i16)).collect();
        let due: Vec<DateTime<Utc>> = checks.iter().map(|check| check.due_at).collect();
        let running: Vec<i32> = checks.iter().map(|check| integer(check.running)).collect();
        let faults: Vec<i32> = checks.iter().map(|check| integer(check.faults)).collect();
        let errors: Vec<Option<&str>> = checks.iter().map(|check| check.last_error.as_deref()).collect();
        let details: Vec<Option<&str>> = checks.iter().map(|check| check.check_detail.as_deref()).collect();
        let times: Vec<DateTime<Utc>> = checks.iter().map(|check| check.at).collect();
        let recorded = sqlx::query_scalar!(
            r#"-- record_open
            WITH input AS MATERIALIZED (
                SELECT *
                FROM unnest($1::uuid[], $2::uuid[], $3::smallint[], $4::timestamptz[], $5::integer[], $6::integer[],
                    $7::text[], $8::text[], $9::timestamptz[])
                    AS i (verification_id, token, lane, due_at, running, faults, last_error, check_detail, at)
                ORDER BY verification_id
            ), released AS (
                UPDATE collect_jobs j
                SET lease_token = NULL, leased_until = NULL,
                    lane = CASE WHEN j.nudged_again THEN j.lane ELSE coalesce(i.lane, j.lane) END,
                    due_at = CASE WHEN j.nudged_again THEN least(i.at, i.due_at) ELSE i.due_at END,
                    running = CASE WHEN j.nudged_again THEN 0 ELSE i.running END,
                    faults = i.faults,
                    checks = j.checks + (i.check_detail IS NOT NULL)::integer,
                    last_error = i.last_error
                FROM input i
                WHERE j.verification_id = i.verification_id
                AND j.lease_token = i.token
                RETURNING j.verification_id
            ), remembered AS (
                INSERT INTO history (verification_id, at, kind, detail)
                SELECT verification_id, i.at, 'check', i.check_detail::json
                FROM released
                JOIN input i USING (verification_id)
                WHERE i.check_detail IS NOT NULL
            )
            SELECT verification_id AS "verification_id!"
            FROM released"#,
            &ids,
            &tokens,
            &lanes as _,
            &due,
            &running,
            &faults,
            &errors as _,
            &details as _,
            &times,
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(recorded.into_iter().map(VerificationId).collect())
    }
}

//! Working fresh callbacks into their jobs and leasing these, in one statement.
//!
//! This is the short way of a callback that nothing stands before. What it leaves goes the long way, through
//! [`Store::take_hints`] and [`Store::lease_due`], which know every case; so nothing here need.

use super::lease_due::{Lease, LeasedJob, Pace, Standing, count, lane};
use super::{Store, StoreError};
use crate::domain::VerificationId;

/// What was worked in and leased at once.
#[derive(Debug)]
pub struct LeasedHinted {
    pub jobs: Vec<LeasedJob>,
    pub rest: HintsLeft,
}

/// What is known of the account's other hints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HintsLeft {
    /// There were none.
    None,
    /// The limit was reached: there may be more to lease in this way.
    More,
    /// There may be some that have to go the long way: the budget is spent, the account is not well, a hint is not the
    /// first of its verification or its job is leased.
    Others,
}

impl Store {
    /// Works first callbacks of an account into their jobs and history, and leases these jobs, as far as the budget
    /// reaches within the horizon. The most urgent lane goes first, then what came first.
    ///
    /// It looks at nothing else that may be due, so whoever calls it knows that nothing is. It does nothing for an
    /// account that is held, failing or unsettled. Of the lease, `next_probe_at`, `videos_gone` and `turn` say nothing
    /// here.
    pub async fn lease_hinted(&self, lease: &Lease<'_>) -> Result<LeasedHinted, StoreError> {
        let rows = sqlx::query!(
            r#"-- lease_hinted
            WITH account AS MATERIALIZED (
                SELECT *,
                    CASE
                        WHEN is_well THEN least($3::bigint, CASE WHEN kept > 1 THEN 1 END,
                            greatest(0, floor(($7::double precision - urgent_in) / spacing)::bigint + 1))
                        ELSE 0
                    END AS most
                FROM (
                    SELECT a.account, p.*,
                        extract(epoch FROM p.urgent_at - p.database_at)::double precision AS urgent_in,
                        coalesce(a.hold_until <= $2, true) AND a.failing_since IS NULL
                            AND a.throttles = 0 AND a.unanswered = 0 AS is_well
                    FROM (
                        SELECT *
                        FROM accounts
                        WHERE account = $1
                        FOR UPDATE
                    ) a
                    CROSS JOIN LATERAL account_pace(a, $6, $9, $8, $2) p
                ) paced
            ), seen AS MATERIALIZED (
                SELECT ctid AS place, hint_id, lane, verification_id, at, kind, authenticated, detail
                FROM hints
                WHERE account = $1
                ORDER BY account, lane, hint_id
                LIMIT coalesce((SELECT most FROM account), 0)
                FOR UPDATE SKIP LOCKED
            ), leased AS (
                -- What `take_hints` and `lease_due` make of a first callback, together. Of two hints about one
                -- verification one is taken; the other stays.
                UPDATE collect_jobs j
                SET callbacks = 1,
                    callback_at = s.at,
                    hinted_at = CASE WHEN s.authenticated THEN s.at END,
                    lane = s.lane,
                    due_at = least(j.due_at, $2),
                    nudged_at = $2,
                    nudged_again = false,
                    running = 0,
                    faults = CASE WHEN s.authenticated THEN 0 ELSE j.faults END,
                    lease_token = $4,
                    leased_until = database_now() + make_interval(secs => $5)
                FROM seen s
                WHERE j.verification_id = ANY (ARRAY(SELECT verification_id FROM seen))
                AND j.verification_id = s.verification_id
                AND num_nulls(j.callback_at, j.hinted_at, j.nudged_at, j.lease_token) = 4
                AND s.kind = 'callback'
                RETURNING s.place, s.hint_id, s.detail, j.verification_id, j.lane, j.callback_at, j.hinted_at,
                    j.recheck, j.checks, j.running, j.faults
            ), forgotten AS (
                DELETE FROM hints
                WHERE ctid = ANY (ARRAY(SELECT place FROM leased))
            ), remembered AS (
                INSERT INTO history (verification_id, at, kind, detail)
                SELECT verification_id, callback_at, 'callback', detail
                FROM leased
            ), counted AS MATERIALIZED (
                SELECT count(*) AS calls
                FROM leased
            ), moved AS (
                -- As in `lease_due`, where all calls are urgent.
                UPDATE accounts a
                SET next_slot_at = b.urgent_at + make_interval(secs => b.spacing * c.calls),
                    next_bulk_at = greatest(b.next_bulk, b.urgent_at) + make_interval(secs => b.spacing * c.calls),
                    recent_slots =
                        (b.urgent_at + make_interval(secs => b.spacing * (c.calls - 1)) || b.recent)[1:b.kept],
                    other_calls = a.other_calls + c.calls
                FROM account b, counted c
                WHERE a.account = b.account
                AND c.calls > 0
            )
            SELECT l.verification_id AS "verification_id?", v.transaction_id AS "transaction_id?",
                v.merchant_biz_id AS "merchant_biz_id?", v.product AS "product?", v.expect_video AS "expect_video?",
                v.registered_at AS "registered_at?", l.lane AS "lane?", l.callback_at AS "callback_at?",
                l.hinted_at AS "hinted_at?", l.recheck AS "recheck?", l.checks AS "checks?", l.running AS "running?",
                l.faults AS "faults?", a.most AS "most!", n.seen AS "seen!", a.spacing AS "spacing!",
                extract(epoch FROM a.urgent_at - database_now())::double precision AS "first_in!"
            FROM account a
            CROSS JOIN (SELECT count(*) AS seen FROM seen) n
            CROSS JOIN (SELECT set_config('synchronous_commit', 'off', true)) AS quick
            LEFT JOIN leased l ON true
            LEFT JOIN LATERAL (
                SELECT *
                FROM verifications
                WHERE verifications.verification_id = l.verification_id
                LIMIT 1
            ) v ON true
            ORDER BY l.lane, l.hint_id"#,
            lease.account,
            lease.now,
            lease.limit,
            lease.token,
            lease.length.as_secs_f64(),
            f64::from(lease.rate.qps),
            lease.rate.horizon.as_secs_f64(),
            lease.rate.recovery,
            lease.rate.slack.as_secs_f64(),
        )
        .fetch_all(&self.pool)
        .await?;
        let (most, seen) = rows.first().map_or((0, 0), |row| (row.most, row.seen));
        let mut jobs = Vec::with_capacity(rows.len());
        for (n, row) in (0..).zip(rows) {
            let Some(id) = row.verification_id else { continue };
            let missing =
                || StoreError::Inconsistent { table: "collect_jobs", column: "verification_id", row: id.to_string() };
            jobs.push(LeasedJob {
                id: VerificationId(id),
                token: lease.token,
                lane: lane(row.lane.ok_or_else(missing)?, id)?,
                pace: Pace::Urgent,
                transaction_id: row.transaction_id.ok_or_else(missing)?,
                merchant_biz_id: row.merchant_biz_id.ok_or_else(missing)?,
                product: row.product,
                expect_video: row.expect_video.ok_or_else(missing)?,
                registered_at: row.registered_at.ok_or_else(missing)?,
                hinted_at: row.hinted_at,
                callback_at: row.callback_at,
                recheck: row.recheck.unwrap_or(false),
                checks: count(row.checks.unwrap_or(0)),
                running: count(row.running.unwrap_or(0)),
                faults: count(row.faults.unwrap_or(0)),
                slot_in: row.first_in + row.spacing * f64::from(n),
                standing: Standing::Well,
            });
        }
        let rest = if usize::try_from(seen).ok() != Some(jobs.len()) || (seen == most && most < lease.limit) {
            HintsLeft::Others
        } else if seen == most {
            HintsLeft::More
        } else {
            HintsLeft::None
        };
        Ok(LeasedHinted { jobs, rest })
    }
}

//! Leasing what is due: which verifications are asked about next, and when each call may be sent.
//!
//! One row lock on the account makes replicas take turns, so the slots that they take for their calls never overlap.
//! The order is that of `collect_jobs_in_order`; the arithmetic of slots is `account_pace` in the migrations.

use std::time::Duration;

use chrono::{DateTime, TimeZone, Utc};
use uuid::Uuid;

use super::{Store, StoreError};
use crate::domain::VerificationId;
use crate::domain::schedule::Lane;

/// How an account's calls are paced.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// Calls a second that the provider allows.
    pub qps: u32,
    /// How much later than its slot a call may arrive at the provider without breaking the limit there.
    pub slack: Duration,
    /// How far ahead slots are taken for urgent calls.
    pub horizon: Duration,
    /// And for others: an urgent call that comes meanwhile stands behind them.
    pub bulk_horizon: Duration,
    /// What a lowered rate wins back each second, as a share of `qps`.
    pub recovery: f64,
}

/// Which of an account's two paces a call goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// As soon as the limit allows.
    Urgent,
    /// So that an urgent call finds a free place.
    Bulk,
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
    /// Videos of what was hinted until then are deleted at the provider.
    pub videos_gone: DateTime<Utc>,
    /// Only what has been due in this lane until then: the turn of a lane that others keep waiting.
    pub turn: Option<LaneTurn>,
}

/// The turn of one lane, whatever is due in the more urgent ones.
#[derive(Clone, Copy, Debug)]
pub struct LaneTurn {
    pub lane: Lane,
    pub due_before: DateTime<Utc>,
    pub pace: Pace,
}

/// How an account was when a job of it was leased.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Well,
    /// Its last answers were throttled, or there were none.
    Unsettled,
    /// It fails, and this job's call is the one probe.
    Probed,
}

/// A verification that this worker may ask about until its lease runs out.
#[derive(Clone, Debug)]
pub struct LeasedJob {
    pub id: VerificationId,
    pub token: Uuid,
    pub lane: Lane,
    /// The pace that its slot was taken from.
    pub pace: Pace,
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
    /// How its account was when the lease was taken.
    pub standing: Standing,
}

/// What was leased at once.
#[derive(Clone, Debug)]
pub struct Leased {
    pub jobs: Vec<LeasedJob>,
    /// The budget and the limit left room for more, so these are all that were due. Never when there are none: the
    /// account may be held, or have no budget.
    pub is_all: bool,
    /// When nothing was leased: seconds until the next slots, counted when the database answered.
    pub urgent_in: f64,
    pub bulk_in: f64,
}

/// Which lanes are read, and of each the part between two places of its order.
struct LanePlan {
    lanes: Vec<i16>,
    after: Vec<DateTime<Utc>>,
    until: Vec<DateTime<Utc>>,
    due_before: DateTime<Utc>,
    /// All of it goes by the urgent pace.
    is_urgent: bool,
}

/// Where those stand that have no deadline of their own yet: behind all others of their lane.
fn end_of_order() -> DateTime<Utc> {
    Utc.timestamp_opt(253_402_214_400, 0).single().unwrap_or(DateTime::<Utc>::MAX_UTC)
}

impl LanePlan {
    fn of(lease: &Lease<'_>) -> Self {
        let lanes = lease.turn.map_or(Lane::ALL.to_vec(), |turn| vec![turn.lane]);
        let due_before = lease.turn.map_or(lease.now, |turn| turn.due_before);
        let after = |lane: &Lane| if *lane == Lane::Video { lease.videos_gone } else { DateTime::UNIX_EPOCH };
        // Beyond what is due, an order by time of being due holds nothing to look at.
        let until = |lane: &Lane| match lane {
            Lane::Video | Lane::Retry => end_of_order(),
            Lane::Fresh | Lane::Poll => due_before,
        };
        Self {
            after: lanes.iter().map(after).collect(),
            until: lanes.iter().map(until).collect(),
            lanes: lanes.into_iter().map(Lane::as_i16).collect(),
            due_before,
            is_urgent: lease.turn.is_some_and(|turn| turn.pace == Pace::Urgent),
        }
    }
}

pub(super) fn count(value: i32) -> u32 {
    u32::try_from(value).unwrap_or(0)
}

pub(super) fn lane(value: i16, id: Uuid) -> Result<Lane, StoreError> {
    let found = Lane::ALL.into_iter().find(|lane| lane.as_i16() == value);
    found.ok_or(StoreError::Inconsistent { table: "collect_jobs", column: "lane", row: id.to_string() })
}

impl Store {
    /// Leases what is due, most urgent first, as far as the account's budget reaches within the horizon. Within a lane
    /// the earliest deadline goes first, among fresh ones and polls what has been due for longest. What is in lane
    /// [`Lane::Video`] without a video that can still be had is passed over; [`Store::sort_lanes`] moves it.
    ///
    /// A held account gets nothing; a failing one gets one probe when its time has come.
    pub async fn lease_due(&self, lease: Lease<'_>) -> Result<Leased, StoreError> {
        let plan = LanePlan::of(&lease);
        let rows = sqlx::query!(
            r#"-- lease_due
            WITH account AS MATERIALIZED (
                SELECT *,
                    CASE
                        WHEN failing THEN room
                        ELSE least(room, CASE WHEN kept > 1 THEN 1 END,
                            greatest(0, floor(($7::double precision - urgent_in) / spacing)::bigint + 1))
                    END AS most,
                    CASE
                        WHEN failing THEN room
                        ELSE least(room, CASE WHEN kept > 1 THEN 1 END,
                            greatest(0, floor(($11::double precision - bulk_in) / spacing)::bigint + 1))
                    END AS most_bulk
                FROM (
                    SELECT a.account, a.failing_since IS NOT NULL AS failing,
                        a.throttles > 0 OR a.unanswered > 0 AS unsettled, p.*,
                        extract(epoch FROM p.urgent_at - p.database_at)::double precision AS urgent_in,
                        extract(epoch FROM p.bulk_at - p.database_at)::double precision AS bulk_in,
                        CASE
                            WHEN a.hold_until > $2 THEN 0
                            WHEN a.failing_since IS NULL THEN $3::bigint
                            WHEN a.probe_at <= $2 THEN 1
                            ELSE 0
                        END AS room
                    FROM (
                        SELECT *
                        FROM accounts
                        WHERE account = $1
                        FOR UPDATE
                    ) a
                    CROSS JOIN LATERAL account_pace(a, $6, $9, $8, $2) p
                ) paced
            ), candidates AS MATERIALIZED (
                SELECT c.verification_id, c.lane, c.place
                FROM unnest($12::smallint[], $13::timestamptz[], $14::timestamptz[]) AS lanes (lane, after, until)
                CROSS JOIN LATERAL (
                    SELECT j.verification_id, j.lane,
                        lane_place(j.lane, j.hinted_at, j.due_at) AS place
                    FROM collect_jobs j
                    WHERE j.account = $1
                    AND j.lane = lanes.lane
                    AND j.lease_token IS NULL
                    AND j.due_at <= $15
                    AND lane_place(j.lane, j.hinted_at, j.due_at) > lanes.after
                    AND lane_place(j.lane, j.hinted_at, j.due_at) <= lanes.until
                    ORDER BY lane_place(j.lane, j.hinted_at, j.due_at)
                    LIMIT (SELECT CASE WHEN lanes.lane < 2 OR $16 THEN most ELSE most_bulk END FROM account)
                ) c
                ORDER BY c.lane, c.place
                LIMIT (SELECT most FROM account)
            ), picked AS MATERIALIZED (
                -- Said so that no index of what is not leased serves: a plan that was made while hardly anything was
                -- open would read all of it.
                SELECT j.verification_id
                FROM collect_jobs j
                WHERE j.verification_id = ANY (ARRAY(SELECT verification_id FROM candidates))
                AND num_nulls(j.lease_token) = 1
                AND j.due_at <= $15
                FOR UPDATE OF j SKIP LOCKED
            ), leased AS (
                UPDATE collect_jobs j
                SET lease_token = $4, nudged_again = false, leased_until = database_now() + make_interval(secs => $5)
                WHERE j.verification_id = ANY (ARRAY(SELECT verification_id FROM picked))
                RETURNING j.verification_id, j.lane, j.due_at, j.hinted_at, j.callback_at, j.recheck, j.checks,
                    j.running, j.faults, j.lane >= 2 AND NOT $16 AS bulk
            ), counted AS MATERIALIZED (
                SELECT urgent, bulk, polls,
                    -- A batch begins with its urgent calls, and each of them has pushed the others on.
                    CASE
                        WHEN urgent = 0 THEN a.bulk_at
                        ELSE greatest(a.bulk_at, greatest(a.next_bulk, a.urgent_at)
                            + make_interval(secs => a.spacing * urgent))
                    END AS bulk_from,
                    a.urgent_at + make_interval(secs => a.spacing * (urgent - 1)) AS last_urgent
                FROM account a
                CROSS JOIN (
                    SELECT count(*) FILTER (WHERE NOT bulk) AS urgent, count(*) FILTER (WHERE bulk) AS bulk,
                        count(*) FILTER (WHERE lane = 3) AS polls
                    FROM leased
                ) l
            ), moved AS (
                UPDATE accounts a
                SET next_slot_at = CASE
                        WHEN c.urgent > 0 THEN c.last_urgent + make_interval(secs => b.spacing)
                        ELSE a.next_slot_at
                    END,
                    next_bulk_at = CASE
                        WHEN c.bulk > 0 THEN c.bulk_from + make_interval(secs => b.spacing * c.bulk)
                        ELSE greatest(b.next_bulk, b.urgent_at) + make_interval(secs => b.spacing * c.urgent)
                    END,
                    recent_slots = (
                        CASE
                            WHEN c.bulk > 0 THEN c.bulk_from + make_interval(secs => b.spacing * (c.bulk - 1))
                            ELSE c.last_urgent
                        END || b.recent
                    )[1:b.kept],
                    other_calls = a.other_calls + c.urgent + c.bulk - c.polls,
                    probe_at = CASE WHEN b.failing THEN $10 ELSE a.probe_at END
                FROM account b, counted c
                WHERE a.account = b.account
                AND c.urgent + c.bulk > 0
            )
            SELECT l.verification_id AS "verification_id?", v.transaction_id AS "transaction_id?",
                v.merchant_biz_id AS "merchant_biz_id?", v.product AS "product?", v.expect_video AS "expect_video?",
                v.registered_at AS "registered_at?", l.hinted_at AS "hinted_at?", l.callback_at AS "callback_at?",
                l.recheck AS "recheck?", l.checks AS "checks?", l.running AS "running?", l.faults AS "faults?",
                l.lane AS "lane?", l.bulk AS "bulk?", a.failing AS "failing!", a.unsettled AS "unsettled!",
                c.urgent + c.bulk < a.most AND c.bulk < a.most_bulk AS "is_all!", a.bulk_in AS "bulk_in!",
                a.urgent_in AS "urgent_in!",
                (extract(epoch FROM
                    CASE WHEN l.bulk THEN c.bulk_from ELSE a.urgent_at END - database_now())::double precision
                    + a.spacing * (row_number() OVER (PARTITION BY l.bulk ORDER BY l.lane, l.hinted_at, l.due_at) - 1))
                    AS "slot_in!"
            FROM account a
            CROSS JOIN counted c
            CROSS JOIN (SELECT set_config('synchronous_commit', 'off', true)) AS quick
            LEFT JOIN leased l ON true
            LEFT JOIN LATERAL (
                SELECT *
                FROM verifications
                WHERE verifications.verification_id = l.verification_id
                LIMIT 1
            ) v ON true
            ORDER BY l.lane, l.hinted_at, l.due_at"#,
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
            lease.rate.bulk_horizon.as_secs_f64(),
            &plan.lanes,
            &plan.after,
            &plan.until,
            plan.due_before,
            plan.is_urgent,
        )
        .fetch_all(&self.pool)
        .await?;
        let mut leased = Leased { jobs: Vec::with_capacity(rows.len()), is_all: false, urgent_in: 0.0, bulk_in: 0.0 };
        for row in rows {
            (leased.is_all, leased.urgent_in, leased.bulk_in) = (row.is_all, row.urgent_in, row.bulk_in);
            let Some(id) = row.verification_id else { continue };
            let missing =
                || StoreError::Inconsistent { table: "collect_jobs", column: "verification_id", row: id.to_string() };
            leased.jobs.push(LeasedJob {
                id: VerificationId(id),
                token: lease.token,
                lane: lane(row.lane.ok_or_else(missing)?, id)?,
                pace: if row.bulk == Some(true) { Pace::Bulk } else { Pace::Urgent },
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
                slot_in: row.slot_in,
                standing: match (row.failing, row.unsettled) {
                    (true, _) => Standing::Probed,
                    (false, true) => Standing::Unsettled,
                    (false, false) => Standing::Well,
                },
            });
        }
        leased.is_all &= !leased.jobs.is_empty();
        Ok(leased)
    }
}

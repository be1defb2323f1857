//! Working hints into jobs and history.
//!
//! Most hints belong to open work, so they have a statement of their own that does nothing else; what starting the
//! parts for rare cases would cost is paid only when there is one. Both leave the hints that are not theirs where
//! they are, so nothing is lost between them, and a crash leaves a hint either waiting or worked in.

use chrono::{DateTime, Utc};

use super::{Store, StoreError};
use crate::domain::schedule::HINT_INTERVAL;

/// Of how many callbacks of one verification the history keeps a row.
const KEPT_CALLBACKS: i64 = 10;

/// The hints that were worked in.
#[derive(Debug, Default)]
pub struct TakenHints {
    pub nudged: Vec<Nudged>,
    /// How many rows were looked at; as many as were asked for means that there may be more.
    pub taken: usize,
}

/// A verification that hints were worked into.
#[derive(Debug)]
pub struct Nudged {
    pub account: String,
    /// Callbacks worked in.
    pub callbacks: u32,
    /// Whether the first of them was the first of its verification.
    pub first: bool,
}

impl Nudged {
    fn new(account: String, callbacks: i32, before: i64) -> Self {
        Self { account, callbacks: u32::try_from(callbacks).unwrap_or(0), first: before == 0 && callbacks > 0 }
    }
}

impl Store {
    /// Works up to `limit` hints into jobs and history.
    ///
    /// The first authenticated hint, and every `collect`, makes the check due now and starts its schedule anew.
    /// Repeats and hints without a token make it due at most once in [`HINT_INTERVAL`]. On `void` and `expired` an
    /// authenticated hint opens one recheck, on other final states only a `collect` that says so.
    pub async fn take_hints(&self, limit: i64, now: DateTime<Utc>) -> Result<TakenHints, StoreError> {
        let rows = sqlx::query!(
            r#"-- take_hints
            WITH seen AS MATERIALIZED (
                SELECT ctid AS place, hint_id, account, lane, verification_id, at, kind, authenticated, detail
                FROM hints
                ORDER BY account, lane, hint_id
                LIMIT $1
                FOR UPDATE SKIP LOCKED
            ), good AS (
                SELECT verification_id,
                    min(account) AS account,
                    min(lane) AS lane,
                    count(*) FILTER (WHERE kind = 'callback')::integer AS callbacks,
                    min(at) FILTER (WHERE kind = 'callback') AS callback_at,
                    min(at) FILTER (WHERE authenticated) AS hinted_at,
                    bool_or(kind = 'collect') AS collect
                FROM seen
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
                            OR coalesce(j.nudged_at <= $3, true)
                        THEN g.lane ELSE j.lane
                    END,
                    due_at = CASE
                        WHEN g.collect
                            OR (g.hinted_at IS NOT NULL AND j.hinted_at IS NULL)
                            OR coalesce(j.nudged_at <= $3, true)
                        THEN least(j.due_at, $2) ELSE j.due_at
                    END,
                    nudged_at = CASE
                        WHEN g.collect
                            OR (g.hinted_at IS NOT NULL AND j.hinted_at IS NULL)
                            OR coalesce(j.nudged_at <= $3, true)
                        THEN $2 ELSE j.nudged_at
                    END,
                    nudged_again = j.nudged_again OR g.collect
                        OR (g.hinted_at IS NOT NULL AND j.hinted_at IS NULL)
                        OR coalesce(j.nudged_at <= $3, true),
                    running = CASE
                        WHEN g.collect OR (g.hinted_at IS NOT NULL AND j.hinted_at IS NULL) OR j.callback_at IS NULL
                        THEN 0 ELSE j.running
                    END,
                    faults = CASE
                        WHEN g.collect OR (g.hinted_at IS NOT NULL AND j.hinted_at IS NULL)
                        THEN 0 ELSE j.faults
                    END
                FROM good g
                WHERE j.verification_id = ANY (ARRAY(SELECT verification_id FROM good))
                AND j.verification_id = g.verification_id
                RETURNING j.verification_id, j.account, g.callbacks, j.callbacks - g.callbacks AS before
            ), taken AS MATERIALIZED (
                -- Of a job that ended while this waited for it nothing is returned above: its hints stay.
                SELECT s.place, s.hint_id, s.verification_id, s.at, s.kind, s.detail, j.before, j.callbacks
                FROM seen s
                JOIN jobs j USING (verification_id)
            ), forgotten AS (
                -- By row address: the cost is that of the rows taken, however many wait behind them.
                DELETE FROM hints
                WHERE ctid = ANY (ARRAY(SELECT place FROM taken))
            ), remembered AS (
                INSERT INTO history (verification_id, at, kind, detail)
                SELECT t.verification_id, t.at, CASE t.kind WHEN 'collect' THEN 'operator' ELSE t.kind END, t.detail
                FROM taken t
                WHERE t.kind = 'collect'
                OR t.before + t.callbacks <= $4::bigint
                OR t.before + (
                    SELECT count(*)
                    FROM taken u
                    WHERE u.verification_id = t.verification_id
                    AND u.kind = t.kind
                    AND u.hint_id <= t.hint_id
                ) <= $4
                ORDER BY t.hint_id
            )
            SELECT j.account AS "account?", j.callbacks AS "callbacks?", j.before::bigint AS "before?",
                n.seen AS "seen!", n.seen - (SELECT count(*) FROM taken) AS "left!"
            FROM (SELECT count(*) AS seen FROM seen) n
            CROSS JOIN (SELECT set_config('synchronous_commit', 'off', true)) AS quick
            LEFT JOIN jobs j ON true"#,
            limit,
            now,
            now - HINT_INTERVAL,
            KEPT_CALLBACKS
        )
        .fetch_all(&self.pool)
        .await?;
        let (seen, left) = rows.first().map_or((0, 0), |row| (row.seen, row.left));
        let mut nudged: Vec<Nudged> =
            rows.into_iter().filter_map(|row| Some(Nudged::new(row.account?, row.callbacks?, row.before?))).collect();
        if left > 0 {
            nudged.extend(self.take_closed_hints(limit, now).await?);
        }
        Ok(TakenHints { nudged, taken: usize::try_from(seen).unwrap_or(0) })
    }

    /// Works in the hints, among the first `limit`, whose verification has no open job. Those of an erased one are dropped.
    async fn take_closed_hints(&self, limit: i64, now: DateTime<Utc>) -> Result<Vec<Nudged>, StoreError> {
        let rows = sqlx::query!(
            r#"-- take_closed_hints
            WITH seen AS MATERIALIZED (
                SELECT ctid AS place, hint_id, account, lane, verification_id, at, kind, authenticated, detail
                FROM hints
                ORDER BY account, lane, hint_id
                LIMIT $1
                FOR UPDATE SKIP LOCKED
            ), taken AS MATERIALIZED (
                SELECT s.*
                FROM seen s
                LEFT JOIN LATERAL (
                    SELECT verification_id
                    FROM collect_jobs
                    WHERE collect_jobs.verification_id = s.verification_id
                    LIMIT 1
                ) j ON true
                WHERE j.verification_id IS NULL
            ), forgotten AS (
                DELETE FROM hints
                WHERE ctid = ANY (ARRAY(SELECT place FROM taken))
            ), alive AS MATERIALIZED (
                -- An erasure holds these rows until it is committed. Of what it erased nothing is written any more.
                SELECT verification_id
                FROM verifications
                WHERE verification_id = ANY (ARRAY(SELECT verification_id FROM taken))
                AND erased_at IS NULL
                ORDER BY verification_id
                FOR KEY SHARE
            ), closed AS MATERIALIZED (
                SELECT verification_id,
                    min(account) AS account,
                    min(lane) AS lane,
                    count(*) FILTER (WHERE kind = 'callback')::integer AS callbacks,
                    min(at) FILTER (WHERE kind = 'callback') AS callback_at,
                    min(at) FILTER (WHERE authenticated) AS hinted_at,
                    bool_or(CASE WHEN kind = 'collect' THEN detail ->> 'recheck' = 'true' ELSE false END) AS recheck
                FROM taken
                JOIN alive USING (verification_id)
                GROUP BY verification_id
                ORDER BY verification_id
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
                    ORDER BY revision DESC
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
            ), counted AS MATERIALIZED (
                SELECT c.verification_id, c.account, c.callbacks, (
                    SELECT count(*)
                    FROM history h
                    WHERE h.verification_id = c.verification_id
                    AND h.kind = 'callback'
                ) AS before
                FROM closed c
            ), remembered AS (
                INSERT INTO history (verification_id, at, kind, detail)
                SELECT t.verification_id, t.at, CASE t.kind WHEN 'collect' THEN 'operator' ELSE t.kind END, t.detail
                FROM (
                    SELECT *, row_number() OVER (PARTITION BY verification_id, kind ORDER BY hint_id) AS place_in_kind
                    FROM taken
                ) t
                JOIN counted c USING (verification_id)
                WHERE t.kind = 'collect'
                OR c.before + t.place_in_kind <= $3
                ORDER BY t.hint_id
            )
            SELECT account AS "account!", callbacks AS "callbacks!", before AS "before!"
            FROM counted
            CROSS JOIN (SELECT set_config('synchronous_commit', 'off', true)) AS quick"#,
            limit,
            now,
            KEPT_CALLBACKS
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.into_iter().map(|row| Nudged::new(row.account, row.callbacks, row.before)).collect())
    }
}

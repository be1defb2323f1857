//! Verifications whose video or result is not here yet and which the provider deletes soon.
//!
//! Only open work is looked at: jobs, and videos that are still to be captured. Of each job it is known from its own row
//! (from its id where nothing was heard of it yet, because ids are in the order of registration) whether it can be at
//! risk, so only those few are looked up.

use std::time::Duration;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::records::{Record, first_id_at};
use super::{Store, StoreError};
use crate::clock::earlier;
use crate::domain::VerificationId;
use crate::domain::risk::{RiskKind, TOLD, half, late_after};

/// Said of one account, kind and share of the window at most this often.
const TOLD_INTERVAL: Duration = Duration::from_mins(1);

/// Longer windows than this are cut, so that no time leaves the calendar.
const LONGEST: f64 = 1e10;

/// How long the provider keeps something of an account's verifications.
#[derive(Clone, Copy, Debug)]
pub struct Window<'a> {
    pub account: &'a str,
    pub kind: RiskKind,
    /// What was not heard of counts from so long after its registration.
    pub give_up_after: Duration,
    pub retention: Duration,
}

/// Where a page ended: the deadline and the id of its last item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RiskCursor {
    pub deadline: DateTime<Utc>,
    pub id: VerificationId,
}

/// How many of an account have used up to `percent` of their window and can still be had.
#[derive(Clone, Debug, PartialEq)]
pub struct RiskCount {
    pub account: String,
    pub kind: RiskKind,
    pub percent: i16,
    /// At risk, whatever the share.
    pub at_risk: u64,
    /// Have used this share.
    pub reached: u64,
    /// Came to it since it was told last.
    pub fresh: u64,
    /// When the first of those that reached it is lost.
    pub first_deadline: Option<DateTime<Utc>>,
}

/// What both statements take, one array for each column.
struct Columns<'a> {
    accounts: Vec<&'a str>,
    kinds: Vec<&'static str>,
    give_up: Vec<f64>,
    retention: Vec<f64>,
    half_at: Vec<DateTime<Utc>>,
    half_id: Vec<Uuid>,
    late_at: Vec<DateTime<Utc>>,
}

impl<'a> Columns<'a> {
    fn of(windows: &[Window<'a>], now: DateTime<Utc>) -> Self {
        let half_at = |window: &Window<'_>| earlier(now, half(window.retention));
        Self {
            accounts: windows.iter().map(|window| window.account).collect(),
            kinds: windows.iter().map(|window| window.kind.as_str()).collect(),
            give_up: windows.iter().map(|window| seconds(window.give_up_after)).collect(),
            retention: windows.iter().map(|window| seconds(window.retention)).collect(),
            half_at: windows.iter().map(half_at).collect(),
            half_id: windows.iter().map(|window| first_id_at(earlier(half_at(window), window.give_up_after))).collect(),
            late_at: windows.iter().map(|window| earlier(now, late_after(window.retention))).collect(),
        }
    }
}

fn seconds(time: Duration) -> f64 {
    time.as_secs_f64().min(LONGEST)
}

fn count(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

impl Store {
    /// A page of what is at risk, least time left first, with the deadline of each. The windows are all of one kind.
    pub async fn at_risk(
        &self,
        windows: &[Window<'_>],
        after: Option<RiskCursor>,
        limit: i64,
        now: DateTime<Utc>,
    ) -> Result<Vec<(Record, DateTime<Utc>)>, StoreError> {
        let columns = Columns::of(windows, now);
        let rows = sqlx::query!(
            r#"-- list: at risk
            WITH w AS MATERIALIZED (
                SELECT *
                FROM unnest($1::text[], $2::text[], $3::double precision[], $4::double precision[], $5::timestamptz[],
                    $6::uuid[], $7::timestamptz[])
                    AS w (account, kind, give_up, retention, half_at, half_id, late_at)
            )
            SELECT r.verification_id AS "verification_id!", r.deadline AS "deadline!"
            FROM (
                SELECT j.verification_id,
                    coalesce(j.hinted_at, v.registered_at + make_interval(secs => w.give_up))
                        + make_interval(secs => w.retention) AS deadline
                FROM w
                JOIN collect_jobs j ON j.account = w.account COLLATE "C"
                CROSS JOIN LATERAL (
                    SELECT registered_at, expect_video
                    FROM verifications
                    WHERE verifications.verification_id = j.verification_id
                    LIMIT 1
                ) v
                WHERE NOT j.recheck
                AND CASE
                    WHEN j.hinted_at IS NULL THEN j.verification_id < w.half_id
                    ELSE j.hinted_at <= w.half_at OR (j.lease_token IS NULL AND j.due_at <= w.late_at)
                END
                AND (w.kind = 'result' OR v.expect_video)
                UNION ALL
                SELECT e.verification_id, e.deadline
                FROM w
                JOIN pending_videos e ON e.account = w.account COLLATE "C"
                WHERE w.kind = 'video'
                AND e.deadline > $8
                AND e.deadline <= $8 + make_interval(secs => w.retention / 2)
            ) r
            WHERE r.deadline > $8
            AND ($9::timestamptz IS NULL OR (r.deadline, r.verification_id) > ($9, $10))
            ORDER BY r.deadline, r.verification_id
            LIMIT $11"#,
            &columns.accounts as _,
            &columns.kinds as _,
            &columns.give_up,
            &columns.retention,
            &columns.half_at,
            &columns.half_id,
            &columns.late_at,
            now,
            after.map(|after| after.deadline),
            after.map_or(Uuid::nil(), |after| after.id.0),
            limit,
        )
        .fetch_all(&self.pool)
        .await?;
        let ids: Vec<Uuid> = rows.iter().map(|row| row.verification_id).collect();
        let mut records = self.records(&ids).await?;
        let place = |id: VerificationId| ids.iter().position(|known| *known == id.0);
        records.sort_by_key(|record| place(record.id));
        Ok(records
            .into_iter()
            .filter_map(|record| {
                let row = rows.get(place(record.id)?)?;
                Some((record, row.deadline))
            })
            .collect())
    }

    /// Counts what is at risk, for each account, kind and share of the window that is told; nothing where none is.
    pub async fn count_at_risk(
        &self,
        windows: &[Window<'_>],
        now: DateTime<Utc>,
    ) -> Result<Vec<RiskCount>, StoreError> {
        let columns = Columns::of(windows, now);
        let rows = sqlx::query!(
            r#"-- count_at_risk
            WITH w AS MATERIALIZED (
                SELECT *
                FROM unnest($1::text[], $2::text[], $3::double precision[], $4::double precision[], $5::timestamptz[],
                    $6::uuid[], $7::timestamptz[])
                    AS w (account, kind, give_up, retention, half_at, half_id, late_at)
            )
            SELECT r.account AS "account!", r.kind AS "kind!", l.percent AS "percent!", count(*) AS "at_risk!",
                count(*) FILTER (WHERE c.reached_at <= $8) AS "reached!",
                -- What was told in the future was told by a clock that has been set back.
                count(*) FILTER (WHERE c.reached_at <= $8
                    AND c.reached_at > coalesce(CASE WHEN t.told_until <= $8 THEN t.told_until END, '-infinity'))
                    AS "fresh!",
                min(r.deadline) FILTER (WHERE c.reached_at <= $8) AS first_deadline
            FROM (
                SELECT w.account, w.kind, make_interval(secs => w.retention) AS retention,
                    coalesce(j.hinted_at, v.registered_at + make_interval(secs => w.give_up))
                        + make_interval(secs => w.retention) AS deadline
                FROM w
                JOIN collect_jobs j ON j.account = w.account COLLATE "C"
                CROSS JOIN LATERAL (
                    SELECT registered_at, expect_video
                    FROM verifications
                    WHERE verifications.verification_id = j.verification_id
                    LIMIT 1
                ) v
                WHERE NOT j.recheck
                AND CASE
                    WHEN j.hinted_at IS NULL THEN j.verification_id < w.half_id
                    ELSE j.hinted_at <= w.half_at OR (j.lease_token IS NULL AND j.due_at <= w.late_at)
                END
                AND (w.kind = 'result' OR v.expect_video)
                UNION ALL
                SELECT w.account, w.kind, make_interval(secs => w.retention), e.deadline
                FROM w
                JOIN pending_videos e ON e.account = w.account COLLATE "C"
                WHERE w.kind = 'video'
                AND e.deadline > $8
                AND e.deadline <= $8 + make_interval(secs => w.retention / 2)
            ) r
            CROSS JOIN unnest($9::smallint[]) AS l (percent)
            CROSS JOIN LATERAL (
                SELECT r.deadline - r.retention * (1 - l.percent::double precision / 100) AS reached_at
            ) c
            LEFT JOIN risk_warnings t
                ON t.account = r.account COLLATE "C"
                AND t.kind = r.kind COLLATE "C"
                AND t.percent = l.percent
            WHERE r.deadline > $8
            GROUP BY r.account, r.kind, l.percent
            ORDER BY r.account, r.kind, l.percent"#,
            &columns.accounts as _,
            &columns.kinds as _,
            &columns.give_up,
            &columns.retention,
            &columns.half_at,
            &columns.half_id,
            &columns.late_at,
            now,
            &TOLD,
        )
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter()
            .map(|row| {
                Ok(RiskCount {
                    kind: row.kind.parse().map_err(|_| StoreError::Inconsistent {
                        table: "risk_warnings",
                        column: "kind",
                        row: row.account.clone(),
                    })?,
                    account: row.account,
                    percent: row.percent,
                    at_risk: count(row.at_risk),
                    reached: count(row.reached),
                    fresh: count(row.fresh),
                    first_deadline: row.first_deadline,
                })
            })
            .collect()
    }

    /// Takes it on to tell what reached this share up to now. False when it was told a moment ago, here or elsewhere.
    pub async fn take_risk_warning(
        &self,
        account: &str,
        kind: RiskKind,
        percent: i16,
        now: DateTime<Utc>,
    ) -> Result<bool, StoreError> {
        let taken = sqlx::query!(
            "-- take_risk_warning
            INSERT INTO risk_warnings AS w (account, kind, percent, told_until)
            VALUES ($1, $2, $3, $4)
            ON CONFLICT (account, kind, percent) DO UPDATE
            SET told_until = excluded.told_until
            WHERE w.told_until <= excluded.told_until - make_interval(secs => $5)
            OR w.told_until > excluded.told_until",
            account,
            kind.as_str(),
            percent,
            now,
            TOLD_INTERVAL.as_secs_f64(),
        )
        .execute(&self.pool)
        .await?;
        Ok(taken.rows_affected() > 0)
    }

    /// Since when the oldest check of each account has been due, leased ones aside; nothing where none is due.
    pub async fn oldest_due(
        &self,
        accounts: &[&str],
        now: DateTime<Utc>,
    ) -> Result<Vec<(String, DateTime<Utc>)>, StoreError> {
        let rows = sqlx::query!(
            r#"-- oldest_due
            SELECT a.account AS "account!", c.due_at AS "due_at!"
            FROM unnest($1::text[]) AS a (account)
            CROSS JOIN LATERAL first_due(a.account) c
            WHERE c.due_at <= $2"#,
            accounts as _,
            now,
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.into_iter().map(|row| (row.account, row.due_at)).collect())
    }
}

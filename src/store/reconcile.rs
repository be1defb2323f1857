//! Whether everything that was registered is accounted for: one pass over a range of ids in four tables, in one
//! snapshot.

use chrono::{DateTime, Utc};
use sqlx::Executor;
use uuid::Uuid;

use super::records::first_id_at;
use super::retention::BACK;
use super::{Store, StoreError};
use crate::domain::VerificationId;

/// What does not add up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Discrepancy {
    NotRegistered,
    Lost,
    NoCurrentVerdict,
    SeveralCurrentVerdicts,
    RevisionMissing,
    FinalWithOpenJob,
    RecheckWithoutVerdict,
    NoHistory,
    VerdictsDiffer,
    CallsDiffer,
}

impl Discrepancy {
    pub const ALL: [Self; 10] = [
        Self::NotRegistered,
        Self::Lost,
        Self::NoCurrentVerdict,
        Self::SeveralCurrentVerdicts,
        Self::RevisionMissing,
        Self::FinalWithOpenJob,
        Self::RecheckWithoutVerdict,
        Self::NoHistory,
        Self::VerdictsDiffer,
        Self::CallsDiffer,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotRegistered => "not_registered",
            Self::Lost => "lost",
            Self::NoCurrentVerdict => "no_current_verdict",
            Self::SeveralCurrentVerdicts => "several_current_verdicts",
            Self::RevisionMissing => "revision_missing",
            Self::FinalWithOpenJob => "final_with_open_job",
            Self::RecheckWithoutVerdict => "recheck_without_verdict",
            Self::NoHistory => "no_history",
            Self::VerdictsDiffer => "verdicts_differ",
            Self::CallsDiffer => "calls_differ",
        }
    }

    /// In words, as the end of "verifications that …".
    pub fn in_words(self) -> &'static str {
        match self {
            Self::NotRegistered => "have a verdict, a job or a history but were never registered",
            Self::Lost => "have neither a verdict nor open work: nobody will ask the provider about them",
            Self::NoCurrentVerdict => "have verdicts, but none of them is current",
            Self::SeveralCurrentVerdicts => "have more than one current verdict",
            Self::RevisionMissing => "miss a revision between the first and the last",
            Self::FinalWithOpenJob => "are final and have open work that is no recheck",
            Self::RecheckWithoutVerdict => "are rechecked without a verdict",
            Self::NoHistory => "have no history of their registration",
            Self::VerdictsDiffer => "have not as many verdicts as their history tells",
            Self::CallsDiffer => "count other calls of the provider than their history tells",
        }
    }
}

/// What verifications have in common, and their sums.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sum {
    pub account: String,
    pub product: Option<String>,
    /// As the API shows it; none where there is neither a verdict nor a job.
    pub status: Option<String>,
    pub sub_code: Option<String>,
    /// Why there is no verdict of the provider: the reason of a void one, the code of an unresolvable one.
    pub why: Option<String>,
    /// The first that is found of each.
    pub discrepancy: Option<Discrepancy>,
    pub count: i64,
    pub registered: i64,
    pub calls_in_history: i64,
    pub calls_in_rows: i64,
    /// Verdicts after the first.
    pub revisions: i64,
    pub open_rechecks: i64,
    /// Some of those that do not add up.
    pub ids: Vec<VerificationId>,
}

impl Store {
    /// Sums up what was registered from `since` until before `until`, with up to `most_ids` ids of each group that
    /// does not add up. Where retention has destroyed history, or an erasure open work, calls are not compared.
    pub async fn reconcile(
        &self,
        since: DateTime<Utc>,
        until: DateTime<Utc>,
        most_ids: i32,
    ) -> Result<Vec<Sum>, StoreError> {
        let mut transaction = self.pool.begin().await?;
        // One snapshot for both statements.
        transaction.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY").await?;
        let destroyed_until = sqlx::query_scalar!(
            "-- reconcile: the history that is gone
            SELECT passed_at
            FROM retention_cursors
            WHERE class = 'history'
            AND passed_at > 'epoch'"
        )
        .fetch_optional(&mut *transaction)
        .await?;
        // Its place goes back now and then; what was destroyed does not come back with it.
        let whole_from = destroyed_until.map_or(Uuid::nil(), |until| first_id_at(until + BACK));
        // All four are read in the order of their keys; sorting what comes of that, to form a few groups, would only
        // move it to the disk.
        transaction.execute("SET LOCAL enable_sort = off").await?;
        // Joined in full, so that a row that is missing anywhere shows.
        let rows = sqlx::query!(
            r#"-- reconcile
            WITH v AS (
                SELECT verification_id, account, product, erased_at
                FROM verifications
                WHERE verification_id >= $1
                AND verification_id < $2
            ), d AS (
                SELECT verification_id,
                    min(account) AS account,
                    count(*) AS revisions,
                    max(revision) AS last,
                    count(*) FILTER (WHERE superseded_at IS NULL) AS current,
                    max(status) FILTER (WHERE superseded_at IS NULL) AS status,
                    max(sub_code) FILTER (WHERE superseded_at IS NULL) AS sub_code,
                    max(CASE status WHEN 'void' THEN reason WHEN 'unresolvable' THEN last_error END)
                        FILTER (WHERE superseded_at IS NULL) AS why,
                    max(checks) FILTER (WHERE superseded_at IS NULL) AS checks
                FROM verdicts
                WHERE verification_id >= $1
                AND verification_id < $2
                GROUP BY verification_id
            ), j AS (
                SELECT verification_id, account, recheck, checks,
                    hinted_at IS NOT NULL OR callback_at IS NOT NULL
                        OR verification_id IN (SELECT verification_id FROM hints) AS heard
                FROM collect_jobs
                WHERE verification_id >= $1
                AND verification_id < $2
            ), h AS (
                SELECT verification_id,
                    bool_or(kind = 'registered') AS registered,
                    count(*) FILTER (WHERE kind = 'verdict') AS verdicts,
                    count(*) FILTER (WHERE kind = 'check') AS checks
                FROM history
                WHERE verification_id >= $1
                AND verification_id < $2
                GROUP BY verification_id
            ), judged AS (
                SELECT verification_id,
                    coalesce(v.account, d.account, j.account, '') AS account,
                    v.product,
                    CASE
                        WHEN d.status IS NOT NULL THEN d.status
                        WHEN j.heard THEN 'collecting'
                        WHEN j.heard IS NOT NULL THEN 'waiting'
                    END AS status,
                    d.sub_code,
                    d.why,
                    CASE
                        WHEN v.account IS NULL THEN 'not_registered'
                        WHEN d.revisions IS NULL AND j.recheck IS NULL THEN 'lost'
                        WHEN d.current = 0 THEN 'no_current_verdict'
                        WHEN d.current > 1 THEN 'several_current_verdicts'
                        WHEN d.last <> d.revisions THEN 'revision_missing'
                        WHEN d.revisions IS NOT NULL AND NOT j.recheck THEN 'final_with_open_job'
                        WHEN d.revisions IS NULL AND j.recheck THEN 'recheck_without_verdict'
                        WHEN verification_id < $4 THEN NULL
                        WHEN h.registered IS NOT TRUE THEN 'no_history'
                        WHEN h.verdicts <> coalesce(d.revisions, 0) THEN 'verdicts_differ'
                        WHEN v.erased_at IS NULL AND h.checks <> coalesce(j.checks, d.checks, 0) THEN 'calls_differ'
                    END AS discrepancy,
                    v.account IS NOT NULL AS registered,
                    CASE WHEN verification_id < $4 THEN 0 ELSE coalesce(h.checks, 0) END AS calls_in_history,
                    CASE
                        WHEN verification_id < $4 THEN 0
                        -- With the open work the count of its checks is gone.
                        WHEN v.erased_at IS NOT NULL THEN coalesce(h.checks, 0)
                        ELSE coalesce(j.checks, d.checks, 0)
                    END AS calls_in_rows,
                    greatest(d.revisions - 1, 0) AS revisions,
                    coalesce(j.recheck, false) AS rechecked
                FROM v
                FULL JOIN d USING (verification_id)
                FULL JOIN j USING (verification_id)
                FULL JOIN h USING (verification_id)
            )
            SELECT account AS "account!", product, status, sub_code, why, discrepancy, count(*) AS "count!",
                count(*) FILTER (WHERE registered) AS "registered!",
                sum(calls_in_history)::bigint AS "calls_in_history!",
                sum(calls_in_rows)::bigint AS "calls_in_rows!",
                coalesce(sum(revisions), 0)::bigint AS "revisions!",
                count(*) FILTER (WHERE rechecked) AS "open_rechecks!",
                -- Not ordered: that would sort all of them.
                coalesce((array_agg(verification_id) FILTER (WHERE discrepancy IS NOT NULL))[1:$3],
                    ARRAY[]::uuid[]) AS "ids!"
            FROM judged
            GROUP BY account, product, status, sub_code, why, discrepancy"#,
            first_id_at(since),
            first_id_at(until),
            most_ids,
            whole_from,
        )
        .fetch_all(&mut *transaction)
        .await?;
        rows.into_iter()
            .map(|row| {
                Ok(Sum {
                    discrepancy: row.discrepancy.as_deref().map(parse).transpose()?,
                    account: row.account,
                    product: row.product,
                    status: row.status,
                    sub_code: row.sub_code,
                    why: row.why,
                    count: row.count,
                    registered: row.registered,
                    calls_in_history: row.calls_in_history,
                    calls_in_rows: row.calls_in_rows,
                    revisions: row.revisions,
                    open_rechecks: row.open_rechecks,
                    ids: row.ids.into_iter().map(|id: Uuid| VerificationId(id)).collect(),
                })
            })
            .collect()
    }
}

/// The statement knows no others.
fn parse(text: &str) -> Result<Discrepancy, StoreError> {
    Discrepancy::ALL.into_iter().find(|known| known.as_str() == text).ok_or_else(|| StoreError::Inconsistent {
        table: "verifications",
        column: "discrepancy",
        row: text.to_owned(),
    })
}

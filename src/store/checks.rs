//! What came of checks: verdicts with their history, or another attempt. Every write names its lease.

use std::fmt;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::evidence::{self, CaptureLease, EvidenceNote};
use super::{Session, Store, StoreError};
use crate::domain::schedule::Lane;
use crate::domain::{EvidenceKind, EvidenceState, FinalStatus, VerificationId};

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
    /// There was a verdict already when the lease was taken.
    pub recheck: bool,
    /// Only a verdict of the provider replaces an earlier one; anything else ends a recheck without a trace.
    pub replaces: bool,
    /// What the answer says about evidence. Its bytes and links are never here.
    pub evidence: Vec<EvidenceNote>,
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
    /// The evidence that this worker captures now.
    pub captures: Vec<CaptureLease>,
    /// Evidence that ended with this answer, without being captured.
    pub evidence_ended: Vec<(EvidenceKind, EvidenceState)>,
}

impl Recorded {
    fn new(id: Uuid, revision: Option<i32>, callback_at: Option<DateTime<Utc>>, again: bool) -> Self {
        let id = VerificationId(id);
        Self { id, revision, callback_at, again, captures: Vec::new(), evidence_ended: Vec::new() }
    }
}

/// What both statements about final checks take, one array for each column.
struct Columns<'a> {
    ids: Vec<Uuid>,
    tokens: Vec<Uuid>,
    statuses: Vec<&'a str>,
    sub_codes: Vec<Option<&'a str>>,
    reasons: Vec<&'a str>,
    scores: Vec<&'a str>,
    signals: Vec<&'a str>,
    answers: Vec<Option<&'a str>>,
    errors: Vec<Option<&'a str>>,
    details: Vec<Option<&'a str>>,
    times: Vec<DateTime<Utc>>,
}

impl<'a> Columns<'a> {
    fn of(checks: &[&'a CheckedFinal]) -> Self {
        Self {
            ids: checks.iter().map(|check| check.id.0).collect(),
            tokens: checks.iter().map(|check| check.token).collect(),
            statuses: checks.iter().map(|check| check.status.as_str()).collect(),
            sub_codes: checks.iter().map(|check| check.sub_code.as_deref()).collect(),
            reasons: checks.iter().map(|check| check.reason.as_str()).collect(),
            scores: checks.iter().map(|check| check.scores.as_str()).collect(),
            signals: checks.iter().map(|check| check.signals.as_str()).collect(),
            answers: checks.iter().map(|check| check.answer.as_deref()).collect(),
            errors: checks.iter().map(|check| check.last_error.as_deref()).collect(),
            details: checks.iter().map(|check| check.check_detail.as_deref()).collect(),
            times: checks.iter().map(|check| check.at).collect(),
        }
    }
}

fn integer(value: u32) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}

impl Store {
    /// Stores verdicts, their history, and the end of their jobs, flushed. Checks whose lease was lost are left out of
    /// the answer and change nothing. Where a hint came while the provider was being asked, the absence of a result is
    /// not final: the next check is due at once.
    pub async fn record_final(&self, checks: &[CheckedFinal]) -> Result<Vec<Recorded>, StoreError> {
        // Most checks bring the first result, which takes a fraction of the statement for all cases.
        let is_first_result = |check: &&CheckedFinal| !check.recheck && !check.status.reopens_on_hint();
        let (first, rare): (Vec<_>, Vec<_>) = checks.iter().partition(is_first_result);
        let mut recorded = if first.is_empty() { Vec::new() } else { self.record_part(&first, true).await? };
        if !rare.is_empty() {
            recorded.extend(self.record_part(&rare, false).await?);
        }
        Ok(recorded)
    }

    /// Stores checks of one sort: by one statement, or with evidence or events by several in one transaction.
    async fn record_part(&self, checks: &[&CheckedFinal], are_first: bool) -> Result<Vec<Recorded>, StoreError> {
        let record = async |connection: &mut Session| {
            if are_first {
                Self::record_first_results(connection, checks).await
            } else {
                Self::record_rare_finals(connection, checks).await
            }
        };
        let is_alone = |check: &&CheckedFinal| check.evidence.is_empty() && !self.is_wanted(check.status.into());
        if checks.iter().all(is_alone) {
            return record(&mut self.pool.acquire().await?).await;
        }
        let mut transaction = self.pool.begin().await?;
        let mut recorded = record(&mut transaction).await?;
        evidence::note(&mut transaction, checks, &mut recorded).await?;
        self.write_verdict_events(&mut transaction, checks, &recorded).await?;
        self.write_noted_events(&mut transaction, checks, &recorded).await?;
        transaction.commit().await?;
        Ok(recorded)
    }

    /// Stores results of verifications that had none.
    async fn record_first_results(
        connection: &mut Session,
        checks: &[&CheckedFinal],
    ) -> Result<Vec<Recorded>, StoreError> {
        let columns = Columns::of(checks);
        let rows = sqlx::query!(
            r#"-- record_first_results
            WITH done AS MATERIALIZED (
                DELETE FROM collect_jobs j
                USING (
                    SELECT *
                    FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[],
                        $8::text[], $9::text[], $10::text[], $11::timestamptz[])
                        AS i (verification_id, token, status, sub_code, reason, scores, signals, answer, last_error,
                            check_detail, at)
                    ORDER BY verification_id
                ) i
                WHERE j.verification_id = ANY ($1)
                AND j.verification_id = i.verification_id
                AND j.lease_token = i.token
                RETURNING j.verification_id, j.account, j.callback_at, j.hinted_at,
                    j.checks + (i.check_detail IS NOT NULL)::integer AS checks, i.status, i.sub_code, i.reason,
                    i.scores, i.signals, i.answer, i.last_error, i.check_detail, i.at
            ), verdict AS (
                INSERT INTO verdicts (verification_id, revision, account, status, sub_code, reason, scores, signals,
                    answer, decided_at, callback_at, hinted_at, checks, last_error)
                SELECT verification_id, 1, account, status, sub_code, reason, scores::json, signals::json, answer, at,
                    callback_at, hinted_at, checks, last_error
                FROM done
            ), remembered AS (
                INSERT INTO history (verification_id, at, kind, detail)
                SELECT d.verification_id, d.at, r.kind, r.detail
                FROM done d
                CROSS JOIN LATERAL (
                    VALUES
                        ('check', d.check_detail::json),
                        ('verdict', json_build_object('status', d.status, 'sub_code', d.sub_code, 'reason', d.reason,
                            'revision', 1))
                ) r (kind, detail)
                WHERE r.detail IS NOT NULL
            )
            SELECT verification_id AS "verification_id!", callback_at
            FROM done"#,
            &columns.ids,
            &columns.tokens,
            &columns.statuses as _,
            &columns.sub_codes as _,
            &columns.reasons as _,
            &columns.scores as _,
            &columns.signals as _,
            &columns.answers as _,
            &columns.errors as _,
            &columns.details as _,
            &columns.times,
        )
        .fetch_all(connection)
        .await?;
        Ok(rows.into_iter().map(|row| Recorded::new(row.verification_id, Some(1), row.callback_at, false)).collect())
    }

    /// Stores what may meet an earlier verdict, or come too early to be one.
    async fn record_rare_finals(
        connection: &mut Session,
        checks: &[&CheckedFinal],
    ) -> Result<Vec<Recorded>, StoreError> {
        let columns = Columns::of(checks);
        let replaces: Vec<bool> = checks.iter().map(|check| check.replaces).collect();
        let rows = sqlx::query!(
            r#"-- record_rare_finals
            WITH input AS MATERIALIZED (
                SELECT *
                FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[],
                    $8::text[], $9::text[], $10::text[], $11::timestamptz[], $12::boolean[])
                    AS i (verification_id, token, status, sub_code, reason, scores, signals, answer, last_error,
                        check_detail, at, replaces)
                ORDER BY verification_id
            ), held AS MATERIALIZED (
                -- Only the absence of a result can be too early, so only these rows are locked before they are judged.
                SELECT j.verification_id, j.nudged_again AS too_early
                FROM input i
                JOIN collect_jobs j ON j.verification_id = i.verification_id
                WHERE j.verification_id = ANY ($1)
                AND j.lease_token = i.token
                AND i.status IN ('void', 'expired')
                ORDER BY j.verification_id
                FOR UPDATE OF j
            ), reopened AS (
                UPDATE collect_jobs j
                SET lease_token = NULL, leased_until = NULL, due_at = i.at, running = 0,
                    checks = j.checks + (i.check_detail IS NOT NULL)::integer,
                    last_error = coalesce(i.last_error, j.last_error)
                FROM held h
                JOIN input i USING (verification_id)
                WHERE j.verification_id = ANY ($1)
                AND j.verification_id = h.verification_id
                AND h.too_early
                RETURNING j.verification_id, i.at, i.check_detail
            ), done AS (
                DELETE FROM collect_jobs j
                USING input i
                WHERE j.verification_id = ANY ($1)
                AND j.verification_id = i.verification_id
                AND j.lease_token = i.token
                AND (i.status NOT IN ('void', 'expired')
                    OR i.verification_id IN (SELECT h.verification_id FROM held h WHERE NOT h.too_early))
                RETURNING j.verification_id, j.account, j.callback_at, j.hinted_at, j.checks, j.recheck, j.recheck_id,
                    i.status, i.sub_code, i.reason, i.scores, i.signals, i.answer, i.last_error, i.check_detail, i.at,
                    i.replaces
            ), decided AS MATERIALIZED (
                SELECT d.*, p.revision AS known_revision,
                    coalesce(p.callback_at, d.callback_at) AS first_callback_at,
                    coalesce(p.hinted_at, d.hinted_at) AS first_hinted_at,
                    -- A flow that ended without an outcome takes nothing from a verdict.
                    p.revision IS NULL
                        OR (d.replaces AND (p.status, p.sub_code) IS DISTINCT FROM (d.status, d.sub_code)
                            AND NOT (d.status = 'void' AND p.status IN ('passed', 'failed', 'review'))) AS is_new
                FROM done d
                LEFT JOIN LATERAL (
                    SELECT v.revision, v.status, v.sub_code, v.callback_at, v.hinted_at
                    FROM verdicts v
                    WHERE d.recheck
                    AND v.verification_id = d.verification_id
                    AND v.superseded_at IS NULL
                    ORDER BY v.revision DESC
                    LIMIT 1
                ) p ON true
                -- An erased one has no job; should somebody have made one all the same, nothing comes of it.
                CROSS JOIN LATERAL (
                    SELECT erased_at
                    FROM verifications
                    WHERE verifications.verification_id = d.verification_id
                    LIMIT 1
                ) e
                WHERE e.erased_at IS NULL
            ), superseded AS (
                UPDATE verdicts v
                SET superseded_at = d.at
                FROM decided d
                WHERE v.verification_id = ANY (ARRAY(SELECT verification_id FROM decided WHERE known_revision > 0))
                AND d.is_new
                AND v.verification_id = d.verification_id
                AND v.revision = d.known_revision
            ), confirmed AS (
                UPDATE verdicts v
                SET checks = d.checks + (d.check_detail IS NOT NULL)::integer
                FROM decided d
                WHERE v.verification_id = ANY (ARRAY(SELECT verification_id FROM decided WHERE known_revision > 0))
                AND NOT d.is_new
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
            ), revised AS (
                INSERT INTO recheck_revisions (recheck_id, verification_id)
                SELECT recheck_id, verification_id
                FROM decided
                WHERE is_new
                AND recheck_id IS NOT NULL
                ON CONFLICT DO NOTHING
            ), remembered AS (
                INSERT INTO history (verification_id, at, kind, detail)
                SELECT verification_id, at, 'check', check_detail::json
                FROM decided
                WHERE check_detail IS NOT NULL
                UNION ALL
                SELECT verification_id, at, 'check', check_detail::json
                FROM reopened
                WHERE check_detail IS NOT NULL
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
            &columns.ids,
            &columns.tokens,
            &columns.statuses as _,
            &columns.sub_codes as _,
            &columns.reasons as _,
            &columns.scores as _,
            &columns.signals as _,
            &columns.answers as _,
            &columns.errors as _,
            &columns.details as _,
            &columns.times,
            &replaces,
        )
        .fetch_all(connection)
        .await?;
        Ok(rows
            .into_iter()
            .map(|row| Recorded::new(row.verification_id, row.revision, row.callback_at, row.again))
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
                    -- What was put in line in bulk stays behind all else, also after a fault.
                    lane = CASE WHEN j.nudged_again OR j.recheck_id IS NOT NULL THEN j.lane ELSE coalesce(i.lane, j.lane) END,
                    due_at = CASE WHEN j.nudged_again THEN least(i.at, i.due_at) ELSE i.due_at END,
                    running = CASE WHEN j.nudged_again THEN 0 ELSE i.running END,
                    faults = i.faults,
                    checks = j.checks + (i.check_detail IS NOT NULL)::integer,
                    last_error = i.last_error
                FROM input i
                WHERE j.verification_id = ANY ($1)
                AND j.verification_id = i.verification_id
                AND j.lease_token = i.token
                RETURNING j.verification_id, i.at, i.check_detail
            ), remembered AS (
                INSERT INTO history (verification_id, at, kind, detail)
                SELECT verification_id, at, 'check', check_detail::json
                FROM released
                WHERE check_detail IS NOT NULL
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

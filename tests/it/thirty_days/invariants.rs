//! What must hold, after every step and in the end.

use std::collections::BTreeMap;
use std::fmt;

use checkback::domain::VerificationId;
use checkback::store::LeasedJob;
use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};
use sqlx::Row;
use uuid::Uuid;

use super::queue::{HOUR, MINUTE, Moment, SECOND};
use super::world::World;

/// How far a clock is off at most; nothing is asked later than a deadline by more.
const WORST_CLOCK: i64 = 20 * MINUTE;
/// Who could be asked about for so long, all in all, must have been: longer than any wait between two attempts.
const ENOUGH: i64 = 2 * HOUR;

/// An invariant that did not hold.
#[derive(Debug)]
pub struct Violation {
    pub invariant: &'static str,
    pub detail: String,
    pub at: Moment,
    pub seed: u64,
    pub events: Vec<String>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "invariant \"{}\" does not hold at {}: {}", self.invariant, self.at, self.detail)?;
        writeln!(f, "the last events of seed {}:", self.seed)?;
        for event in &self.events {
            writeln!(f, "  {event}")?;
        }
        Ok(())
    }
}

/// What the database says about one verification.
struct Stored {
    id: VerificationId,
    verdicts: i64,
    revision: Option<i32>,
    status: Option<String>,
    reason: Option<String>,
    decided_at: Option<DateTime<Utc>>,
    is_open: bool,
    is_recheck: bool,
    checks: Option<i32>,
    hints: i64,
    callbacks_in_history: i64,
    checks_in_history: i64,
    verdicts_in_history: i64,
}

const STORED: &str = "
    SELECT v.verification_id, coalesce(d.verdicts, 0) AS verdicts, d.revision, d.status, d.reason, d.decided_at,
        j.verification_id IS NOT NULL AS is_open, coalesce(j.recheck, false) AS is_recheck, coalesce(j.checks, d.checks) AS checks,
        (SELECT count(*) FROM hints WHERE hints.verification_id = v.verification_id AND kind = 'callback') AS hints,
        h.callbacks, h.checks AS checks_in_history, h.verdicts AS verdicts_in_history
    FROM verifications v
    LEFT JOIN LATERAL (
        SELECT count(*) AS verdicts, max(revision) AS revision, max(status) AS status, max(reason) AS reason,
            max(decided_at) AS decided_at, max(verdicts.checks) AS checks
        FROM verdicts
        WHERE verdicts.verification_id = v.verification_id
    ) d ON true
    LEFT JOIN collect_jobs j ON j.verification_id = v.verification_id
    CROSS JOIN LATERAL (
        SELECT count(*) FILTER (WHERE kind = 'callback') AS callbacks,
            count(*) FILTER (WHERE kind = 'check') AS checks,
            count(*) FILTER (WHERE kind = 'verdict') AS verdicts
        FROM history
        WHERE history.verification_id = v.verification_id
    ) h
    WHERE v.verification_id = ANY ($1)
    ORDER BY v.verification_id";

impl World {
    async fn stored(&mut self, ids: &[VerificationId]) -> Vec<Stored> {
        let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
        let rows = sqlx::query(STORED).bind(&ids).fetch_all(&mut self.sql).await.unwrap();
        rows.iter()
            .map(|row| Stored {
                id: VerificationId(row.get("verification_id")),
                verdicts: row.get("verdicts"),
                revision: row.get("revision"),
                status: row.get("status"),
                reason: row.get("reason"),
                decided_at: row.get("decided_at"),
                is_open: row.get("is_open"),
                is_recheck: row.get("is_recheck"),
                checks: row.get("checks"),
                hints: row.get("hints"),
                callbacks_in_history: row.get("callbacks"),
                checks_in_history: row.get("checks_in_history"),
                verdicts_in_history: row.get("verdicts_in_history"),
            })
            .collect()
    }

    /// The tokens of the leases that stand.
    pub async fn holders(&mut self, ids: &[VerificationId]) -> BTreeMap<VerificationId, Uuid> {
        let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
        let rows = sqlx::query("SELECT verification_id, lease_token FROM collect_jobs WHERE lease_token IS NOT NULL AND verification_id = ANY ($1)")
            .bind(&ids)
            .fetch_all(&mut self.sql)
            .await
            .unwrap();
        rows.iter().map(|row| (VerificationId(row.get(0)), row.get(1))).collect()
    }

    /// What must hold of these verifications after each step that touched them.
    pub async fn check(&mut self, ids: &[VerificationId]) -> Result<(), Box<Violation>> {
        let stored = self.stored(ids).await;
        if stored.len() < ids.iter().collect::<std::collections::BTreeSet<_>>().len() {
            return self.broken("nothing acknowledged is lost", "a registration is gone");
        }
        for row in stored {
            self.check_one(&row)?;
        }
        Ok(())
    }

    fn check_one(&mut self, row: &Stored) -> Result<(), Box<Violation>> {
        let Some(&n) = self.by_id.get(&row.id) else { return Ok(()) };
        if row.verdicts > 1 || row.revision.is_some_and(|revision| revision != 1) {
            return self.broken("one verdict", format!("{n} has {} verdicts", row.verdicts));
        }
        // A recheck is open beside its verdict.
        if row.is_open == (row.verdicts > 0) && !row.is_recheck {
            return self.broken(
                "open or final",
                format!(
                    "{n} has {} verdicts and its job is {}",
                    row.verdicts,
                    if row.is_open { "there" } else { "gone" }
                ),
            );
        }
        if row.verdicts_in_history != row.verdicts || row.checks.map_or(0, i64::from) != row.checks_in_history {
            return self.broken(
                "history",
                format!(
                    "{n} has {} verdicts and {} of them in its history, {:?} checks and {} in its history",
                    row.verdicts, row.verdicts_in_history, row.checks, row.checks_in_history
                ),
            );
        }
        let known = &self.people[n];
        let kept = row.hints + row.callbacks_in_history;
        // The first ten are kept; what came before the registration is one row.
        let acknowledged = i64::from((known.acknowledged + u32::from(known.acknowledged_early > 0)).min(10));
        if kept < acknowledged {
            let detail = format!("{n} had {acknowledged} callbacks acknowledged, {kept} are there");
            return self.broken("nothing acknowledged is lost", detail);
        }
        let (Some(status), Some(decided_at)) = (&row.status, row.decided_at) else {
            return if known.verdict.is_some() {
                self.broken("a verdict stays", format!("{n} had a verdict and has none"))
            } else {
                Ok(())
            };
        };
        let decided_at = Moment::of(decided_at);
        if let Some(before) = &known.verdict {
            if *before != (decided_at, status.clone()) {
                return self.broken("a verdict stays", format!("{n} was {before:?} and is {status} now"));
            }
            return Ok(());
        }
        let truth = if self.plan.people[n].passes { "passed" } else { "failed" };
        let is_result = matches!(status.as_str(), "passed" | "failed");
        if is_result && (status != truth || known.finished_at.is_none()) {
            return self.broken("the provider's verdict", format!("{n} is {status} and not {truth}"));
        }
        if !is_result && row.reason.as_deref().unwrap_or_default().is_empty() {
            return self.broken("a written reason", format!("{n} is {status} without a reason"));
        }
        if !is_result && let Some(how) = self.could_be_saved(n) {
            return self.broken("what could be saved was saved", format!("{n} is {status}: {how}"));
        }
        let status = status.clone();
        *self.explored.by_status.entry(status.clone()).or_default() += 1;
        self.people[n].verdict = Some((decided_at, status));
        self.settled += 1;
        Ok(())
    }

    /// How the result of a person could have been had that was not; `None` where there was none, or too little time.
    fn could_be_saved(&self, n: usize) -> Option<String> {
        let known = &self.people[n];
        let finished_at = known.finished_at?;
        // Who is not heard of is asked about at the latest when the flow is given up.
        let heard_at = known.first_acknowledged.map(|at| at.max(self.plan.people[n].registers_at));
        let asked_from = heard_at.unwrap_or_else(|| self.plan.people[n].registers_at.plus(self.plan.give_up_after));
        let from = asked_from.max(finished_at).0;
        let until = self.deadline_of(n).0.min(self.now.0);
        let away: i64 = self
            .away
            .iter()
            .map(|(begin, end)| (end.map_or(until, |end| end.0).min(until) - begin.0.max(from)).max(0))
            .sum();
        let free = until - from - away;
        (free >= ENOUGH).then(|| format!("it could be asked about for {} minutes", free / MINUTE))
    }

    /// What must hold of each call that the provider received.
    pub fn check_calls(&mut self, replica: usize, job: &LeasedJob) -> Result<(), Box<Violation>> {
        let calls = self.simulator.calls_after(self.calls_seen);
        for call in calls {
            self.calls_seen = call.number;
            // Downloads are not the account's calls.
            if call.operation == "Video" {
                continue;
            }
            let at = Moment::of(call.received_at);
            self.explored.calls += 1;
            while self.recent_calls.front().is_some_and(|earlier| at.0 - earlier.0 >= SECOND) {
                self.recent_calls.pop_front();
            }
            self.recent_calls.push_back(at);
            let qps = usize::try_from(self.plan.qps).unwrap();
            // Slots are by the database's clock: while it jumps on, a second of its is less than one.
            let jumped = self.database_jumped.is_some_and(|jumped| at.0 - jumped.0 <= 2 * SECOND);
            if self.recent_calls.len() > qps && !jumped {
                let detail = format!("{} calls in a second of {qps}", self.recent_calls.len());
                return self.broken("calls a second", detail);
            }
            if let Some(n) = call.transaction_id.as_deref().and_then(|id| self.by_transaction.get(id)).copied() {
                self.people[n].calls += 1;
            }
        }
        let n = self.by_transaction[&job.transaction_id];
        let (_, account) = self.replicas[replica].parts();
        let deadline = Moment::of(account.deadlines(job.registered_at, job.hinted_at).result);
        let off = self.replicas[replica].clock_off.abs();
        // A request is on its way for some milliseconds.
        if self.now > deadline.plus(off + SECOND) || self.now > self.deadline_of(n).plus(WORST_CLOCK + SECOND) {
            let detail = format!("{n} was asked about {} minutes after it", (self.now.0 - deadline.0) / MINUTE);
            return self.broken("nothing is asked after its deadline", detail);
        }
        Ok(())
    }

    /// What is marked as stored is there, whole, and has the hash that is written down.
    pub async fn check_evidence(&mut self, id: VerificationId) -> Result<(), Box<Violation>> {
        let statement =
            "SELECT kind, state, reason, object, bytes, sha256 FROM evidence WHERE verification_id = $1 ORDER BY kind";
        let rows = sqlx::query(statement).bind(id.0).fetch_all(&mut self.sql).await.unwrap();
        let n = self.by_id[&id];
        for row in rows {
            let (kind, state): (String, String) = (row.get("kind"), row.get("state"));
            if state == "stored" {
                let name: String = row.get("object");
                let there = std::fs::read(self.folder.path().join(&name)).unwrap_or_default();
                let hash: Vec<u8> = row.get("sha256");
                let length: i64 = row.get("bytes");
                if i64::try_from(there.len()).unwrap() != length || Sha256::digest(&there)[..] != hash[..] {
                    let detail = format!("the {kind} of {n} is {} bytes of {length}", there.len());
                    return self.broken("what is stored is whole", detail);
                }
            } else if state == "missed" && row.get::<Option<String>, _>("reason").is_none() {
                return self.broken("a written reason", format!("the {kind} of {n} is missed without one"));
            }
        }
        Ok(())
    }

    /// What must hold when nothing more happens.
    pub async fn check_end(&mut self) -> Result<(), Box<Violation>> {
        let ids: Vec<VerificationId> = self.people.iter().filter_map(|known| known.id).collect();
        self.check(&ids).await?;
        for n in 0..self.people.len() {
            if self.people[n].id.is_some() && self.people[n].verdict.is_none() {
                return self.broken("everything ends", format!("{n} has neither verdict nor reason"));
            }
        }
        let left = "SELECT count(*) FROM evidence WHERE state = 'pending'";
        let left: i64 = sqlx::query(left).fetch_one(&mut self.sql).await.unwrap().get(0);
        if left > 0 {
            return self.broken("everything ends", format!("{left} pieces of evidence are pending"));
        }
        for id in ids {
            self.check_evidence(id).await?;
        }
        let states = "SELECT state, count(*) FROM evidence GROUP BY state ORDER BY state";
        for row in sqlx::query(states).fetch_all(&mut self.sql).await.unwrap() {
            self.explored.evidence.insert(row.get(0), row.get(1));
        }
        Ok(())
    }
}

//! Whether what was registered, what ended, what is open and what the provider was asked agree with each other.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use super::Service;
use crate::domain::{FinalStatus, Status, VerificationId};
use crate::store::{Discrepancy, StoreError, Sum};

/// How many ids are told of each thing that does not add up.
const MOST_IDS: usize = 20;

/// How many verifications are in each state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct States(BTreeMap<&'static str, i64>);

impl States {
    fn add(&mut self, status: Status, count: i64) {
        *self.0.entry(status.as_str()).or_default() += count;
    }

    pub fn of(&self, status: Status) -> i64 {
        self.0.get(status.as_str()).copied().unwrap_or(0)
    }

    /// All that have ended.
    pub fn ended(&self) -> i64 {
        FinalStatus::ALL.iter().map(|status| self.of(Status::Final(*status))).sum()
    }
}

/// Results of one code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Billing {
    pub account: String,
    pub product: Option<String>,
    pub sub_code: Option<String>,
    pub count: i64,
    /// None: the provider does not say.
    pub billed: Option<bool>,
}

/// Verifications that ended without a verdict of the provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    pub account: String,
    pub status: FinalStatus,
    pub reason: Option<String>,
    pub count: i64,
}

/// Verifications that do not add up in the same way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub discrepancy: Discrepancy,
    pub count: i64,
    /// Some of them, oldest first.
    pub ids: Vec<VerificationId>,
}

/// The account of a window of registrations.
#[derive(Clone, Debug, Default)]
pub struct Reconciliation {
    pub registered: i64,
    pub states: States,
    pub accounts: BTreeMap<String, (i64, States)>,
    pub without_verdict: Vec<Ended>,
    pub calls_in_history: i64,
    pub calls_in_rows: i64,
    pub billing: Vec<Billing>,
    /// Verdicts that took the place of earlier ones.
    pub revisions: i64,
    pub open_rechecks: i64,
    pub problems: Vec<Problem>,
}

impl Reconciliation {
    pub fn waiting(&self) -> i64 {
        self.states.of(Status::Waiting)
    }

    pub fn collecting(&self) -> i64 {
        self.states.of(Status::Collecting)
    }

    /// Registered = ended + waiting + collecting, calls as the history has them, and no row contradicts another.
    pub fn adds_up(&self) -> bool {
        self.problems.is_empty()
            && self.registered == self.states.ended() + self.waiting() + self.collecting()
            && self.calls_in_history == self.calls_in_rows
    }

    fn add(&mut self, sum: &Sum, billed: impl FnOnce(&str) -> Option<bool>) -> Result<(), StoreError> {
        let status = match &sum.status {
            None => None,
            Some(text) => Some(text.parse::<Status>().map_err(|_| StoreError::Inconsistent {
                table: "verdicts",
                column: "status",
                row: text.clone(),
            })?),
        };
        let (registered, of_account) = self.accounts.entry(sum.account.clone()).or_default();
        *registered += sum.registered;
        self.registered += sum.registered;
        if let Some(status) = status {
            of_account.add(status, sum.count);
            self.states.add(status, sum.count);
        }
        self.calls_in_history += sum.calls_in_history;
        self.calls_in_rows += sum.calls_in_rows;
        self.revisions += sum.revisions;
        self.open_rechecks += sum.open_rechecks;
        match status {
            Some(Status::Final(status @ (FinalStatus::Void | FinalStatus::Expired | FinalStatus::Unresolvable))) => {
                let same = |known: &&mut Ended| {
                    known.account == sum.account && known.status == status && known.reason == sum.why
                };
                match self.without_verdict.iter_mut().find(same) {
                    Some(known) => known.count += sum.count,
                    None => self.without_verdict.push(Ended {
                        account: sum.account.clone(),
                        status,
                        reason: sum.why.clone(),
                        count: sum.count,
                    }),
                }
            }
            Some(Status::Final(_)) => {
                let same = |known: &&mut Billing| {
                    known.account == sum.account && known.product == sum.product && known.sub_code == sum.sub_code
                };
                match self.billing.iter_mut().find(same) {
                    Some(known) => known.count += sum.count,
                    None => self.billing.push(Billing {
                        account: sum.account.clone(),
                        product: sum.product.clone(),
                        sub_code: sum.sub_code.clone(),
                        count: sum.count,
                        billed: sum.sub_code.as_deref().and_then(billed),
                    }),
                }
            }
            Some(Status::Waiting | Status::Collecting) | None => {}
        }
        if let Some(discrepancy) = sum.discrepancy {
            match self.problems.iter_mut().find(|known| known.discrepancy == discrepancy) {
                Some(known) => {
                    known.count += sum.count;
                    known.ids.extend_from_slice(&sum.ids);
                }
                None => self.problems.push(Problem { discrepancy, count: sum.count, ids: sum.ids.clone() }),
            }
        }
        Ok(())
    }

    fn finish(&mut self) {
        self.without_verdict.sort_by(|a, b| (&a.account, a.status.as_str()).cmp(&(&b.account, b.status.as_str())));
        self.billing.sort_by(|a, b| (&a.account, &a.product, &a.sub_code).cmp(&(&b.account, &b.product, &b.sub_code)));
        self.problems.sort_by_key(|problem| problem.discrepancy);
        for problem in &mut self.problems {
            problem.ids.sort_unstable();
            problem.ids.truncate(MOST_IDS);
        }
    }
}

impl Service {
    /// The account of what was registered from `since` until before `until`.
    pub async fn reconcile(&self, since: DateTime<Utc>, until: DateTime<Utc>) -> Result<Reconciliation, StoreError> {
        let most = i32::try_from(MOST_IDS).unwrap_or(i32::MAX);
        let sums = self.store.reconcile(since, until, most).await?;
        let mut reconciliation = Reconciliation::default();
        for sum in &sums {
            let account = self.accounts.get(&sum.account);
            reconciliation.add(sum, |sub_code| account?.provider().is_billed(sub_code))?;
        }
        reconciliation.finish();
        Ok(reconciliation)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn sum(status: &str, count: i64) -> Sum {
        Sum {
            account: "alibaba-sg".to_owned(),
            product: Some("FACE_LIVENESS".to_owned()),
            status: Some(status.to_owned()),
            sub_code: None,
            why: None,
            discrepancy: None,
            count,
            registered: count,
            calls_in_history: count,
            calls_in_rows: count,
            revisions: 0,
            open_rechecks: 0,
            ids: Vec::new(),
        }
    }

    fn reconciled(sums: &[Sum]) -> Reconciliation {
        let mut reconciliation = Reconciliation::default();
        for sum in sums {
            reconciliation.add(sum, |code| (code == "200").then_some(true)).unwrap();
        }
        reconciliation.finish();
        reconciliation
    }

    #[test]
    fn what_is_registered_is_the_sum_of_its_states() {
        let passed = Sum { sub_code: Some("200".to_owned()), ..sum("passed", 5) };
        let void = |why: &str| Sum { why: Some(why.to_owned()), ..sum("void", 1) };
        let all = [passed.clone(), sum("waiting", 2), sum("collecting", 3), void("a"), void("a"), void("b"), passed];
        let reconciliation = reconciled(&all);
        assert!(reconciliation.adds_up());
        assert_eq!((reconciliation.registered, reconciliation.states.ended()), (18, 13));
        let reasons: Vec<_> =
            reconciliation.without_verdict.iter().map(|ended| (ended.reason.as_deref(), ended.count)).collect();
        assert_eq!(reasons, [(Some("a"), 2), (Some("b"), 1)]);
        assert_eq!(reconciliation.billing.len(), 1, "void ones are none of it");
        assert_eq!((reconciliation.billing[0].count, reconciliation.billing[0].billed), (10, Some(true)));
    }

    #[test]
    fn a_missing_state_missing_calls_and_any_discrepancy_do_not_add_up() {
        assert!(!reconciled(&[Sum { status: None, ..sum("passed", 1) }]).adds_up());
        assert!(!reconciled(&[Sum { calls_in_rows: 0, ..sum("passed", 1) }]).adds_up());
        let ids = (0..30).rev().map(|n| VerificationId(Uuid::from_u128(n))).collect();
        let wrong = reconciled(&[Sum { discrepancy: Some(Discrepancy::Lost), ids, ..sum("passed", 30) }]);
        assert!(!wrong.adds_up());
        assert_eq!((wrong.problems[0].count, wrong.problems[0].ids.len()), (30, MOST_IDS));
        assert_eq!(wrong.problems[0].ids[0], VerificationId(Uuid::nil()));
    }
}

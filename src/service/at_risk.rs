//! What is at risk of being deleted at the provider before it is here: counted for the metrics, told in the log when
//! there is something new.

use std::fmt;
use std::time::Duration;

use super::Service;
use super::account::Account;
use crate::domain::risk::RiskKind;
use crate::store::{RiskCount, StoreError, Window};

/// Something new at risk: one line of the log.
#[derive(Debug, PartialEq)]
pub struct RiskWarning {
    pub count: RiskCount,
    /// The provider's time for it.
    pub window: Duration,
    /// Until the first is lost.
    pub left: Duration,
}

impl fmt::Display for RiskWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RiskCount { kind, percent, reached, .. } = &self.count;
        let (things, have, first) = if *reached == 1 { ("", "has", "it") } else { ("s", "have", "the first") };
        write!(
            f,
            "{reached} {kind}{things} {have} used {percent} % of their {}; {first} is lost in {}; see GET \
             /verifications?at_risk={kind}",
            humantime::format_duration(self.window),
            humantime::format_duration(Duration::from_secs(self.left.as_secs())),
        )
    }
}

impl Account {
    pub fn window(&self, kind: RiskKind) -> Window<'_> {
        let retention = match kind {
            RiskKind::Video => self.video_retention,
            RiskKind::Result => self.result_retention,
        };
        Window { account: &self.name, kind, give_up_after: self.give_up_after, retention }
    }
}

impl Service {
    /// Brings the gauges up to date and returns what is to be told. A replica that is told the same by the database a
    /// moment later returns nothing.
    pub async fn look_at_risk(&self) -> Result<Vec<RiskWarning>, StoreError> {
        let now = self.clock.now();
        let accounts: Vec<&Account> = self.accounts.values().map(AsRef::as_ref).collect();
        let windows: Vec<Window<'_>> =
            accounts.iter().flat_map(|account| RiskKind::ALL.map(|kind| account.window(kind))).collect();
        let counts = self.store.count_at_risk(&windows, now).await?;
        for window in &windows {
            let found = counts.iter().find(|count| count.account == window.account && count.kind == window.kind);
            metrics::gauge!("checkback_at_risk", "account" => window.account.to_owned(),
                "kind" => window.kind.as_str())
            .set(found.map_or(0.0, |count| as_f64(count.at_risk)));
        }
        let names: Vec<&str> = accounts.iter().map(|account| account.name.as_str()).collect();
        let oldest = self.store.oldest_due(&names, now).await?;
        for name in names {
            let due_at = oldest.iter().find(|(account, _)| account == name).map(|(_, due_at)| *due_at);
            let age = due_at.and_then(|due_at| (now - due_at).to_std().ok()).unwrap_or_default();
            metrics::gauge!("checkback_oldest_due_seconds", "account" => name.to_owned()).set(age.as_secs_f64());
        }
        let mut warnings = Vec::new();
        for count in counts.into_iter().filter(|count| count.fresh > 0) {
            let window = windows.iter().find(|window| window.account == count.account && window.kind == count.kind);
            let (Some(window), Some(first)) = (window.map(|window| window.retention), count.first_deadline) else {
                continue;
            };
            if self.store.take_risk_warning(&count.account, count.kind, count.percent, now).await? {
                warnings.push(RiskWarning { count, window, left: (first - now).to_std().unwrap_or_default() });
            }
        }
        Ok(warnings)
    }
}

/// Counts of verifications lose nothing by it.
#[expect(clippy::cast_precision_loss, reason = "a gauge is a float, and no table holds 2^52 rows")]
pub(super) fn as_f64(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_says_how_many_how_much_and_how_long() {
        let count = RiskCount {
            account: "alibaba-sg".to_owned(),
            kind: RiskKind::Video,
            percent: 80,
            at_risk: 40,
            reached: 12,
            fresh: 3,
            first_deadline: None,
        };
        let (window, left) = (Duration::from_mins(30), Duration::from_millis(340_900));
        let warning = RiskWarning { count, window, left };
        assert_eq!(
            warning.to_string(),
            "12 videos have used 80 % of their 30m; the first is lost in 5m 40s; see GET /verifications?at_risk=video"
        );
        let one = RiskWarning { count: RiskCount { reached: 1, ..warning.count.clone() }, ..warning };
        assert!(one.to_string().starts_with("1 video has used 80 % of their 30m; it is lost in 5m 40s;"), "{one}");
    }
}

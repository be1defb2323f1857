//! Faults on demand: for the next calls, or for a share of them.
//!
//! The oldest fault that fits a call is used, and only one per call. What each kind means for an answer is decided by
//! the provider that gives it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::TimeDelta;
use serde::Deserialize;

use super::ControlError;

/// What goes wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// An HTTP status (default 500) with an error body.
    #[default]
    Status,
    /// A provider code, with the status the provider documents for it.
    Code,
    /// The right answer, late.
    Delay,
    /// The connection is closed in the middle of the answer.
    CutOff,
    /// 200 with something that is not JSON.
    Garbage,
    /// Too fast; `retry_after_ms` is sent along when given.
    Throttle,
    /// ZOLOZ: one character of the body is changed after it was signed.
    Tamper,
    /// ZOLOZ: signed with a key that belongs to nobody.
    WrongKey,
    /// ZOLOZ: without a signature.
    Unsigned,
    /// The provider's clock is `skew_seconds` ahead for this call: its time checks and its `Date` header.
    Skew,
    /// A proxy's HTML page (default 502).
    Html,
    /// 200 without a body.
    Empty,
    /// Videos: the right bytes, one at a time, `delay_ms` (default 1000) apart.
    Drip,
    /// Videos: announced longer than it is.
    WrongLength,
    /// 200 with a body of `bytes` (default 65 MiB), valid JSON until it ends.
    Huge,
}

/// Whose call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    #[default]
    Alibaba,
    Zoloz,
}

/// In which form an error body is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorForm {
    #[default]
    Json,
    /// JSON with lower-case member names.
    LowerCase,
    Xml,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Fault {
    /// `None`: any provider whose answers can go wrong in this way.
    pub provider: Option<Provider>,
    /// `None`: any operation. At ZOLOZ the path behind `/zoloz/`, such as `connect/checkresult`. Downloads of videos are meant only by `Video`.
    pub operation: Option<String>,
    pub transaction_id: Option<String>,
    pub kind: FaultKind,
    pub status: Option<u16>,
    pub code: Option<String>,
    pub message: Option<String>,
    pub form: ErrorForm,
    /// With any kind: how long the answer waits.
    pub delay_ms: Option<u64>,
    pub retry_after_ms: Option<u64>,
    pub skew_seconds: Option<i64>,
    pub bytes: Option<u64>,
    /// How many calls are hit; 1 without a share, without end with one.
    pub times: Option<u32>,
    /// The part of the calls that is hit, above 0 and at most 1.
    pub share: Option<f64>,
}

impl Fault {
    fn check(&self) -> Result<(), ControlError> {
        let wrong = |text: &str| Err(ControlError::Invalid(text.to_owned()));
        if self.kind == FaultKind::Delay && self.delay_ms.is_none() {
            return wrong("a fault of kind \"delay\" needs delay_ms");
        }
        if self.kind == FaultKind::Skew && self.skew_seconds.is_none() {
            return wrong("a fault of kind \"skew\" needs skew_seconds");
        }
        if self.kind == FaultKind::Code && self.code.is_none() {
            return wrong("a fault of kind \"code\" needs code");
        }
        if self.signed_only() && self.provider == Some(Provider::Alibaba) {
            return wrong("only answers of ZOLOZ are signed");
        }
        if self.status.is_some_and(|status| !(200..=599).contains(&status)) {
            return wrong("status must be between 200 and 599");
        }
        if self.share.is_some_and(|share| !(share > 0.0 && share <= 1.0)) {
            return wrong("share must be above 0 and at most 1");
        }
        if self.times == Some(0) {
            return wrong("times must be at least 1");
        }
        Ok(())
    }

    /// Only signed answers can go wrong so.
    fn signed_only(&self) -> bool {
        matches!(self.kind, FaultKind::Tamper | FaultKind::WrongKey | FaultKind::Unsigned)
    }

    /// How far the provider's clock is ahead.
    pub(super) fn skew(&self) -> Option<TimeDelta> {
        if self.kind == FaultKind::Skew { self.skew_seconds.and_then(TimeDelta::try_seconds) } else { None }
    }

    fn fits(&self, provider: Provider, operation: &str, named_only: bool, transaction_id: Option<&str>) -> bool {
        let operation_fits = match &self.operation {
            Some(wanted) => wanted == operation,
            None => !named_only,
        };
        let provider_fits = self.provider.is_none_or(|wanted| wanted == provider)
            && (provider == Provider::Zoloz || !self.signed_only());
        provider_fits
            && operation_fits
            && self.transaction_id.as_deref().is_none_or(|wanted| Some(wanted) == transaction_id)
    }
}

struct Armed {
    fault: Arc<Fault>,
    left: Option<u32>,
}

#[derive(Default)]
pub(super) struct Faults {
    /// Length of `armed`, so that a call without faults takes no lock.
    count: AtomicUsize,
    armed: Mutex<Vec<Armed>>,
}

impl Faults {
    fn armed(&self) -> MutexGuard<'_, Vec<Armed>> {
        self.armed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, fault: Fault) -> Result<(), ControlError> {
        fault.check()?;
        let left = fault.times.or(if fault.share.is_some() { None } else { Some(1) });
        let mut armed = self.armed();
        armed.push(Armed { fault: Arc::new(fault), left });
        self.count.store(armed.len(), Ordering::Release);
        Ok(())
    }

    pub(super) fn clear(&self) {
        self.armed().clear();
        self.count.store(0, Ordering::Release);
    }

    /// The fault of this call, used up by it. `named_only`: faults for any operation do not mean this one.
    pub(super) fn take(
        &self,
        provider: Provider,
        operation: &str,
        named_only: bool,
        transaction_id: Option<&str>,
        chance: impl Fn() -> f64,
    ) -> Option<Arc<Fault>> {
        if self.count.load(Ordering::Acquire) == 0 {
            return None;
        }
        let mut armed = self.armed();
        let index = armed.iter().position(|entry| {
            entry.fault.fits(provider, operation, named_only, transaction_id)
                && entry.fault.share.is_none_or(|share| chance() < share)
        })?;
        let fault = Arc::clone(&armed[index].fault);
        if let Some(left) = &mut armed[index].left {
            *left -= 1;
            if *left == 0 {
                armed.remove(index);
                self.count.store(armed.len(), Ordering::Release);
            }
        }
        Some(fault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(faults: &Faults, operation: &str, id: &str) -> Option<FaultKind> {
        faults.take(Provider::Alibaba, operation, operation == "Video", Some(id), || 0.5).map(|fault| fault.kind)
    }

    #[test]
    fn a_fault_hits_its_operation_and_transaction_as_often_as_asked() {
        let faults = Faults::default();
        let fault = Fault {
            operation: Some("CheckResult".into()),
            transaction_id: Some("a".into()),
            kind: FaultKind::Garbage,
            times: Some(2),
            ..Fault::default()
        };
        faults.add(fault).unwrap();
        assert_eq!(take(&faults, "Initialize", "a"), None);
        assert_eq!(take(&faults, "CheckResult", "b"), None);
        assert_eq!(take(&faults, "CheckResult", "a"), Some(FaultKind::Garbage));
        assert_eq!(take(&faults, "CheckResult", "a"), Some(FaultKind::Garbage));
        assert_eq!(take(&faults, "CheckResult", "a"), None);
    }

    #[test]
    fn one_call_is_hit_when_nothing_else_is_said_and_videos_only_by_name() {
        let faults = Faults::default();
        faults.add(Fault::default()).unwrap();
        assert_eq!(take(&faults, "Video", "a"), None);
        assert_eq!(take(&faults, "CheckResult", "a"), Some(FaultKind::Status));
        assert_eq!(take(&faults, "CheckResult", "a"), None);
    }

    #[test]
    fn a_share_goes_on_until_it_is_cleared() {
        let faults = Faults::default();
        faults.add(Fault { share: Some(0.6), ..Fault::default() }).unwrap();
        faults.add(Fault { share: Some(0.4), kind: FaultKind::Html, ..Fault::default() }).unwrap();
        for _ in 0..3 {
            assert_eq!(take(&faults, "CheckResult", "a"), Some(FaultKind::Status));
        }
        faults.clear();
        assert_eq!(take(&faults, "CheckResult", "a"), None);
    }

    #[test]
    fn a_fault_that_makes_no_sense_is_refused() {
        let faults = Faults::default();
        for body in [
            r#"{"kind":"delay"}"#,
            r#"{"kind":"skew"}"#,
            r#"{"kind":"code"}"#,
            r#"{"status":99}"#,
            r#"{"share":0}"#,
            r#"{"share":1.5}"#,
            r#"{"times":0}"#,
        ] {
            let fault: Fault = serde_json::from_str(body).unwrap();
            assert!(faults.add(fault).is_err(), "{body}");
        }
        assert!(serde_json::from_str::<Fault>(r#"{"kinds":"delay"}"#).unwrap_err().to_string().contains("kinds"));
    }
}

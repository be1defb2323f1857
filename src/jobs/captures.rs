//! Captures: bringing what an answer had of evidence into the store, under a lease, until the provider deletes it.
//!
//! The process that got the answer captures, because images are in its memory and links in nobody else's. A video's
//! link is tried again while it lives. What fails for good, or whose process dies, is brought by another answer: the
//! provider is asked again as long as it has it. What is not stored by then is missed, with the last reason.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use futures_util::stream;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::steps::persist;
use super::{POLL, RENEWAL};
use crate::clock::later;
use crate::domain::schedule::{after_capture, after_fault};
use crate::domain::{EvidenceKind, EvidenceState, VerificationId};
use crate::evidence::{DownloadError, PutError, Stored, object_name};
use crate::lifecycle::Tasks;
use crate::service::Service;
use crate::service::account::Account;
use crate::service::evidence::{CAPTURE_LEASE, Capture, Source};
use crate::store::{CaptureKey, CaptureLease, NotStored, Recorded, StoreError, StoredEvidence};

/// A link of the provider works for 15 minutes; it is asked for a new one a little earlier.
const LINK_LIFE: TimeDelta = TimeDelta::minutes(14);
/// How often an image is tried again from memory. Others may need the room.
const IMAGE_TRIES: u32 = 4;
/// The longest wait before the same link is tried again, about.
const MOST_LINK_FAULTS: u32 = 6;
/// How many are asked for again, or ended, by one statement.
const BATCH: i64 = 500;

#[derive(Clone)]
pub struct Captures {
    service: Service,
    tasks: Tasks,
    /// Each with what calls it off when its lease is lost.
    held: Arc<Mutex<HashMap<CaptureKey, CancellationToken>>>,
    /// The store of evidence refused the last object, so asking for more would be in vain.
    is_store_failing: Arc<AtomicBool>,
}

/// Why an attempt stored nothing.
pub struct Failed {
    reason: String,
    next: Next,
}

enum Next {
    /// The same source may do in a moment.
    SameSource,
    /// Only another answer of the provider can help.
    AskAgain,
    Nothing,
}

impl Captures {
    pub fn new(service: Service, tasks: Tasks) -> Self {
        Self { service, tasks, held: Arc::default(), is_store_failing: Arc::default() }
    }

    fn held(&self) -> MutexGuard<'_, HashMap<CaptureKey, CancellationToken>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Captures what this worker was given a lease on; the rest of `captures` is dropped.
    pub fn start(&self, account: &Arc<Account>, recorded: &Recorded, captures: Vec<Capture>) {
        for (kind, state) in &recorded.evidence_ended {
            count(*kind, *state);
        }
        for capture in captures {
            let lease = recorded.captures.iter().find(|lease| lease.token == capture.token);
            let Some(lease) = lease.copied() else { continue };
            let key = CaptureKey { id: recorded.id, kind: lease.kind, token: lease.token };
            let call_off = CancellationToken::new();
            self.held().insert(key, call_off.clone());
            let (captures, account) = (self.clone(), Arc::clone(account));
            self.tasks.spawn(async move {
                captures.run(&account, key, lease, capture.source, &call_off).await;
                captures.held().remove(&key);
            });
        }
    }

    async fn run(
        &self,
        account: &Account,
        key: CaptureKey,
        lease: CaptureLease,
        source: Source,
        call_off: &CancellationToken,
    ) {
        let clock = &self.service.clock;
        let mut tries = 0;
        loop {
            // Called off only until it is stored: what the row names must be there.
            let attempted = tokio::select! {
                biased;
                () = call_off.cancelled() => {
                    warn!(verification.id = %key.id, evidence = %key.kind, "the lease of a capture was lost");
                    let object = object_name(&account.name, key.id, key.kind, key.token);
                    return self.destroy(key, &object).await;
                }
                attempted = self.attempt(account, key, &source) => attempted,
            };
            let failed = match attempted {
                Ok(stored) => return self.stored(account, key, lease, stored).await,
                Err(failed) => failed,
            };
            tries += 1;
            let now = clock.now();
            let again_at = later(now, after_fault(tries.min(MOST_LINK_FAULTS), self.service.entropy.fraction()));
            let is_worth_it = matches!(failed.next, Next::SameSource)
                && match &source {
                    Source::Image { .. } => tries < IMAGE_TRIES,
                    Source::Video { given_at, .. } => again_at < (*given_at + LINK_LIFE).min(lease.deadline),
                };
            if is_worth_it && !self.tasks.is_stopping() {
                debug!(verification.id = %key.id, evidence = %key.kind, "{}; it is tried again", failed.reason);
                tokio::select! {
                    () = clock.sleep_until(again_at) => continue,
                    () = call_off.cancelled() => continue,
                    () = self.tasks.stopping() => {}
                }
            }
            return self.failed(account, key, lease, failed).await;
        }
    }

    pub async fn attempt(
        &self,
        account: &Account,
        key: CaptureKey,
        source: &Source,
    ) -> Result<(String, Stored), Failed> {
        let _upload = self.service.evidence.upload().await;
        let object = object_name(&account.name, key.id, key.kind, key.token);
        let store = &self.service.evidence.store;
        let put = match source {
            Source::Image { bytes, .. } => {
                let pieces = slices(bytes.clone()).map(Ok::<_, DownloadError>);
                store.put(&object, key.kind, stream::iter(pieces)).await
            }
            Source::Video { link, .. } => {
                let Some(downloader) = &account.downloader else {
                    return Err(Failed {
                        reason: "accounts of this kind have no videos".to_owned(),
                        next: Next::Nothing,
                    });
                };
                match downloader.fetch(link).await {
                    Ok(pieces) => store.put(&object, key.kind, pieces).await,
                    Err(error) => Err(PutError::Source(error)),
                }
            }
        };
        if let Err(PutError::Storage(error)) = &put {
            self.is_store_failing.store(true, Ordering::Relaxed);
            error!(verification.id = %key.id, evidence = %key.kind, error = error as &dyn std::error::Error,
                "evidence could not be stored");
        }
        let stored = put.map_err(|error| {
            let reason = error.to_string();
            match error {
                PutError::Source(error) => Failed {
                    reason: error.to_string(),
                    next: match error {
                        DownloadError::Forbidden(_) | DownloadError::TooLarge => Next::Nothing,
                        error if error.is_fault_of_the_moment() => Next::SameSource,
                        _ => Next::AskAgain,
                    },
                },
                PutError::Storage(_) => Failed { reason, next: Next::SameSource },
                PutError::TooLarge { .. } | PutError::Empty | PutError::WrongType => {
                    Failed { reason, next: Next::Nothing }
                }
            }
        })?;
        self.is_store_failing.store(false, Ordering::Relaxed);
        Ok((object, stored))
    }

    pub async fn stored(&self, account: &Account, key: CaptureKey, lease: CaptureLease, stored: (String, Stored)) {
        let (object, stored) = stored;
        let at = self.service.clock.now();
        let row = StoredEvidence {
            at,
            object: &object,
            content_type: stored.media.content_type(),
            bytes: i64::try_from(stored.bytes).unwrap_or(i64::MAX),
            sha256: &stored.sha256,
            is_sealed: stored.is_sealed,
        };
        match persist(|| self.service.store.store_evidence(key, &row)).await {
            Ok(true) => {
                self.service.wake_webhooks();
                count(key.kind, EvidenceState::Stored);
                if key.kind == EvidenceKind::Video {
                    let margin = (lease.deadline - at).to_std().unwrap_or(Duration::ZERO);
                    metrics::histogram!("checkback_deadline_margin_seconds", "kind" => "video").record(margin);
                }
                info!(verification.id = %key.id, account = account.name, evidence = %key.kind, attempt = lease.attempts,
                    bytes = stored.bytes, "evidence is stored");
                // Workers before this one may have died between storing and saying so.
                if lease.attempts > 1
                    && let Err(error) = self.service.evidence.store.delete_others(&object).await
                {
                    warn!(verification.id = %key.id, error = &error as &dyn std::error::Error,
                        "what earlier captures left could not be destroyed");
                }
            }
            Ok(false) => {
                warn!(verification.id = %key.id, evidence = %key.kind, "the lease of a capture was lost");
                self.destroy(key, &object).await;
            }
            // Nothing is known of the row, so the object stays: if the row names it, it must be there.
            Err(error) => error!(verification.id = %key.id, evidence = %key.kind,
                error = &error as &dyn std::error::Error, "what was stored could not be written down"),
        }
    }

    pub async fn failed(&self, account: &Account, key: CaptureKey, lease: CaptureLease, failed: Failed) {
        let now = self.service.clock.now();
        let next = match failed.next {
            Next::Nothing => NotStored::Missed,
            // Another process can ask at once.
            _ if self.tasks.is_stopping() => NotStored::Again(now),
            Next::AskAgain | Next::SameSource => {
                let wait = after_capture(key.kind, lease.attempts, self.service.entropy.fraction());
                NotStored::Again(later(now, wait))
            }
        };
        let reason = failed.reason;
        match persist(|| self.service.store.end_capture(key, &reason, next, now)).await {
            Ok(true) if matches!(next, NotStored::Missed) => {
                missed(key.id, &account.name, key.kind, &reason);
            }
            Ok(true) => {
                warn!(verification.id = %key.id, account = account.name, evidence = %key.kind, attempt = lease.attempts,
                    "{reason}; the provider is asked again");
            }
            Ok(false) => debug!(verification.id = %key.id, "the lease of a capture was lost"),
            Err(error) => warn!(verification.id = %key.id, error = &error as &dyn std::error::Error,
                "the end of a capture could not be written down; its lease runs out"),
        }
    }

    /// Destroys an object that no row names, and then the lease that says that there may be one.
    async fn destroy(&self, key: CaptureKey, object: &str) {
        if let Err(error) = self.service.destroy_evidence(object).await {
            // The lease stays where the verification was erased, so somebody tries again.
            return error!(verification.id = %key.id, error = &error as &dyn std::error::Error,
                "an object that nothing refers to could not be destroyed");
        }
        if let Err(error) = self.service.store.forget_capture(key).await {
            debug!(error = &error as &dyn std::error::Error, "the lease will run out by itself");
        }
    }

    /// Renews the leases of captures under way. Runs until they have ended, also during a stop.
    pub async fn renew(self) {
        loop {
            if self.tasks.is_stopping() {
                if self.held().is_empty() {
                    return;
                }
                tokio::time::sleep(RENEWAL / 10).await;
            } else {
                drop(tokio::time::timeout(RENEWAL, self.tasks.stopping()).await);
            }
            let held: Vec<CaptureKey> = self.held().keys().copied().collect();
            if held.is_empty() {
                continue;
            }
            match self.service.store.renew_captures(&held, CAPTURE_LEASE).await {
                Ok(renewed) => {
                    let captures = self.held();
                    let lost = held.iter().filter(|key| !renewed.contains(&key.token));
                    lost.filter_map(|key| captures.get(key)).for_each(CancellationToken::cancel);
                }
                Err(error) => {
                    warn!(error = &error as &dyn std::error::Error, "leases of captures could not be renewed");
                }
            }
        }
    }

    /// Asks again for what is due, ends what is over, and takes back what dead workers held.
    pub async fn look_after(self) {
        let accounts: Vec<String> = self.service.accounts.keys().cloned().collect();
        let stopping = self.tasks.stopping();
        tokio::pin!(stopping);
        loop {
            let now = self.service.clock.now();
            let more = match self.look(&accounts, now).await {
                Ok(more) => more,
                Err(error) => {
                    debug!(error = &error as &dyn std::error::Error, "evidence could not be looked through");
                    false
                }
            };
            if self.tasks.is_stopping() {
                return;
            }
            if !more {
                tokio::select! {
                    () = self.service.wakes.wait_for_evidence() => {}
                    () = tokio::time::sleep(POLL) => {}
                    () = &mut stopping => return,
                }
            }
        }
    }

    /// True when there may be more to do at once.
    pub async fn look(&self, accounts: &[String], now: DateTime<Utc>) -> Result<bool, StoreError> {
        let service = &self.service;
        for orphan in service.store.recover_captures(now).await? {
            let object = object_name(&orphan.account, orphan.key.id, orphan.key.kind, orphan.key.token);
            self.destroy(orphan.key, &object).await;
        }
        let over = service.store.miss_evidence(now, BATCH).await?;
        for one in &over {
            missed(one.id, &one.account, one.kind, &one.reason);
        }
        if self.is_store_failing.load(Ordering::Relaxed) {
            // What is asked for now could not be stored, and each call costs others theirs.
            if let Err(error) = service.evidence.store.probe().await {
                debug!(error = &error as &dyn std::error::Error, "the evidence store does not answer yet");
                return Ok(false);
            }
            self.is_store_failing.store(false, Ordering::Relaxed);
        }
        for account in service.store.ask_again(accounts, now, BATCH).await? {
            service.wakes.account(&account);
            service.wakes.tell_others([account], &[]);
        }
        Ok(i64::try_from(over.len()).is_ok_and(|count| count == BATCH))
    }

    /// Gives back what a stop cut short.
    pub async fn release(&self) {
        let left: Vec<CaptureKey> = self.held().keys().copied().collect();
        if left.is_empty() {
            return;
        }
        match self.service.store.release_captures(&left, self.service.clock.now()).await {
            Ok(released) => info!(released, "captures under way were given back"),
            Err(error) => warn!(
                error = &error as &dyn std::error::Error,
                "captures could not be given back; their leases run out by themselves"
            ),
        }
    }
}

fn count(kind: EvidenceKind, state: EvidenceState) {
    metrics::counter!("checkback_evidence_total", "kind" => kind.as_str(), "state" => state.as_str()).increment(1);
}

fn missed(id: VerificationId, account: &str, kind: EvidenceKind, reason: &str) {
    count(kind, EvidenceState::Missed);
    error!(verification.id = %id, account, evidence = %kind, "evidence is missed: {reason}");
}

/// Pieces of an image that share its memory.
fn slices(bytes: Bytes) -> impl Iterator<Item = Bytes> {
    const SLICE: usize = 256 << 10;
    (0..bytes.len()).step_by(SLICE).map(move |from| bytes.slice(from..bytes.len().min(from + SLICE)))
}

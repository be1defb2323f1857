//! Evidence: what an answer says about it, capturing it, and reading it back.
//!
//! [`Evidence::plan`] is the whole of the rules and does no I/O. Bytes and links go from the answer straight to the capture; what
//! is written down with the verdict says only that there is something to capture, under which lease and until when.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt};
use sha2::{Digest, Sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::error;
use uuid::Uuid;

use super::Service;
use super::account::Account;
use crate::clock::later;
use crate::domain::{EvidenceKind, EvidenceState, FoundEvidence, VerificationId, VideoLink};
use crate::evidence::{EvidenceStore, GetError, StorageError};
use crate::store::{EvidenceNote, EvidenceObject, LeasedJob, NotedState, Reader, StoreError};

/// How long a capture's lease lasts without being renewed.
pub const CAPTURE_LEASE: Duration = Duration::from_secs(10);

/// What images may hold together between their answer and the store.
const ROOM: usize = 64 << 20;
/// Room is counted in pieces of this size.
const PIECE: usize = 1 << 10;
/// How long a reader waits for the store to begin.
const PATIENCE: Duration = Duration::from_secs(3);
/// How soon an image is asked for again that found no room.
const AFTER_NO_ROOM: Duration = Duration::from_mins(5);

/// Objects that are written at a time. Each holds a part of an upload in memory.
const MOST_UPLOADS: usize = 16;

/// The store of evidence, and the memory on the way to it. Clones share both.
#[derive(Clone, Debug)]
pub struct Evidence {
    pub store: EvidenceStore,
    room: Arc<Semaphore>,
    uploads: Arc<Semaphore>,
}

/// What is to be captured, with where it comes from. It lives in memory alone.
pub struct Capture {
    pub kind: EvidenceKind,
    pub token: Uuid,
    pub source: Source,
}

pub enum Source {
    Image { bytes: Bytes, room: OwnedSemaphorePermit },
    Video { link: VideoLink, given_at: DateTime<Utc> },
}

/// The circumstances of an answer.
#[derive(Clone, Copy, Debug)]
pub struct Answered<'a> {
    pub account: &'a Account,
    pub job: &'a LeasedJob,
    pub at: DateTime<Utc>,
}

impl Evidence {
    pub fn new(store: EvidenceStore) -> Self {
        let room = Arc::new(Semaphore::new(ROOM / PIECE));
        Self { store, room, uploads: Arc::new(Semaphore::new(MOST_UPLOADS)) }
    }

    /// Waits until an object may be written; it may be until what is returned is dropped.
    pub async fn upload(&self) -> impl Drop + use<> {
        // Never closed, so there is always one.
        Arc::clone(&self.uploads).acquire_owned().await.expect("nobody closes this semaphore")
    }

    /// Objects that are being written at this moment.
    pub fn uploads_under_way(&self) -> usize {
        MOST_UPLOADS - self.uploads.available_permits()
    }

    /// What to write down of an answer's evidence, and what to capture of it. `token` makes a lease for each.
    pub fn plan(
        &self,
        answered: Answered<'_>,
        found: FoundEvidence,
        mut token: impl FnMut() -> Uuid,
    ) -> (Vec<EvidenceNote>, Vec<Capture>) {
        let Answered { account, job, at } = answered;
        let deadlines = account.deadlines(job.registered_at, job.hinted_at);
        let (mut notes, mut captures) = (Vec::new(), Vec::new());
        let mut note = |kind, state| {
            // Who has a result has finished, so nothing lasts longer than its retention from now.
            let deadline = match kind {
                EvidenceKind::Video => deadlines.video.min(later(at, account.video_retention)),
                _ => deadlines.result.min(later(at, account.result_retention)),
            };
            notes.push(EvidenceNote { kind, account: account.name.clone(), state, deadline });
        };
        let has_face = found.images.iter().any(|image| image.kind == EvidenceKind::FaceImage);
        for image in found.images {
            let state = match image.content {
                Err(bad) => NotedState::Missed { reason: bad.to_string() },
                Ok(bytes) => match self.take_room(bytes.len()) {
                    None => NotedState::PutOff {
                        due_at: later(at, AFTER_NO_ROOM),
                        reason: "too many images were waiting to be stored".to_owned(),
                    },
                    Some(room) => {
                        let token = token();
                        captures.push(Capture { kind: image.kind, token, source: Source::Image { bytes, room } });
                        NotedState::Captured { token, length: CAPTURE_LEASE }
                    }
                },
            };
            note(image.kind, state);
        }
        if found.asked_for_images && !has_face {
            let reason = "the provider's answer held no image of the face".to_owned();
            note(EvidenceKind::FaceImage, NotedState::Absent { reason });
        }
        match found.video {
            Some(link) => {
                let token = token();
                let source = Source::Video { link, given_at: at };
                captures.push(Capture { kind: EvidenceKind::Video, token, source });
                note(EvidenceKind::Video, NotedState::Captured { token, length: CAPTURE_LEASE });
            }
            None if !job.expect_video => {}
            None if at < deadlines.video => {
                let reason = "the provider has no video: it makes none when the person's network is poor".to_owned();
                note(EvidenceKind::Video, NotedState::Absent { reason });
            }
            None => {
                let reason = "the result was read only after the provider had deleted the video".to_owned();
                note(EvidenceKind::Video, NotedState::Missed { reason });
            }
        }
        (notes, captures)
    }

    /// An image never waits for room, because its verdict would wait with it.
    fn take_room(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let pieces = u32::try_from(bytes.div_ceil(PIECE)).ok()?;
        Arc::clone(&self.room).try_acquire_many_owned(pieces).ok()
    }
}

/// What came of reading a piece of evidence.
pub enum EvidenceRead {
    NoVerification,
    /// There is none of this kind; with where it stands and why, if anything is known of it.
    NotStored(Option<(EvidenceState, Option<String>)>),
    /// It is encrypted, and this service cannot read it.
    Sealed,
    /// The row says that it is stored, and the store does not give it.
    Unavailable,
    /// The bytes; that they are read is recorded and committed.
    Read {
        object: EvidenceObject,
        bytes: BoxStream<'static, io::Result<Bytes>>,
    },
}

impl Service {
    /// One piece of evidence. Once it is returned, the read is recorded. The stream ends in an error where the bytes
    /// are not those that were stored.
    pub async fn read_evidence(
        &self,
        id: VerificationId,
        kind: EvidenceKind,
        reader: &Reader<'_>,
    ) -> Result<EvidenceRead, StoreError> {
        let Some(row) = self.store.evidence(id, kind).await? else { return Ok(EvidenceRead::NoVerification) };
        let Some(row) = row else { return Ok(EvidenceRead::NotStored(None)) };
        let Some(object) = row.object else { return Ok(EvidenceRead::NotStored(Some((row.state, row.reason)))) };
        if !self.evidence.store.can_read(object.is_sealed) {
            return Ok(EvidenceRead::Sealed);
        }
        let got = tokio::time::timeout(PATIENCE, self.evidence.store.get(&object.name, object.is_sealed)).await;
        let bytes = match got.unwrap_or(Err(GetError::Storage(StorageError::Timeout))) {
            Ok(bytes) => bytes,
            Err(GetError::Sealed) => return Ok(EvidenceRead::Sealed),
            Err(problem) => {
                error!(verification.id = %id, evidence = %kind, error = &problem as &dyn std::error::Error,
                    "stored evidence cannot be read");
                return Ok(EvidenceRead::Unavailable);
            }
        };
        let now = self.clock.now();
        if !self.store.record_evidence_read(id, kind, &object.name, reader, now).await? {
            // Erased since it was looked up.
            return Ok(EvidenceRead::NotStored(Some((EvidenceState::Erased, None))));
        }
        let bytes = Verified::new(bytes, &object, id, kind).boxed();
        Ok(EvidenceRead::Read { object, bytes })
    }

    /// Destroys the object of a capture that lost its lease, or whose verification was erased meanwhile.
    pub async fn destroy_evidence(&self, object: &str) -> Result<(), StorageError> {
        self.evidence.store.delete(object).await
    }
}

/// Passes bytes on one piece late, so that the last one goes out only when the whole is known to be right.
struct Verified<S> {
    bytes: S,
    hash: Sha256,
    read: u64,
    expected: (u64, [u8; 32]),
    held: Option<Bytes>,
    ended: bool,
    name: (VerificationId, EvidenceKind),
}

impl<S> Verified<S> {
    fn new(bytes: S, object: &EvidenceObject, id: VerificationId, kind: EvidenceKind) -> Self {
        Self {
            bytes,
            hash: Sha256::new(),
            read: 0,
            expected: (object.bytes, object.sha256),
            held: None,
            ended: false,
            name: (id, kind),
        }
    }

    fn refuse(&mut self, why: &'static str) -> io::Error {
        self.ended = true;
        self.held = None;
        let (id, kind) = self.name;
        error!(verification.id = %id, evidence = %kind, "evidence was not given out: {why}");
        io::Error::other(why)
    }
}

impl<S: Stream<Item = io::Result<Bytes>> + Unpin> Stream for Verified<S> {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            if this.ended {
                return Poll::Ready(None);
            }
            match std::task::ready!(this.bytes.poll_next_unpin(context)) {
                Some(Ok(piece)) if piece.is_empty() => {}
                Some(Ok(piece)) => {
                    this.hash.update(&piece);
                    this.read += piece.len() as u64;
                    if this.read > this.expected.0 {
                        return Poll::Ready(Some(Err(this.refuse("it is longer than what was stored"))));
                    }
                    if let Some(before) = this.held.replace(piece) {
                        return Poll::Ready(Some(Ok(before)));
                    }
                }
                Some(Err(_)) => return Poll::Ready(Some(Err(this.refuse("the store broke off")))),
                None => {
                    let hash: [u8; 32] = std::mem::take(&mut this.hash).finalize().into();
                    if (this.read, hash) != this.expected {
                        return Poll::Ready(Some(Err(this.refuse("its hash is not that of what was stored"))));
                    }
                    this.ended = true;
                    return Poll::Ready(this.held.take().map(Ok));
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "evidence_tests.rs"]
mod tests;

//! Where evidence is kept: a folder or a bucket, and the way into it.
//!
//! An object is there whole or not at all: in a folder it is written under another name and renamed when it is
//! complete and flushed, in a bucket it appears when its upload is closed. Everything of one verification lies in one
//! folder, `<account>/<verification id>/`, so that it can be destroyed together; unfinished files lie there too. Names
//! hold no personal data. Who captures what, and what became of it, is in the table `evidence`; that is left to the
//! store and the service.

mod address;
mod download;
mod location;
mod media;
mod seal;

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{AsyncReadExt, Stream, StreamExt, TryStreamExt};
use opendal::{EntryMode, ErrorKind, Operator, Writer};
use sha2::{Digest, Sha256};
use tokio::time::timeout;
use uuid::Uuid;

use crate::domain::{EvidenceKind, VerificationId};

use media::HEAD;
use seal::Sealing;

pub use download::{ClientError, DownloadError, DownloadLimits, Downloader};
pub use location::{AliyunKeys, AwsKeys, Location, OpenError};
pub use media::MediaType;
pub use seal::{Identities, Recipients, SealError};

/// What is written at a time. Buckets take no smaller part of an upload.
const PART: usize = 5 << 20;
/// What is read at a time; with buckets each piece is a request.
const PIECE: usize = 1 << 20;
/// How long one step of the store may take: a part of an upload, a piece of a file.
const STEP: Duration = Duration::from_mins(1);
/// The end of the name of what is not complete.
const UNFINISHED: &str = ".part";

/// The store did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    #[error("the evidence store refused or failed ({})", .0.kind())]
    Failed(#[source] Box<opendal::Error>),
    #[error("the evidence store cannot be opened")]
    Closed(#[from] OpenError),
    #[error("the evidence store did not answer in time")]
    Timeout,
    #[error("evidence could not be encrypted or decrypted")]
    Cipher(#[source] io::Error),
    #[error("evidence could not be flushed to the disk")]
    Flush(#[source] io::Error),
}

impl From<opendal::Error> for StorageError {
    fn from(error: opendal::Error) -> Self {
        Self::Failed(Box::new(error))
    }
}

/// Why nothing was stored. `E` is what can go wrong with the source.
#[derive(Debug, thiserror::Error)]
pub enum PutError<E> {
    #[error("the source failed")]
    Source(E),
    #[error("it is larger than {} MiB", limit >> 20)]
    TooLarge { limit: usize },
    #[error("it is empty")]
    Empty,
    #[error("its first bytes are those of no type that is kept")]
    WrongType,
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Why an object cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum GetError {
    #[error("the evidence store has no such object")]
    NotFound,
    /// It is encrypted to somebody else.
    #[error("the object is encrypted, and there is no identity here that opens it")]
    Sealed,
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// What was stored; hash and length are those of the plain bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    pub media: MediaType,
    pub bytes: u64,
    pub sha256: [u8; 32],
    /// It is encrypted.
    pub is_sealed: bool,
}

/// How an [`EvidenceStore`] is set up.
#[derive(Debug)]
pub struct StoreSettings {
    pub location: Location,
    pub recipients: Recipients,
    pub identities: Option<Identities>,
}

/// Clones share the connections.
#[derive(Clone, Debug)]
pub struct EvidenceStore {
    location: Arc<Location>,
    /// Opened at the first use: a folder that cannot be made yet must not keep verdicts from being collected.
    operator: Arc<OnceLock<Operator>>,
    /// Of a folder, where it is on this machine.
    folder: Option<PathBuf>,
    recipients: Recipients,
    identities: Option<Identities>,
}

/// The name of an object. `token` is that of the lease it is captured under, so that two workers never write to one
/// name.
pub fn object_name(account: &str, id: VerificationId, kind: EvidenceKind, token: Uuid) -> String {
    format!("{}{kind}-{}", folder_of(account, id), token.simple())
}

/// What everything of one verification begins with.
pub fn folder_of(account: &str, id: VerificationId) -> String {
    format!("{account}/{id}/")
}

async fn step<T>(doing: impl IntoFuture<Output = opendal::Result<T>>) -> Result<T, StorageError> {
    Ok(timeout(STEP, doing.into_future()).await.map_err(|_| StorageError::Timeout)??)
}

impl EvidenceStore {
    /// Opens nothing yet: [`EvidenceStore::probe`] says whether it can be used.
    pub fn new(settings: StoreSettings) -> Self {
        let StoreSettings { location, recipients, identities } = settings;
        let folder = match &location {
            Location::Folder(path) => Some(path.clone()),
            Location::S3 { .. } | Location::Oss { .. } => None,
        };
        Self { location: Arc::new(location), operator: Arc::default(), folder, recipients, identities }
    }

    fn operator(&self) -> Result<&Operator, StorageError> {
        if let Some(operator) = self.operator.get() {
            return Ok(operator);
        }
        let opened = self.location.open()?;
        Ok(self.operator.get_or_init(|| opened))
    }

    /// Whether what is stored can be read here.
    pub fn can_read(&self, is_sealed: bool) -> bool {
        !is_sealed || self.identities.is_some()
    }

    /// Stores what `source` gives under `object`, at most as much as is kept of its kind, and only if its first bytes
    /// are those of an image or a video. Until it is complete there is no such object; if it fails there never is.
    pub async fn put<E>(
        &self,
        object: &str,
        kind: EvidenceKind,
        source: impl Stream<Item = Result<Bytes, E>>,
    ) -> Result<Stored, PutError<E>> {
        let mut source = std::pin::pin!(source);
        let limit = kind.limit();
        let mut head = Vec::with_capacity(HEAD);
        let mut first = None;
        while head.len() < HEAD {
            let Some(bytes) = source.next().await else { break };
            let bytes = bytes.map_err(PutError::Source)?;
            if head.is_empty() && bytes.len() >= HEAD {
                // Mostly the first piece is long enough and needs no copy.
                head.extend_from_slice(&bytes[..HEAD]);
                first = Some(bytes);
            } else {
                head.extend_from_slice(&bytes);
            }
        }
        if head.is_empty() {
            return Err(PutError::Empty);
        }
        let media = MediaType::of(&head).filter(|media| media.is_video() == (kind == EvidenceKind::Video));
        let media = media.ok_or(PutError::WrongType)?;
        let first = first.unwrap_or_else(|| Bytes::from(head));
        // Folders show nothing under the final name before it is whole.
        let name = if self.folder.is_some() { format!("{object}{UNFINISHED}") } else { object.to_owned() };
        let mut upload = Upload {
            writer: step(self.operator()?.writer_with(&name).chunk(PART)).await?,
            sealing: if self.recipients.is_empty() {
                None
            } else {
                Some(self.recipients.seal().map_err(StorageError::Cipher)?)
            },
            hash: Sha256::new(),
            bytes: 0,
        };
        let whole = async {
            let mut next = Some(first);
            while let Some(bytes) = next {
                if upload.bytes + bytes.len() > limit {
                    return Err(PutError::TooLarge { limit });
                }
                upload.push(bytes).await?;
                next = source.try_next().await.map_err(PutError::Source)?;
            }
            Ok(upload.finish().await?)
        }
        .await;
        if let Err(error) = whole {
            self.abandon(&mut upload.writer, &name).await;
            return Err(error);
        }
        if self.folder.is_some() {
            step(self.operator()?.rename(&name, object)).await?;
            self.flush_folders(object).await?;
        }
        Ok(Stored {
            media,
            bytes: upload.bytes as u64,
            sha256: upload.hash.finalize().into(),
            is_sealed: !self.recipients.is_empty(),
        })
    }

    /// What is left of a failed upload goes away; if even that fails, with the rest of its verification.
    async fn abandon(&self, writer: &mut Writer, name: &str) {
        if self.folder.is_some() {
            drop(self.delete(name).await);
        } else {
            drop(step(writer.abort()).await);
        }
    }

    /// A renamed file survives a power cut only once its folder is flushed, and so on up to the top.
    async fn flush_folders(&self, object: &str) -> Result<(), StorageError> {
        let Some(top) = &self.folder else { return Ok(()) };
        for (end, _) in object.rmatch_indices('/') {
            flush_folder(top.join(&object[..end])).await?;
        }
        flush_folder(top.clone()).await
    }

    /// The plain bytes of a stored object.
    pub async fn get(
        &self,
        object: &str,
        is_sealed: bool,
    ) -> Result<impl Stream<Item = io::Result<Bytes>> + Send + use<>, GetError> {
        let identities = match (&self.identities, is_sealed) {
            (None, true) => return Err(GetError::Sealed),
            (identities, true) => identities.clone(),
            (_, false) => None,
        };
        let missing = |error: StorageError| match error {
            StorageError::Failed(error) if error.kind() == ErrorKind::NotFound => GetError::NotFound,
            error => GetError::Storage(error),
        };
        let length = step(self.operator()?.stat(object)).await.map_err(missing)?.content_length();
        let reader = step(self.operator()?.reader_with(object).chunk(PIECE)).await.map_err(missing)?;
        let Some(identities) = identities else {
            let stream = step(reader.into_bytes_stream(0..length)).await.map_err(missing)?;
            return Ok(stream.boxed());
        };
        let reader = step(reader.into_futures_async_read(0..length)).await.map_err(missing)?;
        let cipher = |error: age::DecryptError| match error {
            age::DecryptError::NoMatchingKeys => GetError::Sealed,
            error => StorageError::Cipher(io::Error::other(error)).into(),
        };
        let message = age::Decryptor::new_async_buffered(reader).await.map_err(cipher)?;
        let plain = message.decrypt_async(identities.iter()).map_err(cipher)?;
        let pieces = futures_util::stream::try_unfold(plain, |mut plain| async move {
            let mut piece = vec![0; PIECE];
            let length = plain.read(&mut piece).await?;
            piece.truncate(length);
            Ok::<_, io::Error>((length > 0).then_some((Bytes::from(piece), plain)))
        });
        Ok(pieces.boxed())
    }

    /// Destroys one object. That there is none is no error.
    pub async fn delete(&self, object: &str) -> Result<(), StorageError> {
        step(self.operator()?.delete(object)).await
    }

    /// Destroys everything of one verification, unfinished files included; says how many complete objects there were.
    /// Safe to repeat. A capture that is under way may still bring one: call it again when no lease is left.
    pub async fn delete_all(&self, account: &str, id: VerificationId) -> Result<u64, StorageError> {
        let folder = folder_of(account, id);
        let mut destroyed = 0;
        for entry in step(self.operator()?.list_with(&folder).recursive(true)).await? {
            if entry.metadata().mode() == EntryMode::DIR {
                continue;
            }
            self.delete(entry.path()).await?;
            destroyed += u64::from(!entry.path().ends_with(UNFINISHED));
        }
        if self.folder.is_some() {
            // The folder itself; somebody may just have put something into it.
            drop(self.delete(&folder).await);
        }
        Ok(destroyed)
    }

    /// Destroys what other workers left of one kind: those that died between storing it and saying so.
    pub async fn delete_others(&self, kept: &str) -> Result<(), StorageError> {
        let Some((folder, name)) = kept.rsplit_once('/') else { return Ok(()) };
        let Some((kind, _)) = name.split_once('-') else { return Ok(()) };
        for entry in step(self.operator()?.list(&format!("{folder}/{kind}-"))).await? {
            if entry.path() != kept && entry.metadata().mode() == EntryMode::FILE {
                self.delete(entry.path()).await?;
            }
        }
        Ok(())
    }

    /// Whether the store can be reached and lets us in. Reads only.
    pub async fn probe(&self) -> Result<(), StorageError> {
        match step(self.operator()?.stat("probe")).await {
            Err(StorageError::Failed(error)) if error.kind() == ErrorKind::NotFound => Ok(()),
            other => other.map(|_| ()),
        }
    }
}

async fn flush_folder(path: PathBuf) -> Result<(), StorageError> {
    let folder = tokio::fs::File::open(path).await.map_err(StorageError::Flush)?;
    folder.sync_all().await.map_err(StorageError::Flush)
}

/// An object that is being written.
struct Upload {
    writer: Writer,
    sealing: Option<Sealing>,
    hash: Sha256,
    bytes: usize,
}

impl Upload {
    async fn push(&mut self, plain: Bytes) -> Result<(), StorageError> {
        self.hash.update(&plain);
        self.bytes += plain.len();
        let bytes = match &mut self.sealing {
            None => plain,
            Some(sealing) => sealing.push(&plain).map_err(StorageError::Cipher)?,
        };
        if bytes.is_empty() {
            return Ok(());
        }
        step(self.writer.write(bytes)).await
    }

    async fn finish(&mut self) -> Result<(), StorageError> {
        if let Some(sealing) = self.sealing.take() {
            let end = sealing.finish().map_err(StorageError::Cipher)?;
            step(self.writer.write(end)).await?;
        }
        step(self.writer.close()).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;

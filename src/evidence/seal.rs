//! Encryption of evidence with age: to every recipient of the settings, so that the service may store what it cannot
//! read. An identity, where there is one, opens it again.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use age::stream::StreamWriter;
use age::x25519::Recipient;
use age::{Encryptor, Identity, IdentityFile};
use bytes::{Bytes, BytesMut};

/// Why what is stored could not be encrypted or decrypted as the settings ask for.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    #[error("item {item} is no age public key that can be used here (X25519, age1…): {reason}")]
    Recipient { item: usize, reason: &'static str },
    #[error("{path} holds no age identity: {reason}")]
    Identity { path: PathBuf, reason: String },
}

/// Who can read what is stored from now on. Clones share it.
#[derive(Clone, Default)]
pub struct Recipients(Arc<[Recipient]>);

impl Recipients {
    pub fn read(texts: &[String]) -> Result<Self, SealError> {
        texts
            .iter()
            .enumerate()
            .map(|(item, text)| Recipient::from_str(text).map_err(|reason| SealError::Recipient { item, reason }))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A new message to all of them.
    pub(super) fn seal(&self) -> io::Result<Sealing> {
        let encryptor = Encryptor::with_recipients(self.0.iter().map(|recipient| recipient as &dyn age::Recipient))
            .map_err(io::Error::other)?;
        let written = Buffer::default();
        Ok(Sealing { writer: encryptor.wrap_output(written.clone())?, written })
    }
}

impl std::fmt::Debug for Recipients {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Recipients({})", self.0.len())
    }
}

/// What the encryption has put out and nobody has taken yet. The writer of age does not show what it writes into, so
/// both sides hold it.
#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<BytesMut>>);

impl Buffer {
    fn take(&self) -> Bytes {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).split().freeze()
    }
}

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A message that is being encrypted.
pub(super) struct Sealing {
    writer: StreamWriter<Buffer>,
    written: Buffer,
}

impl Sealing {
    /// Takes plain bytes; gives what can be stored of it so far.
    pub fn push(&mut self, plain: &[u8]) -> io::Result<Bytes> {
        self.writer.write_all(plain)?;
        Ok(self.written.take())
    }

    /// The end, without which nothing of the message can be trusted.
    pub fn finish(self) -> io::Result<Bytes> {
        Ok(self.writer.finish()?.take())
    }
}

/// What opens stored evidence. Clones share it.
#[derive(Clone)]
pub struct Identities(Arc<[Box<dyn Identity + Send + Sync>]>);

impl Identities {
    pub fn read(path: &Path) -> Result<Self, SealError> {
        let wrong = |reason: String| SealError::Identity { path: path.to_owned(), reason };
        let name = path.to_str().ok_or_else(|| wrong("its name is no text".to_owned()))?.to_owned();
        let identities = IdentityFile::from_file(name)
            .map_err(|error| wrong(error.to_string()))?
            .into_identities()
            .map_err(|error| wrong(error.to_string()))?;
        if identities.is_empty() {
            return Err(wrong("it is empty".to_owned()));
        }
        Ok(Self(identities.into()))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &dyn Identity> {
        self.0.iter().map(|identity| &**identity as &dyn Identity)
    }
}

impl std::fmt::Debug for Identities {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Identities(redacted)")
    }
}

//! Whether an answer is the provider's: its signature, then its decryption.
//!
//! Only what was verified is read. A signature covers path, client id, time and body; it names no transaction, so
//! which request an answer belongs to is known from the connection alone, and TLS is what protects that.

use bytes::Bytes;
use http::HeaderName;

use super::cipher;
use super::keys::{MerchantKey, ZolozKey};
use super::sign::{self, AccessKey, Content};
use crate::entropy::Entropy;
use crate::provider::http::HttpAnswer;

pub(super) const SIGNATURE: HeaderName = HeaderName::from_static("signature");
pub(super) const ENCRYPT: HeaderName = HeaderName::from_static("encrypt");
const RESPONSE_TIME: HeaderName = HeaderName::from_static("response-time");

/// How an account proves who it is.
#[derive(Debug)]
pub enum Auth {
    /// Boxed: the keys are large.
    Rsa {
        merchant: Box<MerchantKey>,
        zoloz: Box<ZolozKey>,
        encrypt: bool,
    },
    AkSk(AccessKey),
}

/// Why an answer does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("its answer is not signed")]
    Unsigned,
    #[error("the signature of its answer is wrong: is the key in the settings the one that ZOLOZ shows?")]
    Signature,
    /// Deliberately nothing more.
    #[error("its answer cannot be read")]
    Unreadable,
}

impl Refusal {
    pub fn code(self) -> &'static str {
        match self {
            Self::Unsigned => "response_unsigned",
            Self::Signature => "response_signature",
            Self::Unreadable => "response_unreadable",
        }
    }
}

/// Checks the signature over the bytes as they came; `path` is the request's.
pub fn verify(auth: &Auth, path: &str, client_id: &str, answer: &HttpAnswer) -> Result<(), Refusal> {
    let (Some(time), Some(signature)) = (answer.header(RESPONSE_TIME.as_str()), answer.header(SIGNATURE.as_str()))
    else {
        return Err(Refusal::Unsigned);
    };
    let content = Content { path, client_id, time, body: &answer.body };
    let valid = match auth {
        Auth::Rsa { zoloz, .. } => sign::verify_rsa256(zoloz, &content, signature),
        Auth::AkSk(key) => key.verify(&content, signature),
    };
    if valid { Ok(()) } else { Err(Refusal::Signature) }
}

/// The JSON of an answer that was verified. It is encrypted if its own header says so, whatever the request was: an
/// error may come plain. That header is not signed, so a wrong one must look like every other unreadable answer.
pub fn read(auth: &Auth, entropy: &Entropy, answer: HttpAnswer) -> Result<Bytes, Refusal> {
    let encrypt = answer.header(ENCRYPT.as_str()).map(str::to_owned);
    let HttpAnswer { body, room, .. } = answer;
    let plain = match (auth, encrypt) {
        (_, None) => body,
        (Auth::Rsa { merchant, .. }, Some(header)) => {
            cipher::open(merchant, entropy, &header, body).map_err(|cipher::Unreadable| Refusal::Unreadable)?
        }
        (Auth::AkSk(_), Some(_)) => return Err(Refusal::Unreadable),
    };
    let text = plain.trim_ascii();
    if text.starts_with(b"{") && text.ends_with(b"}") { Ok(room.held_by(plain)) } else { Err(Refusal::Unreadable) }
}

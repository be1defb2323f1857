//! The provider's answers as they come, verified and decrypted: one JSON object.
//!
//! Images are taken out before anything else is read. What the members mean is left to `outcome.rs`.

use serde_json::{Map, Value};

use crate::domain::{EvidenceKind, FoundEvidence};
use crate::provider::images::{Wanted, without_images};

/// Members that hold evidence, over all products.
const IMAGES: Wanted = &[
    ("aliveImage", EvidenceKind::FaceImage),
    ("faceImg", EvidenceKind::FaceImage),
    ("refImage", EvidenceKind::ReferenceImage),
    ("frontPageImg", EvidenceKind::IdFrontImage),
    ("imageContent", EvidenceKind::IdFrontImage),
    ("backPageImg", EvidenceKind::IdBackImage),
];

/// An answer that could be read.
pub struct Reading {
    pub members: Map<String, Value>,
    /// The whole answer as compact JSON without images.
    pub text: String,
    pub evidence: FoundEvidence,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the answer is not the provider's JSON")]
pub struct Unreadable;

/// Reads a whole body, of which only what is kept is copied: images if `images` is set. Never panics, whatever it
/// holds.
pub fn read(body: &[u8], images: bool) -> Result<Reading, Unreadable> {
    let text = std::str::from_utf8(body).map_err(|_| Unreadable)?;
    let text = text.trim_start_matches('\u{feff}').trim();
    let (text, evidence) = without_images(text, if images { IMAGES } else { &[] }).ok_or(Unreadable)?;
    let Ok(Value::Object(members)) = serde_json::from_str(&text) else { return Err(Unreadable) };
    Ok(Reading { members, text, evidence })
}

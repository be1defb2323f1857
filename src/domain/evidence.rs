//! Evidence: what kinds there are, where each stands, and what an answer of the provider brought of it.
//!
//! Images and links are the person's face and a way to it. Their types show nothing of themselves, and their memory
//! is wiped when they are dropped.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use secrecy::zeroize::Zeroizing;

/// The largest image that is kept, in bytes.
pub const LARGEST_IMAGE: usize = 16 << 20;
/// The largest video that is kept, in bytes.
pub const LARGEST_VIDEO: usize = 256 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EvidenceKind {
    /// The live face.
    FaceImage,
    /// What the live face was compared with.
    ReferenceImage,
    IdFrontImage,
    IdBackImage,
    Video,
}

impl EvidenceKind {
    pub const ALL: [Self; 5] =
        [Self::FaceImage, Self::ReferenceImage, Self::IdFrontImage, Self::IdBackImage, Self::Video];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::FaceImage => "face_image",
            Self::ReferenceImage => "reference_image",
            Self::IdFrontImage => "id_front_image",
            Self::IdBackImage => "id_back_image",
            Self::Video => "video",
        }
    }

    /// The most bytes that are kept of it.
    pub fn limit(self) -> usize {
        if self == Self::Video { LARGEST_VIDEO } else { LARGEST_IMAGE }
    }
}

impl fmt::Display for EvidenceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where one piece of evidence stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EvidenceState {
    /// It is being stored, or the provider will be asked for it again.
    Pending,
    Stored,
    /// The provider had none.
    Absent,
    /// The provider had it and it could not be kept.
    Missed,
    /// It was stored and then destroyed.
    Erased,
}

impl EvidenceState {
    pub const ALL: [Self; 5] = [Self::Pending, Self::Stored, Self::Absent, Self::Missed, Self::Erased];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Stored => "stored",
            Self::Absent => "absent",
            Self::Missed => "missed",
            Self::Erased => "erased",
        }
    }
}

impl fmt::Display for EvidenceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[derive(Debug, thiserror::Error)]
#[error("unknown kind or state of evidence")]
pub struct UnknownEvidence;

impl FromStr for EvidenceKind {
    type Err = UnknownEvidence;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or(UnknownEvidence)
    }
}

impl FromStr for EvidenceState {
    type Err = UnknownEvidence;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|state| state.as_str() == text).ok_or(UnknownEvidence)
    }
}

/// Why an image of an answer cannot be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadImage {
    #[error("the image is larger than 16 MiB")]
    TooLarge,
    #[error("the image is no Base64")]
    NotBase64,
}

/// An image that came with an answer.
#[derive(Clone, PartialEq, Eq)]
pub struct FoundImage {
    pub kind: EvidenceKind,
    /// Decoded.
    pub content: Result<Bytes, BadImage>,
}

impl fmt::Debug for FoundImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FoundImage").field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// Where a video can be fetched for a short time, by whoever knows the link.
#[derive(Clone, PartialEq, Eq)]
pub struct VideoLink(Zeroizing<String>);

impl VideoLink {
    pub fn new(link: String) -> Self {
        Self(Zeroizing::new(link))
    }

    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for VideoLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("VideoLink(redacted)")
    }
}

/// What an answer brought besides the verdict.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FoundEvidence {
    pub images: Vec<FoundImage>,
    pub video: Option<VideoLink>,
    /// The answer would have held an image of the face, had the provider one.
    pub asked_for_images: bool,
}

/// Bytes whose memory is wiped at the end.
pub fn wiped(bytes: Vec<u8>) -> Bytes {
    Bytes::from_owner(Zeroizing::new(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_and_states_read_back() {
        for kind in EvidenceKind::ALL {
            assert_eq!(kind.as_str().parse::<EvidenceKind>().unwrap(), kind);
        }
        for state in EvidenceState::ALL {
            assert_eq!(state.as_str().parse::<EvidenceState>().unwrap(), state);
        }
        assert!("Video".parse::<EvidenceKind>().is_err());
    }

    #[test]
    fn debug_output_shows_no_image_and_no_link() {
        let found = FoundEvidence {
            images: vec![FoundImage { kind: EvidenceKind::FaceImage, content: Ok(wiped(b"CANARY".to_vec())) }],
            video: Some(VideoLink::new("https://a.aliyuncs.com/CANARY".to_owned())),
            asked_for_images: true,
        };
        assert!(!format!("{found:?}").contains("CANARY"));
        assert!(!format!("{found:?}").contains("67, 65"));
    }
}

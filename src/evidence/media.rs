//! What a file is, by its first bytes. What its sender says does not count.

/// So many bytes are enough to know.
pub(super) const HEAD: usize = 64;

/// The types that are kept, images and videos alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MediaType {
    Jpeg,
    Png,
    WebP,
    WebM,
    Mp4,
}

impl MediaType {
    /// `None`: something else, which is not kept.
    pub fn of(head: &[u8]) -> Option<Self> {
        let holds = |at: usize, bytes: &[u8]| head.get(at..at + bytes.len()) == Some(bytes);
        if holds(0, b"\xFF\xD8\xFF") {
            Some(Self::Jpeg)
        } else if holds(0, b"\x89PNG\r\n\x1A\n") {
            Some(Self::Png)
        } else if holds(0, b"RIFF") && holds(8, b"WEBP") {
            Some(Self::WebP)
        } else if holds(0, b"\x1A\x45\xDF\xA3") && head.windows(4).take(HEAD).any(|four| four == b"webm") {
            Some(Self::WebM)
        } else if holds(4, b"ftyp") {
            Some(Self::Mp4)
        } else {
            None
        }
    }

    pub fn content_type(self) -> &'static str {
        match self {
            Self::Jpeg => "image/jpeg",
            Self::Png => "image/png",
            Self::WebP => "image/webp",
            Self::WebM => "video/webm",
            Self::Mp4 => "video/mp4",
        }
    }

    pub fn is_video(self) -> bool {
        matches!(self, Self::WebM | Self::Mp4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_known_by_their_first_bytes() {
        for (head, media) in [
            (&b"\xFF\xD8\xFF\xE0\0\x10JFIF"[..], Some(MediaType::Jpeg)),
            (b"\x89PNG\r\n\x1A\n\0\0\0\rIHDR", Some(MediaType::Png)),
            (b"RIFF\x24\0\0\0WEBPVP8 ", Some(MediaType::WebP)),
            (b"\x1A\x45\xDF\xA3\x9F\x42\x86\x81\x01\x42\x82\x84webm", Some(MediaType::WebM)),
            (b"\x1A\x45\xDF\xA3\x9F\x42\x86\x81\x01\x42\x82\x88matroska", None),
            (b"\0\0\0\x18ftypmp42", Some(MediaType::Mp4)),
            (b"<html><body>", None),
            (b"%PDF-1.7", None),
            (b"GIF89a", None),
            (b"RIFF\x24\0\0\0WAVE", None),
            (b"\xFF\xD8", None),
            (b"", None),
        ] {
            assert_eq!(MediaType::of(head), media, "{head:?}");
        }
    }
}

//! The text of an answer without its images and bearer links, as it may be kept.
//!
//! Both providers' answers go through here while they are read, so that nothing after it can keep an image by mistake.
//! What is kept is otherwise the text as it came, compact: members keep their order, numbers their digits, and JSON
//! that came in a string stays in a string. An image is passed over where it lies in the body and never copied, unless
//! it is to be kept as evidence: then it is decoded at once, into memory that is wiped afterwards, and goes a way of
//! its own. What the members mean is left to the adapters.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::domain::evidence::{LARGEST_IMAGE, wiped};
use crate::domain::{BadImage, EvidenceKind, FoundEvidence, FoundImage, VideoLink};

/// The member that marks what was taken out, with the reason.
pub const OMITTED: &str = "omitted";

/// Deeper nesting is taken out: no documented answer comes near, and each level is read once more.
const DEEPEST: usize = 24;

/// A text that is longer and looks like Base64 is taken for an image, whatever its name.
const LONGEST_TEXT: usize = 4096;

/// How often JSON may be wrapped in a string.
const MOST_WRAPS: usize = 4;

/// Members that are evidence, by their name in whatever case. Of a kind that is named twice the first counts.
pub type Wanted = &'static [(&'static str, EvidenceKind)];

/// The JSON text made compact, each image and bearer link replaced by a marker, and what was `wanted` of them; `None`
/// if it is no JSON.
pub fn without_images(text: &str, wanted: Wanted) -> Option<(String, FoundEvidence)> {
    let mut copy = Copy::new(text, wanted);
    copy.value(text, Member::default()).ok()?;
    Some((copy.out, copy.found))
}

struct Copy {
    out: String,
    removed: usize,
    wanted: Wanted,
    found: FoundEvidence,
}

/// Where a value stands.
#[derive(Clone, Copy, Default)]
struct Member {
    depth: usize,
    /// How many strings it is wrapped in.
    wraps: usize,
    kind: Kind,
    evidence: Option<EvidenceKind>,
}

#[derive(Clone, Copy, Default, PartialEq)]
enum Kind {
    #[default]
    Plain,
    Image,
    Photo,
    Link,
}

#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl Copy {
    fn new(text: &str, wanted: Wanted) -> Self {
        // Most of an answer with images is images, so its length is no measure of what will be kept.
        let out = String::with_capacity(text.len().min(16 * 1024));
        Self { out, removed: 0, wanted, found: FoundEvidence::default() }
    }

    /// Takes a value that is evidence; `raw` is a JSON string.
    fn take(&mut self, kind: EvidenceKind, raw: &str) -> Result<(), serde_json::Error> {
        let Text(text) = serde_json::from_str(raw)?;
        if kind == EvidenceKind::Video {
            self.found.video.get_or_insert_with(|| VideoLink::new(text.trim().to_owned()));
        } else if self.found.images.iter().all(|image| image.kind != kind) {
            self.found.images.push(FoundImage { kind, content: decode(&text) });
        }
        Ok(())
    }

    fn value(&mut self, raw: &str, at: Member) -> Result<(), serde_json::Error> {
        let inner = Member { depth: at.depth + 1, ..at };
        match raw.as_bytes().first() {
            Some(b'{' | b'[') if at.depth >= DEEPEST => {
                self.marker("too_deep", raw.len());
                Ok(())
            }
            Some(b'{') => {
                let mut parser = serde_json::Deserializer::from_str(raw);
                parser.deserialize_map(Object(self, inner))?;
                parser.end()
            }
            Some(b'[') => {
                let mut parser = serde_json::Deserializer::from_str(raw);
                parser.deserialize_seq(Array(self, inner))?;
                parser.end()
            }
            // Known by its name, it is not even decoded unless it is wanted; its length is that on the wire.
            Some(b'"') if matches!(at.kind, Kind::Image | Kind::Link) && raw.len() > 2 => {
                match at.evidence {
                    Some(kind) => self.take(kind, raw)?,
                    None => drop(serde_json::from_str::<&RawValue>(raw)?),
                }
                self.marker(if at.kind == Kind::Image { "image" } else { "link" }, raw.len() - 2);
                Ok(())
            }
            Some(b'"') => {
                let Text(text) = serde_json::from_str(raw)?;
                self.text(raw, &text, inner);
                Ok(())
            }
            _ => {
                serde_json::from_str::<&RawValue>(raw)?;
                self.out.push_str(raw);
                Ok(())
            }
        }
    }

    fn text(&mut self, raw: &str, text: &str, at: Member) {
        let omitted = match at.kind {
            Kind::Photo if text.len() > 256 => Some("image"),
            _ if is_image(text) => Some("image"),
            _ => None,
        };
        if let Some(what) = omitted {
            return self.marker(what, text.len());
        }
        let content = text.trim();
        if !content.starts_with(['{', '[', '"']) {
            self.out.push_str(raw);
            return;
        }
        if at.wraps >= MOST_WRAPS {
            return self.marker("too_deep", text.len());
        }
        let mut copy = Copy::new(content, self.wanted);
        match copy.value(content, Member { wraps: at.wraps + 1, ..at }) {
            Ok(()) if copy.removed == 0 => self.out.push_str(raw),
            Ok(()) => {
                self.removed += copy.removed;
                push_string(&mut self.out, &copy.out);
                self.found.video = self.found.video.take().or(copy.found.video);
                for image in copy.found.images {
                    if self.found.images.iter().all(|known| known.kind != image.kind) {
                        self.found.images.push(image);
                    }
                }
            }
            // Broken JSON may hold the beginning of an image or a link, and nobody can say where it ends.
            Err(_) if may_hold_image(content) => self.marker("unreadable", text.len()),
            Err(_) => self.out.push_str(raw),
        }
    }

    fn marker(&mut self, what: &str, bytes: usize) {
        self.removed += 1;
        for part in ["{\"", OMITTED, "\":\"", what, "\",\"bytes\":", &bytes.to_string(), "}"] {
            self.out.push_str(part);
        }
    }
}

struct Object<'a>(&'a mut Copy, Member);

impl<'de> Visitor<'de> for Object<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self(copy, at) = self;
        copy.out.push('{');
        let mut first = true;
        while let Some(Text(name)) = map.next_key()? {
            if !std::mem::take(&mut first) {
                copy.out.push(',');
            }
            push_string(&mut copy.out, &name);
            copy.out.push(':');
            let own = kind_of(&name);
            let kind = if own == Kind::Plain { at.kind } else { own };
            let evidence = copy.wanted.iter().find(|(wanted, _)| name.eq_ignore_ascii_case(wanted));
            let evidence = evidence.map(|(_, kind)| *kind);
            let raw: &RawValue = map.next_value()?;
            copy.value(raw.get(), Member { kind, evidence, ..at }).map_err(serde::de::Error::custom)?;
        }
        copy.out.push('}');
        Ok(())
    }
}

struct Array<'a>(&'a mut Copy, Member);

impl<'de> Visitor<'de> for Array<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let Self(copy, at) = self;
        copy.out.push('[');
        let mut first = true;
        while let Some(raw) = items.next_element::<&RawValue>()? {
            if !std::mem::take(&mut first) {
                copy.out.push(',');
            }
            copy.value(raw.get(), at).map_err(serde::de::Error::custom)?;
        }
        copy.out.push(']');
        Ok(())
    }
}

/// Base64 in any of its forms: with or without padding, in lines, URL-safe, as a `data:` URL.
fn decode(text: &str) -> Result<bytes::Bytes, BadImage> {
    const CONFIG: GeneralPurposeConfig =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, CONFIG);
    const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, CONFIG);
    let text = match text.strip_prefix("data:") {
        Some(url) => url.split_once(',').map_or("", |(_, content)| content),
        None => text,
    };
    let text = text.trim();
    let is_plain = !text.bytes().any(|byte| byte.is_ascii_whitespace());
    let text = if is_plain { Cow::Borrowed(text) } else { Cow::Owned(text.split_ascii_whitespace().collect()) };
    if text.len() / 4 * 3 > LARGEST_IMAGE + 3 {
        return Err(BadImage::TooLarge);
    }
    let engine = if text.contains(['-', '_']) { &URL_SAFE } else { &STANDARD };
    let bytes = engine.decode(&*text).map_err(|_| BadImage::NotBase64)?;
    if bytes.is_empty() { Err(BadImage::NotBase64) } else { Ok(wiped(bytes)) }
}

fn push_string(out: &mut String, text: &str) {
    if text.bytes().any(|byte| byte < 0x20 || byte == b'"' || byte == b'\\') {
        out.push_str(&serde_json::to_string(text).expect("text always has a JSON form"));
    } else {
        out.push('"');
        out.push_str(text);
        out.push('"');
    }
}

fn kind_of(name: &str) -> Kind {
    const IMAGES: [&str; 14] = [
        "img",
        "image",
        "picture",
        "imgs",
        "images",
        "pictures",
        "imagelist",
        "image_list",
        "imagecontent",
        "image_content",
        "base64",
        "croppedface",
        "cropped_face",
        "facefromdoc",
    ];
    const LINKS: [&str; 9] =
        ["videourl", "video_url", "video", "imgurl", "img_url", "imageurl", "image_url", "pictureurl", "picture_url"];
    if ends_with_any(name, &IMAGES) {
        Kind::Image
    } else if ends_with_any(name, &LINKS) {
        Kind::Link
    } else if ends_with_any(name, &["photo"]) {
        // Some of these are scores by a misleading name (`selfiePhoto`), so only long texts are images.
        Kind::Photo
    } else {
        Kind::Plain
    }
}

fn ends_with_any(name: &str, endings: &[&str]) -> bool {
    let name = name.as_bytes();
    endings.iter().any(|ending| {
        name.len() >= ending.len() && name[name.len() - ending.len()..].eq_ignore_ascii_case(ending.as_bytes())
    })
}

fn is_image(text: &str) -> bool {
    if text.starts_with("data:image/") {
        return true;
    }
    text.len() > LONGEST_TEXT
        && text.bytes().take(LONGEST_TEXT).all(|byte| {
            byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=' | b'-' | b'_' | b'\r' | b'\n')
        })
}

fn may_hold_image(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    text.len() > LONGEST_TEXT
        || ["img", "image", "picture", "photo", "video", "http"].iter().any(|word| lower.contains(word))
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE};
    use serde_json::{Value, json};

    use super::*;

    const WANTED: Wanted = &[
        ("faceImg", EvidenceKind::FaceImage),
        ("aliveImage", EvidenceKind::FaceImage),
        ("idImage", EvidenceKind::IdFrontImage),
        ("docVideoUrl", EvidenceKind::Video),
    ];

    fn found(answer: &Value) -> (String, FoundEvidence) {
        without_images(&answer.to_string(), WANTED).unwrap()
    }

    #[test]
    fn evidence_is_found_in_every_form_and_kept_out_of_the_answer() {
        let bytes: Vec<u8> = (0..=255).collect();
        let lines: String = STANDARD
            .encode(&bytes)
            .as_bytes()
            .chunks(76)
            .fold(String::new(), |text, line| text + std::str::from_utf8(line).unwrap() + "\r\n");
        for text in [
            STANDARD.encode(&bytes),
            STANDARD_NO_PAD.encode(&bytes),
            URL_SAFE.encode(&bytes),
            lines,
            format!("data:image/jpeg;base64,{}", STANDARD.encode(&bytes)),
        ] {
            let part = json!({"FACEIMG": text, "aliveImage": "AAAA", "docVideoUrl": "https://a.aliyuncs.com/v?x=1"});
            let twice = Value::from(part.to_string()).to_string();
            for part in [part.clone(), part.to_string().into(), twice.into()] {
                let (kept, found) = found(&json!({"Result": {"ExtFaceInfo": part, "other": 1}}));
                assert_eq!(found.images.len(), 1, "of a kind the first counts");
                assert!(found.images[0].content.as_deref() == Ok(&bytes[..]), "{text}");
                assert_eq!(found.video.as_ref().map(VideoLink::expose), Some("https://a.aliyuncs.com/v?x=1"));
                assert!(!kept.contains("aliyuncs") && !kept.contains(&text[..40]), "{kept}");
            }
        }
    }

    #[test]
    fn escaped_slashes_are_read() {
        let (_, found) = without_images(r#"{"faceImg":"\/9j\/4A=="}"#, WANTED).unwrap();
        assert_eq!(found.images[0].content.as_deref(), Ok(&b"\xFF\xD8\xFF\xE0"[..]));
    }

    #[test]
    fn what_is_no_image_says_so_and_what_is_not_wanted_is_not_decoded() {
        let (_, bad) = found(&json!({"faceImg": "no Base64!", "idImage": ""}));
        assert_eq!(bad.images[0].content, Err(BadImage::NotBase64));
        assert_eq!(bad.images.len(), 1, "an empty text is no image");
        let large = "A".repeat(LARGEST_IMAGE / 3 * 4 + 100);
        let (_, too_large) = found(&json!({ "faceImg": large }));
        assert_eq!(too_large.images[0].content, Err(BadImage::TooLarge));
        let (_, none) = found(&json!({"otherImage": "AAAA", "videoUrl": "https://a.aliyuncs.com/v", "faceImg": 7}));
        assert_eq!(none, FoundEvidence::default());
        let answer = json!({"faceImg": "AAAA", "docVideoUrl": "x"}).to_string();
        assert_eq!(without_images(&answer, &[]).unwrap().1, FoundEvidence::default());
    }
}

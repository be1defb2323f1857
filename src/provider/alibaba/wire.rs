//! The provider's answers as they come over the wire: outer JSON, with parts that are JSON inside a string.
//!
//! Reading takes images and bearer links out first, so that nothing after this module can keep one by mistake.
//! What is kept is otherwise the text as it came, compact: members keep their order, numbers their digits, and a
//! part that came as a string stays a string. What the members mean is left to `outcome.rs` and `codes.rs`.

use std::borrow::Cow;
use std::fmt;

use quick_xml::Reader;
use quick_xml::events::Event;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// Deeper nesting is taken out: no documented answer comes near, and each level is read once more.
const DEEPEST: usize = 24;

/// A text that is longer and looks like Base64 is taken for an image, whatever its name.
const LONGEST_TEXT: usize = 4096;

/// An error in XML is a few lines.
const LONGEST_XML: usize = 64 * 1024;

/// How often JSON may be wrapped in a string.
const MOST_WRAPS: usize = 4;

/// The parts of a result that hold JSON in a string; a name found in several counts from the first.
pub const PARTS: [&str; 7] =
    ["ExtFaceInfo", "ExtIdInfo", "ExtSourceInfo", "ExtRiskInfo", "ExtBasicInfo", "ExtInfo", "EkycResult"];

/// An answer that could be read.
pub struct Reading {
    pub code: Option<String>,
    pub result: Option<Map<String, Value>>,
    /// The whole answer as compact JSON without images; empty if it was XML.
    pub text: String,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the answer is neither the provider's JSON nor its XML error")]
pub struct Unreadable;

/// Reads a whole body. Never panics, whatever it holds.
pub fn read(body: &[u8]) -> Result<Reading, Unreadable> {
    let text = std::str::from_utf8(body).map_err(|_| Unreadable)?;
    let text = text.trim_start_matches('\u{feff}').trim();
    match text.as_bytes().first() {
        Some(b'{') => read_json(text),
        Some(b'<') => read_xml(text),
        _ => Err(Unreadable),
    }
}

fn read_json(text: &str) -> Result<Reading, Unreadable> {
    let text = without_images(text).ok_or(Unreadable)?;
    let Ok(Value::Object(mut outer)) = serde_json::from_str(&text) else { return Err(Unreadable) };
    let code = match take(&mut outer, "Code") {
        Some(Value::String(code)) => Some(code),
        Some(Value::Number(code)) => Some(code.to_string()),
        _ => None,
    };
    let result = take(&mut outer, "Result").and_then(unwrapped);
    Ok(Reading { code, result, text })
}

fn read_xml(text: &str) -> Result<Reading, Unreadable> {
    if text.len() > LONGEST_XML {
        return Err(Unreadable);
    }
    let mut reader = Reader::from_str(text);
    let mut depth = 0_usize;
    let mut in_code = false;
    let mut code = String::new();
    loop {
        match reader.read_event().map_err(|_| Unreadable)? {
            Event::Start(element) => {
                depth += 1;
                let name = element.local_name();
                if depth == 1 && name.as_ref() != "Error" || depth > DEEPEST {
                    return Err(Unreadable);
                }
                in_code = depth == 2 && name.as_ref().eq_ignore_ascii_case("Code");
            }
            Event::End(_) => {
                depth = depth.saturating_sub(1);
                in_code = false;
                if depth == 0 {
                    break;
                }
            }
            Event::Text(text) if in_code => code.push_str(&text.xml10_content()),
            Event::Eof => return Err(Unreadable),
            _ => {}
        }
    }
    let code = Some(code.trim().to_owned()).filter(|code| !code.is_empty());
    Ok(Reading { code, result: None, text: String::new() })
}

/// The member of that name; the name in another case counts if it is not there.
pub fn member<'a>(object: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    object
        .get(name)
        .or_else(|| object.iter().find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value))
}

fn take(object: &mut Map<String, Value>, name: &str) -> Option<Value> {
    if let Some(value) = object.get_mut(name) {
        return Some(value.take());
    }
    object.iter_mut().find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value.take())
}

/// An object, or the object in a string, or in a string within a string.
fn unwrapped(value: Value) -> Option<Map<String, Value>> {
    match value {
        Value::Object(object) => Some(object),
        Value::String(text) => unwrapped_text(&text),
        _ => None,
    }
}

fn unwrapped_text(text: &str) -> Option<Map<String, Value>> {
    let mut value: Value = serde_json::from_str(text).ok()?;
    for _ in 1..MOST_WRAPS {
        match value {
            Value::Object(object) => return Some(object),
            Value::String(text) => value = serde_json::from_str(&text).ok()?,
            _ => return None,
        }
    }
    None
}

/// What one of the [`PARTS`] holds.
pub enum Part<'a> {
    Absent,
    Object(Cow<'a, Map<String, Value>>),
    /// There is something, but no object in any of the forms seen.
    Unreadable,
}

/// Reads a part or a nested member in any of its forms: object, JSON in a string, JSON in a string twice, empty.
pub fn part<'a>(object: &'a Map<String, Value>, name: &str) -> Part<'a> {
    match member(object, name) {
        None | Some(Value::Null) => Part::Absent,
        Some(Value::Object(object)) => Part::Object(Cow::Borrowed(object)),
        Some(Value::String(text)) if text.trim().is_empty() => Part::Absent,
        Some(Value::String(text)) => {
            unwrapped_text(text).map_or(Part::Unreadable, |object| Part::Object(Cow::Owned(object)))
        }
        Some(_) => Part::Unreadable,
    }
}

/// The JSON text made compact, each image and bearer link replaced by a marker; `None` if it is no JSON.
fn without_images(text: &str) -> Option<String> {
    // Most of an answer with images is images, so its length is no measure of what will be kept.
    let mut copy = Copy { out: String::with_capacity(text.len().min(16 * 1024)), removed: 0 };
    copy.value(text, Member::default()).ok()?;
    Some(copy.out)
}

struct Copy {
    out: String,
    removed: usize,
}

/// Where a value stands.
#[derive(Clone, Copy, Default)]
struct Member {
    depth: usize,
    /// How many strings it is wrapped in.
    wraps: usize,
    kind: Kind,
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
            Kind::Image if !text.is_empty() => Some("image"),
            Kind::Link if !text.is_empty() => Some("link"),
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
        let mut copy = Copy { out: String::with_capacity(content.len().min(16 * 1024)), removed: 0 };
        match copy.value(content, Member { wraps: at.wraps + 1, ..at }) {
            Ok(()) if copy.removed == 0 => self.out.push_str(raw),
            Ok(()) => {
                self.removed += copy.removed;
                push_string(&mut self.out, &copy.out);
            }
            // Broken JSON may hold the beginning of an image or a link, and nobody can say where it ends.
            Err(_) if may_hold_image(content) => self.marker("unreadable", text.len()),
            Err(_) => self.out.push_str(raw),
        }
    }

    fn marker(&mut self, what: &str, bytes: usize) {
        self.removed += 1;
        for part in ["{\"omitted\":\"", what, "\",\"bytes\":", &bytes.to_string(), "}"] {
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
            let raw: &RawValue = map.next_value()?;
            copy.value(raw.get(), Member { kind, ..at }).map_err(serde::de::Error::custom)?;
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
        "imgbase64",
        "imagebase64",
        "picturebase64",
        "img_base64",
        "image_base64",
        "picture_base64",
        "imagelist",
        "image_list",
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

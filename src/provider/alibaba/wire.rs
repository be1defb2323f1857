//! The provider's answers as they come over the wire: outer JSON, with parts that are JSON inside a string.
//!
//! Images and bearer links are taken out before anything else is read. What the members mean is left to `outcome.rs`
//! and `codes.rs`.

use quick_xml::Reader;
use quick_xml::events::Event;
use serde_json::{Map, Value};

use crate::domain::{EvidenceKind, FoundEvidence};
use crate::provider::images::{Wanted, without_images};
use crate::provider::parts::{take, unwrapped};

/// An error in XML has two levels.
const DEEPEST: usize = 24;

/// An error in XML is a few lines.
const LONGEST_XML: usize = 64 * 1024;

/// The parts of a result that hold JSON in a string; a name found in several counts from the first.
pub const PARTS: [&str; 7] =
    ["ExtFaceInfo", "ExtIdInfo", "ExtSourceInfo", "ExtRiskInfo", "ExtBasicInfo", "ExtInfo", "EkycResult"];

/// Members that hold evidence.
pub const VIDEO: Wanted = &[("docVideoUrl", EvidenceKind::Video)];
/// The same where images were asked for.
pub const VIDEO_AND_IMAGES: Wanted = &[
    ("docVideoUrl", EvidenceKind::Video),
    ("faceImg", EvidenceKind::FaceImage),
    ("aliveImage", EvidenceKind::FaceImage),
    ("refImage", EvidenceKind::ReferenceImage),
    ("idImage", EvidenceKind::IdFrontImage),
    ("idBackImage", EvidenceKind::IdBackImage),
];

/// An answer that could be read.
pub struct Reading {
    pub code: Option<String>,
    pub result: Option<Map<String, Value>>,
    /// The whole answer as compact JSON without images; empty if it was XML.
    pub text: String,
    pub evidence: FoundEvidence,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the answer is neither the provider's JSON nor its XML error")]
pub struct Unreadable;

/// Reads a whole body and takes out of it what is `wanted`. Never panics, whatever it holds.
pub fn read(body: &[u8], wanted: Wanted) -> Result<Reading, Unreadable> {
    let text = std::str::from_utf8(body).map_err(|_| Unreadable)?;
    let text = text.trim_start_matches('\u{feff}').trim();
    match text.as_bytes().first() {
        Some(b'{') => read_json(text, wanted),
        Some(b'<') => read_xml(text),
        _ => Err(Unreadable),
    }
}

fn read_json(text: &str, wanted: Wanted) -> Result<Reading, Unreadable> {
    let (text, evidence) = without_images(text, wanted).ok_or(Unreadable)?;
    let Ok(Value::Object(mut outer)) = serde_json::from_str(&text) else { return Err(Unreadable) };
    let code = match take(&mut outer, "Code") {
        Some(Value::String(code)) => Some(code),
        Some(Value::Number(code)) => Some(code.to_string()),
        _ => None,
    };
    let result = take(&mut outer, "Result").and_then(unwrapped);
    Ok(Reading { code, result, text, evidence })
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
    Ok(Reading { code, result: None, text: String::new(), evidence: FoundEvidence::default() })
}

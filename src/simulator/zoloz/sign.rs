//! What is signed, how signatures stand in headers, and the times of messages. Pure functions; which key signs is
//! decided in `access`.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use chrono::{DateTime, FixedOffset, Utc};
use hmac::{Hmac, KeyInit, Mac};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use sha2::Sha256;

const RSA256: &str = "RSA256";
const RSA_AES: &str = "RSA_AES";
/// What the provider escapes of the Base64 alphabet.
const ESCAPED: &AsciiSet = &CONTROLS.add(b'+').add(b'/').add(b'=');
/// The provider's samples are written in this zone, eight hours east.
const ZONE_SECONDS: i32 = 8 * 3600;

/// Of a request or, with the answer's time and body, of an answer.
pub(in crate::simulator) fn content(path: &str, client_id: &str, time: &str, body: &[u8]) -> Vec<u8> {
    let mut content = format!("POST {path}\n{client_id}.{time}.").into_bytes();
    content.extend_from_slice(body);
    content
}

/// The header `Signature` of RSA mode.
pub(in crate::simulator) fn signature_header(signature: &[u8]) -> String {
    list(RSA256, "signature", signature)
}

/// The header `Encrypt`.
pub(in crate::simulator) fn encrypt_header(wrapped_key: &[u8]) -> String {
    list(RSA_AES, "symmetricKey", wrapped_key)
}

fn list(algorithm: &str, name: &str, value: &[u8]) -> String {
    let base64 = STANDARD.encode(value);
    format!("algorithm={algorithm}, {name}={}", utf8_percent_encode(&base64, ESCAPED))
}

/// The bytes in a header `Signature` of RSA mode; `None` for another algorithm or form.
pub(in crate::simulator) fn read_signature(header: &str) -> Option<Vec<u8>> {
    read_list(header, RSA256, "signature")
}

/// The wrapped key in a header `Encrypt`; `None` for another algorithm or form.
pub(in crate::simulator) fn read_encrypt(header: &str) -> Option<Vec<u8>> {
    read_list(header, RSA_AES, "symmetricKey")
}

fn read_list(header: &str, algorithm: &str, name: &str) -> Option<Vec<u8>> {
    let item = |wanted: &str| {
        let items = header.split(',').filter_map(|item| item.split_once('='));
        items.map(|(name, value)| (name.trim(), value.trim())).find(|(name, _)| *name == wanted).map(|(_, value)| value)
    };
    if item("algorithm")? != algorithm {
        return None;
    }
    // Not as in forms: a plus sign is no blank.
    let value: Vec<u8> = percent_decode_str(item(name)?).collect();
    STANDARD.decode(value).ok()
}

/// The prepared key of an access key's secret, which is URL-safe Base64, padded or not.
pub(in crate::simulator) fn hmac_key(secret: &str) -> Option<Hmac<Sha256>> {
    let key = URL_SAFE_NO_PAD.decode(secret.trim_end_matches('=')).ok()?;
    Hmac::new_from_slice(&key).ok()
}

pub(in crate::simulator) fn hmac_signature(key: &Hmac<Sha256>, content: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(key.clone().chain_update(content).finalize().into_bytes())
}

pub(in crate::simulator) fn hmac_verifies(key: &Hmac<Sha256>, content: &[u8], signature: &str) -> bool {
    let Ok(signature) = URL_SAFE_NO_PAD.decode(signature) else { return false };
    key.clone().chain_update(content).verify_slice(&signature).is_ok()
}

pub(in crate::simulator) fn write_time(at: DateTime<Utc>) -> String {
    let form = "%Y-%m-%dT%H:%M:%S%z";
    match FixedOffset::east_opt(ZONE_SECONDS) {
        Some(zone) => at.with_timezone(&zone).format(form).to_string(),
        None => at.format(form).to_string(),
    }
}

/// `yyyy-MM-ddTHH:mm:ss+HHMM` and nothing else.
pub(in crate::simulator) fn read_time(text: &str) -> Option<DateTime<Utc>> {
    let bytes = text.as_bytes();
    let documented = bytes.len() == 24
        && bytes.iter().enumerate().all(|(at, byte)| match at {
            4 | 7 => *byte == b'-',
            10 => *byte == b'T',
            13 | 16 => *byte == b':',
            19 => matches!(byte, b'+' | b'-'),
            _ => byte.is_ascii_digit(),
        });
    if !documented {
        return None;
    }
    Some(DateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%z").ok()?.to_utc())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_documented_form_of_a_time_is_taken() {
        assert_eq!(read_time("2025-03-14T09:26:53+0800"), read_time("2025-03-14T01:26:53+0000"));
        assert_eq!(read_time("1970-01-01T00:00:00-0030").unwrap().timestamp(), 1800);
        for wrong in [
            "",
            "2025-03-14T01:26:53Z",
            "2025-03-14T01:26:53+00:00",
            "2025-03-14 01:26:53+0000",
            "2025-03-14T01:26:53.1+0000",
            "2025-02-30T01:26:53+0000",
            "2025-03-14T01:26:5é+0000",
        ] {
            assert_eq!(read_time(wrong), None, "{wrong}");
        }
        let at = read_time("2025-03-14T01:26:53+0000").unwrap();
        assert_eq!(write_time(at), "2025-03-14T09:26:53+0800");
    }

    #[test]
    fn lists_are_read_in_any_order_and_spacing() {
        let wanted = Some(vec![0xFB, 0xFF]);
        for header in [
            "algorithm=RSA256, signature=%2B%2F8%3D",
            "signature=+/8=,keyVersion=v1,  algorithm=RSA256",
            "algorithm=RSA256,signature=%2b/8=",
        ] {
            assert_eq!(read_signature(header), wanted, "{header}");
        }
        for wrong in ["", "algorithm=RSA512, signature=%2B%2F8%3D", "algorithm=RSA256", "signature=%2B%2F8%3D", "+/8="]
        {
            assert_eq!(read_signature(wrong), None, "{wrong}");
        }
        assert_eq!(signature_header(&[0xFB, 0xFF]), "algorithm=RSA256, signature=%2B%2F8%3D");
    }
}

//! What is signed, how, and how a signature travels in a header.
//!
//! The signed content is made of the exact bytes on the wire: nothing is decoded, trimmed or serialised anew, and a
//! large body is not copied. Requests and answers are signed alike; an answer counts with the path of its request.

use std::fmt;

use aws_lc_rs::digest::{Context, Digest, SHA256};
use aws_lc_rs::error::Unspecified;
use base64::Engine;
use base64::alphabet;
use base64::engine::general_purpose::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use chrono::{DateTime, Utc};
use hmac::{Hmac, KeyInit, Mac};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;

use super::keys::{MerchantKey, ZolozKey};
use crate::provider::utc_seconds;

const RSA256: &str = "RSA256";
/// What Base64 has and a value in a list must not.
const ESCAPED: &AsciiSet = &CONTROLS.add(b'+').add(b'/').add(b'=');

/// Base64url: written without padding, read with or without.
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new().with_encode_padding(false).with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// `POST {path}\n{client id}.{time}.{body}`, in parts.
#[derive(Clone, Copy)]
pub struct Content<'a> {
    pub path: &'a str,
    pub client_id: &'a str,
    /// As it stands in the header.
    pub time: &'a str,
    /// As it is on the wire.
    pub body: &'a [u8],
}

impl<'a> Content<'a> {
    pub fn parts(&self) -> [&'a [u8]; 8] {
        let text = str::as_bytes;
        [
            text("POST "),
            text(self.path),
            text("\n"),
            text(self.client_id),
            text("."),
            text(self.time),
            text("."),
            self.body,
        ]
    }

    fn digest(&self) -> Digest {
        let mut context = Context::new(&SHA256);
        for part in self.parts() {
            context.update(part);
        }
        context.finish()
    }
}

/// The value of `Signature` for a request with the merchant's key.
pub fn rsa256(key: &MerchantKey, content: &Content<'_>) -> Result<String, Unspecified> {
    Ok(list(RSA256, "signature", &key.sign(&content.digest())?))
}

/// Whether `header`, the value of `Signature`, signs the content with the key of ZOLOZ.
pub fn verify_rsa256(key: &ZolozKey, content: &Content<'_>, header: &str) -> bool {
    let Some(signature) = list_value(header, RSA256, "signature") else { return false };
    key.verify(&content.digest(), &signature)
}

/// `algorithm=…, name=…`, the value in percent-encoded Base64.
pub(super) fn list(algorithm: &str, name: &str, value: &[u8]) -> String {
    format!("algorithm={algorithm}, {name}={}", utf8_percent_encode(&STANDARD.encode(value), ESCAPED))
}

/// The named value out of such a list, if its algorithm is the one that is wanted. Items come in any order and
/// spacing, further ones are passed over; one that comes twice makes the list ambiguous and is refused.
pub(super) fn list_value(header: &str, algorithm: &str, name: &str) -> Option<Vec<u8>> {
    let (mut given, mut value) = (None, None);
    for item in header.split(',') {
        let Some((item, text)) = item.split_once('=') else { continue };
        let (item, text) = (item.trim(), text.trim());
        let place = if item.eq_ignore_ascii_case("algorithm") {
            &mut given
        } else if item.eq_ignore_ascii_case(name) {
            &mut value
        } else {
            continue;
        };
        if place.replace(text).is_some() {
            return None;
        }
    }
    if !given?.eq_ignore_ascii_case(algorithm) {
        return None;
    }
    // Not as in forms: a `+` that was sent as it is stays one.
    let value: Vec<u8> = percent_decode_str(value?).collect();
    STANDARD.decode(value).ok().filter(|value| !value.is_empty())
}

/// An access key with its secret, for accounts without RSA.
pub struct AccessKey {
    id: String,
    mac: Hmac<Sha256>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccessKeyError {
    #[error("holds a blank, a line end or characters beyond ASCII")]
    Id,
    #[error("is no URL-safe Base64: set the secret as ZOLOZ shows it")]
    Secret,
}

impl fmt::Debug for AccessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccessKey(redacted)")
    }
}

impl AccessKey {
    pub fn new(id: &SecretString, secret: &SecretString) -> Result<Self, AccessKeyError> {
        let id = id.expose_secret();
        if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(AccessKeyError::Id);
        }
        let key = URL_SAFE.decode(secret.expose_secret().trim()).map_err(|_| AccessKeyError::Secret)?;
        if key.is_empty() {
            return Err(AccessKeyError::Secret);
        }
        let mac = Hmac::new_from_slice(&key).map_err(|_| AccessKeyError::Secret)?;
        Ok(Self { id: id.to_owned(), mac })
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    fn mac(&self, content: &Content<'_>) -> Hmac<Sha256> {
        let mut mac = self.mac.clone();
        for part in content.parts() {
            mac.update(part);
        }
        mac
    }

    /// The value of `Signature` for a request.
    pub fn sign(&self, content: &Content<'_>) -> String {
        URL_SAFE.encode(self.mac(content).finalize().into_bytes())
    }

    /// Whether `header` signs the content. Takes the same time however much of it is right.
    pub fn verify(&self, content: &Content<'_>, header: &str) -> bool {
        URL_SAFE.decode(header.trim()).is_ok_and(|given| self.mac(content).verify_slice(&given).is_ok())
    }
}

/// `yyyy-MM-ddTHH:mm:ss+0000`.
pub fn wire_time(time: DateTime<Utc>) -> String {
    utc_seconds(time, "+0000")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "-_8-T1prfI2er7DB0uP0BRYnOElaa3yNnq-wwdLj9P8";

    fn content(body: &[u8]) -> Content<'_> {
        Content { path: "/api/v1/x", client_id: "2188", time: "2025-03-14T09:26:53+0800", body }
    }

    fn key(secret: &str) -> AccessKey {
        AccessKey::new(&"AK".into(), &secret.into()).unwrap()
    }

    #[test]
    fn content_is_signed_as_it_is_on_the_wire() {
        let whole = content(b"{ \"a\" : \"%20\" }\n").parts().concat();
        assert_eq!(whole, b"POST /api/v1/x\n2188.2025-03-14T09:26:53+0800.{ \"a\" : \"%20\" }\n");
    }

    #[test]
    fn a_list_is_read_in_any_order_and_spacing() {
        let written = list(RSA256, "signature", &[0xfb, 0xff, 0xfe, 1]);
        assert_eq!(written, "algorithm=RSA256, signature=%2B%2F%2F%2BAQ%3D%3D");
        for header in [
            &*written,
            "signature=%2B%2F%2F%2BAQ%3D%3D,algorithm=RSA256",
            "  keyVersion=v1 ,Algorithm = rsa256,\tSIGNATURE = +//+AQ== ",
            "algorithm=RSA256, flag, signature=%2b//%2BAQ==, nonce=a=b",
        ] {
            assert_eq!(list_value(header, RSA256, "signature"), Some(vec![0xfb, 0xff, 0xfe, 1]), "{header}");
        }
    }

    #[test]
    fn a_list_that_is_ambiguous_unknown_or_unreadable_is_refused() {
        for header in [
            "",
            "signature=AQ==",
            "algorithm=RSA256",
            "algorithm=RSA1, signature=AQ==",
            "algorithm=, signature=AQ==",
            "algorithm=RSA256, algorithm=RSA256, signature=AQ==",
            "algorithm=RSA256, signature=AQ==, signature=AQ==",
            "algorithm=RSA256, signature=",
            "algorithm=RSA256, signature= //+AQ==",
            "algorithm=RSA256, signature=A",
            "algorithm=RSA256, signature=%GG",
        ] {
            assert_eq!(list_value(header, RSA256, "signature"), None, "{header}");
        }
    }

    #[test]
    fn a_secret_is_read_with_and_without_padding() {
        let signed = key(SECRET).sign(&content(b"{}"));
        assert_eq!(key(&format!("{SECRET}=")).sign(&content(b"{}")), signed);
        assert!(key(SECRET).verify(&content(b"{}"), &signed));
        assert!(key(SECRET).verify(&content(b"{}"), &format!("{signed}=")));
        for wrong in ["", "AAAA", &signed[1..], "algorithm=RSA256, signature=AQ=="] {
            assert!(!key(SECRET).verify(&content(b"{}"), wrong), "{wrong}");
        }
        assert!(!key(SECRET).verify(&content(b"{ }"), &signed));
    }

    #[test]
    fn an_unusable_access_key_is_refused() {
        assert_eq!(AccessKey::new(&"A K".into(), &SECRET.into()).unwrap_err(), AccessKeyError::Id);
        for secret in ["", "not base64!", "+/+/"] {
            assert_eq!(AccessKey::new(&"AK".into(), &secret.into()).unwrap_err(), AccessKeyError::Secret, "{secret}");
        }
    }

    #[test]
    fn debug_output_shows_no_access_key() {
        let shown = format!("{:?}", AccessKey::new(&"CANARYID".into(), &SECRET.into()).unwrap());
        assert!(!shown.contains("CANARY") && !shown.contains(&SECRET[..8]), "{shown}");
    }

    #[test]
    fn a_time_is_in_utc_without_colon_and_without_fraction() {
        let time = "2026-01-05T08:03:02.987654Z".parse().unwrap();
        assert_eq!(wire_time(time), "2026-01-05T08:03:02+0000");
    }
}

//! Signatures of the Standard Webhooks specification: HMAC-SHA256 over id, time and body, one for each secret.
//!
//! <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>. The specification's own
//! crate would bring another HMAC and another Base64; the tests check against it instead.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use uuid::Uuid;

/// One secret of an endpoint.
#[derive(Clone)]
pub struct SigningKey(Vec<u8>);

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey")
    }
}

#[derive(Debug, thiserror::Error)]
#[error("a secret of a webhook is not whsec_ and base64")]
pub struct BadSecret;

impl SigningKey {
    /// `text`: `whsec_` and Base64.
    pub fn read(text: &str) -> Result<Self, BadSecret> {
        let encoded = text.strip_prefix("whsec_").ok_or(BadSecret)?;
        STANDARD.decode(encoded).map(Self).map_err(|_| BadSecret)
    }

    fn sign(&self, id: &str, timestamp: i64, body: &str) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        mac.update(format!("{id}.{timestamp}.").as_bytes());
        mac.update(body.as_bytes());
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }
}

/// The value of `webhook-signature`: one signature for each key, so that a receiver that knows one of them accepts it.
pub(super) fn signatures(keys: &[SigningKey], id: Uuid, timestamp: i64, body: &str) -> String {
    let id = id.to_string();
    keys.iter().map(|key| key.sign(&id, timestamp, body)).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use standardwebhooks::Webhook;

    use super::*;

    const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

    /// The published vector of the specification's libraries.
    #[test]
    fn the_published_vector_is_signed_alike() {
        let key = SigningKey::read(SECRET).unwrap();
        let body = r#"{"email":"test@example.com","username":"test_user"}"#;
        assert_eq!(
            key.sign("msg_27UH4WbU6Z5A5EzD8u03UvzRbpk", 1_649_367_553, body),
            "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw="
        );
    }

    #[test]
    fn each_key_signs_as_the_specifications_own_crate_does() {
        let other = "whsec_QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE=";
        let keys = [SECRET, other].map(|secret| SigningKey::read(secret).unwrap());
        let id = Uuid::from_u128(7);
        let expected = [SECRET, other]
            .map(|secret| Webhook::new(secret).unwrap().sign(&id.to_string(), 1_800_000_000, "{\"ä\":1}".as_bytes()));
        let expected = expected.map(Result::unwrap).join(" ");
        assert_eq!(signatures(&keys, id, 1_800_000_000, "{\"ä\":1}"), expected);
    }

    #[test]
    fn a_key_is_not_shown() {
        assert_eq!(format!("{:?}", SigningKey::read(SECRET).unwrap()), "SigningKey");
        assert!(SigningKey::read("C2FVsBQIhrscChlQIMV+b5sSYspob7oD").is_err());
        assert!(SigningKey::read("whsec_!").is_err());
    }
}

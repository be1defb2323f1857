//! The session of somebody who signed in with an API key: a sealed cookie, so that every replica knows it and none
//! stores it.
//!
//! It holds an end, a random number and a signature. The signature covers the key's hash too, so the session ends with
//! the key: once the key has left the configuration, or has another value, nothing fits. The secret behind the
//! signature is in the database, shared by the replicas; the hashes in the configuration alone make no session.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, TimeDelta, Utc};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::http::auth::Key;

/// How long a session lasts.
pub const LASTS: TimeDelta = TimeDelta::hours(12);

const SESSION: &[u8] = b"checkback console session 1\0";
const FORM: &[u8] = b"checkback console form 1\0";

const END: usize = 8;
const NONCE: usize = 16;
const SIGNATURE: usize = 32;

/// Tells two sessions of one key apart.
pub type Nonce = [u8; NONCE];

/// Signs sessions and forms; the same on all replicas and after a restart.
pub struct SessionKey(Hmac<Sha256>);

impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionKey(redacted)")
    }
}

impl SessionKey {
    pub fn new(secret: &[u8; 32]) -> Self {
        Self(Hmac::new_from_slice(secret).expect("an HMAC key may have any length"))
    }

    fn session(&self, end: [u8; END], nonce: &Nonce, key: &Key) -> Hmac<Sha256> {
        // Each part has one length.
        self.0.clone().chain_update(SESSION).chain_update(end).chain_update(nonce).chain_update(key.sha256)
    }

    /// A session of this key.
    pub fn seal(&self, key: &Key, nonce: &Nonce, now: DateTime<Utc>) -> String {
        let end = (now + LASTS).timestamp().to_be_bytes();
        let signature = self.session(end, nonce, key).finalize().into_bytes();
        let mut bytes = Vec::with_capacity(END + NONCE + SIGNATURE);
        bytes.extend_from_slice(&end);
        bytes.extend_from_slice(nonce);
        bytes.extend_from_slice(&signature);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Whose session it is, if it is one of these keys' and not over. Compares in constant time.
    pub fn open<'a>(&self, sealed: &str, keys: &'a [Key], now: DateTime<Utc>) -> Option<(&'a Key, Nonce)> {
        let bytes: [u8; END + NONCE + SIGNATURE] = URL_SAFE_NO_PAD.decode(sealed).ok()?.try_into().ok()?;
        let (end, rest) = bytes.split_first_chunk::<END>()?;
        let (nonce, signature) = rest.split_first_chunk::<NONCE>()?;
        let key = keys.iter().find(|key| self.session(*end, nonce, key).verify_slice(signature).is_ok())?;
        let left = i64::from_be_bytes(*end) - now.timestamp();
        // An end further ahead than a session lasts is of a clock that was wrong.
        (left > 0 && left <= LASTS.num_seconds()).then_some((key, *nonce))
    }

    fn form(&self, nonce: &Nonce, key: Option<&Key>) -> Hmac<Sha256> {
        self.0.clone().chain_update(FORM).chain_update(nonce).chain_update(key.map_or([0; 32], |key| key.sha256))
    }

    /// What every form of this session carries, so that no other site can fill one in.
    pub fn form_token(&self, nonce: &Nonce, key: Option<&Key>) -> String {
        URL_SAFE_NO_PAD.encode(self.form(nonce, key).finalize().into_bytes())
    }

    /// Compares in constant time.
    pub fn is_form_token(&self, token: &str, nonce: &Nonce, key: Option<&Key>) -> bool {
        URL_SAFE_NO_PAD.decode(token).is_ok_and(|token| self.form(nonce, key).verify_slice(&token).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn key(name: &str, byte: u8) -> Key {
        Key { name: name.into(), sha256: [byte; 32], scopes: BTreeSet::new() }
    }

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(second, 0).unwrap()
    }

    #[test]
    fn a_session_opens_for_its_key_until_its_end() {
        let signer = SessionKey::new(&[7; 32]);
        let keys = [key("one", 1), key("two", 2)];
        let sealed = signer.seal(&keys[1], &[9; 16], at(1_000_000));
        let whose = |keys: &[Key], now| signer.open(&sealed, keys, at(now)).map(|(key, _)| key.name.clone());
        assert_eq!(whose(&keys, 1_000_001).as_deref(), Some("two"));
        assert_eq!(whose(&keys, 1_000_000 + 43_199).as_deref(), Some("two"));
        assert_eq!(whose(&keys, 1_000_000 + 43_200), None, "over");
        assert_eq!(whose(&keys, 900_000), None, "of a time to come");
        assert_eq!(whose(&keys[..1], 1_000_001), None, "its key is gone");
        assert_eq!(whose(&[key("two", 3)], 1_000_001), None, "its key is another");
        assert!(SessionKey::new(&[8; 32]).open(&sealed, &keys, at(1_000_001)).is_none());
        for broken in ["", "x", &sealed[1..], &format!("{sealed}A")] {
            assert!(signer.open(broken, &keys, at(1_000_001)).is_none(), "{broken}");
        }
        for place in 0..sealed.len() {
            let mut other = sealed.clone().into_bytes();
            other[place] = if other[place] == b'A' { b'B' } else { b'A' };
            let other = String::from_utf8(other).unwrap();
            assert!(signer.open(&other, &keys, at(1_000_001)).is_none(), "{place}");
        }
    }

    #[test]
    fn a_form_belongs_to_its_session() {
        let signer = SessionKey::new(&[7; 32]);
        let (one, two) = (key("one", 1), key("two", 2));
        let token = signer.form_token(&[1; 16], Some(&one));
        assert!(signer.is_form_token(&token, &[1; 16], Some(&one)));
        assert!(!signer.is_form_token(&token, &[2; 16], Some(&one)));
        assert!(!signer.is_form_token(&token, &[1; 16], Some(&two)));
        assert!(!signer.is_form_token(&token, &[1; 16], None));
        assert!(!signer.is_form_token("", &[1; 16], Some(&one)));
        assert_eq!(format!("{signer:?}"), "SessionKey(redacted)");
    }
}

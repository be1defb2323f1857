//! The opaque state that a browser carries on its way back: names a verification and is signed, so that nobody makes
//! one for a verification whose link they do not have.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use uuid::Uuid;

use super::VerificationId;

const ID: usize = 16;
const SIGNATURE: usize = 32;

/// Separates this use of the key from any other.
const PURPOSE: &[u8] = b"checkback return state 1\0";

/// Signs states; the same on all replicas and after a restart.
#[derive(Clone)]
pub struct ReturnKey(Hmac<Sha256>);

impl fmt::Debug for ReturnKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReturnKey(redacted)")
    }
}

impl ReturnKey {
    pub fn new(secret: &[u8; 32]) -> Self {
        Self(Hmac::new_from_slice(secret).expect("an HMAC key may have any length"))
    }

    fn keyed(&self, account: &str, id: &[u8; ID]) -> Hmac<Sha256> {
        // The id has one length, so no two pairs make the same text.
        self.0.clone().chain_update(PURPOSE).chain_update(id).chain_update(account)
    }

    /// The state of a verification of `account`: 64 characters that need no escaping in a URL.
    pub fn state(&self, account: &str, id: VerificationId) -> String {
        let id = id.0.as_bytes();
        let mut bytes = [0; ID + SIGNATURE];
        bytes[..ID].copy_from_slice(id);
        bytes[ID..].copy_from_slice(&self.keyed(account, id).finalize().into_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The verification that `state` names, if it was made here for `account`. Compares in constant time.
    pub fn open(&self, account: &str, state: &str) -> Option<VerificationId> {
        let bytes: [u8; ID + SIGNATURE] = URL_SAFE_NO_PAD.decode(state).ok()?.try_into().ok()?;
        let (id, signature) = bytes.split_first_chunk::<ID>()?;
        self.keyed(account, id).verify_slice(signature).ok()?;
        Some(VerificationId(Uuid::from_bytes(*id)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ONE: VerificationId = VerificationId(Uuid::from_u128(0x0198_0c5e_8c1f_7d52_a3c4_0a6b_5f7e_9d21));

    #[test]
    fn a_state_opens_for_its_account_and_key_only() {
        let key = ReturnKey::new(&[7; 32]);
        let state = key.state("alibaba-sg", ONE);
        assert_eq!(state.len(), 64);
        assert!(state.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'));
        assert_eq!(key.open("alibaba-sg", &state), Some(ONE));
        assert_eq!(key.open("alibaba-hk", &state), None);
        assert_eq!(key.open("", &state), None);
        assert_eq!(ReturnKey::new(&[8; 32]).open("alibaba-sg", &state), None);
        for broken in ["", "x", &state[..63], &format!("{state}A"), &format!("{state}=")] {
            assert_eq!(key.open("alibaba-sg", broken), None, "{broken}");
        }
        assert_eq!(format!("{key:?}"), "ReturnKey(redacted)");
    }

    proptest! {
        #[test]
        fn no_changed_bit_is_taken(place in 0..ID + SIGNATURE, bit in 0..8_u8) {
            let key = ReturnKey::new(&[7; 32]);
            let mut bytes = URL_SAFE_NO_PAD.decode(key.state("a", ONE)).unwrap();
            bytes[place] ^= 1 << bit;
            prop_assert_eq!(key.open("a", &URL_SAFE_NO_PAD.encode(bytes)), None);
        }
    }
}

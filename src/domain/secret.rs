//! Callback tokens are kept as hashes: what is stored cannot be replayed, and comparing two hashes tells an
//! attacker nothing about how much of a guess was right.

use std::fmt;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// SHA-256 of a callback token.
#[derive(Clone, Copy)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    pub fn of(token: &str) -> Self {
        Self(Sha256::digest(token.as_bytes()).into())
    }

    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<[u8; 32]> for TokenHash {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl PartialEq for TokenHash {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for TokenHash {}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_tokens_have_equal_hashes_and_debug_shows_neither() {
        let hash = TokenHash::of("1000004826");
        assert_eq!(hash, TokenHash::of("1000004826"));
        assert_ne!(hash, TokenHash::of("1000004827"));
        assert!(!format!("{hash:?}").contains(&hex::encode(hash.as_bytes())[..8]));
    }
}

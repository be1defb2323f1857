//! The two RSA keys of an account: the merchant's private key, and the public key that ZOLOZ made for the merchant.
//!
//! Both are read once, at the start, so that a wrong one is told then and not by the first failing call. Neither is
//! ever shown. What they are used for is in [`super::sign`] and [`super::cipher`].

use std::fmt;

use aws_lc_rs::digest::Digest;
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::error::{KeyRejected, Unspecified};
use aws_lc_rs::rsa::{
    KeyPair, Pkcs1PrivateDecryptingKey, Pkcs1PublicEncryptingKey, PrivateDecryptingKey, PublicEncryptingKey,
};
use aws_lc_rs::signature::{ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256};
use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// Standard Base64, its padding optional.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Why a key cannot be used. Never says anything about its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("is neither PEM nor Base64 DER: give the key as text, whole and unchanged")]
    NotAKey,
    #[error("is no key that can be read: it is damaged or cut off")]
    Damaged,
    #[error("is a public key: set the private key of the pair whose public key was given to ZOLOZ")]
    PublicKey,
    #[error("is a private key: set the public key that ZOLOZ shows for this merchant, and keep private keys private")]
    PrivateKey,
    #[error("is a certificate: set the public key alone")]
    Certificate,
    #[error("is encrypted with a pass phrase: remove it, for example with `openssl pkcs8 -in KEY -topk8 -nocrypt`")]
    Encrypted,
    #[error("holds more than one key: set one")]
    SeveralKeys,
    #[error("is no RSA key: ZOLOZ uses RSA with 2048 bits")]
    NotRsa,
    #[error("is an RSA key of fewer than 2048 bits, which is too short")]
    TooShort,
    #[error("is an RSA key of more than 8192 bits, which is too long")]
    TooLong,
}

impl From<KeyRejected> for KeyError {
    fn from(rejected: KeyRejected) -> Self {
        match rejected.description_() {
            "TooSmall" => Self::TooShort,
            "TooLarge" => Self::TooLong,
            "WrongAlgorithm" => Self::NotRsa,
            _ => Self::Damaged,
        }
    }
}

/// Signs requests and unwraps the keys of encrypted answers.
pub struct MerchantKey {
    signing: KeyPair,
    unwrapping: Pkcs1PrivateDecryptingKey,
}

impl fmt::Debug for MerchantKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MerchantKey(redacted)")
    }
}

impl MerchantKey {
    /// PKCS#8 or PKCS#1, as PEM or Base64 DER.
    pub fn read(text: &str) -> Result<Self, KeyError> {
        let document = Document::read(text)?;
        let der = match document.label {
            Some("PUBLIC KEY" | "RSA PUBLIC KEY") => return Err(KeyError::PublicKey),
            Some("CERTIFICATE") => return Err(KeyError::Certificate),
            Some("ENCRYPTED PRIVATE KEY") => return Err(KeyError::Encrypted),
            Some("EC PRIVATE KEY" | "DSA PRIVATE KEY") => return Err(KeyError::NotRsa),
            _ => document.der,
        };
        let signing = match KeyPair::from_pkcs8(&der) {
            Ok(key) => key,
            Err(rejected) => match KeyPair::from_der(&der) {
                Ok(key) => key,
                Err(_) if ParsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &der).is_ok() => {
                    return Err(KeyError::PublicKey);
                }
                // Of the two forms the first is the usual one, so its reason is told unless only the second has one.
                Err(other) => {
                    let (first, second) = (KeyError::from(rejected), KeyError::from(other));
                    return Err(if first == KeyError::Damaged { second } else { first });
                }
            },
        };
        let pkcs8: Pkcs8V1Der<'static> = signing.as_der().map_err(|Unspecified| KeyError::Damaged)?;
        let unwrapping = PrivateDecryptingKey::from_pkcs8(pkcs8.as_ref())?;
        let unwrapping = Pkcs1PrivateDecryptingKey::new(unwrapping).map_err(|Unspecified| KeyError::Damaged)?;
        Ok(Self { signing, unwrapping })
    }

    /// RSASSA-PKCS1-v1_5.
    pub(super) fn sign(&self, digest: &Digest) -> Result<Vec<u8>, Unspecified> {
        let mut signature = vec![0; self.signing.public_modulus_len()];
        self.signing.sign_digest(&RSA_PKCS1_SHA256, digest, &mut signature)?;
        Ok(signature)
    }

    /// RSAES-PKCS1-v1_5. Callers must not let anyone see whether it failed.
    pub(super) fn unwrap(&self, wrapped: &[u8]) -> Result<Vec<u8>, Unspecified> {
        let mut key = vec![0; self.unwrapping.min_output_size()];
        let length = self.unwrapping.decrypt(wrapped, &mut key)?.len();
        key.truncate(length);
        Ok(key)
    }
}

/// Verifies answers and wraps the keys of encrypted requests.
pub struct ZolozKey {
    verifying: ParsedPublicKey,
    wrapping: Pkcs1PublicEncryptingKey,
}

impl fmt::Debug for ZolozKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ZolozKey(redacted)")
    }
}

impl ZolozKey {
    /// `SubjectPublicKeyInfo` or PKCS#1, as PEM or Base64 DER.
    pub fn read(text: &str) -> Result<Self, KeyError> {
        let document = Document::read(text)?;
        let der = match document.label {
            Some("CERTIFICATE") => return Err(KeyError::Certificate),
            Some(label) if label.ends_with("PRIVATE KEY") => return Err(KeyError::PrivateKey),
            _ => document.der,
        };
        let verifying = match ParsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &der) {
            Ok(key) => key,
            Err(_) if KeyPair::from_pkcs8(&der).is_ok() || KeyPair::from_der(&der).is_ok() => {
                return Err(KeyError::PrivateKey);
            }
            Err(rejected) => return Err(rejected.into()),
        };
        let der: PublicKeyX509Der<'static> = verifying.as_der().map_err(|Unspecified| KeyError::Damaged)?;
        let wrapping = PublicEncryptingKey::from_der(der.as_ref())?;
        let wrapping = Pkcs1PublicEncryptingKey::new(wrapping).map_err(|Unspecified| KeyError::Damaged)?;
        Ok(Self { verifying, wrapping })
    }

    /// RSASSA-PKCS1-v1_5.
    pub(super) fn verify(&self, digest: &Digest, signature: &[u8]) -> bool {
        self.verifying.verify_digest_sig(digest, signature).is_ok()
    }

    /// RSAES-PKCS1-v1_5.
    pub(super) fn wrap(&self, key: &[u8]) -> Result<Vec<u8>, Unspecified> {
        let mut wrapped = vec![0; self.wrapping.ciphertext_size()];
        let length = self.wrapping.encrypt(key, &mut wrapped)?.len();
        wrapped.truncate(length);
        Ok(wrapped)
    }
}

/// A key as it was wrapped for transport.
struct Document<'a> {
    /// Of PEM.
    label: Option<&'a str>,
    der: Vec<u8>,
}

impl<'a> Document<'a> {
    fn read(text: &'a str) -> Result<Self, KeyError> {
        const BEGIN: &str = "-----BEGIN ";
        const DASHES: &str = "-----";
        let Some((_, rest)) = text.split_once(BEGIN) else {
            return Ok(Self { label: None, der: decode(text).ok_or(KeyError::NotAKey)? });
        };
        let (label, rest) = rest.split_once(DASHES).ok_or(KeyError::Damaged)?;
        let (body, rest) = rest.split_once(&*format!("-----END {label}{DASHES}")).ok_or(KeyError::Damaged)?;
        if rest.contains(BEGIN) {
            return Err(KeyError::SeveralKeys);
        }
        // The old way to encrypt a key is told by headers in front of the Base64.
        if body.contains("ENCRYPTED") {
            return Err(KeyError::Encrypted);
        }
        Ok(Self { label: Some(label), der: decode(body).ok_or(KeyError::Damaged)? })
    }
}

fn decode(text: &str) -> Option<Vec<u8>> {
    // Where a key went through an environment variable, line ends are often left as two characters.
    let plain: String = text.replace("\\n", "").split_whitespace().collect();
    let der = LENIENT.decode(plain).ok()?;
    (!der.is_empty()).then_some(der)
}

#[cfg(test)]
mod tests;

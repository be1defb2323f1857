//! RSA keys, RSA256 signatures and the wrapping of AES keys (RSAES-PKCS1-v1_5), for both sides, so that the tests can
//! play the merchant. Nothing here is shown by `Debug` but the public half.

use std::fmt;

use anyhow::Context as _;
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{
    KeyPair, KeySize, Pkcs1PrivateDecryptingKey, Pkcs1PublicEncryptingKey, PrivateDecryptingKey, PublicEncryptingKey,
};
use aws_lc_rs::signature::{ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The characters of a line of PEM.
const PEM_LINE: usize = 64;

pub(in crate::simulator) struct PrivateKey {
    der: Vec<u8>,
    signing: KeyPair,
    unwrapping: Pkcs1PrivateDecryptingKey,
    /// The DER of the public half.
    public: Vec<u8>,
}

impl PrivateKey {
    pub(in crate::simulator) fn generate() -> anyhow::Result<Self> {
        let pair = KeyPair::generate(KeySize::Rsa2048).context("an RSA key cannot be made")?;
        let der = AsDer::<Pkcs8V1Der<'_>>::as_der(&pair).context("a new RSA key cannot be written")?;
        Self::from_der(der.as_ref().to_vec())
    }

    /// PEM, or the Base64 of the DER (PKCS#8).
    pub(in crate::simulator) fn read(text: &str) -> anyhow::Result<Self> {
        Self::from_der(der(text)?)
    }

    fn from_der(der: Vec<u8>) -> anyhow::Result<Self> {
        // The library's own words tell nothing of the key.
        let wrong = "it is not an RSA private key in PKCS#8 of at least 2048 bits";
        let signing = KeyPair::from_pkcs8(&der).context(wrong)?;
        let decrypting = PrivateDecryptingKey::from_pkcs8(&der).context(wrong)?;
        let public: PublicKeyX509Der<'_> = decrypting.public_key().as_der().context(wrong)?;
        let public = public.as_ref().to_vec();
        let unwrapping = Pkcs1PrivateDecryptingKey::new(decrypting).context(wrong)?;
        Ok(Self { der, signing, unwrapping, public })
    }

    pub(in crate::simulator) fn sign(&self, content: &[u8]) -> Result<Vec<u8>, Unspecified> {
        let mut signature = vec![0; self.signing.public_modulus_len()];
        self.signing.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), content, &mut signature)?;
        Ok(signature)
    }

    pub(in crate::simulator) fn unwrap_key(&self, wrapped: &[u8]) -> Option<Vec<u8>> {
        let mut plain = vec![0; self.unwrapping.min_output_size()];
        Some(self.unwrapping.decrypt(wrapped, &mut plain).ok()?.to_vec())
    }

    pub(in crate::simulator) fn public(&self) -> anyhow::Result<PublicKey> {
        PublicKey::from_der(self.public.clone())
    }

    pub(in crate::simulator) fn to_pem(&self) -> String {
        pem("PRIVATE KEY", &self.der)
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey")
    }
}

pub(in crate::simulator) struct PublicKey {
    der: Vec<u8>,
    verifying: ParsedPublicKey,
    wrapping: Pkcs1PublicEncryptingKey,
}

impl PublicKey {
    /// PEM, or the Base64 of the DER (`SubjectPublicKeyInfo`).
    pub(in crate::simulator) fn read(text: &str) -> anyhow::Result<Self> {
        Self::from_der(der(text)?)
    }

    fn from_der(der: Vec<u8>) -> anyhow::Result<Self> {
        let wrong = "it is not an RSA public key (SubjectPublicKeyInfo) of at least 2048 bits";
        let verifying = ParsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &der).context(wrong)?;
        let wrapping = PublicEncryptingKey::from_der(&der).context(wrong)?;
        let wrapping = Pkcs1PublicEncryptingKey::new(wrapping).context(wrong)?;
        Ok(Self { der, verifying, wrapping })
    }

    pub(in crate::simulator) fn verifies(&self, content: &[u8], signature: &[u8]) -> bool {
        self.verifying.verify_sig(content, signature).is_ok()
    }

    pub(in crate::simulator) fn wrap_key(&self, key: &[u8]) -> Result<Vec<u8>, Unspecified> {
        let mut wrapped = vec![0; self.wrapping.ciphertext_size()];
        Ok(self.wrapping.encrypt(key, &mut wrapped)?.to_vec())
    }

    pub(in crate::simulator) fn to_pem(&self) -> String {
        pem("PUBLIC KEY", &self.der)
    }
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.der == other.der
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PublicKey")
    }
}

fn der(text: &str) -> anyhow::Result<Vec<u8>> {
    let base64: String = text.lines().map(str::trim).filter(|line| !line.starts_with("-----")).collect();
    STANDARD.decode(base64).ok().filter(|der| !der.is_empty()).context("it is neither PEM nor the Base64 of a DER key")
}

fn pem(label: &str, der: &[u8]) -> String {
    let base64 = STANDARD.encode(der);
    let mut pem = format!("-----BEGIN {label}-----\n");
    for start in (0..base64.len()).step_by(PEM_LINE) {
        pem.push_str(&base64[start..base64.len().min(start + PEM_LINE)]);
        pem.push('\n');
    }
    pem + &format!("-----END {label}-----\n")
}

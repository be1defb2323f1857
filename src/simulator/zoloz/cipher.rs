//! Bodies under AES: ECB with PKCS#7 padding, written as Base64 in one line. The length of the key decides between
//! AES-128 and AES-256. The mode is the provider's choice.

use aws_lc_rs::cipher::{
    AES_128, AES_256, DecryptionContext, PaddedBlockDecryptingKey, PaddedBlockEncryptingKey, UnboundCipherKey,
};
use aws_lc_rs::error::Unspecified;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

fn key(bytes: &[u8]) -> Result<UnboundCipherKey, Unspecified> {
    UnboundCipherKey::new(if bytes.len() == 16 { &AES_128 } else { &AES_256 }, bytes)
}

pub(in crate::simulator) fn encrypt(key_bytes: &[u8], mut plain: Vec<u8>) -> Result<String, Unspecified> {
    PaddedBlockEncryptingKey::ecb_pkcs7(key(key_bytes)?)?.encrypt(&mut plain)?;
    Ok(STANDARD.encode(plain))
}

pub(in crate::simulator) fn decrypt(key_bytes: &[u8], body: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = STANDARD.decode(body).ok()?;
    let cipher = PaddedBlockDecryptingKey::ecb_pkcs7(key(key_bytes).ok()?).ok()?;
    Some(cipher.decrypt(&mut bytes, DecryptionContext::None).ok()?.to_vec())
}

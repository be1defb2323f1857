//! Encryption of messages: AES in ECB mode with PKCS#7 padding, as Base64; its key wrapped with RSA.
//!
//! Nothing is decrypted whose signature was not verified. Whatever is wrong with a message, its key or its padding is
//! one and the same [`Unreadable`], and a key that cannot be unwrapped is replaced by a random one, so that neither
//! the error nor the time tells an attacker which step failed. A message is decoded and decrypted in its own memory.

use aws_lc_rs::cipher::{
    AES_128, AES_256, DecryptionContext, PaddedBlockDecryptingKey, PaddedBlockEncryptingKey, UnboundCipherKey,
};
use aws_lc_rs::error::Unspecified;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};

use super::keys::{MerchantKey, ZolozKey};
use super::sign;
use crate::entropy::Entropy;

const RSA_AES: &str = "RSA_AES";
const KEY: &str = "symmetricKey";
/// Base64 is decoded in pieces of this many characters: whole groups of four.
const PIECE: usize = 4096;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the message cannot be decrypted")]
pub struct Unreadable;

impl From<Unspecified> for Unreadable {
    fn from(_: Unspecified) -> Self {
        Self
    }
}

/// Encrypts a request with a new key: its body and the value of its header `Encrypt`.
pub fn seal(key: &ZolozKey, entropy: &Entropy, plain: &[u8]) -> Result<(Bytes, String), Unspecified> {
    let message_key = entropy.bytes::<32>();
    let header = sign::list(RSA_AES, KEY, &key.wrap(&message_key)?);
    Ok((encrypt(&message_key, plain)?.into(), header))
}

/// Decrypts an answer; `header` is the value of its own `Encrypt`.
pub fn open(key: &MerchantKey, entropy: &Entropy, header: &str, body: Bytes) -> Result<Bytes, Unreadable> {
    let message_key = unwrap(key, header).unwrap_or_else(|| entropy.bytes::<32>().to_vec());
    decrypt(&message_key, body)
}

/// The key of a message, if it is one.
pub fn unwrap(key: &MerchantKey, header: &str) -> Option<Vec<u8>> {
    let wrapped = sign::list_value(header, RSA_AES, KEY)?;
    key.unwrap(&wrapped).ok().filter(|key| matches!(key.len(), 16 | 32))
}

/// The body of a message that is encrypted with a key of 16 or 32 bytes.
pub fn encrypt(key: &[u8], plain: &[u8]) -> Result<String, Unspecified> {
    let mut message = Vec::with_capacity(plain.len() + 16);
    message.extend_from_slice(plain);
    PaddedBlockEncryptingKey::ecb_pkcs7(cipher_key(key)?)?.encrypt(&mut message)?;
    Ok(STANDARD.encode(message))
}

fn decrypt(key: &[u8], body: Bytes) -> Result<Bytes, Unreadable> {
    let mut message = BytesMut::from(body);
    decode_in_place(&mut message)?;
    let key = PaddedBlockDecryptingKey::ecb_pkcs7(cipher_key(key)?)?;
    let length = key.decrypt(&mut message, DecryptionContext::None)?.len();
    message.truncate(length);
    Ok(message.freeze())
}

fn cipher_key(key: &[u8]) -> Result<UnboundCipherKey, Unspecified> {
    UnboundCipherKey::new(if key.len() == 16 { &AES_128 } else { &AES_256 }, key)
}

/// Decoded Base64 is shorter than its text, so the start of the text is free by the time it is written to.
fn decode_in_place(text: &mut BytesMut) -> Result<(), Unreadable> {
    let mut piece = [0; PIECE / 4 * 3];
    let (mut read, mut written) = (0, 0);
    while read < text.len() {
        let end = text.len().min(read + PIECE);
        let length = STANDARD.decode_slice(&text[read..end], &mut piece).map_err(|_| Unreadable)?;
        // Padding ends the text; in the middle it would join two messages.
        if length < piece.len() && end < text.len() {
            return Err(Unreadable);
        }
        text[written..written + length].copy_from_slice(&piece[..length]);
        (read, written) = (end, written + length);
    }
    text.truncate(written);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY_32: [u8; 32] = [7; 32];

    #[test]
    fn a_message_of_any_length_comes_back() {
        for key in [&KEY_32[..], &KEY_32[..16]] {
            for length in [0, 1, 15, 16, 17, 3056, 3071, 3072, 3073, 3087, 3088, 100_000] {
                let plain: Vec<u8> = (0..length).map(|index| u8::try_from(index % 251).unwrap()).collect();
                let body = encrypt(key, &plain).unwrap();
                assert_eq!(decrypt(key, body.into()).unwrap(), plain, "{length}");
            }
        }
    }

    #[test]
    fn an_answer_is_decrypted_in_its_own_memory() {
        let body = Bytes::from(encrypt(&KEY_32, &vec![b'x'; 1 << 20]).unwrap());
        let place = body.as_ptr();
        assert_eq!(decrypt(&KEY_32, body).unwrap().as_ptr(), place);
    }

    #[test]
    fn whatever_is_wrong_is_the_same_error() {
        let good = encrypt(&KEY_32, b"{\"a\":1}").unwrap();
        let raw = STANDARD.decode(&good).unwrap();
        let unpadded = {
            let key = UnboundCipherKey::new(&AES_256, &KEY_32).unwrap();
            let mut block = *b"no padding here!";
            let mut twice = block.to_vec();
            PaddedBlockEncryptingKey::ecb_pkcs7(key).unwrap().encrypt(&mut twice).unwrap();
            block.copy_from_slice(&twice[..16]);
            STANDARD.encode(block)
        };
        for (case, body) in [
            ("empty", String::new()),
            ("not base64", "{\"a\":1}".to_owned()),
            ("a line end", format!("{good}\n")),
            ("cut off", good[..good.len() - 4].to_owned()),
            ("no whole block", STANDARD.encode(&raw[..15])),
            ("two messages", format!("{}{good}", STANDARD.encode(&raw[..16]))),
            ("wrong padding", unpadded),
        ] {
            assert_eq!(decrypt(&KEY_32, body.into()), Err(Unreadable), "{case}");
        }
        assert_eq!(decrypt(&[8; 32], good.clone().into()), Err(Unreadable));
        assert_eq!(decrypt(&[8; 24], good.into()), Err(Unreadable));
    }
}

//! What the official SDK of ZOLOZ signed, verified, encrypted and decrypted.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use checkback::entropy::Entropy;
use checkback::provider::http::HttpAnswer;
use checkback::provider::zoloz::answer::{self, Auth, Refusal};
use checkback::provider::zoloz::cipher;
use checkback::provider::zoloz::keys::{MerchantKey, ZolozKey};
use checkback::provider::zoloz::sign::{self, AccessKey, Content};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::Deserialize;
use sha2::{Digest, Sha256};

#[derive(Deserialize)]
pub struct File {
    keys: BTreeMap<String, Pair>,
    pub cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Pair {
    private_key_pkcs8_pem: String,
    public_key_spki_pem: String,
    public_key_spki_der_b64: Option<String>,
}

#[derive(Deserialize)]
pub struct Case {
    id: String,
    /// A tolerance that the documentation does not settle.
    #[serde(default)]
    optional: bool,
    #[serde(flatten)]
    kind: Kind,
}

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Kind {
    RsaRequestSign { input: RsaRequest, expected: RsaSigned },
    RsaRequestEncryptSign { input: RsaRequest, expected: RsaSigned },
    RsaResponseVerify { input: Response, expected: Verified },
    AkskRequestSign { input: AkskRequest, expected: AkskSigned },
    AkskResponseVerify { input: Response, expected: Verified },
}

#[derive(Deserialize)]
struct RsaRequest {
    method: String,
    path: String,
    client_id: String,
    request_time: String,
    signing_key: String,
    key_wrap_to: Option<String>,
    aes_key_hex: Option<String>,
    plaintext_body: Text,
}

#[derive(Deserialize)]
struct RsaSigned {
    wire_body: Option<Text>,
    content_to_sign: Text,
    signature_b64: String,
    encrypt_header_sample: Option<String>,
    wrapped_key_sample_b64: Option<String>,
    headers: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct AkskRequest {
    method: String,
    path: String,
    client_id: String,
    request_time: String,
    access_key: String,
    secret_key: String,
    plaintext_body: Text,
}

#[derive(Deserialize)]
struct AkskSigned {
    content_to_sign: Text,
    signature: String,
}

#[derive(Deserialize)]
struct Response {
    method: String,
    path: String,
    client_id: String,
    verify_key: Option<String>,
    decrypt_key: Option<String>,
    access_key: Option<String>,
    secret_key: Option<String>,
    #[serde(rename = "response_headers")]
    headers: BTreeMap<String, String>,
    wire_body: Text,
}

#[derive(Deserialize)]
struct Verified {
    accept: bool,
    reject_stage: Option<String>,
    plaintext_utf8: Option<String>,
}

/// Bytes, given whole, by a generator, or by their hash alone.
#[derive(Deserialize)]
struct Text {
    sha256_hex: String,
    length_bytes: usize,
    utf8: Option<String>,
    generator: Option<Generator>,
}

#[derive(Deserialize)]
struct Generator {
    prefix: String,
    unit: String,
    count: usize,
    suffix: String,
}

impl Text {
    fn matches(&self, bytes: &[u8]) -> bool {
        bytes.len() == self.length_bytes && hex::encode(Sha256::digest(bytes)) == self.sha256_hex
    }

    fn bytes(&self) -> Vec<u8> {
        let text = match (&self.utf8, &self.generator) {
            (Some(text), _) => text.clone(),
            (None, Some(part)) => format!("{}{}{}", part.prefix, part.unit.repeat(part.count), part.suffix),
            (None, None) => panic!("a body has neither utf8 nor a generator"),
        };
        assert!(self.matches(text.as_bytes()), "a body is not what its hash says");
        text.into_bytes()
    }
}

impl File {
    fn private(&self, name: &str) -> MerchantKey {
        MerchantKey::read(&self.keys[name].private_key_pkcs8_pem).unwrap()
    }

    fn public(&self, name: &str) -> ZolozKey {
        let pair = &self.keys[name];
        ZolozKey::read(pair.public_key_spki_der_b64.as_ref().unwrap_or(&pair.public_key_spki_pem)).unwrap()
    }

    fn auth(&self, response: &Response) -> Auth {
        match (&response.access_key, &response.secret_key) {
            (Some(id), Some(secret)) => Auth::AkSk(AccessKey::new(&(**id).into(), &(**secret).into()).unwrap()),
            _ => Auth::Rsa {
                merchant: Box::new(self.private(response.decrypt_key.as_deref().unwrap_or("merchant"))),
                zoloz: Box::new(self.public(response.verify_key.as_deref().unwrap_or("zoloz"))),
                encrypt: true,
            },
        }
    }

    /// Checks every case, and returns how many were met. An optional one that is not met is told and not counted.
    pub fn check(&self) -> usize {
        let mut met = 0;
        for case in &self.cases {
            match (self.outcome(case), case.optional) {
                (Ok(()), _) => met += 1,
                (Err(problem), true) => println!("{}: optional, and different here: {problem}", case.id),
                (Err(problem), false) => panic!("{}: {problem}", case.id),
            }
        }
        met
    }

    fn outcome(&self, case: &Case) -> Result<(), String> {
        match &case.kind {
            Kind::RsaRequestSign { input, expected } | Kind::RsaRequestEncryptSign { input, expected } => {
                self.rsa_request(input, expected)
            }
            Kind::AkskRequestSign { input, expected } => aksk_request(input, expected),
            Kind::RsaResponseVerify { input, expected } | Kind::AkskResponseVerify { input, expected } => {
                self.response(input, expected)
            }
        }
    }

    fn rsa_request(&self, input: &RsaRequest, expected: &RsaSigned) -> Result<(), String> {
        same("method", &*input.method, "POST")?;
        let plain = input.plaintext_body.bytes();
        let body = match &input.aes_key_hex {
            None => plain.clone(),
            Some(key) => cipher::encrypt(&hex::decode(key).unwrap(), &plain).unwrap().into_bytes(),
        };
        if let Some(wire) = &expected.wire_body {
            same("body on the wire", &body, &wire.bytes())?;
        }
        let content =
            Content { path: &input.path, client_id: &input.client_id, time: &input.request_time, body: &body };
        check_content(&content, &expected.content_to_sign)?;
        let signed = sign::rsa256(&self.private(&input.signing_key), &content).unwrap();
        let plain_value = percent_encoding::percent_decode_str(signed.split_once("signature=").unwrap().1);
        same("signature", &*plain_value.decode_utf8().unwrap(), &*expected.signature_b64)?;
        same("header Signature", &signed, &expected.headers["Signature"])?;

        let (Some(key), Some(to)) = (&input.aes_key_hex, &input.key_wrap_to) else { return Ok(()) };
        let (key, receiver) = (hex::decode(key).unwrap(), self.private(to));
        for sample in [
            expected.encrypt_header_sample.clone(),
            expected.wrapped_key_sample_b64.as_ref().map(|key| format!("symmetricKey={key},algorithm=RSA_AES")),
        ]
        .into_iter()
        .flatten()
        {
            same("wrapped key", &cipher::unwrap(&receiver, &sample), &Some(key.clone()))?;
        }
        // Ours is random, so it is read as the receiver would.
        let entropy = Entropy::seeded(1);
        let (sealed, header) = cipher::seal(&self.public(to), &entropy, &plain).unwrap();
        same("what the receiver reads", &*cipher::open(&receiver, &entropy, &header, sealed).unwrap(), &*plain)
    }

    fn response(&self, input: &Response, expected: &Verified) -> Result<(), String> {
        same("method", &*input.method, "POST")?;
        let headers: HeaderMap = input
            .headers
            .iter()
            .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap()))
            .collect();
        let body = input.wire_body.bytes();
        let auth = self.auth(input);
        let answer = HttpAnswer::new(StatusCode::OK, headers, Bytes::from(body.clone()));
        let read = match answer::verify(&auth, &input.path, &input.client_id, &answer) {
            Ok(()) => answer::read(&auth, &Entropy::seeded(1), answer),
            Err(refusal) => Err(refusal),
        };
        let stage = match &read {
            Ok(_) => None,
            Err(Refusal::Unsigned | Refusal::Signature) => Some("signature"),
            Err(Refusal::Unreadable) => Some("decrypt"),
        };
        same("accepted", &read.is_ok(), &expected.accept)?;
        if !expected.accept && expected.reject_stage.is_some() {
            same("stage of the refusal", &stage, &expected.reject_stage.as_deref())?;
        }
        match (read, &expected.plaintext_utf8) {
            (Ok(plain), Some(wanted)) => same("plain text", &*plain, wanted.as_bytes()),
            (Ok(plain), None) => same("body", &*plain, &*body),
            (Err(_), _) => Ok(()),
        }
    }
}

fn aksk_request(input: &AkskRequest, expected: &AkskSigned) -> Result<(), String> {
    same("method", &*input.method, "POST")?;
    let body = input.plaintext_body.bytes();
    let content = Content { path: &input.path, client_id: &input.client_id, time: &input.request_time, body: &body };
    check_content(&content, &expected.content_to_sign)?;
    let key = AccessKey::new(&(*input.access_key).into(), &(*input.secret_key).into()).unwrap();
    same("signature", &key.sign(&content), &expected.signature)
}

fn check_content(content: &Content<'_>, expected: &Text) -> Result<(), String> {
    let whole = content.parts().concat();
    if let Some(text) = &expected.utf8 {
        same("content to sign", &*String::from_utf8_lossy(&whole), &**text)?;
    }
    same("content to sign", &expected.matches(&whole), &true)
}

fn same<T: PartialEq + std::fmt::Debug + ?Sized>(what: &str, got: &T, wanted: &T) -> Result<(), String> {
    if got == wanted { Ok(()) } else { Err(format!("{what}: {got:?} instead of {wanted:?}")) }
}

mod altered {
    use proptest::prelude::*;

    use super::*;

    fn file() -> File {
        serde_json::from_str(include_str!("../../vectors/zoloz.json")).unwrap()
    }

    /// Body, time and signature of an answer that is accepted, with the account that accepts it.
    fn accepted(id: &str) -> (Auth, Response) {
        let file = file();
        let position = file.cases.iter().position(|case| case.id == id).unwrap();
        let auth = match &file.cases[position].kind {
            Kind::RsaResponseVerify { input, .. } | Kind::AkskResponseVerify { input, .. } => file.auth(input),
            _ => panic!("{id} is no answer"),
        };
        let (Kind::RsaResponseVerify { input, .. } | Kind::AkskResponseVerify { input, .. }) =
            file.cases.into_iter().nth(position).unwrap().kind
        else {
            unreachable!("checked above")
        };
        (auth, input)
    }

    fn verify(auth: &Auth, input: &Response, time: &str, signature: &str, body: &[u8]) -> Result<(), Refusal> {
        let mut headers = HeaderMap::new();
        for (name, value) in [("response-time", time), ("signature", signature)] {
            headers.insert(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let answer = HttpAnswer::new(StatusCode::OK, headers, Bytes::copy_from_slice(body));
        answer::verify(auth, &input.path, &input.client_id, &answer)
    }

    fn flipped(bytes: &[u8], at: prop::sample::Index, mask: u8) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        let index = at.index(bytes.len());
        bytes[index] ^= mask;
        bytes
    }

    proptest! {
        #[test]
        fn an_answer_with_any_byte_changed_is_refused(at: prop::sample::Index, mask in 1_u8.., character in 0_usize..64) {
            for id in ["zoloz-s08", "zoloz-s15", "zoloz-s17"] {
                let (auth, input) = accepted(id);
                let (body, time) = (input.wire_body.bytes(), &input.headers["Response-Time"]);
                let signature = &input.headers["Signature"];
                prop_assert_eq!(verify(&auth, &input, time, signature, &body), Ok(()));

                let other = flipped(&body, at, mask);
                prop_assert_eq!(verify(&auth, &input, time, signature, &other), Err(Refusal::Signature));

                // Within what a header may hold.
                let mut other = time.clone().into_bytes();
                let index = at.index(other.len());
                other[index] = b'!' + (other[index] - b'!' + 1 + mask % 93) % 94;
                let other = String::from_utf8(other).unwrap();
                prop_assert_ne!(&other, time);
                prop_assert_eq!(verify(&auth, &input, &other, signature, &body), Err(Refusal::Signature));

                // In the signature itself, below its encoding.
                let aksk = matches!(auth, Auth::AkSk(_));
                let other = if aksk {
                    let engine = base64::engine::general_purpose::URL_SAFE_NO_PAD;
                    engine.encode(flipped(&engine.decode(signature).unwrap(), at, mask))
                } else {
                    let value = signature.split_once("signature=").unwrap().1;
                    let raw = STANDARD.decode(percent_encoding::percent_decode_str(value).collect::<Vec<_>>()).unwrap();
                    format!("algorithm=RSA256, signature={}", STANDARD.encode(flipped(&raw, at, mask)))
                };
                prop_assert_eq!(verify(&auth, &input, time, &other, &body), Err(Refusal::Signature));

                // And one character of its text.
                let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
                let mut other = signature.clone().into_bytes();
                let index = at.index(other.len());
                let was = std::mem::replace(&mut other[index], alphabet[character]);
                // The digits of an escape and the names of items may be written in either case.
                if !was.eq_ignore_ascii_case(&alphabet[character]) {
                    let other = String::from_utf8(other).unwrap();
                    prop_assert!(verify(&auth, &input, time, &other, &body).is_err(), "{}", other);
                }
            }
        }
    }
}

//! Both signatures as the provider computes them, from what is signed to the bytes of the signature. Pure functions;
//! which parts of a request are signed is decided in `auth`.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, PercentEncode, utf8_percent_encode};
use sha1::Sha1;
use sha2::{Digest, Sha256};

pub(in crate::simulator) const ACS3: &str = "ACS3-HMAC-SHA256";

const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

fn percent(text: &str) -> PercentEncode<'_> {
    utf8_percent_encode(text, RESERVED)
}

/// The HMAC keys of one secret, prepared once.
pub(in crate::simulator) struct SigningKeys {
    rpc: Hmac<Sha1>,
    acs3: Hmac<Sha256>,
}

impl SigningKeys {
    pub(in crate::simulator) fn new(secret: &str) -> Self {
        let any_length = "HMAC takes keys of any length";
        Self {
            rpc: Hmac::new_from_slice(format!("{secret}&").as_bytes()).expect(any_length),
            acs3: Hmac::new_from_slice(secret.as_bytes()).expect(any_length),
        }
    }

    pub(super) fn rpc_matches(&self, string_to_sign: &str, signature: &str) -> bool {
        let Ok(signature) = STANDARD.decode(signature) else { return false };
        self.rpc.clone().chain_update(string_to_sign).verify_slice(&signature).is_ok()
    }

    pub(super) fn acs3_matches(&self, string_to_sign: &str, signature: &str) -> bool {
        let Ok(signature) = hex::decode(signature) else { return false };
        self.acs3.clone().chain_update(string_to_sign).verify_slice(&signature).is_ok()
    }

    #[cfg(test)]
    pub(in crate::simulator) fn rpc_signature(&self, string_to_sign: &str) -> String {
        STANDARD.encode(self.rpc.clone().chain_update(string_to_sign).finalize().into_bytes())
    }

    #[cfg(test)]
    pub(in crate::simulator) fn acs3_signature(&self, string_to_sign: &str) -> String {
        hex::encode(self.acs3.clone().chain_update(string_to_sign).finalize().into_bytes())
    }
}

/// Sorts by name. What is equal keeps its order.
fn sorted<'a>(parameters: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<(&'a str, &'a str)> {
    let mut parameters: Vec<_> = parameters.collect();
    parameters.sort_by_key(|(name, _)| *name);
    parameters
}

/// The string to sign of HMAC-SHA1; `parameters` are those of query and form, without `Signature`.
pub(in crate::simulator) fn rpc_string_to_sign<'a>(
    method: &str,
    parameters: impl Iterator<Item = (&'a str, &'a str)>,
) -> String {
    let mut canonical = String::with_capacity(512);
    for (name, value) in sorted(parameters) {
        let separator = if canonical.is_empty() { "" } else { "&" };
        let _ = write!(canonical, "{separator}{}={}", percent(name), percent(value));
    }
    format!("{method}&%2F&{}", percent(&canonical))
}

/// The canonical request of ACS3; `headers` are the signed ones, lower-case, trimmed and in name order.
pub(in crate::simulator) fn acs3_canonical_request<'a>(
    method: &str,
    query: impl Iterator<Item = (&'a str, &'a str)>,
    headers: &[(&str, String)],
    body_sha256: &str,
) -> String {
    let mut text = String::with_capacity(1024);
    text.push_str(method);
    text.push_str("\n/\n");
    for (index, (name, value)) in sorted(query).into_iter().enumerate() {
        let separator = if index == 0 { "" } else { "&" };
        let _ = write!(text, "{separator}{name}={}", percent(value));
    }
    text.push('\n');
    for (name, value) in headers {
        let _ = writeln!(text, "{name}:{value}");
    }
    text.push('\n');
    for (index, (name, _)) in headers.iter().enumerate() {
        if index > 0 {
            text.push(';');
        }
        text.push_str(name);
    }
    text.push('\n');
    text.push_str(body_sha256);
    text
}

pub(in crate::simulator) fn acs3_string_to_sign(canonical_request: &str) -> String {
    format!("{ACS3}\n{}", sha256_hex(canonical_request.as_bytes()))
}

pub(in crate::simulator) fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    struct Vectors<T> {
        count: usize,
        vectors: Vec<T>,
    }

    #[derive(Deserialize)]
    struct RpcVector {
        name: String,
        method: String,
        access_key_secret: String,
        all_signed_params: BTreeMap<String, String>,
        string_to_sign: String,
        signature: String,
    }

    #[derive(Deserialize)]
    struct Acs3Vector {
        name: String,
        method: String,
        access_key_secret: String,
        query_params: BTreeMap<String, String>,
        body: Option<String>,
        body_sha256: String,
        signed_headers: String,
        headers_to_sign: BTreeMap<String, String>,
        canonical_request: String,
        string_to_sign: String,
        signature: String,
    }

    fn pairs(map: &BTreeMap<String, String>) -> impl Iterator<Item = (&str, &str)> {
        // Backwards, so that the order is the work of the code under test.
        map.iter().rev().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    #[test]
    fn hmac_sha1_agrees_with_every_published_vector() {
        let file = include_str!("../../../tests/vectors/alibaba-rpc-v1.json");
        let Vectors { count, vectors } = serde_json::from_str::<Vectors<RpcVector>>(file).unwrap();
        assert_eq!(vectors.len(), count);
        for vector in vectors {
            let text = rpc_string_to_sign(&vector.method, pairs(&vector.all_signed_params));
            assert_eq!(text, vector.string_to_sign, "{}", vector.name);
            let keys = SigningKeys::new(&vector.access_key_secret);
            assert_eq!(keys.rpc_signature(&text), vector.signature, "{}", vector.name);
            assert!(keys.rpc_matches(&text, &vector.signature), "{}", vector.name);
            assert!(!SigningKeys::new("other").rpc_matches(&text, &vector.signature), "{}", vector.name);
        }
    }

    #[test]
    fn acs3_agrees_with_every_published_vector() {
        let file = include_str!("../../../tests/vectors/alibaba-acs3.json");
        let Vectors { count, vectors } = serde_json::from_str::<Vectors<Acs3Vector>>(file).unwrap();
        assert_eq!(vectors.len(), count);
        for vector in vectors {
            let body_sha256 = sha256_hex(vector.body.as_deref().unwrap_or("").as_bytes());
            assert_eq!(body_sha256, vector.body_sha256, "{}", vector.name);
            let headers: Vec<_> = vector
                .signed_headers
                .split(';')
                .map(|name| (name, vector.headers_to_sign[name].trim().to_owned()))
                .collect();
            let canonical = acs3_canonical_request(&vector.method, pairs(&vector.query_params), &headers, &body_sha256);
            assert_eq!(canonical, vector.canonical_request, "{}", vector.name);
            let text = acs3_string_to_sign(&canonical);
            assert_eq!(text, vector.string_to_sign, "{}", vector.name);
            let keys = SigningKeys::new(&vector.access_key_secret);
            assert_eq!(keys.acs3_signature(&text), vector.signature, "{}", vector.name);
            assert!(keys.acs3_matches(&text, &vector.signature), "{}", vector.name);
            assert!(!keys.acs3_matches(&text, "not hex"), "{}", vector.name);
        }
    }

    #[test]
    fn the_example_of_the_documentation_is_reproduced() {
        let parameters = [
            ("Version", "2014-05-26"),
            ("Action", "DescribeRegions"),
            ("Format", "XML"),
            ("AccessKeyId", "testid"),
            ("SignatureMethod", "HMAC-SHA1"),
            ("SignatureVersion", "1.0"),
            ("SignatureNonce", "3ee8c1b8-83d3-44af-a94f-4e0ad82fd6cf"),
            ("Timestamp", "2016-02-23T12:46:24Z"),
        ];
        let text = rpc_string_to_sign("GET", parameters.into_iter());
        assert_eq!(SigningKeys::new("testsecret").rpc_signature(&text), "OLeaidS1JvxuMvnyHOwuJ+uX5qY=");
    }
}

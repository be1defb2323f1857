//! The provider's two signatures as pure functions of request, time, nonce and key: ACS3-HMAC-SHA256 (the
//! default) and HMAC-SHA1 for RPC, which the provider marks as discontinued but still takes.
//!
//! What is signed here is exactly what is sent: the query and the `Authorization` returned go onto the wire as
//! they are. Rules: Alibaba Cloud, "V3 request body & signature" and "V2 RPC-style request & signature".

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};
use hmac::{Hmac, KeyInit, Mac};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::ExposeSecret;
use sha1::Sha1;
use sha2::{Digest, Sha256};

use super::credentials::Credentials;
use crate::provider::utc_seconds;

pub const FORM_TYPE: &str = "application/x-www-form-urlencoded";

/// SHA-256 of nothing: most calls have no body.
const EMPTY_SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// Everything but letters, digits and `-_.~` is escaped.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

pub type Parameter<'a> = (&'a str, &'a str);

/// A key ready to sign: both keyed hashes are prepared once, so that a call only copies them.
#[derive(Clone)]
pub struct Signer {
    credentials: Credentials,
    acs3: Hmac<Sha256>,
    rpc: Hmac<Sha1>,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Signer").field(&self.credentials).finish()
    }
}

/// A request to be signed with ACS3. The path is always `/`.
pub struct Acs3Request<'a> {
    pub method: &'a str,
    /// The `Host` header as sent.
    pub host: &'a str,
    pub action: &'a str,
    pub version: &'a str,
    pub time: DateTime<Utc>,
    pub nonce: &'a str,
    pub query: &'a [Parameter<'a>],
    pub content_type: Option<&'a str>,
    pub body: &'a [u8],
    /// Further headers to sign, by lower-case name.
    pub headers: &'a [Parameter<'a>],
}

/// An ACS3 signature with what it was made of.
pub struct Acs3Signed {
    /// The query to send.
    pub query: String,
    /// `x-acs-date` and `x-acs-content-sha256` to send.
    pub date: String,
    pub body_sha256: String,
    pub canonical_request: String,
    pub string_to_sign: String,
    pub signature: String,
    /// The value of `Authorization` to send.
    pub authorization: String,
}

/// An RPC signature with what it was made of.
pub struct RpcSigned {
    pub string_to_sign: String,
    /// The value of the parameter `Signature`.
    pub signature: String,
}

impl Signer {
    pub fn new(credentials: Credentials) -> Self {
        let secret = credentials.access_key_secret().expose_secret();
        let acs3 = Hmac::new_from_slice(secret.as_bytes()).expect("an HMAC key may have any length");
        let rpc = Hmac::new_from_slice(format!("{secret}&").as_bytes()).expect("an HMAC key may have any length");
        Self { credentials, acs3, rpc }
    }

    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    pub fn acs3(&self, request: &Acs3Request<'_>) -> Acs3Signed {
        let query = acs3_query(request.query);
        let date = timestamp(request.time);
        let body_sha256 = body_sha256(request.body);

        let mut headers: Vec<Parameter<'_>> = Vec::with_capacity(10 + request.headers.len());
        headers.extend([
            ("host", request.host),
            ("x-acs-action", request.action),
            ("x-acs-content-sha256", &*body_sha256),
            ("x-acs-date", &*date),
            ("x-acs-signature-nonce", request.nonce),
            ("x-acs-version", request.version),
        ]);
        headers.extend(request.content_type.map(|kind| ("content-type", kind)));
        if let Some(token) = self.credentials.security_token() {
            headers.push(("x-acs-accesskey-id", self.credentials.access_key_id()));
            headers.push(("x-acs-security-token", token.expose_secret()));
        }
        headers.extend_from_slice(request.headers);
        headers.sort_unstable_by_key(|(name, _)| *name);

        let mut names = String::with_capacity(128);
        let mut canonical = String::with_capacity(512 + query.len());
        for part in [request.method, "\n/\n", &*query, "\n"] {
            canonical.push_str(part);
        }
        for (name, value) in &headers {
            for part in [*name, ":", value.trim(), "\n"] {
                canonical.push_str(part);
            }
            if !names.is_empty() {
                names.push(';');
            }
            names.push_str(name);
        }
        for part in ["\n", &*names, "\n", &*body_sha256] {
            canonical.push_str(part);
        }

        let mut string_to_sign = String::with_capacity(81);
        string_to_sign.push_str("ACS3-HMAC-SHA256\n");
        push_hex(&mut string_to_sign, &Sha256::digest(canonical.as_bytes()));
        let mut signature = String::with_capacity(64);
        push_hex(&mut signature, &self.acs3.clone().chain_update(string_to_sign.as_bytes()).finalize().into_bytes());
        let id = self.credentials.access_key_id();
        let mut authorization = String::with_capacity(128 + id.len() + names.len());
        for part in ["ACS3-HMAC-SHA256 Credential=", id, ",SignedHeaders=", &*names, ",Signature=", &*signature] {
            authorization.push_str(part);
        }
        Acs3Signed { query, date, body_sha256, canonical_request: canonical, string_to_sign, signature, authorization }
    }

    /// The parameters that every RPC call carries beside the operation's own. `date` is a [`timestamp`].
    pub fn rpc_parameters<'a>(
        &'a self,
        action: &'a str,
        version: &'a str,
        date: &'a str,
        nonce: &'a str,
    ) -> Vec<Parameter<'a>> {
        // Room for the operation's own parameters and the signature.
        let mut parameters = Vec::with_capacity(16);
        parameters.extend([
            ("AccessKeyId", self.credentials.access_key_id()),
            ("Action", action),
            ("Format", "JSON"),
            ("SignatureMethod", "HMAC-SHA1"),
            ("SignatureNonce", nonce),
            ("SignatureVersion", "1.0"),
            ("Timestamp", date),
            ("Version", version),
        ]);
        parameters.extend(self.credentials.security_token().map(|token| ("SecurityToken", token.expose_secret())));
        parameters
    }

    /// Signs all parameters of an RPC call, those of its query and those of its form.
    pub fn rpc(&self, method: &str, parameters: &[Parameter<'_>]) -> RpcSigned {
        let canonical = encoded(&sorted(parameters));
        let mut string_to_sign = String::with_capacity(16 + canonical.len() * 3 / 2);
        for part in [method, "&%2F&"] {
            string_to_sign.push_str(part);
        }
        push_escaped(&mut string_to_sign, &canonical);
        let mac = self.rpc.clone().chain_update(string_to_sign.as_bytes()).finalize().into_bytes();
        RpcSigned { string_to_sign, signature: STANDARD.encode(mac) }
    }
}

/// `YYYY-MM-DDThh:mm:ssZ`, as both signatures want it.
pub fn timestamp(time: DateTime<Utc>) -> String {
    utc_seconds(time, "Z")
}

/// `name=value` pairs as sent in a query or a form body.
pub fn encoded(parameters: &[Parameter<'_>]) -> String {
    let mut text = String::with_capacity(parameters.iter().map(|(name, value)| name.len() + value.len() + 12).sum());
    for (name, value) in parameters {
        if !text.is_empty() {
            text.push('&');
        }
        push_escaped(&mut text, name);
        text.push('=');
        push_escaped(&mut text, value);
    }
    text
}

fn acs3_query(parameters: &[Parameter<'_>]) -> String {
    // The provider's own SDKs leave names as they are here; ours hold nothing to escape.
    let mut text = String::with_capacity(parameters.iter().map(|(name, value)| name.len() + value.len() + 12).sum());
    for (name, value) in sorted(parameters) {
        if !text.is_empty() {
            text.push('&');
        }
        text.push_str(name);
        text.push('=');
        push_escaped(&mut text, value);
    }
    text
}

fn sorted<'a>(parameters: &[Parameter<'a>]) -> Vec<Parameter<'a>> {
    let mut parameters = parameters.to_vec();
    parameters.sort_unstable();
    parameters
}

fn push_escaped(text: &mut String, part: &str) {
    text.extend(utf8_percent_encode(part, ESCAPED));
}

fn body_sha256(body: &[u8]) -> String {
    if body.is_empty() {
        return EMPTY_SHA256.to_owned();
    }
    let mut text = String::with_capacity(64);
    push_hex(&mut text, &Sha256::digest(body));
    text
}

fn push_hex(text: &mut String, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signer(id: &str, secret: &str, token: Option<&str>) -> Signer {
        Signer::new(Credentials::new(id.to_owned(), secret.into(), token.map(Into::into)).unwrap())
    }

    fn time(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    /// The provider's own example, "V3 request body & signature".
    #[test]
    fn the_providers_acs3_example_comes_out() {
        let signed = signer("YourAccessKeyId", "YourAccessKeySecret", None).acs3(&Acs3Request {
            method: "POST",
            host: "ecs.cn-shanghai.aliyuncs.com",
            action: "RunInstances",
            version: "2014-05-26",
            time: time("2023-10-26T10:22:32Z"),
            nonce: "3156853299f313e23d1673dc12e1703d",
            query: &[("RegionId", "cn-shanghai"), ("ImageId", "win2019_1809_x64_dtc_zh-cn_40G_alibase_20230811.vhd")],
            content_type: None,
            body: b"",
            headers: &[],
        });
        assert_eq!(signed.signature, "06563a9e1b43f5dfe96b81484da74bceab24a1d853912eee15083a6f0f3283c0");
    }

    /// The provider's own example, "V2 RPC-style request & signature".
    #[test]
    fn the_providers_rpc_example_comes_out() {
        let signer = signer("testid", "testsecret", None);
        let date = timestamp(time("2016-02-23T12:46:24Z"));
        let mut parameters =
            signer.rpc_parameters("DescribeRegions", "2014-05-26", &date, "3ee8c1b8-83d3-44af-a94f-4e0ad82fd6cf");
        for parameter in &mut parameters {
            if parameter.0 == "Format" {
                parameter.1 = "XML";
            }
        }
        assert_eq!(signer.rpc("GET", &parameters).signature, "OLeaidS1JvxuMvnyHOwuJ+uX5qY=");
    }

    #[test]
    fn a_time_is_written_with_leading_zeros_and_without_fractions() {
        assert_eq!(timestamp(time("2026-01-05T08:03:02.987654Z")), "2026-01-05T08:03:02Z");
    }

    #[test]
    fn debug_output_shows_no_key() {
        let shown = format!("{:?}", signer("id", "CANARY-SECRET", Some("CANARY-TOKEN")));
        assert!(shown.contains("id") && !shown.contains("CANARY"), "{shown}");
    }
}

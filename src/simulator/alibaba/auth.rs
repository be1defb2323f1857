//! Who calls: access key, time, signature, nonce, in this order. A nonce is used up only by a call that was signed
//! rightly, so that nobody else can fill the memory of nonces.

use axum::http::header;
use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use secrecy::{ExposeSecret, SecretString};

use super::nonces::Nonces;
use super::refusal::Refusal;
use super::request::{ApiRequest, Scheme};
use super::sign::{self, SigningKeys};

/// How far a caller's clock may be off.
const WINDOW: TimeDelta = TimeDelta::minutes(15);
const EMPTY_SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

pub(super) struct Auth {
    access_key_id: String,
    /// When set, the token every call must carry; else any token is taken.
    security_token: Option<SecretString>,
    keys: SigningKeys,
    nonces: Nonces,
}

impl Auth {
    pub(super) fn new(access_key_id: String, secret: &SecretString, security_token: Option<SecretString>) -> Self {
        let keys = SigningKeys::new(secret.expose_secret());
        Self { access_key_id, security_token, keys, nonces: Nonces::new() }
    }

    pub(super) fn check(&self, request: &ApiRequest<'_>, now: DateTime<Utc>) -> Result<(), Refusal> {
        let (key_id, signature) = match request.scheme {
            Scheme::Acs3 => {
                let (key_id, signature) = Acs3Header::read(request)?;
                (key_id, Signature::Acs3(signature))
            }
            Scheme::Rpc => rpc_header(request)?,
        };
        if key_id != self.access_key_id {
            return Err(Refusal::new("InvalidAccessKeyId.NotFound"));
        }
        if let Some(wanted) = &self.security_token
            && request.common("x-acs-security-token", "SecurityToken") != Some(wanted.expose_secret())
        {
            return Err(Refusal::new("InvalidSecurityToken"));
        }
        let (date_name, nonce_name) = match request.scheme {
            Scheme::Acs3 => ("x-acs-date", "x-acs-signature-nonce"),
            Scheme::Rpc => ("Timestamp", "SignatureNonce"),
        };
        let date = request.common(date_name, date_name).ok_or_else(|| Refusal::missing(date_name))?;
        let nonce = request.common(nonce_name, nonce_name).ok_or_else(|| Refusal::missing(nonce_name))?;
        let signed_at = timestamp(date).ok_or_else(|| Refusal::new("InvalidTimeStamp.Format"))?;
        if (now - signed_at).abs() > WINDOW {
            return Err(Refusal::new("InvalidTimeStamp.Expired"));
        }
        match signature {
            Signature::Acs3(header) => self.check_acs3(request, &header)?,
            Signature::Rpc(signature) => {
                let signed = request.parameters().filter(|(name, _)| *name != "Signature");
                let text = sign::rpc_string_to_sign(request.method.as_str(), signed);
                if !self.keys.rpc_matches(&text, signature) {
                    return Err(mismatch(&text));
                }
            }
        }
        if self.nonces.use_up(nonce, now) { Ok(()) } else { Err(Refusal::new("SignatureNonceUsed")) }
    }

    fn check_acs3(&self, request: &ApiRequest<'_>, header: &Acs3Header<'_>) -> Result<(), Refusal> {
        let name = "x-acs-content-sha256";
        let claimed = request.header(name).ok_or_else(|| Refusal::missing(name))?;
        let matches =
            if request.body.is_empty() { claimed == EMPTY_SHA256 } else { claimed == sign::sha256_hex(request.body) };
        if !matches {
            return Err(
                Refusal::new("SignatureDoesNotMatch").saying("x-acs-content-sha256 is not the hash of the body.")
            );
        }
        for name in request.headers.keys().map(header::HeaderName::as_str) {
            let must = name == "host" || name == "content-type" || name.starts_with("x-acs-");
            if must && !header.signed.contains(&name) {
                return Err(Refusal::new("SignatureDoesNotMatch").saying(format!("The header {name} is not signed.")));
            }
        }
        let mut signed = Vec::with_capacity(header.signed.len());
        for name in &header.signed {
            let mut values = request.headers.get_all(*name).iter();
            let first = values.next().ok_or_else(|| Refusal::missing(name))?;
            let mut text = String::from_utf8_lossy(first.as_bytes()).trim().to_owned();
            for value in values {
                text.push(',');
                text.push_str(String::from_utf8_lossy(value.as_bytes()).trim());
            }
            signed.push((*name, text));
        }
        let canonical = sign::acs3_canonical_request(request.method.as_str(), request.query(), &signed, claimed);
        let text = sign::acs3_string_to_sign(&canonical);
        if self.keys.acs3_matches(&text, header.signature) { Ok(()) } else { Err(mismatch(&text)) }
    }
}

/// The provider shows what it would have signed, which for HMAC-SHA1 holds every parameter of the caller.
fn mismatch(string_to_sign: &str) -> Refusal {
    Refusal::new("SignatureDoesNotMatch").saying(format!(
        "Specified signature does not match our calculation. server string to sign is:{string_to_sign}"
    ))
}

enum Signature<'a> {
    Acs3(Acs3Header<'a>),
    Rpc(&'a str),
}

struct Acs3Header<'a> {
    /// In name order, whatever the order in the header.
    signed: Vec<&'a str>,
    signature: &'a str,
}

impl<'a> Acs3Header<'a> {
    /// `ACS3-HMAC-SHA256 Credential=<id>,SignedHeaders=<a;b;c>,Signature=<hex>`
    fn read(request: &'a ApiRequest<'_>) -> Result<(&'a str, Self), Refusal> {
        let rest = request.header("authorization").and_then(|text| text.strip_prefix(sign::ACS3)).unwrap_or("");
        let part = |name: &str| {
            let found = rest.split(',').find_map(|part| part.trim().strip_prefix(name)?.strip_prefix('='));
            found.filter(|value| !value.is_empty()).ok_or_else(|| Refusal::missing(name))
        };
        let key_id = part("Credential")?;
        let mut signed: Vec<_> = part("SignedHeaders")?.split(';').collect();
        signed.sort_unstable();
        Ok((key_id, Self { signed, signature: part("Signature")? }))
    }
}

fn rpc_header<'a>(request: &'a ApiRequest<'_>) -> Result<(&'a str, Signature<'a>), Refusal> {
    let need = |name: &str| request.parameter(name).ok_or_else(|| Refusal::missing(name));
    let key_id = need("AccessKeyId")?;
    if need("SignatureMethod")? != "HMAC-SHA1" {
        return Err(Refusal::invalid("SignatureMethod"));
    }
    if need("SignatureVersion")? != "1.0" {
        return Err(Refusal::invalid("SignatureVersion"));
    }
    Ok((key_id, Signature::Rpc(need("Signature")?)))
}

/// `YYYY-MM-DDThh:mm:ssZ` and nothing else.
fn timestamp(text: &str) -> Option<DateTime<Utc>> {
    let bytes: &[u8; 20] = text.as_bytes().try_into().ok()?;
    let punctuation = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':'), (19, b'Z')];
    if punctuation.iter().any(|(at, wanted)| bytes[*at] != *wanted) {
        return None;
    }
    let number = |from: usize, to: usize| {
        bytes[from..to]
            .iter()
            .try_fold(0_u32, |sum, digit| digit.is_ascii_digit().then(|| sum * 10 + u32::from(digit - b'0')))
    };
    let year = i32::try_from(number(0, 4)?).ok()?;
    let date = NaiveDate::from_ymd_opt(year, number(5, 7)?, number(8, 10)?)?;
    Some(date.and_hms_opt(number(11, 13)?, number(14, 16)?, number(17, 19)?)?.and_utc())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_documented_form_of_a_time_is_taken() {
        assert_eq!(timestamp("2016-02-23T12:46:24Z").unwrap().timestamp(), 1_456_231_584);
        for wrong in [
            "",
            "2016-02-23 12:46:24Z",
            "2016-02-23T12:46:24+00:00",
            "2016-02-30T12:46:24Z",
            "2016-02-23T24:46:24Z",
            "2016-02-23T12:46:24.1Z",
            "201+-02-23T12:46:24Z",
        ] {
            assert_eq!(timestamp(wrong), None, "{wrong}");
        }
    }
}

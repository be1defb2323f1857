//! Accounts with ZOLOZ.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::required;
use crate::config::reader::{Outcome, Reader};
use crate::config::urls;

pub(super) const KEYS: [&str; 7] =
    ["client_id", "auth", "merchant_private_key", "zoloz_public_key", "encrypt", "access_key", "secret_key"];

#[derive(Clone, Debug)]
pub struct ZolozAccount {
    pub endpoint: Url,
    pub client_id: String,
    pub auth: ZolozAuth,
}

#[derive(Clone, Debug)]
pub enum ZolozAuth {
    Rsa {
        /// PEM or Base64 DER.
        merchant_private_key: SecretString,
        /// PEM or Base64 DER. No secret; it is kept like one because it comes the same way.
        zoloz_public_key: SecretString,
        encrypt: bool,
    },
    /// Without encryption of messages.
    AkSk { access_key: SecretString, secret_key: SecretString },
}

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Rsa,
    AkSk,
}

impl ZolozAccount {
    pub(super) fn read(reader: &mut Reader<'_>, allow_http: bool) -> Outcome<Self> {
        let endpoint = reader.parsed("endpoint", "", |text| match text {
            "" => Err("is missing; set it to your site's, such as https://sg-production-api.zoloz.com"),
            text => urls::endpoint(text, allow_http),
        });
        let client_id = reader.parsed("client_id", "", |text| {
            let sound = (1..=64).contains(&text.len()) && text.bytes().all(|letter| letter.is_ascii_alphanumeric());
            if sound { Ok(text.to_owned()) } else { Err("must be the client id that ZOLOZ gave you, 16 digits") }
        });
        let auth = match reader.choice("auth", &[("rsa", Mode::Rsa), ("aksk", Mode::AkSk)], "rsa") {
            Ok(Mode::Rsa) => Self::read_rsa(reader),
            Ok(Mode::AkSk) => Self::read_aksk(reader),
            Err(reported) => Err(reported),
        };
        Ok(Self { endpoint: endpoint?, client_id: client_id?, auth: auth? })
    }

    fn read_rsa(reader: &mut Reader<'_>) -> Outcome<ZolozAuth> {
        let unused = unused(reader, &["access_key", "secret_key"], "rsa");
        let merchant_private_key = key(reader, "merchant_private_key");
        let zoloz_public_key = key(reader, "zoloz_public_key");
        let encrypt = reader.flag("encrypt", true);
        unused?;
        Ok(ZolozAuth::Rsa {
            merchant_private_key: merchant_private_key?,
            zoloz_public_key: zoloz_public_key?,
            encrypt: encrypt?,
        })
    }

    fn read_aksk(reader: &mut Reader<'_>) -> Outcome<ZolozAuth> {
        let unused = unused(reader, &["merchant_private_key", "zoloz_public_key"], "aksk");
        let access_key = required(reader, "access_key", "auth = \"aksk\"");
        let secret_key = required(reader, "secret_key", "auth = \"aksk\"");
        let encrypt = match reader.flag("encrypt", false) {
            Ok(true) => Err(reader.problem("encrypt", "is true, but auth = \"aksk\" has no encryption; remove it")),
            other => other,
        };
        unused?;
        encrypt?;
        Ok(ZolozAuth::AkSk { access_key: access_key?, secret_key: secret_key? })
    }
}

/// Keys of the other mode are most likely a forgotten change of `auth`.
fn unused(reader: &mut Reader<'_>, keys: &[&str], mode: &str) -> Outcome<()> {
    let mut outcome = Ok(());
    for key in keys {
        if reader.is_given(key) {
            outcome =
                Err(reader
                    .problem(key, format!("is set, but auth = \"{mode}\" does not use it; remove it or change auth")));
        }
    }
    outcome
}

/// Looks at the wrapping alone; the adapter reads the key itself.
fn key(reader: &mut Reader<'_>, name: &str) -> Outcome<SecretString> {
    let key = required(reader, name, "auth = \"rsa\"")?;
    let text = key.expose_secret();
    let plain: String = text.split_whitespace().collect();
    if text.contains("-----BEGIN ") || STANDARD.decode(plain).is_ok() {
        Ok(key)
    } else {
        Err(reader.problem(name, "must be a key in PEM or Base64 DER"))
    }
}

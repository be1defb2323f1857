//! `[accounts.<name>]`: accounts with the providers. What the kinds have in common is here.

mod alibaba;
mod zoloz;

use std::collections::BTreeMap;
use std::time::Duration;

use secrecy::SecretString;

use super::reader::{Outcome, Reader, Reported};
use super::schema::{self, Field, Shape, field, nearest};

pub use alibaba::{AccessKey, AlibabaAccount, Network, REGIONS, Region, Signature};
pub use zoloz::{ZolozAccount, ZolozAuth};

/// The keys of all kinds.
pub(super) const FIELDS: &[Field] = &[
    field("kind", Shape::Value),
    field("region", Shape::Value),
    field("network", Shape::Value),
    field("endpoint", Shape::Value),
    field("allow_http", Shape::Value),
    field("signature", Shape::Value),
    field("access_key_id", Shape::Secret),
    field("access_key_secret", Shape::Secret),
    field("return_images", Shape::Value),
    field("video_retention", Shape::Value),
    field("download_hosts", Shape::Values),
    field("client_id", Shape::Value),
    field("auth", Shape::Value),
    field("merchant_private_key", Shape::Secret),
    field("zoloz_public_key", Shape::Secret),
    field("encrypt", Shape::Value),
    field("access_key", Shape::Secret),
    field("secret_key", Shape::Secret),
    field("qps", Shape::Value),
    field("callback_token", Shape::Secret),
    field("result_retention", Shape::Value),
    field("give_up_after", Shape::Value),
];

const COMMON: [&str; 8] =
    ["kind", "endpoint", "allow_http", "qps", "return_images", "callback_token", "result_retention", "give_up_after"];

const QPS_DEFAULT: u32 = 10;
const QPS_HIGHEST: u32 = 1_000_000;
const SHORTEST_TOKEN: usize = 16;

#[derive(Clone, Debug)]
pub struct Account {
    pub kind: AccountKind,
    /// Calls a second, over all replicas and operations.
    pub qps: u32,
    /// The endpoint may be plain http.
    pub allow_http: bool,
    /// Ask for the images with the result, and keep them.
    pub return_images: bool,
    /// How long the provider keeps a result, from the first callback on.
    pub result_retention: Duration,
    pub video_retention: Duration,
    /// A verification that nobody completed for so long after registration is void.
    pub give_up_after: Duration,
    /// For verifications without a token of their own.
    pub callback_token: Option<SecretString>,
}

#[derive(Clone, Debug)]
pub enum AccountKind {
    Alibaba(AlibabaAccount),
    Zoloz(ZolozAccount),
}

impl AccountKind {
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Alibaba(_) => "alibaba",
            Self::Zoloz(_) => "zoloz",
        }
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Alibaba,
    Zoloz,
}

pub(super) fn read_all(reader: &mut Reader<'_>) -> Outcome<BTreeMap<String, Account>> {
    let accounts = reader.named("accounts", |reader, name, names| {
        let named = check_name(reader, name, names);
        let account = Account::read(reader, name, names);
        named.and(account)
    });
    Ok(accounts?.into_iter().collect())
}

fn check_name(reader: &mut Reader<'_>, name: &str, names: &[&str]) -> Outcome<()> {
    let mut letters = name.bytes();
    let word = |letter: u8| letter.is_ascii_lowercase() || letter.is_ascii_digit();
    let sound = letters.next().is_some_and(word)
        && letters.all(|letter| word(letter) || matches!(letter, b'-' | b'_'))
        && name.len() <= 63;
    if !sound {
        let message =
            "is no name for an account; use a-z, 0-9, `-` and `_`, beginning with one of a-z, 0-9, at most 63";
        return Err(reader.problem_here(message));
    }
    let plain = |name: &str| name.replace('-', "_");
    match names.iter().find(|other| **other < name && plain(other) == plain(name)) {
        Some(other) => {
            let message = format!(
                "is the same name as {other} in environment variables, where `-` is written `_`; rename one of them"
            );
            Err(reader.problem_here(message))
        }
        None => Ok(()),
    }
}

impl Account {
    fn read(reader: &mut Reader<'_>, name: &str, names: &[&str]) -> Outcome<Self> {
        if !reader.is_given("kind") {
            reader.check_keys(FIELDS);
            let others = names.iter().copied().filter(|other| *other != name);
            let message = match nearest(name, others) {
                // Most likely a typing error in the name of a variable, which then makes an account of its own.
                Some(near) if reader.is_from_environment() => {
                    format!("is missing; no file has this account, did you mean `{near}`?")
                }
                _ => "is missing; set it to \"alibaba\" or \"zoloz\"".into(),
            };
            return Err(reader.problem("kind", message));
        }
        let kind = match reader.choice("kind", &[("alibaba", Kind::Alibaba), ("zoloz", Kind::Zoloz)], "") {
            Ok(kind) => kind,
            Err(reported) => {
                reader.check_keys(FIELDS);
                return Err(reported);
            }
        };
        let (own, other): (&[&str], &str) = match kind {
            Kind::Alibaba => (&alibaba::KEYS, "zoloz"),
            Kind::Zoloz => (&zoloz::KEYS, "alibaba"),
        };
        reader.check_keys(FIELDS);
        let mut misplaced = Ok(());
        for field in FIELDS {
            let belongs = COMMON.contains(&field.name) || own.contains(&field.name);
            if !belongs && reader.is_given(field.name) {
                misplaced =
                    Err(reader.problem(field.name, format!("is a key of accounts of the kind {other}; remove it")));
            }
        }

        let allow_http = reader.flag("allow_http", false);
        // Without a sound `allow_http` the endpoint is read as if it were allowed: one problem is enough.
        let http = allow_http.unwrap_or(true);
        let (kind, qps_default) = match kind {
            Kind::Alibaba => {
                let account = AlibabaAccount::read(reader, http);
                let qps = account.as_ref().ok().and_then(AlibabaAccount::region_qps);
                (account.map(AccountKind::Alibaba), qps.unwrap_or(QPS_DEFAULT))
            }
            Kind::Zoloz => (ZolozAccount::read(reader, http).map(AccountKind::Zoloz), QPS_DEFAULT),
        };
        let qps = reader.number("qps", 1..=QPS_HIGHEST, qps_default);
        let return_images = reader.flag("return_images", true);
        let callback_token = reader.checked_secret("callback_token", |token| {
            if token.chars().count() < SHORTEST_TOKEN {
                return Err("must have at least 16 characters, so that nobody guesses it");
            }
            if token.chars().any(char::is_control) {
                return Err("must be one line without control characters");
            }
            Ok(())
        });
        let result_retention = reader.duration("result_retention", "30d");
        let video_retention = match &kind {
            Ok(AccountKind::Zoloz(_)) => Ok(alibaba::VIDEO_RETENTION),
            _ => reader.duration("video_retention", alibaba::VIDEO_RETENTION_TEXT),
        };
        let give_up_after = reader.duration("give_up_after", "24h");
        misplaced?;
        Ok(Self {
            kind: kind?,
            qps: qps?,
            allow_http: allow_http?,
            return_images: return_images?,
            result_retention: result_retention?,
            video_retention: video_retention?,
            give_up_after: give_up_after?,
            callback_token: callback_token?,
        })
    }
}

/// A secret that this kind of account cannot be without.
fn required(reader: &mut Reader<'_>, key: &str, why: &str) -> Result<SecretString, Reported> {
    match reader.secret(key)? {
        Some(secret) => Ok(secret),
        None => Err(reader.problem(key, format!("is missing; {why} needs it (or {key}{})", schema::FILE_SUFFIX))),
    }
}

#[cfg(test)]
mod tests;

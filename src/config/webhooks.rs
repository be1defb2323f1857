//! `[[webhooks]]`: receivers of outgoing events.

use std::collections::BTreeSet;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use secrecy::SecretString;
use url::Url;

use super::auth::name;
use super::reader::{Outcome, Reader, not_among};
use super::schema::{Field, Shape, field};
use super::urls;

pub(super) const FIELDS: &[Field] = &[
    field("name", Shape::Value),
    field("url", Shape::Value),
    field("secrets", Shape::Secrets),
    field("events", Shape::Values),
];

/// The types of events that can be sent.
pub const EVENTS: [&str; 8] = [
    "verification.passed",
    "verification.failed",
    "verification.review",
    "verification.void",
    "verification.expired",
    "verification.unresolvable",
    "verification.evidence_stored",
    "verification.erased",
];

#[derive(Clone, Debug)]
pub struct Webhook {
    pub name: String,
    pub url: WebhookUrl,
    /// `whsec_` and Base64, at least one; all are used to sign.
    pub secrets: Vec<SecretString>,
    /// Types from [`EVENTS`]; empty: all.
    pub events: BTreeSet<&'static str>,
}

/// May hold a secret in its query, so `Debug` leaves that out.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookUrl(Url);

impl WebhookUrl {
    pub fn expose(&self) -> &Url {
        &self.0
    }
}

impl fmt::Debug for WebhookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&urls::redacted(&self.0))
    }
}

pub(super) fn read_all(reader: &mut Reader<'_>) -> Outcome<Vec<Webhook>> {
    let mut names = BTreeSet::new();
    reader.list("webhooks", FIELDS, |reader| {
        let webhook = Webhook::read(reader)?;
        if !names.insert(webhook.name.clone()) {
            return Err(reader.problem("name", "is the name of an earlier webhook; name each one once"));
        }
        Ok(webhook)
    })
}

impl Webhook {
    fn read(reader: &mut Reader<'_>) -> Outcome<Self> {
        let name = reader.parsed("name", "", name);
        let url = reader.parsed_hidden("url", |text| {
            let url = urls::parse(text)?;
            let shown = urls::redacted(&url);
            Ok::<_, &str>((WebhookUrl(url), shown))
        });
        let secrets =
            reader.secrets("secrets", secret).and_then(|secrets| match secrets.len() {
                0 => Err(reader
                    .problem("secrets", "is empty; give at least one, so that the receiver can check what it gets")),
                _ => Ok(secrets),
            });
        let events = reader.texts("events", &[], |text| {
            EVENTS.into_iter().find(|event| *event == text).ok_or_else(|| not_among(text, &EVENTS))
        });
        Ok(Self { name: name?, url: url?, secrets: secrets?, events: events?.into_iter().collect() })
    }
}

/// The lengths are those of the Standard Webhooks specification.
fn secret(text: &str) -> Result<(), String> {
    let decoded = text.strip_prefix("whsec_").and_then(|key| STANDARD.decode(key).ok());
    match decoded.map(|key| key.len()) {
        Some(24..=64) => Ok(()),
        Some(_) => Err("must hold 24 to 64 bytes after whsec_; make one: echo whsec_$(openssl rand -base64 32)".into()),
        None => Err("must be whsec_ and Base64; make one: echo whsec_$(openssl rand -base64 32)".into()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use secrecy::ExposeSecret;

    use super::*;
    use crate::config::testing::{config, config_with, problems, problems_with};

    const SECRET: &str = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    const OTHER: &str = "whsec_BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBB";

    fn hook(rest: &str) -> String {
        format!("[[webhooks]]\nname = 'app'\nurl = 'http://app.internal/idv?token=planted'\n{rest}\n")
    }

    #[test]
    fn a_webhook_may_go_anywhere_and_shows_no_query() {
        let hooks = config(&hook(&format!("secrets = ['{SECRET}']\nevents = ['verification.void']"))).webhooks;
        assert_eq!(hooks[0].url.expose().as_str(), "http://app.internal/idv?token=planted");
        assert_eq!(hooks[0].events, BTreeSet::from(["verification.void"]));
        assert!(!format!("{hooks:?}").contains("planted"));
        assert!(!format!("{hooks:?}").contains("AAAAAAAA"));
    }

    #[test]
    fn secrets_are_needed_and_checked_without_showing_them() {
        assert!(problems(&hook("")).contains("webhooks.0.secrets: is empty"));
        for wrong in ["plantedplantedplantedplantedplanted", "whsec_planted", "whsec_cGxhbnRlZA=="] {
            let found = problems(&hook(&format!("secrets = ['{SECRET}', '{wrong}']")));
            assert!(found.contains("webhooks.0.secrets (file test.toml): item 1 must"), "{found}");
            assert!(!found.contains("planted") && !found.contains("cGxhbn"), "{found}");
        }
    }

    #[test]
    fn secrets_are_read_from_a_file_one_a_line() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        write!(file, "{SECRET}\n\n{OTHER}\r\n").unwrap();
        let path = file.path().to_str().unwrap();
        let hooks = config(&hook(&format!("secrets_file = '{path}'"))).webhooks;
        let secrets: Vec<&str> = hooks[0].secrets.iter().map(ExposeSecret::expose_secret).collect();
        assert_eq!(secrets, [SECRET, OTHER]);
    }

    #[test]
    fn webhooks_come_from_the_environment_by_number() {
        let hooks = config_with(
            &hook(&format!("secrets = ['{SECRET}', '{SECRET}']")),
            &[
                ("CHECKBACK_WEBHOOKS__0__SECRETS__1", OTHER),
                ("CHECKBACK_WEBHOOKS__1__NAME", "second"),
                ("CHECKBACK_WEBHOOKS__1__URL", "https://second.example"),
                ("CHECKBACK_WEBHOOKS__1__SECRETS", &format!("{SECRET},{OTHER}")),
                ("CHECKBACK_WEBHOOKS__1__EVENTS", "verification.passed, verification.failed"),
            ],
        )
        .webhooks;
        assert_eq!(hooks[0].secrets[1].expose_secret(), OTHER);
        assert_eq!(hooks[1].name, "second");
        assert_eq!(hooks[1].secrets.len(), 2);
        assert_eq!(hooks[1].events.len(), 2);
    }

    #[test]
    fn a_gap_in_the_numbers_is_a_problem() {
        let found = problems_with("", &[("CHECKBACK_WEBHOOKS__1__NAME", "second")]);
        assert!(found.contains("webhooks.0: is missing; items are numbered from 0 without gaps"), "{found}");
        let found = problems_with("", &[("CHECKBACK_WEBHOOKS__100__NAME", "x"), ("CHECKBACK_WEBHOOKS__X__NAME", "x")]);
        assert!(found.contains("CHECKBACK_WEBHOOKS__100__NAME: names an item beyond the 100th"), "{found}");
        assert!(found.contains("CHECKBACK_WEBHOOKS__X__NAME: is no setting"), "{found}");
    }

    #[test]
    fn names_are_unique_and_events_known() {
        let one = hook(&format!("secrets = ['{SECRET}']\nevents = ['verification.pased']"));
        assert!(problems(&one).contains("did you mean \"verification.passed\"?"));
        let one = hook(&format!("secrets = ['{SECRET}']"));
        assert!(
            problems(&format!("{one}{one}")).contains("webhooks.1.name (file test.toml): is the name of an earlier")
        );
    }
}

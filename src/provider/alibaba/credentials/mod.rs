//! The key an account signs with: configured, or found by the chain of the provider's SDKs and renewed before it
//! ends. Its secret parts are never shown.
//!
//! `keys` holds the key in force, `chain` knows the steps and their order, the others are the steps. Variables and
//! the home folder are read by the configuration and come in as [`ChainSettings`].

mod answer;
mod chain;
mod ecs;
mod files;
mod keys;
mod sts;

pub use chain::{Chain, ChainSettings, Step};
pub use keys::SigningKeys;

use secrecy::{ExposeSecret, SecretString};

pub const ID_VARIABLE: &str = "ALIBABA_CLOUD_ACCESS_KEY_ID";
pub const SECRET_VARIABLE: &str = "ALIBABA_CLOUD_ACCESS_KEY_SECRET";
pub const TOKEN_VARIABLE: &str = "ALIBABA_CLOUD_SECURITY_TOKEN";

/// An access key, temporary when there is a token.
#[derive(Clone)]
pub struct Credentials {
    access_key_id: String,
    access_key_secret: SecretString,
    security_token: Option<SecretString>,
}

/// Parts of a key from one source, as read; empty text counts as absent.
#[derive(Clone, Default)]
pub struct KeyParts {
    pub access_key_id: Option<String>,
    pub access_key_secret: Option<SecretString>,
    pub security_token: Option<SecretString>,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsError {
    #[error("the access key in {place} is only half there: {missing} is missing")]
    Half { place: &'static str, missing: &'static str },
    #[error("{part} of an access key holds a blank, a line end or characters beyond ASCII")]
    Unusable { part: &'static str },
}

impl Credentials {
    /// A whole key. The id and the token travel in headers, so both are printable ASCII from here on.
    pub fn new(
        access_key_id: String,
        access_key_secret: SecretString,
        security_token: Option<SecretString>,
    ) -> Result<Self, CredentialsError> {
        let graphic = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        let parts = [
            ("the id", graphic(&access_key_id)),
            // A stray line end in a secret shows only as a wrong signature, which is hard to find.
            ("the secret", graphic(access_key_secret.expose_secret())),
            ("the security token", security_token.as_ref().is_none_or(|token| graphic(token.expose_secret()))),
        ];
        if let Some((part, _)) = parts.into_iter().find(|(_, usable)| !usable) {
            return Err(CredentialsError::Unusable { part });
        }
        Ok(Self { access_key_id, access_key_secret, security_token })
    }

    pub fn access_key_id(&self) -> &str {
        &self.access_key_id
    }

    pub fn access_key_secret(&self) -> &SecretString {
        &self.access_key_secret
    }

    /// There is one if the key is temporary.
    pub fn security_token(&self) -> Option<&SecretString> {
        self.security_token.as_ref()
    }
}

impl KeyParts {
    /// The whole key; none if neither half is there. A half key is an error, never completed from elsewhere. `names`
    /// are those of id and secret in that place.
    pub fn complete(
        self,
        place: &'static str,
        names: [&'static str; 2],
    ) -> Result<Option<Credentials>, CredentialsError> {
        let id = self.access_key_id.filter(|id| !id.is_empty());
        let secret = self.access_key_secret.filter(|secret| !secret.expose_secret().is_empty());
        let token = self.security_token.filter(|token| !token.expose_secret().is_empty());
        let (access_key_id, access_key_secret) = match (id, secret) {
            (Some(id), Some(secret)) => (id, secret),
            (Some(_), None) => return Err(CredentialsError::Half { place, missing: names[1] }),
            (None, Some(_)) => return Err(CredentialsError::Half { place, missing: names[0] }),
            (None, None) => return Ok(None),
        };
        Credentials::new(access_key_id, access_key_secret, token).map(Some)
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials")
            .field("access_key_id", &self.access_key_id)
            .field("temporary", &self.security_token.is_some())
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for KeyParts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyParts").field("access_key_id", &self.access_key_id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(id: &str, secret: &str, token: &str) -> KeyParts {
        KeyParts {
            access_key_id: Some(id.to_owned()),
            access_key_secret: Some(secret.into()),
            security_token: Some(token.into()),
        }
    }

    fn complete(parts: KeyParts) -> Result<Option<Credentials>, CredentialsError> {
        parts.complete("the environment", [ID_VARIABLE, SECRET_VARIABLE])
    }

    #[test]
    fn empty_text_counts_as_absent() {
        assert!(complete(parts("", "", "token")).unwrap().is_none());
        assert!(complete(parts("id", "secret", "")).unwrap().unwrap().security_token().is_none());
    }

    #[test]
    fn a_half_key_is_refused_and_the_missing_half_named() {
        for (id, secret, missing) in [("id", "", SECRET_VARIABLE), ("", "CANARY", ID_VARIABLE)] {
            let error = complete(parts(id, secret, "")).unwrap_err();
            assert_eq!(error, CredentialsError::Half { place: "the environment", missing });
        }
    }

    #[test]
    fn a_key_with_a_line_end_is_refused_without_showing_it() {
        let error = complete(parts("own", "CANARY\n", "")).unwrap_err();
        assert!(error.to_string().contains("the secret"));
        assert!(!format!("{error} {error:?}").contains("CANARY"));
    }

    #[test]
    fn debug_output_shows_neither_secret_nor_token() {
        let key = parts("id", "CANARY-SECRET", "CANARY-TOKEN");
        let shown = format!("{key:?} {:?}", complete(key.clone()));
        assert!(shown.contains("id") && !shown.contains("CANARY"), "{shown}");
    }
}

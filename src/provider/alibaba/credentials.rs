//! The key an account signs with. Its secret parts are never shown.

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
    #[error(
        "no access key: set access_key_id and access_key_secret of the account, or {ID_VARIABLE} and \
         {SECRET_VARIABLE} in the environment"
    )]
    Missing,
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

    /// The account's own key, else the environment's. A half key is an error, never completed from elsewhere.
    pub fn choose(settings: KeyParts, environment: KeyParts) -> Result<Self, CredentialsError> {
        let settings = settings.complete("the account's settings", ["access_key_id", "access_key_secret"])?;
        if let Some(credentials) = settings {
            return Ok(credentials);
        }
        environment.complete("the environment", [ID_VARIABLE, SECRET_VARIABLE])?.ok_or(CredentialsError::Missing)
    }
}

impl KeyParts {
    fn complete(self, place: &'static str, names: [&'static str; 2]) -> Result<Option<Credentials>, CredentialsError> {
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

    #[test]
    fn the_accounts_own_key_wins_over_the_environment() {
        let chosen = Credentials::choose(parts("own", "s1", ""), parts("env", "s2", "t2")).unwrap();
        assert_eq!(chosen.access_key_id, "own");
        assert!(chosen.security_token.is_none());
        let chosen = Credentials::choose(parts("", "", ""), parts("env", "s2", "t2")).unwrap();
        assert_eq!(chosen.access_key_id, "env");
        assert_eq!(chosen.security_token.unwrap().expose_secret(), "t2");
    }

    #[test]
    fn a_missing_key_is_refused_with_both_remedies() {
        let message = Credentials::choose(KeyParts::default(), KeyParts::default()).unwrap_err().to_string();
        for word in ["access_key_id", "access_key_secret", ID_VARIABLE, SECRET_VARIABLE] {
            assert!(message.contains(word), "{word} in {message}");
        }
    }

    #[test]
    fn a_half_key_is_not_completed_from_the_environment() {
        let error = Credentials::choose(parts("own", "", ""), parts("env", "s2", "")).unwrap_err();
        assert_eq!(error, CredentialsError::Half { place: "the account's settings", missing: "access_key_secret" });
    }

    #[test]
    fn a_key_with_a_line_end_is_refused_without_showing_it() {
        let error = Credentials::choose(parts("own", "CANARY\n", ""), KeyParts::default()).unwrap_err();
        assert!(error.to_string().contains("the secret"));
        assert!(!format!("{error} {error:?}").contains("CANARY"));
    }

    #[test]
    fn debug_output_shows_neither_secret_nor_token() {
        let key = parts("id", "CANARY-SECRET", "CANARY-TOKEN");
        let shown = format!("{key:?} {:?}", Credentials::choose(key.clone(), KeyParts::default()));
        assert!(shown.contains("id") && !shown.contains("CANARY"), "{shown}");
    }
}

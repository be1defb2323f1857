//! The process environment, read once and handed on.
//!
//! No other module asks the system for a variable. `Debug` shows names only: values may be secrets.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::PathBuf;

use secrecy::SecretString;

#[derive(Clone, Default)]
pub struct Environment(BTreeMap<String, OsString>);

impl Environment {
    /// Variables whose names are no UTF-8 are left out: none of ours is among them.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the environment")]
    pub fn from_process() -> Self {
        Self(std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value))).collect())
    }

    pub fn from_pairs<N: Into<String>, V: Into<OsString>>(pairs: impl IntoIterator<Item = (N, V)>) -> Self {
        Self(pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &OsStr)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_os_str()))
    }

    /// Set and not empty.
    fn given(&self, name: &str) -> Option<&OsStr> {
        self.0.get(name).map(OsString::as_os_str).filter(|value| !value.is_empty())
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.given(name).and_then(OsStr::to_str)
    }

    fn secret(&self, name: &str) -> Option<SecretString> {
        self.text(name).map(SecretString::from)
    }

    /// Folder of the Postgres server binaries, when they are not where they are usually installed.
    pub fn postgres_bin(&self) -> Option<PathBuf> {
        self.given("CHECKBACK_POSTGRES_BIN").map(PathBuf::from)
    }

    pub fn path(&self) -> Option<&OsStr> {
        self.given("PATH")
    }

    pub fn alibaba_access_key_id(&self) -> Option<SecretString> {
        self.secret("ALIBABA_CLOUD_ACCESS_KEY_ID")
    }

    pub fn alibaba_access_key_secret(&self) -> Option<SecretString> {
        self.secret("ALIBABA_CLOUD_ACCESS_KEY_SECRET")
    }

    pub fn alibaba_security_token(&self) -> Option<SecretString> {
        self.secret("ALIBABA_CLOUD_SECURITY_TOKEN")
    }

    pub fn no_color(&self) -> bool {
        self.given("NO_COLOR").is_some()
    }

    /// Where the client commands find the service.
    pub fn checkback_url(&self) -> Option<&str> {
        self.text("CHECKBACK_URL")
    }

    /// The key that the client commands show.
    pub fn checkback_key(&self) -> Option<SecretString> {
        self.secret("CHECKBACK_KEY")
    }

    pub fn database_url(&self) -> Option<SecretString> {
        self.secret("DATABASE_URL")
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Environment").field(&self.0.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn an_empty_variable_counts_as_not_set() {
        let environment = Environment::from_pairs([("NO_COLOR", ""), ("CHECKBACK_URL", ""), ("DATABASE_URL", "")]);
        assert!(!environment.no_color());
        assert_eq!(environment.checkback_url(), None);
        assert!(environment.database_url().is_none());
    }

    #[test]
    fn known_variables_are_handed_on() {
        let environment = Environment::from_pairs([
            ("NO_COLOR", "1"),
            ("PATH", "/bin"),
            ("CHECKBACK_POSTGRES_BIN", "/opt/postgres"),
            ("CHECKBACK_KEY", "planted"),
            ("ALIBABA_CLOUD_SECURITY_TOKEN", "planted"),
        ]);
        assert!(environment.no_color());
        assert_eq!(environment.path(), Some(OsStr::new("/bin")));
        assert_eq!(environment.postgres_bin(), Some(PathBuf::from("/opt/postgres")));
        assert_eq!(environment.checkback_key().unwrap().expose_secret(), "planted");
        assert_eq!(environment.alibaba_security_token().unwrap().expose_secret(), "planted");
        assert!(!format!("{environment:?}").contains("planted"));
    }
}

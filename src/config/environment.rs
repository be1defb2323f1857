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

    /// As the provider's SDKs read it: only `true` counts, in any case.
    fn flag(&self, name: &str) -> bool {
        self.text(name).is_some_and(|value| value.eq_ignore_ascii_case("true"))
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

    /// An access key of the provider is looked for in the files below it.
    pub fn home(&self) -> Option<PathBuf> {
        self.given("HOME").map(PathBuf::from)
    }

    /// The name of a profile in the command line's file, or of a section in the ini file.
    pub fn alibaba_profile(&self) -> Option<&str> {
        self.text("ALIBABA_CLOUD_PROFILE")
    }

    pub fn alibaba_cli_profile_disabled(&self) -> bool {
        self.flag("ALIBABA_CLOUD_CLI_PROFILE_DISABLED")
    }

    pub fn alibaba_credentials_file(&self) -> Option<PathBuf> {
        self.given("ALIBABA_CLOUD_CREDENTIALS_FILE").map(PathBuf::from)
    }

    pub fn alibaba_role_arn(&self) -> Option<&str> {
        self.text("ALIBABA_CLOUD_ROLE_ARN")
    }

    pub fn alibaba_role_session_name(&self) -> Option<&str> {
        self.text("ALIBABA_CLOUD_ROLE_SESSION_NAME")
    }

    pub fn alibaba_oidc_provider_arn(&self) -> Option<&str> {
        self.text("ALIBABA_CLOUD_OIDC_PROVIDER_ARN")
    }

    pub fn alibaba_oidc_token_file(&self) -> Option<PathBuf> {
        self.given("ALIBABA_CLOUD_OIDC_TOKEN_FILE").map(PathBuf::from)
    }

    pub fn alibaba_sts_region(&self) -> Option<&str> {
        self.text("ALIBABA_CLOUD_STS_REGION")
    }

    pub fn alibaba_vpc_endpoint_enabled(&self) -> bool {
        self.flag("ALIBABA_CLOUD_VPC_ENDPOINT_ENABLED")
    }

    /// The name of the role that the instance has.
    pub fn alibaba_ecs_metadata(&self) -> Option<&str> {
        self.text("ALIBABA_CLOUD_ECS_METADATA")
    }

    pub fn alibaba_ecs_metadata_disabled(&self) -> bool {
        self.flag("ALIBABA_CLOUD_ECS_METADATA_DISABLED")
    }

    pub fn alibaba_imds_v1_disabled(&self) -> bool {
        self.flag("ALIBABA_CLOUD_IMDSV1_DISABLED")
    }

    /// May hold a secret in its query.
    pub fn alibaba_credentials_uri(&self) -> Option<SecretString> {
        self.secret("ALIBABA_CLOUD_CREDENTIALS_URI")
    }

    pub fn aws_access_key_id(&self) -> Option<SecretString> {
        self.secret("AWS_ACCESS_KEY_ID")
    }

    pub fn aws_secret_access_key(&self) -> Option<SecretString> {
        self.secret("AWS_SECRET_ACCESS_KEY")
    }

    pub fn aws_session_token(&self) -> Option<SecretString> {
        self.secret("AWS_SESSION_TOKEN")
    }

    pub fn aws_region(&self) -> Option<&str> {
        self.text("AWS_REGION").or_else(|| self.text("AWS_DEFAULT_REGION"))
    }

    /// Of a bucket that speaks S3 and is not at AWS.
    pub fn aws_endpoint_url(&self) -> Option<&str> {
        self.text("AWS_ENDPOINT_URL")
    }

    pub fn oss_endpoint(&self) -> Option<&str> {
        self.text("OSS_ENDPOINT")
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

    #[test]
    fn only_true_sets_a_flag_of_the_providers() {
        let set = |value| Environment::from_pairs([("ALIBABA_CLOUD_ECS_METADATA_DISABLED", value)]);
        for (value, is) in [("true", true), ("True", true), ("false", false), ("1", false), ("", false)] {
            assert_eq!(set(value).alibaba_ecs_metadata_disabled(), is, "{value}");
        }
        assert!(!Environment::default().alibaba_ecs_metadata_disabled());
    }
}

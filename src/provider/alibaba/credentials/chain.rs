//! The steps of the provider's SDKs, in their order: environment, OIDC, profile of the command line, ini file, ECS
//! RAM role, URI. The first step that gives a key serves from then on; whoever renews asks it alone, because another
//! step would be another identity.
//!
//! Rules: Alibaba Cloud SDK, "Manage access credentials", and the package `alibabacloud_credentials`.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use http::{HeaderMap, Method};
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::super::super::http::{BuildError, HttpClient, HttpSettings};
use super::sts::{Oidc, Role};
use super::{Credentials, ID_VARIABLE, KeyParts, SECRET_VARIABLE, answer, ecs, files, sts};
use crate::clock::Clock;
use crate::entropy::Entropy;

/// As long as the SDKs wait for the token service or a URI.
const HTTP: HttpSettings =
    HttpSettings { connect: Duration::from_secs(5), total: Duration::from_secs(10), max_body: 1 << 20 };
/// The metadata service is next door or not there at all.
const METADATA: HttpSettings =
    HttpSettings { connect: Duration::from_secs(1), total: Duration::from_secs(2), max_body: 1 << 20 };
const METADATA_BASE: &str = "http://100.100.100.200";

/// What the environment says about keys; empty values count as absent.
#[derive(Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is a variable that is true or not, and they are independent")]
pub struct ChainSettings {
    pub key: KeyParts,
    pub home: Option<PathBuf>,
    pub profile: Option<String>,
    pub cli_profile_disabled: bool,
    pub credentials_file: Option<PathBuf>,
    pub role_arn: Option<String>,
    pub role_session_name: Option<String>,
    pub oidc_provider_arn: Option<String>,
    pub oidc_token_file: Option<PathBuf>,
    pub sts_region: Option<String>,
    pub sts_vpc: bool,
    /// Name of the instance's role.
    pub metadata_role: Option<String>,
    pub metadata_disabled: bool,
    pub imds_v1_disabled: bool,
    /// May hold a secret itself, so it is never shown.
    pub uri: Option<SecretString>,
    /// In place of the provider's token service.
    pub sts_base: Option<Url>,
    pub metadata_base: Url,
}

impl Default for ChainSettings {
    fn default() -> Self {
        Self {
            key: KeyParts::default(),
            home: None,
            profile: None,
            cli_profile_disabled: false,
            credentials_file: None,
            role_arn: None,
            role_session_name: None,
            oidc_provider_arn: None,
            oidc_token_file: None,
            sts_region: None,
            sts_vpc: false,
            metadata_role: None,
            metadata_disabled: false,
            imds_v1_disabled: false,
            uri: None,
            sts_base: None,
            metadata_base: Url::parse(METADATA_BASE).expect("the constant is a URL"),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Environment,
    Oidc,
    CliProfile,
    IniFile,
    EcsRole,
    Uri,
}

impl Step {
    pub const ORDER: [Self; 6] =
        [Self::Environment, Self::Oidc, Self::CliProfile, Self::IniFile, Self::EcsRole, Self::Uri];

    /// A stable name for logs and codes.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Environment => "environment",
            Self::Oidc => "oidc",
            Self::CliProfile => "cli_profile",
            Self::IniFile => "ini_file",
            Self::EcsRole => "ecs_ram_role",
            Self::Uri => "uri",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Environment => "the environment",
            Self::Oidc => "the OIDC role",
            Self::CliProfile => "the CLI profile",
            Self::IniFile => "the ini file",
            Self::EcsRole => "the ECS RAM role",
            Self::Uri => "the URI",
        })
    }
}

/// Why a step gave no key.
#[derive(Clone, Debug)]
pub(super) struct Miss {
    /// Somebody set the step up, so something is wrong with it.
    pub applies: bool,
    pub reason: String,
}

impl Miss {
    pub(super) fn not_set(reason: impl Into<String>) -> Self {
        Self { applies: false, reason: reason.into() }
    }

    pub(super) fn failed(reason: impl Into<String>) -> Self {
        Self { applies: true, reason: reason.into() }
    }
}

pub(super) struct Fetched {
    pub credentials: Credentials,
    pub lasts: Lasts,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lasts {
    Forever,
    /// Until somebody writes another into the file.
    WhileInFile,
    Until(DateTime<Utc>),
}

/// Each step that was asked, and why it gave no key.
#[derive(Clone, Debug)]
pub(super) struct Tried(pub Vec<(Step, Miss)>);

impl Tried {
    /// The first step that somebody set up.
    pub(super) fn failed(&self) -> Option<Step> {
        self.0.iter().find(|(_, miss)| miss.applies).map(|(step, _)| *step)
    }
}

impl fmt::Display for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (step, miss)) in self.0.iter().enumerate() {
            let between = if at == 0 { "" } else { "; " };
            write!(f, "{between}{step}: {}", miss.reason)?;
        }
        Ok(())
    }
}

/// The chain with all it needs to ask. Keeps no key.
pub struct Chain {
    pub(super) settings: ChainSettings,
    pub(super) http: HttpClient,
    pub(super) metadata: HttpClient,
    pub(super) clock: Clock,
    pub(super) entropy: Entropy,
}

impl Chain {
    pub fn new(settings: ChainSettings, clock: Clock, entropy: Entropy) -> Result<Self, BuildError> {
        Ok(Self { settings, http: HttpClient::new(HTTP)?, metadata: HttpClient::new(METADATA)?, clock, entropy })
    }

    /// Asks one step after another for a key, or the one that served before. Also says which gave none before it.
    pub(super) async fn fetch(&self, served: Option<Step>) -> Result<(Step, Fetched, Tried), Tried> {
        let mut tried = Tried(Vec::new());
        for step in Step::ORDER.into_iter().filter(|step| served.is_none_or(|served| served == *step)) {
            match self.ask(step).await {
                Ok(fetched) => return Ok((step, fetched, tried)),
                Err(miss) => tried.0.push((step, miss)),
            }
        }
        Err(tried)
    }

    async fn ask(&self, step: Step) -> Result<Fetched, Miss> {
        match step {
            Step::Environment => self.environment(),
            Step::Oidc => self.oidc().await,
            Step::CliProfile => files::cli_profile(self).await,
            Step::IniFile => files::ini_file(self).await,
            Step::EcsRole => ecs::fetch(self, self.settings.metadata_role.as_deref()).await,
            Step::Uri => self.uri().await,
        }
    }

    fn environment(&self) -> Result<Fetched, Miss> {
        let found = self.settings.key.clone().complete("the environment", [ID_VARIABLE, SECRET_VARIABLE]);
        let found = found.map_err(|error| Miss::failed(error.to_string()))?;
        let credentials = found.ok_or_else(|| Miss::not_set(format!("{ID_VARIABLE} is not set")))?;
        Ok(Fetched { credentials, lasts: Lasts::Forever })
    }

    async fn oidc(&self) -> Result<Fetched, Miss> {
        sts::with_oidc(self, &Role::default(), &Oidc::default()).await
    }

    async fn uri(&self) -> Result<Fetched, Miss> {
        const VARIABLE: &str = "ALIBABA_CLOUD_CREDENTIALS_URI";
        let uri = self.settings.uri.as_ref().ok_or_else(|| Miss::not_set(format!("{VARIABLE} is not set")))?;
        let url = Url::parse(uri.expose_secret()).map_err(|_| Miss::failed(format!("{VARIABLE} is no URL")))?;
        let whom = format!("the host in {VARIABLE}");
        let asked = self.http.send(Method::GET, url, HeaderMap::new(), Bytes::new()).await;
        let answer = asked.map_err(|error| Miss::failed(format!("{whom} cannot be asked: {error}")))?;
        answer::plain(&whom, &answer, self.clock.now())
    }
}

/// Names and places only.
impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chain")
            .field("key", &self.settings.key)
            .field("home", &self.settings.home)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for ChainSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChainSettings").field("key", &self.key).field("home", &self.home).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(settings: ChainSettings) -> Chain {
        Chain::new(settings, Clock::manual(DateTime::UNIX_EPOCH), Entropy::seeded(1)).unwrap()
    }

    #[tokio::test]
    async fn where_no_step_applies_each_says_what_it_would_need() {
        let settings = ChainSettings { metadata_disabled: true, ..ChainSettings::default() };
        let tried = chain(settings).fetch(None).await.err().unwrap();
        assert_eq!(
            tried.to_string(),
            "the environment: ALIBABA_CLOUD_ACCESS_KEY_ID is not set; \
             the OIDC role: ALIBABA_CLOUD_ROLE_ARN is not set; \
             the CLI profile: HOME is not set; \
             the ini file: neither ALIBABA_CLOUD_CREDENTIALS_FILE nor HOME is set; \
             the ECS RAM role: ALIBABA_CLOUD_ECS_METADATA_DISABLED is true; \
             the URI: ALIBABA_CLOUD_CREDENTIALS_URI is not set"
        );
        assert_eq!(tried.failed(), None);
    }

    #[tokio::test]
    async fn a_step_that_somebody_set_up_is_the_one_to_blame() {
        let settings = ChainSettings {
            metadata_disabled: true,
            uri: Some("CANARY".into()),
            credentials_file: Some("/nowhere/credentials".into()),
            ..ChainSettings::default()
        };
        let chain = chain(settings);
        let tried = chain.fetch(None).await.err().unwrap();
        assert_eq!(tried.failed(), Some(Step::IniFile));
        assert!(tried.to_string().contains("/nowhere/credentials is not there"), "{tried}");
        assert!(tried.to_string().ends_with("the URI: ALIBABA_CLOUD_CREDENTIALS_URI is no URL"), "{tried}");
        assert!(!format!("{tried:?} {chain:?} {:?}", chain.settings).contains("CANARY"));
    }

    #[test]
    fn the_token_service_is_the_regions_and_inside_the_providers_network_if_asked() {
        let host = |region: Option<&str>, vpc| {
            let region = region.map(str::to_owned);
            let settings = ChainSettings { sts_region: region, sts_vpc: vpc, ..ChainSettings::default() };
            Role::default().host(&chain(settings)).map(|url| url.to_string()).map_err(|miss| miss.reason)
        };
        // So do the SDKs: without a region there is no host inside.
        assert_eq!(host(None, true).unwrap(), "https://sts.aliyuncs.com/");
        assert_eq!(host(Some("cn-hongkong"), false).unwrap(), "https://sts.cn-hongkong.aliyuncs.com/");
        assert_eq!(host(Some("cn-hongkong"), true).unwrap(), "https://sts-vpc.cn-hongkong.aliyuncs.com/");
        assert!(host(Some("x.example/"), false).is_err());
    }
}

//! The composition root: puts configuration, database, providers, loops and listeners together. Nothing else knows
//! them all.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use chrono::TimeDelta;
use secrecy::ExposeSecret;
use sqlx::postgres::PgConnectOptions;
use tokio::net::TcpListener;
use tracing::{error, info, warn};

use crate::clock::Clock;
use crate::config::{self, AccountKind, AuthMode, Config, Environment, EvidenceLocation, Loaded, ZolozAuth};
use crate::domain::{Keep, RetentionClass, TokenHash};
use crate::entropy::Entropy;
use crate::evidence::{
    AliyunKeys, AwsKeys, DownloadLimits, Downloader, EvidenceStore, Identities, Location, Recipients, StoreSettings,
};
use crate::http::{self, Api, Key, Keys, Parts, Scope};
use crate::jobs::Engine;
use crate::lifecycle::{GRACE, Reloads, Tasks};
#[cfg(feature = "embedded-postgres")]
use crate::private_postgres::{Durability, Options as PostgresOptions, PrivatePostgres, Search};
use crate::provider::Provider;
use crate::provider::alibaba::credentials::{Chain, ChainSettings, Credentials, KeyParts, SigningKeys};
use crate::provider::alibaba::endpoint::{Endpoint, Network};
use crate::provider::alibaba::{AlibabaClient, AlibabaSettings, Signature};
use crate::provider::http::{HttpClient, HttpSettings};
use crate::provider::zoloz::keys::{MerchantKey, ZolozKey};
use crate::provider::zoloz::sign::{AccessKey, AccessKeyError};
use crate::provider::zoloz::{Auth, ZolozClient, ZolozSettings};
use crate::rotation::Rotation;
use crate::service::Service;
use crate::service::account::{Account, Pacing, Rotating, Starting};
use crate::store::{Migrations, Store};
use crate::telemetry;

/// Of the grace of a stop, what the requests under way may take; the checks get the rest.
const REQUEST_GRACE: Duration = Duration::from_secs(3);
/// And the queues of callbacks after the requests that fill them.
const QUEUE_GRACE: Duration = Duration::from_secs(1);

/// What the command line adds to the configuration.
#[derive(Clone, Debug)]
pub struct Options {
    pub migrate: bool,
    pub clock: Clock,
    pub entropy: Entropy,
}

impl Default for Options {
    fn default() -> Self {
        Self { migrate: true, clock: Clock::system(TimeDelta::zero()), entropy: Entropy::system() }
    }
}

/// The database that the configuration names, or a private server that was started for it.
pub struct Database {
    options: PgConnectOptions,
    #[cfg(feature = "embedded-postgres")]
    private: Option<PrivatePostgres>,
}

impl Database {
    /// Starts the private server when no database is configured.
    pub async fn open(config: &Config, environment: &Environment) -> anyhow::Result<Self> {
        if let Some(url) = &config.database.url {
            // The parser's error may quote the URL, and with it the password.
            let options = url.expose_secret().parse().map_err(|_| {
                anyhow::anyhow!(
                    "database.url cannot be read: it must look like postgres://user:password@host:5432/name"
                )
            })?;
            return Ok(Self {
                options,
                #[cfg(feature = "embedded-postgres")]
                private: None,
            });
        }
        Self::open_private(config, environment).await
    }

    #[cfg(feature = "embedded-postgres")]
    async fn open_private(config: &Config, environment: &Environment) -> anyhow::Result<Self> {
        Self::start_private(config, environment, Durability::Full).await
    }

    /// A private server whose data nobody wants to keep: nothing waits for the disk.
    #[cfg(feature = "embedded-postgres")]
    pub async fn open_throwaway(config: &Config, environment: &Environment) -> anyhow::Result<Self> {
        Self::start_private(config, environment, Durability::None).await
    }

    #[cfg(feature = "embedded-postgres")]
    async fn start_private(config: &Config, environment: &Environment, durability: Durability) -> anyhow::Result<Self> {
        let server = PrivatePostgres::start(PostgresOptions {
            data_dir: config.database.data_dir.clone(),
            durability,
            search: Search { explicit: environment.postgres_bin(), path: environment.path().map(ToOwned::to_owned) },
            extra_settings: Vec::new(),
        })
        .await?;
        Ok(Self { options: server.connect_options(), private: Some(server) })
    }

    #[cfg(not(feature = "embedded-postgres"))]
    fn open_private(_: &Config, _: &Environment) -> std::future::Ready<anyhow::Result<Self>> {
        std::future::ready(Err(anyhow::anyhow!(
            "no database is configured, and this build has no private Postgres: set DATABASE_URL or database.url"
        )))
    }

    pub fn store(&self, max_connections: u32) -> Store {
        Store::new(self.options.clone(), max_connections)
    }

    /// Stops the private server, if there is one.
    #[cfg(feature = "embedded-postgres")]
    pub async fn close(self) -> anyhow::Result<()> {
        match self.private {
            Some(server) => Ok(server.stop().await?),
            None => Ok(()),
        }
    }

    #[cfg(not(feature = "embedded-postgres"))]
    pub fn close(self) -> std::future::Ready<anyhow::Result<()>> {
        std::future::ready(Ok(()))
    }
}

/// A running service.
pub struct App {
    pub public: SocketAddr,
    pub internal: SocketAddr,
    pub service: Service,
    engine: Engine,
    listeners: Tasks,
    queues: Tasks,
    providers: Option<Providers>,
}

impl App {
    /// Starts everything. `database` must outlive it.
    pub async fn start(
        config: &Config,
        environment: &Environment,
        database: &Database,
        options: Options,
    ) -> anyhow::Result<Self> {
        let metrics = telemetry::metrics().context("the metrics could not be set up")?;
        let (accounts, providers) = accounts(config, environment, &options)?;
        let evidence = evidence(config, environment)?;
        let store = database.store(config.database.max_connections);
        let is_current = prepare(&store, options.migrate).await?;
        let names: Vec<String> = accounts.iter().map(|account| account.name.clone()).collect();
        if is_current {
            store.add_accounts(&names).await.context("the accounts could not be stored")?;
        }
        if accounts.is_empty() {
            warn!("no account is configured: nothing can be registered yet (see [accounts.…] in the configuration)");
        }
        // Before anything runs: a start that fails must leave nothing running.
        let public = bind(config.server.public_listen, "server.public_listen").await?;
        let internal = bind(config.server.internal_listen, "server.internal_listen").await?;
        let (queues, listeners) = (Tasks::new(), Tasks::new());
        let service = Service::new(store, evidence, options.clock, options.entropy, accounts, &queues);
        if let Some(keys) = providers.as_ref().and_then(|providers| providers.chain.clone()) {
            // So that the log says at once where the keys come from; the start does not wait for it.
            let stopping = queues.stopping();
            queues.spawn(async move {
                tokio::select! {
                    _ = keys.current() => {}
                    () = stopping => {}
                }
            });
        }
        // Verdicts are collected without it; only folders are looked at, which takes no time.
        if matches!(config.evidence.location, EvidenceLocation::Directory(_))
            && let Err(problem) = service.evidence.store.probe().await
        {
            error!(
                error = &problem as &dyn std::error::Error,
                "evidence.url: images and videos cannot be stored until this is mended"
            );
        }
        let engine = Engine::start(service.clone(), &keep(&config.retention));
        let api = Api::new(Parts {
            service: service.clone(),
            keys: keys(config),
            open_metrics: config.server.open_metrics,
            metrics,
            tasks: listeners.clone(),
        });
        let app = Self {
            public: public.local_addr()?,
            internal: internal.local_addr()?,
            service,
            engine,
            listeners: listeners.clone(),
            queues,
            providers,
        };
        listeners.spawn(http::serve(public, http::public_router(&api), listeners.clone()));
        listeners.spawn(http::serve(internal, http::internal_router(&api), listeners.clone()));
        info!(public = %app.public, internal = %app.internal, accounts = names.len(), "ready");
        Ok(app)
    }

    /// Takes up secrets of accounts whose files change, from now on and at each word of `reloads`. `loaded` is what the
    /// service was started with.
    pub fn follow_secrets(&self, loaded: &Loaded, environment: &Environment, reloads: Reloads) {
        if let Some(rotation) = self.rotation(loaded, environment) {
            self.listeners.spawn(rotation.run(reloads, self.listeners.stopping()));
        }
    }

    /// As [`App::follow_secrets`], for who decides when to look; `None` without accounts.
    pub fn rotation(&self, loaded: &Loaded, environment: &Environment) -> Option<Rotation> {
        let providers = self.providers.clone()?;
        Some(Rotation::new(loaded.clone(), environment.clone(), providers, self.service.clone()))
    }

    /// Stops softly: no new requests, those under way are answered, checks under way are finished or given back.
    pub async fn shut_down(self) {
        info!("stopping");
        self.listeners.shut_down(REQUEST_GRACE).await;
        self.queues.shut_down(QUEUE_GRACE).await;
        self.engine.shut_down(GRACE.saturating_sub(REQUEST_GRACE + QUEUE_GRACE * 3)).await;
        self.service.store.close().await;
        info!("stopped");
    }
}

/// The classes that are kept for a limited time.
fn keep(retention: &config::Retention) -> Vec<Keep> {
    let times = |class| match class {
        RetentionClass::Evidence => retention.evidence,
        RetentionClass::RawAnswer => retention.raw_answer,
        RetentionClass::Scores => retention.scores,
        RetentionClass::Callbacks => retention.callbacks,
        RetentionClass::History => retention.history,
    };
    RetentionClass::ALL.into_iter().filter_map(|class| Some(Keep { class, time: times(class)? })).collect()
}

/// Brings the database to this program's migrations, or says how it differs. True when it is current.
async fn prepare(store: &Store, migrate: bool) -> anyhow::Result<bool> {
    if migrate {
        let applied = store.migrate().await.context("the database could not be prepared")?;
        if applied > 0 {
            info!(applied, "migrations were applied");
        }
        return Ok(true);
    }
    match store.migrations().await.context("the database could not be looked at")? {
        Migrations::Current => Ok(true),
        Migrations::Pending(pending) => {
            warn!(pending, "migrations are pending: not ready until `checkback migrate` was run");
            Ok(false)
        }
        Migrations::Foreign => {
            warn!("the database has migrations that this version does not know: not ready");
            Ok(false)
        }
    }
}

async fn bind(address: SocketAddr, key: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("{key}: {address} cannot be listened on (is another service running there?)"))
}

fn keys(config: &Config) -> Keys {
    if config.auth.mode == AuthMode::None {
        return Keys::Open;
    }
    if config.auth.keys.is_empty() {
        warn!("no API key is configured: the internal listener refuses everything (see [[auth.keys]])");
    }
    let scope = |scope: &config::Scope| match scope {
        config::Scope::Register => Scope::Register,
        config::Scope::Read => Scope::Read,
        config::Scope::Evidence => Scope::Evidence,
        config::Scope::Operate => Scope::Operate,
        config::Scope::Erase => Scope::Erase,
    };
    Keys::Known(
        config
            .auth
            .keys
            .iter()
            .map(|key| Key {
                name: key.name.clone(),
                sha256: key.sha256.0,
                scopes: key.scopes.iter().map(scope).collect(),
            })
            .collect(),
    )
}

/// What the providers of accounts are made of, also of those whose secrets have changed.
#[derive(Clone)]
pub struct Providers {
    client: HttpClient,
    /// That accounts without a configured key share, if there are any.
    pub chain: Option<SigningKeys>,
    environment: Environment,
    clock: Clock,
    entropy: Entropy,
}

impl Providers {
    /// Puts the account's provider together. The error names the setting and no secret.
    pub fn build(&mut self, name: &str, account: &config::Account) -> anyhow::Result<Arc<dyn Provider>> {
        let (client, clock, entropy) = (self.client.clone(), self.clock.clone(), self.entropy.clone());
        let images = account.return_images;
        Ok(match &account.kind {
            AccountKind::Alibaba(settings) => {
                let keys = match (own_key(settings).with_context(|| format!("accounts.{name}"))?, &self.chain) {
                    (Some(credentials), _) => credentials.into(),
                    (None, Some(shared)) => SigningKeys::clone(shared),
                    (None, None) => {
                        let chain = credential_chain(&self.environment, clock.clone(), entropy.clone())?;
                        self.chain.insert(chain).clone()
                    }
                };
                let settings =
                    alibaba(settings, account.allow_http, keys, images).with_context(|| format!("accounts.{name}"))?;
                Arc::new(AlibabaClient::new(settings, client, clock, entropy))
            }
            AccountKind::Zoloz(settings) => {
                let settings =
                    zoloz(settings).map_err(|(key, problem)| anyhow::anyhow!("accounts.{name}.{key} {problem}"))?;
                Arc::new(ZolozClient::new(settings, images, client, clock, entropy))
            }
        })
    }
}

/// What callbacks of the account must carry, by its settings.
pub fn callback_token(account: &config::Account) -> Option<TokenHash> {
    account.callback_token.as_ref().map(|token| TokenHash::of(token.expose_secret()))
}

/// The accounts, and what their providers are made of; nothing where there are none.
fn accounts(
    config: &Config,
    environment: &Environment,
    options: &Options,
) -> anyhow::Result<(Vec<Account>, Option<Providers>)> {
    if config.accounts.is_empty() {
        return Ok((Vec::new(), None));
    }
    let mut providers = Providers {
        client: HttpClient::new(HttpSettings::default()).context("the HTTP client could not be set up")?,
        chain: None,
        environment: environment.clone(),
        clock: options.clock.clone(),
        entropy: options.entropy.clone(),
    };
    let build = |(name, account): (&String, &config::Account)| {
        Ok(Account {
            name: name.clone(),
            qps: account.qps,
            result_retention: account.result_retention,
            video_retention: account.video_retention,
            give_up_after: account.give_up_after,
            callback_token: Rotating::new(callback_token(account)),
            starting: starting(config, name, account),
            pacing: Pacing::default(),
            providers: Rotating::new(providers.build(name, account)?),
            downloader: downloader(account)?,
        })
    };
    let accounts = config.accounts.iter().map(build).collect::<anyhow::Result<_>>()?;
    Ok((accounts, Some(providers)))
}

/// From where the account's videos may be downloaded; none where its provider has no videos.
fn downloader(account: &config::Account) -> anyhow::Result<Option<Downloader>> {
    let AccountKind::Alibaba(settings) = &account.kind else { return Ok(None) };
    let (hosts, endpoint) = (settings.download_hosts.clone(), settings.endpoint.clone());
    Ok(Some(Downloader::new(hosts, endpoint, DownloadLimits::default())?))
}

/// Where evidence is kept. Credentials of buckets come from the environment.
fn evidence(config: &Config, environment: &Environment) -> anyhow::Result<EvidenceStore> {
    let settings = &config.evidence;
    let parts = |url: &url::Url| (url.host_str().unwrap_or_default().to_owned(), url.path().to_owned());
    let location = match &settings.location {
        EvidenceLocation::Directory(path) => Location::Folder(path.clone()),
        EvidenceLocation::S3(url) => {
            let (bucket, prefix) = parts(url);
            let region = environment.aws_region().context("evidence.url is a bucket at S3: set AWS_REGION")?.to_owned();
            let keys = AwsKeys {
                access_key_id: environment.aws_access_key_id(),
                secret_access_key: environment.aws_secret_access_key(),
                session_token: environment.aws_session_token(),
            };
            Location::S3 { bucket, prefix, region, endpoint: environment.aws_endpoint_url().map(str::to_owned), keys }
        }
        EvidenceLocation::Oss(url) => {
            let (bucket, prefix) = parts(url);
            let endpoint = environment.oss_endpoint().context(
                "evidence.url is a bucket at OSS: set OSS_ENDPOINT, such as https://oss-ap-southeast-1.aliyuncs.com",
            )?;
            let keys = AliyunKeys {
                access_key_id: environment.alibaba_access_key_id(),
                access_key_secret: environment.alibaba_access_key_secret(),
                security_token: environment.alibaba_security_token(),
            };
            Location::Oss { bucket, prefix, endpoint: endpoint.to_owned(), keys }
        }
    };
    let recipients = Recipients::read(&settings.recipients).context("evidence.recipients")?;
    let identities = settings.identity_file.as_deref().map(Identities::read).transpose();
    let identities = identities.context("evidence.identity_file")?;
    Ok(EvidenceStore::new(StoreSettings { location, recipients, identities }))
}

/// The key in the account's settings.
fn own_key(account: &config::AlibabaAccount) -> anyhow::Result<Option<Credentials>> {
    let Some(key) = &account.access_key else { return Ok(None) };
    Ok(Some(Credentials::new(key.id.clone(), key.secret.clone(), None)?))
}

fn credential_chain(environment: &Environment, clock: Clock, entropy: Entropy) -> anyhow::Result<SigningKeys> {
    let owned = |text: Option<&str>| text.map(str::to_owned);
    let settings = ChainSettings {
        key: KeyParts {
            access_key_id: environment.alibaba_access_key_id().map(|id| id.expose_secret().to_owned()),
            access_key_secret: environment.alibaba_access_key_secret(),
            security_token: environment.alibaba_security_token(),
        },
        home: environment.home(),
        profile: owned(environment.alibaba_profile()),
        cli_profile_disabled: environment.alibaba_cli_profile_disabled(),
        credentials_file: environment.alibaba_credentials_file(),
        role_arn: owned(environment.alibaba_role_arn()),
        role_session_name: owned(environment.alibaba_role_session_name()),
        oidc_provider_arn: owned(environment.alibaba_oidc_provider_arn()),
        oidc_token_file: environment.alibaba_oidc_token_file(),
        sts_region: owned(environment.alibaba_sts_region()),
        sts_vpc: environment.alibaba_vpc_endpoint_enabled(),
        metadata_role: owned(environment.alibaba_ecs_metadata()),
        metadata_disabled: environment.alibaba_ecs_metadata_disabled(),
        imds_v1_disabled: environment.alibaba_imds_v1_disabled(),
        uri: environment.alibaba_credentials_uri(),
        ..ChainSettings::default()
    };
    let chain = Chain::new(settings, clock, entropy).context("the HTTP client could not be set up")?;
    Ok(chain.into())
}

/// Where provider and browsers reach us, if anywhere.
fn starting(config: &Config, name: &str, account: &config::Account) -> Starting {
    let below = |what: &str| {
        let mut url = config.server.public_url.clone()?;
        url.path_segments_mut().ok()?.pop_if_empty().extend([what, name]);
        Some(url)
    };
    // The provider takes https alone. One that is itself called by http is a simulator, and nearer.
    let by_http = account.allow_http
        || match &account.kind {
            AccountKind::Alibaba(settings) => settings.endpoint.as_ref().is_some_and(|url| url.scheme() == "http"),
            // It makes no callbacks.
            AccountKind::Zoloz(_) => false,
        };
    Starting {
        callback_url: below("callbacks").filter(|url| url.scheme() == "https" || by_http),
        returns_url: below("returns"),
        ..Starting::default()
    }
}

fn alibaba(
    account: &config::AlibabaAccount,
    allow_http: bool,
    credentials: SigningKeys,
    images: bool,
) -> anyhow::Result<AlibabaSettings> {
    let network = match account.network {
        config::Network::Public => Network::Public,
        config::Network::Vpc => Network::Vpc,
    };
    Ok(AlibabaSettings {
        endpoint: Endpoint::choose(
            account.endpoint.as_ref().map_or("", |url| url.as_str()),
            &account.region,
            network,
            allow_http,
        )?,
        signature: match account.signature {
            config::Signature::Acs3 => Signature::Acs3,
            config::Signature::HmacSha1 => Signature::HmacSha1,
        },
        credentials,
        images,
    })
}

/// Reads the keys; of one that cannot be used, its name in the settings and what is wrong with it.
fn zoloz(account: &config::ZolozAccount) -> Result<ZolozSettings, (&'static str, String)> {
    let auth = match &account.auth {
        ZolozAuth::Rsa { merchant_private_key, zoloz_public_key, encrypt } => {
            let merchant = MerchantKey::read(merchant_private_key.expose_secret())
                .map_err(|error| ("merchant_private_key", error.to_string()))?;
            let zoloz = ZolozKey::read(zoloz_public_key.expose_secret())
                .map_err(|error| ("zoloz_public_key", error.to_string()))?;
            Auth::Rsa { merchant: Box::new(merchant), zoloz: Box::new(zoloz), encrypt: *encrypt }
        }
        ZolozAuth::AkSk { access_key, secret_key } => {
            Auth::AkSk(AccessKey::new(access_key, secret_key).map_err(|error| match error {
                AccessKeyError::Id => ("access_key", error.to_string()),
                AccessKeyError::Secret => ("secret_key", error.to_string()),
            })?)
        }
    };
    Ok(ZolozSettings { endpoint: account.endpoint.clone(), client_id: account.client_id.clone(), auth })
}

#[cfg(test)]
mod tests {
    use url::Url;

    use super::*;

    fn account(auth: ZolozAuth) -> config::ZolozAccount {
        config::ZolozAccount {
            endpoint: Url::parse("https://sg-production-api.zoloz.com").unwrap(),
            client_id: "2089012345678900".to_owned(),
            auth,
        }
    }

    #[test]
    fn a_wrong_zoloz_key_is_named_with_what_is_wrong() {
        let vectors: serde_json::Value = serde_json::from_str(include_str!("../tests/vectors/zoloz.json")).unwrap();
        let key = |name: &str| vectors["keys"]["merchant"][name].as_str().unwrap().to_owned();
        let (private, public) = (key("private_key_pkcs8_pem"), key("public_key_spki_pem"));
        let rsa = |private: &str, public: &str| {
            let (merchant_private_key, zoloz_public_key) = (private.into(), public.into());
            zoloz(&account(ZolozAuth::Rsa { merchant_private_key, zoloz_public_key, encrypt: true }))
        };
        let aksk = |access_key: &str, secret_key: &str| {
            let (access_key, secret_key) = (access_key.into(), secret_key.into());
            zoloz(&account(ZolozAuth::AkSk { access_key, secret_key }))
        };
        assert!(rsa(&private, &public).is_ok());
        assert!(aksk("AK", "c2VjcmV0").is_ok());
        for (settings, name, problem) in [
            (rsa(&public, &public), "merchant_private_key", "is a public key"),
            (rsa(&private, &private), "zoloz_public_key", "is a private key"),
            (rsa(&private, "AAAA"), "zoloz_public_key", "damaged"),
            (aksk("A K", "c2VjcmV0"), "access_key", "blank"),
            (aksk("AK", "+/+/"), "secret_key", "Base64"),
        ] {
            let (key, message) = settings.unwrap_err();
            assert!(key == name && message.contains(problem), "{key} {message}");
        }
    }
}

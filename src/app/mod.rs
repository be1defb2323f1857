//! The composition root: puts configuration, database, providers, loops and listeners together. Nothing else knows
//! them all.

mod evidence;
mod reach;
mod webhooks;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use chrono::TimeDelta;
use secrecy::{ExposeSecret, SecretString};
use sqlx::postgres::PgConnectOptions;
use tokio::net::TcpListener;
use tracing::{error, info, warn};

use crate::clock::Clock;
use crate::config::{self, AccountKind, AuthMode, Config, Environment, EvidenceLocation, Loaded};
use crate::domain::{Keep, RetentionClass};
use crate::entropy::Entropy;
use crate::http::{self, Api, Console, Key, Keys, Parts, Scope, Setting};
use crate::jobs::Engine;
use crate::lifecycle::{GRACE, Reloads, Tasks};
#[cfg(feature = "embedded-postgres")]
use crate::private_postgres::{Durability, Options as PostgresOptions, PrivatePostgres, Search};
use crate::rotation::{Providers, Rotation, callback_token};
use crate::service::Service;
use crate::service::account::{Account, Pacing, Rotating, Starting};
use crate::store::{Access, Migrations, Store};
use crate::telemetry;
use crate::traces::{self, Traces};

pub use evidence::store as evidence_store;
pub use reach::Unreached;
pub use webhooks::signing_keys;

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
    /// For the console: [`config::describe`].
    pub settings: Vec<config::Line>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            migrate: true,
            clock: Clock::system(TimeDelta::zero()),
            entropy: Entropy::system(),
            settings: Vec::new(),
        }
    }
}

/// The database that the configuration names, or a private server that was started for it.
pub struct Database {
    access: Access,
    #[cfg(feature = "embedded-postgres")]
    private: Option<PrivatePostgres>,
}

impl Database {
    /// Starts the private server when no database is configured.
    pub async fn open(config: &Config, environment: &Environment) -> anyhow::Result<Self> {
        if let Some(url) = &config.database.url {
            let listen = config.database.listen_url.as_ref();
            let access = Access {
                options: parse("database.url", url)?,
                listen: listen.map(|url| parse("database.listen_url", url)).transpose()?,
                transaction_pooling: config.database.transaction_pooling,
            };
            return Ok(Self {
                access,
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
        let search = Search { explicit: environment.postgres_bin(), path: environment.path().map(ToOwned::to_owned) };
        let options = PostgresOptions::new(config.database.data_dir.clone(), durability, search);
        let server = PrivatePostgres::start(options).await?;
        Ok(Self { access: server.connect_options().into(), private: Some(server) })
    }

    #[cfg(not(feature = "embedded-postgres"))]
    fn open_private(_: &Config, _: &Environment) -> std::future::Ready<anyhow::Result<Self>> {
        std::future::ready(Err(anyhow::anyhow!(
            "no database is configured, and this build has no private Postgres: set DATABASE_URL or database.url"
        )))
    }

    pub fn store(&self, max_connections: u32) -> Store {
        Store::new(self.access.clone(), max_connections)
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

fn parse(key: &str, url: &SecretString) -> anyhow::Result<PgConnectOptions> {
    // The parser's error may quote the URL, and with it the password.
    url.expose_secret()
        .parse()
        .map_err(|_| anyhow::anyhow!("{key} cannot be read: it must look like postgres://user:password@host:5432/name"))
}

/// A running service.
pub struct App {
    pub public: SocketAddr,
    pub internal: SocketAddr,
    pub service: Service,
    engine: Engine,
    listeners: Tasks,
    queues: Tasks,
    /// What sends the traces, which outlives all that makes them.
    sending: Tasks,
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
        let evidence = evidence::store(config, environment)?;
        let webhooks = webhooks::webhooks(&config.webhooks)?;
        let mut store = database.store(config.database.max_connections);
        if let Some(webhooks) = &webhooks {
            store = store.with_subscriptions(webhooks::subscriptions(webhooks, options.entropy.clone()));
        }
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
        let sending = Tasks::new();
        let traces = traces(&config.telemetry, &sending)?;
        let service = Service::new(store, evidence, options.clock, options.entropy, accounts, &queues)
            .with_webhooks(webhooks)
            .traced(traces);
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
            console: Console::new(options.settings.into_iter().map(setting).collect()),
            tasks: listeners.clone(),
        });
        let app = Self {
            public: public.local_addr()?,
            internal: internal.local_addr()?,
            service,
            engine,
            listeners: listeners.clone(),
            queues,
            sending,
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
        self.service.traces.shut_down().await;
        self.sending.shut_down(Duration::ZERO).await;
        self.service.store.close().await;
        info!("stopped");
    }
}

/// Where traces go, if anywhere.
fn traces(telemetry: &config::Telemetry, tasks: &Tasks) -> anyhow::Result<Traces> {
    let Some(endpoint) = telemetry.otlp_endpoint.clone() else { return Ok(Traces::off()) };
    let (headers, ratio) = (telemetry.otlp_headers.clone(), telemetry.sampling_ratio);
    Ok(Traces::to(&traces::Settings { endpoint, headers, ratio }, tasks)?)
}

fn setting(line: config::Line) -> Setting {
    Setting { key: line.key, value: line.value, origin: line.origin.to_string() }
}

/// The classes that are kept for a limited time.
fn keep(retention: &config::Retention) -> Vec<Keep> {
    let times = |class| match class {
        RetentionClass::Evidence => retention.evidence,
        RetentionClass::RawAnswer => retention.raw_answer,
        RetentionClass::Scores => retention.scores,
        RetentionClass::Callbacks => retention.callbacks,
        RetentionClass::History => retention.history,
        RetentionClass::Webhooks => retention.webhooks,
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
    }
    let found = store.migrations().await.context("the database could not be looked at")?;
    match found {
        Migrations::Current => {}
        Migrations::Newer(newer) => {
            info!(newer, "the database has newer migrations: an upgrade is under way, or this version is a step back");
        }
        Migrations::Pending(pending) => {
            warn!(pending, "migrations are pending: not ready until `checkback migrate` was run");
        }
        Migrations::Foreign => {
            warn!("the database has migrations that this version does not know: not ready");
        }
    }
    Ok(found.are_enough())
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

/// The accounts, and what their providers are made of; nothing where there are none.
fn accounts(
    config: &Config,
    environment: &Environment,
    options: &Options,
) -> anyhow::Result<(Vec<Account>, Option<Providers>)> {
    if config.accounts.is_empty() {
        return Ok((Vec::new(), None));
    }
    let mut providers = Providers::new(environment.clone(), options.clock.clone(), options.entropy.clone())?;
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
            downloader: evidence::downloader(account)?,
        })
    };
    let accounts = config.accounts.iter().map(build).collect::<anyhow::Result<_>>()?;
    Ok((accounts, Some(providers)))
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

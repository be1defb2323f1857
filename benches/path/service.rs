//! The service under test, put together from the library's parts, and the bare one beside it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::get;
use checkback::clock::Clock;
use checkback::entropy::Entropy;
use checkback::evidence::{EvidenceStore, Location, Recipients, StoreSettings};
use checkback::http::{self, Api, Keys, Parts};
use checkback::jobs::Engine;
use checkback::lifecycle::Tasks;
use checkback::provider::alibaba::credentials::Credentials;
use checkback::provider::alibaba::endpoint::Endpoint;
use checkback::provider::alibaba::{AlibabaClient, AlibabaSettings, Signature};
use checkback::provider::http::{HttpClient, HttpSettings};
use checkback::service::Service;
use checkback::service::account::{Account, Pacing, Rotating, Starting};
use checkback::store::{Registered, Store};
use checkback::telemetry;
use chrono::{DateTime, TimeDelta, Utc};
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::net::TcpListener;
use uuid::Uuid;

use crate::Result;
use crate::load;
use crate::world::{ACCOUNT, Known, World};

pub struct Bench {
    service: Service,
    pub public: SocketAddr,
    pub internal: SocketAddr,
    listeners: Tasks,
    queues: Tasks,
    engine: Option<Engine>,
}

/// How the service is set up.
#[derive(Clone, Copy)]
pub struct Shape {
    /// Connections to the database.
    pub pool: u32,
    /// With the engine, callbacks are worked in and checked while they come; without, they are acknowledged only.
    pub engine: bool,
    /// Calls a second that the account allows.
    pub qps: u32,
}

impl Bench {
    pub async fn start(world: &World, shape: Shape) -> Result<Self> {
        let (clock, entropy) = (Clock::system(TimeDelta::zero()), Entropy::system());
        let provider = AlibabaClient::new(
            AlibabaSettings {
                endpoint: Endpoint::explicit(&format!("http://{}", world.simulator), false)?,
                signature: Signature::Acs3,
                credentials: Credentials::new("sim-key-id".into(), "sim-key-secret".into(), None)?.into(),
                images: false,
            },
            HttpClient::new(HttpSettings::default())?,
            clock.clone(),
            entropy.clone(),
        );
        let account = Account {
            name: ACCOUNT.to_owned(),
            qps: shape.qps,
            result_retention: Duration::from_hours(720),
            video_retention: Duration::from_mins(30),
            give_up_after: Duration::from_hours(24),
            callback_token: Rotating::new(None),
            starting: Starting::default(),
            pacing: Pacing::default(),
            providers: Rotating::new(Arc::new(provider)),
            downloader: None,
        };
        let store = Store::new(world.options(), shape.pool);
        let (listeners, queues) = (Tasks::new(), Tasks::new());
        let folder = std::env::temp_dir().join("checkback-bench-evidence");
        let evidence = EvidenceStore::new(StoreSettings {
            location: Location::Folder(folder),
            recipients: Recipients::default(),
            identities: None,
        });
        let service = Service::new(store, evidence, clock, entropy, vec![account], &queues);
        let engine = shape.engine.then(|| Engine::start(service.clone(), &[]));
        let api = Api::new(Parts {
            service: service.clone(),
            keys: Keys::Open,
            console: http::Console::default(),
            open_metrics: true,
            metrics: telemetry::metrics()?,
            tasks: listeners.clone(),
        });
        let (public, internal) = (TcpListener::bind("127.0.0.1:0").await?, TcpListener::bind("127.0.0.1:0").await?);
        let (public_address, internal_address) = (public.local_addr()?, internal.local_addr()?);
        listeners.spawn(http::serve(public, http::public_router(&api), listeners.clone()));
        listeners.spawn(http::serve(internal, http::internal_router(&api), listeners.clone()));
        Ok(Self { service, public: public_address, internal: internal_address, listeners, queues, engine })
    }

    /// Registers the first `count` transactions as the merchant would, so that this process has seen them.
    pub async fn register(&self, world: &World, count: usize) -> Result<Vec<Known>> {
        let account = &self.service.accounts[ACCOUNT];
        let known = stream::iter(0..count)
            .map(async |n| {
                let registration = world.registration(n)?;
                match self.service.register(account, registration).await? {
                    Registered::New { id, .. } => Ok(Known::new(n, id.0)),
                    other => anyhow::bail!("the bench's transaction {n} is not new: {other:?}"),
                }
            })
            .buffered(64)
            .try_collect()
            .await?;
        world.settle().await?;
        Ok(known)
    }

    /// A second of the path before it is measured: connections and prepared statements are made once.
    pub async fn warm_up(&self, world: &World) -> Result<()> {
        let known = self.register(world, 500).await?;
        load::paced(self, &known, 500).await?;
        world.clear().await
    }

    pub fn now(&self) -> DateTime<Utc> {
        self.service.clock.now()
    }

    pub fn token(&self) -> Uuid {
        self.service.entropy.token()
    }

    pub fn store(&self) -> &Store {
        &self.service.store
    }

    /// How long until `count` verdicts are stored.
    pub async fn wait_for_verdicts(&self, world: &World, count: usize) -> Result<Duration> {
        let start = Instant::now();
        let count = i64::try_from(count)?;
        loop {
            let stored: i64 = sqlx::query_scalar("SELECT count(*) FROM verdicts").fetch_one(&world.pool).await?;
            if stored == count {
                return Ok(start.elapsed());
            }
            anyhow::ensure!(start.elapsed() < Duration::from_mins(2), "only {stored} of {count} verdicts");
            // To count takes as long as storing dozens.
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    pub async fn stop(self) {
        self.listeners.shut_down(Duration::from_secs(3)).await;
        self.queues.shut_down(Duration::from_secs(3)).await;
        if let Some(engine) = self.engine {
            engine.shut_down(Duration::from_secs(5)).await;
        }
    }
}

/// The least that axum can do: a fixed answer.
#[expect(clippy::disallowed_methods, reason = "it ends with the benchmark")]
pub async fn bare_axum() -> Result<SocketAddr> {
    let answer = || async { ([(axum::http::header::CONTENT_TYPE, "application/json")], r#"{"status":"accepted"}"#) };
    let router = Router::new().route("/callbacks/{account}", get(answer));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(address)
}

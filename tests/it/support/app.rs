//! The whole service as tests meet it: real router, real database, the simulator as provider, a clock moved by hand.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use checkback::app::{App, Database, Options};
use checkback::clock::Clock;
use checkback::config::{Environment, describe, load_text};
use checkback::entropy::Entropy;
use checkback::simulator::{ClockMove, CreateTransaction, Settings, Simulator, ZolozKeys};
use chrono::{DateTime, TimeDelta, Utc};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use sqlx::{Connection, PgConnection};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::database::{TestDatabase, database};
use super::{environment, scratch};

/// A key with every scope.
pub const KEY: &str = "test-key-with-every-scope";
/// The account that every test has; its QPS is out of the way unless a test sets it.
pub const ACCOUNT: &str = "alibaba-sg";

/// How long a condition may take to come true before a test fails. Nothing waits this long when all is well.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a test wants to be different.
pub struct Setup {
    /// Further lines of the section `server`.
    pub server: String,
    /// Further lines of the account's section.
    pub account: String,
    /// Further lines of the section `evidence`.
    pub evidence: String,
    /// Further sections; `SIMULATOR` in them is replaced by the simulator's address.
    pub more: String,
    pub simulator: Settings,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            server: String::new(),
            account: "qps = 100000".to_owned(),
            evidence: String::new(),
            more: String::new(),
            simulator: Settings::default(),
        }
    }
}

pub struct TestApp {
    pub app: Option<App>,
    pub clock: Clock,
    pub simulator: Simulator,
    pub simulator_address: SocketAddr,
    /// Several apps may share one.
    pub database: std::sync::Arc<TestDatabase>,
    pub http: reqwest::Client,
    pub config: String,
    /// Where evidence is kept.
    pub evidence: PathBuf,
    simulator_task: JoinHandle<()>,
}

#[expect(clippy::disallowed_methods, reason = "tests start where the real time is, because signatures carry it")]
fn real_now() -> DateTime<Utc> {
    Utc::now()
}

#[expect(clippy::disallowed_methods, reason = "the tests' own client: no product code calls it")]
pub fn http_client() -> reqwest::Client {
    reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(Duration::from_secs(70))
        .build()
        .expect("a plain client can be built")
}

/// The section of an account of ZOLOZ at the simulator that has these keys.
pub fn zoloz_account(name: &str, keys: &ZolozKeys) -> String {
    let credentials = keys.credentials().remove(0);
    let private_key = credentials.merchant_private_key.expect("the keys were made here");
    let account = json!({
        "kind": "zoloz", "endpoint": "http://SIMULATOR", "client_id": credentials.client_id, "qps": 100_000,
        "merchant_private_key": private_key.expose_secret(), "zoloz_public_key": credentials.zoloz_public_key,
    });
    // Texts and numbers of JSON are those of TOML too.
    let lines = account.as_object().expect("an object").iter().map(|(name, value)| format!("{name} = {value}"));
    std::iter::once(format!("[accounts.{name}]")).chain(lines).collect::<Vec<_>>().join("\n")
}

/// The way to the same database through the pooler that `scripts/behind-pgbouncer` names.
pub fn pooled(database_url: &str) -> Option<String> {
    let pooler = environment::variable("CHECKBACK_TEST_POOLER")?.into_string().expect("an address");
    let url = url::Url::parse(database_url).expect("an address");
    Some(format!("{pooler}{}", url.path()))
}

/// A service, on the runtime of whoever asks. Behind a pooler where the environment names one.
pub async fn launch(config: &str, database_url: &str, clock: Clock, migrate: bool) -> App {
    let pooled = pooled(database_url);
    let mut pairs = vec![("DATABASE_URL", pooled.as_deref().unwrap_or(database_url))];
    if pooled.is_some() {
        pairs.push(("CHECKBACK_DATABASE__TRANSACTION_POOLING", "true"));
    }
    let environment = Environment::from_pairs(pairs);
    let loaded = load_text("test", config, &environment).expect("the configuration is right");
    let database = Database::open(&loaded.config, &environment).await.expect("the database is there");
    let options = Options { migrate, clock, entropy: Entropy::system(), settings: describe(&loaded) };
    App::start(&loaded.config, &environment, &database, options).await.expect("the service starts")
}

/// A time in an answer of the API.
pub fn time(value: &Value) -> DateTime<Utc> {
    let text = value.as_str().unwrap_or_else(|| panic!("no time: {value}"));
    DateTime::parse_from_rfc3339(text).expect("RFC 3339").to_utc()
}

impl TestApp {
    pub async fn start() -> Self {
        Self::with(Setup::default()).await
    }

    #[expect(clippy::disallowed_methods, reason = "the simulator ends with the test's runtime")]
    pub async fn with(setup: Setup) -> Self {
        let simulator = Simulator::new(&setup.simulator).expect("the simulator starts");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let simulator_address = listener.local_addr().expect("an address");
        let serving = simulator.clone();
        let simulator_task = tokio::spawn(async move {
            serving.serve(listener, std::future::pending()).await.expect("the simulator serves");
        });
        let digest = hex::encode(Sha256::digest(KEY));
        let evidence = scratch::folder().join(format!("evidence-{:016x}", rand::random::<u64>()));
        // Most tests are not about images.
        let images = if setup.account.contains("return_images") { "" } else { "return_images = false" };
        let config = format!(
            r#"
            [server]
            public_listen = "127.0.0.1:0"
            internal_listen = "127.0.0.1:0"
            {}
            [[auth.keys]]
            name = "test"
            sha256 = "{digest}"
            scopes = ["register", "read", "evidence", "operate", "erase"]
            [accounts.{ACCOUNT}]
            kind = "alibaba"
            endpoint = "http://{simulator_address}"
            access_key_id = "sim-key-id"
            access_key_secret = "sim-key-secret"
            {}
            {images}
            [evidence]
            url = "file:{}"
            {}
            {}
            "#,
            setup.server,
            setup.account,
            evidence.display(),
            setup.evidence,
            setup.more.replace("SIMULATOR", &simulator_address.to_string())
        );
        let mut test = Self {
            app: None,
            clock: Clock::manual(real_now()),
            simulator,
            simulator_address,
            database: std::sync::Arc::new(database().await),
            http: http_client(),
            config,
            evidence,
            simulator_task,
        };
        test.app = Some(test.replica().await);
        test
    }

    /// Another service on the same database, clock and simulator.
    pub async fn replica(&self) -> App {
        self.replica_that_migrates(true).await
    }

    pub async fn replica_that_migrates(&self, migrate: bool) -> App {
        launch(&self.config, self.database.url(), self.clock.clone(), migrate).await
    }

    fn app(&self) -> &App {
        self.app.as_ref().expect("the service runs")
    }

    /// Stops the service and starts it again.
    pub async fn restart(&mut self) {
        self.stop().await;
        self.app = Some(self.replica().await);
    }

    pub async fn stop(&mut self) {
        if let Some(app) = self.app.take() {
            app.shut_down().await;
        }
    }

    /// Moves the clocks of service and simulator.
    pub fn advance(&self, by: Duration) {
        self.simulator.move_clock(ClockMove::Advance(TimeDelta::from_std(by).expect("a short time")));
        self.clock.advance(by);
        // Whoever looks once a second need not be waited for.
        if let Some(app) = &self.app {
            app.service.wakes.all_accounts();
            app.service.wake_webhooks();
        }
    }

    pub fn internal(&self, path: &str) -> String {
        format!("http://{}{path}", self.app().internal)
    }

    pub fn public(&self, path: &str) -> String {
        format!("http://{}{path}", self.app().public)
    }

    /// A request to the internal listener with the key of all scopes.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, self.internal(path)).bearer_auth(KEY)
    }

    pub async fn get(&self, path: &str) -> Response {
        self.request(Method::GET, path).send().await.expect("an answer")
    }

    pub async fn get_json(&self, path: &str) -> Value {
        let response = self.get(path).await;
        let status = response.status();
        let body = response.json().await.expect("JSON");
        assert_eq!(status, StatusCode::OK, "{path}: {body}");
        body
    }

    pub async fn post(&self, path: &str, body: &Value) -> Response {
        self.request(Method::POST, path).json(body).send().await.expect("an answer")
    }

    /// Makes a transaction at the simulator and registers it; returns its ids: (transaction, verification).
    pub async fn begin(&self, transaction: CreateTransaction, registration: Value) -> (String, String) {
        let created = self.simulator.create(transaction).expect("a transaction");
        let mut body = json!({ "account": ACCOUNT, "transaction_id": created.transaction_id });
        for (name, value) in registration.as_object().expect("an object") {
            body[name] = value.clone();
        }
        let response = self.post("/verifications", &body).await;
        let status = response.status();
        let body: Value = response.json().await.expect("JSON");
        assert_eq!(status, StatusCode::CREATED, "{body}");
        (created.transaction_id, body["id"].as_str().expect("an id").to_owned())
    }

    /// Sends a callback as the provider would.
    pub async fn callback(&self, transaction_id: &str, token: Option<&str>) -> Response {
        let mut query = format!("transactionId={transaction_id}&passed=Y&subCode=200");
        if let Some(token) = token {
            query.push_str("&callbackToken=");
            query.push_str(token);
        }
        self.http.get(self.public(&format!("/callbacks/{ACCOUNT}?{query}"))).send().await.expect("an answer")
    }

    pub async fn verification(&self, id: &str) -> Value {
        self.get_json(&format!("/verifications/{id}")).await
    }

    /// Waits for the verdict.
    pub async fn final_verification(&self, id: &str) -> Value {
        let body = self.get_json(&format!("/verifications/{id}?wait=20")).await;
        assert_eq!(body["final"], true, "not final in time: {body}");
        body
    }

    /// Waits until the provider was asked `attempts` times and the answers are stored.
    pub async fn attempted(&self, id: &str, attempts: u64) -> Value {
        self.until(&format!("{attempts} attempts"), async || {
            let body = self.verification(id).await;
            (body["attempts"].as_u64().expect("a number") >= attempts).then_some(body)
        })
        .await
    }

    /// Moves the clocks to `to`, if that is not over. What is under way ends first: a call that was signed before a
    /// jump and arrives after it would be refused for its time.
    pub async fn advance_to(&self, to: DateTime<Utc>) {
        self.settle().await;
        if let Ok(by) = (to - self.clock.now()).to_std() {
            self.advance(by);
        }
    }

    /// Waits until no hint is to be worked in and no check is under way.
    async fn settle(&self) {
        let mut connection = PgConnection::connect_with(&self.database.options()).await.expect("a connection");
        let busy = "SELECT EXISTS (SELECT FROM hints)
            OR EXISTS (SELECT FROM collect_jobs WHERE lease_token IS NOT NULL)
            OR EXISTS (SELECT FROM evidence WHERE lease_token IS NOT NULL)
            OR EXISTS (SELECT FROM deliveries WHERE lease_token IS NOT NULL)";
        self.until("at rest", async || {
            let is_busy: bool = sqlx::query_scalar(busy).fetch_one(&mut connection).await.expect("an answer");
            (!is_busy).then_some(())
        })
        .await;
    }

    /// The merchant's wish to ask the provider now.
    pub async fn collect(&self, id: &str) {
        let response = self.post(&format!("/verifications/{id}/collect"), &json!({})).await;
        assert_eq!(response.status(), StatusCode::ACCEPTED);
    }

    /// The same on a final one, whatever its status.
    pub async fn recheck(&self, id: &str) {
        let response = self.post(&format!("/verifications/{id}/collect"), &json!({ "recheck": true })).await;
        assert_eq!(response.status(), StatusCode::ACCEPTED);
    }

    /// The checks in the history: when, and the outcome.
    pub async fn checks(&self, id: &str) -> Vec<(DateTime<Utc>, String)> {
        let history = self.history(id).await;
        let checks = history.iter().filter(|item| item["kind"] == "check");
        checks.map(|item| (time(&item["at"]), outcome(item))).collect()
    }

    /// The calls of `operation` about one transaction.
    pub fn calls_for(&self, operation: &str, transaction: &str) -> usize {
        let calls = self.simulator.call_log();
        calls
            .iter()
            .filter(|call| call.operation == operation && call.transaction_id.as_deref() == Some(transaction))
            .count()
    }

    pub async fn history(&self, id: &str) -> Vec<Value> {
        let body = self.get_json(&format!("/verifications/{id}/history")).await;
        body["items"].as_array().expect("items").clone()
    }

    /// The calls of `operation` that the simulator received.
    pub fn provider_calls(&self, operation: &str) -> usize {
        self.simulator.call_log().iter().filter(|call| call.operation == operation).count()
    }

    /// Asks until `condition` holds; fails when it never does.
    pub async fn until<T>(&self, what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
        let looking = async {
            loop {
                if let Some(found) = condition().await {
                    return found;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, looking).await.unwrap_or_else(|_| panic!("never: {what}"))
    }
}

fn outcome(item: &Value) -> String {
    item["outcome"].as_str().expect("an outcome").to_owned()
}

impl Drop for TestApp {
    fn drop(&mut self) {
        self.simulator_task.abort();
    }
}

//! No loss: the real binary is killed again and again while callbacks come in, and what it acknowledged is there.
//!
//! How often, how many and with which seed comes from the environment; `scripts/torture` runs a longer form.
#![expect(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

mod service;
mod videos;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

#[cfg(feature = "embedded-postgres")]
use checkback::private_postgres;
use checkback::simulator::{CreateTransaction, Fault, FaultKind, Settings, Simulator};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::net::TcpListener;

use self::service::{Service, scratch, signal};
use super::support::app::{ACCOUNT, KEY, http_client};
use super::support::database::{TestDatabase, database};
use super::support::environment::{self, number};

/// Those who send callbacks, each over a connection of its own.
const SENDERS: usize = 4;

/// Calls a second of the account; fewer than callbacks come in, so that there is always work under way.
const QPS: u32 = 1000;

/// As many verifications as there is time for.
const UNBOUNDED: usize = 1_000_000_000;

/// What the senders know: transactions whose callback was acknowledged, and how often.
#[derive(Default)]
struct Acknowledged {
    callbacks: Mutex<HashMap<String, u32>>,
    registered: Mutex<Vec<(String, String)>>,
    failed: AtomicUsize,
}

struct Senders {
    simulator: Simulator,
    public: SocketAddr,
    internal: SocketAddr,
    acknowledged: Acknowledged,
    begun: AtomicUsize,
    most: usize,
    stop: AtomicBool,
    /// Every flow has a video.
    videos: bool,
}

impl Senders {
    /// Registers one flow after the other and calls back, each until it is acknowledged, as the provider and the
    /// merchant do. Some callbacks are sent twice.
    async fn run(&self, seed: u64) {
        let mut random = StdRng::seed_from_u64(seed);
        let http = http_client();
        while !self.stop.load(Ordering::Relaxed) && self.begun.fetch_add(1, Ordering::Relaxed) < self.most {
            let token = format!("token-{:032x}", random.random::<u128>());
            let transaction = self
                .simulator
                .create(CreateTransaction { completed: Some(true), doc_video: self.videos, ..Default::default() })
                .unwrap()
                .transaction_id;
            let body = json!({
                "account": ACCOUNT, "transaction_id": transaction, "callback_token": token,
                "expect_video": self.videos,
            });
            let register = || http.post(format!("http://{}/verifications", self.internal)).bearer_auth(KEY).json(&body);
            let answer = self.until_acknowledged(register).await;
            let id = answer.json::<Value>().await.ok().and_then(|body| body["id"].as_str().map(str::to_owned));
            // An answer that broke off leaves the id unknown, which costs the test nothing.
            self.acknowledged.registered.lock().unwrap().push((transaction.clone(), id.unwrap_or_default()));
            let url = format!(
                "http://{}/callbacks/{ACCOUNT}?transactionId={transaction}&passed=Y&subCode=200&callbackToken={token}",
                self.public
            );
            for _ in 0..random.random_range(1..=2) {
                self.until_acknowledged(|| http.get(&url)).await;
                *self.acknowledged.callbacks.lock().unwrap().entry(transaction.clone()).or_default() += 1;
            }
        }
    }

    async fn until_acknowledged(&self, request: impl Fn() -> reqwest::RequestBuilder) -> reqwest::Response {
        loop {
            match request().send().await {
                Ok(answer) if answer.status().is_success() => return answer,
                Ok(answer) if answer.status() == 503 => {}
                Ok(answer) => panic!("{}", answer.status()),
                Err(_) => {
                    self.acknowledged.failed.fetch_add(1, Ordering::Relaxed);
                }
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
async fn simulator() -> (Simulator, SocketAddr) {
    let simulator = Simulator::new(&Settings::default()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(tokio::spawn(simulator.clone().serve(listener, std::future::pending())));
    // Answers take a moment, so that a kill meets calls under way; some are faults.
    let slow = Fault { kind: FaultKind::Delay, delay_ms: Some(40), share: Some(0.3), ..Fault::default() };
    simulator.add_fault(slow).unwrap();
    simulator.add_fault(Fault { share: Some(0.03), ..Fault::default() }).unwrap();
    (simulator, address)
}

/// Every registration has exactly one verdict, and every acknowledged callback is on record.
async fn nothing_is_lost(pool: &PgPool, acknowledged: &Acknowledged, patience: Duration) {
    let registered: Vec<String> =
        acknowledged.registered.lock().unwrap().iter().map(|(transaction, _)| transaction.clone()).collect();
    let started = Instant::now();
    loop {
        let (open, hints): (i64, i64) =
            sqlx::query_as("SELECT (SELECT count(*) FROM collect_jobs), (SELECT count(*) FROM hints)")
                .fetch_one(pool)
                .await
                .unwrap();
        if open + hints == 0 {
            break;
        }
        assert!(started.elapsed() < patience, "{open} verifications and {hints} hints are left after {patience:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let rows: Vec<(String, i64, i64, i64, i64)> = sqlx::query_as(
        "SELECT v.transaction_id,
            (SELECT count(*) FROM verdicts d WHERE d.verification_id = v.verification_id),
            (SELECT count(*) FROM verdicts d WHERE d.verification_id = v.verification_id
                AND d.revision = 1 AND d.status = 'passed' AND d.superseded_at IS NULL),
            (SELECT count(*) FROM history h WHERE h.verification_id = v.verification_id AND h.kind = 'callback'),
            (SELECT count(*) FROM history h WHERE h.verification_id = v.verification_id AND h.kind = 'verdict')
        FROM verifications v",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    let stored: HashMap<&str, _> = rows.iter().map(|row| (row.0.as_str(), row)).collect();
    assert_eq!(stored.len(), rows.len());
    for transaction in &registered {
        assert!(stored.contains_key(transaction.as_str()), "{transaction} was acknowledged and is not there");
    }
    let callbacks = acknowledged.callbacks.lock().unwrap();
    for (transaction, verdicts, right, seen, told) in &rows {
        assert_eq!((*verdicts, *right, *told), (1, 1, 1), "verdicts of {transaction}");
        let sent = i64::from(callbacks.get(transaction).copied().unwrap_or(0));
        assert!(*seen >= sent, "{transaction}: {sent} callbacks were acknowledged, {seen} are on record");
    }
}

struct Torture {
    service: Service,
    senders: Arc<Senders>,
    random: StdRng,
}

impl Torture {
    async fn new(
        name: &str,
        simulator: (Simulator, SocketAddr),
        database_url: Option<String>,
        most: usize,
        videos: bool,
    ) -> Self {
        let seed = number("CHECKBACK_TORTURE_SEED", u64::from(std::process::id()));
        let mut said = std::io::stderr().lock();
        let _ = std::io::Write::write_fmt(&mut said, format_args!("{name}: CHECKBACK_TORTURE_SEED={seed}\n"));
        drop(said);
        let mut service = Service::new(scratch(), simulator.1, database_url);
        service.start();
        service.ready().await;
        let senders = Arc::new(Senders {
            simulator: simulator.0,
            public: service.public,
            internal: service.internal,
            acknowledged: Acknowledged::default(),
            begun: AtomicUsize::new(0),
            most,
            stop: AtomicBool::new(false),
            videos,
        });
        Self { service, senders, random: StdRng::seed_from_u64(seed) }
    }

    fn send(&mut self) -> tokio::task::JoinSet<()> {
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..SENDERS {
            let (senders, seed) = (Arc::clone(&self.senders), self.random.random());
            tasks.spawn(async move { senders.run(seed).await });
        }
        tasks
    }

    /// Lets it work for a random time.
    async fn wait(&mut self) {
        // The moment of the kill is what is random here: there is no condition to wait for.
        let moment = Duration::from_millis(self.random.random_range(0..400));
        tokio::time::sleep(moment).await;
    }
}

fn connected(senders: &Senders) -> (usize, u32) {
    let callbacks = senders.acknowledged.callbacks.lock().unwrap();
    (callbacks.len(), callbacks.values().sum())
}

async fn pool_of(database: &TestDatabase) -> PgPool {
    database.pool().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_when_the_service_is_killed_again_and_again() {
    let kills = number("CHECKBACK_TORTURE_KILLS", 25);
    let most = usize::try_from(number("CHECKBACK_TORTURE_CALLBACKS", UNBOUNDED as u64)).unwrap();
    let simulator = simulator().await;
    let calls = simulator.0.clone();
    let database = database().await;
    let mut torture = Torture::new("kill", simulator, Some(database.url().to_owned()), most, false).await;
    let senders = Arc::clone(&torture.senders);
    let mut sending = torture.send();
    let mut starts = Vec::new();
    for kill in 1..=kills {
        // Of a given number, an equal share is sent before each kill.
        let share = usize::try_from(kill).unwrap() * most / usize::try_from(kills + 1).unwrap();
        while most < UNBOUNDED && senders.begun.load(Ordering::Relaxed) < share {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        torture.wait().await;
        torture.service.kill();
        torture.service.start();
        starts.push(torture.service.ready().await);
    }
    if most < UNBOUNDED {
        // It is sent in full.
        while senders.begun.load(Ordering::Relaxed) < most {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    senders.stop.store(true, Ordering::Relaxed);
    while let Some(sent) = sending.join_next().await {
        sent.unwrap();
    }
    let (flows, callbacks) = connected(&senders);
    let pool = pool_of(&database).await;
    let backlog = u64::try_from(flows).unwrap() / u64::from(QPS / 2);
    nothing_is_lost(&pool, &senders.acknowledged, Duration::from_secs(120 + backlog)).await;
    starts.sort_unstable();
    let failed = senders.acknowledged.failed.load(Ordering::Relaxed);
    let mut said = std::io::stderr().lock();
    let _ = std::io::Write::write_fmt(
        &mut said,
        format_args!(
            "{kills} kills, {flows} verifications, {callbacks} callbacks acknowledged, {failed} requests cut off, {} \
             calls to the provider, ready after {:?} (median), {:?} (longest)\n",
            calls.call_count(),
            starts[starts.len() / 2],
            starts[starts.len() - 1]
        ),
    );
    drop(said);
    assert!(failed > 0, "no request was ever cut off: the kills missed the traffic");
    assert!(flows > 50, "only {flows} verifications were under way");
    assert!(starts[starts.len() / 2] < Duration::from_secs(2), "{starts:?}");
    let stopped = torture.service.stop().await;
    assert!(stopped < Duration::from_secs(10), "{stopped:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_answers_what_is_under_way_and_leaves_the_rest_ready_for_the_next() {
    let simulator = simulator().await;
    let database = database().await;
    let mut torture = Torture::new("stop", simulator, Some(database.url().to_owned()), UNBOUNDED, false).await;
    let senders = Arc::clone(&torture.senders);
    let mut sending = torture.send();
    let pool = pool_of(&database).await;
    for _ in 0..3 {
        let seen = connected(&senders).1;
        while connected(&senders).1 < seen + 40 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let took = torture.service.stop().await;
        assert!(took < Duration::from_secs(10), "{took:?}");
        // No lease is left to run out: everything was stored or given back.
        let leased: i64 = sqlx::query_scalar("SELECT count(*) FROM collect_jobs WHERE lease_token IS NOT NULL")
            .fetch_one(&pool)
            .await
            .unwrap();
        assert_eq!(leased, 0, "leases were left behind by a stop that took {took:?}");
        torture.service.start();
        torture.service.ready().await;
    }
    senders.stop.store(true, Ordering::Relaxed);
    while let Some(sent) = sending.join_next().await {
        sent.unwrap();
    }
    nothing_is_lost(&pool, &senders.acknowledged, Duration::from_mins(2)).await;
}

/// Nothing that the API lists is still open.
#[cfg(feature = "embedded-postgres")]
async fn all_final(service: &Service, patience: Duration) {
    let started = Instant::now();
    for status in ["waiting", "collecting"] {
        let url = format!("http://{}/verifications?limit=1&status={status}", service.internal);
        loop {
            if let Ok(answer) = service.http.get(&url).bearer_auth(KEY).send().await
                && answer.status() == 200
                && answer.json::<Value>().await.is_ok_and(|body| body["items"] == json!([]))
            {
                break;
            }
            assert!(started.elapsed() < patience, "some are {status} after {patience:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

#[cfg(feature = "embedded-postgres")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_when_the_private_postgres_is_killed_too() {
    let kills = number("CHECKBACK_TORTURE_DATABASE_KILLS", 4);
    let mut torture = Torture::new("database", simulator().await, None, UNBOUNDED, false).await;
    let data_dir = torture.service.folder.path().join("data");
    let senders = Arc::clone(&torture.senders);
    let mut sending = torture.send();
    for round in 0..kills {
        let seen = connected(&senders).1;
        while connected(&senders).1 < seen + 20 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        torture.wait().await;
        let server = std::fs::read_to_string(data_dir.join("cluster").join("postmaster.pid")).unwrap();
        let server: u32 = server.lines().next().unwrap().parse().unwrap();
        // The database dies under a running service, or stays behind when its service dies.
        if round % 2 == 0 {
            signal("KILL", server);
            torture.wait().await;
        }
        torture.service.kill();
        torture.service.start();
        torture.service.ready().await;
    }
    senders.stop.store(true, Ordering::Relaxed);
    while let Some(sent) = sending.join_next().await {
        sent.unwrap();
    }
    all_final(&torture.service, Duration::from_mins(3)).await;
    torture.service.stop().await;
    let options = private_postgres::Options::new(data_dir, private_postgres::Durability::Full, environment::search());
    let server = private_postgres::PrivatePostgres::start(options).await.unwrap();
    let pool = PgPool::connect_with(server.connect_options()).await.unwrap();
    nothing_is_lost(&pool, &senders.acknowledged, Duration::from_secs(1)).await;
    pool.close().await;
    server.stop().await.unwrap();
}

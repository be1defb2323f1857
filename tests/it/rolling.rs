//! A rolling upgrade, as a proxy before the replicas sees it: the next one becomes ready, the last one is told to stop,
//! and callbacks keep coming all the while. No answer but 2xx and "come again", and nothing acknowledged is lost.
#![expect(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use checkback::simulator::{Complete, CreateTransaction};
use futures_util::future::join_all;
use reqwest::{Client, RequestBuilder, StatusCode};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::support::app::{ACCOUNT, KEY, TestApp, http_client};
use super::support::process::{Served, checkback, serve};

const TOKEN: &str = "the-right-token-of-this";
const SENDERS: usize = 4;
const UPGRADES: usize = 3;
/// So many flows begin between one step of the upgrade and the next.
const BETWEEN: usize = 25;

/// Where requests go: addresses of the public and the internal listener.
#[derive(Clone, Debug, PartialEq)]
struct Replica {
    public: String,
    internal: String,
}

#[derive(Clone, Copy)]
enum Side {
    Public,
    Internal,
}

/// What stands before the replicas: it asks the next one when a connection is refused or cut, or at a 503.
struct Proxy {
    replicas: Mutex<Vec<Replica>>,
    http: Client,
    /// The flows so far, and whether they go on.
    flows: watch::Sender<usize>,
    goes_on: AtomicBool,
}

impl Proxy {
    async fn ask(&self, first: usize, side: Side, request: impl Fn(&Client, &str) -> RequestBuilder) -> Value {
        for turn in first.. {
            let replica = {
                let replicas = self.replicas.lock().unwrap();
                replicas[turn % replicas.len()].clone()
            };
            let address = match side {
                Side::Public => &replica.public,
                Side::Internal => &replica.internal,
            };
            // No answer says nothing; an answer must be one of two.
            let Ok(answer) = request(&self.http, address).send().await else { continue };
            let (status, later) = (answer.status(), answer.headers().contains_key("retry-after"));
            if status == StatusCode::SERVICE_UNAVAILABLE && later {
                continue;
            }
            let Ok(body) = answer.json::<Value>().await else { continue };
            assert!(status.is_success(), "{status}: {body}");
            return body;
        }
        unreachable!("the turns do not end")
    }

    /// Registrations and their callbacks, until told to end; the ids of those whose callback was acknowledged.
    async fn flows(&self, test: &TestApp, first: usize) -> Vec<String> {
        let mut acknowledged = Vec::new();
        while self.goes_on.load(Ordering::Relaxed) {
            let transaction = test.simulator.create(CreateTransaction::default()).unwrap().transaction_id;
            test.simulator
                .complete(&transaction, Complete { callbacks: Some(0), ..Complete::default() })
                .await
                .unwrap();
            let registration = json!({ "account": ACCOUNT, "transaction_id": transaction, "callback_token": TOKEN });
            let turn = first + acknowledged.len();
            let registered = self
                .ask(turn, Side::Internal, |http, address| {
                    http.post(format!("{address}/verifications")).bearer_auth(KEY).json(&registration)
                })
                .await;
            let query = format!("transactionId={transaction}&callbackToken={TOKEN}&passed=Y&subCode=200");
            let callback = format!("/callbacks/{ACCOUNT}?{query}");
            let answer =
                self.ask(turn + 1, Side::Public, |http, address| http.get(format!("{address}{callback}"))).await;
            assert_eq!(answer["status"], "accepted");
            acknowledged.push(registered["id"].as_str().unwrap().to_owned());
            self.flows.send_modify(|flows| *flows += 1);
        }
        acknowledged
    }

    async fn some_more_flows(&self) {
        let mut flows = self.flows.subscribe();
        let enough = *flows.borrow() + BETWEEN;
        flows.wait_for(|flows| *flows >= enough).await.unwrap();
    }

    /// Replaces the replica `UPGRADES` times.
    async fn upgrade(&self, first: Served, start: impl AsyncFn() -> Served) -> Served {
        let mut old = first;
        for _ in 0..UPGRADES {
            let new = start().await;
            self.replicas.lock().unwrap().push(address(&new));
            self.some_more_flows().await;
            // It is told to stop before the proxy knows, which is the harder order.
            old.process.signal(Signal::TERM);
            self.some_more_flows().await;
            let gone = address(&old);
            self.replicas.lock().unwrap().retain(|replica| *replica != gone);
            let (code, said) = old.process.ended(Duration::from_secs(30)).await;
            assert_eq!(code, Some(0), "{said}");
            old = new;
        }
        self.goes_on.store(false, Ordering::Relaxed);
        old
    }
}

fn address(served: &Served) -> Replica {
    Replica { public: served.public.clone(), internal: served.internal.clone() }
}

#[tokio::test]
async fn callbacks_that_come_during_an_upgrade_are_answered_and_none_is_lost() {
    let mut test = TestApp::start().await;
    // Only real processes take part.
    test.stop().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("checkback.toml");
    std::fs::write(&file, &test.config).unwrap();
    let url = test.database.url().to_owned();
    let start = async || {
        let mut command = checkback(["serve", "--config", file.to_str().unwrap()]);
        // Nobody reads the log after the first line; a full pipe would hold the process up.
        command.env("DATABASE_URL", &url).env("CHECKBACK_LOG__LEVEL", "error,checkback::app=info");
        serve(&mut command).await
    };
    let first = start().await;
    let proxy = Arc::new(Proxy {
        replicas: Mutex::new(vec![address(&first)]),
        http: http_client(),
        flows: watch::Sender::new(0),
        goes_on: AtomicBool::new(true),
    });
    let sending = join_all((0..SENDERS).map(|first| proxy.flows(&test, first)));
    let (acknowledged, last) = tokio::join!(sending, proxy.upgrade(first, start));
    let acknowledged: Vec<String> = acknowledged.into_iter().flatten().collect();
    assert!(acknowledged.len() >= 2 * UPGRADES * BETWEEN);

    join_all(acknowledged.iter().map(async |id| {
        let url = format!("{}/verifications/{id}?wait=30", last.internal);
        let body: Value = test.http.get(url).bearer_auth(KEY).send().await.unwrap().json().await.unwrap();
        assert_eq!(body["status"], "passed", "{body}");
        assert!(body["callback_at"].is_string(), "{body}");
    }))
    .await;
    let verdicts: i64 =
        sqlx::query_scalar("SELECT count(*) FROM verdicts").fetch_one(&test.database.pool().await).await.unwrap();
    assert_eq!(usize::try_from(verdicts).unwrap(), acknowledged.len(), "one each");
    let (code, said) = last.process.stop().await;
    assert_eq!(code, Some(0), "{said}");
}

//! The simulator over real loopback HTTP, with requests signed here by hand.

mod api;
mod callbacks;
mod control;
mod faults;
mod zoloz;

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use reqwest::Client;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::alibaba::sign;
use super::{Complete, CreateTransaction, Settings, Simulator};

const KEY: &str = "sim-key-id";
const SECRET: &str = "sim-key-secret";

/// A simulator on a free port; it stops when dropped.
struct Sim {
    simulator: Simulator,
    host: String,
    client: Client,
    _stop: oneshot::Sender<()>,
}

struct Answered {
    status: u16,
    date: DateTime<Utc>,
    retry_after: Option<String>,
    text: String,
}

impl Answered {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap()
    }

    fn code(&self) -> String {
        self.json()["Code"].as_str().unwrap().to_owned()
    }

    /// Status and code, as refusals are compared.
    fn refusal(&self) -> (u16, String) {
        (self.status, self.code())
    }

    /// A member of `Result` that holds JSON as text.
    fn inner(&self, name: &str) -> Value {
        serde_json::from_str(self.json()["Result"][name].as_str().unwrap()).unwrap()
    }
}

/// A request before it is signed. What a test changes is made wrong on purpose.
#[derive(Clone)]
struct Signer {
    action: &'static str,
    parameters: Vec<(&'static str, String)>,
    key: &'static str,
    secret: &'static str,
    version: &'static str,
    date: String,
    nonce: String,
    method: &'static str,
}

#[expect(clippy::disallowed_methods, reason = "the client of these tests")]
fn client() -> Client {
    Client::builder().no_proxy().timeout(Duration::from_secs(20)).build().unwrap()
}

fn rfc3339(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

impl Sim {
    async fn start() -> Self {
        Self::with(Settings::default()).await
    }

    async fn with(settings: Settings) -> Self {
        let simulator = Simulator::new(&settings).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let (stop, stopped) = oneshot::channel::<()>();
        #[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
        tokio::spawn(simulator.clone().serve(listener, async {
            let _ = stopped.await;
        }));
        Self { simulator, host, client: client(), _stop: stop }
    }

    fn signer(&self, action: &'static str, parameters: &[(&'static str, &str)]) -> Signer {
        static NONCE: AtomicU32 = AtomicU32::new(0);
        Signer {
            action,
            parameters: parameters.iter().map(|(name, value)| (*name, (*value).to_owned())).collect(),
            key: KEY,
            secret: SECRET,
            version: "2022-08-09",
            date: rfc3339(self.simulator.now()),
            nonce: format!("nonce-{}", NONCE.fetch_add(1, Ordering::Relaxed)),
            method: "POST",
        }
    }

    fn check(&self, id: &str, more: &[(&'static str, &str)]) -> Signer {
        let usual = [("TransactionId", id), ("MerchantBizId", "biz1")];
        self.signer("CheckResult", &[&usual, more].concat())
    }

    fn initialize(&self, more: &[(&'static str, &str)]) -> Signer {
        let usual =
            [("ProductCode", "FACE_LIVENESS"), ("MerchantBizId", "biz1"), ("MetaInfo", "{}"), ("MerchantUserId", "u1")];
        self.signer("Initialize", &[&usual, more].concat())
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Answered {
        let response = request.send().await.unwrap();
        let header = |name: &str| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        Answered {
            status: response.status().as_u16(),
            date: DateTime::parse_from_rfc2822(&header("date").unwrap()).unwrap().to_utc(),
            retry_after: header("x-acs-retry-after"),
            text: response.text().await.unwrap(),
        }
    }

    fn acs3_request(&self, signer: &Signer) -> reqwest::RequestBuilder {
        self.acs3_with(signer, &[])
    }

    /// `unsigned`: headers that are sent and not signed.
    fn acs3_with(&self, signer: &Signer, unsigned: &[(&str, &str)]) -> reqwest::RequestBuilder {
        let body_hash = sign::sha256_hex(b"");
        let headers = [
            ("host", self.host.clone()),
            ("x-acs-action", signer.action.to_owned()),
            ("x-acs-content-sha256", body_hash.clone()),
            ("x-acs-date", signer.date.clone()),
            ("x-acs-signature-nonce", signer.nonce.clone()),
            ("x-acs-version", signer.version.to_owned()),
        ];
        let parameters = signer.parameters.iter().map(|(name, value)| (*name, value.as_str()));
        let canonical = sign::acs3_canonical_request(signer.method, parameters, &headers, &body_hash);
        let signature = sign::SigningKeys::new(signer.secret).acs3_signature(&sign::acs3_string_to_sign(&canonical));
        let names = headers.each_ref().map(|(name, _)| *name).join(";");
        let authorization =
            format!("ACS3-HMAC-SHA256 Credential={},SignedHeaders={names},Signature={signature}", signer.key);
        let mut request = self.request(signer.method, &signer.parameters).header("authorization", authorization);
        for (name, value) in &headers[1..] {
            request = request.header(*name, value);
        }
        for (name, value) in unsigned {
            request = request.header(*name, *value);
        }
        request
    }

    fn rpc_request(&self, signer: &Signer) -> reqwest::RequestBuilder {
        let mut parameters = signer.parameters.clone();
        parameters.extend([
            ("Action", signer.action.to_owned()),
            ("Version", signer.version.to_owned()),
            ("Format", "JSON".to_owned()),
            ("AccessKeyId", signer.key.to_owned()),
            ("SignatureMethod", "HMAC-SHA1".to_owned()),
            ("SignatureVersion", "1.0".to_owned()),
            ("SignatureNonce", signer.nonce.clone()),
            ("Timestamp", signer.date.clone()),
        ]);
        let pairs = parameters.iter().map(|(name, value)| (*name, value.as_str()));
        let text = sign::rpc_string_to_sign(signer.method, pairs);
        parameters.push(("Signature", sign::SigningKeys::new(signer.secret).rpc_signature(&text)));
        self.request(signer.method, &parameters)
    }

    fn request(&self, method: &str, query: &[(&'static str, String)]) -> reqwest::RequestBuilder {
        let mut url = reqwest::Url::parse(&format!("http://{}/", self.host)).unwrap();
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        self.client.request(method.parse().unwrap(), url)
    }

    async fn acs3(&self, signer: &Signer) -> Answered {
        self.send(self.acs3_request(signer)).await
    }

    async fn rpc(&self, signer: &Signer) -> Answered {
        self.send(self.rpc_request(signer)).await
    }

    /// CheckResult as a client would ask for it.
    async fn result(&self, id: &str) -> Answered {
        self.acs3(&self.check(id, &[])).await
    }

    async fn control(&self, method: &str, path: &str, body: &str) -> Answered {
        let url = format!("http://{}{path}", self.host);
        self.send(self.client.request(method.parse().unwrap(), url).body(body.to_owned())).await
    }

    fn created(&self, command: CreateTransaction) -> String {
        self.simulator.create(command).unwrap().transaction_id
    }

    /// A transaction that passed.
    async fn passed(&self) -> String {
        let id = self.created(CreateTransaction::default());
        self.simulator.complete(&id, Complete::default()).await.unwrap();
        id
    }
}

//! ZOLOZ over real loopback HTTP, with requests signed, encrypted, verified and decrypted here by hand.

mod api;
mod control;
mod faults;
mod keys;
mod vectors;

use secrecy::ExposeSecret;
use serde_json::json;

use super::*;
use crate::simulator::zoloz::keys::{PrivateKey, PublicKey};
use crate::simulator::zoloz::{cipher, sign};
use crate::simulator::{ZolozComplete, ZolozTransaction};

const AUTHENTICATION_TEST: &str = "/api/v1/zoloz/authentication/test";
const INITIALIZE: &str = "/api/v1/zoloz/connect/initialize";
const CHECK_RESULT: &str = "/api/v1/zoloz/connect/checkresult";
const DELETE: &str = "/api/v1/zoloz/privacyinfo/delete";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Rsa,
    Encrypted(usize),
    AkSk,
}

const MODES: [Mode; 4] = [Mode::Rsa, Mode::Encrypted(32), Mode::Encrypted(16), Mode::AkSk];

/// The merchant's side.
struct Merchant {
    client_id: String,
    own: PrivateKey,
    zoloz: PublicKey,
    access_key: String,
    secret: String,
}

/// A request before it is signed. What a test changes is made wrong on purpose.
#[derive(Clone)]
struct Call {
    path: &'static str,
    body: String,
    time: String,
    client_id: String,
    access_key: String,
    mode: Mode,
}

/// What came back, and whether it can be trusted.
struct Reply {
    status: u16,
    signed: bool,
    encrypted: Option<usize>,
    content_type: String,
    /// Decrypted, where it was encrypted.
    text: String,
}

impl Reply {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap()
    }

    /// Signed?, status and code, as answers are compared.
    fn result(&self) -> (bool, String, String) {
        let result = self.json()["result"].clone();
        let text = |name: &str| result[name].as_str().unwrap().to_owned();
        (self.signed, text("resultStatus"), text("resultCode"))
    }

    fn code(&self) -> String {
        self.result().2
    }
}

fn result(signed: bool, status: &str, code: &str) -> (bool, String, String) {
    (signed, status.to_owned(), code.to_owned())
}

impl Merchant {
    fn of(simulator: &Simulator) -> Self {
        let credentials = simulator.zoloz_keys().credentials().remove(0);
        let (access_key, secret) = credentials.access_keys.into_iter().next().unwrap();
        Self {
            client_id: credentials.client_id,
            own: PrivateKey::read(credentials.merchant_private_key.unwrap().expose_secret()).unwrap(),
            zoloz: PublicKey::read(&credentials.zoloz_public_key).unwrap(),
            access_key,
            secret: secret.expose_secret().to_owned(),
        }
    }

    fn call(&self, sim: &Sim, path: &'static str, body: &Value, mode: Mode) -> Call {
        Call {
            path,
            body: body.to_string(),
            time: sign::write_time(sim.simulator.now()),
            client_id: self.client_id.clone(),
            access_key: self.access_key.clone(),
            mode,
        }
    }

    fn request(&self, sim: &Sim, call: &Call) -> reqwest::RequestBuilder {
        let mut request = sim.client.post(format!("http://{}{}", sim.host, call.path));
        let body = match call.mode {
            Mode::Encrypted(length) => {
                let key = vec![7; length];
                let wrapped = self.zoloz.wrap_key(&key).unwrap();
                request = request.header("Encrypt", sign::encrypt_header(&wrapped));
                cipher::encrypt(&key, call.body.clone().into_bytes()).unwrap()
            }
            _ => call.body.clone(),
        };
        let content = sign::content(call.path, &call.client_id, &call.time, body.as_bytes());
        let signature = match call.mode {
            Mode::AkSk => {
                request = request.header("Auth-Type", "AKSK").header("Access-Key", &call.access_key);
                sign::hmac_signature(&sign::hmac_key(&self.secret).unwrap(), &content)
            }
            _ => sign::signature_header(&self.own.sign(&content).unwrap()),
        };
        request
            .header("Client-Id", &call.client_id)
            .header("Request-Time", &call.time)
            .header("Signature", signature)
            .body(body)
    }

    async fn reply(&self, request: reqwest::RequestBuilder, path: &str, mode: Mode) -> Reply {
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let header = |name: &str| headers.get(name).map(|value| value.to_str().unwrap());
        let body = response.bytes().await.unwrap();
        let content = sign::content(path, &self.client_id, header("response-time").unwrap_or(""), &body);
        let signed = header("signature").is_some_and(|signature| match mode {
            Mode::AkSk => sign::hmac_verifies(&sign::hmac_key(&self.secret).unwrap(), &content, signature),
            _ => sign::read_signature(signature).is_some_and(|bytes| self.zoloz.verifies(&content, &bytes)),
        });
        let key = header("encrypt").map(|value| self.own.unwrap_key(&sign::read_encrypt(value).unwrap()).unwrap());
        let text = match &key {
            Some(key) => cipher::decrypt(key, &body).unwrap(),
            None => body.to_vec(),
        };
        Reply {
            status,
            signed,
            encrypted: key.map(|key| key.len()),
            content_type: header("content-type").unwrap_or("").to_owned(),
            text: String::from_utf8(text).unwrap(),
        }
    }

    async fn send(&self, sim: &Sim, call: &Call) -> Reply {
        self.reply(self.request(sim, call), call.path, call.mode).await
    }

    async fn post(&self, sim: &Sim, path: &'static str, body: &Value) -> Reply {
        self.send(sim, &self.call(sim, path, body, Mode::Rsa)).await
    }

    /// CheckResult of Connect, plain and signed by RSA.
    async fn check(&self, sim: &Sim, id: &str) -> Reply {
        self.post(sim, CHECK_RESULT, &check_body(id)).await
    }
}

fn check_body(id: &str) -> Value {
    json!({"bizId": "b1", "transactionId": id})
}

fn initialize_body(more: &Value) -> Value {
    let mut body = json!({"bizId": "b1", "metaInfo": "MOB_H5", "userId": "u1"});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

async fn set_up() -> (Sim, Merchant) {
    let sim = Sim::start().await;
    let merchant = Merchant::of(&sim.simulator);
    (sim, merchant)
}

/// A transaction that is finished, with the members of a wish.
fn finished(sim: &Sim, wish: &Value) -> String {
    let id = created(sim, wish);
    sim.simulator.complete_zoloz(&id, ZolozComplete::default()).unwrap();
    id
}

fn created(sim: &Sim, wish: &Value) -> String {
    let command: ZolozTransaction = serde_json::from_value(wish.clone()).unwrap();
    sim.simulator.create_zoloz(command).unwrap().transaction_id
}

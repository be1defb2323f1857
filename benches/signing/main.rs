//! What it costs to sign a request and to check an answer, for both providers, and what a large answer costs in time
//! and memory.
//!
//! `cargo bench --bench signing` prints a table; `--seconds N` sets the length of each measurement (1). For the times no
//! network is involved, and one thread does all the work, so a figure is what one call costs. Memory is that of another
//! process, which asks over loopback as the service would.

#![expect(clippy::cast_precision_loss, reason = "sizes are far below where a float loses them")]

use std::hint::black_box;
use std::io::Write;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use checkback::clock::Clock;
use checkback::domain::Outcome;
use checkback::entropy::Entropy;
use checkback::provider::alibaba::credentials::Credentials;
use checkback::provider::alibaba::sign::{Acs3Request, Signer, timestamp};
use checkback::provider::http::{HttpAnswer, HttpClient, HttpSettings};
use checkback::provider::zoloz::ZolozClient;
use checkback::provider::zoloz::answer::{self, Auth};
use checkback::provider::zoloz::gateway::ZolozSettings;
use checkback::provider::zoloz::keys::{MerchantKey, ZolozKey};
use checkback::provider::zoloz::products::Product;
use checkback::provider::zoloz::sign::{self, AccessKey, Content};
use checkback::provider::zoloz::{cipher, outcome};
use checkback::provider::{CheckRequest, Provider};
use chrono::TimeDelta;
use comfy_table::Table;
use comfy_table::presets::NOTHING;
use futures_util::future::join_all;
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::Value;

const PATH: &str = "/api/v1/zoloz/connect/checkresult";
const CLIENT: &str = "2188000000000017";
const TIME: &str = "2026-01-15T08:30:01+0000";
const REQUEST: &[u8] =
    br#"{"bizId":"e0c34a77f5ac40a5aa5e6ed20c350101","transactionId":"G006600016CN20250314000000009572520355"}"#;
/// Of the JSON of a large answer: two images of half the size each.
const LARGE: usize = 8 << 20;

struct Bench {
    time: Duration,
    table: Table,
}

impl Bench {
    fn measure<T>(&mut self, what: &str, mut work: impl FnMut() -> T) {
        black_box(work());
        let start = Instant::now();
        let mut count = 0_u32;
        while start.elapsed() < self.time || count < 5 {
            black_box(work());
            count += 1;
        }
        let each = start.elapsed() / count;
        let rate = f64::from(count) / start.elapsed().as_secs_f64();
        self.row(what, &format!("{:.1} µs", each.as_secs_f64() * 1e6), &format!("{rate:.0}/s"));
    }

    fn row(&mut self, what: &str, each: &str, rate: &str) {
        self.table.add_row([what, each, rate]);
    }
}

fn line(text: &str) {
    let _closed_pipe = writeln!(std::io::stdout().lock(), "{text}").is_err();
}

fn key(owner: &str, name: &str) -> String {
    let vectors: Value = serde_json::from_str(include_str!("../../tests/vectors/zoloz.json")).expect("it is JSON");
    vectors["keys"][owner][name].as_str().expect("the vectors hold the keys").to_owned()
}

fn private(owner: &str) -> MerchantKey {
    MerchantKey::read(&key(owner, "private_key_pkcs8_pem")).expect("it is a key")
}

fn public(owner: &str) -> ZolozKey {
    ZolozKey::read(&key(owner, "public_key_spki_pem")).expect("it is a key")
}

fn access_key() -> AccessKey {
    AccessKey::new(&"AKTEST0000000001".into(), &"-_8-T1prfI2er7DB0uP0BRYnOElaa3yNnq-wwdLj9P8".into())
        .expect("it is a key")
}

fn answer_json(length: usize) -> String {
    let image = "ABCDabcd0123/+56".repeat(length / 2 / 16);
    format!(
        r#"{{"result":{{"resultStatus":"S","resultCode":"SUCCESS","resultMessage":"ok"}},"connectResult":"Success","extFaceInfo":{{"faceScore":89.1,"faceAttack":false,"aliveImage":"{image}","refImage":"{image}"}}}}"#
    )
}

/// An answer as the provider makes it.
struct Made {
    headers: HeaderMap,
    body: Bytes,
}

impl Made {
    fn new(body: Bytes, encrypt: Option<&str>, sign: impl FnOnce(&Content<'_>) -> String) -> Self {
        let signature = sign(&Content { path: PATH, client_id: CLIENT, time: TIME, body: &body });
        let mut headers = HeaderMap::new();
        let lines = [("response-time", Some(TIME)), ("signature", Some(&*signature)), ("encrypt", encrypt)];
        for (name, value) in lines {
            if let Some(value) = value {
                headers.insert(name, HeaderValue::from_str(value).expect("it is plain text"));
            }
        }
        Self { headers, body }
    }

    fn rsa(json: String) -> Self {
        Self::new(json.into(), None, |content| sign::rsa256(&private("zoloz"), content).expect("the key signs"))
    }

    fn encrypted(json: &str) -> Self {
        let (body, header) =
            cipher::seal(&public("merchant"), &Entropy::seeded(1), json.as_bytes()).expect("the key wraps");
        Self::new(body, Some(&header), |content| sign::rsa256(&private("zoloz"), content).expect("the key signs"))
    }

    fn aksk(json: String) -> Self {
        Self::new(json.into(), None, |content| access_key().sign(content))
    }

    /// With a body of its own, as it comes from the network.
    fn answer(&self) -> HttpAnswer {
        HttpAnswer::new(StatusCode::OK, self.headers.clone(), self.body.to_vec().into())
    }
}

fn open(auth: &Auth, entropy: &Entropy, answer: HttpAnswer) -> Bytes {
    answer::verify(auth, PATH, CLIENT, &answer).expect("the answer is signed");
    answer::read(auth, entropy, answer).expect("the answer can be read")
}

fn main() -> anyhow::Result<()> {
    let given: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, address, count] = &given[..]
        && flag == "--ask"
    {
        return ask(address, count.parse()?);
    }
    let mut arguments = std::env::args().skip_while(|argument| argument != "--seconds").skip(1);
    let seconds = arguments.next().and_then(|seconds| seconds.parse().ok()).unwrap_or(1);
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(["what", "each", "a second"]);
    let mut bench = Bench { time: Duration::from_secs(seconds), table };

    alibaba(&mut bench);
    let rsa = Auth::Rsa { merchant: Box::new(private("merchant")), zoloz: Box::new(public("zoloz")), encrypt: true };
    let aksk = Auth::AkSk(access_key());
    zoloz(&mut bench, &rsa, &aksk);
    large(&mut bench, &rsa, &aksk);
    line(&bench.table.to_string());
    memory()
}

fn alibaba(bench: &mut Bench) {
    let key = Credentials::new("LTAI5tAbCdEfGhIjKlMnOpQr".to_owned(), "abcdefghijklmnopqrstuvwxyz0123".into(), None)
        .expect("it is a key");
    let (signer, clock, entropy) = (Signer::new(key), Clock::system(TimeDelta::zero()), Entropy::system());
    let query =
        [("TransactionId", "hksb7ba1b28130d24e015d6943610001"), ("MerchantBizId", "e0c34a77f5ac40a5aa5e6ed20c350101")];
    bench.measure("Alibaba: sign (acs3)", || {
        let nonce = entropy.hex32();
        signer
            .acs3(&Acs3Request {
                method: "POST",
                host: "cloudauth-intl.ap-southeast-1.aliyuncs.com",
                action: "CheckResult",
                version: "2022-08-09",
                time: clock.now(),
                nonce: &nonce,
                query: &query,
                content_type: None,
                body: b"",
                headers: &[],
            })
            .authorization
    });
    bench.measure("Alibaba: sign (hmac-sha1)", || {
        let (date, nonce) = (timestamp(clock.now()), entropy.hex32());
        let mut parameters = signer.rpc_parameters("CheckResult", "2022-08-09", &date, &nonce);
        parameters.extend_from_slice(&query);
        signer.rpc("POST", &parameters).signature
    });
}

fn zoloz(bench: &mut Bench, rsa: &Auth, aksk: &Auth) {
    let (merchant, zoloz, entropy) = (private("merchant"), public("zoloz"), Entropy::system());
    let content = Content { path: PATH, client_id: CLIENT, time: TIME, body: REQUEST };
    bench.measure("ZOLOZ RSA: sign", || sign::rsa256(&merchant, &content));
    bench.measure("ZOLOZ RSA: encrypt and sign", || {
        let (body, header) = cipher::seal(&zoloz, &entropy, REQUEST).expect("the key wraps");
        (sign::rsa256(&merchant, &Content { body: &body, ..content }), header)
    });
    let small = || answer_json(1024);
    let (plain, encrypted, keyed) = (Made::rsa(small()), Made::encrypted(&small()), Made::aksk(small()));
    bench.measure("ZOLOZ RSA: verify, 1 KB", || open(rsa, &entropy, plain.answer()));
    bench.measure("ZOLOZ RSA: verify and decrypt, 1 KB", || open(rsa, &entropy, encrypted.answer()));
    let key = access_key();
    bench.measure("ZOLOZ AK/SK: sign", || key.sign(&content));
    bench.measure("ZOLOZ AK/SK: verify, 1 KB", || open(aksk, &entropy, keyed.answer()));
}

fn large(bench: &mut Bench, rsa: &Auth, aksk: &Auth) {
    let entropy = Entropy::system();
    let large = || answer_json(LARGE);
    let (plain, encrypted, keyed) = (Made::rsa(large()), Made::encrypted(&large()), Made::aksk(large()));
    bench.measure("8 MB: copy (in each of the below)", || plain.answer());
    bench.measure("8 MB: RSA verify", || open(rsa, &entropy, plain.answer()));
    bench.measure("8 MB: RSA verify and decrypt", || open(rsa, &entropy, encrypted.answer()));
    bench.measure("8 MB: AK/SK verify", || open(aksk, &entropy, keyed.answer()));
    bench.measure("8 MB: RSA verify, decrypt and interpret", || {
        outcome::interpret(Product::Connect, &open(rsa, &entropy, encrypted.answer()), false).is_ok()
    });
}

/// What a process of its own comes to that asks for large answers, one alone and many at once, over HTTP.
fn memory() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let json = answer_json(LARGE);
    for (kind, made) in [("plain", Made::rsa(json.clone())), ("encrypted", Made::encrypted(&json))] {
        let wire = made.body.len() >> 10;
        let address = runtime.block_on(provider(made))?;
        for count in [1, 200] {
            let child = std::process::Command::new(std::env::current_exe()?)
                .args(["--ask", &address.to_string(), &count.to_string()])
                .output()?;
            let said = String::from_utf8_lossy(&child.stdout).into_owned();
            anyhow::ensure!(child.status.success(), "the asking process failed: {said}");
            let mut figures = said.split_whitespace().filter_map(|figure| figure.parse::<usize>().ok());
            let (Some(before), Some(highest)) = (figures.next(), figures.next()) else {
                line("Memory is measured on Linux alone.");
                return Ok(());
            };
            let growth = highest.saturating_sub(before);
            line(&format!(
                "{count} {kind} answer(s) of 8 MB at once ({wire} KiB each on the wire): the process grows by {growth} KiB \
                 ({:.2} × one) to {} MiB",
                growth as f64 / wire as f64,
                highest >> 10
            ));
        }
    }
    Ok(())
}

/// Answers every call with the same bytes: a signature names no transaction.
#[expect(clippy::disallowed_methods, reason = "it ends with the benchmark")]
async fn provider(made: Made) -> anyhow::Result<SocketAddr> {
    let answer = move || std::future::ready((made.headers.clone(), made.body.clone()));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let router = axum::Router::new().fallback(answer);
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(address)
}

/// Asks `count` times at once, as the service does; prints what the process held before and at most, in KiB.
fn ask(address: &str, count: usize) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let settings = ZolozSettings {
        endpoint: format!("http://{address}").parse()?,
        client_id: CLIENT.to_owned(),
        auth: Auth::Rsa { merchant: Box::new(private("merchant")), zoloz: Box::new(public("zoloz")), encrypt: true },
    };
    let http = HttpClient::new(HttpSettings::default())?;
    let client = ZolozClient::new(settings, false, http, Clock::system(TimeDelta::zero()), Entropy::system());
    let request =
        CheckRequest { transaction_id: "G0066".to_owned(), merchant_biz_id: "e0c34a77".to_owned(), product: None };
    let before = status("VmRSS:");
    let outcomes = runtime.block_on(join_all((0..count).map(|_| client.check_result(&request))));
    for outcome in outcomes {
        anyhow::ensure!(matches!(outcome, Ok(Outcome::Finished(_))), "{outcome:?}");
    }
    line(&format!("{before} {}", status("VmHWM:")));
    Ok(())
}

/// A line of the process's status, in KiB.
fn status(name: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

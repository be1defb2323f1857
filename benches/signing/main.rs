//! What it costs to sign a request and to check an answer, for both providers, and what a large answer costs in time
//! and memory.
//!
//! `cargo bench --bench signing` prints a table; `--seconds N` sets the length of each measurement (1). No network is
//! involved, and one thread does all the work, so a figure is what one call costs.

use std::hint::black_box;
use std::io::Write;
use std::time::{Duration, Instant};

use bytes::Bytes;
use checkback::clock::Clock;
use checkback::entropy::Entropy;
use checkback::provider::alibaba::credentials::Credentials;
use checkback::provider::alibaba::sign::{Acs3Request, Signer, timestamp};
use checkback::provider::http::HttpAnswer;
use checkback::provider::zoloz::answer::{self, Auth};
use checkback::provider::zoloz::keys::{MerchantKey, ZolozKey};
use checkback::provider::zoloz::products::Product;
use checkback::provider::zoloz::sign::{self, AccessKey, Content};
use checkback::provider::zoloz::{cipher, outcome};
use chrono::TimeDelta;
use comfy_table::Table;
use comfy_table::presets::NOTHING;
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

fn main() {
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
    memory(&rsa);
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
        outcome::interpret(Product::Connect, &open(rsa, &entropy, encrypted.answer())).is_ok()
    });
}

/// How much the process grows at most while it reads one large answer, its body included.
fn memory(rsa: &Auth) {
    let made = Made::encrypted(&answer_json(LARGE));
    let wire = made.body.len();
    // Writing 5 makes the kernel forget the highest use so far.
    if std::fs::write("/proc/self/clear_refs", "5").is_err() {
        return line("\nMemory is measured on Linux alone.");
    }
    let before = status("VmRSS:");
    let finished = outcome::interpret(Product::Connect, &open(rsa, &Entropy::system(), made.answer())).is_ok();
    let growth = status("VmHWM:").saturating_sub(before);
    let wire = wire >> 10;
    line(&format!(
        "\nReading an encrypted answer of 8 MB ({wire} KiB on the wire) took {growth} KiB at most: {}% of its size \
         (read: {finished}).",
        growth * 100 / wire.max(1)
    ));
}

/// A line of the process's status, in KiB.
fn status(name: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

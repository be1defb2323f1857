//! What the real binary logs: JSON lines with the fields that `docs/logging.md` names, and what it does at SIGHUP.
#![expect(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use checkback::simulator::{Complete, CreateTransaction, Settings, Simulator};
use chrono::DateTime;
use rustix::process::Signal;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;

use super::support::app::{ACCOUNT, KEY, http_client};
use super::support::database::{TestDatabase, database};
use super::support::process::{Served, checkback, serve};

/// What every line has.
const ALWAYS: [&str; 4] = ["timestamp", "level", "target", "message"];

/// The real binary, and the provider that it asks.
struct Real {
    served: Served,
    simulator: Simulator,
    http: reqwest::Client,
    secret: PathBuf,
    _database: TestDatabase,
    _folder: tempfile::TempDir,
}

impl Real {
    /// With the access key's secret in a file.
    #[expect(clippy::disallowed_methods, reason = "the simulator ends with the test's runtime")]
    async fn start(secret: &str) -> Self {
        let simulator = Simulator::new(&Settings::default()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let provider = listener.local_addr().unwrap();
        let serving = simulator.clone();
        drop(tokio::spawn(async move { serving.serve(listener, std::future::pending()).await }));
        let folder = tempfile::tempdir().unwrap();
        let (file, config) = (folder.path().join("secret"), folder.path().join("config.toml"));
        fs::write(&file, secret).unwrap();
        let text = format!(
            r#"
            [server]
            public_listen = "127.0.0.1:0"
            internal_listen = "127.0.0.1:0"
            [[auth.keys]]
            name = "test"
            sha256 = "{}"
            scopes = ["register", "read"]
            [accounts.{ACCOUNT}]
            kind = "alibaba"
            endpoint = "http://{provider}"
            access_key_id = "sim-key-id"
            access_key_secret_file = "{}"
            return_images = false
            [evidence]
            url = "file:{}"
            "#,
            hex::encode(Sha256::digest(KEY)),
            file.display(),
            folder.path().join("evidence").display()
        );
        fs::write(&config, text).unwrap();
        let database = database().await;
        let mut command = checkback([Path::new("serve"), Path::new("--config"), &config]);
        let served = serve(command.env("DATABASE_URL", database.url())).await;
        Self { served, simulator, http: http_client(), secret: file, _database: database, _folder: folder }
    }

    async fn ask(&self, request: reqwest::RequestBuilder) -> Value {
        request.bearer_auth(KEY).send().await.unwrap().json().await.unwrap()
    }

    /// A person who is done, and of whom the service was told; returns the verification's id.
    async fn done(&self) -> String {
        let transaction = self.simulator.create(CreateTransaction::default()).unwrap().transaction_id;
        let body = json!({ "account": ACCOUNT, "transaction_id": transaction });
        let url = format!("{}/verifications", self.served.internal);
        let id = self.ask(self.http.post(url).json(&body)).await["id"].as_str().unwrap().to_owned();
        let complete = Complete { callbacks: Some(0), ..Complete::default() };
        self.simulator.complete(&transaction, complete).await.unwrap();
        let url = format!("{}/callbacks/{ACCOUNT}?transactionId={transaction}", self.served.public);
        assert_eq!(self.http.get(url).send().await.unwrap().status(), 200);
        id
    }

    async fn verdict(&self, id: &str) -> Value {
        let url = format!("{}/verifications/{id}?wait=20", self.served.internal);
        self.ask(self.http.get(url)).await["status"].clone()
    }
}

/// The fields in the table of the document.
fn documented() -> BTreeSet<String> {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/logging.md")).unwrap();
    let (_, table) = text.split_once("| field | is |").unwrap();
    let rows = table.lines().take_while(|line| line.is_empty() || line.starts_with('|'));
    let cells = rows.filter_map(|line| line.split('|').nth(1));
    cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).map(str::to_owned).collect()
}

#[tokio::test]
async fn every_line_is_json_with_documented_fields_and_a_secret_that_changed_is_used_after_sighup() {
    let mut real = Real::start("not-the-secret").await;
    let id = real.done().await;
    real.served.process.says("the account is failing").await;
    fs::write(&real.secret, "sim-key-secret\n").unwrap();
    real.served.process.signal(Signal::HUP);
    // Said at SIGHUP alone, not when the files are looked at by themselves.
    real.served.process.says("secrets are read again").await;
    real.served.process.says("changed secrets are in use").await;
    assert_eq!(real.verdict(&id).await, "passed");
    real.served.process.says("verification is passed").await;
    let (code, logged) = real.served.process.stop().await;
    assert_eq!(code, Some(0), "{logged}");
    assert!(!logged.contains("sim-key-secret") && !logged.contains("not-the-secret"), "{logged}");
    let documented = documented();
    let mut told = BTreeMap::new();
    for line in logged.lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let fields = line.as_object().unwrap();
        for name in ALWAYS {
            assert!(fields[name].is_string(), "{name} in {line}");
        }
        let at = fields["timestamp"].as_str().unwrap();
        assert!(at.ends_with('Z') && DateTime::parse_from_rfc3339(at).is_ok(), "{line}");
        for name in fields.keys().filter(|name| !ALWAYS.contains(&name.as_str())) {
            assert!(documented.contains(name), "{name} is not in docs/logging.md: {line}");
        }
        told.insert(fields["message"].as_str().unwrap().to_owned(), line.clone());
    }
    let passed = &told["verification is passed"];
    assert_eq!((&passed["verification.id"], &passed["account"]), (&json!(id), &json!(ACCOUNT)));
    assert!(passed["attempt"].is_u64() && passed["revision"] == 1 && passed.get("trace.id").is_none(), "{passed}");
    for message in ["ready", "stopping", "stopped"] {
        assert_eq!(told[message]["level"], "INFO", "{message}");
    }
}

/// The arguments of a macro up to its text: the names of its fields.
fn fields_of(call: &str) -> Vec<String> {
    let (mut depth, mut start, mut parts, mut is_text) = (0, 0, Vec::new(), false);
    let mut characters = call.char_indices();
    while let Some((at, next)) = characters.next() {
        match next {
            '\\' if is_text => {
                characters.next();
            }
            '"' => is_text = !is_text,
            _ if is_text => {}
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' if depth == 0 => {
                parts.push(&call[start..at]);
                break;
            }
            ')' | ']' | '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&call[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    let named = parts.into_iter().map(str::trim).take_while(|part| !part.starts_with('"'));
    named.map(|part| part.split('=').next().unwrap().trim().trim_start_matches(['%', '?']).to_owned()).collect()
}

fn sources(folder: &Path, found: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("simulator") {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push_str(&fs::read_to_string(path).unwrap());
        }
    }
}

#[test]
fn every_field_that_is_logged_is_documented_and_no_other() {
    let mut text = String::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut text);
    let calls = ["error!(", "warn!(", "info!(", "debug!("].into_iter().flat_map(|call| text.split(call).skip(1));
    let logged: BTreeSet<String> = calls.flat_map(fields_of).filter(|name| !name.is_empty()).collect();
    assert_eq!(logged, documented());
    assert_eq!(fields_of("%id, a.b = f(x, [1]), count = 1, \"no, it = {x}\")"), ["id", "a.b", "count"]);
}

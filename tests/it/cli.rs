//! The command line: what each command says, and how it ends.
#![expect(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

use std::path::PathBuf;
use std::time::Duration;

use reqwest::StatusCode;
use rustix::process::Signal;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use sqlx::{Connection, PgConnection};
use tokio::process::Command;

use super::support::app::{KEY, http_client};
use super::support::database::{TestDatabase, database};
use super::support::process::{Running, Served, checkback, run, serve};
use super::support::scratch;

/// What a stop may take; the supervisors of containers kill after it.
const STOP: Duration = Duration::from_secs(10);

/// `checkback serve` on any ports and this database.
fn serve_on(database_url: &str) -> Command {
    let mut command = checkback(["serve"]);
    configure(&mut command);
    command.env("DATABASE_URL", database_url);
    command
}

fn configure(command: &mut Command) {
    command
        .env("CHECKBACK_SERVER__PUBLIC_LISTEN", "127.0.0.1:0")
        .env("CHECKBACK_SERVER__INTERNAL_LISTEN", "127.0.0.1:0")
        .env("CHECKBACK_AUTH__KEYS__0__NAME", "test")
        .env("CHECKBACK_AUTH__KEYS__0__SHA256", hex::encode(Sha256::digest(KEY)))
        .env("CHECKBACK_AUTH__KEYS__0__SCOPES", "register,read")
        .env("CHECKBACK_ACCOUNTS__ALIBABA_SG__KIND", "alibaba")
        .env("CHECKBACK_ACCOUNTS__ALIBABA_SG__ACCESS_KEY_ID", "sim-key-id")
        .env("CHECKBACK_ACCOUNTS__ALIBABA_SG__ACCESS_KEY_SECRET", "sim-key-secret");
}

/// `checkback serve` with a private Postgres in `data_dir`.
fn serve_in(data_dir: &PathBuf) -> Command {
    let mut command = checkback(["serve"]);
    configure(&mut command);
    command.env("CHECKBACK_DATABASE__DATA_DIR", data_dir);
    command
}

/// A folder for a private Postgres that is stopped however the test ends.
fn data_dir(test: &str) -> PathBuf {
    let parent = scratch::folder().join(test);
    std::fs::create_dir(&parent).unwrap();
    parent.join("data")
}

/// A database that no migration has touched.
async fn bare_database() -> TestDatabase {
    let database = database().await;
    let mut connection = PgConnection::connect_with(&database.options()).await.unwrap();
    for statement in ["DROP SCHEMA public CASCADE", "CREATE SCHEMA public"] {
        sqlx::query(statement).execute(&mut connection).await.unwrap();
    }
    connection.close().await.unwrap();
    database
}

async fn get(url: &str) -> (StatusCode, Value) {
    let response = http_client().get(url).bearer_auth(KEY).send().await.unwrap();
    (response.status(), response.json().await.unwrap())
}

async fn post(url: &str, body: &Value) -> (StatusCode, Value) {
    let response = http_client().post(url).bearer_auth(KEY).json(body).send().await.unwrap();
    (response.status(), response.json().await.unwrap())
}

async fn register(served: &Served, transaction_id: &str) -> String {
    let body = json!({"transaction_id": transaction_id, "callback_token": "the-right-token-of-this"});
    let (status, body) = post(&format!("{}/verifications", served.internal), &body).await;
    assert_eq!(status, StatusCode::CREATED, "{body}");
    body["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn help_lists_the_commands_and_each_explains_itself() {
    let said = run(&mut checkback(["--help"])).await;
    assert_eq!(said.code, Some(0));
    let commands: Vec<_> = said
        .out
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    for command in ["serve", "demo", "simulate", "migrate", "config", "doctor", "tail"] {
        assert!(commands.contains(&command), "{command} in {commands:?}");
    }
    for command in commands {
        let said = run(&mut checkback([command, "--help"])).await;
        assert_eq!(said.code, Some(0), "{command}: {}", said.err);
        assert!(said.out.contains("Usage: checkback "), "{command}: {}", said.out);
    }
}

/// The commands that `--help` shows.
async fn commands() -> Vec<String> {
    let said = run(&mut checkback(["--help"])).await;
    let lines = said.out.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    lines.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

#[tokio::test]
async fn completions_and_manual_pages_know_every_command() {
    let commands = commands().await;
    assert!(commands.len() >= 10, "{commands:?}");
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let said = run(&mut checkback(["completions", shell])).await;
        assert_eq!(said.code, Some(0), "{shell}: {}", said.err);
        for command in &commands {
            assert!(said.out.contains(command.as_str()), "{command} in the script for {shell}");
        }
    }
    let page = run(&mut checkback(["man"])).await.out;
    assert!(page.contains(".TH checkback 1"), "{page}");
    for command in &commands {
        assert!(page.contains(&format!("checkback\\-{command}(1)")), "{command} in {page}");
    }
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("man1");
    let said = run(checkback(["man", "--out"]).arg(&pages)).await;
    assert_eq!(said.code, Some(0), "{}", said.err);
    for command in &commands {
        let page = std::fs::read_to_string(pages.join(format!("checkback-{command}.1"))).unwrap();
        assert!(page.contains("SYNOPSIS"), "{command}");
    }
    let wrong = run(&mut checkback(["completions", "cmd"])).await;
    assert_eq!(wrong.code, Some(2));
}

#[tokio::test]
async fn wrong_usage_ends_with_2() {
    for arguments in [&["nonsense"][..], &[], &["serve", "--clock-offset", "soon"], &["demo", "--chek"]] {
        let said = run(&mut checkback(arguments)).await;
        assert_eq!(said.code, Some(2), "{arguments:?}: {}", said.err);
    }
}

#[tokio::test]
async fn config_says_where_values_come_from_and_shows_no_secret() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("checkback.toml");
    std::fs::write(&file, "[database]\nmax_connections = 7\n[accounts.alibaba-sg]\nkind = 'alibaba'\n").unwrap();
    let command = |more: &[&str]| {
        let mut command = checkback(["config", "--config"]);
        command.arg(&file).args(more);
        command
            .env("DATABASE_URL", "postgres://user:CANARY-PASSWORD@db.example/name")
            .env("CHECKBACK_ACCOUNTS__ALIBABA_SG__ACCESS_KEY_ID", "an-id")
            .env("CHECKBACK_ACCOUNTS__ALIBABA_SG__ACCESS_KEY_SECRET", "CANARY-SECRET");
        command
    };
    let table = run(&mut command(&[])).await;
    let lines = run(&mut command(&["--json"])).await;
    for said in [&table, &lines] {
        assert_eq!(said.code, Some(0), "{}", said.err);
        assert!(!format!("{}{}", said.out, said.err).contains("CANARY"), "{}", said.out);
    }
    let row = |key: &str| table.out.lines().find(|line| line.split_whitespace().next() == Some(key)).unwrap();
    assert!(row("database.max_connections").contains("checkback.toml"), "{}", table.out);
    assert!(row("database.url").contains("DATABASE_URL"), "{}", table.out);
    assert!(row("server.public_listen").trim_end().ends_with("default"), "{}", table.out);
    let lines: Vec<Value> = serde_json::from_str(&lines.out).unwrap();
    let most = lines.iter().find(|line| line["key"] == "database.max_connections").unwrap();
    assert_eq!(most["value"], "7");
}

#[tokio::test]
async fn a_wrong_configuration_ends_every_command_with_2_and_tells_all_problems() {
    for arguments in [&["serve"][..], &["migrate"], &["config"], &["config", "--json"], &["health"]] {
        let mut command = checkback(arguments);
        command
            .env("CHECKBACK_SERVER__PUBLIC_LISTEN", "everywhere")
            .env("CHECKBACK_DATABASE__MAX_CONNECTIONS", "0")
            .env("CHECKBACK_DATABASE__TYPO", "x");
        let said = run(&mut command).await;
        assert_eq!(said.code, Some(2), "{arguments:?}: {}", said.err);
        for key in ["server.public_listen", "database.max_connections", "CHECKBACK_DATABASE__TYPO"] {
            assert!(said.err.contains(key), "{key}: {}", said.err);
        }
    }
}

#[tokio::test]
async fn migrations_are_applied_once() {
    let database = bare_database().await;
    let migrate = || {
        let mut command = checkback(["migrate"]);
        command.env("DATABASE_URL", database.url());
        command
    };
    let first = run(&mut migrate()).await;
    assert_eq!(first.code, Some(0), "{}", first.err);
    assert!(first.out.contains("applied."), "{}", first.out);
    let second = run(&mut migrate()).await;
    assert_eq!((second.code, second.out.as_str()), (Some(0), "The database is current; nothing to apply.\n"));
}

#[tokio::test]
async fn a_database_that_does_not_answer_ends_migrate_with_1_and_shows_no_password() {
    let mut command = checkback(["migrate"]);
    command.env("DATABASE_URL", "postgres://user:CANARY@127.0.0.1:1/name?connect_timeout=1");
    let said = run(&mut command).await;
    assert_eq!(said.code, Some(1), "{}", said.err);
    assert!(said.err.contains("checkback: ") && !said.err.contains("CANARY"), "{}", said.err);
}

/// The simulator as a process, and its address.
async fn simulate() -> (Running, String) {
    let mut command = checkback(["simulate", "--listen", "127.0.0.1:0"]);
    let (process, line) = Running::start(&mut command, "http://").await;
    let address = line.split_whitespace().find_map(|word| word.strip_prefix("http://")).unwrap();
    (process, format!("http://{}", address.trim_end_matches('/')))
}

#[tokio::test]
async fn the_simulator_answers_until_it_is_stopped() {
    let (process, url) = simulate().await;
    let (status, created) = post(&format!("{url}/_sim/transactions"), &json!({})).await;
    assert_eq!(status, StatusCode::CREATED);
    assert!(!created["transaction_id"].as_str().unwrap().is_empty());
    process.signal(Signal::TERM);
    let (code, err) = process.ended(STOP).await;
    assert_eq!(code, Some(0), "{err}");
}

#[tokio::test]
async fn a_service_that_is_told_to_stop_ends_with_0() {
    let database = database().await;
    for signal in [Signal::TERM, Signal::INT] {
        let served = serve(&mut serve_on(database.url())).await;
        assert_eq!(get(&format!("{}/readyz", served.internal)).await.0, StatusCode::OK);
        assert_eq!(get(&format!("{}/healthz", served.public)).await.0, StatusCode::OK);
        served.process.signal(signal);
        let (code, err) = served.process.ended(STOP).await;
        assert_eq!(code, Some(0), "{err}");
        assert!(err.contains("\"stopped\""), "{err}");
    }
}

#[tokio::test]
async fn without_its_migrations_a_service_runs_but_is_not_ready() {
    let database = bare_database().await;
    let served = serve(serve_on(database.url()).arg("--no-migrate")).await;
    assert_eq!(get(&format!("{}/healthz", served.internal)).await.0, StatusCode::OK);
    let (status, body) = get(&format!("{}/readyz", served.internal)).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!((&body["database"]["status"], &body["migrations"]["status"]), (&json!("ok"), &json!("pending")));
    assert!(served.process.err.contains("checkback migrate"), "{}", served.process.err);
    let migrated = run(checkback(["migrate"]).env("DATABASE_URL", database.url())).await;
    assert_eq!(migrated.code, Some(0), "{}", migrated.err);
    assert_eq!(get(&format!("{}/readyz", served.internal)).await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_moved_clock_is_told_loudly_and_signs_for_a_provider_that_moved_too() {
    let database = database().await;
    let (_simulator, provider) = simulate().await;
    let (status, _) = post(&format!("{provider}/_sim/clock"), &json!({"advance": "31d"})).await;
    assert_eq!(status, StatusCode::OK);
    let mut command = serve_on(database.url());
    command.args(["--clock-offset", "31d"]).env("CHECKBACK_ACCOUNTS__ALIBABA_SG__ENDPOINT", &provider);
    let served = serve(&mut command).await;
    assert!(served.process.err.contains("THE CLOCK IS MOVED"), "{}", served.process.err);
    let transaction = json!({
        "transaction_id": "moved",
        "callback_url": format!("{}/callbacks/alibaba-sg", served.public),
        "callback_token": "the-right-token-of-this",
    });
    assert_eq!(post(&format!("{provider}/_sim/transactions"), &transaction).await.0, StatusCode::CREATED);
    let id = register(&served, "moved").await;
    let complete = format!("{provider}/_sim/transactions/moved/complete");
    let (_, completed) = post(&complete, &json!({"wait": true})).await;
    assert_eq!(completed["callback_statuses"], json!([200]));
    let (_, body) = get(&format!("{}/verifications/{id}?wait=20", served.internal)).await;
    assert_eq!((&body["status"], &body["attempts"]), (&json!("passed"), &json!(1)), "{body}");
    let (_, clock) = get(&format!("{provider}/_sim/clock")).await;
    let time = |value: &Value| chrono::DateTime::parse_from_rfc3339(value.as_str().unwrap()).unwrap();
    assert!((time(&clock["now"]) - time(&body["registered_at"])).num_minutes() < 5, "{body}");
}

#[tokio::test]
async fn a_second_service_on_the_same_data_is_refused() {
    let data_dir = data_dir("twice");
    let first = serve(&mut serve_in(&data_dir)).await;
    let said = run(&mut serve_in(&data_dir)).await;
    assert_eq!(said.code, Some(1), "{}", said.err);
    let holder = format!("is in use by process {}", first.process.process_id());
    assert!(said.err.contains(&holder) && said.err.contains("database.data_dir"), "{}", said.err);
    assert_eq!(get(&format!("{}/readyz", first.internal)).await.0, StatusCode::OK);
    assert_eq!(first.process.stop().await.0, Some(0));
}

#[tokio::test]
async fn what_was_registered_survives_a_kill() {
    let data_dir = data_dir("killed");
    let served = serve(&mut serve_in(&data_dir)).await;
    let id = register(&served, "before-the-kill").await;
    served.process.signal(Signal::KILL);
    assert_eq!(served.process.ended(STOP).await.0, None);
    let served = serve(&mut serve_in(&data_dir)).await;
    let (status, body) = get(&format!("{}/verifications/{id}", served.internal)).await;
    assert_eq!((status, &body["transaction_id"]), (StatusCode::OK, &json!("before-the-kill")));
    assert_eq!(served.process.stop().await.0, Some(0));
}

#[tokio::test]
async fn health_tells_by_its_exit_code_whether_the_service_lives() {
    let database = database().await;
    let served = serve(&mut serve_on(database.url())).await;
    let address = served.internal.strip_prefix("http://").unwrap().to_owned();
    let health = || {
        let mut command = checkback(["health"]);
        command.env("CHECKBACK_SERVER__INTERNAL_LISTEN", &address);
        command
    };
    let said = run(&mut health()).await;
    assert_eq!((said.code, said.out.as_str()), (Some(0), "HTTP/1.1 200 OK\n"), "{}", said.err);
    assert_eq!(served.process.stop().await.0, Some(0));
    let said = run(&mut health()).await;
    assert_eq!(said.code, Some(1));
    assert!(said.err.contains("is the service running?"), "{}", said.err);
}

//! The README, the quick starts and the pages on setting up, the API and operations say what is so. Marked blocks are run
//! as they stand, in their order, with the real binary; configurations are read. `pages` sees to it that none is left out.
#![expect(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use checkback::config::{self, Environment};
use sqlx::{Connection, PgConnection, Row};

use super::support::database::{TestDatabase, database};
use super::support::process::{Said, run, with_programs};
use super::support::scratch;

const README: &str = include_str!("../../README.md");
const JAPANESE: &str = include_str!("../../docs/ja/quickstart.md");
const CHINESE: &str = include_str!("../../docs/zh/quickstart.md");
const API: &str = include_str!("../../docs/api.md");
const OPERATIONS: &str = include_str!("../../docs/operations.md");
const ALIBABA: &str = include_str!("../../docs/setup-alibaba.md");
const ZOLOZ: &str = include_str!("../../docs/setup-zoloz.md");
const MARK: &str = "<!-- run -->\n```";

/// The marked blocks in this language.
fn blocks(page: &'static str, language: &str) -> Vec<&'static str> {
    let marked = page.split(MARK).skip(1);
    let ours = marked.filter_map(|rest| rest.strip_prefix(language)?.strip_prefix('\n'));
    ours.map(|rest| rest.split("\n```").next().unwrap()).collect()
}

/// So many free ports, all different.
fn ports<const N: usize>() -> [u16; N] {
    let listeners = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}

/// Follows the steps of a page to their end, each with what those before it left running.
async fn follow(page: &'static str, database: &TestDatabase) -> Said {
    follow_script(&blocks(page, "sh").join("\n"), database).await
}

async fn follow_script(script: &str, database: &TestDatabase) -> Said {
    let [public, internal, simulator] = ports();
    let script = script
        .replace("127.0.0.1:8080", &format!("127.0.0.1:{public}"))
        .replace("127.0.0.1:8081", &format!("127.0.0.1:{internal}"))
        .replace("127.0.0.1:9090", &format!("127.0.0.1:{simulator}"));
    // What the steps leave running ends with them.
    let script = format!("trap 'trap \"\" TERM; kill 0; wait' EXIT\n{script}");
    let folder = tempfile::Builder::new().prefix("readme-").tempdir_in(scratch::folder()).unwrap();
    let mut command = with_programs("sh");
    command
        .args(["-euc", &script])
        .current_dir(folder.path())
        .process_group(0)
        .env("DATABASE_URL", database.url())
        .env("CHECKBACK_SERVER__PUBLIC_LISTEN", format!("127.0.0.1:{public}"))
        .env("CHECKBACK_SERVER__INTERNAL_LISTEN", format!("127.0.0.1:{internal}"));
    let said = run(&mut command).await;
    assert_eq!(said.code, Some(0), "{}\n{}", said.out, said.err);
    said
}

fn says(said: &Said, parts: &[&str]) {
    for part in parts {
        assert!(said.out.contains(part), "{part}\n{}\n{}", said.out, said.err);
    }
}

/// The quick start in each language.
async fn the_steps_lead_to_a_verdict(page: &'static str) {
    assert!(blocks(page, "sh").len() >= 6, "the blocks lost their marks");
    let database = database().await;
    let said = follow(page, &database).await;
    let parts = [
        r#""status":"passed","final":true"#,
        r#""sub_code":"200","reason":"Authentication passed.""#,
        r#""face_comparison":99.99"#,
        r#""attempts":1"#,
        r#""metadata":{"order":"A-17"}"#,
        r#""kind":"verdict""#,
    ];
    says(&said, &parts);

    let mut connection = PgConnection::connect_with(&database.options()).await.unwrap();
    let statements = blocks(page, "sql");
    assert_eq!(statements.len(), 1);
    for statement in statements {
        let row = sqlx::query(statement).fetch_one(&mut connection).await.unwrap();
        assert_eq!((row.get("transaction_id"), row.get("status")), ("tx-1", "passed"));
    }
}

#[tokio::test]
async fn the_quick_start_in_english_leads_to_a_verdict() {
    the_steps_lead_to_a_verdict(README).await;
}

#[tokio::test]
async fn the_quick_start_in_japanese_leads_to_a_verdict() {
    the_steps_lead_to_a_verdict(JAPANESE).await;
}

#[tokio::test]
async fn the_quick_start_in_chinese_leads_to_a_verdict() {
    the_steps_lead_to_a_verdict(CHINESE).await;
}

/// What the API page says of the answer to a request that stands before `rest`: the status that follows, in a block or
/// in words, else 200.
fn told_status(rest: &str) -> &str {
    let after = rest.split_once("\n```").unwrap().1.trim_start();
    let words = after.strip_prefix("```\nHTTP/1.1 ").unwrap_or(after);
    words.split(' ').next().filter(|word| word.len() == 3 && word.parse::<u16>().is_ok()).unwrap_or("200")
}

#[tokio::test]
async fn the_requests_of_the_api_page_are_answered_as_it_says() {
    // After the quick start: ID is a verification with a verdict. OPEN is one without.
    let quick_start = blocks(README, "sh").join("\n").replace(
        r#"scopes = ["register", "read"]"#,
        r#"scopes = ["register", "read", "evidence", "operate", "erase"]"#,
    );
    let mut script = format!(
        r#"
        {quick_start}
        uuidgen() {{ cat /proc/sys/kernel/random/uuid; }}
        AUTHORIZED="Authorization: Bearer $KEY"
        until curl -sfo /dev/null -H "$AUTHORIZED" "http://127.0.0.1:8081/verifications/$ID/evidence/face_image"; do sleep 1; done
        TRANSACTION=tx-2
        curl -s http://127.0.0.1:9090/_sim/transactions -d '{{"transaction_id": "tx-2"}}'
        OPEN=$(curl -s http://127.0.0.1:8081/verifications -H "$AUTHORIZED" -H 'Content-Type: application/json' \
          -d '{{"account": "alibaba-sg", "transaction_id": "tx-2", "callback_token": "'$TOKEN'"}}' \
          | sed 's/.*"id":"\([^"]*\)".*/\1/')
        curl() {{ command curl -s --write-out '\nSTATUS %{{http_code}}\n' "$@"; }}
        "#
    );
    let mut told = Vec::new();
    for rest in API.split(MARK).skip(1).filter_map(|rest| rest.strip_prefix("sh\n")) {
        let block = rest.split("\n```").next().unwrap();
        told.push(told_status(rest));
        // Only what is open can be collected.
        script += &if block.contains("/collect") { block.replace("$ID", "$OPEN") } else { block.to_owned() };
        script.push('\n');
    }
    assert!(told.len() >= 14, "the requests lost their marks");
    let said = follow_script(&script, &database().await).await;
    let answered: Vec<&str> = said.out.lines().filter_map(|line| line.strip_prefix("STATUS ")).collect();
    assert_eq!(answered, told, "{}\n{}", said.out, said.err);
}

#[tokio::test]
async fn the_set_up_with_alibaba_leads_to_a_verdict() {
    let said = follow(ALIBABA, &database().await).await;
    says(
        &said,
        &[r#""status":"failed","final":true"#, r#""sub_code":"205","reason":"The liveness check found a risk.""#],
    );
}

#[tokio::test]
async fn the_set_up_with_zoloz_leads_to_a_verdict_in_both_ways() {
    let said = follow(ZOLOZ, &database().await).await;
    let parts = [
        "HTTP/1.1 303 See Other\r\nlocation: https://shop.example/after-check\r\n",
        r#""status":"passed","final":true"#,
        r#""face_comparison":96.5"#,
        r#""status":"accepted""#,
        r#""status":"failed","final":true"#,
        r#""sub_code":"NOT_SAME_PERSON""#,
    ];
    says(&said, &parts);
}

#[test]
fn every_configuration_on_the_pages_of_the_set_ups_is_sound() {
    let folder = tempfile::Builder::new().prefix("readme-").tempdir_in(scratch::folder()).unwrap();
    let secrets = folder.path().to_str().unwrap();
    for page in [ALIBABA, ZOLOZ] {
        let rests: Vec<_> = page.split("\n```toml\n").skip(1).collect();
        assert_eq!(rests.len(), 2);
        for rest in rests {
            let text = rest.split("\n```").next().unwrap();
            for rest in text.split("\"/run/secrets/").skip(1) {
                // The wrapping of a key, and a token that is long enough.
                let name = rest.split('"').next().unwrap();
                std::fs::write(folder.path().join(name), "QUJDREVGR0hJSktMTU5PUA==\n").unwrap();
            }
            let text = text.replace("/run/secrets", secrets);
            let nothing = Environment::from_pairs([("", ""); 0]);
            let loaded = config::load_text("page.toml", &text, &nothing).unwrap_or_else(|wrong| panic!("{wrong}"));
            assert_eq!(loaded.config.accounts.len(), 1);
            assert!(!loaded.secret_files.is_empty());
        }
    }
}

#[tokio::test]
async fn the_statements_for_operators_work() {
    let database = database().await;
    let mut connection = PgConnection::connect_with(&database.options()).await.unwrap();
    let statements = blocks(OPERATIONS, "sql");
    assert_eq!(statements.len(), 8);
    for statement in statements {
        sqlx::query(statement).fetch_all(&mut connection).await.unwrap();
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The names of metrics in a text, between these two.
fn metrics(text: &str, before: &str, after: char) -> BTreeSet<String> {
    let rests = text.split(before).skip(1);
    rests.filter_map(|rest| rest.split(after).next()).map(|name| format!("checkback_{name}")).collect()
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn every_metric_is_explained_and_none_that_is_not_there() {
    let mut files = Vec::new();
    sources(&root().join("src"), &mut files);
    let text: String = files.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
    let kinds = ["counter", "gauge", "histogram"].map(|kind| metrics(&text, &format!("{kind}!(\"checkback_"), '"'));
    let counted: BTreeSet<_> = kinds.into_iter().flatten().collect();
    let explained = metrics(OPERATIONS, "\n| `checkback_", '`');
    assert!(counted.len() > 10);
    assert_eq!(counted, explained);
}

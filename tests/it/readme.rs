//! The README, the pages on setting up and the page on operations say what is so. Marked blocks are run as they stand,
//! in their order, with the real binary; configurations are read.
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
    let [public, internal, simulator] = ports();
    let script = blocks(page, "sh")
        .join("\n")
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

#[tokio::test]
async fn the_steps_lead_to_a_verdict() {
    assert!(blocks(README, "sh").len() >= 6, "the blocks lost their marks");
    let database = database().await;
    let said = follow(README, &database).await;
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
    for statement in blocks(README, "sql") {
        let row = sqlx::query(statement).fetch_one(&mut connection).await.unwrap();
        assert_eq!((row.get("transaction_id"), row.get("status")), ("tx-1", "passed"));
    }
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
    assert_eq!(statements.len(), 6);
    for statement in statements {
        sqlx::query(statement).fetch_all(&mut connection).await.unwrap();
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What a heading is called in a link.
fn anchor(heading: &str) -> String {
    let words = heading.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
    words.chars().filter(|letter| letter.is_alphanumeric() || matches!(letter, '-' | '_')).collect()
}

#[test]
fn every_file_and_heading_pointed_to_is_there() {
    let mut pages: Vec<PathBuf> =
        std::fs::read_dir(root().join("docs")).unwrap().map(|it| it.unwrap().path()).collect();
    pages.push(root().join("README.md"));
    pages.retain(|page| page.extension().is_some_and(|extension| extension == "md"));
    let mut seen = 0;
    for page in pages {
        let text = std::fs::read_to_string(&page).unwrap();
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for target in targets.filter(|target| !target.contains("://")) {
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            let pointed_to = if file.is_empty() { page.clone() } else { page.parent().unwrap().join(file) };
            assert!(pointed_to.exists(), "{target} in {}", page.display());
            let there = std::fs::read_to_string(&pointed_to).unwrap_or_default();
            let is_there =
                heading.is_empty() || there.lines().any(|line| line.starts_with('#') && anchor(line) == heading);
            assert!(is_there, "{target} in {}", page.display());
            seen += 1;
        }
    }
    assert!(seen > 10, "the links are not where they were");
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

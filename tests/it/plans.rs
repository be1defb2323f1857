//! Every statement goes by an index, whatever Postgres knew of the tables when it planned it.
//!
//! A connection keeps its plans. One that is made in a quiet night, when nothing is open, must not read all that is open
//! in the morning; so each statement is planned in a new database, of which Postgres knows nothing before its first
//! minute is over, with little in all tables, and with little in the large ones and nothing open.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use checkback::store::SESSION;
use serde_json::Value;
use sqlx::{AssertSqlSafe, Executor, PgConnection, Row};

use crate::support::database::database;

/// What grows with the verifications. The other tables have a few rows.
const GROWING: [&str; 8] =
    ["verifications", "collect_jobs", "hints", "verdicts", "history", "evidence", "events", "deliveries"];

/// Indexes of few rows, which may be read whole.
const SHORT: [&str; 4] = [
    // What workers hold at the moment.
    "collect_jobs_leased",
    "evidence_leased",
    // What a bulk recheck has put in line, which is a page of them at a time.
    "collect_jobs_of_rechecks",
    // What is destroyed next.
    "evidence_to_delete",
];

/// Statements that are meant to read more, and of what.
const MEANT: [(&str, &str); 8] = [
    // The first in line, up to a limit.
    ("take_hints", "hints"),
    ("take_closed_hints", "hints"),
    // They count or list what is open.
    ("count_open", "collect_jobs"),
    ("open_work", "collect_jobs"),
    ("count_at_risk", "collect_jobs"),
    ("list: at risk", "collect_jobs"),
    // Hints live for milliseconds.
    ("list: by open status", "hints"),
    ("reconcile", "hints"),
];

/// Statements that read more in a new database, until Postgres has looked at its tables, and of what.
const NEW: [(&str, &str); 5] = [
    ("count_at_risk", "evidence"),
    ("list: at risk", "evidence"),
    ("live_rows", "history"),
    // These are for what happens later in the life of a verification.
    ("take_closed_hints", "verdicts"),
    ("stop_recheck: take back", "collect_jobs"),
];

const LITTLE: &str = "
    INSERT INTO verifications (verification_id, account, transaction_id, merchant_biz_id, product, expect_video,
        registered_at)
    SELECT ('019a0000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, 'sg', 't' || n, 'b' || n, 'X', true, now()
    FROM generate_series(1, 400) n;
    INSERT INTO collect_jobs (verification_id, account, lane, due_at)
    SELECT verification_id, account, 1, now()
    FROM verifications
    LIMIT 200;
    INSERT INTO hints (account, lane, verification_id, at, kind, authenticated, detail)
    SELECT account, lane, verification_id, now(), 'callback', true, '{}'
    FROM collect_jobs;
    INSERT INTO verdicts (verification_id, revision, account, status, scores, signals, decided_at, checks)
    SELECT verification_id, 1, account, 'passed', '{}', '{}', now(), 1
    FROM verifications
    WHERE verification_id NOT IN (SELECT verification_id FROM collect_jobs);
    INSERT INTO history (verification_id, at, kind, detail)
    SELECT verification_id, now(), 'check', '{}'
    FROM verifications;
    INSERT INTO evidence (verification_id, kind, account, state, noted_at, deadline, due_at)
    SELECT verification_id, 'video', account, 'missed', now(), now(), now()
    FROM verdicts;
    INSERT INTO events (event_id, verification_id, type, account, merchant_biz_id, status, revision, occurred_at)
    SELECT verification_id, verification_id, 'verification.passed', account, 'b', 'passed', 1, now()
    FROM verdicts;
    INSERT INTO deliveries (event_id, endpoint, verification_id, state, due_at, ended_at)
    SELECT event_id, 'crm', verification_id, 'delivered', now(), now()
    FROM events;
    ANALYZE;";

/// A statement of the library, by the name in its first line.
struct Statement {
    name: String,
    text: String,
    parameters: usize,
}

/// What the library was compiled with.
fn statements() -> Vec<Statement> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(".sqlx");
    let files = std::fs::read_dir(folder).expect("the statements are committed");
    files
        .map(|file| {
            let text = std::fs::read_to_string(file.expect("it can be listed").path()).expect("it is a text");
            let stored: Value = serde_json::from_str(&text).expect("it is JSON");
            let text = stored["query"].as_str().expect("it has a text").to_owned();
            let name = text.trim_start().lines().next().unwrap_or_default().trim_start_matches("-- ").to_owned();
            let parameters = stored["describe"]["parameters"]["Left"].as_array().map_or(0, Vec::len);
            Statement { name, text, parameters }
        })
        .collect()
}

async fn plan(connection: &mut PgConnection, statement: &Statement) -> Value {
    let text = &statement.text;
    connection.execute(AssertSqlSafe(format!("PREPARE s AS {text}"))).await.expect("it can be prepared");
    let values = vec!["NULL"; statement.parameters].join(", ");
    let values = if values.is_empty() { values } else { format!("({values})") };
    let explain = format!("EXPLAIN (FORMAT JSON, COSTS OFF) EXECUTE s{values}");
    let plan: Value =
        sqlx::query_scalar(AssertSqlSafe(explain)).fetch_one(&mut *connection).await.expect("it is planned");
    connection.execute("DEALLOCATE s").await.expect("it was prepared");
    plan[0]["Plan"].clone()
}

/// Of each index its table, and its first column as a condition on it names it.
async fn indexes(connection: &mut PgConnection) -> HashMap<String, (String, String)> {
    let rows = sqlx::query(
        "SELECT i.indexrelid::regclass::text AS index, c.relname::text AS table, pg_get_indexdef(i.indexrelid, 1, true) AS leading
        FROM pg_index i
        JOIN pg_class c ON c.oid = i.indrelid
        WHERE c.relnamespace = 'public'::regnamespace",
    )
    .fetch_all(connection)
    .await
    .expect("the catalog can be read");
    rows.into_iter().map(|row| (row.get("index"), (row.get("table"), row.get("leading")))).collect()
}

/// What `node` and all below it read whole: tables, and what of them, which is themselves or an index.
fn read_whole(node: &Value, indexes: &HashMap<String, (String, String)>, found: &mut BTreeSet<(String, String)>) {
    let text = |key: &str| node[key].as_str().unwrap_or_default().to_owned();
    if text("Node Type") == "Seq Scan" {
        found.insert((text("Relation Name"), text("Relation Name")));
    } else if let Some((table, column)) = indexes.get(&text("Index Name"))
        // Those of the system are not there.
        && !text("Index Cond").contains(column.as_str())
    {
        found.insert((table.clone(), text("Index Name")));
    }
    for below in node["Plans"].as_array().into_iter().flatten() {
        read_whole(below, indexes, found);
    }
}

#[tokio::test]
async fn no_statement_reads_a_growing_table_whole_whenever_it_was_planned() {
    let database = database().await;
    let pool = database.pool().await;
    let mut connection = pool.acquire().await.expect("the database is there");
    connection.execute(SESSION).await.expect("these settings exist");
    let indexes = indexes(&mut connection).await;
    let statements = statements();
    assert!(statements.len() > 100, "{} statements", statements.len());
    for (name, _) in MEANT.into_iter().chain(NEW) {
        assert!(statements.iter().any(|statement| statement.name == name), "no statement is called {name}");
    }
    let states = [
        ("the database is new", "SELECT 1", &NEW[..]),
        ("there is little", LITTLE, &[]),
        ("nothing is open", "DELETE FROM hints; DELETE FROM collect_jobs; ANALYZE", &[]),
    ];
    let mut wrong = Vec::new();
    for (state, change, also_meant) in states {
        connection.execute(change).await.expect("the tables are as they were");
        for statement in &statements {
            let mut found = BTreeSet::new();
            read_whole(&plan(&mut connection, statement).await, &indexes, &mut found);
            for (table, what) in found {
                let read = (statement.name.as_str(), table.as_str());
                let is_meant = MEANT.contains(&read) || also_meant.contains(&read);
                if GROWING.contains(&table.as_str()) && !is_meant && !SHORT.contains(&what.as_str()) {
                    wrong.push(format!("{} reads all of {what} when {state}", statement.name));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

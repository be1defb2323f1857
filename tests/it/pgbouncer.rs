//! Behind a pooler that lends a session for one transaction. `scripts/behind-pgbouncer` starts one and runs these; it
//! also runs other modules with every service behind it.
#![expect(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

use checkback::simulator::{Complete, CreateTransaction};
use checkback::store::{Access, Migrations, Store};
use futures_util::future::{join_all, try_join_all};
use serde_json::{Value, json};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, Row};

use super::support::app::{ACCOUNT, KEY, TestApp, pooled};

const TOKEN: &str = "the-right-token-of-this";
const FLOWS: usize = 40;
/// As `scripts/behind-pgbouncer` sets it.
const SESSIONS: u32 = 4;

fn pooled_options(url: &str) -> PgConnectOptions {
    let url = pooled(url).expect("run by scripts/behind-pgbouncer");
    url.parse::<PgConnectOptions>().unwrap().extra_float_digits(None)
}

/// Registered at one replica, called back at the other, read at both, until all have their verdict.
async fn flows_over_two_replicas(test: &TestApp) {
    let other = test.replica().await;
    let begun = join_all((0..FLOWS).map(async |_| {
        let begun = test.begin(CreateTransaction::default(), json!({ "callback_token": TOKEN })).await;
        test.simulator.complete(&begun.0, Complete { callbacks: Some(0), ..Complete::default() }).await.unwrap();
        begun
    }))
    .await;
    let verdicts = join_all(begun.iter().enumerate().map(async |(n, (transaction, id))| {
        let (reader, receiver) = if n % 2 == 0 {
            (test.internal(""), other.public)
        } else {
            (format!("http://{}", other.internal), test_public(test))
        };
        let reading = test.http.get(format!("{reader}/verifications/{id}?wait=20")).bearer_auth(KEY).send();
        let url = format!("http://{receiver}/callbacks/{ACCOUNT}?transactionId={transaction}&callbackToken={TOKEN}");
        let (read, heard) = tokio::join!(reading, test.http.get(url).send());
        assert_eq!(heard.unwrap().status(), 200);
        read.unwrap().json::<Value>().await.unwrap()
    }))
    .await;
    for verdict in &verdicts {
        assert_eq!((&verdict["status"], &verdict["attempts"]), (&json!("passed"), &json!(1)), "{verdict}");
    }
    assert_eq!(test.provider_calls("CheckResult"), FLOWS, "asked once each");
    other.shut_down().await;
}

fn test_public(test: &TestApp) -> std::net::SocketAddr {
    test.app.as_ref().unwrap().public
}

#[tokio::test]
#[ignore = "needs pgbouncer: scripts/behind-pgbouncer runs it"]
async fn two_replicas_without_a_way_past_the_pooler() {
    let test = TestApp::start().await;
    flows_over_two_replicas(&test).await;
    nothing_is_left_in_a_session(&test).await;
}

#[tokio::test]
#[ignore = "needs pgbouncer: scripts/behind-pgbouncer runs it"]
async fn two_replicas_that_listen_past_the_pooler() {
    let mut test = TestApp::start().await;
    test.stop().await;
    let section = format!("\n[database]\nlisten_url = '{}'", test.database.url());
    test.config.push_str(&section);
    test.restart().await;
    let listening = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query ~ '^LISTEN'";
    let pool = test.database.pool().await;
    test.until("listening", async || {
        let count: i64 = sqlx::query_scalar(listening).fetch_one(&pool).await.unwrap();
        (count == 1).then_some(())
    })
    .await;
    flows_over_two_replicas(&test).await;
    nothing_is_left_in_a_session(&test).await;
}

#[tokio::test]
async fn what_a_pooler_needs_works_without_one_too() {
    let mut test = TestApp::start().await;
    test.stop().await;
    test.config.push_str("\n[database]\ntransaction_pooling = true");
    test.restart().await;
    let pool = test.database.pool().await;
    flows_over_two_replicas(&test).await;
    // Neither said what would outlive a transaction.
    let listening: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query ~* '^(LISTEN|SET) '",
    )
    .fetch_one(&pool)
    .await
    .unwrap();
    assert_eq!(listening, 0);
}

/// Neither settings nor statements: another client of the pooler would meet them.
async fn nothing_is_left_in_a_session(test: &TestApp) {
    let pool =
        PgPoolOptions::new().max_connections(SESSIONS).connect_with(pooled_options(test.database.url())).await.unwrap();
    // All at once, so that each is another session.
    let mut transactions = Vec::new();
    for _ in 0..SESSIONS {
        transactions.push(pool.begin().await.unwrap());
    }
    for mut transaction in transactions {
        let row = sqlx::raw_sql(
            "SELECT current_setting('enable_seqscan') AS seqscan, current_setting('jit') AS jit,
                (SELECT count(*) FROM pg_prepared_statements)::text AS statements,
                (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid())::text AS locks",
        )
        .fetch_one(&mut *transaction)
        .await
        .unwrap();
        let found: [String; 4] = std::array::from_fn(|n| row.get(n));
        assert_eq!(found, ["on", "on", "0", "0"].map(str::to_owned));
    }
}

#[tokio::test]
#[ignore = "needs pgbouncer: scripts/behind-pgbouncer runs it"]
async fn replicas_that_start_together_migrate_an_empty_database_once() {
    let test = TestApp::start().await;
    let name = format!("{}_empty", test.database.options().get_database().unwrap());
    let mut administrator = test.database.administrator().await;
    sqlx::raw_sql(AssertSqlSafe(format!(r#"CREATE DATABASE "{name}""#))).execute(&mut administrator).await.unwrap();
    let store = || {
        let options = pooled_options(test.database.url()).database(&name);
        Store::new(Access { options, listen: None, transaction_pooling: true }, 2)
    };
    let stores = [store(), store(), store()];
    assert!(matches!(stores[0].migrations().await.unwrap(), Migrations::Pending(_)));
    let applied: usize = try_join_all(stores.iter().map(Store::migrate)).await.unwrap().into_iter().sum();
    assert!(applied > 0);
    let counted: i64 = {
        let options = test.database.options().database(&name);
        let pool = PgPoolOptions::new().max_connections(1).connect_with(options).await.unwrap();
        sqlx::query_scalar("SELECT count(*) FROM _sqlx_migrations WHERE success").fetch_one(&pool).await.unwrap()
    };
    assert_eq!(applied, usize::try_from(counted).unwrap(), "each by one of them");
    for store in &stores {
        assert_eq!(store.migrations().await.unwrap(), Migrations::Current);
        assert_eq!(store.migrate().await.unwrap(), 0);
        store.close().await;
    }
    sqlx::raw_sql(AssertSqlSafe(format!(r#"DROP DATABASE "{name}" WITH (FORCE)"#)))
        .execute(&mut administrator)
        .await
        .unwrap();
}

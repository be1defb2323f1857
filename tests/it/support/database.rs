//! A fresh, migrated database for each test.
//!
//! One Postgres serves the whole test process. It is a private one, gone when the process is, however that ends;
//! or the one that `DATABASE_URL` names, whose user must be allowed to create databases. The migrations run once,
//! into a template; a test's database is a copy of it.

use std::fmt::Write as _;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::str::FromStr;
use std::sync::{OnceLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

#[cfg(feature = "embedded-postgres")]
use checkback::private_postgres::{self, PrivatePostgres};
use chrono::{DateTime, Utc};
use sqlx::migrate::Migrator;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection, PgPool};
use tokio::sync::oneshot;

use super::environment;

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

/// Any number will do that nothing else on the server uses.
const TEMPLATE_LOCK: i64 = 0x6368_6563_6b62_6163;

/// The connections that one test's pool may open.
const POOL: u32 = 8;

/// Those of all tests that run side by side, one for each core, most with a service and a pool of their own.
#[cfg(feature = "embedded-postgres")]
const CONNECTIONS: u32 = 600;

/// A database of one test's own. It is dropped with this value, as far as that goes.
pub struct TestDatabase {
    name: String,
    options: PgConnectOptions,
    url: String,
}

impl TestDatabase {
    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn options(&self) -> PgConnectOptions {
        self.options.clone()
    }

    /// A connection to another database of the same server, from where this one can be taken away.
    pub async fn administrator(&self) -> PgConnection {
        PgConnection::connect_with(&self.options().database("postgres"))
            .await
            .unwrap_or_else(|error| panic!("the server cannot be reached: {error}"))
    }

    /// Lets nobody in any more and throws out who is there, or opens it again.
    pub async fn set_reachable(&self, reachable: bool) {
        let mut connection = self.administrator().await;
        let name = &self.name;
        let statement = format!(r#"ALTER DATABASE "{name}" ALLOW_CONNECTIONS {reachable}"#);
        sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut connection).await.expect("an administrator may do this");
        // Only now nobody comes in any more, but for those who were at the door: until none is left.
        let throw_out = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = $1";
        let mut is_empty = reachable;
        while !is_empty {
            let left: i64 = sqlx::query_scalar(throw_out)
                .bind(name)
                .fetch_one(&mut connection)
                .await
                .expect("an administrator may");
            is_empty = left == 0;
        }
    }

    pub async fn pool(&self) -> PgPool {
        PgPoolOptions::new()
            .max_connections(POOL)
            .connect_with(self.options())
            .await
            .unwrap_or_else(|error| panic!("the database {} cannot be reached: {error}", self.name))
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let (done, is_done) = mpsc::channel();
        let sent = server().send(Request::Drop { name: self.name.clone(), done });
        // On a server that outlives the tests, nothing may be left behind: wait for it.
        if sent.is_ok() && environment::variable("DATABASE_URL").is_some() {
            let _ = is_done.recv();
        }
    }
}

/// Stops the database's own clock, at the time that is returned: what the table `test_clock` says.
pub async fn stop_clock(pool: &PgPool) -> DateTime<Utc> {
    let statements = "CREATE TABLE test_clock (at timestamptz NOT NULL);
        INSERT INTO test_clock VALUES ('2026-11-22 12:00:00+00');
        CREATE OR REPLACE FUNCTION database_now() RETURNS timestamptz LANGUAGE sql STABLE
            AS 'SELECT at FROM test_clock'";
    sqlx::raw_sql(statements).execute(pool).await.unwrap();
    sqlx::query_scalar("SELECT at FROM test_clock").fetch_one(pool).await.unwrap()
}

/// Waits until a statement that begins like this waits for a lock that the test holds.
pub async fn somebody_waits(pool: &PgPool, beginning: &str) {
    let waiting = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock' AND starts_with(query, $1)";
    let deadline = Instant::now() + Duration::from_secs(30);
    while sqlx::query_scalar::<_, i64>(waiting).bind(beginning).fetch_one(pool).await.unwrap() == 0 {
        assert!(Instant::now() < deadline, "nothing that begins with {beginning:?} waits");
    }
}

/// A fresh database with all migrations applied.
pub async fn database() -> TestDatabase {
    let (reply, answer) = oneshot::channel();
    assert!(server().send(Request::Create { reply }).is_ok(), "the thread of the test server is gone");
    match answer.await.expect("the thread of the test server answers") {
        Ok(database) => database,
        Err(reason) => panic!("no database for this test: {reason}"),
    }
}

enum Request {
    Create { reply: oneshot::Sender<Result<TestDatabase, String>> },
    Drop { name: String, done: mpsc::Sender<()> },
}

/// Each test has a runtime that ends with it, so the server lives in a thread with a runtime of its own. It
/// answers one request after the other: a template is copied only while nobody is connected to it.
fn server() -> &'static mpsc::Sender<Request> {
    static SERVER: OnceLock<mpsc::Sender<Request>> = OnceLock::new();
    SERVER.get_or_init(|| {
        let (send, requests) = mpsc::channel();
        thread::Builder::new()
            .name("test server".to_owned())
            .spawn(move || {
                tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .expect("a runtime can be built")
                    .block_on(answer(&requests));
            })
            .expect("a thread can be started");
        send
    })
}

async fn answer(requests: &mpsc::Receiver<Request>) {
    let mut server = Server::start().await;
    while let Ok(request) = requests.recv() {
        match (request, &mut server) {
            (Request::Create { reply }, Ok(server)) => {
                let _ = reply.send(server.create().await.map_err(|error| explain(&error)));
            }
            (Request::Create { reply }, Err(reason)) => {
                let _ = reply.send(Err(reason.clone()));
            }
            (Request::Drop { name, done }, server) => {
                if let Ok(server) = server {
                    // A connection may be in the way; the next run does not mind what is left.
                    let _ = server.execute(format!(r#"DROP DATABASE IF EXISTS "{name}" WITH (FORCE)"#)).await;
                }
                let _ = done.send(());
            }
        }
    }
}

/// The server, and what is needed to make databases on it.
struct Server {
    connection: PgConnection,
    options: PgConnectOptions,
    /// The address up to the name of the database, and from there on.
    url: (String, String),
    template: String,
    /// Sets this run's databases apart from another's on the same server.
    run: String,
    created: u32,
    /// Since Postgres 15 a copy can go through the log, which spares two checkpoints.
    strategy: &'static str,
    /// Held for as long as the server is to run.
    #[cfg(feature = "embedded-postgres")]
    private: Option<PrivatePostgres>,
}

impl Server {
    async fn start() -> Result<Self, String> {
        if let Some(url) = environment::variable("DATABASE_URL") {
            let url = url.into_string().map_err(|_| "DATABASE_URL is not UTF-8".to_owned())?;
            let options = PgConnectOptions::from_str(&url).map_err(|error| explain(&error))?;
            let mut server = Self::connect(options, split_url(&url)?).await.map_err(|error| explain(&error))?;
            server.prepare().await.map_err(|error| explain(&error))?;
            return Ok(server);
        }
        #[cfg(feature = "embedded-postgres")]
        {
            let data_dir = super::scratch::folder().join("shared").join("data");
            let mut options =
                private_postgres::Options::new(data_dir, private_postgres::Durability::None, environment::search());
            options.extra_settings = vec![("max_connections".to_owned(), CONNECTIONS.to_string())];
            let private = PrivatePostgres::start(options).await.map_err(|error| explain(&error))?;
            let (options, url) = (private.connect_options(), split_url(&private.url())?);
            let mut server = Self::connect(options, url).await.map_err(|error| explain(&error))?;
            server.private = Some(private);
            server.prepare().await.map_err(|error| explain(&error))?;
            Ok(server)
        }
        #[cfg(not(feature = "embedded-postgres"))]
        Err("without the feature embedded-postgres the tests need DATABASE_URL".to_owned())
    }

    async fn connect(options: PgConnectOptions, url: (String, String)) -> Result<Self, sqlx::Error> {
        let options = options.disable_statement_logging();
        let mut connection = PgConnection::connect_with(&options).await?;
        let version: i32 = sqlx::query_scalar("SELECT current_setting('server_version_num')::integer")
            .fetch_one(&mut connection)
            .await?;
        Ok(Self {
            connection,
            options,
            url,
            template: template_name(),
            run: format!("{:08x}", RandomState::new().build_hasher().finish() >> 32),
            created: 0,
            strategy: if version >= 150_000 { "STRATEGY wal_log" } else { "" },
            #[cfg(feature = "embedded-postgres")]
            private: None,
        })
    }

    async fn execute(&mut self, statement: String) -> Result<(), sqlx::Error> {
        sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut self.connection).await?;
        Ok(())
    }

    /// Makes the template, unless another test process on the same server has done it.
    async fn prepare(&mut self) -> Result<(), sqlx::Error> {
        sqlx::query("SELECT pg_advisory_lock($1)").bind(TEMPLATE_LOCK).execute(&mut self.connection).await?;
        let there: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
            .bind(&self.template)
            .fetch_one(&mut self.connection)
            .await?;
        if !there {
            // Under its name a template is always whole.
            let (template, building) = (self.template.clone(), format!("{}_building", self.template));
            self.execute(format!(r#"DROP DATABASE IF EXISTS "{building}" WITH (FORCE)"#)).await?;
            self.execute(format!(r#"CREATE DATABASE "{building}""#)).await?;
            let mut connection = PgConnection::connect_with(&self.options.clone().database(&building)).await?;
            MIGRATIONS.run(&mut connection).await?;
            connection.close().await?;
            self.execute(format!(r#"ALTER DATABASE "{building}" RENAME TO "{template}""#)).await?;
        }
        sqlx::query("SELECT pg_advisory_unlock($1)").bind(TEMPLATE_LOCK).execute(&mut self.connection).await?;
        Ok(())
    }

    async fn create(&mut self) -> Result<TestDatabase, sqlx::Error> {
        self.created += 1;
        let name = format!("t_{}_{}", self.run, self.created);
        self.execute(format!(r#"CREATE DATABASE "{name}" TEMPLATE "{}" {}"#, self.template, self.strategy)).await?;
        let (before, after) = &self.url;
        Ok(TestDatabase { options: self.options.clone().database(&name), url: format!("{before}{name}{after}"), name })
    }
}

/// Named after the migrations, so that a server that outlives the tests never serves an old template.
fn template_name() -> String {
    let mut name = "checkback_template_".to_owned();
    let mut mixed = [0_u8; 8];
    for (index, byte) in MIGRATIONS.iter().flat_map(|migration| migration.checksum.iter()).enumerate() {
        let place = &mut mixed[index % 8];
        *place = place.wrapping_mul(31).wrapping_add(*byte);
    }
    for byte in mixed {
        write!(name, "{byte:02x}").expect("a String takes every text");
    }
    name
}

/// Splits an address around the name of its database.
fn split_url(url: &str) -> Result<(String, String), String> {
    let authority = url.find("://").ok_or("DATABASE_URL is not an address")? + 3;
    let query = url[authority..].find('?').map_or(url.len(), |at| authority + at);
    let before = match url[authority..query].find('/') {
        Some(slash) => url[..=authority + slash].to_owned(),
        None => format!("{}/", &url[..query]),
    };
    Ok((before, url[query..].to_owned()))
}

/// An error with all its causes.
fn explain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

mod tests {
    use super::*;

    #[tokio::test]
    async fn each_test_has_a_database_of_its_own() {
        let (one, two) = tokio::join!(database(), database());
        let (pool, other) = (one.pool().await, two.pool().await);
        sqlx::raw_sql("CREATE TABLE notes (note text)").execute(&pool).await.unwrap();
        let found: Option<String> =
            sqlx::query_scalar("SELECT to_regclass('notes')::text").fetch_one(&other).await.unwrap();
        assert_eq!(found, None);
    }

    #[tokio::test]
    async fn a_test_database_has_every_migration_applied() {
        let database = database().await;
        let applied: i64 = sqlx::query_scalar("SELECT count(*) FROM _sqlx_migrations WHERE success")
            .fetch_one(&database.pool().await)
            .await
            .unwrap();
        assert_eq!(usize::try_from(applied).unwrap(), MIGRATIONS.iter().count());
    }

    #[tokio::test]
    async fn the_address_of_a_test_database_leads_to_it() {
        let database = database().await;
        let mut connection = PgConnection::connect(database.url()).await.unwrap();
        let name: String = sqlx::query_scalar("SELECT current_database()").fetch_one(&mut connection).await.unwrap();
        assert_eq!(name, database.name);
    }

    #[tokio::test]
    async fn a_dropped_test_database_is_gone() {
        let name = {
            let database = database().await;
            let _pool = database.pool().await;
            database.name.clone()
        };
        // Requests are answered in order, so the database was dropped before this one was made.
        let other = database().await;
        let left: i64 = sqlx::query_scalar("SELECT count(*) FROM pg_database WHERE datname = $1")
            .bind(&name)
            .fetch_one(&other.pool().await)
            .await
            .unwrap();
        assert_eq!(left, 0);
    }

    #[test]
    fn the_name_of_the_database_is_replaced_in_an_address() {
        for (url, before, after) in [
            ("postgres://u:p@host:5432/app?sslmode=require", "postgres://u:p@host:5432/", "?sslmode=require"),
            ("postgres://host", "postgres://host/", ""),
            ("postgresql:///app?host=/tmp/x", "postgresql:///", "?host=/tmp/x"),
        ] {
            assert_eq!(split_url(url).unwrap(), (before.to_owned(), after.to_owned()), "{url}");
        }
    }
}

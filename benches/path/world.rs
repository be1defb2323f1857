//! The surroundings: a private Postgres that flushes, a simulator, and registered verifications.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, ensure};
use checkback::domain::TokenHash;
use checkback::private_postgres::{Durability, Options, PrivatePostgres, Search};
use checkback::service::register::Registration;
use checkback::simulator::{CreateTransaction, Settings, Simulator};
use checkback::store::Store;
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, PgPool};
use tokio::net::TcpListener;

use crate::Result;
use crate::load::Requests;

pub const ACCOUNT: &str = "alibaba-sg";
const TOKEN: &str = "7ca5c68d869344ea8eeb30cdfd544544";
/// Registered before an acknowledgement is measured: no measurement comes to the end of them.
pub const ENOUGH: usize = 400_000;
/// As many as a process remembers, about.
pub const SOME: usize = 30_000;

/// A registered verification.
pub struct Known {
    transaction_id: String,
    id: uuid::Uuid,
}

impl Known {
    pub fn new(n: usize, id: uuid::Uuid) -> Self {
        Self { transaction_id: transaction_id(n), id }
    }

    pub fn callback(&self) -> Vec<u8> {
        format!(
            "GET /callbacks/{ACCOUNT}?callbackToken={TOKEN}&transactionId={}&passed=Y&subCode=200 HTTP/1.1\r\n\
             host: checkback\r\n\r\n",
            self.transaction_id
        )
        .into_bytes()
    }

    pub fn read(&self) -> Vec<u8> {
        format!("GET /verifications/{}?wait=10 HTTP/1.1\r\nhost: checkback\r\n\r\n", self.id).into_bytes()
    }
}

pub struct World {
    postgres: PrivatePostgres,
    folder: PathBuf,
    pub pool: PgPool,
    pub simulator: SocketAddr,
    provider: Simulator,
}

fn transaction_id(n: usize) -> String {
    format!("hksb7ba1b28130d24e015d69436{n:07}")
}

impl World {
    #[expect(clippy::disallowed_methods, reason = "a benchmark finds its own server binaries and runtime")]
    pub async fn start(settings: &[(&str, &str)]) -> Result<Self> {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let started = STARTED.fetch_add(1, Ordering::Relaxed);
        let folder = PathBuf::from(format!("/tmp/checkback-bench-{}-{started}", std::process::id()));
        let mut extra =
            vec![("max_connections".to_owned(), "400".to_owned()), ("max_wal_size".to_owned(), "4GB".to_owned())];
        extra.extend(settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let search = Search { explicit: None, path: std::env::var_os("PATH") };
        let options = Options { extra_settings: extra, ..Options::new(folder.clone(), Durability::Full, search) };
        let postgres = PrivatePostgres::start(options).await?;
        let store = Store::new(postgres.connect_options(), 2);
        store.migrate().await?;
        store.add_accounts(&[ACCOUNT.to_owned()]).await?;
        store.close().await;
        let pool = PgPoolOptions::new().max_connections(4).connect_with(postgres.connect_options()).await?;
        sqlx::query("CREATE TABLE bench_rows (row_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, transaction_id text NOT NULL, received_at timestamptz NOT NULL)")
            .execute(&pool)
            .await?;
        let provider = Simulator::new(&Settings { call_log_capacity: 1000, ..Settings::default() })?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let simulator = listener.local_addr()?;
        tokio::spawn(provider.clone().serve(listener, std::future::pending()));
        Ok(Self { postgres, folder, pool, simulator, provider })
    }

    pub fn options(&self) -> sqlx::postgres::PgConnectOptions {
        self.postgres.connect_options()
    }

    pub fn binaries(&self) -> &Path {
        self.postgres.binaries()
    }

    pub fn process_id(&self) -> u32 {
        self.postgres.process_id()
    }

    pub fn url(&self) -> String {
        self.postgres.url()
    }

    /// The registration of one transaction, which is finished at the simulator.
    pub fn registration(&self, n: usize) -> Result<Registration> {
        let transaction_id = transaction_id(n);
        if self.provider.transaction(&transaction_id).is_none() {
            self.provider.create(CreateTransaction {
                transaction_id: Some(transaction_id.clone()),
                completed: Some(true),
                ..CreateTransaction::default()
            })?;
        }
        Ok(Registration {
            transaction_id,
            merchant_biz_id: None,
            callback_token: Some(TokenHash::of(TOKEN)),
            product: Some("FACE_LIVENESS".to_owned()),
            expect_video: None,
            return_url: None,
            metadata: None,
        })
    }

    /// Leaves `count` registered verifications as another replica would. A callback is all that they are good for: the
    /// simulator does not know them.
    pub async fn register_elsewhere(&self, count: usize) -> Result<()> {
        let last = i32::try_from(count)?;
        let statements = [
            "INSERT INTO verifications (verification_id, account, transaction_id, merchant_biz_id, product, expect_video,
                 callback_token_sha256, metadata, registered_at)
             SELECT ('019a0000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, $1,
                 'hksb7ba1b28130d24e015d69436' || lpad(n::text, 7, '0'), 'biz' || n, 'FACE_LIVENESS', false,
                 sha256($2::bytea), '{\"order\":\"A-17\"}', now()
             FROM generate_series(0, $3 - 1) AS n",
            "INSERT INTO collect_jobs (verification_id, account, lane, due_at)
             SELECT ('019a0000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, $1, 3, now() + interval '5 min'
             FROM generate_series(0, $3 - 1) AS n WHERE $2::bytea IS NOT NULL",
        ];
        for statement in statements {
            sqlx::query(statement).bind(ACCOUNT).bind(TOKEN.as_bytes()).bind(last).execute(&self.pool).await?;
        }
        self.settle().await
    }

    /// Leaves `count` verifications that wait for a retry or a poll, all of them due. The simulator does not know them.
    pub async fn add_backlog(&self, count: i32) -> Result<()> {
        let statements = [
            "INSERT INTO verifications (verification_id, account, transaction_id, merchant_biz_id, product, expect_video,
                 registered_at)
             SELECT ('019a0000-0000-7000-9000-' || lpad(to_hex(n), 12, '0'))::uuid, $1, 'backlog' || n, 'biz' || n,
                 'FACE_LIVENESS', false, now() - interval '1 h'
             FROM generate_series(0, $2 - 1) AS n",
            "INSERT INTO collect_jobs (verification_id, account, lane, due_at, hinted_at)
             SELECT ('019a0000-0000-7000-9000-' || lpad(to_hex(n), 12, '0'))::uuid, $1, 2 + n % 2,
                 now() - interval '1 min', CASE WHEN n % 2 = 0 THEN now() - interval '50 min' END
             FROM generate_series(0, $2 - 1) AS n",
        ];
        for statement in statements {
            sqlx::query(statement).bind(ACCOUNT).bind(count).execute(&self.pool).await?;
        }
        self.settle().await
    }

    /// Rows that have just been loaded are not like rows that have been there: their first readers would mark them as
    /// committed, and with checksums each such mark writes a page to the log. Empty tables are left alone, as autovacuum
    /// leaves them: from statistics that say that they are empty come plans that read them whole.
    pub async fn settle(&self) -> Result<()> {
        for table in ["verifications", "collect_jobs", "verdicts", "history"] {
            let settle = format!("VACUUM ANALYZE {table}");
            let is_empty = format!("SELECT NOT EXISTS (SELECT FROM {table})");
            if !sqlx::query_scalar::<_, bool>(AssertSqlSafe(is_empty)).fetch_one(&self.pool).await? {
                sqlx::query(AssertSqlSafe(settle)).execute(&self.pool).await?;
            }
        }
        sqlx::query("CHECKPOINT").execute(&self.pool).await?;
        Ok(())
    }

    pub async fn clear(&self) -> Result<()> {
        sqlx::query("TRUNCATE verifications, collect_jobs, hints, verdicts, history, unmatched_callbacks")
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Transactions a second of one-row inserts, each its own.
    pub async fn pgbench(&self, clients: usize, seconds: u64) -> Result<f64> {
        let script = self.folder.with_extension("sql");
        std::fs::write(
            &script,
            "INSERT INTO bench_rows (transaction_id, received_at) VALUES ('hksb7ba1b28130d24e015d6943', now());\n",
        )?;
        let options = self.postgres.url();
        let output = tokio::process::Command::new(self.postgres.binaries().join("pgbench"))
            .args(["-n", "-M", "prepared", "-j", "2", "-c", &clients.to_string(), "-T", &seconds.to_string(), "-f"])
            .arg(&script)
            .arg(options)
            .stderr(Stdio::piped())
            .output()
            .await
            .context("pgbench could not be run; it comes with the Postgres server packages")?;
        std::fs::remove_file(&script)?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(output.status.success(), "pgbench failed: {}", String::from_utf8_lossy(&output.stderr));
        let line = text.lines().find_map(|line| line.strip_prefix("tps = ")).context("pgbench printed no tps")?;
        Ok(line.split(' ').next().unwrap_or_default().parse()?)
    }

    pub async fn stop(self) -> Result<()> {
        self.pool.close().await;
        self.postgres.stop().await?;
        std::fs::remove_dir_all(&self.folder).ok();
        Ok(())
    }
}

/// The callbacks of the first `count` verifications; with none, one for a route that ignores it.
pub fn requests(count: usize) -> Arc<Requests> {
    let callback = |n| Known::new(n, uuid::Uuid::nil()).callback();
    Requests::new((0..count.max(1)).map(callback).collect(), count == 0)
}

//! A Postgres of our own, run from the installed server binaries, for when no database is configured.
//!
//! It listens on a unix socket in a folder that only its user can enter, and on no network address. One service
//! at a time works on a data folder: its lock is held as long as [`PrivatePostgres`] lives. A server that
//! outlived a killed service is stopped by the next start, which then recovers what was committed.
//!
//! Reading the environment is left to the caller, and so are migrations.

mod account;
mod binaries;
mod error;
mod folder;
mod orphan;

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use rustix::process::{Pid, Signal, kill_process};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgSslMode};
use sqlx::{AssertSqlSafe, Connection};

pub use self::binaries::{OLDEST_MAJOR, Search};
pub use self::error::Error;

use self::account::Account;
use self::binaries::Binaries;
use self::folder::Folder;

/// The database, and the superuser who owns it.
const NAME: &str = "checkback";
/// Part of the socket's name only. Said wherever a `PGPORT` in the environment would else decide.
const PORT: u16 = 5432;

/// How long a starting server may give no answer at all, unless the caller says otherwise.
const SILENCE_LIMIT: Duration = Duration::from_mins(1);
/// One attempt to reach a starting server. It must not use up the whole of the patience.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(5);
/// How often a start that takes long says so.
const PROGRESS: Duration = Duration::from_secs(10);
const STOP_LIMIT: Duration = Duration::from_secs(20);
const IMMEDIATE_LIMIT: Duration = Duration::from_secs(5);
/// How long dropping may hold up the caller.
const DROP_LIMIT: Duration = Duration::from_millis(500);
const POLL: Duration = Duration::from_millis(5);

/// `invalid_catalog_name`.
const MISSING_DATABASE: &str = "3D000";
/// `cannot_connect_now`: it starts, recovers or stops.
const STARTING: &str = "57P03";

/// What of a committed transaction survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Everything, whatever happens to the machine.
    Full,
    /// Nothing is promised: for tests.
    None,
}

#[derive(Clone, Debug)]
pub struct Options {
    /// Made when it is not there.
    pub data_dir: PathBuf,
    pub durability: Durability,
    pub search: Search,
    /// Server settings by name, which win over ours.
    pub extra_settings: Vec<(String, String)>,
    /// How long the starting server may give no answer. One that answers that it is starting or recovering is
    /// waited for as long as that takes: giving up on it would only begin the recovery anew.
    pub silence_limit: Duration,
}

impl Options {
    /// Nothing but what everybody says: our settings, and patience for a minute.
    pub fn new(data_dir: PathBuf, durability: Durability, search: Search) -> Self {
        Self { data_dir, durability, search, extra_settings: Vec::new(), silence_limit: SILENCE_LIMIT }
    }
}

/// A running server. [`PrivatePostgres::stop`] ends it in good order; dropping it ends it as well as can be done
/// without waiting for long.
#[derive(Debug)]
pub struct PrivatePostgres {
    /// `None` once the server has ended.
    child: Option<Child>,
    process_id: u32,
    socket: PathBuf,
    binaries: Binaries,
    /// Where the log of this start begins.
    log_start: u64,
    folder: Folder,
}

impl PrivatePostgres {
    /// Starts the server and returns when it answers. The first start on a folder makes the database.
    pub async fn start(options: Options) -> Result<Self, Error> {
        let started = Instant::now();
        let silence_limit = options.silence_limit;
        let mut server = tokio::task::spawn_blocking(move || Self::launch(&options)).await??;
        server.wait_until_ready(silence_limit).await?;
        tracing::info!(
            process.id = server.process_id,
            duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
            "the private Postgres in {} is ready, as process {}",
            server.folder.path().display(),
            server.process_id
        );
        Ok(server)
    }

    /// How to connect to the database `checkback`.
    pub fn connect_options(&self) -> PgConnectOptions {
        self.connect_options_to(NAME)
    }

    /// How to connect to a database by name.
    pub fn connect_options_to(&self, database: &str) -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass()
            .socket(&self.socket)
            .port(PORT)
            .username(NAME)
            .database(database)
            .ssl_mode(PgSslMode::Disable)
    }

    /// The address of the database `checkback`, for sqlx and psql.
    pub fn url(&self) -> String {
        self.url_to(NAME)
    }

    /// The address of a database by name.
    pub fn url_to(&self, database: &str) -> String {
        const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'_').remove(b'.');
        let encode = |text| utf8_percent_encode(text, KEPT);
        let socket = self.socket.to_string_lossy();
        format!("postgresql:///{}?host={}&port={PORT}&user={NAME}", encode(database), encode(&socket))
    }

    pub fn process_id(&self) -> u32 {
        self.process_id
    }

    /// The folder of the server's programs, where `psql` and `pg_dump` usually are too.
    pub fn binaries(&self) -> &Path {
        &self.binaries.folder
    }

    /// Ends the server: connections are closed, what is in memory is written. When that takes too long it ends at
    /// once, and the next start recovers.
    pub async fn stop(mut self) -> Result<(), Error> {
        tokio::task::spawn_blocking(move || {
            let steps = [(Signal::INT, STOP_LIMIT), (Signal::QUIT, IMMEDIATE_LIMIT), (Signal::KILL, IMMEDIATE_LIMIT)];
            for (signal, limit) in steps {
                self.signal(signal);
                if self.wait_for_end(limit) {
                    return if signal == Signal::KILL { Err(Error::Killed) } else { Ok(()) };
                }
            }
            Err(Error::Killed)
        })
        .await?
    }

    fn launch(options: &Options) -> Result<Self, Error> {
        let folder = Folder::open(&options.data_dir)?;
        let cluster = folder.cluster();
        orphan::stop(&cluster)?;
        if let Some(socket) = &folder.stale_socket {
            folder::remove_socket_folder(socket);
        }
        let written_by = version_of(&cluster)?;
        let binaries = options.search.find(&cluster, written_by)?;
        let account = Account::choose(&cluster, options.search.path.clone())?;
        account.check_reach(folder.path(), &binaries)?;
        if written_by.is_some() {
            account.own_all(&cluster)?;
        } else {
            init(&folder, &account, &binaries, options.durability)?;
        }
        let socket = folder::create_socket_folder(&account, folder.path())?;
        let spawned = folder
            .note(Some(&socket))
            .and_then(|()| folder.open_log())
            .and_then(|(log, log_start)| Ok((spawn(&cluster, &account, &binaries, &socket, options, log)?, log_start)));
        match spawned {
            Ok((child, log_start)) => {
                Ok(Self { process_id: child.id(), child: Some(child), socket, binaries, log_start, folder })
            }
            Err(error) => {
                folder::remove_socket_folder(&socket);
                Err(error)
            }
        }
    }

    async fn wait_until_ready(&mut self, silence_limit: Duration) -> Result<(), Error> {
        let started = Instant::now();
        let (mut heard, mut told) = (started, started);
        let mut last = None;
        while heard.elapsed() < silence_limit {
            if let Some(status) = self.ended() {
                return Err(Error::Exited {
                    data_dir: self.folder.path().to_owned(),
                    status: status.to_string(),
                    log: self.folder.log_tail(self.log_start),
                });
            }
            let limit = ATTEMPT_LIMIT.min(silence_limit.saturating_sub(heard.elapsed()));
            let answer = tokio::time::timeout(limit, PgConnection::connect_with(&self.connect_options())).await;
            match answer.unwrap_or_else(|_| Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()))) {
                Ok(connection) => {
                    // Nothing was asked, so nothing is lost when it does not close well.
                    let _ = connection.close().await;
                    return Ok(());
                }
                Err(error) if has_code(&error, MISSING_DATABASE) => return self.create_database().await,
                Err(error) if has_code(&error, STARTING) => heard = Instant::now(),
                Err(error) => last = Some(error),
            }
            if told.elapsed() >= PROGRESS {
                told = Instant::now();
                tracing::info!(
                    process.id = self.process_id,
                    "still waiting for the private Postgres, {} s so far; after a kill it recovers first, and {} says \
                     how far it is",
                    started.elapsed().as_secs(),
                    self.folder.log().display()
                );
            }
            tokio::time::sleep(POLL).await;
        }
        Err(Error::NotReady {
            data_dir: self.folder.path().to_owned(),
            silence: silence_limit,
            log: self.folder.log_tail(self.log_start),
            source: last,
        })
    }

    async fn create_database(&self) -> Result<(), Error> {
        let create = async {
            let mut connection = PgConnection::connect_with(&self.connect_options_to("postgres")).await?;
            sqlx::raw_sql(AssertSqlSafe(format!("CREATE DATABASE {NAME}"))).execute(&mut connection).await?;
            connection.close().await
        };
        create.await.map_err(|source| Error::CreateDatabase { name: NAME, source })
    }

    fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.as_mut()?.try_wait().ok()??;
        self.child = None;
        Some(status)
    }

    fn signal(&self, signal: Signal) {
        if let Some(child) = &self.child {
            // It may have ended by itself; as its parent we know that the id is not another's yet.
            let _ = kill_process(Pid::from_child(child), signal);
        }
    }

    fn wait_for_end(&mut self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        while self.child.is_some() && self.ended().is_none() {
            if Instant::now() >= deadline {
                return false;
            }
            thread::sleep(POLL);
        }
        true
    }
}

impl Drop for PrivatePostgres {
    fn drop(&mut self) {
        self.signal(Signal::INT);
        if self.wait_for_end(DROP_LIMIT) {
            folder::remove_socket_folder(&self.socket);
            // The name may soon be another's. Should this fail, the next start looks before it removes.
            let _ = self.folder.note(None);
        }
        // Else it goes on stopping alone; a start meanwhile waits for it, and clears the socket away.
    }
}

/// The version that wrote the data, or `None` when there is no data yet.
fn version_of(cluster: &Path) -> Result<Option<u32>, Error> {
    let file = cluster.join("PG_VERSION");
    match fs::read_to_string(&file) {
        Ok(text) => match text.trim().split('.').next().and_then(|major| major.parse().ok()) {
            Some(major) => Ok(Some(major)),
            None => Err(Error::Io {
                doing: "understand the version in",
                path: file,
                source: std::io::ErrorKind::InvalidData.into(),
            }),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Io { doing: "read", path: file, source }),
    }
}

/// Makes a cluster. It gets its name only when it is whole.
fn init(folder: &Folder, account: &Account, binaries: &Binaries, durability: Durability) -> Result<(), Error> {
    folder.remove_unfinished();
    let unfinished = folder.unfinished_cluster();
    fs::create_dir(&unfinished).map_err(Error::io("create the folder", &unfinished))?;
    account.own(&unfinished)?;
    let program = binaries.program("initdb");
    let mut command = account.command(&program, folder.path());
    command.arg("--pgdata").arg(&unfinished);
    command.args(["--username", NAME, "--encoding=UTF8", "--locale=C", "--data-checksums", "--no-instructions"]);
    command.args(["--auth-local=trust", "--auth-host=reject"]);
    if durability == Durability::None {
        command.arg("--no-sync");
    }
    let output = command.output().map_err(Error::io("run", program))?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        let output = folder::last_lines(&String::from_utf8_lossy(&said));
        folder.remove_unfinished();
        return Err(Error::Initdb { folder: unfinished, output });
    }
    fs::rename(&unfinished, folder.cluster()).map_err(Error::io("rename", &unfinished))?;
    File::open(folder.path()).and_then(|opened| opened.sync_all()).map_err(Error::io("write", folder.path()))
}

fn spawn(
    cluster: &Path,
    account: &Account,
    binaries: &Binaries,
    socket: &Path,
    options: &Options,
    log: File,
) -> Result<Child, Error> {
    let program = binaries.program("postgres");
    let errors = log.try_clone().map_err(Error::io("open the log of", cluster))?;
    let mut command = account.command(&program, cluster);
    command.arg("-D").arg(cluster);
    for (name, value) in settings(options.durability, socket) {
        command.arg("-c").arg({
            let mut setting = OsString::from(format!("{name}="));
            setting.push(value);
            setting
        });
    }
    for (name, value) in &options.extra_settings {
        command.arg("-c").arg(format!("{name}={value}"));
    }
    command.stdout(log).stderr(errors).spawn().map_err(Error::io("run", program))
}

fn settings(durability: Durability, socket: &Path) -> Vec<(&'static str, OsString)> {
    // The value is a list, so a name with a comma or a blank has to be quoted.
    let socket = format!("\"{}\"", socket.display().to_string().replace('"', "\"\""));
    let durable = if durability == Durability::Full { "on" } else { "off" };
    let mut settings = vec![
        ("listen_addresses", ""),
        ("unix_socket_directories", socket.as_str()),
        ("unix_socket_permissions", "0700"),
        ("port", "5432"),
        ("max_connections", "100"),
        ("shared_buffers", "128MB"),
        ("fsync", durable),
        ("synchronous_commit", durable),
        ("full_page_writes", durable),
        ("timezone", "UTC"),
        ("log_timezone", "UTC"),
        ("logging_collector", "off"),
        ("log_destination", "stderr"),
        // A statement or the DETAIL of an error can hold personal data.
        ("log_min_error_statement", "panic"),
        ("log_error_verbosity", "terse"),
        ("cluster_name", NAME),
    ];
    if durability == Durability::None {
        settings.extend([("wal_level", "minimal"), ("max_wal_senders", "0")]);
    }
    settings.into_iter().map(|(name, value)| (name, value.into())).collect()
}

fn has_code(error: &sqlx::Error, code: &str) -> bool {
    matches!(error, sqlx::Error::Database(error) if error.code().as_deref() == Some(code))
}

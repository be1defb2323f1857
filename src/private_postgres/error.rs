//! What can keep a private Postgres from running, told to the person who started it.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::binaries::OLDEST_MAJOR;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "no Postgres server was found: a folder that holds both initdb and postgres was looked for in PATH, \
         by pg_config --bindir, and in /usr/lib/postgresql, /usr/pgsql-* and Homebrew's folders. \
         Any one of these helps:\n\
         \x20 Debian, Ubuntu: apt install postgresql\n\
         \x20 Fedora:         dnf install postgresql-server\n\
         \x20 macOS:          brew install postgresql\n\
         \x20 Docker:         docker compose up, which brings a Postgres of its own\n\
         \x20 your own:       set DATABASE_URL to a Postgres {OLDEST_MAJOR} or newer\n\
         Where the binaries are in an unusual folder, name it in CHECKBACK_POSTGRES_BIN"
    )]
    NotFound,

    #[error(
        "CHECKBACK_POSTGRES_BIN is {}, but that folder does not hold both initdb and postgres; \
         correct it, or unset it to have the usual places searched", folder.display()
    )]
    ExplicitNotFound { folder: PathBuf },

    #[error(
        "the installed Postgres is too old: version {version} in {}; Checkback needs {OLDEST_MAJOR} or newer. \
         Install a newer one and name its folder in CHECKBACK_POSTGRES_BIN, use docker compose up, or set DATABASE_URL",
        folder.display()
    )]
    TooOld { version: String, folder: PathBuf },

    #[error(
        "the data in {} was written by Postgres {written_by}, but only {found} is installed. Install Postgres \
         {written_by} again (or name its folder in CHECKBACK_POSTGRES_BIN); to move to a newer version, \
         run pg_upgrade with the binaries of both, or start it with {written_by}, save it with pg_dumpall, \
         and load that into an empty data folder", folder.display()
    )]
    OtherVersion { folder: PathBuf, written_by: u32, found: String },

    #[error(
        "the data folder {} is in use by {}: one service at a time may work on it. Stop that process, \
         or give this one another folder in database.data_dir", data_dir.display(), Holder(*process_id)
    )]
    InUse { data_dir: PathBuf, process_id: Option<u32> },

    #[error(
        "folder {} is in the way: {user}, who runs Postgres, may not pass it to reach {}. Allow it with \
         chmod o+x {}, {remedy}", folder.display(), target.display(), folder.display()
    )]
    Unreachable { folder: PathBuf, target: PathBuf, user: String, remedy: &'static str },

    #[error(
        "the data in {} belongs to user id {owner}, but this process runs as user id {process}; \
         start it as that user, or give it another folder in database.data_dir", folder.display()
    )]
    NotOwner { folder: PathBuf, owner: u32, process: u32 },

    #[error(
        "Postgres refuses to run as root, and neither the user postgres nor nobody exists; \
         create one, start Checkback as an ordinary user, or set DATABASE_URL"
    )]
    NoUser,

    #[error(
        "Postgres refuses to run as root, and {user} could not be switched to; \
         start Checkback as an ordinary user, or set DATABASE_URL"
    )]
    CannotSwitchUser { user: String, source: io::Error },

    #[error("no folder for the server's socket: tried {tried}; one of them must be writable and its path short")]
    NoSocketFolder { tried: String },

    #[error("cannot {doing} {}", path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },

    #[error("initdb could not make a database in {}; it said:\n{output}", folder.display())]
    Initdb { folder: PathBuf, output: String },

    #[error("the private Postgres in {} ended while it started ({status}); its log ends with:\n{log}", data_dir.display())]
    Exited { data_dir: PathBuf, status: String, log: String },

    #[error(
        "the private Postgres in {} gave no answer for {}; its log ends with:\n{log}",
        data_dir.display(), humantime::format_duration(*silence)
    )]
    NotReady {
        data_dir: PathBuf,
        silence: Duration,
        log: String,
        #[source]
        source: Option<sqlx::Error>,
    },

    #[error("process {process_id}, the Postgres that an earlier run left on {}, does not stop; end it by hand", cluster.display())]
    OrphanStays { process_id: u32, cluster: PathBuf },

    #[error("the private Postgres did not stop in time and was killed; the next start recovers from that")]
    Killed,

    #[error("the database {name} could not be created in the private Postgres")]
    CreateDatabase { name: &'static str, source: sqlx::Error },

    #[error("the work of starting Postgres broke off")]
    BrokenOff(#[from] tokio::task::JoinError),
}

impl Error {
    pub(super) fn io(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { doing, path, source }
    }
}

struct Holder(Option<u32>);

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(id) => write!(f, "process {id}"),
            None => f.write_str("another process"),
        }
    }
}

//! What can go wrong with the database, as far as callers act differently on it.

/// An error of the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database does not answer, or not in time. Nothing is known of the write: ask again later.
    #[error("the database does not answer")]
    Unavailable(#[source] sqlx::Error),
    /// The database lacks a migration that this version needs: ask again when it was applied.
    #[error("the database is not migrated")]
    Unmigrated(#[source] sqlx::Error),
    /// Two transactions waited for each other; nothing was written and the same again will work.
    #[error("the transaction met another one and was rolled back")]
    Conflict(#[source] sqlx::Error),
    /// A row holds what this version cannot read.
    #[error("{table}.{column} of {row} holds an unknown value")]
    Inconsistent { table: &'static str, column: &'static str, row: String },
    /// The statement itself is refused: a defect, or data that Postgres cannot hold.
    #[error("the database refused a statement")]
    Refused(#[source] sqlx::Error),
}

/// Beginnings of SQLSTATEs that say "not now": connection trouble, read-only during a failover, nobody or we are not
/// let in, the database is not there, closed to connections, out of resources, shutting down, trouble of the system.
const NOT_NOW: [&str; 8] = ["08", "25006", "28", "3D", "55000", "53", "57", "58"];

/// An unknown table, column or function. Statements are checked when this program is built, so what they name comes
/// with a migration.
const UNMIGRATED: [&str; 3] = ["42P01", "42703", "42883"];

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        use sqlx::Error as E;
        match &error {
            E::Database(database) => {
                let code = database.code().unwrap_or_default();
                if code == "40P01" || code == "40001" {
                    Self::Conflict(error)
                } else if UNMIGRATED.contains(&&*code) {
                    Self::Unmigrated(error)
                } else if NOT_NOW.iter().any(|class| code.starts_with(class)) {
                    Self::Unavailable(error)
                } else {
                    Self::Refused(error)
                }
            }
            E::Io(_) | E::Tls(_) | E::PoolTimedOut | E::PoolClosed | E::WorkerCrashed | E::Protocol(_) => {
                Self::Unavailable(error)
            }
            _ => Self::Refused(error),
        }
    }
}

impl StoreError {
    /// The caller waited no longer.
    pub fn timed_out() -> Self {
        Self::Unavailable(sqlx::Error::PoolTimedOut)
    }

    /// The same again may work at once: a connection of the pool had died, or two transactions met.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Conflict(_) => true,
            Self::Unavailable(error) => !matches!(error, sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed),
            Self::Unmigrated(_) | Self::Inconsistent { .. } | Self::Refused(_) => false,
        }
    }

    pub fn is_unavailable(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Unmigrated(_) | Self::Conflict(_))
    }
}

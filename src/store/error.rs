//! What can go wrong with the database, as far as callers act differently on it.

/// An error of the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database does not answer, or not in time. Nothing is known of the write: ask again later.
    #[error("the database does not answer")]
    Unavailable(#[source] sqlx::Error),
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

/// Classes of SQLSTATE that say "not now": connection trouble, out of resources, shutting down.
const NOT_NOW: [&str; 4] = ["08", "53", "57", "58"];

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        use sqlx::Error as E;
        match &error {
            E::Database(database) => {
                let code = database.code().unwrap_or_default();
                if code == "40P01" || code == "40001" {
                    Self::Conflict(error)
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
    /// The same again may work at once: a connection of the pool had died, or two transactions met.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Conflict(_) => true,
            Self::Unavailable(error) => !matches!(error, sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed),
            Self::Inconsistent { .. } | Self::Refused(_) => false,
        }
    }

    pub fn is_unavailable(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Conflict(_))
    }
}

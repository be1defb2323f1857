//! Migrations: embedded, append-only, applied under a lock so that replicas may start together.

use sqlx::migrate::{Migrate, MigrateError, Migrator};

use super::{Store, StoreError};

static MIGRATOR: Migrator = sqlx::migrate!("./migrations");

/// How the database's migrations compare with this program's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Migrations {
    Current,
    /// So many are still to be applied.
    Pending(usize),
    /// The database is newer than this program, or was changed by hand.
    Foreign,
}

#[derive(Debug, thiserror::Error)]
pub enum MigrationError {
    #[error("the migrations could not be applied")]
    Migrate(#[from] MigrateError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Store {
    /// Applies what is pending; safe when several replicas start at once. Returns how many were applied.
    pub async fn migrate(&self) -> Result<usize, MigrationError> {
        let before = self.migrations().await?;
        MIGRATOR.run(&self.pool).await?;
        Ok(match before {
            Migrations::Pending(count) => count,
            Migrations::Current | Migrations::Foreign => 0,
        })
    }

    pub async fn migrations(&self) -> Result<Migrations, StoreError> {
        let mut connection = self.pool.acquire().await?;
        let applied = match connection.list_applied_migrations(&MIGRATOR.table_name).await {
            Ok(applied) => applied,
            // The table of migrations is not there yet.
            Err(MigrateError::Execute(sqlx::Error::Database(error))) if error.code().as_deref() == Some("42P01") => {
                return Ok(Migrations::Pending(MIGRATOR.iter().count()));
            }
            Err(MigrateError::Execute(error)) => return Err(error.into()),
            Err(_) => return Ok(Migrations::Foreign),
        };
        let known = |version| MIGRATOR.iter().find(|migration| migration.version == version);
        let foreign =
            applied.iter().any(|row| known(row.version).is_none_or(|migration| migration.checksum != row.checksum));
        let pending = MIGRATOR.iter().filter(|known| applied.iter().all(|row| row.version != known.version)).count();
        Ok(match (foreign, pending) {
            (true, _) => Migrations::Foreign,
            (false, 0) => Migrations::Current,
            (false, pending) => Migrations::Pending(pending),
        })
    }
}

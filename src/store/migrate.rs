//! Migrations: embedded, append-only, applied under a lock so that replicas may start together.

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::{Executor, Postgres};

use super::{Store, StoreError};

static MIGRATOR: Migrator = sqlx::migrate!("./migrations");

/// As the migrator of `sqlx` makes it.
const TABLE: &str = "CREATE TABLE IF NOT EXISTS _sqlx_migrations (
    version BIGINT PRIMARY KEY,
    description TEXT NOT NULL,
    installed_on TIMESTAMPTZ NOT NULL DEFAULT now(),
    success BOOLEAN NOT NULL,
    checksum BYTEA NOT NULL,
    execution_time BIGINT NOT NULL
)";

/// How the database's migrations compare with this program's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Migrations {
    Current,
    /// So many are still to be applied.
    Pending(usize),
    /// All of this program's are applied, and so many newer ones. Migrations are safe for the version before them, so
    /// this program goes on: that is what an upgrade looks like for the replicas that are replaced last.
    Newer(usize),
    /// The database has others in between, or others under the same number: it is no database of this program.
    Foreign,
}

impl Migrations {
    /// Whether this program can work with the database.
    pub fn are_enough(self) -> bool {
        matches!(self, Self::Current | Self::Newer(_))
    }
}

#[derive(Debug, thiserror::Error)]
pub enum MigrationError {
    #[error("the migrations could not be applied")]
    Migrate(#[from] MigrateError),
    #[error(
        "migration {0} cannot run within a transaction, and the pooler gives nothing else: set database.listen_url, or \
         run `checkback migrate` with a database.url that leads past the pooler"
    )]
    NeedsSession(i64),
    #[error("migration {version} was refused")]
    Refused { version: i64, source: sqlx::Error },
    #[error("the database has other migrations than this version knows, or others under the same number")]
    Foreign,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Store {
    /// Applies what is pending; safe when several replicas start at once. Returns how many were applied.
    pub async fn migrate(&self) -> Result<usize, MigrationError> {
        let before = self.migrations().await?;
        if before.are_enough() {
            return Ok(0);
        }
        let Some(sessions) = &self.sessions else { return self.migrate_in_a_transaction().await };
        MIGRATOR.run(sessions).await?;
        Ok(match before {
            Migrations::Pending(count) => count,
            Migrations::Current | Migrations::Newer(_) | Migrations::Foreign => 0,
        })
    }

    /// All that are pending, or none. The migrator of `sqlx` holds its lock by a session, which a pooler does not give.
    ///
    /// Replicas that come past the pooler take that other lock. One that meets this transaction then fails at a table
    /// that exists already, changes nothing, and finds everything done at its next start.
    async fn migrate_in_a_transaction(&self) -> Result<usize, MigrationError> {
        let mut transaction = self.pool.begin().await.map_err(StoreError::from)?;
        transaction
            .execute("SELECT pg_advisory_xact_lock(hashtextextended('checkback.migrations', 0))")
            .await
            .map_err(StoreError::from)?;
        transaction.execute(TABLE).await.map_err(StoreError::from)?;
        let applied = applied(&mut *transaction).await?;
        match compare(&applied) {
            Migrations::Foreign => return Err(MigrationError::Foreign),
            // Another replica was first.
            found if found.are_enough() => return Ok(0),
            _ => {}
        }
        let pending = MIGRATOR.iter().filter(|known| applied.iter().all(|(version, _)| *version != known.version));
        let mut count = 0;
        for migration in pending {
            let version = migration.version;
            if migration.no_tx {
                return Err(MigrationError::NeedsSession(version));
            }
            let refused = |source| MigrationError::Refused { version, source };
            transaction.execute(migration.sql.clone()).await.map_err(refused)?;
            sqlx::query(
                "-- migrate_in_a_transaction
                INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
                VALUES ($1, $2, TRUE, $3, -1)",
            )
            .bind(version)
            .bind(&*migration.description)
            .bind(&*migration.checksum)
            .execute(&mut *transaction)
            .await
            .map_err(refused)?;
            count += 1;
        }
        transaction.commit().await.map_err(StoreError::from)?;
        Ok(count)
    }

    pub async fn migrations(&self) -> Result<Migrations, StoreError> {
        match applied(&self.pool).await {
            Ok(applied) => Ok(compare(&applied)),
            // The table of migrations is not there yet.
            Err(StoreError::Unmigrated(_)) => Ok(Migrations::Pending(MIGRATOR.iter().count())),
            Err(error) => Err(error),
        }
    }
}

/// Numbers and checksums. The table belongs to the migrator, so this statement cannot be checked at compile time.
async fn applied<'c>(executor: impl Executor<'c, Database = Postgres>) -> Result<Vec<(i64, Vec<u8>)>, StoreError> {
    let applied = sqlx::query_as(
        "-- applied
        SELECT version, checksum
        FROM _sqlx_migrations
        ORDER BY version",
    )
    .fetch_all(executor)
    .await?;
    Ok(applied)
}

fn compare(applied: &[(i64, Vec<u8>)]) -> Migrations {
    let last = MIGRATOR.iter().map(|migration| migration.version).max().unwrap_or_default();
    let (newer, others): (Vec<_>, Vec<_>) = applied.iter().partition(|(version, _)| *version > last);
    let known = |version| MIGRATOR.iter().find(|migration| migration.version == version);
    let foreign = others
        .iter()
        .any(|(version, checksum)| known(*version).is_none_or(|migration| *migration.checksum != **checksum));
    let pending = MIGRATOR.iter().filter(|known| others.iter().all(|(version, _)| *version != known.version)).count();
    match (foreign, pending, newer.len()) {
        (false, 0, 0) => Migrations::Current,
        (false, 0, newer) => Migrations::Newer(newer),
        (false, pending, 0) => Migrations::Pending(pending),
        _ => Migrations::Foreign,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn migrations_of_a_database_are_told_apart() {
        let all = || MIGRATOR.iter().map(|migration| (migration.version, migration.checksum.to_vec()));
        let count = MIGRATOR.iter().count();
        assert_eq!(compare(&[]), Migrations::Pending(count));
        assert_eq!(compare(&all().collect::<Vec<_>>()), Migrations::Current);
        assert_eq!(compare(&all().take(2).collect::<Vec<_>>()), Migrations::Pending(count - 2));
        let newer = [(9998, vec![1]), (9999, vec![2])];
        assert_eq!(compare(&all().chain(newer.clone()).collect::<Vec<_>>()), Migrations::Newer(2));
        // A newer one on top of others than ours.
        assert_eq!(compare(&all().skip(1).chain(newer).collect::<Vec<_>>()), Migrations::Foreign);
        let changed = all().map(|(version, sum)| (version, if version == 1 { vec![0] } else { sum }));
        assert_eq!(compare(&changed.collect::<Vec<_>>()), Migrations::Foreign);
        assert_eq!(compare(&all().chain([(0, vec![1])]).collect::<Vec<_>>()), Migrations::Foreign);
    }
}

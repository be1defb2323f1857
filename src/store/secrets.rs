//! Secrets that the replicas share.

use super::{Store, StoreError};

impl Store {
    /// The secret of that name. Where there is none yet, `fresh` becomes it; of several who try at once one wins.
    pub async fn shared_secret(&self, name: &'static str, fresh: &[u8; 32]) -> Result<[u8; 32], StoreError> {
        sqlx::query!(
            "-- shared_secret: make it
            INSERT INTO service_secrets (name, secret)
            VALUES ($1, $2)
            ON CONFLICT (name) DO NOTHING",
            name,
            &fresh[..]
        )
        .execute(&self.pool)
        .await?;
        let secret = sqlx::query_scalar!(
            "-- shared_secret
            SELECT secret
            FROM service_secrets
            WHERE name = $1",
            name
        )
        .fetch_one(&self.pool)
        .await?;
        let inconsistent =
            |_| StoreError::Inconsistent { table: "service_secrets", column: "secret", row: name.to_owned() };
        secret.try_into().map_err(inconsistent)
    }
}

//! Verifications written into the database directly: many, old, or wrong in a way that the service never writes.

use chrono::{DateTime, Utc};
use sqlx::PgPool;
use uuid::Uuid;

use super::app::ACCOUNT;

/// The id of a registration at `at`; `n` sets those of the same time apart.
pub fn id_at(at: DateTime<Utc>, n: u64) -> Uuid {
    let millis = u64::try_from(at.timestamp_millis()).expect("after 1970");
    let mut rest = [0; 10];
    rest[2..].copy_from_slice(&n.to_be_bytes());
    uuid::Builder::from_unix_timestamp_millis(millis, &rest).into_uuid()
}

/// Registers with its history and no job.
pub async fn registered(pool: &PgPool, id: Uuid, at: DateTime<Utc>, expect_video: bool) {
    sqlx::query(
        "WITH registered AS (
            INSERT INTO history (verification_id, at, kind, detail) VALUES ($1, $3, 'registered', '{}')
        )
        INSERT INTO verifications (verification_id, account, transaction_id, merchant_biz_id, product, expect_video,
            registered_at)
        VALUES ($1, $2, $1::text, 'biz', 'FACE_LIVENESS', $4, $3)",
    )
    .bind(id)
    .bind(ACCOUNT)
    .bind(at)
    .bind(expect_video)
    .execute(pool)
    .await
    .expect("it is stored");
}

/// A job that somebody holds for ever, so that no loop touches it.
pub async fn held_job(pool: &PgPool, id: Uuid, hinted_at: Option<DateTime<Utc>>, recheck: bool) {
    sqlx::query(
        "INSERT INTO collect_jobs (verification_id, account, lane, due_at, hinted_at, recheck, lease_token, leased_until)
        VALUES ($1, $2, 1, coalesce($3, now()), $3, $4, $1, '2100-01-01')",
    )
    .bind(id)
    .bind(ACCOUNT)
    .bind(hinted_at)
    .bind(recheck)
    .execute(pool)
    .await
    .expect("it is stored");
}

/// The first verdict, after one check, with its history.
pub async fn verdict(pool: &PgPool, id: Uuid, at: DateTime<Utc>, status: &str, sub_code: &str) {
    sqlx::query(
        "WITH remembered AS (
            INSERT INTO history (verification_id, at, kind, detail)
            VALUES ($1, $3, 'check', '{}'), ($1, $3, 'verdict', '{}')
        )
        INSERT INTO verdicts (verification_id, revision, account, status, sub_code, reason, scores, signals, decided_at,
            checks)
        VALUES ($1, 1, $2, $4, $5, 'planted', '{}', '{}', $3, 1)",
    )
    .bind(id)
    .bind(ACCOUNT)
    .bind(at)
    .bind(status)
    .bind(sub_code)
    .execute(pool)
    .await
    .expect("it is stored");
}

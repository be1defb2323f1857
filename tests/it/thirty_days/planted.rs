//! Faults that are planted to show that the invariants find them: other implementations of a step, or SQL in the
//! database of the test. The service knows nothing of them.

use checkback::service::Service;
use checkback::service::account::Account;
use checkback::store::{CaptureKey, CheckedFinal, Leased, LeasedJob, Pace, Standing};
use sqlx::{AssertSqlSafe, PgConnection, Row};

use checkback::domain::VerificationId;
use checkback::domain::schedule::Lane;
use checkback::evidence::{MediaType, Stored, object_name};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// Writes use whatever token the lease has by then.
    NoFencing,
    /// Jobs are leased in the order of their registration.
    FirstInFirstOut,
    /// Nobody looks whether a deadline is over.
    RetryPastDeadline,
    /// A verdict is stored by one transaction and its history by the next.
    TwoTransactions,
    /// Each replica paces its calls by a row of its own.
    BudgetPerReplica,
    /// Evidence is marked as stored before it is whole and hashed.
    StoredBeforeWhole,
}

impl Planted {
    pub async fn prepare(self, sql: &mut PgConnection, replicas: usize) {
        if self != Self::BudgetPerReplica {
            return;
        }
        for replica in 0..replicas {
            let statement =
                format!("CREATE SCHEMA r{replica}; CREATE TABLE r{replica}.accounts (LIKE accounts INCLUDING ALL)");
            sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut *sql).await.unwrap();
        }
    }

    pub fn search_path(self, replica: usize) -> Option<String> {
        (self == Self::BudgetPerReplica).then(|| format!("r{replica},public"))
    }

    /// What a capture claims that has nothing yet.
    pub fn claimed(account: &Account, key: CaptureKey) -> (String, Stored) {
        let stored = Stored { media: MediaType::WebM, bytes: 1, sha256: [0; 32], is_sealed: false };
        (object_name(&account.name, key.id, key.kind, key.token), stored)
    }

    pub fn leases_itself(self) -> bool {
        self == Self::FirstInFirstOut
    }

    /// Leases the job that was registered first, with a slot of the account's.
    pub async fn lease(self, sql: &mut PgConnection, service: &Service, account: &Account) -> Leased {
        let token = service.entropy.token();
        let rate = account.rate();
        let row = sqlx::query(
            "WITH account AS (
                SELECT greatest(next_slot_at, database_now()) AS slot_at
                FROM accounts
                WHERE account = $1
                AND next_slot_at <= database_now() + interval '100 milliseconds'
                AND coalesce(hold_until <= $2, true)
                AND (failing_since IS NULL OR probe_at <= $2)
                FOR UPDATE
            ), leased AS (
                UPDATE collect_jobs
                SET lease_token = $3, nudged_again = false, leased_until = database_now() + interval '10 seconds'
                WHERE verification_id = (
                    SELECT verification_id
                    FROM collect_jobs
                    WHERE lease_token IS NULL
                    AND due_at <= $2
                    AND EXISTS (SELECT FROM account)
                    ORDER BY verification_id
                    LIMIT 1
                )
                RETURNING *
            ), moved AS (
                UPDATE accounts
                SET next_slot_at = b.slot_at + make_interval(secs => $4),
                    probe_at = CASE WHEN failing_since IS NOT NULL THEN $2 + interval '1 minute' ELSE probe_at END
                FROM account b, leased
                WHERE accounts.account = $1
            )
            SELECT l.*, v.transaction_id, v.merchant_biz_id, v.product, v.expect_video, v.registered_at,
                extract(epoch FROM b.slot_at - database_now())::double precision AS slot_in,
                EXISTS (SELECT FROM accounts WHERE account = $1 AND failing_since IS NOT NULL) AS failing
            FROM leased l
            JOIN verifications v USING (verification_id)
            CROSS JOIN account b",
        )
        .bind(&account.name)
        .bind(service.clock.now())
        .bind(token)
        .bind((1.0 + rate.slack.as_secs_f64()) * 1.001 / f64::from(rate.qps))
        .fetch_optional(sql)
        .await
        .unwrap();
        let count = |value: i32| u32::try_from(value).unwrap();
        let jobs = row
            .iter()
            .map(|row| LeasedJob {
                id: VerificationId(row.get("verification_id")),
                token,
                lane: Lane::Poll,
                pace: Pace::Bulk,
                transaction_id: row.get("transaction_id"),
                merchant_biz_id: row.get("merchant_biz_id"),
                product: row.get("product"),
                expect_video: row.get("expect_video"),
                registered_at: row.get("registered_at"),
                hinted_at: row.get("hinted_at"),
                callback_at: row.get("callback_at"),
                recheck: row.get("recheck"),
                checks: count(row.get("checks")),
                running: count(row.get("running")),
                faults: count(row.get("faults")),
                slot_in: row.get("slot_in"),
                standing: if row.get("failing") { Standing::Probed } else { Standing::Well },
            })
            .collect();
        Leased { jobs, is_all: false, urgent_in: 0.0, bulk_in: 0.1 }
    }

    /// The first of the two transactions; false when the lease was lost.
    pub async fn decide(sql: &mut PgConnection, check: &CheckedFinal) -> bool {
        let done = sqlx::query(
            "WITH done AS (
                DELETE FROM collect_jobs
                WHERE verification_id = $1
                AND lease_token = $2
                RETURNING *
            )
            INSERT INTO verdicts (verification_id, revision, account, status, reason, scores, signals, decided_at,
                callback_at, hinted_at, checks)
            SELECT verification_id, 1, account, $3, $4, '{}', '{}', $5, callback_at, hinted_at,
                checks + ($6::text IS NOT NULL)::integer
            FROM done",
        )
        .bind(check.id.0)
        .bind(check.token)
        .bind(check.status.as_str())
        .bind(&check.reason)
        .bind(check.at)
        .bind(&check.check_detail)
        .execute(sql)
        .await
        .unwrap();
        done.rows_affected() == 1
    }

    /// The second.
    pub async fn remember(sql: &mut PgConnection, check: &CheckedFinal) {
        sqlx::query(
            "INSERT INTO history (verification_id, at, kind, detail)
            SELECT $1, $2, kind, detail::json
            FROM (VALUES ('check', $3), ('verdict', '{}')) AS rows (kind, detail)
            WHERE detail IS NOT NULL",
        )
        .bind(check.id.0)
        .bind(check.at)
        .bind(&check.check_detail)
        .execute(sql)
        .await
        .unwrap();
    }
}

//! Reading the provider's answers, which hold document data. An answer leaves the database only together with the
//! record of who read it.

use chrono::{DateTime, Utc};

use super::hints::parse_final;
use super::{Store, StoreError};
use crate::domain::{FinalStatus, VerificationId};

/// Who reads, for the history.
pub struct Reader<'a> {
    /// Name of the API key; `None` where none is asked for.
    pub key: Option<&'a str>,
    pub request_id: Option<&'a str>,
}

/// What came of reading an answer. Has no `Debug`, since it may hold one.
pub enum AnswerRead {
    NotFound,
    /// There is no verdict, or none of this revision.
    NoVerdict,
    /// The verification ended so without an answer, or the answer is not kept any longer.
    NotKept(FinalStatus),
    Erased,
    /// The answer as it was stored; that it was read is recorded and committed.
    Read(String),
}

impl Store {
    /// The answer behind a verdict: the current one, or that of `revision`.
    pub async fn read_answer(
        &self,
        id: VerificationId,
        revision: Option<i32>,
        reader: &Reader<'_>,
        at: DateTime<Utc>,
    ) -> Result<AnswerRead, StoreError> {
        // One statement, and a statement is over only after its commit: nobody has the answer before its record.
        let row = sqlx::query!(
            r#"-- read_answer
            WITH alive AS MATERIALIZED (
                -- An erasure waits for whoever reads, or is over first.
                SELECT verification_id
                FROM verifications
                WHERE verification_id = $1
                AND erased_at IS NULL
                FOR KEY SHARE
            ), wanted AS MATERIALIZED (
                SELECT verification_id, revision, status, answer
                FROM verdicts
                WHERE verification_id = $1
                AND EXISTS (SELECT FROM alive)
                AND CASE WHEN $2::integer IS NULL THEN superseded_at IS NULL ELSE revision = $2 END
                LIMIT 1
            ), recorded AS (
                INSERT INTO history (verification_id, at, kind, detail)
                SELECT verification_id, $3, 'evidence', json_build_object('read', 'raw', 'revision', revision,
                    'by', $4::text, 'request_id', $5::text)
                FROM wanted
                WHERE answer IS NOT NULL
            )
            SELECT w.status AS "status?", w.answer AS "answer?", NOT EXISTS (SELECT FROM alive) AS "erased!"
            FROM verifications v
            LEFT JOIN wanted w ON true
            WHERE v.verification_id = $1"#,
            id.0,
            revision,
            at,
            reader.key,
            reader.request_id,
        )
        .fetch_optional(&self.pool)
        .await?;
        let Some(row) = row else { return Ok(AnswerRead::NotFound) };
        if row.erased {
            return Ok(AnswerRead::Erased);
        }
        Ok(match (row.status, row.answer) {
            (_, Some(answer)) => AnswerRead::Read(answer),
            (Some(status), None) => AnswerRead::NotKept(parse_final(&status, id)?),
            (None, None) => AnswerRead::NoVerdict,
        })
    }
}

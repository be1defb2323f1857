//! A verification as the API shows it.

use chrono::{DateTime, SecondsFormat, Utc};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use crate::domain::EvidenceKind;
use crate::service::account::Account;
use crate::store::{Record, RecordEvidence};

#[derive(Serialize)]
pub struct VerificationBody<'a> {
    id: String,
    account: &'a str,
    transaction_id: &'a str,
    merchant_biz_id: &'a str,
    product: Option<&'a str>,
    status: &'static str,
    r#final: bool,
    revision: Option<i32>,
    sub_code: Option<&'a str>,
    reason: Option<&'a str>,
    scores: Members<'a>,
    signals: Members<'a>,
    evidence: Vec<EvidenceBody<'a>>,
    registered_at: String,
    callback_at: Option<String>,
    final_at: Option<String>,
    deadlines: DeadlinesBody,
    attempts: u32,
    next_attempt_at: Option<String>,
    last_error: Option<&'a str>,
    metadata: Option<&'a RawValue>,
    /// Only where it was erased.
    #[serde(skip_serializing_if = "Option::is_none")]
    erased_at: Option<String>,
    /// Only in the answer that tells the client SDK how to go on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<Box<RawValue>>,
}

/// What a piece of evidence is, once it is stored, and why it is not.
#[derive(Serialize)]
struct EvidenceBody<'a> {
    kind: &'a str,
    state: &'a str,
    content_type: Option<&'a str>,
    bytes: Option<u64>,
    sha256: Option<&'a str>,
    stored_at: Option<String>,
    reason: Option<&'a str>,
}

impl<'a> From<&'a RecordEvidence> for EvidenceBody<'a> {
    fn from(evidence: &'a RecordEvidence) -> Self {
        Self {
            kind: &evidence.kind,
            state: &evidence.state,
            content_type: evidence.content_type.as_deref(),
            bytes: evidence.bytes,
            sha256: evidence.sha256.as_deref(),
            stored_at: evidence.stored_at.map(time),
            reason: evidence.reason.as_deref(),
        }
    }
}

#[derive(Debug, Serialize)]
struct DeadlinesBody {
    video: Option<String>,
    /// Null where the account is no longer configured: its retention is not known.
    result: Option<String>,
}

/// An object as it was stored; empty before the verdict.
struct Members<'a>(Option<&'a RawValue>);

impl Serialize for Members<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Some(stored) => stored.serialize(serializer),
            None => serializer.serialize_map(Some(0))?.end(),
        }
    }
}

/// RFC 3339 in UTC with `Z`, to the microsecond.
pub fn time(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Micros, true)
}

/// `account`: the record's account, if it is still configured.
pub fn render<'a>(record: &'a Record, account: Option<&Account>) -> VerificationBody<'a> {
    let verdict = record.verdict.as_ref();
    let deadlines = account.map(|account| account.deadlines(record.registered_at, record.hinted_at));
    let has_video = record.evidence.iter().any(|evidence| evidence.kind == EvidenceKind::Video.as_str());
    VerificationBody {
        id: record.id.to_string(),
        account: &record.account,
        transaction_id: &record.transaction_id,
        merchant_biz_id: &record.merchant_biz_id,
        product: record.product.as_deref(),
        status: record.status.as_str(),
        r#final: record.status.is_final(),
        revision: verdict.map(|verdict| verdict.revision),
        sub_code: verdict.and_then(|verdict| verdict.sub_code.as_deref()),
        reason: verdict.and_then(|verdict| verdict.reason.as_deref()),
        scores: Members(verdict.map(|verdict| &*verdict.scores)),
        signals: Members(verdict.map(|verdict| &*verdict.signals)),
        evidence: record.evidence.iter().map(EvidenceBody::from).collect(),
        registered_at: time(record.registered_at),
        callback_at: record.callback_at.map(time),
        final_at: verdict.map(|verdict| time(verdict.decided_at)),
        deadlines: DeadlinesBody {
            video: deadlines.filter(|_| record.expect_video || has_video).map(|deadlines| time(deadlines.video)),
            result: deadlines.map(|deadlines| time(deadlines.result)),
        },
        attempts: record.checks,
        next_attempt_at: record.due_at.map(time),
        last_error: record.last_error.as_deref(),
        metadata: record.metadata.as_deref(),
        erased_at: record.erased_at.map(time),
        client: None,
    }
}

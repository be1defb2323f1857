//! A verification as the API shows it.

use chrono::{DateTime, SecondsFormat, Utc};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::domain::EvidenceKind;
use crate::http::openapi::words;
use crate::service::account::Account;
use crate::store::{Record, RecordEvidence};

/// One identity check of one person.
#[derive(Serialize, ToSchema)]
#[schema(as = Verification)]
pub struct VerificationBody<'a> {
    /// UUIDv7, so the order of ids is the order of registration.
    #[schema(format = "uuid")]
    id: String,
    /// Name of an account in the configuration.
    account: &'a str,
    /// The provider's handle.
    transaction_id: &'a str,
    /// Your reference, sent to the provider.
    merchant_biz_id: &'a str,
    /// The provider's product.
    #[schema(required)]
    product: Option<&'a str>,
    #[schema(schema_with = words::status)]
    status: &'static str,
    /// Whether the status changes no more by itself.
    r#final: bool,
    /// Counts the verdicts from 1; null before the first.
    #[schema(required, minimum = 1)]
    revision: Option<i32>,
    /// The provider's code behind the verdict.
    #[schema(required)]
    sub_code: Option<&'a str>,
    /// The verdict in words.
    #[schema(required)]
    reason: Option<&'a str>,
    /// The provider's numbers; empty before the verdict.
    #[schema(schema_with = words::scores)]
    scores: Members<'a>,
    /// What else the provider says about the person; empty before the verdict.
    #[schema(schema_with = words::signals)]
    signals: Members<'a>,
    /// Images and video, as far as anything is known of them.
    evidence: Vec<EvidenceBody<'a>>,
    #[schema(format = DateTime)]
    registered_at: String,
    /// When the first callback came, or the person's browser.
    #[schema(required, format = DateTime)]
    callback_at: Option<String>,
    #[schema(required, format = DateTime)]
    final_at: Option<String>,
    #[schema(inline)]
    deadlines: DeadlinesBody,
    /// How often the provider was asked for the verdict that stands, or is sought.
    attempts: u32,
    #[schema(required, format = DateTime)]
    next_attempt_at: Option<String>,
    /// What went wrong when the provider was asked last.
    #[schema(required)]
    last_error: Option<&'a str>,
    /// Yours, equal as JSON.
    #[schema(schema_with = words::metadata, required)]
    metadata: Option<&'a RawValue>,
    /// Only where it was erased.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = words::time)]
    erased_at: Option<String>,
    /// Only in the answer to `initialize`: what the client SDK needs to go on. Null once a day has passed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = words::client)]
    pub client: Option<Box<RawValue>>,
}

/// What a piece of evidence is, once it is stored, and why it is not.
#[derive(Serialize, ToSchema)]
#[schema(as = Evidence)]
struct EvidenceBody<'a> {
    #[schema(schema_with = words::evidence_kind)]
    kind: &'a str,
    #[schema(schema_with = words::evidence_state)]
    state: &'a str,
    /// What its first bytes say.
    #[schema(required)]
    content_type: Option<&'a str>,
    #[schema(required)]
    bytes: Option<u64>,
    /// Of the plain bytes, in hex.
    #[schema(required, pattern = "^[0-9a-f]{64}$")]
    sha256: Option<&'a str>,
    #[schema(required, format = DateTime)]
    stored_at: Option<String>,
    #[schema(required)]
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

/// When the provider deletes what it has.
#[derive(Debug, Serialize, ToSchema)]
struct DeadlinesBody {
    /// Null unless a video is expected or was seen.
    #[schema(required, format = DateTime)]
    video: Option<String>,
    /// Null where the account is no longer configured: its retention is not known.
    #[schema(required, format = DateTime)]
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

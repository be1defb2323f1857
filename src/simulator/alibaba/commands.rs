//! What control may ask for, in-process and over HTTP. Unknown members are refused, so that a typing mistake in a test
//! does not pass as a test.

use chrono::{DateTime, Utc};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A transaction to make, as if Initialize had been called for it. Every member may be left out.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CreateTransaction {
    pub product_code: Option<String>,
    pub merchant_biz_id: Option<String>,
    /// A chosen id in place of a random one.
    pub transaction_id: Option<String>,
    pub callback_url: Option<String>,
    pub callback_token: Option<SecretString>,
    pub doc_video: bool,
    /// The outcome: `Y`, `N`, `P` or any other text.
    pub passed: Option<String>,
    pub sub_code: Option<String>,
    /// Members of `ExtFaceInfo` in place of the usual ones; null takes one away.
    pub scores: Map<String, Value>,
    /// Members of `Result`, sent as they stand in place of the usual ones; null takes one away.
    pub ext: Map<String, Value>,
    /// The person has already finished; no callback is sent. True when there are `answers`, else false.
    pub completed: Option<bool>,
    /// So many calls of CheckResult after the completion still answer `ProcessNotCompleted`.
    pub not_completed_calls: u32,
    /// So many calls of CheckResult after that answer `Passed` = `P`.
    pub pending_calls: u32,
    /// What CheckResult answers after the completion, one a call; the last one stays.
    pub answers: Vec<Answer>,
    /// The code of CheckResult when the result was deleted after its 30 days; `TransactionIdInvalid` by default.
    pub gone_code: Option<String>,
}

/// One scripted answer of CheckResult: an outcome, or with `code` a refusal, or with `body` any text.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Answer {
    pub passed: Option<String>,
    pub sub_code: Option<String>,
    pub scores: Map<String, Value>,
    pub ext: Map<String, Value>,
    /// A provider code such as `ProcessNotCompleted`.
    pub code: Option<String>,
    pub status: Option<u16>,
    pub message: Option<String>,
    pub retry_after_ms: Option<u64>,
    /// The whole body as it stands.
    pub body: Option<String>,
}

/// The person finishes. With nothing given the outcome is the one chosen at creation, and that is "passed" unless told
/// otherwise.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Complete {
    pub passed: Option<String>,
    pub sub_code: Option<String>,
    pub scores: Map<String, Value>,
    pub ext: Map<String, Value>,
    pub not_completed_calls: Option<u32>,
    pub pending_calls: Option<u32>,
    /// The attempt breaks off with this code of the client (such as `1006`): there is no result and no callback.
    pub interrupted: Option<String>,
    /// How many callbacks are sent: 1 by default, 0 for a lost one, 2 for a doubled one.
    pub callbacks: Option<u32>,
    pub callback_url: Option<String>,
    /// Another token than the one of Initialize, for forged callbacks; an empty one is left out.
    pub callback_token: Option<SecretString>,
    pub callback_delay_ms: u64,
    pub callback_method: CallbackMethod,
    pub callback_spelling: CallbackSpelling,
    /// Answer only when the callbacks were sent, and say how they went.
    pub wait: bool,
}

/// Callbacks without a completion: before a registration, forged, or saying something else than the result.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SendCallbacks {
    /// 1 by default.
    pub callbacks: Option<u32>,
    /// Needed when the transaction is unknown here or has no `CallbackUrl`.
    pub callback_url: Option<String>,
    pub callback_token: Option<SecretString>,
    pub passed: Option<String>,
    pub sub_code: Option<String>,
    pub callback_delay_ms: u64,
    pub callback_method: CallbackMethod,
    pub callback_spelling: CallbackSpelling,
    pub wait: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum CallbackMethod {
    #[default]
    Get,
    /// A form with the same names.
    Post,
}

/// The provider's own text spells the names of the parameters in more than one way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CallbackSpelling {
    /// `callbackToken`, `transactionId`, `passed`, `subCode`
    #[default]
    Table,
    /// `CallbackToken`, `transactionId`, `passed`, `subcode`
    Prose,
    Lower,
    Upper,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CreatedTransaction {
    pub transaction_id: String,
    pub merchant_biz_id: String,
}

/// What a completion set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CompletedTransaction {
    pub transaction_id: String,
    pub passed: Option<String>,
    pub sub_code: Option<String>,
    pub completed_at: Option<DateTime<Utc>>,
    /// How many callbacks are sent.
    pub callbacks: u32,
    /// The HTTP status of each callback's answer, 0 for none; empty unless waited for.
    pub callback_statuses: Vec<u16>,
}

/// The state of a transaction, without its token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TransactionView {
    pub transaction_id: String,
    pub merchant_biz_id: String,
    pub product_code: String,
    pub doc_video: bool,
    pub passed: Option<String>,
    pub sub_code: Option<String>,
    pub completed_at: Option<DateTime<Utc>>,
    pub interrupted: Option<String>,
    pub callback_url: Option<String>,
    pub return_url: Option<String>,
    pub has_callback_token: bool,
}

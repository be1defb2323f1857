//! Bodies of requests, for the document alone: handlers read them by hand, so that every wrong member is told at once.
#![expect(dead_code, reason = "these types say what handlers read; nothing reads their members")]

use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::words;

/// A transaction that your server started at the provider, or `initialize` in its place. Null counts as absent.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RegisterRequest {
    /// Name of an account in the configuration; may be left out when there is exactly one.
    account: Option<String>,
    /// The provider's TransactionId.
    #[schema(
        min_length = 1,
        max_length = 128,
        pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*[^\\x00-\\x1f\\x7f-\\x9f\\s][^\\x00-\\x1f\\x7f-\\x9f]*$"
    )]
    transaction_id: Option<String>,
    /// The MerchantBizId that you sent to the provider; made when absent.
    #[schema(pattern = "^[0-9A-Za-z]{1,32}$")]
    merchant_biz_id: Option<String>,
    /// The CallbackToken that you sent to the provider; only its hash is kept. Absent: the account's token counts.
    #[schema(
        min_length = 1,
        max_length = 512,
        write_only,
        pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*[^\\x00-\\x1f\\x7f-\\x9f\\s][^\\x00-\\x1f\\x7f-\\x9f]*$"
    )]
    callback_token: Option<String>,
    /// The ProductCode of Alibaba, or the product of ZOLOZ.
    #[schema(pattern = "^[0-9A-Za-z_-]{1,64}$")]
    product: Option<String>,
    /// You asked for an evidence video, so its deadline counts. Absent: false.
    expect_video: Option<bool>,
    /// Where the browser goes from `/returns/{account}`: an absolute http or https URL.
    #[schema(format = "uri", max_length = 2048, pattern = "^https?://")]
    return_url: Option<String>,
    /// Yours: at most 4 KiB without blanks, nested at most 100 deep, without NUL.
    #[schema(schema_with = words::metadata)]
    metadata: Option<Value>,
    /// What the provider's Initialize takes, under its own names. Checkback sets the callback and the reference.
    #[schema(value_type = Option<Object>, additional_properties)]
    initialize: Option<Value>,
}

/// May be left out.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CollectRequest {
    /// Ask although it is final; needs the scope `operate` too.
    recheck: Option<bool>,
}

/// May be left out.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EraseRequest {
    /// Why, on one line. It is kept, so it must hold no personal data.
    #[schema(max_length = 200, pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*$")]
    reason: Option<String>,
}

/// What to ask about again.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RecheckRequest {
    #[schema(inline)]
    filter: RecheckFilter,
    /// Only count. Absent: false.
    dry_run: Option<bool>,
}

/// All that are given must hold; `{}` matches every final verification.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RecheckFilter {
    #[schema(schema_with = words::maybe_final_status)]
    status: Option<String>,
    /// An account in the configuration.
    account: Option<String>,
    #[schema(min_length = 1, max_length = 128, pattern = "^[^\\x00]*$")]
    sub_code: Option<String>,
    /// The verdict's reason has this text in it, letter by letter.
    #[schema(min_length = 1, max_length = 128, pattern = "^[^\\x00]*$")]
    reason_contains: Option<String>,
    /// At this time or later.
    #[schema(format = DateTime)]
    registered_after: Option<String>,
    /// Before this time.
    #[schema(format = DateTime)]
    registered_before: Option<String>,
}

/// Exactly one of `event_id`, `verification_id` and `endpoint`; the other members go with `endpoint` alone.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReplayRequest {
    event_id: Option<String>,
    #[schema(format = "uuid")]
    verification_id: Option<String>,
    /// The name of an endpoint in the configuration.
    endpoint: Option<String>,
    /// What happened at this time or later; required with `endpoint`.
    #[schema(format = DateTime)]
    since: Option<String>,
    /// Before this time. Absent: now.
    #[schema(format = DateTime)]
    until: Option<String>,
    /// Types of events. Absent: those that the endpoint takes.
    types: Option<Vec<String>>,
    /// Only count. Absent: false.
    dry_run: Option<bool>,
}

/// What a provider sends. Names are matched without regard to case; unknown ones are ignored.
#[derive(ToSchema)]
pub struct CallbackRequest {
    #[schema(
        rename = "transactionId",
        min_length = 1,
        max_length = 128,
        pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*[^\\x00-\\x1f\\x7f-\\x9f\\s][^\\x00-\\x1f\\x7f-\\x9f]*$"
    )]
    transaction_id: String,
    /// The token that was registered.
    #[schema(rename = "callbackToken", max_length = 2048, value_type = String, required = false)]
    callback_token: Option<String>,
    /// A claim; kept in the history.
    #[schema(value_type = String, required = false)]
    passed: Option<String>,
    /// A claim; kept in the history.
    #[schema(rename = "subCode", value_type = String, required = false)]
    sub_code: Option<String>,
}

/// What a callback is told: it is recorded.
#[derive(ToSchema)]
#[schema(as = Accepted)]
pub struct Arrival200 {
    #[schema(schema_with = words::accepted)]
    status: String,
}

/// What a callback is told: its transaction is not registered yet.
#[derive(ToSchema)]
#[schema(as = Unmatched)]
pub struct Arrival202 {
    #[schema(schema_with = words::unmatched)]
    status: String,
}

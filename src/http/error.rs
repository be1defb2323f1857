//! Every way in which a request is refused. How a problem is written is in [`super::problem_body`].
//!
//! A problem says what happened, why, and what to do. Its `code` is stable; `docs/api.md` lists them all, and a test
//! holds that list against [`CODES`]. What went wrong inside is logged where it was handled; a 5xx tells nothing of it.

use std::borrow::Cow;
use std::time::Duration;

use axum::http::StatusCode;
use tracing::error;

pub use super::field_error::FieldError;
use crate::service::accept_callback::NotAccepted;
use crate::service::batch::Turned;
use crate::store::StoreError;

/// How long a caller should wait when the database does not answer or too much is queued, in seconds.
const RETRY_AFTER: u32 = 5;

/// All codes, each with its status.
pub const CODES: [(&str, u16); 38] = [
    ("unauthorized", 401),
    ("scope_missing", 403),
    ("body_malformed", 400),
    ("body_unsupported", 415),
    ("body_too_large", 413),
    ("body_too_slow", 408),
    ("body_invalid", 422),
    ("query_invalid", 422),
    ("not_found", 404),
    ("method_not_allowed", 405),
    ("verification_not_found", 404),
    ("answer_not_found", 404),
    ("evidence_not_found", 404),
    ("evidence_sealed", 409),
    ("evidence_unavailable", 503),
    ("recheck_not_found", 404),
    ("endpoint_unknown", 404),
    ("transaction_conflict", 409),
    ("already_final", 409),
    ("account_unknown", 404),
    ("transaction_unknown", 404),
    ("callback_token_mismatch", 401),
    ("callback_malformed", 400),
    ("callback_unsupported", 415),
    ("idempotency_key_invalid", 400),
    ("idempotency_key_reused", 409),
    ("initialize_in_progress", 409),
    ("initialize_refused", 422),
    ("initialize_lost", 502),
    ("initialize_unstored", 503),
    ("throttled", 429),
    ("account_failing", 503),
    ("provider_unavailable", 503),
    ("return_state_invalid", 400),
    ("database_unavailable", 503),
    ("overloaded", 503),
    ("stopping", 503),
    ("internal", 500),
];

/// An answer that refuses.
#[derive(Debug)]
pub struct Problem {
    pub(super) status: StatusCode,
    pub(super) code: &'static str,
    pub(super) title: &'static str,
    pub(super) detail: Cow<'static, str>,
    pub(super) errors: Option<Vec<FieldError>>,
    pub(super) retry_after: Option<u32>,
}

impl Problem {
    fn new(status: StatusCode, code: &'static str, title: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { status, code, title, detail: detail.into(), errors: None, retry_after: None }
    }

    pub fn code(&self) -> &'static str {
        self.code
    }

    pub fn unauthorized() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "unauthorized",
            "The API key is missing or unknown",
            "Send `Authorization: Bearer <key>` with a key whose SHA-256 is in the configuration under auth.keys.",
        )
    }

    pub fn scope_missing(scope: &str) -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "scope_missing",
            "The API key may not do this",
            format!("The key needs the scope `{scope}`. Add it to the key's scopes in the configuration."),
        )
    }

    pub fn body_malformed(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "body_malformed", "The body is not JSON", detail)
    }

    pub fn body_unsupported() -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "body_unsupported",
            "The body has the wrong type",
            "Send JSON with `Content-Type: application/json`.",
        )
    }

    pub fn body_too_large() -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "body_too_large",
            "The body is too large",
            "At most 64 KiB are accepted, 8 MiB with `initialize`.",
        )
    }

    pub fn body_too_slow() -> Self {
        Self::new(
            StatusCode::REQUEST_TIMEOUT,
            "body_too_slow",
            "The body did not arrive in time",
            "The whole request must arrive within 10 seconds. Send it again.",
        )
    }

    pub fn body_invalid(errors: Vec<FieldError>) -> Self {
        let problem = Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "body_invalid",
            "Members of the body are wrong",
            "Nothing was done. See `errors` for each member.",
        );
        Self { errors: Some(errors), ..problem }
    }

    pub fn query_invalid(errors: Vec<FieldError>) -> Self {
        let problem = Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "query_invalid",
            "Values in the query are wrong",
            "See `errors` for each value.",
        );
        Self { errors: Some(errors), ..problem }
    }

    pub fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", "There is nothing here", "This listener does not serve the path.")
    }

    pub fn method_not_allowed() -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            "The method does not fit the path",
            "See the header `Allow` for the methods that do.",
        )
    }

    pub fn verification_not_found() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "verification_not_found",
            "There is no such verification",
            "No verification has this id. Use the `id` that registering returned.",
        )
    }

    pub fn answer_not_found(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "answer_not_found", "There is no answer of the provider", detail)
    }

    pub fn evidence_not_found(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "evidence_not_found", "There is no such evidence", detail)
    }

    pub fn evidence_sealed() -> Self {
        Self::new(
            StatusCode::CONFLICT,
            "evidence_sealed",
            "The evidence is encrypted",
            "It is encrypted to the recipients in evidence.recipients, and this service has no identity that opens it. \
             Fetch the object from the evidence store and open it with `age -d -i KEY_FILE`, or ask a service that has \
             evidence.identity_file set.",
        )
    }

    pub fn evidence_unavailable() -> Self {
        let problem = Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "evidence_unavailable",
            "The evidence store does not give it",
            "It was stored, and the evidence store does not answer or has lost it. The service's log says more. Send \
             the request again later.",
        );
        Self { retry_after: Some(RETRY_AFTER), ..problem }
    }

    pub fn recheck_not_found() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "recheck_not_found",
            "There is no such recheck",
            "No recheck has this id. Use the `id` that POST /rechecks returned.",
        )
    }

    pub fn endpoint_unknown() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "endpoint_unknown",
            "There is no such endpoint",
            "The path must hold the name of an endpoint of [[webhooks]] in the configuration.",
        )
    }

    pub fn transaction_conflict(id: impl std::fmt::Display, members: &[&str]) -> Self {
        Self::new(
            StatusCode::CONFLICT,
            "transaction_conflict",
            "The transaction is registered with other data",
            format!(
                "Verification {id} has this transaction_id, and differs in: {}. Nothing was changed.",
                members.join(", ")
            ),
        )
    }

    pub fn already_final(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::CONFLICT, "already_final", "The verification is final", detail)
    }

    pub fn account_unknown() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "account_unknown",
            "There is no such account",
            "The path must end with the name of an account in the configuration.",
        )
    }

    pub fn transaction_unknown() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "transaction_unknown",
            "The transaction is not registered",
            "Register it with POST /verifications before its callback can arrive.",
        )
    }

    pub fn callback_token_mismatch() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "callback_token_mismatch",
            "The callback token is wrong",
            "The callback must carry the token that was registered for its transaction.",
        )
    }

    pub fn callback_malformed(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "callback_malformed", "The callback cannot be read", detail)
    }

    pub fn callback_unsupported() -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "callback_unsupported",
            "The body has the wrong type",
            "Send a form or JSON.",
        )
    }

    pub fn idempotency_key_invalid() -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "idempotency_key_invalid",
            "The idempotency key cannot be used",
            "Send one `Idempotency-Key` of 1 to 128 printable characters without blanks, such as a UUID.",
        )
    }

    pub fn idempotency_key_reused() -> Self {
        Self::new(
            StatusCode::CONFLICT,
            "idempotency_key_reused",
            "The idempotency key stands for another request",
            "An earlier request of this account had the same key and another body. Nothing was done. Make a new key \
             for each new request.",
        )
    }

    pub fn initialize_in_progress() -> Self {
        let problem = Self::new(
            StatusCode::CONFLICT,
            "initialize_in_progress",
            "The same request is under way",
            "Its answer is not there yet. Send the request again with the same key.",
        );
        Self { retry_after: Some(2), ..problem }
    }

    pub fn initialize_refused(code: &str) -> Self {
        Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "initialize_refused",
            "The provider refuses the request",
            format!(
                "It answers {code} and made no transaction. Mend the members of `initialize` and send the request \
                 again; the same key may be used."
            ),
        )
    }

    pub fn initialize_lost(code: &str, at: &str, merchant_biz_id: &str) -> Self {
        Self::new(
            StatusCode::BAD_GATEWAY,
            "initialize_lost",
            "The provider's answer was lost",
            format!(
                "The call of {at} with MerchantBizId {merchant_biz_id} brought no usable answer ({code}). The \
                 provider may have made a transaction and may bill it; nobody knows its id, so nobody can use it. It \
                 is not called again for this request. To start over, send the request with a new key."
            ),
        )
    }

    pub fn initialize_unstored(transaction_id: &str, merchant_biz_id: &str) -> Self {
        let problem = Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "initialize_unstored",
            "The new transaction could not be stored yet",
            format!(
                "The provider made transaction {transaction_id} (MerchantBizId {merchant_biz_id}), and the database \
                 does not answer. Storing it is tried for ten minutes: send the request again with the same key, or \
                 look for the transaction_id in the list. If it does not appear, register the transaction_id."
            ),
        );
        Self { retry_after: Some(RETRY_AFTER), ..problem }
    }

    pub fn throttled(retry_after: Duration) -> Self {
        let problem = Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "throttled",
            "The account's rate is spent",
            "The provider takes no more calls of this account at the moment. No transaction was made. Send the \
             request again later; the same key may be used.",
        );
        Self { retry_after: Some(seconds(retry_after)), ..problem }
    }

    pub fn account_failing(reason: &str, code: &str, retry_after: Duration) -> Self {
        let problem = Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "account_failing",
            "The provider does not serve the account",
            format!(
                "The account is failing: {reason} ({code}). No transaction was made. See /readyz; once it is mended, \
                 send the request again; the same key may be used."
            ),
        );
        Self { retry_after: Some(seconds(retry_after)), ..problem }
    }

    pub fn provider_unavailable(code: &str) -> Self {
        let problem = Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "provider_unavailable",
            "The provider was not reached",
            format!(
                "It did not take the request ({code}), so no transaction was made. Send it again; the same key may be used."
            ),
        );
        Self { retry_after: Some(RETRY_AFTER), ..problem }
    }

    pub fn return_state_invalid() -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "return_state_invalid",
            "This link does not lead back",
            "Its state is missing or is not one that was made here for this account. Go back to where you began.",
        )
    }

    pub fn database_unavailable() -> Self {
        let problem = Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "database_unavailable",
            "The database is not available",
            "It does not answer, or its migrations are pending. Send the request again later.",
        );
        Self { retry_after: Some(RETRY_AFTER), ..problem }
    }

    fn overloaded() -> Self {
        let problem = Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "overloaded",
            "Too much is waiting",
            "Nothing was recorded. Send the request again later.",
        );
        Self { retry_after: Some(1), ..problem }
    }

    pub fn too_many_listeners() -> Self {
        let problem = Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "overloaded",
            "Too much is waiting",
            "As many listen to this replica's events as it serves at a time. Connect again later, or to another replica.",
        );
        Self { retry_after: Some(RETRY_AFTER), ..problem }
    }

    fn stopping() -> Self {
        let problem = Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "stopping",
            "The service is stopping",
            "Nothing was recorded. Send the request again; another replica or the restarted service takes it.",
        );
        Self { retry_after: Some(1), ..problem }
    }

    /// A call may have been under way.
    pub fn initialize_interrupted() -> Self {
        let problem = Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "stopping",
            "The service is stopping",
            "Whether the provider was called is not known. Send the request again with the same idempotency key; \
             without one, a second transaction may come of it.",
        );
        Self { retry_after: Some(1), ..problem }
    }

    pub fn internal() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "Something is wrong in the service",
            "The service's log says more.",
        )
    }
}

/// Whole seconds, rounded up, at least one.
fn seconds(time: Duration) -> u32 {
    u32::try_from(time.as_secs()).unwrap_or(u32::MAX).saturating_add(u32::from(time.subsec_nanos() > 0)).max(1)
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        error!(error = &error as &dyn std::error::Error, "a request failed at the database");
        if error.is_unavailable() { Self::database_unavailable() } else { Self::internal() }
    }
}

impl From<NotAccepted> for Problem {
    fn from(error: NotAccepted) -> Self {
        match error {
            NotAccepted::Database => Self::database_unavailable(),
            NotAccepted::Turned(Turned::Full) => Self::overloaded(),
            NotAccepted::Turned(Turned::Stopping) => Self::stopping(),
        }
    }
}

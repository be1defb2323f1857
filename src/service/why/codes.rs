//! The codes of the reasons, which programs may rely on; docs/api.md lists them with what they mean.

use crate::domain::Trouble;

pub const CODES: [&str; 44] = [
    "waiting_for_person",
    "callback_token_wrong",
    "check_due",
    "check_running",
    "check_late",
    "poll_late",
    "worker_lost",
    "retry_scheduled",
    "throttled",
    "not_completed",
    "result_pending",
    "account_no_credentials",
    "account_bad_key",
    "account_bad_signature",
    "account_no_permission",
    "account_not_activated",
    "account_clock_skew",
    "account_configuration",
    "account_unreachable",
    "account_failing",
    "account_not_configured",
    "deadline_over",
    "work_missing",
    "recheck_due",
    "recheck_running",
    "passed",
    "failed",
    "review",
    "void_not_completed",
    "void_ended",
    "expired",
    "unresolvable",
    "erasing",
    "erased",
    "initialize_lost",
    "result_at_risk",
    "video_at_risk",
    "video_deadline_over",
    "video_pending",
    "video_missed",
    "image_pending",
    "image_missed",
    "callback_unauthenticated",
    "polls_stretched",
];

/// Of an account in trouble.
pub(super) fn of_trouble(trouble: Trouble) -> &'static str {
    match trouble {
        Trouble::NoCredentials => "account_no_credentials",
        Trouble::BadKey => "account_bad_key",
        Trouble::BadSignature => "account_bad_signature",
        Trouble::NoPermission => "account_no_permission",
        Trouble::NotActivated => "account_not_activated",
        Trouble::ClockSkew => "account_clock_skew",
        Trouble::Configuration => "account_configuration",
        Trouble::Unreachable => "account_unreachable",
    }
}

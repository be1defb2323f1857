//! What each metric is, as `/metrics` says it. `docs/operations.md` says the same at greater length; a test holds the two
//! together.

use metrics::{describe_counter, describe_gauge, describe_histogram};

#[derive(Clone, Copy)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

use Kind::{Counter, Gauge, Histogram};

/// Without the `checkback_` that all begin with.
const METRICS: [(Kind, &str, &str); 34] = [
    (Gauge, "account_failing", "1 while the account is failing."),
    (Gauge, "at_risk", "Verifications whose video or result the provider deletes soon, and which is not here."),
    (Histogram, "batch_size", "Items that one write took out of a queue."),
    (Gauge, "build_info", "1; the label says which version runs."),
    (Counter, "callbacks_total", "Callbacks by what became of them."),
    (Histogram, "check_duration_seconds", "How long calls of CheckResult took."),
    (Counter, "checks_total", "Calls of CheckResult by outcome."),
    (Gauge, "database_connections", "Connections to the database that are busy, and that are free to use."),
    (Histogram, "deadline_margin_seconds", "Time that was left when a result or a video was stored."),
    (Counter, "erasure_calls_total", "Calls that asked the provider to delete, by outcome."),
    (Counter, "erasures_total", "Verifications erased on request."),
    (Counter, "evidence_total", "Images and videos by kind and how it ended."),
    (Counter, "expired_total", "Results that the provider deleted before they could be read."),
    (Counter, "http_requests_total", "Requests by listener, route and status."),
    (Counter, "initializations_total", "Calls of Initialize by outcome."),
    (Counter, "leases_lost_total", "Checks that took longer than their lease could be kept."),
    (Gauge, "oldest_due_seconds", "For how long the oldest check that is due has been waiting."),
    (
        Gauge,
        "poll_interval_seconds",
        "How far apart polls of one verification are where the schedule does not hold, else 0.",
    ),
    (Gauge, "polls_free_per_second", "Polls a second that the account's other calls leave."),
    (Gauge, "polls_wanted_per_second", "Polls a second that the schedule wants."),
    (Gauge, "queue_length", "Items that wait in a queue of this replica for their write."),
    (Gauge, "ready", "1 while this replica is ready: its database answers and has the right migrations."),
    (Counter, "registrations_total", "New verifications."),
    (Counter, "retention_destroyed_total", "Rows that lost what belongs to a class of retention."),
    (Counter, "retention_failures_total", "Steps of retention that failed."),
    (Gauge, "retention_overdue_seconds", "How long ago the time of the oldest was over that is still there."),
    (Counter, "returns_total", "Browsers on their way back, by what became of them."),
    (Counter, "trace_batches_total", "Requests to the collector of traces, by result."),
    (
        Counter,
        "unmatched_dropped_total",
        "Callbacks of unregistered transactions that were dropped, because there were too many.",
    ),
    (Histogram, "verdict_delay_seconds", "From the first callback to the verdict."),
    (Counter, "verdicts_total", "Final results by status."),
    (Gauge, "verifications", "Verifications by status."),
    (Counter, "webhook_attempts_total", "Attempts to deliver an event, by result."),
    (Gauge, "webhook_oldest_due_seconds", "For how long the oldest event that is due has been waiting."),
];

/// Tells the recorder.
pub(super) fn describe() {
    for (kind, name, text) in METRICS {
        let name = format!("checkback_{name}");
        match kind {
            Counter => describe_counter!(name, text),
            Gauge => describe_gauge!(name, text),
            Histogram => describe_histogram!(name, text),
        }
    }
}

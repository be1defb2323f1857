//! `GET /reconcile`: whether everything that was registered is accounted for.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse, Response};
use chrono::TimeDelta;
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::auth::Scope;
use super::openapi::words;
use super::verifications::body::time;
use super::verifications::list::parse_time;
use super::verifications::query::Query;
use super::{Api, Problem, answered_within};
use crate::domain::{FinalStatus, Status};
use crate::service::reconcile::{Reconciliation, States};

/// What a week with a million verifications takes, and more.
const PATIENCE: Duration = Duration::from_mins(2);

const WINDOW: TimeDelta = TimeDelta::days(7);

/// Whether everything that was registered is accounted for
///
/// Of what was registered from `since` until before `until`, in one snapshot.
#[utoipa::path(
    get,
    path = "/reconcile",
    operation_id = "reconcile",
    tag = "service",
    params(
        ("since" = Option<String>, Query, format = DateTime, description = "A week before `until` when absent."),
        ("until" = Option<String>, Query, format = DateTime, description = "Now when absent."),
    ),
    responses((status = 200, description = "The account.", body = Body)),
    extensions(
        ("x-required-scope" = json!("read")),
        ("x-problems" = json!(["query_invalid", "database_unavailable"])),
    ),
)]
pub async fn reconcile(State(api): State<Api>, uri: Uri, headers: HeaderMap) -> Result<Response, Problem> {
    api.keys.require(&headers, Scope::Read)?;
    let now = api.service.clock.now();
    let mut query = Query::of(&uri);
    let until = query.take("until", parse_time).unwrap_or(now);
    let since = query.take("since", |text| {
        let since = parse_time(text)?;
        if since < until { Ok(since) } else { Err("must be before until") }
    });
    query.finish()?;
    let since = since.unwrap_or(until - WINDOW);
    let reconciliation = answered_within(PATIENCE, api.service.reconcile(since, until)).await?;
    Ok(Json(render(&reconciliation, time(since), time(until))).into_response())
}

/// The account of what was registered in a window, in one snapshot.
#[derive(Serialize, ToSchema)]
#[schema(as = Reconciliation)]
pub(super) struct Body<'a> {
    #[schema(format = DateTime)]
    since: String,
    #[schema(format = DateTime)]
    until: String,
    /// Nothing is lost, and no row contradicts another.
    adds_up: bool,
    registered: i64,
    r#final: i64,
    waiting: i64,
    collecting: i64,
    #[schema(inline)]
    accounts: Vec<OfAccount<'a>>,
    #[schema(inline)]
    without_verdict: Vec<WithoutVerdict<'a>>,
    #[schema(inline)]
    calls: Calls,
    #[schema(inline)]
    billing: Vec<BillingOf<'a>>,
    #[schema(inline)]
    rechecks: Rechecks,
    #[schema(inline)]
    problems: Vec<NotAddingUp>,
}

/// What was registered for one account.
#[derive(Serialize, ToSchema)]
struct OfAccount<'a> {
    account: &'a str,
    registered: i64,
    /// How many are in each status.
    #[schema(schema_with = words::states)]
    states: Map<String, Value>,
}

/// Those that ended without a verdict of the provider, for the same reason.
#[derive(Serialize, ToSchema)]
struct WithoutVerdict<'a> {
    account: &'a str,
    #[schema(schema_with = words::final_status)]
    status: &'static str,
    /// For `unresolvable` the provider's code.
    #[schema(required)]
    reason: Option<&'a str>,
    count: i64,
}

/// Calls of CheckResult, counted in two ways.
#[derive(Serialize, ToSchema)]
struct Calls {
    history: i64,
    rows: i64,
}

/// Current verdicts of one code.
#[derive(Serialize, ToSchema)]
struct BillingOf<'a> {
    account: &'a str,
    #[schema(required)]
    product: Option<&'a str>,
    #[schema(required)]
    sub_code: Option<&'a str>,
    count: i64,
    /// Null: the provider does not say.
    #[schema(required)]
    billed: Option<bool>,
}

/// Asking again.
#[derive(Serialize, ToSchema)]
struct Rechecks {
    open: i64,
    /// Verdicts that took the place of earlier ones.
    revisions: i64,
}

/// Verifications that do not add up in the same way.
#[derive(Serialize, ToSchema)]
struct NotAddingUp {
    #[schema(schema_with = words::discrepancy)]
    problem: &'static str,
    detail: String,
    count: i64,
    /// At most 20 of them, oldest first.
    ids: Vec<String>,
}

fn render(all: &Reconciliation, since: String, until: String) -> Body<'_> {
    Body {
        since,
        until,
        adds_up: all.adds_up(),
        registered: all.registered,
        r#final: all.states.ended(),
        waiting: all.waiting(),
        collecting: all.collecting(),
        accounts: all
            .accounts
            .iter()
            .map(|(account, (registered, states))| OfAccount {
                account,
                registered: *registered,
                states: states_body(states),
            })
            .collect(),
        without_verdict: all
            .without_verdict
            .iter()
            .map(|ended| WithoutVerdict {
                account: &ended.account,
                status: ended.status.as_str(),
                reason: ended.reason.as_deref(),
                count: ended.count,
            })
            .collect(),
        calls: Calls { history: all.calls_in_history, rows: all.calls_in_rows },
        billing: all
            .billing
            .iter()
            .map(|of| BillingOf {
                account: &of.account,
                product: of.product.as_deref(),
                sub_code: of.sub_code.as_deref(),
                count: of.count,
                billed: of.billed,
            })
            .collect(),
        rechecks: Rechecks { open: all.open_rechecks, revisions: all.revisions },
        problems: all
            .problems
            .iter()
            .map(|problem| NotAddingUp {
                problem: problem.discrepancy.as_str(),
                detail: format!("verifications that {}", problem.discrepancy.in_words()),
                count: problem.count,
                ids: problem.ids.iter().map(ToString::to_string).collect(),
            })
            .collect(),
    }
}

fn states_body(states: &States) -> Map<String, Value> {
    let all = [Status::Waiting, Status::Collecting].into_iter().chain(FinalStatus::ALL.map(Status::Final));
    all.map(|status| (status.as_str().to_owned(), Value::from(states.of(status)))).collect()
}

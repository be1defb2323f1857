//! `GET /reconcile`: whether everything that was registered is accounted for.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse, Response};
use chrono::TimeDelta;
use serde_json::{Value, json};

use super::auth::Scope;
use super::verifications::body::time;
use super::verifications::list::parse_time;
use super::verifications::query::Query;
use super::{Api, Problem, answered_within};
use crate::domain::{FinalStatus, Status};
use crate::service::reconcile::{Reconciliation, States};

/// What a week with a million verifications takes, and more.
const PATIENCE: Duration = Duration::from_mins(2);

const WINDOW: TimeDelta = TimeDelta::days(7);

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
    let mut body = render(&reconciliation);
    body["since"] = time(since).into();
    body["until"] = time(until).into();
    Ok(Json(body).into_response())
}

fn render(all: &Reconciliation) -> Value {
    let accounts: Value = all
        .accounts
        .iter()
        .map(|(account, (registered, states))| {
            json!({ "account": account, "registered": registered, "states": states_body(states) })
        })
        .collect();
    let without_verdict: Value = all
        .without_verdict
        .iter()
        .map(|ended| {
            json!({
                "account": ended.account,
                "status": ended.status.as_str(),
                "reason": ended.reason,
                "count": ended.count,
            })
        })
        .collect();
    let billing: Value = all
        .billing
        .iter()
        .map(|of| {
            json!({
                "account": of.account,
                "product": of.product,
                "sub_code": of.sub_code,
                "count": of.count,
                "billed": of.billed,
            })
        })
        .collect();
    let problems: Value = all
        .problems
        .iter()
        .map(|problem| {
            json!({
                "problem": problem.discrepancy.as_str(),
                "detail": format!("verifications that {}", problem.discrepancy.in_words()),
                "count": problem.count,
                "ids": problem.ids.iter().map(ToString::to_string).collect::<Vec<_>>(),
            })
        })
        .collect();
    json!({
        "adds_up": all.adds_up(),
        "registered": all.registered,
        "final": all.states.ended(),
        "waiting": all.waiting(),
        "collecting": all.collecting(),
        "accounts": accounts,
        "without_verdict": without_verdict,
        "calls": { "history": all.calls_in_history, "rows": all.calls_in_rows },
        "billing": billing,
        "rechecks": { "open": all.open_rechecks, "revisions": all.revisions },
        "problems": problems,
    })
}

fn states_body(states: &States) -> Value {
    let all = [Status::Waiting, Status::Collecting].into_iter().chain(FinalStatus::ALL.map(Status::Final));
    all.map(|status| (status.as_str().to_owned(), Value::from(states.of(status))))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

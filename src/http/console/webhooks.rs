//! The receivers of webhooks: how each fares, what is on its way and what was given up.

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, Uri};
use chrono::{DateTime, Utc};
use maud::{Markup, html};

use super::Page;
use super::layout::{self, Place, number, see_other, table, token, when};
use super::now::short;
use super::viewer::{Viewer, actor, encoded, viewer};
use crate::http::auth::Scope;
use crate::http::{Api, Problem, answered};
use crate::store::{DeliveryFilter, DeliveryRow, DeliveryState, EndpointRow};

/// Deliveries in each list.
const SHOWN: i64 = 50;

pub async fn page(State(api): State<Api>, headers: HeaderMap, uri: Uri) -> Page {
    let viewer = viewer(&api, &headers, &uri).await?;
    let (store, now) = (&api.service.store, api.service.clock.now());
    let filter = |state| DeliveryFilter { state: Some(state), limit: SHOWN, ..DeliveryFilter::default() };
    let (failed, pending) = (filter(DeliveryState::Failed), filter(DeliveryState::Pending));
    let asked = async { tokio::try_join!(store.endpoints(), store.deliveries(&failed), store.deliveries(&pending)) };
    let (endpoints, failed, pending) = answered(asked).await?;
    let endpoints: Vec<&EndpointRow> =
        endpoints.iter().filter(|row| api.service.endpoint(&row.endpoint).is_some()).collect();
    let content = html! {
        h1 { "Webhooks" }
        @for row in &endpoints { (enable_form(&viewer, row)) }
        div #webhooks data-live {
            section.card {
                h2 { "Endpoints" }
                @if endpoints.is_empty() {
                    p.calm { "None is configured. Add [[webhooks]] to the configuration to be told of verdicts." }
                } @else {
                    (table("Endpoints and how they fare", &["Endpoint", "State", "Pending", "Given up", "Last success", "Last failure"],
                        &html! { @for row in &endpoints { (endpoint(&api, row, now)) } }))
                }
            }
            (deliveries("Given up", "The last attempt of the schedule failed. When the endpoint is mended, POST \
                /webhooks/replay sends them again.", &failed, now))
            (deliveries("On their way", "Waiting for their next attempt, newest first.", &pending, now))
        }
    };
    Ok(layout::page(&viewer, Place::Webhooks, "Webhooks", now, &content))
}

fn endpoint(api: &Api, row: &EndpointRow, now: DateTime<Utc>) -> Markup {
    let known = api.service.endpoint(&row.endpoint);
    html! {
        tr {
            th scope="row" {
                (row.endpoint)
                @if let Some(known) = known { br; code.muted { (known.shown_url) } }
            }
            td {
                @if row.disabled_at.is_some() {
                    span.state.bad { "disabled" } " " (row.disabled_reason.as_deref().unwrap_or_default())
                } @else if row.failures > 0 {
                    span.state.warn { "failing" } " " (row.failures) " in a row"
                    @if let Some(until) = row.paused_until { ", tried again " (when(until, now)) }
                } @else {
                    span.state.good { "ok" }
                }
            }
            td { (number(row.pending)) }
            td { (number(row.failed)) }
            td { @match row.last_success_at { Some(at) => { (when(at, now)) } None => { "never" } } }
            td {
                @match row.last_failure_at { Some(at) => { (when(at, now)) } None => { "never" } }
                @if let Some(why) = &row.last_failure { br; span.muted { (why) } }
            }
        }
    }
}

/// Beside what changes by itself, so that nobody presses a button that moves.
fn enable_form(viewer: &Viewer, row: &EndpointRow) -> Markup {
    html! {
        @if row.disabled_at.is_some() && viewer.may(Scope::Operate) {
            form.notice.bad method="post" action={ "/console/webhooks/" (encoded(&row.endpoint)) "/enable" } {
                (token(viewer))
                (row.endpoint) " is disabled. "
                button type="submit" { "Enable " (row.endpoint) " again" }
            }
        }
    }
}

fn deliveries(title: &str, what: &str, rows: &[DeliveryRow], now: DateTime<Utc>) -> Markup {
    let body = html! {
        @for row in rows {
            tr {
                th scope="row" {
                    a href={ "/console/verifications/" (row.verification) } title=(row.verification) { code { (short(&row.verification.to_string())) } }
                }
                td { (row.r#type) }
                td { (row.endpoint) }
                td { (row.attempts) }
                td {
                    (row.last_result.as_deref().unwrap_or("–"))
                    @if let Some(status) = row.last_status { " (" (status) ")" }
                }
                td {
                    @match (row.next_attempt_at, row.ended_at) {
                        (Some(at), _) | (None, Some(at)) => { (when(at, now)) }
                        (None, None) => { "under way" }
                    }
                }
            }
        }
    };
    html! {
        section.card {
            h2 { (title) }
            @if rows.is_empty() { p.calm { "None." } } @else {
                p { (what) }
                (table(title, &["Verification", "Event", "Endpoint", "Attempts", "Last answer", "Next, or ended"], &body))
            }
        }
    }
}

pub async fn enable(State(api): State<Api>, name: Result<Path<String>, PathRejection>, request: Request) -> Page {
    let (parts, body) = request.into_parts();
    let (viewer, _) = actor(&api, &parts.headers, body).await?;
    viewer.require(Scope::Operate)?;
    let Ok(Path(name)) = name else { return Err(Problem::endpoint_unknown().into()) };
    if !answered(api.service.enable_endpoint(&name, viewer.name.as_deref())).await? {
        return Err(Problem::endpoint_unknown().into());
    }
    Ok(see_other("/console/webhooks"))
}

//! The accounts: how each is, what it may call, how it is set.

use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use chrono::{DateTime, Utc};
use maud::{Markup, html};

use super::Page;
use super::chart::meter;
use super::layout::{self, Place, lasting, span_or_dash, table, when};
use super::now::{Overview, overview};
use super::viewer::viewer;
use crate::domain::Trouble;
use crate::http::{Api, answered};
use crate::service::account::Account;
use crate::service::why::span;
use crate::store::AccountHealth;

/// An account and how it is.
pub struct Condition<'a> {
    account: &'a Account,
    health: Option<AccountHealth>,
    /// Calls a second at present.
    calls: f64,
    pub oldest_due: Option<DateTime<Utc>>,
}

pub fn condition<'a>(account: &'a Account, overview: &Overview) -> Condition<'a> {
    Condition {
        account,
        health: overview.health.iter().find(|health| health.account == account.name).cloned(),
        calls: overview.calls(&account.name),
        oldest_due: overview.oldest_due(&account.name),
    }
}

impl Condition<'_> {
    pub fn name(&self) -> &str {
        &self.account.name
    }

    pub fn is_failing(&self) -> bool {
        self.health.as_ref().is_some_and(|health| health.failing.is_some())
    }

    pub fn used(&self) -> String {
        format!("{:.1} of {} checks / s", self.calls, self.account.qps)
    }

    #[expect(clippy::cast_possible_truncation, reason = "a percentage, cut to what can be drawn")]
    pub fn percent(&self) -> i64 {
        (self.calls / f64::from(self.account.qps.max(1)) * 100.0).clamp(0.0, 100.0) as i64
    }
}

/// In a word and, where something is wrong, what it is.
pub fn health_cell(condition: &Condition<'_>, now: DateTime<Utc>) -> Markup {
    let Some(health) = &condition.health else { return html! { span.state.warn { "unknown" } } };
    if let Some(failing) = &health.failing {
        return html! {
            span.state.bad { "failing" } " " (failing.reason) " (" code { (failing.code) } ") for " (span(now - failing.since))
        };
    }
    if let Some(until) = health.hold_until.filter(|until| *until > now) {
        return html! { span.state.warn { "throttled" } " goes on " (when(until, now)) };
    }
    html! { span.state.good { "ok" } }
}

pub async fn page(State(api): State<Api>, headers: HeaderMap, uri: Uri) -> Page {
    let viewer = viewer(&api, &headers, &uri).await?;
    let overview = overview(&api).await?;
    let now = api.service.clock.now();
    let mut sections = Vec::new();
    for account in api.service.accounts.values() {
        let rate = answered(api.service.store.present_rate(&account.name, account.rate(), now)).await?;
        sections.push(section(&api, &condition(account, &overview), rate, now));
    }
    let gone = overview.health.iter().filter(|health| !api.service.accounts.contains_key(&health.account));
    let gone: Vec<&str> = gone.map(|health| health.account.as_str()).collect();
    let content = html! {
        h1 { "Accounts" }
        div.two #accounts data-live {
            @if sections.is_empty() { p.calm { "No account is configured: see [accounts.…] in the configuration." } }
            @for section in &sections { (section) }
            @if !gone.is_empty() {
                section.card {
                    h2 { "Not configured any more" }
                    p { "Work of these accounts waits until they are in the configuration again: " (gone.join(", ")) "." }
                }
            }
        }
    };
    Ok(layout::page(&viewer, Place::Accounts, "Accounts", now, &content))
}

fn section(api: &Api, condition: &Condition<'_>, rate: Option<f64>, now: DateTime<Utc>) -> Markup {
    let account = condition.account;
    let interval = account.pacing.poll_interval();
    let prefix = format!("accounts.{}.", account.name);
    let is_zoloz = api.console.section(&prefix).any(|(name, setting)| name == "kind" && setting.value == "zoloz");
    let rows = html! {
        @for (name, setting) in api.console.section(&prefix) {
            tr { th scope="row" { code { (name) } } td { code { (setting.value) } } td.muted { (setting.origin) } }
        }
    };
    let failing = condition.health.as_ref().and_then(|health| health.failing.as_ref());
    let trouble =
        failing.and_then(|failing| Trouble::ALL.into_iter().find(|trouble| trouble.as_str() == failing.reason));
    html! {
        section.card #(account.name) {
            h2 { (account.name) }
            p { (health_cell(condition, now)) }
            @if let Some(trouble) = trouble {
                p.notice.bad { strong { "What to do: " } (trouble.remedy()) "." }
            }
            dl.facts {
                dt { "Calls" }
                dd { (meter(&condition.used(), "small", condition.percent())) (condition.used()) }
                @if let Some(rate) = rate.filter(|rate| *rate < f64::from(account.qps) - 0.05) {
                    dt { "Lowered by throttling to" } dd { (format!("{rate:.1}")) " calls / s" }
                }
                @if let Some(probe_at) = condition.health.as_ref().filter(|_| failing.is_some()).and_then(|health| health.probe_at) {
                    dt { "Next probe" } dd { (when(probe_at, now)) }
                }
                dt { "Oldest check due for" } dd { (span_or_dash(condition.oldest_due.map(|due_at| now - due_at))) }
                dt { "Polls" }
                dd {
                    @if interval.is_zero() { "on schedule" } @else {
                        "stretched: each that waits is polled every " (lasting(interval))
                        "; a higher " code { "qps" } " would help"
                    }
                }
                dt { "Result is deleted after" } dd { (lasting(account.result_retention)) }
                @if !is_zoloz { dt { "Video is deleted after" } dd { (lasting(account.video_retention)) } }
                dt { "Given up after" } dd { (lasting(account.give_up_after)) }
                dt { "Callbacks" }
                dd {
                    @match &account.starting.callback_url {
                        _ if is_zoloz => { "its provider makes none" }
                        Some(url) => { code { (url.as_str()) } }
                        None => { "the provider cannot reach this service: " code { "server.public_url" } " is not set, or is no https" }
                    }
                }
            }
            details {
                summary { "Settings" }
                (table(&format!("Settings of {}", account.name), &["Key", "Value", "From"], &rows))
            }
        }
    }
}

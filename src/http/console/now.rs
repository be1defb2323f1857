//! The first page: what is at risk, what goes on, and which account keeps it from going on.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use chrono::{DateTime, TimeDelta, Utc};
use maud::{Markup, html};

use super::Page;
use super::accounts::{Condition, condition, health_cell};
use super::chart::{Bar, Span, bars, meter};
use super::layout::{self, Place, number, span_or_dash, status, table, when};
use super::viewer::viewer;
use crate::domain::risk::RiskKind;
use crate::domain::{FinalStatus, HistoryKind};
use crate::http::{Api, Problem, answered};
use crate::service::account::Account;
use crate::service::why::span;
use crate::store::{AccountHealth, OpenWork, RecentVerdict, Record, Window};

/// For so long what was read counts as new.
const FRESH: TimeDelta = TimeDelta::seconds(2);
/// How far back the charts go, where there are not too many verdicts.
const CHARTED: TimeDelta = TimeDelta::hours(1);
/// How many verdicts they look at.
const VERDICTS: i64 = 2000;
const BUCKETS: usize = 30;
/// Rates are of this time.
const RECENT: TimeDelta = TimeDelta::seconds(30);
/// How much of what happened rates look at.
const HAPPENED: i64 = 1500;
/// How much open work is counted.
const OPEN: i64 = 20_000;
/// How many of what is at risk are shown.
const AT_RISK: i64 = 5;
const LATEST: usize = 8;

/// What the page shows, as it was read.
#[derive(Debug)]
pub struct Overview {
    read_at: DateTime<Utc>,
    verdicts: Vec<RecentVerdict>,
    charted: Span,
    /// Of each kind, a second; of checks besides by account.
    rates: BTreeMap<&'static str, f64>,
    checks: BTreeMap<String, f64>,
    open: Vec<OpenWork>,
    estimated: Option<i64>,
    at_risk: [Vec<(Record, DateTime<Utc>)>; 2],
    lost: Vec<Record>,
    oldest_due: Vec<(String, DateTime<Utc>)>,
    pub health: Vec<AccountHealth>,
}

impl Overview {
    /// Calls a second that an account makes.
    pub fn calls(&self, account: &str) -> f64 {
        self.checks.get(account).copied().unwrap_or(0.0)
    }

    pub fn oldest_due(&self, account: &str) -> Option<DateTime<Utc>> {
        self.oldest_due.iter().find(|(known, _)| known == account).map(|(_, due_at)| *due_at)
    }
}

/// As it was at most [`FRESH`] ago.
pub async fn overview(api: &Api) -> Result<Arc<Overview>, Problem> {
    let mut known = api.console.overview.lock().await;
    let now = api.service.clock.now();
    if let Some(known) = known.as_ref().filter(|known| known.read_at <= now && now - known.read_at < FRESH) {
        return Ok(Arc::clone(known));
    }
    let read = Arc::new(read(api, now).await?);
    *known = Some(Arc::clone(&read));
    Ok(read)
}

async fn read(api: &Api, now: DateTime<Utc>) -> Result<Overview, Problem> {
    let (service, store) = (&api.service, &api.service.store);
    let accounts: Vec<&Account> = service.accounts.values().map(AsRef::as_ref).collect();
    let names: Vec<&str> = accounts.iter().map(|account| account.name.as_str()).collect();
    let windows = |kind| accounts.iter().map(|account| account.window(kind)).collect::<Vec<Window<'_>>>();
    let (videos, results) = (windows(RiskKind::Video), windows(RiskKind::Result));
    let expired = crate::store::Filter {
        status: Some(crate::domain::Status::Final(FinalStatus::Expired)),
        registered_after: Some(now - TimeDelta::days(45)),
        limit: 3,
        ..Default::default()
    };
    let asked = async {
        tokio::try_join!(
            store.recent_verdicts(now - CHARTED, VERDICTS),
            store.recent_history(now - RECENT, HAPPENED),
            store.open_work(OPEN),
            store.estimated_verifications(),
            store.at_risk(&videos, None, AT_RISK, now),
            store.at_risk(&results, None, AT_RISK, now),
            store.list(&expired),
            store.oldest_due(&names, now),
            store.account_health(),
        )
    };
    let (verdicts, happened, open, estimated, videos, results, lost, oldest_due, health) = answered(asked).await?;
    let is_all = i64::try_from(verdicts.len()).is_ok_and(|found| found < VERDICTS);
    let from = if is_all { now - CHARTED } else { verdicts.last().map_or(now, |oldest| oldest.decided_at) };
    let seconds = if i64::try_from(happened.len()).is_ok_and(|found| found < HAPPENED) {
        RECENT
    } else {
        happened.last().map_or(RECENT, |oldest| now - oldest.at)
    };
    let second = seconds.as_seconds_f64().max(0.001);
    let (mut rates, mut checks) = (BTreeMap::new(), BTreeMap::new());
    for happened in &happened {
        *rates.entry(happened.kind.as_str()).or_insert(0.0) += 1.0 / second;
        if happened.kind == HistoryKind::Check {
            *checks.entry(happened.account.clone()).or_insert(0.0) += 1.0 / second;
        }
    }
    Ok(Overview {
        read_at: now,
        verdicts,
        charted: Span { from, to: now, buckets: BUCKETS },
        rates,
        checks,
        open,
        estimated,
        at_risk: [videos, results],
        lost,
        oldest_due,
        health,
    })
}

pub async fn page(State(api): State<Api>, headers: HeaderMap, uri: Uri) -> Page {
    let viewer = viewer(&api, &headers, &uri).await?;
    let overview = overview(&api).await?;
    let now = overview.read_at;
    let conditions: Vec<Condition<'_>> =
        api.service.accounts.values().map(|account| condition(account, &overview)).collect();
    let content = html! {
        h1.hidden { "Now" }
        div #now data-live {
            (verdict_of_the_day(&overview, &conditions))
            (tiles(&overview))
            div.two {
                (risk("Videos at risk", RiskKind::Video, &overview.at_risk[0], now))
                (risk("Results at risk", RiskKind::Result, &overview.at_risk[1], now))
            }
            (accounts(&conditions, now))
            (charts(&overview))
            div.two { (latest(&overview)) (lost(&overview.lost, now)) }
        }
    };
    Ok(layout::page(&viewer, Place::Now, "Now", now, &content))
}

/// One sentence for who has ten seconds.
fn verdict_of_the_day(overview: &Overview, conditions: &[Condition<'_>]) -> Markup {
    let failing: Vec<&str> =
        conditions.iter().filter(|condition| condition.is_failing()).map(Condition::name).collect();
    let [videos, results] = &overview.at_risk;
    let at_risk = videos.len() + results.len();
    let (class, text) = if !failing.is_empty() {
        let (verb, whose) = if failing.len() == 1 { ("account is", "Its") } else { ("accounts are", "Their") };
        ("bad", format!("{} {verb} failing: {}. {whose} work waits.", failing.len(), failing.join(", ")))
    } else if at_risk > 0 {
        ("warn", "Something may be lost: see below what has the least time left.".to_owned())
    } else if conditions.is_empty() {
        ("warn", "No account is configured, so nothing can be registered yet.".to_owned())
    } else {
        ("good", "All is well: nothing is at risk, and every account answers.".to_owned())
    };
    html! { p class={ "lead " (class) } { (text) } }
}

fn tiles(overview: &Overview) -> Markup {
    let rate = |kind: &str| format!("{:.1}", overview.rates.get(kind).copied().unwrap_or(0.0));
    let sum = |of: fn(&OpenWork) -> i64| overview.open.iter().map(of).sum::<i64>();
    let all = sum(|open| open.waiting + open.collecting + open.rechecks);
    let more = if all >= OPEN { "+" } else { "" };
    let oldest = overview.oldest_due.iter().map(|(_, due_at)| overview.read_at - *due_at).max();
    let states = [
        ("waiting", sum(|open| open.waiting), "/console/verifications?status=waiting"),
        ("collecting", sum(|open| open.collecting), "/console/verifications?status=collecting"),
    ];
    html! {
        section.tiles aria-label="Figures" {
            @for (name, count, path) in states {
                a.tile href=(path) { span.figure { (number(count)) (more) } span.name { (name) } }
            }
            div.tile { span.figure { (number(sum(|open| open.rechecks))) (more) } span.name { "asked again" } }
            div.tile { span.figure { (span_or_dash(oldest)) } span.name { "oldest check due" } }
            @for (kind, name) in [("registered", "registered / s"), ("callback", "callbacks / s"), ("check", "checks / s"), ("verdict", "verdicts / s")] {
                div.tile.rate { span.figure { (rate(kind)) } span.name { (name) } }
            }
        }
        @if let Some(rows) = overview.estimated {
            p.muted { "About " (number(rows)) " verifications in all." }
        }
    }
}

fn risk(title: &str, kind: RiskKind, rows: &[(Record, DateTime<Utc>)], now: DateTime<Utc>) -> Markup {
    html! {
        section.card {
            h2 { (title) }
            @if rows.is_empty() {
                p.calm { "None." }
            } @else {
                ul.risks {
                    @for (record, deadline) in rows {
                        li {
                            a href={ "/console/verifications/" (record.id) } { code { (short(&record.id.to_string())) } }
                            " " (status(record.status.as_str())) " " span.muted { (record.account) }
                            strong.left { (span(*deadline - now)) " left" }
                        }
                    }
                }
                p { a href={ "/console/verifications?at_risk=" (kind) } { "All that are at risk" } }
            }
        }
    }
}

/// The end of an id: ids of one time begin alike.
pub fn short(id: &str) -> String {
    id.get(id.len().saturating_sub(12)..).map_or_else(|| id.to_owned(), |end| format!("…{end}"))
}

fn accounts(conditions: &[Condition<'_>], now: DateTime<Utc>) -> Markup {
    let rows = html! {
        @for condition in conditions {
            tr {
                th scope="row" { a href={ "/console/accounts#" (condition.name()) } { (condition.name()) } }
                td { (health_cell(condition, now)) }
                td.wide { (meter(&condition.used(), "", condition.percent())) span.muted { (condition.used()) } }
                td { (span_or_dash(condition.oldest_due.map(|due_at| now - due_at))) }
            }
        }
    };
    html! { section.card { h2 { "Accounts" } (table("Accounts and their calls", &["Account", "Health", "Calls", "Oldest due"], &rows)) } }
}

fn charts(overview: &Overview) -> Markup {
    let span_of = overview.charted;
    let mut verdicts: Vec<Bar> = vec![vec![("passed", 0), ("failed", 0), ("other", 0)]; BUCKETS];
    let mut delays: Vec<Vec<i64>> = vec![Vec::new(); BUCKETS];
    for verdict in &overview.verdicts {
        let Some(bucket) = span_of.bucket(verdict.decided_at) else { continue };
        let part = match verdict.status {
            FinalStatus::Passed => 0,
            FinalStatus::Failed => 1,
            _ => 2,
        };
        verdicts[bucket][part].1 += 1;
        if let Some(hinted_at) = verdict.hinted_at {
            delays[bucket].push((verdict.decided_at - hinted_at).num_milliseconds().max(0));
        }
    }
    let total = |part: usize| verdicts.iter().map(|bar| bar[part].1).sum::<i64>();
    let (passed, failed, other) = (total(0), total(1), total(2));
    let mut all: Vec<i64> = delays.iter().flatten().copied().collect();
    let typical = median(&mut all);
    let medians: Vec<Bar> = delays.iter_mut().map(|delays| vec![("delay", median(delays).unwrap_or(0))]).collect();
    let length = span(span_of.length());
    let said = format!("Verdicts of the last {length}: {passed} passed, {failed} failed, {other} others");
    let typical = typical.map_or_else(|| "–".to_owned(), milliseconds);
    let delay = format!("Half of the verdicts came within {typical} of the callback");
    html! {
        div.two {
            figure.card {
                figcaption { h2 { "Verdicts" } p { (said) "." } }
                (bars(&said, &verdicts))
                p.legend { span.passed { "passed" } span.failed { "failed" } span.other { "others" } }
            }
            figure.card {
                figcaption { h2 { "Delay" } p { (delay) "." } }
                (bars(&delay, &medians))
                p.legend { span.delay { "the median of each bar" } }
            }
        }
    }
}

fn milliseconds(time: i64) -> String {
    if time < 10_000 { format!("{time} ms") } else { span(TimeDelta::milliseconds(time)) }
}

fn median(values: &mut [i64]) -> Option<i64> {
    values.sort_unstable();
    values.get(values.len() / 2).copied()
}

fn latest(overview: &Overview) -> Markup {
    let rows = html! {
        @for verdict in overview.verdicts.iter().take(LATEST) {
            tr {
                td { (status(verdict.status.as_str())) }
                th scope="row" { a href={ "/console/verifications/" (verdict.id) } { code { (short(&verdict.id.to_string())) } } }
                td { (verdict.account) }
                td { (when(verdict.decided_at, overview.read_at)) }
            }
        }
    };
    html! {
        section.card {
            h2 { "Latest verdicts" }
            @if overview.verdicts.is_empty() {
                p.calm { "None within the last hour." }
            } @else {
                (table("The latest verdicts", &["Status", "Verification", "Account", "Decided"], &rows))
            }
        }
    }
}

fn lost(records: &[Record], now: DateTime<Utc>) -> Markup {
    html! {
        section.card {
            h2 { "Lost lately" }
            @if records.is_empty() {
                p.calm { "None: every result was read before the provider deleted it." }
            } @else {
                ul.risks {
                    @for record in records {
                        li {
                            a href={ "/console/verifications/" (record.id) } { code { (short(&record.id.to_string())) } }
                            " " (status(record.status.as_str())) " " span.muted { (record.account) }
                            @if let Some(verdict) = &record.verdict { span.left { (when(verdict.decided_at, now)) } }
                        }
                    }
                }
                p { a href="/console/verifications?status=expired" { "All that expired" } }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_nothing_is_nothing() {
        assert_eq!(median(&mut []), None);
        assert_eq!(median(&mut [9, 1, 5]), Some(5));
        assert_eq!([milliseconds(480), milliseconds(75_000)], ["480 ms", "1m 15s"]);
    }

    #[test]
    fn a_short_id_is_its_end() {
        assert_eq!(short("01980c5e-8c1f-7d52-a3c4-0a6b5f7e9d21"), "…0a6b5f7e9d21");
    }
}

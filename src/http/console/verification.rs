//! One verification: the verdict in words, why it is where it is, its deadlines, everything that happened, and what can
//! be done.

use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use chrono::{DateTime, Utc};
use maud::{Markup, html};
use serde_json::{Map, Value};

use super::chart::meter;
use super::layout::{self, Place, clock, number, status, table, token, when};
use super::timeline::timeline;
use super::viewer::{Viewer, viewer};
use super::{Page, actions};
use crate::domain::{EvidenceKind, EvidenceState, Status};
use crate::http::auth::Scope;
use crate::http::verifications::query::Query;
use crate::http::verifications::{PathId, parse_id};
use crate::http::{Api, Problem, answered};
use crate::service::account::Account;
use crate::service::erase::LONGEST_REASON;
use crate::service::why::{Statement, Who, Why, span};
use crate::store::{Record, RecordEvidence};

pub async fn page(State(api): State<Api>, id: PathId, headers: HeaderMap, uri: Uri) -> Page {
    let viewer = viewer(&api, &headers, &uri).await?;
    let mut query = Query::of(&uri);
    let done = query.take("done", |text| actions::Done::named(text).ok_or("is nothing that was done"));
    query.finish()?;
    let id = parse_id(id)?;
    let service = &api.service;
    let asked = async { tokio::try_join!(service.why(id), service.store.record(id), service.store.history(id)) };
    let (Some(why), Some(record), Some(history)) = answered(asked).await? else {
        return Err(Problem::verification_not_found().into());
    };
    let (now, account) = (service.clock.now(), service.accounts.get(&record.account).map(AsRef::as_ref));
    let content = html! {
        @if let Some(done) = done { p.notice.good role="status" { (done.said()) } }
        div #verification data-live {
            header.title {
                h1 { "Verification " code { (record.id) } }
                p { (status(record.status.as_str())) " " (record.account) " · registered " (when(record.registered_at, now)) }
            }
            (explained(&why, now))
            div.two {
                (verdict(&record, now))
                (deadlines(&record, account, now))
            }
            (facts(&record))
            section.card { h2 { "What happened" } (timeline(&history, record.registered_at)) }
        }
        (evidence(&viewer, &record))
        (commands(&record))
        (deeds(&viewer, &record))
    };
    Ok(layout::page(&viewer, Place::Verifications, "Verification", now, &content))
}

fn explained(why: &Why, now: DateTime<Utc>) -> Markup {
    html! {
        section.card.why {
            h2 { "Why it is where it is" }
            (statement(&why.main, now))
            @if !why.also.is_empty() {
                h3 { "Also" }
                @for also in &why.also { (statement(also, now)) }
            }
        }
    }
}

fn statement(statement: &Statement, now: DateTime<Utc>) -> Markup {
    html! {
        div.statement data-code=(statement.code) {
            p.summary { (statement.summary) }
            dl.facts {
                @if statement.who != Who::Nobody {
                    dt { "Who must act" } dd { strong class={ "who " (statement.who) } { (who(statement.who)) } }
                }
                @if let Some(remedy) = &statement.remedy { dt { "What to do" } dd { (remedy) } }
                @if let Some(next) = &statement.next {
                    dt { "Next" }
                    dd { (next) @if let Some(at) = statement.next_at { " · " (when(at, now)) } }
                }
            }
            p.code { code { (statement.code) } }
        }
    }
}

fn who(who: Who) -> &'static str {
    match who {
        Who::Nobody => "nobody",
        Who::Person => "the person",
        Who::Provider => "the provider",
        Who::App => "your app",
        Who::Operator => "the operator of this service",
    }
}

/// Members of an object, in its order; what is no object has none.
fn members(text: &str) -> Vec<(String, String)> {
    let object: Map<String, Value> = serde_json::from_str(text).unwrap_or_default();
    object
        .into_iter()
        .map(|(name, value)| {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            (name.replace('_', " "), value)
        })
        .collect()
}

fn verdict(record: &Record, now: DateTime<Utc>) -> Markup {
    let Some(verdict) = &record.verdict else {
        return html! { section.card { h2 { "Verdict" } p.calm { "There is none yet." } } };
    };
    let scores = members(verdict.scores.get());
    let signals = members(verdict.signals.get());
    html! {
        section.card {
            h2 { "Verdict" }
            p.summary { (verdict.reason.as_deref().unwrap_or("Its reason was destroyed.")) }
            dl.facts {
                dt { "Decided" } dd { (when(verdict.decided_at, now)) }
                @if let Some(code) = &verdict.sub_code { dt { "Code" } dd { code { (code) } } }
                @if verdict.revision > 1 { dt { "Revision" } dd { (verdict.revision) } }
            }
            @if !scores.is_empty() {
                h3 { "Scores" }
                dl.facts {
                    @for (name, value) in &scores {
                        dt { (name) }
                        dd.score { (score(name, value)) (value) }
                    }
                }
            }
            @if !signals.is_empty() {
                h3 { "Signals" }
                dl.facts { @for (name, value) in &signals { dt { (name) } dd { (value) } } }
            }
        }
    }
}

/// Scores are of 0 to 100; others are shown as numbers alone.
fn score(name: &str, value: &str) -> Markup {
    let number = value.parse::<f64>().ok().filter(|number| (0.0..=100.0).contains(number));
    #[expect(clippy::cast_possible_truncation, reason = "it is between 0 and 100")]
    let percent = number.map(|number| number.round() as i64);
    html! { @if let Some(percent) = percent { (meter(&format!("{name}: {value} of 100"), "small", percent)) } }
}

fn deadlines(record: &Record, account: Option<&Account>, now: DateTime<Utc>) -> Markup {
    let Some(account) = account else {
        return html! {
            section.card { h2 { "Deadlines" } p { "The account is not configured, so its retention is not known." } }
        };
    };
    let deadlines = account.deadlines(record.registered_at, record.hinted_at);
    let base = record.hinted_at.unwrap_or(record.registered_at);
    let has_video = record.evidence.iter().any(|evidence| evidence.kind == EvidenceKind::Video.as_str());
    let mut bars = Vec::new();
    if record.hinted_at.is_none() && !record.status.is_final() {
        bars.push(("Given up", record.registered_at, deadlines.give_up_at));
    }
    if record.expect_video || has_video {
        bars.push(("Video is deleted", base, deadlines.video));
    }
    bars.push(("Result is deleted", base, deadlines.result));
    html! {
        section.card {
            h2 { "Deadlines" }
            @for (name, from, to) in bars {
                @let used = percent(from, to, now);
                @let left = if to > now { format!("{} left", span(to - now)) } else { "over".to_owned() };
                @let class = if record.status.is_final() { "done" } else if used >= 80 { "bad" } else if used >= 50 { "warn" } else { "good" };
                div.deadline {
                    p { (name) span.left { (left) } }
                    (meter(&format!("{name}: {used} % of the time is used, {left}"), class, used))
                    p.muted { (clock(to)) }
                }
            }
            @if record.status.is_final() { p.muted { "It is final: these are the provider's times, and matter to evidence alone." } }
        }
    }
}

fn percent(from: DateTime<Utc>, to: DateTime<Utc>, now: DateTime<Utc>) -> i64 {
    let (whole, used) = ((to - from).num_seconds().max(1), (now - from).num_seconds());
    (used * 100 / whole).clamp(0, 100)
}

fn facts(record: &Record) -> Markup {
    html! {
        section.card {
            h2 { "Registration" }
            dl.facts.columns {
                dt { "Transaction" } dd { code { (record.transaction_id) } }
                dt { "Reference" } dd { code { (record.merchant_biz_id) } }
                @if let Some(product) = &record.product { dt { "Product" } dd { (product) } }
                dt { "Video" } dd { @if record.expect_video { "expected" } @else { "not expected" } }
                dt { "Checks" } dd { (record.checks) }
                @if let Some(at) = record.callback_at { dt { "First callback" } dd { (clock(at)) } }
                @if let Some(error) = &record.last_error { dt { "Last answer" } dd { (error) } }
                @if let Some(at) = record.erased_at { dt { "Erased" } dd { (clock(at)) } }
            }
            @if let Some(metadata) = &record.metadata {
                h3 { "Metadata" }
                pre tabindex="0" { (metadata.get()) }
            }
        }
    }
}

fn evidence(viewer: &Viewer, record: &Record) -> Markup {
    if record.evidence.is_empty() {
        return html! {};
    }
    let may = viewer.may(Scope::Evidence);
    let rows = html! {
        @for evidence in &record.evidence {
            tr {
                th scope="row" { (evidence.kind.replace('_', " ")) }
                td { (evidence.state) @if let Some(reason) = &evidence.reason { span.muted { ": " (reason) } } }
                td.number { @if let Some(bytes) = evidence.bytes { (number(i64::try_from(bytes).unwrap_or(i64::MAX))) } }
                td { (show(viewer, record, evidence, may)) }
            }
        }
    };
    html! {
        section.card #evidence {
            h2 { "Evidence" }
            @if may { p { "Pictures of a person. Who looks at one is recorded in the history, with the name of the key." } }
            @else { p { "To look at it, a key needs the scope " code { "evidence" } "." } }
            (table("Evidence", &["Kind", "State", "Bytes", "Look"], &rows))
            @if may && record.verdict.is_some() && record.erased_at.is_none() {
                form.inline method="post" action={ "/console/verifications/" (record.id) "/raw" } target="_blank" {
                    (token(viewer))
                    button.quiet type="submit" { "Show the provider's answer (recorded)" }
                }
            }
        }
    }
}

fn show(viewer: &Viewer, record: &Record, evidence: &RecordEvidence, may: bool) -> Markup {
    let is_there = evidence.state == EvidenceState::Stored.as_str();
    let verb = if evidence.kind == EvidenceKind::Video.as_str() { "Download" } else { "Show" };
    let name = evidence.kind.replace('_', " ");
    html! {
        @if may && is_there {
            form.inline method="post" action={ "/console/verifications/" (record.id) "/evidence/" (evidence.kind) } target="_blank" {
                (token(viewer))
                button.quiet type="submit" { (verb) span.hidden { " the " (name) } " (recorded)" }
            }
        }
    }
}

/// The same from a terminal.
fn commands(record: &Record) -> Markup {
    let below = |path: &str| format!("\"$CHECKBACK_URL/verifications/{}{path}\"", record.id);
    let key = "-H \"Authorization: Bearer $CHECKBACK_KEY\"";
    let mut all = vec![
        ("show", "Show it", format!("curl {key} {}", below(""))),
        ("why", "Why it is where it is", format!("curl {key} {}", below("/why"))),
        ("history", "What happened", format!("curl {key} {}", below("/history"))),
    ];
    let collect = format!("curl -X POST {key} {}", below("/collect"));
    if is_collectable(record) {
        all.push(("collect", "Ask the provider now", collect));
    } else if record.erased_at.is_none() {
        let body = "-H \"Content-Type: application/json\" -d '{\"recheck\":true}'";
        all.push(("collect", "Ask the provider again", format!("{collect} {body}")));
    }
    html! {
        section.card {
            h2 { "From a terminal" }
            @for (name, what, command) in all {
                div.command {
                    p { (what) }
                    pre tabindex="0" { code id={ "curl-" (name) } { (command) } }
                    button.quiet type="button" data-copy={ "curl-" (name) } hidden { "Copy" span.hidden { " the command: " (what) } }
                }
            }
        }
    }
}

/// Whether it is asked about when somebody says that the person is done.
fn is_collectable(record: &Record) -> bool {
    let reopens = match record.status {
        Status::Final(status) => status.reopens_on_hint(),
        Status::Waiting | Status::Collecting => true,
    };
    reopens && record.erased_at.is_none()
}

fn deeds(viewer: &Viewer, record: &Record) -> Markup {
    let path = |deed: &str| format!("/console/verifications/{}/{deed}", record.id);
    let (is_erased, is_collectable) = (record.erased_at.is_some(), is_collectable(record));
    let (collect, recheck, erase) = (
        viewer.may(Scope::Register) && is_collectable,
        viewer.may(Scope::Register) && viewer.may(Scope::Operate) && !is_collectable && !is_erased,
        viewer.may(Scope::Erase) && !is_erased,
    );
    if !collect && !recheck && !erase {
        return html! {};
    }
    html! {
        section.card.deeds {
            h2 { "Act" }
            @if collect {
                form method="post" action=(path("collect")) {
                    (token(viewer))
                    button type="submit" { "Ask the provider now" }
                    p.muted { "For when the person is done and no callback came." }
                }
            }
            @if recheck {
                form method="post" action=(path("recheck")) {
                    (token(viewer))
                    button type="submit" { "Ask the provider again" }
                    p.muted { "Another answer becomes a new revision; the verdict of now stays in the history." }
                }
            }
            @if erase {
                details {
                    summary { "Erase" }
                    form method="post" action=(path("erase")) {
                        (token(viewer))
                        p { "Destroys evidence, scores, the provider's answer and the metadata, here and at the provider. "
                            strong { "It cannot be undone." } " Ids, status and times stay." }
                        label for="reason" { "Reason, without personal data: it is kept" }
                        input #reason name="reason" required maxlength=(LONGEST_REASON) autocomplete="off";
                        label for="confirmation" { "Type " code { "erase" } " to confirm" }
                        input #confirmation name="confirmation" required pattern="erase" autocomplete="off"
                            autocapitalize="none" spellcheck="false";
                        button.danger type="submit" { "Erase for good" }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_named_in_words() {
        let members = members(r#"{"face_comparison":99.99,"gender":"M","face_attack":false}"#);
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert!(members.contains(&pair("face comparison", "99.99")) && members.contains(&pair("gender", "M")));
        assert_eq!(super::members("null"), []);
    }

    #[test]
    fn only_scores_up_to_a_hundred_are_drawn() {
        assert!(score("a", "99.99").into_string().contains("width=\"100\""));
        assert_eq!(score("a", "120").into_string(), "");
        assert_eq!(score("a", "<b>").into_string(), "");
    }
}

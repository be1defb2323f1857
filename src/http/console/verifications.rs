//! The list of verifications: the filters are the address, the pages go by keys.

use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use chrono::{DateTime, NaiveDateTime, Utc};
use maud::{Markup, html};

use super::Page;
use super::layout::{self, Place, see_other, status, table, when};
use super::now::short;
use super::viewer::{encoded, viewer};
use crate::domain::risk::RiskKind;
use crate::domain::{FinalStatus, Status, VerificationId};
use crate::http::verifications::query::Query;
use crate::http::verifications::{at_risk, list};
use crate::http::{Api, Problem, answered};
use crate::store::{Filter, Record};

/// On one page.
const SHOWN: i64 = 50;

/// The fields of the form, as they were given.
#[derive(Default)]
struct Given {
    status: String,
    account: String,
    transaction_id: String,
    merchant_biz_id: String,
    registered_after: String,
    registered_before: String,
    at_risk: String,
}

impl Given {
    /// What follows the path, without where a page begins.
    fn address(&self) -> String {
        let all = [
            ("at_risk", &self.at_risk),
            ("status", &self.status),
            ("account", &self.account),
            ("transaction_id", &self.transaction_id),
            ("merchant_biz_id", &self.merchant_biz_id),
            ("registered_after", &self.registered_after),
            ("registered_before", &self.registered_before),
        ];
        let pairs = all.iter().filter(|(_, value)| !value.is_empty());
        pairs.map(|(name, value)| format!("{name}={}", encoded(value))).collect::<Vec<_>>().join("&")
    }
}

/// What is asked for.
struct Asked {
    given: Given,
    filter: Filter,
    at_risk: Option<RiskKind>,
    after: Option<crate::store::RiskCursor>,
}

/// As browsers send the value of a date field, or as the API takes it.
fn time(text: &str) -> Result<DateTime<Utc>, &'static str> {
    let formats = ["%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"];
    let local = formats.iter().find_map(|format| NaiveDateTime::parse_from_str(text, format).ok());
    local.map_or_else(|| list::parse_time(text), |local| Ok(local.and_utc()))
}

/// Reads a field and keeps what was given.
fn kept<T>(
    field: &mut String,
    parse: impl FnOnce(&str) -> Result<T, &'static str>,
) -> impl FnOnce(&str) -> Result<T, &'static str> {
    move |text| {
        text.clone_into(field);
        parse(text)
    }
}

fn asked(uri: &Uri) -> Result<Asked, Problem> {
    let mut query = Query::of(uri);
    let mut given = Given::default();
    let status =
        query.take("status", kept(&mut given.status, |text| text.parse::<Status>().map_err(|_| "is no status")));
    let account = query.take("account", kept(&mut given.account, list::text));
    let transaction_id = query.take("transaction_id", kept(&mut given.transaction_id, list::text));
    let merchant_biz_id = query.take("merchant_biz_id", kept(&mut given.merchant_biz_id, list::text));
    let registered_after = query.take("registered_after", kept(&mut given.registered_after, time));
    let registered_before = query.take("registered_before", kept(&mut given.registered_before, time));
    let at_risk =
        query.take("at_risk", kept(&mut given.at_risk, |text| text.parse().map_err(|_| "must be video or result")));
    let (mut below, mut after) = (None, None);
    if at_risk.is_some() {
        after = query.take("cursor", |text| at_risk::parse_cursor(text).ok_or("is broken"));
    } else {
        below = query.take("cursor", |text| list::parse_cursor(text).ok_or("is broken"));
    }
    query.finish()?;
    let filter = Filter {
        status,
        account,
        transaction_id,
        merchant_biz_id,
        registered_after,
        registered_before,
        below,
        limit: SHOWN,
    };
    Ok(Asked { given, filter, at_risk, after })
}

pub async fn page(State(api): State<Api>, headers: HeaderMap, uri: Uri) -> Page {
    let viewer = viewer(&api, &headers, &uri).await?;
    let Asked { given, filter, at_risk, after } = asked(&uri)?;
    let now = api.service.clock.now();
    let (rows, next) = if let Some(kind) = at_risk {
        let (rows, next) = at_risk::page(&api, kind, filter.account.as_deref(), after, SHOWN).await?;
        (rows.into_iter().map(|(record, deadline)| (record, Some(deadline))).collect(), next)
    } else {
        let (records, next) = list::page(&api, &filter).await?;
        (records.into_iter().map(|record| (record, None)).collect::<Vec<_>>(), next)
    };
    let accounts: Vec<&str> = api.service.accounts.keys().map(String::as_str).collect();
    let address = given.address();
    let is_first = filter.below.is_none() && after.is_none();
    let content = html! {
        h1 { "Verifications" }
        (form(&given, &accounts))
        div #list data-live {
            @if rows.is_empty() {
                p.calm { @if is_first { "None is like that." } @else { "No more." } }
            } @else {
                (listed(&rows, at_risk, now))
            }
            nav.pages aria-label="Pages of the list" {
                @if !is_first { a href={ "/console/verifications?" (address) } { "First page" } }
                @if let Some(next) = next {
                    a rel="next" href={ "/console/verifications?" (address) "&cursor=" (next) } { "Next page" }
                }
            }
        }
    };
    Ok(layout::page(&viewer, Place::Verifications, "Verifications", now, &content))
}

fn form(given: &Given, accounts: &[&str]) -> Markup {
    let open = [Status::Waiting, Status::Collecting];
    let statuses = open.into_iter().chain(FinalStatus::ALL.map(Status::Final));
    html! {
        form.filters action="/console/verifications" role="search" aria-label="Filter" {
            div {
                label for="status" { "Status" }
                select #status name="status" {
                    option value="" { "any" }
                    @for status in statuses {
                        option value=(status) selected[given.status == status.as_str()] { (status) }
                    }
                }
            }
            div {
                label for="account" { "Account" }
                select #account name="account" {
                    option value="" { "any" }
                    @for account in accounts { option value=(account) selected[given.account == *account] { (account) } }
                    @if !given.account.is_empty() && !accounts.contains(&given.account.as_str()) {
                        option value=(given.account) selected { (given.account) }
                    }
                }
            }
            (field("transaction_id", "Transaction", "text", &given.transaction_id))
            (field("merchant_biz_id", "Reference", "text", &given.merchant_biz_id))
            (field("registered_after", "Registered from (UTC)", "datetime-local", &given.registered_after))
            (field("registered_before", "until (UTC)", "datetime-local", &given.registered_before))
            div.act {
                button type="submit" { "Filter" }
                a.quiet href="/console/verifications" { "Clear" }
            }
        }
        p.shortcuts {
            a href="/console/verifications?at_risk=video" aria-current=[(given.at_risk == "video").then_some("true")] { "Videos at risk" }
            a href="/console/verifications?at_risk=result" aria-current=[(given.at_risk == "result").then_some("true")] { "Results at risk" }
        }
    }
}

fn field(name: &str, label: &str, kind: &str, value: &str) -> Markup {
    // A date field shows what it would send itself, so without seconds and zone.
    let value = if kind == "text" { value } else { value.get(..16).unwrap_or_default() };
    html! {
        div {
            label for=(name) { (label) }
            input id=(name) name=(name) type=(kind) value=(value) autocomplete="off" spellcheck="false";
        }
    }
}

fn listed(rows: &[(Record, Option<DateTime<Utc>>)], at_risk: Option<RiskKind>, now: DateTime<Utc>) -> Markup {
    let last = if at_risk.is_some() { "Lost" } else { "Decided, or next check" };
    let body = html! {
        @for (record, deadline) in rows {
            tr {
                td { (status(record.status.as_str())) }
                th scope="row" { a href={ "/console/verifications/" (record.id) } title=(record.id) { code { (short(&record.id.to_string())) } } }
                td { (when(record.registered_at, now)) }
                td.name { (record.account) }
                td { code { (record.merchant_biz_id) } }
                td {
                    @if let Some(code) = record.verdict.as_ref().and_then(|verdict| verdict.sub_code.as_deref()) { code { (code) } }
                    @else if let Some(error) = record.last_error.as_deref() { span.clip.muted title=(error) { (error) } }
                }
                td {
                    @match (deadline, &record.verdict, record.due_at) {
                        (Some(deadline), _, _) => { strong { (when(*deadline, now)) } }
                        (None, Some(verdict), _) => { (when(verdict.decided_at, now)) }
                        (None, None, Some(due_at)) => { (when(due_at, now)) }
                        (None, None, None) => { "–" }
                    }
                }
            }
        }
    };
    let head = ["Status", "Verification", "Registered", "Account", "Reference", "Code", last];
    let caption = if at_risk.is_some() { "At risk, least time left first" } else { "Newest first" };
    table(caption, &head, &body)
}

/// Leads to what an id, a transaction or a reference names.
pub async fn find(State(api): State<Api>, headers: HeaderMap, uri: Uri) -> Page {
    viewer(&api, &headers, &uri).await?;
    let mut query = Query::of(&uri);
    let wanted = query.take("q", list::text).unwrap_or_default();
    query.finish()?;
    let wanted = wanted.trim();
    if let Ok(id) = wanted.parse::<VerificationId>()
        && answered(api.service.store.record(id)).await?.is_some()
    {
        return Ok(see_other(&format!("/console/verifications/{id}")));
    }
    let by = |transaction_id: Option<&str>, merchant_biz_id: Option<&str>| Filter {
        transaction_id: transaction_id.map(str::to_owned),
        merchant_biz_id: merchant_biz_id.map(str::to_owned),
        limit: 2,
        ..Filter::default()
    };
    let found = answered(api.service.store.list(&by(Some(wanted), None))).await?;
    let name = if found.is_empty() { "merchant_biz_id" } else { "transaction_id" };
    let found = if found.is_empty() { answered(api.service.store.list(&by(None, Some(wanted)))).await? } else { found };
    Ok(match &found[..] {
        [one] => see_other(&format!("/console/verifications/{}", one.id)),
        _ if wanted.is_empty() => see_other("/console/verifications"),
        _ => see_other(&format!("/console/verifications?{name}={}", encoded(wanted))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_the_filter() {
        let uri: Uri =
            "/console/verifications?status=failed&account=&transaction_id=a%26b&registered_after=2026-01-31T12:00"
                .parse()
                .unwrap();
        let asked = asked(&uri).unwrap();
        assert_eq!(asked.filter.status, Some(Status::Final(FinalStatus::Failed)));
        assert_eq!(asked.filter.account, None);
        assert_eq!(asked.filter.registered_after.unwrap().to_rfc3339(), "2026-01-31T12:00:00+00:00");
        assert_eq!(asked.given.address(), "status=failed&transaction_id=a%26b&registered_after=2026%2D01%2D31T12%3A00");
        let wrong: Uri = "/console/verifications?status=lost".parse().unwrap();
        assert_eq!(super::asked(&wrong).err().unwrap().code(), "query_invalid");
    }
}

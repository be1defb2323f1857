//! What all pages share: the frame, the way between them, and how times, states and names look.

use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use maud::{DOCTYPE, Markup, html};

use super::assets::address;
use super::viewer::Viewer;
use crate::service::why::span;

/// The pages of the navigation.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Now,
    Verifications,
    Unmatched,
    Webhooks,
    Accounts,
    Configuration,
}

const PLACES: [(Place, &str, &str); 6] = [
    (Place::Now, "/console", "Now"),
    (Place::Verifications, "/console/verifications", "Verifications"),
    (Place::Unmatched, "/console/unmatched", "Unmatched"),
    (Place::Webhooks, "/console/webhooks", "Webhooks"),
    (Place::Accounts, "/console/accounts", "Accounts"),
    (Place::Configuration, "/console/configuration", "Configuration"),
];

/// From here on a date says more than a span.
const FAR: TimeDelta = TimeDelta::days(2);

/// How often a page with parts that change is looked at again.
const SECONDS: u32 = 5;

fn document(title: &str, is_live: bool, body: &Markup) -> Response {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · Checkback" }
                link rel="icon" type="image/svg+xml" href=(address("icon.svg"));
                link rel="stylesheet" href=(address("console.css"));
                script src=(address("console.js")) defer {}
            }
            body data-refresh=[is_live.then_some(SECONDS)] { (body) }
        }
    };
    let kind = HeaderValue::from_static("text/html; charset=utf-8");
    ([(header::CONTENT_TYPE, kind)], page.into_string()).into_response()
}

/// A page of the console.
pub fn page(viewer: &Viewer, place: Place, title: &str, now: DateTime<Utc>, content: &Markup) -> Response {
    let is_live = place != Place::Configuration;
    let body = html! {
        a.skip href="#main" { "To the content" }
        header.top {
            a.brand href="/console" { (mark()) span { "Checkback" } }
            nav aria-label="Pages" {
                ul {
                    @for (other, path, name) in PLACES {
                        li { a href=(path) aria-current=[(other == place).then_some("page")] { (name) } }
                    }
                }
            }
            form.find role="search" action="/console/find" {
                label.hidden for="find" { "Find a verification" }
                input #find type="search" name="q" placeholder="id, transaction or reference" autocomplete="off"
                    spellcheck="false";
                button.quiet type="submit" { "Find" }
            }
        }
        main #main tabindex="-1" { (content) }
        footer.bottom {
            p {
                "As of " (clock(now)) " UTC"
                @if is_live { span #live hidden { " · live" } }
            }
            @match &viewer.name {
                Some(name) => p { "Key " strong { (name) } }
                None => p { "No keys are asked for" }
            }
            p { a href="/console/docs" { "API" } }
            @if viewer.has_session {
                form method="post" action="/console/logout" {
                    (token(viewer))
                    button.quiet type="submit" { "Sign out" }
                }
            }
        }
        p #said.hidden role="status" aria-live="polite" {}
    };
    document(title, is_live, &body)
}

/// A page without a way to others.
pub fn bare(title: &str, content: &Markup) -> Response {
    let body = html! {
        header.top { a.brand href="/console" { (mark()) span { "Checkback" } } }
        main.narrow #main { (content) }
    };
    document(title, false, &body)
}

/// A check mark that comes back.
fn mark() -> Markup {
    html! {
        svg.mark viewBox="0 0 32 32" width="24" height="24" aria-hidden="true" focusable="false" {
            path.turn d="M27 16a11 11 0 1 1-3.4-8" {}
            path.arrow d="M24 3v5.4h-5.4" {}
            path.check d="M10.5 16.5l4 4 7-8" {}
        }
    }
}

/// Another page instead.
pub fn see_other(path: &str) -> Response {
    let path = HeaderValue::from_str(path).unwrap_or(HeaderValue::from_static("/console"));
    (StatusCode::SEE_OTHER, [(header::LOCATION, path)]).into_response()
}

/// What every form carries.
pub fn token(viewer: &Viewer) -> Markup {
    html! { input type="hidden" name="form_token" value=(viewer.form_token); }
}

pub fn status(status: &str) -> Markup {
    html! { span class={ "status " (status) } { (status) } }
}

fn exact(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// The date where it is not today's, and the time.
pub fn clock(at: DateTime<Utc>) -> Markup {
    html! { time datetime=(exact(at)) { (at.format("%Y-%m-%d %H:%M:%S")) } }
}

/// How far it is away, or the date where that is days; with the time itself when it is pointed at.
pub fn when(at: DateTime<Utc>, now: DateTime<Utc>) -> Markup {
    let away = if at > now { format!("in {}", span(at - now)) } else { format!("{} ago", span(now - at)) };
    let said = if (at - now).abs() < FAR { away } else { at.format("%Y-%m-%d %H:%M").to_string() };
    html! { time datetime=(exact(at)) title=(exact(at)) { (said) } }
}

/// A setting that is a time.
pub fn lasting(time: Duration) -> String {
    span(TimeDelta::from_std(time).unwrap_or(TimeDelta::MAX))
}

/// A time span, or a dash.
pub fn span_or_dash(time: Option<TimeDelta>) -> String {
    time.map_or_else(|| "–".to_owned(), span)
}

/// A table under its caption, which scrolls by itself on narrow screens. `head`: the columns.
pub fn table(caption: &str, head: &[&str], rows: &Markup) -> Markup {
    html! {
        div.scroll role="region" aria-label=(caption) tabindex="0" {
            table {
                caption { (caption) }
                thead { tr { @for name in head { th scope="col" { (name) } } } }
                tbody { (rows) }
            }
        }
    }
}

/// Whole numbers in groups of three.
pub fn number(value: i64) -> String {
    let digits = value.unsigned_abs().to_string();
    let mut text = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    if value < 0 { format!("-{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_numbers_are_grouped() {
        assert_eq!([number(7), number(1234), number(-1_234_567)], ["7", "1\u{202f}234", "-1\u{202f}234\u{202f}567"]);
    }

    #[test]
    fn times_say_how_far_they_are() {
        let at = |second| DateTime::from_timestamp(second, 0).unwrap();
        assert!(when(at(100), at(352)).into_string().contains(">4m 12s ago<"));
        assert!(when(at(400), at(352)).into_string().contains(">in 48s<"));
        assert!(when(at(0), at(1_000_000)).into_string().contains(">1970-01-01 00:00<"));
    }
}

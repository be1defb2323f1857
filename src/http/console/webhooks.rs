//! The webhooks that are configured.

use std::collections::BTreeSet;

use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use maud::html;

use super::Page;
use super::layout::{self, Place, table};
use super::viewer::viewer;
use crate::http::Api;

pub async fn page(State(api): State<Api>, headers: HeaderMap, uri: Uri) -> Page {
    let viewer = viewer(&api, &headers, &uri).await?;
    let settings: Vec<_> = api.console.section("webhooks.").collect();
    let numbers: BTreeSet<&str> = settings.iter().filter_map(|(name, _)| name.split('.').next()).collect();
    let rows = html! {
        @for (name, setting) in &settings {
            tr { th scope="row" { code { "webhooks." (name) } } td { code { (setting.value) } } td.muted { (setting.origin) } }
        }
    };
    let content = html! {
        h1 { "Webhooks" }
        section.card {
            @if settings.is_empty() {
                p.calm { "None is configured. Add [[webhooks]] to the configuration to be told of verdicts." }
            } @else {
                p { (numbers.len()) " configured. What was delivered is in the history of each verification." }
                (table("Webhooks as they are configured", &["Key", "Value", "From"], &rows))
            }
        }
    };
    Ok(layout::page(&viewer, Place::Webhooks, "Webhooks", api.service.clock.now(), &content))
}

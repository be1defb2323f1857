//! The configuration in effect: what `checkback config` prints, secrets redacted. And the page of the API, for browsers,
//! which send no keys.

use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use maud::html;

use super::Page;
use super::layout::{self, Place, table};
use super::viewer::viewer;
use crate::http::{Api, docs};

pub async fn page(State(api): State<Api>, headers: HeaderMap, uri: Uri) -> Page {
    let viewer = viewer(&api, &headers, &uri).await?;
    let rows = html! {
        @for setting in &api.console.settings {
            tr {
                th scope="row" { code { (setting.key) } }
                td { code { (setting.value) } }
                td class=[(setting.origin == "default").then_some("muted")] { (setting.origin) }
            }
        }
    };
    let content = html! {
        h1 { "Configuration" }
        p { "What is in effect since the start, and where each value comes from. Secrets are not shown. "
            code { "checkback config" } " prints the same." }
        (table("Settings in effect", &["Key", "Value", "From"], &rows))
    };
    Ok(layout::page(&viewer, Place::Configuration, "Configuration", api.service.clock.now(), &content))
}

pub async fn api_docs(State(api): State<Api>, headers: HeaderMap, uri: Uri) -> Page {
    viewer(&api, &headers, &uri).await?;
    Ok(docs::page())
}

//! What belongs to no verification: callbacks that came before their registration, callbacks that were refused for
//! their token, calls of Initialize that were lost.

use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use maud::{Markup, html};

use super::Page;
use super::layout::{self, Place, number, table, when};
use super::viewer::{encoded, viewer};
use crate::http::{Api, answered};
use crate::service::why::lost_call;

/// How many of each are shown.
const SHOWN: i64 = 100;

pub async fn page(State(api): State<Api>, headers: HeaderMap, uri: Uri) -> Page {
    let viewer = viewer(&api, &headers, &uri).await?;
    let (store, now) = (&api.service.store, api.service.clock.now());
    let asked = async { tokio::try_join!(store.unmatched(SHOWN), store.lost_initializations(None, SHOWN)) };
    let (unmatched, lost) = answered(asked).await?;
    let refused = api.service.callbacks.refused.latest(usize::try_from(SHOWN).unwrap_or(usize::MAX));
    let early = html! {
        @for row in &unmatched {
            tr {
                th scope="row" { code { (row.transaction_id) } }
                td { (row.account) }
                td { (when(row.received_at, now)) }
                td.number { (number(row.callbacks.into())) }
            }
        }
    };
    let wrong = html! {
        @for (account, transaction, refused) in &refused {
            tr {
                th scope="row" {
                    a href={ "/console/find?q=" (encoded(transaction)) } { code { (transaction) } }
                }
                td { (account) }
                td { (when(refused.last_at, now)) }
                td.number { (number(i64::try_from(refused.callbacks).unwrap_or(i64::MAX))) }
            }
        }
    };
    let calls = html! {
        @for lost in &lost {
            tr {
                th scope="row" { code { (lost.merchant_biz_id) } }
                td { (lost.account) }
                td { (when(lost.started_at, now)) }
                td { code { (lost.code) } }
            }
        }
    };
    let content = html! {
        h1 { "Unmatched" }
        div #unmatched data-live {
            (part("Callbacks before their registration",
                "The provider called about transactions that nobody has registered. They are kept for a day and worked in \
                 as soon as POST /verifications names the transaction. Your app must act: register them.",
                unmatched.is_empty(),
                &table("Callbacks before their registration", &["Transaction", "Account", "First came", "Callbacks"], &early)))
            (part("Callbacks with a wrong token",
                "Refused with 401, as this process saw them since its start. Either somebody else sends them, or your app \
                 registered another callback_token than it gave the provider.",
                refused.is_empty(),
                &table("Callbacks with a wrong token", &["Transaction", "Account", "Last came", "Callbacks"], &wrong)))
            (part("Calls of Initialize that were lost",
                lost.first().and_then(|first| lost_call(first).remedy).as_deref().unwrap_or_default(),
                lost.is_empty(),
                &table("Calls of Initialize that were lost", &["MerchantBizId", "Account", "Called", "Code"], &calls)))
        }
    };
    Ok(layout::page(&viewer, Place::Unmatched, "Unmatched", now, &content))
}

fn part(title: &str, what: &str, is_empty: bool, rows: &Markup) -> Markup {
    html! {
        section.card {
            h2 { (title) }
            @if is_empty { p.calm { "None." } } @else { p { (what) } (rows) }
        }
    }
}

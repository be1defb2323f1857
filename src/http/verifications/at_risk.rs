//! `GET /verifications?at_risk=video|result`: what the provider deletes soon, least time left first.

use axum::Json;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::body::render;
use super::list::{CURSOR, LIMIT, Page, next_page, parse_limit, text};
use super::query::Query;
use crate::domain::VerificationId;
use crate::domain::risk::RiskKind;
use crate::http::{Api, Problem, answered};
use crate::service::account::Account;
use crate::store::{Record, RiskCursor, Window};

/// They choose among all verifications; this list is of open work in another order.
const NOT_WITH: [&str; 5] = ["status", "transaction_id", "merchant_biz_id", "registered_after", "registered_before"];

/// The page that `query` asks for; everything but `at_risk` is still in it.
pub async fn list(api: &Api, kind: Option<RiskKind>, mut query: Query) -> Result<Response, Problem> {
    for name in NOT_WITH {
        let _never: Option<()> = query.take(name, |_| Err("cannot be combined with at_risk"));
    }
    let account = query.take("account", text);
    let after = query.take("cursor", |text| parse_cursor(text).ok_or(CURSOR));
    let limit = query.take("limit", parse_limit).unwrap_or(LIMIT);
    query.finish()?;
    let kind = kind.expect("one that cannot be read is a wrong value, which was refused");
    let (rows, next_cursor) = page(api, kind, account.as_deref(), after, limit).await?;
    let service = &api.service;
    let items = rows
        .iter()
        .map(|(record, _)| render(record, service.accounts.get(&record.account).map(AsRef::as_ref)))
        .collect();
    Ok(Json(Page { items, next_cursor }).into_response())
}

/// What is at risk, each with its deadline, and where the next page begins.
pub(in crate::http) async fn page(
    api: &Api,
    kind: RiskKind,
    account: Option<&str>,
    after: Option<RiskCursor>,
    limit: i64,
) -> Result<(Vec<(Record, DateTime<Utc>)>, Option<String>), Problem> {
    let service = &api.service;
    let windows: Vec<Window<'_>> = service
        .accounts
        .values()
        .map(AsRef::<Account>::as_ref)
        .filter(|known| account.is_none_or(|account| *account == known.name))
        .map(|known| known.window(kind))
        .collect();
    let mut rows = answered(service.store.at_risk(&windows, after, limit + 1, service.clock.now())).await?;
    let next_cursor =
        next_page(&mut rows, limit, |(last, deadline)| cursor(RiskCursor { deadline: *deadline, id: last.id }));
    Ok((rows, next_cursor))
}

fn cursor(at: RiskCursor) -> String {
    let mut bytes = [0; 24];
    bytes[..8].copy_from_slice(&at.deadline.timestamp_micros().to_be_bytes());
    bytes[8..].copy_from_slice(at.id.0.as_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

pub(in crate::http) fn parse_cursor(text: &str) -> Option<RiskCursor> {
    let bytes: [u8; 24] = URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()?;
    let (micros, id) = bytes.split_first_chunk::<8>()?;
    let deadline = DateTime::<Utc>::from_timestamp_micros(i64::from_be_bytes(*micros))?;
    Some(RiskCursor { deadline, id: VerificationId(Uuid::from_slice(id).ok()?) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_reads_back_and_a_broken_one_is_refused() {
        let deadline = DateTime::<Utc>::from_timestamp_micros(1_800_000_000_123_456).unwrap();
        let at = RiskCursor { deadline, id: VerificationId(Uuid::from_u128(42)) };
        assert_eq!(parse_cursor(&cursor(at)), Some(at));
        for broken in ["", "x", "AAAA", "!!!!", &"_".repeat(33), &"A".repeat(22)] {
            assert_eq!(parse_cursor(broken), None, "{broken}");
        }
    }
}

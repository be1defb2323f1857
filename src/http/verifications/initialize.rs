//! `POST /verifications` with `initialize`: the provider is asked for a new transaction, once for each
//! `Idempotency-Key`.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use tokio::sync::oneshot;
use url::Url;

use super::body::time;
use super::register::{Common, Given, Members, respond};
use crate::http::error::FieldError;
use crate::http::{Api, Problem};
use crate::service::account::Account;
use crate::service::initialize::{Beside, NotStarted, Wish};
use crate::service::pace::NoSlot;

const KEY: &str = "idempotency-key";
const LONGEST_KEY: usize = 128;

pub async fn initialize(api: &Api, key: Option<String>, given: Given) -> Result<Response, Problem> {
    let request_sha256 = fingerprint(&given)?;
    let (account, wish) = parse(&api.service.accounts, given, key, request_sha256)?;
    let (sender, answer) = oneshot::channel();
    // On a task of its own: a caller that hangs up must not leave a call without its end.
    let (service, of) = (api.service.clone(), Arc::clone(&account));
    api.tasks.spawn(async move { service.initialize(&of, wish, sender).await });
    let started = answer.await.map_err(|_| Problem::initialize_interrupted())??;
    let status = if started.is_new { StatusCode::CREATED } else { StatusCode::OK };
    let client = started.client.unwrap_or_else(|| "null".to_owned());
    let client = RawValue::from_string(client).map_err(|_| Problem::internal())?;
    respond(api, &account, started.id, status, Some(client)).await
}

/// The request's key, if it has one.
pub fn key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut keys = headers.get_all(KEY).iter();
    let Some(key) = keys.next() else { return Ok(None) };
    let is_good =
        |key: &&str| (1..=LONGEST_KEY).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic());
    let key = key.to_str().ok().filter(is_good);
    match (key, keys.next()) {
        (Some(key), None) => Ok(Some(key.to_owned())),
        _ => Err(Problem::idempotency_key_invalid()),
    }
}

/// The same for every spelling of the same body.
fn fingerprint(given: &Given) -> Result<[u8; 32], Problem> {
    let mut hash = Sha256::new();
    for (name, raw) in given {
        // Members come in the order of their names, here and within.
        let value: Value = serde_json::from_str(raw.get())
            .map_err(|_| Problem::body_invalid(vec![FieldError::new(name.clone(), "cannot be read")]))?;
        if !value.is_null() {
            hash.update(Value::from(name.as_str()).to_string());
            hash.update(":");
            hash.update(value.to_string());
            hash.update(",");
        }
    }
    Ok(hash.finalize().into())
}

fn parse(
    accounts: &BTreeMap<String, Arc<Account>>,
    given: Given,
    key: Option<String>,
    request_sha256: [u8; 32],
) -> Result<(Arc<Account>, Wish), Problem> {
    let mut members = Members::of(given);
    let initialize = members.left.remove("initialize");
    let initialize = initialize.map(|raw| serde_json::from_str::<Map<String, Value>>(raw.get()));
    for (name, message) in [
        ("transaction_id", "must not be given with `initialize`: the provider makes it"),
        ("callback_token", "must not be given with `initialize`: Checkback makes it"),
    ] {
        if members.left.remove(name).is_some_and(|raw| raw.get() != "null") {
            members.errors.push(FieldError::new(name, message));
        }
    }
    let Common { account, merchant_biz_id, product, expect_video, return_url, metadata } = members.common(accounts);
    let beside = Beside { product: product.as_deref(), has_return_url: return_url.is_some() };
    let prepared = match (initialize, &account) {
        (Some(Ok(initialize)), Some(account)) => match account.prepare(initialize, beside) {
            Ok(prepared) => Some(prepared),
            Err(wrong) => {
                members.errors.extend(wrong.into_iter().map(|wrong| {
                    let field = if wrong.name.is_empty() {
                        "initialize".to_owned()
                    } else {
                        format!("initialize.{}", wrong.name)
                    };
                    FieldError::new(field, wrong.message)
                }));
                None
            }
        },
        (Some(Ok(_)), None) => None,
        _ => {
            members.errors.push(FieldError::new("initialize", "must be an object"));
            None
        }
    };
    let errors = members.finish();
    match (account, prepared) {
        (Some(account), Some(prepared)) if errors.is_empty() => {
            let return_url = return_url.and_then(|url| Url::parse(&url).ok());
            let wish =
                Wish { prepared, merchant_biz_id, product, expect_video, return_url, metadata, key, request_sha256 };
            Ok((account, wish))
        }
        _ => Err(Problem::body_invalid(errors)),
    }
}

impl From<NotStarted> for Problem {
    fn from(error: NotStarted) -> Self {
        use crate::service::initialize::InitializeError as Provider;
        match error {
            NotStarted::InProgress => Self::initialize_in_progress(),
            NotStarted::KeyReused => Self::idempotency_key_reused(),
            NotStarted::NoSlot(NoSlot::Spent { retry_after }) => Self::throttled(retry_after),
            NotStarted::NoSlot(NoSlot::Failing { reason, code, retry_after }) => {
                Self::account_failing(&reason, &code, retry_after)
            }
            NotStarted::NoSlot(NoSlot::Store(error)) => error.into(),
            NotStarted::Provider(Provider::Refused { code }) => Self::initialize_refused(&code),
            NotStarted::Provider(Provider::Throttled { retry_after, .. }) => {
                Self::throttled(retry_after.unwrap_or_default())
            }
            NotStarted::Provider(Provider::Account { trouble, code }) => {
                Self::account_failing(trouble.as_str(), &code, std::time::Duration::from_secs(5))
            }
            NotStarted::Provider(Provider::NotSent { code } | Provider::Lost { code }) => {
                Self::provider_unavailable(&code)
            }
            NotStarted::Lost { code, at, merchant_biz_id } => Self::initialize_lost(&code, &time(at), &merchant_biz_id),
            NotStarted::Unstored { transaction_id, merchant_biz_id } => {
                Self::initialize_unstored(&transaction_id, &merchant_biz_id)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn print(body: &str) -> [u8; 32] {
        fingerprint(&serde_json::from_str(body).unwrap()).unwrap()
    }

    #[test]
    fn spelling_changes_no_fingerprint_and_every_value_does() {
        let body = r#"{"account":"a","initialize":{"A":"1","B":{"c":1,"d":2}}}"#;
        for same in [
            r#" { "initialize" : {"B":{"d":2,"c":1},"A":"\u0031"}, "account":"a" } "#,
            r#"{"account":"a","product":null,"initialize":{"A":"1","B":{"c":1,"d":2}}}"#,
        ] {
            assert_eq!(print(body), print(same), "{same}");
        }
        for other in [
            r#"{"account":"b","initialize":{"A":"1","B":{"c":1,"d":2}}}"#,
            r#"{"account":"a","initialize":{"A":1,"B":{"c":1,"d":2}}}"#,
            r#"{"account":"a","initialize":{"A":"1","B":{"c":1,"d":3}}}"#,
            r#"{"account":"a","initialize":{"A":"1","B":{"c":1,"d":2}},"metadata":{}}"#,
        ] {
            assert_ne!(print(body), print(other), "{other}");
        }
    }

    #[test]
    fn a_key_is_one_short_printable_word() {
        let read = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(KEY, value.parse().unwrap());
            }
            key(&headers).map_err(|problem| problem.code())
        };
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(read(&["\"8e03978e-40d5\""]), Ok(Some("\"8e03978e-40d5\"".to_owned())));
        let long = "x".repeat(LONGEST_KEY + 1);
        for bad in [&[""][..], &["a b"], &["é"], &[&long], &["a", "a"]] {
            assert_eq!(read(bad), Err("idempotency_key_invalid"), "{bad:?}");
        }
    }
}

//! `POST /verifications`: register a transaction that the merchant's own server started at the provider, or, with
//! `initialize`, have it started here.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use serde_json::value::RawValue;
use url::Url;

use super::body::{VerificationBody, render};
use super::initialize;
use crate::domain::{TokenHash, VerificationId, json};
use crate::http::auth::Scope;
use crate::http::error::FieldError;
use crate::http::openapi::requests::RegisterRequest;
use crate::http::{Api, Problem, answered, body};
use crate::service::account::Account;
use crate::service::register::Registration;
use crate::store::Registered;

/// Of the compact form.
const MOST_METADATA: usize = 4096;

/// Register a transaction, or start one
///
/// The key is `account` and `transaction_id`: the same again is answered with 200 and the verification as it stands, as
/// long as every member given equals the stored one. With `initialize` in place of `transaction_id` Checkback asks the
/// provider for a new transaction; send an `Idempotency-Key` so that your own retry is safe.
#[utoipa::path(
    post,
    path = "/verifications",
    operation_id = "register_verification",
    tag = "verifications",
    params(("Idempotency-Key" = Option<String>, Header, pattern = "^[!-~]{1,128}$",
        description = "For `initialize`: the same key brings the same answer, for 30 days.")),
    request_body(content = RegisterRequest, examples(
        ("registered" = (summary = "A transaction that your server started", value = json!({
            "account": "alibaba-sg", "transaction_id": "hksbd5b4dfdf6b71176a57174345482d",
            "callback_token": "7ca5c68d869344ea8eeb30cdfd544544", "product": "FACE_LIVENESS",
            "metadata": {"order": "A-17"}}))),
        ("initialize" = (summary = "Have it started", value = json!({
            "account": "alibaba-sg", "return_url": "https://shop.example/after-check", "metadata": {"order": "A-18"},
            "initialize": {"ProductCode": "FACE_LIVENESS", "MetaInfo": "{\"deviceType\":\"web\"}",
                "MerchantUserId": "user-1", "DocVideo": "Y"}}))),
    )),
    responses(
        (status = 201, description = "Registered.", body = VerificationBody,
            headers(("Location" = String, description = "Where it is shown.")),
            links(
                ("show" = (operation_id = "show_verification", parameters(("id" = "$response.body#/id")))),
                ("history" = (operation_id = "show_history", parameters(("id" = "$response.body#/id")))),
                ("collect" = (operation_id = "collect_verification", parameters(("id" = "$response.body#/id")))),
                ("answer" = (operation_id = "show_answer", parameters(("id" = "$response.body#/id")))),
                ("evidence" = (operation_id = "show_evidence", parameters(("id" = "$response.body#/id")))),
                ("erase" = (operation_id = "erase_verification", parameters(("id" = "$response.body#/id")))),
            )),
        (status = 200, description = "The same was registered before; this is how it stands.", body = VerificationBody,
            headers(("Location" = String, description = "Where it is shown."))),
    ),
    extensions(
        ("x-required-scope" = json!("register")),
        ("x-problems" = json!([
            "body_malformed", "body_unsupported", "body_too_large", "body_invalid", "transaction_conflict",
            "idempotency_key_invalid", "idempotency_key_reused", "initialize_in_progress", "initialize_refused",
            "initialize_lost", "initialize_unstored", "throttled", "account_failing", "provider_unavailable",
            "database_unavailable", "stopping",
        ])),
    ),
)]
pub async fn register(State(api): State<Api>, request: Request) -> Result<Response, Problem> {
    let (parts, content) = request.into_parts();
    api.keys.require(&parts.headers, Scope::Register)?;
    let given = object(&parts.headers, content).await?;
    // A bad one is told also where it would not be needed: a register is safe to repeat by itself.
    let key = initialize::key(&parts.headers)?;
    if is_given(&given, "initialize") {
        return initialize::initialize(&api, key, given).await;
    }
    let (account, registration) = parse(&api.service.accounts, given)?;
    let (id, status) = match answered(api.service.register(&account, registration)).await? {
        Registered::New { id, .. } => (id, StatusCode::CREATED),
        Registered::Same(id) => (id, StatusCode::OK),
        Registered::Conflict { id, members } => return Err(Problem::transaction_conflict(id, &members)),
    };
    respond(&api, &account, id, status, None).await
}

/// The verification as it stands, and what the client needs where it was started here.
pub(super) async fn respond(
    api: &Api,
    account: &Account,
    id: VerificationId,
    status: StatusCode,
    client: Option<Box<RawValue>>,
) -> Result<Response, Problem> {
    let record = answered(api.service.store.record(id)).await?.ok_or_else(Problem::internal)?;
    let location = HeaderValue::from_str(&format!("/verifications/{id}")).map_err(|_| Problem::internal())?;
    let mut body = render(&record, Some(account));
    body.client = client;
    Ok((status, [(header::LOCATION, location)], Json(body)).into_response())
}

pub(super) type Given = BTreeMap<String, Box<RawValue>>;

fn is_given(given: &Given, name: &str) -> bool {
    given.get(name).is_some_and(|raw| raw.get() != "null")
}

async fn object(headers: &HeaderMap, content: axum::body::Body) -> Result<Given, Problem> {
    let read = |whole: &RawValue| serde_json::from_str::<Given>(whole.get());
    // Only pictures need so much room.
    let may_be_large = |whole: &RawValue| read(whole).is_ok_and(|given| is_given(&given, "initialize"));
    let whole = body::large_json(headers, content, may_be_large)
        .await?
        .ok_or_else(|| Problem::body_malformed("The body is empty. Send a JSON object."))?;
    read(&whole).map_err(|_| Problem::body_invalid(vec![FieldError::new("", "the body must be an object")]))
}

/// The members of the body, each taken out and checked; what is left at the end is unknown.
pub(super) struct Members {
    pub left: Given,
    pub errors: Vec<FieldError>,
}

/// The members that every registration may have.
pub(super) struct Common {
    pub account: Option<Arc<Account>>,
    pub merchant_biz_id: Option<String>,
    pub product: Option<String>,
    pub expect_video: Option<bool>,
    pub return_url: Option<String>,
    pub metadata: Option<Box<RawValue>>,
}

impl Members {
    pub fn of(given: Given) -> Self {
        Self { left: given, errors: Vec::new() }
    }

    pub fn common(&mut self, accounts: &BTreeMap<String, Arc<Account>>) -> Common {
        Common {
            account: self.account(accounts),
            merchant_biz_id: self.text("merchant_biz_id", |text| {
                let is_good = (1..=32).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
                if is_good { Ok(()) } else { Err("must have 1 to 32 letters and digits") }
            }),
            product: self.text("product", |text| {
                let is_good = (1..=64).contains(&text.len())
                    && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
                if is_good { Ok(()) } else { Err("must have 1 to 64 letters, digits, `_` and `-`") }
            }),
            expect_video: self.flag("expect_video"),
            return_url: self.text("return_url", |text| {
                // The parser drops line breaks and escapes other control characters; what is stored is what was given.
                let is_good = text.len() <= 2048
                    && !text.chars().any(char::is_control)
                    && Url::parse(text).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
                if is_good { Ok(()) } else { Err("must be an absolute http or https URL of at most 2048 bytes") }
            }),
            metadata: self.metadata(),
        }
    }

    fn account(&mut self, accounts: &BTreeMap<String, Arc<Account>>) -> Option<Arc<Account>> {
        let had_account = self.left.contains_key("account");
        let errors_before = self.errors.len();
        match self.text("account", |_| Ok(())) {
            Some(name) => match accounts.get(&name) {
                Some(account) => Some(Arc::clone(account)),
                None => self.wrong("account", "is not an account in the configuration"),
            },
            None if had_account && self.errors.len() > errors_before => None,
            None if accounts.len() == 1 => accounts.values().next().map(Arc::clone),
            None => self.wrong("account", "is required, because not exactly one account is configured"),
        }
    }

    /// What is wrong, members that nobody asked for included.
    pub fn finish(self) -> Vec<FieldError> {
        let mut errors = self.errors;
        errors.extend(self.left.into_keys().map(|name| FieldError::new(name, "is not a member of this request")));
        errors
    }

    /// The member's text, if it is one that `accept` finds nothing wrong with. Null counts as absent.
    fn text(&mut self, name: &'static str, accept: impl FnOnce(&str) -> Result<(), &'static str>) -> Option<String> {
        let raw = self.left.remove(name)?;
        match serde_json::from_str::<Value>(raw.get()) {
            Ok(Value::Null) => None,
            Ok(Value::String(text)) => match accept(&text) {
                Ok(()) => Some(text),
                Err(message) => self.wrong(name, message),
            },
            _ => self.wrong(name, "must be a text"),
        }
    }

    fn flag(&mut self, name: &'static str) -> Option<bool> {
        let raw = self.left.remove(name)?;
        match serde_json::from_str::<Option<bool>>(raw.get()) {
            Ok(flag) => flag,
            Err(_) => self.wrong(name, "must be true or false"),
        }
    }

    fn metadata(&mut self) -> Option<Box<RawValue>> {
        let raw = self.left.remove("metadata")?;
        if raw.get() == "null" {
            return None;
        }
        let compact = compact(raw.get());
        if compact.len() > MOST_METADATA {
            return self.wrong("metadata", "must have at most 4 KiB in its compact form");
        }
        if let Err(message) = json::check_object(&raw) {
            return self.wrong("metadata", message);
        }
        // Taking blanks out of JSON leaves JSON.
        RawValue::from_string(compact).ok()
    }

    fn wrong<T>(&mut self, name: &'static str, message: &'static str) -> Option<T> {
        self.errors.push(FieldError::new(name, message));
        None
    }
}

fn parse(accounts: &BTreeMap<String, Arc<Account>>, given: Given) -> Result<(Arc<Account>, Registration), Problem> {
    let mut members = Members::of(given);
    // Null, or we would not be here.
    members.left.remove("initialize");
    let errors_before = members.errors.len();
    let transaction_id = members.text("transaction_id", |text| plain(text, 128, "must have 1 to 128 characters"));
    if transaction_id.is_none() && members.errors.len() == errors_before {
        members.errors.push(FieldError::new("transaction_id", "is required, or `initialize` in its place"));
    }
    let callback_token = members.text("callback_token", |text| plain(text, 512, "must have 1 to 512 characters"));
    let Common { account, merchant_biz_id, product, expect_video, return_url, metadata } = members.common(accounts);
    // A product that is no name is refused already.
    if let (Some(account), false) = (&account, members.errors.iter().any(|error| error.field == "product"))
        && let Err(message) = account.check_product(product.as_deref())
    {
        members.errors.push(FieldError::new("product", message));
    }
    let errors = members.finish();
    match (account, transaction_id) {
        (Some(account), Some(transaction_id)) if errors.is_empty() => Ok((
            account,
            Registration {
                transaction_id,
                merchant_biz_id,
                callback_token: callback_token.as_deref().map(TokenHash::of),
                product,
                expect_video,
                return_url,
                metadata,
            },
        )),
        _ => Err(Problem::body_invalid(errors)),
    }
}

fn plain(text: &str, most: usize, message: &'static str) -> Result<(), &'static str> {
    if text.chars().any(char::is_control) {
        return Err("must not hold control characters");
    }
    let is_good = (1..=most).contains(&text.chars().count()) && !text.trim().is_empty();
    if is_good { Ok(()) } else { Err(message) }
}

/// `json` without the blanks between its tokens; numbers keep their digits.
fn compact(json: &str) -> String {
    let mut in_text = false;
    let mut escaped = false;
    json.chars()
        .filter(|&character| {
            if in_text {
                in_text = escaped || character != '"';
                escaped = !escaped && character == '\\';
                return true;
            }
            in_text = character == '"';
            !character.is_ascii_whitespace()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::provider::{Answer, CheckRequest, Provider};
    use crate::service::account::{Pacing, Rotating, Starting};

    #[test]
    fn compacting_keeps_texts_and_digits() {
        let given = "{ \"a b\" : [ 1.0 , 12345678901234567890123 ],\n\t\"quote\\\" \" : \" x \\\\\" }";
        assert_eq!(compact(given), r#"{"a b":[1.0,12345678901234567890123],"quote\" ":" x \\"}"#);
    }

    struct OneProduct;

    impl Provider for OneProduct {
        fn check_result<'a>(&'a self, _: &'a CheckRequest) -> Answer<'a> {
            unreachable!("registering asks nobody")
        }

        fn check_product(&self, product: Option<&str>) -> Result<(), &'static str> {
            if product.is_none_or(|product| product == "GOOD") { Ok(()) } else { Err("is not GOOD") }
        }
    }

    #[test]
    fn a_product_that_the_provider_does_not_take_is_refused_at_its_member() {
        let account = Account {
            name: "a".into(),
            qps: 1,
            result_retention: Duration::from_secs(1),
            video_retention: Duration::from_secs(1),
            give_up_after: Duration::from_secs(1),
            callback_token: Rotating::new(None),
            starting: Starting::default(),
            pacing: Pacing::default(),
            providers: Rotating::new(Arc::new(OneProduct)),
            downloader: None,
        };
        let accounts = BTreeMap::from([("a".to_owned(), Arc::new(account))]);
        let parsed = |body: &str| parse(&accounts, serde_json::from_str(body).unwrap());
        for body in [r#"{"transaction_id":"t"}"#, r#"{"transaction_id":"t","product":"GOOD"}"#] {
            assert!(parsed(body).is_ok(), "{body}");
        }
        for (body, refused) in [
            (r#"{"transaction_id":"t","product":"BAD"}"#, true),
            (r#"{"transaction_id":"t","product":7}"#, false),
            (r#"{"account":"b","transaction_id":"t","product":"BAD"}"#, false),
        ] {
            let problem = format!("{:?}", parsed(body).err());
            assert_eq!(problem.contains("\"product\", message: \"is not GOOD\""), refused, "{problem}");
        }
    }

    proptest! {
        #[test]
        fn compacting_changes_no_meaning(texts in proptest::collection::vec(".*", 0..6)) {
            let value = serde_json::json!({ "texts": texts, "deep": { "n": [1, 2.5, null] } });
            let pretty = serde_json::to_string_pretty(&value).unwrap();
            prop_assert_eq!(compact(&pretty), value.to_string());
        }
    }
}

//! `/callbacks/{account}`: what a provider, or anybody, sends when a person is done.
//!
//! Nothing here reaches a verdict. The answer is sent after what it says is committed.

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use secrecy::ExposeSecret;

use super::openapi::requests::{Arrival200, Arrival202, CallbackRequest};
use super::{Api, Problem, answered, body};
use crate::domain::TokenHash;
use crate::service::accept_callback::{Body, MalformedCallback, Notice};
use crate::service::account::Account;
use crate::store::{AccountToken, Arrival, Arrived};
use crate::traces::{Parent, Span, SpanKind, TRACEPARENT};

const ACCEPTED: &str = r#"{"status":"accepted"}"#;
const UNMATCHED: &str = r#"{"status":"unmatched"}"#;

/// Take a callback, its parameters in the query
///
/// What a provider sends when a person is done. It is a hint: nothing of it reaches a verdict. It is answered after
/// what the answer says is committed. Names are matched without regard to case, unknown ones are ignored.
#[utoipa::path(
    get,
    path = "/callbacks/{account}",
    operation_id = "accept_callback",
    tag = "callbacks",
    params(
        ("account" = String, Path, description = "Name of an account in the configuration.", example = "alibaba-sg"),
        ("transactionId" = String, Query, min_length = 1, max_length = 128,
            pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*[^\\x00-\\x1f\\x7f-\\x9f\\s][^\\x00-\\x1f\\x7f-\\x9f]*$",
            example = "hksbd5b4dfdf6b71176a57174345482d"),
        ("callbackToken" = Option<String>, Query, max_length = 2048, description = "The token that was registered.",
            example = "7ca5c68d869344ea8eeb30cdfd544544"),
        ("passed" = Option<String>, Query, description = "A claim; kept in the history.", example = "Y"),
        ("subCode" = Option<String>, Query, description = "A claim; kept in the history.", example = "200"),
    ),
    responses(
        (status = 200, description = "Recorded; the provider is asked now.", body = Arrival200),
        (status = 202, description = "Not registered yet; kept for 24 hours.", body = Arrival202),
    ),
    extensions(
        ("x-listener" = json!("public")),
        ("x-required-scope" = json!(null)),
        ("x-problems" = json!([
            "account_unknown", "callback_malformed", "callback_token_mismatch", "transaction_unknown",
            "database_unavailable", "overloaded", "stopping",
        ])),
    ),
)]
pub async fn accept(state: State<Api>, name: Result<Path<String>, PathRejection>, request: Request) -> Response {
    take(state, name, request).await
}

/// Take a callback, its parameters in a form, in JSON or in the query
///
/// Query and body are read as one.
#[utoipa::path(
    post,
    path = "/callbacks/{account}",
    operation_id = "accept_posted_callback",
    tag = "callbacks",
    params(("account" = String, Path, description = "Name of an account in the configuration.", example = "alibaba-sg")),
    request_body(content(
        (CallbackRequest = "application/json", example = json!({
            "transactionId": "hksbd5b4dfdf6b71176a57174345482d", "callbackToken": "7ca5c68d869344ea8eeb30cdfd544544",
            "passed": "Y", "subCode": "200"})),
        (CallbackRequest = "application/x-www-form-urlencoded"),
    )),
    responses(
        (status = 200, description = "Recorded; the provider is asked now.", body = Arrival200),
        (status = 202, description = "Not registered yet; kept for 24 hours.", body = Arrival202),
    ),
    extensions(
        ("x-listener" = json!("public")),
        ("x-required-scope" = json!(null)),
        ("x-problems" = json!([
            "account_unknown", "callback_malformed", "callback_unsupported", "callback_token_mismatch",
            "transaction_unknown", "body_too_large", "database_unavailable", "overloaded", "stopping",
        ])),
    ),
)]
pub async fn accept_posted(state: State<Api>, name: Result<Path<String>, PathRejection>, request: Request) -> Response {
    take(state, name, request).await
}

async fn take(State(api): State<Api>, name: Result<Path<String>, PathRejection>, request: Request) -> Response {
    let Some(account) = name.ok().and_then(|Path(name)| api.service.accounts.get(&name)) else {
        // The name may be anything, so it is no label.
        count("", "account_unknown");
        return Problem::account_unknown().into_response();
    };
    let mut span = api.service.traces.start("callback", SpanKind::Server, Parent::Stranger(traceparent(&request)));
    let arrived = record(&api, account, request, &span).await;
    if let Ok(Arrived::Accepted | Arrived::Unmatched) = arrived {
        span.set("checkback.account", account.name.clone());
        drop(span);
    } else {
        span.discard();
    }
    match arrived {
        // Accepted ones are counted when they are worked in: only then is it known which are repeats.
        Ok(Arrived::Accepted) => answer(StatusCode::OK, ACCEPTED),
        Ok(Arrived::Unmatched) => {
            count(&account.name, "unmatched");
            answer(StatusCode::ACCEPTED, UNMATCHED)
        }
        Ok(Arrived::TokenMismatch) => refuse(account, "token_mismatch", Problem::callback_token_mismatch()),
        Ok(Arrived::Unknown) => refuse(account, "transaction_unknown", Problem::transaction_unknown()),
        Err(problem) => {
            let result = match problem.code() {
                "body_too_large" => "too_large",
                "body_too_slow" => "too_slow",
                "database_unavailable" | "overloaded" | "stopping" => "unavailable",
                _ => "malformed",
            };
            refuse(account, result, problem)
        }
    }
}

fn traceparent(request: &Request) -> Option<&str> {
    request.headers().get(TRACEPARENT)?.to_str().ok()
}

async fn record(api: &Api, account: &Account, request: Request, span: &Span) -> Result<Arrived, Problem> {
    let at = api.service.clock.now();
    let notice = if request.method() == Method::POST {
        let (parts, body) = request.into_parts();
        let bytes = body::read(&parts.headers, body).await.map_err(|problem| match problem.code() {
            "body_malformed" => Problem::callback_malformed("The body broke off before its end."),
            _ => problem,
        })?;
        let content_type = parts.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        Notice::parse(parts.uri.query(), Some(Body { content_type, bytes: &bytes }))
    } else {
        Notice::parse(request.uri().query(), None)
    }
    .map_err(|error| match error {
        MalformedCallback::UnsupportedBody => Problem::callback_unsupported(),
        other => Problem::callback_malformed(format!("Nothing was recorded: {other}.")),
    })?;
    let token = notice.callback_token.as_ref().map(|token| TokenHash::of(token.expose_secret()));
    let account_token = match (account.callback_token.get(), token) {
        (None, _) => AccountToken::Unset,
        (Some(expected), Some(given)) if expected == given => AccountToken::Right,
        (Some(_), _) => AccountToken::Wrong,
    };
    let arrival = Arrival {
        account: account.name.clone(),
        transaction_id: notice.transaction_id,
        token,
        account_token,
        passed: notice.passed,
        sub_code: notice.sub_code,
        traceparent: span.traceparent(),
        at,
    };
    answered(api.service.callbacks.accept(arrival)).await
}

fn answer(status: StatusCode, body: &'static str) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

fn refuse(account: &Account, result: &'static str, problem: Problem) -> Response {
    count(&account.name, result);
    problem.into_response()
}

fn count(account: &str, result: &'static str) {
    metrics::counter!("checkback_callbacks_total", "account" => account.to_owned(), "result" => result).increment(1);
}

//! `/returns/{account}`: a person's browser on its way back from the provider.
//!
//! It goes only where the registration said. Which registration that is, the signed state tells; whatever else the
//! browser brings is not looked at.

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use percent_encoding::percent_decode_str;
use serde_json::Value;
use url::Url;

use super::{Api, Problem, answered};

const DONE: &str = "You can close this window.\n";

/// More are not tried: a provider sends one or two.
const MOST_STATES: usize = 4;

/// Take the person's browser back
///
/// The way from the provider to the `return_url` of the registration. `state` is made and signed by Checkback; nothing
/// else is looked at. A check is made due, at most every 30 seconds.
#[utoipa::path(
    get,
    path = "/returns/{account}",
    operation_id = "go_back",
    tag = "callbacks",
    params(
        ("account" = String, Path, description = "Name of an account in the configuration.", example = "alibaba-sg"),
        ("state" = Option<String>, Query, description = "Names the verification."),
        ("response" = Option<String>, Query, description = "ZOLOZ: JSON with a member `state`."),
    ),
    responses(
        (status = 303, description = "To the `return_url`.", headers(("Location" = String, description = "There."))),
        (status = 200, description = "The registration has no `return_url`.", body = String),
    ),
    extensions(
        ("x-listener" = json!("public")),
        ("x-required-scope" = json!(null)),
        ("x-problems" = json!(["account_unknown", "return_state_invalid", "database_unavailable"])),
    ),
)]
pub async fn go_on(State(api): State<Api>, name: Result<Path<String>, PathRejection>, uri: Uri) -> Response {
    let Some(account) = name.ok().and_then(|Path(name)| api.service.accounts.get(&name)) else {
        // The name may be anything, so it is no label.
        return finish("", "account_unknown", Problem::account_unknown().into_response());
    };
    let states = states(uri.query().unwrap_or_default());
    let (result, response) = match answered(api.service.browser_returned(account, &states)).await {
        Ok(Some(returned)) => match returned.return_url.and_then(|url| location(&url)) {
            Some(location) => ("redirected", (StatusCode::SEE_OTHER, [(header::LOCATION, location)]).into_response()),
            None => ("no_return_url", DONE.into_response()),
        },
        Ok(None) => ("state_invalid", Problem::return_state_invalid().into_response()),
        Err(problem) => ("unavailable", problem.into_response()),
    };
    finish(&account.name, result, response)
}

/// The state must not reach whoever comes next, nor the answer a cache.
fn finish(account: &str, result: &'static str, mut response: Response) -> Response {
    metrics::counter!("checkback_returns_total", "account" => account.to_owned(), "result" => result).increment(1);
    let headers = response.headers_mut();
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The stored address in the form that headers can hold.
fn location(url: &str) -> Option<HeaderValue> {
    HeaderValue::from_str(Url::parse(url).ok()?.as_str()).ok()
}

/// All that may be our state: `state`, and the member of that name in a JSON `response`. A provider that appends its
/// parameters without looking begins them with a second `?`, which is not part of a state.
fn states(query: &str) -> Vec<String> {
    let mut states = Vec::new();
    for (name, value) in query.split(['&', '?']).filter_map(|pair| pair.split_once('=')) {
        let Ok(value) = percent_decode_str(value).decode_utf8() else { continue };
        match name {
            "state" => states.push(value.into_owned()),
            "response" => {
                let Ok(Value::Object(response)) = serde_json::from_str(&value.replace('+', " ")) else { continue };
                states.extend(response.get("state").and_then(Value::as_str).map(str::to_owned));
            }
            _ => {}
        }
    }
    states.truncate(MOST_STATES);
    states
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_found_wherever_a_provider_puts_it() {
        let response = "%7B%22state%22%3A%22abc%22%2C%22code%22%3A1000%7D";
        for (query, expected) in [
            ("state=abc", &["abc"][..]),
            ("state=abc&passed=Y&state=def", &["abc", "def"]),
            ("state=abc?response=1", &["abc"]),
            (&format!("response={response}"), &["abc"]),
            (&format!("response={response}&state=%61bc"), &["abc", "abc"]),
            (&format!("state=abc?response={response}"), &["abc", "abc"]),
            ("response=%7B%22state%22%3A1%7D&response=x&response=%5B%5D", &[]),
            ("state", &[]),
            ("State=abc", &[]),
            ("state=%ff", &[]),
            ("", &[]),
            ("state=1&state=2&state=3&state=4&state=5", &["1", "2", "3", "4"]),
        ] {
            assert_eq!(states(query), expected, "{query}");
        }
    }

    #[test]
    fn an_address_is_plain_text_in_the_header() {
        assert_eq!(
            location("https://münchen.example/ä?b=ö#ü").unwrap(),
            "https://xn--mnchen-3ya.example/%C3%A4?b=%C3%B6#%C3%BC"
        );
        assert_eq!(location("/relative"), None);
    }
}

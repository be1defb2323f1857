//! The API of a running service, as the client commands use it.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, anyhow};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use url::Url;

use super::{Failure, output};
use crate::config::Environment;
use crate::provider::http::{HttpClient, HttpSettings, HttpStream};

/// Longer than the service takes for anything.
const PATIENCE: Duration = Duration::from_secs(150);

/// Where the service is, and who asks.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// The service's internal listener [default: `CHECKBACK_URL`, else <http://127.0.0.1:8081>].
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// A file that holds the API key; without it, `CHECKBACK_KEY` is the key.
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// The API's answer as it came, for programs.
    #[arg(long)]
    pub json: bool,
}

pub struct Client {
    http: HttpClient,
    base: Url,
    headers: HeaderMap,
}

/// Why there is no stream, and whether there may be one later.
pub enum NotStreaming {
    Later(anyhow::Error),
    Never(Failure),
}

/// An answer that says yes.
pub struct Answer {
    pub status: StatusCode,
    pub body: Value,
    text: String,
}

impl Answer {
    /// As it came: digits of numbers and the order of members are kept.
    pub fn print(&self) {
        output::line(&self.text);
    }
}

impl Client {
    pub fn new(options: &Options, environment: &Environment) -> Result<Self, Failure> {
        let url = options.url.as_deref().or(environment.checkback_url()).unwrap_or("http://127.0.0.1:8081");
        let base: Url = url
            .parse()
            .ok()
            .filter(|url: &Url| matches!(url.scheme(), "http" | "https") && url.has_host())
            .ok_or_else(|| Failure::usage(anyhow!("--url or CHECKBACK_URL must look like http://127.0.0.1:8081")))?;
        let mut headers = HeaderMap::new();
        if let Some(key) = key(options, environment)? {
            let mut value = HeaderValue::from_str(&format!("Bearer {}", key.expose_secret()))
                .map_err(|_| Failure::usage(anyhow!("the API key holds what no key holds, such as a line break")))?;
            value.set_sensitive(true);
            headers.insert(header::AUTHORIZATION, value);
        }
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let settings = HttpSettings { total: PATIENCE, ..HttpSettings::default() };
        let http = HttpClient::new(settings).context("the HTTP client could not be set up")?;
        Ok(Self { http, base, headers })
    }

    pub async fn get(&self, path: &[&str], query: &[(&str, Option<String>)]) -> Result<Answer, Failure> {
        self.ask(Method::GET, path, query, None).await
    }

    pub async fn post(&self, path: &[&str], body: &Value) -> Result<Answer, Failure> {
        self.ask(Method::POST, path, &[], Some(body)).await
    }

    pub async fn delete(&self, path: &[&str], body: &Value) -> Result<Answer, Failure> {
        self.ask(Method::DELETE, path, &[], Some(body)).await
    }

    /// The service's own word on whether it is ready, whatever it says.
    pub async fn readiness(&self) -> anyhow::Result<Value> {
        let url = self.address(&["readyz"], &[]);
        let answer = self.http.send(Method::GET, url, HeaderMap::new(), Bytes::new()).await?;
        serde_json::from_slice(&answer.body).context("the answer is not one of Checkback")
    }

    /// A body without an end.
    pub async fn stream(
        &self,
        path: &[&str],
        query: &[(&str, Option<String>)],
        more: &[(HeaderName, String)],
    ) -> Result<HttpStream, NotStreaming> {
        let mut headers = self.headers.clone();
        for (name, value) in more {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(name, value);
            }
        }
        let asked = self.http.stream(self.address(path, query), headers).await;
        let answer = asked.with_context(|| self.unanswered()).map_err(NotStreaming::Later)?;
        let status = answer.status;
        if status.is_success() {
            return Ok(answer);
        }
        let body = answer.rest().await.ok().and_then(|body| serde_json::from_slice(&body).ok()).unwrap_or_default();
        let failure = refused(status, &body);
        Err(if status.is_server_error() { NotStreaming::Later(failure.error) } else { NotStreaming::Never(failure) })
    }

    fn address(&self, path: &[&str], query: &[(&str, Option<String>)]) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        for (name, value) in query {
            if let Some(value) = value {
                url.query_pairs_mut().append_pair(name, value);
            }
        }
        url
    }

    fn unanswered(&self) -> String {
        format!("{} did not answer (is the service there? --url or CHECKBACK_URL says where)", self.base)
    }

    async fn ask(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, Option<String>)],
        body: Option<&Value>,
    ) -> Result<Answer, Failure> {
        let url = self.address(path, query);
        let body = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
        let answer =
            self.http.send(method, url, self.headers.clone(), body).await.with_context(|| self.unanswered())?;
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        let body: Value = serde_json::from_str(&text).unwrap_or_default();
        if !answer.status.is_success() {
            return Err(refused(answer.status, &body));
        }
        if !body.is_object() {
            return Err(anyhow!("{} answered with something that is not of Checkback", self.base).into());
        }
        Ok(Answer { status: answer.status, body, text })
    }
}

fn key(options: &Options, environment: &Environment) -> Result<Option<SecretString>, Failure> {
    let Some(path) = &options.key_file else { return Ok(environment.checkback_key()) };
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("--key-file: {} cannot be read", path.display()))
        .map_err(Failure::usage)?;
    Ok(Some(SecretString::from(text.trim())))
}

/// The problem in words. What is wrong with the request is wrong usage.
fn refused(status: StatusCode, body: &Value) -> Failure {
    let Some(detail) = body["detail"].as_str() else {
        return anyhow!("the answer is {status}, and not one of Checkback").into();
    };
    let mut text = format!("{}. {detail}", body["title"].as_str().unwrap_or_default());
    if status == StatusCode::UNAUTHORIZED {
        text.push_str(" Give the key with --key-file or CHECKBACK_KEY.");
    }
    for error in body["errors"].as_array().into_iter().flatten() {
        let part = |name: &str| error[name].as_str().unwrap_or_default().to_owned();
        // Writing to a String cannot fail.
        let _ = write!(text, "\n  {} {}", part("field"), part("message"));
    }
    let error = anyhow!(text);
    match status {
        StatusCode::UNPROCESSABLE_ENTITY | StatusCode::BAD_REQUEST => Failure::usage(error),
        _ => error.into(),
    }
}

/// A text of an answer; empty where it is none.
pub fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A time of an answer, to the second.
pub fn time(value: &Value) -> String {
    let text = text(value);
    match text.split_once('.') {
        Some((seconds, _)) => format!("{seconds}Z"),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_refusal_says_everything_that_is_wrong() {
        let body = json!({ "title": "Values in the query are wrong", "detail": "See `errors` for each value.",
            "errors": [{ "field": "limit", "message": "must be a whole number from 1 to 200" }] });
        let failure = refused(StatusCode::UNPROCESSABLE_ENTITY, &body);
        assert_eq!(failure.code, super::super::WRONG_USAGE);
        assert_eq!(
            failure.error.to_string(),
            "Values in the query are wrong. See `errors` for each value.\n  limit must be a whole number from 1 to 200"
        );
        assert_eq!(refused(StatusCode::BAD_GATEWAY, &Value::Null).code, super::super::FAILED);
    }

    #[test]
    fn times_are_shown_to_the_second() {
        assert_eq!(time(&json!("2026-11-21T22:55:07.884852Z")), "2026-11-21T22:55:07Z");
        assert_eq!(time(&Value::Null), "");
    }
}

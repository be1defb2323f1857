//! Addresses: who reaches the internal listener, how the provider reaches the public one, and where webhooks go.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method};
use serde_json::Value;
use url::Url;

use super::{Finding, told};
use crate::config::{AccountKind, AuthMode, Config, Webhook};
use crate::provider::http::{HttpAnswer, HttpClient, HttpError, HttpSettings};

const PATIENCE: HttpSettings =
    HttpSettings { connect: Duration::from_secs(5), total: Duration::from_secs(10), max_body: 1 << 20 };

/// What can be said without asking anybody.
pub fn of_settings(config: &Config) -> Vec<Finding> {
    let listen = config.server.internal_listen;
    let mut found = Vec::new();
    match (config.auth.mode, config.auth.keys.is_empty()) {
        (AuthMode::None, _) => found.push(Finding::warning(
            "server.internal_listen",
            format!("everybody on this machine may do everything at {listen}, because auth.mode is \"none\""),
            "make a key ([[auth.keys]]) and set auth.mode = \"keys\"",
        )),
        (AuthMode::Keys, true) => found.push(Finding::warning(
            "auth.keys",
            "there is no key, so the internal listener refuses everything",
            "make one: KEY=$(openssl rand -hex 32), and put its SHA-256 into [[auth.keys]]",
        )),
        (AuthMode::Keys, false) => {
            let reach = if config.server.internal_is_loopback() { "this machine alone" } else { "other machines too" };
            found.push(Finding::ok("server.internal_listen", format!("{listen} is for {reach}, and asks for keys")));
        }
    }
    if config.accounts.is_empty() {
        found.push(Finding::warning(
            "accounts",
            "none is configured, so nothing can be registered",
            "add one: [accounts.<name>]",
        ));
    }
    found
}

/// Whether the public listener is there where the provider calls.
pub async fn public_url(config: &Config) -> Vec<Finding> {
    let check = "server.public_url";
    let Some(url) = &config.server.public_url else {
        // ZOLOZ calls nobody back.
        let needs_it = config.accounts.values().any(|account| matches!(account.kind, AccountKind::Alibaba(_)));
        return if needs_it {
            vec![Finding::warning(
                check,
                "it is not set, so Checkback cannot tell the provider where to call back",
                "set it to the https address under which the public listener is reached; an app that makes its \
                 transactions itself must give that address, with /callbacks/<account>, as CallbackUrl",
            )]
        } else {
            Vec::new()
        };
    };
    if url.scheme() != "https" {
        return vec![Finding::warning(
            check,
            "it is not https, which only a simulator calls",
            "before production set the https address that the provider reaches",
        )];
    }
    let mut live = url.clone();
    if let Ok(mut segments) = live.path_segments_mut() {
        segments.pop_if_empty().push("healthz");
    }
    let remedy = "see that the service runs and that the proxy before it passes /callbacks, /returns and /healthz; a \
                  machine that cannot reach its own public address may find this without a fault";
    vec![match ask(Method::GET, live).await {
        Err(error) => Finding::warning(check, format!("{url} does not answer from here: {}", told(&error)), remedy),
        Ok(answer) if is_alive(&answer) => Finding::ok(check, format!("{url} leads to a running service")),
        Ok(answer) => Finding::warning(
            check,
            format!("{url} answers with {}, and not as Checkback does", answer.status.as_u16()),
            remedy,
        ),
    }]
}

fn is_alive(answer: &HttpAnswer) -> bool {
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    answer.status.is_success() && body["status"] == "alive"
}

/// Whether somebody is there; nothing is delivered.
pub async fn webhook(webhook: &Webhook) -> Vec<Finding> {
    let check = format!("webhooks.{}", webhook.name);
    let url = webhook.url.expose();
    let place = url.origin().ascii_serialization();
    let remedy = "start the receiver, or correct url; check names and firewall between the two";
    vec![match ask(Method::HEAD, url.clone()).await {
        Err(error) => Finding::fault(check, format!("{place} cannot be reached: {}", told(&error)), remedy),
        Ok(answer) if answer.status.is_server_error() => {
            Finding::warning(check, format!("{place} answers with {}", answer.status.as_u16()), remedy)
        }
        // What it says to a request that is no event does not count.
        Ok(_) => Finding::ok(check, format!("{place} answers")),
    }]
}

async fn ask(method: Method, url: Url) -> Result<HttpAnswer, HttpError> {
    let client = HttpClient::new(PATIENCE).map_err(|_| HttpError::NoRoom)?;
    client.send(method, url, HeaderMap::new(), Bytes::new()).await
}

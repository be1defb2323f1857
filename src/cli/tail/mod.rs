//! `checkback tail`: verdicts and problems as they happen. A lost connection is made again and goes on after the last
//! event; accounts in trouble are looked at beside it, because trouble that stops all calls makes no events.

mod show;
mod sse;

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use http::HeaderName;
use serde_json::Value;

use super::client::{Client, NotStreaming, Options};
use super::{Failure, Outcome, output};
use crate::config::Environment;
use crate::lifecycle::stop_signal;
use show::Show;
use sse::Parser;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// The service gives a sign of life every 15 s.
const SILENCE: Duration = Duration::from_secs(40);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// How often accounts are looked at.
const LOOK: Duration = Duration::from_secs(30);

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// First show what happened since: so long ago (2h, 30m), or a time (2026-01-31T12:00:00Z).
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Show everything of these kinds (registered, callback, check, evidence, verdict, webhook, operator, erased)
    /// instead of verdicts and problems.
    #[arg(long, value_name = "KIND", value_delimiter = ',')]
    kind: Vec<String>,
    /// Only of this account.
    #[arg(long)]
    account: Option<String>,
    #[command(flatten)]
    client: Options,
}

pub async fn run(environment: &Environment, arguments: &Arguments) -> Outcome {
    let client = Client::new(&arguments.client, environment)?;
    let show = Show {
        json: arguments.client.json,
        everything: !arguments.kind.is_empty(),
        colours: std::io::stdout().is_terminal() && !environment.no_color(),
    };
    tokio::select! {
        outcome = follow(&client, arguments, &show) => outcome,
        outcome = watch_accounts(&client, arguments, &show) => outcome,
        () = stop_signal() => Ok(ExitCode::SUCCESS),
    }
}

/// Shows events until there is a reason not to try again.
async fn follow(client: &Client, arguments: &Arguments, show: &Show) -> Outcome {
    let mut parser = Parser::default();
    let mut wait = Duration::ZERO;
    let mut was_connected = false;
    loop {
        let kinds = (!arguments.kind.is_empty()).then(|| arguments.kind.join(","));
        let mut query = vec![("kind", kinds), ("account", arguments.account.clone())];
        let mut headers = Vec::new();
        if parser.last_id().is_empty() {
            query.push(("since", arguments.since.clone()));
        } else {
            headers.push((LAST_EVENT_ID, parser.last_id().to_owned()));
        }
        let lost = match client.stream(&["events"], &query, &headers).await {
            Ok(mut stream) => {
                if was_connected {
                    output::note("connected again; nothing was missed");
                }
                was_connected = true;
                wait = parser.retry.unwrap_or_default();
                loop {
                    match tokio::time::timeout(SILENCE, stream.piece()).await {
                        Ok(Ok(Some(piece))) => {
                            for message in parser.push(&piece).map_err(Failure::from)? {
                                let body: Value = serde_json::from_str(&message.data).unwrap_or_default();
                                show.event(&message, &body);
                            }
                            wait = parser.retry.unwrap_or_default();
                        }
                        Ok(Ok(None)) => break "the service ended the connection".to_owned(),
                        Ok(Err(_)) => break "the connection broke".to_owned(),
                        Err(_) => break "the service has been silent for too long".to_owned(),
                    }
                }
            }
            Err(NotStreaming::Never(failure)) => return Err(failure),
            Err(NotStreaming::Later(error)) if !was_connected => return Err(error.into()),
            Err(NotStreaming::Later(error)) => format!("{error:#}"),
        };
        parser.reconnect();
        wait = wait.clamp(Duration::from_secs(1), LONGEST_WAIT);
        output::note(&format!("{lost}; trying again in {} s", wait.as_secs()));
        tokio::time::sleep(wait).await;
        wait *= 2;
    }
}

/// Tells when an account begins to fail, and when it is well again. Never ends.
async fn watch_accounts(client: &Client, arguments: &Arguments, show: &Show) -> Outcome {
    let mut known = Value::Null;
    loop {
        // Of a service that does not answer, the other one tells.
        if let Ok(readiness) = client.readiness().await {
            for (account, now) in readiness["accounts"].as_object().into_iter().flatten() {
                let is_wanted = arguments.account.as_ref().is_none_or(|wanted| wanted == account);
                if is_wanted && !show.json {
                    show.account(account, &known[account], now);
                }
            }
            known = readiness["accounts"].clone();
        }
        tokio::time::sleep(LOOK).await;
    }
}

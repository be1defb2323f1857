//! `checkback verifications recheck`: counts first, asks, then says how far it is.

use std::io::{BufRead, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use serde_json::{Value, json};

use super::client::{Client, Options, text};
use super::{Outcome, output};
use crate::cli::Failure;
use crate::config::Environment;

/// How often progress is looked at.
const LOOK: Duration = Duration::from_secs(1);

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// passed, failed, review, void, expired or unresolvable; without it, all of them.
    #[arg(long)]
    status: Option<String>,
    /// Of this account.
    #[arg(long, value_name = "NAME")]
    account: Option<String>,
    /// With the provider's code for the result.
    #[arg(long, value_name = "CODE")]
    sub_code: Option<String>,
    /// Whose reason has this text in it.
    #[arg(long, value_name = "TEXT")]
    reason_contains: Option<String>,
    /// Registered at this time or later.
    #[arg(long, value_name = "TIME")]
    registered_after: Option<String>,
    /// Registered before this time.
    #[arg(long, value_name = "TIME")]
    registered_before: Option<String>,
    /// Do not ask whether to begin.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    client: Options,
}

impl Arguments {
    fn filter(&self) -> Value {
        json!({
            "status": self.status,
            "account": self.account,
            "sub_code": self.sub_code,
            "reason_contains": self.reason_contains,
            "registered_after": self.registered_after,
            "registered_before": self.registered_before,
        })
    }
}

pub async fn run(environment: &Environment, arguments: &Arguments) -> Outcome {
    let client = Client::new(&arguments.client, environment)?;
    let filter = arguments.filter();
    let counted = client.post(&["rechecks"], &json!({ "filter": filter, "dry_run": true })).await?;
    let matched = counted.body["matched"].as_u64().unwrap_or(0);
    let takes = Duration::from_secs(counted.body["estimate"]["seconds"].as_u64().unwrap_or(0));
    let asks = std::io::stdin().is_terminal() && !arguments.client.json;
    if !arguments.client.json {
        let takes = humantime::format_duration(takes);
        let which = if matched == 1 { "verification matches" } else { "verifications match" };
        output::line(&format!("{matched} {which}. Asking the provider again takes about {takes}."));
    }
    let begins = matched > 0 && (arguments.yes || (asks && confirmed().context("the answer cannot be read")?));
    if !begins {
        if arguments.client.json {
            counted.print();
        } else if matched > 0 {
            output::note("Nothing was begun. To begin, add --yes.");
        }
        return Ok(ExitCode::SUCCESS);
    }
    let begun = client.post(&["rechecks"], &json!({ "filter": filter })).await?;
    if arguments.client.json {
        begun.print();
        return Ok(ExitCode::SUCCESS);
    }
    let id = text(&begun.body["id"]);
    output::line(&format!("Recheck {id} is running. To stop it: checkback verifications rechecks --stop {id}"));
    if std::io::stdout().is_terminal() {
        output::line("It goes on when this command is ended.");
        follow(&client, &id).await?;
    }
    Ok(ExitCode::SUCCESS)
}

fn confirmed() -> std::io::Result<bool> {
    let mut out = std::io::stderr().lock();
    write!(out, "Begin? [y/N] ")?;
    out.flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Draws how far it is until it has ended.
async fn follow(client: &Client, id: &str) -> Result<(), Failure> {
    loop {
        let recheck = client.get(&["rechecks", id], &[]).await?.body;
        let line = progress(&recheck);
        let mut out = std::io::stdout().lock();
        let is_over = recheck["state"] != "running";
        let end = if is_over { "\n" } else { "" };
        let _closed_pipe = write!(out, "\r\x1b[2K{line}{end}").and_then(|()| out.flush()).is_err();
        drop(out);
        if is_over {
            return Ok(());
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn progress(recheck: &Value) -> String {
    let part = |name: &str| recheck[name].as_u64().unwrap_or(0);
    format!(
        "{}: {} of {} done, {} in line, {} with another verdict",
        text(&recheck["state"]),
        part("done"),
        part("matched"),
        part("waiting"),
        part("revised")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_says_how_far_it_is() {
        let recheck = json!({ "state": "running", "matched": 20, "done": 8, "waiting": 3, "revised": 1 });
        assert_eq!(progress(&recheck), "running: 8 of 20 done, 3 in line, 1 with another verdict");
    }
}

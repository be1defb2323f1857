//! `checkback verifications erase`.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::client::{Client, Options, text};
use super::{Outcome, output};
use crate::cli::{FAILED, Failure};
use crate::config::Environment;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Of the verification.
    id: String,
    /// Kept in the receipt; it must not say anything about the person.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Say that this is meant: nothing brings it back.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    client: Options,
}

/// Ends with 1 while something is still to be destroyed; the same again says how it stands.
pub async fn run(environment: &Environment, arguments: &Arguments) -> Outcome {
    if !arguments.yes {
        let id = &arguments.id;
        return Err(Failure::usage(anyhow::anyhow!("to destroy what is known of {id} for ever, add --yes")));
    }
    let client = Client::new(&arguments.client, environment)?;
    let answer = client.delete(&["verifications", &arguments.id], &json!({ "reason": arguments.reason })).await?;
    let is_complete = answer.body["complete"] == true;
    if arguments.client.json {
        answer.print();
    } else {
        let parts = answer.body["destroyed"].as_array().map(Vec::as_slice).unwrap_or_default();
        let row = |part: &Value| ["what", "where", "state", "reason"].map(|name| text(&part[name])).to_vec();
        output::table(["WHAT", "WHERE", "STATE", "REASON"].map(str::to_owned), parts.iter().map(row));
        if !is_complete {
            output::note("What is pending is tried again by the service. To see how it stands, run this again.");
        }
    }
    Ok(if is_complete { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

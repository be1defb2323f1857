//! `checkback config`: what is in force, and why.

use std::process::ExitCode;

use super::{Failure, Outcome, output};
use crate::config::{Environment, Loaded, describe};

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// As JSON, for programs.
    #[arg(long)]
    json: bool,
}

pub fn run(loaded: &Loaded, arguments: &Arguments, _: &Environment) -> Outcome {
    let lines = describe(loaded);
    if arguments.json {
        let text = serde_json::to_string_pretty(&lines).map_err(|error| Failure::from(anyhow::Error::from(error)))?;
        output::line(&text);
        return Ok(ExitCode::SUCCESS);
    }
    let rows = lines.iter().map(|line| vec![line.key.clone(), line.value.clone(), line.origin.to_string()]);
    output::table(["KEY", "VALUE", "FROM"].map(str::to_owned), rows);
    Ok(ExitCode::SUCCESS)
}

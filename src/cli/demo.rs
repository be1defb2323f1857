//! `checkback demo`.

use std::process::ExitCode;

use super::Outcome;
use crate::config::Environment;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Compare the verdicts with what was expected.
    #[arg(long)]
    check: bool,
}

#[expect(clippy::unused_async, reason = "to be written")]
pub async fn run(_: &Environment, arguments: &Arguments) -> Outcome {
    Ok(ExitCode::from(u8::from(arguments.check)))
}

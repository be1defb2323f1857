//! `checkback verifications …`: the API from a terminal.

mod erase;
mod list;
mod recheck;
mod rechecks;
mod register;
mod show;

use clap::Subcommand;

use super::{Outcome, client, output};
use crate::config::Environment;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List verifications, newest first.
    List(list::Arguments),
    /// Show one verification.
    Show(show::Arguments),
    /// Register a transaction that was started at the provider.
    Register(register::Arguments),
    /// Ask the provider now.
    Collect(show::Collect),
    /// Destroy everything about the person, here and at the provider.
    Erase(erase::Arguments),
    /// Ask the provider again about every final verification that a filter matches.
    Recheck(recheck::Arguments),
    /// List rechecks, newest first, or stop one.
    Rechecks(rechecks::Arguments),
}

pub async fn run(environment: &Environment, command: &Command) -> Outcome {
    match command {
        Command::List(arguments) => list::run(environment, arguments).await,
        Command::Show(arguments) => show::run(environment, arguments).await,
        Command::Register(arguments) => register::run(environment, arguments).await,
        Command::Collect(arguments) => show::collect(environment, arguments).await,
        Command::Erase(arguments) => erase::run(environment, arguments).await,
        Command::Recheck(arguments) => recheck::run(environment, arguments).await,
        Command::Rechecks(arguments) => rechecks::run(environment, arguments).await,
    }
}

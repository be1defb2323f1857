//! `checkback migrate`: applies pending migrations and exits.

use std::process::ExitCode;

use anyhow::Context;

use super::{Failure, Outcome, output, start_logging};
use crate::app::Database;
use crate::config::{Environment, Loaded};

pub async fn run(loaded: &Loaded, environment: &Environment) -> Outcome {
    start_logging(loaded, environment);
    let database = Database::open(&loaded.config, environment).await?;
    let store = database.store(loaded.config.database.max_connections);
    let applied = store.migrate().await.context("the migrations could not be applied");
    store.close().await;
    database.close().await?;
    match applied.map_err(Failure::from)? {
        0 => output::line("The database is current; nothing to apply."),
        1 => output::line("1 migration was applied."),
        applied => output::line(&format!("{applied} migrations were applied.")),
    }
    Ok(ExitCode::SUCCESS)
}

//! The command line: one file a command. Nothing here but reading arguments, and words for people.

mod client;
mod completions;
mod config;
#[cfg(all(feature = "simulator", feature = "embedded-postgres"))]
mod demo;
mod doctor;
mod health;
mod migrate;
mod openapi;
mod output;
mod reconcile;
mod serve;
#[cfg(feature = "simulator")]
mod simulate;
mod tail;
mod verifications;
mod webhooks;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::{Environment, Loaded, load};
use crate::telemetry::{self, LogFormat};

/// Failed at what was asked for.
const FAILED: u8 = 1;
/// The arguments or the configuration are wrong.
const WRONG_USAGE: u8 = 2;

/// Collects identity-verification verdicts before the provider deletes them.
#[derive(Debug, Parser)]
#[command(name = "checkback", version, about, propagate_version = true, disable_help_subcommand = true)]
struct Arguments {
    /// A configuration file (TOML); `config/default.toml` documents every key.
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the service.
    Serve(serve::Arguments),
    /// Show everything at work on this machine, with simulated providers and no set-up.
    #[cfg(all(feature = "simulator", feature = "embedded-postgres"))]
    Demo(demo::Arguments),
    /// Run the provider simulators alone, for the tests of your own app.
    #[cfg(feature = "simulator")]
    Simulate(simulate::Arguments),
    /// Apply pending migrations and exit.
    Migrate,
    /// Check that everything the service needs is right, and say how to mend what is not.
    Doctor(doctor::Arguments),
    /// Show the effective configuration, secrets redacted, and where each value came from.
    Config(config::Arguments),
    /// Work with verifications over the API of the running service.
    #[command(subcommand)]
    Verifications(verifications::Command),
    /// Show verdicts and problems as they happen.
    Tail(tail::Arguments),
    /// Check that everything that was registered is accounted for.
    Reconcile(reconcile::Arguments),
    /// Work with outgoing webhooks over the API of the running service.
    #[command(subcommand)]
    Webhooks(webhooks::Command),
    /// Print a script that completes this program's arguments in a shell.
    Completions(completions::Completions),
    /// Print the manual page, or write one for each command.
    Man(completions::Man),
    /// Print the API's document (OpenAPI 3.1), as `/openapi.json` serves it.
    Openapi,
    /// Ask the running service whether it lives; for container health checks.
    #[command(hide = true)]
    Health,
}

/// An error and the exit code it ends with.
#[derive(Debug)]
struct Failure {
    code: u8,
    error: anyhow::Error,
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self { code: FAILED, error }
    }
}

impl Failure {
    fn usage(error: impl Into<anyhow::Error>) -> Self {
        Self { code: WRONG_USAGE, error: error.into() }
    }
}

type Outcome = Result<ExitCode, Failure>;

/// Runs the command that the process was started with.
pub fn run() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            output::error(&format!("no runtime could be started: {error}"));
            return ExitCode::from(FAILED);
        }
    };
    let outcome = runtime.block_on(dispatch(arguments));
    match outcome {
        Ok(code) => code,
        Err(failure) => {
            output::error(&format!("{:#}", failure.error));
            ExitCode::from(failure.code)
        }
    }
}

async fn dispatch(arguments: Arguments) -> Outcome {
    let environment = Environment::from_process();
    let file = arguments.config.as_deref();
    match arguments.command {
        Command::Serve(options) => serve::run(&configured(file, &environment)?, &environment, &options).await,
        #[cfg(all(feature = "simulator", feature = "embedded-postgres"))]
        Command::Demo(options) => Box::pin(demo::run(&environment, &options)).await,
        #[cfg(feature = "simulator")]
        Command::Simulate(options) => simulate::run(&options).await,
        Command::Migrate => migrate::run(&configured(file, &environment)?, &environment).await,
        Command::Doctor(options) => Box::pin(doctor::run(file, &environment, &options)).await,
        Command::Config(options) => config::run(&configured(file, &environment)?, &options, &environment),
        Command::Verifications(command) => verifications::run(&environment, &command).await,
        Command::Tail(options) => tail::run(&environment, &options).await,
        Command::Completions(options) => Ok(completions::completions(&options)),
        Command::Man(options) => completions::man(&options),
        Command::Reconcile(options) => reconcile::run(&environment, &options).await,
        Command::Webhooks(command) => webhooks::run(&environment, &command).await,
        Command::Openapi => Ok(openapi::run()),
        Command::Health => health::run(&configured(file, &environment)?).await,
    }
}

fn configured(file: Option<&std::path::Path>, environment: &Environment) -> Result<Loaded, Failure> {
    load(file, environment).map_err(Failure::usage)
}

/// Starts logging as the configuration says.
fn start_logging(loaded: &Loaded, environment: &Environment) {
    let format = match loaded.config.log.format {
        crate::config::LogFormat::Auto => LogFormat::Auto,
        crate::config::LogFormat::Text => LogFormat::Text,
        crate::config::LogFormat::Json => LogFormat::Json,
    };
    telemetry::log(&loaded.config.log.level, format, !environment.no_color());
}

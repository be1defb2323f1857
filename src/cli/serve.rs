//! `checkback serve`: the service.

use std::process::ExitCode;

use chrono::TimeDelta;
use tracing::warn;

use super::{Failure, Outcome, start_logging};
use crate::app::{App, Database, Options};
use crate::clock::Clock;
use crate::config::{Environment, Loaded, describe};
use crate::lifecycle::{Reloads, stop_signal};

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Do not apply pending migrations; with some pending, the service runs but is not ready.
    #[arg(long)]
    no_migrate: bool,
    /// Move every clock of the service, such as `31d` or `-2h`, for tests and rehearsals.
    #[arg(long, value_name = "DURATION", value_parser = parse_offset, allow_hyphen_values = true, default_value = "0s")]
    clock_offset: TimeDelta,
}

fn parse_offset(text: &str) -> Result<TimeDelta, String> {
    let (sign, amount) = match text.strip_prefix('-') {
        Some(amount) => (-1, amount),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let amount = humantime::parse_duration(amount).map_err(|error| format!("{error} (write 31d, 2h, 90s)"))?;
    let amount = TimeDelta::from_std(amount).map_err(|_| "too long".to_owned())?;
    amount
        .checked_mul(sign)
        .filter(|offset| offset.abs() <= TimeDelta::days(3650))
        .ok_or_else(|| "more than 3650d".into())
}

pub async fn run(loaded: &Loaded, environment: &Environment, arguments: &Arguments) -> Outcome {
    start_logging(loaded, environment);
    if !arguments.clock_offset.is_zero() {
        warn!(
            seconds = arguments.clock_offset.num_seconds(),
            "THE CLOCK IS MOVED: every time, also in signed requests, is off by this much; never in production"
        );
    }
    // Listening for signals begins before anything is started, so that a stop during the start is not missed.
    let stop = stop_signal();
    tokio::pin!(stop);
    let reloads = Reloads::listen();
    let database = tokio::select! {
        opened = Database::open(&loaded.config, environment) => opened?,
        // A private Postgres that recovers can take long. Dropped, it stops; the next start takes it up again.
        () = &mut stop => return Ok(ExitCode::SUCCESS),
    };
    let options = Options {
        migrate: !arguments.no_migrate,
        clock: Clock::system(arguments.clock_offset),
        settings: describe(loaded),
        ..Options::default()
    };
    let started = tokio::select! {
        started = App::start(&loaded.config, environment, &database, options) => Some(started),
        () = &mut stop => None,
    };
    let result = match started {
        Some(Ok(app)) => {
            app.follow_secrets(loaded, environment, reloads);
            stop.await;
            app.shut_down().await;
            Ok(())
        }
        Some(Err(error)) => Err(error),
        None => Ok(()),
    };
    database.close().await?;
    result.map(|()| ExitCode::SUCCESS).map_err(Failure::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_go_both_ways() {
        assert_eq!(parse_offset("31d"), Ok(TimeDelta::days(31)));
        assert_eq!(parse_offset("-2h"), Ok(TimeDelta::hours(-2)));
        assert!(parse_offset("soon").is_err() && parse_offset("99999d").is_err());
    }
}

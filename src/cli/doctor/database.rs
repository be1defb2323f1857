//! The database: whether it answers, its migrations, its clock, and what it knows of accounts in trouble.

use chrono::{SecondsFormat, TimeDelta};

use super::Finding;
use crate::app::Database;
use crate::clock::Clock;
use crate::config::{Config, Environment};
use crate::domain::Trouble;
use crate::store::{Migrations, Store};

/// Leases and pace go by the database's clock, deadlines by this machine's.
const LARGEST_DIFFERENCE: TimeDelta = TimeDelta::seconds(10);

const TROUBLES: [Trouble; 8] = [
    Trouble::NoCredentials,
    Trouble::BadKey,
    Trouble::BadSignature,
    Trouble::NoPermission,
    Trouble::NotActivated,
    Trouble::ClockSkew,
    Trouble::Configuration,
    Trouble::Unreachable,
];

pub async fn look(config: &Config, environment: &Environment) -> Vec<Finding> {
    let is_private = config.database.url.is_none();
    // A look must leave no folder behind that belongs to whoever looked.
    if is_private && !config.database.data_dir.exists() {
        let folder = config.database.data_dir.display();
        return vec![if cfg!(feature = "embedded-postgres") {
            Finding::warning(
                "database",
                format!("none is configured; `serve` will run a private Postgres in {folder}"),
                "that is good for trying it out; for production set DATABASE_URL or database.url",
            )
        } else {
            Finding::fault("database", "none is configured", "set DATABASE_URL or database.url")
        }];
    }
    let database = match Database::open(config, environment).await {
        Ok(database) => database,
        Err(error) => return vec![not_opened(&error)],
    };
    let mut found = Vec::new();
    match database.reach().await {
        Err(unreached) => found.push(Finding::fault("database", unreached.says, unreached.remedy)),
        Ok(version) => {
            let private = if is_private { ", a private one" } else { "" };
            found.push(Finding::ok("database", format!("Postgres {version}{private} answers")));
            let store = database.store(2);
            look_inside(&store, &mut found).await;
            store.close().await;
        }
    }
    if let Err(error) = database.close().await {
        found.push(Finding::warning("database", format!("{error:#}"), "see the log in database.data_dir"));
    }
    found
}

#[cfg(feature = "embedded-postgres")]
fn not_opened(error: &anyhow::Error) -> Finding {
    use crate::private_postgres::Error;
    match error.downcast_ref::<Error>() {
        Some(Error::InUse { .. }) => {
            Finding::ok("database", "the private Postgres is in use by a running service; its /readyz tells the rest")
        }
        _ => Finding::fault("database", format!("{error:#}"), "see database.url and database.data_dir"),
    }
}

#[cfg(not(feature = "embedded-postgres"))]
fn not_opened(error: &anyhow::Error) -> Finding {
    Finding::fault("database", format!("{error:#}"), "see database.url")
}

async fn look_inside(store: &Store, found: &mut Vec<Finding>) {
    match store.migrations().await {
        Ok(Migrations::Current) => found.push(Finding::ok("migrations", "the database is current")),
        Ok(Migrations::Pending(count)) => {
            return found.push(Finding::fault(
                "migrations",
                format!("{count} are pending: the database is older than this program"),
                "run `checkback migrate`; `checkback serve` does it at its start, unless it is told --no-migrate",
            ));
        }
        Ok(Migrations::Newer(count)) => {
            return found.push(Finding::fault(
                "migrations",
                format!("the database has {count} that this program does not know: it is newer"),
                "run the version of Checkback that migrated it; the version just before it works too, during an upgrade",
            ));
        }
        Ok(Migrations::Foreign) => {
            return found.push(Finding::fault(
                "migrations",
                "the database has migrations that this program does not know: it was changed by hand",
                "run the version of Checkback that migrated it, or restore the backup",
            ));
        }
        Err(error) => {
            return found.push(Finding::fault("migrations", super::told(&error), "see the log of Postgres"));
        }
    }
    let now = Clock::system(TimeDelta::zero()).now();
    match store.database_now().await {
        Ok(theirs) if (now - theirs).abs() > LARGEST_DIFFERENCE => found.push(Finding::fault(
            "database clock",
            format!("it differs from this machine's by {} s", (now - theirs).num_seconds()),
            "synchronise the clocks of both machines (NTP); until then retention destroys nothing",
        )),
        Ok(_) => {}
        Err(error) => found.push(Finding::fault("database clock", super::told(&error), "see the log of Postgres")),
    }
    match store.account_health().await {
        Ok(accounts) => {
            for account in accounts {
                let Some(failing) = account.failing else { continue };
                let trouble = TROUBLES.into_iter().find(|trouble| trouble.as_str() == failing.reason);
                found.push(Finding::fault(
                    format!("accounts.{}", account.account),
                    format!(
                        "the service has it as failing since {}: {} ({})",
                        failing.since.to_rfc3339_opts(SecondsFormat::Secs, true),
                        failing.reason,
                        failing.code
                    ),
                    trouble.map_or("see the log of the service", Trouble::remedy),
                ));
            }
        }
        Err(error) => found.push(Finding::fault("accounts", super::told(&error), "see the log of Postgres")),
    }
}

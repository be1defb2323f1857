//! The database: whether it answers, its migrations, its clock, and what it knows of accounts in trouble.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};

use super::Finding;
use crate::app::Database;
use crate::clock::{Clock, earlier};
use crate::config::{AccountKind, Config, Environment};
use crate::domain::{FinalStatus, Status, Trouble};
use crate::store::{EndpointRow, Filter, Migrations, Store};

/// Leases and pace go by the database's clock, deadlines by this machine's.
const LARGEST_DIFFERENCE: TimeDelta = TimeDelta::seconds(10);

/// How far back transactions are looked at, and how many that nobody knows are no accident.
const LATELY: Duration = Duration::from_hours(24);
const FEW: usize = 3;

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
            look_inside(&store, config, &mut found).await;
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

async fn look_inside(store: &Store, config: &Config, found: &mut Vec<Finding>) {
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
    for (name, account) in &config.accounts {
        if matches!(account.kind, AccountKind::Alibaba(_)) {
            found.extend(unknown_transactions(store, name, now).await);
        }
    }
    match store.endpoints().await {
        Ok(endpoints) => {
            let configured = |row: &&EndpointRow| config.webhooks.iter().any(|webhook| webhook.name == row.endpoint);
            found.extend(endpoints.iter().filter(configured).filter_map(endpoint));
        }
        Err(error) => found.push(Finding::fault("webhooks", super::told(&error), "see the log of Postgres")),
    }
}

/// A region knows no transactions of another one, and says only that. One alone may be mistyped.
async fn unknown_transactions(store: &Store, account: &str, now: DateTime<Utc>) -> Option<Finding> {
    let filter = Filter {
        status: Some(Status::Final(FinalStatus::Unresolvable)),
        account: Some(account.to_owned()),
        registered_after: Some(earlier(now, LATELY)),
        limit: 20,
        ..Filter::default()
    };
    // That the database answers is told above.
    let refused = store.list(&filter).await.ok()?;
    let unknown = refused.iter().filter(|record| record.last_error.as_deref() == Some("TransactionIdInvalid")).count();
    (unknown >= FEW).then(|| {
        Finding::warning(
            format!("accounts.{account}"),
            format!("the provider does not know transactions that were registered in the last day: at least {unknown}"),
            "the app may start them in another region or with another account: region and access key must be those of \
             its Initialize; afterwards `checkback verifications recheck --status unresolvable`",
        )
    })
}

/// What the service knows of a webhook that does not go through.
fn endpoint(row: &EndpointRow) -> Option<Finding> {
    let check = format!("webhooks.{}", row.endpoint);
    if let Some(at) = row.disabled_at {
        let reason = row.disabled_reason.as_deref().unwrap_or("it answered 410");
        return Some(Finding::fault(
            check,
            format!("it gets nothing since {}: {reason}", at.to_rfc3339_opts(SecondsFormat::Secs, true)),
            format!("once the receiver is there again, POST /webhooks/{}/enable", row.endpoint),
        ));
    }
    (row.failures > 0).then(|| {
        let last = row.last_failure.as_deref().unwrap_or("no reason is known");
        Finding::warning(
            check,
            format!("attempts that failed in a row: {}; the last: {last}", row.failures),
            "GET /webhooks/deliveries tells more; they are repeated by themselves",
        )
    })
}

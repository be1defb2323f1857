//! Whether the database can be reached at all, told to the person who set it up.

use std::io::ErrorKind;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Connection, Row};

use super::Database;
use crate::store::Access;

/// Longer than a server that is well takes.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why there is no connection, and what to do.
#[derive(Debug)]
pub struct Unreached {
    pub says: String,
    pub remedy: &'static str,
}

impl Database {
    /// Connects once, and where there is a way past a pooler that way too; tells the server's version.
    pub async fn reach(&self) -> Result<String, Unreached> {
        let Access { options, listen, transaction_pooling } = &self.access;
        // Poolers refuse this setting.
        let options = if *transaction_pooling { options.clone().extra_float_digits(None) } else { options.clone() };
        let version = reach(options).await?;
        if let Some(listen) = listen {
            reach(listen.clone()).await.map_err(|unreached| Unreached {
                says: format!("database.listen_url: {}", unreached.says),
                remedy: "correct database.listen_url: the same database as database.url, past the pooler",
            })?;
        }
        Ok(version)
    }
}

async fn reach(options: PgConnectOptions) -> Result<String, Unreached> {
    let options = options.disable_statement_logging();
    let place = match options.get_socket() {
        Some(socket) => socket.display().to_string(),
        None => format!("{}:{}", options.get_host(), options.get_port()),
    };
    let ask = async {
        let mut connection = PgConnection::connect_with(&options).await?;
        // Not prepared: a pooler may be in between.
        let version = sqlx::raw_sql("SHOW server_version").fetch_one(&mut connection).await?.try_get(0)?;
        connection.close().await?;
        Ok::<_, sqlx::Error>(version)
    };
    match tokio::time::timeout(PATIENCE, ask).await {
        Ok(Ok(version)) => Ok(version),
        Ok(Err(error)) => Err(explain(&place, &error)),
        Err(_) => Err(Unreached {
            says: format!("{place} does not answer within {} s", PATIENCE.as_secs()),
            remedy: "check host and port in database.url, and that no firewall is in between",
        }),
    }
}

/// No message of these errors holds a password.
fn explain(place: &str, error: &sqlx::Error) -> Unreached {
    let (says, remedy) = match error {
        sqlx::Error::Io(io) if io.kind() == ErrorKind::ConnectionRefused || io.kind() == ErrorKind::NotFound => (
            format!("nobody listens at {place}"),
            "start Postgres, or correct host and port in database.url (DATABASE_URL)",
        ),
        sqlx::Error::Io(io) => (
            format!("{place} cannot be reached: {io}"),
            "check host and port in database.url, the name and the network",
        ),
        sqlx::Error::Tls(_) => {
            (format!("{place} and this program find no common TLS"), "check sslmode and sslrootcert in database.url")
        }
        sqlx::Error::Database(said) => {
            let remedy = match said.code().unwrap_or_default().as_ref() {
                "28P01" | "28000" => "correct user and password in database.url, and let the user in (pg_hba.conf)",
                "3D000" => "create the database (createdb), or correct its name in database.url",
                "53300" => {
                    "Postgres has no connection left: raise its max_connections, or lower database.max_connections"
                }
                "57P03" => "Postgres is starting, stopping or recovering: wait for it",
                _ => "see the log of Postgres",
            };
            (format!("{place} answers: {}", said.message()), remedy)
        }
        other => (format!("{place}: {other}"), "check database.url"),
    };
    Unreached { says, remedy }
}

//! `[database]`: the operator's Postgres, or a private one.

use std::path::PathBuf;

use secrecy::SecretString;
use url::Url;

use super::reader::{Outcome, Reader};
use super::schema::{Field, Shape, field};

pub(super) const FIELDS: &[Field] = &[
    field("url", Shape::Secret),
    field("listen_url", Shape::Secret),
    field("transaction_pooling", Shape::Value),
    field("data_dir", Shape::Value),
    field("max_connections", Shape::Value),
];

#[derive(Clone, Debug)]
pub struct Database {
    /// `None`: a private Postgres in `data_dir`. Secret because it may hold a password.
    pub url: Option<SecretString>,
    /// The same database past a pooler, for what needs a session.
    pub listen_url: Option<SecretString>,
    /// `url` leads to a pooler that lends sessions for one transaction.
    pub transaction_pooling: bool,
    pub data_dir: PathBuf,
    pub max_connections: u32,
}

impl Database {
    pub(super) fn read(reader: &mut Reader<'_>) -> Outcome<Self> {
        let url = reader.checked_secret("url", address);
        let listen_url = reader.checked_secret("listen_url", address);
        let transaction_pooling = reader.flag("transaction_pooling", false);
        let data_dir = reader.parsed("data_dir", "checkback-data", |text| match text {
            "" => Err("must name a folder"),
            text => Ok(PathBuf::from(text)),
        });
        let max_connections = reader.number("max_connections", 2..=1000, 16);
        let database = Self {
            url: url?,
            listen_url: listen_url?,
            transaction_pooling: transaction_pooling?,
            data_dir: data_dir?,
            max_connections: max_connections?,
        };
        if database.url.is_none() {
            let message = "is about a pooler before your own Postgres; give its address in database.url";
            if database.listen_url.is_some() {
                return Err(reader.problem("listen_url", message));
            }
            if database.transaction_pooling {
                return Err(reader.problem("transaction_pooling", message));
            }
        }
        Ok(database)
    }
}

fn address(text: &str) -> Result<(), &'static str> {
    match Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "postgres" | "postgresql") => Ok(()),
        _ => Err("must be a Postgres address, such as postgres://user:password@host/database"),
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use crate::config::testing::{config, config_with, problems, problems_with};

    #[test]
    fn an_empty_url_means_a_private_postgres() {
        let database = config("").database;
        assert!(database.url.is_none());
        assert_eq!(database.data_dir.to_str(), Some("checkback-data"));
        assert_eq!(database.max_connections, 16);
    }

    #[test]
    fn database_url_ranks_between_the_file_and_our_own_variable() {
        let file = "[database]\nurl = 'postgres://file/db'";
        let url = |env: &[(&str, &str)]| config_with(file, env).database.url.unwrap().expose_secret().to_owned();
        assert_eq!(url(&[]), "postgres://file/db");
        assert_eq!(url(&[("DATABASE_URL", "")]), "postgres://file/db");
        assert_eq!(url(&[("DATABASE_URL", "postgres://general/db")]), "postgres://general/db");
        let both = [("DATABASE_URL", "postgres://general/db"), ("CHECKBACK_DATABASE__URL", "postgres://own/db")];
        assert_eq!(url(&both), "postgres://own/db");
    }

    #[test]
    fn another_kind_of_address_is_refused_without_showing_it() {
        let found = problems_with("", &[("DATABASE_URL", "mysql://root:planted@db/x")]);
        assert!(
            found.contains("database.url (environment variable DATABASE_URL): must be a Postgres address"),
            "{found}"
        );
        assert!(!found.contains("planted"), "{found}");
    }

    #[test]
    fn a_pooler_is_before_an_own_postgres() {
        let database = config(
            "[database]\nurl = 'postgres://pooler/db'\nlisten_url = 'postgres://db/db'\ntransaction_pooling = true",
        )
        .database;
        assert!(database.transaction_pooling);
        assert_eq!(database.listen_url.unwrap().expose_secret(), "postgres://db/db");
        assert!(!config("").database.transaction_pooling);
        for key in ["listen_url = 'postgres://db/db'", "transaction_pooling = true"] {
            let found = problems(&format!("[database]\n{key}"));
            assert!(found.contains("is about a pooler before your own Postgres"), "{found}");
        }
        let found = problems("[database]\nurl = 'postgres://db/db'\nlisten_url = 'db:planted'");
        assert!(found.contains("database.listen_url") && !found.contains("planted"), "{found}");
    }

    #[test]
    fn connections_are_from_2_to_1000() {
        for wrong in ["1", "1001", "-1", "16.0", "'16'", "99999999999"] {
            let found = problems(&format!("[database]\nmax_connections = {wrong}"));
            assert!(found.contains("database.max_connections (file test.toml): must be a whole number from 2 to 1000"));
        }
        assert_eq!(config("[database]\nmax_connections = 2").database.max_connections, 2);
        assert_eq!(config_with("", &[("CHECKBACK_DATABASE__MAX_CONNECTIONS", "7")]).database.max_connections, 7);
    }

    #[test]
    fn an_empty_data_dir_is_refused() {
        assert!(problems("[database]\ndata_dir = ''").contains("database.data_dir"));
    }
}

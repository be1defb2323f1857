//! The configuration: defaults < file < environment, checked as a whole before anything starts.
//!
//! The layers are merged first and read afterwards, each section by its own file. A configuration that exists is
//! sound; all problems of one that is not are told at once, without the value of any secret. The environment of the
//! process is read here and nowhere else.
//!
//! What a setting causes is up to its user: endpoints of regions, keys of ciphers and the credential chain are with
//! the providers' adapters.

mod accounts;
mod auth;
mod database;
mod environment;
mod evidence;
mod layers;
mod log;
mod problem;
mod reader;
mod retention;
mod schema;
mod secret_file;
mod server;
mod urls;
mod variables;
mod webhooks;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use ::config::ValueKind;

use layers::{Layer, Table};
use reader::{Findings, Outcome, Reader};

pub use accounts::{
    AccessKey, Account, AccountKind, AlibabaAccount, Network, REGIONS, Region, Signature, ZolozAccount, ZolozAuth,
};
pub use auth::{ApiKey, Auth, AuthMode, KeyDigest, Scope};
pub use database::Database;
pub use environment::Environment;
pub use evidence::{Evidence, EvidenceLocation};
pub use log::{Log, LogFormat};
pub use problem::{Origin, Problem, Problems};
pub use reader::Line;
pub use retention::Retention;
pub use secret_file::SecretFile;
pub use server::Server;
pub use webhooks::{EVENTS, Webhook, WebhookUrl};

/// Every key, its meaning and its default.
pub const DEFAULTS: &str = include_str!("../../config/default.toml");

/// A longer file is no configuration.
const LONGEST_FILE: u64 = 1024 * 1024;

#[derive(Clone, Debug)]
pub struct Config {
    pub server: Server,
    pub database: Database,
    pub auth: Auth,
    pub accounts: BTreeMap<String, Account>,
    pub evidence: Evidence,
    pub retention: Retention,
    pub webhooks: Vec<Webhook>,
    pub log: Log,
}

/// A sound configuration, with where each value came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub config: Config,
    /// Files that secrets were read from, in the order of the keys.
    pub secret_files: Vec<SecretFile>,
    lines: Vec<Line>,
}

impl Loaded {
    /// Where the setting with this full name came from; `None` when there is no such setting.
    pub fn origin(&self, key: &str) -> Option<&Origin> {
        self.lines.iter().find(|line| line.key == key).map(|line| &line.origin)
    }
}

/// Reads the configuration from the defaults, the file and the environment.
pub fn load(file: Option<&Path>, environment: &Environment) -> Result<Loaded, Problems> {
    let Some(path) = file else { return assemble(None, environment) };
    let name = path.display().to_string();
    match read_file(path) {
        Ok(text) => assemble(Some((&name, &text)), environment),
        Err(message) => {
            Err(Problems::new(vec![Problem { key: Origin::File(name).to_string(), origin: None, message }]))
        }
    }
}

/// As [`load`], with the text of a file called `name`.
pub fn load_text(name: &str, text: &str, environment: &Environment) -> Result<Loaded, Problems> {
    assemble(Some((name, text)), environment)
}

/// The settings in effect, for people to read. Nothing in it is secret.
pub fn describe(loaded: &Loaded) -> Vec<Line> {
    loaded.lines.clone()
}

fn read_file(path: &Path) -> Result<String, String> {
    let failed = |error: std::io::Error| format!("cannot be read: {error}; check the path given with --config");
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(LONGEST_FILE + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > LONGEST_FILE {
        return Err("is longer than 1 MiB, which no configuration is".into());
    }
    Ok(text)
}

fn assemble(file: Option<(&str, &str)>, environment: &Environment) -> Result<Loaded, Problems> {
    let mut findings = Findings::default();
    let table = merge(file, environment, &mut findings.problems);
    let config = read(&mut Reader::root(&table, &mut findings));
    let Findings { problems, lines, secret_files } = findings;
    match config {
        Ok(config) if problems.is_empty() => Ok(Loaded { config, secret_files, lines }),
        _ => Err(Problems::new(problems)),
    }
}

fn merge(file: Option<(&str, &str)>, environment: &Environment, problems: &mut Vec<Problem>) -> Table {
    let mut layers = Vec::new();
    let mut accounts = Vec::new();
    let texts = [Some((Origin::Default, DEFAULTS)), file.map(|(name, text)| (Origin::File(name.to_owned()), text))];
    for (origin, text) in texts.into_iter().flatten() {
        match layers::parse(text, &origin) {
            Ok(table) => {
                for (key, origin) in layers::twins(&table) {
                    let message = format!("is given, and {key}{} too; keep one of them", schema::FILE_SUFFIX);
                    problems.push(Problem { key, origin, message });
                }
                if let Some(ValueKind::Table(table)) = table.get("accounts").map(|value| &value.kind) {
                    accounts.extend(table.keys().cloned());
                }
                layers.push(Layer::whole(table));
            }
            Err(problem) => problems.push(problem),
        }
    }
    accounts.sort_unstable();
    layers.extend(variables::read(environment, &accounts, problems));
    layers::merged(layers)
}

fn read(root: &mut Reader<'_>) -> Outcome<Config> {
    let server = root.section("server", server::FIELDS, Server::read);
    let database = root.section("database", database::FIELDS, Database::read);
    let auth = root.section("auth", auth::FIELDS, |reader| {
        let auth = Auth::read(reader)?;
        // Without a sound listener there is nothing to compare with.
        let exposed = server.as_ref().is_ok_and(|server| !server.internal_is_loopback());
        if auth.mode == AuthMode::None && exposed {
            let message = "is \"none\", but server.internal_listen is no loopback address, so everybody near could \
                           read and erase; use \"keys\", or listen on 127.0.0.1";
            return Err(reader.problem("mode", message));
        }
        Ok(auth)
    });
    let accounts = accounts::read_all(root);
    let evidence = root.section("evidence", evidence::FIELDS, Evidence::read);
    let retention = root.section("retention", retention::FIELDS, Retention::read);
    let webhooks = webhooks::read_all(root);
    let log = root.section("log", log::FIELDS, Log::read);
    Ok(Config {
        server: server?,
        database: database?,
        auth: auth?,
        accounts: accounts?,
        evidence: evidence?,
        retention: retention?,
        webhooks: webhooks?,
        log: log?,
    })
}

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

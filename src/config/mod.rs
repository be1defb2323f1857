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
mod telemetry;
mod urls;
mod variables;
mod webhooks;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use ::config::ValueKind;
use secrecy::{ExposeSecret, SecretString};

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
pub use telemetry::Telemetry;
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
    pub telemetry: Telemetry,
}

/// A sound configuration, with where each value came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub config: Config,
    /// Files that secrets were read from, in the order of the keys.
    pub secret_files: Vec<SecretFile>,
    lines: Vec<Line>,
    /// Name and text of the configuration file, which may hold secrets.
    file: Option<(String, SecretString)>,
    /// What was read from the files of secrets, by path.
    secret_texts: BTreeMap<String, SecretString>,
}

/// What a second look at the files of secrets brought.
#[derive(Debug, Default)]
pub struct Reread {
    /// Full names of the secrets that are others now.
    pub changed: Vec<String>,
    /// What could not be taken up; the values before it stay. Names files and keys, no secret.
    pub problems: Vec<String>,
}

impl Loaded {
    /// Where the setting with this full name came from; `None` when there is no such setting.
    pub fn origin(&self, key: &str) -> Option<&Origin> {
        self.lines.iter().find(|line| line.key == key).map(|line| &line.origin)
    }

    /// Reads the files of secrets again, and nothing else: the configuration file and the environment count as they
    /// were at the start. Each file is taken up by itself, so that a broken one keeps no other back.
    pub fn reread_secrets(&mut self, environment: &Environment) -> Reread {
        let mut reread = Reread::default();
        let paths: Vec<String> = self.secret_texts.keys().cloned().collect();
        for path in paths {
            let text = match secret_file::read(Path::new(&path)) {
                Ok(text) => text,
                Err(message) => {
                    reread.problems.push(format!("{path} {message}"));
                    continue;
                }
            };
            if self.secret_texts.get(&path).is_some_and(|known| known.expose_secret() == text) {
                continue;
            }
            let mut texts = self.secret_texts.clone();
            texts.insert(path.clone(), text.into());
            let file = self.file.as_ref().map(|(name, text)| (name.as_str(), text.expose_secret()));
            match assemble(file, environment, texts) {
                Ok(loaded) => {
                    let named = loaded.secret_files.iter().filter(|file| file.path == path);
                    reread.changed.extend(named.map(|file| file.key.clone()));
                    *self = loaded;
                }
                Err(problems) => reread.problems.extend(problems.iter().map(ToString::to_string)),
            }
        }
        reread
    }
}

/// Reads the configuration from the defaults, the file and the environment.
pub fn load(file: Option<&Path>, environment: &Environment) -> Result<Loaded, Problems> {
    let Some(path) = file else { return assemble(None, environment, BTreeMap::new()) };
    let name = path.display().to_string();
    match read_file(path) {
        Ok(text) => assemble(Some((&name, &text)), environment, BTreeMap::new()),
        Err(message) => {
            Err(Problems::new(vec![Problem { key: Origin::File(name).to_string(), origin: None, message }]))
        }
    }
}

/// As [`load`], with the text of a file called `name`.
pub fn load_text(name: &str, text: &str, environment: &Environment) -> Result<Loaded, Problems> {
    assemble(Some((name, text)), environment, BTreeMap::new())
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

/// `secret_texts`: what is not read from its file.
fn assemble(
    file: Option<(&str, &str)>,
    environment: &Environment,
    secret_texts: BTreeMap<String, SecretString>,
) -> Result<Loaded, Problems> {
    let mut findings = Findings { secret_texts, ..Findings::default() };
    let table = merge(file, environment, &mut findings.problems);
    let config = read(&mut Reader::root(&table, &mut findings));
    let Findings { problems, lines, secret_files, secret_texts } = findings;
    let file = file.map(|(name, text)| (name.to_owned(), SecretString::from(text)));
    match config {
        Ok(config) if problems.is_empty() => Ok(Loaded { config, secret_files, lines, file, secret_texts }),
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
    let telemetry = root.section("telemetry", telemetry::FIELDS, Telemetry::read);
    Ok(Config {
        server: server?,
        database: database?,
        auth: auth?,
        accounts: accounts?,
        evidence: evidence?,
        retention: retention?,
        webhooks: webhooks?,
        log: log?,
        telemetry: telemetry?,
    })
}

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

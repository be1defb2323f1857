//! From environment variables to settings.
//!
//! `CHECKBACK_<SECTION>__<KEY>`; `-` is written `_`, and an item of a list is named by its number. A variable that
//! begins with `CHECKBACK_` and means nothing is a problem, because it is most likely a typing error.

use std::collections::BTreeMap;
use std::ffi::OsStr;

use ::config::Value;

use super::environment::Environment;
use super::layers::{Layer, Step};
use super::problem::{Origin, Problem, shown};
use super::schema::{self, FILE_SUFFIX, Field, ROOT, Shape, nearest};

const PREFIX: &str = "CHECKBACK_";

/// Variables that are no settings: those of the client commands and of the tests.
const RESERVED: [&str; 5] =
    ["CHECKBACK_URL", "CHECKBACK_KEY", "CHECKBACK_POSTGRES_BIN", "CHECKBACK_EXTRA_VECTORS", "CHECKBACK_BIN"];

/// The most items that a list can have from the environment.
const LIST_LIMIT: usize = 100;

/// The settings in the environment, in the order in which they apply. `accounts` are the names that the file has.
pub(super) fn read(environment: &Environment, accounts: &[String], problems: &mut Vec<Problem>) -> Vec<Layer> {
    let mut layers = Vec::new();
    if let Some(url) = environment.database_url() {
        let path = vec![Step::Key("database".into()), Step::Key("url".into())];
        let origin = Origin::Variable("DATABASE_URL".into());
        layers.push(Layer::text(path, secrecy::ExposeSecret::expose_secret(&url), &origin));
    }
    if environment.iter().any(|(name, value)| name == "DATABASE_URL" && value.to_str().is_none()) {
        problems.push(Problem { key: "DATABASE_URL".into(), origin: None, message: "is not UTF-8 text".into() });
    }
    let mut given: BTreeMap<Vec<Step>, (String, Layer)> = BTreeMap::new();
    for (name, value) in environment.iter() {
        let Some(rest) = name.strip_prefix(PREFIX) else { continue };
        if RESERVED.contains(&name) || from_kubernetes(rest, value) {
            continue;
        }
        let origin = Origin::Variable(name.to_owned());
        let mut problem = |message: String| {
            problems.push(Problem { key: shown(name), origin: None, message });
        };
        let (path, list) = match place(rest, accounts) {
            Ok(place) => place,
            Err(message) => {
                problem(message);
                continue;
            }
        };
        let Some(text) = value.to_str() else {
            problem("is not UTF-8 text".into());
            continue;
        };
        let layer = if list {
            let encoded = origin.encoded();
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            let items: Vec<Value> = items.map(|item| Value::new(Some(&encoded), item)).collect();
            Layer { path: path.clone(), value: Value::new(Some(&encoded), items) }
        } else {
            Layer::text(path.clone(), text, &origin)
        };
        given.insert(path, (name.to_owned(), layer));
    }
    // A key and its file in the same layer are one too many, unless one of them is empty.
    let mut skipped = Vec::new();
    for (path, (name, layer)) in &given {
        let Some((Step::Key(last), parent)) = path.split_last() else { continue };
        let Some(stem) = last.strip_suffix(FILE_SUFFIX) else { continue };
        let mut twin = parent.to_vec();
        twin.push(Step::Key(stem.to_owned()));
        for (other_path, (other, other_layer)) in given.range(twin.clone()..).take_while(|(p, _)| p.starts_with(&twin))
        {
            if super::layers::is_empty(&layer.value) {
                skipped.push(path.clone());
            } else if super::layers::is_empty(&other_layer.value) {
                skipped.push(other_path.clone());
            } else {
                let message = format!("is set, and {} too; keep one of them", shown(other));
                problems.push(Problem { key: shown(name), origin: None, message });
            }
        }
    }
    layers.extend(given.into_iter().filter(|(path, _)| !skipped.contains(path)).map(|(_, (_, layer))| layer));
    layers
}

/// Where the variable's value goes, and whether it is a whole list; or what is wrong with the name.
fn place(rest: &str, accounts: &[String]) -> Result<(Vec<Step>, bool), String> {
    let unknown = || {
        let name = format!("{PREFIX}{rest}").to_uppercase();
        let known: Vec<String> = schema::full_names()
            .into_iter()
            .map(|key| format!("{PREFIX}{}", key.replace('.', "__").to_uppercase()))
            .chain(RESERVED.map(str::to_owned))
            .collect();
        match nearest(&name, known.iter().map(String::as_str).filter(|known| *known != name)) {
            Some(near) => format!("is no setting; did you mean `{near}`? Else unset it"),
            None => "is no setting; unset it, or see config/default.toml for the names".to_owned(),
        }
    };
    if rest.bytes().any(|letter| !(letter.is_ascii_uppercase() || letter.is_ascii_digit() || letter == b'_')) {
        return Err("is no setting: the names of settings are written in capitals".into());
    }
    let (section, key) = rest.split_once("__").ok_or_else(unknown)?;
    let section = section.to_lowercase();
    let field = ROOT.iter().find(|field| field.name == section).ok_or_else(unknown)?;
    let mut path = vec![Step::Key(section)];
    let list = match field.shape {
        Shape::Named(fields) => {
            let (name, rest) = account_and_key(key, fields).ok_or_else(unknown)?;
            path.push(Step::Key(account_name(name, accounts)?));
            descend(fields, rest, &mut path)
        }
        Shape::Section(fields) => descend(fields, key, &mut path),
        Shape::List(fields) => item(fields, key, &mut path)?,
        _ => None,
    };
    Ok((path, list.ok_or_else(unknown)?))
}

/// Splits `ALIBABA_SG__QPS`. An account's name may hold `__` itself, so the key is looked for from the end.
fn account_and_key<'a>(text: &'a str, fields: &[Field]) -> Option<(&'a str, &'a str)> {
    let at = text.rfind("__")?;
    let (name, key) = (&text[..at], &text[at + 2..]);
    if key.bytes().all(|letter| letter.is_ascii_digit())
        && let Some(before) = name.rfind("__")
        && schema::find(fields, &name[before + 2..].to_lowercase()).is_some()
    {
        return Some((&text[..before], &text[before + 2..]));
    }
    (!name.is_empty()).then_some((name, key))
}

/// The account that a name in capitals means: one of the file's, else a new one.
fn account_name(name: &str, accounts: &[String]) -> Result<String, String> {
    let name = name.to_lowercase();
    let mut matching = accounts.iter().filter(|account| account.replace('-', "_") == name);
    match (matching.next(), matching.next()) {
        (None, _) => Ok(name.replace('_', "-")),
        (Some(account), None) => Ok(account.clone()),
        (Some(one), Some(other)) => {
            Err(format!("could mean the accounts {} and {}; rename one of them", shown(one), shown(other)))
        }
    }
}

/// Follows `rest` down from `fields`; `None` when there is no such key.
fn descend(fields: &[Field], rest: &str, path: &mut Vec<Step>) -> Option<bool> {
    let (head, tail) = match rest.split_once("__") {
        Some((head, tail)) => (head, Some(tail)),
        None => (rest, None),
    };
    let (field, as_file) = schema::find(fields, &head.to_lowercase())?;
    path.push(Step::Key(head.to_lowercase()));
    match (field.shape, tail) {
        (Shape::Value | Shape::Secret, None) => Some(false),
        (Shape::Values | Shape::Secrets, None) => Some(!as_file),
        (Shape::Values | Shape::Secrets, Some(index)) if !as_file => {
            path.push(Step::Index(number(index)?));
            Some(false)
        }
        (Shape::List(inner), Some(tail)) => item(inner, tail, path).ok()?,
        (Shape::Section(inner), Some(tail)) => descend(inner, tail, path),
        _ => None,
    }
}

/// An item of a list of tables. The error says that its number is too high.
fn item(fields: &[Field], rest: &str, path: &mut Vec<Step>) -> Result<Option<bool>, String> {
    let Some((index, key)) = rest.split_once("__") else { return Ok(None) };
    if index.is_empty() || !index.bytes().all(|letter| letter.is_ascii_digit()) {
        return Ok(None);
    }
    let Some(index) = number(index) else {
        return Err(format!("names an item beyond the {LIST_LIMIT}th; items are numbered from 0 without gaps"));
    };
    path.push(Step::Index(index));
    Ok(descend(fields, key, path))
}

fn number(text: &str) -> Option<usize> {
    let plain = text.len() <= 3 && text.bytes().all(|letter| letter.is_ascii_digit());
    text.parse().ok().filter(|number| plain && *number < LIST_LIMIT)
}

/// Kubernetes and Docker links describe a service named `checkback…` to every container beside it by variables like
/// `CHECKBACK_SERVICE_HOST` and `CHECKBACK_PORT_8080_TCP_ADDR`.
fn from_kubernetes(rest: &str, value: &OsStr) -> bool {
    if rest.contains("__") {
        return false;
    }
    let name = format!("_{rest}");
    let port = |(_, tail): (&str, &str)| {
        let mut parts = tail.split('_');
        parts.next().is_some_and(|port| port.parse::<u16>().is_ok())
            && matches!(parts.next(), Some("TCP" | "UDP" | "SCTP"))
            && matches!(parts.next(), None | Some("PROTO" | "PORT" | "ADDR"))
    };
    name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_")
        || (name.ends_with("_PORT") && value.to_str().is_some_and(|value| value.contains("://")))
        || name.split_once("_PORT_").is_some_and(port)
}

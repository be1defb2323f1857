//! Merging of the layers: defaults, file, environment.
//!
//! The crate `config` keeps the order of the layers and the origin of each value. Merging is ours, because a key
//! and its `_file` twin are one setting: whichever comes from the higher layer stands, and the other one goes.

use std::fmt;

use ::config::{Config, ConfigError, FileFormat, Format, Map, Source, Value, ValueKind};

use super::problem::{Origin, Problem, shown};
use super::schema::FILE_SUFFIX;

pub(super) type Table = Map<String, Value>;

/// All settings live under this one key while `config` merges them. It reads keys of the top level as path
/// expressions, in which a file could ask for the item 9999999999 of a list.
const TOP: &str = "checkback";

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    Key(String),
    Index(usize),
}

/// A value and where it goes; with an empty path a whole table.
#[derive(Clone)]
pub(super) struct Layer {
    pub(super) path: Vec<Step>,
    pub(super) value: Value,
}

impl Layer {
    pub(super) fn whole(table: Table) -> Self {
        Self { path: Vec::new(), value: Value::new(None, table) }
    }

    pub(super) fn text(path: Vec<Step>, text: &str, origin: &Origin) -> Self {
        Self { path, value: Value::new(Some(&origin.encoded()), text) }
    }
}

impl fmt::Debug for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Layer").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Table, ConfigError> {
        let mut root = Value::new(None, Table::new());
        self.collect_to(&mut root)?;
        root.into_table()
    }

    fn collect_to(&self, cache: &mut Value) -> Result<(), ConfigError> {
        put(child(as_table(cache), TOP), &self.path, self.value.clone());
        Ok(())
    }
}

/// One table out of all layers, lowest first.
pub(super) fn merged(layers: Vec<Layer>) -> Table {
    let mut builder = Config::builder();
    for layer in layers {
        builder = builder.add_source(layer);
    }
    // Our sources never fail, and without settings there is nothing under the top key.
    builder.build().ok().and_then(|built| built.get_table(TOP).ok()).unwrap_or_default()
}

/// The text's table, each value with its origin. The parser's own message would quote the text.
pub(super) fn parse(text: &str, origin: &Origin) -> Result<Table, Problem> {
    FileFormat::Toml.parse(Some(&origin.encoded()), text).map_err(|error| {
        let message = match error.downcast_ref::<toml::de::Error>() {
            Some(error) => {
                let place = error.span().and_then(|span| text.get(..span.start)).map_or(String::new(), |before| {
                    let line = before.matches('\n').count() + 1;
                    let column = before.chars().rev().take_while(|letter| *letter != '\n').count() + 1;
                    format!(" at line {line}, column {column}")
                });
                format!("is not valid TOML{place}: {}", shown(error.message()))
            }
            None => "is not valid TOML: a number is too large".to_owned(),
        };
        Problem { key: origin.to_string(), origin: None, message }
    })
}

fn as_table(value: &mut Value) -> &mut Table {
    if !matches!(value.kind, ValueKind::Table(_)) {
        *value = Value::new(None, Table::new());
    }
    match &mut value.kind {
        ValueKind::Table(table) => table,
        _ => unreachable!("it was made a table above"),
    }
}

fn child<'a>(table: &'a mut Table, key: &str) -> &'a mut Value {
    table.entry(key.to_owned()).or_default()
}

fn put(node: &mut Value, path: &[Step], value: Value) {
    match path.split_first() {
        None => merge(node, value),
        Some((Step::Key(key), rest)) => {
            let table = as_table(node);
            if !matches!(rest.first(), Some(Step::Key(_))) {
                remove_twin(table, key, is_empty(&value));
            }
            put(child(table, key), rest, value);
        }
        Some((Step::Index(index), rest)) => {
            if !matches!(node.kind, ValueKind::Array(_)) {
                *node = Value::new(None, Vec::<Value>::new());
            }
            if let ValueKind::Array(items) = &mut node.kind {
                if items.len() <= *index {
                    items.resize(index + 1, Value::default());
                }
                put(&mut items[*index], rest, value);
            }
        }
    }
}

fn merge(node: &mut Value, value: Value) {
    let ValueKind::Table(incoming) = value.kind else {
        *node = value;
        return;
    };
    let table = as_table(node);
    let twins: Vec<String> =
        incoming.keys().filter(|key| is_empty(&incoming[*key]) && has_twin(&incoming, key)).cloned().collect();
    for (key, value) in incoming {
        if twins.contains(&key) {
            continue;
        }
        if !matches!(value.kind, ValueKind::Table(_)) {
            remove_twin(table, &key, is_empty(&value));
        }
        merge(child(table, &key), value);
    }
}

pub(super) fn is_empty(value: &Value) -> bool {
    match &value.kind {
        ValueKind::String(text) => text.is_empty(),
        ValueKind::Array(items) => items.is_empty(),
        _ => false,
    }
}

/// Whether the same table gives the setting in its other form too, and not empty.
fn has_twin(table: &Table, key: &str) -> bool {
    let other = match key.strip_suffix(FILE_SUFFIX) {
        Some(stem) => table.get(stem),
        None => table.get(&format!("{key}{FILE_SUFFIX}")),
    };
    other.is_some_and(|value| !is_empty(value))
}

/// An empty `x_file` names no file, so it leaves an `x` of a lower layer alone; an empty `x` takes a secret away.
fn remove_twin(table: &mut Table, key: &str, empty: bool) {
    table.remove(&format!("{key}{FILE_SUFFIX}"));
    if let Some(stem) = key.strip_suffix(FILE_SUFFIX)
        && !empty
    {
        table.remove(stem);
    }
}

/// Names of the keys that one layer gives both directly and as a file.
pub(super) fn twins(table: &Table) -> Vec<(String, Option<Origin>)> {
    fn walk(value: &Value, name: &str, found: &mut Vec<(String, Option<Origin>)>) {
        match &value.kind {
            ValueKind::Table(table) => inside(table, &format!("{name}."), found),
            ValueKind::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    walk(item, &format!("{name}.{index}"), found);
                }
            }
            _ => {}
        }
    }
    fn inside(table: &Table, prefix: &str, found: &mut Vec<(String, Option<Origin>)>) {
        for (key, value) in table {
            let twin = table.get(&format!("{key}{FILE_SUFFIX}")).filter(|twin| !is_empty(twin));
            // Tables are accounts, whose names may be alike.
            let tables = [Some(value), twin].into_iter().flatten().any(|v| matches!(v.kind, ValueKind::Table(_)));
            if twin.is_some() && !tables && !is_empty(value) {
                found.push((format!("{prefix}{}", shown(key)), value.origin().map(Origin::decoded)));
            }
            walk(value, &format!("{prefix}{}", shown(key)), found);
        }
    }
    let mut found = Vec::new();
    inside(table, "", &mut found);
    found
}

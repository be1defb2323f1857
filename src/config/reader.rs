//! Reads typed values out of a merged table, and notes everything on the way: problems, the effective values, and
//! the files that secrets came from.
//!
//! Nothing stops at the first problem: a method that found one notes it and returns [`Reported`], and a section
//! looks at its results only after it asked for all of them.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use ::config::{Value, ValueKind};
use secrecy::SecretString;

use super::layers::{Table, is_empty};
use super::problem::{Origin, Problem, shown};
use super::schema::{self, FILE_SUFFIX, Field, nearest};
use super::secret_file::{self, SecretFile};

/// A problem was noted; there is nothing more to say.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reported;

pub(super) type Outcome<T> = Result<T, Reported>;

/// One setting as it is in effect. Holds nothing secret.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Line {
    pub key: String,
    /// `(secret, set)` for a secret, `(empty)` for an empty value.
    pub value: String,
    pub origin: Origin,
}

#[derive(Default)]
pub(super) struct Findings {
    pub(super) problems: Vec<Problem>,
    pub(super) lines: Vec<Line>,
    pub(super) secret_files: Vec<SecretFile>,
    /// What the files of secrets hold, by path: what stands here before the reading is not read from its file.
    pub(super) secret_texts: BTreeMap<String, SecretString>,
}

pub(super) struct Reader<'a> {
    table: &'a Table,
    prefix: String,
    findings: &'a mut Findings,
}

const EMPTY: &str = "(empty)";

/// Longer ones would only overflow dates.
const LONGEST_DURATION: Duration = Duration::from_hours(24 * 3650);

impl<'a> Reader<'a> {
    pub(super) fn root(table: &'a Table, findings: &'a mut Findings) -> Self {
        let mut root = Self { table, prefix: String::new(), findings };
        root.check_keys(schema::ROOT);
        root
    }

    fn full(&self, key: &str) -> String {
        let key = shown(key);
        if self.prefix.is_empty() { key } else { format!("{}.{key}", self.prefix) }
    }

    /// Notes a problem of `key`. The message must not hold a secret.
    pub(super) fn problem(&mut self, key: &str, message: impl Into<String>) -> Reported {
        let twin = format!("{key}{FILE_SUFFIX}");
        let given = self.table.get(key).or_else(|| self.table.get(&twin));
        let origin = given.and_then(origin_within);
        self.problem_from(key, origin, message)
    }

    /// Notes a problem of the whole table.
    pub(super) fn problem_here(&mut self, message: impl Into<String>) -> Reported {
        let origin = self.table.iter().min_by_key(|(key, _)| *key).and_then(|(_, value)| origin_within(value));
        let problem = Problem { key: self.prefix.clone(), origin, message: message.into() };
        self.findings.problems.push(problem);
        Reported
    }

    fn problem_from(&mut self, key: &str, origin: Option<Origin>, message: impl Into<String>) -> Reported {
        let problem = Problem { key: self.full(key), origin, message: message.into() };
        self.findings.problems.push(problem);
        Reported
    }

    fn line(&mut self, key: &str, value: impl Into<String>, origin: Origin) {
        let value = value.into();
        let value = if value.is_empty() { EMPTY.to_owned() } else { value };
        let line = Line { key: self.full(key), value, origin };
        self.findings.lines.push(line);
    }

    /// Notes every key that is none of `fields`.
    pub(super) fn check_keys(&mut self, fields: &[Field]) {
        let unknown: Vec<&String> = self.table.keys().filter(|key| schema::find(fields, key).is_none()).collect();
        for key in unknown {
            self.problem(key, format!("is no known key{}", schema::suggestion(key, fields)));
        }
    }

    pub(super) fn is_given(&self, key: &str) -> bool {
        [key, &format!("{key}{FILE_SUFFIX}")].iter().any(|key| self.table.get(*key).is_some_and(|v| !is_empty(v)))
    }

    /// Whether everything in this table came from environment variables.
    pub(super) fn is_from_environment(&self) -> bool {
        self.table.values().all(|value| matches!(origin_within(value), Some(Origin::Variable(_))))
    }

    // Containers.

    pub(super) fn section<T>(
        &mut self,
        key: &str,
        fields: &[Field],
        read: impl FnOnce(&mut Reader<'_>) -> Outcome<T>,
    ) -> Outcome<T> {
        let empty = Table::new();
        let table = match self.table.get(key).map(|value| &value.kind) {
            None => &empty,
            Some(ValueKind::Table(table)) => table,
            Some(_) => return Err(self.problem(key, format!("must be a section, written [{}]", self.full(key)))),
        };
        let prefix = self.full(key);
        let mut inner = Reader { table, prefix, findings: self.findings };
        inner.check_keys(fields);
        read(&mut inner)
    }

    /// The tables within the table `key`, by name. Their keys are not checked here.
    pub(super) fn named<T>(
        &mut self,
        key: &str,
        mut read: impl FnMut(&mut Reader<'_>, &str, &[&str]) -> Outcome<T>,
    ) -> Outcome<Vec<(String, T)>> {
        let table = match self.table.get(key).map(|value| &value.kind) {
            None => return Ok(Vec::new()),
            Some(ValueKind::Table(table)) => table,
            Some(_) => return Err(self.problem(key, format!("must hold sections, written [{key}.<name>]"))),
        };
        let mut names: Vec<&str> = table.keys().map(String::as_str).collect();
        names.sort_unstable();
        let mut outer = Reader { table, prefix: self.full(key), findings: self.findings };
        let mut all = Vec::new();
        let mut reported = Ok(());
        for name in &names {
            let ValueKind::Table(inner) = &table[*name].kind else {
                reported = Err(outer.problem(name, format!("must be a section, written [{key}.{}]", shown(name))));
                continue;
            };
            let mut reader = Reader { table: inner, prefix: outer.full(name), findings: outer.findings };
            match read(&mut reader, name, &names) {
                Ok(value) => all.push(((*name).to_owned(), value)),
                Err(problem) => reported = Err(problem),
            }
        }
        reported.map(|()| all)
    }

    pub(super) fn list<T>(
        &mut self,
        key: &str,
        fields: &[Field],
        mut read: impl FnMut(&mut Reader<'_>) -> Outcome<T>,
    ) -> Outcome<Vec<T>> {
        let items = match self.table.get(key).map(|value| &value.kind) {
            None => return Ok(Vec::new()),
            Some(ValueKind::Array(items)) => items,
            Some(_) => {
                return Err(
                    self.problem(key, format!("must be a list of sections, each written [[{}]]", self.full(key)))
                );
            }
        };
        let mut all = Vec::new();
        let mut reported = Ok(());
        for (index, item) in items.iter().enumerate() {
            let name = format!("{key}.{index}");
            match &item.kind {
                ValueKind::Table(table) => {
                    let mut reader = Reader { table, prefix: self.full(&name), findings: self.findings };
                    reader.check_keys(fields);
                    match read(&mut reader) {
                        Ok(value) => all.push(value),
                        Err(problem) => reported = Err(problem),
                    }
                }
                ValueKind::Nil => {
                    reported = Err(self.problem(&name, "is missing; items are numbered from 0 without gaps"));
                }
                _ => {
                    let message = format!("must be a section, written [[{}]]", self.full(key));
                    reported = Err(self.problem_from(&name, origin_within(item), message));
                }
            }
        }
        reported.map(|()| all)
    }

    // Plain values. Each notes the effective value.

    /// A text that `check` turns into a value, or says what is wrong with it. The message names no value.
    pub(super) fn parsed<T, E: Into<String>>(
        &mut self,
        key: &str,
        default: &str,
        check: impl FnOnce(&str) -> Result<T, E>,
    ) -> Outcome<T> {
        let (text, origin) = self.raw_text(key, default)?;
        let value = check(&text).map_err(|message| self.problem(key, message))?;
        self.line(key, shown(&text), origin);
        Ok(value)
    }

    /// As [`Reader::parsed`], for a text that may hold something secret: the line shows what `check` says.
    pub(super) fn parsed_hidden<T, E: Into<String>>(
        &mut self,
        key: &str,
        check: impl FnOnce(&str) -> Result<(T, String), E>,
    ) -> Outcome<T> {
        let (text, origin) = self.raw_text(key, "")?;
        let (value, show) = check(&text).map_err(|message| self.problem(key, message))?;
        self.line(key, show, origin);
        Ok(value)
    }

    pub(super) fn choice<T: Copy>(&mut self, key: &str, choices: &[(&str, T)], default: &str) -> Outcome<T> {
        self.parsed(key, default, |text| match choices.iter().find(|(word, _)| *word == text) {
            Some((_, value)) => Ok(*value),
            None => Err(not_among(text, &choices.iter().map(|(word, _)| *word).collect::<Vec<_>>())),
        })
    }

    pub(super) fn duration(&mut self, key: &str, default: &str) -> Outcome<Duration> {
        self.parsed(key, default, duration)
    }

    pub(super) fn number(&mut self, key: &str, range: RangeInclusive<u32>, default: u32) -> Outcome<u32> {
        let (found, origin) = match self.table.get(key) {
            None => (Some(default), Origin::Default),
            Some(value) => {
                let origin = origin_of(value);
                let number = match &value.kind {
                    ValueKind::I64(number) => u32::try_from(*number).ok(),
                    ValueKind::String(text) if matches!(origin, Origin::Variable(_)) => text.trim().parse().ok(),
                    _ => None,
                };
                (number, origin)
            }
        };
        match found.filter(|number| range.contains(number)) {
            Some(number) => {
                self.line(key, number.to_string(), origin);
                Ok(number)
            }
            None => Err(self.problem(key, format!("must be a whole number from {} to {}", range.start(), range.end()))),
        }
    }

    /// A number from 0 to 1.
    pub(super) fn fraction(&mut self, key: &str, default: f64) -> Outcome<f64> {
        let (found, origin) = match self.table.get(key) {
            None => (Some(default), Origin::Default),
            Some(value) => {
                let origin = origin_of(value);
                let number = match &value.kind {
                    ValueKind::Float(number) => Some(*number),
                    ValueKind::I64(number @ 0..=1) => Some(if *number == 0 { 0.0 } else { 1.0 }),
                    ValueKind::String(text) if matches!(origin, Origin::Variable(_)) => text.trim().parse().ok(),
                    _ => None,
                };
                (number, origin)
            }
        };
        match found.filter(|number| (0.0..=1.0).contains(number)) {
            Some(number) => {
                self.line(key, number.to_string(), origin);
                Ok(number)
            }
            None => Err(self.problem(key, "must be a number from 0 to 1")),
        }
    }

    pub(super) fn flag(&mut self, key: &str, default: bool) -> Outcome<bool> {
        let (found, origin) = match self.table.get(key) {
            None => (Some(default), Origin::Default),
            Some(value) => {
                let origin = origin_of(value);
                let flag = match &value.kind {
                    ValueKind::Boolean(flag) => Some(*flag),
                    ValueKind::String(text) if matches!(origin, Origin::Variable(_)) => text.trim().parse().ok(),
                    _ => None,
                };
                (flag, origin)
            }
        };
        match found {
            Some(flag) => {
                self.line(key, flag.to_string(), origin);
                Ok(flag)
            }
            None => Err(self.problem(key, "must be true or false")),
        }
    }

    /// Each item goes through `check`, whose message is noted for the item.
    pub(super) fn texts<T>(
        &mut self,
        key: &str,
        default: &[&str],
        check: impl Fn(&str) -> Result<T, String>,
    ) -> Outcome<Vec<T>> {
        let (texts, origin) = if self.table.contains_key(key) {
            self.raw_texts(key)?
        } else {
            (default.iter().map(|text| (*text).to_owned()).collect(), Origin::Default)
        };
        let values = self.checked(key, &texts, check)?;
        self.line(key, shown(&texts.join(", ")), origin);
        Ok(values)
    }

    // Secrets.

    /// The secret, from the key or from the file that `<key>_file` names; `None` when it is empty.
    pub(super) fn secret(&mut self, key: &str) -> Outcome<Option<SecretString>> {
        let (text, origin) = match self.secret_file(key)? {
            Some(file) => file,
            None => self.raw_text(key, "")?,
        };
        self.line(key, if text.is_empty() { "" } else { "(secret, set)" }, origin);
        Ok((!text.is_empty()).then(|| SecretString::from(text)))
    }

    /// As [`Reader::secret`]; `check` sees the secret and must not repeat it in its message.
    pub(super) fn checked_secret(
        &mut self,
        key: &str,
        check: impl FnOnce(&str) -> Result<(), &'static str>,
    ) -> Outcome<Option<SecretString>> {
        let secret = self.secret(key)?;
        match secret.as_ref().map(|secret| check(secrecy::ExposeSecret::expose_secret(secret))) {
            Some(Err(message)) => Err(self.problem(key, message)),
            Some(Ok(())) | None => Ok(secret),
        }
    }

    pub(super) fn secrets(
        &mut self,
        key: &str,
        check: impl Fn(&str) -> Result<(), String>,
    ) -> Outcome<Vec<SecretString>> {
        let (texts, origin) = match self.secret_file(key)? {
            Some((text, origin)) => {
                let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
                (lines.map(str::to_owned).collect(), origin)
            }
            None if self.table.contains_key(key) => self.raw_texts(key)?,
            None => (Vec::new(), Origin::Default),
        };
        self.checked(key, &texts, check)?;
        let show = match texts.len() {
            0 => String::new(),
            1 => "(secret, set)".to_owned(),
            n => format!("({n} secrets, set)"),
        };
        self.line(key, show, origin);
        Ok(texts.into_iter().map(SecretString::from).collect())
    }

    /// What the file named by `<key>_file` holds, when one is named.
    fn secret_file(&mut self, key: &str) -> Outcome<Option<(String, Origin)>> {
        let file_key = format!("{key}{FILE_SUFFIX}");
        let (path, named_by) = self.raw_text(&file_key, "")?;
        if path.is_empty() {
            return Ok(None);
        }
        let text = match self.findings.secret_texts.get(&path) {
            Some(text) => secrecy::ExposeSecret::expose_secret(text).to_owned(),
            None => secret_file::read(Path::new(&path))
                .map_err(|message| self.problem(&file_key, format!("names {}, which {message}", shown(&path))))?,
        };
        self.findings.secret_texts.insert(path.clone(), SecretString::from(text.as_str()));
        self.findings.secret_files.push(SecretFile { key: self.full(key), path: path.clone() });
        Ok(Some((text, Origin::SecretFile { path, named_by: Box::new(named_by) })))
    }

    // Below: without noting a line.

    fn raw_text(&mut self, key: &str, default: &str) -> Outcome<(String, Origin)> {
        match self.table.get(key) {
            None => Ok((default.to_owned(), Origin::Default)),
            Some(Value { kind: ValueKind::String(text), .. }) => Ok((text.clone(), origin_of(&self.table[key]))),
            Some(value) => {
                let message = format!("must be a text in quotes, not {}", kind_name(&value.kind));
                Err(self.problem(key, message))
            }
        }
    }

    fn raw_texts(&mut self, key: &str) -> Outcome<(Vec<String>, Origin)> {
        let wrong = "must be a list of texts, such as [\"one\", \"two\"]";
        let Some(Value { kind: ValueKind::Array(items), .. }) = self.table.get(key) else {
            return Err(self.problem(key, wrong));
        };
        let mut texts = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            match &item.kind {
                ValueKind::String(text) => texts.push(text.clone()),
                ValueKind::Nil => {
                    let message = format!("has no item {index}; items are numbered from 0 without gaps");
                    return Err(self.problem(key, message));
                }
                _ => return Err(self.problem(key, wrong)),
            }
        }
        let origin = self.table.get(key).and_then(origin_within).unwrap_or(Origin::Default);
        Ok((texts, origin))
    }

    fn checked<T>(
        &mut self,
        key: &str,
        texts: &[String],
        check: impl Fn(&str) -> Result<T, String>,
    ) -> Outcome<Vec<T>> {
        let mut values = Vec::with_capacity(texts.len());
        let mut reported = Ok(());
        for (index, text) in texts.iter().enumerate() {
            match check(text) {
                Ok(value) => values.push(value),
                Err(message) => reported = Err(self.problem(key, format!("item {index} {message}"))),
            }
        }
        reported.map(|()| values)
    }
}

/// A duration as the configuration writes it.
pub(super) fn duration(text: &str) -> Result<Duration, &'static str> {
    match humantime::parse_duration(text) {
        Ok(duration) if duration.is_zero() => Err("must be longer than nothing"),
        Ok(duration) if duration > LONGEST_DURATION => Err("must be at most 3650d"),
        Ok(duration) => Ok(duration),
        Err(_) => Err("must be a duration, such as \"30s\", \"15m\", \"24h\" or \"30d\""),
    }
}

/// "must be one of …", with the nearest one when the word looks like a typing error.
pub(super) fn not_among(text: &str, words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
    let near = match nearest(text, words.iter().copied()) {
        Some(near) => format!("; did you mean \"{near}\"?"),
        None => String::new(),
    };
    format!("must be one of {}{near}", quoted.join(", "))
}

fn origin_of(value: &Value) -> Origin {
    value.origin().map_or(Origin::Default, Origin::decoded)
}

/// The origin of the value or, for a table that was merged, of something in it.
fn origin_within(value: &Value) -> Option<Origin> {
    match &value.kind {
        ValueKind::Table(table) => {
            let first = table.iter().min_by_key(|(key, _)| *key);
            first.and_then(|(_, value)| origin_within(value)).or_else(|| value.origin().map(Origin::decoded))
        }
        ValueKind::Array(items) if value.origin().is_none() => items.iter().find_map(origin_within),
        _ => value.origin().map(Origin::decoded),
    }
}

fn kind_name(kind: &ValueKind) -> &'static str {
    match kind {
        ValueKind::Nil => "nothing",
        ValueKind::Boolean(_) => "true or false",
        ValueKind::I64(_) | ValueKind::I128(_) | ValueKind::U64(_) | ValueKind::U128(_) => "a number",
        ValueKind::Float(_) => "a fraction",
        ValueKind::String(_) => "a text",
        ValueKind::Table(_) => "a section",
        ValueKind::Array(_) => "a list",
    }
}

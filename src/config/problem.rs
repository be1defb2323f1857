//! What is wrong with a configuration, and where each value came from.
//!
//! All problems are collected and shown together, each with the full name of its key. A message never holds the
//! value of a secret; values are quoted only for keys whose values are words of ours.

use std::fmt;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    Default,
    File(String),
    /// An environment variable, by name.
    Variable(String),
    /// The file that `<key>_file` names.
    SecretFile {
        path: String,
        named_by: Box<Origin>,
    },
}

impl Origin {
    /// The form that `config::Value` carries along.
    pub(super) fn encoded(&self) -> String {
        match self {
            Self::Default => "default".into(),
            Self::File(name) => format!("file:{name}"),
            Self::Variable(name) => format!("env:{name}"),
            Self::SecretFile { named_by, .. } => named_by.encoded(),
        }
    }

    pub(super) fn decoded(text: &str) -> Self {
        if let Some(name) = text.strip_prefix("file:") {
            Self::File(name.into())
        } else if let Some(name) = text.strip_prefix("env:") {
            Self::Variable(name.into())
        } else {
            Self::Default
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(name) => write!(f, "file {}", shown(name)),
            Self::Variable(name) => write!(f, "environment variable {}", shown(name)),
            Self::SecretFile { path, named_by } => write!(f, "file {}, named by {named_by}", shown(path)),
        }
    }
}

impl serde::Serialize for Origin {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key's full name, such as `accounts.alibaba-sg.qps`; for a text that is no TOML the file's name.
    pub key: String,
    pub origin: Option<Origin>,
    /// What is wrong and what to do.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.key)?;
        match &self.origin {
            Some(origin) => write!(f, " ({origin}): {}", self.message),
            None => write!(f, ": {}", self.message),
        }
    }
}

/// All problems of a configuration, ordered by key; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

impl Problems {
    pub(super) fn new(mut problems: Vec<Problem>) -> Self {
        problems.sort_by(|a, b| (&a.key, &a.message).cmp(&(&b.key, &b.message)));
        problems.dedup();
        Self(problems)
    }

    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.0.iter()
    }
}

impl<'a> IntoIterator for &'a Problems {
    type Item = &'a Problem;
    type IntoIter = std::slice::Iter<'a, Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            1 => f.write_str("the configuration has a problem:")?,
            n => write!(f, "the configuration has {n} problems:")?,
        }
        for (index, problem) in self.0.iter().enumerate() {
            write!(f, "\n {:2}. {problem}", index + 1)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// Text of a stranger as it may be shown: no control characters, not endless.
pub(super) fn shown(text: &str) -> String {
    const LONGEST: usize = 200;
    let mut short: String = text.chars().take(LONGEST).flat_map(char::escape_debug).collect();
    if text.chars().nth(LONGEST).is_some() {
        short.push('…');
    }
    short
}

//! Which keys there are, apart from what they mean: the names of environment variables, unknown keys and their
//! nearest neighbours are decided from here. The meaning of each key is with its section.

use super::{accounts, auth, database, evidence, log, retention, server, telemetry, webhooks};

/// The form of a key. Secrets may come from a file named by `<key>_file`.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shape {
    Value,
    Values,
    Secret,
    Secrets,
    /// A table with these keys.
    Section(&'static [Field]),
    /// A table of tables with names of the operator's choice.
    Named(&'static [Field]),
    /// A list of tables.
    List(&'static [Field]),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) shape: Shape,
}

pub(super) const fn field(name: &'static str, shape: Shape) -> Field {
    Field { name, shape }
}

pub(super) const ROOT: &[Field] = &[
    field("server", Shape::Section(server::FIELDS)),
    field("database", Shape::Section(database::FIELDS)),
    field("auth", Shape::Section(auth::FIELDS)),
    field("accounts", Shape::Named(accounts::FIELDS)),
    field("evidence", Shape::Section(evidence::FIELDS)),
    field("retention", Shape::Section(retention::FIELDS)),
    field("webhooks", Shape::List(webhooks::FIELDS)),
    field("log", Shape::Section(log::FIELDS)),
    field("telemetry", Shape::Section(telemetry::FIELDS)),
];

pub(super) const FILE_SUFFIX: &str = "_file";

/// The field that `key` names, and whether it does so as `<name>_file`.
pub(super) fn find(fields: &[Field], key: &str) -> Option<(Field, bool)> {
    if let Some(field) = fields.iter().find(|field| field.name == key) {
        return Some((*field, false));
    }
    let stem = key.strip_suffix(FILE_SUFFIX)?;
    let field = fields.iter().find(|field| field.name == stem)?;
    matches!(field.shape, Shape::Secret | Shape::Secrets).then_some((*field, true))
}

/// Full names of all keys, with `<name>` for the name of an account and `0` for an item of a list.
pub(super) fn full_names() -> Vec<String> {
    fn walk(fields: &[Field], prefix: &str, names: &mut Vec<String>) {
        for field in fields {
            let name = format!("{prefix}{}", field.name);
            match field.shape {
                Shape::Value | Shape::Values => names.push(name),
                Shape::Secret | Shape::Secrets => {
                    names.push(format!("{name}{FILE_SUFFIX}"));
                    names.push(name);
                }
                Shape::Section(inner) => walk(inner, &format!("{name}."), names),
                Shape::Named(inner) => walk(inner, &format!("{name}.<name>."), names),
                Shape::List(inner) => walk(inner, &format!("{name}.0."), names),
            }
        }
    }
    let mut names = Vec::new();
    walk(ROOT, "", &mut names);
    names
}

/// "; did you mean …?", or where a key of that name belongs, or nothing.
pub(super) fn suggestion(key: &str, siblings: &[Field]) -> String {
    let mut names: Vec<String> = siblings.iter().map(|field| field.name.to_owned()).collect();
    for field in siblings {
        if matches!(field.shape, Shape::Secret | Shape::Secrets) {
            names.push(format!("{}{FILE_SUFFIX}", field.name));
        }
    }
    if let Some(name) = nearest(key, names.iter().map(String::as_str)) {
        return format!("; did you mean `{name}`?");
    }
    let elsewhere = full_names();
    match elsewhere.iter().find(|name| name.rsplit('.').next() == Some(key)) {
        Some(name) => format!("; did you mean `{name}`?"),
        None => String::new(),
    }
}

/// The candidate that a person most likely meant, when one is near enough.
pub(super) fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    const LONGEST: usize = 100;
    let word: Vec<char> = word.chars().take(LONGEST).collect();
    let allowed = (word.len() / 3).max(1);
    candidates
        .map(|candidate| (distance(&word, candidate), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Insertions, deletions, replacements and swaps of neighbours from one to the other.
fn distance(word: &[char], candidate: &str) -> usize {
    let candidate: Vec<char> = candidate.chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=word.len()).collect();
    for (i, letter) in candidate.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, other) in word.iter().enumerate() {
            let replaced = above[j] + usize::from(letter != other);
            let mut least = replaced.min(row[j] + 1).min(above[j + 1] + 1);
            if i > 0 && j > 0 && *letter == word[j - 1] && candidate[i - 1] == *other {
                least = least.min(before[j - 1] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[word.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_found_and_a_distant_one_is_not() {
        let words = ["public_listen", "internal_listen", "public_url"];
        assert_eq!(nearest("public_lisen", words.into_iter()), Some("public_listen"));
        assert_eq!(nearest("pubic_uri", words.into_iter()), Some("public_url"));
        assert_eq!(nearest("colour", words.into_iter()), None);
        assert_eq!(nearest("", words.into_iter()), None);
    }

    #[test]
    fn distance_counts_single_changes() {
        let word: Vec<char> = "kitten".chars().collect();
        assert_eq!(distance(&word, "sitting"), 3);
        assert_eq!(distance(&word, "kitten"), 0);
        assert_eq!(distance(&word, "iktten"), 1);
        assert_eq!(distance(&word, ""), 6);
    }

    #[test]
    fn a_key_of_another_section_is_pointed_to() {
        assert_eq!(suggestion("data_dir", server::FIELDS), "; did you mean `database.data_dir`?");
    }
}

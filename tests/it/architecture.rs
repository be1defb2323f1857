//! The import rule of `ARCHITECTURE.md`, and the other bounds that hold the modules apart, checked against `src/`.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Of a file, before its tests.
const MOST_LINES: usize = 500;

/// What each module may use of ours. What is not listed may use nothing of ours.
///
/// `lifecycle` stands where tasks are started and stopped: the queues of the service, the loops, the listeners.
const MAY_USE: [(&str, &[&str]); 8] = [
    ("http", &["service", "store", "domain", "clock", "lifecycle", "traces"]),
    ("jobs", &["service", "store", "provider", "evidence", "domain", "clock", "lifecycle", "traces"]),
    ("service", &["store", "provider", "evidence", "webhook", "domain", "clock", "entropy", "lifecycle", "traces"]),
    ("store", &["domain", "clock", "entropy"]),
    ("provider", &["domain", "clock", "entropy"]),
    ("evidence", &["domain"]),
    ("webhook", &["domain", "clock"]),
    // Of the provider the one HTTP client.
    ("traces", &["provider", "lifecycle"]),
];

/// They put the others together.
const USE_ANYTHING: [&str; 5] = ["main", "lib", "cli", "app", "rotation"];

/// What may stand only in files whose path begins so.
const HOMES: [(&str, &[&str]); 11] = [
    ("axum::", &["http/", "simulator/"]),
    ("maud::", &["http/console/", "http/docs/"]),
    ("utoipa::", &["http/"]),
    ("sqlx::", &["store/", "app/", "private_postgres/"]),
    ("reqwest::", &["provider/http.rs", "evidence/", "webhook/", "simulator/"]),
    ("opendal::", &["evidence/"]),
    ("age::", &["evidence/"]),
    ("opentelemetry::", &["traces/"]),
    ("std::env::", &["config/"]),
    ("tokio::spawn(", &["lifecycle.rs", "simulator/"]),
    ("tokio::task::spawn(", &["lifecycle.rs", "simulator/"]),
];

struct File {
    /// Below `src/`, with `/`.
    path: String,
    /// Without comments and tests.
    code: String,
    lines_before_tests: usize,
}

impl File {
    fn module(&self) -> &str {
        self.path.split('/').next().unwrap_or_default().trim_end_matches(".rs")
    }
}

/// A file of tests alone.
fn is_tests(path: &str) -> bool {
    path.ends_with("tests.rs") || path.contains("/tests/") || path.ends_with("testing.rs")
}

fn read(text: &str) -> (String, usize) {
    // A declaration such as `#[cfg(test)] mod tests;` in the middle does not end the code; a module with a body does.
    let lines: Vec<&str> = text.lines().collect();
    let tests = lines
        .windows(2)
        .position(|pair| pair[0].trim() == "#[cfg(test)]" && pair[1].starts_with("mod ") && pair[1].ends_with('{'))
        .unwrap_or(lines.len());
    let code: Vec<&str> = lines[..tests].iter().copied().filter(|line| !line.trim_start().starts_with("//")).collect();
    (code.join("\n"), tests)
}

fn files() -> Vec<File> {
    fn walk(folder: &Path, root: &Path, found: &mut Vec<File>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, root, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/");
                let (code, lines_before_tests) = read(&fs::read_to_string(&path).unwrap());
                found.push(File { path: name, code, lines_before_tests });
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    walk(&root, &root, &mut found);
    found.retain(|file| !is_tests(&file.path));
    assert!(found.len() > 50, "the sources are not where they were");
    found
}

/// The first names after `crate::`, also inside braces.
fn used_modules(code: &str) -> BTreeSet<String> {
    let name = |text: &str| text.chars().take_while(|next| next.is_alphanumeric() || *next == '_').collect::<String>();
    let mut used = BTreeSet::new();
    for (at, found) in code.match_indices("crate::") {
        // `my_crate::` is another word.
        if code[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_') {
            continue;
        }
        let rest = &code[at + found.len()..];
        match rest.strip_prefix('{') {
            None => {
                used.insert(name(rest));
            }
            Some(list) => {
                let mut depth = 0;
                let mut start = true;
                for (at, next) in list.char_indices() {
                    match next {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => start = true,
                        _ if start && !next.is_whitespace() => {
                            used.insert(name(&list[at..]));
                            start = false;
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    used
}

#[test]
fn modules_use_only_what_the_table_allows() {
    let mut wrong = Vec::new();
    for file in files().iter().filter(|file| !USE_ANYTHING.contains(&file.module())) {
        let allowed =
            MAY_USE.iter().find(|(module, _)| *module == file.module()).map_or(&[][..], |(_, allowed)| allowed);
        for used in used_modules(&file.code) {
            if used != file.module() && !allowed.contains(&used.as_str()) {
                wrong.push(format!("{} uses crate::{used}", file.path));
            }
        }
    }
    assert!(wrong.is_empty(), "against the import rule:\n{}", wrong.join("\n"));
}

#[test]
fn the_providers_do_not_import_each_other() {
    let files = files();
    let providers: BTreeSet<&str> = files
        .iter()
        .filter_map(|file| file.path.strip_prefix("provider/")?.split_once('/').map(|(name, _)| name))
        .collect();
    assert!(providers.contains("alibaba"));
    for file in files.iter().filter(|file| file.path.starts_with("provider/")) {
        let own = file.path.split('/').nth(1).unwrap_or_default();
        for other in providers.iter().filter(|other| **other != own) {
            for import in [format!("provider::{other}"), format!("super::super::{other}"), format!("super::{other}::")]
            {
                assert!(!file.code.contains(&import), "{} uses {import}", file.path);
            }
        }
    }
}

#[test]
fn libraries_stay_at_home() {
    let mut wrong = Vec::new();
    for file in files() {
        for (library, homes) in HOMES {
            let at_home = homes.iter().any(|home| file.path.starts_with(home));
            // `use axum::…`, `axum::…`, and not `my_axum::…`.
            let used = file.code.match_indices(library).any(|(at, _)| {
                !file.code[..at].ends_with(|before: char| before.is_alphanumeric() || matches!(before, '_' | ':'))
            });
            if used && !at_home {
                wrong.push(format!("{} uses {library}", file.path));
            }
        }
    }
    assert!(wrong.is_empty(), "out of their homes:\n{}", wrong.join("\n"));
}

/// Else a test that moves the database's time would not move it for all statements.
#[test]
fn statements_take_the_databases_time_from_one_function() {
    // When a migration was applied is no time that anything depends on.
    for file in files().iter().filter(|file| file.module() == "store" && file.path != "store/migrate.rs") {
        for other in ["clock_timestamp", "now()", "statement_timestamp", "current_timestamp", "CURRENT_TIMESTAMP"] {
            let code = file.code.replace("database_now()", "").replace("clock.now()", "");
            assert!(!code.contains(other), "{} uses {other}", file.path);
        }
    }
}

#[test]
fn the_simulator_shares_nothing_with_the_client() {
    for file in files().iter().filter(|file| file.module() == "simulator") {
        let used = used_modules(&file.code);
        assert!(used.iter().all(|module| module == "simulator"), "{} uses {used:?}", file.path);
        assert!(!file.code.contains("checkback::"), "{}", file.path);
    }
}

#[test]
fn files_stay_short() {
    let long: Vec<_> = files()
        .into_iter()
        .filter(|file| file.lines_before_tests > MOST_LINES)
        .map(|file| format!("{}: {} lines", file.path, file.lines_before_tests))
        .collect();
    assert!(long.is_empty(), "over {MOST_LINES} lines before the tests:\n{}", long.join("\n"));
}

#[test]
fn every_module_says_what_it_owns() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for file in files() {
        let text = fs::read_to_string(root.join(&file.path)).unwrap();
        assert!(text.starts_with("//! "), "{} does not open with //!", file.path);
    }
}

#[test]
fn the_reader_of_imports_sees_every_form() {
    let code = "use crate::store::{A, B};\nuse crate::{\n    clock::Clock,\n    domain::{x, y},\n    entropy,\n};\n\
        fn f() { crate::http::g(); my_crate::jobs() }";
    let expected = ["clock", "domain", "entropy", "http", "store"].map(str::to_owned);
    assert_eq!(used_modules(code), BTreeSet::from(expected));
    let (code, lines) = read("//! Doc of axum::x.\nuse a;\n#[cfg(test)]\nmod tests {\n    use crate::http;\n}\n");
    assert_eq!((code.as_str(), lines), ("use a;", 2));
}

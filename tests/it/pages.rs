//! What all pages have in common: links that lead somewhere, code that is run or says why it is not, and quick starts that
//! say the same in each language.
#![expect(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

use std::fs;
use std::path::{Path, PathBuf};

/// Pages whose blocks after `<!-- run -->` are run by `readme`, and in which languages.
const RUN_HERE: [(&str, &[&str]); 7] = [
    ("README.md", &["sh", "sql"]),
    ("docs/ja/quickstart.md", &["sh", "sql"]),
    ("docs/zh/quickstart.md", &["sh", "sql"]),
    ("docs/api.md", &["sh"]),
    ("docs/setup-alibaba.md", &["sh"]),
    ("docs/setup-zoloz.md", &["sh"]),
    ("docs/operations.md", &["sql"]),
];

/// Languages of what can be run, and of what only shows something.
const RUNS: [&str; 9] = ["sh", "bash", "sql", "python", "ts", "js", "java", "go", "rust"];
const SHOWS: [&str; 10] = ["", "text", "json", "toml", "yaml", "ini", "html", "http", "xml", "promql"];

/// Words that begin a command: a block without a language must not hide one.
const COMMANDS: [&str; 12] =
    ["$", "apt", "apt-get", "bash", "cargo", "checkback", "curl", "docker", "kubectl", "npm", "pip", "psql"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All pages, by their path below the root.
fn pages() -> Vec<(String, String)> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                found.push(path);
            }
        }
    }
    let mut found: Vec<PathBuf> = fs::read_dir(root()).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    for folder in ["docs", "deploy", "migrations"] {
        walk(&root().join(folder), &mut found);
    }
    found.sort();
    let page = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        (path.strip_prefix(root()).unwrap().to_str().unwrap().replace('\\', "/"), text)
    };
    found.into_iter().map(page).collect()
}

struct Block<'a> {
    /// The line before it that is not empty.
    before: &'a str,
    language: &'a str,
    text: String,
    line: usize,
}

fn blocks(page: &str) -> Vec<Block<'_>> {
    let mut blocks = Vec::new();
    let mut before = "";
    let mut open: Option<Block<'_>> = None;
    for (number, line) in page.lines().enumerate() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(language)) => {
                open = Some(Block { before, language, text: String::new(), line: number + 1 });
            }
            (Some(_), Some("")) => blocks.extend(open.take()),
            (Some(block), _) => block.text += &format!("{line}\n"),
            (None, None) => {}
        }
        if !line.is_empty() {
            before = line;
        }
    }
    assert!(open.is_none(), "a block is not closed");
    blocks
}

/// What is wrong with how a block says whether it is run.
fn complaint(page: &str, block: &Block<'_>) -> Option<&'static str> {
    if SHOWS.contains(&block.language) {
        let first = block.text.split_whitespace().next().unwrap_or_default();
        let hides = block.language.is_empty() && COMMANDS.contains(&first);
        return hides.then_some("has commands but no language: call it sh and run it, or text");
    }
    if !RUNS.contains(&block.language) {
        return Some("has a language that nobody knows");
    }
    let Some(mark) = block.before.strip_prefix("<!-- ").and_then(|rest| rest.strip_suffix(" -->")) else {
        return Some("is neither run nor says why not: see CONTRIBUTING.md");
    };
    if mark == "run" {
        let here = RUN_HERE.iter().find(|(path, _)| *path == page);
        let is_run = here.is_some_and(|(_, languages)| languages.contains(&block.language));
        return (!is_run).then_some("is marked as run, but tests/it/readme.rs does not run it");
    }
    if let Some(script) = mark.strip_prefix("run by ") {
        let is_run = fs::read_to_string(root().join(script)).is_ok_and(|text| text.contains(page));
        return (!is_run).then_some("names a script that does not run this page");
    }
    let reason = mark.strip_prefix("not run: ").unwrap_or_default();
    (reason.len() < 10).then_some("is neither run nor says why not: see CONTRIBUTING.md")
}

#[test]
fn every_block_that_could_be_run_is_run_or_says_why_not() {
    let pages = pages();
    let complaints: Vec<String> = pages
        .iter()
        .flat_map(|(page, text)| {
            let complaint = |block: &Block<'_>| Some(format!("{page}:{} {}", block.line, complaint(page, block)?));
            blocks(text).iter().filter_map(complaint).collect::<Vec<_>>()
        })
        .collect();
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    let run = pages.iter().flat_map(|(_, text)| blocks(text)).filter(|block| RUNS.contains(&block.language)).count();
    assert!(run > 50, "only {run} blocks were found");
}

#[test]
fn what_is_wrong_with_a_block_is_found() {
    let wrong = |page: &str, text: &str| blocks(text).iter().filter_map(|block| complaint(page, block)).count();
    for (page, text, count) in [
        ("README.md", "<!-- run -->\n```sh\ntrue\n```", 0),
        ("docs/logging.md", "<!-- run -->\n```sh\ntrue\n```", 1),
        ("README.md", "```sh\ntrue\n```", 1),
        ("README.md", "<!-- not run: it takes a month -->\n```sh\ntrue\n```", 0),
        ("README.md", "<!-- not run: -->\n```sh\ntrue\n```", 1),
        ("README.md", "```\ncurl http://127.0.0.1\n```\n\n```\nan answer\n```", 1),
        ("README.md", "```shell\ntrue\n```", 1),
        ("docs/integration.md", "<!-- run by scripts/run-snippets -->\n```python\n1\n```", 0),
        ("README.md", "<!-- run by scripts/run-snippets -->\n```python\n1\n```", 1),
    ] {
        assert_eq!(wrong(page, text), count, "{page}: {text}");
    }
}

/// A block without what is said in comments, which may be in any language.
fn without_comments(text: &str) -> String {
    let bare = |line: &str| {
        let code = if line.starts_with('#') { "" } else { line.split(" # ").next().unwrap_or_default() };
        code.trim_end().to_owned()
    };
    text.lines().map(bare).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_quick_starts_have_the_same_commands_in_each_language() {
    let pages = pages();
    let text = |path: &str| &pages.iter().find(|(page, _)| page == path).unwrap().1;
    let english = text("README.md").split("\n## ").find(|part| part.starts_with("Try it step by step")).unwrap();
    let commands = |page: &str| -> Vec<(String, String)> {
        blocks(page).iter().map(|block| (block.language.to_owned(), without_comments(&block.text))).collect()
    };
    assert!(commands(english).len() >= 8);
    for path in ["docs/ja/quickstart.md", "docs/zh/quickstart.md"] {
        assert_eq!(commands(text(path)), commands(english), "{path}");
    }
}

/// What a heading is called in a link.
fn anchor(heading: &str) -> String {
    let words = heading.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
    words.chars().filter(|letter| letter.is_alphanumeric() || matches!(letter, '-' | '_')).collect()
}

#[test]
fn every_file_and_heading_pointed_to_is_there() {
    let mut seen = 0;
    for (page, text) in pages() {
        let page = root().join(page);
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for target in targets.filter(|target| !target.contains("://")) {
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            let pointed_to = if file.is_empty() { page.clone() } else { page.parent().unwrap().join(file) };
            assert!(pointed_to.exists(), "{target} in {}", page.display());
            let there = fs::read_to_string(&pointed_to).unwrap_or_default();
            let is_there =
                heading.is_empty() || there.lines().any(|line| line.starts_with('#') && anchor(line) == heading);
            assert!(is_there, "{target} in {}", page.display());
            seen += 1;
        }
    }
    assert!(seen > 10, "the links are not where they were");
}

//! What all pages have in common: links that lead somewhere, code that is run or says why it is not, and quick starts that
//! say the same in each language.
#![expect(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

use std::fs;
use std::path::{Path, PathBuf};

/// Pages whose blocks `readme` runs, and in which languages. Statements of SQL are run on every page.
const RUN_HERE: [(&str, &[&str]); 6] = [
    ("README.md", &["sh"]),
    ("docs/ja/quickstart.md", &["sh"]),
    ("docs/zh/quickstart.md", &["sh"]),
    ("docs/api.md", &["sh"]),
    ("docs/setup-alibaba.md", &["sh"]),
    ("docs/setup-zoloz.md", &["sh"]),
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
pub fn pages() -> Vec<(String, String)> {
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

pub struct Block<'a> {
    /// The line before it that is not empty.
    before: &'a str,
    pub language: &'a str,
    pub text: &'a str,
    /// Everything behind it.
    pub after: &'a str,
    line: usize,
}

impl Block<'_> {
    /// Whether it says that it is run elsewhere, or why it is not.
    fn is_left_out(&self) -> bool {
        ["<!-- not run: ", "<!-- run by ", "<!-- run: "].iter().any(|mark| self.before.starts_with(mark))
    }
}

fn blocks(page: &str) -> Vec<Block<'_>> {
    let mut blocks = Vec::new();
    let (mut before, mut at, mut number) = ("", 0, 0);
    while let Some(line) = page[at..].split('\n').next().filter(|_| at < page.len()) {
        number += 1;
        let next = (at + line.len() + 1).min(page.len());
        if let Some(language) = line.strip_prefix("```") {
            // From the end of the opening line on, so that an empty one ends too.
            let body = &page[next - 1..];
            let end = body.find("\n```").unwrap_or_else(|| panic!("line {number}: a block is not closed"));
            let (text, after) = (body[..end].trim_start_matches('\n'), &body[end + "\n```".len()..]);
            blocks.push(Block { before, language, text, after, line: number });
            number += text.lines().count() + 1;
            at = page.len() - after.len() + after.find('\n').map_or(after.len(), |end| end + 1);
            before = "```";
            continue;
        }
        if !line.is_empty() {
            before = line;
        }
        at = next;
    }
    blocks
}

/// What is run of a page: every block in this language that does not say otherwise.
pub fn run_blocks<'a>(page: &'a str, language: &str) -> Vec<Block<'a>> {
    let mut blocks = blocks(page);
    blocks.retain(|block| block.language == language && !block.is_left_out());
    blocks
}

/// The scripts that name a page.
fn scripts_of(page: &str) -> Vec<(String, String)> {
    let scripts = fs::read_dir(root().join("scripts")).unwrap().map(|entry| entry.unwrap().path());
    let read = |path: PathBuf| {
        let name = format!("scripts/{}", path.file_name().unwrap().to_str().unwrap());
        Some((name, fs::read_to_string(path).ok()?))
    };
    scripts.filter_map(read).filter(|(_, text)| text.contains(page)).collect()
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
    if !block.is_left_out() {
        let here = RUN_HERE.iter().find(|(path, _)| *path == page);
        let is_run = block.language == "sql" || here.is_some_and(|(_, languages)| languages.contains(&block.language));
        return (!is_run).then_some("is neither run nor says why not: see CONTRIBUTING.md");
    }
    let mark = block.before.strip_prefix("<!-- ").and_then(|rest| rest.strip_suffix(" -->")).unwrap_or_default();
    if let Some(reason) = mark.strip_prefix("not run: ") {
        return (reason.len() < 10).then_some("says hardly why it is not run");
    }
    let is_run = match (mark.strip_prefix("run by "), mark.strip_prefix("run: ")) {
        (Some(script), _) => scripts_of(page).iter().any(|(name, _)| name == script),
        (_, Some(program)) => scripts_of(page).iter().any(|(_, text)| text.contains(program)),
        _ => false,
    };
    (!is_run).then_some("is run by no script that names this page")
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
    for (page, _) in RUN_HERE {
        assert!(pages.iter().any(|(path, _)| path == page), "{page} is gone");
    }
}

#[test]
fn what_is_wrong_with_a_block_is_found() {
    let wrong = |page: &str, text: &str| blocks(text).iter().filter_map(|block| complaint(page, block)).count();
    for (page, text, count) in [
        ("README.md", "```sh\ntrue\n```", 0),
        ("docs/logging.md", "```sh\ntrue\n```", 1),
        ("docs/logging.md", "```sql\nSELECT 1\n```", 0),
        ("docs/logging.md", "<!-- not run: it takes a month -->\n```sh\ntrue\n```", 0),
        ("docs/logging.md", "<!-- not run: no -->\n```sh\ntrue\n```", 1),
        ("docs/logging.md", "```\ncurl http://127.0.0.1\n```\n\n```\nan answer\n```", 1),
        ("README.md", "```shell\ntrue\n```", 1),
        ("docs/integration.md", "<!-- run by scripts/run-snippets -->\n```python\n1\n```", 0),
        ("docs/logging.md", "<!-- run by scripts/run-snippets -->\n```python\n1\n```", 1),
        ("docs/webhooks.md", "<!-- run: receiver.py -->\n```python\n1\n```", 0),
        ("docs/webhooks.md", "<!-- run: nobody.py -->\n```python\n1\n```", 1),
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
        blocks(page).iter().map(|block| (block.language.to_owned(), without_comments(block.text))).collect()
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

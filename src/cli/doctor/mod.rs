//! `checkback doctor`: looks at everything that must be right before the service can do its work, and says of what is
//! not how to mend it. Nothing is changed but a small object in the evidence store, which is deleted again; nothing is
//! asked of a provider but one call about nobody.

mod accounts;
mod addresses;
mod database;
mod evidence;

use std::io::IsTerminal;
use std::path::Path;
use std::pin::Pin;
use std::process::ExitCode;
use std::time::Duration;

use futures_util::StreamExt;
use serde::Serialize;
use serde_json::json;

use super::{FAILED, Outcome, WRONG_USAGE, output};
use crate::config::{Environment, Loaded, load};

/// What takes longer is named while it goes on.
const SOON: Duration = Duration::from_secs(1);
/// Checks at a time.
const AT_A_TIME: usize = 8;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// As JSON, for programs.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Level {
    Ok,
    Warning,
    Fault,
}

/// What a check found; one line.
#[derive(Clone, Debug, Serialize)]
struct Finding {
    level: Level,
    check: String,
    says: String,
    /// What to do; none where all is well, or where what it says tells it.
    remedy: Option<String>,
}

impl Finding {
    fn ok(check: impl Into<String>, says: impl Into<String>) -> Self {
        Self { level: Level::Ok, check: check.into(), says: says.into(), remedy: None }
    }

    fn warning(check: impl Into<String>, says: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { level: Level::Warning, remedy: Some(remedy.into()), ..Self::ok(check, says) }
    }

    fn fault(check: impl Into<String>, says: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { level: Level::Fault, remedy: Some(remedy.into()), ..Self::ok(check, says) }
    }
}

/// A part of the look, by name.
struct Check<'a> {
    name: String,
    look: Pin<Box<dyn Future<Output = Vec<Finding>> + 'a>>,
}

impl<'a> Check<'a> {
    fn new(name: impl Into<String>, look: impl Future<Output = Vec<Finding>> + 'a) -> Self {
        Self { name: name.into(), look: Box::pin(look) }
    }
}

pub async fn run(file: Option<&Path>, environment: &Environment, arguments: &Arguments) -> Outcome {
    let mut report = Report {
        json: arguments.json,
        colours: std::io::stdout().is_terminal() && !environment.no_color(),
        found: vec![],
    };
    let loaded = match load(file, environment) {
        Ok(loaded) => loaded,
        Err(problems) => {
            for problem in &problems {
                let says = match &problem.origin {
                    Some(origin) => format!("({origin}) {}", problem.message),
                    None => problem.message.clone(),
                };
                report.add(Finding { level: Level::Fault, ..Finding::ok(&problem.key, says) });
            }
            report.end();
            return Ok(ExitCode::from(WRONG_USAGE));
        }
    };
    report.add(Finding::ok("configuration", "every key is known and every value can be used"));
    addresses::of_settings(&loaded.config).into_iter().for_each(|finding| report.add(finding));
    look(&loaded, environment, &mut report).await;
    let is_well = report.end();
    Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

/// Everything that takes time, several at once, told in their order.
async fn look(loaded: &Loaded, environment: &Environment, report: &mut Report) {
    let config = &loaded.config;
    let mut checks = vec![
        Check::new("database", database::look(config, environment)),
        Check::new("evidence", evidence::look(config, environment)),
        Check::new("server.public_url", addresses::public_url(config)),
    ];
    for (name, account) in &config.accounts {
        checks.push(Check::new(format!("accounts.{name}"), accounts::look(loaded, environment, name, account)));
    }
    for webhook in &config.webhooks {
        checks.push(Check::new(format!("webhooks.{}", webhook.name), addresses::webhook(webhook)));
    }
    let names: Vec<String> = checks.iter().map(|check| check.name.clone()).collect();
    let mut names = names.iter();
    let mut results = futures_util::stream::iter(checks.into_iter().map(|check| check.look)).buffered(AT_A_TIME);
    let shows_progress = std::io::stderr().is_terminal();
    while let Some(name) = names.next() {
        let next = results.next();
        tokio::pin!(next);
        let found = match tokio::time::timeout(SOON, &mut next).await {
            Ok(found) => found,
            Err(_) => {
                if shows_progress {
                    output::progress(&format!("looking at {name} …"));
                }
                let found = next.await;
                if shows_progress {
                    output::progress("");
                }
                found
            }
        };
        found.into_iter().flatten().for_each(|finding| report.add(finding));
    }
}

struct Report {
    json: bool,
    colours: bool,
    found: Vec<Finding>,
}

impl Report {
    fn add(&mut self, finding: Finding) {
        if !self.json {
            output::line(&self.words(&finding));
        }
        self.found.push(finding);
    }

    fn words(&self, finding: &Finding) -> String {
        let (level, colour) = match finding.level {
            Level::Ok => ("ok", 32),
            Level::Warning => ("warning", 33),
            Level::Fault => ("fault", 31),
        };
        let level = format!("{level:<7}");
        let level = if self.colours { format!("\x1b[{colour}m{level}\x1b[0m") } else { level };
        let remedy = finding.remedy.as_ref().map(|remedy| format!(". {}", capital(remedy))).unwrap_or_default();
        format!("{level}  {}: {}{remedy}", finding.check, finding.says)
    }

    /// The sum; true without faults.
    fn end(&self) -> bool {
        let count = |level| self.found.iter().filter(|finding| finding.level == level).count();
        let (faults, warnings) = (count(Level::Fault), count(Level::Warning));
        if self.json {
            let sum = json!({ "faults": faults, "warnings": warnings, "checks": self.found });
            output::line(&sum.to_string());
        } else {
            output::line(&match (faults, warnings) {
                (0, 0) => "All is well.".to_owned(),
                (0, warnings) => format!("It works; warnings: {warnings}."),
                (faults, warnings) => format!("Faults: {faults}, warnings: {warnings}."),
            });
        }
        faults == 0
    }
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().collect::<String>() + letters.as_str()).unwrap_or_default()
}

/// An error and what is behind it, the last of it being what people know the fault by.
fn told(error: &dyn std::error::Error) -> String {
    let mut last = None;
    let mut cause = error.source();
    while let Some(error) = cause {
        last = Some(error.to_string());
        cause = error.source();
    }
    match last {
        Some(last) => format!("{error} ({last})"),
        None => error.to_string(),
    }
}

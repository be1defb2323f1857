//! `checkback reconcile`: does everything add up?

use std::process::ExitCode;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde_json::Value;

use super::client::{Client, Options, text, time};
use super::{FAILED, Outcome, output};
use crate::clock::Clock;
use crate::config::Environment;

const STATES: [&str; 8] = ["waiting", "collecting", "passed", "failed", "review", "void", "expired", "unresolvable"];

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// What was registered since: so long ago (7d, 12h), or a time (2026-01-31T12:00:00Z).
    #[arg(long, value_name = "TIME", value_parser = parse_since, default_value = "7d")]
    since: Since,
    /// What was registered before this time; without it, until now.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    until: Option<DateTime<Utc>>,
    /// Print only what does not add up.
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    client: Options,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Since {
    Ago(TimeDelta),
    At(DateTime<Utc>),
}

pub fn parse_time(text: &str) -> Result<DateTime<Utc>, String> {
    DateTime::parse_from_rfc3339(text)
        .map(|time| time.to_utc())
        .map_err(|_| "write it like 2026-01-31T12:00:00Z".to_owned())
}

fn parse_since(text: &str) -> Result<Since, String> {
    if let Ok(time) = parse_time(text) {
        return Ok(Since::At(time));
    }
    humantime::parse_duration(text)
        .ok()
        .and_then(|ago| TimeDelta::from_std(ago).ok())
        .filter(|ago| *ago <= TimeDelta::days(36_500))
        .map(Since::Ago)
        .ok_or_else(|| "write 7d, 12h, or a time like 2026-01-31T12:00:00Z".to_owned())
}

pub async fn run(environment: &Environment, arguments: &Arguments) -> Outcome {
    let client = Client::new(&arguments.client, environment)?;
    let now = Clock::system(TimeDelta::zero()).now();
    let since = match arguments.since {
        Since::At(time) => time,
        Since::Ago(ago) => arguments.until.unwrap_or(now) - ago,
    };
    let write = |time: DateTime<Utc>| Some(time.to_rfc3339_opts(SecondsFormat::Micros, true));
    let query = [("since", write(since)), ("until", arguments.until.and_then(write))];
    let answer = client.get(&["reconcile"], &query).await?;
    let adds_up = answer.body["adds_up"] == true;
    if arguments.client.json {
        answer.print();
    } else {
        if !arguments.check {
            show(&answer.body);
        }
        for line in problems(&answer.body) {
            output::line(&line);
        }
        if !arguments.check || !adds_up {
            output::line(&sentence(&answer.body));
        }
    }
    Ok(if adds_up { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

fn number(value: &Value) -> String {
    let digits = value.as_i64().unwrap_or(0).to_string();
    let mut text = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) && !text.ends_with('-') {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// The tables.
fn show(body: &Value) {
    output::line(&format!("Registered from {} until {}\n", time(&body["since"]), time(&body["until"])));
    let mut head = vec!["ACCOUNT".to_owned(), "REGISTERED".to_owned()];
    head.extend(STATES.map(str::to_uppercase));
    let row = |account: &Value| {
        let mut row = vec![text(&account["account"]), number(&account["registered"])];
        row.extend(STATES.map(|state| number(&account["states"][state])));
        row
    };
    output::table(head, items(&body["accounts"]).iter().map(row));
    let without = items(&body["without_verdict"]);
    if !without.is_empty() {
        output::line("\nEnded without a verdict of the provider\n");
        let row =
            |of: &Value| vec![text(&of["account"]), text(&of["status"]), number(&of["count"]), text(&of["reason"])];
        output::table(["ACCOUNT", "STATUS", "COUNT", "REASON"].map(str::to_owned), without.iter().map(row));
    }
    let billing = items(&body["billing"]);
    if !billing.is_empty() {
        output::line("\nResults by code\n");
        let row = |of: &Value| {
            let billed = match of["billed"].as_bool() {
                Some(true) => "yes",
                Some(false) => "no",
                None => "not known",
            };
            let code = if of["sub_code"].is_null() { "-".to_owned() } else { text(&of["sub_code"]) };
            let product = if of["product"].is_null() { "-".to_owned() } else { text(&of["product"]) };
            vec![text(&of["account"]), product, code, number(&of["count"]), billed.to_owned()]
        };
        let head = ["ACCOUNT", "PRODUCT", "SUB_CODE", "COUNT", "BILLED"].map(str::to_owned);
        output::table(head, billing.iter().map(row));
    }
    let rechecks = &body["rechecks"];
    output::line(&format!(
        "\nRechecks: {} open; {} verdicts took the place of earlier ones.\n",
        number(&rechecks["open"]),
        number(&rechecks["revisions"])
    ));
}

/// A line for each thing that does not add up, and one for each id.
fn problems(body: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    for problem in items(&body["problems"]) {
        let count = number(&problem["count"]);
        lines.push(format!("{} ({count}): {}", text(&problem["problem"]), text(&problem["detail"])));
        let ids = items(&problem["ids"]);
        lines.extend(ids.iter().map(|id| format!("  {}", text(id))));
        let more = problem["count"].as_u64().unwrap_or(0).saturating_sub(ids.len() as u64);
        if more > 0 {
            lines.push(format!("  and {more} more"));
        }
    }
    lines
}

fn sentence(body: &Value) -> String {
    let calls = &body["calls"];
    format!(
        "It {}: {} registered, {} final + {} waiting + {} collecting; calls of the provider: {} in the history, {} \
         counted.",
        if body["adds_up"] == true { "adds up" } else { "does not add up" },
        number(&body["registered"]),
        number(&body["final"]),
        number(&body["waiting"]),
        number(&body["collecting"]),
        number(&calls["history"]),
        number(&calls["rows"]),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_beginning_is_so_long_ago_or_a_time() {
        assert_eq!(parse_since("7d"), Ok(Since::Ago(TimeDelta::days(7))));
        assert!(matches!(parse_since("2026-01-31T12:00:00Z"), Ok(Since::At(_))));
        assert!(parse_since("yesterday").is_err() && parse_since("99999999y").is_err());
    }

    #[test]
    fn numbers_have_their_thousands_apart() {
        let numbers = [0, 999, 1000, 1_234_567].map(|n| number(&json!(n)));
        assert_eq!(numbers, ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(number(&json!(-1000)), "-1,000");
        assert_eq!(number(&json!(-100)), "-100");
    }

    #[test]
    fn what_does_not_add_up_is_told_with_its_ids() {
        let problem = json!({ "problem": "lost", "detail": "verifications that …", "count": 3, "ids": ["a", "b"] });
        let lines = problems(&json!({ "problems": [problem] }));
        assert_eq!(lines, ["lost (3): verifications that …", "  a", "  b", "  and 1 more"]);
    }
}

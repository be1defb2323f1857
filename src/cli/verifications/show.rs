//! `checkback verifications show` and `collect`.

use std::process::ExitCode;

use serde_json::{Map, Value, json};

use super::client::{Client, Options, text, time};
use super::{Outcome, output};
use crate::config::Environment;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Of the verification.
    id: String,
    /// Wait until it is final, at most so many seconds (up to 60).
    #[arg(long, value_name = "SECONDS")]
    wait: Option<u8>,
    /// Show everything that happened to it, too.
    #[arg(long, conflicts_with = "json")]
    history: bool,
    #[command(flatten)]
    client: Options,
}

#[derive(Debug, clap::Args)]
pub struct Collect {
    /// Of the verification.
    id: String,
    /// Ask also when it is final; the key needs the scope operate.
    #[arg(long)]
    recheck: bool,
    #[command(flatten)]
    client: Options,
}

pub async fn run(environment: &Environment, arguments: &Arguments) -> Outcome {
    let client = Client::new(&arguments.client, environment)?;
    let wait = [("wait", arguments.wait.map(|wait| wait.to_string()))];
    let answer = client.get(&["verifications", &arguments.id], &wait).await?;
    if arguments.client.json {
        answer.print();
        return Ok(ExitCode::SUCCESS);
    }
    print(&answer.body);
    let why = client.get(&["verifications", &arguments.id, "why"], &[]).await?;
    output::line("");
    explain(&why.body);
    if arguments.history {
        let history = client.get(&["verifications", &arguments.id, "history"], &[]).await?;
        let items = history.body["items"].as_array().map(Vec::as_slice).unwrap_or_default();
        output::line("");
        output::table(["AT", "KIND", "DETAIL"].map(str::to_owned), items.iter().map(happened));
    }
    Ok(ExitCode::SUCCESS)
}

pub async fn collect(environment: &Environment, arguments: &Collect) -> Outcome {
    let client = Client::new(&arguments.client, environment)?;
    let body = json!({ "recheck": arguments.recheck });
    let answer = client.post(&["verifications", &arguments.id, "collect"], &body).await?;
    if arguments.client.json {
        answer.print();
    } else {
        let id = &arguments.id;
        output::line(&format!(
            "The provider is asked now. To see what it says: checkback verifications show --wait 30 {id}"
        ));
    }
    Ok(ExitCode::SUCCESS)
}

/// What people look for first; the rest follows in the order of names.
const FIRST: [&str; 8] =
    ["id", "account", "transaction_id", "merchant_biz_id", "product", "status", "sub_code", "reason"];

/// Each member in a line, those of objects by their path.
pub fn print(body: &Value) {
    fn walk(name: &str, value: &Value, rows: &mut Vec<Vec<String>>) {
        match value {
            Value::Object(members) if !members.is_empty() && name != "metadata" => {
                for (member, value) in members {
                    let name = if name.is_empty() { member.clone() } else { format!("{name}.{member}") };
                    walk(&name, value, rows);
                }
            }
            Value::Array(items) if name == "evidence" => {
                for item in items {
                    walk(&format!("{name}.{}", text(&item["kind"])), item, rows);
                }
            }
            Value::Object(members) if members.is_empty() => {}
            value => rows.push(vec![name.to_owned(), text(value)]),
        }
    }
    let mut rows = Vec::new();
    walk("", body, &mut rows);
    rows.sort_by_key(|row| FIRST.iter().position(|first| *first == row[0]).unwrap_or(FIRST.len()));
    output::table(["NAME", "VALUE"].map(str::to_owned), rows);
}

/// Why it is where it is: what is so, who must act, what comes next.
fn explain(why: &Value) {
    let also = why["also"].as_array().map(Vec::as_slice).unwrap_or_default();
    for statement in std::iter::once(why).chain(also) {
        let part = |name: &str| text(&statement[name]);
        output::line(&format!("{}: {}", part("code"), part("summary")));
        if statement["who"] != "nobody" {
            output::line(&format!("  who must act: {}", part("who")));
        }
        if statement["remedy"].is_string() {
            output::line(&format!("  what to do: {}", part("remedy")));
        }
        if statement["next"].is_string() {
            let at = time(&statement["next_at"]);
            output::line(format!("  next: {} {at}", part("next")).trim_end());
        }
    }
}

fn happened(item: &Value) -> Vec<String> {
    let rest: Map<String, Value> = item
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(name, value)| !matches!(name.as_str(), "at" | "kind") && !value.is_null())
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    let detail = rest.iter().map(|(name, value)| format!("{name}={}", text(value))).collect::<Vec<_>>().join(" ");
    vec![text(&item["at"]), text(&item["kind"]), detail]
}

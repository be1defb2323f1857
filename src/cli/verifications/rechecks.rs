//! `checkback verifications rechecks`: which there are, and the end of one.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::client::{Client, Options, text, time};
use super::{Outcome, output};
use crate::config::Environment;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Stop this one: what it has put in line and was not asked about is taken back.
    #[arg(long, value_name = "ID", conflicts_with_all = ["limit", "cursor"])]
    stop: Option<String>,
    /// At most so many, up to 200.
    #[arg(long)]
    limit: Option<u8>,
    /// Where the page before ended.
    #[arg(long)]
    cursor: Option<String>,
    #[command(flatten)]
    client: Options,
}

pub async fn run(environment: &Environment, arguments: &Arguments) -> Outcome {
    let client = Client::new(&arguments.client, environment)?;
    if let Some(id) = &arguments.stop {
        let stopped = client.delete(&["rechecks", id], &json!({})).await?;
        if arguments.client.json {
            stopped.print();
        } else {
            show(&[stopped.body]);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let query = [("limit", arguments.limit.map(|limit| limit.to_string())), ("cursor", arguments.cursor.clone())];
    let answer = client.get(&["rechecks"], &query).await?;
    if arguments.client.json {
        answer.print();
        return Ok(ExitCode::SUCCESS);
    }
    show(answer.body["items"].as_array().map(Vec::as_slice).unwrap_or_default());
    if let Some(cursor) = answer.body["next_cursor"].as_str() {
        output::note(&format!("There are more: --cursor {cursor}"));
    }
    Ok(ExitCode::SUCCESS)
}

fn show(rechecks: &[Value]) {
    let head = ["ID", "STATE", "FILTER", "MATCHED", "DONE", "WAITING", "REVISED", "BEGUN", "BY"].map(str::to_owned);
    output::table(head, rechecks.iter().map(row));
}

fn row(recheck: &Value) -> Vec<String> {
    let part = |name: &str| text(&recheck[name]);
    vec![
        part("id"),
        part("state"),
        filter(&recheck["filter"]),
        part("matched"),
        part("done"),
        part("waiting"),
        part("revised"),
        time(&recheck["created_at"]),
        part("created_by"),
    ]
}

/// The members that say something.
fn filter(filter: &Value) -> String {
    let given = filter.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null());
    let members: Vec<_> = given.map(|(name, value)| format!("{name}={}", text(value))).collect();
    if members.is_empty() { "everything".to_owned() } else { members.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_told_by_what_it_says() {
        assert_eq!(filter(&json!({ "account": null, "status": "failed" })), "status=failed");
        assert_eq!(filter(&json!({ "account": null })), "everything");
    }
}

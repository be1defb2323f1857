//! `checkback verifications list`.

use std::process::ExitCode;

use serde_json::Value;

use super::client::{Client, Options, text, time};
use super::{Outcome, output};
use crate::config::Environment;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// waiting, collecting, passed, failed, review, void, expired or unresolvable.
    #[arg(long)]
    status: Option<String>,
    /// Of this account.
    #[arg(long, value_name = "NAME")]
    account: Option<String>,
    /// With the provider's id.
    #[arg(long, value_name = "ID")]
    transaction_id: Option<String>,
    /// With your own reference.
    #[arg(long, value_name = "ID")]
    merchant_biz_id: Option<String>,
    /// At this time or later.
    #[arg(long, value_name = "TIME")]
    registered_after: Option<String>,
    /// Before this time.
    #[arg(long, value_name = "TIME")]
    registered_before: Option<String>,
    /// What the provider deletes soon, least time left first: video or result.
    #[arg(long, value_name = "KIND")]
    at_risk: Option<String>,
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
    let query = [
        ("status", arguments.status.clone()),
        ("account", arguments.account.clone()),
        ("transaction_id", arguments.transaction_id.clone()),
        ("merchant_biz_id", arguments.merchant_biz_id.clone()),
        ("registered_after", arguments.registered_after.clone()),
        ("registered_before", arguments.registered_before.clone()),
        ("at_risk", arguments.at_risk.clone()),
        ("limit", arguments.limit.map(|limit| limit.to_string())),
        ("cursor", arguments.cursor.clone()),
    ];
    let answer = client.get(&["verifications"], &query).await?;
    if arguments.client.json {
        answer.print();
        return Ok(ExitCode::SUCCESS);
    }
    let items = answer.body["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    let row = |item: &Value| {
        let deadline = arguments.at_risk.as_ref().map_or("result", |kind| kind.as_str());
        let ended = if item["final"] == true { time(&item["final_at"]) } else { String::new() };
        let lost = if item["final"] == true && arguments.at_risk.is_none() {
            String::new()
        } else {
            time(&item["deadlines"][deadline])
        };
        vec![
            text(&item["id"]),
            text(&item["account"]),
            text(&item["status"]),
            text(&item["sub_code"]),
            time(&item["registered_at"]),
            ended,
            lost,
        ]
    };
    let head = ["ID", "ACCOUNT", "STATUS", "SUB_CODE", "REGISTERED", "FINAL", "DEADLINE"].map(str::to_owned);
    output::table(head, items.iter().map(row));
    if let Some(cursor) = answer.body["next_cursor"].as_str() {
        output::note(&format!("There are more: --cursor {cursor}"));
    }
    Ok(ExitCode::SUCCESS)
}

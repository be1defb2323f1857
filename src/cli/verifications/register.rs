//! `checkback verifications register`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use http::StatusCode;
use serde_json::{Map, Value};

use super::client::{Client, Options};
use super::show::print;
use super::{Outcome, output};
use crate::cli::Failure;
use crate::config::Environment;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The provider's id of the transaction.
    transaction_id: String,
    /// May be left out when only one is configured.
    #[arg(long, value_name = "NAME")]
    account: Option<String>,
    /// Your own reference, as you sent it to the provider.
    #[arg(long, value_name = "ID")]
    merchant_biz_id: Option<String>,
    /// A file that holds the callback token of this transaction.
    #[arg(long, value_name = "FILE")]
    callback_token_file: Option<PathBuf>,
    /// The provider's product.
    #[arg(long)]
    product: Option<String>,
    /// An evidence video was asked for.
    #[arg(long)]
    expect_video: bool,
    /// Where the browser goes from /returns.
    #[arg(long, value_name = "URL")]
    return_url: Option<String>,
    /// A JSON object of yours.
    #[arg(long, value_name = "JSON")]
    metadata: Option<String>,
    #[command(flatten)]
    client: Options,
}

pub async fn run(environment: &Environment, arguments: &Arguments) -> Outcome {
    let client = Client::new(&arguments.client, environment)?;
    let mut body = Map::new();
    let token = arguments.callback_token_file.as_ref().map(|path| {
        std::fs::read_to_string(path)
            .with_context(|| format!("--callback-token-file: {} cannot be read", path.display()))
            .map(|text| text.trim().to_owned())
    });
    let texts = [
        ("transaction_id", Some(arguments.transaction_id.clone())),
        ("account", arguments.account.clone()),
        ("merchant_biz_id", arguments.merchant_biz_id.clone()),
        ("callback_token", token.transpose().map_err(Failure::usage)?),
        ("product", arguments.product.clone()),
        ("return_url", arguments.return_url.clone()),
    ];
    for (name, text) in texts {
        if let Some(text) = text {
            body.insert(name.to_owned(), text.into());
        }
    }
    if arguments.expect_video {
        body.insert("expect_video".to_owned(), true.into());
    }
    if let Some(metadata) = &arguments.metadata {
        let metadata: Value =
            serde_json::from_str(metadata).context("--metadata must be JSON").map_err(Failure::usage)?;
        body.insert("metadata".to_owned(), metadata);
    }
    let answer = client.post(&["verifications"], &Value::Object(body)).await?;
    if arguments.client.json {
        answer.print();
        return Ok(ExitCode::SUCCESS);
    }
    let was_known = answer.status == StatusCode::OK;
    output::note(if was_known { "It was registered before, with the same data." } else { "It is registered." });
    print(&answer.body);
    Ok(ExitCode::SUCCESS)
}

//! `checkback webhooks …`: how endpoints fare, what is on its way to them, and sending it again.

use std::process::ExitCode;

use clap::Subcommand;
use serde_json::{Value, json};

use super::client::{Client, Options, text, time};
use super::{FAILED, Outcome, output};
use crate::config::Environment;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the endpoints and how they fare.
    List(Options),
    /// List deliveries, newest first.
    Deliveries(Deliveries),
    /// Send events again: counts them, and with --yes begins.
    Replay(Replay),
    /// Enable an endpoint that answered 410, or try a failing one at once.
    Enable(Named),
    /// Send a signed test event; ends with 1 when it is not delivered.
    Test(Named),
}

#[derive(Debug, clap::Args)]
pub struct Deliveries {
    /// To this endpoint.
    #[arg(long, value_name = "NAME")]
    endpoint: Option<String>,
    /// pending, delivered or failed.
    #[arg(long)]
    status: Option<String>,
    /// Of this verification.
    #[arg(long, value_name = "ID")]
    verification_id: Option<String>,
    /// At most so many, up to 200.
    #[arg(long)]
    limit: Option<u8>,
    /// Where the page before ended.
    #[arg(long)]
    cursor: Option<String>,
    #[command(flatten)]
    client: Options,
}

#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("what").required(true))]
pub struct Replay {
    /// This event, to every endpoint that it was for.
    #[arg(long, value_name = "ID", group = "what")]
    event_id: Option<String>,
    /// All events of this verification.
    #[arg(long, value_name = "ID", group = "what")]
    verification_id: Option<String>,
    /// Events of a time, to this endpoint; also those that it had not wanted then.
    #[arg(long, value_name = "NAME", group = "what", requires = "since")]
    endpoint: Option<String>,
    /// From this time on.
    #[arg(long, value_name = "TIME", requires = "endpoint")]
    since: Option<String>,
    /// Before this time; without it, until now.
    #[arg(long, value_name = "TIME", requires = "endpoint")]
    until: Option<String>,
    /// Of this type, such as `verification.passed`; may be repeated. Without it, what the endpoint wants.
    #[arg(long = "type", value_name = "TYPE", requires = "endpoint")]
    types: Vec<String>,
    /// Begin, and not only count.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    client: Options,
}

#[derive(Debug, clap::Args)]
pub struct Named {
    /// The endpoint's name in the configuration.
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    client: Options,
}

pub async fn run(environment: &Environment, command: &Command) -> Outcome {
    match command {
        Command::List(options) => list(environment, options).await,
        Command::Deliveries(arguments) => deliveries(environment, arguments).await,
        Command::Replay(arguments) => replay(environment, arguments).await,
        Command::Enable(arguments) => enable(environment, arguments).await,
        Command::Test(arguments) => test(environment, arguments).await,
    }
}

fn items(body: &Value) -> &[Value] {
    body["items"].as_array().map(Vec::as_slice).unwrap_or_default()
}

async fn list(environment: &Environment, options: &Options) -> Outcome {
    let answer = Client::new(options, environment)?.get(&["webhooks"], &[]).await?;
    if options.json {
        answer.print();
        return Ok(ExitCode::SUCCESS);
    }
    let row = |item: &Value| {
        let why = if item["state"] == "disabled" { &item["disabled_reason"] } else { &item["last_failure"] };
        vec![
            text(&item["name"]),
            text(&item["state"]),
            text(&item["pending"]),
            text(&item["failed"]),
            time(&item["last_success_at"]),
            time(&item["last_failure_at"]),
            text(why),
        ]
    };
    let head = ["NAME", "STATE", "PENDING", "FAILED", "LAST SUCCESS", "LAST FAILURE", "WHY"].map(str::to_owned);
    output::table(head, items(&answer.body).iter().map(row));
    Ok(ExitCode::SUCCESS)
}

async fn deliveries(environment: &Environment, arguments: &Deliveries) -> Outcome {
    let query = [
        ("endpoint", arguments.endpoint.clone()),
        ("status", arguments.status.clone()),
        ("verification_id", arguments.verification_id.clone()),
        ("limit", arguments.limit.map(|limit| limit.to_string())),
        ("cursor", arguments.cursor.clone()),
    ];
    let answer = Client::new(&arguments.client, environment)?.get(&["webhooks", "deliveries"], &query).await?;
    if arguments.client.json {
        answer.print();
        return Ok(ExitCode::SUCCESS);
    }
    let row = |item: &Value| {
        let last = &item["last_attempt"];
        vec![
            text(&item["event_id"]),
            text(&item["endpoint"]),
            text(&item["verification_id"]),
            text(&item["type"]),
            text(&item["status"]),
            text(&item["attempts"]),
            format!("{} {}", text(&last["result"]), text(&last["status"])).trim().to_owned(),
            time(&item["next_attempt_at"]),
        ]
    };
    let head = ["EVENT", "ENDPOINT", "VERIFICATION", "TYPE", "STATUS", "ATTEMPTS", "LAST", "NEXT"].map(str::to_owned);
    output::table(head, items(&answer.body).iter().map(row));
    if let Some(cursor) = answer.body["next_cursor"].as_str() {
        output::note(&format!("There are more: --cursor {cursor}"));
    }
    Ok(ExitCode::SUCCESS)
}

async fn replay(environment: &Environment, arguments: &Replay) -> Outcome {
    let client = Client::new(&arguments.client, environment)?;
    let wish = |dry_run: bool| {
        json!({
            "event_id": arguments.event_id,
            "verification_id": arguments.verification_id,
            "endpoint": arguments.endpoint,
            "since": arguments.since,
            "until": arguments.until,
            "types": (!arguments.types.is_empty()).then_some(&arguments.types),
            "dry_run": dry_run,
        })
    };
    let answer = client.post(&["webhooks", "replay"], &wish(!arguments.yes)).await?;
    if arguments.client.json {
        answer.print();
        return Ok(ExitCode::SUCCESS);
    }
    let deliveries = |count: &Value| match count.as_u64() {
        Some(1) => "1 delivery".to_owned(),
        count => format!("{} deliveries", count.unwrap_or(0)),
    };
    if arguments.yes {
        output::line(&format!("{} begun anew.", deliveries(&answer.body["begun"])));
        if answer.body["complete"] == false {
            output::note("There are more; the same command goes on.");
        }
    } else {
        output::line(&format!("{} would begin anew.", deliveries(&answer.body["matched"])));
        output::note("Nothing was begun. To begin, add --yes.");
    }
    Ok(ExitCode::SUCCESS)
}

async fn enable(environment: &Environment, arguments: &Named) -> Outcome {
    let client = Client::new(&arguments.client, environment)?;
    let answer = client.post(&["webhooks", &arguments.name, "enable"], &json!({})).await?;
    if arguments.client.json {
        answer.print();
    } else {
        output::line(&format!("{} is enabled; {} pending.", arguments.name, text(&answer.body["pending"])));
    }
    Ok(ExitCode::SUCCESS)
}

async fn test(environment: &Environment, arguments: &Named) -> Outcome {
    let client = Client::new(&arguments.client, environment)?;
    let answer = client.post(&["webhooks", &arguments.name, "test"], &json!({})).await?;
    let body = &answer.body;
    let is_delivered = body["result"] == "delivered";
    if arguments.client.json {
        answer.print();
    } else if is_delivered {
        output::line(&format!("Delivered in {} ms: {}", text(&body["duration_ms"]), text(&body["status"])));
    } else {
        output::line(&format!("Not delivered: {}", text(&body["reason"])));
        if let Some(said) = body["answer"].as_str() {
            output::line(&format!("It said: {said}"));
        }
    }
    Ok(if is_delivered { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

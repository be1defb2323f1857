//! `checkback simulate`: the provider simulators alone.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use secrecy::SecretString;
use tokio::net::TcpListener;

use super::{Failure, Outcome, output};
use crate::lifecycle::stop_signal;
use crate::simulator::{Settings, Simulator};

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Where to listen.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9090")]
    listen: SocketAddr,
    /// The access key that requests must be signed with.
    #[arg(long, value_name = "ID", default_value = "sim-key-id")]
    access_key_id: String,
    /// Its secret. It is for tests: never a real one.
    #[arg(long, value_name = "SECRET", default_value = "sim-key-secret")]
    access_key_secret: SecretString,
    /// A JSON file with transactions and faults to begin with.
    #[arg(long, value_name = "FILE")]
    scenario: Option<PathBuf>,
    /// Throttle each operation at so many calls a second.
    #[arg(long, value_name = "N")]
    qps: Option<u32>,
    /// Let Initialize accept callback URLs with http to any host, as between containers.
    #[arg(long)]
    allow_http_callbacks: bool,
}

pub async fn run(arguments: &Arguments) -> Outcome {
    let simulator = Simulator::new(&Settings {
        access_key_id: arguments.access_key_id.clone(),
        access_key_secret: arguments.access_key_secret.clone(),
        qps: arguments.qps,
        scenario: arguments.scenario.clone(),
        allow_http_callbacks: arguments.allow_http_callbacks,
        ..Settings::default()
    })
    .map_err(Failure::usage)?;
    let listener = TcpListener::bind(arguments.listen)
        .await
        .with_context(|| format!("{} cannot be listened on", arguments.listen))?;
    let address = listener.local_addr().context("the listener has no address")?;
    output::note(&format!("Simulating Alibaba Cloud ID Verification at http://{address}/ (control: /_sim)."));
    simulator.serve(listener, stop_signal()).await.context("the simulator stopped")?;
    Ok(ExitCode::SUCCESS)
}

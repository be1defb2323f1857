//! `checkback simulate`: the provider simulators alone.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use secrecy::SecretString;
use tokio::net::TcpListener;

use super::{Failure, Outcome, output};
use crate::lifecycle::stop_signal;
use crate::simulator::{Settings, Simulator, ZolozKeys};

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
    /// The clients of ZOLOZ and their keys, TOML or JSON; without it one client with fresh keys is made.
    #[arg(long, value_name = "FILE")]
    zoloz_keys: Option<PathBuf>,
    /// Write the keys of ZOLOZ to this file, in the form that --zoloz-keys reads. They are for tests.
    #[arg(long, value_name = "FILE")]
    write_zoloz_keys: Option<PathBuf>,
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
    let zoloz_keys = arguments.zoloz_keys.as_deref().map(ZolozKeys::read).transpose().map_err(Failure::usage)?;
    let simulator = Simulator::new(&Settings {
        access_key_id: arguments.access_key_id.clone(),
        access_key_secret: arguments.access_key_secret.clone(),
        qps: arguments.qps,
        scenario: arguments.scenario.clone(),
        allow_http_callbacks: arguments.allow_http_callbacks,
        zoloz_keys,
        ..Settings::default()
    })
    .map_err(Failure::usage)?;
    if let Some(path) = &arguments.write_zoloz_keys {
        let written = simulator.zoloz_keys().write(path);
        written.with_context(|| format!("the keys of ZOLOZ cannot be written to {}", path.display()))?;
    }
    let listener = TcpListener::bind(arguments.listen)
        .await
        .with_context(|| format!("{} cannot be listened on", arguments.listen))?;
    let address = listener.local_addr().context("the listener has no address")?;
    output::note(&format!(
        "Simulating Alibaba Cloud ID Verification at http://{address}/ and ZOLOZ at http://{address}/api/ (control: /_sim)."
    ));
    let client_ids: Vec<_> = simulator.zoloz_keys().credentials().into_iter().map(|client| client.client_id).collect();
    let where_from = match (&arguments.write_zoloz_keys, &arguments.zoloz_keys) {
        (Some(path), _) | (None, Some(path)) => format!("in {}", path.display()),
        (None, None) => format!("at http://{address}/_sim/zoloz-keys, for callers on this machine"),
    };
    output::note(&format!("Clients of ZOLOZ: {}; their test keys are {where_from}.", client_ids.join(", ")));
    simulator.serve(listener, stop_signal()).await.context("the simulator stopped")?;
    Ok(ExitCode::SUCCESS)
}

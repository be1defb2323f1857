//! `checkback health`: whether the service beside it lives. An image without a shell has nothing else to ask with.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{FAILED, Failure, Outcome, output};
use crate::config::Loaded;

const PATIENCE: Duration = Duration::from_secs(3);

pub async fn run(loaded: &Loaded) -> Outcome {
    let mut address = loaded.config.server.internal_listen;
    if address.ip().is_unspecified() {
        let loopback: IpAddr = if address.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
        address = SocketAddr::new(loopback, address.port());
    }
    let status = tokio::time::timeout(PATIENCE, ask(address))
        .await
        .with_context(|| format!("{address} did not answer within {} s", PATIENCE.as_secs()))
        .map_err(Failure::from)?
        .with_context(|| format!("{address} could not be asked (is the service running?)"))?;
    output::line(&status);
    Ok(if status.contains(" 200 ") { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

/// The status line of `/healthz`.
async fn ask(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await?;
    let mut answer = Vec::new();
    stream.take(4096).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned())
}

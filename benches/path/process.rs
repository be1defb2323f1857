//! The process itself: how soon it is ready, and what it needs when idle.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::ensure;

use crate::load::Connection;
use crate::world::{ENOUGH, World};
use crate::{Result, report};

/// Stops the service however the measurement ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

pub async fn measure() -> Result<()> {
    report::section("The process, on a migrated database");
    let world = World::start(&[]).await?;
    world.register_elsewhere(ENOUGH / 10).await?;
    let mut ready = Vec::new();
    let mut memory = 0;
    for round in 0..5_u16 {
        let port = 39_180 + round * 2;
        let start = Instant::now();
        let child = Command::new(env!("CARGO_BIN_EXE_checkback"))
            .arg("serve")
            .env("DATABASE_URL", world.url())
            .env("CHECKBACK_SERVER__PUBLIC_LISTEN", format!("127.0.0.1:{port}"))
            .env("CHECKBACK_SERVER__INTERNAL_LISTEN", format!("127.0.0.1:{}", port + 1))
            .env("CHECKBACK_AUTH__MODE", "none")
            .env("CHECKBACK_ACCOUNTS__ALIBABA_SG__KIND", "alibaba")
            .env("CHECKBACK_ACCOUNTS__ALIBABA_SG__ENDPOINT", format!("http://{}", world.simulator))
            .env("CHECKBACK_ACCOUNTS__ALIBABA_SG__ACCESS_KEY_ID", "sim-key-id")
            .env("CHECKBACK_ACCOUNTS__ALIBABA_SG__ACCESS_KEY_SECRET", "sim-key-secret")
            .stderr(Stdio::null())
            .spawn()?;
        let running = Running(child);
        let address = format!("127.0.0.1:{}", port + 1).parse()?;
        loop {
            ensure!(start.elapsed() < Duration::from_secs(20), "the service is not ready");
            if let Ok(mut connection) = Connection::open(address).await
                && connection.ask(b"GET /readyz HTTP/1.1\r\nhost: checkback\r\n\r\n").await.is_ok()
            {
                break;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        ready.push(start.elapsed());
        tokio::time::sleep(Duration::from_secs(2)).await;
        memory = resident(running.0.id())?.max(memory);
    }
    ready.sort_unstable();
    report::line(&format!("ready after {} (median of {})", report::millis(ready[ready.len() / 2]), ready.len()));
    report::line(&format!("idle memory {:.1} MiB (resident, highest)", memory as f64 / 1024.0));
    world.stop().await
}

/// KiB.
fn resident(process: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0 kB");
    Ok(line.trim().trim_end_matches(" kB").trim().parse()?)
}

//! The load: plain HTTP/1.1 over kept connections, as lean as it goes, so that the figures are the service's.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::Result;
use crate::service::Bench;

/// The answers of one measurement.
pub struct Measured {
    pub elapsed: Duration,
    delays: Vec<Duration>,
}

impl Measured {
    pub fn per_second(&self) -> f64 {
        self.delays.len() as f64 / self.elapsed.as_secs_f64()
    }

    pub fn percentile(&self, share: f64) -> Duration {
        self.delays.get(((self.delays.len() as f64 - 1.0) * share) as usize).copied().unwrap_or_default()
    }
}

/// Requests as bytes, taken one after the other by all connections.
pub struct Requests {
    texts: Vec<Vec<u8>>,
    next: AtomicUsize,
    /// Begin again when all were sent.
    pub round: bool,
}

impl Requests {
    pub fn new(texts: Vec<Vec<u8>>, round: bool) -> Arc<Self> {
        Arc::new(Self { texts, next: AtomicUsize::new(0), round })
    }

    fn take(&self) -> Option<&[u8]> {
        let index = self.next.fetch_add(1, Ordering::Relaxed);
        let index = if self.round { index % self.texts.len() } else { index };
        self.texts.get(index).map(Vec::as_slice)
    }
}

/// One kept connection.
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    pub async fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: vec![0; 256 * 1024] })
    }

    /// Sends and reads the whole answer; anything but 2xx is an error.
    pub async fn ask(&mut self, request: &[u8]) -> Result<()> {
        self.stream.write_all(request).await?;
        let mut filled = 0;
        loop {
            let read = self.stream.read(&mut self.buffer[filled..]).await?;
            if read == 0 {
                bail!("the connection was closed");
            }
            filled += read;
            let answer = &self.buffer[..filled];
            let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
            if length(&answer[..end])? + end + 4 <= filled {
                break;
            }
        }
        if &self.buffer[9..10] != b"2" {
            bail!("refused: {}", String::from_utf8_lossy(&self.buffer[..filled]));
        }
        Ok(())
    }
}

fn length(head: &[u8]) -> Result<usize> {
    let head = std::str::from_utf8(head)?;
    let line = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim())
    });
    line.context("no content-length")?.parse().context("a bad content-length")
}

/// As fast as `connections` go, each waiting for its answer, for `time`.
pub fn closed(address: SocketAddr, connections: usize, time: Duration, requests: &Arc<Requests>) -> Result<Measured> {
    run(address, connections, Some(time), requests)
}

/// As fast as `connections` go until every request was answered.
pub fn all(address: SocketAddr, connections: usize, requests: &Arc<Requests>) -> Result<Measured> {
    run(address, connections, None, requests)
}

/// On a thread of its own with one small runtime: what a lean client would take.
fn run(address: SocketAddr, connections: usize, time: Option<Duration>, requests: &Arc<Requests>) -> Result<Measured> {
    let requests = Arc::clone(requests);
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(drive(address, connections, time, requests))
    });
    tokio::task::block_in_place(|| thread.join()).map_err(|_| anyhow::anyhow!("the load generator panicked"))?
}

async fn drive(
    address: SocketAddr,
    connections: usize,
    time: Option<Duration>,
    requests: Arc<Requests>,
) -> Result<Measured> {
    let mut open = Vec::new();
    for _ in 0..connections {
        open.push(Connection::open(address).await?);
    }
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for mut connection in open {
        let requests = Arc::clone(&requests);
        tasks.spawn(async move {
            let mut delays = Vec::new();
            while time.is_none_or(|time| start.elapsed() < time) {
                let Some(request) = requests.take() else { break };
                let sent_at = Instant::now();
                connection.ask(request).await?;
                delays.push(sent_at.elapsed());
            }
            Ok::<_, anyhow::Error>(delays)
        });
    }
    let mut delays = Vec::new();
    while let Some(done) = tasks.join_next().await {
        delays.append(&mut done??);
    }
    let elapsed = start.elapsed();
    delays.sort_unstable();
    Ok(Measured { elapsed, delays })
}

/// `per_second` callbacks at even distances; for each the time until a reader who waits has the verdict.
pub async fn paced(bench: &Bench, transactions: &[crate::world::Known], per_second: u32) -> Result<Vec<Duration>> {
    let distance = Duration::from_secs(1) / per_second;
    let mut idle: Vec<(Connection, Connection)> = Vec::new();
    let mut tasks = JoinSet::new();
    let mut delays = Vec::new();
    let start = tokio::time::Instant::now();
    for (index, known) in (0..).zip(transactions) {
        tokio::time::sleep_until(start + distance * index).await;
        while let Some(done) = tasks.try_join_next() {
            let (delay, pair): (Duration, _) = done??;
            delays.push(delay);
            idle.push(pair);
        }
        let (mut callbacks, mut reads) = match idle.pop() {
            Some(pair) => pair,
            None => (Connection::open(bench.public).await?, Connection::open(bench.internal).await?),
        };
        let (callback, read) = (known.callback(), known.read());
        tasks.spawn(async move {
            let sent_at = Instant::now();
            callbacks.ask(&callback).await?;
            reads.ask(&read).await?;
            Ok::<_, anyhow::Error>((sent_at.elapsed(), (callbacks, reads)))
        });
    }
    while let Some(done) = tasks.join_next().await {
        delays.push(done??.0);
    }
    delays.sort_unstable();
    Ok(delays)
}

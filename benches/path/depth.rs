//! What depends on how much there is: a fresh callback under a backlog, and the statements on a full database.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::ensure;
use checkback::store::{Lease, Rate};
use chrono::TimeDelta;
use uuid::Uuid;

use crate::Result;
use crate::load::{self, Connection};
use crate::report::{delays, line, ratio, section};
use crate::service::{Bench, Shape};
use crate::world::{ACCOUNT, World};

/// What a merchant's account is allowed at the provider.
const QPS: u32 = 10;
/// Fresh callbacks measured without and with the backlog, one a second: far fewer than the account allows.
const FRESH: usize = 40;
/// Verifications that wait for a retry or a poll.
const BACKLOG: i32 = 100_000;

/// Times of each statement on each database.
const TIMES: usize = 2000;
/// Those before that, which fill the caches.
const UNCOUNTED: usize = 200;

/// A callback to its verdict while nothing else is due, and while a hundred thousand others are.
pub async fn backlog(pool: u32) -> Result<()> {
    section(&format!("A fresh callback under a backlog of {BACKLOG}, at {QPS} calls a second"));
    let world = World::start(&[]).await?;
    let bench = Bench::start(&world, Shape { pool, engine: true, qps: QPS }).await?;
    let fresh = bench.register(&world, 2 * FRESH + 2).await?;
    let (alone, under) = fresh.split_at(FRESH + 1);
    load::paced(&bench, &alone[..1], 1).await?;
    let without = load::paced(&bench, &alone[1..], 1).await?;
    line(&format!("alone              {}", delays(&without)));
    world.add_backlog(BACKLOG).await?;
    load::paced(&bench, &under[..1], 1).await?;
    let with = load::paced(&bench, &under[1..], 1).await?;
    line(&format!("under the backlog  {}", delays(&with)));
    let median = |sorted: &[Duration]| sorted[sorted.len() / 2].as_secs_f64();
    line(&format!("ratio of medians   {}", ratio(median(&with), median(&without))));
    bench.stop().await;
    world.stop().await
}

/// Leasing, reading and listing on a small database and on one with `rows` finished verifications, in turns.
pub async fn rows(rows: u64) -> Result<()> {
    section(&format!("Leasing, reading and listing at 10,000 and at {rows} finished verifications"));
    let small = Filled::start(10_000).await?;
    let large = Filled::start(rows).await?;
    for what in [What::Lease, What::Read, What::List, What::ListByStatus, What::AtRisk] {
        let (mut few, mut many) = (Vec::with_capacity(TIMES), Vec::with_capacity(TIMES));
        for n in 0..UNCOUNTED + TIMES {
            let (at_small, at_large) = (small.time(what, n).await?, large.time(what, n).await?);
            if n >= UNCOUNTED {
                few.push(at_small);
                many.push(at_large);
            }
        }
        few.sort_unstable();
        many.sort_unstable();
        let p99 = |sorted: &[Duration]| sorted[sorted.len() * 99 / 100].as_secs_f64();
        line(&format!("{:<16} 10,000     {}", what.name(), delays(&few)));
        line(&format!("{:<16} {rows:<10} {}", "", delays(&many)));
        line(&format!("{:<16} ratio of p99 {}", "", ratio(p99(&many), p99(&few))));
    }
    small.stop().await?;
    large.stop().await
}

#[derive(Clone, Copy)]
enum What {
    Lease,
    Read,
    List,
    ListByStatus,
    AtRisk,
}

impl What {
    fn name(self) -> &'static str {
        match self {
            Self::Lease => "lease",
            Self::Read => "read",
            Self::List => "list",
            Self::ListByStatus => "list by status",
            Self::AtRisk => "list at risk",
        }
    }
}

struct Filled {
    world: World,
    bench: Bench,
    connection: tokio::sync::Mutex<Connection>,
    ids: Vec<Uuid>,
}

impl Filled {
    async fn start(rows: u64) -> Result<Self> {
        let world = World::start(&[]).await?;
        let started = Instant::now();
        let filled = tokio::process::Command::new(world.binaries().join("psql"))
            .args(["-q", "-v", &format!("finished={rows}"), "-v", &format!("open_every={}", rows / 1000), "-f"])
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/fill.sql"))
            .arg(world.url())
            .stderr(Stdio::piped())
            .output()
            .await?;
        ensure!(filled.status.success(), "psql failed: {}", String::from_utf8_lossy(&filled.stderr));
        world.settle().await?;
        line(&format!("{rows} were made in {} s", started.elapsed().as_secs()));
        let share = (TIMES as f64 * 150.0 / rows as f64).min(100.0);
        let ids = sqlx::query_scalar(
            "SELECT verification_id FROM verifications TABLESAMPLE bernoulli ($1) ORDER BY random()",
        )
        .bind(share)
        .fetch_all(&world.pool)
        .await?;
        let bench = Bench::start(&world, Shape { pool: 4, engine: false, qps: 1_000_000 }).await?;
        let connection = Connection::open(bench.internal).await?.into();
        Ok(Self { world, bench, connection, ids })
    }

    async fn time(&self, what: What, n: usize) -> Result<Duration> {
        let path = match what {
            What::Lease => return self.lease().await,
            What::Read => format!("/verifications/{}", self.ids[n % self.ids.len()]),
            What::List => format!("/verifications?limit=50&account={ACCOUNT}"),
            What::ListByStatus => "/verifications?limit=50&status=failed".to_owned(),
            What::AtRisk => "/verifications?limit=50&at_risk=result".to_owned(),
        };
        let request = format!("GET {path} HTTP/1.1\r\nhost: checkback\r\n\r\n");
        let mut connection = self.connection.lock().await;
        if n == 0 {
            // The one before was idle, and idle ones are closed.
            *connection = Connection::open(self.bench.internal).await?;
        }
        let asked_at = Instant::now();
        connection.ask(request.as_bytes()).await?;
        Ok(asked_at.elapsed())
    }

    /// Ten jobs, which are given back.
    async fn lease(&self) -> Result<Duration> {
        let (store, now) = (self.bench.store(), self.bench.now());
        let asked_at = Instant::now();
        let leased = store
            .lease_due(Lease {
                account: ACCOUNT,
                token: self.bench.token(),
                limit: 10,
                length: Duration::from_secs(10),
                rate: Rate {
                    qps: 1_000_000,
                    slack: Duration::ZERO,
                    horizon: Duration::from_millis(100),
                    bulk_horizon: Duration::from_millis(100),
                    recovery: 0.05,
                },
                now,
                next_probe_at: now + TimeDelta::minutes(1),
                videos_gone: now - TimeDelta::minutes(30),
                turn: None,
            })
            .await?;
        let took = asked_at.elapsed();
        ensure!(leased.jobs.len() == 10, "only {} jobs were due", leased.jobs.len());
        let jobs: Vec<_> = leased.jobs.iter().map(|job| (job.id, job.token)).collect();
        store.release_leases(&jobs).await?;
        Ok(took)
    }

    async fn stop(self) -> Result<()> {
        self.bench.stop().await;
        self.world.stop().await
    }
}

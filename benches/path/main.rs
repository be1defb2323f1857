//! What the main path costs, beside what the parts below it cost, all in one run on one machine.
//!
//! `cargo bench --bench path` prints tables with the limits (bare axum, `pgbench`) beside ours, and the ratios that
//! matter. Absolute figures move with the machine; ratios of one run hold. Arguments pick sections: `limits`, `ack`,
//! `path`, `slow-disk`, `backlog`, `process`, and `rows`, which runs only when it is named; `--seconds N` sets the length
//! of each measurement, `--connections N` picks one number of connections, `--rate N` sets how many callbacks a second
//! come where they are not sent as fast as they are answered (500), `--pool N` how many connections the service may open
//! to the database (16), and `--rows N` how many finished verifications the full database has (10 million, which take
//! about 10 GB and some minutes to make).

#![expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts and times of a benchmark are far below where a float loses them"
)]

mod depth;
mod load;
mod process;
mod processor;
mod report;
mod service;
mod world;

use std::time::Duration;

use processor::Used;
use report::{Row, rate, ratio, section};
use service::Shape;
use world::World;

pub type Result<T> = anyhow::Result<T>;

/// Connections, as the aims name them.
const CONNECTIONS: [usize; 3] = [8, 64, 256];

struct Wanted {
    sections: Vec<String>,
    connections: Vec<usize>,
    seconds: u64,
    rate: u32,
    pool: u32,
    rows: u64,
}

impl Wanted {
    fn from_arguments() -> Result<Self> {
        let mut wanted =
            Self { sections: Vec::new(), connections: Vec::new(), seconds: 5, rate: 500, pool: 16, rows: 10_000_000 };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--seconds" => wanted.seconds = arguments.next().unwrap_or_default().parse()?,
                "--connections" => wanted.connections.push(arguments.next().unwrap_or_default().parse()?),
                "--rate" => wanted.rate = arguments.next().unwrap_or_default().parse()?,
                "--pool" => wanted.pool = arguments.next().unwrap_or_default().parse()?,
                "--rows" => wanted.rows = arguments.next().unwrap_or_default().parse()?,
                // Cargo adds it.
                "--bench" => {}
                section => wanted.sections.push(section.to_owned()),
            }
        }
        if wanted.connections.is_empty() {
            wanted.connections = CONNECTIONS.to_vec();
        }
        Ok(wanted)
    }

    fn has(&self, section: &str) -> bool {
        self.sections.is_empty() || self.sections.iter().any(|wanted| wanted == section)
    }

    fn shape(&self, engine: bool) -> Shape {
        Shape { pool: self.pool, engine, qps: 1_000_000 }
    }

    fn time(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

fn main() -> Result<()> {
    let wanted = Wanted::from_arguments()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    report::machine();
    if wanted.has("limits") || wanted.has("ack") {
        runtime.block_on(acknowledgement(&wanted, &[]))?;
    }
    if wanted.has("path") {
        runtime.block_on(path(&wanted, &[]))?;
    }
    if wanted.has("slow-disk") {
        section("The same with 2 ms added to every commit");
        let slow = [("commit_delay", "2000"), ("commit_siblings", "0")];
        runtime.block_on(acknowledgement(&wanted, &slow))?;
        runtime.block_on(path(&wanted, &slow))?;
    }
    if wanted.has("backlog") {
        runtime.block_on(depth::backlog(wanted.pool))?;
    }
    if wanted.sections.iter().any(|section| section == "rows") {
        runtime.block_on(depth::rows(wanted.rows))?;
    }
    if wanted.has("process") {
        runtime.block_on(process::measure())?;
    }
    Ok(())
}

/// Bare axum, pgbench, and callbacks acknowledged after their commit.
async fn acknowledgement(wanted: &Wanted, settings: &[(&str, &str)]) -> Result<()> {
    section("Acknowledging callbacks");
    let world = World::start(settings).await?;
    let (mut rows, mut notes) = (Vec::new(), Vec::new());
    for &connections in &wanted.connections {
        let bare = load::closed(service::bare_axum().await?, connections, wanted.time(), &world::requests(0))?;
        let pgbench = world.pgbench(connections, wanted.seconds).await?;
        world.register_elsewhere(world::ENOUGH).await?;
        let without = service::Bench::start(&world, wanted.shape(false)).await?;
        let looked_up = load::closed(without.public, connections, wanted.time(), &world::requests(world::ENOUGH))?;
        without.stop().await;
        world.clear().await?;
        let without = service::Bench::start(&world, wanted.shape(false)).await?;
        without.register(&world, world::SOME).await?;
        let before = Used::now(&world)?;
        let alone = load::all(without.public, connections, &world::requests(world::SOME))?;
        let used = Used::now(&world)?.since(before, world::SOME);
        without.stop().await;
        world.clear().await?;
        let with = service::Bench::start(&world, wanted.shape(true)).await?;
        with.register(&world, world::SOME).await?;
        let worked_in = load::all(with.public, connections, &world::requests(world::SOME))?;
        with.stop().await;
        world.clear().await?;
        rows.push(Row::new(connections, "bare axum", &bare));
        rows.push(Row::plain(connections, "pgbench, one row a transaction", pgbench));
        rows.push(Row::new(connections, "acknowledged", &alone));
        rows.push(Row::new(connections, "acknowledged, registered by another replica", &looked_up));
        rows.push(Row::new(connections, "acknowledged, and worked in meanwhile", &worked_in));
        rows.push(Row::text(connections, "acknowledged / pgbench", &ratio(alone.per_second(), pgbench)));
        rows.push(Row::text(connections, "acknowledged / bare axum", &ratio(alone.per_second(), bare.per_second())));
        notes.push(format!("{connections} connections, acknowledged: {used}"));
    }
    report::table(&rows);
    for note in notes {
        report::line(&note);
    }
    world.stop().await
}

/// From a callback to its verdict.
async fn path(wanted: &Wanted, settings: &[(&str, &str)]) -> Result<()> {
    section("Callback to verdict");
    let world = World::start(settings).await?;
    let bench = service::Bench::start(&world, wanted.shape(true)).await?;
    bench.warm_up(&world).await?;
    let paced = bench.register(&world, usize::try_from(u64::from(wanted.rate) * wanted.seconds)?).await?;
    let before = Used::now(&world)?;
    let delays = load::paced(&bench, &paced, wanted.rate).await?;
    report::line(&format!("at {}/s, until a waiting reader has it   {}", wanted.rate, report::delays(&delays)));
    report::line(&Used::now(&world)?.since(before, delays.len()));
    bench.stop().await;
    world.clear().await?;
    // Few connections cannot bring it to its full rate.
    for connections in wanted.connections.iter().copied().filter(|connections| *connections > 8) {
        let count = 50_000;
        let bench = service::Bench::start(&world, wanted.shape(true)).await?;
        bench.register(&world, count).await?;
        let requests = world::requests(count);
        let before = Used::now(&world)?;
        let full = load::all(bench.public, connections, &requests)?;
        let stored = bench.wait_for_verdicts(&world, count).await?;
        report::line(&format!(
            "full rate, {connections} connections                   {} acknowledged, {} verdicts stored",
            rate(full.per_second()),
            rate(count as f64 / (full.elapsed + stored).as_secs_f64()),
        ));
        report::line(&Used::now(&world)?.since(before, count));
        bench.stop().await;
        world.clear().await?;
    }
    world.stop().await
}

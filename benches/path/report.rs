//! Figures for people.

use std::io::Write;
use std::time::Duration;

use comfy_table::Table;
use comfy_table::presets::NOTHING;

use crate::load::Measured;

pub struct Row {
    connections: usize,
    what: String,
    figure: String,
    p50: String,
    p99: String,
}

impl Row {
    pub fn new(connections: usize, what: &str, measured: &Measured) -> Self {
        Self {
            connections,
            what: what.to_owned(),
            figure: rate(measured.per_second()),
            p50: millis(measured.percentile(0.5)),
            p99: millis(measured.percentile(0.99)),
        }
    }

    pub fn plain(connections: usize, what: &str, per_second: f64) -> Self {
        Self::text(connections, what, &rate(per_second))
    }

    pub fn text(connections: usize, what: &str, figure: &str) -> Self {
        Self { connections, what: what.to_owned(), figure: figure.to_owned(), p50: String::new(), p99: String::new() }
    }
}

pub fn line(text: &str) {
    let _closed_pipe = writeln!(std::io::stdout().lock(), "{text}").is_err();
}

pub fn section(title: &str) {
    line(&format!("\n{title}\n{}", "-".repeat(title.len())));
}

pub fn table(rows: &[Row]) {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(["connections", "what", "a second", "p50", "p99"]);
    for row in rows {
        table.add_row([
            row.connections.to_string(),
            row.what.clone(),
            row.figure.clone(),
            row.p50.clone(),
            row.p99.clone(),
        ]);
    }
    line(&table.to_string());
}

pub fn rate(per_second: f64) -> String {
    format!("{per_second:.0}/s")
}

pub fn ratio(ours: f64, theirs: f64) -> String {
    format!("{:.2}", ours / theirs)
}

pub fn millis(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1000.0)
}

pub fn micros(time: Duration) -> String {
    format!("{:.0} µs", time.as_secs_f64() * 1_000_000.0)
}

pub fn delays(sorted: &[Duration]) -> String {
    let at = |share: f64| sorted.get(((sorted.len() as f64 - 1.0) * share) as usize).copied().unwrap_or_default();
    format!("p50 {}, p99 {}, max {} ({} samples)", millis(at(0.5)), millis(at(0.99)), millis(at(1.0)), sorted.len())
}

/// What was measured on.
pub fn machine() {
    let processor = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = processor.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": unknown");
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    line(&format!("{cores} cores{model}; generator, service, simulator and Postgres share them"));
}

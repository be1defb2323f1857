//! Logs and metrics: set up once for the process.

mod metrics;

use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

/// Buckets for what should take milliseconds.
const SECONDS: [f64; 14] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 30.0, 300.0];
/// Buckets for what is counted in days: half a minute to thirty days.
const MARGINS: [f64; 10] = [30.0, 120.0, 300.0, 900.0, 1_800.0, 3_600.0, 21_600.0, 86_400.0, 604_800.0, 2_592_000.0];
/// Buckets for how many there are in a batch.
const SIZES: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, else JSON.
    Auto,
    Text,
    Json,
}

/// Starts logging to standard error. A second call changes nothing.
pub fn log(level: &str, format: LogFormat, colours: bool) {
    let filter = EnvFilter::builder().parse_lossy(level);
    let terminal = std::io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    std::panic::set_hook(Box::new(log_panic));
    // An error only says that logging was started before, as tests do.
    let _already_started = if format == LogFormat::Json || (format == LogFormat::Auto && !terminal) {
        builder.json().flatten_event(true).try_init().is_err()
    } else {
        builder.with_ansi(colours && terminal).try_init().is_err()
    };
}

/// A panic is logged with its place alone, because what it says may hold data.
fn log_panic(panic: &std::panic::PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    tracing::error!(place, "a panic: this is a defect");
}

/// The process's metrics; the same for every caller.
pub fn metrics() -> Result<PrometheusHandle, BuildError> {
    // Held while the recorder is set up: of two callers at once, both must get the handle of the one that records.
    static HANDLE: Mutex<Option<PrometheusHandle>> = Mutex::new(None);
    let mut known = HANDLE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(handle) = &*known {
        return Ok(handle.clone());
    }
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_margin_seconds".to_owned()), &MARGINS)?
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)?
        .set_buckets_for_metric(Matcher::Suffix("_batch_size".to_owned()), &SIZES)?
        .build_recorder();
    let handle = recorder.handle();
    ::metrics::set_global_recorder(recorder)?;
    metrics::describe();
    metrics_process::Collector::default().describe();
    ::metrics::gauge!("checkback_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    *known = Some(handle.clone());
    Ok(handle)
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::panic;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_panic_is_logged_with_its_place_and_without_its_words() {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        let before = panic::take_hook();
        panic::set_hook(Box::new(log_panic));
        let caught = tracing::subscriber::with_default(subscriber, || panic::catch_unwind(|| panic!("CANARY-FACE")));
        panic::set_hook(before);
        assert!(caught.is_err());
        let logged = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        assert!(logged.contains("a panic") && logged.contains("src/telemetry/mod.rs:"), "{logged}");
        assert!(!logged.contains("CANARY"), "{logged}");
    }
}

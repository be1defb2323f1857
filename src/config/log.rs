//! `[log]`: how much is said, and in which form.

use tracing_subscriber::filter::{EnvFilter, LevelFilter};

use super::reader::{Outcome, Reader};
use super::schema::{Field, Shape, field};

pub(super) const FIELDS: &[Field] = &[field("level", Shape::Value), field("format", Shape::Value)];

#[derive(Clone, Debug)]
pub struct Log {
    /// Directives that `EnvFilter` reads.
    pub level: String,
    pub format: LogFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, else JSON.
    Auto,
    Text,
    Json,
}

impl Log {
    pub(super) fn read(reader: &mut Reader<'_>) -> Outcome<Self> {
        let level = reader.parsed("level", "info", level);
        let formats = [("auto", LogFormat::Auto), ("text", LogFormat::Text), ("json", LogFormat::Json)];
        let format = reader.choice("format", &formats, "auto");
        Ok(Self { level: level?, format: format? })
    }
}

fn level(text: &str) -> Result<String, &'static str> {
    let wrong = "must be a level (off, error, warn, info, debug, trace) or levels by module, such as \
                 \"info,checkback::jobs=debug\"";
    let directives: Vec<&str> = text.split(',').map(str::trim).collect();
    // `EnvFilter` takes a lone word that is no level for a module whose every line is wanted: "inof" would log all.
    let level = |one: &str| !one.is_empty() && one.parse::<LevelFilter>().is_ok();
    let sound = directives.iter().all(|one| one.contains('=') || level(one));
    let directives = directives.join(",");
    if !sound || EnvFilter::try_new(&directives).is_err() {
        return Err(wrong);
    }
    Ok(directives)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::{config, problems};

    #[test]
    fn levels_are_those_of_the_log_and_may_differ_by_module() {
        for good in ["info", "warn,checkback::jobs=debug", "OFF"] {
            assert_eq!(level(good), Ok(good.to_owned()));
        }
        assert_eq!(level("info, sqlx=warn"), Ok("info,sqlx=warn".to_owned()));
        for wrong in ["", "inof", "info,", "checkback", "checkback=loud"] {
            assert!(level(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_format_is_one_of_three() {
        assert_eq!(config("").log.format, LogFormat::Auto);
        assert_eq!(config("[log]\nformat = 'json'").log.format, LogFormat::Json);
        let found = problems("[log]\nformat = 'jsno'");
        assert!(found.contains("must be one of \"auto\", \"text\", \"json\""), "{found}");
    }
}

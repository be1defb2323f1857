//! The only place where tests read the environment.

use std::ffi::OsString;

#[expect(clippy::disallowed_methods, reason = "tests have no configuration: this is their one place that asks")]
pub fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// Where the binaries of the machine's Postgres are looked for.
#[cfg(feature = "embedded-postgres")]
pub fn search() -> checkback::private_postgres::Search {
    checkback::private_postgres::Search {
        explicit: variable("CHECKBACK_POSTGRES_BIN").map(Into::into),
        path: variable("PATH"),
    }
}

/// A number from the environment, for tests that can be made longer.
pub fn number(name: &str, default: u64) -> u64 {
    let Some(text) = variable(name) else { return default };
    text.to_str().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{name} must be a number"))
}

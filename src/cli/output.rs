//! Writing to the terminal. A closed pipe is no error: whoever read has seen enough.

use std::io::Write;

/// A line for the reader of results.
pub fn line(text: &str) {
    let _closed_pipe = writeln!(std::io::stdout().lock(), "{text}").is_err();
}

/// A line for whoever watches the command.
pub fn note(text: &str) {
    let _closed_pipe = writeln!(std::io::stderr().lock(), "{text}").is_err();
}

/// Why the command failed.
pub fn error(text: &str) {
    note(&format!("checkback: {text}"));
}

//! Writing to the terminal. A closed pipe is no error: whoever read has seen enough.

use std::io::Write;

use comfy_table::presets::NOTHING;
use comfy_table::{ContentArrangement, Table};

/// A line for the reader of results.
pub fn line(text: &str) {
    let _closed_pipe = writeln!(std::io::stdout().lock(), "{text}").is_err();
}

/// Rows under a head, in columns.
pub fn table(head: impl IntoIterator<Item = String>, rows: impl IntoIterator<Item = Vec<String>>) {
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(head);
    table.add_rows(rows);
    for text in table.lines() {
        line(text.trim_end());
    }
}

/// A line for whoever watches the command.
pub fn note(text: &str) {
    let _closed_pipe = writeln!(std::io::stderr().lock(), "{text}").is_err();
}

/// What is going on, on a line of the terminal that the next one takes the place of; empty: nothing any more.
pub fn progress(text: &str) {
    let mut terminal = std::io::stderr().lock();
    let _closed_pipe = write!(terminal, "\r\x1b[K{text}").and_then(|()| terminal.flush()).is_err();
}

/// Why the command failed.
pub fn error(text: &str) {
    note(&format!("checkback: {text}"));
}

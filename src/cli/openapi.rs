//! `checkback openapi`: prints the API's document, as `/openapi.json` serves it.

use std::process::ExitCode;

use super::output;
use crate::http;

pub fn run() -> ExitCode {
    output::line(http::document().trim_end());
    ExitCode::SUCCESS
}

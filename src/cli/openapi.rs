//! `checkback openapi`: prints the API's document, as `/openapi.json` serves it.

use std::process::ExitCode;

use super::{Outcome, output};
use crate::http;

pub fn run() -> Outcome {
    output::line(http::document().trim_end());
    Ok(ExitCode::SUCCESS)
}

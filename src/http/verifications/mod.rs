//! `/verifications…`: one endpoint a file, and the body that they share.

pub mod body;
pub mod collect;
pub mod history;
pub mod list;
pub mod query;
pub mod register;
pub mod show;

use crate::domain::VerificationId;

use super::Problem;

/// An id out of a path. One that is no id names no verification either.
fn parse_id(text: &str) -> Result<VerificationId, Problem> {
    text.parse().map_err(|_| Problem::verification_not_found())
}

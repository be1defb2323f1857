//! `/verifications…`: one endpoint a file, and the body that they share.

pub mod at_risk;
pub mod body;
pub mod collect;
pub mod erase;
pub mod evidence;
pub mod history;
mod initialize;
pub mod list;
pub mod query;
pub mod raw;
pub mod register;
pub mod show;
pub mod why;

use axum::extract::Path;
use axum::extract::rejection::PathRejection;

use crate::domain::VerificationId;

use super::Problem;

/// The id in a path, as it came.
pub(in crate::http) type PathId = Result<Path<String>, PathRejection>;

/// What is no id, or no text at all, names no verification either.
pub(in crate::http) fn parse_id(id: PathId) -> Result<VerificationId, Problem> {
    id.ok().and_then(|Path(text)| text.parse().ok()).ok_or_else(Problem::verification_not_found)
}

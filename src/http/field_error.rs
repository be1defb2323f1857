//! What is wrong with one member of a request; problems list them all.

use std::borrow::Cow;

use serde::Serialize;
use utoipa::ToSchema;

/// One wrong member of a body or a query.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldError {
    /// Empty for the body as a whole.
    #[schema(value_type = String)]
    pub field: Cow<'static, str>,
    #[schema(value_type = String)]
    pub message: Cow<'static, str>,
}

impl FieldError {
    pub fn new(field: impl Into<Cow<'static, str>>, message: impl Into<Cow<'static, str>>) -> Self {
        Self { field: field.into(), message: message.into() }
    }
}

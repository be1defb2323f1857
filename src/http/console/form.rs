//! What a form sends.

use axum::body::Body;
use axum::http::{HeaderMap, header};
use url::form_urlencoded;

use crate::http::{Problem, body};

/// Its values by name. Has no `Debug`, since one may be a key.
pub struct Form(Vec<(String, String)>);

impl Form {
    pub async fn read(headers: &HeaderMap, content: Body) -> Result<Self, Problem> {
        let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        if !kind.starts_with("application/x-www-form-urlencoded") {
            return Err(Problem::body_unsupported());
        }
        let bytes = body::read(headers, content).await?;
        let pairs = form_urlencoded::parse(&bytes);
        Ok(Self(pairs.map(|(name, value)| (name.into_owned(), value.into_owned())).collect()))
    }

    /// Empty where it is missing.
    pub fn value(&self, name: &str) -> &str {
        self.0.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value.trim())
    }
}

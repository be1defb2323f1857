//! Reading a query string: every wrong value is told, unknown names among them.

use axum::http::Uri;
use percent_encoding::percent_decode_str;

use crate::http::Problem;
use crate::http::error::FieldError;

/// The values of a query; taking one marks it as known.
#[derive(Debug)]
pub struct Query {
    values: Vec<(String, String)>,
    errors: Vec<FieldError>,
}

impl Query {
    pub fn of(uri: &Uri) -> Self {
        let mut errors = Vec::new();
        let mut values: Vec<(String, String)> = Vec::new();
        for pair in uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            match (decode(name), decode(value)) {
                (Some(name), Some(_)) if values.iter().any(|(known, _)| *known == name) => {
                    errors.push(FieldError::new(name, "is given more than once"));
                }
                (Some(name), Some(value)) => values.push((name, value)),
                _ => errors.push(FieldError::new(name.to_owned(), "is not percent-encoded UTF-8")),
            }
        }
        Self { values, errors }
    }

    /// The value of `name` as `parse` reads it; an empty value counts as none.
    pub fn take<T>(&mut self, name: &'static str, parse: impl FnOnce(&str) -> Result<T, &'static str>) -> Option<T> {
        let index = self.values.iter().position(|(known, _)| known == name)?;
        let (_, value) = self.values.swap_remove(index);
        if value.is_empty() {
            return None;
        }
        parse(&value).map_err(|message| self.errors.push(FieldError::new(name, message))).ok()
    }

    /// The problem with everything that was wrong, if anything was.
    pub fn finish(mut self) -> Result<(), Problem> {
        self.errors.extend(
            self.values.into_iter().map(|(name, _)| FieldError::new(name, "is not a parameter of this request")),
        );
        if self.errors.is_empty() { Ok(()) } else { Err(Problem::query_invalid(self.errors)) }
    }
}

fn decode(text: &str) -> Option<String> {
    let spaced = text.replace('+', " ");
    let decoded = percent_decode_str(&spaced).decode_utf8().ok()?;
    (!decoded.contains('\0')).then(|| decoded.into_owned())
}

//! A call as it came: which operation, which parameters, which signature.

use std::borrow::Cow;

use axum::http::{HeaderMap, Method, Uri, header};

use super::sign;

/// The two ways a call can be signed, told apart by the `Authorization` header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    Acs3,
    Rpc,
}

type Pairs<'a> = Vec<(Cow<'a, str>, Cow<'a, str>)>;

pub(super) struct ApiRequest<'a> {
    pub(super) method: &'a Method,
    pub(super) headers: &'a HeaderMap,
    pub(super) body: &'a [u8],
    pub(super) scheme: Scheme,
    query: Pairs<'a>,
    form: Pairs<'a>,
}

impl<'a> ApiRequest<'a> {
    pub(super) fn read(method: &'a Method, uri: &'a Uri, headers: &'a HeaderMap, body: &'a [u8]) -> Self {
        let authorization = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let acs3 = authorization.is_some_and(|value| value.starts_with(sign::ACS3));
        Self {
            method,
            headers,
            body,
            scheme: if acs3 { Scheme::Acs3 } else { Scheme::Rpc },
            query: form_urlencoded::parse(uri.query().unwrap_or("").as_bytes()).collect(),
            form: body_parameters(headers, body),
        }
    }

    pub(super) fn query(&self) -> impl Iterator<Item = (&str, &str)> {
        self.query.iter().map(|(name, value)| (&**name, &**value))
    }

    /// Query and body parameters.
    pub(super) fn parameters(&self) -> impl Iterator<Item = (&str, &str)> {
        self.query().chain(self.form.iter().map(|(name, value)| (&**name, &**value)))
    }

    /// `None` also for an empty value.
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters().find(|(key, value)| *key == name && !value.is_empty()).map(|(_, value)| value)
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok()).filter(|value| !value.is_empty())
    }

    /// What the signature form puts into a header, or else into a parameter.
    pub(super) fn common(&self, header: &str, parameter: &str) -> Option<&str> {
        match self.scheme {
            Scheme::Acs3 => self.header(header),
            Scheme::Rpc => self.parameter(parameter),
        }
    }

    pub(super) fn action(&self) -> Option<&str> {
        self.common("x-acs-action", "Action")
    }

    /// The host as the caller named it, made safe for URLs and JSON.
    pub(super) fn host(&self) -> &str {
        let plain = |host: &&str| host.bytes().all(|b| b.is_ascii_alphanumeric() || b".:-[]_".contains(&b));
        self.header("host").filter(plain).unwrap_or("localhost")
    }
}

fn body_parameters<'a>(headers: &HeaderMap, body: &'a [u8]) -> Pairs<'a> {
    if body.is_empty() {
        return Vec::new();
    }
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    if content_type.starts_with("application/x-www-form-urlencoded") {
        return form_urlencoded::parse(body).collect();
    }
    if content_type.starts_with("application/json") {
        let members = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(body).unwrap_or_default();
        return members
            .into_iter()
            .filter_map(|(name, value)| match value {
                serde_json::Value::String(text) => Some((name.into(), text.into())),
                serde_json::Value::Number(number) => Some((name.into(), number.to_string().into())),
                _ => None,
            })
            .collect();
    }
    Vec::new()
}

//! Starting a transaction at a provider: what is asked for, and the ways in which that ends.
//!
//! The call is not idempotent and may be billed, so its errors say first of all whether a transaction may exist:
//! after [`InitializeError::Lost`] one may, after every other there is none. Nothing here repeats a call. The members
//! are personal data and the token is a secret, so these types have no `Debug`.

use std::borrow::Cow;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use secrecy::SecretString;
use serde_json::{Map, Value};
use url::Url;

use crate::domain::Trouble;

/// The merchant's members after the provider's adapter checked them, and what they say about the verification.
pub struct Prepared {
    pub members: Map<String, Value>,
    pub product: Option<String>,
    pub expect_video: bool,
}

/// What the merchant says beside the members.
#[derive(Clone, Copy, Debug, Default)]
pub struct Beside<'a> {
    pub product: Option<&'a str>,
    pub has_return_url: bool,
}

/// A member that cannot be sent, and why.
#[derive(Debug, PartialEq, Eq)]
pub struct WrongMember {
    pub name: String,
    pub message: Cow<'static, str>,
}

impl WrongMember {
    pub fn new(name: impl Into<String>, message: impl Into<Cow<'static, str>>) -> Self {
        Self { name: name.into(), message: message.into() }
    }
}

/// Where the provider is to call when the person is done.
pub struct Callback {
    pub url: Url,
    pub token: SecretString,
}

/// Where the browser is to go when the person is done.
pub enum ReturnTo {
    /// To us first; `state` names the verification.
    Here { url: Url, state: String },
    /// Straight to the merchant, because nobody outside reaches us.
    Merchant(Url),
}

impl ReturnTo {
    /// The address with the state in its query. Providers that send the state by themselves get it twice, which
    /// does no harm: one of the two is found, wherever the provider puts its own parameters.
    pub fn address(&self) -> Url {
        match self {
            Self::Here { url, state } => {
                let mut url = url.clone();
                url.query_pairs_mut().append_pair("state", state);
                url
            }
            Self::Merchant(url) => url.clone(),
        }
    }
}

pub struct InitializeRequest {
    /// From [`Prepared`].
    pub members: Map<String, Value>,
    pub merchant_biz_id: String,
    pub callback: Option<Callback>,
    pub return_to: Option<ReturnTo>,
}

/// What the provider made. The texts may open the flow.
pub struct Initialized {
    pub transaction_id: String,
    pub transaction_url: Option<String>,
    pub protocol: Option<String>,
    pub client_cfg: Option<String>,
}

/// Longer ids are not stored.
const LONGEST_ID: usize = 128;

/// Whether a provider's id can be stored and asked for.
pub fn is_transaction_id(id: &str) -> bool {
    id.chars().count() <= LONGEST_ID && !id.trim().is_empty() && !id.chars().any(char::is_control)
}

/// A member of an answer as text; `None` where it is absent or empty.
pub fn answer_text(value: Option<&Value>) -> Option<String> {
    match value {
        Some(Value::String(text)) if !text.is_empty() => Some(text.clone()),
        Some(value @ (Value::Object(_) | Value::Number(_))) => Some(value.to_string()),
        _ => None,
    }
}

/// Why there is no new transaction, or why nobody knows.
#[derive(Debug, thiserror::Error)]
pub enum InitializeError {
    /// The provider does not take the request as it is.
    #[error("the provider refuses the request ({code})")]
    Refused { code: String },
    #[error("the provider throttles this account ({code})")]
    Throttled { code: String, retry_after: Option<Duration> },
    #[error("the account is in trouble: {trouble} ({code})")]
    Account { trouble: Trouble, code: String },
    /// The request never reached it, or was turned away at its door; the same again may work.
    #[error("the provider did not take the request ({code})")]
    NotSent { code: String },
    /// The request was sent and no usable answer came: there may be a transaction, and it may be billed.
    #[error("the provider's answer was lost ({code})")]
    Lost { code: String },
}

impl InitializeError {
    /// The provider's code, or ours in lower case where the provider gave none.
    pub fn code(&self) -> &str {
        match self {
            Self::Refused { code }
            | Self::Throttled { code, .. }
            | Self::Account { code, .. }
            | Self::NotSent { code }
            | Self::Lost { code } => code,
        }
    }
}

pub type InitializeAnswer<'a> = Pin<Box<dyn Future<Output = Result<Initialized, InitializeError>> + Send + 'a>>;

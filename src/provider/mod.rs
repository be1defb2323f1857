//! The providers: who is asked for results, and how. Each adapter turns its provider's wire into our
//! [`Outcome`] and [`ProviderError`]; a provider's own field names stay in its `wire.rs`.

pub mod alibaba;
pub mod findings;
pub mod http;
pub mod images;
pub mod initialize;
pub mod parts;
pub mod zoloz;

use std::fmt::Write as _;
use std::future::Future;
use std::pin::Pin;

use chrono::{DateTime, Datelike, Timelike, Utc};
use serde_json::{Map, Value};

use crate::domain::{Flow, Outcome, ProviderError};

use self::initialize::{Beside, InitializeAnswer, InitializeError, InitializeRequest, Prepared, WrongMember};

/// Which transaction to ask about. The transaction id comes from our store, never from a caller.
#[derive(Clone, Debug)]
pub struct CheckRequest {
    pub transaction_id: String,
    pub merchant_biz_id: String,
    pub product: Option<String>,
}

pub type Answer<'a> = Pin<Box<dyn Future<Output = Result<Outcome, ProviderError>> + Send + 'a>>;

pub type Explanation<'a> = Pin<Box<dyn Future<Output = Result<Option<Flow>, ProviderError>> + Send + 'a>>;
/// What came of asking the provider to delete what it holds about a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deletion {
    /// It is deleted.
    Deleted,
    /// The provider did not delete, and says only that. So it answers before there is a result.
    Declined { code: String },
    /// The provider has no such call for this account.
    NotOffered { code: String },
}

pub type Probe<'a> = Pin<Box<dyn Future<Output = Result<(), ProviderError>> + Send + 'a>>;

pub type DeleteAnswer<'a> = Pin<Box<dyn Future<Output = Result<Deletion, ProviderError>> + Send + 'a>>;

/// One account at a provider.
pub trait Provider: Send + Sync {
    /// Asks for the result once: no retries, a fresh time and nonce, everything within the provider's time-outs.
    /// Safe to repeat, because it only reads.
    fn check_result<'a>(&'a self, request: &'a CheckRequest) -> Answer<'a>;

    /// Makes one signed call that reads nothing of anybody and costs nothing: whether the account would be served. Safe
    /// to repeat.
    fn probe(&self) -> Probe<'_> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// Asks once how far the person came in a flow that brought no result; `None` where the provider keeps no log.
    /// Safe to repeat.
    fn explain<'a>(&'a self, _: &'a CheckRequest) -> Explanation<'a> {
        Box::pin(std::future::ready(Ok(None)))
    }

    /// Checks the members that the merchant gives for a new transaction, without asking anybody.
    /// By default there is no way to start one.
    fn prepare(&self, _: Map<String, Value>, _: Beside<'_>) -> Result<Prepared, Vec<WrongMember>> {
        Err(vec![WrongMember::new("", "is not available for this account: send transaction_id")])
    }

    /// Asks for a new transaction once. Not safe to repeat: each call that arrives makes one.
    fn initialize<'a>(&'a self, _: &'a InitializeRequest) -> InitializeAnswer<'a> {
        Box::pin(std::future::ready(Err(InitializeError::Refused { code: "not_available".to_owned() })))
    }

    /// Asks once to delete the result, images and texts of a transaction for good. Safe to repeat. An error with
    /// `Refused` ends it; `TransactionIdInvalid` and its like mean that the provider holds nothing under this id.
    fn delete<'a>(&'a self, _: &'a CheckRequest) -> DeleteAnswer<'a> {
        Box::pin(std::future::ready(Ok(Deletion::NotOffered { code: "not_offered".to_owned() })))
    }

    /// Whether results of this product can be asked for; if not, why, as the end of a sentence about the product.
    /// A provider that asks for all of them alike takes every name.
    fn check_product(&self, _product: Option<&str>) -> Result<(), &'static str> {
        Ok(())
    }

    /// Whether the provider bills a result with this code; none where it does not say.
    fn is_billed(&self, _sub_code: &str) -> Option<bool> {
        None
    }
}

/// Does what takes long with a large body on a thread where nobody waits meanwhile. `None`: the service is stopping.
async fn read_body<T: Send + 'static>(length: usize, read: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    if length <= http::SMALL_BODY {
        return Some(read());
    }
    match tokio::task::spawn_blocking(read).await {
        Ok(read) => Some(read),
        Err(broken) => match broken.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => None,
        },
    }
}

/// `YYYY-MM-DDThh:mm:ss` and `zone`, the form of UTC that the provider wants after it.
fn utc_seconds(time: DateTime<Utc>, zone: &str) -> String {
    let mut text = String::with_capacity(24);
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}{zone}",
        time.year(),
        time.month(),
        time.day(),
        time.hour(),
        time.minute(),
        time.second()
    );
    text
}

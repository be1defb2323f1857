//! The providers: who is asked for results, and how. Each adapter turns its provider's wire into our
//! [`Outcome`] and [`ProviderError`]; a provider's own field names stay in its `wire.rs`.

pub mod alibaba;
pub mod findings;
pub mod http;
pub mod images;
pub mod parts;
pub mod zoloz;

use std::future::Future;
use std::pin::Pin;

use crate::domain::{Outcome, ProviderError};

/// Which transaction to ask about. The transaction id comes from our store, never from a caller.
#[derive(Clone, Debug)]
pub struct CheckRequest {
    pub transaction_id: String,
    pub merchant_biz_id: String,
    pub product: Option<String>,
}

pub type Answer<'a> = Pin<Box<dyn Future<Output = Result<Outcome, ProviderError>> + Send + 'a>>;

/// One account at a provider.
pub trait Provider: Send + Sync {
    /// Asks for the result once: no retries, a fresh time and nonce, everything within the provider's time-outs.
    /// Safe to repeat, because it only reads.
    fn check_result<'a>(&'a self, request: &'a CheckRequest) -> Answer<'a>;

    /// Whether results of this product can be asked for; if not, why, as the end of a sentence about the product.
    /// A provider that asks for all of them alike takes every name.
    fn check_product(&self, _product: Option<&str>) -> Result<(), &'static str> {
        Ok(())
    }
}

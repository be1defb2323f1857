//! ZOLOZ (Connect and its sibling products), as a [`Provider`].
//!
//! One attempt is one call, because calls are budgeted; whoever asked decides about the next one. What an answer
//! says about a verification is read only after its signature was verified.

pub mod answer;
pub mod cipher;
pub mod codes;
mod delete;
pub mod gateway;
mod initialize;
pub mod keys;
pub mod outcome;
mod probe;
pub mod products;
pub mod sign;
pub mod wire;

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Map, Value};

use crate::clock::Clock;
use crate::domain::{Outcome, ProviderError};
use crate::entropy::Entropy;

use self::products::Product;
use super::http::HttpClient;
use super::initialize::{Beside, InitializeAnswer, InitializeRequest, Prepared, WrongMember};
use super::{Answer, CheckRequest, DeleteAnswer, Probe, Provider, read_body};

pub use answer::Auth;
pub use gateway::{Gateway, ZolozSettings};

/// One account.
#[derive(Debug)]
pub struct ZolozClient {
    gateway: Arc<Gateway>,
    images: bool,
}

impl ZolozClient {
    /// `images`: keep the images of answers, and ask for them where that can be done.
    pub fn new(settings: ZolozSettings, images: bool, http: HttpClient, clock: Clock, entropy: Entropy) -> Self {
        Self { gateway: Arc::new(Gateway::new(settings, http, clock, entropy)), images }
    }

    async fn check(&self, request: &CheckRequest) -> Result<Outcome, ProviderError> {
        let product = Product::of(request.product.as_deref()).map_err(|problem| ProviderError::Refused {
            code: "product_unknown".to_owned(),
            reason: format!("its product {problem}"),
        })?;
        let path = product.path();
        let answer = self.gateway.send(path, Bytes::from(product.request(request, self.images))).await?;
        let (gateway, images) = (Arc::clone(&self.gateway), self.images);
        // Megabytes are hashed, decrypted and searched through.
        let length = answer.body.len();
        let read = move || outcome::interpret(product, &gateway.open(path, answer)?, images);
        read_body(length, read).await.unwrap_or_else(|| {
            Err(ProviderError::Unavailable {
                code: "stopped".to_owned(),
                reason: "the service stopped while it read the answer".to_owned(),
            })
        })
    }
}

impl Provider for ZolozClient {
    fn check_result<'a>(&'a self, request: &'a CheckRequest) -> Answer<'a> {
        Box::pin(self.check(request))
    }

    fn probe(&self) -> Probe<'_> {
        Box::pin(self.test_authentication())
    }

    fn delete<'a>(&'a self, request: &'a CheckRequest) -> DeleteAnswer<'a> {
        Box::pin(self.delete_private_data(request))
    }

    fn check_product(&self, product: Option<&str>) -> Result<(), &'static str> {
        Product::of(product).map(|_| ())
    }

    fn prepare(&self, members: Map<String, Value>, beside: Beside<'_>) -> Result<Prepared, Vec<WrongMember>> {
        initialize::prepare(members, beside)
    }

    fn initialize<'a>(&'a self, request: &'a InitializeRequest) -> InitializeAnswer<'a> {
        Box::pin(self.start(request))
    }
}

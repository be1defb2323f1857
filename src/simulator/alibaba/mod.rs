//! Alibaba Cloud ID Verification (Cloudauth-intl, version 2022-08-09, RPC style at `/`).
//!
//! `gateway` lets calls in or refuses them, `operations` answers them, `control` is what tests and people may do beside
//! the API. The wire types and the signature check are written apart from the service's client on purpose.

mod auth;
mod callbacks;
pub(super) mod commands;
pub(super) mod control;
pub(super) mod gateway;
mod nonces;
mod operations;
mod outcome;
mod refusal;
mod request;
pub(super) mod sign;
mod transactions;
mod videos;

use std::sync::Arc;

use serde_json::Map;

use self::auth::Auth;
use self::operations::Operation;
use self::outcome::{Outcome, Outcomes, Product, Wish};
use self::transactions::Transactions;
use self::videos::Videos;
use super::Settings;
use super::random::Random;
use super::rate::Rates;

pub(super) struct Alibaba {
    auth: Auth,
    rates: Rates,
    transactions: Transactions,
    outcomes: Outcomes,
    /// The answer of CheckResult while a result is pending.
    pending: Arc<Outcome>,
    videos: Videos,
    random: Arc<Random>,
    allow_http_callbacks: bool,
}

impl Alibaba {
    pub(super) fn new(settings: &Settings, random: Arc<Random>) -> Self {
        let outcomes = Outcomes::default();
        let nothing = Map::new();
        let pending = Wish { passed: Some("P"), sub_code: None, scores: &nothing, ext: &nothing };
        Self {
            auth: Auth::new(
                settings.access_key_id.clone(),
                &settings.access_key_secret,
                settings.security_token.clone(),
            ),
            rates: Rates::new(settings.qps, Operation::ALL.len()),
            transactions: Transactions::new(),
            pending: outcomes.choose(&pending, Product::Face, None),
            outcomes,
            videos: Videos::new(random.bytes()),
            random,
            allow_http_callbacks: settings.allow_http_callbacks,
        }
    }

    /// 32 characters, as the provider's examples have.
    fn new_transaction_id(&self) -> String {
        format!("hksb{}", self.random.hex::<14>())
    }
}

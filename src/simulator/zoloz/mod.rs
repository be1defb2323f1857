//! ZOLOZ (`/api/…`): Connect and the products beside it.
//!
//! `gateway` lets calls in or refuses them, `access` checks and makes signatures in both modes, `operations` answers,
//! `outcome` writes what checkresult says, `control` is what tests and people may do beside the API. The wire types and
//! the signatures are written apart from the service's client on purpose.

mod access;
pub(super) mod cipher;
mod clients;
pub(super) mod commands;
mod control;
pub(super) mod gateway;
pub(super) mod keys;
mod operations;
mod outcome;
pub(super) mod sign;
mod transactions;

use std::sync::{Arc, OnceLock};

use chrono::{DateTime, Utc};

pub use self::clients::{ZolozCredentials, ZolozKeys};

use self::keys::PrivateKey;
use self::operations::OPERATIONS;
use self::transactions::Transactions;
use super::Settings;
use super::random::Random;
use super::rate::Rates;

pub(super) struct Zoloz {
    keys: OnceLock<ZolozKeys>,
    rates: Rates,
    transactions: Transactions,
    random: Arc<Random>,
}

impl Zoloz {
    pub(super) fn new(settings: &Settings, random: Arc<Random>) -> Self {
        let keys = settings.zoloz_keys.clone().map_or_else(OnceLock::new, OnceLock::from);
        Self { keys, rates: Rates::new(settings.qps, OPERATIONS.len()), transactions: Transactions::default(), random }
    }

    /// Those that were given, or else some that are made now: who simulates only the other provider needs none.
    pub(super) fn keys(&self) -> ZolozKeys {
        self.keys.get_or_init(ZolozKeys::of_this_process).clone()
    }

    /// A key that belongs to nobody.
    fn stranger() -> anyhow::Result<PrivateKey> {
        PrivateKey::generate()
    }

    /// In the form of the provider's examples: letters and digits, with the day in it.
    fn new_transaction_id(&self, now: DateTime<Utc>) -> String {
        format!("G00SIM{}{}", now.format("%Y%m%d"), self.random.hex::<10>())
    }
}

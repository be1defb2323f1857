//! Registering a verification that the merchant's own server started at the provider.

use serde_json::value::RawValue;

use super::Service;
use super::account::Account;
use crate::domain::{TokenHash, VerificationId};
use crate::store::{NewVerification, Registered, StoreError};

/// A registration whose members were checked. What was not given is `None`.
pub struct Registration {
    pub transaction_id: String,
    pub merchant_biz_id: Option<String>,
    pub callback_token: Option<TokenHash>,
    pub product: Option<String>,
    pub expect_video: Option<bool>,
    pub return_url: Option<String>,
    pub metadata: Option<Box<RawValue>>,
}

impl Service {
    /// Registers once for each transaction of the account; the same again changes nothing.
    pub async fn register(&self, account: &Account, given: Registration) -> Result<Registered, StoreError> {
        let now = self.clock.now();
        let new = NewVerification {
            id: VerificationId(self.entropy.id(now)),
            account: account.name.clone(),
            transaction_id: given.transaction_id,
            merchant_biz_id: given.merchant_biz_id,
            fresh_merchant_biz_id: self.entropy.hex32(),
            product: given.product,
            expect_video: given.expect_video,
            return_url: given.return_url,
            callback_token: given.callback_token,
            metadata: given.metadata,
            registered_at: now,
            due_at: account.first_poll_at(now),
            initialized: false,
        };
        let registered = self.store.register(&new).await?;
        if let Registered::New { hinted, .. } = registered {
            metrics::counter!("checkback_registrations_total", "account" => account.name.clone()).increment(1);
            if hinted {
                self.wakes.hints();
            }
        }
        Ok(registered)
    }
}

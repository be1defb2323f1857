//! The browser's way back: who it belongs to is in its signed state, and where it goes was said at registration.

use super::Service;
use super::account::Account;
use crate::domain::ReturnKey;
use crate::store::{Returned, StoreError};

/// Of the secret that the replicas share.
const KEY_NAME: &str = "return_state";

impl Service {
    /// The key that signs states, made by whoever needs it first.
    pub async fn return_key(&self) -> Result<&ReturnKey, StoreError> {
        self.return_key
            .get_or_try_init(async || {
                let secret = self.store.shared_secret(KEY_NAME, &self.entropy.secret()).await?;
                Ok(ReturnKey::new(&secret))
            })
            .await
    }

    /// Records that a browser came back with one of `states`; `None` when none of them is of this account.
    pub async fn browser_returned(&self, account: &Account, states: &[String]) -> Result<Option<Returned>, StoreError> {
        let key = self.return_key().await?;
        let Some(id) = states.iter().find_map(|state| key.open(&account.name, state)) else { return Ok(None) };
        let returned = self.store.record_return(&account.name, id, self.clock.now()).await?;
        if returned.is_some() {
            self.wakes.hints();
        }
        Ok(returned)
    }
}

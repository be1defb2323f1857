//! The endpoints of webhooks, as the service sees them: where they are, what they want, who signs.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use url::Url;

use super::Service;
use super::account::Rotating;
use crate::domain::EventType;
use crate::domain::event::test_body;
use crate::store::{ReplayFilter, StoreError};
use crate::webhook::{ClientError, Message, Sent, SigningKey, WebhookClient};

/// Events that one step of a replay takes.
const REPLAYED: i64 = 2000;

/// A receiver of events.
pub struct Endpoint {
    pub name: String,
    /// May hold a secret.
    url: Url,
    /// As it may be shown.
    pub shown_url: String,
    /// What it wants.
    pub types: Vec<EventType>,
    keys: Rotating<Arc<[SigningKey]>>,
    wake: Notify,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("name", &self.name).field("url", &self.shown_url).finish_non_exhaustive()
    }
}

impl Endpoint {
    /// `keys`: at least one; all sign.
    pub fn new(name: String, url: Url, shown_url: String, types: Vec<EventType>, keys: Vec<SigningKey>) -> Self {
        Self { name, url, shown_url, types, keys: Rotating::new(keys.into()), wake: Notify::new() }
    }

    /// Signs with these from now on.
    pub fn set_keys(&self, keys: Vec<SigningKey>) {
        self.keys.set(keys.into());
    }

    /// There may be something due.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    pub async fn woken(&self) {
        self.wake.notified().await;
    }
}

/// All endpoints of the configuration, and the client that sends to them. Clones share both.
#[derive(Clone, Debug)]
pub struct Webhooks {
    endpoints: Arc<BTreeMap<String, Arc<Endpoint>>>,
    client: WebhookClient,
}

impl Webhooks {
    pub fn new(endpoints: Vec<Endpoint>) -> Result<Self, ClientError> {
        Ok(Self::with_client(endpoints, WebhookClient::new()?))
    }

    pub fn with_client(endpoints: Vec<Endpoint>, client: WebhookClient) -> Self {
        let named = endpoints.into_iter().map(|endpoint| (endpoint.name.clone(), Arc::new(endpoint)));
        Self { endpoints: Arc::new(named.collect()), client }
    }

    pub fn all(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.endpoints.values()
    }

    pub fn endpoint(&self, name: &str) -> Option<&Arc<Endpoint>> {
        self.endpoints.get(name)
    }

    /// Events may have been written.
    pub fn wake(&self) {
        self.all().for_each(|endpoint| endpoint.wake());
    }

    pub(super) async fn send(&self, endpoint: &Endpoint, message: Unsigned) -> Sent {
        let keys = endpoint.keys.get();
        let Unsigned { id, body, at } = message;
        self.client.send(&Message { id, url: &endpoint.url, body, keys: &keys, at }).await
    }
}

/// A message before its endpoint is known.
pub(super) struct Unsigned {
    pub id: uuid::Uuid,
    pub body: String,
    pub at: chrono::DateTime<chrono::Utc>,
}

impl Service {
    /// Events may have been written by this replica.
    pub fn wake_webhooks(&self) {
        if let Some(webhooks) = &self.webhooks {
            webhooks.wake();
        }
    }

    pub fn endpoint(&self, name: &str) -> Option<&Arc<Endpoint>> {
        self.webhooks.as_ref()?.endpoint(name)
    }

    /// Sends a test event, now and once; nothing of it is stored. `None`: no such endpoint is configured.
    pub async fn test_endpoint(&self, name: &str) -> Option<Sent> {
        let webhooks = self.webhooks.as_ref()?;
        let endpoint = webhooks.endpoint(name)?;
        let at = self.clock.now();
        Some(webhooks.send(endpoint, Unsigned { id: self.entropy.id(at), body: test_body(at), at }).await)
    }

    /// Enables an endpoint, and sends what is due. False when nothing is known of it.
    pub async fn enable_endpoint(&self, name: &str, by: Option<&str>) -> Result<bool, StoreError> {
        let is_known = self.store.enable_endpoint(name).await?;
        if is_known {
            tracing::info!(endpoint = name, by, "the endpoint is enabled");
            self.wake_webhooks();
        }
        Ok(is_known)
    }

    /// Has deliveries begin anew, step by step for at most about `patience`. Returns how many, and whether that is all;
    /// the same again goes on where this one ended, because what is pending is left alone.
    pub async fn replay(
        &self,
        filter: &ReplayFilter,
        by: Option<&str>,
        patience: Duration,
    ) -> Result<(i64, bool), StoreError> {
        let until = tokio::time::Instant::now() + patience;
        let now = self.clock.now();
        let (mut begun, mut from) = (0, None);
        loop {
            let step = self.store.replay(filter, from, REPLAYED, now).await?;
            begun += step.begun;
            from = step.next;
            self.wake_webhooks();
            if from.is_none() || tokio::time::Instant::now() >= until {
                tracing::info!(count = begun, by, "deliveries begin anew");
                return Ok((begun, from.is_none()));
            }
        }
    }
}

//! The endpoints of webhooks, put together from the configuration.

use anyhow::Context;
use secrecy::ExposeSecret;

use crate::config;
use crate::domain::EventType;
use crate::entropy::Entropy;
use crate::service::webhooks::{Endpoint, Webhooks};
use crate::store::Subscriptions;
use crate::webhook::SigningKey;

/// Nothing where no endpoint is configured.
pub(super) fn webhooks(settings: &[config::Webhook]) -> anyhow::Result<Option<Webhooks>> {
    if settings.is_empty() {
        return Ok(None);
    }
    let endpoints = settings.iter().map(endpoint).collect::<anyhow::Result<_>>()?;
    Ok(Some(Webhooks::new(endpoints)?))
}

/// What the store writes for them.
pub(super) fn subscriptions(webhooks: &Webhooks, entropy: Entropy) -> Subscriptions {
    Subscriptions::new(webhooks.all().map(|endpoint| (endpoint.name.clone(), endpoint.types.clone())), entropy)
}

fn endpoint(settings: &config::Webhook) -> anyhow::Result<Endpoint> {
    let types = if settings.events.is_empty() {
        EventType::ALL.to_vec()
    } else {
        let read = |name: &&str| name.parse().with_context(|| format!("webhooks: {name} is no type of event"));
        settings.events.iter().map(read).collect::<anyhow::Result<_>>()?
    };
    let url = settings.url.expose().clone();
    Ok(Endpoint::new(settings.name.clone(), url, format!("{:?}", settings.url), types, signing_keys(settings)?))
}

/// The keys that sign what is sent to an endpoint. The error names the setting and no secret.
pub fn signing_keys(settings: &config::Webhook) -> anyhow::Result<Vec<SigningKey>> {
    let read = |secret: &secrecy::SecretString| SigningKey::read(secret.expose_secret());
    let keys = settings.secrets.iter().map(read).collect::<Result<_, _>>();
    keys.with_context(|| format!("webhooks: the secrets of {}", settings.name))
}

//! The providers of accounts, put together from settings: at the start, and again when a secret has changed.

use std::sync::Arc;

use anyhow::Context;
use secrecy::ExposeSecret;

use crate::clock::Clock;
use crate::config::{self, AccountKind, Environment, ZolozAuth};
use crate::domain::TokenHash;
use crate::entropy::Entropy;
use crate::provider::Provider;
use crate::provider::alibaba::credentials::{Chain, ChainSettings, Credentials, KeyParts, SigningKeys};
use crate::provider::alibaba::endpoint::{Endpoint, Network};
use crate::provider::alibaba::{AlibabaClient, AlibabaSettings, Signature};
use crate::provider::http::{HttpClient, HttpSettings};
use crate::provider::zoloz::keys::{MerchantKey, ZolozKey};
use crate::provider::zoloz::sign::{AccessKey, AccessKeyError};
use crate::provider::zoloz::{Auth, ZolozClient, ZolozSettings};

/// What the providers of accounts are made of, also of those whose secrets have changed.
#[derive(Clone)]
pub struct Providers {
    client: HttpClient,
    /// That accounts without a configured key share, if there are any.
    pub chain: Option<SigningKeys>,
    environment: Environment,
    clock: Clock,
    entropy: Entropy,
}

impl Providers {
    /// Those of a service that begins.
    pub fn new(environment: Environment, clock: Clock, entropy: Entropy) -> anyhow::Result<Self> {
        let client = HttpClient::new(HttpSettings::default()).context("the HTTP client could not be set up")?;
        Ok(Self { client, chain: None, environment, clock, entropy })
    }

    /// Puts the account's provider together. The error names the setting and no secret.
    pub fn build(&mut self, name: &str, account: &config::Account) -> anyhow::Result<Arc<dyn Provider>> {
        let (client, clock, entropy) = (self.client.clone(), self.clock.clone(), self.entropy.clone());
        let images = account.return_images;
        Ok(match &account.kind {
            AccountKind::Alibaba(settings) => {
                let keys = match (own_key(settings).with_context(|| format!("accounts.{name}"))?, &self.chain) {
                    (Some(credentials), _) => credentials.into(),
                    (None, Some(shared)) => SigningKeys::clone(shared),
                    (None, None) => {
                        let chain = credential_chain(&self.environment, clock.clone(), entropy.clone())?;
                        self.chain.insert(chain).clone()
                    }
                };
                let settings =
                    alibaba(settings, account.allow_http, keys, images).with_context(|| format!("accounts.{name}"))?;
                Arc::new(AlibabaClient::new(settings, client, clock, entropy))
            }
            AccountKind::Zoloz(settings) => {
                let settings =
                    zoloz(settings).map_err(|(key, problem)| anyhow::anyhow!("accounts.{name}.{key} {problem}"))?;
                Arc::new(ZolozClient::new(settings, images, client, clock, entropy))
            }
        })
    }
}

/// What callbacks of the account must carry, by its settings.
pub fn callback_token(account: &config::Account) -> Option<TokenHash> {
    account.callback_token.as_ref().map(|token| TokenHash::of(token.expose_secret()))
}

/// The key in the account's settings.
fn own_key(account: &config::AlibabaAccount) -> anyhow::Result<Option<Credentials>> {
    let Some(key) = &account.access_key else { return Ok(None) };
    Ok(Some(Credentials::new(key.id.clone(), key.secret.clone(), None)?))
}

fn credential_chain(environment: &Environment, clock: Clock, entropy: Entropy) -> anyhow::Result<SigningKeys> {
    let owned = |text: Option<&str>| text.map(str::to_owned);
    let settings = ChainSettings {
        key: KeyParts {
            access_key_id: environment.alibaba_access_key_id().map(|id| id.expose_secret().to_owned()),
            access_key_secret: environment.alibaba_access_key_secret(),
            security_token: environment.alibaba_security_token(),
        },
        home: environment.home(),
        profile: owned(environment.alibaba_profile()),
        cli_profile_disabled: environment.alibaba_cli_profile_disabled(),
        credentials_file: environment.alibaba_credentials_file(),
        role_arn: owned(environment.alibaba_role_arn()),
        role_session_name: owned(environment.alibaba_role_session_name()),
        oidc_provider_arn: owned(environment.alibaba_oidc_provider_arn()),
        oidc_token_file: environment.alibaba_oidc_token_file(),
        sts_region: owned(environment.alibaba_sts_region()),
        sts_vpc: environment.alibaba_vpc_endpoint_enabled(),
        metadata_role: owned(environment.alibaba_ecs_metadata()),
        metadata_disabled: environment.alibaba_ecs_metadata_disabled(),
        imds_v1_disabled: environment.alibaba_imds_v1_disabled(),
        uri: environment.alibaba_credentials_uri(),
        ..ChainSettings::default()
    };
    let chain = Chain::new(settings, clock, entropy).context("the HTTP client could not be set up")?;
    Ok(chain.into())
}

fn alibaba(
    account: &config::AlibabaAccount,
    allow_http: bool,
    credentials: SigningKeys,
    images: bool,
) -> anyhow::Result<AlibabaSettings> {
    let network = match account.network {
        config::Network::Public => Network::Public,
        config::Network::Vpc => Network::Vpc,
    };
    Ok(AlibabaSettings {
        endpoint: Endpoint::choose(
            account.endpoint.as_ref().map_or("", |url| url.as_str()),
            &account.region,
            network,
            allow_http,
        )?,
        signature: match account.signature {
            config::Signature::Acs3 => Signature::Acs3,
            config::Signature::HmacSha1 => Signature::HmacSha1,
        },
        credentials,
        images,
    })
}

/// Reads the keys; of one that cannot be used, its name in the settings and what is wrong with it.
fn zoloz(account: &config::ZolozAccount) -> Result<ZolozSettings, (&'static str, String)> {
    let auth = match &account.auth {
        ZolozAuth::Rsa { merchant_private_key, zoloz_public_key, encrypt } => {
            let merchant = MerchantKey::read(merchant_private_key.expose_secret())
                .map_err(|error| ("merchant_private_key", error.to_string()))?;
            let zoloz = ZolozKey::read(zoloz_public_key.expose_secret())
                .map_err(|error| ("zoloz_public_key", error.to_string()))?;
            Auth::Rsa { merchant: Box::new(merchant), zoloz: Box::new(zoloz), encrypt: *encrypt }
        }
        ZolozAuth::AkSk { access_key, secret_key } => {
            Auth::AkSk(AccessKey::new(access_key, secret_key).map_err(|error| match error {
                AccessKeyError::Id => ("access_key", error.to_string()),
                AccessKeyError::Secret => ("secret_key", error.to_string()),
            })?)
        }
    };
    Ok(ZolozSettings { endpoint: account.endpoint.clone(), client_id: account.client_id.clone(), auth })
}

#[cfg(test)]
mod tests {
    use url::Url;

    use super::*;

    fn account(auth: ZolozAuth) -> config::ZolozAccount {
        config::ZolozAccount {
            endpoint: Url::parse("https://sg-production-api.zoloz.com").unwrap(),
            client_id: "2089012345678900".to_owned(),
            auth,
        }
    }

    #[test]
    fn a_wrong_zoloz_key_is_named_with_what_is_wrong() {
        let vectors: serde_json::Value = serde_json::from_str(include_str!("../../tests/vectors/zoloz.json")).unwrap();
        let key = |name: &str| vectors["keys"]["merchant"][name].as_str().unwrap().to_owned();
        let (private, public) = (key("private_key_pkcs8_pem"), key("public_key_spki_pem"));
        let rsa = |private: &str, public: &str| {
            let (merchant_private_key, zoloz_public_key) = (private.into(), public.into());
            zoloz(&account(ZolozAuth::Rsa { merchant_private_key, zoloz_public_key, encrypt: true }))
        };
        let aksk = |access_key: &str, secret_key: &str| {
            let (access_key, secret_key) = (access_key.into(), secret_key.into());
            zoloz(&account(ZolozAuth::AkSk { access_key, secret_key }))
        };
        assert!(rsa(&private, &public).is_ok());
        assert!(aksk("AK", "c2VjcmV0").is_ok());
        for (settings, name, problem) in [
            (rsa(&public, &public), "merchant_private_key", "is a public key"),
            (rsa(&private, &private), "zoloz_public_key", "is a private key"),
            (rsa(&private, "AAAA"), "zoloz_public_key", "damaged"),
            (aksk("A K", "c2VjcmV0"), "access_key", "blank"),
            (aksk("AK", "+/+/"), "secret_key", "Base64"),
        ] {
            let (key, message) = settings.unwrap_err();
            assert!(key == name && message.contains(problem), "{key} {message}");
        }
    }
}

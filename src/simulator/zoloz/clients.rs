//! The clients the simulator knows, with their keys: from a file, or made for this process.
//!
//! The file is TOML or JSON. What a merchant would keep to itself may stand in it too, so that one file serves the
//! simulator and the configuration of a client.

use std::fmt;
use std::io::Write as _;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::Hmac;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::Sha256;

use super::keys::{PrivateKey, PublicKey};
use super::sign;

/// The client whose keys are made.
const CLIENT_ID: &str = "2188000000000001";
const ACCESS_KEY: &str = "SIMACCESSKEY0001";

pub(super) struct AccessKey {
    pub(super) name: String,
    secret: SecretString,
    pub(super) hmac: Hmac<Sha256>,
}

pub(super) struct Client {
    pub(super) id: String,
    /// Verifies requests and wraps the keys of answers.
    pub(super) merchant: PublicKey,
    /// Signs answers and unwraps the keys of requests.
    pub(super) own: PrivateKey,
    pub(super) access_keys: Vec<AccessKey>,
    merchant_private_key: Option<PrivateKey>,
}

/// The keys of every client of a simulated ZOLOZ; clones are the same.
#[derive(Clone)]
pub struct ZolozKeys(Arc<[Client]>);

impl fmt::Debug for ZolozKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|client| &client.id)).finish()
    }
}

/// What a merchant needs to call the simulator as one client. Test keys.
#[derive(Clone, Debug)]
pub struct ZolozCredentials {
    pub client_id: String,
    /// PEM (PKCS#8); absent when the simulator was given only the public half.
    pub merchant_private_key: Option<SecretString>,
    /// PEM.
    pub zoloz_public_key: String,
    /// Access key and secret key, each pair usable.
    pub access_keys: Vec<(String, SecretString)>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    clients: Vec<FileClient>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileClient {
    client_id: String,
    merchant_public_key: Option<String>,
    merchant_private_key: Option<SecretString>,
    zoloz_public_key: Option<String>,
    zoloz_private_key: SecretString,
    #[serde(default)]
    access_keys: Vec<FileAccessKey>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileAccessKey {
    access_key: String,
    secret_key: SecretString,
}

impl FileAccessKey {
    fn read(self) -> anyhow::Result<AccessKey> {
        let hmac = sign::hmac_key(self.secret_key.expose_secret());
        let hmac = hmac.with_context(|| format!("the secret_key of {} is not URL-safe Base64", self.access_key))?;
        Ok(AccessKey { name: self.access_key, secret: self.secret_key, hmac })
    }
}

impl FileClient {
    fn read(self) -> anyhow::Result<Client> {
        let own = PrivateKey::read(self.zoloz_private_key.expose_secret()).context("zoloz_private_key")?;
        let merchant_private_key = self.merchant_private_key.map(|text| PrivateKey::read(text.expose_secret()));
        let merchant_private_key = merchant_private_key.transpose().context("merchant_private_key")?;
        let merchant = match (&self.merchant_public_key, &merchant_private_key) {
            (Some(text), _) => PublicKey::read(text).context("merchant_public_key")?,
            (None, Some(key)) => key.public()?,
            (None, None) => anyhow::bail!("merchant_public_key is missing"),
        };
        if let Some(key) = &merchant_private_key {
            ensure!(key.public()? == merchant, "merchant_public_key does not belong to merchant_private_key");
        }
        if let Some(text) = &self.zoloz_public_key {
            let given = PublicKey::read(text).context("zoloz_public_key")?;
            ensure!(own.public()? == given, "zoloz_public_key does not belong to zoloz_private_key");
        }
        let access_keys = self.access_keys.into_iter().map(FileAccessKey::read).collect::<anyhow::Result<_>>()?;
        Ok(Client { id: self.client_id, merchant, own, access_keys, merchant_private_key })
    }
}

impl ZolozKeys {
    /// One client with fresh keys.
    pub fn generate() -> anyhow::Result<Self> {
        let (merchant_private_key, own) = (PrivateKey::generate()?, PrivateKey::generate()?);
        let mut secret = [0; 32];
        aws_lc_rs::rand::fill(&mut secret).context("a secret cannot be made")?;
        let secret_key = URL_SAFE_NO_PAD.encode(secret).into();
        let access_key = FileAccessKey { access_key: ACCESS_KEY.to_owned(), secret_key }.read()?;
        let client = Client {
            id: CLIENT_ID.to_owned(),
            merchant: merchant_private_key.public()?,
            own,
            access_keys: vec![access_key],
            merchant_private_key: Some(merchant_private_key),
        };
        Ok(Self(Arc::new([client])))
    }

    /// Made at the first use and then the same for all simulators of the process: making keys takes its time.
    pub(super) fn of_this_process() -> Self {
        static KEYS: OnceLock<ZolozKeys> = OnceLock::new();
        KEYS.get_or_init(|| Self::generate().expect("a machine with randomness makes RSA keys")).clone()
    }

    /// Reads a key file.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let wrong = || format!("cannot use the ZOLOZ keys in {}", path.display());
        let text = SecretString::from(std::fs::read_to_string(path).with_context(wrong)?);
        Self::parse(text.expose_secret()).with_context(wrong)
    }

    /// TOML, or JSON when it begins with a brace. Errors name the place and no value.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let file: File = if text.trim_start().starts_with('{') {
            serde_json::from_str(text)?
        } else {
            // The library's error would quote the line.
            toml::from_str(text).map_err(|error| anyhow::anyhow!("{}", error.message().to_owned()))?
        };
        ensure!(!file.clients.is_empty(), "there are no clients in it");
        let clients = file.clients.into_iter().map(|client| {
            let id = client.client_id.clone();
            client.read().with_context(|| format!("client {id}"))
        });
        Ok(Self(clients.collect::<anyhow::Result<_>>()?))
    }

    /// Writes the file that [`ZolozKeys::read`] reads, with every secret in it, for its owner only.
    pub fn write(&self, path: &Path) -> std::io::Result<()> {
        let clients: Vec<_> = self.0.iter().map(|client| client.written(true)).collect();
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(path)?;
        file.write_all(format!("{:#}\n", json!({"clients": clients})).as_bytes())
    }

    /// For a merchant: without the private keys of the provider.
    pub(in crate::simulator) fn for_merchants(&self) -> Value {
        let clients: Vec<_> = self.0.iter().map(|client| client.written(false)).collect();
        json!({"clients": clients})
    }

    pub fn credentials(&self) -> Vec<ZolozCredentials> {
        self.0.iter().map(Client::credentials).collect()
    }

    pub(super) fn client(&self, id: &str) -> Option<&Client> {
        self.0.iter().find(|client| client.id == id)
    }

    pub(super) fn first(&self) -> Option<&Client> {
        self.0.first()
    }
}

impl Client {
    fn credentials(&self) -> ZolozCredentials {
        ZolozCredentials {
            client_id: self.id.clone(),
            merchant_private_key: self.merchant_private_key.as_ref().map(|key| key.to_pem().into()),
            zoloz_public_key: self.own.public().map(|key| key.to_pem()).unwrap_or_default(),
            access_keys: self.access_keys.iter().map(|key| (key.name.clone(), key.secret.clone())).collect(),
        }
    }

    fn written(&self, for_the_provider: bool) -> Value {
        let ZolozCredentials { client_id, merchant_private_key, zoloz_public_key, access_keys } = self.credentials();
        let access_keys: Vec<_> = access_keys
            .iter()
            .map(|(name, secret)| json!({"access_key": name, "secret_key": secret.expose_secret()}))
            .collect();
        let mut written = json!({
            "client_id": client_id,
            "merchant_public_key": self.merchant.to_pem(),
            "zoloz_public_key": zoloz_public_key,
            "access_keys": access_keys,
        });
        if let Some(key) = merchant_private_key {
            written["merchant_private_key"] = key.expose_secret().into();
        }
        if for_the_provider {
            written["zoloz_private_key"] = self.own.to_pem().into();
        }
        written
    }
}

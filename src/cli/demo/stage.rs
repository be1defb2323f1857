//! What the show is played on: a private Postgres in a folder of its own, the simulators, and the service.

use std::fmt::Write as _;
use std::fs::DirBuilder;
use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdListener};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::TimeDelta;
use secrecy::ExposeSecret;
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use tokio::sync::Mutex;

use super::cases::{ALIBABA, WITHOUT_TOKEN, ZOLOZ, ZOLOZ_AK_SK, ZOLOZ_WRONG_KEY};
use super::receiver::Receiver;
use crate::app::{App, Database, Options};
use crate::clock::Clock;
use crate::config::{Environment, Loaded, describe, load_text};
use crate::entropy::Entropy;
use crate::lifecycle::Tasks;
use crate::simulator::{ClockMove, Settings, Simulator, ZolozCredentials, ZolozKeys};

/// How long the simulator may take to stop.
const SIMULATOR_GRACE: Duration = Duration::from_secs(2);

pub struct Stage {
    pub public: SocketAddr,
    pub internal: SocketAddr,
    pub simulator_address: SocketAddr,
    pub simulator: Simulator,
    /// The key of the merchant's server.
    pub key: String,
    /// The account-wide token of callbacks.
    pub account_token: String,
    pub entropy: Entropy,
    /// The merchant's.
    pub receiver: Receiver,
    clock: Clock,
    environment: Environment,
    loaded: Loaded,
    app: Mutex<Option<App>>,
    tasks: Tasks,
    // Dropped in this order: the folder goes after the server that works in it.
    database: Database,
    _folder: Folder,
}

impl Stage {
    /// Starts everything. `environment` says where the Postgres binaries are, and nothing else: whatever is
    /// configured on this machine must not become part of a demo.
    pub async fn open(environment: &Environment) -> anyhow::Result<Self> {
        let binaries = environment.postgres_bin().map(|folder| ("CHECKBACK_POSTGRES_BIN", folder.into_os_string()));
        let path = environment.path().map(|path| ("PATH", path.to_owned()));
        let environment = Environment::from_pairs(binaries.into_iter().chain(path));
        let entropy = Entropy::system();
        let folder = Folder::make(&entropy)?;
        let access_secret = entropy.hex32();
        let simulator = Simulator::new(&Settings {
            access_key_id: "demo".to_owned(),
            access_key_secret: access_secret.clone().into(),
            ..Settings::default()
        })?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("no port is free")?;
        let simulator_address = listener.local_addr()?;
        let held = addresses().context("no port is free")?;
        let (public, internal) = (held.0.local_addr()?, held.1.local_addr()?);
        let (key, account_token) = (format!("demo-{}", entropy.hex32()), entropy.hex32());
        let tasks = Tasks::new();
        let (receiver, receiver_address) = Receiver::start(&tasks).await?;
        let webhook_secret = format!("whsec_{}", STANDARD.encode(entropy.secret()));
        let text = configuration(&Names {
            folder: &folder.0,
            public,
            internal,
            key: &key,
            simulator: simulator_address,
            access_secret: &access_secret,
            account_token: &account_token,
            receiver: receiver_address,
            webhook_secret: &webhook_secret,
            zoloz: &credentials(&simulator.zoloz_keys())?,
            other: &credentials(&ZolozKeys::generate()?)?,
        })?;
        let loaded = load_text("demo", &text, &environment)?;
        let database = Database::open_throwaway(&loaded.config, &environment).await?;
        let (serving, stopping) = (simulator.clone(), tasks.stopping());
        tasks.spawn(async move {
            // Without it every case fails, which is told at the end.
            let _broken = serving.serve(listener, stopping).await.is_err();
        });
        let stage = Self {
            public,
            internal,
            simulator_address,
            simulator,
            key,
            account_token,
            entropy,
            receiver,
            clock: Clock::jumping(),
            environment,
            loaded,
            app: Mutex::new(None),
            tasks,
            database,
            _folder: folder,
        };
        match stage.prepare(held).await {
            Ok(()) => Ok(stage),
            Err(error) => {
                // The error of the start says more than one of stopping would.
                let _ = stage.close().await;
                Err(error)
            }
        }
    }

    /// The ports are held until the last moment: another demo may be starting beside this one.
    async fn prepare(&self, held: (StdListener, StdListener)) -> anyhow::Result<()> {
        let store = self.database.store(self.loaded.config.database.max_connections);
        store.migrate().await?;
        store.close().await;
        drop(held);
        self.start().await
    }

    async fn start(&self) -> anyhow::Result<()> {
        let options = Options {
            clock: self.clock.clone(),
            entropy: self.entropy.clone(),
            settings: describe(&self.loaded),
            ..Options::default()
        };
        let app = App::start(&self.loaded.config, &self.environment, &self.database, options).await?;
        *self.app.lock().await = Some(app);
        Ok(())
    }

    /// Stops the service as SIGTERM would, and starts another.
    pub async fn restart(&self) -> anyhow::Result<()> {
        if let Some(app) = self.app.lock().await.take() {
            app.shut_down().await;
        }
        self.start().await.context("the service did not start again")
    }

    /// Moves the clocks of provider and service.
    pub fn advance(&self, by: Duration) {
        self.simulator.move_clock(ClockMove::Advance(TimeDelta::from_std(by).unwrap_or_default()));
        self.clock.advance(by);
    }

    /// Where the provider calls back.
    pub fn callback_url(&self, account: &str) -> String {
        format!("http://{}/callbacks/{account}", self.public)
    }

    pub async fn close(self) -> anyhow::Result<()> {
        if let Some(app) = self.app.lock().await.take() {
            app.shut_down().await;
        }
        self.tasks.shut_down(SIMULATOR_GRACE).await;
        self.database.close().await
    }
}

/// The usual addresses where they are free, so that what is printed looks like what is documented.
fn addresses() -> std::io::Result<(StdListener, StdListener)> {
    let free =
        |port| StdListener::bind((Ipv4Addr::LOCALHOST, port)).or_else(|_| StdListener::bind((Ipv4Addr::LOCALHOST, 0)));
    Ok((free(8080)?, free(8081)?))
}

struct Names<'a> {
    folder: &'a Path,
    public: SocketAddr,
    internal: SocketAddr,
    key: &'a str,
    simulator: SocketAddr,
    access_secret: &'a str,
    account_token: &'a str,
    receiver: SocketAddr,
    webhook_secret: &'a str,
    zoloz: &'a ZolozCredentials,
    /// Of somebody the simulator does not know.
    other: &'a ZolozCredentials,
}

/// Of the only client.
fn credentials(keys: &ZolozKeys) -> anyhow::Result<ZolozCredentials> {
    keys.credentials().into_iter().next().context("the simulated ZOLOZ has no client")
}

fn configuration(names: &Names<'_>) -> anyhow::Result<String> {
    let Names { folder, public, internal, key, simulator, access_secret, account_token, zoloz, other, .. } = names;
    let Names { receiver, webhook_secret, .. } = names;
    let digest = hex::encode(Sha256::digest(key));
    let mut text = format!(
        r#"
        [server]
        public_listen = "{public}"
        internal_listen = "{internal}"
        public_url = "http://{public}"
        [database]
        data_dir = "{}"
        [[auth.keys]]
        name = "demo"
        sha256 = "{digest}"
        scopes = ["register", "read", "evidence", "operate", "erase"]
        [evidence]
        url = "file:{}"
        [[webhooks]]
        name = "merchant"
        url = "http://{receiver}/events"
        secrets = ["{webhook_secret}"]
        "#,
        folder.join("data").display(),
        folder.join("evidence").display()
    );
    for account in ALIBABA {
        let token = if account == WITHOUT_TOKEN { "" } else { account_token };
        let _ = write!(
            text,
            r#"
            [accounts.{account}]
            kind = "alibaba"
            endpoint = "http://{simulator}"
            access_key_id = "demo"
            access_key_secret = "{access_secret}"
            callback_token = "{token}"
            "#
        );
    }
    let pair = |of: &ZolozCredentials| {
        let private = of.merchant_private_key.as_ref().context("the simulated client has no private key")?;
        let (private, public) = (private.expose_secret(), &zoloz.zoloz_public_key);
        anyhow::Ok(format!("merchant_private_key = '''{private}'''\nzoloz_public_key = '''{public}'''"))
    };
    let (access_key, secret_key) = zoloz.access_keys.first().context("the simulated client has no access key")?;
    let secret_key = secret_key.expose_secret();
    let access_key =
        format!("auth = 'aksk'\naccess_key = '{access_key}'\nsecret_key = '{secret_key}'\nencrypt = false");
    // Its results are kept for longer than the show lasts, so that it waits for a better key until the end.
    let wrong_key = pair(other)? + "\nresult_retention = '90d'";
    for (account, more) in [(ZOLOZ, pair(zoloz)?), (ZOLOZ_AK_SK, access_key), (ZOLOZ_WRONG_KEY, wrong_key)] {
        let _ = write!(
            text,
            r#"
            [accounts.{account}]
            kind = "zoloz"
            endpoint = "http://{simulator}"
            client_id = "{}"
            {more}
            "#,
            zoloz.client_id
        );
    }
    Ok(text)
}

/// Removed with everything in it when it is dropped.
struct Folder(PathBuf);

impl Folder {
    fn make(entropy: &Entropy) -> anyhow::Result<Self> {
        let name = format!("checkback-demo-{}", entropy.hex32());
        // Others may pass, because as root the server runs as another user; the data below is the server's alone.
        let made = ["/tmp", "/var/tmp"].iter().find_map(|parent| {
            let path = Path::new(parent).join(&name);
            DirBuilder::new().mode(0o711).create(&path).is_ok().then_some(path)
        });
        made.map(Self).context("no folder for the demo's database: neither /tmp nor /var/tmp can be written to")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::super::cases::MAIN;
    use super::*;

    #[test]
    fn the_configuration_is_sound_and_keeps_trouble_apart() {
        let keys = Simulator::new(&Settings::default()).unwrap().zoloz_keys();
        let zoloz = credentials(&keys).unwrap();
        let text = configuration(&Names {
            folder: Path::new("/somewhere"),
            public: ([127, 0, 0, 1], 8080).into(),
            internal: ([127, 0, 0, 1], 8081).into(),
            key: "demo-key",
            simulator: ([127, 0, 0, 1], 9090).into(),
            access_secret: "secret",
            account_token: "a-token-of-the-whole-account",
            receiver: ([127, 0, 0, 1], 9091).into(),
            webhook_secret: "whsec_QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE=",
            zoloz: &zoloz,
            other: &zoloz,
        })
        .unwrap();
        let environment = Environment::from_pairs::<&str, &str>([]);
        let config = load_text("demo", &text, &environment).unwrap().config;
        assert_eq!(config.accounts.len(), ALIBABA.len() + 3);
        assert!(config.accounts[MAIN].callback_token.is_some());
        assert!(config.accounts[WITHOUT_TOKEN].callback_token.is_none());
        assert!(config.database.url.is_none());
        assert_eq!(config.webhooks.len(), 1);
    }

    #[test]
    fn the_folder_goes_with_everything_in_it() {
        let folder = Folder::make(&Entropy::system()).unwrap();
        let path = folder.0.clone();
        std::fs::write(path.join("file"), "x").unwrap();
        drop(folder);
        assert!(!path.exists());
    }

    #[test]
    fn a_second_demo_finds_other_ports() {
        let held = [addresses().unwrap(), addresses().unwrap()];
        let ports: std::collections::BTreeSet<_> =
            held.iter().flat_map(|(a, b)| [a, b]).map(|listener| listener.local_addr().unwrap().port()).collect();
        assert_eq!(ports.len(), 4);
    }
}

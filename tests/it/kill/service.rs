//! The real binary as a process, to be killed.

use std::net::{SocketAddr, TcpListener as StdListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use super::QPS;
use crate::support::app::{ACCOUNT, KEY, http_client};
use crate::support::environment;

/// A Postgres that was killed writes its whole folder through to the disk before it recovers, however slow that is.
const READY_LIMIT: Duration = Duration::from_mins(3);

fn free_port() -> u16 {
    StdListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The binary with its configuration; each start is another process.
pub struct Service {
    pub folder: tempfile::TempDir,
    pub public: SocketAddr,
    pub internal: SocketAddr,
    database_url: Option<String>,
    child: Option<Child>,
    pub http: reqwest::Client,
}

impl Service {
    /// Without `database_url` it runs a private Postgres with full durability.
    pub fn new(folder: tempfile::TempDir, simulator: SocketAddr, database_url: Option<String>) -> Self {
        let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let (public, internal) = (address(free_port()), address(free_port()));
        let digest = hex::encode(Sha256::digest(KEY));
        let data_dir = folder.path().join("data");
        let config = format!(
            r#"
            [server]
            public_listen = "{public}"
            internal_listen = "{internal}"
            [database]
            data_dir = "{}"
            [[auth.keys]]
            name = "test"
            sha256 = "{digest}"
            scopes = ["register", "read", "evidence"]
            [accounts.{ACCOUNT}]
            kind = "alibaba"
            endpoint = "http://{simulator}"
            access_key_id = "sim-key-id"
            access_key_secret = "sim-key-secret"
            qps = {QPS}
            return_images = false
            [evidence]
            url = "file:{}"
            "#,
            data_dir.display(),
            folder.path().join("evidence").display()
        );
        std::fs::write(folder.path().join("config.toml"), config).unwrap();
        Self { folder, public, internal, database_url, child: None, http: http_client() }
    }

    pub fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    pub fn start(&mut self) {
        let log = std::fs::File::options().create(true).append(true).open(self.log()).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_checkback"));
        command.args(["serve", "--config"]).arg(self.folder.path().join("config.toml")).env_clear();
        for name in ["PATH", "CHECKBACK_POSTGRES_BIN"] {
            if let Some(value) = environment::variable(name) {
                command.env(name, value);
            }
        }
        if let Some(url) = &self.database_url {
            command.env("DATABASE_URL", url);
        }
        command.stdin(Stdio::null()).stdout(Stdio::from(log.try_clone().unwrap())).stderr(Stdio::from(log));
        self.child = Some(command.spawn().unwrap());
    }

    /// Waits until it is ready; how long that took.
    pub async fn ready(&mut self) -> Duration {
        let started = Instant::now();
        let url = format!("http://{}/readyz", self.internal);
        loop {
            if let Ok(answer) = self.http.get(&url).send().await
                && answer.status() == 200
            {
                return started.elapsed();
            }
            let ended = self.child.as_mut().unwrap().try_wait().unwrap();
            let log = || std::fs::read_to_string(self.log()).unwrap_or_default();
            assert!(ended.is_none(), "the service ended by itself:\n{}", log());
            let database = || std::fs::read_to_string(self.folder.path().join("data/postgres.log")).unwrap_or_default();
            assert!(started.elapsed() < READY_LIMIT, "never ready:\n{}\nits Postgres:\n{}", log(), database());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// SIGTERM; how long it took to end well.
    pub async fn stop(&mut self) -> Duration {
        let mut child = self.child.take().unwrap();
        let started = Instant::now();
        signal("TERM", child.id());
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                assert!(status.success(), "{status}: {}", std::fs::read_to_string(self.log()).unwrap_or_default());
                return started.elapsed();
            }
            assert!(started.elapsed() < Duration::from_mins(1), "it does not stop");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

pub fn signal(name: &str, process: u32) {
    assert!(Command::new("kill").args([format!("-{name}"), process.to_string()]).status().unwrap().success());
}

pub fn scratch() -> tempfile::TempDir {
    let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    tempfile::Builder::new().prefix("kill-").permissions(everybody).tempdir_in(reachable_folder()).unwrap()
}

#[cfg(feature = "embedded-postgres")]
fn reachable_folder() -> &'static std::path::Path {
    crate::support::scratch::folder()
}

#[cfg(not(feature = "embedded-postgres"))]
fn reachable_folder() -> PathBuf {
    std::env::temp_dir()
}

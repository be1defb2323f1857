//! The private Postgres, with the machine's real server binaries.
#![expect(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use checkback::private_postgres::{Durability, Error, Options, PrivatePostgres, Search};
use sqlx::{Connection, PgConnection};
use tempfile::TempDir;
use tokio::sync::OnceCell;

use crate::support::{environment, scratch};

/// Names the folder that the process to be killed works on; see [`holds_a_server_until_it_is_killed`].
const HELD: &str = "CHECKBACK_TEST_HELD_DATA_DIR";

/// A folder that the server's user can reach when the tests run as root.
fn reachable() -> TempDir {
    // The watcher passes over names that begin with a dot, which is tempfile's own prefix.
    tempfile::Builder::new()
        .prefix("test-")
        .permissions(Permissions::from_mode(0o755))
        .tempdir_in(scratch::folder())
        .unwrap()
}

/// The same with a cluster in it: a copy, because initdb takes most of a first start.
async fn with_data() -> TempDir {
    static MADE: OnceCell<PathBuf> = OnceCell::const_new();
    let made = MADE
        .get_or_init(|| async {
            let data_dir = scratch::folder().join("made").join("data");
            PrivatePostgres::start(options(data_dir.clone())).await.unwrap().stop().await.unwrap();
            data_dir
        })
        .await;
    let root = reachable();
    assert!(Command::new("cp").arg("-Rp").arg(made).arg(root.path()).status().unwrap().success());
    root
}

fn options(data_dir: PathBuf) -> Options {
    Options::new(data_dir, Durability::None, environment::search())
}

async fn started(root: &TempDir) -> PrivatePostgres {
    PrivatePostgres::start(options(root.path().join("data"))).await.unwrap()
}

async fn connected(server: &PrivatePostgres) -> PgConnection {
    PgConnection::connect_with(&server.connect_options()).await.unwrap()
}

async fn write_note(server: &PrivatePostgres) {
    let mut connection = connected(server).await;
    sqlx::raw_sql("CREATE TABLE notes (note text); INSERT INTO notes VALUES ('kept')")
        .execute(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();
}

async fn read_note(server: &PrivatePostgres) -> String {
    sqlx::query_scalar("SELECT note FROM notes").fetch_one(&mut connected(server).await).await.unwrap()
}

async fn setting(server: &PrivatePostgres, name: &str) -> String {
    sqlx::query_scalar("SELECT current_setting($1)").bind(name).fetch_one(&mut connected(server).await).await.unwrap()
}

fn process_exists(id: u32) -> bool {
    // A zombie has no command line.
    fs::read(format!("/proc/{id}/cmdline")).is_ok_and(|line| !line.is_empty())
}

fn signal(name: &str, id: u32) {
    assert!(Command::new("kill").args([format!("-{name}"), id.to_string()]).status().unwrap().success());
}

#[tokio::test]
async fn data_outlives_a_stop_and_a_start() {
    let root = with_data().await;
    let server = started(&root).await;
    write_note(&server).await;
    server.stop().await.unwrap();
    let server = started(&root).await;
    assert_eq!(read_note(&server).await, "kept");
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_stop_leaves_no_process_and_no_socket() {
    let root = with_data().await;
    let server = started(&root).await;
    let (id, socket) =
        (server.process_id(), PathBuf::from(setting(&server, "unix_socket_directories").await.trim_matches('"')));
    assert!(process_exists(id) && socket.is_dir());
    server.stop().await.unwrap();
    assert!(!process_exists(id));
    assert!(!socket.exists());
    assert_eq!(
        fs::read_to_string(root.path().join("data/checkback.lock")).unwrap(),
        format!("{}\n", std::process::id())
    );
}

#[tokio::test]
async fn dropping_stops_the_server_too() {
    let root = with_data().await;
    let server = started(&root).await;
    let id = server.process_id();
    drop(server);
    assert!(!process_exists(id));
}

#[tokio::test]
async fn a_second_service_on_the_same_folder_is_refused_by_the_first_ones_process_id() {
    let root = with_data().await;
    let server = started(&root).await;
    let error = PrivatePostgres::start(options(root.path().join("data"))).await.unwrap_err();
    assert!(matches!(error, Error::InUse { .. }), "{error}");
    let message = error.to_string();
    assert!(message.contains(&format!("in use by process {}", std::process::id())), "{message}");
    assert!(message.contains("database.data_dir"), "{message}");
    assert_eq!(setting(&server, "server_encoding").await, "UTF8");
}

#[tokio::test]
async fn there_is_no_network_address_and_the_socket_is_private() {
    let root = with_data().await;
    let server = started(&root).await;
    assert_eq!(setting(&server, "listen_addresses").await, "");
    let socket = PathBuf::from(setting(&server, "unix_socket_directories").await.trim_matches('"'));
    assert_eq!(fs::metadata(&socket).unwrap().mode() & 0o777, 0o700);
    assert!(socket.join(".s.PGSQL.5432").as_os_str().len() < 100);
    let names = fs::read_dir(format!("/proc/{}/fd", server.process_id()))
        .unwrap()
        .filter_map(|entry| fs::read_link(entry.unwrap().path()).ok())
        .map(|target| target.display().to_string())
        .collect::<Vec<_>>();
    let sockets = names.iter().filter_map(|name| name.strip_prefix("socket:[")?.strip_suffix(']'));
    let tcp =
        ["tcp", "tcp6"].map(|table| fs::read_to_string(format!("/proc/net/{table}")).unwrap_or_default()).concat();
    let mut seen = 0;
    for inode in sockets {
        seen += 1;
        assert!(!tcp.split_whitespace().any(|field| field == inode), "{inode} is a TCP socket");
    }
    assert!(seen > 0, "the server holds its unix socket");
}

#[tokio::test]
async fn the_server_runs_as_an_ordinary_user_without_the_groups_of_root() {
    let root = with_data().await;
    let server = started(&root).await;
    let status = fs::read_to_string(format!("/proc/{}/status", server.process_id())).unwrap();
    let line = |name: &str| {
        status.lines().find_map(|line| line.strip_prefix(name)).unwrap().split_whitespace().collect::<Vec<_>>()
    };
    assert!(!line("Uid:").contains(&"0"), "{status}");
    assert!(!line("Gid:").contains(&"0"), "{status}");
    assert!(!line("Groups:").contains(&"0"), "{status}");
    let environment = fs::read_to_string(format!("/proc/{}/environ", server.process_id())).unwrap();
    let names = environment.split('\0').filter_map(|pair| pair.split_once('=')).map(|(name, _)| name);
    for name in names {
        assert!(["LC_ALL", "PATH"].contains(&name) || name.starts_with("PG"), "{name} reached the server");
    }
}

#[tokio::test]
async fn durability_decides_what_is_written_through_and_extra_settings_win() {
    let root = reachable();
    let mut full = options(root.path().join("data"));
    full.durability = Durability::Full;
    full.extra_settings = vec![("max_connections".to_owned(), "33".to_owned())];
    let server = PrivatePostgres::start(full).await.unwrap();
    for name in ["fsync", "synchronous_commit", "full_page_writes", "data_checksums"] {
        assert_eq!(setting(&server, name).await, "on", "{name}");
    }
    assert_eq!(setting(&server, "max_connections").await, "33");
    server.stop().await.unwrap();
    let server = started(&root).await;
    for name in ["fsync", "synchronous_commit", "full_page_writes"] {
        assert_eq!(setting(&server, name).await, "off", "{name}");
    }
    assert_eq!(setting(&server, "max_connections").await, "100");
}

#[tokio::test]
async fn the_address_leads_to_the_database_by_sqlx_and_by_psql() {
    let root = with_data().await;
    let server = started(&root).await;
    let mut connection = PgConnection::connect(&server.url()).await.unwrap();
    let found: (String, String) =
        sqlx::query_as("SELECT current_database()::text, current_user::text").fetch_one(&mut connection).await.unwrap();
    assert_eq!(found, ("checkback".to_owned(), "checkback".to_owned()));
    let output = Command::new(server.binaries().join("psql"))
        .args([server.url_to("postgres").as_str(), "-XAtc", "SELECT current_database()"])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "postgres\n", "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn a_killed_server_recovers_at_the_next_start() {
    let root = with_data().await;
    let mut durable = options(root.path().join("data"));
    durable.durability = Durability::Full;
    let server = PrivatePostgres::start(durable.clone()).await.unwrap();
    write_note(&server).await;
    let busy = connected(&server).await;
    signal("KILL", server.process_id());
    drop(server);
    let server = PrivatePostgres::start(durable).await.unwrap();
    assert_eq!(read_note(&server).await, "kept");
    drop(busy);
}

#[tokio::test]
async fn the_server_of_a_killed_service_is_taken_over() {
    let root = with_data().await;
    let data_dir = root.path().join("data");
    let mut service = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "private_postgres::holds_a_server_until_it_is_killed", "--ignored", "--nocapture"])
        .env(HELD, &data_dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let said = std::io::BufReader::new(service.stdout.take().unwrap());
    let orphan: u32 = std::io::BufRead::lines(said)
        .find_map(|line| line.unwrap().strip_prefix("server ")?.parse().ok())
        .expect("the service says its server's id");
    let refused = PrivatePostgres::start(options(data_dir.clone())).await.unwrap_err().to_string();
    assert!(refused.contains(&format!("in use by process {}", service.id())), "{refused}");
    service.kill().unwrap();
    service.wait().unwrap();
    assert!(process_exists(orphan), "the server outlives the service");
    let socket =
        fs::read_to_string(data_dir.join("checkback.lock")).unwrap().lines().nth(1).map(PathBuf::from).unwrap();
    assert!(socket.is_dir());

    let server = started(&root).await;
    assert!(!process_exists(orphan));
    assert!(!socket.exists());
    assert_ne!(server.process_id(), orphan);
    assert_eq!(read_note(&server).await, "kept");
}

/// The service that [`the_server_of_a_killed_service_is_taken_over`] kills: that test runs this one in a process
/// of its own. Without a folder to hold there is nothing to do.
#[tokio::test]
#[ignore = "run by another test, in a process that it kills"]
async fn holds_a_server_until_it_is_killed() {
    let Some(data_dir) = environment::variable(HELD) else { return };
    let server = PrivatePostgres::start(options(data_dir.into())).await.unwrap();
    write_note(&server).await;
    println!("\nserver {}", server.process_id());
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn a_broken_off_initdb_is_made_good() {
    let root = reachable();
    let left = root.path().join("data").join("unfinished-1");
    fs::create_dir_all(&left).unwrap();
    fs::write(left.join("PG_VERSION"), "9").unwrap();
    let server = started(&root).await;
    assert_eq!(setting(&server, "data_checksums").await, "on");
    assert!(!left.exists());
}

#[tokio::test]
async fn a_folder_that_the_servers_user_may_not_pass_is_named_with_the_remedy() {
    let root = reachable();
    let closed = root.path().join("closed");
    fs::create_dir(&closed).unwrap();
    // Nobody but root passes this one, and the server never runs as root.
    fs::set_permissions(&closed, Permissions::from_mode(0o600)).unwrap();
    let error = PrivatePostgres::start(options(closed.join("data"))).await.unwrap_err();
    let message = error.to_string();
    assert!(matches!(&error, Error::Unreachable { folder, .. } if *folder == closed), "{message}");
    assert!(message.contains(&format!("chmod o+x {}", closed.display())), "{message}");
    assert!(message.contains("database.data_dir"), "{message}");
}

#[tokio::test]
async fn a_server_that_does_not_start_is_reported_with_the_end_of_its_log() {
    let root = with_data().await;
    let mut wrong = options(root.path().join("data"));
    wrong.extra_settings = vec![("shared_buffers".to_owned(), "much".to_owned())];
    let error = PrivatePostgres::start(wrong).await.unwrap_err();
    assert!(matches!(error, Error::Exited { .. }), "{error}");
    assert!(error.to_string().contains(r#"invalid value for parameter "shared_buffers": "much""#), "{error}");
}

#[tokio::test]
async fn a_server_that_recovers_is_waited_for_and_one_that_says_nothing_is_not() {
    let root = with_data().await;
    let data_dir = root.path().join("data");
    let mut recovering = options(data_dir.clone());
    recovering.durability = Durability::Full;
    PrivatePostgres::start(recovering.clone()).await.unwrap().stop().await.unwrap();
    // A standby that lets nobody in recovers for ever.
    fs::write(data_dir.join("cluster/standby.signal"), "").unwrap();
    recovering.extra_settings = vec![("hot_standby".to_owned(), "off".to_owned())];
    recovering.silence_limit = Duration::from_secs(3);
    let waited = tokio::time::timeout(Duration::from_secs(5), PrivatePostgres::start(recovering)).await;
    assert!(waited.is_err(), "{waited:?}");
    fs::remove_file(data_dir.join("cluster/standby.signal")).unwrap();
    started(&root).await.stop().await.unwrap();

    let binaries = root.path().join("binaries");
    fs::create_dir(&binaries).unwrap();
    for program in ["initdb", "postgres"] {
        let major = fs::read_to_string(data_dir.join("cluster/PG_VERSION")).unwrap();
        let script = format!(
            "#!/bin/sh\n[ \"$1\" = --version ] && echo 'postgres (PostgreSQL) {}.0' && exit\necho mute\nexec sleep 60\n",
            major.trim()
        );
        let file = binaries.join(program);
        fs::write(&file, script).unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o755)).unwrap();
    }
    let mut mute = options(data_dir);
    mute.search.explicit = Some(binaries);
    mute.silence_limit = Duration::from_millis(1500);
    let error = PrivatePostgres::start(mute).await.unwrap_err();
    assert!(matches!(error, Error::NotReady { .. }), "{error}");
    assert!(error.to_string().contains("gave no answer for 1s 500ms; its log ends with:\nmute"), "{error}");
}

#[tokio::test]
async fn data_of_another_version_is_refused_unharmed() {
    let root = with_data().await;
    let version = root.path().join("data/cluster/PG_VERSION");
    fs::write(&version, "99\n").unwrap();
    let error = PrivatePostgres::start(options(root.path().join("data"))).await.unwrap_err();
    assert!(matches!(error, Error::OtherVersion { written_by: 99, .. }), "{error}");
    assert_eq!(fs::read_to_string(&version).unwrap(), "99\n");
}

#[tokio::test]
async fn missing_binaries_are_refused_with_what_to_install() {
    let root = reachable();
    let mut nowhere = options(root.path().join("data"));
    nowhere.search = Search { explicit: Some(Path::new("/nonexistent").to_owned()), path: None };
    let message = PrivatePostgres::start(nowhere).await.unwrap_err().to_string();
    assert!(message.contains("CHECKBACK_POSTGRES_BIN is /nonexistent"), "{message}");
    let message = Error::NotFound.to_string();
    for part in ["Debian", "Fedora", "macOS", "docker compose up", "DATABASE_URL"] {
        assert!(message.contains(part), "{part} is missing in: {message}");
    }
}

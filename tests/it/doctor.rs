//! `checkback doctor`: each fault is planted, and must be named with what mends it.

use std::path::Path;
use std::time::Duration;

use checkback::simulator::{ClockMove, Fault, FaultKind, Simulator};
use chrono::TimeDelta;
use serde_json::Value;
use sqlx::{Connection, PgConnection};

use super::support::app::{Setup, TestApp, zoloz_account};
use super::support::process::{Said, checkback, run};
use super::support::scratch;

/// What a planted configuration and database are looked at with.
struct Look {
    config: String,
    database_url: String,
}

impl Look {
    fn at(test: &TestApp) -> Self {
        std::fs::create_dir_all(&test.evidence).unwrap();
        Self { config: test.config.clone(), database_url: test.database.url().to_owned() }
    }

    fn with(mut self, part: &str, other: &str) -> Self {
        assert!(self.config.contains(part), "{part} in {}", self.config);
        self.config = self.config.replacen(part, other, 1);
        self
    }

    fn and(mut self, more: &str) -> Self {
        self.config.push_str(more);
        self
    }

    async fn run(&self, json: bool) -> Said {
        let folder = tempfile::Builder::new().tempdir_in(scratch::folder()).unwrap();
        let file = folder.path().join("checkback.toml");
        std::fs::write(&file, &self.config).unwrap();
        let mut command = checkback([Path::new("--config"), &file, Path::new("doctor")]);
        if json {
            command.arg("--json");
        }
        let said = run(command.env("DATABASE_URL", &self.database_url)).await;
        for secret in ["sim-key-secret", "wrong-secret", "hunter2"] {
            assert!(!said.out.contains(secret) && !said.err.contains(secret), "{}{}", said.out, said.err);
        }
        said
    }

    async fn findings(&self) -> (Option<i32>, Vec<Value>) {
        let said = self.run(true).await;
        let body: Value = serde_json::from_str(&said.out).unwrap_or_else(|_| panic!("{}{}", said.out, said.err));
        let checks = body["checks"].as_array().unwrap().clone();
        let faults = checks.iter().filter(|check| check["level"] == "fault").count();
        assert_eq!(body["faults"], faults, "{body}");
        (said.code, checks)
    }

    /// There is one fault, of this check, whose words and remedy hold these.
    async fn finds(&self, code: i32, check: &str, says: &str, remedy: &str) {
        let (ended, checks) = self.findings().await;
        let faults: Vec<&Value> = checks.iter().filter(|check| check["level"] == "fault").collect();
        assert_eq!((ended, faults.len()), (Some(code), 1), "{check}: {checks:#?}");
        let found = |name: &str| faults[0][name].as_str().unwrap_or_default();
        assert_eq!(found("check"), check, "{faults:?}");
        assert!(found("says").contains(says), "{says:?} in {faults:?}");
        // A problem of the configuration says itself what to do.
        let tells = if found("remedy").is_empty() { found("says") } else { found("remedy") };
        assert!(tells.contains(remedy), "{remedy:?} in {faults:?}");
    }
}

const ACCOUNT: &str = "accounts.alibaba-sg";
const ENDPOINT: &str = "endpoint = \"http://127.0.0.1:";

fn plant(simulator: &Simulator, operation: &str, code: &str) {
    simulator.clear_faults();
    let fault = Fault {
        operation: Some(operation.into()),
        kind: FaultKind::Code,
        code: Some(code.into()),
        times: Some(9),
        ..Fault::default()
    };
    simulator.add_fault(fault).unwrap();
}

#[tokio::test]
async fn where_all_is_well_everything_says_so_and_nothing_is_left_behind() {
    let test = TestApp::start().await;
    let look = Look::at(&test);
    let said = look.run(false).await;
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
    for check in ["configuration", "database", "migrations", "evidence", ACCOUNT] {
        assert!(said.out.lines().any(|line| line.starts_with(&format!("ok       {check}: "))), "{check}: {}", said.out);
    }
    assert!(said.out.contains("warning  server.public_url: ") && said.out.ends_with("warnings: 1.\n"), "{}", said.out);
    assert!(said.err.is_empty(), "{}", said.err);
    assert_eq!(std::fs::read_dir(&test.evidence).unwrap().count(), 0);
    assert_eq!(test.provider_calls("CheckResult"), 1, "one harmless call");
}

#[tokio::test]
async fn faults_of_the_database_are_named() {
    let test = TestApp::start().await;
    let at = |url: &str| Look { database_url: url.to_owned(), ..Look::at(&test) };
    let down = at("postgres://checkback:hunter2@127.0.0.1:1/checkback");
    down.finds(1, "database", "nobody listens at 127.0.0.1:1", "start Postgres").await;
    let (_, query) = test.database.url().split_once('?').unwrap();
    at(&format!("postgresql:///nosuch?{query}")).finds(1, "database", "nosuch", "createdb").await;
    at("mysql://root@db/x").finds(2, "database.url", "DATABASE_URL", "must be a Postgres address").await;

    let mut connection = PgConnection::connect_with(&test.database.options()).await.unwrap();
    let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
        VALUES (999999, 'of a newer version', true, '', 0)";
    sqlx::query(newer).execute(&mut connection).await.unwrap();
    let look = Look::at(&test);
    look.finds(1, "migrations", "does not know", "run the version of Checkback that migrated it").await;
    let older = "DELETE FROM _sqlx_migrations
        WHERE version >= (SELECT max(version) FROM _sqlx_migrations WHERE version < 999999)";
    sqlx::query(older).execute(&mut connection).await.unwrap();
    look.finds(1, "migrations", "1 are pending", "checkback migrate").await;
}

#[tokio::test]
async fn an_account_that_the_service_has_as_failing_is_named() {
    let test = TestApp::start().await;
    let mut connection = PgConnection::connect_with(&test.database.options()).await.unwrap();
    let failing = "UPDATE accounts
        SET failing_since = now(), failing_reason = 'bad_key', failing_code = 'InvalidAccessKeyId.Inactive'";
    assert_eq!(sqlx::query(failing).execute(&mut connection).await.unwrap().rows_affected(), 1);
    Look::at(&test).finds(1, ACCOUNT, "bad_key (InvalidAccessKeyId.Inactive)", "check access_key_id").await;
}

#[tokio::test]
async fn faults_of_credentials_are_named() {
    let test = TestApp::start().await;
    let look = || Look::at(&test);
    let key = look().with("\"sim-key-id\"", "\"nobodys-key-id\"");
    key.finds(1, ACCOUNT, "InvalidAccessKeyId.NotFound", "check access_key_id").await;
    let secret = look().with("\"sim-key-secret\"", "\"wrong-secret\"");
    secret
        .finds(1, ACCOUNT, "the secret is wrong, the provider answers SignatureDoesNotMatch", "access_key_secret")
        .await;
    for (code, says, remedy) in [
        ("Forbidden.RAMUserAccessDenied", "no permission", "AliyunAntCloudAuthFullAccess"),
        ("Forbidden.AccountAccessDenied", "not activated", "provider's console"),
        ("InternalError", "a fault of its own", "check endpoint and keys"),
    ] {
        plant(&test.simulator, "CheckResult", code);
        look().finds(1, ACCOUNT, says, remedy).await;
    }
    // A throttled call says nothing about credentials.
    plant(&test.simulator, "CheckResult", "Throttling.Api");
    let (code, checks) = look().findings().await;
    assert_eq!(code, Some(0), "{checks:?}");
    assert!(checks.iter().any(|check| check["level"] == "warning" && check["check"] == ACCOUNT), "{checks:?}");
}

#[tokio::test]
async fn faults_of_a_zoloz_account_are_named() {
    let mut test = TestApp::start().await;
    let keys = test.simulator.zoloz_keys();
    let account = zoloz_account("zoloz-sg", &keys).replace("SIMULATOR", &test.simulator_address.to_string());
    test.config.push_str(&account);
    let look = || Look::at(&test);
    let (code, checks) = look().findings().await;
    assert_eq!(code, Some(0), "{checks:?}");
    let calls = || test.provider_calls("authentication/test");
    assert_eq!(calls(), 1);
    for (code, says, remedy) in [
        ("OAUTH_FAIL", "no permission", "enable the product"),
        ("SIGNATURE_INVALID", "the secret is wrong", "merchant_private_key"),
        ("MERCHANT_NOT_FOUND", "the key is not known", "client_id"),
    ] {
        plant(&test.simulator, "authentication/test", code);
        look().finds(1, "accounts.zoloz-sg", says, remedy).await;
    }
    test.simulator.clear_faults();
    let wrong = Fault { kind: FaultKind::WrongKey, times: Some(9), ..Fault::default() };
    test.simulator.add_fault(wrong).unwrap();
    let key = "is the key in the settings the one that ZOLOZ shows";
    look().finds(1, "accounts.zoloz-sg", key, "check endpoint and keys").await;
}

#[tokio::test]
async fn the_wrong_place_is_named() {
    let test = TestApp::start().await;
    let here = format!("http://{}", test.simulator_address);
    let look = || Look::at(&test);
    let other = look().with(
        &format!("endpoint = \"{here}\""),
        "region = \"ap-southeast-1\"\nendpoint = \"https://cloudauth-intl.cn-hongkong.aliyuncs.com\"",
    );
    other.finds(1, ACCOUNT, "the endpoint is the one of cn-hongkong, and region says ap-southeast-1", "region").await;
    let port = test.simulator_address.port().to_string();
    let nobody = look().with(&format!("{ENDPOINT}{port}"), &format!("{ENDPOINT}1"));
    nobody.finds(1, ACCOUNT, "http://127.0.0.1:1 cannot be reached", "check region and endpoint").await;
    let region = look().with(&format!("endpoint = \"{here}\""), "region = \"ap-southeast-9\"");
    region.finds(2, &format!("{ACCOUNT}.region"), "ap-southeast-1", "cn-hongkong").await;
}

#[tokio::test]
async fn a_clock_that_is_off_is_named() {
    let test = TestApp::start().await;
    test.simulator.move_clock(ClockMove::Advance(TimeDelta::minutes(20)));
    Look::at(&test).finds(1, &format!("{ACCOUNT} clock"), "behind the provider's", "synchronise").await;
    test.simulator.move_clock(ClockMove::Advance(TimeDelta::minutes(-18)));
    let (code, checks) = Look::at(&test).findings().await;
    assert_eq!(code, Some(0));
    let warned = |check: &Value| check["level"] == "warning" && check["check"] == format!("{ACCOUNT} clock");
    assert!(checks.iter().any(warned), "{checks:?}");
}

#[tokio::test]
async fn faults_of_evidence_and_addresses_are_named() {
    let test = TestApp::start().await;
    let look = || Look::at(&test);
    let folder = tempfile::Builder::new().tempdir_in(scratch::folder()).unwrap();
    let file = folder.path().join("no-folder");
    std::fs::write(&file, "").unwrap();
    let place = test.evidence.display().to_string();
    let unwritable = look().with(&place, &file.display().to_string());
    unwritable.finds(1, "evidence", "cannot be written", "let the service's user write").await;
    let token = look().with("kind = \"alibaba\"", "kind = \"alibaba\"\ncallback_token = \"hunter2hunter2hunter2\"");
    token.finds(1, &format!("{ACCOUNT}.callback_token"), "can be guessed: it repeats itself", "openssl rand").await;
    let secret = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let webhook = |url: &str| format!("\n[[webhooks]]\nname = \"app\"\nurl = \"{url}\"\nsecrets = [\"{secret}\"]\n");
    let unreachable = look().and(&webhook("http://127.0.0.1:1/idv?token=hunter2"));
    unreachable.finds(1, "webhooks.app", "http://127.0.0.1:1 cannot be reached", "start the receiver").await;
    let (code, _) = look().and(&webhook(&test.public("/idv"))).findings().await;
    assert_eq!(code, Some(0));
    // Its own public address.
    let url = look().with("[server]", &format!("[server]\npublic_url = \"{}\"", test.public("")));
    let (_, checks) = url.findings().await;
    let said = checks.iter().find(|check| check["check"] == "server.public_url").unwrap();
    assert!(said["says"].as_str().unwrap().contains("only a simulator"), "{said}");
}

#[tokio::test]
async fn a_configuration_that_cannot_be_used_is_told_as_a_whole() {
    let test = TestApp::start().await;
    let look = || Look::at(&test);
    let server = |line: &str| look().with("[server]", &format!("[server]\n{line}"));
    let account = |line: &str| look().with("kind = \"alibaba\"", &format!("kind = \"alibaba\"\n{line}"));
    server("public_url = \"http://idv.example.com\"").finds(2, "server.public_url", "https", "must be https").await;
    server("publik_url = \"x\"").finds(2, "server.publik_url", "is no known key", "did you mean `public_url`").await;
    account("callback_token = \"hunter2\"")
        .finds(2, &format!("{ACCOUNT}.callback_token"), "16 characters", "16 characters")
        .await;
    let open = look()
        .with("internal_listen = \"127.0.0.1:0\"", "internal_listen = \"0.0.0.0:0\"")
        .with("[server]", "[auth]\nmode = \"none\"\n[server]");
    open.finds(2, "auth.mode", "no loopback address", "listen on 127.0.0.1").await;
    let both = server("publik_url = \"x\"\npublic_url = \"http://idv.example.com\"");
    let (code, checks) = both.findings().await;
    assert_eq!((code, checks.len()), (Some(2), 2), "{checks:?}");
    let words = both.run(false).await;
    assert!(words.out.starts_with("fault    server.public_url: (file "), "{}", words.out);
}

#[tokio::test]
async fn a_malformed_recipient_is_a_problem_of_the_configuration() {
    let setup = Setup { evidence: "# recipients".to_owned(), ..Setup::default() };
    let test = TestApp::with(setup).await;
    let recipient = "age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj";
    let with = |key: &str| Look::at(&test).with("# recipients", &format!("recipients = [\"{key}\"]"));
    let (code, _) = with(recipient).findings().await;
    assert_eq!(code, Some(0));
    // One letter is another.
    let look = with(&recipient.replace("zvk", "zvq"));
    look.finds(2, "evidence.recipients", "item 0 is no whole age public key", "copy it again").await;
    let folder = tempfile::Builder::new().tempdir_in(scratch::folder()).unwrap();
    let file = folder.path().join("checkback.toml");
    std::fs::write(&file, &look.config).unwrap();
    let mut serve = checkback([Path::new("--config"), &file, Path::new("serve")]);
    let ended = tokio::time::timeout(Duration::from_secs(20), run(serve.env("DATABASE_URL", test.database.url())));
    let ended = ended.await.expect("it does not start");
    assert_eq!((ended.code, ended.err.contains("evidence.recipients")), (Some(2), true), "{}", ended.err);
}

//! The credential chain against a server on loopback that plays the metadata service, the token service and a URI.

#![cfg(test)]

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use checkback::clock::Clock;
use checkback::domain::{ProviderError, Trouble};
use checkback::entropy::Entropy;
use checkback::provider::alibaba::credentials::{Chain, ChainSettings, KeyParts, SigningKeys};
use chrono::{DateTime, TimeDelta, Utc};
use futures_util::future::join_all;
use secrecy::ExposeSecret;
use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use url::Url;

const TOKEN_PATH: &str = "/latest/api/token";
const ROLES_PATH: &str = "/latest/meta-data/ram/security-credentials/";
const ROLE_PATH: &str = "/latest/meta-data/ram/security-credentials/shop";

#[derive(Clone, Debug)]
struct Request {
    method: String,
    path: String,
    query: String,
    head: String,
    body: String,
}

type Answers = Box<dyn FnMut(&Request) -> (u16, String)>;

/// A folder as home, a server, a clock that stands still.
struct Stage {
    listener: TcpListener,
    home: TempDir,
    clock: Clock,
    seen: Arc<Mutex<Vec<Request>>>,
}

impl Stage {
    async fn new() -> Self {
        Self {
            listener: TcpListener::bind("127.0.0.1:0").await.unwrap(),
            home: TempDir::new().unwrap(),
            clock: Clock::manual("2026-01-15T08:30:00Z".parse().unwrap()),
            seen: Arc::default(),
        }
    }

    fn url(&self, path: &str) -> Url {
        format!("http://{}{path}", self.listener.local_addr().unwrap()).parse().unwrap()
    }

    /// Nothing is set but the addresses of the services.
    fn settings(&self) -> ChainSettings {
        ChainSettings {
            home: Some(self.home.path().to_owned()),
            metadata_disabled: true,
            sts_base: Some(self.url("/")),
            metadata_base: self.url("/"),
            ..ChainSettings::default()
        }
    }

    fn keys(&self, settings: ChainSettings) -> SigningKeys {
        Chain::new(settings, self.clock.clone(), Entropy::seeded(1)).unwrap().into()
    }

    fn write(&self, file: &str, text: &str) {
        let path = self.home.path().join(file);
        fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Runs `test` while the server answers.
    async fn run<T>(&self, answers: Answers, test: impl Future<Output = T>) -> T {
        tokio::select! {
            result = test => result,
            () = self.serve(answers) => unreachable!("the server never ends"),
        }
    }

    async fn serve(&self, mut answers: Answers) {
        loop {
            let (mut stream, _) = self.listener.accept().await.unwrap();
            let request = read(&mut stream).await;
            let (status, body) = answers(&request);
            self.seen.lock().unwrap().push(request);
            let length = body.len();
            let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
            stream.write_all((head + &body).as_bytes()).await.unwrap();
        }
    }

    fn seen(&self) -> Vec<Request> {
        std::mem::take(&mut *self.seen.lock().unwrap())
    }

    fn paths(&self) -> Vec<String> {
        self.seen().into_iter().map(|request| format!("{} {}", request.method, request.path)).collect()
    }
}

async fn read(stream: &mut TcpStream) -> Request {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |n| n.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    let mut line = head.lines().next().unwrap().split(' ');
    let method = line.next().unwrap().to_owned();
    let (path, query) = line.next().map(|target| target.split_once('?').unwrap_or((target, ""))).unwrap();
    let (path, query) = (path.to_owned(), query.to_owned());
    Request { method, path, query, body: String::from_utf8(body).unwrap(), head }
}

fn key(id: &str, ends: DateTime<Utc>) -> serde_json::Value {
    json!({
        "Code": "Success", "AccessKeyId": id, "AccessKeySecret": "CANARY-SECRET", "SecurityToken": "CANARY-TOKEN",
        "Expiration": ends.to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
    })
}

fn wrapped(id: &str, ends: DateTime<Utc>) -> String {
    json!({"RequestId": "R", "Credentials": key(id, ends)}).to_string()
}

/// The key's id, with `+token` if there is one; or the trouble and its code.
async fn shown(keys: &SigningKeys) -> String {
    let current = keys.current().await;
    assert!(!format!("{keys:?} {current:?}").contains("CANARY"), "{keys:?}");
    match current {
        Ok(signer) => {
            let key = signer.credentials();
            assert!(!key.access_key_secret().expose_secret().is_empty());
            let token = if key.security_token().is_some() { "+token" } else { "" };
            format!("{}{token}", key.access_key_id())
        }
        Err(ProviderError::Account { trouble, code }) => {
            assert_eq!(trouble, Trouble::NoCredentials);
            code
        }
        Err(other) => panic!("{other:?}"),
    }
}

fn environment_key() -> KeyParts {
    KeyParts {
        access_key_id: Some("env".to_owned()),
        access_key_secret: Some("CANARY-SECRET".into()),
        security_token: None,
    }
}

fn hour(clock: &Clock) -> DateTime<Utc> {
    clock.now() + TimeDelta::hours(1)
}

#[tokio::test]
async fn each_step_gives_way_to_the_next_in_the_order_of_the_sdks() {
    let stage = Stage::new().await;
    stage.write("token", "CANARY-OIDC");
    stage.write(
        ".aliyun/config.json",
        r#"{"current":"d","profiles":[{"name":"d","mode":"AK","access_key_id":"cli","access_key_secret":"CANARY"}]}"#,
    );
    stage.write(
        ".alibabacloud/credentials.ini",
        "[default]\ntype = access_key\naccess_key_id = ini\naccess_key_secret = CANARY\n",
    );
    let mut settings = ChainSettings {
        key: environment_key(),
        role_arn: Some("acs:ram::1:role/shop".to_owned()),
        oidc_provider_arn: Some("acs:ram::1:oidc-provider/ack".to_owned()),
        oidc_token_file: Some(stage.home.path().join("token")),
        metadata_disabled: false,
        uri: Some(stage.url("/uri?CANARY").as_str().into()),
        ..stage.settings()
    };
    let ends = hour(&stage.clock);
    let answers: Answers = Box::new(move |request| match &*request.path {
        "/" => (200, wrapped("oidc", ends)),
        TOKEN_PATH => (200, "CANARY-SESSION".to_owned()),
        ROLES_PATH => (200, "shop\n".to_owned()),
        ROLE_PATH => (200, key("ecs", ends).to_string()),
        "/uri" => (200, key("uri", ends).to_string()),
        _ => (404, String::new()),
    });
    let mut served = Vec::new();
    stage
        .run(answers, async {
            served.push(shown(&stage.keys(settings.clone())).await);
            settings.key = KeyParts::default();
            served.push(shown(&stage.keys(settings.clone())).await);
            settings.oidc_token_file = None;
            served.push(shown(&stage.keys(settings.clone())).await);
            settings.cli_profile_disabled = true;
            served.push(shown(&stage.keys(settings.clone())).await);
            fs::remove_file(stage.home.path().join(".alibabacloud/credentials.ini")).unwrap();
            served.push(shown(&stage.keys(settings.clone())).await);
            settings.metadata_disabled = true;
            served.push(shown(&stage.keys(settings.clone())).await);
            settings.uri = None;
            served.push(shown(&stage.keys(settings.clone())).await);
        })
        .await;
    assert_eq!(served, ["env", "oidc+token", "cli", "ini", "ecs+token", "uri+token", "credentials_none"]);
}

#[tokio::test]
async fn half_a_key_in_the_environment_is_passed_over_and_named_if_nothing_else_serves() {
    let stage = Stage::new().await;
    let mut key = environment_key();
    key.access_key_secret = None;
    let settings = ChainSettings { key, ..stage.settings() };
    assert_eq!(shown(&stage.keys(settings.clone())).await, "credentials_environment");
    stage.write(
        ".alibabacloud/credentials",
        "[default]\ntype: sts\naccess_key_id: ini # ours\naccess_key_secret: CANARY\nsecurity_token: CANARY\n",
    );
    assert_eq!(shown(&stage.keys(settings)).await, "ini+token");
}

#[tokio::test]
async fn the_oidc_token_is_sent_unsigned_in_the_body_and_read_anew_for_each_exchange() {
    let stage = Stage::new().await;
    let settings = ChainSettings {
        role_arn: Some("acs:ram::1:role/shop".to_owned()),
        role_session_name: Some("pod-7".to_owned()),
        oidc_provider_arn: Some("acs:ram::1:oidc-provider/ack".to_owned()),
        oidc_token_file: Some(stage.home.path().join("token")),
        ..stage.settings()
    };
    let keys = stage.keys(settings);
    let clock = stage.clock.clone();
    let answers: Answers = Box::new(move |_| (200, wrapped("oidc", hour(&clock))));
    stage
        .run(answers, async {
            assert_eq!(shown(&keys).await, "credentials_oidc", "the token file is not there yet");
            for token in ["first", "second"] {
                stage.write("token", &format!("{token}\n"));
                assert_eq!(shown(&keys).await, "oidc+token");
                stage.clock.advance(Duration::from_mins(50));
            }
        })
        .await;
    let seen = stage.seen();
    assert_eq!(seen.len(), 2);
    for (request, token) in seen.iter().zip(["first", "second"]) {
        assert_eq!((&*request.method, &*request.path), ("post", "/"));
        for part in ["action=assumerolewithoidc", "version=2015-04-01", "format=json", "timestamp=2026-01-15t"] {
            assert!(request.query.contains(part), "{part} in {}", request.query);
        }
        assert!(!request.query.contains("signature=") && !request.query.contains("accesskeyid"));
        let body = format!(
            "DurationSeconds=3600&RoleArn=acs%3Aram%3A%3A1%3Arole%2Fshop&RoleSessionName=pod-7\
             &OIDCProviderArn=acs%3Aram%3A%3A1%3Aoidc-provider%2Fack&OIDCToken={token}"
        );
        assert_eq!(request.body, body);
    }
}

#[tokio::test]
async fn the_metadata_service_is_asked_with_a_session_token() {
    let stage = Stage::new().await;
    let keys = stage.keys(ChainSettings { metadata_disabled: false, ..stage.settings() });
    let clock = stage.clock.clone();
    let answers: Answers = Box::new(move |request| match &*request.path {
        TOKEN_PATH if request.head.contains("x-aliyun-ecs-metadata-token-ttl-seconds: 21600") => {
            (200, "session".to_owned())
        }
        ROLES_PATH if request.head.contains("x-aliyun-ecs-metadata-token: session") => (200, "shop".to_owned()),
        ROLE_PATH if request.head.contains("x-aliyun-ecs-metadata-token: session") => {
            (200, key("ecs", hour(&clock)).to_string())
        }
        _ => (400, String::new()),
    });
    assert_eq!(stage.run(answers, shown(&keys)).await, "ecs+token");
    assert_eq!(stage.paths(), [format!("put {TOKEN_PATH}"), format!("get {ROLES_PATH}"), format!("get {ROLE_PATH}")]);
}

#[tokio::test]
async fn a_refused_session_token_leads_to_the_older_way_unless_that_is_forbidden() {
    let stage = Stage::new().await;
    let named = ChainSettings { metadata_disabled: false, metadata_role: Some("shop".to_owned()), ..stage.settings() };
    let older = |clock: Clock| -> Answers {
        Box::new(move |request| match &*request.path {
            ROLE_PATH if !request.head.contains("x-aliyun-ecs-metadata-token") => {
                (200, key("ecs", hour(&clock)).to_string())
            }
            _ => (403, String::new()),
        })
    };
    let keys = stage.keys(named.clone());
    assert_eq!(stage.run(older(stage.clock.clone()), shown(&keys)).await, "ecs+token");
    assert_eq!(stage.paths(), [format!("put {TOKEN_PATH}"), format!("get {ROLE_PATH}")]);

    let keys = stage.keys(ChainSettings { imds_v1_disabled: true, ..named });
    assert_eq!(stage.run(older(stage.clock.clone()), shown(&keys)).await, "credentials_ecs_ram_role");
    assert_eq!(stage.paths(), [format!("put {TOKEN_PATH}")]);
}

#[tokio::test]
async fn an_instance_without_a_role_leaves_it_to_the_uri() {
    let stage = Stage::new().await;
    let settings =
        ChainSettings { metadata_disabled: false, uri: Some(stage.url("/uri").as_str().into()), ..stage.settings() };
    let keys = stage.keys(settings);
    let clock = stage.clock.clone();
    let answers: Answers = Box::new(move |request| match &*request.path {
        TOKEN_PATH => (200, "session".to_owned()),
        "/uri" => (200, key("uri", hour(&clock)).to_string()),
        _ => (404, String::new()),
    });
    assert_eq!(stage.run(answers, shown(&keys)).await, "uri+token");
}

#[tokio::test]
async fn fifty_calls_at_once_make_one_fetch_and_share_its_failure_too() {
    let stage = Stage::new().await;
    let keys = stage.keys(ChainSettings { uri: Some(stage.url("/uri").as_str().into()), ..stage.settings() });
    let (clock, mut well) = (stage.clock.clone(), false);
    let answers: Answers = Box::new(move |_| {
        if std::mem::replace(&mut well, true) {
            (200, key("uri", hour(&clock)).to_string())
        } else {
            (500, String::new())
        }
    });
    stage
        .run(answers, async {
            for expected in ["credentials_uri", "uri+token", "uri+token"] {
                let all = join_all((0..50).map(|_| shown(&keys))).await;
                assert!(all.iter().all(|one| one == expected), "{all:?}");
            }
        })
        .await;
    assert_eq!(stage.seen().len(), 2);
}

#[tokio::test]
async fn a_key_is_renewed_before_its_end_and_the_old_one_serves_while_that_fails() {
    let stage = Stage::new().await;
    let keys = stage.keys(ChainSettings { uri: Some(stage.url("/uri").as_str().into()), ..stage.settings() });
    let (clock, mut calls) = (stage.clock.clone(), 0);
    let answers: Answers = Box::new(move |_| {
        calls += 1;
        match calls {
            2..=5 => (503, "CANARY".to_owned()),
            _ => (200, key(&format!("key-{calls}"), hour(&clock)).to_string()),
        }
    });
    let mut shows = Vec::new();
    stage
        .run(answers, async {
            // In minutes: fresh, just before a third is left, then failures, the end, and well again.
            for (wait, asked) in [(0, 1), (39, 0), (1, 1), (0, 0), (1, 1), (18, 1), (1, 1), (1, 1), (30, 0)] {
                stage.clock.advance(Duration::from_mins(wait));
                shows.push(shown(&keys).await);
                assert_eq!(stage.seen().len(), asked, "after {shows:?}");
            }
        })
        .await;
    let old = "key-1+token";
    let new = "key-6+token";
    assert_eq!(shows, [old, old, old, old, old, old, "credentials_uri", new, new]);
}

#[tokio::test]
async fn who_comes_during_a_renewal_is_served_with_the_key_in_hand() {
    let stage = Stage::new().await;
    let keys = stage.keys(ChainSettings { uri: Some(stage.url("/uri").as_str().into()), ..stage.settings() });
    let (clock, mut calls) = (stage.clock.clone(), 0);
    let answers: Answers = Box::new(move |_| {
        calls += 1;
        (200, key(&format!("key-{calls}"), hour(&clock)).to_string())
    });
    stage
        .run(answers, async {
            assert_eq!(shown(&keys).await, "key-1+token");
            stage.clock.advance(Duration::from_mins(45));
            let both = tokio::join!(biased; shown(&keys), shown(&keys));
            assert_eq!(both, ("key-2+token".to_owned(), "key-1+token".to_owned()));
        })
        .await;
}

#[tokio::test]
async fn a_key_that_the_provider_refused_is_looked_for_anew() {
    let stage = Stage::new().await;
    let ini = |id: &str| format!("[default]\ntype=access_key\naccess_key_id={id}\naccess_key_secret=CANARY\n");
    stage.write(".alibabacloud/credentials.ini", &ini("old"));
    let keys = stage.keys(stage.settings());
    let old = keys.current().await.unwrap();
    stage.write(".alibabacloud/credentials.ini", &ini("new"));
    keys.doubt(&old);
    assert_eq!(shown(&keys).await, "old", "not sooner than half a minute after it was read");
    stage.clock.advance(Duration::from_secs(30));
    assert_eq!(shown(&keys).await, "new");
    // Who still had the old one says nothing about the new one.
    stage.write(".alibabacloud/credentials.ini", &ini("newer"));
    keys.doubt(&old);
    stage.clock.advance(Duration::from_secs(31));
    assert_eq!(shown(&keys).await, "new");
    stage.clock.advance(Duration::from_mins(5));
    assert_eq!(shown(&keys).await, "newer");
}

#[tokio::test]
async fn the_step_that_served_is_the_only_one_that_renews() {
    let stage = Stage::new().await;
    let uri = Some(stage.url("/uri").as_str().into());
    stage.write("token", "t");
    let settings = ChainSettings {
        role_arn: Some("r".to_owned()),
        oidc_provider_arn: Some("p".to_owned()),
        oidc_token_file: Some(stage.home.path().join("token")),
        uri,
        ..stage.settings()
    };
    let keys = stage.keys(settings);
    let (clock, mut calls) = (stage.clock.clone(), 0);
    let answers: Answers = Box::new(move |request| {
        calls += 1;
        match (&*request.path, calls) {
            ("/", 1) => (200, wrapped("oidc", hour(&clock))),
            ("/uri", _) => (200, key("other-identity", hour(&clock)).to_string()),
            _ => (403, r#"{"Code":"AuthenticationFail.OIDCToken.Expired","Message":"CANARY"}"#.to_owned()),
        }
    });
    stage
        .run(answers, async {
            assert_eq!(shown(&keys).await, "oidc+token");
            stage.clock.advance(Duration::from_hours(2));
            assert_eq!(shown(&keys).await, "credentials_oidc");
        })
        .await;
}

fn cli(profile: &str) -> String {
    format!(
        r#"{{"current":"main","profiles":[{{"name":"main",{profile}}},{{"name":"base","mode":"StsToken","access_key_id":"base","access_key_secret":"CANARY","sts_token":"CANARY"}},{{"name":"newer","mode":7,"expired_seconds":"soon"}}],"meta_path":""}}"#
    )
}

#[tokio::test]
async fn every_mode_of_a_cli_profile_gives_its_key_or_is_refused() {
    let stage = Stage::new().await;
    stage.write("token", "t");
    let file = stage.home.path().join("token").display().to_string();
    let key_pair = r#""access_key_id":"ak","access_key_secret":"CANARY","sts_token":"","region_id":"cn-hongkong""#;
    let oidc = format!(
        r#""mode":"OIDC","ram_role_arn":"r","oidc_provider_arn":"p","oidc_token_file":"{file}","ram_session_name":"s""#
    );
    let expected = [
        (format!(r#""mode":"AK",{key_pair}"#), "ak"),
        (r#""mode":"AK","access_key_id":"ak","access_key_secret":"CANARY","sts_token":"old""#.to_owned(), "ak"),
        (
            r#""mode":"StsToken","access_key_id":"ak","access_key_secret":"CANARY","sts_token":"CANARY""#.to_owned(),
            "ak+token",
        ),
        (format!(r#""mode":"RamRoleArn","ram_role_arn":"r","expired_seconds":900,{key_pair}"#), "from-ak+token"),
        (r#""mode":"ChainableRamRoleArn","ram_role_arn":"r","source_profile":"base""#.to_owned(), "from-base+token"),
        (r#""mode":"EcsRamRole","ram_role_name":"shop""#.to_owned(), "ecs+token"),
        (oidc, "oidc+token"),
        (format!(r#""mode":"StsToken",{key_pair}"#), "credentials_cli_profile"),
        (
            format!(r#""mode":"RamRoleArn","ram_role_arn":"r","expired_seconds":60,{key_pair}"#),
            "credentials_cli_profile",
        ),
        (
            r#""mode":"ChainableRamRoleArn","ram_role_arn":"r","source_profile":"main""#.to_owned(),
            "credentials_cli_profile",
        ),
        (r#""mode":"CloudSSO","access_token":"CANARY""#.to_owned(), "credentials_cli_profile"),
        (r#""mode":"External","process_command":"CANARY""#.to_owned(), "credentials_cli_profile"),
        (r#""mode":["CANARY"]"#.to_owned(), "credentials_cli_profile"),
    ];
    let clock = stage.clock.clone();
    let answers: Answers = Box::new(move |request| {
        let ends = hour(&clock);
        match &*request.path {
            "/" if request.query.contains("assumerolewithoidc") => (200, wrapped("oidc", ends)),
            "/" => {
                assert!(request.query.contains("action=assumerole&") && request.query.contains("signature="));
                let from = request.query.split('&').find_map(|part| part.strip_prefix("accesskeyid=")).unwrap();
                (200, wrapped(&format!("from-{from}"), ends))
            }
            TOKEN_PATH => (200, "session".to_owned()),
            ROLE_PATH => (200, key("ecs", ends).to_string()),
            _ => (404, String::new()),
        }
    });
    stage
        .run(answers, async {
            for (profile, expected) in expected {
                stage.write(".aliyun/config.json", &cli(&profile));
                let settings = ChainSettings { metadata_disabled: !profile.contains("Ecs"), ..stage.settings() };
                assert_eq!(shown(&stage.keys(settings)).await, expected, "{profile}");
            }
            stage.write(".aliyun/config.json", &cli(r#""mode":"CloudSSO""#));
            let named = ChainSettings { profile: Some("base".to_owned()), ..stage.settings() };
            assert_eq!(shown(&stage.keys(named.clone())).await, "base+token");
            stage.write(".aliyun/config.json", "CANARY");
            assert_eq!(shown(&stage.keys(named)).await, "credentials_cli_profile");
        })
        .await;
}

#[tokio::test]
async fn every_type_of_an_ini_section_gives_its_key_or_is_refused() {
    let stage = Stage::new().await;
    stage.write("token", "t");
    let file = stage.home.path().join("token").display().to_string();
    stage.write(
        "keys",
        &format!(
            "; comment\n[key]\nType = access_key\nACCESS_KEY_ID: ak\naccess_key_secret = CANARY # not this\n\
             [role]\ntype=ram_role_arn\naccess_key_id=ak\naccess_key_secret=CANARY\nrole_arn=r\n\
             [ecs]\ntype=ecs_ram_role\nrole_name=shop\n\
             [oidc]\ntype=oidc_role_arn\nrole_arn=r\noidc_provider_arn=p\noidc_token_file_path={file}\n\
             [pair]\ntype=rsa_key_pair\npublic_key_id=k\nprivate_key_file=CANARY\n\
             [half]\ntype=access_key\naccess_key_id=ak\n[untyped]\naccess_key_id=ak\naccess_key_secret=CANARY\n"
        ),
    );
    let clock = stage.clock.clone();
    let answers: Answers = Box::new(move |request| match &*request.path {
        "/" if request.query.contains("oidc") => (200, wrapped("oidc", hour(&clock))),
        "/" => (200, wrapped("role", hour(&clock))),
        ROLE_PATH => (200, key("ecs", hour(&clock)).to_string()),
        _ => (404, String::new()),
    });
    stage
        .run(answers, async {
            for (section, expected) in [
                ("key", "ak"),
                ("role", "role+token"),
                ("ecs", "ecs+token"),
                ("oidc", "oidc+token"),
                ("pair", "credentials_ini_file"),
                ("half", "credentials_ini_file"),
                ("untyped", "credentials_ini_file"),
                ("absent", "credentials_ini_file"),
            ] {
                let settings = ChainSettings {
                    credentials_file: Some(stage.home.path().join("keys")),
                    profile: Some(section.to_owned()),
                    metadata_disabled: section != "ecs",
                    ..stage.settings()
                };
                assert_eq!(shown(&stage.keys(settings)).await, expected, "{section}");
            }
        })
        .await;
}

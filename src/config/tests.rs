//! Tests of the whole: layers, problems, secrets. Those of single keys are with their sections.

use std::io::Write;

use proptest::prelude::*;
use secrecy::ExposeSecret;

use super::testing::{config, config_with, loaded_with, problems, problems_with, try_load};
use super::*;

/// The defaults with their examples: lines that begin with `#` and no blank.
fn example() -> String {
    let lines = DEFAULTS.lines().map(|line| match line.strip_prefix('#') {
        Some(rest) if !rest.starts_with(' ') => rest,
        _ => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// What the example leaves empty although it is needed.
const ZOLOZ_KEYS: [(&str, &str); 2] = [
    ("CHECKBACK_ACCOUNTS__ZOLOZ_SG__MERCHANT_PRIVATE_KEY", "AAAA"),
    ("CHECKBACK_ACCOUNTS__ZOLOZ_SG__ZOLOZ_PUBLIC_KEY", "AAAA"),
];

#[test]
fn the_defaults_are_sound() {
    let config = config("");
    assert!(config.accounts.is_empty() && config.webhooks.is_empty() && config.auth.keys.is_empty());
    assert_eq!(config.server.public_listen.to_string(), "0.0.0.0:8080");
    assert_eq!(config.server.internal_listen.to_string(), "127.0.0.1:8081");
    assert!(!config.server.open_metrics);
    assert_eq!(config.evidence.location, EvidenceLocation::Directory("./checkback-evidence".into()));
    assert_eq!(config.log.level, "info");
    assert!(load(None, &Environment::default()).is_ok());
}

#[test]
fn every_key_is_in_the_documented_defaults_and_no_other() {
    let parsed = layers::parse(&example(), &Origin::Default).unwrap();
    let mut documented = Vec::new();
    collect_names(&parsed, "", &mut documented);
    let mut documented: Vec<String> = documented
        .into_iter()
        .map(|name| {
            name.replace("accounts.alibaba-sg.", "accounts.<name>.").replace("accounts.zoloz-sg.", "accounts.<name>.")
        })
        .collect();
    documented.sort();
    documented.dedup();
    let mut known = schema::full_names();
    known.retain(|name| !name.ends_with("_file") || name == "evidence.identity_file");
    known.sort();
    assert_eq!(documented, known);
}

fn collect_names(table: &Table, prefix: &str, names: &mut Vec<String>) {
    for (key, value) in table {
        let name = format!("{prefix}{key}");
        match &value.kind {
            ValueKind::Table(inner) => collect_names(inner, &format!("{name}."), names),
            ValueKind::Array(items) if matches!(items.first().map(|item| &item.kind), Some(ValueKind::Table(_))) => {
                for (index, item) in items.iter().enumerate() {
                    if let ValueKind::Table(inner) = &item.kind {
                        collect_names(inner, &format!("{name}.{index}."), names);
                    }
                }
            }
            _ => names.push(name),
        }
    }
}

#[test]
fn the_examples_show_the_real_defaults() {
    let whole = loaded_with(&example(), &ZOLOZ_KEYS);
    let bare = "[accounts.alibaba-sg]\nkind = 'alibaba'\n[accounts.zoloz-sg]\nkind = 'zoloz'\n\
                endpoint = 'https://sg-production-api.zoloz.com'\nclient_id = '2089012345678900'\n";
    let bare = loaded_with(bare, &ZOLOZ_KEYS);
    let values = |loaded: &Loaded| -> BTreeMap<String, String> {
        let lines = describe(loaded).into_iter().filter(|line| !line.key.contains(".0."));
        lines.map(|line| (line.key, line.value)).collect()
    };
    assert_eq!(values(&whole), values(&bare));
}

#[test]
fn every_key_is_described_with_its_origin() {
    let loaded = loaded_with(&example(), &ZOLOZ_KEYS);
    let described: Vec<String> = describe(&loaded).into_iter().map(|line| line.key).collect();
    for name in schema::full_names().into_iter().filter(|name| !name.ends_with("_file")) {
        let aksk = ["accounts.<name>.access_key", "accounts.<name>.secret_key"].contains(&name.as_str());
        let found =
            ["alibaba-sg", "zoloz-sg"].iter().any(|account| described.contains(&name.replace("<name>", account)));
        // These two are read only with auth = "aksk".
        assert!(found || aksk, "{name}");
    }
}

#[test]
fn each_layer_overrides_the_one_below() {
    let key = "server.public_listen";
    let variable = [("CHECKBACK_SERVER__PUBLIC_LISTEN", "127.0.0.3:3")];
    let file = "[server]\npublic_listen = '127.0.0.2:2'";
    let seen = |text: &str, environment: &[(&str, &str)]| {
        let loaded = loaded_with(text, environment);
        (loaded.config.server.public_listen.to_string(), loaded.origin(key).unwrap().to_string())
    };
    assert_eq!(seen("", &[]), ("0.0.0.0:8080".into(), "default".into()));
    assert_eq!(seen(file, &[]), ("127.0.0.2:2".into(), "file test.toml".into()));
    let name = "environment variable CHECKBACK_SERVER__PUBLIC_LISTEN";
    assert_eq!(seen(file, &variable), ("127.0.0.3:3".into(), name.into()));
    // The neighbours of an overridden key stay.
    assert_eq!(config(file).server.internal_listen.to_string(), "127.0.0.1:8081");
}

#[test]
fn a_file_is_read_and_a_missing_one_is_named() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"[log]\nformat = 'json'").unwrap();
    let loaded = load(Some(file.path()), &Environment::default()).unwrap();
    assert_eq!(loaded.config.log.format, LogFormat::Json);
    assert_eq!(loaded.origin("log.format"), Some(&Origin::File(file.path().display().to_string())));
    let found = load(Some(Path::new("/does/not/exist.toml")), &Environment::default()).unwrap_err().to_string();
    assert!(found.contains("file /does/not/exist.toml: cannot be read"), "{found}");
}

#[test]
fn all_problems_are_told_at_once_with_key_and_source() {
    let text = "[server]\npublic_lisen = 'x'\n[database]\nmax_connections = 1\n[accounts.alibaba-sg]\nkind = 'alibaba'\n\
                [[webhooks]]\nname = 'app'\n[log]\nformat = 5\n[sever]\nx = 1";
    let environment = [("CHECKBACK_ACCOUNTS__ALIBABA_SG__QPS", "many"), ("CHECKBACK_SERVER__PUBLIC_URI", "x")];
    let found = problems_with(text, &environment);
    assert!(
        found.starts_with("the configuration has 8 problems:\n  1. CHECKBACK_SERVER__PUBLIC_URI: is no setting"),
        "{found}"
    );
    for expected in [
        "did you mean `CHECKBACK_SERVER__PUBLIC_URL`?",
        "server.public_lisen (file test.toml): is no known key; did you mean `public_listen`?",
        "sever (file test.toml): is no known key; did you mean `server`?",
        "database.max_connections (file test.toml): must be a whole number from 2 to 1000",
        "accounts.alibaba-sg.qps (environment variable CHECKBACK_ACCOUNTS__ALIBABA_SG__QPS): must be a whole number",
        "webhooks.0.url: must be an absolute URL",
        "webhooks.0.secrets: is empty",
        "log.format (file test.toml): must be a text in quotes, not a number",
    ] {
        assert!(found.contains(expected), "{expected}\n{found}");
    }
}

#[test]
fn a_text_that_is_no_toml_is_refused_without_quoting_it() {
    let found = problems("[database]\nurl = 'postgres://planted");
    assert!(found.contains("file test.toml: is not valid TOML at line 2, column "), "{found}");
    assert!(!found.contains("planted"), "{found}");
    let found = problems("a = 99999999999999999999999999");
    assert!(found.contains("is not valid TOML"), "{found}");
}

#[test]
fn unknown_keys_are_refused_and_never_quoted() {
    let found = problems("planted_key = 'planted-value'\n[evidence]\ndata_dir = 'x'\n[[auth.keys]]\nnmae = 'x'");
    assert!(found.contains("planted_key (file test.toml): is no known key"), "{found}");
    assert!(found.contains("evidence.data_dir (file test.toml): is no known key; did you mean `database.data_dir`?"));
    assert!(found.contains("auth.keys.0.nmae (file test.toml): is no known key; did you mean `name`?"), "{found}");
    assert!(!found.contains("planted-value"), "{found}");
}

#[test]
fn keys_that_look_like_paths_are_only_unknown_keys() {
    let found = problems("\"webhooks[9999999999].url\" = 'x'\n\"server.public_listen\" = 'x'\n\"a\\u001bb\" = 1");
    assert!(found.contains("webhooks[9999999999].url (file test.toml): is no known key"), "{found}");
    assert!(found.contains("server.public_listen (file test.toml): is no known key"), "{found}");
    assert!(!found.contains('\u{1b}'), "{found}");
}

#[test]
fn sections_of_the_wrong_form_are_refused() {
    let found = problems("server = 1\nwebhooks = 2\nauth = []");
    for expected in [
        "server (file test.toml): must be a section, written [server]",
        "webhooks (file test.toml): must be a list of sections, each written [[webhooks]]",
        "auth (file test.toml): must be a section",
    ] {
        assert!(found.contains(expected), "{expected}\n{found}");
    }
    assert!(problems("webhooks = [1]").contains("webhooks.0 (file test.toml): must be a section"));
    assert!(problems("[auth]\nkeys = 'x'").contains("auth.keys (file test.toml): must be a list of sections"));
    assert!(problems("[server.public_listen]").contains("server.public_listen"));
}

#[test]
fn variables_that_are_no_settings_are_ignored_or_refused() {
    config_with(
        "",
        &[
            ("CHECKBACK_URL", "http://127.0.0.1:8081"),
            ("CHECKBACK_KEY", "x"),
            ("CHECKBACK_POSTGRES_BIN", "x"),
            ("CHECKBACK_EXTRA_VECTORS", "x"),
            ("CHECKBACK_BIN", "x"),
            ("CHECKBACKUP", "x"),
            ("PATH", "x"),
            // What Kubernetes says about a service called checkback, or checkback-internal.
            ("CHECKBACK_SERVICE_HOST", "10.0.0.1"),
            ("CHECKBACK_SERVICE_PORT", "8080"),
            ("CHECKBACK_SERVICE_PORT_HTTP", "8080"),
            ("CHECKBACK_PORT", "tcp://10.0.0.1:8080"),
            ("CHECKBACK_INTERNAL_PORT_8081_TCP_ADDR", "10.0.0.1"),
            ("CHECKBACK_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
        ],
    );
    for wrong in [
        "CHECKBACK_URLS",
        "CHECKBACK_",
        "CHECKBACK__",
        "CHECKBACK_SERVER",
        "CHECKBACK_SERVER__",
        "CHECKBACK_SERVER__PUBLIC_LISTEN_FILE",
        "CHECKBACK_SERVER__PUBLIC_LISTEN__0",
        "CHECKBACK_SERVER_PUBLIC_LISTEN",
        "CHECKBACK_PORT",
        "CHECKBACK_ACCOUNTS__X",
        "CHECKBACK_ACCOUNTS____QPS",
        "CHECKBACK_WEBHOOKS",
        "CHECKBACK_AUTH__KEYS",
        "CHECKBACK_AUTH__KEYS__0",
        "CHECKBACK_server__public_listen",
    ] {
        let found = problems_with("", &[(wrong, "planted")]);
        assert!(found.contains(&format!("{wrong}: is no setting")), "{wrong}: {found}");
        assert!(!found.contains("planted"), "{found}");
    }
}

#[test]
fn variables_that_are_no_text_are_refused() {
    use std::os::unix::ffi::OsStringExt;
    let bytes = std::ffi::OsString::from_vec(vec![0xff]);
    for name in ["CHECKBACK_SERVER__PUBLIC_URL", "DATABASE_URL"] {
        let environment = Environment::from_pairs([(name, bytes.clone())]);
        let found = load(None, &environment).unwrap_err().to_string();
        assert!(found.contains(&format!("{name}: is not UTF-8 text")), "{found}");
    }
}

fn secret_file(text: &str) -> (tempfile::NamedTempFile, String) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    let path = file.path().to_str().unwrap().to_owned();
    (file, path)
}

const ACCOUNT: &str = "[accounts.a]\nkind = 'alibaba'\n";

fn token(loaded: &Loaded) -> Option<&str> {
    loaded.config.accounts["a"].callback_token.as_ref().map(ExposeSecret::expose_secret)
}

#[test]
fn a_secret_is_read_from_the_file_that_is_named() {
    let (_file, path) = secret_file("planted-token-from-file\r\n\n");
    let text = format!("{ACCOUNT}callback_token_file = '{path}'");
    for loaded in
        [loaded_with(&text, &[]), loaded_with(ACCOUNT, &[("CHECKBACK_ACCOUNTS__A__CALLBACK_TOKEN_FILE", &path)])]
    {
        assert_eq!(token(&loaded), Some("planted-token-from-file"));
        assert_eq!(loaded.secret_files, [SecretFile { key: "accounts.a.callback_token".into(), path: path.clone() }]);
        let line = describe(&loaded).into_iter().find(|line| line.key == "accounts.a.callback_token").unwrap();
        assert_eq!(line.value, "(secret, set)");
        assert!(line.origin.to_string().starts_with(&format!("file {path}, named by ")));
    }
}

#[test]
fn a_secret_file_that_cannot_be_used_is_a_problem_of_its_key() {
    let (_empty, empty) = secret_file("\n");
    let (_long, long) = secret_file(&"x".repeat(70_000));
    let folder = tempfile::tempdir().unwrap();
    for (path, expected) in [
        ("/does/not/exist", "cannot be read"),
        (&empty, "is empty"),
        (&long, "is longer than 64 KiB"),
        (folder.path().to_str().unwrap(), "is no file"),
    ] {
        let found = problems(&format!("{ACCOUNT}callback_token_file = '{path}'"));
        let start = format!("accounts.a.callback_token_file (file test.toml): names {path}, which {expected}");
        assert!(found.contains(&start), "{found}");
    }
    let (_short, short) = secret_file("planted");
    let found = problems(&format!("{ACCOUNT}callback_token_file = '{short}'"));
    assert!(found.contains("accounts.a.callback_token (file test.toml): must have at least 16"), "{found}");
    assert!(!found.contains("planted"), "{found}");
}

#[test]
fn a_secret_and_its_file_in_one_layer_are_one_too_many() {
    let (_file, path) = secret_file("planted-token-from-file");
    let both = format!("{ACCOUNT}callback_token = 'planted-token-directly'\ncallback_token_file = '{path}'");
    let found = problems(&both);
    assert!(
        found.contains("accounts.a.callback_token (file test.toml): is given, and accounts.a.callback_token_file too")
    );
    let environment = [
        ("CHECKBACK_ACCOUNTS__A__CALLBACK_TOKEN", "planted-token-directly"),
        ("CHECKBACK_ACCOUNTS__A__CALLBACK_TOKEN_FILE", &path),
    ];
    let found = problems_with(ACCOUNT, &environment);
    assert!(
        found.contains(
            "CHECKBACK_ACCOUNTS__A__CALLBACK_TOKEN_FILE: is set, and CHECKBACK_ACCOUNTS__A__CALLBACK_TOKEN too"
        )
    );
    assert!(!found.contains("planted"), "{found}");
}

#[test]
fn of_a_secret_and_its_file_the_higher_layer_stands() {
    let (_file, path) = secret_file("planted-token-from-file");
    let direct = ("CHECKBACK_ACCOUNTS__A__CALLBACK_TOKEN", "planted-token-directly");
    let loaded = loaded_with(&format!("{ACCOUNT}callback_token_file = '{path}'"), &[direct]);
    assert_eq!(token(&loaded), Some("planted-token-directly"));
    assert!(loaded.secret_files.is_empty());
    let file = ("CHECKBACK_ACCOUNTS__A__CALLBACK_TOKEN_FILE", path.as_str());
    let text = format!("{ACCOUNT}callback_token = 'planted-token-of-the-file'");
    assert_eq!(token(&loaded_with(&text, &[file])), Some("planted-token-from-file"));
}

#[test]
fn an_empty_form_of_a_secret_leaves_the_other_form_alone() {
    let (_file, path) = secret_file("planted-token-from-file");
    let text = format!("{ACCOUNT}callback_token = ''\ncallback_token_file = '{path}'");
    assert_eq!(token(&loaded_with(&text, &[])), Some("planted-token-from-file"));
    let text = format!("{ACCOUNT}callback_token = 'planted-token-directly'\ncallback_token_file = ''");
    assert_eq!(token(&loaded_with(&text, &[])), Some("planted-token-directly"));
    let empty_file = ("CHECKBACK_ACCOUNTS__A__CALLBACK_TOKEN_FILE", "");
    assert_eq!(token(&loaded_with(&text, &[empty_file])), Some("planted-token-directly"));
    let empty = ("CHECKBACK_ACCOUNTS__A__CALLBACK_TOKEN", "");
    let file = ("CHECKBACK_ACCOUNTS__A__CALLBACK_TOKEN_FILE", path.as_str());
    assert_eq!(token(&loaded_with(ACCOUNT, &[empty, file])), Some("planted-token-from-file"));
    // A secret of a lower layer is taken away by an empty one.
    assert_eq!(token(&loaded_with(&text, &[empty])), None);
}

#[test]
fn nothing_secret_is_described_or_debugged() {
    let text = "[database]\nurl = 'postgres://u:planted@db/x'\n[accounts.a]\nkind = 'alibaba'\n\
                access_key_id = 'planted-id'\naccess_key_secret = 'planted-secret'\ncallback_token = 'planted-token-1234'\n\
                [accounts.z]\nkind = 'zoloz'\nauth = 'aksk'\nendpoint = 'https://a.example'\nclient_id = '1'\n\
                access_key = 'planted-ak'\nsecret_key = 'planted-sk'\n\
                [accounts.r]\nkind = 'zoloz'\nendpoint = 'https://a.example'\nclient_id = '1'\n\
                merchant_private_key = '-----BEGIN planted'\nzoloz_public_key = '-----BEGIN planted'\n\
                [[webhooks]]\nname = 'w'\nurl = 'https://planted:planted@a.example/x?planted=planted#planted'\n\
                secrets = ['whsec_plantedplantedplantedplantedplan']";
    let loaded = loaded_with(text, &[]);
    let lines = describe(&loaded);
    let shown = format!("{loaded:?}\n{lines:?}\n{}", serde_json::to_string(&lines).unwrap());
    assert!(!shown.contains("planted"), "{shown}");
    let value = |key: &str| lines.iter().find(|line| line.key == key).map(|line| line.value.as_str());
    assert_eq!(value("database.url"), Some("(secret, set)"));
    assert_eq!(value("accounts.a.access_key_secret"), Some("(secret, set)"));
    assert_eq!(value("webhooks.0.secrets"), Some("(secret, set)"));
    assert_eq!(value("accounts.z.callback_token"), Some("(empty)"));
    assert_eq!(value("server.public_url"), Some("(empty)"));
}

#[test]
fn a_line_is_written_as_json_with_its_origin() {
    let lines = describe(&loaded_with("[log]\nformat = 'json'", &[]));
    let line = lines.iter().find(|line| line.key == "log.format").unwrap();
    let expected = serde_json::json!({"key": "log.format", "value": "json", "origin": "file test.toml"});
    assert_eq!(serde_json::to_value(line).unwrap(), expected);
}

/// A value that TOML can hold, of any kind.
fn any_value() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<i64>().prop_map(|number| number.to_string()),
        any::<bool>().prop_map(|flag| flag.to_string()),
        Just("1.5".to_owned()),
        Just("nan".to_owned()),
        Just("1979-05-27T07:32:00Z".to_owned()),
        Just("[]".to_owned()),
        Just("[[], 1, 'x', {}]".to_owned()),
        Just("{ 0 = 'x' }".to_owned()),
        "[a-z0-9:/.@?#_*-]{0,40}".prop_map(|text| format!("'{text}'")),
        "\\PC{0,20}".prop_map(|text| format!("{text:?}")),
    ]
}

fn any_key() -> impl Strategy<Value = String> {
    let names = schema::full_names().into_iter().map(|name| name.replace("<name>", "a-b").replace(".0.", "."));
    prop_oneof![
        4 => prop::sample::select(names.collect::<Vec<_>>()),
        1 => "[a-z_]{1,12}(\\.[a-z_]{1,12}){0,3}",
    ]
}

fn any_variable() -> impl Strategy<Value = String> {
    let names = schema::full_names().into_iter().flat_map(|name| {
        let name = format!("CHECKBACK_{}", name.replace('.', "__").to_uppercase());
        [name.replace("<NAME>", "A_B"), name.replace("<NAME>", "A__B"), format!("{name}__0"), format!("{name}__99")]
    });
    prop_oneof![
        4 => prop::sample::select(names.collect::<Vec<_>>()),
        1 => "CHECKBACK_[A-Z0-9_]{0,40}",
        1 => "(CHECKBACK_)?\\PC{0,20}",
    ]
}

proptest! {
    #[test]
    fn no_text_and_no_environment_panics(
        text in "\\PC{0,200}",
        variables in prop::collection::vec((any_variable(), "\\PC{0,30}"), 0..6),
    ) {
        let variables: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        if let Err(problems) = try_load(&text, &variables) {
            prop_assert!(problems.iter().count() > 0);
        }
    }

    #[test]
    fn no_value_of_any_kind_panics(
        settings in prop::collection::vec((any_key(), any_value()), 0..12),
        variables in prop::collection::vec((any_variable(), "[a-z0-9:/.,-]{0,30}"), 0..6),
    ) {
        let text: Vec<String> = settings.iter().map(|(key, value)| format!("{key} = {value}")).collect();
        let text = text.join("\n");
        let variables: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        if let Err(problems) = try_load(&text, &variables) {
            prop_assert!(problems.iter().all(|problem| !problem.key.is_empty() && !problem.message.is_empty()));
        }
    }

    #[test]
    fn every_unknown_key_is_a_problem(key in "[a-z]{1,8}_of_nothing", section in prop::sample::select(vec![
        "server", "database", "auth", "accounts.a", "evidence", "log", "nowhere",
    ])) {
        let kind = if section == "accounts.a" { "kind = 'alibaba'\n" } else { "" };
        let found = problems(&format!("[{section}]\n{kind}{key} = 1"));
        let named = if section == "nowhere" { "nowhere (".to_owned() } else { format!("{section}.{key} (") };
        prop_assert!(found.contains(&named), "{}", found);
    }
}

#[test]
fn files_of_secrets_are_read_again_each_by_itself_and_nothing_else_is() {
    let (file, path) = secret_file("the-first-token-of-a");
    let (other, other_path) = secret_file("the-first-token-of-b");
    let text = format!(
        "{ACCOUNT}callback_token_file = '{path}'\n[accounts.b]\nkind = 'alibaba'\ncallback_token_file = '{other_path}'"
    );
    let environment = Environment::default();
    let mut loaded = load_text("test.toml", &text, &environment).unwrap();
    let token = |loaded: &Loaded, name: &str| {
        loaded.config.accounts[name].callback_token.as_ref().unwrap().expose_secret().to_owned()
    };
    let unchanged = loaded.reread_secrets(&environment);
    assert!(unchanged.changed.is_empty() && unchanged.problems.is_empty());
    std::fs::write(file.path(), "planted").unwrap();
    std::fs::write(other.path(), "the-second-token-of-b\n").unwrap();
    let reread = loaded.reread_secrets(&environment);
    assert_eq!(reread.changed, ["accounts.b.callback_token"]);
    assert!(reread.problems.len() == 1 && reread.problems[0].contains("at least 16 characters"), "{reread:?}");
    assert!(!format!("{reread:?} {loaded:?}").contains("planted"));
    assert_eq!(
        (token(&loaded, "a"), token(&loaded, "b")),
        ("the-first-token-of-a".into(), "the-second-token-of-b".into())
    );
    std::fs::remove_file(file.path()).unwrap();
    let reread = loaded.reread_secrets(&environment);
    assert!(reread.changed.is_empty() && reread.problems[0].starts_with(&path), "{reread:?}");
    std::fs::write(file.path(), "the-third-token-of-a").unwrap();
    assert_eq!(loaded.reread_secrets(&environment).changed, ["accounts.a.callback_token"]);
    assert_eq!(token(&loaded, "a"), "the-third-token-of-a");
}

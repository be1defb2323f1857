use std::io::Write;
use std::time::Duration;

use secrecy::ExposeSecret;

use super::*;
use crate::config::testing::{config, config_with, loaded_with, problems, problems_with};

const ALIBABA: &str = "[accounts.alibaba-sg]\nkind = 'alibaba'\n";
const ZOLOZ: &str = "[accounts.zoloz-sg]\nkind = 'zoloz'\nendpoint = 'https://sg-production-api.zoloz.com'\nclient_id = '2089012345678900'\n";
const AKSK: &str = "auth = 'aksk'\naccess_key = 'planted-access'\nsecret_key = 'planted-secret'\n";

fn alibaba(rest: &str) -> String {
    format!("{ALIBABA}{rest}")
}

fn zoloz(rest: &str) -> String {
    format!("{ZOLOZ}{rest}")
}

fn alibaba_of(account: &Account) -> &AlibabaAccount {
    match &account.kind {
        AccountKind::Alibaba(alibaba) => alibaba,
        AccountKind::Zoloz(_) => panic!("a zoloz account"),
    }
}

#[test]
fn an_alibaba_account_needs_nothing_but_its_kind() {
    let accounts = config(ALIBABA).accounts;
    let account = &accounts["alibaba-sg"];
    assert_eq!(account.kind.as_str(), "alibaba");
    assert_eq!((account.qps, account.allow_http), (10, false));
    assert_eq!(account.result_retention, Duration::from_hours(24 * 30));
    assert_eq!(account.video_retention, Duration::from_mins(30));
    assert_eq!(account.give_up_after, Duration::from_hours(24));
    assert!(account.callback_token.is_none());
    let alibaba = alibaba_of(account);
    assert_eq!(alibaba.region, "ap-southeast-1");
    assert_eq!((alibaba.network, alibaba.signature), (Network::Public, Signature::Acs3));
    assert!(alibaba.endpoint.is_none() && alibaba.access_key.is_none() && account.return_images);
    assert_eq!(alibaba.download_hosts, ["*.aliyuncs.com"]);
}

#[test]
fn the_region_decides_the_rate_unless_one_is_set() {
    assert_eq!(config(&alibaba("region = 'ap-southeast-5'")).accounts["alibaba-sg"].qps, 3);
    assert_eq!(config(&alibaba("region = 'ap-southeast-5'\nqps = 50")).accounts["alibaba-sg"].qps, 50);
    let other = "region = 'ap-southeast-5'\nendpoint = 'https://proxy.example'";
    assert_eq!(config(&alibaba(other)).accounts["alibaba-sg"].qps, 10);
}

#[test]
fn an_unknown_region_is_refused_unless_an_endpoint_is_set() {
    let found = problems(&alibaba("region = 'ap-southeast-2'"));
    assert!(found.contains("accounts.alibaba-sg.region (file test.toml): must be one of"), "{found}");
    assert!(found.contains("did you mean \"ap-southeast-"), "{found}");
    config(&alibaba("region = 'eu-central-1'\nendpoint = 'http://127.0.0.1:9090'"));
}

#[test]
fn plain_http_beyond_loopback_needs_allow_http() {
    let endpoint = "endpoint = 'http://simulator:9090'\n";
    let found = problems(&alibaba(endpoint));
    assert!(found.contains("accounts.alibaba-sg.endpoint (file test.toml): must be https"), "{found}");
    config(&alibaba(&format!("{endpoint}allow_http = true")));
}

#[test]
fn half_an_access_key_is_a_problem() {
    let found = problems(&alibaba("access_key_id = 'planted'"));
    assert!(found.contains("accounts.alibaba-sg.access_key_secret: is empty while the other half"), "{found}");
    let found = problems_with(ALIBABA, &[("CHECKBACK_ACCOUNTS__ALIBABA_SG__ACCESS_KEY_SECRET", "planted")]);
    assert!(found.contains("accounts.alibaba-sg.access_key_id: is empty while the other half"), "{found}");
    assert!(!found.contains("planted"), "{found}");
}

#[test]
fn values_out_of_range_are_refused() {
    let found = problems(&alibaba(
        "qps = 0\nnetwork = 'vcp'\nsignature = 'v4'\nresult_retention = '0s'\nvideo_retention = '-1m'\n\
         give_up_after = '99999d'\ncallback_token = 'short-planted'\nreturn_images = 'yes'\ndownload_hosts = ['*.com']",
    ));
    for expected in [
        "qps (file test.toml): must be a whole number from 1 to 1000000",
        "network (file test.toml): must be one of \"public\", \"vpc\"; did you mean \"vpc\"?",
        "signature (file test.toml): must be one of \"acs3\", \"hmac-sha1\"",
        "result_retention (file test.toml): must be longer than nothing",
        "video_retention (file test.toml): must be a duration",
        "give_up_after (file test.toml): must be at most 3650d",
        "callback_token (file test.toml): must have at least 16 characters",
        "return_images (file test.toml): must be true or false",
        "download_hosts (file test.toml): item 0 must be a host name",
    ] {
        assert!(found.contains(&format!("accounts.alibaba-sg.{expected}")), "{expected}\n{found}");
    }
    assert!(!found.contains("planted"), "{found}");
    assert!(problems(&alibaba("qps = 1000001")).contains("must be a whole number"));
}

#[test]
fn an_account_needs_a_known_kind() {
    assert!(problems("[accounts.a]\nqps = 1").contains("accounts.a.kind: is missing; set it to"));
    assert!(problems("[accounts.a]\nkind = 'alibab'").contains("did you mean \"alibaba\"?"));
    assert!(problems("[accounts.a]").contains("accounts.a.kind: is missing"));
    assert!(problems("[accounts]\na = 1").contains("accounts.a (file test.toml): must be a section"));
    assert!(problems("accounts = 1").contains("accounts (file test.toml): must hold sections"));
}

#[test]
fn names_are_small_letters_digits_and_dashes() {
    for wrong in ["A", "-a", "_a", "\"\"", "\"a b\"", "\"a.b\"", "\"é\"", &"a".repeat(64)] {
        let found = problems(&format!("[accounts.{wrong}]\nkind = 'alibaba'"));
        assert!(found.contains("is no name for an account"), "{wrong}: {found}");
    }
    for good in ["a", "0", "a-b_c", "a--b", &"a".repeat(63)] {
        config(&format!("[accounts.{good}]\nkind = 'alibaba'"));
    }
}

#[test]
fn names_that_collide_in_the_environment_are_refused() {
    let both = "[accounts.a-b]\nkind = 'alibaba'\n[accounts.a_b]\nkind = 'alibaba'\n";
    let found = problems(both);
    assert!(found.contains("accounts.a_b (file test.toml): is the same name as a-b"), "{found}");
    let found = problems_with(both, &[("CHECKBACK_ACCOUNTS__A_B__QPS", "5")]);
    assert!(found.contains("CHECKBACK_ACCOUNTS__A_B__QPS: could mean the accounts a-b and a_b"), "{found}");
}

#[test]
fn the_environment_changes_an_account_of_the_file() {
    for name in ["alibaba-sg", "alibaba_sg"] {
        let text = format!("[accounts.{name}]\nkind = 'alibaba'\nqps = 1");
        let loaded = loaded_with(&text, &[("CHECKBACK_ACCOUNTS__ALIBABA_SG__QPS", "7")]);
        assert_eq!(loaded.config.accounts.len(), 1);
        assert_eq!(loaded.config.accounts[name].qps, 7);
        let origin = loaded.origin(&format!("accounts.{name}.qps")).unwrap().to_string();
        assert_eq!(origin, "environment variable CHECKBACK_ACCOUNTS__ALIBABA_SG__QPS");
    }
}

#[test]
fn a_name_with_underscores_in_a_row_can_be_changed_too() {
    let text = "[accounts.a--b]\nkind = 'alibaba'\n[accounts.c_]\nkind = 'alibaba'";
    let accounts = config_with(
        text,
        &[
            ("CHECKBACK_ACCOUNTS__A__B__QPS", "7"),
            ("CHECKBACK_ACCOUNTS__A__B__DOWNLOAD_HOSTS__0", "a.example"),
            ("CHECKBACK_ACCOUNTS__C___QPS", "8"),
        ],
    )
    .accounts;
    assert_eq!((accounts["a--b"].qps, accounts["c_"].qps), (7, 8));
    assert_eq!(alibaba_of(&accounts["a--b"]).download_hosts, ["a.example"]);
}

#[test]
fn the_environment_can_make_an_account() {
    let accounts = config_with(
        "",
        &[
            ("CHECKBACK_ACCOUNTS__ALIBABA_HK__KIND", "alibaba"),
            ("CHECKBACK_ACCOUNTS__ALIBABA_HK__REGION", "cn-hongkong"),
            ("CHECKBACK_ACCOUNTS__ALIBABA_HK__RETURN_IMAGES", "false"),
            ("CHECKBACK_ACCOUNTS__ALIBABA_HK__DOWNLOAD_HOSTS", "*.a.example, b.example"),
        ],
    )
    .accounts;
    assert!(!accounts["alibaba-hk"].return_images);
    let account = alibaba_of(&accounts["alibaba-hk"]);
    assert_eq!(account.region, "cn-hongkong");
    assert_eq!(account.download_hosts, ["*.a.example", "b.example"]);
}

#[test]
fn a_typing_error_in_a_variable_points_to_the_account_that_was_meant() {
    let found = problems_with(ALIBABA, &[("CHECKBACK_ACCOUNTS__ALIBABA_SGG__QPS", "7")]);
    assert!(found.contains("accounts.alibaba-sgg.kind: is missing; no file has this account"), "{found}");
    assert!(found.contains("did you mean `alibaba-sg`?"), "{found}");
}

#[test]
fn keys_of_the_other_kind_are_refused() {
    let found = problems(&alibaba("encrypt = true\nclient_id = '1'"));
    assert!(found.contains("accounts.alibaba-sg.encrypt (file test.toml): is a key of accounts of the kind zoloz"));
    assert!(found.contains("accounts.alibaba-sg.client_id"), "{found}");
    let found = problems(&zoloz(&format!("{AKSK}video_retention = '1m'")));
    assert!(
        found.contains("accounts.zoloz-sg.video_retention (file test.toml): is a key of accounts of the kind alibaba")
    );
}

#[test]
fn every_key_belongs_to_a_kind_or_to_both() {
    for field in FIELDS {
        let homes = [&COMMON[..], &alibaba::KEYS[..], &zoloz::KEYS[..]];
        let count = homes.iter().filter(|keys| keys.contains(&field.name)).count();
        assert_eq!(count, 1, "{}", field.name);
    }
    assert_eq!(FIELDS.len(), COMMON.len() + alibaba::KEYS.len() + zoloz::KEYS.len());
}

#[test]
fn zoloz_takes_a_pair_of_keys_or_access_and_secret_key() {
    let config = config(&zoloz(AKSK));
    let AccountKind::Zoloz(account) = &config.accounts["zoloz-sg"].kind else { panic!("another kind") };
    assert_eq!(account.endpoint.as_str(), "https://sg-production-api.zoloz.com/");
    assert_eq!(account.client_id, "2089012345678900");
    let ZolozAuth::AkSk { secret_key, .. } = &account.auth else { panic!("another mode") };
    assert_eq!(secret_key.expose_secret(), "planted-secret");
    assert!(!format!("{config:?}").contains("planted"));

    let mut pem = tempfile::NamedTempFile::new().unwrap();
    write!(pem, "-----BEGIN PRIVATE KEY-----\nplanted\n-----END PRIVATE KEY-----\n").unwrap();
    let path = pem.path().to_str().unwrap();
    let rsa = format!("merchant_private_key_file = '{path}'\nzoloz_public_key = 'AAAA'\nencrypt = false");
    let config = super::super::testing::config(&zoloz(&rsa));
    let AccountKind::Zoloz(account) = &config.accounts["zoloz-sg"].kind else { panic!("another kind") };
    let ZolozAuth::Rsa { merchant_private_key, encrypt, .. } = &account.auth else { panic!("another mode") };
    assert!(merchant_private_key.expose_secret().ends_with("-----END PRIVATE KEY-----"));
    assert!(!encrypt);
}

#[test]
fn zoloz_without_its_keys_is_refused() {
    let found = problems("[accounts.z]\nkind = 'zoloz'");
    for key in [
        "endpoint: is missing",
        "client_id: must be",
        "merchant_private_key: is missing",
        "zoloz_public_key: is missing",
    ] {
        assert!(found.contains(&format!("accounts.z.{key}")), "{key}\n{found}");
    }
    let found = problems(&zoloz("auth = 'aksk'\nencrypt = true\nmerchant_private_key = 'AAAA'"));
    for key in [
        "access_key: is missing",
        "secret_key: is missing",
        "encrypt (file test.toml): is true, but",
        "merchant_private_key (file test.toml): is set, but",
    ] {
        assert!(found.contains(&format!("accounts.zoloz-sg.{key}")), "{key}\n{found}");
    }
    let found = problems(&zoloz("merchant_private_key = 'planted!'\nzoloz_public_key = 'AAAA'"));
    assert!(found.contains("merchant_private_key (file test.toml): must be a key in PEM or Base64 DER"), "{found}");
    assert!(!found.contains("planted"), "{found}");
}

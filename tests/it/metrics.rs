//! `/metrics` as Prometheus reads it, and what its gauges say of the whole.
#![expect(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

use std::collections::{BTreeMap, BTreeSet};

use checkback::domain::{FinalStatus, VerificationId};
use checkback::service::counts::FinalRound;
use checkback::simulator::{Complete, CreateTransaction};
use checkback::store::OpenCount;
use serde_json::json;
use uuid::Uuid;

use super::support::app::{ACCOUNT, Setup, TestApp};
use super::support::planted::{held_job, id_at, registered, verdict};

/// Tests of one process share its metrics, so this account is of one test alone.
const COUNTED: &str = "counted-sg";

/// What each family of the contract is labelled with.
const PROMISED: [(&str, &[&str]); 11] = [
    ("checkback_callbacks_total", &["account", "result"]),
    ("checkback_checks_total", &["account", "outcome"]),
    ("checkback_check_duration_seconds", &["account"]),
    ("checkback_verifications", &["account", "status"]),
    ("checkback_verdict_delay_seconds", &["account"]),
    ("checkback_deadline_margin_seconds", &["kind"]),
    ("checkback_oldest_due_seconds", &["account"]),
    ("checkback_account_failing", &["account"]),
    ("checkback_evidence_total", &["kind", "state"]),
    ("checkback_expired_total", &["account"]),
    ("checkback_http_requests_total", &["listener", "route", "status"]),
];

/// The families of an exposition: kind, and the labels of the samples.
fn families(content: &str) -> BTreeMap<String, (String, BTreeSet<String>)> {
    let (mut kinds, mut helped) = (BTreeMap::new(), BTreeSet::new());
    let mut families: BTreeMap<String, (String, BTreeSet<String>)> = BTreeMap::new();
    for line in content.lines().filter(|line| !line.is_empty()) {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            assert!(help.len() > 5, "{line}");
            helped.insert(name.to_owned());
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert!(helped.contains(name), "{name} has no HELP before its TYPE");
            kinds.insert(name.to_owned(), kind.to_owned());
        } else {
            let (series, value) = line.rsplit_once(' ').unwrap();
            value.parse::<f64>().unwrap_or_else(|_| panic!("{line}"));
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            let family = ["_bucket", "_sum", "_count"]
                .into_iter()
                .filter_map(|suffix| name.strip_suffix(suffix))
                .find(|family| kinds.get(*family).is_some_and(|kind| kind == "histogram"))
                .unwrap_or(name);
            let kind = kinds.get(family).unwrap_or_else(|| panic!("{family} has no TYPE"));
            assert_eq!(kind == "counter", family.ends_with("_total"), "{family} is a {kind}");
            let names = labels.trim_end_matches('}').split("\",").filter_map(|label| label.split_once('='));
            let labels = names.map(|(name, _)| name.to_owned()).filter(|name| name != "le");
            families.entry(family.to_owned()).or_insert((kind.clone(), BTreeSet::new())).1.extend(labels);
        }
    }
    families
}

async fn shown(test: &TestApp) -> String {
    test.get("/metrics").await.text().await.unwrap()
}

fn counted_account() -> Setup {
    let more = format!(
        "[accounts.{COUNTED}]\nkind = 'alibaba'\nendpoint = 'http://SIMULATOR'\naccess_key_id = 'sim-key-id'\n\
         access_key_secret = 'sim-key-secret'\nreturn_images = false\nqps = 100000"
    );
    Setup { more, ..Setup::default() }
}

#[tokio::test]
async fn every_sample_has_its_kind_and_its_words_and_the_promised_ones_are_there() {
    let test = TestApp::start().await;
    let (transaction, id) = test.begin(CreateTransaction::default(), json!({})).await;
    test.simulator.complete(&transaction, Complete { callbacks: Some(0), ..Complete::default() }).await.unwrap();
    test.callback(&transaction, None).await;
    test.final_verification(&id).await;
    let content = test
        .until("all promised ones are shown", async || {
            let content = shown(&test).await;
            let families = families(&content);
            PROMISED.iter().all(|(name, _)| families.contains_key(*name)).then_some(content)
        })
        .await;
    let families = families(&content);
    for (name, labels) in PROMISED {
        let expected: BTreeSet<String> = labels.iter().map(|label| (*label).to_owned()).collect();
        assert_eq!(families[name].1, expected, "{name}");
    }
    let document = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.md")).unwrap();
    for name in families.keys() {
        let known = name.starts_with("process_") || document.contains(&format!("\n| `{name}` |"));
        assert!(known, "{name} is not in docs/operations.md");
    }
    for name in ["process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds"] {
        assert!(families.contains_key(name), "{name}");
    }
    let build = format!("checkback_build_info{{version=\"{}\"}} 1\n", env!("CARGO_PKG_VERSION"));
    assert!(content.contains(&build) && content.contains("checkback_ready 1\n"), "{content}");
}

#[tokio::test]
async fn the_gauges_say_how_many_there_are_in_each_state_and_which_accounts_fail() {
    let test = TestApp::with(counted_account()).await;
    let content = shown(&test).await;
    // Also before the first one: an alert needs the rise from 0.
    assert!(content.contains(&format!("checkback_expired_total{{account=\"{COUNTED}\"}} 0\n")), "{content}");
    for _ in 0..2 {
        test.begin(CreateTransaction::default(), json!({ "account": COUNTED })).await;
    }
    let pool = test.database.pool().await;
    for n in 0..3 {
        let id = id_at(test.clock.now(), n);
        registered(&pool, id, test.clock.now(), false).await;
        verdict(&pool, id, test.clock.now(), "passed", "200").await;
    }
    sqlx::query("UPDATE verdicts SET account = $1").bind(COUNTED).execute(&pool).await.unwrap();
    sqlx::query(
        "UPDATE accounts SET failing_since = now(), failing_reason = 'bad_key', probe_at = now() + interval '1 h'",
    )
    .execute(&pool)
    .await
    .unwrap();
    let service = &test.app.as_ref().unwrap().service;
    let all = |waiting: u32, failing: u32| {
        [
            format!("checkback_verifications{{account=\"{COUNTED}\",status=\"waiting\"}} {waiting}\n"),
            format!("checkback_verifications{{account=\"{COUNTED}\",status=\"collecting\"}} 0\n"),
            format!("checkback_verifications{{account=\"{COUNTED}\",status=\"passed\"}} 3\n"),
            format!("checkback_verifications{{account=\"{COUNTED}\",status=\"failed\"}} 0\n"),
            format!("checkback_account_failing{{account=\"{COUNTED}\"}} {failing}\n"),
        ]
    };
    let look = async |wanted: [String; 5]| {
        // The service looks by itself too, and may just be showing what was before.
        test.until("the gauges are right", async || {
            service.look_at_whole().await.unwrap();
            let mut round = FinalRound::new(service);
            while service.count_finals(&mut round).await.unwrap() {}
            let content = shown(&test).await;
            wanted.iter().all(|line| content.contains(line)).then_some(())
        })
        .await;
    };
    look(all(2, 1)).await;
    // Whoever mended it: another replica, or a hand.
    sqlx::query("UPDATE accounts SET failing_since = NULL, failing_reason = NULL, probe_at = NULL")
        .execute(&pool)
        .await
        .unwrap();
    look(all(2, 0)).await;
}

#[tokio::test]
async fn finished_ones_are_counted_in_parts_and_open_ones_by_what_was_heard() {
    let test = TestApp::start().await;
    let (pool, now) = (test.database.pool().await, test.clock.now());
    for n in 0..5 {
        let id = id_at(now, n);
        registered(&pool, id, now, false).await;
        verdict(&pool, id, now, if n == 4 { "failed" } else { "passed" }, "200").await;
    }
    // One waits, one was heard of, and a recheck is no open verification.
    for (n, hinted_at, recheck) in [(10, None, false), (11, Some(now), false), (0, Some(now), true)] {
        held_job(&pool, id_at(now, n), hinted_at, recheck).await;
    }
    let store = &test.app.as_ref().unwrap().service.store;
    assert_eq!(
        store.count_open().await.unwrap(),
        [OpenCount { account: ACCOUNT.to_owned(), waiting: 1, collecting: 1 }]
    );
    let mut after = VerificationId(Uuid::nil());
    let mut counts = Vec::new();
    loop {
        let part = store.count_final_part(ACCOUNT, FinalStatus::Passed, after, 3).await.unwrap();
        counts.push(part.count);
        match part.next {
            Some(next) => after = next,
            None => break,
        }
    }
    assert_eq!(counts, [3, 1]);
    sqlx::query("UPDATE verdicts SET superseded_at = now() WHERE status = 'failed'").execute(&pool).await.unwrap();
    let failed = store.count_final_part(ACCOUNT, FinalStatus::Failed, VerificationId(Uuid::nil()), 3).await.unwrap();
    assert_eq!((failed.count, failed.next), (0, None));
}

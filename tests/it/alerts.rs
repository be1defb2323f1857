//! The alerts, their runbooks and the dashboard name each other and only metrics that there are. What Prometheus makes of
//! them, `scripts/check-observability` shows.
#![expect(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

fn text(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The words of our metrics in a text, without what a histogram adds.
fn metrics(text: &str) -> BTreeSet<String> {
    let is_part = |next: char| next.is_ascii_alphanumeric() || next == '_';
    let words = text.split(|next: char| !is_part(next)).filter(|word| word.starts_with("checkback_"));
    let family = |word: &str| {
        let trimmed = ["_bucket", "_count", "_sum"].iter().find_map(|suffix| word.strip_suffix(suffix));
        trimmed.unwrap_or(word).to_owned()
    };
    words.map(family).collect()
}

fn after(text: &str, mark: &str) -> Vec<String> {
    let lines = text.lines().filter_map(|line| line.trim().strip_prefix(mark));
    lines.map(|rest| rest.trim().to_owned()).collect()
}

fn documented(name: &str, operations: &str) -> bool {
    operations.contains(&format!("\n| `{name}` |"))
}

#[test]
fn every_alert_has_its_runbook_its_row_and_its_tests_and_no_other_has() {
    let alerts: Vec<String> = after(&text("deploy/prometheus/alerts.yml"), "- alert: ");
    assert!(alerts.len() > 15, "{alerts:?}");
    let runbooks = after(&text("docs/runbooks.md"), "## ");
    assert_eq!(alerts.iter().collect::<BTreeSet<_>>(), runbooks.iter().collect::<BTreeSet<_>>());
    assert_eq!(alerts.len(), runbooks.len(), "an alert, or a runbook, is there twice");
    let pointed_to = after(&text("deploy/prometheus/alerts.yml"), "runbook: ");
    let expected: Vec<String> =
        alerts.iter().map(|alert| format!("docs/runbooks.md#{}", alert.to_lowercase())).collect();
    assert_eq!(pointed_to, expected);
    let operations = text("docs/operations.md");
    let rows: Vec<String> = after(&operations, "| [Checkback");
    let named: BTreeSet<String> =
        rows.iter().map(|row| format!("Checkback{}", row.split(']').next().unwrap())).collect();
    assert_eq!(named, alerts.iter().cloned().collect());
    let tests = text("deploy/prometheus/alerts_test.yml");
    for alert in &alerts {
        assert!(tests.contains(&format!("- name: {alert} fires\n")), "{alert} is not shown to fire");
        assert!(tests.contains(&format!("- name: {alert} does not fire")), "{alert} is not shown to be quiet");
    }
}

#[test]
fn every_runbook_says_what_to_look_at_what_to_do_and_when_it_is_over() {
    let runbooks = text("docs/runbooks.md");
    for section in runbooks.split("\n## ").skip(1) {
        for part in ["**Means.**", "**Look at.**", "**Do.**", "**Over**"] {
            assert_eq!(section.matches(part).count(), 1, "{part} in {}", section.lines().next().unwrap());
        }
    }
}

#[test]
fn alerts_dashboard_and_runbooks_name_only_metrics_that_there_are() {
    let operations = text("docs/operations.md");
    for file in [
        "deploy/prometheus/alerts.yml",
        "deploy/prometheus/alerts_test.yml",
        "deploy/grafana/checkback.json",
        "docs/runbooks.md",
    ] {
        let named = metrics(&text(file));
        assert!(named.len() > 5, "{file}: {named:?}");
        for name in named {
            assert!(documented(&name, &operations), "{name} in {file} is not in docs/operations.md");
        }
    }
}

#[test]
fn the_dashboard_can_be_imported() {
    let dashboard: Value = serde_json::from_str(&text("deploy/grafana/checkback.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let mut ids = BTreeSet::new();
    for panel in panels {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{} has the id of another", panel["title"]);
        assert!(!panel["title"].as_str().unwrap().is_empty());
        if panel["type"] == "row" {
            continue;
        }
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{}", panel["title"]);
        assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{}", panel["title"]);
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty() && targets.iter().all(|target| target["expr"].is_string()), "{}", panel["title"]);
    }
    let variables: Vec<_> =
        dashboard["templating"]["list"].as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap()).collect();
    assert_eq!(variables, ["datasource", "account"]);
}

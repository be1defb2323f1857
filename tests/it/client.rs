//! The commands that work over the API: what they print and how they end.

use std::path::Path;

use checkback::simulator::{Answer, Complete, CreateTransaction};
use serde_json::{Value, json};
use tokio::process::Command;

use super::support::app::{ACCOUNT, KEY, TestApp};
use super::support::process::{Said, checkback, run};
use super::support::scratch;

fn command(test: &TestApp, arguments: &str) -> Command {
    let mut command = checkback(arguments.split(' '));
    command.env("CHECKBACK_URL", test.internal("/")).env("CHECKBACK_KEY", KEY);
    command
}

async fn said(test: &TestApp, arguments: &str) -> Said {
    run(&mut command(test, arguments)).await
}

async fn well(test: &TestApp, arguments: &str) -> String {
    let said = said(test, arguments).await;
    assert_eq!(said.code, Some(0), "{arguments}: {}{}", said.out, said.err);
    said.out
}

fn answer(passed: &str, sub_code: &str) -> Answer {
    Answer { passed: Some(passed.into()), sub_code: Some(sub_code.into()), ..Answer::default() }
}

#[tokio::test]
async fn a_verification_is_registered_collected_shown_and_listed() {
    let test = TestApp::start().await;
    let transaction = test.simulator.create(CreateTransaction::default()).unwrap().transaction_id;
    test.simulator.complete(&transaction, Complete { callbacks: Some(0), ..Complete::default() }).await.unwrap();
    let token = tempfile::Builder::new().tempdir_in(scratch::folder()).unwrap();
    let file = token.path().join("token");
    std::fs::write(&file, "the-right-token-of-this\n").unwrap();
    let register = format!(
        "verifications register {transaction} --product FACE_LIVENESS --expect-video --callback-token-file {} \
         --metadata {{\"order\":\"A-17\"}} --json",
        file.display()
    );
    let registered: Value = serde_json::from_str(&well(&test, &register).await).unwrap();
    let id = registered["id"].as_str().unwrap();
    assert_eq!(
        (&registered["product"], &registered["metadata"]),
        (&json!("FACE_LIVENESS"), &json!({ "order": "A-17" }))
    );
    let again = said(&test, &format!("verifications register {transaction}")).await;
    assert_eq!((again.code, again.err.contains("before")), (Some(0), true), "{}", again.err);
    let other = said(&test, &format!("verifications register {transaction} --product OTHER")).await;
    assert_eq!((other.code, other.err.contains("product")), (Some(1), true), "{}", other.err);

    well(&test, &format!("verifications collect {id}")).await;
    let shown = well(&test, &format!("verifications show {id} --wait 20 --history")).await;
    let lines: Vec<Vec<&str>> = shown.lines().map(|line| line.split_whitespace().collect()).collect();
    for expected in [["status", "passed"], ["scores.face_comparison", "99.99"], ["revision", "1"]] {
        assert!(lines.iter().any(|line| *line == expected), "{expected:?}\n{shown}");
    }
    assert!(lines.iter().any(|line| line.get(1) == Some(&"operator")), "{shown}");
    let shown: Value = serde_json::from_str(&well(&test, &format!("verifications show {id} --json")).await).unwrap();
    assert_eq!(shown, test.verification(id).await);

    let listed = well(&test, &format!("verifications list --status passed --account {ACCOUNT} --limit 5")).await;
    assert!(listed.lines().count() == 2 && listed.contains(id), "{listed}");
    let none = well(&test, "verifications list --at-risk video --json").await;
    assert_eq!(serde_json::from_str::<Value>(&none).unwrap(), json!({ "items": [], "next_cursor": null }));
    let refused = said(&test, &format!("verifications collect {id}")).await;
    assert_eq!((refused.code, refused.err.contains("It is passed")), (Some(1), true), "{}", refused.err);
    well(&test, &format!("verifications collect {id} --recheck --json")).await;
}

#[tokio::test]
async fn a_recheck_counts_first_and_begins_with_yes() {
    let test = TestApp::start().await;
    let transaction =
        CreateTransaction { answers: vec![answer("N", "204"), answer("Y", "200")], ..CreateTransaction::default() };
    let (_, id) = test.begin(transaction, json!({})).await;
    test.collect(&id).await;
    test.final_verification(&id).await;
    let counted = said(&test, "verifications recheck --status failed").await;
    assert_eq!(counted.code, Some(0));
    assert!(counted.out.starts_with("1 verification matches.") && counted.err.contains("--yes"), "{}", counted.out);
    assert_eq!(test.get_json("/rechecks").await["items"], json!([]), "nothing is begun without being told");
    let begun = well(&test, "verifications recheck --status failed --yes --json").await;
    assert_eq!(serde_json::from_str::<Value>(&begun).unwrap()["matched"], 1);
    test.until("another verdict", async || (test.verification(&id).await["revision"] == 2).then_some(())).await;
    let listed = well(&test, "verifications rechecks").await;
    assert!(listed.contains("status=failed"), "{listed}");
    let recheck = test.get_json("/rechecks").await["items"][0]["id"].as_str().unwrap().to_owned();
    let stopped = well(&test, &format!("verifications rechecks --stop {recheck} --json")).await;
    assert_eq!(serde_json::from_str::<Value>(&stopped).unwrap()["id"], recheck.as_str());
    let unknown = said(&test, "verifications rechecks --stop nothing").await;
    assert_eq!((unknown.code, unknown.err.contains("recheck")), (Some(1), true), "{}", unknown.err);
    let wrong = said(&test, "verifications recheck --status waiting").await;
    assert_eq!((wrong.code, wrong.err.contains("filter.status")), (Some(2), true), "{}", wrong.err);
}

#[tokio::test]
async fn what_is_erased_is_told_part_by_part_and_only_with_yes() {
    let test = TestApp::start().await;
    let (_, id) = test
        .begin(CreateTransaction { answers: vec![answer("N", "204")], ..CreateTransaction::default() }, json!({}))
        .await;
    test.collect(&id).await;
    test.final_verification(&id).await;
    let asked = said(&test, &format!("verifications erase {id}")).await;
    assert_eq!((asked.code, asked.err.contains("--yes")), (Some(2), true), "{}", asked.err);
    assert_eq!(test.verification(&id).await["sub_code"], "204");
    let erased = said(&test, &format!("verifications erase {id} --yes --reason request-4711")).await;
    assert!(erased.out.contains("scores") && erased.out.contains("provider"), "{}{}", erased.out, erased.err);
    assert_eq!(test.verification(&id).await["sub_code"], Value::Null);
    let again = said(&test, &format!("verifications erase {id} --yes --json")).await;
    assert_eq!(serde_json::from_str::<Value>(&again.out).unwrap()["reason"], "request-4711");
}

#[tokio::test]
async fn reconcile_tells_by_its_exit_code_whether_it_adds_up() {
    let test = TestApp::start().await;
    let (_, id) = test.begin(CreateTransaction::default(), json!({ "product": "FACE_LIVENESS" })).await;
    // The window ends with the service's own now.
    test.advance(std::time::Duration::from_millis(5));
    let good = well(&test, "reconcile --since 1h").await;
    assert!(good.contains(ACCOUNT) && good.contains("\nIt adds up: 1 registered, 0 final + 1 waiting + 0"), "{good}");
    assert_eq!(well(&test, "reconcile --check").await, "", "nothing is said when all is well");
    let pool = test.database.pool().await;
    sqlx::query("DELETE FROM collect_jobs").execute(&pool).await.unwrap();
    let bad = said(&test, "reconcile --check").await;
    assert_eq!(bad.code, Some(1));
    assert!(
        bad.out.starts_with("lost (1): verifications that have neither")
            && bad.out.contains(&id)
            && bad.out.contains("does not add up"),
        "{}",
        bad.out
    );
    let bad = said(&test, "reconcile --json").await;
    let body: Value = serde_json::from_str(&bad.out).unwrap();
    assert_eq!((bad.code, &body["problems"][0]["ids"]), (Some(1), &json!([id])));
    let usage = said(&test, "reconcile --since yesterday").await;
    assert_eq!(usage.code, Some(2), "{}", usage.err);
}

#[tokio::test]
async fn what_is_wrong_with_the_way_to_the_service_is_said() {
    let test = TestApp::start().await;
    let folder = tempfile::Builder::new().tempdir_in(scratch::folder()).unwrap();
    let file = folder.path().join("key");
    let key_file = |path: &Path| format!("verifications list --key-file {}", path.display());
    std::fs::write(&file, format!("{KEY}\n")).unwrap();
    let from_file = run(command(&test, &key_file(&file)).env_remove("CHECKBACK_KEY")).await;
    assert_eq!(from_file.code, Some(0), "{}", from_file.err);
    std::fs::write(&file, "another-key").unwrap();
    let wrong_key = said(&test, &key_file(&file)).await;
    assert!(wrong_key.err.contains("--key-file") && !wrong_key.err.contains("another-key"), "{}", wrong_key.err);
    assert_eq!(wrong_key.code, Some(1));
    let no_file = said(&test, &key_file(Path::new("/nowhere"))).await;
    assert_eq!((no_file.code, no_file.err.contains("/nowhere")), (Some(2), true), "{}", no_file.err);
    let nobody = run(command(&test, "verifications list").env("CHECKBACK_URL", "http://127.0.0.1:1")).await;
    assert_eq!((nobody.code, nobody.err.contains("CHECKBACK_URL")), (Some(1), true), "{}", nobody.err);
    let no_url = said(&test, "verifications list --url nowhere").await;
    assert_eq!((no_url.code, no_url.err.contains("--url")), (Some(2), true), "{}", no_url.err);
    let not_ours = run(command(&test, "verifications list").env("CHECKBACK_URL", test.public("/"))).await;
    assert_eq!(not_ours.code, Some(1), "{}", not_ours.err);
}

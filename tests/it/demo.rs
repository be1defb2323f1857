//! `checkback demo`, as somebody runs it who has just built it.

use super::support::process::{checkback, run};

#[tokio::test]
async fn the_demo_ends_as_expected_whatever_is_configured_here() {
    let elsewhere = tempfile::tempdir().unwrap();
    let mut command = checkback(["demo", "--check"]);
    command
        .current_dir(elsewhere.path())
        .env("DATABASE_URL", "postgres://nobody@127.0.0.1:1/nothing")
        .env("CHECKBACK_SERVER__PUBLIC_LISTEN", "nonsense");
    let said = run(&mut command).await;
    assert_eq!(said.code, Some(0), "{}\n{}", said.out, said.err);
    assert_eq!(said.err, "", "errors that belong to the show confuse nobody");
    assert!(said.out.contains("38 of 38 as expected"), "{}", said.out);
    assert!(said.out.contains(" events came to the merchant's webhook: "), "{}", said.out);
    assert!(!said.out.contains('\x1b'), "no colours without a terminal");
    for case in [
        "passed",
        "started by Checkback",
        "faces differ",
        "face not alive",
        "device not trusted",
        "face known already",
        "callback lost",
        "callback twice",
        "callback too early",
        "callback forged",
        "callback without token",
        "provider fails twice",
        "provider throttles",
        "provider sends garbage",
        "result not there yet",
        "result pending",
        "access key refused",
        "with a video",
        "link of video dead",
        "transaction unknown",
        "person gives up",
        "provider down 30 days",
        "service restarted",
        "app says it is done",
        "browser comes back",
        "still processing",
        "not the same person",
        "face attack",
        "left to a person",
        "timed out at ZOLOZ",
        "Real ID fails",
        "Face Capture passes",
        "with an access key",
        "answer tampered with",
        "answer by wrong key",
        "image missing",
        "merchant key wrong",
        "person walks away",
    ] {
        let row = said.out.lines().find(|line| line.starts_with(&format!("{case}  ")));
        assert!(row.is_some_and(|row| row.contains(" yes ")), "{case}\n{}", said.out);
    }
    assert_eq!(std::fs::read_dir(elsewhere.path()).unwrap().count(), 0, "nothing is left behind");
}

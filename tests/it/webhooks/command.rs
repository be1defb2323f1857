//! `checkback webhooks …`: what it prints and how it ends.

use serde_json::{Value, json};

use super::{attempted, deliveries, endpoint, passed, received, with_one};
use crate::support::app::{KEY, TestApp};
use crate::support::process::{Said, checkback, run};
use crate::support::receiver::{Answer, Receiver};

async fn said(test: &TestApp, arguments: &str) -> Said {
    let mut command = checkback(arguments.split(' '));
    command.env("CHECKBACK_URL", test.internal("/")).env("CHECKBACK_KEY", KEY);
    run(&mut command).await
}

async fn well(test: &TestApp, arguments: &str) -> String {
    let said = said(test, arguments).await;
    assert_eq!(said.code, Some(0), "{arguments}: {}{}", said.out, said.err);
    said.out
}

#[tokio::test]
async fn endpoints_and_deliveries_are_listed_tested_replayed_and_enabled_from_a_terminal() {
    let receiver = Receiver::start().await;
    let test = with_one(&receiver).await;
    let id = passed(&test).await;
    attempted(&test, &id, 1).await;
    let listed = well(&test, "webhooks list").await;
    let row: Vec<&str> = listed.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(row[..4], ["app", "ok", "0", "0"], "{listed}");
    let shown = well(&test, &format!("webhooks deliveries --endpoint app --verification-id {id}")).await;
    assert!(shown.lines().count() == 2 && shown.contains("verification.passed") && shown.contains("delivered 204"));
    let json: Value = serde_json::from_str(&well(&test, "webhooks deliveries --json").await).unwrap();
    assert_eq!(json["items"].as_array().unwrap(), &deliveries(&test, "").await);

    assert_eq!(well(&test, "webhooks test app").await.split(" in ").next(), Some("Delivered"));
    receiver.script([Answer::Text("401 X\r\ncontent-length: 9\r\n\r\nno secret".to_owned())]);
    let refused = said(&test, "webhooks test app").await;
    assert_eq!(refused.code, Some(1));
    assert_eq!(refused.out, "Not delivered: the endpoint answered 401\nIt said: no secret\n");

    let replay = format!("webhooks replay --verification-id {id}");
    let counted = said(&test, &replay).await;
    assert_eq!((counted.code, counted.out.as_str()), (Some(0), "1 delivery would begin anew.\n"));
    assert!(counted.err.contains("--yes"), "{}", counted.err);
    let before = receiver.count();
    assert_eq!(well(&test, &format!("{replay} --yes")).await, "1 delivery begun anew.\n");
    received(&test, &receiver, before + 1).await;
    let since = "webhooks replay --endpoint app --since 2026-01-01T00:00:00Z --type verification.failed --json";
    assert_eq!(serde_json::from_str::<Value>(&well(&test, since).await).unwrap(), json!({ "matched": 0 }));
    for wrong in ["webhooks replay", "webhooks replay --endpoint app", "webhooks replay --since x --event-id y"] {
        assert_eq!(said(&test, wrong).await.code, Some(2), "{wrong}");
    }

    receiver.answer(Answer::Status(410));
    let gone = passed(&test).await;
    attempted(&test, &gone, 1).await;
    assert!(well(&test, "webhooks list").await.contains("it wants no more events"));
    assert_eq!(well(&test, "webhooks enable app").await, "app is enabled; 1 pending.\n");
    assert_eq!(endpoint(&test, "app").await["disabled_at"], Value::Null);
    let unknown = said(&test, "webhooks enable nobody").await;
    assert!(unknown.code == Some(1) && unknown.err.contains("There is no such endpoint"), "{}", unknown.err);
}

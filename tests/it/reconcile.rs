//! Does everything add up, and is everything found that does not?

use std::time::Duration;

use checkback::simulator::{Answer, Complete, CreateTransaction, Fault, FaultKind};
use checkback::store::{Discrepancy, Store};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

use super::api::{problem, wrong_fields};
use super::support::app::{ACCOUNT, TestApp};
use super::support::database::database;
use super::support::planted::{held_job, id_at, registered, verdict};

const TOKEN: &str = "the-right-token-of-this";

#[tokio::test]
async fn whatever_happens_to_verifications_they_add_up() {
    let test = TestApp::start().await;
    assert_eq!(test.get_json("/reconcile").await["adds_up"], true, "nothing is nothing");
    let with_token = || json!({ "callback_token": TOKEN, "product": "FACE_LIVENESS" });
    // A verdict at once, one after faults, one that changes, a refusal, one that nobody finishes.
    let (transaction, passed) = test.begin(CreateTransaction::default(), with_token()).await;
    test.simulator.complete(&transaction, Complete::default()).await.unwrap();
    test.callback(&transaction, Some(TOKEN)).await;
    test.final_verification(&passed).await;
    let fault = Fault { kind: FaultKind::Garbage, times: Some(1), ..Fault::default() };
    test.simulator.add_fault(fault).unwrap();
    let failing = CreateTransaction {
        answers: vec![
            Answer { passed: Some("N".into()), sub_code: Some("204".into()), ..Answer::default() },
            Answer { passed: Some("Y".into()), sub_code: Some("200".into()), ..Answer::default() },
        ],
        ..CreateTransaction::default()
    };
    let (_, changed) = test.begin(failing, with_token()).await;
    test.collect(&changed).await;
    test.attempted(&changed, 1).await;
    test.advance(Duration::from_secs(1));
    assert_eq!(test.final_verification(&changed).await["status"], "failed");
    test.recheck(&changed).await;
    test.until("a second verdict", async || (test.verification(&changed).await["revision"] == 2).then_some(())).await;
    let body = json!({ "account": ACCOUNT, "transaction_id": "nobody-knows-this" });
    let refused: Value = test.post("/verifications", &body).await.json().await.unwrap();
    let refused = refused["id"].as_str().unwrap();
    test.collect(refused).await;
    assert_eq!(test.final_verification(refused).await["status"], "unresolvable");
    let (_, void) = test.begin(CreateTransaction::default(), with_token()).await;
    test.advance_to(test.clock.now() + TimeDelta::hours(24)).await;
    assert_eq!(test.final_verification(&void).await["status"], "void");
    test.begin(CreateTransaction::default(), with_token()).await;
    let (transaction, _) = test.begin(CreateTransaction::default(), with_token()).await;
    test.callback(&transaction, Some(TOKEN)).await;
    test.advance(Duration::from_millis(1));

    let all = test.get_json("/reconcile").await;
    assert_eq!(all["problems"], json!([]), "{all}");
    assert_eq!(all["adds_up"], true, "{all}");
    let part = |name: &str| all[name].as_i64().unwrap();
    assert_eq!(["registered", "final", "waiting", "collecting"].map(part), [6, 4, 1, 1], "{all}");
    assert_eq!(all["calls"]["history"], all["calls"]["rows"]);
    assert_eq!(all["rechecks"], json!({ "open": 0, "revisions": 1 }));
    assert_eq!(all["accounts"][0]["account"], ACCOUNT);
    let states = json!({ "waiting": 1, "collecting": 1, "passed": 2, "failed": 0, "review": 0, "void": 1, "expired": 0,
        "unresolvable": 1 });
    assert_eq!(all["accounts"][0]["states"], states);
    assert_eq!(
        all["billing"],
        json!([{ "account": ACCOUNT, "product": "FACE_LIVENESS", "sub_code": "200", "count": 2, "billed": true }])
    );
    let without = all["without_verdict"].as_array().unwrap();
    assert_eq!(without.len(), 2, "{all}");
    assert_eq!(
        (&without[0]["status"], &without[0]["reason"]),
        (&json!("unresolvable"), &json!("TransactionIdInvalid"))
    );
    assert_eq!(without[1]["status"], "void");
    assert!(without[1]["reason"].as_str().unwrap().contains("did not complete"), "{all}");

    // Of the window alone.
    let none = test.get_json("/reconcile?since=2020-01-01T00:00:00Z&until=2020-02-01T00:00:00Z").await;
    assert_eq!((&none["registered"], &none["since"]), (&json!(0), &json!("2020-01-01T00:00:00.000000Z")));
}

#[tokio::test]
async fn wrong_windows_are_refused() {
    let test = TestApp::start().await;
    let query = "since=2026-02-01T00:00:00Z&until=2026-01-01T00:00:00Z&account=x";
    let refused = problem(test.get(&format!("/reconcile?{query}")).await, 422, "query_invalid").await;
    assert_eq!(wrong_fields(&refused), ["account", "since"]);
    let refused = problem(test.get("/reconcile?since=7d").await, 422, "query_invalid").await;
    assert_eq!(wrong_fields(&refused), ["since"]);
}

/// A verification that ended as it should.
async fn sound(pool: &PgPool, id: Uuid, at: DateTime<Utc>) {
    registered(pool, id, at, false).await;
    verdict(pool, id, at, "failed", "204").await;
}

#[tokio::test]
async fn each_thing_that_does_not_add_up_is_found() {
    let database = database().await;
    let (store, pool) = (Store::new(database.options(), 2), database.pool().await);
    let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
    // Beside others that are as they should be.
    sound(&pool, id_at(now, 1), now).await;
    registered(&pool, id_at(now, 2), now, false).await;
    held_job(&pool, id_at(now, 2), None, false).await;
    let id = id_at(now, 3);
    let second =
        "INSERT INTO verdicts (verification_id, revision, account, status, reason, scores, signals, decided_at,
            checks, superseded_at)
        SELECT verification_id, 9, account, status, reason, scores, signals, decided_at, checks, superseded_at
        FROM verdicts
        WHERE verification_id = $1";
    let remembered = "INSERT INTO history (verification_id, at, kind, detail) VALUES ($1, now(), 'verdict', '{}')";
    let job = "INSERT INTO collect_jobs (verification_id, account, lane, due_at, checks, recheck)
        VALUES ($1, 'alibaba-sg', 1, now(), 1, false)";
    let recheck = "INSERT INTO collect_jobs (verification_id, account, lane, due_at, checks, recheck)
        VALUES ($1, 'alibaba-sg', 1, now(), 1, true)";
    let supersede = "UPDATE verdicts SET superseded_at = now() WHERE verification_id = $1 AND revision = 1";
    let no_verdict = "DELETE FROM verdicts WHERE verification_id = $1";
    let cases: [(Discrepancy, &[&'static str]); 12] = [
        (Discrepancy::NotRegistered, &["DELETE FROM verifications WHERE verification_id = $1"]),
        (Discrepancy::Lost, &[no_verdict]),
        (Discrepancy::NoCurrentVerdict, &[supersede]),
        (Discrepancy::SeveralCurrentVerdicts, &[second]),
        (Discrepancy::RevisionMissing, &[second, supersede, remembered]),
        (Discrepancy::FinalWithOpenJob, &[job]),
        (Discrepancy::RecheckWithoutVerdict, &[no_verdict, recheck]),
        (Discrepancy::NoHistory, &["DELETE FROM history WHERE verification_id = $1"]),
        (Discrepancy::VerdictsDiffer, &[remembered]),
        (Discrepancy::VerdictsDiffer, &["DELETE FROM history WHERE verification_id = $1 AND kind = 'verdict'"]),
        (Discrepancy::CallsDiffer, &["DELETE FROM history WHERE verification_id = $1 AND kind = 'check'"]),
        (Discrepancy::CallsDiffer, &["UPDATE verdicts SET checks = checks + 1 WHERE verification_id = $1"]),
    ];
    for discrepancy in Discrepancy::ALL {
        assert!(cases.iter().any(|(planted, _)| *planted == discrepancy), "{discrepancy:?} is not planted");
    }
    for (discrepancy, statements) in cases {
        sound(&pool, id, now).await;
        for statement in statements {
            sqlx::query(*statement).bind(id).execute(&pool).await.unwrap();
        }
        let sums = store.reconcile(now, now + TimeDelta::seconds(1), 20).await.unwrap();
        let found: Vec<_> = sums.iter().filter_map(|sum| Some((sum.discrepancy?, sum.count, sum.ids[0].0))).collect();
        assert_eq!(found, [(discrepancy, 1, id)], "{statements:?}");
        let destroyed = "UPDATE retention_cursors SET passed_at = $1 WHERE class = 'history'";
        sqlx::query(destroyed).bind(now).execute(&pool).await.unwrap();
        let sums = store.reconcile(now, now + TimeDelta::seconds(1), 20).await.unwrap();
        sqlx::query(destroyed).bind(DateTime::UNIX_EPOCH).execute(&pool).await.unwrap();
        let of_history =
            matches!(discrepancy, Discrepancy::NoHistory | Discrepancy::VerdictsDiffer | Discrepancy::CallsDiffer);
        let is_found = sums.iter().any(|sum| sum.discrepancy.is_some());
        assert_eq!(is_found, !of_history, "what the history no longer has is not missed: {discrepancy:?}");
        for table in ["verifications", "verdicts", "collect_jobs", "history"] {
            let statement = format!("DELETE FROM {table} WHERE verification_id = $1");
            sqlx::query(sqlx::AssertSqlSafe(statement)).bind(id).execute(&pool).await.unwrap();
        }
    }
    let sums = store.reconcile(now, now + TimeDelta::seconds(1), 20).await.unwrap();
    assert!(sums.iter().all(|sum| sum.discrepancy.is_none()), "{sums:?}");
    assert_eq!(sums.iter().map(|sum| sum.registered).sum::<i64>(), 2);
    let outside = store.reconcile(now + TimeDelta::seconds(1), now + TimeDelta::hours(1), 20).await.unwrap();
    assert!(outside.is_empty());
}

//! Asking again: single rechecks at their edges, and rechecks in bulk.

use std::collections::BTreeSet;
use std::time::Duration;

use checkback::domain::{FinalStatus, VerificationId};
use checkback::simulator::{Answer, CreateTransaction, Fault, FaultKind};
use checkback::store::{CheckedFinal, Fed, NewRecheck, RecheckFilter, Store};
use chrono::{DateTime, TimeDelta, Utc};
use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use sqlx::PgPool;
use uuid::Uuid;

use super::api::{problem, wrong_fields};
use super::support::app::{ACCOUNT, Setup, TestApp};
use super::support::database::database;
use super::support::planted::{held_job, id_at, registered, verdict};

fn answer(passed: &str, sub_code: &str) -> Answer {
    Answer { passed: Some(passed.into()), sub_code: Some(sub_code.into()), ..Answer::default() }
}

/// A final verification that the provider answers so, in this order.
async fn ended(test: &TestApp, answers: Vec<Answer>) -> String {
    let transaction = CreateTransaction { answers, ..CreateTransaction::default() };
    let (_, id) = test.begin(transaction, json!({})).await;
    test.collect(&id).await;
    test.final_verification(&id).await;
    id
}

async fn begin(test: &TestApp, filter: Value) -> Value {
    let response = test.post("/rechecks", &json!({ "filter": filter })).await;
    let (status, place) = (response.status(), response.headers().get("location").cloned());
    let body: Value = response.json().await.unwrap();
    assert_eq!(status, 201, "{body}");
    assert_eq!(place.unwrap(), format!("/rechecks/{}", body["id"].as_str().unwrap()));
    body
}

async fn shown(test: &TestApp, recheck: &Value) -> Value {
    test.get_json(&format!("/rechecks/{}", recheck["id"].as_str().unwrap())).await
}

async fn finished(test: &TestApp, recheck: &Value) -> Value {
    test.until("the recheck is finished", async || {
        Some(shown(test, recheck).await).filter(|body| body["state"] == "finished")
    })
    .await
}

/// An account that is in trouble and is not probed: what is put in line stays there.
async fn nothing_is_asked(pool: &PgPool) {
    let trouble = "UPDATE accounts SET failing_since = now(), failing_reason = 'bad_key', failing_code = 'x', \
                   probe_at = '2100-01-01'";
    sqlx::query(trouble).execute(pool).await.unwrap();
}

async fn failed(pool: &PgPool, now: DateTime<Utc>, n: u64) -> Uuid {
    let at = now - TimeDelta::hours(1);
    let id = id_at(at, n);
    registered(pool, id, at, false).await;
    verdict(pool, id, at, "failed", "204").await;
    id
}

async fn number(pool: &PgPool, statement: &'static str) -> i64 {
    sqlx::query_scalar(statement).fetch_one(pool).await.unwrap()
}

#[tokio::test]
async fn a_dry_run_counts_and_does_nothing() {
    let test = TestApp::with(Setup { account: "qps = 10".to_owned(), ..Setup::default() }).await;
    let pool = test.database.pool().await;
    for n in 0..20 {
        failed(&pool, test.clock.now(), n).await;
    }
    let body = json!({ "filter": { "status": "failed", "sub_code": "204" }, "dry_run": true });
    let response = test.post("/rechecks", &body).await;
    assert_eq!(response.status(), 200);
    let body: Value = response.json().await.unwrap();
    // Twenty calls at 10 a second, which are placed a tenth further apart.
    assert_eq!(body, json!({ "matched": 20, "accounts": { ACCOUNT: { "failed": 20 } }, "estimate": { "seconds": 3 } }));
    let body = json!({ "filter": { "sub_code": "205" }, "dry_run": true });
    let none: Value = test.post("/rechecks", &body).await.json().await.unwrap();
    assert_eq!((&none["matched"], &none["estimate"]["seconds"]), (&json!(0), &json!(0)));
    assert_eq!(test.get_json("/rechecks").await, json!({ "items": [], "next_cursor": null }));
    assert_eq!(number(&pool, "SELECT count(*) FROM collect_jobs").await, 0);
}

#[tokio::test]
async fn everything_that_matches_is_asked_about_once_and_changes_are_counted() {
    let test = TestApp::start().await;
    let same = || vec![answer("N", "204"); 3];
    let unchanged = [ended(&test, same()).await, ended(&test, same()).await];
    let changed = ended(&test, vec![answer("N", "204"), answer("Y", "200")]).await;
    let other_code = ended(&test, vec![answer("N", "205"); 3]).await;
    let passed = ended(&test, vec![answer("Y", "200"); 3]).await;
    let before = test.provider_calls("CheckResult");
    test.advance(Duration::from_secs(5));
    let begun = begin(&test, json!({ "status": "failed", "sub_code": "204", "account": ACCOUNT })).await;
    assert_eq!((&begun["matched"], &begun["created_by"]), (&json!(3), &json!("test")));
    let done = finished(&test, &begun).await;
    let part = |name: &str| done[name].as_i64().unwrap();
    assert_eq!(["matched", "done", "skipped", "waiting", "revised"].map(part), [3, 3, 0, 0, 1], "{done}");
    assert_eq!(test.provider_calls("CheckResult"), before + 3);
    for id in &unchanged {
        assert_eq!(test.verification(id).await["revision"], 1);
    }
    let body = test.verification(&changed).await;
    assert_eq!((&body["status"], &body["revision"], &body["final"]), (&json!("passed"), &json!(2), &json!(true)));
    let history = test.history(&changed).await;
    let verdicts: Vec<_> =
        history.iter().filter(|item| item["kind"] == "verdict").map(|item| item["status"].clone()).collect();
    assert_eq!(verdicts, ["failed", "passed"]);
    let operator = history.iter().rfind(|item| item["kind"] == "operator").unwrap();
    assert_eq!((&operator["recheck_id"], &operator["recheck"]), (&begun["id"], &json!(true)));
    for id in [&other_code, &passed] {
        assert_eq!(test.verification(id).await["attempts"], 1);
    }
    assert_eq!(test.get_json("/rechecks").await["items"], json!([done]));
    assert_eq!(test.get_json("/reconcile").await["adds_up"], true);
}

#[tokio::test]
async fn the_same_wish_finds_the_recheck_that_runs() {
    let test = TestApp::start().await;
    let pool = test.database.pool().await;
    nothing_is_asked(&pool).await;
    failed(&pool, test.clock.now(), 1).await;
    let first = begin(&test, json!({ "status": "failed" })).await;
    let again = test.post("/rechecks", &json!({ "filter": { "status": "failed", "account": null } })).await;
    assert_eq!(again.status(), 200);
    assert_eq!(again.json::<Value>().await.unwrap()["id"], first["id"]);
    test.advance(Duration::from_millis(2));
    let other = begin(&test, json!({ "status": "failed", "sub_code": "204" })).await;
    let items = test.get_json("/rechecks?limit=1").await;
    assert_eq!(items["items"][0]["id"], other["id"]);
    let cursor = items["next_cursor"].as_str().unwrap();
    let rest = test.get_json(&format!("/rechecks?cursor={cursor}")).await;
    assert_eq!((&rest["items"][0]["id"], &rest["next_cursor"]), (&first["id"], &Value::Null));
}

#[tokio::test]
async fn a_stopped_one_takes_back_what_was_not_asked_about() {
    let test = TestApp::start().await;
    let pool = test.database.pool().await;
    nothing_is_asked(&pool).await;
    let ids = [failed(&pool, test.clock.now(), 1).await, failed(&pool, test.clock.now(), 2).await];
    let begun = begin(&test, json!({ "status": "failed" })).await;
    test.until("both are in line", async || Some(shown(&test, &begun).await).filter(|body| body["waiting"] == 2)).await;
    // The merchant asks for one of them too: that is not taken back.
    test.recheck(&ids[0].to_string()).await;
    test.until("the wish is worked in", async || {
        (number(&pool, "SELECT count(*) FROM hints").await == 0).then_some(())
    })
    .await;
    let path = format!("/rechecks/{}", begun["id"].as_str().unwrap());
    for _ in 0..2 {
        let response = test.request(Method::DELETE, &path).send().await.unwrap();
        assert_eq!(response.status(), 200);
        let body: Value = response.json().await.unwrap();
        assert_eq!((&body["state"], &body["done"], &body["waiting"]), (&json!("stopped"), &json!(0), &json!(1)));
        assert!(body["ended_at"].is_string());
    }
    let left: Vec<Uuid> =
        sqlx::query_scalar("SELECT verification_id FROM collect_jobs").fetch_all(&pool).await.unwrap();
    assert_eq!(left, [ids[0]]);
    assert_eq!(test.get_json("/reconcile").await["problems"], json!([]));
}

#[tokio::test]
async fn what_waits_in_line_is_bounded_and_what_has_a_job_is_passed_over() {
    let test = TestApp::with(Setup { account: "qps = 1".to_owned(), ..Setup::default() }).await;
    let pool = test.database.pool().await;
    nothing_is_asked(&pool).await;
    for n in 0..150 {
        let id = failed(&pool, test.clock.now(), n).await;
        if n == 7 {
            held_job(&pool, id, Some(test.clock.now()), true).await;
        }
    }
    let begun = begin(&test, json!({})).await;
    assert_eq!(begun["matched"], 150);
    // Two minutes' worth, at one call every 1.1 seconds.
    let store = test.app.as_ref().unwrap().service.store.clone();
    let body = test
        .until("the line is full", async || Some(shown(&test, &begun).await).filter(|it| it["waiting"] == 109))
        .await;
    assert_eq!((&body["skipped"], &body["done"], &body["state"]), (&json!(1), &json!(1), &json!("running")));
    for _ in 0..3 {
        let fed = store.feed_recheck(ACCOUNT, 109, test.clock.now()).await.unwrap();
        assert_eq!(fed, Fed { queued: 0, more: false });
    }
    let lanes =
        "SELECT count(*) FROM collect_jobs WHERE recheck_id IS NOT NULL AND recheck AND lane = 3 AND checks = 1";
    assert_eq!(number(&pool, lanes).await, 109);
}

#[tokio::test]
async fn after_a_fault_it_stays_behind_all_else() {
    let test = TestApp::start().await;
    let id = ended(&test, vec![answer("N", "204"); 2]).await;
    test.simulator.add_fault(Fault { kind: FaultKind::Garbage, times: Some(1), ..Fault::default() }).unwrap();
    let begun = begin(&test, json!({ "status": "failed" })).await;
    test.until("the fault", async || (test.checks(&id).await.len() == 2).then_some(())).await;
    let pool = test.database.pool().await;
    assert_eq!(number(&pool, "SELECT count(*) FROM collect_jobs WHERE lane = 3 AND faults = 1").await, 1);
    test.advance(Duration::from_secs(1));
    let done = finished(&test, &begun).await;
    assert_eq!((&done["done"], &done["revised"]), (&json!(1), &json!(0)));
    assert_eq!(test.get_json("/reconcile").await["adds_up"], true);
}

#[tokio::test]
async fn what_was_erased_is_passed_over_and_still_adds_up() {
    let test = TestApp::start().await;
    let id = ended(&test, vec![answer("N", "204"); 2]).await;
    let erased = test.request(Method::DELETE, &format!("/verifications/{id}")).send().await.unwrap();
    assert_eq!(erased.status(), 200);
    let before = test.provider_calls("CheckResult");
    let begun = begin(&test, json!({ "status": "failed" })).await;
    let done = finished(&test, &begun).await;
    assert_eq!((&done["matched"], &done["done"], &done["skipped"]), (&json!(1), &json!(1), &json!(1)));
    assert_eq!(test.provider_calls("CheckResult"), before);
    let (_, open) = test.begin(CreateTransaction::default(), json!({})).await;
    let erased = test.request(Method::DELETE, &format!("/verifications/{open}")).send().await.unwrap();
    assert_eq!(erased.status(), 200);
    test.advance(Duration::from_millis(5));
    let all = test.get_json("/reconcile").await;
    assert_eq!((&all["adds_up"], &all["problems"]), (&json!(true), &json!([])), "{all}");
    assert_eq!(all["without_verdict"][0]["reason"], "erased");
}

#[tokio::test]
async fn what_else_waits_for_the_rest_of_the_rate_comes_first() {
    let database = database().await;
    let (store, pool) = (Store::new(database.options(), 2), database.pool().await);
    let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
    let ids: Vec<Uuid> = (0..12).map(|n| id_at(now - TimeDelta::hours(2), n)).collect();
    for id in &ids {
        sqlx::query("INSERT INTO collect_jobs (verification_id, account, lane, due_at) VALUES ($1, $2, 3, $3)")
            .bind(id)
            .bind(ACCOUNT)
            .bind(now)
            .execute(&pool)
            .await
            .unwrap();
    }
    for n in 0..5 {
        failed(&pool, now, n).await;
    }
    wish(&store, now, Uuid::from_u128(1)).await;
    assert_eq!(store.feed_recheck(ACCOUNT, 10, now).await.unwrap(), Fed::default(), "polls that are due fill the line");
    assert_eq!(store.feed_recheck(ACCOUNT, 15, now).await.unwrap(), Fed { queued: 3, more: false });
}

async fn wish(store: &Store, now: DateTime<Utc>, id: Uuid) -> i64 {
    let filter = RecheckFilter { status: Some(FinalStatus::Failed), ..RecheckFilter::default() };
    let parts = store.count_recheck(&filter, &[ACCOUNT], now).await.unwrap();
    let new = NewRecheck { id, filter: &filter, parts: &parts, now, by: None };
    assert_eq!(store.create_recheck(&new).await.unwrap(), (id, true));
    parts.iter().map(|part| part.matched).sum()
}

#[tokio::test]
async fn feeders_that_meet_and_die_put_each_in_line_once() {
    const MANY: i32 = 4_000;
    let database = database().await;
    let pool = database.pool().await;
    let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
    sqlx::query(
        "WITH ids AS (
            SELECT (lpad(to_hex($3), 12, '0') || '7000a000' || lpad(to_hex(n), 12, '0'))::uuid AS id
            FROM generate_series(1, $2) AS n
        ), registered AS (
            INSERT INTO verifications (verification_id, account, transaction_id, merchant_biz_id, expect_video,
                registered_at)
            SELECT id, $1, id::text, 'biz', false, $4
            FROM ids
        )
        INSERT INTO verdicts (verification_id, revision, account, status, reason, scores, signals, decided_at, checks)
        SELECT id, 1, $1, 'failed', '', '{}', '{}', $4, 1
        FROM ids",
    )
    .bind(ACCOUNT)
    .bind(MANY)
    .bind((now - TimeDelta::hours(1)).timestamp_millis())
    .bind(now)
    .execute(&pool)
    .await
    .unwrap();
    let store = Store::new(database.options(), 8);
    assert_eq!(wish(&store, now, Uuid::from_u128(1)).await, i64::from(MANY));
    // Each round some are dropped in the middle, as by a kill.
    for round in 0..6_u64 {
        let feeders = (0..4_u64).map(|feeder| {
            let store = store.clone();
            async move {
                let feeding =
                    async { while store.feed_recheck(ACCOUNT, i64::MAX, now).await.is_ok_and(|fed| fed.more) {} };
                let dies_after = Duration::from_millis((round * 7 + feeder * 5) % 30);
                let _dead = tokio::time::timeout(dies_after, feeding).await;
            }
        });
        futures_util::future::join_all(feeders).await;
    }
    // The locks of the dead go with their connections.
    let fed = async {
        while number(&pool, "SELECT count(*) FROM recheck_parts WHERE state = 'feeding'").await > 0 {
            store.feed_recheck(ACCOUNT, i64::MAX, now).await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(30), fed).await.unwrap();
    let (queued, skipped, state): (i64, i64, String) =
        sqlx::query_as("SELECT queued, skipped, state FROM recheck_parts").fetch_one(&pool).await.unwrap();
    assert_eq!((queued, skipped, state.as_str()), (i64::from(MANY), 0, "fed"));
    assert_eq!(number(&pool, "SELECT count(*) FROM collect_jobs").await, i64::from(MANY));
    let told = "SELECT count(DISTINCT verification_id) FROM history WHERE kind = 'operator'";
    assert_eq!(number(&pool, told).await, i64::from(MANY));
    assert_eq!(number(&pool, "SELECT count(*) FROM history").await, i64::from(MANY));
    // It is finished when the last job is gone.
    assert!(store.end_rechecks(now).await.unwrap().is_empty());
    sqlx::query("DELETE FROM collect_jobs").execute(&pool).await.unwrap();
    assert_eq!(store.end_rechecks(now).await.unwrap(), [Uuid::from_u128(1)]);
    assert!(store.end_rechecks(now).await.unwrap().is_empty());
}

#[tokio::test]
async fn filters_are_exact_and_leave_out_what_came_later() {
    let database = database().await;
    let (store, pool) = (Store::new(database.options(), 2), database.pool().await);
    let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
    let plant = async |hours: i64, status: &str, code: &str| {
        let at = now - TimeDelta::hours(hours);
        let id = id_at(at, 0);
        registered(&pool, id, at, false).await;
        verdict(&pool, id, at, status, code).await;
        id
    };
    for (hours, status, code) in
        [(1, "failed", "204"), (2, "failed", "205"), (3, "passed", "200"), (-1, "failed", "204")]
    {
        plant(hours, status, code).await;
    }
    let hours_ago = |hours| Some(now - TimeDelta::hours(hours));
    let all = RecheckFilter::default();
    for (filter, expected) in [
        (all.clone(), 3),
        (RecheckFilter { status: Some(FinalStatus::Failed), ..all.clone() }, 2),
        (RecheckFilter { sub_code: Some("205".into()), ..all.clone() }, 1),
        (RecheckFilter { reason_contains: Some("ant".into()), ..all.clone() }, 3),
        (RecheckFilter { reason_contains: Some("%".into()), ..all.clone() }, 0),
        (RecheckFilter { registered_after: hours_ago(2), ..all.clone() }, 2),
        (RecheckFilter { registered_before: hours_ago(2), ..all.clone() }, 1),
        (RecheckFilter { registered_before: hours_ago(-9), ..all.clone() }, 3),
    ] {
        let parts = store.count_recheck(&filter, &[ACCOUNT, "other"], now).await.unwrap();
        assert_eq!(parts.iter().map(|part| part.matched).sum::<i64>(), expected, "{filter:?}");
        let id = Uuid::from_u128(u128::from(rand_of(&filter)));
        let new = NewRecheck { id, filter: &filter, parts: &parts, now, by: None };
        store.create_recheck(&new).await.unwrap();
        while store.feed_recheck(ACCOUNT, 100, now).await.unwrap().more {}
        assert_eq!(number(&pool, "SELECT count(*) FROM collect_jobs").await, expected, "{filter:?}");
        sqlx::query("DELETE FROM collect_jobs").execute(&pool).await.unwrap();
        store.end_rechecks(now).await.unwrap();
    }
}

/// A number for each filter.
fn rand_of(filter: &RecheckFilter) -> u64 {
    let digest = Sha256::digest(format!("{filter:?}"));
    u64::from_be_bytes(digest[..8].try_into().unwrap())
}

#[tokio::test]
async fn wrong_wishes_are_refused() {
    let digest = hex::encode(Sha256::digest("only-read"));
    let more = format!("[[auth.keys]]\nname = \"r\"\nsha256 = \"{digest}\"\nscopes = [\"read\", \"register\"]\n");
    // Lists of tables may be added to anywhere.
    let test = TestApp::with(Setup { more, ..Setup::default() }).await;
    for (body, fields) in [
        (json!({}), vec!["filter"]),
        (json!({ "filter": [], "dry_run": 1, "x": 1 }), vec!["dry_run", "filter", "x"]),
        (
            json!({ "filter": { "status": "waiting", "account": "nobody", "sub_code": 4, "reason_contains": "",
                "registered_after": "today", "registered_before": [], "transaction_id": "x" } }),
            vec![
                "filter.account",
                "filter.reason_contains",
                "filter.registered_after",
                "filter.registered_before",
                "filter.status",
                "filter.sub_code",
                "filter.transaction_id",
            ],
        ),
    ] {
        let refused = problem(test.post("/rechecks", &body).await, 422, "body_invalid").await;
        assert_eq!(wrong_fields(&refused), fields);
    }
    for path in ["/rechecks/x", "/rechecks/00000000-0000-7000-8000-000000000000"] {
        problem(test.get(path).await, 404, "recheck_not_found").await;
        let stop = test.request(Method::DELETE, path).send().await.unwrap();
        problem(stop, 404, "recheck_not_found").await;
    }
    let refused = problem(test.get("/rechecks?cursor=x&limit=0").await, 422, "query_invalid").await;
    assert_eq!(wrong_fields(&refused), ["cursor", "limit"]);
    let reader = |method, path: &str| test.http.request(method, test.internal(path)).bearer_auth("only-read");
    assert_eq!(reader(Method::GET, "/rechecks").send().await.unwrap().status(), 200);
    let wish = reader(Method::POST, "/rechecks").json(&json!({ "filter": {} })).send().await.unwrap();
    problem(wish, 403, "scope_missing").await;
    let stop = reader(Method::DELETE, "/rechecks/x").send().await.unwrap();
    problem(stop, 403, "scope_missing").await;
}

#[tokio::test]
async fn two_rechecks_at_once_leave_one_current_verdict() {
    let test = TestApp::start().await;
    let id = ended(&test, vec![answer("N", "204"), answer("Y", "200"), answer("Y", "200")]).await;
    tokio::join!(test.recheck(&id), test.recheck(&id));
    let body = test
        .until("the second revision", async || {
            Some(test.verification(&id).await).filter(|body| body["revision"] == 2 && body["next_attempt_at"].is_null())
        })
        .await;
    assert_eq!(body["status"], "passed");
    let pool = test.database.pool().await;
    assert_eq!(number(&pool, "SELECT count(*) FROM verdicts").await, 2);
    assert_eq!(number(&pool, "SELECT count(*) FROM verdicts WHERE superseded_at IS NULL").await, 1);
    let revisions: BTreeSet<_> = test
        .history(&id)
        .await
        .iter()
        .filter(|item| item["kind"] == "verdict")
        .map(|item| item["revision"].as_i64().unwrap())
        .collect();
    assert_eq!(revisions, [1, 2].into());
}

#[tokio::test]
async fn a_flow_that_ended_without_an_outcome_takes_nothing_from_a_verdict() {
    let database = database().await;
    let (store, pool) = (Store::new(database.options(), 2), database.pool().await);
    let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
    for (n, (before, revision)) in
        [("passed", None), ("failed", None), ("review", None), ("unresolvable", Some(2))].into_iter().enumerate()
    {
        let id = id_at(now, n as u64);
        registered(&pool, id, now, false).await;
        verdict(&pool, id, now, before, "200").await;
        held_job(&pool, id, Some(now), true).await;
        let void = CheckedFinal {
            id: VerificationId(id),
            token: id,
            status: FinalStatus::Void,
            sub_code: None,
            reason: "The provider says that the flow timed out.".into(),
            scores: "{}".into(),
            signals: "{}".into(),
            answer: None,
            evidence: Vec::new(),
            last_error: None,
            check_detail: Some("{}".into()),
            at: now,
            recheck: true,
            replaces: true,
        };
        let recorded = store.record_final(&[void]).await.unwrap();
        assert_eq!(recorded[0].revision, revision, "{before}");
        let record = store.record(VerificationId(id)).await.unwrap().unwrap();
        let shown = if revision.is_some() { "void" } else { before };
        assert_eq!(record.verdict.unwrap().status.as_str(), shown);
    }
    assert_eq!(number(&pool, "SELECT count(*) FROM collect_jobs").await, 0);
}

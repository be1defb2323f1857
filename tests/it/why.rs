//! Why it is stuck: situations planted into a real database, and the same right answer from the API, the console and the
//! command line.

use checkback::simulator::CreateTransaction;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

use super::support::app::{ACCOUNT, KEY, Setup, TestApp, time};
use super::support::planted::id_at;
use super::support::process::{checkback, run};

/// Accounts whose calls have no slot for the next minutes, so that what is planted stays as it is.
const TROUBLES: [&str; 8] = [
    "no_credentials",
    "bad_key",
    "bad_signature",
    "no_permission",
    "not_activated",
    "clock_skew",
    "configuration",
    "unreachable",
];

fn account(name: &str) -> String {
    format!(
        "[accounts.{name}]\nkind = \"alibaba\"\nendpoint = \"http://SIMULATOR\"\naccess_key_id = \"sim-key-id\"\n\
         access_key_secret = \"sim-key-secret\"\n"
    )
}

fn name_of(trouble: &str) -> String {
    trouble.replace('_', "-")
}

struct Plan {
    pool: PgPool,
    now: DateTime<Utc>,
    planted: Vec<(&'static str, Uuid, Expected)>,
}

/// Code, who must act, and how many seconds after now it goes on.
type Expected = (String, &'static str, Option<i64>);

/// What a job is like; times in seconds after now.
#[derive(Clone, Copy, Default)]
struct Job {
    lane: i16,
    due: i64,
    heard: Option<i64>,
    running: i32,
    faults: i32,
    last_error: Option<&'static str>,
    is_leased: bool,
    is_recheck: bool,
}

impl Plan {
    fn at(&self, seconds: i64) -> DateTime<Utc> {
        self.now + TimeDelta::seconds(seconds)
    }

    /// Registered so many seconds ago.
    async fn verification(&self, account: &str, ago: i64, expect_video: bool) -> Uuid {
        let (at, n) = (self.at(-ago), self.planted.len() as u64);
        let id = id_at(at, n);
        sqlx::query(
            "WITH happened AS (
                INSERT INTO history (verification_id, at, kind, detail) VALUES ($1, $3, 'registered', '{}')
            )
            INSERT INTO verifications (verification_id, account, transaction_id, merchant_biz_id, expect_video,
                registered_at)
            VALUES ($1, $2, $1::text, 'biz', $4, $3)",
        )
        .bind(id)
        .bind(account)
        .bind(at)
        .bind(expect_video)
        .execute(&self.pool)
        .await
        .unwrap();
        id
    }

    async fn job(&self, id: Uuid, account: &str, job: Job) {
        sqlx::query(
            "INSERT INTO collect_jobs (verification_id, account, lane, due_at, hinted_at, callback_at, running, faults,
                last_error, recheck, checks, lease_token, leased_until)
            VALUES ($1, $2, $3, $4, $5, $5, $6, $7, $8, $9, $6 + $7,
                CASE WHEN $10 THEN $1 END, CASE WHEN $10 THEN timestamptz '2100-01-01' END)",
        )
        .bind(id)
        .bind(account)
        .bind(job.lane)
        .bind(self.at(job.due))
        .bind(job.heard.map(|seconds| self.at(seconds)))
        .bind(job.running)
        .bind(job.faults)
        .bind(job.last_error)
        .bind(job.is_recheck)
        .bind(job.is_leased)
        .execute(&self.pool)
        .await
        .unwrap();
    }

    async fn verdict(&self, id: Uuid, status: &str, sub_code: Option<&str>) {
        sqlx::query(
            "INSERT INTO verdicts (verification_id, revision, account, status, sub_code, reason, scores, signals,
                decided_at, hinted_at, checks)
            VALUES ($1, 1, $2, $3, $4, 'The reason of <b>it</b>.', '{}', '{}', $5, $5, 1)",
        )
        .bind(id)
        .bind(ACCOUNT)
        .bind(status)
        .bind(sub_code)
        .bind(self.now)
        .execute(&self.pool)
        .await
        .unwrap();
    }

    /// An open one.
    async fn open(&mut self, name: &'static str, account: &str, job: Job, expected: (&str, &'static str, Option<i64>)) {
        let id = self.verification(account, 600, false).await;
        self.job(id, account, job).await;
        let (code, who, next) = expected;
        self.planted.push((name, id, (code.to_owned(), who, next)));
    }

    async fn closed(&mut self, status: &'static str, sub_code: Option<&str>, code: &str, who: &'static str) -> Uuid {
        let id = self.verification(ACCOUNT, 600, false).await;
        self.verdict(id, status, sub_code).await;
        self.planted.push((status, id, (code.to_owned(), who, None)));
        id
    }
}

async fn plant(test: &TestApp) -> Plan {
    let (pool, now) = (test.database.pool().await, test.clock.now());
    let slots = "UPDATE accounts SET next_slot_at = clock_timestamp() + interval '9 minutes',
        next_bulk_at = clock_timestamp() + interval '9 minutes'";
    sqlx::query(slots).execute(&pool).await.unwrap();
    let mut plan = Plan { pool, now, planted: Vec::new() };
    let polled = Job { lane: 3, due: 300, running: 1, last_error: Some("ProcessNotCompleted"), ..Job::default() };
    let heard = Job { lane: 2, due: 60, heard: Some(-30), running: 2, last_error: polled.last_error, ..Job::default() };
    plan.open("waiting", ACCOUNT, polled, ("waiting_for_person", "person", Some(300))).await;
    plan.open("a late poll", ACCOUNT, Job { due: -90, ..polled }, ("poll_late", "operator", None)).await;
    plan.open("due", ACCOUNT, Job { lane: 1, due: -1, ..heard }, ("check_due", "nobody", Some(-1))).await;
    plan.open("late", ACCOUNT, Job { due: -200, ..heard }, ("check_late", "operator", None)).await;
    plan.open("running", ACCOUNT, Job { is_leased: true, ..heard }, ("check_running", "provider", None)).await;
    let unavailable = Some("the provider could not be asked: it answers 503 (http_503)");
    let retry = Job { faults: 4, last_error: unavailable, ..heard };
    plan.open("a retry", ACCOUNT, retry, ("retry_scheduled", "provider", Some(60))).await;
    plan.open("not completed", ACCOUNT, heard, ("not_completed", "person", Some(60))).await;
    plan.open("pending", ACCOUNT, Job { last_error: Some("P"), ..heard }, ("result_pending", "provider", Some(60)))
        .await;
    plan.open("of a gone account", "gone", polled, ("account_not_configured", "operator", None)).await;
    sqlx::query("UPDATE accounts SET hold_until = $1 WHERE account = 'held'")
        .bind(plan.at(45))
        .execute(&plan.pool)
        .await
        .unwrap();
    plan.open("throttled", "held", heard, ("throttled", "provider", Some(45))).await;
    for trouble in TROUBLES {
        let account = name_of(trouble);
        let fail =
            "UPDATE accounts SET failing_since = $2, failing_reason = $3, failing_code = 'The.Code', probe_at = $4
            WHERE account = $1";
        let failing = sqlx::query(fail).bind(&account).bind(plan.at(-100)).bind(trouble).bind(plan.at(500));
        failing.execute(&plan.pool).await.unwrap();
        let who = if trouble == "unreachable" { "provider" } else { "operator" };
        plan.open(trouble, &account, heard, (&format!("account_{trouble}"), who, Some(500))).await;
    }
    // Somebody holds them, so that no loop ends them first.
    let over = plan.verification(ACCOUNT, 40 * 86_400, false).await;
    let old = -31 * 86_400;
    plan.job(over, ACCOUNT, Job { heard: Some(old), is_leased: true, ..heard }).await;
    plan.planted.push(("deadline over", over, ("deadline_over".to_owned(), "nobody", Some(0))));
    let id = plan.verification(ACCOUNT, 700, false).await;
    plan.planted.push(("without work", id, ("work_missing".to_owned(), "operator", None)));

    plan.closed("passed", Some("200"), "passed", "nobody").await;
    plan.closed("failed", Some("204"), "failed", "nobody").await;
    plan.closed("review", None, "review", "app").await;
    plan.closed("void", None, "void_not_completed", "person").await;
    plan.closed("void", Some("VoidTimeout"), "void_ended", "app").await;
    plan.closed("expired", None, "expired", "operator").await;
    plan.closed("unresolvable", None, "unresolvable", "app").await;
    let id = plan.closed("passed", Some("200"), "recheck_due", "nobody").await;
    plan.job(id, ACCOUNT, Job { due: 120, is_recheck: true, ..heard }).await;
    plan.planted.last_mut().unwrap().2.2 = Some(120);
    let id = plan.closed("passed", Some("200"), "recheck_running", "provider").await;
    plan.job(id, ACCOUNT, Job { is_recheck: true, is_leased: true, ..heard }).await;
    plan
}

/// What the page shows of a text.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

async fn why(test: &TestApp, id: impl std::fmt::Display) -> Value {
    test.get_json(&format!("/verifications/{id}/why")).await
}

#[tokio::test]
async fn every_planted_situation_is_answered_the_same_by_api_console_and_command_line() {
    let names = TROUBLES.iter().map(|trouble| account(&name_of(trouble)));
    let more = names.chain([account("held")]).collect::<Vec<_>>().join("\n");
    // So that the account's own rate is one that can be said.
    let test = TestApp::with(Setup { account: "qps = 10".to_owned(), more, ..Setup::default() }).await;
    let plan = plant(&test).await;
    assert!(plan.planted.len() >= 20, "{}", plan.planted.len());
    for (name, id, (code, who, next)) in &plan.planted {
        let body = why(&test, id).await;
        assert_eq!((&body["code"], &body["who"]), (&json!(code), &json!(who)), "{name}: {body}");
        let next_at = (!body["next_at"].is_null()).then(|| time(&body["next_at"]));
        assert_eq!(next_at, next.map(|seconds| plan.at(seconds)), "{name}: {body}");
        let summary = body["summary"].as_str().unwrap();

        let page = test.get(&format!("/console/verifications/{id}")).await.text().await.unwrap();
        for part in [format!("data-code=\"{code}\""), escaped(summary)] {
            assert!(page.contains(&part), "{name}: {part} is not in {page}");
        }
        assert!(!page.contains("<b>it</b>"), "{name}: what is stored is escaped");

        let id = id.to_string();
        let mut command = checkback(["verifications", "show", &id]);
        command.env("CHECKBACK_URL", test.internal("/")).env("CHECKBACK_KEY", KEY);
        let said = run(&mut command).await;
        assert_eq!(said.code, Some(0), "{name}: {}", said.err);
        assert!(said.out.contains(&format!("\n{code}: {summary}\n")), "{name}: {}", said.out);
        if *who != "nobody" {
            assert!(said.out.contains(&format!("\n  who must act: {who}\n")), "{name}: {}", said.out);
        }
    }
}

fn beside<'a>(body: &'a Value, code: &str) -> &'a Value {
    let also = body["also"].as_array().unwrap();
    also.iter().find(|statement| statement["code"] == code).unwrap_or_else(|| panic!("{code} is not in {body}"))
}

#[tokio::test]
async fn what_may_be_lost_and_what_was_refused_is_told_beside() {
    let test = TestApp::start().await;
    let plan = Plan { pool: test.database.pool().await, now: test.clock.now(), planted: Vec::new() };
    let held = Job { lane: 2, due: 60, heard: Some(-20 * 60), is_leased: true, ..Job::default() };
    let video = plan.verification(ACCOUNT, 3600, true).await;
    plan.job(video, ACCOUNT, held).await;
    let body = why(&test, video).await;
    assert_eq!(beside(&body, "video_at_risk")["summary"], "The provider deletes the video in 10m.");

    let captured = plan.verification(ACCOUNT, 3601, true).await;
    plan.verdict(captured, "passed", Some("200")).await;
    let evidence =
        "INSERT INTO evidence (verification_id, kind, account, state, noted_at, deadline, attempts, due_at, reason,
            lease_token, leased_until)
        VALUES ($1, 'video', $2, 'pending', $3, $4, 2, $4, 'the link answered 403', $1, '2100-01-01'),
            ($1, 'face_image', $2, 'missed', $3, $4, 1, $4, 'the image is no Base64', NULL, NULL)";
    let evidence = sqlx::query(evidence).bind(captured).bind(ACCOUNT).bind(plan.now).bind(plan.at(300));
    evidence.execute(&plan.pool).await.unwrap();
    let body = why(&test, captured).await;
    assert_eq!(body["code"], "passed");
    let said = beside(&body, "video_pending")["summary"].as_str().unwrap();
    assert!(said.contains("after 2 attempts: the link answered 403"), "{said}");
    assert_eq!(beside(&body, "image_missed")["summary"], "The face_image is lost: the image is no Base64.");

    let (transaction, id) =
        test.begin(CreateTransaction::default(), json!({ "callback_token": "the-right-token-of-this" })).await;
    assert_eq!(test.callback(&transaction, Some("a-wrong-token")).await.status(), 401);
    let body = why(&test, &id).await;
    assert_eq!((&body["code"], &body["who"]), (&json!("callback_token_wrong"), &json!("app")));
}

#[tokio::test]
async fn a_lost_initialization_answers_to_its_reference() {
    let test = TestApp::start().await;
    let pool = test.database.pool().await;
    let lost = "INSERT INTO initializations (initialization_id, account, request_sha256, merchant_biz_id, state, code,
            started_at, finished_at)
        VALUES (gen_random_uuid(), $1, sha256('x'), $2, 'lost', 'http_502', $3, $3)";
    let reference = "e0c34a77f5ac40a5aa5e6ed20c350001";
    sqlx::query(lost).bind(ACCOUNT).bind(reference).bind(test.clock.now()).execute(&pool).await.unwrap();
    let body = why(&test, reference).await;
    assert_eq!(
        (&body["code"], &body["who"], &body["status"]),
        (&json!("initialize_lost"), &json!("app"), &Value::Null)
    );
    assert_eq!(test.get("/verifications/e0c34a77f5ac40a5aa5e6ed20c350002/why").await.status(), 404);
    let page = test.get("/console/unmatched").await.text().await.unwrap();
    assert!(page.contains(reference), "{page}");
}

#[test]
fn every_code_is_in_the_document() {
    let document = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/api.md")).unwrap();
    let (_, section) = document.split_once("## Why").unwrap();
    let section = section.split("\n## ").next().unwrap();
    let rows: Vec<&str> = section.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    for code in checkback::service::why::CODES {
        assert!(rows.contains(&code), "docs/api.md does not say what {code} means");
    }
    assert_eq!(rows.len(), checkback::service::why::CODES.len(), "docs/api.md has codes that are not there");
}

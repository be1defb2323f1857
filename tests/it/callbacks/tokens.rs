use std::time::Duration;

use checkback::clock::Clock;
use checkback::domain::{TokenHash, VerificationId};
use checkback::simulator::CreateTransaction;
use checkback::store::{AccountToken, Arrival, Arrived, NewVerification, Store};
use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use super::*;
use crate::support::database::database;

#[tokio::test]
async fn a_wrong_or_missing_token_changes_nothing() {
    let account = "wrong-token";
    let test = TestApp::with(account_of_its_own(account, "callback_token = \"right-for-the-account\"")).await;
    let own = register_at(&test, account, "own", Some("right")).await;
    let of_account = register_at(&test, account, "plain", None).await;
    let wrong = [
        "transactionId=own",
        "transactionId=own&callbackToken=",
        "transactionId=own&callbackToken=Right",
        "transactionId=own&callbackToken=right%20",
        // A verification's own token replaces the account's.
        "transactionId=own&callbackToken=right-for-the-account",
        "transactionId=plain",
        "transactionId=plain&callbackToken=right",
    ];
    let mut texts = Vec::new();
    for query in wrong {
        texts.push(problem(send(&test, account, query, None).await, 401, "callback_token_mismatch").await);
    }
    assert!(texts.iter().all(|text| *text == texts[0]), "the answer tells nothing about the token");
    assert_untouched(&test, &own).await;
    assert_untouched(&test, &of_account).await;
    let stored: i64 =
        sqlx::query_scalar("SELECT (SELECT count(*) FROM hints) + (SELECT count(*) FROM unmatched_callbacks)")
            .fetch_one(&test.database.pool().await)
            .await
            .unwrap();
    assert_eq!(stored, 0);
    assert_eq!(counted(account, "token_mismatch"), u64::try_from(wrong.len()).unwrap());
    accepted(send(&test, account, "transactionId=own&callbackToken=right", None).await).await;
    accepted(send(&test, account, "transactionId=plain&callbackToken=right-for-the-account", None).await).await;
}

#[tokio::test]
async fn the_longest_token_that_can_be_registered_can_come_back() {
    let test = TestApp::start().await;
    let token = "张".repeat(512);
    register_at(&test, ACCOUNT, "t", Some(&token)).await;
    accepted(send(&test, ACCOUNT, &format!("transactionId=t&callbackToken={token}"), None).await).await;
}

/// So many checks were made, and none is under way.
async fn checks(test: &TestApp, id: &str, count: u64) {
    test.until("the checks are made", || async { (test.verification(id).await["attempts"] == count).then_some(()) })
        .await;
    assert_eq!(test.provider_calls("CheckResult") as u64, count);
}

#[tokio::test]
async fn without_any_token_a_callback_makes_a_check_due_at_most_every_thirty_seconds() {
    let test = TestApp::start().await;
    let (transaction, id) = test.begin(CreateTransaction::default(), json!({})).await;
    let call_back = async || accepted(test.callback(&transaction, None).await).await;
    call_back().await;
    checks(&test, &id, 1).await;
    // Neither these nor those after the first few seconds ask again.
    for _ in 0..3 {
        call_back().await;
    }
    worked_in(&test).await;
    assert_eq!(callbacks(&test, &id).await.len(), 4);
    let next = test.verification(&id).await["next_attempt_at"].clone();
    let due = chrono::DateTime::parse_from_rfc3339(next.as_str().unwrap()).unwrap().to_utc();
    assert_eq!((due - test.clock.now()).num_seconds(), 2, "the schedule after a callback has begun");
    test.advance(Duration::from_secs(2));
    checks(&test, &id, 2).await;
    test.advance(Duration::from_secs(5));
    checks(&test, &id, 3).await;
    test.advance(Duration::from_secs(10));
    checks(&test, &id, 4).await;
    // Thirty seconds after the first callback the next one may ask, and the schedule goes on where it was.
    test.advance(Duration::from_secs(14));
    call_back().await;
    checks(&test, &id, 5).await;
    let next = test.verification(&id).await["next_attempt_at"].clone();
    let due = chrono::DateTime::parse_from_rfc3339(next.as_str().unwrap()).unwrap().to_utc();
    assert_eq!((due - test.clock.now()).num_seconds(), 60, "not restarted");
    // It is no authentication: the deadline does not move.
    let body = test.verification(&id).await;
    let time = |value: &Value| chrono::DateTime::parse_from_rfc3339(value.as_str().unwrap()).unwrap();
    assert_eq!((time(&body["deadlines"]["result"]) - time(&body["registered_at"])).num_days(), 31);
}

#[tokio::test]
async fn the_right_token_starts_the_deadlines_and_repeats_do_not_move_them() {
    let test = TestApp::start().await;
    let registration = json!({ "callback_token": "right", "expect_video": true });
    let (transaction, id) = test.begin(CreateTransaction::default(), registration).await;
    test.advance(Duration::from_mins(1));
    accepted(test.callback(&transaction, Some("right")).await).await;
    checks(&test, &id, 1).await;
    let first = test.verification(&id).await;
    let time = |value: &Value| chrono::DateTime::parse_from_rfc3339(value.as_str().unwrap()).unwrap();
    assert_eq!((time(&first["deadlines"]["result"]) - time(&first["callback_at"])).num_days(), 30);
    assert_eq!((time(&first["deadlines"]["video"]) - time(&first["callback_at"])).num_minutes(), 30);
    test.advance(Duration::from_mins(1));
    accepted(test.callback(&transaction, Some("right")).await).await;
    worked_in(&test).await;
    assert_eq!(callbacks(&test, &id).await.len(), 2);
    let again = test.verification(&id).await;
    assert_eq!((&again["deadlines"], &again["callback_at"]), (&first["deadlines"], &first["callback_at"]));
}

/// An arrival for each worth that a token can have, at each kind of registration.
fn arrivals(at: DateTime<Utc>) -> Vec<Arrival> {
    let tokens = [None, Some(TokenHash::of("own")), Some(TokenHash::of("account")), Some(TokenHash::of("other"))];
    let mut arrivals = Vec::new();
    for transaction_id in ["own", "plain", "video", "nobody's"] {
        for (token, account_token) in tokens.into_iter().flat_map(|token| {
            [AccountToken::Unset, AccountToken::Right, AccountToken::Wrong].map(|account_token| (token, account_token))
        }) {
            arrivals.push(Arrival {
                account: ACCOUNT.to_owned(),
                transaction_id: transaction_id.to_owned(),
                token,
                account_token,
                passed: Some("Y".to_owned()),
                sub_code: None,
                traceparent: None,
                at,
            });
        }
    }
    arrivals
}

#[tokio::test]
async fn a_process_that_did_not_register_them_judges_callbacks_like_the_one_that_did() {
    let database = database().await;
    let (here, elsewhere) = (Store::new(database.options(), 2), Store::new(database.options(), 2));
    let now = Clock::system(TimeDelta::zero()).now();
    for (n, (transaction_id, token, expect_video)) in
        [("own", Some("own"), false), ("plain", None, false), ("video", Some("own"), true)].into_iter().enumerate()
    {
        let new = NewVerification {
            id: VerificationId(Uuid::from_u128(n as u128 + 1)),
            account: ACCOUNT.to_owned(),
            transaction_id: transaction_id.to_owned(),
            merchant_biz_id: None,
            fresh_merchant_biz_id: "biz".to_owned(),
            product: None,
            expect_video: Some(expect_video),
            return_url: None,
            callback_token: token.map(TokenHash::of),
            metadata: None,
            registered_at: now,
            due_at: now,
            initialized: false,
        };
        here.register(&new).await.unwrap();
    }
    let pool = database.pool().await;
    let rows = "SELECT json_agg(row_to_json(r))::text
        FROM (SELECT verification_id, account, lane, at, kind, authenticated, detail::text FROM hints
            ORDER BY hint_id) r";
    let (arrivals, mut judged) = (arrivals(now), Vec::new());
    // The third time the other one has met them too.
    for store in [&here, &elsewhere, &elsewhere] {
        sqlx::raw_sql("DELETE FROM hints; DELETE FROM unmatched_callbacks").execute(&pool).await.unwrap();
        let (arrived, _) = store.accept_callbacks(&arrivals).await.unwrap();
        let stored: String = sqlx::query_scalar(rows).fetch_one(&pool).await.unwrap();
        judged.push((arrived, stored));
    }
    for outcome in [Arrived::Accepted, Arrived::TokenMismatch, Arrived::Unmatched, Arrived::Unknown] {
        assert!(judged[0].0.contains(&outcome), "{outcome:?}");
    }
    assert_eq!(judged[0], judged[1]);
    assert_eq!(judged[1], judged[2]);
}

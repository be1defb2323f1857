use std::collections::HashSet;
use std::time::Duration;

use checkback::simulator::{Complete, CreateTransaction};
use serde_json::{Value, json};

use super::{OTHER_ACCOUNT, register, register_plain};
use crate::support::app::{ACCOUNT, Setup, TestApp};

async fn page(test: &TestApp, query: &str) -> (Vec<String>, Option<String>) {
    let body = test.get_json(&format!("/verifications?{query}")).await;
    assert_eq!(body.as_object().unwrap().len(), 2, "{body}");
    let ids = body["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect();
    (ids, body["next_cursor"].as_str().map(ToOwned::to_owned))
}

async fn ids(test: &TestApp, query: &str) -> Vec<String> {
    let (ids, next) = page(test, query).await;
    assert_eq!(next, None, "{query}: one page was expected");
    ids
}

#[tokio::test]
async fn nothing_registered_is_an_empty_page() {
    let test = TestApp::start().await;
    let body = test.get_json("/verifications").await;
    assert_eq!(body, json!({ "items": [], "next_cursor": null }));
}

#[tokio::test]
async fn items_are_whole_verifications_newest_first() {
    let test = TestApp::start().await;
    let mut expected = Vec::new();
    for n in 0..3 {
        expected.insert(0, register(&test, &json!({ "transaction_id": format!("t-{n}") })).await.1);
        test.advance(Duration::from_millis(5));
    }
    assert_eq!(test.get_json("/verifications").await["items"], Value::from(expected));
}

#[tokio::test]
async fn pages_have_no_gaps_and_no_doubles_while_more_is_registered() {
    let test = TestApp::start().await;
    let mut before = HashSet::new();
    for n in 0..25 {
        before.insert(register_plain(&test, &format!("t-{n}")).await);
        // Several share a millisecond.
        if n % 3 == 0 {
            test.advance(Duration::from_millis(1));
        }
    }
    test.advance(Duration::from_millis(1));
    let (mut seen, mut cursor, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let (ids, next) = page(&test, &format!("limit=4&cursor={cursor}")).await;
        assert!(ids.len() == 4 || next.is_none());
        seen.extend(ids);
        pages += 1;
        register_plain(&test, &format!("t-new-{pages}")).await;
        match next {
            Some(next) => cursor = next,
            None => break,
        }
    }
    assert_eq!((pages, seen.len()), (7, 25));
    assert!(seen.is_sorted_by(|one, next| one > next), "newest first");
    assert_eq!(seen.into_iter().collect::<HashSet<_>>(), before);
}

#[tokio::test]
async fn a_full_last_page_has_no_next_one() {
    let test = TestApp::start().await;
    for n in 0..4 {
        register_plain(&test, &format!("t-{n}")).await;
    }
    let (first, next) = page(&test, "limit=2").await;
    let (second, end) = page(&test, &format!("limit=2&cursor={}", next.unwrap())).await;
    assert_eq!((first.len(), second.len(), end), (2, 2, None));
}

#[tokio::test]
async fn fifty_are_shown_unless_told_otherwise_and_at_most_two_hundred() {
    let test = TestApp::start().await;
    let pool = test.database.pool().await;
    sqlx::raw_sql(
        "INSERT INTO verifications (verification_id, account, transaction_id, merchant_biz_id, expect_video, registered_at)
        SELECT ('01980c5e-8c1f-7d52-a3c4-' || lpad(n::text, 12, '0'))::uuid, 'alibaba-sg', 't-' || n, 'b', false, now()
        FROM generate_series(1, 205) AS n",
    )
    .execute(&pool)
    .await
    .unwrap();
    assert_eq!(page(&test, "").await.0.len(), 50);
    assert_eq!(page(&test, "limit=").await.0.len(), 50, "an empty value counts as none");
    let (ids, next) = page(&test, "limit=200").await;
    assert_eq!(ids.len(), 200);
    assert_eq!(page(&test, &format!("cursor={}", next.unwrap())).await.0.len(), 5);
    // Those that share a reference have pages too.
    let (ids, next) = page(&test, "merchant_biz_id=b&limit=200").await;
    assert_eq!(ids.len(), 200);
    assert_eq!(page(&test, &format!("merchant_biz_id=b&cursor={}", next.unwrap())).await.0.len(), 5);
}

#[tokio::test]
async fn every_filter_works_alone_and_with_the_others() {
    let test = TestApp::with(Setup { more: OTHER_ACCOUNT.to_owned(), ..Setup::default() }).await;
    let mut start = Vec::new();
    let mut known = Vec::new();
    for (account, transaction, reference) in
        [(ACCOUNT, "t-1", "ref1"), ("other", "t-1", "ref1"), (ACCOUNT, "t-2", "ref2"), ("other", "t-3", "ref3")]
    {
        start.push(test.clock.now().to_rfc3339_opts(chrono::SecondsFormat::Micros, true));
        let body = json!({ "account": account, "transaction_id": transaction, "merchant_biz_id": reference });
        known.push(register(&test, &body).await.1["id"].as_str().unwrap().to_owned());
        test.advance(Duration::from_millis(10));
    }
    let pick = |places: &[usize]| -> Vec<String> { places.iter().map(|place| known[*place].clone()).collect() };
    for (query, places) in [
        ("account=alibaba-sg".to_owned(), &[2, 0][..]),
        ("account=other".to_owned(), &[3, 1]),
        ("account=nobody".to_owned(), &[]),
        ("transaction_id=t-1".to_owned(), &[1, 0]),
        ("transaction_id=T-1".to_owned(), &[]),
        ("merchant_biz_id=ref1".to_owned(), &[1, 0]),
        ("transaction_id=t-1&account=other".to_owned(), &[1]),
        ("transaction_id=t-1&merchant_biz_id=ref2".to_owned(), &[]),
        ("merchant_biz_id=ref1&account=alibaba-sg&status=waiting".to_owned(), &[0]),
        ("merchant_biz_id=ref1&status=passed".to_owned(), &[]),
        ("status=waiting".to_owned(), &[3, 2, 1, 0]),
        ("status=waiting&account=other".to_owned(), &[3, 1]),
        ("status=collecting".to_owned(), &[]),
        (format!("registered_after={}", start[2]), &[3, 2]),
        (format!("registered_before={}", start[2]), &[1, 0]),
        (format!("registered_after={}&registered_before={}", start[1], start[3]), &[2, 1]),
        (format!("registered_after={}&account=other", start[1]), &[3, 1]),
        (format!("registered_after={}&status=waiting", start[3]), &[3]),
        (format!("transaction_id=t-1&registered_before={}", start[1]), &[0]),
        ("registered_after=2999-01-01T00:00:00%2B01:00".to_owned(), &[]),
        ("registered_before=1969-01-01T00:00:00Z".to_owned(), &[]),
        ("registered_after=0001-01-01T00:00:00Z&registered_before=9999-12-31T23:59:59Z".to_owned(), &[3, 2, 1, 0]),
        (
            "account=&status=&transaction_id=&merchant_biz_id=&registered_after=&registered_before=&limit=&cursor="
                .to_owned(),
            &[3, 2, 1, 0],
        ),
    ] {
        assert_eq!(ids(&test, &query).await, pick(places), "{query}");
    }
}

#[tokio::test]
async fn each_status_finds_its_own() {
    let test = TestApp::start().await;
    let begin = async |passed: Option<&str>| {
        let transaction = CreateTransaction { passed: passed.map(ToOwned::to_owned), ..CreateTransaction::default() };
        test.begin(transaction, json!({ "callback_token": "right" })).await
    };
    let mut made = Vec::new();
    for (status, passed) in [("passed", "Y"), ("failed", "N")] {
        let (transaction, id) = begin(Some(passed)).await;
        test.simulator.complete(&transaction, Complete::default()).await.unwrap();
        assert_eq!(test.callback(&transaction, Some("right")).await.status(), 200);
        test.final_verification(&id).await;
        made.push((status, id));
    }
    let unknown = register_plain(&test, "nobody-knows-this").await;
    test.post(&format!("/verifications/{unknown}/collect"), &json!({})).await;
    test.final_verification(&unknown).await;
    made.push(("unresolvable", unknown));
    let (_, id) = begin(None).await;
    test.advance(Duration::from_hours(24));
    assert_eq!(test.final_verification(&id).await["status"], "void");
    made.push(("void", id));
    let (transaction, id) = begin(None).await;
    assert_eq!(test.callback(&transaction, Some("right")).await.status(), 200);
    made.push(("collecting", id));
    made.push(("waiting", begin(None).await.1));
    for (status, id) in &made {
        assert_eq!(ids(&test, &format!("status={status}")).await, [id.clone()], "{status}");
        assert_eq!(ids(&test, &format!("status={status}&account=alibaba-sg")).await, [id.clone()], "{status}");
        assert!(ids(&test, &format!("status={status}&account=nobody")).await.is_empty());
        assert_eq!(test.verification(id).await["status"], *status);
    }
    for status in ["review", "expired"] {
        assert!(ids(&test, &format!("status={status}")).await.is_empty());
    }
}

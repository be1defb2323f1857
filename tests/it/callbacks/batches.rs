use futures_util::future::join_all;

use super::*;

#[tokio::test]
async fn each_of_many_at_once_is_answered_only_after_it_is_committed() {
    let account = "many";
    let test = TestApp::with(account_of_its_own(account, "callback_token = \"right-for-the-account\"")).await;
    let pool = test.database.pool().await;
    for n in 0..100 {
        register_at(&test, account, &format!("t-{n}"), Some("right")).await;
    }
    let one = async |n: usize| {
        let known = n % 2 == 0;
        let token = if known { "right" } else { "right-for-the-account" };
        let id = if known { format!("t-{n}") } else { format!("early-{n}") };
        let response = send(&test, account, &format!("transactionId={id}&callbackToken={token}"), None).await;
        // Looked at by another connection right after the answer: it is there for everybody.
        let statement = if known {
            "SELECT EXISTS (SELECT FROM hints h JOIN verifications v USING (verification_id) WHERE v.transaction_id = $1)
            OR EXISTS (SELECT FROM history h JOIN verifications v USING (verification_id)
                WHERE v.transaction_id = $1 AND h.kind = 'callback')"
        } else {
            "SELECT EXISTS (SELECT FROM unmatched_callbacks WHERE transaction_id = $1)"
        };
        let committed: bool = sqlx::query_scalar(statement).bind(&id).fetch_one(&pool).await.unwrap();
        (response.status().as_u16(), known, committed)
    };
    for (status, known, committed) in join_all((0..100).map(one)).await {
        assert_eq!((status, committed), (if known { 200 } else { 202 }, true));
    }
}

#[tokio::test]
async fn one_bad_callback_never_fails_its_neighbours() {
    let account = "neighbours";
    let test = TestApp::with(account_of_its_own(account, "")).await;
    let pool = test.database.pool().await;
    // The database refuses one of them, for whatever reason.
    sqlx::raw_sql(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF NEW.detail ->> 'sub_code' = '666' THEN RAISE data_exception; END IF;
            RETURN NEW;
        END $$;
        CREATE TRIGGER refuse BEFORE INSERT ON hints FOR EACH ROW EXECUTE FUNCTION refuse()",
    )
    .execute(&pool)
    .await
    .unwrap();
    for n in 0..30 {
        register_at(&test, account, &format!("t-{n}"), Some("right")).await;
    }
    let one = async |n: usize| {
        let (id, token, code) = match n {
            7 => (format!("t-{n}"), "right", "666"),
            8 => (format!("t-{n}"), "wrong", "200"),
            9 => ("nobody".to_owned(), "right", "200"),
            _ => (format!("t-{n}"), "right", "200"),
        };
        let query = format!("transactionId={id}&callbackToken={token}&subCode={code}");
        send(&test, account, &query, None).await.status().as_u16()
    };
    for (n, status) in join_all((0..30).map(one)).await.into_iter().enumerate() {
        let expected = match n {
            7 => 503,
            8 => 401,
            9 => 404,
            _ => 200,
        };
        assert_eq!(status, expected, "callback {n}");
    }
    assert_eq!(counted(account, "unavailable"), 1);
}

#[tokio::test]
async fn callbacks_while_the_database_is_down_are_counted_as_unavailable() {
    let account = "down";
    let test = TestApp::with(account_of_its_own(account, "")).await;
    let id = register_at(&test, account, "t", Some("right")).await;
    test.database.set_reachable(false).await;
    let query = "transactionId=t&callbackToken=right";
    let response = send(&test, account, query, None).await;
    assert!(response.headers().contains_key(header::RETRY_AFTER));
    problem(response, 503, "database_unavailable").await;
    test.database.set_reachable(true).await;
    assert_eq!(counted(account, "unavailable"), 1);
    test.until("it recovers", async || (send(&test, account, query, None).await.status() == 200).then_some(())).await;
    assert_eq!(callbacks(&test, &id).await.len(), 1, "only what was answered with 200 is there");
}

//! Live events: the order, going on after an id, and who is let go.

use std::collections::BTreeSet;

use checkback::service::live::{BEHIND, MOST_LISTENERS, Start};
use checkback::simulator::{Complete, CreateTransaction};
use chrono::{DateTime, Utc};
use futures_util::future::join_all;
use reqwest::{Response, StatusCode};
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::api::{problem, register_plain, wrong_fields};
use crate::support::app::{KEY, TestApp, http_client};

/// An event as it came.
#[derive(Clone, Debug, PartialEq)]
struct Event {
    id: i64,
    kind: String,
    data: Value,
}

struct Stream {
    response: Response,
    text: String,
    /// The last id, also of blocks that are no event.
    position: i64,
}

impl Stream {
    async fn of(request: reqwest::RequestBuilder) -> Self {
        let response = request.send().await.expect("an answer");
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let mut stream = Self { response, text: String::new(), position: -1 };
        let first = stream.block().await.expect("the place where it begins");
        assert!(first.starts_with("retry: 2000\nid: "), "{first}");
        stream.position = first.rsplit(' ').next().unwrap().parse().unwrap();
        stream
    }

    async fn open(test: &TestApp, path: &str) -> Self {
        Self::of(test.request(reqwest::Method::GET, path)).await
    }

    async fn after(test: &TestApp, base: String, id: i64) -> Self {
        Self::of(test.http.get(format!("{base}/events")).bearer_auth(KEY).header("Last-Event-ID", id)).await
    }

    /// The next block; `None` when the stream has ended well.
    async fn block(&mut self) -> Option<String> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.text = rest;
                return Some(block);
            }
            let bytes = self.response.chunk().await.expect("the stream does not break off")?;
            self.text.push_str(std::str::from_utf8(&bytes).unwrap());
        }
    }

    async fn next(&mut self) -> Event {
        loop {
            let block = self.block().await.expect("it goes on");
            let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
            self.position = field("id: ").unwrap().parse().unwrap();
            if let Some(data) = field("data: ") {
                let data = serde_json::from_str(&data).unwrap();
                return Event { id: self.position, kind: field("event: ").unwrap(), data };
            }
        }
    }

    async fn take(&mut self, count: usize) -> Vec<Event> {
        let mut events = Vec::new();
        while events.len() < count {
            events.push(self.next().await);
        }
        events
    }
}

fn kinds(events: &[Event]) -> Vec<&str> {
    events.iter().map(|event| event.kind.as_str()).collect()
}

fn rise(events: &[Event]) -> bool {
    events.windows(2).all(|pair| pair[0].id < pair[1].id)
}

async fn finish(test: &TestApp) -> String {
    let (transaction, id) = test.begin(CreateTransaction::default(), json!({ "callback_token": "right" })).await;
    test.simulator.complete(&transaction, Complete::default()).await.unwrap();
    assert_eq!(test.callback(&transaction, Some("right")).await.status(), 200);
    test.final_verification(&id).await;
    id
}

#[tokio::test]
async fn everything_that_happens_is_told_in_order_with_a_thin_body() {
    let test = TestApp::start().await;
    let mut stream = Stream::open(&test, "/events").await;
    let mut verdicts = Stream::open(&test, "/events?kind=verdict,erased").await;
    let id = finish(&test).await;
    let events = stream.take(4).await;
    assert_eq!(kinds(&events), ["registered", "callback", "check", "verdict"]);
    assert!(rise(&events), "{events:?}");
    let record = test.verification(&id).await;
    for event in &events {
        assert_eq!(event.data["data"]["id"], id.as_str());
        assert_eq!(event.data["data"]["merchant_biz_id"], record["merchant_biz_id"]);
        assert!(event.data["timestamp"].as_str().unwrap().ends_with('Z'));
    }
    assert_eq!(events[0].data["type"], "verification.registered");
    assert_eq!(events[2].data["data"]["outcome"], "finished");
    assert_eq!(events[3].data["type"], "verification.passed");
    assert_eq!((&events[3].data["data"]["status"], &events[3].data["data"]["revision"]), (&json!("passed"), &json!(1)));
    assert_eq!(verdicts.next().await, events[3]);
    test.request(reqwest::Method::DELETE, &format!("/verifications/{id}")).send().await.unwrap();
    assert_eq!(verdicts.next().await.data["type"], "verification.erased");
    // Erased, nothing of it but the bare facts is told again.
    let mut again = Stream::after(&test, test.internal(""), 0).await;
    let told = again.take(4).await;
    assert_eq!(kinds(&told), ["registered", "callback", "check", "verdict"]);
    assert_eq!(told[3].data["data"].get("sub_code"), None, "{told:?}");
}

#[tokio::test]
async fn all_replicas_tell_the_same_in_the_same_order_and_one_goes_on_where_another_was_left() {
    const COUNT: usize = 60;
    let test = TestApp::start().await;
    let other = test.replica().await;
    let elsewhere = format!("http://{}", other.internal);
    let mut here = Stream::open(&test, "/events").await;
    let mut there = Stream::of(test.http.get(format!("{elsewhere}/events")).bearer_auth(KEY)).await;
    let register = |n: usize| {
        let (test, elsewhere) = (&test, &elsewhere);
        async move {
            let base = if n.is_multiple_of(2) { test.internal("") } else { elsewhere.clone() };
            let body = json!({ "transaction_id": format!("t-{n}") });
            let sent = test.http.post(format!("{base}/verifications")).bearer_auth(KEY).json(&body).send().await;
            assert_eq!(sent.unwrap().status(), 201);
        }
    };
    let (_, first, second) = tokio::join!(join_all((0..COUNT).map(register)), here.take(COUNT), there.take(COUNT));
    assert_eq!(first, second);
    assert!(rise(&first));
    let ids: BTreeSet<_> = first.iter().map(|event| event.data["data"]["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), COUNT, "each once");
    for at in [0, 7, COUNT - 1] {
        let mut resumed = Stream::after(&test, elsewhere.clone(), first[at].id).await;
        assert_eq!(resumed.position, first[at].id);
        let last = register_plain(&test, &format!("after-{at}")).await;
        let mut rest = resumed.take(COUNT - at - 1).await;
        assert_eq!(rest, first[at + 1..]);
        while rest.last().is_none_or(|event| event.data["data"]["id"] != last.as_str()) {
            rest.push(resumed.next().await);
        }
        assert!(rise(&rest));
    }
    other.shut_down().await;
}

const INSERT: &str = "INSERT INTO history (verification_id, at, kind, detail)
    SELECT $1::uuid, now(), 'operator', '{\"action\": \"test\"}' FROM generate_series(1, $2::integer)";

async fn pool(test: &TestApp) -> PgPool {
    test.database.pool().await
}

#[tokio::test]
async fn what_commits_late_comes_before_what_drew_its_id_later() {
    let test = TestApp::start().await;
    let other = test.replica().await;
    let id = register_plain(&test, "first").await;
    let mut here = Stream::open(&test, "/events").await;
    let mut there = Stream::of(test.http.get(format!("http://{}/events", other.internal)).bearer_auth(KEY)).await;
    let pool = pool(&test).await;
    let mut late = pool.begin().await.unwrap();
    sqlx::query(INSERT).bind(&id).bind(2).execute(&mut *late).await.unwrap();
    let mut never = pool.begin().await.unwrap();
    sqlx::query(INSERT).bind(&id).bind(3).execute(&mut *never).await.unwrap();
    for n in 0..30 {
        register_plain(&test, &format!("later-{n}")).await;
    }
    // Only a gap has the loop look for those who write.
    let opened: DateTime<Utc> = sqlx::query_scalar("SELECT clock_timestamp()").fetch_one(&pool).await.unwrap();
    let noticed = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database()
        AND query LIKE '-- history_writers%' AND query_start > $1)";
    test.until("the gap is noticed", async || {
        let is_noticed: bool = sqlx::query_scalar(noticed).bind(opened).fetch_one(&pool).await.unwrap();
        is_noticed.then_some(())
    })
    .await;
    // Who comes now finds the gap at the beginning.
    let mut resumed = Stream::after(&test, test.internal(""), here.position).await;
    never.rollback().await.unwrap();
    late.commit().await.unwrap();
    let (first, second, third) = tokio::join!(here.take(32), there.take(32), resumed.take(32));
    assert_eq!(kinds(&first[..3]), ["operator", "operator", "registered"], "{first:?}");
    assert!(rise(&first) && first[2].id == first[1].id + 4, "{first:?}");
    assert_eq!((&first, &first), (&second, &third));
    other.shut_down().await;
}

#[tokio::test]
async fn who_begins_while_a_transaction_is_open_waits_for_it_and_misses_nothing() {
    let test = TestApp::start().await;
    let id = register_plain(&test, "first").await;
    let pool = pool(&test).await;
    let mut late = pool.begin().await.unwrap();
    sqlx::query(INSERT).bind(&id).bind(1).execute(&mut *late).await.unwrap();
    register_plain(&test, "second").await;
    let (stream, ()) = tokio::join!(Stream::after(&test, test.internal(""), 0), async {
        late.commit().await.unwrap();
    });
    let mut stream = stream;
    assert_eq!(kinds(&stream.take(3).await), ["registered", "operator", "registered"]);
}

#[tokio::test]
async fn a_stream_outlives_an_outage_of_the_database() {
    let test = TestApp::start().await;
    let mut stream = Stream::open(&test, "/events").await;
    register_plain(&test, "before").await;
    assert_eq!(stream.next().await.kind, "registered");
    test.database.set_reachable(false).await;
    assert_eq!(test.get("/events?since=1h").await.status(), 503);
    test.database.set_reachable(true).await;
    test.until("it registers again", async || {
        let body = json!({ "transaction_id": "after" });
        (test.post("/verifications", &body).await.status() == 201).then_some(())
    })
    .await;
    assert_eq!(stream.next().await.kind, "registered");
}

#[tokio::test]
async fn who_falls_behind_is_let_go_and_catches_up_by_its_id() {
    let test = TestApp::start().await;
    let id = register_plain(&test, "one").await;
    let events = test.app.as_ref().unwrap().service.live.clone();
    let mut slow = events.listen(Start::Now).await.unwrap();
    let mut quick = events.listen(Start::Now).await.unwrap();
    let pool = pool(&test).await;
    sqlx::query(INSERT).bind(&id).bind(1).execute(&pool).await.unwrap();
    assert_eq!(slow.next().await.unwrap().len(), 1);
    let position = slow.position();
    let many = i32::try_from(BEHIND).unwrap() + 600;
    sqlx::query(INSERT).bind(&id).bind(many).execute(&pool).await.unwrap();
    while quick.position() < position + i64::from(many) {
        quick.next().await.expect("who listens is told all");
    }
    assert!(slow.next().await.is_none(), "nothing is kept for it without bound");
    let mut again = events.listen(Start::After(position)).await.unwrap();
    let mut told = Vec::new();
    while told.len() < usize::try_from(many).unwrap() {
        told.extend(again.next().await.unwrap().iter().map(|event| event.row.id));
    }
    assert!(told.iter().copied().eq(position + 1..=position + i64::from(many)), "each once, in order");
}

#[tokio::test]
async fn retention_leaves_what_is_there_to_begin_with() {
    let test = TestApp::start().await;
    let id = register_plain(&test, "one").await;
    let pool = pool(&test).await;
    // A wide hole at the beginning.
    sqlx::query("SELECT setval('history_history_id_seq', 300000000)").execute(&pool).await.unwrap();
    sqlx::query("DELETE FROM history").execute(&pool).await.unwrap();
    sqlx::query(INSERT).bind(&id).bind(2).execute(&pool).await.unwrap();
    let mut stream = Stream::after(&test, test.internal(""), 1).await;
    assert_eq!(stream.take(2).await.iter().map(|event| event.id).collect::<Vec<_>>(), [300_000_001, 300_000_002]);
}

#[tokio::test]
async fn since_shows_what_was_missed() {
    let test = TestApp::start().await;
    let old = register_plain(&test, "old").await;
    test.advance(std::time::Duration::from_hours(3));
    let new = register_plain(&test, "new").await;
    let mut stream = Stream::open(&test, "/events?since=2h&kind=registered").await;
    assert_eq!(stream.next().await.data["data"]["id"], new.as_str());
    let mut stream = Stream::open(&test, "/events?since=4h").await;
    let first = stream.next().await;
    assert_eq!(first.data["data"]["id"], old.as_str());
    let resumed = test.request(reqwest::Method::GET, "/events?since=4h").header("Last-Event-ID", first.id);
    let mut resumed = Stream::of(resumed).await;
    assert_ne!(resumed.next().await.id, first.id, "the id counts, not the time");
}

#[tokio::test]
async fn only_so_many_listen_to_one_replica() {
    let test = TestApp::start().await;
    let events = test.app.as_ref().unwrap().service.live.clone();
    let listening = join_all((0..MOST_LISTENERS).map(|_| events.listen(Start::Now))).await;
    assert!(listening.iter().all(Result::is_ok));
    let response = test.get("/events").await;
    assert!(response.headers().contains_key("retry-after"));
    problem(response, 503, "overloaded").await;
    drop(listening);
    Stream::open(&test, "/events").await;
}

#[tokio::test]
async fn a_stop_ends_the_streams_well() {
    let mut test = TestApp::start().await;
    let mut stream = Stream::open(&test, "/events").await;
    let mut filtered = Stream::open(&test, "/events?account=nobody").await;
    test.stop().await;
    assert_eq!((stream.block().await, filtered.block().await), (None, None));
}

#[tokio::test]
async fn wrong_requests_are_refused() {
    let test = TestApp::start().await;
    let body = problem(test.get("/events?kind=verdicts&since=yesterday&limit=1").await, 422, "query_invalid").await;
    assert_eq!(wrong_fields(&body), ["kind", "limit", "since"]);
    for wrong in ["x", "-1", "99999999999999999999", "1000"] {
        let request = test.request(reqwest::Method::GET, "/events").header("Last-Event-ID", wrong);
        let body = problem(request.send().await.unwrap(), 422, "query_invalid").await;
        assert_eq!(wrong_fields(&body), ["Last-Event-ID"], "{wrong}");
    }
    let nobody = http_client().get(test.internal("/events")).send().await.unwrap();
    problem(nobody, 401, "unauthorized").await;
    let public = test.http.get(test.public("/events")).bearer_auth(KEY).send().await.unwrap();
    problem(public, 404, "not_found").await;
}

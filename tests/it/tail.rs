//! `checkback tail`: what it shows, how it goes on after a lost connection, and why it gives up.

use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderMap, Uri};
use axum::routing::get;
use checkback::simulator::{Answer, CreateTransaction};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::net::TcpListener;
use tokio::process::{Child, ChildStdout, Command};

use super::support::app::{KEY, TestApp};
use super::support::process::{checkback, run};

const PATIENCE: Duration = Duration::from_secs(30);

struct Tail {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Tail {
    fn start(command: &mut Command) -> Self {
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true).spawn().expect("it starts");
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        Self { child, lines }
    }

    async fn line(&mut self) -> String {
        let line = tokio::time::timeout(PATIENCE, self.lines.next_line()).await.expect("a line in time");
        line.unwrap().expect("it goes on")
    }

    async fn stop(mut self) -> Option<i32> {
        let id = i32::try_from(self.child.id().unwrap()).unwrap();
        kill_process(Pid::from_raw(id).unwrap(), Signal::TERM).unwrap();
        tokio::time::timeout(PATIENCE, self.child.wait()).await.expect("it ends").unwrap().code()
    }
}

fn command(test: &TestApp, arguments: &str) -> Command {
    let mut command = checkback(arguments.split(' '));
    command.env("CHECKBACK_URL", test.internal("/")).env("CHECKBACK_KEY", KEY);
    command
}

async fn end(test: &TestApp, passed: &str, sub_code: &str) -> String {
    let answer = Answer { passed: Some(passed.into()), sub_code: Some(sub_code.into()), ..Answer::default() };
    let transaction = CreateTransaction { answers: vec![answer], ..CreateTransaction::default() };
    let (_, id) = test.begin(transaction, json!({})).await;
    test.collect(&id).await;
    test.final_verification(&id).await;
    id
}

#[tokio::test]
async fn verdicts_are_shown_first_those_that_were_missed() {
    let test = TestApp::start().await;
    let before = end(&test, "Y", "200").await;
    let mut words = Tail::start(&mut command(&test, "tail --since 1h"));
    let mut json = Tail::start(&mut command(&test, "tail --since 1h --json --kind registered,verdict"));
    let line = words.line().await;
    assert!(line.contains("  passed  ") && line.contains(&before) && line.ends_with("sub_code 200"), "{line}");
    assert!(!line.contains('\x1b'), "colours are for terminals");
    let after = end(&test, "N", "204").await;
    let line = words.line().await;
    assert!(line.contains("  failed  ") && line.contains(&after), "{line}");
    for (event, id) in [("registered", &before), ("verdict", &before), ("registered", &after), ("verdict", &after)] {
        let line: Value = serde_json::from_str(&json.line().await).unwrap();
        assert_eq!((&line["event"], &line["data"]["id"]), (&event.into(), &id.as_str().into()), "{line}");
        assert!(line["id"].is_number());
    }
    assert_eq!((words.stop().await, json.stop().await), (Some(0), Some(0)));
}

#[tokio::test]
async fn trouble_of_an_account_is_shown_though_nothing_happens() {
    let test = TestApp::start().await;
    let pool = test.database.pool().await;
    sqlx::query("UPDATE accounts SET failing_since = now(), failing_reason = 'bad_key', failing_code = 'X'")
        .execute(&pool)
        .await
        .unwrap();
    let mut tail = Tail::start(&mut command(&test, "tail"));
    let line = tail.line().await;
    assert!(line.starts_with("account alibaba-sg is failing") && line.contains("bad_key (X)"), "{line}");
    assert_eq!(tail.stop().await, Some(0));
}

/// A service that ends each connection after one event, and remembers with what its caller came back.
#[expect(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
async fn forgetful() -> (String, Arc<Mutex<Vec<(String, String)>>>) {
    let asked: Arc<Mutex<Vec<(String, String)>>> = Arc::default();
    let remembered = Arc::clone(&asked);
    let events = move |uri: Uri, headers: HeaderMap| async move {
        let last = headers.get("last-event-id").map(|id| id.to_str().unwrap().to_owned()).unwrap_or_default();
        let mut asked = remembered.lock().unwrap();
        asked.push((uri.query().unwrap_or_default().to_owned(), last));
        let id = asked.len() * 10;
        let data = json!({ "timestamp": "2026-01-31T12:00:00Z", "data": { "id": id.to_string(), "status": "passed" } });
        format!(
            "retry: 1\nid: {}\n\nid: {id}\nevent: verdict\ndata: {data}\n\nid: {}\n\nid: 99\ndata: half",
            id - 1,
            id + 1
        )
    };
    let router = Router::new().route("/events", get(events)).route("/readyz", get(async || "{}"));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum_serve(listener, router).await });
    (url, asked)
}

/// The server of axum is a feature that the service does without.
async fn axum_serve(listener: TcpListener, router: Router) {
    let tasks = checkback::lifecycle::Tasks::new();
    checkback::http::serve(listener, router, tasks).await;
}

#[tokio::test]
async fn a_lost_connection_is_made_again_and_goes_on_after_the_last_id() {
    let (url, asked) = forgetful().await;
    let mut tail = Tail::start(checkback(["tail", "--since", "2h", "--json", "--url", &url]).env("CHECKBACK_KEY", KEY));
    for id in [10, 20, 30] {
        let line: Value = serde_json::from_str(&tail.line().await).unwrap();
        assert_eq!(line["id"], id);
    }
    let asked = asked.lock().unwrap().clone();
    let expected = [("since=2h", ""), ("", "11"), ("", "21")].map(|(query, id)| (query.to_owned(), id.to_owned()));
    assert_eq!(asked[..3], expected);
}

#[tokio::test]
async fn what_cannot_become_better_ends_it() {
    let test = TestApp::start().await;
    let kind = run(&mut command(&test, "tail --kind verdicts")).await;
    assert_eq!((kind.code, kind.err.contains("kind must be kinds of history")), (Some(2), true), "{}", kind.err);
    let since = run(&mut command(&test, "tail --since yesterday")).await;
    assert_eq!((since.code, since.err.contains("since")), (Some(2), true), "{}", since.err);
    let key = run(command(&test, "tail").env("CHECKBACK_KEY", "another")).await;
    assert_eq!((key.code, key.err.contains("--key-file")), (Some(1), true), "{}", key.err);
    let nobody = run(command(&test, "tail").env("CHECKBACK_URL", "http://127.0.0.1:1")).await;
    assert_eq!((nobody.code, nobody.err.contains("CHECKBACK_URL")), (Some(1), true), "{}", nobody.err);
}

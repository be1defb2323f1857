use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;

#[tokio::test]
async fn a_body_over_64_kib_is_refused() {
    let account = "large";
    let test = TestApp::with(account_of_its_own(account, "")).await;
    let id = register_at(&test, account, "t", Some("right")).await;
    let body = |bytes: usize| {
        let known = "transactionId=t&callbackToken=right&filler=";
        format!("{known}{}", "x".repeat(bytes - known.len()))
    };
    for bytes in [64 * 1024 + 1, 1024 * 1024] {
        problem(send(&test, account, "", Some((FORM, &body(bytes)))).await, 413, "body_too_large").await;
    }
    assert_untouched(&test, &id).await;
    assert_eq!(counted(account, "too_large"), 2);
    accepted(send(&test, account, "", Some((FORM, &body(64 * 1024)))).await).await;
}

/// Sends `bytes`, then nothing more; returns all that comes back until the service closes the connection.
async fn send_and_stall(test: &TestApp, bytes: &str) -> String {
    let mut stream = TcpStream::connect(test.app.as_ref().unwrap().public).await.unwrap();
    stream.write_all(bytes.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// The parts of a raw answer: its first line, its body, checked against the length that it announces.
fn parts(answer: &str) -> (&str, Value) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}"));
    let length = head
        .lines()
        .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ").map(ToOwned::to_owned))
        .unwrap();
    assert_eq!(length.parse::<usize>().unwrap(), body.len(), "{answer}");
    assert!(head.to_ascii_lowercase().contains("content-type: application/problem+json"), "{head}");
    (head.lines().next().unwrap(), serde_json::from_str(body).unwrap())
}

#[tokio::test]
async fn headers_or_a_body_that_do_not_come_within_ten_seconds_are_refused() {
    let account = "slow";
    let test = TestApp::with(account_of_its_own(account, "")).await;
    let head = format!("POST /callbacks/{account}?transactionId=t HTTP/1.1\r\nhost: x\r\ncontent-type: {FORM}\r\n");
    let body = format!("{head}content-length: 20\r\n\r\npassed=");
    let chunked = format!("{head}transfer-encoding: chunked\r\n\r\n7\r\npassed=\r\n");
    let (no_end, no_body, no_chunk, silent) = tokio::join!(
        send_and_stall(&test, &head),
        send_and_stall(&test, &body),
        send_and_stall(&test, &chunked),
        send_and_stall(&test, ""),
    );
    for answer in [&no_end, &no_body, &no_chunk] {
        let (line, problem) = parts(answer);
        assert_eq!(line, "HTTP/1.1 408 Request Timeout");
        assert_eq!((&problem["code"], &problem["status"]), (&json!("body_too_slow"), &json!(408)));
        for member in ["type", "title", "detail"] {
            assert!(problem[member].is_string(), "{problem}");
        }
    }
    assert_eq!(silent, "", "who sends nothing is told nothing");
    assert_eq!(counted(account, "too_slow"), 2);
}

#[tokio::test]
async fn a_body_that_breaks_off_is_malformed() {
    let account = "broken-off";
    let test = TestApp::with(account_of_its_own(account, "")).await;
    let id = register_at(&test, account, "t", None).await;
    let mut stream = TcpStream::connect(test.app.as_ref().unwrap().public).await.unwrap();
    let request = format!(
        "POST /callbacks/{account}?transactionId=t HTTP/1.1\r\nhost: x\r\ncontent-type: {FORM}\r\n\
         content-length: 20\r\n\r\npassed="
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    test.until("it is counted", async || (counted(account, "malformed") == 1).then_some(())).await;
    assert_untouched(&test, &id).await;
}

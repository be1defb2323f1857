//! Many large answers at once share one budget of memory.

#![cfg(test)]

use std::cell::Cell;
use std::time::Duration;

use bytes::Bytes;
use checkback::provider::http::{HttpAnswer, HttpClient, HttpError, HttpSettings, SMALL_BODY};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use http::{HeaderMap, Method};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

const LARGE: usize = 1 << 20;
const ROOM: usize = 4 * LARGE;

fn client(total: Duration, max_body: usize) -> HttpClient {
    HttpClient::with_room(HttpSettings { connect: Duration::from_secs(10), total, max_body }, ROOM).unwrap()
}

/// Answers every call with as many bytes as its path says; a path with `-` does not announce them.
struct Server {
    address: String,
    _task: JoinSet<()>,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connections.spawn(answer(stream));
            }
        });
        Self { address, _task: task }
    }

    async fn ask(&self, client: &HttpClient, path: impl std::fmt::Display) -> Result<HttpAnswer, HttpError> {
        let url = format!("{}/{path}", self.address).parse().unwrap();
        client.send(Method::GET, url, HeaderMap::new(), Bytes::new()).await
    }
}

async fn answer(mut stream: TcpStream) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = stream.read_u8().await else { return };
        head.push(byte);
    }
    let head = String::from_utf8(head).unwrap();
    let path = head.split(' ').nth(1).unwrap().trim_start_matches('/');
    let (length, announced) = match path.strip_suffix('-') {
        Some(length) => (length, false),
        None => (path, true),
    };
    let length: usize = length.parse().unwrap();
    let mut bytes = b"HTTP/1.1 200 OK\r\nconnection: close\r\n".to_vec();
    if announced {
        bytes.extend_from_slice(format!("content-length: {length}\r\n").as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.resize(bytes.len() + length, b'x');
    // The client may have hung up.
    let _ = stream.write_all(&bytes).await;
}

#[tokio::test]
async fn no_more_is_held_than_there_is_room_for() {
    let server = Server::start().await;
    let client = client(Duration::from_secs(1), LARGE);
    let calls: FuturesUnordered<_> = (0..20).map(|_| server.ask(&client, LARGE)).collect();
    // All answers are kept, so those that find no room never get any.
    let answers: Vec<_> = calls.collect().await;
    let held: usize = answers.iter().flatten().map(|answer| answer.body.len()).sum();
    assert_eq!(held, ROOM);
    assert!(answers.iter().filter_map(|answer| answer.as_ref().err()).all(|error| error.code() == "no_room"));
    // Small ones need none.
    assert_eq!(server.ask(&client, SMALL_BODY).await.unwrap().body.len(), SMALL_BODY);
    drop(answers);
    assert_eq!(server.ask(&client, LARGE).await.unwrap().body.len(), LARGE);
}

#[tokio::test]
async fn all_large_answers_arrive_one_after_the_other() {
    let server = Server::start().await;
    let client = client(Duration::from_mins(1), LARGE);
    let (held, most) = (Cell::new(0), Cell::new(0));
    let calls: FuturesUnordered<_> = (0..200)
        .map(|call| {
            let (server, client, held, most) = (&server, &client, &held, &most);
            async move {
                let path = format!("{LARGE}{}", if call % 10 == 0 { "-" } else { "" });
                let answer = server.ask(client, path).await.unwrap();
                held.set(held.get() + answer.body.len());
                most.set(most.get().max(held.get()));
                // Others have their turn while this one is held.
                for _ in 0..10 {
                    tokio::task::yield_now().await;
                }
                held.set(held.get() - answer.body.len());
            }
        })
        .collect();
    assert_eq!(calls.count().await, 200);
    assert!(most.get() <= ROOM, "{} bytes at once", most.get());
}

#[tokio::test]
async fn an_answer_of_unknown_length_takes_room_for_the_longest() {
    let server = Server::start().await;
    let client = client(Duration::from_secs(1), ROOM);
    let unknown = server.ask(&client, format!("{LARGE}-")).await.unwrap();
    assert_eq!(unknown.body.len(), LARGE);
    assert!(matches!(server.ask(&client, LARGE).await, Err(HttpError::NoRoom)));
    drop(unknown);
    assert!(server.ask(&client, LARGE).await.is_ok());
}

#[tokio::test]
async fn the_longest_answer_fits_whatever_the_room() {
    let server = Server::start().await;
    let client = client(Duration::from_mins(1), 2 * ROOM);
    assert_eq!(server.ask(&client, 2 * ROOM).await.unwrap().body.len(), 2 * ROOM);
    for path in [format!("{}", 2 * ROOM + 1), format!("{}-", 2 * ROOM + 1)] {
        assert!(matches!(server.ask(&client, path).await, Err(HttpError::BodyTooLarge { .. })));
    }
}

#[tokio::test]
async fn room_is_held_as_long_as_what_was_made_from_the_answer() {
    let server = Server::start().await;
    let client = client(Duration::from_secs(1), ROOM);
    let answer = server.ask(&client, ROOM).await.unwrap();
    let (room, body) = (answer.room, answer.body);
    let part = room.held_by(body).slice(10..20);
    assert!(matches!(server.ask(&client, LARGE).await, Err(HttpError::NoRoom)));
    drop(part);
    assert!(server.ask(&client, LARGE).await.is_ok());
}

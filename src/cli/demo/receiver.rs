//! The merchant's receiver of webhooks: it keeps what it is told.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};

use super::cases::Case;
use crate::lifecycle::Tasks;

/// How long the last events may be under way. Nothing takes this long when all is well.
const PATIENCE: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(20);

/// What was told: the verification and the type of the event. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Receiver(Arc<Mutex<BTreeSet<(String, String)>>>);

impl Receiver {
    /// Listens until `tasks` stop.
    pub async fn start(tasks: &Tasks) -> anyhow::Result<(Self, SocketAddr)> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("no port is free")?;
        let address = listener.local_addr()?;
        let receiver = Self::default();
        let (serving, connections) = (receiver.clone(), tasks.clone());
        tasks.spawn(async move {
            let stopping = connections.stopping();
            tokio::pin!(stopping);
            loop {
                let stream = tokio::select! {
                    accepted = listener.accept() => accepted,
                    () = &mut stopping => return,
                };
                if let Ok((stream, _)) = stream {
                    connections.spawn(serving.clone().serve(stream, connections.stopping()));
                }
            }
        });
        Ok((receiver, address))
    }

    async fn serve(self, stream: TcpStream, stopping: impl Future<Output = ()>) {
        let answer = service_fn(async |request: Request<Incoming>| {
            let body = request.into_body().collect().await.map(http_body_util::Collected::to_bytes);
            let mut response = Response::new(Empty::<Bytes>::new());
            *response.status_mut() = self.take(&body.unwrap_or_default());
            Ok::<_, Infallible>(response)
        });
        tokio::select! {
            _ended = http1::Builder::new().serve_connection(TokioIo::new(stream), answer) => {}
            () = stopping => {}
        }
    }

    fn take(&self, body: &[u8]) -> StatusCode {
        let event: Value = serde_json::from_slice(body).unwrap_or_default();
        let (Some(id), Some(kind)) = (event["data"]["id"].as_str(), event["type"].as_str()) else {
            return StatusCode::BAD_REQUEST;
        };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert((id.to_owned(), kind.to_owned()));
        StatusCode::NO_CONTENT
    }

    fn knows(&self, end: &(String, String)) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(end)
    }

    /// The cases whose end nobody told, after a moment for what is under way.
    pub async fn untold<'a>(&self, cases: &'a [Case], ends: &[Option<(String, String)>]) -> Vec<&'a str> {
        let missing = || {
            let pairs = cases.iter().zip(ends);
            let untold = pairs.filter(|(_, end)| end.as_ref().is_some_and(|end| !self.knows(end)));
            untold.map(|(case, _)| case.name).collect::<Vec<_>>()
        };
        let told = async {
            while !missing().is_empty() {
                tokio::time::sleep(LOOK).await;
            }
        };
        let _in_time = tokio::time::timeout(PATIENCE, told).await.is_ok();
        missing()
    }

    /// How many events were told, in words.
    pub fn summary(&self) -> String {
        let told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for (_, kind) in told.iter() {
            *counts.entry(kind.trim_start_matches("verification.")).or_default() += 1;
        }
        let parts: Vec<String> = counts.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        format!("{} events came to the merchant's webhook: {}.", told.len(), parts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_counted_once_and_by_type() {
        let receiver = Receiver::default();
        let event = |id: &str, kind: &str| format!(r#"{{"type":"verification.{kind}","data":{{"id":"{id}"}}}}"#);
        for (id, kind) in [("a", "passed"), ("a", "passed"), ("b", "passed"), ("b", "erased")] {
            assert_eq!(receiver.take(event(id, kind).as_bytes()), StatusCode::NO_CONTENT);
        }
        assert_eq!(receiver.take(b"nonsense"), StatusCode::BAD_REQUEST);
        assert_eq!(receiver.summary(), "3 events came to the merchant's webhook: 1 erased, 2 passed.");
    }
}

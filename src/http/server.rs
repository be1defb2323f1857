//! A listener: bounded in connections, header time and header size, and stopped softly.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tower::ServiceExt;
use tracing::{debug, warn};

use super::body::ARRIVAL;
use crate::lifecycle::Tasks;

/// Connections at a time on one listener; more wait to be accepted.
const MOST_CONNECTIONS: usize = 4096;
/// How long to wait when a connection cannot be accepted, for example because file descriptors ran out.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

const TOO_SLOW: &[u8] = b"HTTP/1.1 408 Request Timeout\r\ncontent-type: application/problem+json\r\n\
content-length: 153\r\nconnection: close\r\n\r\n\
{\"type\":\"urn:checkback:problem:body_too_slow\",\"title\":\"The request did not arrive in time\",\"status\":408,\
\"code\":\"body_too_slow\",\"detail\":\"Send it again.\"}";

/// Serves until `tasks` stops; then finishes the requests under way.
pub async fn serve(listener: TcpListener, router: Router, tasks: Tasks) {
    let room = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let stopping = tasks.stopping();
    tokio::pin!(stopping);
    loop {
        let permit = tokio::select! {
            biased;
            () = &mut stopping => return,
            permit = Arc::clone(&room).acquire_owned() => permit,
        };
        let accepted = tokio::select! {
            biased;
            () = &mut stopping => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let (router, tasks_too) = (router.clone(), tasks.clone());
                tasks.spawn(async move {
                    connection(stream, router, tasks_too).await;
                    drop(permit);
                });
            }
            Err(error) => {
                warn!(error = &error as &dyn std::error::Error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, router: Router, tasks: Tasks) {
    // Answers are small and complete: waiting for more to send would only delay them.
    if let Err(error) = stream.set_nodelay(true) {
        debug!(error = &error as &dyn std::error::Error, "TCP_NODELAY could not be set");
    }
    let service = router.map_request(|request: hyper::Request<Incoming>| request.map(Body::new));
    let service = TowerToHyperService::new(service);
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(ARRIVAL)
        .serve_connection(TokioIo::new(stream), service);
    let stopping = tasks.stopping();
    tokio::pin!(stopping);
    let mut is_stopping = false;
    let result = loop {
        tokio::select! {
            biased;
            result = poll_fn(|context| Future::poll(Pin::new(&mut connection), context)) => break result,
            () = &mut stopping, if !is_stopping => {
                is_stopping = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
        }
    };
    if let Err(error) = result {
        let parts = connection.into_parts();
        // Headers that never came whole; an idle connection is closed without a word.
        if error.is_timeout() && !parts.read_buf.is_empty() {
            let mut stream = parts.io.into_inner();
            // The peer may have gone.
            let _: Result<(), _> = stream.write_all(TOO_SLOW).await;
            let _: Result<(), _> = stream.shutdown().await;
        }
    }
}

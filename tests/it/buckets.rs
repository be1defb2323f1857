//! The evidence store in a bucket, against a small server that speaks as much S3 as it takes.

#![cfg(test)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, Response, StatusCode, header};
use axum::{Router, body};
use bytes::Bytes;
use checkback::domain::{EvidenceKind, VerificationId};
use checkback::evidence::{
    AwsKeys, EvidenceStore, GetError, Location, PutError, Recipients, StoreSettings, object_name,
};
use futures_util::{TryStreamExt, stream};
use sha2::{Digest, Sha256};
use sqlx::types::Uuid;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// More than one part of an upload.
const LARGE: usize = 11 << 20;

#[derive(Default)]
struct Bucket {
    objects: BTreeMap<String, Vec<u8>>,
    /// By upload, then by part.
    uploads: BTreeMap<String, BTreeMap<u32, Vec<u8>>>,
    unsigned: usize,
}

#[derive(Clone, Default)]
struct Server(Arc<Mutex<Bucket>>);

impl Server {
    fn bucket(&self) -> MutexGuard<'_, Bucket> {
        self.0.lock().unwrap()
    }

    async fn start(tasks: &mut JoinSet<()>) -> (Self, EvidenceStore) {
        let server = Self::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(answer).with_state(server.clone());
        tasks.spawn(async move { axum::serve(listener, router).await.unwrap() });
        let store = EvidenceStore::new(StoreSettings {
            location: Location::S3 {
                bucket: "faces".to_owned(),
                prefix: "/in/here".to_owned(),
                region: "ap-southeast-1".to_owned(),
                endpoint: Some(endpoint),
                keys: AwsKeys {
                    access_key_id: Some("AKIDPLANTED".into()),
                    secret_access_key: Some("planted-secret".into()),
                    session_token: None,
                },
            },
            recipients: Recipients::default(),
            identities: None,
        });
        (server, store)
    }
}

fn reply(status: u16, text: impl Into<Body>) -> Response<Body> {
    Response::builder().status(status).body(text.into()).unwrap()
}

/// One value of a query.
fn of(query: &str, name: &str) -> Option<String> {
    url::form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

async fn answer(State(server): State<Server>, request: Request) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let body = body::to_bytes(body, usize::MAX).await.unwrap();
    let query = parts.uri.query().unwrap_or_default().to_owned();
    let path = parts.uri.path();
    let key = path.strip_prefix("/faces").unwrap_or(path).trim_start_matches('/').to_owned();
    let mut bucket = server.bucket();
    let signed = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    if !signed.is_some_and(|value| value.starts_with("AWS4-HMAC-SHA256 Credential=AKIDPLANTED/")) {
        bucket.unsigned += 1;
    }
    match (&parts.method, of(&query, "uploadId"), of(&query, "partNumber")) {
        (&Method::POST, None, _) if query.starts_with("uploads") => {
            let id = format!("upload-{}", bucket.uploads.len());
            bucket.uploads.insert(id.clone(), BTreeMap::new());
            let text = format!(
                "<InitiateMultipartUploadResult><Bucket>faces</Bucket><Key>{key}</Key><UploadId>{id}</UploadId>\
                 </InitiateMultipartUploadResult>"
            );
            reply(200, text)
        }
        (&Method::PUT, Some(upload), Some(part)) => {
            bucket.uploads.get_mut(&upload).unwrap().insert(part.parse().unwrap(), body.to_vec());
            let mut response = reply(200, "");
            response.headers_mut().insert(header::ETAG, format!("\"{part}\"").parse().unwrap());
            response
        }
        (&Method::POST, Some(upload), _) => {
            let whole: Vec<u8> = bucket.uploads.remove(&upload).unwrap().into_values().flatten().collect();
            bucket.objects.insert(key.clone(), whole);
            reply(
                200,
                format!(
                    "<CompleteMultipartUploadResult><Key>{key}</Key><ETag>\"e\"</ETag></CompleteMultipartUploadResult>"
                ),
            )
        }
        (&Method::DELETE, Some(upload), _) => {
            bucket.uploads.remove(&upload);
            reply(204, "")
        }
        (&Method::PUT, ..) => {
            bucket.objects.insert(key, body.to_vec());
            reply(200, "")
        }
        (&Method::DELETE, ..) => {
            bucket.objects.remove(&key);
            reply(204, "")
        }
        (&Method::GET, ..) if of(&query, "list-type").is_some() => {
            let prefix = of(&query, "prefix").unwrap_or_default();
            let listed = bucket.objects.iter().filter(|(name, _)| name.starts_with(&prefix));
            let listed: Vec<String> = listed
                .map(|(name, bytes)| {
                    format!(
                        "<Contents><Key>{name}</Key><Size>{}</Size><ETag>\"e\"</ETag>\
                         <LastModified>2026-11-22T00:00:00.000Z</LastModified></Contents>",
                        bytes.len()
                    )
                })
                .collect();
            reply(
                200,
                format!("<ListBucketResult><IsTruncated>false</IsTruncated>{}</ListBucketResult>", listed.concat()),
            )
        }
        (&Method::GET | &Method::HEAD, ..) => match bucket.objects.get(&key) {
            Some(bytes) => ranged(&parts.method, &parts.headers, bytes),
            None => reply(404, "<Error><Code>NoSuchKey</Code><Message>none</Message></Error>"),
        },
        _ => reply(400, "<Error><Code>NotSpoken</Code><Message>none</Message></Error>"),
    }
}

fn ranged(method: &Method, headers: &HeaderMap, bytes: &[u8]) -> Response<Body> {
    let range = headers.get(header::RANGE).and_then(|range| range.to_str().ok()?.strip_prefix("bytes="));
    let (status, from, to) = match range.and_then(|range| range.split_once('-')) {
        Some((from, to)) => {
            let to = to.parse().map_or(bytes.len(), |to: usize| bytes.len().min(to + 1));
            (StatusCode::PARTIAL_CONTENT, from.parse().unwrap(), to)
        }
        None => (StatusCode::OK, 0, bytes.len()),
    };
    let body = if method == Method::HEAD { Body::empty() } else { Body::from(bytes[from..to].to_vec()) };
    Response::builder()
        .status(status)
        .header(header::CONTENT_LENGTH, to - from)
        .header(header::CONTENT_RANGE, format!("bytes {from}-{}/{}", to.saturating_sub(1), bytes.len()))
        .body(body)
        .unwrap()
}

fn id(n: u128) -> VerificationId {
    VerificationId(Uuid::from_u128(n))
}

fn picture(length: usize) -> Vec<u8> {
    let mut picture = b"\x89PNG\r\n\x1A\n\0\0\0\rIHDR".to_vec();
    picture.extend((picture.len()..length).map(|at| u8::try_from(at % 251).unwrap()));
    picture
}

async fn put(store: &EvidenceStore, n: u128, bytes: &[u8], breaks: bool) -> Result<String, PutError<&'static str>> {
    let object = object_name("a", id(n), EvidenceKind::FaceImage, Uuid::from_u128(n));
    let pieces = bytes.chunks(300_000).map(|piece| Ok(Bytes::copy_from_slice(piece)));
    let end = breaks.then_some(Err("broken"));
    let source = stream::iter(pieces.chain(end).collect::<Vec<_>>());
    let stored = store.put(&object, EvidenceKind::FaceImage, source).await?;
    assert_eq!(stored.sha256, <[u8; 32]>::from(Sha256::digest(bytes)));
    Ok(object)
}

#[tokio::test]
async fn a_bucket_keeps_whole_objects_and_gives_them_back() {
    let mut tasks = JoinSet::new();
    let (server, store) = Server::start(&mut tasks).await;
    store.probe().await.unwrap();
    for (n, length) in [(1, 500), (2, LARGE)] {
        let bytes = picture(length);
        let object = put(&store, n, &bytes, false).await.unwrap();
        assert!(server.bucket().objects.contains_key(&format!("in/here/{object}")));
        let pieces: Vec<Bytes> = store.get(&object, false).await.unwrap().try_collect().await.unwrap();
        assert!(pieces.concat() == bytes, "{length}");
    }
    assert_eq!(store.delete_all("a", id(2)).await.unwrap(), 1);
    assert_eq!(store.delete_all("a", id(2)).await.unwrap(), 0);
    let bucket = server.bucket();
    assert_eq!((bucket.objects.len(), bucket.uploads.len(), bucket.unsigned), (1, 0, 0));
}

#[tokio::test]
async fn an_upload_that_fails_leaves_no_object_and_no_parts() {
    let mut tasks = JoinSet::new();
    let (server, store) = Server::start(&mut tasks).await;
    for length in [500, LARGE] {
        assert!(matches!(put(&store, 1, &picture(length), true).await, Err(PutError::Source("broken"))));
        let bucket = server.bucket();
        assert!(bucket.objects.is_empty() && bucket.uploads.is_empty(), "{length}");
    }
    let object = object_name("a", id(1), EvidenceKind::FaceImage, Uuid::from_u128(1));
    assert!(matches!(store.get(&object, false).await.err(), Some(GetError::NotFound)));
}

#[tokio::test]
async fn a_bucket_that_does_not_answer_is_an_error_that_holds_no_key() {
    let mut tasks = JoinSet::new();
    let (_, store) = Server::start(&mut tasks).await;
    tasks.shutdown().await;
    let error = store.probe().await.unwrap_err();
    let shown = format!("{error:?} {error} {store:?}");
    assert!(!shown.contains("planted-secret") && !shown.contains("Signature="), "{shown}");
}

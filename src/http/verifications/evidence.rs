//! `GET /verifications/{id}/evidence/{kind}`: the bytes of an image or a video.

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::parse_id;
use super::query::Query;
use crate::domain::{EvidenceKind, EvidenceState};
use crate::http::auth::Scope;
use crate::http::openapi::words;
use crate::http::{Api, Problem, REQUEST_ID, answered};
use crate::service::evidence::EvidenceRead;
use crate::store::{EvidenceObject, Reader};

const DIGEST: HeaderName = HeaderName::from_static("digest");

/// The bytes of an image or a video
///
/// The read is in the history before the first byte is sent. Where the bytes are not those that were stored, the
/// connection breaks before the end.
#[utoipa::path(
    get,
    path = "/verifications/{id}/evidence/{kind}",
    operation_id = "show_evidence",
    tag = "verifications",
    params(
        ("id" = String, Path, format = "uuid", description = "The `id` that registering returned."),
        ("kind" = String, Path, extensions(("x-enum" = json!(words::evidence_kinds()))), example = "face_image"),
    ),
    responses((status = 200, description = "The bytes.",
        content(
            (Vec<u8> = "image/jpeg"), (Vec<u8> = "image/png"), (Vec<u8> = "image/webp"),
            (Vec<u8> = "video/mp4"), (Vec<u8> = "video/webm"),
        ),
        headers(
            ("Digest" = String, description = "`sha-256=` and the Base64 of the hash."),
            ("Cache-Control" = String, description = "`no-store`"),
        ))),
    extensions(
        ("x-required-scope" = json!("evidence")),
        ("x-problems" = json!([
            "query_invalid", "verification_not_found", "evidence_not_found", "evidence_sealed", "evidence_unavailable",
            "database_unavailable",
        ])),
    ),
)]
pub async fn evidence(
    State(api): State<Api>,
    path: Result<Path<(String, String)>, PathRejection>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let key = api.keys.require(&headers, Scope::Evidence)?;
    Query::of(&uri).finish()?;
    let Ok(Path((id, kind))) = path else { return Err(Problem::verification_not_found()) };
    let id = parse_id(Ok(Path(id)))?;
    let Ok(kind) = kind.parse::<EvidenceKind>() else {
        let kinds = EvidenceKind::ALL.map(EvidenceKind::as_str).join(", ");
        return Err(Problem::evidence_not_found(format!("There is no such kind of evidence. The kinds are {kinds}.")));
    };
    let request_id = headers.get(&REQUEST_ID).and_then(|id| id.to_str().ok());
    let reader = Reader { key, request_id };
    match answered(api.service.read_evidence(id, kind, &reader)).await? {
        EvidenceRead::Read { object, bytes } => Ok(respond(&object, Body::from_stream(bytes))),
        EvidenceRead::NoVerification => Err(Problem::verification_not_found()),
        EvidenceRead::NotStored(standing) => Err(Problem::evidence_not_found(why(kind, standing))),
        EvidenceRead::Sealed => Err(Problem::evidence_sealed()),
        EvidenceRead::Unavailable => Err(Problem::evidence_unavailable()),
    }
}

pub(in crate::http) fn respond(object: &EvidenceObject, body: Body) -> Response {
    let digest = format!("sha-256={}", STANDARD.encode(object.sha256));
    let text = |text: &str| HeaderValue::from_str(text).expect("types and Base64 are plain text");
    let headers = [
        (header::CONTENT_TYPE, text(&object.content_type)),
        (header::CONTENT_LENGTH, HeaderValue::from(object.bytes)),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (DIGEST, text(&digest)),
    ];
    (headers, body).into_response()
}

/// Why there is nothing to show.
pub(in crate::http) fn why(kind: EvidenceKind, standing: Option<(EvidenceState, Option<String>)>) -> String {
    let Some((state, reason)) = standing else {
        return format!("No {kind} is known of this verification. Its `evidence` lists what there is.");
    };
    let reason = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
    match state {
        EvidenceState::Pending => format!("The {kind} is being stored{reason}. Ask again in a moment."),
        state => format!("The {kind} is {state}{reason}."),
    }
}

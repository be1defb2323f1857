//! Looking at what is about a person: an image, a video, the provider's answer. Only by a form, so that nothing is looked
//! at by accident, and only after it is recorded who does.

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderValue, header};
use axum::response::IntoResponse;

use super::Page;
use super::viewer::actor;
use crate::domain::EvidenceKind;
use crate::http::auth::Scope;
use crate::http::verifications::{PathId, evidence as api_evidence, parse_id, raw as api_raw};
use crate::http::{Api, Problem, REQUEST_ID, answered};
use crate::service::evidence::EvidenceRead;
use crate::store::{AnswerRead, Reader};

/// A browser puts an image into a document of its own making, which has styles.
const IMAGE_POLICY: &str = "default-src 'none'; img-src 'self'; style-src 'unsafe-inline'; frame-ancestors 'none'";

pub async fn evidence(
    State(api): State<Api>,
    path: Result<Path<(String, String)>, PathRejection>,
    request: Request,
) -> Page {
    let (parts, body) = request.into_parts();
    let (viewer, _) = actor(&api, &parts.headers, body).await?;
    viewer.require(Scope::Evidence)?;
    let Ok(Path((id, kind))) = path else { return Err(Problem::verification_not_found().into()) };
    let id = parse_id(Ok(Path(id)))?;
    let Ok(kind) = kind.parse::<EvidenceKind>() else {
        return Err(Problem::evidence_not_found("There is no such kind of evidence.").into());
    };
    let request_id = parts.headers.get(&REQUEST_ID).and_then(|id| id.to_str().ok());
    let reader = Reader { key: viewer.name.as_deref(), request_id };
    let (object, bytes) = match answered(api.service.read_evidence(id, kind, &reader)).await? {
        EvidenceRead::Read { object, bytes } => (object, bytes),
        EvidenceRead::NoVerification => return Err(Problem::verification_not_found().into()),
        EvidenceRead::NotStored(standing) => {
            return Err(Problem::evidence_not_found(api_evidence::why(kind, standing)).into());
        }
        EvidenceRead::Sealed => return Err(Problem::evidence_sealed().into()),
        EvidenceRead::Unavailable => return Err(Problem::evidence_unavailable().into()),
    };
    let mut response = api_evidence::respond(&object, Body::from_stream(bytes));
    // A browser shows images and nothing else here; a player would ask for parts of a video again and again.
    let is_image = object.content_type.starts_with("image/");
    let disposition = if is_image { "inline" } else { "attachment" };
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(IMAGE_POLICY));
    response.headers_mut().insert(header::CONTENT_DISPOSITION, HeaderValue::from_static(disposition));
    Ok(response)
}

pub async fn raw(State(api): State<Api>, id: PathId, request: Request) -> Page {
    let (parts, body) = request.into_parts();
    let (viewer, _) = actor(&api, &parts.headers, body).await?;
    viewer.require(Scope::Evidence)?;
    let request_id = parts.headers.get(&REQUEST_ID).and_then(|id| id.to_str().ok());
    let reader = Reader { key: viewer.name.as_deref(), request_id };
    let read = answered(api.service.read_answer(parse_id(id)?, None, &reader)).await?;
    if let AnswerRead::Read(answer) = read {
        let kind = HeaderValue::from_static("text/plain; charset=utf-8");
        return Ok(([(header::CONTENT_TYPE, kind)], answer).into_response());
    }
    Err(api_raw::refusal(&read, None).into())
}

//! `GET /verifications/{id}/why`: why it is where it is, who must act, and what happens next.

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::body::time;
use super::{PathId, parse_id};
use crate::domain::Status;
use crate::http::auth::Scope;
use crate::http::openapi::words;
use crate::http::{Api, Problem, answered};
use crate::service::why::{Statement, Why};

/// Why a verification is where it is.
#[derive(Serialize, ToSchema)]
#[schema(as = Why)]
pub(in crate::http) struct WhyBody<'a> {
    #[schema(format = "uuid")]
    id: String,
    /// Null: there is no verification, only a call of Initialize that was to make one.
    #[schema(required)]
    status: Option<&'static str>,
    r#final: bool,
    /// Stable.
    #[schema(schema_with = words::why_code)]
    code: &'static str,
    /// Who can move it on.
    #[schema(schema_with = words::who)]
    who: &'static str,
    /// What is so, and why, for people.
    summary: &'a str,
    /// What whoever must act can do.
    #[schema(required)]
    remedy: Option<&'a str>,
    /// What happens next by itself.
    #[schema(required)]
    next: Option<&'a str>,
    /// When, where that is known.
    #[schema(required, format = DateTime)]
    next_at: Option<String>,
    /// What else is to be known, most important first.
    also: Vec<StatementBody<'a>>,
}

/// One thing that is so.
#[derive(Serialize, ToSchema)]
#[schema(as = WhyStatement)]
pub(in crate::http) struct StatementBody<'a> {
    #[schema(schema_with = words::why_code)]
    code: &'static str,
    #[schema(schema_with = words::who)]
    who: &'static str,
    summary: &'a str,
    #[schema(required)]
    remedy: Option<&'a str>,
    #[schema(required)]
    next: Option<&'a str>,
    #[schema(required, format = DateTime)]
    next_at: Option<String>,
}

impl<'a> From<&'a Statement> for StatementBody<'a> {
    fn from(statement: &'a Statement) -> Self {
        Self {
            code: statement.code,
            who: statement.who.as_str(),
            summary: &statement.summary,
            remedy: statement.remedy.as_deref(),
            next: statement.next.as_deref(),
            next_at: statement.next_at.map(time),
        }
    }
}

impl<'a> From<&'a Why> for WhyBody<'a> {
    fn from(why: &'a Why) -> Self {
        let StatementBody { code, who, summary, remedy, next, next_at } = (&why.main).into();
        Self {
            id: why.id.to_string(),
            status: why.status.map(Status::as_str),
            r#final: why.status.is_some_and(Status::is_final),
            code,
            who,
            summary,
            remedy,
            next,
            next_at,
            also: why.also.iter().map(Into::into).collect(),
        }
    }
}

/// Why it is where it is, who must act, and what happens next
///
/// The id of a lost call of Initialize is the `MerchantBizId` that `initialize_lost` named, where that was made here.
#[utoipa::path(
    get,
    path = "/verifications/{id}/why",
    operation_id = "explain_verification",
    tag = "verifications",
    params(("id" = String, Path, format = "uuid", description = "The `id` that registering returned.")),
    responses((status = 200, description = "The answer.", body = WhyBody<'_>)),
    extensions(
        ("x-required-scope" = json!("read")),
        ("x-problems" = json!(["verification_not_found", "database_unavailable"])),
    ),
)]
pub async fn why(State(api): State<Api>, id: PathId, headers: HeaderMap) -> Result<Response, Problem> {
    api.keys.require(&headers, Scope::Read)?;
    let why = answered(api.service.why(parse_id(id)?)).await?.ok_or_else(Problem::verification_not_found)?;
    Ok(Json(WhyBody::from(&why)).into_response())
}

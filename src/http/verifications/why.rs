//! `GET /verifications/{id}/why`: why it is where it is, who must act, and what happens next.

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::body::time;
use super::{PathId, parse_id};
use crate::http::auth::Scope;
use crate::http::{Api, Problem, answered};
use crate::service::why::{Statement, Why};

#[derive(Serialize)]
struct WhyBody<'a> {
    id: String,
    /// Null: there is no verification, only a call that was to make one.
    status: Option<&'static str>,
    r#final: bool,
    #[serde(flatten)]
    main: StatementBody<'a>,
    also: Vec<StatementBody<'a>>,
}

#[derive(Serialize)]
struct StatementBody<'a> {
    code: &'static str,
    who: &'static str,
    summary: &'a str,
    remedy: Option<&'a str>,
    next: Option<&'a str>,
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
        Self {
            id: why.id.to_string(),
            status: why.status.map(|status| status.as_str()),
            r#final: why.status.is_some_and(|status| status.is_final()),
            main: (&why.main).into(),
            also: why.also.iter().map(Into::into).collect(),
        }
    }
}

pub async fn why(State(api): State<Api>, id: PathId, headers: HeaderMap) -> Result<Response, Problem> {
    api.keys.require(&headers, Scope::Read)?;
    let why = answered(api.service.why(parse_id(id)?)).await?.ok_or_else(Problem::verification_not_found)?;
    Ok(Json(WhyBody::from(&why)).into_response())
}

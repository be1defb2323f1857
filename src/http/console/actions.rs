//! What can be done about a verification: the same deeds as over the API, under the same scopes.

use std::time::Duration;

use axum::extract::{Request, State};

use super::Page;
use super::layout::see_other;
use super::refusal::{Refusal, Refused};
use super::viewer::actor;
use crate::domain::VerificationId;
use crate::http::auth::Scope;
use crate::http::verifications::{PathId, parse_id};
use crate::http::{Api, PATIENCE, Problem, answered};
use crate::service::erase::LONGEST_REASON;
use crate::store::Collect;

/// How long an erasure is waited for; what is left of it goes on.
const WAIT: Duration = Duration::from_secs(10);

/// What was done, for the page that follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    Collect,
    Recheck,
    Erase,
}

impl Done {
    fn name(self) -> &'static str {
        match self {
            Self::Collect => "collect",
            Self::Recheck => "recheck",
            Self::Erase => "erase",
        }
    }

    pub fn named(text: &str) -> Option<Self> {
        [Self::Collect, Self::Recheck, Self::Erase].into_iter().find(|done| done.name() == text)
    }

    pub fn said(self) -> &'static str {
        match self {
            Self::Collect => "The provider is asked now.",
            Self::Recheck => "The provider is asked again.",
            Self::Erase => "It is erased. Below is what is still pending, if anything is.",
        }
    }

    fn page(self, id: VerificationId) -> axum::response::Response {
        see_other(&format!("/console/verifications/{id}?done={}", self.name()))
    }
}

pub async fn collect(State(api): State<Api>, id: PathId, request: Request) -> Page {
    ask(&api, id, request, Done::Collect).await
}

pub async fn recheck(State(api): State<Api>, id: PathId, request: Request) -> Page {
    ask(&api, id, request, Done::Recheck).await
}

async fn ask(api: &Api, id: PathId, request: Request, deed: Done) -> Page {
    let (parts, body) = request.into_parts();
    let (viewer, _) = actor(api, &parts.headers, body).await?;
    viewer.require(Scope::Register)?;
    if deed == Done::Recheck {
        viewer.require(Scope::Operate)?;
    }
    let id = parse_id(id)?;
    match answered(api.service.collect(id, deed == Done::Recheck)).await? {
        Collect::Accepted => Ok(deed.page(id)),
        Collect::NotFound => Err(Problem::verification_not_found().into()),
        Collect::AlreadyFinal(status) => {
            Err(Problem::already_final(format!("It is {status} by now. Load its page anew.")).into())
        }
        Collect::Erased => {
            Err(Problem::already_final("It was erased, so the provider is never asked about it again.").into())
        }
    }
}

pub async fn erase(State(api): State<Api>, id: PathId, request: Request) -> Page {
    let (parts, body) = request.into_parts();
    let (viewer, form) = actor(&api, &parts.headers, body).await?;
    viewer.require(Scope::Erase)?;
    let id = parse_id(id)?;
    if form.value("confirmation") != "erase" {
        return Err(Refusal::other(Refused::Unconfirmed));
    }
    let reason = form.value("reason");
    if reason.is_empty() || reason.chars().count() > LONGEST_REASON || reason.chars().any(char::is_control) {
        return Err(Refusal::other(Refused::Reason));
    }
    let patience = if api.tasks.is_stopping() { Duration::ZERO } else { WAIT };
    let erasing = api.service.erase(id, viewer.name.as_deref(), Some(reason), patience);
    let erased = tokio::time::timeout(WAIT + PATIENCE, erasing).await.map_err(|_| Problem::database_unavailable())?;
    erased.map_err(Problem::from)?.ok_or_else(Problem::verification_not_found)?;
    Ok(Done::Erase.page(id))
}

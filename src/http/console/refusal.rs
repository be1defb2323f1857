//! What is refused, as a page.

use axum::http::uri::PathAndQuery;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use maud::html;

use super::{layout, viewer};
use crate::http::Problem;

/// Why a form is not taken, or a page not shown, besides what the API refuses too.
#[derive(Clone, Copy, Debug)]
pub enum Refused {
    /// It has no token of this session.
    Form,
    /// Another site sent it.
    Origin,
    /// No keys are asked for, and the request was for a name that is not this machine's.
    Host,
    /// What had to be typed was not.
    Unconfirmed,
    /// The reason is missing or too long.
    Reason,
}

impl Refused {
    fn page(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::Form => (
                StatusCode::FORBIDDEN,
                "The form is not of this session",
                "Nothing was done. You may have signed in again since the page was loaded: go back, load it anew, and send \
                 the form again.",
            ),
            Self::Origin => (
                StatusCode::FORBIDDEN,
                "The form comes from another site",
                "Nothing was done. If a proxy stands in between, it must pass on the header Host as the browser sent it.",
            ),
            Self::Host => (
                StatusCode::FORBIDDEN,
                "This service asks for no keys",
                "With auth.mode = \"none\" the console is shown only under localhost or a loopback address.",
            ),
            Self::Unconfirmed => (
                StatusCode::UNPROCESSABLE_ENTITY,
                "It was not confirmed",
                "Nothing was erased. Type the word that the form asks for.",
            ),
            Self::Reason => (
                StatusCode::UNPROCESSABLE_ENTITY,
                "The reason is missing or too long",
                "Nothing was erased. Give a reason of at most 200 characters, without personal data: it is kept.",
            ),
        }
    }
}

#[derive(Debug)]
pub enum Refusal {
    /// Nobody is signed in; the page leads back to `next`.
    SignIn {
        next: String,
    },
    Problem(Box<Problem>),
    Other(Refused),
}

impl Refusal {
    pub fn sign_in(uri: &Uri) -> Self {
        Self::SignIn { next: uri.path_and_query().map_or("/console", PathAndQuery::as_str).to_owned() }
    }

    pub fn other(refused: Refused) -> Self {
        Self::Other(refused)
    }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self::Problem(Box::new(problem))
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, title, detail, errors) = match &self {
            Self::SignIn { next } => return viewer::sign_in_page(StatusCode::UNAUTHORIZED, next, false),
            Self::Problem(problem) => {
                let errors = problem.errors.as_deref().unwrap_or_default();
                (problem.status, problem.title, &*problem.detail, errors)
            }
            Self::Other(refused) => {
                let (status, title, detail) = refused.page();
                (status, title, detail, &[][..])
            }
        };
        let content = html! {
            h1 { (title) }
            p { (detail) }
            @if !errors.is_empty() {
                ul { @for error in errors { li { code { (error.field) } " " (error.message) } } }
            }
            p { a href="/console" { "To the first page" } }
        };
        (status, layout::bare(title, &content)).into_response()
    }
}

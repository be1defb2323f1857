//! Who looks: the session, the key of a request, or anybody where no keys are asked for. Signing in and out.

use std::collections::BTreeSet;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use maud::html;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::form::Form;
use super::layout::{self, see_other};
use super::refusal::Refusal;
use super::session::{LASTS, Nonce, SessionKey};
use super::{Page, Refused};
use crate::http::auth::{Key, Keys, Scope};
use crate::http::{Api, Problem, answered};

/// The secret that the replicas share.
const SECRET: &str = "console_session";
const COOKIE: &str = "checkback_console";

/// Somebody who may look.
pub struct Viewer {
    /// Of the key; `None` where none is asked for.
    pub name: Option<String>,
    /// `None`: all of them.
    scopes: Option<BTreeSet<Scope>>,
    /// For each form.
    pub form_token: String,
    /// There is a session that can be ended.
    pub has_session: bool,
}

impl Viewer {
    pub fn may(&self, scope: Scope) -> bool {
        self.scopes.as_ref().is_none_or(|scopes| scopes.contains(&scope))
    }

    pub fn require(&self, scope: Scope) -> Result<(), Problem> {
        if self.may(scope) { Ok(()) } else { Err(Problem::scope_missing(scope.as_str())) }
    }
}

/// Where a request comes from, as far as a viewer needs it.
#[derive(Clone, Copy)]
struct Identity<'a> {
    key: Option<&'a Key>,
    nonce: Nonce,
    has_session: bool,
}

pub async fn session_key(api: &Api) -> Result<&SessionKey, Problem> {
    let make = async || {
        let secret = answered(api.service.store.shared_secret(SECRET, &api.service.entropy.secret())).await?;
        Ok::<_, Problem>(SessionKey::new(&secret))
    };
    api.console.session_key.get_or_try_init(make).await
}

/// Who asks, if it may look at all; else the page to sign in, which leads back here.
pub async fn viewer(api: &Api, headers: &HeaderMap, uri: &Uri) -> Result<Viewer, Refusal> {
    let signer = session_key(api).await?;
    let identity = identify(api, headers, signer).ok_or_else(|| Refusal::sign_in(uri))?;
    seen(identity, headers, signer)
}

/// The same for what a form asks for, and only if it is a form of this viewer.
pub async fn actor(api: &Api, headers: &HeaderMap, body: Body) -> Result<(Viewer, Form), Refusal> {
    let signer = session_key(api).await?;
    let home = Uri::from_static("/console");
    let identity = identify(api, headers, signer).ok_or_else(|| Refusal::sign_in(&home))?;
    own_origin(headers)?;
    let form = Form::read(headers, body).await?;
    if !signer.is_form_token(form.value("form_token"), &identity.nonce, identity.key) {
        return Err(Refusal::other(Refused::Form));
    }
    Ok((seen(identity, headers, signer)?, form))
}

fn identify<'a>(api: &'a Api, headers: &HeaderMap, signer: &SessionKey) -> Option<Identity<'a>> {
    if matches!(api.keys, Keys::Open) {
        return Some(Identity { key: None, nonce: Nonce::default(), has_session: false });
    }
    if let Some(key) = api.keys.bearer(headers) {
        return Some(Identity { key: Some(key), nonce: Nonce::default(), has_session: false });
    }
    let (key, nonce) = signer.open(cookie(headers)?, api.keys.known(), api.service.clock.now())?;
    Some(Identity { key: Some(key), nonce, has_session: true })
}

fn seen(identity: Identity<'_>, headers: &HeaderMap, signer: &SessionKey) -> Result<Viewer, Refusal> {
    let Identity { key, nonce, has_session } = identity;
    // A name of somebody else's that leads to this machine must not open what needs no key.
    if key.is_none() && !is_loopback(headers) {
        return Err(Refusal::other(Refused::Host));
    }
    let viewer = Viewer {
        name: key.map(|key| key.name.clone()),
        scopes: key.map(|key| key.scopes.clone()),
        form_token: signer.form_token(&nonce, key),
        has_session,
    };
    viewer.require(Scope::Read)?;
    Ok(viewer)
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    let pairs = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    pairs.flat_map(|value| value.split(';')).find_map(|pair| pair.trim().strip_prefix(COOKIE)?.strip_prefix('='))
}

fn host(headers: &HeaderMap) -> &str {
    headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default()
}

fn is_loopback(headers: &HeaderMap) -> bool {
    let host = host(headers);
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// A form that another site sends is refused before it is read.
fn own_origin(headers: &HeaderMap) -> Result<(), Refusal> {
    let text = |name| headers.get(name).map(|value: &HeaderValue| value.to_str().unwrap_or("null"));
    let is_own = match (text(header::ORIGIN), text(header::HeaderName::from_static("sec-fetch-site"))) {
        (Some(origin), _) => origin.split_once("://").is_some_and(|(_, origin)| origin == host(headers)),
        (None, Some(site)) => matches!(site, "same-origin" | "none"),
        // Programs send neither; they have the form's token.
        (None, None) => true,
    };
    if is_own { Ok(()) } else { Err(Refusal::other(Refused::Origin)) }
}

/// A path of the console, or its first page.
fn inside(path: &str) -> &str {
    let is_inside = path.strip_prefix("/console").is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']));
    let is_plain = path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    if is_inside && is_plain && !path.starts_with("/console/log") { path } else { "/console" }
}

pub async fn login(State(api): State<Api>, headers: HeaderMap, uri: Uri) -> Page {
    match viewer(&api, &headers, &uri).await {
        Ok(_) => Ok(see_other("/console")),
        Err(Refusal::SignIn { .. }) => Ok(sign_in_page(StatusCode::OK, "/console", false)),
        Err(other) => Err(other),
    }
}

/// The page to sign in, which leads to `next`.
pub fn sign_in_page(status: StatusCode, next: &str, was_wrong: bool) -> Response {
    let content = html! {
        form.sign-in method="post" action="/console/login" {
            h1 { "Sign in" }
            p { "With an API key of this service that has the scope " code { "read" } ". What else its scopes allow is "
                "shown to you." }
            @if was_wrong {
                p.notice.bad role="alert" { "That is no key of this service." }
            }
            input type="hidden" name="next" value=(next);
            label for="key" { "API key" }
            input #key type="password" name="key" required autocomplete="current-password" autofocus
                autocapitalize="none" spellcheck="false";
            button type="submit" { "Sign in" }
        }
    };
    let mut response = (status, layout::bare("Sign in", &content)).into_response();
    if status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

pub async fn sign_in(State(api): State<Api>, request: Request) -> Page {
    let (parts, body) = request.into_parts();
    own_origin(&parts.headers)?;
    let form = Form::read(&parts.headers, body).await?;
    let next = inside(form.value("next")).to_owned();
    let Some(key) = api.keys.named_by(form.value("key")) else {
        return Ok(sign_in_page(StatusCode::UNAUTHORIZED, &next, true));
    };
    let signer = session_key(&api).await?;
    let nonce: Nonce = *api.service.entropy.token().as_bytes();
    let sealed = signer.seal(key, &nonce, api.service.clock.now());
    // The browser knows by which way it came; in between may be a proxy.
    let origin = parts.headers.get(header::ORIGIN).and_then(|origin| origin.to_str().ok()).unwrap_or_default();
    let secure = if origin.starts_with("https://") { "; Secure" } else { "" };
    let age = LASTS.num_seconds();
    Ok(with_cookie(see_other(&next), &format!("{sealed}; Max-Age={age}{secure}")))
}

pub async fn sign_out(State(api): State<Api>, request: Request) -> Page {
    let (parts, body) = request.into_parts();
    actor(&api, &parts.headers, body).await?;
    Ok(with_cookie(see_other("/console/login"), "; Max-Age=0"))
}

fn with_cookie(mut response: Response, value: &str) -> Response {
    let cookie = format!("{COOKIE}={value}; Path=/console; HttpOnly; SameSite=Strict");
    let cookie = HeaderValue::from_str(&cookie).expect("Base64 and numbers are plain text");
    response.headers_mut().insert(header::SET_COOKIE, cookie);
    response
}

/// A value of a query.
pub fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(header::HeaderName, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap())).collect()
    }

    #[test]
    fn nobody_is_led_out_of_the_console() {
        assert_eq!(inside("/console/verifications?status=failed"), "/console/verifications?status=failed");
        for other in
            ["", "//evil.example", "/consoles", "https://evil.example/console", "/console\\x", "/console/logout"]
        {
            assert_eq!(inside(other), "/console", "{other}");
        }
    }

    #[test]
    fn forms_of_other_sites_are_known_by_their_origin() {
        let from =
            |origin: &str| own_origin(&headers(&[(header::HOST, "10.0.0.1:8081"), (header::ORIGIN, origin)])).is_ok();
        assert!(from("http://10.0.0.1:8081") && from("https://10.0.0.1:8081"));
        assert!(!from("http://10.0.0.1") && !from("null") && !from("http://evil.example"));
        let site = header::HeaderName::from_static("sec-fetch-site");
        assert!(own_origin(&headers(&[(site.clone(), "cross-site")])).is_err());
        assert!(own_origin(&headers(&[(site, "same-origin")])).is_ok());
    }

    #[test]
    fn loopback_is_known_by_every_name() {
        let is = |host| is_loopback(&headers(&[(header::HOST, host)]));
        assert!(is("localhost") && is("localhost:8081") && is("127.0.0.1:8081") && is("[::1]:8081") && is("127.1.2.3"));
        assert!(!is("evil.example:8081") && !is("") && !is("10.0.0.1") && !is("localhost.evil.example"));
    }

    #[test]
    fn the_cookie_is_found_among_others() {
        let found = |value| cookie(&headers(&[(header::COOKIE, value)])).map(str::to_owned);
        assert_eq!(found("a=b; checkback_console=xyz; c=d").as_deref(), Some("xyz"));
        assert_eq!(found("xcheckback_console=xyz"), None);
    }
}

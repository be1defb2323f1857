//! The RAM role of an ECS instance, from its metadata service: by session token (IMDS v2), and without one (IMDS v1)
//! where that is refused and not forbidden.
//!
//! Rules: Alibaba Cloud ECS, "Instance metadata".

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use url::Url;

use super::super::super::http::HttpAnswer;
use super::answer;
use super::chain::{Chain, Fetched, Miss};

const LIFE: HeaderName = HeaderName::from_static("x-aliyun-ecs-metadata-token-ttl-seconds");
const TOKEN: HeaderName = HeaderName::from_static("x-aliyun-ecs-metadata-token");
/// Six hours, the longest; a token is used for one fetch only.
const LIFE_SECONDS: HeaderValue = HeaderValue::from_static("21600");
const WHOM: &str = "the metadata service";

/// The key of the instance's role. Without a name the instance is asked for it.
pub(super) async fn fetch(chain: &Chain, role: Option<&str>) -> Result<Fetched, Miss> {
    if chain.settings.metadata_disabled {
        return Err(Miss::not_set("ALIBABA_CLOUD_ECS_METADATA_DISABLED is true"));
    }
    let v1 = !chain.settings.imds_v1_disabled;
    let token = match session_token(chain).await {
        Ok(token) => Some(token),
        Err(_) if v1 => None,
        Err(miss) => return Err(miss),
    };
    match key(chain, role, token.as_ref()).await {
        Err(_) if v1 && token.is_some() => key(chain, role, None).await,
        other => other,
    }
}

async fn session_token(chain: &Chain) -> Result<HeaderValue, Miss> {
    let headers = HeaderMap::from_iter([(LIFE, LIFE_SECONDS)]);
    let url = address(chain, &["latest", "api", "token"]);
    let answer = chain.ask_metadata(Method::PUT, url, headers).await?;
    answer::succeeded(WHOM, &answer)?;
    let token = std::str::from_utf8(&answer.body).ok().and_then(|text| HeaderValue::from_str(text.trim()).ok());
    let mut token =
        token.filter(|token| !token.is_empty()).ok_or_else(|| Miss::failed(format!("{WHOM} gave no session token")))?;
    token.set_sensitive(true);
    Ok(token)
}

async fn key(chain: &Chain, role: Option<&str>, token: Option<&HeaderValue>) -> Result<Fetched, Miss> {
    let headers: HeaderMap = token.map(|token| (TOKEN, token.clone())).into_iter().collect();
    let found;
    let role = if let Some(role) = role {
        role
    } else {
        found = role_name(chain, headers.clone()).await?;
        &found
    };
    let url = address(chain, &["latest", "meta-data", "ram", "security-credentials", role]);
    let answer = chain.ask_metadata(Method::GET, url, headers).await?;
    if answer.status == StatusCode::NOT_FOUND {
        return Err(Miss::failed(format!("the instance has no RAM role {role:?}")));
    }
    answer::plain(WHOM, &answer, chain.clock.now())
}

async fn role_name(chain: &Chain, headers: HeaderMap) -> Result<String, Miss> {
    let url = address(chain, &["latest", "meta-data", "ram", "security-credentials", ""]);
    let answer = chain.ask_metadata(Method::GET, url, headers).await?;
    let none = || Miss::not_set("the instance has no RAM role");
    if answer.status == StatusCode::NOT_FOUND {
        return Err(none());
    }
    answer::succeeded(WHOM, &answer)?;
    let text = std::str::from_utf8(&answer.body).unwrap_or_default();
    text.lines().next().map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).ok_or_else(none)
}

fn address(chain: &Chain, path: &[&str]) -> Url {
    let mut url = chain.settings.metadata_base.clone();
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.clear().extend(path);
    }
    url
}

impl Chain {
    async fn ask_metadata(&self, method: Method, url: Url, headers: HeaderMap) -> Result<HttpAnswer, Miss> {
        let asked = self.metadata.send(method, url, headers, Bytes::new()).await;
        // Nobody there: no instance of the provider's, unless somebody said that it is one.
        asked.map_err(|error| Miss {
            applies: self.settings.metadata_role.is_some(),
            reason: format!("{WHOM} cannot be asked: {error}; this may be no ECS instance"),
        })
    }
}

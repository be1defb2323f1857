//! Keys of a RAM role from the provider's token service: for a token of an identity provider (OIDC, as pods have it
//! in the provider's Kubernetes), or for another key.
//!
//! Rules: Alibaba Cloud STS 2015-04-01, `AssumeRoleWithOIDC` and `AssumeRole`.

use std::path::PathBuf;

use http::Method;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use url::Url;

use super::super::sign::{self, FORM_TYPE, Parameter, Signer};
use super::chain::{Chain, Fetched, Miss};
use super::{Credentials, answer};

const VERSION: &str = "2015-04-01";
const WHOM: &str = "the token service";
/// What the provider's audit log shows where no name was given.
const SESSION_NAME: &str = "checkback";
const SECONDS: u64 = 3600;
const LEAST_SECONDS: u64 = 900;

/// A role to be assumed. What is left out comes from the environment, as with the provider's SDKs.
#[derive(Default)]
pub(super) struct Role {
    pub arn: Option<String>,
    pub session_name: Option<String>,
    pub seconds: Option<u64>,
    pub policy: Option<String>,
    pub external_id: Option<String>,
    pub sts_region: Option<String>,
    pub sts_vpc: Option<bool>,
}

/// Who vouches for us.
#[derive(Default)]
pub(super) struct Oidc {
    pub provider_arn: Option<String>,
    pub token_file: Option<PathBuf>,
}

/// Changes the token in the file, read anew each time, into a key. The call is not signed: the token is the proof.
pub(super) async fn with_oidc(chain: &Chain, role: &Role, oidc: &Oidc) -> Result<Fetched, Miss> {
    let settings = &chain.settings;
    let missing = |what| Miss::not_set(format!("{what} is not set"));
    let arn = role.arn.as_ref().or(settings.role_arn.as_ref()).ok_or_else(|| missing("ALIBABA_CLOUD_ROLE_ARN"))?;
    let provider = oidc.provider_arn.as_ref().or(settings.oidc_provider_arn.as_ref());
    let provider = provider.ok_or_else(|| missing("ALIBABA_CLOUD_OIDC_PROVIDER_ARN"))?;
    let file = oidc.token_file.as_ref().or(settings.oidc_token_file.as_ref());
    let file = file.ok_or_else(|| missing("ALIBABA_CLOUD_OIDC_TOKEN_FILE"))?;
    let token = tokio::fs::read_to_string(file)
        .await
        .map_err(|error| Miss::failed(format!("the token file {} cannot be read: {}", file.display(), error.kind())))?;
    let date = sign::timestamp(chain.clock.now());
    let nonce = chain.entropy.hex32();
    let query = [
        ("Action", "AssumeRoleWithOIDC"),
        ("Format", "JSON"),
        ("SignatureNonce", &*nonce),
        ("Timestamp", &*date),
        ("Version", VERSION),
    ];
    let seconds = role.seconds()?;
    let mut form = role.form(arn, settings.role_session_name.as_deref(), &seconds);
    form.extend([("OIDCProviderArn", &**provider), ("OIDCToken", token.trim())]);
    ask(chain, role, &query, &form).await
}

/// Changes a key into that of a role; signed with HMAC-SHA1, which is what the token service knows everywhere.
pub(super) async fn with_key(chain: &Chain, role: &Role, credentials: Credentials) -> Result<Fetched, Miss> {
    let settings = &chain.settings;
    let arn = role.arn.as_ref().or(settings.role_arn.as_ref());
    let arn = arn.ok_or_else(|| Miss::failed("the profile names no role"))?;
    let key = Signer::new(credentials);
    let date = sign::timestamp(chain.clock.now());
    let nonce = chain.entropy.hex32();
    let mut parameters = key.rpc_parameters("AssumeRole", VERSION, &date, &nonce);
    let in_query = parameters.len();
    let seconds = role.seconds()?;
    let form = role.form(arn, settings.role_session_name.as_deref(), &seconds);
    parameters.extend_from_slice(&form);
    let signed = key.rpc("POST", &parameters);
    parameters.truncate(in_query);
    parameters.push(("Signature", &signed.signature));
    ask(chain, role, &parameters, &form).await
}

async fn ask(chain: &Chain, role: &Role, query: &[Parameter<'_>], form: &[Parameter<'_>]) -> Result<Fetched, Miss> {
    let mut url = match &chain.settings.sts_base {
        Some(base) => base.clone(),
        None => role.host(chain)?,
    };
    url.set_query(Some(&sign::encoded(query)));
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(FORM_TYPE))]);
    let asked = chain.http.send(Method::POST, url, headers, sign::encoded(form).into()).await;
    let answer = asked.map_err(|error| Miss::failed(format!("{WHOM} cannot be asked: {error}")))?;
    answer::wrapped(WHOM, &answer, chain.clock.now())
}

impl Role {
    fn form<'a>(&'a self, arn: &'a str, session_name: Option<&'a str>, seconds: &'a str) -> Vec<Parameter<'a>> {
        let name = self.session_name.as_deref().or(session_name).unwrap_or(SESSION_NAME);
        let mut form = vec![("DurationSeconds", seconds), ("RoleArn", arn), ("RoleSessionName", name)];
        form.extend(self.policy.as_deref().map(|policy| ("Policy", policy)));
        form.extend(self.external_id.as_deref().map(|id| ("ExternalId", id)));
        form
    }

    fn seconds(&self) -> Result<String, Miss> {
        let seconds = self.seconds.filter(|seconds| *seconds > 0).unwrap_or(SECONDS);
        if seconds < LEAST_SECONDS {
            return Err(Miss::failed(format!("a role is assumed for {LEAST_SECONDS} s or more, not for {seconds} s")));
        }
        Ok(seconds.to_string())
    }

    /// The region's host; without a region the one for all, which is on the internet only.
    pub(super) fn host(&self, chain: &Chain) -> Result<Url, Miss> {
        let vpc = self.sts_vpc.unwrap_or(chain.settings.sts_vpc);
        let host = match self.sts_region.as_ref().or(chain.settings.sts_region.as_ref()) {
            None => "sts.aliyuncs.com".to_owned(),
            Some(region) if region.bytes().all(|letter| letter.is_ascii_alphanumeric() || letter == b'-') => {
                format!("{}.{region}.aliyuncs.com", if vpc { "sts-vpc" } else { "sts" })
            }
            Some(region) => return Err(Miss::failed(format!("{region:?} is no region of {WHOM}"))),
        };
        Url::parse(&format!("https://{host}")).map_err(|_| Miss::failed(format!("{WHOM} has no address")))
    }
}

//! Where the store is: a folder of this machine, or a bucket at S3 or OSS.

use std::path::PathBuf;
use std::time::Duration;

use opendal::services::{Fs, Oss, S3};
use opendal::{HttpTransporter, OperationContext, Operator};
use opendal_http_transport_reqwest::ReqwestTransport;
use reqwest::redirect::Policy;
use secrecy::{ExposeSecret, SecretString};

/// A key of AWS or of whoever speaks S3. Where it is missing, the instance's role is asked for one.
#[derive(Debug, Default)]
pub struct AwsKeys {
    pub access_key_id: Option<SecretString>,
    pub secret_access_key: Option<SecretString>,
    pub session_token: Option<SecretString>,
}

/// A key of Alibaba Cloud. Where it is missing, the roles of the instance are asked for one.
#[derive(Debug, Default)]
pub struct AliyunKeys {
    pub access_key_id: Option<SecretString>,
    pub access_key_secret: Option<SecretString>,
    pub security_token: Option<SecretString>,
}

#[derive(Debug)]
pub enum Location {
    Folder(PathBuf),
    S3 {
        bucket: String,
        prefix: String,
        region: String,
        /// None: that of AWS in the region.
        endpoint: Option<String>,
        keys: AwsKeys,
    },
    Oss {
        bucket: String,
        prefix: String,
        endpoint: String,
        keys: AliyunKeys,
    },
}

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("the folder {path} cannot be made or used")]
    Folder { path: PathBuf, source: std::io::Error },
    #[error("the evidence store cannot be set up")]
    Store(#[source] Box<opendal::Error>),
    #[error("the HTTP client of the evidence store cannot be built; are the system's root certificates installed?")]
    Client(#[source] reqwest::Error),
}

impl From<opendal::Error> for OpenError {
    fn from(error: opendal::Error) -> Self {
        Self::Store(Box::new(error))
    }
}

impl Location {
    pub(super) fn open(&self) -> Result<Operator, OpenError> {
        match self {
            Self::Folder(path) => {
                make_private(path).map_err(|source| OpenError::Folder { path: path.clone(), source })?;
                Ok(Operator::new(Fs::default().root(&path.to_string_lossy()))?)
            }
            Self::S3 { bucket, prefix, region, endpoint, keys } => {
                let mut service = S3::default().bucket(bucket).root(prefix).region(region).disable_config_load();
                if let Some(endpoint) = endpoint {
                    service = service.endpoint(endpoint);
                }
                if let (Some(id), Some(secret)) = (&keys.access_key_id, &keys.secret_access_key) {
                    service = service.access_key_id(id.expose_secret()).secret_access_key(secret.expose_secret());
                    if let Some(token) = &keys.session_token {
                        service = service.session_token(token.expose_secret());
                    }
                    service = service.disable_ec2_metadata();
                }
                Ok(Operator::new(service)?.with_context(context()?))
            }
            Self::Oss { bucket, prefix, endpoint, keys } => {
                let mut service = Oss::default().bucket(bucket).root(prefix).endpoint(endpoint);
                if let (Some(id), Some(secret)) = (&keys.access_key_id, &keys.access_key_secret) {
                    service = service.access_key_id(id.expose_secret()).access_key_secret(secret.expose_secret());
                    if let Some(token) = &keys.security_token {
                        service = service.security_token(token.expose_secret());
                    }
                }
                Ok(Operator::new(service)?.with_context(context()?))
            }
        }
    }
}

/// How buckets are reached.
fn context() -> Result<OperationContext, OpenError> {
    #[expect(clippy::disallowed_methods, reason = "the client of the evidence store, which talks to no provider")]
    let builder = reqwest::Client::builder();
    let client = builder
        .connect_timeout(Duration::from_secs(5))
        .read_timeout(Duration::from_secs(30))
        .redirect(Policy::none())
        .referer(false)
        .pool_idle_timeout(Duration::from_secs(50))
        .build()
        .map_err(OpenError::Client)?;
    Ok(OperationContext::new().with_http_transport(HttpTransporter::new(ReqwestTransport::new(client))))
}

/// A folder that we make is for nobody else. One that was there stays as it is.
fn make_private(path: &std::path::Path) -> std::io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

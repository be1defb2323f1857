//! Where evidence is kept and downloaded from, put together from configuration and environment.

use anyhow::Context;

use crate::config::{self, AccountKind, Config, Environment, EvidenceLocation};
use crate::evidence::{
    AliyunKeys, AwsKeys, DownloadLimits, Downloader, EvidenceStore, Identities, Location, Recipients, StoreSettings,
};

/// From where the account's videos may be downloaded; none where its provider has no videos.
pub(super) fn downloader(account: &config::Account) -> anyhow::Result<Option<Downloader>> {
    let AccountKind::Alibaba(settings) = &account.kind else { return Ok(None) };
    let (hosts, endpoint) = (settings.download_hosts.clone(), settings.endpoint.clone());
    Ok(Some(Downloader::new(hosts, endpoint, DownloadLimits::default())?))
}

/// Where evidence is kept. Credentials of buckets come from the environment.
pub fn store(config: &Config, environment: &Environment) -> anyhow::Result<EvidenceStore> {
    let settings = &config.evidence;
    let parts = |url: &url::Url| (url.host_str().unwrap_or_default().to_owned(), url.path().to_owned());
    let location = match &settings.location {
        EvidenceLocation::Directory(path) => Location::Folder(path.clone()),
        EvidenceLocation::S3(url) => {
            let (bucket, prefix) = parts(url);
            let region = environment.aws_region().context("evidence.url is a bucket at S3: set AWS_REGION")?.to_owned();
            let keys = AwsKeys {
                access_key_id: environment.aws_access_key_id(),
                secret_access_key: environment.aws_secret_access_key(),
                session_token: environment.aws_session_token(),
            };
            Location::S3 { bucket, prefix, region, endpoint: environment.aws_endpoint_url().map(str::to_owned), keys }
        }
        EvidenceLocation::Oss(url) => {
            let (bucket, prefix) = parts(url);
            let endpoint = environment.oss_endpoint().context(
                "evidence.url is a bucket at OSS: set OSS_ENDPOINT, such as https://oss-ap-southeast-1.aliyuncs.com",
            )?;
            let keys = AliyunKeys {
                access_key_id: environment.alibaba_access_key_id(),
                access_key_secret: environment.alibaba_access_key_secret(),
                security_token: environment.alibaba_security_token(),
            };
            Location::Oss { bucket, prefix, endpoint: endpoint.to_owned(), keys }
        }
    };
    let recipients = Recipients::read(&settings.recipients).context("evidence.recipients")?;
    let identities = settings.identity_file.as_deref().map(Identities::read).transpose();
    let identities = identities.context("evidence.identity_file")?;
    Ok(EvidenceStore::new(StoreSettings { location, recipients, identities }))
}

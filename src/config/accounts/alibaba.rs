//! Accounts with Alibaba Cloud ID Verification.

use std::fmt;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use url::Url;

use crate::config::reader::{Outcome, Reader, not_among};
use crate::config::urls;

pub(super) const KEYS: [&str; 7] =
    ["region", "network", "signature", "access_key_id", "access_key_secret", "video_retention", "download_hosts"];

pub(super) const VIDEO_RETENTION: Duration = Duration::from_mins(30);
pub(super) const VIDEO_RETENTION_TEXT: &str = "30m";

/// A region of the provider and the calls a second that it grants there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    pub name: &'static str,
    pub qps: u32,
}

/// The provider's table of October 2026; the endpoints are with its adapter.
pub const REGIONS: [Region; 4] = [
    Region { name: "ap-southeast-1", qps: 10 },
    Region { name: "cn-hongkong", qps: 10 },
    Region { name: "ap-southeast-3", qps: 3 },
    Region { name: "ap-southeast-5", qps: 3 },
];

#[derive(Clone, Debug)]
pub struct AlibabaAccount {
    /// One of [`REGIONS`], or anything when `endpoint` is set.
    pub region: String,
    pub network: Network,
    /// Overrides region and network.
    pub endpoint: Option<Url>,
    pub signature: Signature,
    /// `None`: taken from where the provider's SDKs take it.
    pub access_key: Option<AccessKey>,
    /// Hosts that evidence may be downloaded from; `*.` stands for one or more labels.
    pub download_hosts: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    Public,
    Vpc,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signature {
    Acs3,
    HmacSha1,
}

#[derive(Clone)]
pub struct AccessKey {
    pub id: String,
    pub secret: SecretString,
}

impl fmt::Debug for AccessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessKey").finish_non_exhaustive()
    }
}

impl AlibabaAccount {
    pub(super) fn read(reader: &mut Reader<'_>, allow_http: bool) -> Outcome<Self> {
        let endpoint = reader.parsed("endpoint", "", |text| match text {
            "" => Ok(None),
            text => urls::endpoint(text, allow_http).map(Some),
        });
        // A wrong endpoint is a problem already; the region would not have mattered.
        let any_region = !matches!(endpoint, Ok(None));
        let region = reader.parsed("region", REGIONS[0].name, |text| {
            if any_region || REGIONS.iter().any(|region| region.name == text) {
                Ok(text.to_owned())
            } else {
                Err(format!("{}, unless endpoint is set", not_among(text, &REGIONS.map(|region| region.name))))
            }
        });
        let network = reader.choice("network", &[("public", Network::Public), ("vpc", Network::Vpc)], "public");
        let signatures = [("acs3", Signature::Acs3), ("hmac-sha1", Signature::HmacSha1)];
        let signature = reader.choice("signature", &signatures, "acs3");
        let access_key = Self::read_access_key(reader);
        let download_hosts = reader.texts("download_hosts", &["*.aliyuncs.com"], host_pattern);
        Ok(Self {
            region: region?,
            network: network?,
            endpoint: endpoint?,
            signature: signature?,
            access_key: access_key?,
            download_hosts: download_hosts?,
        })
    }

    fn read_access_key(reader: &mut Reader<'_>) -> Outcome<Option<AccessKey>> {
        let visible = |text: &str| {
            let sound = text.bytes().all(|letter| letter.is_ascii_graphic());
            if sound { Ok(()) } else { Err("must be one word of visible ASCII characters") }
        };
        let id = reader.checked_secret("access_key_id", visible);
        let secret = reader.checked_secret("access_key_secret", visible);
        match (id?, secret?) {
            (Some(id), Some(secret)) => Ok(Some(AccessKey { id: id.expose_secret().to_owned(), secret })),
            (None, None) => Ok(None),
            (Some(_), None) => Err(reader.problem("access_key_secret", HALF_A_KEY)),
            (None, Some(_)) => Err(reader.problem("access_key_id", HALF_A_KEY)),
        }
    }

    /// What the provider grants; unknown when another endpoint is asked.
    pub(super) fn region_qps(&self) -> Option<u32> {
        let known = REGIONS.iter().find(|region| region.name == self.region);
        known.filter(|_| self.endpoint.is_none()).map(|region| region.qps)
    }
}

const HALF_A_KEY: &str = "is empty while the other half of the access key is set; set both, or none to take them \
                          from where the provider's SDKs do, such as ALIBABA_CLOUD_ACCESS_KEY_ID and \
                          ALIBABA_CLOUD_ACCESS_KEY_SECRET";

/// A host name, or `*.` and a domain.
fn host_pattern(text: &str) -> Result<String, String> {
    let domain = text.strip_prefix("*.");
    let name = domain.unwrap_or(text);
    let label = |label: &str| {
        !label.is_empty() && label.bytes().all(|letter| letter.is_ascii_alphanumeric() || matches!(letter, b'-' | b'_'))
    };
    // "*.com" would be nearly everybody.
    if !name.split('.').all(label) || (domain.is_some() && !name.contains('.')) {
        return Err("must be a host name, or `*.` and a domain, such as \"*.aliyuncs.com\"".into());
    }
    Ok(text.to_ascii_lowercase())
}

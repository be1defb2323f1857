//! Where an account's calls go: the provider's hosts by region and network, or an address of the operator's.
//!
//! The host that is signed is the host that is sent, so both come from here.

use std::net::IpAddr;

use url::{Host, Url};

/// Region, host on the internet, host inside the provider's own network (same region only).
const REGIONS: [(&str, &str, &str); 4] = [
    ("ap-southeast-1", "cloudauth-intl.ap-southeast-1.aliyuncs.com", "cloudauth-intl-vpc.ap-southeast-1.aliyuncs.com"),
    ("cn-hongkong", "cloudauth-intl.cn-hongkong.aliyuncs.com", "cloudauth-intl-vpc.cn-hongkong.aliyuncs.com"),
    ("ap-southeast-3", "cloudauth-intl.ap-southeast-3.aliyuncs.com", "cloudauth-intl-vpc.ap-southeast-3.aliyuncs.com"),
    ("ap-southeast-5", "cloudauth-intl.ap-southeast-5.aliyuncs.com", "cloudauth-intl-vpc.ap-southeast-5.aliyuncs.com"),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    Public,
    Vpc,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    scheme: Scheme,
    host_header: String,
    base: Url,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    Http,
    Https,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    #[error("region {region:?} is unknown: use one of {}, or set endpoint", known_regions())]
    UnknownRegion { region: String },
    #[error("the endpoint is no absolute URL such as https://cloudauth-intl.ap-southeast-1.aliyuncs.com")]
    NoUrl,
    #[error("the endpoint must begin with https:// or http://")]
    Scheme,
    #[error("the endpoint must be scheme, host and port alone, without user, path, query or fragment")]
    MoreThanHost,
    #[error("an http endpoint is unencrypted: use https, a loopback address, or set allow_http = true")]
    Unencrypted,
}

fn known_regions() -> String {
    REGIONS.map(|(region, ..)| region).join(", ")
}

impl Endpoint {
    /// The explicit address if there is one (not empty), else the region's.
    pub fn choose(explicit: &str, region: &str, network: Network, allow_http: bool) -> Result<Self, EndpointError> {
        if explicit.is_empty() { Self::of_region(region, network) } else { Self::explicit(explicit, allow_http) }
    }

    pub fn of_region(region: &str, network: Network) -> Result<Self, EndpointError> {
        let (_, public, vpc) = REGIONS
            .into_iter()
            .find(|(name, ..)| *name == region)
            .ok_or_else(|| EndpointError::UnknownRegion { region: region.to_owned() })?;
        let host = match network {
            Network::Public => public,
            Network::Vpc => vpc,
        };
        Self::explicit(&format!("https://{host}"), false)
    }

    /// An absolute URL without path. Plain http is for loopback addresses, or when `allow_http` says so.
    pub fn explicit(text: &str, allow_http: bool) -> Result<Self, EndpointError> {
        let base = Url::parse(text).map_err(|_| EndpointError::NoUrl)?;
        let scheme = match base.scheme() {
            "https" => Scheme::Https,
            "http" => Scheme::Http,
            _ => return Err(EndpointError::Scheme),
        };
        let host = base.host().ok_or(EndpointError::NoUrl)?;
        let host_only = base.username().is_empty()
            && base.password().is_none()
            && base.path() == "/"
            && base.query().is_none()
            && base.fragment().is_none();
        if !host_only {
            return Err(EndpointError::MoreThanHost);
        }
        if scheme == Scheme::Http && !allow_http && !is_loopback(&host) {
            return Err(EndpointError::Unencrypted);
        }
        // The URL parser drops the default port, as the Host header does.
        let host_header = match base.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_string(),
        };
        Ok(Self { scheme, host_header, base })
    }

    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The `Host` header as it is sent and signed: with the port when it is not the scheme's own.
    pub fn host_header(&self) -> &str {
        &self.host_header
    }

    /// The address of every call; the path is `/`.
    pub fn base(&self) -> &Url {
        &self.base
    }
}

fn is_loopback(host: &Host<&str>) -> bool {
    match host {
        Host::Domain(name) => *name == "localhost",
        Host::Ipv4(address) => IpAddr::V4(*address).is_loopback(),
        Host::Ipv6(address) => IpAddr::V6(*address).is_loopback(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_and_a_network_name_the_host() {
        for (region, network, host) in [
            ("ap-southeast-1", Network::Public, "cloudauth-intl.ap-southeast-1.aliyuncs.com"),
            ("ap-southeast-1", Network::Vpc, "cloudauth-intl-vpc.ap-southeast-1.aliyuncs.com"),
            ("cn-hongkong", Network::Public, "cloudauth-intl.cn-hongkong.aliyuncs.com"),
            ("cn-hongkong", Network::Vpc, "cloudauth-intl-vpc.cn-hongkong.aliyuncs.com"),
            ("ap-southeast-3", Network::Public, "cloudauth-intl.ap-southeast-3.aliyuncs.com"),
            ("ap-southeast-3", Network::Vpc, "cloudauth-intl-vpc.ap-southeast-3.aliyuncs.com"),
            ("ap-southeast-5", Network::Public, "cloudauth-intl.ap-southeast-5.aliyuncs.com"),
            ("ap-southeast-5", Network::Vpc, "cloudauth-intl-vpc.ap-southeast-5.aliyuncs.com"),
        ] {
            let endpoint = Endpoint::choose("", region, network, false).unwrap();
            assert_eq!(endpoint.host_header(), host);
            assert_eq!(endpoint.base().as_str(), format!("https://{host}/"));
            assert_eq!(endpoint.scheme(), Scheme::Https);
        }
    }

    #[test]
    fn an_unknown_region_is_refused_and_the_known_ones_are_named() {
        let message = Endpoint::of_region("eu-central-1", Network::Public).unwrap_err().to_string();
        assert!(message.contains("eu-central-1") && message.contains("cn-hongkong"), "{message}");
    }

    #[test]
    fn an_explicit_endpoint_wins_and_keeps_a_port_that_is_not_the_default() {
        for (text, host) in [
            ("https://proxy.example:8443", "proxy.example:8443"),
            ("https://Proxy.Example:443/", "proxy.example"),
            ("http://127.0.0.1:9090", "127.0.0.1:9090"),
            ("http://localhost:80", "localhost"),
            ("http://[::1]:9090", "[::1]:9090"),
        ] {
            let endpoint = Endpoint::choose(text, "ap-southeast-1", Network::Vpc, false).unwrap();
            assert_eq!(endpoint.host_header(), host);
        }
    }

    #[test]
    fn http_leaves_the_machine_only_when_allowed() {
        assert_eq!(Endpoint::explicit("http://10.0.0.1", false), Err(EndpointError::Unencrypted));
        assert!(Endpoint::explicit("http://10.0.0.1", true).is_ok());
    }

    #[test]
    fn anything_but_scheme_host_and_port_is_refused() {
        for text in ["https://h/x", "https://h?a=b", "https://h/#f", "https://u@h", "https://u:p@h"] {
            assert_eq!(Endpoint::explicit(text, true), Err(EndpointError::MoreThanHost), "{text}");
        }
        assert_eq!(Endpoint::explicit("ftp://h", true), Err(EndpointError::Scheme));
        assert_eq!(Endpoint::explicit("cloudauth", true), Err(EndpointError::NoUrl));
    }
}

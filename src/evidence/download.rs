//! Downloads: over https, from hosts of the account's list alone, at addresses of the internet alone.
//!
//! No redirect is followed and no proxy is used. A download is whole or an error: one whose length nobody announced is
//! refused, because its end could be a broken connection. What is too long or too slow is given up. Errors hold no
//! link, because whoever has it has the video.

use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use reqwest::redirect::Policy;
use reqwest::{Client, StatusCode};
use tokio::time::{Instant, timeout_at};
use url::{Host, Url};

use super::address::{Lookup, NoPublicAddress, PublicOnly, system};
use crate::domain::VideoLink;
use crate::domain::evidence::LARGEST_VIDEO;

#[derive(Clone, Copy, Debug)]
pub struct DownloadLimits {
    pub connect: Duration,
    /// Between two pieces.
    pub idle: Duration,
    /// Of the whole.
    pub total: Duration,
}

impl Default for DownloadLimits {
    fn default() -> Self {
        Self { connect: Duration::from_secs(5), idle: Duration::from_secs(15), total: Duration::from_mins(5) }
    }
}

/// Why a download failed. Each says itself what helps.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// Asking again would bring a link like it.
    #[error("{0}")]
    Forbidden(&'static str),
    /// The link does not work, or works no longer: a new one is needed.
    #[error("the provider's link answered {0}")]
    Dead(u16),
    /// The same link may work in a moment.
    #[error("the provider's link answered {0}")]
    Busy(u16),
    #[error("the download could not begin")]
    Connect(#[source] reqwest::Error),
    #[error("the host of the provider's link has no address on the internet")]
    NoAddress,
    #[error("the download took too long")]
    TooSlow,
    #[error("the connection broke in the middle of the download")]
    Broken(#[source] reqwest::Error),
    #[error("the provider's link did not say how long the video is")]
    Endless,
    #[error("the video is larger than {} MiB", LARGEST_VIDEO >> 20)]
    TooLarge,
}

impl DownloadError {
    /// Whether the same link is worth another attempt.
    pub fn is_fault_of_the_moment(&self) -> bool {
        !matches!(self, Self::Forbidden(_) | Self::Dead(_) | Self::TooLarge)
    }
}

/// From where one account's videos may be downloaded. Clones share the connections.
#[derive(Clone, Debug)]
pub struct Downloader {
    client: Client,
    hosts: Vec<String>,
    /// Of an endpoint that is called by plain http: a simulator. The account calls it anyway.
    beside: Option<(Url, Client)>,
    limits: DownloadLimits,
}

#[derive(Debug, thiserror::Error)]
#[error("the HTTP client for downloads cannot be built; are the system's root certificates installed?")]
pub struct ClientError(#[source] reqwest::Error);

impl Downloader {
    /// `hosts`: names, or `*.` and a domain. `endpoint`: the account's own, if it is plain http; videos may lie there
    /// too.
    pub fn new(hosts: Vec<String>, endpoint: Option<Url>, limits: DownloadLimits) -> Result<Self, ClientError> {
        Self::with_lookup(hosts, endpoint, limits, system())
    }

    fn with_lookup(
        hosts: Vec<String>,
        endpoint: Option<Url>,
        limits: DownloadLimits,
        lookup: Lookup,
    ) -> Result<Self, ClientError> {
        let plain = || {
            #[expect(clippy::disallowed_methods, reason = "the one place that makes clients for downloads")]
            let builder = Client::builder();
            builder
                .user_agent(concat!("checkback/", env!("CARGO_PKG_VERSION")))
                .connect_timeout(limits.connect)
                .read_timeout(limits.idle)
                .redirect(Policy::none())
                .referer(false)
                .retry(reqwest::retry::never())
                .no_proxy()
        };
        let client = plain().https_only(true).dns_resolver(PublicOnly(lookup)).build().map_err(ClientError)?;
        let beside = match endpoint.filter(|url| url.scheme() == "http") {
            Some(endpoint) => Some((endpoint, plain().build().map_err(ClientError)?)),
            None => None,
        };
        Ok(Self { client, hosts, beside, limits })
    }

    /// The bytes behind a link, as they come.
    pub async fn fetch(
        &self,
        link: &VideoLink,
    ) -> Result<impl Stream<Item = Result<Bytes, DownloadError>> + Send + use<>, DownloadError> {
        let (url, client) = self.check(link)?;
        let until = Instant::now() + self.limits.total;
        let sent = timeout_at(until, client.get(url).send()).await.map_err(|_| DownloadError::TooSlow)?;
        let response = sent.map_err(|error| {
            if is_no_address(&error) {
                DownloadError::NoAddress
            } else if error.is_timeout() && !error.is_connect() {
                DownloadError::TooSlow
            } else {
                DownloadError::Connect(error.without_url())
            }
        })?;
        match response.status() {
            StatusCode::OK => {}
            status @ (StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS) => {
                return Err(DownloadError::Busy(status.as_u16()));
            }
            status if status.is_server_error() => return Err(DownloadError::Busy(status.as_u16())),
            status => return Err(DownloadError::Dead(status.as_u16())),
        }
        let is_chunked = response.headers().contains_key(http::header::TRANSFER_ENCODING);
        match response.content_length() {
            Some(length) if length > LARGEST_VIDEO as u64 => return Err(DownloadError::TooLarge),
            None if !is_chunked => return Err(DownloadError::Endless),
            _ => {}
        }
        Ok(futures_util::stream::try_unfold(response, move |mut response| async move {
            let piece = timeout_at(until, response.chunk()).await.map_err(|_| DownloadError::TooSlow)?;
            let piece = piece.map_err(|error| {
                if error.is_timeout() { DownloadError::TooSlow } else { DownloadError::Broken(error.without_url()) }
            })?;
            Ok(piece.map(|piece| (piece, response)))
        }))
    }

    /// Whether a link may be followed, and with which client.
    fn check(&self, link: &VideoLink) -> Result<(Url, &Client), DownloadError> {
        let forbidden = |why| Err(DownloadError::Forbidden(why));
        let Ok(url) = Url::parse(link.expose()) else { return forbidden("the provider's link is no URL") };
        if !url.username().is_empty() || url.password().is_some() {
            return forbidden("the provider's link holds a user name");
        }
        if let Some((endpoint, client)) = &self.beside
            && endpoint.origin() == url.origin()
        {
            return Ok((url, client));
        }
        if url.scheme() != "https" {
            return forbidden("the provider's link is not https");
        }
        if url.port().is_some() {
            return forbidden("the provider's link names a port");
        }
        match url.host() {
            Some(Host::Domain(host)) if self.hosts.iter().any(|allowed| is_allowed(host, allowed)) => {}
            Some(Host::Domain(_)) => return forbidden("the host of the provider's link is not among download_hosts"),
            _ => return forbidden("the provider's link names an address and no host"),
        }
        Ok((url, &self.client))
    }
}

/// `*.` stands for one or more labels and never for none.
fn is_allowed(host: &str, allowed: &str) -> bool {
    match allowed.strip_prefix("*.") {
        None => host == allowed,
        Some(domain) => {
            host.strip_suffix(domain).and_then(|rest| rest.strip_suffix('.')).is_some_and(|rest| !rest.is_empty())
        }
    }
}

fn is_no_address(error: &reqwest::Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if error.is::<NoPublicAddress>() {
            return true;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
#[path = "download_tests.rs"]
mod tests;

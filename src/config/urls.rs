//! Checks of addresses. No message repeats the address: it may hold a password.

use std::net::IpAddr;

use url::{Host, Url};

pub(super) fn parse(text: &str) -> Result<Url, &'static str> {
    let url = Url::parse(text).map_err(|_| "must be an absolute URL, such as https://idv.example.com")?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err("must be an http or https URL");
    }
    Ok(url)
}

fn bare(url: &Url) -> Result<(), &'static str> {
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must be a URL without user name and password");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("must be a URL without query and fragment");
    }
    Ok(())
}

/// A provider's endpoint: scheme, host and port alone.
pub(super) fn endpoint(text: &str, allow_http: bool) -> Result<Url, &'static str> {
    let url = parse(text)?;
    bare(&url)?;
    if url.path() != "/" {
        return Err("must be a URL without path");
    }
    if url.scheme() == "http" && !allow_http && !is_loopback(&url) {
        return Err("must be https; http is for loopback hosts, or set allow_http = true");
    }
    Ok(url)
}

/// How others reach us: may have a path, when a proxy puts the service below one.
pub(super) fn public(text: &str) -> Result<Url, &'static str> {
    let url = parse(text)?;
    bare(&url)?;
    if url.scheme() == "http" && !is_loopback(&url) {
        return Err("must be https: the provider calls no other; http is for loopback hosts only");
    }
    Ok(url)
}

/// Where a collector takes traces: below the address, as other programs read it.
pub(super) fn collector(text: &str) -> Result<Url, &'static str> {
    let mut url = parse(text)?;
    bare(&url)?;
    let path = url.path().trim_end_matches('/');
    if !path.ends_with("/v1/traces") {
        let path = format!("{path}/v1/traces");
        url.set_path(&path);
    }
    Ok(url)
}

pub(super) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => IpAddr::V6(address).to_canonical().is_loopback(),
        None => false,
    }
}

/// The URL as it may be shown: passwords and queries may be secrets.
pub(super) fn redacted(url: &Url) -> String {
    let mut url = url.clone();
    let hidden = url.password().is_some() || !url.username().is_empty();
    let query = url.query().is_some();
    // These fail only for URLs without a host, which have neither.
    let _ = url.set_password(None);
    let _ = url.set_username(if hidden { "redacted" } else { "" });
    url.set_fragment(None);
    if query {
        url.set_query(Some("redacted"));
    }
    url.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_scheme_host_and_port_alone() {
        for good in [
            "https://a.example",
            "https://a.example/",
            "https://a.example:8443",
            "http://127.0.0.1:9090",
            "http://[::1]:1",
            "http://localhost",
        ] {
            assert!(endpoint(good, false).is_ok(), "{good}");
        }
        for bad in [
            "",
            "a.example",
            "https://",
            "https://a.example/path",
            "https://a.example/?q",
            "https://a.example/#f",
            "https://user@a.example",
            "https://u:p@a.example",
            "ftp://a.example",
            "file:///a",
            "http://a.example",
            "http://127.0.0.1.example",
            "http://localhost.example",
        ] {
            assert!(endpoint(bad, false).is_err(), "{bad}");
        }
        assert!(endpoint("http://a.example", true).is_ok());
        assert!(endpoint("http://a.example/path", true).is_err());
    }

    #[test]
    fn public_urls_are_https_except_for_loopback() {
        assert!(public("https://idv.example.com/behind/a/proxy").is_ok());
        assert!(public("http://127.0.0.1:8080").is_ok());
        assert!(public("http://idv.example.com").is_err());
        assert!(public("https://idv.example.com/?a=b").is_err());
    }

    #[test]
    fn a_shown_url_has_no_password_and_no_query() {
        let url = Url::parse("https://planted:planted@a.example/path?key=planted#planted").unwrap();
        assert_eq!(redacted(&url), "https://redacted@a.example/path?redacted");
        assert_eq!(redacted(&Url::parse("https://a.example/path").unwrap()), "https://a.example/path");
    }
}

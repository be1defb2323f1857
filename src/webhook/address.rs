//! Addresses that names may not lead to. The operator wrote the URLs, and internal receivers are the normal case, so
//! every address is allowed but those of a cloud's metadata service, which answers with the machine's own credentials:
//! a name that leads there is a mistake or an attack on the name server. Who means it writes the address itself.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Link-local IPv4 has the metadata service of most clouds; the others are those of Alibaba Cloud and of AWS over IPv6.
fn is_metadata(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => address.is_link_local() || address == Ipv4Addr::new(100, 100, 100, 200),
        IpAddr::V6(address) => {
            address.is_unicast_link_local() || address == Ipv6Addr::new(0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x0254)
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the name leads to a metadata service")]
pub(super) struct Refused;

/// Asks the system for a name's addresses. What is connected to is exactly what was looked at.
pub(super) struct NoMetadata;

fn allowed(found: impl Iterator<Item = SocketAddr>) -> Result<Vec<SocketAddr>, Refused> {
    let (refused, allowed): (Vec<_>, Vec<_>) = found.partition(|address| is_metadata(address.ip()));
    if allowed.is_empty() && !refused.is_empty() { Err(Refused) } else { Ok(allowed) }
}

impl Resolve for NoMetadata {
    fn resolve(&self, name: Name) -> Resolving {
        let name = name.as_str().to_owned();
        Box::pin(async move {
            let addresses = allowed(tokio::net::lookup_host((name, 0)).await?)?;
            if addresses.is_empty() {
                return Err(io::Error::other("the name has no address").into());
            }
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_lead_inside_but_not_to_a_metadata_service() {
        let found = |texts: &[&str]| {
            let addresses = texts.iter().map(|text| SocketAddr::new(text.parse().unwrap(), 0)).collect::<Vec<_>>();
            allowed(addresses.into_iter()).map(|addresses| addresses.len())
        };
        assert_eq!(found(&["127.0.0.1", "10.0.0.1", "192.168.1.1", "100.64.0.1", "fd12::1", "::1"]).unwrap(), 6);
        for metadata in [
            "169.254.169.254",
            "169.254.170.2",
            "::ffff:169.254.169.254",
            "100.100.100.200",
            "fd00:ec2::254",
            "fe80::1",
        ] {
            assert!(found(&[metadata]).is_err(), "{metadata}");
            assert_eq!(found(&["10.0.0.1", metadata]).unwrap(), 1, "{metadata}");
        }
        assert_eq!(found(&[]).unwrap(), 0);
    }
}

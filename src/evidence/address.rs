//! Addresses that nothing is downloaded from: whatever is not a plain unicast address of the internet.
//!
//! A link comes from outside, and so does the name server's answer about its host. An address inside (loopback, a
//! private net, a cloud's metadata service) would make this service fetch what its sender cannot reach.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Whether anybody may be meant by it but a host of the internet. Special-purpose registries: RFC 6890 and IANA's.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !(a == 0 // this network
        || a == 10 || a == 127 // private, loopback
        || (a == 100 && (64..128).contains(&b)) // carrier-grade NAT; Alibaba's metadata service is 100.100.100.200
        || (a == 169 && b == 254) // link-local, and most metadata services
        || (a == 172 && (16..32).contains(&b)) || (a == 192 && b == 168) // private
        || (a == 192 && b == 0 && matches!(c, 0 | 2)) // protocol assignments, documentation
        || (a == 192 && b == 31 && c == 196) || (a == 192 && b == 52 && c == 193) // AS112, AMT
        || (a == 192 && b == 88 && c == 99) || (a == 192 && b == 175 && c == 48) // 6to4 relays, AS112
        || (a == 198 && matches!(b, 18 | 19)) // benchmarking
        || (a == 198 && b == 51 && c == 100) || (a == 203 && b == 0 && c == 113) // documentation
        || a >= 224) // multicast, reserved, broadcast
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, ..] = address.segments();
    // Global unicast is 2000::/3; so mapped, compatible, NAT64, loopback, unspecified, unique local, link-local and
    // multicast addresses are none.
    (0x2000..0x4000).contains(&a)
        && !(a == 0x2001 && b < 0x0200) // Teredo, ORCHID, benchmarking, protocol assignments
        && !(a == 0x2001 && b == 0x0db8) // documentation
        && a != 0x2002 // 6to4, which wraps any IPv4 address
        && !(a == 0x3fff && b < 0x1000) // documentation
        && !(a == 0x2620 && b == 0x004f) // AS112
}

/// Asks the system for a name's addresses and gives those of the internet alone. What is connected to is exactly what
/// was looked at: the client takes the addresses from here and asks nobody else.
#[derive(Clone)]
pub(super) struct PublicOnly(pub Lookup);

/// Who is asked; tests put a name server of their own here.
pub(super) type Lookup = Arc<dyn Fn(String) -> Found + Send + Sync>;
type Found = std::pin::Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;

/// The system's own resolver.
pub(super) fn system() -> Lookup {
    Arc::new(|name| Box::pin(async move { Ok(tokio::net::lookup_host((name, 0)).await?.collect()) }))
}

#[derive(Debug, thiserror::Error)]
#[error("the host has no address on the internet")]
pub(super) struct NoPublicAddress;

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        let found = (self.0)(name.as_str().to_owned());
        Box::pin(async move {
            let addresses: Vec<SocketAddr> =
                found.await?.into_iter().filter(|address| is_public(address.ip())).collect();
            if addresses.is_empty() {
                return Err(NoPublicAddress.into());
            }
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_addresses_of_the_internet_are_public() {
        for inside in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "10.255.255.255",
            "100.64.0.1",
            "100.100.100.200",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.7",
            "224.0.0.1",
            "239.255.255.250",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:8.8.8.8",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:2::1",
            "2001:10::1",
            "2001:20::1",
            "2001:db8::1",
            "2002:7f00:1::1",
            "3fff::1",
            "fc00::1",
            "fd12:3456::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "4000::1",
        ] {
            assert!(!is_public(inside.parse().unwrap()), "{inside}");
        }
        for public in [
            "1.1.1.1",
            "8.8.8.8",
            "47.74.1.1",
            "100.63.255.255",
            "100.128.0.1",
            "172.15.0.1",
            "172.32.0.1",
            "192.167.1.1",
            "198.17.1.1",
            "198.20.1.1",
            "223.255.255.1",
            "2400:3200::1",
            "2606:4700::1111",
            "2a00:1450::1",
            "2001:4860:4860::8888",
        ] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
    }
}

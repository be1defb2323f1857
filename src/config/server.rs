//! `[server]`: the two listeners.

use std::net::SocketAddr;

use url::Url;

use super::reader::{Outcome, Reader};
use super::schema::{Field, Shape, field};
use super::urls;

pub(super) const FIELDS: &[Field] = &[
    field("public_listen", Shape::Value),
    field("internal_listen", Shape::Value),
    field("public_url", Shape::Value),
    field("open_metrics", Shape::Value),
];

#[derive(Clone, Debug)]
pub struct Server {
    pub public_listen: SocketAddr,
    pub internal_listen: SocketAddr,
    /// How the provider reaches the public listener; may have a path. `None`: the provider cannot be told where to
    /// call, so Checkback cannot start verifications itself.
    pub public_url: Option<Url>,
    pub open_metrics: bool,
}

impl Server {
    pub(super) fn read(reader: &mut Reader<'_>) -> Outcome<Self> {
        let public_listen = reader.parsed("public_listen", "0.0.0.0:8080", listen);
        let internal_listen = reader.parsed("internal_listen", "127.0.0.1:8081", listen);
        let public_url = reader.parsed("public_url", "", |text| match text {
            "" => Ok(None),
            text => urls::public(text).map(Some),
        });
        let open_metrics = reader.flag("open_metrics", false);
        let server = Self {
            public_listen: public_listen?,
            internal_listen: internal_listen?,
            public_url: public_url?,
            open_metrics: open_metrics?,
        };
        // Port 0 means any free port, so two of them are not the same.
        if server.public_listen == server.internal_listen && server.public_listen.port() != 0 {
            let message = "is the same as public_listen; the API must not be where the internet calls";
            return Err(reader.problem("internal_listen", message));
        }
        Ok(server)
    }

    /// Whether only this machine reaches the API.
    pub fn internal_is_loopback(&self) -> bool {
        self.internal_listen.ip().to_canonical().is_loopback()
    }
}

fn listen(text: &str) -> Result<SocketAddr, &'static str> {
    text.parse().map_err(|_| "must be an IP address and a port, such as \"127.0.0.1:8081\" or \"[::]:8080\"")
}

#[cfg(test)]
mod tests {
    use crate::config::testing::{config, problems};

    #[test]
    fn listeners_are_an_address_and_a_port() {
        let server = config("[server]\npublic_listen = '[::]:80'\ninternal_listen = '127.0.0.1:0'").server;
        assert_eq!(server.public_listen.to_string(), "[::]:80");
        assert!(server.internal_is_loopback());
        let found = problems("[server]\npublic_listen = 'localhost:8080'\ninternal_listen = '127.0.0.1'");
        assert!(found.contains("server.public_listen (file test.toml): must be an IP address and a port"), "{found}");
        assert!(found.contains("server.internal_listen (file test.toml): must be"), "{found}");
    }

    #[test]
    fn the_listeners_differ() {
        let found = problems("[server]\ninternal_listen = '0.0.0.0:8080'");
        assert!(found.contains("server.internal_listen (file test.toml): is the same as public_listen"), "{found}");
        config("[server]\ninternal_listen = '127.0.0.1:0'\npublic_listen = '127.0.0.1:0'");
    }

    #[test]
    fn the_public_url_is_https_and_may_be_left_out() {
        assert!(config("").server.public_url.is_none());
        let url = config("[server]\npublic_url = 'https://idv.example.com/idv'").server.public_url.unwrap();
        assert_eq!(url.as_str(), "https://idv.example.com/idv");
        let found = problems("[server]\npublic_url = 'http://user:planted@idv.example.com'");
        assert!(found.contains("server.public_url") && !found.contains("planted"), "{found}");
    }
}

//! Evidence videos: links that expire and files that disappear, as an object store serves them.

use chrono::{DateTime, TimeDelta, Utc};
use hmac::{Hmac, KeyInit, Mac};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::Sha256;

/// How long a link works.
const LINK_WORKS: TimeDelta = TimeDelta::minutes(15);

/// The head of a `WebM` file and nothing that could be played.
pub(super) const VIDEO: &[u8] = b"\x1A\x45\xDF\xA3\x9F\x42\x86\x81\x01\x42\xF7\x81\x01\x42\xF2\x81\x04\x42\xF3\x81\x08\x42\x82\x84webm\x42\x87\x81\x04\x42\x85\x81\x02simulated evidence video";

pub(super) struct Videos {
    key: Hmac<Sha256>,
}

impl Videos {
    pub(super) fn new(key: [u8; 32]) -> Self {
        Self { key: Hmac::new_from_slice(&key).expect("HMAC takes keys of any length") }
    }

    fn mac(&self, id: &str, expires: i64) -> Hmac<Sha256> {
        self.key.clone().chain_update(expires.to_be_bytes()).chain_update(id)
    }

    /// A fresh link, served by this simulator at `host`.
    pub(super) fn url(&self, host: &str, id: &str, now: DateTime<Utc>) -> String {
        let expires = (now + LINK_WORKS).timestamp();
        let signature = hex::encode(self.mac(id, expires).finalize().into_bytes());
        let id = utf8_percent_encode(id, NON_ALPHANUMERIC);
        format!("http://{host}/_sim/videos/{id}.webm?Expires={expires}&Signature={signature}")
    }

    /// The link is ours and has not expired.
    pub(super) fn link_works(&self, id: &str, query: &str, now: DateTime<Utc>) -> bool {
        let mut expires = None;
        let mut signature = None;
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "Expires" => expires = value.parse::<i64>().ok(),
                "Signature" => signature = hex::decode(&*value).ok(),
                _ => {}
            }
        }
        let (Some(expires), Some(signature)) = (expires, signature) else { return false };
        self.mac(id, expires).verify_slice(&signature).is_ok() && now.timestamp() < expires
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_works_for_15_minutes_and_for_its_own_video() {
        let videos = Videos::new([7; 32]);
        let now = DateTime::<Utc>::UNIX_EPOCH + TimeDelta::days(20_000);
        let url = videos.url("127.0.0.1:1", "a", now);
        let query = url.split_once('?').unwrap().1;
        assert!(videos.link_works("a", query, now + TimeDelta::minutes(15) - TimeDelta::seconds(1)));
        assert!(!videos.link_works("a", query, now + TimeDelta::minutes(15)));
        assert!(!videos.link_works("b", query, now));
        assert!(!videos.link_works("a", &query.replace("Expires=1", "Expires=2"), now));
        assert!(!videos.link_works("a", "", now));
    }
}

//! `[auth]`: who may use the internal listener. Only hashes of keys are known here.

use std::collections::BTreeSet;
use std::fmt;

use super::reader::{Outcome, Reader, not_among};
use super::schema::{Field, Shape, field};

pub(super) const FIELDS: &[Field] = &[field("mode", Shape::Value), field("keys", Shape::List(KEY_FIELDS))];

const KEY_FIELDS: &[Field] =
    &[field("name", Shape::Value), field("sha256", Shape::Value), field("scopes", Shape::Values)];

#[derive(Clone, Debug)]
pub struct Auth {
    pub mode: AuthMode,
    pub keys: Vec<ApiKey>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthMode {
    Keys,
    /// Everybody who reaches the internal listener may do everything.
    None,
}

#[derive(Clone, Debug)]
pub struct ApiKey {
    pub name: String,
    pub sha256: KeyDigest,
    pub scopes: BTreeSet<Scope>,
}

/// SHA-256 of a key. To be compared in constant time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyDigest(pub [u8; 32]);

impl fmt::Debug for KeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyDigest({}…)", hex::encode(&self.0[..4]))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    Register,
    Read,
    Evidence,
    Operate,
    Erase,
}

impl Scope {
    pub const ALL: [Self; 5] = [Self::Register, Self::Read, Self::Evidence, Self::Operate, Self::Erase];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Register => "register",
            Self::Read => "read",
            Self::Evidence => "evidence",
            Self::Operate => "operate",
            Self::Erase => "erase",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Auth {
    pub(super) fn read(reader: &mut Reader<'_>) -> Outcome<Self> {
        let mode = reader.choice("mode", &[("keys", AuthMode::Keys), ("none", AuthMode::None)], "keys");
        let mut names = BTreeSet::new();
        let mut digests = BTreeSet::new();
        let keys = reader.list("keys", KEY_FIELDS, |reader| {
            let key = ApiKey::read(reader)?;
            let mut reported = Ok(());
            if !names.insert(key.name.clone()) {
                reported = Err(reader.problem("name", "is the name of an earlier key; name each key once"));
            }
            if !digests.insert(key.sha256) {
                reported = Err(reader.problem("sha256", "is that of an earlier key; give each client its own key"));
            }
            reported.map(|()| key)
        });
        Ok(Self { mode: mode?, keys: keys? })
    }
}

impl ApiKey {
    fn read(reader: &mut Reader<'_>) -> Outcome<Self> {
        let name = reader.parsed("name", "", name);
        // Not shown in problems: someone may have put the key itself here.
        let sha256 = reader.parsed_hidden("sha256", |text| {
            let mut digest = [0; 32];
            match hex::decode_to_slice(text, &mut digest) {
                Ok(()) => Ok((KeyDigest(digest), format!("{}…", hex::encode(&digest[..4])))),
                Err(_) => Err("must be the SHA-256 of the key in hex, 64 digits: printf %s \"$KEY\" | sha256sum"),
            }
        });
        let scopes = reader.texts("scopes", &[], |text| {
            let found = Scope::ALL.into_iter().find(|scope| scope.as_str() == text);
            found.ok_or_else(|| not_among(text, &Scope::ALL.map(Scope::as_str)))
        });
        let key = Self { name: name?, sha256: sha256?, scopes: scopes?.into_iter().collect() };
        if key.scopes.is_empty() {
            return Err(reader.problem("scopes", "is empty, so the key could do nothing; give it scopes or remove it"));
        }
        Ok(key)
    }
}

/// A name that stands in histories, logs and paths of keys.
pub(super) fn name(text: &str) -> Result<String, &'static str> {
    let allowed = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.');
    if text.is_empty() || text.len() > 63 || !text.chars().all(allowed) {
        return Err("must be a name of 1 to 63 letters, digits, `-`, `_` and `.`");
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::{config, config_with, problems};

    const ONE: &str = "1111111111111111111111111111111111111111111111111111111111111111";
    const TWO: &str = "222222222222222222222222222222222222222222222222222222222222222A";

    fn key(name: &str, sha256: &str, scopes: &str) -> String {
        format!("[[auth.keys]]\nname = '{name}'\nsha256 = '{sha256}'\nscopes = {scopes}\n")
    }

    #[test]
    fn keys_have_a_name_a_hash_and_scopes() {
        let auth = config(&(key("app", ONE, "['read', 'register']") + &key("ops", TWO, "['operate']"))).auth;
        assert_eq!(auth.mode, AuthMode::Keys);
        assert_eq!(auth.keys[0].scopes, BTreeSet::from([Scope::Register, Scope::Read]));
        assert_eq!(auth.keys[0].sha256, KeyDigest([0x11; 32]));
        assert_eq!(auth.keys[1].name, "ops");
    }

    #[test]
    fn the_same_name_or_hash_twice_is_refused() {
        let found = problems(&(key("app", ONE, "['read']") + &key("app", ONE, "['read']")));
        assert!(found.contains("auth.keys.1.name (file test.toml): is the name of an earlier key"), "{found}");
        assert!(found.contains("auth.keys.1.sha256 (file test.toml): is that of an earlier key"), "{found}");
    }

    #[test]
    fn a_hash_of_another_length_is_refused_without_showing_it() {
        for wrong in ["", "planted", &ONE[1..], &format!("{ONE}11"), &ONE.replace('1', "g")] {
            let found = problems(&key("app", wrong, "['read']"));
            assert!(found.contains("auth.keys.0.sha256 (file test.toml): must be the SHA-256"), "{found}");
            assert!(!found.contains("planted"), "{found}");
        }
    }

    #[test]
    fn scopes_are_from_the_list_and_not_empty() {
        let found = problems(&key("app", ONE, "['reed']"));
        assert!(found.contains("auth.keys.0.scopes (file test.toml): item 0 must be one of"), "{found}");
        assert!(found.contains("did you mean \"read\"?"), "{found}");
        assert!(problems(&key("app", ONE, "[]")).contains("is empty"));
        assert!(problems(&key("app", ONE, "'read'")).contains("must be a list of texts"));
    }

    #[test]
    fn mode_none_needs_a_loopback_listener() {
        assert_eq!(config("[auth]\nmode = 'none'").auth.mode, AuthMode::None);
        let found = problems("[auth]\nmode = 'none'\n[server]\ninternal_listen = '0.0.0.0:8081'");
        assert!(found.contains("auth.mode (file test.toml): is \"none\", but server.internal_listen"), "{found}");
    }

    #[test]
    fn keys_come_from_the_environment_by_number() {
        let auth = config_with(
            &key("app", ONE, "['read']"),
            &[
                ("CHECKBACK_AUTH__KEYS__0__SCOPES", "register, erase"),
                ("CHECKBACK_AUTH__KEYS__1__NAME", "ops"),
                ("CHECKBACK_AUTH__KEYS__1__SHA256", TWO),
                ("CHECKBACK_AUTH__KEYS__1__SCOPES__0", "operate"),
            ],
        )
        .auth;
        assert_eq!(auth.keys[0].scopes, BTreeSet::from([Scope::Register, Scope::Erase]));
        assert_eq!(auth.keys[0].name, "app");
        assert_eq!(auth.keys[1].scopes, BTreeSet::from([Scope::Operate]));
    }

    #[test]
    fn debug_shows_only_the_beginning_of_a_hash() {
        assert_eq!(format!("{:?}", KeyDigest([0x11; 32])), "KeyDigest(11111111…)");
    }
}

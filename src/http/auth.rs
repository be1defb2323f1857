//! API keys and their scopes. Only hashes of keys are known here, and they are compared in constant time.

use std::collections::BTreeSet;
use std::fmt;

use axum::http::{HeaderMap, header};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use super::Problem;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    Register,
    Read,
    Evidence,
    Operate,
    Erase,
}

impl Scope {
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

/// A key that may call the internal listener.
#[derive(Clone)]
pub struct Key {
    pub name: String,
    pub sha256: [u8; 32],
    pub scopes: BTreeSet<Scope>,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("name", &self.name).field("scopes", &self.scopes).finish_non_exhaustive()
    }
}

/// Who may call.
#[derive(Debug)]
pub enum Keys {
    /// Anybody may do anything; the configuration allows this on a loopback address only.
    Open,
    Known(Vec<Key>),
}

impl Keys {
    /// Refuses a request that has no key with `scope`, else tells the key's name; `None` where no keys are asked for.
    pub fn require(&self, headers: &HeaderMap, scope: Scope) -> Result<Option<&str>, Problem> {
        let Self::Known(keys) = self else { return Ok(None) };
        let key = find(keys, headers).ok_or_else(Problem::unauthorized)?;
        if key.scopes.contains(&scope) { Ok(Some(&key.name)) } else { Err(Problem::scope_missing(scope.as_str())) }
    }

    /// The known key that the request carries in its header.
    pub(super) fn bearer(&self, headers: &HeaderMap) -> Option<&Key> {
        find(self.known(), headers)
    }

    /// The known key of which this is the text.
    pub(super) fn named_by(&self, text: &str) -> Option<&Key> {
        find_text(self.known(), text.as_bytes())
    }

    /// None where no keys are asked for.
    pub(super) fn known(&self) -> &[Key] {
        match self {
            Self::Open => &[],
            Self::Known(keys) => keys,
        }
    }
}

/// The key of the request.
fn find<'a>(keys: &'a [Key], headers: &HeaderMap) -> Option<&'a Key> {
    let given = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, given) = given.split_at_checked(7)?;
    if !scheme.eq_ignore_ascii_case(b"bearer ") {
        return None;
    }
    find_text(keys, given)
}

/// Every key is compared whole, so the time taken says nothing about any of them.
fn find_text<'a>(keys: &'a [Key], text: &[u8]) -> Option<&'a Key> {
    let given: [u8; 32] = Sha256::digest(text.trim_ascii()).into();
    let mut found = u32::MAX;
    for (index, key) in (0..).zip(keys) {
        let equal: Choice = key.sha256.ct_eq(&given);
        found.conditional_assign(&index, equal);
    }
    usize::try_from(found).ok().and_then(|index| keys.get(index))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn headers(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::from_str(value).unwrap())])
    }

    fn key(name: &str, scopes: &[Scope]) -> Key {
        Key {
            name: name.into(),
            sha256: Sha256::digest(format!("secret-of-{name}")).into(),
            scopes: scopes.iter().copied().collect(),
        }
    }

    #[test]
    fn a_key_opens_what_its_scopes_say_and_nothing_else() {
        let keys = Keys::Known(vec![key("app", &[Scope::Register]), key("ops", &[Scope::Read, Scope::Operate])]);
        let code = |value: &str, scope| keys.require(&headers(value), scope).err().map(|problem| problem.code());
        assert_eq!(code("Bearer secret-of-app", Scope::Register), None);
        assert_eq!(code("bearer secret-of-ops", Scope::Operate), None);
        assert_eq!(code("Bearer secret-of-app", Scope::Read), Some("scope_missing"));
        for wrong in ["Bearer secret-of-nobody", "Bearer ", "Basic secret-of-app", "x"] {
            assert_eq!(code(wrong, Scope::Register), Some("unauthorized"), "{wrong}");
        }
        assert_eq!(keys.require(&HeaderMap::new(), Scope::Read).unwrap_err().code(), "unauthorized");
    }

    #[test]
    fn the_name_of_the_key_is_told() {
        let keys = Keys::Known(vec![key("app", &[Scope::Evidence]), key("ops", &[Scope::Evidence])]);
        assert_eq!(keys.require(&headers("Bearer secret-of-ops"), Scope::Evidence).unwrap(), Some("ops"));
        assert_eq!(Keys::Open.require(&headers("Bearer secret-of-ops"), Scope::Evidence).unwrap(), None);
    }

    #[test]
    fn debug_output_shows_no_hash() {
        let key = key("app", &[Scope::Read]);
        let shown = format!("{:?}", Keys::Known(vec![key.clone()]));
        assert!(shown.contains("app") && !shown.contains(&format!("{:?}", key.sha256)));
    }
}

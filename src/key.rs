//! The names of an operation: a [`Key`] chosen by the client, a [`Scope`] chosen by the server, and the [`RecordId`]
//! that both are digested into.
//!
//! A key is a secret: a client that knows it, and can send the same request, reads the answer. So a key has no
//! `Display`, its `Debug` shows its length only, and it reaches a store, a log line or a metric only as a [`RecordId`].

use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

use crate::digest::{DigestKey, Prefix, digest_of, purpose};

/// An idempotency key: 1 to 255 bytes, not all of them blank.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Key(Box<str>);

/// The reason why a text is not a key. The sender is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// Nothing in it, or blanks only.
    #[error("the key is empty; send a value that is unique to the operation, such as a UUID")]
    Empty,
    /// More than [`Key::MAX_BYTES`] bytes.
    #[error("the key has {bytes} bytes, more than the {} that are accepted", Key::MAX_BYTES)]
    TooLong {
        /// The bytes it has.
        bytes: usize,
    },
    /// A byte that a key can't have.
    #[error("the key has a character that is not accepted at byte {at}; use visible ASCII")]
    Character {
        /// Its position, counted from 0.
        at: usize,
    },
}

impl Key {
    /// The longest key that is accepted, in bytes: 255.
    pub const MAX_BYTES: usize = 255;

    /// Makes a key of `text`, whose characters must be printable ASCII.
    ///
    /// # Errors
    /// [`KeyError`] for a text that is blank, too long or has another character.
    pub fn new(text: &str) -> Result<Self, KeyError> {
        if text.bytes().all(|byte| byte == b' ') {
            return Err(KeyError::Empty);
        }
        if text.len() > Self::MAX_BYTES {
            return Err(KeyError::TooLong { bytes: text.len() });
        }
        match text.bytes().position(|byte| !(b' '..=b'~').contains(&byte)) {
            Some(at) => Err(KeyError::Character { at }),
            None => Ok(Self(text.into())),
        }
    }

    /// The key's text: a secret, not for logs.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Key {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        Self::new(text)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({} bytes)", self.0.len())
    }
}

/// The owner of a key: a tenant, an account, a principal. The same key in two scopes names two operations.
///
/// Build it from what stays the same between two tries of one client (the account's id), never from what does not
/// (an access token that is refreshed: the retry would be a second charge).
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Scope {
    // Length-prefixed parts, so that ("a:b", "c") and ("a", "b:c") differ.
    parts: Vec<u8>,
}

/// A part of a [`Scope`] is empty: the application has not said whose the key is. In a scope of that name, all
/// strangers would share their keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a part of the scope is empty; name the account, the tenant or the principal that the key belongs to")]
#[non_exhaustive]
pub struct EmptyScope;

impl Scope {
    /// Makes the scope of `part`, such as an account's id.
    ///
    /// # Errors
    /// [`EmptyScope`] for an empty part.
    pub fn new(part: impl AsRef<[u8]>) -> Result<Self, EmptyScope> {
        Self { parts: Vec::new() }.and(part)
    }

    /// Narrows this scope by one more part, such as a user within a tenant.
    ///
    /// # Errors
    /// [`EmptyScope`] for an empty part.
    pub fn and(mut self, part: impl AsRef<[u8]>) -> Result<Self, EmptyScope> {
        let part = part.as_ref();
        if part.is_empty() {
            return Err(EmptyScope);
        }
        self.parts.extend_from_slice(Prefix::of(part).as_bytes());
        self.parts.extend_from_slice(part);
        Ok(self)
    }
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scope({} bytes)", self.parts.len())
    }
}

static RECORD_ID: DigestKey = LazyLock::new(|| purpose("tower-idempotency 2026 record id v1"));

/// The digest of scope and key (BLAKE3): the only form in which a key reaches a store.
///
/// `Display` writes all 64 hex digits, for operators who settle an interrupted operation; `Debug` and the logs show
/// the first eight.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct RecordId([u8; 32]);

/// A text is not a [`RecordId`]: it has not exactly 64 hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a record id has 64 hex digits")]
#[non_exhaustive]
pub struct RecordIdError;

impl RecordId {
    /// The id of `key` within `scope`, or of `key` alone where the application has no scopes.
    #[must_use]
    pub fn new(scope: Option<&Scope>, key: &Key) -> Self {
        let key = key.as_str().as_bytes();
        Self(match scope {
            None => digest_of(&RECORD_ID, &[&[0], key]),
            Some(Scope { parts }) => digest_of(&RECORD_ID, &[&[1], Prefix::of(parts).as_bytes(), parts, key]),
        })
    }

    /// The id whose bytes these are, as a store keeps them.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Its first eight hex digits: what logs show.
    #[must_use]
    pub fn short(&self) -> String {
        blake3::Hash::from_bytes(self.0).to_hex()[..8].to_owned()
    }
}

impl fmt::Debug for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecordId({}…)", self.short())
    }
}

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl FromStr for RecordId {
    type Err = RecordIdError;

    fn from_str(text: &str) -> Result<Self, RecordIdError> {
        blake3::Hash::from_hex(text).map(|digest| Self(*digest.as_bytes())).map_err(|_| RecordIdError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Key {
        Key::new(text).unwrap()
    }

    fn scope(parts: &[&str]) -> Scope {
        parts[1..].iter().fold(Scope::new(parts[0]).unwrap(), |scope, part| scope.and(part).unwrap())
    }

    #[test]
    fn a_key_is_one_to_255_printable_bytes() {
        assert!(Key::new(&"k".repeat(255)).is_ok());
        assert_eq!(Key::new(&"k".repeat(256)), Err(KeyError::TooLong { bytes: 256 }));
        assert_eq!(Key::new(""), Err(KeyError::Empty));
        assert_eq!(Key::new("  "), Err(KeyError::Empty));
        assert_eq!(Key::new("abc\u{e9}"), Err(KeyError::Character { at: 3 }));
        assert_eq!(Key::new("a\tb"), Err(KeyError::Character { at: 1 }));
    }

    #[test]
    fn neither_debug_output_shows_what_it_holds() {
        assert_eq!(format!("{:?}", key("secret")), "Key(6 bytes)");
        assert!(!format!("{:?}", scope(&["alice"])).contains("alice"));
        let id = RecordId::new(None, &key("secret"));
        assert_eq!(format!("{id:?}"), format!("RecordId({}…)", &id.to_string()[..8]));
    }

    #[test]
    fn trap_24_scope_parts_are_length_prefixed_and_never_run_together() {
        let (one, two) = (scope(&["a:b", "c"]), scope(&["a", "b:c"]));
        assert_ne!(RecordId::new(Some(&one), &key("k")), RecordId::new(Some(&two), &key("k")));
        let shifted = RecordId::new(Some(&scope(&["ab"])), &key("c"));
        assert_ne!(shifted, RecordId::new(Some(&scope(&["a"])), &key("bc")));
        assert_ne!(RecordId::new(None, &key("k")), RecordId::new(Some(&scope(&["k"])), &key("k")));
    }

    #[test]
    fn no_scope_has_an_empty_part_in_which_all_strangers_would_meet() {
        assert_eq!(Scope::new(""), Err(EmptyScope));
        assert_eq!(Scope::new("tenant").and_then(|tenant| tenant.and("")), Err(EmptyScope));
    }

    #[test]
    fn a_record_id_survives_its_text() {
        let id = RecordId::new(Some(&scope(&["a"])), &key("k"));
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!("xyz".parse::<RecordId>(), Err(RecordIdError));
        assert_eq!("é".repeat(32).parse::<RecordId>(), Err(RecordIdError));
        assert_eq!("+f".repeat(32).parse::<RecordId>(), Err(RecordIdError), "a sign is no digit");
        assert_eq!(id.to_string().to_uppercase().parse(), Ok(id));
    }
}

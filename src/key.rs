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
        let at = text.bytes().position(|byte| !(b' '..=b'~').contains(&byte));
        let key = Self::of_printable(text)?;
        at.map_or(Ok(key), |at| Err(KeyError::Character { at }))
    }

    /// Makes a key of `text`, whose characters are known to be printable ASCII.
    pub(crate) fn of_printable(text: &str) -> Result<Self, KeyError> {
        match text.len() {
            0 => Err(KeyError::Empty),
            1..=Self::MAX_BYTES => Ok(Self(text.into())),
            bytes => Err(KeyError::TooLong { bytes }),
        }
    }

    /// Returns the same key in small letters.
    #[cfg(feature = "server")]
    pub(crate) fn in_lower_case(mut self) -> Self {
        self.0.make_ascii_lowercase();
        self
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
    /// Length-prefixed parts, so that ("a:b", "c") and ("a", "b:c") differ.
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

    /// Returns the scope's digest (BLAKE3), by which operators find the operations of one owner. Records have it, and
    /// not the scope itself.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        digest_of(&SCOPE, &[&self.parts])
    }
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scope({} bytes)", self.parts.len())
    }
}

/// The purpose of record ids. The text is part of the stored format: with another one, no record would be found.
static RECORD_ID: DigestKey = LazyLock::new(|| purpose("tower-idempotency 2026 record id v1"));

/// The purpose of digests of scopes. The text is part of the stored format: with another one, no operation of an owner
/// would be found.
static SCOPE: DigestKey = LazyLock::new(|| purpose("tower-idempotency 2026 scope v1"));

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
        // The first byte differs, because a key alone may have the same bytes as a scope and a key in a row.
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

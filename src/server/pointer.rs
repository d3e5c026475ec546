//! A JSON pointer (RFC 6901) to a member of a body.

use std::fmt;
use std::sync::Arc;

use tower_idempotency_meaning::pointer;

/// The way to a member.
#[derive(Clone)]
pub(super) struct Pointer {
    /// As it was written.
    pub(super) text: Arc<str>,
    /// The names of the members and the indexes on the way.
    pub(super) tokens: Arc<[String]>,
}

/// The text names no place in a body.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} names no place in a body: write a JSON pointer such as /params/key; in a setting of `key_from`, json:/params/key, \
     or form:key for a form's field"
)]
pub struct NotAPlace(pub(super) String);

impl Pointer {
    /// Reads a pointer that leads to a part of the body.
    pub(super) fn new(text: &str) -> Result<Self, NotAPlace> {
        let tokens = pointer::tokens(text).ok_or_else(|| NotAPlace(text.to_owned()))?;
        Ok(Self { text: text.into(), tokens: tokens.into() })
    }

    /// Returns the element of an array that a token names.
    pub(super) fn index(token: &str) -> Option<usize> {
        pointer::index(token)
    }
}

impl fmt::Debug for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text.fmt(f)
    }
}

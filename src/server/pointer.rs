//! A JSON pointer (RFC 6901) to a member of a body.

use std::fmt;
use std::sync::Arc;

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
        // Section 3: `~` is followed by `0` or `1`.
        let is_bad = |token: &str| token.split('~').skip(1).any(|rest| !rest.starts_with(['0', '1']));
        let tokens =
            text.strip_prefix('/').filter(|tokens| !is_bad(tokens)).ok_or_else(|| NotAPlace(text.to_owned()))?;
        // Section 4: in this order, so that `~01` is `~1`.
        let tokens = tokens.split('/').map(|token| token.replace("~1", "/").replace("~0", "~"));
        Ok(Self { text: text.into(), tokens: tokens.collect() })
    }

    /// Returns the element of an array that a token names (section 4: without leading zeros).
    pub(super) fn index(token: &str) -> Option<usize> {
        token.parse::<usize>().ok().filter(|index| index.to_string() == token)
    }
}

impl fmt::Debug for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text.fmt(f)
    }
}

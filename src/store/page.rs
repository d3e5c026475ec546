//! The place at which a page of a list begins.

use std::fmt;
use std::str::FromStr;

use crate::clock::Timestamp;
use crate::key::RecordId;
use crate::store::contract::After;

/// The place in a list at which the next page begins. As a text it has only digits, letters and dots, and no secret:
/// it may be a part of a URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor(pub(super) Place);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Lists of interrupted operations and of disputed outcomes are ordered by time.
    Time(After),
    /// All others are ordered by id.
    Id(RecordId),
}

/// A text is not a [`Cursor`]: begin with the first page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is no place in a list; begin with the first page")]
#[non_exhaustive]
pub struct CursorError;

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Place::Time(After { since, began, id }) => write!(f, "t{}.{}.{id}", since.as_millis(), began.as_millis()),
            Place::Id(id) => write!(f, "i{id}"),
        }
    }
}

impl FromStr for Cursor {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        let id = |text: &str| text.parse::<RecordId>().map_err(|_| CursorError);
        let time = |text: &str| text.parse().map(Timestamp::from_millis).map_err(|_| CursorError);
        if let Some(text) = text.strip_prefix('i') {
            return id(text).map(|id| Self(Place::Id(id)));
        }
        let text = text.strip_prefix('t').ok_or(CursorError)?;
        let mut parts = text.splitn(3, '.');
        let mut next = || parts.next().ok_or(CursorError);
        Ok(Self(Place::Time(After { since: time(next()?)?, began: time(next()?)?, id: id(next()?)? })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_from_what_it_is_written_as() {
        let id = RecordId::from_bytes([0xab; 32]);
        let (since, began) = (Timestamp::from_millis(1_700_000_000_123), Timestamp::from_millis(u64::MAX));
        for place in [Place::Id(id), Place::Time(After { since, began, id })] {
            let text = Cursor(place).to_string();
            assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'.'), "{text}");
            assert_eq!(text.parse(), Ok(Cursor(place)));
            for cut in 0..text.len() {
                assert_eq!(text[..cut].parse::<Cursor>(), Err(CursorError), "{cut}");
            }
        }
    }
}

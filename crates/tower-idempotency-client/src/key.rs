//! The key of a call: chosen or given, read back where a call was stored, and sent with each attempt.

use std::fmt;

use bytes::Bytes;
use http::HeaderValue;
use uuid::fmt::Hyphenated;

/// The most bytes that a key may have.
const MAX_KEY: usize = 255;

/// The idempotency key of one operation: 1 to 255 characters of printable ASCII, without blanks and without `"`, `,`,
/// `;` and `\`.
///
/// Put one into the extensions of a request, or write it into the request's header, to choose the key of the call.
///
/// **Save the key before the call, with what is to be sent**, if the operation has to survive the end of the process.
/// A key is a secret for as long as the server remembers it, so `Debug` does not show it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Key(Bytes);

impl Key {
    /// Returns a new key: a random UUID (version 4, RFC 9562 section 5.4).
    #[must_use]
    pub fn random() -> Self {
        let mut text = [0; Hyphenated::LENGTH];
        uuid::Uuid::new_v4().hyphenated().encode_lower(&mut text);
        // The header shares them, so this is the only allocation.
        Self(Bytes::from_owner(text))
    }

    /// Takes a key of the caller's own.
    ///
    /// Do not derive it from credentials, from the time, or from what is in the request: a new token would make a new
    /// operation, and two equal orders would become one.
    ///
    /// # Errors
    /// The key is empty, has more than 255 bytes, or has a character that servers may not accept.
    pub fn new(key: impl Into<String>) -> Result<Self, InvalidKey> {
        let key = key.into();
        match key.len() {
            0 => Err(InvalidKey::Empty),
            1..=MAX_KEY => match key.bytes().position(|byte| !is_accepted(byte)) {
                Some(at) => Err(InvalidKey::Character { at }),
                None => Ok(Self(key.into())),
            },
            length => Err(InvalidKey::TooLong { length }),
        }
    }

    /// The key as it is sent, without quotes.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // It has ASCII only.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// The value of the header that sends it.
    pub(crate) fn to_header(&self, quoted: bool) -> Result<HeaderValue, InvalidKey> {
        let value = match quoted {
            true => HeaderValue::try_from(format!("\"{}\"", self.as_str())),
            false => HeaderValue::from_maybe_shared(self.0.clone()),
        };
        let mut value = value.map_err(|_| InvalidKey::Character { at: 0 })?;
        value.set_sensitive(true);
        Ok(value)
    }
}

/// Reads a header's value: a key as it is, or in the double quotes of a structured field (RFC 9651 section 3.3.3).
impl TryFrom<&HeaderValue> for Key {
    type Error = InvalidKey;

    fn try_from(value: &HeaderValue) -> Result<Self, InvalidKey> {
        let is_text = |byte: &u8| matches!(byte, b'\t' | b' '..=b'~');
        let at = || value.as_bytes().iter().position(|byte| !is_text(byte)).unwrap_or_default();
        let text = value.to_str().map_err(|_| InvalidKey::Character { at: at() })?.trim();
        let bare = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
        Self::new(bare.unwrap_or(text))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Key(..)")
    }
}

fn is_accepted(byte: u8) -> bool {
    byte.is_ascii_graphic() && !b"\",;\\".contains(&byte)
}

/// Why a text is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidKey {
    /// It has no characters.
    #[error("an idempotency key must not be empty")]
    Empty,
    /// It has more than 255 bytes.
    #[error("an idempotency key has at most 255 bytes, and this one has {length}")]
    #[non_exhaustive]
    TooLong {
        /// How many bytes it has.
        length: usize,
    },
    /// A character is not accepted.
    #[error("an idempotency key has printable ASCII only, without blanks and \" , ; \\: look at byte {at}")]
    #[non_exhaustive]
    Character {
        /// The first such byte, counted from 0.
        at: usize,
    },
    /// The request has more than one key.
    #[error("the request has more than one idempotency key: send one")]
    Doubled,
}

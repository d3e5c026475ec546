//! Reads the `Idempotency-Key` header, and for others the lines of any header ([`lines`]).
//!
//! Rules:
//! 1. A value that begins with a double quote is a structured-field String (RFC 9651, section 3.3.3), parsed strictly;
//!    parameters are allowed and ignored.
//! 2. Any other value is taken bare, as nearly all SDKs send it: visible ASCII without `"`, `,`, `;`, `\` and blanks.
//!    `"abc"` and `abc` are one key. In strict mode a bare key is refused.
//! 3. More than one field line is refused *before* parsing, because a structured-field parser would join them.
//! 4. A key has 1 to 255 bytes and is not blank.
//! 5. Where the profile asks for a [`KeyForm`], a key of another form is refused.

use std::borrow::Borrow;
use std::convert::Infallible;

use http::{HeaderMap, HeaderName, HeaderValue};
use sfv::BareItemFromInput;
use sfv::visitor::{Ignored, ItemVisitor, ParameterVisitor};

use crate::key::{Key, KeyError};

/// The reason why the header has no valid key. The client is at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderError {
    /// There is more than one field line.
    #[error("there is more than one {0} header; send one")]
    Repeated(HeaderName),
    /// The value begins like a structured-field String, but is none.
    #[error("the {0} header begins with a double quote but is not a structured-field String (RFC 9651)")]
    BadString(HeaderName),
    /// The value is bare, and has a character that only a quoted one can have.
    #[error("the {0} header has a character that is only accepted in a quoted key; put the key in double quotes")]
    BadBare(HeaderName),
    /// The value has a character that no key can have, quoted or not.
    #[error("the {0} header has a character that is not visible ASCII; use letters, digits and hyphens")]
    NotAscii(HeaderName),
    /// The value is bare, but a structured-field String is required.
    #[error("the {0} header must be a structured-field String, in double quotes")]
    NotQuoted(HeaderName),
    /// The key is no UUID of version 7, and the profile asks for one.
    #[error(
        "the {0} header must be a UUID of version 7 in its 36 characters (RFC 9562), such as \
         017f22e2-79b0-7cc3-98c4-dc0c0c07398f; make the key in that form"
    )]
    NotUuidV7(HeaderName),
    /// The value is not a valid key.
    #[error("the {name} header is not accepted: {source}")]
    Key {
        /// The header's name.
        name: HeaderName,
        /// The reason.
        source: KeyError,
    },
}

/// The characters of a UUID.
const UUID_BYTES: usize = 36;

/// The form that a profile asks of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyForm {
    /// Any key.
    Any,
    /// A UUID of version 7 in its 36 characters (RFC 9562, sections 4 and 5.7). In capitals it is the same key: the
    /// layer takes each in small letters, and so does an operator who looks for one.
    UuidV7,
}

impl KeyForm {
    /// Returns the key as this form has it, or `None` if it is of another form.
    pub(crate) fn of(self, key: Key) -> Option<Key> {
        match self {
            Self::Any => Some(key),
            Self::UuidV7 => is_uuid_v7(key.as_str()).then(|| key.in_lower_case()),
        }
    }

    /// Returns the most bytes of a key.
    pub(crate) fn max_bytes(self) -> usize {
        match self {
            Self::Any => Key::MAX_BYTES,
            Self::UuidV7 => UUID_BYTES,
        }
    }

    /// Returns what clients are shown of it, if it asks for something.
    pub(crate) fn name(self) -> Option<&'static str> {
        (self == Self::UuidV7).then_some("uuid-v7")
    }
}

/// Returns whether a text is a UUID of version 7, with the variant of RFC 9562, section 4.1.
fn is_uuid_v7(text: &str) -> bool {
    text.len() == UUID_BYTES
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            14 => byte == b'7',
            19 => matches!(byte.to_ascii_lowercase(), b'8' | b'9' | b'a' | b'b'),
            _ => byte.is_ascii_hexdigit(),
        })
}

/// Returns the values of all lines of the field `name`, in their order. Most messages have so few fields that comparing
/// all names takes half the time of hashing one.
#[inline]
pub(crate) fn lines(headers: &HeaderMap, name: impl Borrow<HeaderName>) -> impl Iterator<Item = &HeaderValue> {
    headers.iter().filter_map(move |(other, value)| (other == name.borrow()).then_some(value))
}

/// Returns the key in the header `name`, or `None` if there is no such header.
///
/// # Errors
/// [`HeaderError`] if the header is there but has no valid key.
pub fn read_key(headers: &HeaderMap, name: &HeaderName, strict: bool) -> Result<Option<Key>, HeaderError> {
    let mut lines = lines(headers, name);
    let Some(line) = lines.next() else { return Ok(None) };
    if lines.next().is_some() {
        return Err(HeaderError::Repeated(name.clone()));
    }
    let value = line.as_bytes();
    let key = if value.first() == Some(&b'"') {
        Key::new(&string(value).ok_or_else(|| HeaderError::BadString(name.clone()))?)
    } else {
        Key::of_printable(bare(line, name, strict)?)
    };
    key.map(Some).map_err(|source| HeaderError::Key { name: name.clone(), source })
}

/// Returns the text of a structured-field String, or `None` if the value is none. Parameters are dropped.
fn string(value: &[u8]) -> Option<String> {
    let mut text = StringItem(None);
    sfv::Parser::new(value).parse_item_with_visitor(&mut text).ok()?;
    text.0
}

/// Takes the text of an item that is a String.
struct StringItem(Option<String>);

impl<'de> ItemVisitor<'de> for &mut StringItem {
    type Error = Infallible;

    fn bare_item(self, item: BareItemFromInput<'de>) -> Result<impl ParameterVisitor<'de>, Infallible> {
        if let BareItemFromInput::String(text) = item {
            self.0 = Some(text.as_str().to_owned());
        }
        Ok(Ignored)
    }
}

/// Returns whether a bare value may have this byte.
fn is_bare(byte: u8) -> bool {
    byte.is_ascii_graphic() & (byte != b'"') & (byte != b',') & (byte != b';') & (byte != b'\\')
}

/// Returns the text of a value that does not begin with a double quote.
fn bare<'a>(line: &'a HeaderValue, name: &HeaderName, strict: bool) -> Result<&'a str, HeaderError> {
    let value = line.as_bytes();
    // Without an early end, several bytes are compared at a time.
    let is_bare = value.iter().fold(true, |all, byte| all & is_bare(*byte));
    match line.to_str() {
        // Quotes would not turn an empty value into a key.
        Ok(text) if is_bare && strict && !text.is_empty() => Err(HeaderError::NotQuoted(name.clone())),
        Ok(text) if is_bare => Ok(text),
        // The value has a blank, `"`, `,`, `;` or `\`, which only a quoted key may have.
        _ if value.iter().all(|byte| matches!(byte, b' '..=b'~')) => Err(HeaderError::BadBare(name.clone())),
        // There is a control character or a byte beyond ASCII.
        _ => Err(HeaderError::NotAscii(name.clone())),
    }
}

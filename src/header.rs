//! Reads the `Idempotency-Key` header.
//!
//! Rules:
//! 1. A value that begins with a double quote is a structured-field String (RFC 9651, section 3.3.3), parsed strictly;
//!    parameters are allowed and ignored.
//! 2. Any other value is taken bare, as nearly all SDKs send it: visible ASCII without `"`, `,`, `;`, `\` and blanks.
//!    `"abc"` and `abc` are one key. In strict mode a bare key is refused.
//! 3. More than one field line is refused *before* parsing, because a structured-field parser would join them.
//! 4. A key has 1 to 255 bytes and is not blank.

use http::{HeaderMap, HeaderName};

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
    /// The value is not a valid key.
    #[error("the {name} header is not accepted: {source}")]
    Key {
        /// The header's name.
        name: HeaderName,
        /// The reason.
        source: KeyError,
    },
}

/// Returns the key in the header `name`, or `None` if there is no such header.
///
/// # Errors
/// [`HeaderError`] if the header is there but has no valid key.
pub fn read_key(headers: &HeaderMap, name: &HeaderName, strict: bool) -> Result<Option<Key>, HeaderError> {
    let mut lines = headers.get_all(name).iter();
    let Some(line) = lines.next() else { return Ok(None) };
    if lines.next().is_some() {
        return Err(HeaderError::Repeated(name.clone()));
    }
    let value = line.as_bytes();
    let quoted;
    let text = if value.first() == Some(&b'"') {
        quoted = string(value).ok_or_else(|| HeaderError::BadString(name.clone()))?;
        quoted.as_str()
    } else {
        bare(value, name, strict)?
    };
    Key::new(text).map(Some).map_err(|source| HeaderError::Key { name: name.clone(), source })
}

fn string(value: &[u8]) -> Option<String> {
    let item = sfv::Parser::new(value).parse::<sfv::Item>().ok()?;
    item.bare_item.as_string().map(|string| string.as_str().to_owned())
}

/// The bytes that a bare value may have. A table is quicker than comparisons, and every request with a key is checked.
const BARE: [bool; 256] = {
    let mut bare = [false; 256];
    let mut byte = b'!';
    while byte <= b'~' {
        bare[byte as usize] = !matches!(byte, b'"' | b',' | b';' | b'\\');
        byte += 1;
    }
    bare
};

fn bare<'a>(value: &'a [u8], name: &HeaderName, strict: bool) -> Result<&'a str, HeaderError> {
    let is_bare = value.iter().all(|byte| BARE[usize::from(*byte)]);
    match std::str::from_utf8(value) {
        // Quotes would not turn an empty value into a key.
        Ok(text) if is_bare && strict && !text.is_empty() => Err(HeaderError::NotQuoted(name.clone())),
        Ok(text) if is_bare => Ok(text),
        _ if value.iter().all(|byte| matches!(byte, b' '..=b'~')) => Err(HeaderError::BadBare(name.clone())),
        _ => Err(HeaderError::NotAscii(name.clone())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    const NAME: HeaderName = HeaderName::from_static("idempotency-key");

    fn read(values: &[&[u8]], strict: bool) -> Result<Option<Key>, HeaderError> {
        let lines = values.iter().map(|value| (NAME, HeaderValue::from_bytes(value).unwrap()));
        let mut headers = HeaderMap::new();
        headers.extend(lines);
        read_key(&headers, &NAME, strict)
    }

    fn key(text: &str) -> Result<Option<Key>, HeaderError> {
        Ok(Some(Key::new(text).unwrap()))
    }

    #[test]
    fn trap_20_a_quoted_and_a_bare_key_are_the_same_key() {
        assert_eq!(read(&[b"abc"], false), key("abc"));
        assert_eq!(read(&[b"\"abc\""], false), key("abc"));
        assert_eq!(read(&[b"\"abc\";v=1; w"], false), key("abc"));
        assert_eq!(read(&[b"\"a\\\"b, c\""], false), key("a\"b, c"));
    }

    #[test]
    fn keys_that_clients_are_known_to_send_are_accepted() {
        for sent in ["8e03978e-40d5-43e8-bc93-6894a57f9324", "stripe-node-retry-8e03978e-40d5", "cart_42!", "\"17\""] {
            assert!(matches!(read(&[sent.as_bytes()], false), Ok(Some(_))), "{sent}");
        }
    }

    #[test]
    fn trap_19_what_is_not_a_key_is_an_error_and_never_no_key() {
        let malformed: [&[u8]; 14] = [
            b"",
            b"\"",
            b"\"abc",
            b"\"abc\"x",
            b"\"a\\b\"",
            b"\"\"",
            b"\"  \"",
            b"a b",
            b"a,b",
            b"a;b",
            b"a\"b",
            b"a\\b",
            "clé".as_bytes(),
            b"\"a\", \"b\"",
        ];
        for value in malformed {
            assert!(read(&[value], false).is_err(), "{:?}", String::from_utf8_lossy(value));
        }
        assert_eq!(read(&[b"a", b"a"], false), Err(HeaderError::Repeated(NAME)));
        assert_eq!(read(&[b"\"a\"", b""], false), Err(HeaderError::Repeated(NAME)));
        assert!(read(&["k".repeat(256).as_bytes()], false).is_err());
        assert_eq!(read(&["k".repeat(255).as_bytes()], false), key(&"k".repeat(255)));
        assert_eq!(read(&[format!("\"{}\"", "k".repeat(255)).as_bytes()], false), key(&"k".repeat(255)));
    }

    #[test]
    fn a_key_that_quotes_would_help_is_told_so_and_no_other() {
        assert_eq!(read(&[b"a b"], false), Err(HeaderError::BadBare(NAME)));
        assert_eq!(read(&[b"\"a b\""], false), key("a b"));
        for value in ["clé".as_bytes(), b"a\tb"] {
            assert_eq!(read(&[value], false), Err(HeaderError::NotAscii(NAME)));
            assert!(read(&[&[b"\"", value, b"\""].concat()], false).is_err());
        }
    }

    #[test]
    fn strict_mode_takes_quoted_keys_only() {
        assert_eq!(read(&[b"abc"], true), Err(HeaderError::NotQuoted(NAME)));
        assert_eq!(read(&[b"\"abc\""], true), key("abc"));
        let empty = HeaderError::Key { name: NAME, source: KeyError::Empty };
        assert_eq!(read(&[b""], true), Err(empty), "quotes would not help");
        assert_eq!(read(&[], true), Ok(None));
    }
}

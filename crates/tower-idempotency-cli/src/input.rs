//! What comes from standard input: keys, scopes and bodies are on no command line.

use std::io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _};
use std::path::Path;

use bytes::Bytes;
use tower_idempotency::{Key, Scope};

use crate::failure::Failure;
use crate::text::decoded;

/// A key, and the scope that it belongs to.
pub(crate) struct KeyInScope {
    pub(crate) scope: Option<Scope>,
    pub(crate) key: Key,
}

/// Reads a key and its scope.
pub(crate) fn key() -> Result<KeyInScope, Failure> {
    let (stdin, mut text) = (io::stdin(), String::new());
    if stdin.is_terminal() {
        let mut ask = |question: &str| -> io::Result<()> {
            write!(io::stderr(), "{question}")?;
            stdin.lock().read_line(&mut text).map(drop)
        };
        ask("The account or tenant that the key belongs to (empty if the service has no scopes): ")?;
        ask("The idempotency key: ")?;
    } else {
        text = decoded(&body(STANDARD.as_ref())?).map_err(|why| Failure::usage(format!("standard input: {why}")))?;
    }
    read(&text)
}

/// The last line is the key. The lines before it are the parts of its scope; an empty one is no scope. A part that is
/// no text is `\x` and its bytes in hexadecimal.
fn read(text: &str) -> Result<KeyInScope, Failure> {
    let mut lines: Vec<&str> = text.lines().collect();
    while lines.last().is_some_and(|line| line.is_empty()) {
        lines.pop();
    }
    let key = lines.pop().ok_or_else(|| Failure::usage("standard input has no key"))?;
    // As the header has it.
    let key = key.strip_prefix('"').and_then(|key| key.strip_suffix('"')).unwrap_or(key);
    let key = Key::new(key).map_err(Failure::usage)?;
    let scope = match lines.as_slice() {
        [] | [""] => None,
        [first, others @ ..] => {
            let mut scope = Scope::new(part(first)?).map_err(Failure::usage)?;
            for other in others {
                scope = scope.and(part(other)?).map_err(Failure::usage)?;
            }
            Some(scope)
        }
    };
    Ok(KeyInScope { scope, key })
}

/// Returns the bytes of a part of a scope.
fn part(line: &str) -> Result<Vec<u8>, Failure> {
    let Some(digits) = line.strip_prefix("\\x") else { return Ok(line.as_bytes().to_vec()) };
    // A number could have a sign.
    let is_hex = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    let byte = |at| digits.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
    let bytes = (0..digits.len()).step_by(2).map(byte).collect::<Option<_>>().filter(|_| is_hex);
    bytes.ok_or_else(|| Failure::usage("a part of the scope after \\x has two hex digits for each byte"))
}

/// The name of standard input, among files.
pub(crate) const STANDARD: &str = "-";

/// Reads a body from a file, or from standard input.
pub(crate) fn body(file: &Path) -> Result<Bytes, Failure> {
    let mut body = Vec::new();
    if file == Path::new(STANDARD) {
        io::stdin().lock().read_to_end(&mut body)?;
    } else {
        body = std::fs::read(file).map_err(|error| Failure::Usage(format!("{}: {error}", file.display())))?;
    }
    Ok(body.into())
}

#[cfg(test)]
mod tests {
    use tower_idempotency::RecordId;

    use super::*;

    #[test]
    fn the_last_line_is_the_key_and_those_before_it_are_its_scope() {
        let of = |parts: &[&[u8]]| {
            let (first, others) = parts.split_first()?;
            Some(others.iter().fold(Scope::new(first).unwrap(), |scope, part| scope.and(part).unwrap()))
        };
        for (text, scope, key) in [
            ("k", &[] as &[&[u8]], "k"),
            ("k\n", &[], "k"),
            ("\"k\"\r\n", &[], "k"),
            ("\nk\n", &[], "k"),
            ("account 7\nk\n\n", &[b"account 7"], "k"),
            ("tenant\nuser\nk", &[b"tenant", b"user"], "k"),
            ("tenant\n\\x00fF0a\n\\xk", &[b"tenant", b"\0\xff\n"], "\\xk"),
        ] {
            let KeyInScope { scope: found, key: found_key } = read(text).unwrap_or_else(|error| panic!("{error}"));
            let expected = RecordId::new(of(scope).as_ref(), &Key::new(key).unwrap());
            assert_eq!(RecordId::new(found.as_ref(), &found_key), expected, "{text:?}");
        }
        for wrong in ["", "\n\n", "\nuser\nk", "a key\u{7f}", "\\x\nk", "\\x0\nk", "\\x+1\nk", "\\x\u{e9}\nk"] {
            assert!(read(wrong).is_err(), "{wrong:?}");
        }
    }
}

//! What comes from standard input: keys, scopes and bodies are on no command line.

use std::io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _};
use std::path::Path;

use bytes::Bytes;
use tower_idempotency::{Key, Scope};

use crate::failure::Failure;

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
        stdin.lock().take(64 * 1024).read_to_string(&mut text)?;
    }
    read(&text)
}

/// The last line is the key. The lines before it are the parts of its scope; an empty one is no scope.
fn read(text: &str) -> Result<KeyInScope, Failure> {
    let mut lines: Vec<&str> = text.lines().collect();
    while lines.last().is_some_and(|line| line.is_empty()) {
        lines.pop();
    }
    let key = lines.pop().ok_or_else(|| Failure::Usage("standard input has no key".to_owned()))?;
    // As the header has it.
    let key = key.strip_prefix('"').and_then(|key| key.strip_suffix('"')).unwrap_or(key);
    let key = Key::new(key).map_err(|error| Failure::Usage(error.to_string()))?;
    let scope = match lines.as_slice() {
        [] | [""] => None,
        [first, others @ ..] => {
            let scope = others.iter().fold(Scope::new(first), |scope, part| scope?.and(part));
            Some(scope.map_err(|error| Failure::Usage(error.to_string()))?)
        }
    };
    Ok(KeyInScope { scope, key })
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
        let of = |parts: &[&str]| {
            let (first, others) = parts.split_first()?;
            Some(others.iter().fold(Scope::new(first).unwrap(), |scope, part| scope.and(part).unwrap()))
        };
        for (text, scope, key) in [
            ("k", &[][..], "k"),
            ("k\n", &[], "k"),
            ("\"k\"\r\n", &[], "k"),
            ("\nk\n", &[], "k"),
            ("account 7\nk\n\n", &["account 7"], "k"),
            ("tenant\nuser\nk", &["tenant", "user"], "k"),
        ] {
            let KeyInScope { scope: found, key: found_key } = read(text).unwrap_or_else(|error| panic!("{error}"));
            let expected = RecordId::new(of(scope).as_ref(), &Key::new(key).unwrap());
            assert_eq!(RecordId::new(found.as_ref(), &found_key), expected, "{text:?}");
        }
        for wrong in ["", "\n\n", "\nuser\nk", "a key\u{7f}"] {
            assert!(read(wrong).is_err(), "{wrong:?}");
        }
    }
}

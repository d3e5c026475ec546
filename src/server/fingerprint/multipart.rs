//! The parts of a `multipart/form-data` body, without the boundary between them (RFC 2046, section 5.1.1).
//!
//! A browser draws a new boundary for each try. The bytes between the boundaries are compared as they were sent.

use memchr::memmem;

/// Returns the bytes before the first boundary, between each two, and after the last. Returns `None` if the body cannot
/// be divided without doubt.
pub(crate) fn parts<'a>(body: &'a [u8], boundary: &str) -> Option<Vec<&'a [u8]>> {
    // Every `--` would be a boundary.
    if boundary.is_empty() {
        return None;
    }
    let delimiter = [b"--", boundary.as_bytes()].concat();
    let mut parts = Vec::new();
    let mut begin = 0;
    let mut closed = false;
    for at in memmem::find_iter(body, &delimiter) {
        // A boundary begins a line, and nothing but blanks follows it there.
        let end = if at == 0 { 0 } else { body.get(..at)?.strip_suffix(b"\r\n")?.len() };
        let behind = &body[at + delimiter.len()..];
        // No boundary may follow the closing one, and two can't share one line end.
        if closed || end < begin {
            return None;
        }
        parts.push(&body[begin..end]);
        closed = behind.starts_with(b"--");
        // The next part begins behind the boundary: after its line, or after the `--` that closes.
        begin = body.len() - if closed { &behind[2..] } else { next_line(behind)? }.len();
    }
    parts.push(&body[begin..]);
    // There is at least one part, between what comes before the first boundary and after the last.
    (closed && parts.len() > 2).then_some(parts)
}

/// Returns what follows the line end, if only blanks come before it.
fn next_line(rest: &[u8]) -> Option<&[u8]> {
    let blanks = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    rest[blanks..].strip_prefix(b"\r\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PART: &str = "Content-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n2";

    fn text<'a>(body: &'a str, boundary: &str) -> Option<Vec<&'a str>> {
        let parts = parts(body.as_bytes(), boundary)?;
        Some(parts.into_iter().map(|part| std::str::from_utf8(part).unwrap()).collect())
    }

    #[test]
    fn the_parts_are_the_same_whatever_the_boundary() {
        for boundary in ["x", "----WebKitFormBoundaryAbC", "a'()+_,-./:=?b"] {
            let body = format!("--{boundary}\r\n{PART}\r\n--{boundary} \t\r\n\r\n--{boundary}--\r\n");
            assert_eq!(text(&body, boundary), Some(vec!["", PART, "", "\r\n"]));
            let body = format!("before\r\n--{boundary}\r\n{PART}\r\n--{boundary}--behind");
            assert_eq!(text(&body, boundary), Some(vec!["before", PART, "behind"]));
        }
    }

    #[test]
    fn what_leaves_a_doubt_is_not_divided() {
        let bodies = [
            "", "no boundary", "--x\r\nnot closed", "--x\r\na\r\n--x", "--x\r\na\r\n--x\r\nb", "--x--",
            // The line end cannot belong to both.
            "--x\r\n--x--", "--x\r\na\n--x--", "--x\r\na--x\r\n--x--", "--x\r\na\r\n--xy\r\n--x--",
            "--x\r\na\r\n--x--\r\n--x--", "--x",
        ];
        for body in bodies {
            assert_eq!(text(body, "x"), None, "{body:?}");
        }
        assert_eq!(text("--\r\na\r\n----", ""), None);
    }
}

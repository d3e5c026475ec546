//! The text of a file that a person hands over.

/// Returns what a file has after the mark of its encoding (U+FEFF), if it has one.
///
/// # Errors
/// It is UTF-16, as Windows PowerShell 5.1 writes by `>`. Of the first characters of JSON, TOML or a key, one byte of
/// two is zero then.
pub(crate) fn unmarked(bytes: &[u8]) -> Result<&[u8], &'static str> {
    match bytes {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [0, ..] | [_, 0, ..] => Err("the text is UTF-16: save it as UTF-8"),
        _ => Ok(bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)),
    }
}

/// Returns the text of these bytes.
pub(crate) fn decoded(bytes: &[u8]) -> Result<String, &'static str> {
    std::str::from_utf8(unmarked(bytes)?).map(str::to_owned).map_err(|_| "the text is not UTF-8: save it as UTF-8")
}

/// Reads the text of a file.
#[cfg(any(feature = "check", feature = "proxy"))]
pub(crate) fn of_file(file: &std::path::Path) -> Result<String, crate::failure::Failure> {
    let wrong = |why: &dyn std::fmt::Display| crate::failure::Failure::usage(format!("{}: {why}", file.display()));
    let bytes = std::fs::read(file).map_err(|error| wrong(&error))?;
    decoded(&bytes).map_err(|why| wrong(&why))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_skipped_and_utf_16_is_named() {
        assert_eq!(decoded("\u{feff}a = 1".as_bytes()).as_deref(), Ok("a = 1"));
        assert_eq!(decoded("a\u{feff}".as_bytes()).as_deref(), Ok("a\u{feff}"));
        assert_eq!(decoded(b"").as_deref(), Ok(""));
        let wide = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
        let wide_be = |text: &str| text.encode_utf16().flat_map(u16::to_be_bytes).collect::<Vec<u8>>();
        for bytes in [wide("\u{feff}{}"), wide_be("\u{feff}{}"), wide("{}"), wide_be("{}"), wide("\u{feff}\u{436}")] {
            assert!(decoded(&bytes).unwrap_err().contains("UTF-16"), "{bytes:?}");
        }
        assert!(decoded(b"a\xff").unwrap_err().contains("not UTF-8"));
    }
}

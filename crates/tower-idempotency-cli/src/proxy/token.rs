//! The token for the operators' page.

use std::path::Path;

use crate::failure::Failure;
use crate::text;

/// The bytes of a token that the proxy makes.
const BYTES: usize = 16;

pub(super) struct Token {
    pub(super) text: String,
    /// The proxy has made it, and has to say it.
    pub(super) is_new: bool,
}

/// Reads the token of the file, or makes one.
pub(super) fn of(file: Option<&Path>) -> Result<Token, Failure> {
    let Some(file) = file else {
        let mut bytes = [0; BYTES];
        getrandom::fill(&mut bytes).map_err(|error| Failure::Usage(format!("there is no chance: {error}")))?;
        let text = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        return Ok(Token { text, is_new: true });
    };
    let wrong = |why: &str| Failure::Usage(format!("--admin-token-file {}: {why}", file.display()));
    let text = text::of_file(file).map_err(|error| Failure::Usage(format!("--admin-token-file {error}")))?;
    let text = text.trim();
    match text.len() {
        0..16 => Err(wrong("a token has 16 characters or more")),
        _ if !text.bytes().all(|byte| byte.is_ascii_graphic()) => {
            Err(wrong("a token is printable ASCII, without blanks"))
        }
        _ => Ok(Token { text: text.to_owned(), is_new: false }),
    }
}

//! Where output goes.

use std::fmt::Display;
use std::io::{self, Write as _};

use serde_json::Value;

use crate::failure::Failure;

/// The output of a command.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Screen {
    /// One JSON value, and no text.
    pub(crate) is_json: bool,
}

impl Screen {
    /// Writes the answer: text for people, or the value.
    pub(crate) fn answer(self, text: impl Display, value: &Value) -> Result<(), Failure> {
        if self.is_json {
            writeln!(io::stdout(), "{value:#}")?;
        } else {
            writeln!(io::stdout(), "{text}")?;
        }
        Ok(())
    }

    /// Writes a line for people, now.
    pub(crate) fn line(self, text: impl Display) -> Result<(), Failure> {
        if !self.is_json {
            writeln!(io::stdout(), "{text}")?;
        }
        Ok(())
    }
}

/// Writes a remark to standard error.
#[cfg(feature = "store")]
pub(crate) fn remark(text: impl Display) -> Result<(), Failure> {
    Ok(writeln!(io::stderr(), "{text}")?)
}

//! What is written: the answer to standard output, as text or as JSON, and remarks to standard error.

mod json;
mod output;
mod text;
mod time;

pub(crate) use json::{answer as answer_as_json, operation as operation_as_json};
pub(crate) use output::{Screen, remark};
pub(crate) use text::{answer, details, list};
pub(crate) use time::ago;

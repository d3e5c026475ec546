//! What is written: the answer to standard output, as text or as JSON, and remarks to standard error.

#[cfg(feature = "store")]
mod call;
#[cfg(feature = "store")]
mod json;
mod output;
#[cfg(feature = "store")]
mod text;
#[cfg(feature = "store")]
mod time;

#[cfg(feature = "store")]
pub(crate) use call::{call, call_as_json, calls, request};
#[cfg(feature = "store")]
pub(crate) use json::{answer as answer_as_json, operation as operation_as_json};
pub(crate) use output::Screen;
#[cfg(feature = "store")]
pub(crate) use output::remark;
#[cfg(feature = "store")]
pub(crate) use text::{answer, details, list};
#[cfg(feature = "store")]
pub(crate) use time::ago;

#[cfg(all(test, feature = "store"))]
mod tests;

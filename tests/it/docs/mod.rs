//! Checks that the documentation is right: the table of failures, the guide's links, and its table of options.

// The document of the layer says what each rejection is.
#[cfg(feature = "utoipa")]
mod clients;
mod failure_table;
mod files;
mod guide;
mod lines;
mod meanings;
mod metrics;
mod ops;
pub(crate) mod options;
mod quotes;
mod time_limits;
mod who_asks;

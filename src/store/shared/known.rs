//! What is known of a row.

use super::backend::{Row, ServerId};
use crate::clock::Timestamp;

/// What is known of a row, and at which time of the database.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) row: Option<Row>,
    pub(super) now: Timestamp,
    /// The server that has shown it; `None` if this process wrote it.
    pub(super) server: Option<ServerId>,
}

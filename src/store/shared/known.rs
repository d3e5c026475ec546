//! What is known of a row.

use super::backend::{Row, ServerId};
use crate::clock::Timestamp;

/// What is known of a row.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) row: Option<Row>,
    /// The earliest time by which it was judged.
    pub(super) earliest: Timestamp,
    /// The server that has shown it; `None` if this process wrote it.
    pub(super) server: Option<ServerId>,
}

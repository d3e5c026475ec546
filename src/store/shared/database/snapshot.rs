//! What is known of a row.

use crate::clock::Timestamp;
use crate::store::shared::backend::{Row, ServerId};

/// What is known of a row.
#[derive(Debug, Clone)]
pub(crate) struct RowSnapshot {
    pub(crate) row: Option<Row>,
    /// The earliest time by which it was judged.
    pub(crate) earliest: Timestamp,
    /// The server that has shown it; `None` if this process wrote it.
    pub(crate) server: Option<ServerId>,
}

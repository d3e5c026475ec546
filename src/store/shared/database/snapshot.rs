//! A row as this process last saw it.

use crate::clock::Timestamp;
use crate::store::shared::backend::{Row, ServerId};

/// A row as this process last saw it.
#[derive(Debug, Clone)]
pub(crate) struct RowSnapshot {
    pub(crate) row: Option<Row>,
    /// The earliest time by which it was judged.
    pub(crate) earliest: Timestamp,
    /// The server that returned it. `None` if this process wrote it.
    pub(crate) server: Option<ServerId>,
}

//! Rows as this process last saw them.

use tokio::time::Instant;
use tower_idempotency::clock::Timestamp;

use crate::backend::{BackendError, Row, ServerId};

/// A row as this process last saw it.
#[derive(Debug, Clone)]
pub(crate) struct RowSnapshot {
    pub(crate) row: Option<Row>,
    /// The earliest time by which it was judged.
    pub(crate) earliest: Timestamp,
    /// The server that returned it. `None` if this process wrote it.
    pub(crate) server: Option<ServerId>,
}

impl TryFrom<Rows<Vec<Option<Row>>>> for RowSnapshot {
    type Error = BackendError;

    /// Returns the one row of an answer, as it is judged now. It is a large row, as a rule, which may have been on its
    /// way for long. `reads.rs` does not add that time to its short calls: an earlier time only keeps a row for longer.
    fn try_from(Rows { server, sent, earliest, rows }: Rows<Vec<Option<Row>>>) -> Result<Self, BackendError> {
        let [row] =
            <[_; 1]>::try_from(rows).map_err(|_| BackendError::Uncertain("the answer does not have one row".into()))?;
        Ok(Self { row, earliest: earliest.plus(sent.elapsed()), server: Some(server) })
    }
}

/// Rows that one call has read.
#[derive(Debug)]
pub(crate) struct Rows<R> {
    pub(crate) server: ServerId,
    /// The time at which the call was sent.
    pub(crate) sent: Instant,
    /// The earliest time by which the rows are judged.
    pub(crate) earliest: Timestamp,
    pub(crate) rows: R,
}

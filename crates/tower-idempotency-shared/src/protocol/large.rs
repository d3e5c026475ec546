//! Rows whose bytes take long on a slow link.
//!
//! When a write meets a large row that it did not make, the database leaves the row's bytes out of its answer. So the
//! store knows before it reads the row that the row is large. Rules:
//! 1. A large row is read by itself, for as long as that may take, and once for all requests that want it. Large rows
//!    are read one at a time.
//! 2. The reading goes on if its requester goes away. A retry finds the row under way, or the completed record in the
//!    cache, into which it comes behind a barrier, as from every row.
//! 3. A read that is late may have met a large row. So the row is then met without its bytes: see
//!    [`read`](Protocol::read).

use std::sync::Arc;

use ahash::RandomState;
use dashmap::{DashMap, Entry};
use futures_util::FutureExt as _;
use futures_util::future::Shared;
use tokio::sync::oneshot;
use tower_idempotency::RecordId;
use tower_idempotency::internals;
use tower_idempotency::store::StoreError;

use super::Protocol;
use crate::backend::{Backend, BackendError, Kind, Row};
use crate::database::errors::away;
use crate::database::snapshot::RowSnapshot;

/// The most bytes that a row is expected to have. The time limit of its read follows from this.
pub(crate) const LARGEST: usize = 17 * 1024 * 1024;

type LargeRow = Result<RowSnapshot, Arc<BackendError>>;

/// A row that is under way, and whether its record was forgotten meanwhile.
#[derive(Debug)]
struct Reading {
    row: Shared<oneshot::Receiver<LargeRow>>,
    is_forgotten: bool,
}

/// The large rows that are under way.
#[derive(Debug, Default)]
pub(crate) struct LargeRows {
    under_way: DashMap<RecordId, Reading, RandomState>,
    /// Locked while one of them is read.
    turn: tokio::sync::Mutex<()>,
}

impl LargeRows {
    /// Returns whether this row is under way.
    pub(crate) fn has(&self, id: &RecordId) -> bool {
        self.under_way.contains_key(id)
    }

    /// Keeps a row that is under way out of the cache.
    pub(crate) fn forget(&self, id: &RecordId) {
        if let Some(mut reading) = self.under_way.get_mut(id) {
            reading.is_forgotten = true;
        }
    }
}

/// Returns whether the database has left the bytes of a row out.
pub(super) fn is_left_out(row: &Row) -> bool {
    // A row of these kinds always has bytes. The rows of other kinds may have none.
    let has_bytes = matches!(row.kind, Kind::Running | Kind::Interrupted | Kind::Completed | Kind::Consumed);
    has_bytes && row.state.is_empty()
}

impl<B: Backend> Protocol<B> {
    /// Returns an answer with the bytes of its row: if the database has left them out, this reads them.
    pub(crate) async fn filled(&self, known: RowSnapshot) -> Result<RowSnapshot, StoreError> {
        let Some(row) = known.row.as_ref().filter(|row| is_left_out(row)) else { return Ok(known) };
        let is_same = |read: &RowSnapshot| read.row.as_ref().is_some_and(|read| read.token == row.token);
        let mut read = self.large_row(row.id).await?;
        if !is_same(&read) {
            // The row that was read is older than the answer, or the row has changed since.
            read = self.large_row(row.id).await?;
        }
        match read.row {
            // The answer may be newer than the row that was read.
            Some(whole) if whole.token == row.token => {
                Ok(RowSnapshot { row: Some(Row { state: whole.state, ..row.clone() }), ..known })
            }
            // The row was written again meanwhile, or is gone. What was read last counts.
            row => Ok(RowSnapshot { row, ..read }),
        }
    }

    /// Reads a row by itself, or waits for it if it is under way.
    async fn large_row(&self, id: RecordId) -> Result<RowSnapshot, StoreError> {
        let (row, begins) = match self.large.under_way.entry(id) {
            Entry::Occupied(entry) => (entry.get().row.clone(), None),
            Entry::Vacant(entry) => {
                let (reply, row) = oneshot::channel();
                let reading = entry.insert(Reading { row: row.shared(), is_forgotten: false });
                (reading.row.clone(), Some(reply))
            }
        };
        if let (Some(reply), Some(protocol)) = (begins, self.this.upgrade()) {
            self.database.runtime.spawn(LargeRead { protocol, id }.read(reply));
        }
        row.await.map_err(|_| internals::unavailable("the row was not read to its end"))?.map_err(away)
    }
}

/// A large row that is under way until this is dropped: also by a panic, or with the runtime.
struct LargeRead<B: Backend> {
    protocol: Arc<Protocol<B>>,
    id: RecordId,
}

impl<B: Backend> LargeRead<B> {
    /// Reads the row by itself, once it is its turn, and caches its record if it is completed.
    async fn read(self, reply: oneshot::Sender<LargeRow>) {
        let Self { protocol, id } = &self;
        let turn = protocol.large.turn.lock().await;
        let row = protocol.database.rows(&[*id], LARGEST).await.and_then(RowSnapshot::try_from).map_err(Arc::new);
        drop(turn);
        let is_forgotten = protocol.large.under_way.get(id).is_some_and(|reading| reading.is_forgotten);
        if let Ok(known) = &row
            && !is_forgotten
        {
            // On an error the record is not cached. A requester that still waits finds the same error.
            let _ = protocol.durable_filled(*id, known.clone()).await;
        }
        // A retry that comes from now on finds the record in the cache, or reads the row anew.
        drop(self);
        let _ = reply.send(row);
    }
}

impl<B: Backend> Drop for LargeRead<B> {
    fn drop(&mut self) {
        self.protocol.large.under_way.remove(&self.id);
    }
}

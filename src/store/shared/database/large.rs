//! Rows whose bytes take long on a slow link.
//!
//! When a write meets a large row that it did not make, the database leaves the row's bytes out of its answer. So the
//! store knows before it reads the row that the row is large. Rules:
//! 1. Large rows are read one at a time, each by itself. The reading goes on if its requester goes away. Clients that
//!    were refused meanwhile retry, and find the row under way.
//! 2. A row that was read is kept for a minute, or until a request takes it.
//! 3. A row that was read before a request asked for it counts only if it is completed: then it does not change before
//!    it expires. It counts until it has expired by the latest clock. An answer from it needs a barrier, as from every
//!    row.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use ahash::RandomState;
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};

use super::resend::never_done;
use super::snapshot::{RowSnapshot, Rows};
use super::state::DatabaseState;
use crate::key::RecordId;
use crate::store::shared::backend::{Backend, BackendError, Kind, Row};

/// The most bytes that a row is expected to have. The time limit of its read follows from this.
pub(crate) const LARGEST: usize = 17 * 1024 * 1024;
/// The time for which a row is kept for retries, and the most bytes of such rows.
const ROW_KEPT: Duration = Duration::from_secs(60);
const KEPT_BYTES: usize = 64 * 1024 * 1024;

/// The result of a read once there is one, and the time at which the read was sent.
pub(crate) type LargeRow = Option<Result<(RowSnapshot, Instant), Arc<BackendError>>>;

type LargeRows = Arc<DashMap<RecordId, watch::Sender<LargeRow>, RandomState>>;

/// The large rows that are under way, and those that were read lately.
#[derive(Debug, Clone)]
pub(crate) struct Large {
    /// The rows by id. Each has a channel with `None` until its read has ended.
    rows: LargeRows,
    queue: mpsc::UnboundedSender<RecordId>,
}

/// Returns whether the database has left the bytes of a row out.
pub(crate) fn is_left_out(row: &Row) -> bool {
    // A row of these kinds always has bytes. The rows of other kinds may have none.
    let has_bytes = matches!(row.kind, Kind::Running | Kind::Interrupted | Kind::Completed | Kind::Consumed);
    has_bytes && row.state.is_empty()
}

impl Large {
    /// Starts the task that reads large rows.
    pub(crate) fn start<B: Backend>(
        backend: Arc<B>,
        state: Arc<DatabaseState>,
        runtime: &tokio::runtime::Handle,
    ) -> Self {
        let (queue, queued) = mpsc::unbounded_channel();
        let rows = Arc::default();
        runtime.spawn(run(backend, state, queued, Arc::clone(&rows)));
        Self { rows, queue }
    }

    /// Returns the receiver of the row if it is under way or was read lately.
    pub(crate) fn known(&self, id: &RecordId) -> Option<watch::Receiver<LargeRow>> {
        self.rows.get(id).map(|row| row.subscribe())
    }

    /// Returns the receiver of the row, and reads the row unless it is under way or was read lately.
    pub(crate) fn read(&self, id: RecordId) -> watch::Receiver<LargeRow> {
        match self.rows.entry(id) {
            Entry::Occupied(row) => row.get().subscribe(),
            Entry::Vacant(place) => {
                let row = watch::Sender::new(None);
                let receiver = row.subscribe();
                place.insert(row);
                // On an error, the runtime is gone.
                let _ = self.queue.send(id);
                receiver
            }
        }
    }

    /// Forgets a row that was read: a request has taken it.
    pub(crate) fn forget(&self, id: &RecordId) {
        self.rows.remove_if(id, |_, row| row.borrow().is_some());
    }
}

/// Reads the queued rows, one at a time, until the store is gone.
async fn run<B: Backend>(
    backend: Arc<B>,
    state: Arc<DatabaseState>,
    mut queued: mpsc::UnboundedReceiver<RecordId>,
    rows: LargeRows,
) {
    while let Some(id) = queued.recv().await {
        let ids = [id];
        let read = state.ask(LARGEST, |clocks| backend.get(clocks, &ids)).await;
        let row = read.map_err(Arc::new).map(|Rows { server, sent, earliest, rows }| {
            let row = rows.into_iter().next().flatten();
            state.note_fences(&row);
            (RowSnapshot { row, earliest, server: Some(server) }, sent)
        });
        // The place is there: it is removed only once it has a result.
        let Some(place) = rows.get(&id).map(|place| place.clone()) else { continue };
        // An error is not kept: the next request reads the row anew.
        let is_kept = row.is_ok() && kept_bytes(&rows) < KEPT_BYTES;
        place.send_replace(Some(row));
        let (rows, own) = (Arc::clone(&rows), place.subscribe());
        // A place that was made since for the same id has another channel, and stays.
        let forget = move || rows.remove_if(&id, |_, place| place.subscribe().same_channel(&own));
        if is_kept {
            tokio::spawn(async move {
                sleep(ROW_KEPT).await;
                forget();
            });
        } else {
            forget();
        }
    }
}

/// Returns the number of bytes of the kept rows.
fn kept_bytes(rows: &LargeRows) -> usize {
    let bytes = |row: &LargeRow| match row {
        Some(Ok((RowSnapshot { row: Some(row), .. }, _))) => row.state.len(),
        // The row is under way or absent, or its read failed.
        _ => 0,
    };
    rows.iter().map(|place| bytes(&place.borrow())).sum()
}

/// Asks the database which of the rows are large, without their bytes.
pub(crate) async fn which_are_large<B: Backend>(
    backend: &B,
    state: &DatabaseState,
    ids: &[RecordId],
) -> HashSet<RecordId> {
    // A `put` answers without the bytes of large rows. A `get` would send them.
    let asks: Vec<_> = ids.iter().map(|id| never_done(*id)).collect();
    // Without an answer no row is read ahead. A retry that is late leads here again.
    let Ok(Rows { rows, .. }) = state.ask(0, |clocks| backend.put(clocks, &asks)).await else { return HashSet::new() };
    state.note_fences(rows.iter().flatten());
    rows.into_iter().flatten().filter(is_left_out).map(|row| row.id).collect()
}

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
use super::snapshot::RowSnapshot;
use super::state::DatabaseState;
use crate::key::RecordId;
use crate::store::shared::backend::{Answer, Backend, BackendError, Kind, Row};

/// The most bytes that a row is expected to have.
const LARGEST: usize = 17 * 1024 * 1024;
/// The time for which a row is kept for retries, and the most bytes of such rows.
const KEPT: Duration = Duration::from_secs(60);
const KEPT_BYTES: usize = 64 * 1024 * 1024;

/// The result of a read once there is one, and the time at which the read was sent.
pub(crate) type LargeRow = Option<Result<(RowSnapshot, Instant), Arc<BackendError>>>;

type LargeRows = Arc<DashMap<RecordId, watch::Sender<LargeRow>, RandomState>>;

/// The large rows that are under way, and those that were read lately.
#[derive(Debug, Clone)]
pub(crate) struct Large {
    rows: LargeRows,
    queue: mpsc::UnboundedSender<RecordId>,
}

/// Returns whether the database has left the bytes of a row out.
pub(crate) fn is_left_out(row: &Row) -> bool {
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

    /// Returns the receiver of the row, and reads the row unless it is under way.
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

async fn run<B: Backend>(
    backend: Arc<B>,
    state: Arc<DatabaseState>,
    mut queued: mpsc::UnboundedReceiver<RecordId>,
    rows: LargeRows,
) {
    while let Some(id) = queued.recv().await {
        let (clocks, sent, ids) = (state.clocks.now(), Instant::now(), [id]);
        let row = match state.call_with(LARGEST, || backend.get(clocks, &ids)).await {
            Ok(Answer { now, server, rows }) => {
                state.answered(server, now, sent, false, rows.iter().flatten());
                let (row, earliest) = (rows.into_iter().next().flatten(), clocks.at(now).earliest);
                Ok((RowSnapshot { row, earliest, server: Some(server) }, sent))
            }
            Err(error) => {
                state.failed(&error);
                Err(Arc::new(error))
            }
        };
        let Some(place) = rows.get(&id).map(|place| place.clone()) else { continue };
        let is_kept = row.is_ok() && kept_bytes(&rows) < KEPT_BYTES;
        place.send_replace(Some(row));
        let (rows, own) = (Arc::clone(&rows), place.subscribe());
        let forget = move || rows.remove_if(&id, |_, place| place.subscribe().same_channel(&own));
        if is_kept {
            tokio::spawn(async move {
                sleep(KEPT).await;
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
    let asks: Vec<_> = ids.iter().map(|id| never_done(*id)).collect();
    let (clocks, sent) = (state.clocks.now(), Instant::now());
    match state.call(|| backend.put(clocks, &asks)).await {
        Ok(Answer { now, server, rows }) => {
            state.answered(server, now, sent, false, rows.iter().flatten());
            rows.into_iter().flatten().filter(is_left_out).map(|row| row.id).collect()
        }
        Err(error) => {
            state.failed(&error);
            HashSet::new()
        }
    }
}

//! The reads of this process, on their way to the database.
//!
//! Rules:
//! 1. The store's own tasks read, in the store's runtime and not in the caller's.
//! 2. Reads that come while a call is under way share the next call, and a row that several callers want is read once.
//! 3. A read is not sent again. It is not sent at all if its caller has gone.
//! 4. A large row is read by itself, for as long as that may take on a slow link: see [`large`](super::large). A read
//!    that is late may have met a large row, so the store asks the database which of its rows are large.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::{Instant, timeout};

use super::errors::away;
use super::large::{Large, LargeRow, which_are_large};
pub(crate) use super::snapshot::RowSnapshot;
use super::snapshot::Rows;
use super::state::DatabaseState;
use crate::key::RecordId;
use crate::store::StoreError;
use crate::store::shared::backend::{Backend, BackendError, Kind, Row};

/// The most rows in one call, and the most calls at a time.
const MAX_BATCH_ROWS: usize = 64;
const AT_ONCE: usize = 2;

/// Takes the row, or the error that all reads of the same call share.
type ReadReply = oneshot::Sender<Result<RowSnapshot, Arc<BackendError>>>;

#[derive(Debug)]
struct Get {
    id: RecordId,
    reply: ReadReply,
}

/// The queue of reads to the database.
#[derive(Debug)]
pub(crate) struct ReadBatcher {
    queue: mpsc::UnboundedSender<Get>,
    /// The reader of large rows, with the rows that it has read ahead.
    large: Large,
    state: Arc<DatabaseState>,
}

impl ReadBatcher {
    /// Starts the tasks that read.
    pub(crate) fn start<B: Backend>(backend: Arc<B>, state: Arc<DatabaseState>, runtime: &Handle) -> Self {
        let (queue, queued) = mpsc::unbounded_channel();
        let large = Large::start(Arc::clone(&backend), Arc::clone(&state), runtime);
        runtime.spawn(run(backend, Arc::clone(&state), queued, large.clone()));
        Self { queue, large, state }
    }

    /// Reads the row of `id`.
    pub(crate) async fn get(&self, id: RecordId) -> Result<RowSnapshot, StoreError> {
        if let Some(row) = self.large.known(&id) {
            let known = timeout(self.state.timeout(), read_large(row)).await.map_err(|_| away(Arc::new(late())))??;
            self.large.forget(&id);
            let latest = self.state.clocks.latest();
            if known.row.as_ref().is_some_and(|row| row.kind == Kind::Completed && row.record_expires() > latest) {
                return Ok(known);
            }
        }
        // The row is not known, or may have changed since it was read ahead.
        let (reply, known) = oneshot::channel();
        self.queue.send(Get { id, reply }).map_err(|_| gone())?;
        known.await.map_err(|_| gone())?.map_err(away)
    }

    /// Reads a row whose bytes the database has left out of an answer. This may take long.
    pub(crate) async fn get_large(&self, row: &Row) -> Result<RowSnapshot, StoreError> {
        let known = read_large(self.large.read(row.id)).await?;
        self.large.forget(&row.id);
        if known.row.as_ref().is_some_and(|read| read.token == row.token) {
            return Ok(known);
        }
        // The row that was read is older than the answer, or the row has changed since.
        let known = read_large(self.large.read(row.id)).await?;
        self.large.forget(&row.id);
        Ok(known)
    }
}

async fn read_large(mut row: watch::Receiver<LargeRow>) -> Result<RowSnapshot, StoreError> {
    match &*row.wait_for(Option::is_some).await.map_err(|_| gone())? {
        // Time has gone on since the row was read, so the earliest time moves on with it.
        Some(Ok((known, sent))) => Ok(RowSnapshot { earliest: known.earliest.plus(sent.elapsed()), ..known.clone() }),
        Some(Err(error)) => Err(away(Arc::clone(error))),
        // `wait_for` never returns `None`.
        None => Err(gone()),
    }
}

/// Returns the error of a read whose task has ended with its runtime.
fn gone() -> StoreError {
    StoreError::unavailable("the store's runtime is gone")
}

/// Returns the error of a large row that is still under way after the time of a usual call.
fn late() -> BackendError {
    BackendError::Uncertain("it did not come in time".into())
}

/// Sends the queued reads: at most [`AT_ONCE`] calls at a time, each in a task of its own.
async fn run<B: Backend>(
    backend: Arc<B>,
    state: Arc<DatabaseState>,
    mut queued: mpsc::UnboundedReceiver<Get>,
    large: Large,
) {
    let calls = Arc::new(Semaphore::new(AT_ONCE));
    let mut gets = Vec::new();
    while queued.recv_many(&mut gets, MAX_BATCH_ROWS).await > 0 {
        // No code closes the semaphore, so this does not fail.
        let Ok(call) = Arc::clone(&calls).acquire_owned().await else { return };
        // Callers that were woken at the same time share a call.
        tokio::task::yield_now().await;
        while gets.len() < MAX_BATCH_ROWS
            && let Ok(get) = queued.try_recv()
        {
            gets.push(get);
        }
        let (backend, state, gets) = (Arc::clone(&backend), Arc::clone(&state), std::mem::take(&mut gets));
        let large = large.clone();
        tokio::spawn(async move {
            if let Some(late) = read(&*backend, &state, gets).await {
                // This queues the large ones to be read ahead. The retries of the requests find them.
                which_are_large(&*backend, &state, &late).await.into_iter().for_each(|id| drop(large.read(id)));
            }
            drop(call);
        });
    }
}

/// Reads rows. Returns their ids if the answer did not come in time.
async fn read<B: Backend>(backend: &B, state: &DatabaseState, gets: Vec<Get>) -> Option<Vec<RecordId>> {
    let mut asked: HashMap<RecordId, Vec<ReadReply>> = HashMap::new();
    for Get { id, reply } in gets {
        // A closed reply belongs to a caller that has gone: see rule 3.
        if !reply.is_closed() {
            asked.entry(id).or_default().push(reply);
        }
    }
    let ids: Vec<_> = asked.keys().copied().collect();
    if ids.is_empty() {
        return None;
    }
    let sent = Instant::now();
    let wanted = &ids;
    let get = |clocks| async move {
        let answer = backend.get(clocks, wanted).await?;
        let has_all = answer.rows.len() == wanted.len();
        has_all.then_some(answer).ok_or_else(|| BackendError::Uncertain("it does not have a row for each id".into()))
    };
    match state.ask(0, get).await {
        Ok(Rows { server, earliest, rows, .. }) => {
            state.note_fences(rows.iter().flatten());
            for (id, row) in ids.into_iter().zip(rows) {
                for reply in asked.remove(&id).unwrap_or_default() {
                    let _ = reply.send(Ok(RowSnapshot { row: row.clone(), earliest, server: Some(server) }));
                }
            }
            None
        }
        Err(error) => {
            let error = Arc::new(error);
            let is_late = sent.elapsed() >= state.timeout();
            let ids = asked.keys().copied().collect();
            for reply in asked.into_values().flatten() {
                let _ = reply.send(Err(Arc::clone(&error)));
            }
            is_late.then_some(ids)
        }
    }
}

//! The reads of this process, on their way to the database: those of looks, and those that a step begins with.
//!
//! Rules:
//! 1. The store's own tasks read, in the store's runtime and not in the caller's.
//! 2. Reads that come while a call is under way share the next call, and a row that several callers want is read once.
//! 3. A read is not sent again. It is not sent at all if its caller has gone.
//! 4. A call of [`Reads::WithoutLargeBytes`] is a write that is never done, because a `put` answers without the bytes
//!    of large rows.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tower_idempotency::RecordId;
use tower_idempotency::internals;
use tower_idempotency::store::StoreError;

use super::errors::away;
use super::snapshot::{RowSnapshot, Rows};
use super::state::DatabaseState;
use crate::backend::{Backend, BackendError, Expect, GRACE, Write};
use crate::random_token;

/// The most rows in one call, and the most calls at a time.
const MAX_BATCH_ROWS: usize = 64;
const AT_ONCE: usize = 2;
/// The most bytes of a row that is not large.
const MET_BYTES: usize = 16 * 1024;

/// Takes the row, or the error that all reads of the same call share.
type ReadReply = oneshot::Sender<Result<RowSnapshot, Arc<BackendError>>>;

/// What the reads of a queue get.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Reads {
    /// Whole rows.
    Whole,
    /// Rows as a write meets them: the bytes of large ones are left out.
    WithoutLargeBytes,
}

/// A row that is wanted, and who wants it.
type Get = (RecordId, ReadReply);

/// The queue of reads to the database.
#[derive(Debug)]
pub(crate) struct ReadBatcher(mpsc::UnboundedSender<Get>);

impl ReadBatcher {
    /// Starts the task that sends the queued reads: at most [`AT_ONCE`] calls at a time, each in a task of its own.
    pub(crate) fn start<B: Backend>(
        reads: Reads,
        backend: Arc<B>,
        state: Arc<DatabaseState>,
        runtime: &Handle,
    ) -> Self {
        let (queue, mut queued) = mpsc::unbounded_channel();
        runtime.spawn(async move {
            let (calls, mut gets) = (Arc::new(Semaphore::new(AT_ONCE)), Vec::new());
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
                tokio::spawn(async move {
                    read(reads, &*backend, &state, gets).await;
                    drop(call);
                });
            }
        });
        Self(queue)
    }

    /// Reads the row of `id`.
    pub(crate) async fn get(&self, id: RecordId) -> Result<RowSnapshot, StoreError> {
        let (reply, known) = oneshot::channel();
        self.0.send((id, reply)).map_err(|_| gone())?;
        known.await.map_err(|_| gone())?.map_err(away)
    }
}

/// Returns the error of a read whose task has ended with its runtime.
fn gone() -> StoreError {
    internals::unavailable("the store's runtime is gone")
}

/// Reads rows, and answers their requesters.
async fn read<B: Backend>(reads: Reads, backend: &B, state: &DatabaseState, gets: Vec<Get>) {
    let mut asked: HashMap<RecordId, Vec<ReadReply>> = HashMap::new();
    for (id, reply) in gets {
        // A closed reply belongs to a caller that has gone: see rule 3.
        if !reply.is_closed() {
            asked.entry(id).or_default().push(reply);
        }
    }
    let ids: Vec<_> = asked.keys().copied().collect();
    if ids.is_empty() {
        return;
    }
    let wanted = &ids;
    // Such a write expects a token that no row has. The duration has no effect.
    let never_done = |id: &RecordId| Write::without_record(*id, Expect::Token(random_token()), GRACE);
    let get = |clocks| async move {
        let answer = match reads {
            Reads::Whole => backend.get(clocks, wanted).await?,
            Reads::WithoutLargeBytes => backend.put(clocks, &wanted.iter().map(never_done).collect::<Vec<_>>()).await?,
        };
        let has_all = answer.rows.len() == wanted.len();
        has_all
            .then_some(answer)
            .ok_or_else(|| BackendError::Uncertain("the answer does not have a row for each id".into()))
    };
    // Many rows that are not quite large may be late together. So a slow link gets time for them, once they were.
    let bytes = if matches!(reads, Reads::Whole) { 0 } else { ids.len() * MET_BYTES };
    match state.ask(bytes, get).await {
        Ok(Rows { server, earliest, rows, .. }) => {
            state.note_fences(rows.iter().flatten());
            for (id, row) in ids.into_iter().zip(rows) {
                for reply in asked.remove(&id).unwrap_or_default() {
                    let _ = reply.send(Ok(RowSnapshot { row: row.clone(), earliest, server: Some(server) }));
                }
            }
        }
        // The row of one of them is locked.
        Err(BackendError::Busy(_)) if ids.len() > 1 => {
            for (id, replies) in asked {
                let gets = replies.into_iter().map(|reply| (id, reply)).collect();
                Box::pin(read(reads, backend, state, gets)).await;
            }
        }
        Err(error) => {
            let error = Arc::new(error);
            for reply in asked.into_values().flatten() {
                let _ = reply.send(Err(Arc::clone(&error)));
            }
        }
    }
}

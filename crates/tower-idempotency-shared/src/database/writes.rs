//! The writes of this process, on their way to the database: those of claims and of ends alike.
//!
//! Rules:
//! 1. The store's own tasks write. A write is not taken back if its caller goes away.
//! 2. A write whose answer was lost is sent again, with the same token, until its answer is known.
//! 3. A write with a deadline, a claim, is not sent after it. If an earlier copy may be done or may still arrive, the
//!    caller overwrites the row, so that the copy can't take effect.
//! 4. Writes that come while all calls are under way share the next call. A call has at most one write of an id.
//! 5. A write whose row is locked is sent again, with the same token: an earlier copy of the write may hold the lock.
//! 6. A call may take longer if it has more bytes: see [`DatabaseState::call`]. [`queue`](super::queue) decides
//!    which writes are sent next, and how many at once.

use std::sync::Arc;
use std::time::Duration;

use backon::BackoffBuilder as _;
use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::yield_now;
use tokio::time::Instant;
use tower_idempotency::internals::pauses;

use super::queue::{PendingWrite, PendingWrites};
pub(crate) use super::queue::{WriteError, WriteResult};
use super::state::DatabaseState;
use crate::backend::{Answer, Backend, BackendError, Clocks, Row, Write};

/// The queue of writes to the database.
#[derive(Debug)]
pub(crate) struct WriteQueue<B> {
    sender: Arc<WriteSender<B>>,
    /// Each write without an answer has a clone of it, so that its count says how many there are.
    waiting: Arc<()>,
}

/// The number of writes without an answer from which on `SharedStore` refuses claims. Other writes are still taken.
const MAX_PENDING_WRITES: usize = 4_096;

impl<B: Backend> WriteQueue<B> {
    /// Creates a queue whose tasks run in `runtime`: at most `at_once`, each with one call at a time.
    pub(crate) fn new(backend: Arc<B>, state: Arc<DatabaseState>, at_once: usize, runtime: &Handle) -> Self {
        let (queue, runtime) = (Mutex::new(PendingWrites::new(at_once)), runtime.clone());
        let sender = Arc::new(WriteSender { backend, state, runtime, queue, resting: Mutex::default() });
        Self { sender, waiting: Arc::default() }
    }

    /// Returns whether so many writes have no answer yet that no new ones should come.
    pub(crate) fn is_behind(&self) -> bool {
        self.waiting() >= MAX_PENDING_WRITES
    }

    /// Returns the number of writes that wait.
    pub(crate) fn waiting(&self) -> usize {
        Arc::strong_count(&self.waiting) - 1
    }

    /// Sends a write. It is on its way when this returns; the future waits for its result.
    pub(crate) fn put(
        &self,
        write: Write,
        deadline: Option<Instant>,
    ) -> impl Future<Output = Result<WriteResult, WriteError>> + Send + use<B> {
        self.send(write, deadline, false)
    }

    /// Sends a write that may not be given up: it is sent again even if it certainly was not done.
    pub(crate) fn insist(&self, write: Write) -> impl Future<Output = Result<WriteResult, WriteError>> + Send + use<B> {
        self.send(write, None, true)
    }

    /// Queues a write. With `may_be_done`, it counts as sent already, so that it is never given up.
    fn send(
        &self,
        write: Write,
        deadline: Option<Instant>,
        may_be_done: bool,
    ) -> impl Future<Output = Result<WriteResult, WriteError>> + Send + use<B> {
        let (reply, result) = oneshot::channel();
        let pauses = pauses(Duration::from_millis(20), Duration::from_secs(1)).build();
        let (sent, times_locked, waiting) = (None, 0, Arc::clone(&self.waiting));
        let put = PendingWrite { write, deadline, reply, may_be_done, sent, times_locked, pauses, _waiting: waiting };
        self.sender.enqueue(put);
        async move { result.await.unwrap_or(Err(WriteError::Gone)) }
    }
}

/// The part of the queue that its tasks share: they send the writes and answer the callers.
#[derive(Debug)]
pub(crate) struct WriteSender<B> {
    backend: Arc<B>,
    pub(crate) state: Arc<DatabaseState>,
    runtime: Handle,
    /// Locked for short steps only, never during a call.
    queue: Mutex<PendingWrites>,
    /// Where a task waits for its next turn that has no writes left. It does not keep the store open.
    resting: Mutex<Option<oneshot::Sender<Turn<B>>>>,
}

/// The turn of a task that sends: it ends when no writes are left for it.
#[derive(Debug)]
struct Turn<B> {
    sender: Arc<WriteSender<B>>,
    /// `true` while its call has large writes.
    sends_large: bool,
    /// `true` once the queue no longer counts this task. If the task is dropped before, it was lost.
    is_over: bool,
}

impl<B> Turn<B> {
    /// Takes the writes of the next call. The turn is over if there are none for it.
    fn next(&mut self) -> Option<Vec<PendingWrite>> {
        let next = self.sender.queue.lock().next(self.sends_large);
        self.is_over = next.is_none();
        let (puts, sends_large) = next?;
        self.sends_large = sends_large;
        Some(puts)
    }

    /// Ends the turn. Returns where the task gets its next one, unless another task waits there.
    fn rest(self) -> Option<oneshot::Receiver<Self>> {
        let mut resting = self.sender.resting.lock();
        if resting.is_some() {
            return None;
        }
        let (next, turn) = oneshot::channel();
        *resting = Some(next);
        Some(turn)
    }
}

impl<B> Drop for Turn<B> {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        // The runtime is gone, or the task has panicked.
        let gone = self.sender.queue.lock().lose_task(self.sends_large);
        // The lock is free again. The calls that wait for these writes fail now.
        drop(gone);
    }
}

impl<B: Backend> WriteSender<B> {
    /// Passes a write to the tasks that send, or starts one.
    fn enqueue(self: &Arc<Self>, put: PendingWrite) {
        self.queue.lock().push(put);
        self.start_task();
    }

    /// Lets another task send, if there are writes for it: the one that rests, or a new one.
    fn start_task(self: &Arc<Self>) {
        if !self.queue.lock().starts_task() {
            return;
        }
        let mut turn = Turn { sender: Arc::clone(self), sends_large: false, is_over: false };
        let resting = self.resting.lock().take();
        if let Some(resting) = resting {
            // If its runtime is gone, the turn is lost here.
            drop(resting.send(turn));
            return;
        }
        self.runtime.spawn(async move {
            loop {
                // Callers that are ready now get their writes into the same call as the first one.
                yield_now().await;
                while let Some(batch) = turn.next() {
                    // When a call with large writes ends, others may be sent.
                    turn.sender.start_task();
                    turn.sender.send(batch).await;
                }
                // A lone client's next write then needs no new task.
                let Some(next) = turn.rest() else { return };
                // The store is gone if there is none.
                let Ok(next) = next.await else { return };
                turn = next;
            }
        });
    }

    /// Sends writes in one call. Each is answered, or queued again for a later call.
    async fn send(self: &Arc<Self>, mut batch: Vec<PendingWrite>) {
        let now = Instant::now();
        for late in batch.extract_if(.., |put| put.deadline.is_some_and(|end| end <= now)) {
            let why = if late.may_be_done { WriteError::InDoubt } else { WriteError::Late };
            let _ = late.reply.send(Err(why));
        }
        if batch.is_empty() {
            return;
        }
        for put in &mut batch {
            put.sent.get_or_insert(now);
        }
        let writes: Vec<Write> = batch.iter().map(|put| put.write.clone()).collect();
        let clocks = self.state.clocks.now();
        match self.call(clocks, &writes, now).await {
            Ok(answer) => {
                let earliest = clocks.at(answer.now).earliest;
                let Answer { server, rows, .. } = answer;
                for (mut put, mut row) in batch.into_iter().zip(rows) {
                    if put.is_busy(row.as_ref()) && put.count_lock() {
                        self.enqueue_later(put);
                        continue;
                    }
                    // The database need not send back the bytes of the write.
                    if let Some(done) = row.as_mut().filter(|row| row.token == put.write.token) {
                        done.state = put.write.state.clone();
                    }
                    let sent = put.sent.unwrap_or(now);
                    let _ = put.reply.send(Ok(WriteResult { row, server, earliest, sent }));
                }
            }
            // One of the writes was refused, or its row is locked, or there is no room for it. Each is sent by itself.
            Err(BackendError::Never(_) | BackendError::Busy(_) | BackendError::Full(_)) if batch.len() > 1 => {
                join_all(batch.into_iter().map(|put| Box::pin(self.send(vec![put])))).await;
            }
            Err(error) => {
                let error = Arc::new(error);
                for put in batch {
                    self.failed(put, &error);
                }
            }
        }
    }

    /// Calls the database. An answer that does not fit the call counts as lost.
    async fn call(
        &self,
        clocks: Clocks,
        writes: &[Write],
        sent: Instant,
    ) -> Result<Answer<Vec<Option<Row>>>, BackendError> {
        let bytes: usize = writes.iter().map(|write| write.state.len()).sum();
        let answer = match self.state.call(bytes, || self.backend.put(clocks, writes)).await {
            Ok(answer) if answer.rows.len() != writes.len() => {
                Err(BackendError::Uncertain("the answer does not have a row for each write".into()))
            }
            answer => answer,
        };
        match &answer {
            Ok(answer) => {
                // A row that has the token of its write shows that this server answers durably: a barrier.
                let is_done =
                    |(row, write): (&Option<Row>, &Write)| row.as_ref().is_some_and(|row| row.token == write.token);
                let was_written = answer.rows.iter().zip(writes).any(is_done);
                self.state.answered(answer.server, answer.now, sent, was_written, answer.rows.iter().flatten());
            }
            Err(error) => self.state.failed(error),
        }
        answer
    }

    /// Answers a write whose call failed, or queues it again if it may be done or can still be done.
    fn failed(self: &Arc<Self>, mut put: PendingWrite, error: &Arc<BackendError>) {
        match **error {
            BackendError::Never(_) => drop(put.reply.send(Err(WriteError::Never(Arc::clone(error))))),
            BackendError::Nothing(_) | BackendError::Full(_) if !put.may_be_done => {
                let _ = put.reply.send(Err(WriteError::Away(Arc::clone(error))));
            }
            BackendError::Busy(_) if !put.count_lock() => {
                let _ = put.reply.send(Err(WriteError::Away(Arc::clone(error))));
            }
            // This call has done nothing, so the write is sent again as it is.
            BackendError::Busy(_) | BackendError::Crowded(_) => self.enqueue_later(put),
            BackendError::Nothing(_) | BackendError::Full(_) | BackendError::Uncertain(_) => {
                put.may_be_done = true;
                self.enqueue_later(put);
            }
        }
    }

    /// Sends a write again, after a pause.
    fn enqueue_later(self: &Arc<Self>, mut put: PendingWrite) {
        let (pause, sender) = (put.pauses.next().unwrap_or_default(), Arc::downgrade(self));
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            // The write is not sent if the store is gone.
            if let Some(sender) = sender.upgrade() {
                sender.enqueue(put);
            }
        });
    }
}

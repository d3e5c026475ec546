//! The writes of this process, on their way to the database.
//!
//! Rules:
//! 1. A write belongs to the store's own tasks. Nobody's going away takes it back.
//! 2. A write whose answer was lost is sent again, with the same token, until its answer is known.
//! 3. A write with a deadline, a claim, is not sent after it. If an earlier copy may be done, or may still arrive,
//!    whoever sent it puts something in its way.
//! 4. Writes that come while the database is at work go together. There is one write of an id in a call.
//! 5. A write whose row something else has locked is sent again, with the same token: what has it locked may be an
//!    earlier copy of the write.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use futures_util::future::join_all;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::yield_now;
use tokio::time::Instant;

use super::backend::{Answer, Backend, BackendError, Clocks, Expect, Row, Write};
use super::reach::Reach;
use crate::clock::Timestamp;

/// The most writes in one call, and the most bytes of state in those after the first.
const TOGETHER: usize = 64;
const TOGETHER_BYTES: usize = 1024 * 1024;

/// The way for writes to the database.
#[derive(Debug)]
pub(super) struct Puts<B> {
    sender: Arc<Sender<B>>,
    /// How many writes have no answer yet.
    waiting: Arc<AtomicUsize>,
}

/// Counts a write for as long as it has no answer.
#[derive(Debug)]
struct Waiting(Arc<AtomicUsize>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How many writes may have no answer before claims are refused.
const BEHIND: usize = 4_096;
/// How often a write is sent whose row something else has locked, and of which no copy may be done.
const BUSY_TRIES: u32 = 12;

/// How the database answered a write: the row as it stands.
#[derive(Debug)]
pub(super) struct Stands {
    pub(super) row: Option<Row>,
    /// The answer, without its rows.
    pub(super) answer: Answer<()>,
    /// The earliest time by which the database has judged the rows.
    pub(super) earliest: Timestamp,
    /// When the first copy of the write was sent.
    pub(super) sent: Instant,
}

/// Why a write was not done, and never will be.
#[derive(Debug, Clone)]
pub(super) enum NotPut {
    /// The database can't be reached, or has refused.
    Away(Arc<BackendError>),
    /// The database does not take the row.
    Never(Arc<BackendError>),
    /// The deadline had passed before the write was sent.
    Late,
    /// The deadline has passed, and nobody knows whether the write was done. It may still arrive.
    InDoubt,
    /// The store was closed, or its runtime is gone, before the answer came. The write may be done.
    Gone,
}

type Reply = oneshot::Sender<Result<Stands, NotPut>>;

#[derive(Debug)]
struct Put {
    write: Write,
    deadline: Option<Instant>,
    reply: Reply,
    /// Whether it was sent without an answer, or is sent again as if it was.
    may_be_done: bool,
    /// When its first copy was sent.
    sent: Option<Instant>,
    /// How often its row was locked.
    busy: u32,
    pauses: ExponentialBackoff,
    _waiting: Waiting,
}

impl Put {
    /// Whether something else has the row locked, as far as the row says that stands there.
    fn is_busy(&self, row: Option<&Row>) -> bool {
        match (row, self.write.expect) {
            (Some(row), Expect::Token(token)) => row.token == token && row.token != self.write.token,
            (None, Expect::Absent) => true,
            _ => false,
        }
    }

    /// Whether it is sent again though something else has its row locked.
    fn waits_for_lock(&mut self) -> bool {
        self.busy += 1;
        let is_late = self.deadline.is_some_and(|end| end <= Instant::now());
        self.may_be_done || (self.busy < BUSY_TRIES && !is_late)
    }
}

impl<B: Backend> Puts<B> {
    /// A way whose tasks are in `runtime`: at most `at_once`, each with one call at a time.
    pub(super) fn new(backend: Arc<B>, reach: Arc<Reach>, at_once: usize, runtime: &Handle) -> Self {
        let (queue, runtime) = (Mutex::default(), runtime.clone());
        let sender = Arc::new(Sender { backend, reach, at_once, runtime, queue });
        Self { sender, waiting: Arc::default() }
    }

    /// Whether so many writes have no answer yet that no new ones should come.
    pub(super) fn is_behind(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) >= BEHIND
    }

    /// Sends a write. It is on its way when this returns; the future waits for what became of it.
    pub(super) fn put(
        &self,
        write: Write,
        deadline: Option<Instant>,
    ) -> impl Future<Output = Result<Stands, NotPut>> + Send + use<B> {
        self.send(write, deadline, false)
    }

    /// Sends a write that may not be given up: it is sent again even where nothing of it was done.
    pub(super) fn insist(&self, write: Write) -> impl Future<Output = Result<Stands, NotPut>> + Send + use<B> {
        self.send(write, None, true)
    }

    fn send(
        &self,
        write: Write,
        deadline: Option<Instant>,
        may_be_done: bool,
    ) -> impl Future<Output = Result<Stands, NotPut>> + Send + use<B> {
        let (reply, stands) = oneshot::channel();
        let pauses = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(20))
            .with_max_delay(Duration::from_secs(1))
            .with_jitter()
            .without_max_times()
            .build();
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let waiting = Waiting(Arc::clone(&self.waiting));
        let put = Put { write, deadline, reply, may_be_done, sent: None, busy: 0, pauses, _waiting: waiting };
        Arc::clone(&self.sender).leave(put);
        async move { stands.await.unwrap_or(Err(NotPut::Gone)) }
    }
}

#[derive(Debug)]
struct Sender<B> {
    backend: Arc<B>,
    reach: Arc<Reach>,
    at_once: usize,
    runtime: Handle,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    puts: VecDeque<Put>,
    /// How many tasks send them. There are none when the queue is empty.
    tasks: usize,
}

/// One of the tasks that send.
#[derive(Debug)]
struct Turn<B> {
    sender: Arc<Sender<B>>,
    is_over: bool,
}

impl<B> Turn<B> {
    /// Takes what goes together now. The turn is over if nothing is queued.
    fn next(&mut self) -> Option<Vec<Put>> {
        let mut queue = self.sender.queue();
        let batch = together(&mut queue.puts);
        if batch.is_empty() {
            queue.tasks -= 1;
            self.is_over = true;
            return None;
        }
        Some(batch)
    }
}

impl<B> Drop for Turn<B> {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        // The runtime is gone, or the task has panicked.
        let gone = {
            let mut queue = self.sender.queue();
            queue.tasks -= 1;
            if queue.tasks == 0 { std::mem::take(&mut queue.puts) } else { VecDeque::new() }
        };
        // Whoever waits for one of them is told so.
        drop(gone);
    }
}

impl<B> Sender<B> {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<B: Backend> Sender<B> {
    /// Leaves a write to the tasks that send, or starts one.
    fn leave(self: Arc<Self>, put: Put) {
        let has_enough = {
            let mut queue = self.queue();
            queue.puts.push_back(put);
            let has_enough = queue.tasks >= self.at_once;
            queue.tasks += usize::from(!has_enough);
            has_enough
        };
        if has_enough {
            return;
        }
        let mut turn = Turn { sender: Arc::clone(&self), is_over: false };
        self.runtime.spawn(async move {
            // Those who are ready now send theirs together with the first one.
            yield_now().await;
            while let Some(batch) = turn.next() {
                turn.sender.send(batch).await;
            }
        });
    }

    async fn send(self: &Arc<Self>, mut batch: Vec<Put>) {
        let now = Instant::now();
        for late in batch.extract_if(.., |put| put.deadline.is_some_and(|end| end <= now)) {
            let why = if late.may_be_done { NotPut::InDoubt } else { NotPut::Late };
            let _ = late.reply.send(Err(why));
        }
        if batch.is_empty() {
            return;
        }
        for put in &mut batch {
            put.sent.get_or_insert(now);
        }
        let writes: Vec<Write> = batch.iter().map(|put| put.write.clone()).collect();
        let clocks = self.reach.clocks.now();
        match self.call(clocks, &writes, now).await {
            Ok(answer) => {
                let earliest = clocks.at(answer.now).earliest;
                let Answer { now: at, server, rows } = answer;
                for (mut put, row) in batch.into_iter().zip(rows) {
                    if put.is_busy(row.as_ref()) && put.waits_for_lock() {
                        self.again(put);
                        continue;
                    }
                    let answer = Answer { now: at, server, rows: () };
                    let sent = put.sent.unwrap_or(now);
                    let _ = put.reply.send(Ok(Stands { row, answer, earliest, sent }));
                }
            }
            // One of them is at fault, or its row is locked. Each is sent by itself.
            Err(BackendError::Never(_) | BackendError::Busy(_)) if batch.len() > 1 => {
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

    /// Calls the database. An answer that does not fit the question counts as lost.
    async fn call(
        &self,
        clocks: Clocks,
        writes: &[Write],
        sent: Instant,
    ) -> Result<Answer<Vec<Option<Row>>>, BackendError> {
        let answer = match self.reach.call(|| self.backend.put(clocks, writes)).await {
            Ok(answer) if answer.rows.len() != writes.len() => {
                Err(BackendError::Uncertain("it does not have a row for each write".into()))
            }
            answer => answer,
        };
        match &answer {
            Ok(answer) => {
                let is_done =
                    |(row, write): (&Option<Row>, &Write)| row.as_ref().is_some_and(|row| row.token == write.token);
                let was_written = answer.rows.iter().zip(writes).any(is_done);
                self.reach.answered(answer.server, answer.now, sent, was_written, answer.rows.iter().flatten());
            }
            Err(error) => self.reach.failed(error),
        }
        answer
    }

    fn failed(self: &Arc<Self>, mut put: Put, error: &Arc<BackendError>) {
        match **error {
            BackendError::Never(_) => drop(put.reply.send(Err(NotPut::Never(Arc::clone(error))))),
            BackendError::Nothing(_) if !put.may_be_done => {
                let _ = put.reply.send(Err(NotPut::Away(Arc::clone(error))));
            }
            BackendError::Busy(_) if !put.waits_for_lock() => {
                let _ = put.reply.send(Err(NotPut::Away(Arc::clone(error))));
            }
            BackendError::Busy(_) | BackendError::Crowded(_) => self.again(put),
            BackendError::Nothing(_) | BackendError::Uncertain(_) => {
                put.may_be_done = true;
                self.again(put);
            }
        }
    }

    /// Sends a write again, after a pause.
    fn again(self: &Arc<Self>, mut put: Put) {
        let (pause, sender) = (put.pauses.next().unwrap_or_default(), Arc::downgrade(self));
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            // Not if the store is gone.
            if let Some(sender) = sender.upgrade() {
                sender.leave(put);
            }
        });
    }
}

/// Takes the writes that go together: the first ones, one of each id. The others keep their order.
fn together(waiting: &mut VecDeque<Put>) -> Vec<Put> {
    let (mut ids, mut batch, mut bytes) = (HashSet::new(), Vec::new(), 0);
    let mut left = VecDeque::new();
    while let Some(put) = waiting.pop_front() {
        let fits = batch.is_empty() || (batch.len() < TOGETHER && bytes + put.write.state.len() <= TOGETHER_BYTES);
        // A later write of an id stays behind an earlier one.
        if ids.insert(put.write.id) && fits {
            bytes += put.write.state.len();
            batch.push(put);
        } else {
            left.push_back(put);
        }
        if batch.len() == TOGETHER {
            break;
        }
    }
    left.append(waiting);
    *waiting = left;
    batch
}

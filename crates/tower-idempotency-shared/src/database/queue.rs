//! The writes of this process that wait for a call, and the number of calls. `WriteQueue` in `writes.rs` is what
//! callers have of it.
//!
//! A link to the database carries a limited number of bytes a second, so calls that share it take longer. Rules:
//! 1. Small writes, such as claims, do not wait behind large ones: each kind has a queue of its own.
//! 2. One call at a time has large writes. So a renewal of the session, which shares the link with them, does not wait
//!    for many of them.
//! 3. Two calls may have small writes at any time, so that one that takes long keeps no write waiting. Next to two, a
//!    further one is made only if as many writes wait as the last call had, because fewer and fuller calls cost the
//!    database less; or if a write comes when no call has begun for a while: those that are under way may hang.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use backon::ExponentialBackoff;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tower_idempotency::clock::Timestamp;

use crate::backend::{BackendError, Expect, Row, ServerId, Write};

/// The most writes in one call, and the most bytes of state that they have together, unless the first alone has more.
const MAX_BATCH_ROWS: usize = 64;
const TOGETHER_BYTES: usize = 128 * 1024;
/// A write with more bytes of state is large.
const LARGE: usize = 8 * 1024;
/// The number of calls that may have small writes, however few writes wait.
const FREE_CALLS: usize = 2;
/// The time after which a call counts as slow, so that a write does not wait for others.
pub(crate) const SLOW_CALL: Duration = Duration::from_millis(50);
/// The number of times that a write is sent while its row is locked and no copy of it may be done.
const BUSY_TRIES: u32 = 12;

/// The database's answer to a write: the row as it is now.
#[derive(Debug)]
pub(crate) struct WriteResult {
    pub(crate) row: Option<Row>,
    /// The server that answered.
    pub(crate) server: ServerId,
    /// The earliest time by which the database has judged the row.
    pub(crate) earliest: Timestamp,
    /// The time at which the first copy of the write was sent.
    pub(crate) sent: Instant,
}

/// The reason why a write has no result.
#[derive(Debug, Clone)]
pub(crate) enum WriteError {
    /// The database can't be reached or has refused, or the row stays locked. The write was not done.
    Away(Arc<BackendError>),
    /// The database never takes the row, however often it is sent.
    Never(Arc<BackendError>),
    /// The deadline had passed before the write was sent.
    Late,
    /// The deadline has passed, and it is unknown whether the write was done. It may still arrive.
    InDoubt,
    /// The store was closed, or its runtime is gone, before the answer came. The write may be done.
    Gone,
}

pub(crate) type WriteReply = oneshot::Sender<Result<WriteResult, WriteError>>;

/// A write on its way.
#[derive(Debug)]
pub(crate) struct PendingWrite {
    pub(crate) write: Write,
    /// The time from which on it is not sent any more. Only claims have one.
    pub(crate) deadline: Option<Instant>,
    pub(crate) reply: WriteReply,
    /// `true` if it was sent without an answer, or is sent again as if it had been.
    pub(crate) may_be_done: bool,
    /// The time at which its first copy was sent.
    pub(crate) sent: Option<Instant>,
    /// The number of times that its row was locked: see [`is_busy`](Self::is_busy).
    pub(crate) times_locked: u32,
    pub(crate) pauses: ExponentialBackoff,
    /// Counts the write for `WriteQueue::waiting` (`writes.rs`) until this value is dropped.
    pub(crate) _waiting: Arc<()>,
}

impl PendingWrite {
    fn bytes(&self) -> usize {
        self.write.state.len()
    }

    /// Returns whether something else has the row locked, as far as the row shows: it is as the write expects, and the
    /// write was not done.
    pub(crate) fn is_busy(&self, row: Option<&Row>) -> bool {
        match (row, self.write.expect) {
            (Some(row), Expect::Token(token)) => row.token == token && row.token != self.write.token,
            (None, Expect::Absent) => true,
            // The write was done, or another one has made the row, or a row is there that was not expected, or none is.
            _ => false,
        }
    }

    /// Counts that something else had its row locked, and returns whether the write is sent again.
    pub(crate) fn count_lock(&mut self) -> bool {
        self.times_locked += 1;
        let is_late = self.deadline.is_some_and(|end| end <= Instant::now());
        // A copy that may be done has to be sent until its answer is known, and it may itself hold the lock.
        self.may_be_done || (self.times_locked < BUSY_TRIES && !is_late)
    }
}

/// The writes that wait for a call, and the calls that are under way. `WriteSender` has it under a lock.
#[derive(Debug, Default)]
pub(crate) struct PendingWrites {
    small: VecDeque<PendingWrite>,
    large: VecDeque<PendingWrite>,
    at_once: usize,
    /// The number of tasks whose turn it is to send.
    tasks: usize,
    /// `true` while a call with large writes is under way.
    sends_large: bool,
    /// The number of writes of the last call with small ones, and when they were taken.
    last: usize,
    taken: Option<Instant>,
}

impl PendingWrites {
    /// Creates a queue from which at most `at_once` tasks send.
    pub(crate) fn new(at_once: usize) -> Self {
        Self { at_once, ..Self::default() }
    }

    pub(crate) fn push(&mut self, put: PendingWrite) {
        if put.bytes() > LARGE { self.large.push_back(put) } else { self.small.push_back(put) }
    }

    /// Returns whether another task should send. If so, the task counts as started.
    pub(crate) fn starts_task(&mut self) -> bool {
        let starts_task = self.tasks < self.at_once && (self.may_send_small(self.tasks) || self.may_send_large());
        self.tasks += usize::from(starts_task);
        starts_task
    }

    /// Takes the writes of the next call, and whether they are large. `ends_large` says whether the last call of this
    /// task had large ones: then small ones go first. Returns `None` if the task has to end.
    pub(crate) fn next(&mut self, ends_large: bool) -> Option<(Vec<PendingWrite>, bool)> {
        self.sends_large &= !ends_large;
        let may_send_small = self.may_send_small(self.tasks - 1);
        if (!ends_large || !may_send_small) && self.may_send_large() {
            self.sends_large = true;
            return Some((together(&mut self.large), true));
        }
        if !may_send_small {
            // The task counts as ended before the lock is free, so the next write starts another one.
            self.tasks -= 1;
            return None;
        }
        let puts = together(&mut self.small);
        (self.last, self.taken) = (puts.len(), Some(Instant::now()));
        Some((puts, false))
    }

    /// Returns whether a call may have small writes next to those of so many other tasks.
    fn may_send_small(&self, others: usize) -> bool {
        let calls = others - usize::from(self.sends_large);
        let is_late = || self.taken.is_some_and(|taken| taken.elapsed() >= SLOW_CALL);
        !self.small.is_empty() && (calls < FREE_CALLS || self.small.len() >= self.last || is_late())
    }

    fn may_send_large(&self) -> bool {
        !self.sends_large && !self.large.is_empty()
    }

    /// Notes that a task ended early, with its runtime or by a panic, and whether it had large writes. If it was the
    /// last task, returns the queued writes.
    pub(crate) fn lose_task(&mut self, ends_large: bool) -> Vec<PendingWrite> {
        self.sends_large &= !ends_large;
        self.tasks -= 1;
        if self.tasks > 0 {
            return Vec::new();
        }
        let (small, large) = (std::mem::take(&mut self.small), std::mem::take(&mut self.large));
        small.into_iter().chain(large).collect()
    }
}

/// Takes the writes of the next call: the first ones, one of each id. The others keep their order.
fn together(waiting: &mut VecDeque<PendingWrite>) -> Vec<PendingWrite> {
    if waiting.len() <= 1 {
        return waiting.pop_front().into_iter().collect();
    }
    let (mut ids, mut batch, mut bytes) = (HashSet::new(), Vec::new(), 0);
    let mut left = VecDeque::new();
    while let Some(put) = waiting.pop_front() {
        let fits = batch.is_empty() || bytes + put.bytes() <= TOGETHER_BYTES;
        // A later write of an id stays behind an earlier one.
        if ids.insert(put.write.id) && fits {
            bytes += put.bytes();
            batch.push(put);
        } else {
            left.push_back(put);
        }
        if batch.len() == MAX_BATCH_ROWS {
            break;
        }
    }
    left.append(waiting);
    *waiting = left;
    batch
}

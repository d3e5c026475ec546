//! The writes of this process that wait for a call, and the number of calls.
//!
//! A link to the database carries a limited number of bytes a second, so calls that share it take longer. Rules:
//! 1. Small writes, such as claims, do not wait behind large ones: each kind has a queue of its own, and at least one
//!    call is left for the small ones, if there is more than one.
//! 2. Large writes that are under way at once have at most [`AT_ONCE_BYTES`], unless one alone has more. So a renewal
//!    of the session, which shares the link with them, does not wait for many of them.
//! 3. A call with large writes is *late* if it takes longer than a call with small writes may. The link is *narrow*
//!    then: large writes go one at a time. A quick call ends that: one that would not have been late even if it had
//!    shared the link with as many calls as may be under way at once.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use backon::ExponentialBackoff;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::clock::Timestamp;
use crate::store::shared::backend::{BackendError, Expect, Row, ServerId, Write};

/// The most writes in one call, and the most bytes of state that they have together, unless the first alone has more.
const MAX_BATCH_ROWS: usize = 64;
const TOGETHER_BYTES: usize = 128 * 1024;
/// A write with more bytes of state is large.
const LARGE: usize = 8 * 1024;
/// The most bytes of large writes that are under way at once, unless one alone has more.
const AT_ONCE_BYTES: usize = 4 * 1024 * 1024;
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

/// Counts a write for as long as it has no answer.
#[derive(Debug)]
pub(crate) struct Waiting(Arc<AtomicUsize>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Waiting {
    pub(crate) fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

/// Returns whether writes with this many bytes of state are large.
pub(crate) fn is_large(bytes: usize) -> bool {
    bytes > LARGE
}

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
    /// The number of times that its row was locked.
    pub(crate) busy: u32,
    pub(crate) pauses: ExponentialBackoff,
    /// Counts the write for `WriteQueue::is_behind` until this value is dropped.
    pub(crate) _waiting: Waiting,
}

impl PendingWrite {
    pub(crate) fn bytes(&self) -> usize {
        self.write.state.len()
    }

    pub(crate) fn is_large(&self) -> bool {
        is_large(self.bytes())
    }

    /// Returns whether the row is as the write expects, so that the write may still be done.
    pub(crate) fn is_expected(&self, row: Option<&Row>) -> bool {
        match (row, self.write.expect) {
            (Some(row), Expect::Token(token)) => row.token == token,
            (None, Expect::Absent) => true,
            // Another write has made the row, or a row is there that was not expected, or none is.
            _ => false,
        }
    }

    /// Returns whether the write was done.
    pub(crate) fn is_done(&self, row: Option<&Row>) -> bool {
        row.is_some_and(|row| row.token == self.write.token)
    }

    /// Returns whether something else has the row locked, as far as the row shows.
    pub(crate) fn is_busy(&self, row: Option<&Row>) -> bool {
        self.is_expected(row) && !self.is_done(row)
    }

    /// Counts that something else had its row locked, and returns whether the write is sent again.
    pub(crate) fn count_lock(&mut self) -> bool {
        self.busy += 1;
        let is_late = self.deadline.is_some_and(|end| end <= Instant::now());
        // A copy that may be done has to be sent until its answer is known, and it may itself hold the lock.
        self.may_be_done || (self.busy < BUSY_TRIES && !is_late)
    }
}

/// Writes that are sent in one call.
#[derive(Debug)]
pub(crate) struct WriteBatch {
    pub(crate) puts: Vec<PendingWrite>,
    /// Their number of bytes, if they are large.
    pub(crate) large: Option<usize>,
}

/// The writes that wait for a call, and the calls that are under way. `WriteSender` has it under a lock.
#[derive(Debug)]
pub(crate) struct PendingWrites {
    small: VecDeque<PendingWrite>,
    large: VecDeque<PendingWrite>,
    at_once: usize,
    /// The number of tasks that send. There are none when the queue is empty.
    tasks: usize,
    /// The number of calls with large writes that are under way, and the number of their bytes.
    large_calls: usize,
    large_bytes: usize,
    /// `true` if small writes go next, if there are any.
    is_turn_of_small: bool,
    /// `true` after a late call with large writes: see rule 3 above.
    is_narrow: bool,
}

impl PendingWrites {
    /// Creates a queue from which at most `at_once` tasks send.
    pub(crate) fn new(at_once: usize) -> Self {
        let (small, large) = (VecDeque::new(), VecDeque::new());
        let (tasks, large_calls, large_bytes) = (0, 0, 0);
        Self { small, large, at_once, tasks, large_calls, large_bytes, is_turn_of_small: false, is_narrow: false }
    }

    pub(crate) fn push(&mut self, put: PendingWrite) {
        if put.is_large() { self.large.push_back(put) } else { self.small.push_back(put) }
    }

    /// Returns whether another task should send. If so, the task counts as started.
    pub(crate) fn starts_task(&mut self) -> bool {
        let starts_task = self.tasks < self.at_once && (!self.small.is_empty() || self.may_send_large());
        self.tasks += usize::from(starts_task);
        starts_task
    }

    /// Takes the next batch. Returns `None` if the calling task has to end.
    pub(crate) fn next(&mut self) -> Option<WriteBatch> {
        let goes_first = !self.is_turn_of_small || self.small.is_empty();
        if goes_first && self.may_send_large() {
            let puts = together(&mut self.large);
            let bytes = puts.iter().map(PendingWrite::bytes).sum();
            self.large_calls += 1;
            self.large_bytes += bytes;
            self.is_turn_of_small = true;
            return Some(WriteBatch { puts, large: Some(bytes) });
        }
        self.is_turn_of_small = false;
        let puts = together(&mut self.small);
        if puts.is_empty() {
            // The task counts as ended before the lock is free, so the next write starts another one.
            self.tasks -= 1;
            return None;
        }
        Some(WriteBatch { puts, large: None })
    }

    fn may_send_large(&self) -> bool {
        let Some(next) = self.large.front() else { return false };
        let at_once = if self.is_narrow { 1 } else { self.large_at_once() };
        let has_room = self.large_calls < at_once && self.large_bytes + next.bytes() <= AT_ONCE_BYTES;
        // One call with large writes is always allowed, however many bytes it has.
        self.large_calls == 0 || has_room
    }

    /// Returns how many calls may have large writes at once: one call is left for small ones, if there are several.
    fn large_at_once(&self) -> usize {
        self.at_once.saturating_sub(1).max(1)
    }

    /// Notes that large writes with this many bytes are no longer under way.
    pub(crate) fn end_large(&mut self, bytes: usize) {
        self.large_calls -= 1;
        self.large_bytes -= bytes;
    }

    /// Notes how long a call with large writes took. `limit` is the time limit of a call with small writes.
    pub(crate) fn large_took(&mut self, took: Duration, limit: Duration) {
        let would_share = u32::try_from(self.large_at_once()).unwrap_or(u32::MAX);
        if took >= limit {
            self.is_narrow = true;
        } else if took.saturating_mul(would_share) < limit {
            self.is_narrow = false;
        }
    }

    /// Notes that a task ended early, with its runtime or by a panic. If it was the last task, returns the queued
    /// writes.
    pub(crate) fn lose_task(&mut self) -> Vec<PendingWrite> {
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

//! The calls that a rule makes.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tower_idempotency::clock::Timestamp;
use tower_idempotency::{Fence, RecordId};
use tower_idempotency_shared::{Answer, Backend, BackendError, Clocks, Expect, NewExpiry, NewFence, Row, Write};

use super::sample::{AT_ONCE, claim, complete};
use super::subject::BackendSubject;
use crate::fresh::fresh_id;
use crate::rule::BOUND;

const BETWEEN_TRIES: Duration = Duration::from_millis(2);

/// A rule of the contract, as it is tried on a backend.
pub(super) type Rule<'a, B> = crate::rule::Rule<'a, BackendSubject<B>>;

/// The failures of a put that are borne, and followed by another try.
#[derive(Debug, Clone, Copy)]
pub(super) enum Bears<'a> {
    /// All that say nothing against the write.
    Any,
    /// Only [`Busy`](BackendError::Busy), and as often as this number says. A machine may pause while another call has
    /// a row locked.
    Busy(&'a AtomicU32),
}

impl Bears<'_> {
    fn bears(self, error: &BackendError) -> bool {
        match self {
            Self::Any => {
                matches!(error, BackendError::Nothing(_) | BackendError::Busy(_) | BackendError::Uncertain(_))
            }
            Self::Busy(left) => {
                let less = |left: u32| left.checked_sub(1);
                matches!(error, BackendError::Busy(_))
                    && left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
            }
        }
    }
}

impl<B: Backend> Rule<'_, B> {
    #[track_caller]
    pub(super) fn answered<T>(&self, doing: &str, answer: Result<T, BackendError>) -> T {
        answer.unwrap_or_else(|error| self.fail(format_args!("to {doing} failed: {error:?}")))
    }

    pub(super) async fn get(&self, id: RecordId) -> Option<Row> {
        self.get_by(&self.subject.backend, &[id]).await.rows.remove(0)
    }

    /// Reads a row by other clocks than the database's alone.
    pub(super) async fn get_at(&self, clocks: Clocks, id: RecordId) -> Option<Row> {
        self.answered("get", self.subject.backend.get(clocks, &[id]).await).rows.remove(0)
    }

    pub(super) async fn get_by(&self, backend: &B, ids: &[RecordId]) -> Answer<Vec<Option<Row>>> {
        let answer = self.answered("get", backend.get(Clocks::default(), ids).await);
        let rows = answer.rows.len();
        self.check(rows == ids.len(), || format!("{} ids were asked for, and {rows} rows were answered", ids.len()));
        answer
    }

    pub(super) async fn put(&self, writes: &[Write]) -> Answer<Vec<Option<Row>>> {
        self.put_by(&self.subject.backend, writes).await
    }

    pub(super) async fn put_by(&self, backend: &B, writes: &[Write]) -> Answer<Vec<Option<Row>>> {
        let answer = self.answered("put", backend.put(Clocks::default(), writes).await);
        let rows = answer.rows.len();
        self.check(rows == writes.len(), || format!("{} writes were put, and {rows} rows were answered", writes.len()));
        answer
    }

    /// Puts one write by other clocks than the database's alone, and gives the row that is answered.
    pub(super) async fn write_at(&self, clocks: Clocks, write: &Write) -> Option<Row> {
        let writes = std::slice::from_ref(write);
        self.answered("put", self.subject.backend.put(clocks, writes).await).rows.remove(0)
    }

    /// Puts one write, and gives the row that is answered.
    pub(super) async fn write(&self, write: &Write) -> Option<Row> {
        self.put(std::slice::from_ref(write)).await.rows.remove(0)
    }

    /// Puts a write that has to be done.
    pub(super) async fn done(&self, write: &Write) -> Row {
        self.done_in(false, write).await.0
    }

    /// Puts a write that has to be done, and gives its row and the database's time. The write goes alone or together
    /// with another one: a database may have another statement for several writes than for one.
    pub(super) async fn done_in(&self, together: bool, write: &Write) -> (Row, Timestamp) {
        let another = together.then(|| claim(fresh_id()));
        let writes: Vec<Write> = another.into_iter().chain([write.clone()]).collect();
        let Answer { now, mut rows, .. } = self.put(&writes).await;
        for (write, row) in writes.iter().zip(&rows) {
            self.check(is_done(row.as_ref(), write), || format!("{write:?} was not done; the answer was {row:?}"));
        }
        (rows.pop().flatten().unwrap_or_else(|| self.fail("no row was answered")), now)
    }

    /// Puts writes that have to be done, by other clocks than the database's alone.
    pub(super) async fn done_at(&self, clocks: Clocks, writes: &[Write]) -> Vec<Row> {
        let rows = self.answered("put", self.subject.backend.put(clocks, writes).await).rows;
        let done = writes.iter().zip(&rows).filter(|(write, row)| is_done(row.as_ref(), write)).count();
        self.check(done == writes.len(), || format!("{done} of {} writes were done: {rows:?}", writes.len()));
        rows.into_iter().flatten().collect()
    }

    /// Puts a write that must not be done.
    pub(super) async fn refused(&self, write: &Write) -> Option<Row> {
        let row = self.write(write).await;
        self.check(!is_done(row.as_ref(), write), || format!("{write:?} was done, and nothing it expects was there"));
        row
    }

    /// Sends writes, again and again where a row is busy or nothing is known, until each is done or refused. `bears`
    /// says which failures of a put may come about meanwhile.
    pub(super) async fn settled(&self, backend: &B, writes: &[Write], bears: Bears<'_>) -> Vec<Option<Row>> {
        let mut settled = vec![None; writes.len()];
        let mut open: Vec<usize> = (0..writes.len()).collect();
        let give_up = Instant::now() + BOUND;
        while !open.is_empty() {
            self.check(Instant::now() < give_up, || format!("{} writes were busy for a minute", open.len()));
            let sent: Vec<Write> = open.iter().map(|&at| writes[at].clone()).collect();
            let answer = match backend.put(Clocks::default(), &sent).await {
                Err(error) if bears.bears(&error) => {
                    tokio::time::sleep(BETWEEN_TRIES).await;
                    continue;
                }
                answer => self.answered("put", answer),
            };
            let mut rows = answer.rows.into_iter();
            open.retain(|&at| {
                settled[at] = rows.next().flatten();
                is_busy(settled[at].as_ref(), &writes[at])
            });
            if !open.is_empty() {
                tokio::time::sleep(BETWEEN_TRIES).await;
            }
        }
        settled
    }

    /// The database's time.
    pub(super) async fn now(&self) -> Timestamp {
        self.get_by(&self.subject.backend, &[]).await.now
    }

    /// Lets so much time pass: a few milliseconds, unless the subject has a clock.
    pub(super) async fn pass(&self, by: Duration) {
        let end = self.now().await.plus(by);
        if let Some(pass) = &self.subject.clock {
            pass(by);
        }
        let give_up = Instant::now() + BOUND;
        while self.now().await < end {
            self.check(Instant::now() < give_up, || "the database's clock does not move".to_owned());
            tokio::time::sleep(BETWEEN_TRIES).await;
        }
    }

    /// Leaves a row with this fence that is past its expiry, and gives the write that left it.
    pub(super) async fn expired(&self, id: RecordId, fence: Fence) -> Write {
        let row = self.done(&Write { fence: NewFence::Exactly(fence), ..claim(id) }).await;
        let write = Write { expires: NewExpiry::In(AT_ONCE), ..complete(&row) };
        // It may be past its expiry when it is answered.
        self.write(&write).await;
        self.pass(AT_ONCE * 2).await;
        let row = self.get(id).await;
        self.check(row.as_ref().is_none_or(|row| row.token == write.token), || format!("{write:?} was not done"));
        self.check(row.is_none(), || format!("a row past its expiry was read: {row:?}"));
        write
    }
}

pub(super) fn is_done(row: Option<&Row>, write: &Write) -> bool {
    row.is_some_and(|row| row.token == write.token)
}

/// Returns whether something else had the row locked: nothing was done, though what is expected is there.
fn is_busy(row: Option<&Row>, write: &Write) -> bool {
    match (write.expect, row) {
        _ if is_done(row, write) => false,
        (Expect::Absent, row) => row.is_none(),
        (Expect::Token(token), row) => row.is_some_and(|row| row.token == token),
    }
}

//! The database in memory, with a fault.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use tower_idempotency::RecordId;
use tower_idempotency::clock::{Clock as _, ManualClock, Timestamp};
use tower_idempotency_conformance::memory_backend::{MemoryBackend, Replication};
use tower_idempotency_shared::{Answer, Backend, BackendError, Clocks, Expect, Guarantee, Row, ServerId, Write};

use super::fault::Fault;
use super::writes;

#[derive(Debug, Clone)]
pub(super) struct Broken {
    pub(super) inner: MemoryBackend,
    fault: Fault,
    namespace: &'static str,
    clock: ManualClock,
    memory: Arc<Mutex<Memory>>,
}

/// The memory of a fault between calls.
#[derive(Debug, Default)]
struct Memory {
    past: Vec<Row>,
    replica: HashMap<RecordId, Option<Row>>,
    locked: HashSet<RecordId>,
    answers: u64,
    is_stuck: bool,
    is_undurable: bool,
}

type Rows = Answer<Vec<Option<Row>>>;

impl Broken {
    pub(super) fn new(inner: MemoryBackend, fault: Fault, clock: ManualClock) -> Self {
        Self { inner, fault, namespace: "", clock, memory: Arc::default() }
    }

    pub(super) fn another_process(&self) -> Self {
        Self { inner: self.inner.another_process(), ..self.clone() }
    }

    pub(super) fn another_namespace(&self) -> Self {
        match self.fault {
            Fault::HasOneNamespace => self.clone(),
            _ => Self { inner: self.inner.namespace("another"), namespace: "another", ..self.clone() },
        }
    }

    /// Lets no write become durable, or all of them.
    pub(super) fn set_undurable(&self, is_undurable: bool) {
        self.remember(|memory| memory.is_undurable = is_undurable);
        let shows = matches!(self.fault, Fault::ShowsRowsBeforeTheyAreDurable | Fault::AnswersBeforeItIsDurable);
        let hides = is_undurable && !shows;
        self.inner.database().replication(if hides { Replication::Awaited } else { Replication::InStep });
    }

    fn remember<T>(&self, look: impl FnOnce(&mut Memory) -> T) -> T {
        look(&mut self.memory.lock().unwrap())
    }

    /// The row as the database has it, past its expiry or not.
    fn there(&self, id: RecordId) -> Option<Row> {
        self.inner.database().rows(self.namespace).into_iter().find(|row| row.id == id)
    }

    /// Returns whether a look at the row before the write finds what the write expects.
    fn looks_expected(&self, write: &Write) -> bool {
        let there = self.there(write.id).filter(|row| !row.is_absent(self.clock.wall()));
        match write.expect {
            Expect::Absent => there.is_none(),
            Expect::Token(token) => there.is_some_and(|row| row.token == token),
        }
    }

    async fn put_one(&self, clocks: Clocks, write: &Write, sent_at: Timestamp) -> Result<(), BackendError> {
        let (there, now) = (self.there(write.id), self.clock.wall());
        let past: Vec<Row> =
            self.remember(|memory| memory.past.iter().filter(|row| row.id == write.id).cloned().collect());
        let Some(sent) = writes::sent(self.fault, write, there.as_ref(), &past, now) else { return Ok(()) };
        let writes = self.inner.database().writes();
        self.inner.put(self.stamping(clocks), &[sent]).await?;
        let is_done = self.inner.database().writes() > writes;
        let Some(row) = self.there(write.id).filter(|_| is_done) else { return Ok(()) };
        let now = if self.fault == Fault::CountsFromWhenItWasSent { sent_at } else { now };
        let mut made = writes::made(self.fault, write, there.as_ref(), row, now);
        if self.fault == Fault::BeginsByItsOwnClock && made.began == clocks.at(now).earliest {
            made.began = now;
        }
        self.remember(|memory| memory.past.push(made.clone()));
        self.inner.database().insert_raw(self.namespace, made);
        Ok(())
    }

    /// The clocks by which this database judges.
    fn judging(&self, clocks: Clocks) -> Clocks {
        let earliest = Clocks::default().earliest;
        if self.fault == Fault::JudgesByItsOwnClock { Clocks { earliest, ..clocks } } else { clocks }
    }

    /// The clocks by which this database judges and stamps writes.
    fn stamping(&self, clocks: Clocks) -> Clocks {
        let latest = Clocks::default().latest;
        self.judging(if self.fault == Fault::StampsByItsOwnClock { Clocks { latest, ..clocks } } else { clocks })
    }

    fn read(&self, mut answer: Rows) -> Rows {
        answer.rows = answer.rows.into_iter().map(|row| Some(writes::read(self.fault, row?))).collect();
        answer.server = self.server(answer.server);
        if self.fault == Fault::AnswersInTheOrderOfIds {
            answer.rows.sort_by_key(|row| row.as_ref().map(|row| row.id));
        }
        answer
    }

    fn server(&self, server: ServerId) -> ServerId {
        let answers = self.remember(|memory| {
            memory.answers += 1;
            memory.answers
        });
        match self.fault {
            Fault::IsAnotherServerInEachAnswer => ServerId(answers),
            Fault::StaysTheSameServer => ServerId(1),
            _ => server,
        }
    }

    /// Locks the rows one by one, in the order of the writes. The database ends a call that meets a locked one.
    async fn lock(&self, writes: &[Write]) -> Result<(), BackendError> {
        for (at, write) in writes.iter().enumerate() {
            if !self.remember(|memory| memory.locked.insert(write.id)) {
                self.unlock(&writes[..at]);
                return Err(BackendError::Nothing("deadlock detected".into()));
            }
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    fn unlock(&self, writes: &[Write]) {
        self.remember(|memory| memory.locked.retain(|id| writes.iter().all(|write| write.id != *id)));
    }
}

impl Backend for Broken {
    async fn get(&self, clocks: Clocks, ids: &[RecordId]) -> Result<Rows, BackendError> {
        let mut answer = self.inner.get(self.judging(clocks), ids).await?;
        match self.fault {
            Fault::ReadsRowsPastTheirExpiry => answer.rows = ids.iter().map(|id| self.there(*id)).collect(),
            Fault::JudgesByTheGivenClock if clocks != Clocks::default() => {
                let is_absent = |row: &Row| row.is_absent(clocks.earliest);
                answer.rows.iter_mut().for_each(|row| *row = row.take().filter(|row| !is_absent(row)));
            }
            Fault::AnswersEachIdOnce => {
                let mut seen = HashSet::new();
                answer.rows.retain(|row| row.as_ref().is_none_or(|row| seen.insert(row.id)));
            }
            // The replica gets the row that is read now, and returns it at the next read.
            Fault::ReadsFromAReplica => {
                for (id, row) in ids.iter().zip(&mut answer.rows) {
                    let latest = row.clone();
                    *row = self.remember(|memory| memory.replica.insert(*id, latest)).flatten();
                }
            }
            _ => {}
        }
        Ok(self.read(answer))
    }

    async fn put(&self, clocks: Clocks, writes: &[Write]) -> Result<Rows, BackendError> {
        match self.fault {
            Fault::IsStuckByADroppedCall => {
                if self.remember(|memory| std::mem::replace(&mut memory.is_stuck, true)) {
                    return Err(BackendError::Never("the connection is in the middle of something".into()));
                }
                tokio::task::yield_now().await;
                self.remember(|memory| memory.is_stuck = false);
            }
            Fault::LocksInTheOrderOfWrites => self.lock(writes).await?,
            _ => {}
        }
        let sent_at = self.clock.wall();
        let looked: Vec<bool> = writes.iter().map(|write| self.looks_expected(write)).collect();
        if self.fault == Fault::LooksBeforeItClaims {
            tokio::task::yield_now().await;
        }
        // A call that is held back waits here. After this it has reached the database.
        self.inner.put(clocks, &[]).await?;
        let ids: Vec<RecordId> = writes.iter().map(|write| write.id).collect();
        let before = self.inner.get(self.judging(clocks), &ids).await?;
        let absent = before.rows.iter().filter(|row| row.is_none()).count();
        let is_left = self.fault == Fault::DoesAllWritesOrNone && absent != 0 && absent != ids.len();
        for (write, looked) in writes.iter().zip(looked) {
            let looks_before = matches!(self.fault, Fault::LooksBeforeItWrites | Fault::LooksBeforeItClaims);
            match self.there(write.id).filter(|row| !row.is_absent(self.clock.wall())) {
                _ if is_left => {}
                Some(row) if looks_before && looked => {
                    self.put_one(clocks, &Write { expect: Expect::Token(row.token), ..write.clone() }, sent_at).await?;
                }
                Some(mut row) if self.fault == Fault::StampsWhatItRefuses && row.token != write.token => {
                    row.since = self.clock.wall();
                    self.put_one(clocks, write, sent_at).await?;
                    if self.there(write.id).is_some_and(|there| there.token == row.token) {
                        self.inner.database().insert_raw(self.namespace, row);
                    }
                }
                _ => self.put_one(clocks, write, sent_at).await?,
            }
        }
        let mut answer = self.inner.get(self.judging(clocks), &ids).await?;
        for (at, (write, row)) in writes.iter().zip(&mut answer.rows).enumerate() {
            let was_own = before.rows[at].as_ref().is_some_and(|row| row.token == write.token);
            let is_own = row.as_ref().is_some_and(|row| row.token == write.token);
            match self.fault {
                Fault::AnswersOnlyWhatItWrote if !is_own => *row = None,
                Fault::DoesNotKnowItsOwnToken if was_own => *row = None,
                _ => {}
            }
        }
        self.unlock(writes);
        let was_done =
            answer.rows.iter().zip(writes).any(|(row, write)| row.as_ref().is_some_and(|row| row.token == write.token));
        if self.fault == Fault::ShowsRowsBeforeTheyAreDurable && was_done && self.remember(|memory| memory.is_undurable)
        {
            return Err(BackendError::Uncertain("the standby does not have it yet".into()));
        }
        Ok(self.read(answer))
    }

    async fn sessions(&self, clocks: Clocks) -> Result<Answer<Vec<Row>>, BackendError> {
        let mut answer = self.inner.sessions(self.judging(clocks)).await?;
        match self.fault {
            Fault::GivesNoSessions => answer.rows.clear(),
            Fault::ForgetsSessionsPastTheirLease => {
                answer.rows.retain(|row| row.until.is_some_and(|until| until > answer.now));
            }
            Fault::TakesAnyRowForASession => answer.rows = self.inner.database().rows(self.namespace),
            _ => {}
        }
        Ok(answer)
    }

    async fn list(
        &self,
        clocks: Clocks,
        alive: &[RecordId],
        after: Option<(Timestamp, RecordId)>,
        limit: usize,
    ) -> Result<Answer<Vec<Row>>, BackendError> {
        let alive = if self.fault == Fault::TakesAllSessionsForOver { &[] } else { alive };
        let mut answer = self.inner.list(self.judging(clocks), alive, None, usize::MAX).await?;
        let written: Vec<RecordId> = self.inner.database().written().iter().map(|written| written.id).collect();
        answer.rows = writes::listed(self.fault, answer.rows, &written, after, answer.now);
        answer.rows.truncate(if self.fault == Fault::ListsAllAtOnce { usize::MAX } else { limit });
        answer.server = self.server(answer.server);
        Ok(answer)
    }

    async fn scan(
        &self,
        clocks: Clocks,
        after: Option<RecordId>,
        limit: usize,
    ) -> Result<Answer<Vec<Row>>, BackendError> {
        let mut answer = match self.fault {
            Fault::ScansFromTheStart => self.inner.scan(self.judging(clocks), None, limit).await?,
            _ => self.inner.scan(self.judging(clocks), after, limit).await?,
        };
        match self.fault {
            Fault::ScansInItsOwnOrder => answer.rows.reverse(),
            Fault::ScansMoreThanItsLimit => {
                answer.rows = self.inner.scan(clocks, after, usize::MAX).await?.rows;
            }
            Fault::ScansSessions => {
                let mut all = self.inner.database().rows(self.namespace);
                all.retain(|row| Some(row.id) > after);
                all.truncate(limit);
                answer.rows = all;
            }
            Fault::ScansTheEndOfLargeStates => {
                answer.rows.iter_mut().for_each(|row| drop(row.state.split_to(row.state.len() / 1_000)));
            }
            _ => {}
        }
        answer.server = self.server(answer.server);
        Ok(answer)
    }

    async fn delete_expired(&self, clocks: Clocks, limit: usize) -> Result<usize, BackendError> {
        match self.fault {
            Fault::SweepsWithoutGrace => {
                let mut rows = self.inner.database().rows(self.namespace);
                rows.retain(|row| row.is_absent(self.clock.wall()));
                rows.iter().for_each(|row| self.inner.database().delete(self.namespace, row.id));
                Ok(rows.len())
            }
            Fault::DeletesMoreThanTheLimit => self.inner.delete_expired(clocks, usize::MAX).await,
            Fault::SweepsByItsOwnClock => self.inner.delete_expired(Clocks::default(), limit).await,
            Fault::DeletesNothing => Ok(0),
            _ => self.inner.delete_expired(clocks, limit).await,
        }
    }

    fn changes(&self) -> BoxStream<'static, RecordId> {
        if self.fault == Fault::EndsItsChanges { stream::empty().boxed() } else { self.inner.changes() }
    }

    async fn guarantee(&self) -> Result<Guarantee, BackendError> {
        let guarantee = self.inner.guarantee().await?;
        let is_silent = self.fault == Fault::IsSilentAboutItsSetUp;
        Ok(if is_silent { Guarantee { setup: String::new(), ..guarantee } } else { guarantee })
    }
}

//! The database, as a test has it in its hand.

use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::broadcast;
use tower_idempotency::RecordId;
use tower_idempotency::clock::{Clock, Timestamp};
use tower_idempotency_shared::{Answer, BackendError, Clocks, Row, RunRecord, ServerId, Write};

use super::hold::Reply;
use super::locked::lock;
use super::state::{Replication, Rows, State, Written};
use super::table::Key;
use super::way::nothing;

/// A database in memory, with a standby. A handle; clones share the database.
#[derive(Debug, Clone)]
pub struct MemoryDatabase {
    clock: Arc<dyn Clock>,
    state: Arc<Mutex<State>>,
}

/// A row is locked until this is dropped: puts leave it alone.
#[derive(Debug)]
#[must_use = "the row is locked until this is dropped"]
pub struct Lock {
    database: MemoryDatabase,
    key: Key,
    server: u64,
}

impl Lock {
    /// Ends the transaction that has it locked.
    pub fn release(self) {}
}

impl Drop for Lock {
    fn drop(&mut self) {
        let mut state = self.database.state();
        if state.server != self.server {
            return;
        }
        if let Some(count) = state.locked.get_mut(&self.key) {
            *count -= 1;
        }
        state.locked.retain(|_, count| *count > 0);
    }
}

impl MemoryDatabase {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, state: Arc::default() }
    }

    /// The database's clock.
    #[must_use]
    pub fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock)
    }

    /// The database can't be reached any more: calls are refused.
    pub fn stop(&self) {
        self.state().is_away = true;
    }

    /// It can be reached again: the same server, which was only out of reach.
    pub fn start(&self) {
        self.state().is_away = false;
    }

    /// The database is started again: another [`ServerId`]. What was done is seen from now on, awaited or not; calls
    /// that await it get [`Uncertain`](BackendError::Uncertain). Locks are gone.
    pub fn restart(&self) {
        self.state().restart();
    }

    /// The standby takes over, with what it has got: another [`ServerId`]. The rest is lost; calls that await it get
    /// [`Uncertain`](BackendError::Uncertain). Locks are gone.
    pub fn fail_over(&self) {
        self.state().fail_over();
    }

    /// Says when the standby gets what is written. [`Replication::InStep`] brings it up to date.
    pub fn replication(&self, replication: Replication) {
        self.state().replication = replication;
        if replication == Replication::InStep {
            self.replicate();
        }
    }

    /// Brings the standby up to date. What awaits that is seen and answered.
    pub fn replicate(&self) {
        self.state().replicate(self.now());
    }

    /// Brings the standby up to the first `count` writes of those that are seen and that it has not got.
    pub fn replicate_some(&self, count: usize) {
        self.state().catch_up(count);
    }

    /// Locks a row, there or not, as an application's transaction does.
    pub fn lock(&self, namespace: &str, id: RecordId) -> Lock {
        let key: Key = (namespace.into(), id);
        let mut state = self.state();
        *state.locked.entry(key.clone()).or_default() += 1;
        Lock { database: self.clone(), key, server: state.server }
    }

    /// Deletes a row at once, grace or not: what no backend may do.
    pub fn delete(&self, namespace: &str, id: RecordId) {
        self.state().change((namespace.into(), id), None);
    }

    /// Puts a row there as it is, past all rules: one that is damaged, that comes from a backup or from a later
    /// release.
    pub fn insert_raw(&self, namespace: &str, row: Row) {
        self.state().change((namespace.into(), row.id), Some(row));
    }

    /// Withholds notifications of what is written, from now on, or sends them again:
    /// [`changes`](tower_idempotency_shared::Backend::changes) are missing.
    pub fn mute_notifications(&self, is_muted: bool) {
        self.state().is_muted = is_muted;
    }

    /// Returns the number of the server that answers, which each start changes.
    #[must_use]
    pub fn server(&self) -> ServerId {
        ServerId(self.state().server)
    }

    /// The rows of a namespace as the database has them, past their expiry or not, in the order of their ids.
    #[must_use]
    pub fn rows(&self, namespace: &str) -> Vec<Row> {
        self.state().primary.all(namespace)
    }

    /// The writes that were done, in their order; those that were sent again, and those lost in a failover, included.
    #[must_use]
    pub fn written(&self) -> Vec<Written> {
        self.state().written.clone()
    }

    /// Returns how many [were done](Self::written).
    #[must_use]
    pub fn writes(&self) -> usize {
        self.state().written.len()
    }

    pub(super) fn changes(&self) -> broadcast::Receiver<Key> {
        self.state().changed.subscribe()
    }

    pub(super) fn get(&self, clocks: Clocks, asked: &[Key], reply: Reply<Rows>) {
        reply.send(self.at_work(|state, now| state.read(asked, clocks.at(now))));
    }

    pub(super) fn put(&self, clocks: Clocks, process: u64, namespace: &Arc<str>, writes: &[Write], reply: Reply<Rows>) {
        let mut state = self.state();
        if state.is_away {
            return reply.send(Err(away()));
        }
        state.put(clocks, process, namespace, writes, self.now(), reply);
    }

    /// Writes the record of a run in a transaction, which has the row locked then. `None`: the operation is not the
    /// run's any more.
    pub(super) fn write_in(&self, key: Key, record: &RunRecord) -> Result<Option<(Row, Lock)>, BackendError> {
        let mut state = self.state();
        if state.is_away {
            return Err(away());
        }
        if state.is_locked(&key) {
            return Err(BackendError::Busy("another transaction has the row locked".into()));
        }
        let Some(row) = record.apply_to(state.primary.there(&key), self.now()) else { return Ok(None) };
        *state.locked.entry(key.clone()).or_default() += 1;
        Ok(Some((row, Lock { database: self.clone(), key, server: state.server })))
    }

    /// Commits the transaction that wrote `row`.
    pub(super) fn commit(&self, process: u64, row: Row, lock: Lock) -> Result<(), BackendError> {
        let mut state = self.state();
        if state.is_away {
            return Err(away());
        }
        if state.server != lock.server {
            return Err(nothing("the server that had the transaction is gone"));
        }
        state.commit(process, lock.key.clone(), row)
    }

    pub(super) fn sessions(&self, clocks: Clocks, namespace: &str, reply: Reply<Answer<Vec<Row>>>) {
        let sessions =
            |state: &mut State, now| state.answer(now, state.primary.sessions(namespace, clocks.at(now).earliest));
        reply.send(self.at_work(sessions));
    }

    pub(super) fn list(
        &self,
        clocks: Clocks,
        namespace: &str,
        alive: &[RecordId],
        after: Option<(Timestamp, RecordId)>,
        limit: usize,
        reply: Reply<Answer<Vec<Row>>>,
    ) {
        let list = |state: &mut State, now| {
            state.answer(now, state.primary.list(namespace, alive, after, limit, clocks.at(now).earliest))
        };
        reply.send(self.at_work(list));
    }

    pub(super) fn scan(
        &self,
        clocks: Clocks,
        namespace: &str,
        after: Option<RecordId>,
        limit: usize,
        reply: Reply<Answer<Vec<Row>>>,
    ) {
        let scan = |state: &mut State, now| {
            state.answer(now, state.primary.scan(namespace, after, limit, clocks.at(now).earliest))
        };
        reply.send(self.at_work(scan));
    }

    pub(super) fn delete_expired(&self, clocks: Clocks, namespace: &str, limit: usize, reply: Reply<usize>) {
        reply.send(self.at_work(|state, now| state.delete_expired(namespace, limit, clocks.at(now).earliest)));
    }

    pub(super) fn adopt(
        &self,
        clocks: Clocks,
        namespace: &Arc<str>,
        rows: &[Row],
        reply: Reply<Answer<Vec<RecordId>>>,
    ) {
        reply.send(self.at_work(|state, now| {
            let (mut written, earliest) = (Vec::new(), clocks.at(now).earliest);
            for row in rows {
                let key: Key = (Arc::clone(namespace), row.id);
                let is_free = |there: &Row| there.is_absent(earliest) && there.fence < row.fence;
                if state.primary.there(&key).is_none_or(is_free) {
                    written.push(row.id);
                    state.change(key, Some(row.clone()));
                }
            }
            state.answer(now, written)
        }));
    }

    pub(super) fn guarantee(&self, reply: Reply<Replication>) {
        reply.send(self.at_work(|state, _| state.replication));
    }

    fn at_work<T>(&self, work: impl FnOnce(&mut State, Timestamp) -> T) -> Result<T, BackendError> {
        let mut state = self.state();
        if state.is_away { Err(away()) } else { Ok(work(&mut state, self.now())) }
    }

    fn now(&self) -> Timestamp {
        self.clock.wall()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

fn away() -> BackendError {
    nothing("the database is away")
}

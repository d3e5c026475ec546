//! The database's state, and its single steps, each at a time that the caller gives.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;

use tokio::sync::broadcast;
use tower_idempotency::clock::Timestamp;
use tower_idempotency::{Fence, RecordId};
use tower_idempotency_shared::{Answer, BackendError, Clocks, Kind, Moment, Row, ServerId, Token, Write};

use super::hold::Reply;
use super::table::{Key, Table};
use super::way::uncertain;

/// The answer to a get or a put.
pub(super) type Rows = Answer<Vec<Option<Row>>>;

#[derive(Debug)]
pub(super) struct State {
    pub(super) primary: Table,
    standby: Table,
    // What the standby has not got yet, in order.
    behind: VecDeque<(Key, Option<Row>)>,
    pub(super) replication: Replication,
    awaiting: Vec<Awaiting>,
    pub(super) locked: BTreeMap<Key, usize>,
    pub(super) server: u64,
    pub(super) is_away: bool,
    pub(super) is_muted: bool,
    pub(super) written: Vec<Written>,
    pub(super) changed: broadcast::Sender<Key>,
}

/// Says when the standby gets what is written, and what waits for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Replication {
    /// At once. So it is to begin with: nothing that was answered is ever lost.
    InStep,
    /// At [`replicate`](super::MemoryDatabase::replicate); nothing waits for it. A failover loses what was answered
    /// meanwhile.
    Behind,
    /// At [`replicate`](super::MemoryDatabase::replicate). A put that was done is neither answered nor seen before, and
    /// its rows are locked. A [`restart`](super::MemoryDatabase::restart) shows it all the same; a failover loses it
    /// then.
    Awaited,
}

/// A write that was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Written {
    /// The [number](super::MemoryBackend::process) of the process that sent it.
    pub process: u64,
    /// The row's id.
    pub id: RecordId,
    /// The write's token.
    pub token: Token,
    /// The fence that the row has by it.
    pub fence: Fence,
    /// The kind that the row has by it.
    pub kind: Kind,
}

/// A put that is done, but neither seen nor answered before the standby has it.
struct Awaiting {
    clocks: Clocks,
    made: Vec<(Key, Row)>,
    asked: Vec<Key>,
    tokens: Vec<Token>,
    reply: Reply<Rows>,
}

impl fmt::Debug for Awaiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Awaiting").field("made", &self.made).finish_non_exhaustive()
    }
}

/// The most bytes of a state in the answer to a put that did not make the row.
pub(super) const ANSWERED: usize = 16 * 1024;
/// The number of changes that are kept for a listener.
const CHANGES: usize = 1_024;

impl Default for State {
    fn default() -> Self {
        Self {
            primary: Table::default(),
            standby: Table::default(),
            behind: VecDeque::new(),
            replication: Replication::InStep,
            awaiting: Vec::new(),
            locked: BTreeMap::new(),
            server: 1,
            is_away: false,
            is_muted: false,
            written: Vec::new(),
            changed: broadcast::channel(CHANGES).0,
        }
    }
}

impl State {
    pub(super) fn answer<T>(&self, now: Timestamp, rows: T) -> Answer<T> {
        Answer { now, server: ServerId(self.server), rows }
    }

    pub(super) fn read(&self, asked: &[Key], at: Moment) -> Rows {
        self.answer(at.now, asked.iter().map(|key| self.primary.read(key, at.earliest)).collect())
    }

    pub(super) fn put(
        &mut self,
        clocks: Clocks,
        process: u64,
        namespace: &Arc<str>,
        writes: &[Write],
        now: Timestamp,
        reply: Reply<Rows>,
    ) {
        let asked: Vec<Key> = writes.iter().map(|write| (Arc::clone(namespace), write.id)).collect();
        let tokens: Vec<Token> = writes.iter().map(|write| write.token).collect();
        let mut made = Vec::new();
        for (write, key) in writes.iter().zip(&asked) {
            let Some(row) = write.apply_to(self.primary.there(key), clocks.at(now)) else { continue };
            if self.is_locked(key) {
                continue;
            }
            let Row { id, token, fence, kind, .. } = row;
            self.written.push(Written { process, id, token, fence, kind });
            made.push((key.clone(), row));
        }
        if self.replication == Replication::Awaited && !made.is_empty() {
            self.awaiting.push(Awaiting { clocks, made, asked, tokens, reply });
        } else {
            self.apply(made);
            reply.send(Ok(self.read_without(&asked, &tokens, clocks.at(now))));
        }
    }

    /// Does what a transaction of an application has written.
    pub(super) fn commit(&mut self, process: u64, key: Key, row: Row) -> Result<(), BackendError> {
        let Row { id, token, fence, kind, .. } = row;
        self.written.push(Written { process, id, token, fence, kind });
        let made = vec![(key, row)];
        if self.replication == Replication::Awaited {
            let (asked, tokens, reply) = (Vec::new(), Vec::new(), Reply::nowhere());
            self.awaiting.push(Awaiting { clocks: Clocks::default(), made, asked, tokens, reply });
            return Err(uncertain("the standby does not have the transaction yet"));
        }
        self.apply(made);
        Ok(())
    }

    /// Reads rows, without the large states of those that do not have these tokens.
    fn read_without(&self, asked: &[Key], tokens: &[Token], at: Moment) -> Rows {
        let mut answer = self.read(asked, at);
        for (row, token) in answer.rows.iter_mut().zip(tokens) {
            if let Some(row) = row.as_mut().filter(|row| row.token != *token && row.state.len() > ANSWERED) {
                row.state.clear();
            }
        }
        answer
    }

    pub(super) fn delete_expired(&mut self, namespace: &str, limit: usize, earliest: Timestamp) -> usize {
        let mut keys = self.primary.past_grace(namespace, usize::MAX, earliest);
        keys.retain(|key| !self.is_locked(key));
        keys.truncate(limit);
        let deleted = keys.len();
        keys.into_iter().for_each(|key| self.change(key, None));
        deleted
    }

    /// Another server, with what this one has done.
    pub(super) fn restart(&mut self) {
        for Awaiting { made, .. } in std::mem::take(&mut self.awaiting) {
            self.apply(made);
        }
        self.start_anew();
    }

    /// Another server, with what the standby has got.
    pub(super) fn fail_over(&mut self) {
        self.awaiting.clear();
        self.behind.clear();
        self.primary = self.standby.clone();
        self.start_anew();
    }

    fn start_anew(&mut self) {
        self.server += 1;
        self.locked.clear();
        self.is_away = false;
    }

    /// Brings the standby up to date, and answers what awaits that.
    pub(super) fn replicate(&mut self, now: Timestamp) {
        for Awaiting { clocks, made, asked, tokens, reply } in std::mem::take(&mut self.awaiting) {
            self.apply(made);
            reply.send(Ok(self.read_without(&asked, &tokens, clocks.at(now))));
        }
        self.catch_up(usize::MAX);
    }

    /// Brings the standby up to the first `count` writes of those that it has not got.
    pub(super) fn catch_up(&mut self, count: usize) {
        let count = count.min(self.behind.len());
        self.behind.drain(..count).for_each(|(key, row)| self.standby.set(key, row));
    }

    fn apply(&mut self, made: Vec<(Key, Row)>) {
        for (key, row) in made {
            if !self.is_muted {
                // An error within: there is no listener.
                let _ = self.changed.send(key.clone());
            }
            self.change(key, Some(row));
        }
    }

    pub(super) fn change(&mut self, key: Key, row: Option<Row>) {
        self.primary.set(key.clone(), row.clone());
        self.behind.push_back((key, row));
        if self.replication == Replication::InStep {
            self.catch_up(usize::MAX);
        }
    }

    pub(super) fn is_locked(&self, key: &Key) -> bool {
        let mut awaited = self.awaiting.iter().flat_map(|awaiting| &awaiting.made);
        self.locked.contains_key(key) || awaited.any(|(made, _)| made == key)
    }
}

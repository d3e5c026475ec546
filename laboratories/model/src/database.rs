//! The database: rows, compared and set; which of them are durable; and the effects of a failover and a restart.

use tower_idempotency::clock::Timestamp;
use tower_idempotency_shared::Moment;

use crate::clocks::{self, Span};
use crate::fault::Fault;
use crate::rows::{Kept, READ, Row, Run, Token, UNIT, UNKNOWN, Write};

/// The moment at which a write is durable, and what waits for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Replication {
    /// At once.
    InStep,
    /// Later. A write is seen and answered before that: a failover loses it.
    Behind,
    /// Later. A write is neither seen nor answered before that, and its row is locked. A restart shows it all the same,
    /// and a failover loses it then.
    Awaited,
    /// Later. A write changes its row at once, and other writes build on that. It is answered once it is durable, and
    /// so is each call that shows the row. A failover loses the row before. A restart lets calls show it all the same.
    Applied,
}

/// A write on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Put {
    /// The sender, and with `number` the count of its earlier writes: a unique name.
    pub(crate) by: u8,
    pub(crate) number: u8,
    /// The key whose row it is. `None`: a row of the sender's own.
    pub(crate) key: Option<u8>,
    pub(crate) write: Write,
    /// The fence of the run that this write ends.
    pub(crate) ends: Option<u64>,
    /// The row that was read before the decision, if the write takes the operation over or settles it.
    pub(crate) takes: Option<Taken>,
    /// The number of times that time has passed since it was sent.
    pub(crate) age: u8,
    /// The times that the sender's clocks showed when it was sent, and the times that they had to show.
    pub(crate) span: Span,
    pub(crate) right: Span,
}

/// A row from whose run an operation is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Taken {
    pub(crate) fence: u64,
    pub(crate) is_bound_over: bool,
}

impl Put {
    pub(crate) fn is(&self, other: &Self) -> bool {
        (self.by, self.number) == (other.by, other.number)
    }

    /// The run whose outcome it puts back, if it does. Other outcomes end a run, or settle an operation.
    pub(crate) fn restores(&self) -> Option<Run> {
        match self.write.kept {
            Kept::Completed(run) if self.ends.is_none() && self.takes.is_none() => Some(run),
            _ => None,
        }
    }

    /// Returns whether it is a read that waits until its row is durable.
    pub(crate) fn is_read(&self) -> bool {
        self.key.is_some() && self.write == Write { token: self.write.token, ..READ }
    }

    /// Returns whether it deletes a record that is done, if there is one.
    pub(crate) fn forgets(&self) -> bool {
        self.takes.is_some() && self.write.kept == Kept::Released
    }
}

/// A write that is not durable yet, or a call that waits for those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Entry {
    /// The key whose row it changes. `None`: it changes no row of a key.
    pub(crate) key: Option<u8>,
    /// The row with which it is answered.
    pub(crate) row: Option<Row>,
    /// `true` if calls may show it.
    pub(crate) is_seen: bool,
    /// The write. `None`: a row was deleted.
    pub(crate) put: Option<Put>,
    /// `true` if it is answered when it is durable.
    pub(crate) is_awaited: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Database {
    replication: Replication,
    /// The rows of the keys, past their expiry or not.
    rows: Vec<Option<Row>>,
    /// The rows that a failover shows.
    standby: Vec<Option<Row>>,
    /// The writes that are not durable yet, in the order in which they were written.
    pub(crate) behind: Vec<Entry>,
    /// A number that identifies the server and its start.
    pub(crate) server: u8,
    /// The true time, and how far its clock is ahead of it.
    time: u64,
    pub(crate) ahead: i8,
}

/// The result of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Done {
    /// The write was done: the row before it, if there was a live one, and the row after it.
    Yes {
        before: Option<Row>,
        now: Row,
        is_again: bool,
    },
    /// The write is known to be done, and was not done again.
    Known,
    No,
    /// Another write has the row locked.
    Busy,
}

const BEGINNING: u64 = 1_000 * UNIT.as_millis() as u64;

impl Database {
    pub(crate) fn new(keys: usize, replication: Replication) -> Self {
        let rows = vec![None; keys];
        Self { replication, standby: rows.clone(), rows, behind: Vec::new(), server: 1, time: BEGINNING, ahead: 0 }
    }

    /// The true time, in milliseconds.
    pub(crate) fn time(&self) -> u64 {
        self.time
    }

    /// The time that its clock shows.
    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::from_millis(clocks::set(self.time, self.ahead))
    }

    /// True time passes.
    pub(crate) fn pass(&mut self) {
        self.time = clocks::set(self.time, 1);
    }

    /// Microseconds since the epoch by its clock: no fence that is given is lower.
    pub(crate) fn floor(&self) -> u64 {
        self.now().as_millis() * 1_000
    }

    /// The row of `key`, past its expiry or not.
    pub(crate) fn there(&self, key: u8) -> Option<&Row> {
        self.rows[usize::from(key)].as_ref()
    }

    /// The row that is read for `key`, judged by `earliest`.
    pub(crate) fn read(&self, key: u8, earliest: Timestamp) -> Option<Row> {
        self.there(key).copied().filter(|row| !row.is_absent(earliest))
    }

    /// The durable row of `key`.
    pub(crate) fn durable(&self, key: u8) -> Option<&Row> {
        self.standby[usize::from(key)].as_ref()
    }

    /// The last row of `key` that calls may show.
    pub(crate) fn shown(&self, key: u8) -> Option<&Row> {
        let last = self.behind.iter().rfind(|entry| entry.key == Some(key) && entry.is_seen);
        last.map_or(self.durable(key), |entry| entry.row.as_ref())
    }

    /// Returns whether calls may show the row of `key` as it is read now.
    pub(crate) fn may_show(&self, key: u8) -> bool {
        let last = self.behind.iter().rfind(|entry| entry.key == Some(key));
        self.hides() || last.is_none_or(|entry| entry.is_seen)
    }

    /// Returns whether a row keeps its content, and is locked, until calls may show the new one.
    fn hides(&self) -> bool {
        self.replication == Replication::Awaited
    }

    /// Returns whether there is such a row, or may be once the writes are shown or lost.
    pub(crate) fn has(&self, is_such: impl Fn(&Row) -> bool) -> bool {
        let behind = self.behind.iter().map(|entry| &entry.row);
        self.rows.iter().chain(&self.standby).chain(behind).flatten().any(is_such)
    }

    fn is_locked(&self, key: Option<u8>) -> bool {
        self.hides() && key.is_some() && self.behind.iter().any(|entry| !entry.is_seen && entry.key == key)
    }

    /// Does a write, if the row is as the write expects, or is already the write's own. Some time passes with each new
    /// fence.
    pub(crate) fn put(&mut self, put: &Put, moment: Moment, fault: Option<Fault>) -> Done {
        let Some(key) = put.key else {
            let session = Row { token: put.write.token, ..BARRIER };
            return Done::Yes { before: None, now: session, is_again: false };
        };
        let there = self.there(key);
        let write = match (fault, put.takes, there) {
            (Some(Fault::TakeoverComparesFence), Some(taken), Some(row)) if row.fence == taken.fence => {
                Write { expect: Some(row.token), ..put.write }
            }
            _ => put.write,
        };
        let Some(row) = write.apply_to(there, moment) else { return Done::No };
        if self.is_locked(put.key) {
            return Done::Busy;
        }
        let before = self.read(key, moment.earliest);
        let is_again = before.is_some_and(|before| before.token == row.token);
        let row = match fault {
            Some(Fault::ResendWithoutWrite) if is_again => return Done::Known,
            Some(Fault::CopyLowers) if is_again => write.stamped_anew(row, moment),
            _ => row,
        };
        if before.is_none_or(|before| before.fence != row.fence) {
            self.time += 1;
        }
        Done::Yes { before, now: row, is_again }
    }

    /// Notes a write.
    pub(crate) fn log(&mut self, key: Option<u8>, row: Option<Row>, put: Option<Put>, is_awaited: bool) {
        let is_seen = matches!(self.replication, Replication::InStep | Replication::Behind) || put.is_none();
        if let (true, Some(key)) = (is_seen || !self.hides(), key) {
            self.rows[usize::from(key)] = row;
        }
        self.behind.push(Entry { key, row, is_seen, put, is_awaited });
    }

    /// Answers a call with the present row of `key` once that is durable.
    pub(crate) fn wait(&mut self, put: &Put, key: u8) {
        let row = self.there(key).copied();
        self.behind.push(Entry { key: None, row, is_seen: true, put: Some(*put), is_awaited: true });
    }

    /// Makes the oldest write that is not durable durable, and returns it.
    pub(crate) fn replicate(&mut self) -> Option<Entry> {
        if self.behind.is_empty() {
            return None;
        }
        let entry = self.behind.remove(0);
        if let Some(key) = entry.key {
            self.standby[usize::from(key)] = entry.row;
            if self.hides() && !entry.is_seen {
                self.rows[usize::from(key)] = entry.row;
            }
        }
        Some(entry)
    }

    /// A restart: calls may show all writes, and none is answered. Returns those that they could not show before.
    pub(crate) fn restart(&mut self) -> Vec<Entry> {
        self.server += 1;
        let (mut shown, hides) = (Vec::new(), self.hides());
        for entry in &mut self.behind {
            entry.is_awaited = false;
            if !std::mem::replace(&mut entry.is_seen, true) {
                shown.push(*entry);
                if let (true, Some(key)) = (hides, entry.key) {
                    self.rows[usize::from(key)] = entry.row;
                }
            }
        }
        shown
    }

    /// Another server takes over. It has the durable rows.
    pub(crate) fn fail_over(&mut self) {
        self.server += 1;
        self.behind.clear();
        self.rows.clone_from(&self.standby);
    }

    /// Returns whether a write waits to be answered.
    pub(crate) fn awaits(&self, put: &Put) -> bool {
        self.behind.iter().any(|entry| entry.is_awaited && entry.put.is_some_and(|own| own.is(put)))
    }
}

/// A process's own row. Its content has no meaning here.
const BARRIER: Row = Row {
    token: 0 as Token,
    fence: 0,
    kept: Kept::Released,
    session: None,
    until: 0,
    began: 0,
    expires: u64::MAX,
    policy: UNKNOWN,
};

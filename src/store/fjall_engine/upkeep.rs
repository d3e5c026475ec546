//! A thread that looks after the tables of the keyspaces. It does three things that fjall does not do well enough:
//!
//! - It merges tables, again and again while too many are left. fjall's worker makes one merge for each memtable. In a
//!   large store that is less than what is needed: unmerged tables pile up, and at 30 of them every write waits for a
//!   merge, which only another write could bring about. In the store's own keyspace this thread alone merges: fjall may
//!   move a table into a gap of a level while another merge fills that gap. In keyspaces of the application's, whose
//!   settings fjall keeps, it helps fjall's worker.
//! - It drops tables that have nothing but keys that the store has removed for good. fjall would often keep these for
//!   ever: it chooses the merges that write the least, and a table of removals lies over many tables of what was
//!   removed.
//! - It frees what is old. When fjall drops an old memtable, or an old version of a keyspace with the tables that it
//!   alone has, all calls wait: to free 64 MiB, and to remove such a file, takes up to a tenth of a second. So the
//!   thread gets a handle of each. It drops that of a memtable when fjall has none any more, and that of a version at
//!   once: fjall has dropped it two rotations later, unless a read still needs it.

use std::any::Any;
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use fjall::compaction::Leveled;
use fjall::{AbstractTree as _, Keyspace, LsmError};

use crate::store::embedded::files::shortage::Descriptors;
use crate::store::error::is_shortage;

/// The interval at which the thread looks whether fjall still has something old, or is still behind. It doubles each
/// time, because fjall keeps the last one of a keyspace until the next, and an application may let many tables pile up.
const LOOK_EVERY: Duration = Duration::from_millis(50);
const LOOK_SELDOM: Duration = Duration::from_secs(10);

/// The number of unmerged tables from which on the thread makes one merge after the other. fjall slows down writes from
/// 20 on. With fewer of them, more merges would only cost time: all calls wait for the end of each.
pub(super) const BEHIND: usize = 12;
/// The number from which on it merges them before all others. By fjall's own choice they would wait until the levels
/// below, which have grown by their merges, are small again.
const FAR_BEHIND: usize = 20;

/// The most tables, roughly, into which the store's keyspace is divided. To choose a merge takes fjall a time that
/// grows with the third power of the tables in a level, and other calls wait meanwhile.
const MAX_TABLES: u64 = 512;

/// What the thread drops once no other handle of it is left.
pub(super) type Old = Arc<dyn Any + Send + Sync>;

/// What the thread is asked for.
pub(super) enum Task {
    Free(Old),
    /// The tables of the store's are dropped in which all keys lie in a range. Keys of this range in other tables may
    /// come back.
    DropTables(Range<Vec<u8>>),
    /// A memtable is written to a table, or the keyspace was opened.
    Merge(Keyspace),
}

/// The thread's work.
pub(super) struct Upkeep {
    /// The store's own keyspace.
    records: Keyspace,
    /// The most bytes of a table of a store that is not large.
    table_bytes: u64,
    descriptors: Arc<Descriptors>,
    /// What fjall still has handles of.
    old: Vec<Old>,
    /// The keyspaces whose tables are to be merged.
    unmerged: Vec<Keyspace>,
    /// `true` if the last look at them has merged some.
    has_merged: bool,
    /// How long it has waited for something to free or to merge.
    waited: Duration,
}

impl Upkeep {
    pub(super) fn new(records: Keyspace, table_bytes: u64, descriptors: Arc<Descriptors>) -> Self {
        let (old, unmerged) = Default::default();
        Self { records, table_bytes, descriptors, old, unmerged, has_merged: false, waited: Duration::ZERO }
    }

    /// Works until the sender is gone and all tasks are done, with the merges that are due at once. `unseen` returns up
    /// to which number no snapshot sees what was replaced.
    pub(super) fn run(mut self, tasks: &Receiver<Task>, unseen: &dyn Fn() -> u64) -> Result<(), LsmError> {
        loop {
            let next = match self.pause() {
                None => tasks.recv().map_err(RecvTimeoutError::from),
                Some(pause) => tasks.recv_timeout(pause),
            };
            let mut next = match next {
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
                next => next.ok(),
            };
            while let Some(task) = next {
                self.take(task)?;
                next = tasks.try_recv().ok();
            }
            self.old.retain(|old| Arc::strong_count(old) > 1);
            self.merge(unseen())?;
        }
    }

    /// Returns how long to wait for the next task, if there is other work.
    fn pause(&mut self) -> Option<Duration> {
        if self.has_merged {
            return Some(Duration::ZERO);
        }
        self.waited = LOOK_SELDOM.min(LOOK_EVERY.max(self.waited * 2));
        (!self.old.is_empty() || !self.unmerged.is_empty()).then_some(self.waited)
    }

    fn take(&mut self, task: Task) -> Result<(), LsmError> {
        self.waited = Duration::ZERO;
        match task {
            Task::Free(old) => self.old.push(old),
            // Those that stay are dropped with the next.
            Task::DropTables(keys) => self.try_to(|| drop_tables(&self.records, &keys))?,
            Task::Merge(keyspace) => {
                let is_due = keyspace == self.records || is_behind(&keyspace);
                if is_due && !self.unmerged.contains(&keyspace) {
                    self.unmerged.push(keyspace);
                }
            }
        }
        Ok(())
    }

    /// Makes one merge in each keyspace, unless fjall's worker has its tables in one, or its settings ask for none.
    fn merge(&mut self, unseen: u64) -> Result<(), LsmError> {
        self.has_merged = false;
        for keyspace in &self.unmerged {
            let before = keyspace.tree.current_version().id();
            self.try_to(|| {
                if *keyspace == self.records {
                    keyspace.tree.compact(Arc::new(self.choice()), unseen)
                } else {
                    keyspace.tree.compact(keyspace.config.compaction_strategy.clone(), unseen)
                }
            })?;
            self.has_merged |= keyspace.tree.current_version().id() != before;
        }
        self.unmerged.retain(is_behind);
        Ok(())
    }

    /// Calls `work`, which opens files, if there are enough descriptors for it. It is called later otherwise. If it
    /// finds none all the same, it has changed nothing.
    fn try_to(&self, work: impl FnOnce() -> Result<(), LsmError>) -> Result<(), LsmError> {
        let done = if self.descriptors.are_left() { work() } else { Ok(()) };
        match done {
            Err(LsmError::Io(error)) if is_shortage(&error) => Ok(()),
            done => done,
        }
    }

    /// Returns how the next merge in the store's keyspace is chosen.
    fn choice(&self) -> Leveled {
        let tree = &self.records.tree;
        let table_bytes = self.table_bytes.max(tree.disk_space() / MAX_TABLES);
        if tree.l0_run_count() < FAR_BEHIND {
            return Leveled::default().with_table_target_size(table_bytes);
        }
        // The other levels may then be larger, by both numbers.
        let threshold = u8::try_from(BEHIND).unwrap_or(u8::MAX);
        Leveled::default().with_l0_threshold(threshold).with_table_target_size(table_bytes.saturating_mul(4))
    }
}

fn is_behind(keyspace: &Keyspace) -> bool {
    keyspace.tree.l0_run_count() >= BEHIND
}

/// Drops the tables in which all keys lie in this range. fjall waits until the merge under way is over, and then makes
/// a new list of tables, for which all calls wait: so it is asked only if there is such a table.
fn drop_tables(keyspace: &Keyspace, keys: &Range<Vec<u8>>) -> Result<(), LsmError> {
    let is_within = |key: &[u8]| *keys.start <= *key && *key < *keys.end;
    let version = keyspace.tree.current_version();
    let mut ranges = version.iter_tables().map(|table| &table.metadata.key_range);
    let is_any_within = ranges.any(|range| is_within(range.min()) && is_within(range.max()));
    if is_any_within { keyspace.tree.drop_range(keys.clone()) } else { Ok(()) }
}

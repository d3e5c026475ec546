//! A thread that looks after the tables of the keyspaces. It does three things that fjall does not do well enough:
//!
//! - It merges tables while fjall is behind. fjall's worker makes one merge for each memtable. In a large store that is
//!   less than what is needed: unmerged tables pile up, and at 30 of them every write waits for a merge, which only
//!   another write could bring about.
//! - It drops tables that have nothing but keys that the store has removed for good. fjall would often keep these for
//!   ever: it chooses the merges that write the least, and a table of removals lies over many tables of what was
//!   removed.
//! - It frees what is old. When fjall drops an old memtable, or an old version of a keyspace with the tables that it
//!   alone has, all calls wait: to free 64 MiB, and to remove such a file, takes up to a tenth of a second. So the
//!   thread keeps a handle of each, and drops it when fjall has none any more.

use std::any::Any;
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use fjall::{AbstractTree as _, Keyspace, LsmError};

/// The interval at which the thread looks whether fjall still has something old. It doubles each time, because fjall
/// keeps the last one of a keyspace until the next.
const LOOK_EVERY: Duration = Duration::from_millis(50);
const LOOK_SELDOM: Duration = Duration::from_secs(10);

/// The number of unmerged tables from which on the thread merges too. fjall slows down writes from 20 on. With fewer of
/// them, more merges would only cost time: all calls wait for the end of each.
const BEHIND: usize = 12;

/// What the thread drops once no other handle of it is left.
pub(super) type Old = Arc<dyn Any + Send + Sync>;

/// What the thread is asked for.
pub(super) enum Task {
    Free(Old),
    DropTables(Keyspace, Range<Vec<u8>>),
    Merge(Keyspace),
}

/// The thread's work.
#[derive(Default)]
pub(super) struct Upkeep {
    /// What fjall still has handles of.
    old: Vec<Old>,
    /// The keyspaces whose tables may have to be merged.
    unmerged: Vec<Keyspace>,
    /// How long it has waited for something to free.
    waited: Duration,
}

impl Upkeep {
    /// Works until the sender is gone, then ends after the merge under way. `unseen` returns up to which number no
    /// snapshot sees what was replaced.
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
        if !self.unmerged.is_empty() {
            return Some(Duration::ZERO);
        }
        self.waited = LOOK_SELDOM.min(LOOK_EVERY.max(self.waited * 2));
        (!self.old.is_empty()).then_some(self.waited)
    }

    fn take(&mut self, task: Task) -> Result<(), LsmError> {
        self.waited = Duration::ZERO;
        match task {
            Task::Free(old) => self.old.push(old),
            Task::DropTables(keyspace, keys) => drop_tables(&keyspace, &keys)?,
            Task::Merge(keyspace) if self.unmerged.contains(&keyspace) => {}
            Task::Merge(keyspace) => self.unmerged.push(keyspace),
        }
        Ok(())
    }

    /// Makes one merge in each keyspace that is behind.
    fn merge(&mut self, unseen: u64) -> Result<(), LsmError> {
        self.unmerged.retain(|keyspace| keyspace.tree.l0_run_count() >= BEHIND);
        for keyspace in &self.unmerged {
            let before = keyspace.tree.current_version().id();
            keyspace.tree.compact(keyspace.config.compaction_strategy.clone(), unseen)?;
            if keyspace.tree.current_version().id() == before {
                // fjall's worker has these tables in a merge of its own.
                thread::sleep(LOOK_EVERY);
            }
        }
        Ok(())
    }
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

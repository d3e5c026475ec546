//! The memtables of the keyspaces: when they are written to tables, and what `upkeep.rs` does about it.
//!
//! fjall must not decide by itself that a memtable is full: it would ask its worker at each write until that has come
//! to it; if the worker takes long, a thousand such requests fill its queue, and it waits for ever for a place in it.
//! So the store decides, after each batch, and while it is idle at each look at the disk. (fjall still writes out
//! keyspaces that hold up the removal of a journal.)
//!
//! A version of a keyspace is given to the thread of `upkeep.rs` two rotations later. Until then, the old tables of an
//! idle keyspace stay on disk.

use std::mem;
use std::path::Path;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use fjall::{AbstractTree as _, Database, Keyspace, PersistMode};
use parking_lot::Mutex;

use super::transaction::write_failed;
use super::upkeep::{BEHIND, Old, Task, Upkeep};
use super::volume::{Tables, Written};
use crate::store::OpenError;
use crate::store::embedded::files::directory;
use crate::store::embedded::files::shortage::Descriptors;

/// The name of the thread.
const THREAD: &str = "idempotency-mem";

/// The number of unmerged tables, beyond [`BEHIND`], for which a memtable may be twice as large.
const STEP: usize = 2;
/// The numbers of unmerged tables, and of full memtables, from which on fjall holds up every write.
const TOO_MANY_TABLES: usize = 30;
const TOO_MANY_MEMTABLES: usize = 4;
/// How often a memtable may become twice as large.
const MAX_DOUBLINGS: usize = 4;
/// How many times as large a memtable may become while no descriptor is left.
const MAX_UNWRITTEN: u64 = 64;

/// The keyspaces that were opened, the store's own included.
pub(super) struct Memtables {
    opened: Mutex<Vec<Opened>>,
    /// The bytes of new entries of a keyspace that are kept in memory before they are written to a table.
    most: u64,
    descriptors: Arc<Descriptors>,
    /// What was written to all of them.
    pub(super) written: Written,
    /// These are there until this is dropped.
    tasks: Option<Sender<Task>>,
    thread: Option<JoinHandle<()>>,
    /// Why the thread has ended, unless it has panicked.
    failed: Arc<OnceLock<String>>,
}

/// A keyspace, and its versions. fjall drops those of one rotation of the memtable in the next one at the latest.
struct Opened {
    keyspace: Keyspace,
    /// The number of the last version that was seen, and its tables.
    version: u64,
    tables: Tables,
    /// Those that were seen since the last rotation, and before it.
    versions: Vec<Old>,
    earlier: Vec<Old>,
}

impl Memtables {
    /// Starts the thread, and takes in the store's own keyspace.
    pub(super) fn new(
        db: &Database,
        records: Keyspace,
        most: u64,
        descriptors: Arc<Descriptors>,
    ) -> Result<Self, OpenError> {
        let (tasks, received) = channel();
        let failed = Arc::new(OnceLock::new());
        let (fails, snapshots) = (Arc::clone(&failed), db.supervisor.snapshot_tracker.clone());
        // What no snapshot can see any more is left out by a merge.
        let unseen = move || snapshots.get_seqno_safe_to_gc();
        let upkeep = Upkeep::new(records.clone(), most, Arc::clone(&descriptors));
        let run = move || {
            if let Err(error) = upkeep.run(&received, &unseen) {
                let _ = fails.set(error.to_string());
            }
        };
        let thread = thread::Builder::new().name(THREAD.to_owned()).spawn(run);
        let thread = thread.map_err(directory::io_error("starting a thread", Path::new(THREAD)))?;
        let (opened, written) = Default::default();
        let memtables = Self { opened, most, descriptors, written, tasks: Some(tasks), thread: Some(thread), failed };
        memtables.add(records);
        Ok(memtables)
    }

    /// Takes a keyspace in, if it is not here yet. An earlier process may have left it far behind.
    pub(super) fn add(&self, keyspace: Keyspace) {
        let mut opened = self.opened.lock();
        if !opened.iter().any(|opened| opened.keyspace == keyspace) {
            self.send(Task::Merge(keyspace.clone()));
            let (mut tables, versions, earlier) = (Tables::default(), Vec::new(), Vec::new());
            // Those that are there already are not counted.
            tables.look(&keyspace, &Written::default());
            opened.push(Opened { keyspace, version: u64::MAX, tables, versions, earlier });
        }
    }

    /// Has the memtables that are full written to tables. While these are behind, they may be twice as large for each
    /// memtable that waits, and for each [`STEP`] unmerged tables: so it takes longer until there are so many that
    /// fjall holds up every write. They may be far larger while no descriptor is left for the files of a table: fjall
    /// takes no more writes once its worker could not open one.
    pub(super) fn write_full(&self) -> Result<(), String> {
        self.check()?;
        for Opened { keyspace, version, tables, versions, earlier } in &mut *self.opened.lock() {
            let now = keyspace.tree.current_version();
            if mem::replace(version, now.id()) != now.id() {
                tables.look(keyspace, &self.written);
                versions.push(Arc::new(now));
            }
            let unmerged = keyspace.tree.l0_run_count().saturating_sub(BEHIND) / STEP;
            let doublings = MAX_DOUBLINGS.min(keyspace.tree.sealed_memtable_count() + unmerged);
            let memtable = keyspace.tree.active_memtable();
            let size = memtable.size();
            if size > self.most.saturating_mul(1 << doublings)
                && (self.descriptors.are_left() || size > self.most.saturating_mul(MAX_UNWRITTEN))
            {
                keyspace.rotate_memtable().map_err(|error| format!("writing a table failed: {error}"))?;
                self.send(Task::Free(memtable));
                self.send(Task::Merge(keyspace.clone()));
                mem::replace(earlier, mem::take(versions)).into_iter().for_each(|old| self.send(Task::Free(old)));
            }
        }
        Ok(())
    }

    /// Waits until a keyspace takes writes. fjall itself would wait for ever once the thread or fjall's worker has
    /// failed, as on a full disk. (If a table is made, and one of them fails, between this and the write, fjall still
    /// does; the store is then poisoned after a minute.)
    pub(super) fn wait_for(&self, db: &Database, keyspace: &Keyspace) -> Result<(), String> {
        let tree = &keyspace.tree;
        while tree.l0_run_count() >= TOO_MANY_TABLES || tree.sealed_memtable_count() >= TOO_MANY_MEMTABLES {
            self.check()?;
            // This fails if fjall's worker has.
            db.persist(PersistMode::Buffer).map_err(|error| write_failed(&error))?;
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Returns why the thread has ended, if it has.
    fn check(&self) -> Result<(), String> {
        if self.thread.as_ref().is_none_or(JoinHandle::is_finished) {
            let failed = self.failed.get().map_or("a thread panicked", String::as_str);
            return Err(format!("merging tables failed: {failed}"));
        }
        Ok(())
    }

    /// Hands something to the thread. If that has failed, this drops it.
    pub(super) fn send(&self, task: Task) {
        let _ = self.tasks.as_ref().map(|thread| thread.send(task));
    }
}

/// Files are removed before fjall's lock is given up, which the keyspaces hold: another opening gives out their names
/// again.
impl Drop for Memtables {
    fn drop(&mut self) {
        self.opened.get_mut().iter_mut().for_each(|opened| (opened.versions, opened.earlier) = Default::default());
        drop(self.tasks.take());
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use fjall::KeyspaceCreateOptions;
    use fjall::compaction::Leveled;
    use tempfile::{TempDir, tempdir};

    use super::super::journal::KEYSPACES;
    use super::*;

    /// Opens a database, and a keyspace in which fjall's worker merges nothing.
    fn open(directory: &TempDir) -> (Database, Keyspace) {
        let db = Database::builder(directory).worker_threads_unchecked(1).open().unwrap();
        let unmerged = Leveled::default().with_l0_threshold(u8::MAX);
        let settings = || KeyspaceCreateOptions::default().compaction_strategy(Arc::new(unmerged));
        let keyspace = db.keyspace("records", settings).unwrap();
        (db, keyspace)
    }

    fn descriptors(directory: &TempDir) -> Arc<Descriptors> {
        Arc::new(Descriptors(fs::File::open(directory).unwrap()))
    }

    fn remove_tables(directory: &TempDir, keyspace: &Keyspace) {
        let keyspace = directory.path().join(KEYSPACES).join(keyspace.id().to_string());
        fs::remove_dir_all(keyspace.join("tables")).unwrap();
    }

    // Seeded fault: the thread is not checked, and the test does not end.
    #[test]
    fn a_write_does_not_wait_for_merges_that_never_come() {
        let directory = tempdir().unwrap();
        let (db, records) = open(&directory);
        while records.tree.l0_run_count() < TOO_MANY_TABLES {
            records.insert("key", "value").unwrap();
            records.rotate_memtable_and_wait().unwrap();
        }
        remove_tables(&directory, &records);

        let memtables = Memtables::new(&db, records.clone(), 1, descriptors(&directory)).unwrap();
        let failed = memtables.wait_for(&db, &records).unwrap_err();
        assert!(failed.starts_with("merging tables failed: ") && failed.contains("NotFound"), "{failed}");
        assert_eq!(memtables.write_full().unwrap_err(), failed);
    }

    // Seeded faults: memtables are not counted; fjall's worker is not looked at, and the test does not end.
    #[test]
    fn a_write_does_not_wait_for_tables_that_are_never_written() {
        let directory = tempdir().unwrap();
        let (db, records) = open(&directory);
        let memtables = Memtables::new(&db, records.clone(), 1, descriptors(&directory)).unwrap();
        // fjall's worker learns of none but the last.
        for _ in 1..TOO_MANY_MEMTABLES {
            records.tree.insert("key", "value", 1);
            records.tree.rotate_memtable();
        }
        records.tree.insert("key", "value", 1);
        remove_tables(&directory, &records);
        records.rotate_memtable().unwrap();
        let failed = memtables.wait_for(&db, &records).unwrap_err();
        assert!(failed.contains("fjall's worker failed"), "{failed}");
    }
}

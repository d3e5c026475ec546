//! Counts the bytes that fjall writes, which it does not count itself.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};

use fjall::{AbstractTree as _, Keyspace};

use crate::store::embedded::Volume;

/// What was written since the database was opened.
#[derive(Debug, Default)]
pub(super) struct Written {
    /// To the journal, and from memtables to tables.
    new: AtomicU64,
    /// From tables to others.
    merged: AtomicU64,
}

impl Written {
    /// Counts what was handed to the journal.
    pub(super) fn add(&self, bytes: usize) {
        self.new.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn volume(&self) -> Volume {
        Volume { written: self.new.load(Ordering::Relaxed), merged: self.merged.load(Ordering::Relaxed) }
    }
}

/// The tables of a keyspace that were seen last.
#[derive(Default)]
pub(super) struct Tables {
    numbers: HashSet<u64>,
    /// The highest sequence number of an entry in them. A memtable has entries with higher ones alone.
    newest: Option<u64>,
}

impl Tables {
    /// Counts the tables that are new. One that was merged into another since the last look is missed, and that other
    /// counts as written from a memtable.
    pub(super) fn look(&mut self, keyspace: &Keyspace, written: &Written) {
        let version = keyspace.tree.current_version();
        let newest = version.iter_tables().map(|table| table.get_highest_seqno()).max();
        for table in version.iter_tables().filter(|table| !self.numbers.contains(&table.id())) {
            let is_new = Some(table.get_highest_seqno()) > self.newest;
            let counter = if is_new { &written.new } else { &written.merged };
            counter.fetch_add(table.metadata.file_size, Ordering::Relaxed);
        }
        *self = Self { numbers: version.iter_tables().map(|table| table.id()).collect(), newest };
    }
}

#[cfg(test)]
mod tests {
    use fjall::{Database, KeyspaceCreateOptions};

    use super::*;

    #[test]
    fn a_written_memtable_and_a_merge_of_tables_are_counted_once_each_and_apart() {
        let directory = tempfile::tempdir().unwrap();
        let db = Database::builder(&directory).worker_threads_unchecked(1).open().unwrap();
        let keyspace = db.keyspace("records", KeyspaceCreateOptions::default).unwrap();
        keyspace.insert("before", "value").unwrap();
        keyspace.rotate_memtable_and_wait().unwrap();
        let (mut tables, written) = (Tables::default(), Written::default());
        tables.look(&keyspace, &Written::default());
        tables.look(&keyspace, &written);
        assert_eq!(written.volume(), Volume::default());

        keyspace.insert("key", "value").unwrap();
        keyspace.rotate_memtable_and_wait().unwrap();
        tables.look(&keyspace, &written);
        let first = written.volume();
        assert!(first.written > 0 && first.merged == 0, "{first:?}");

        keyspace.tree.major_compact(u64::MAX, 0).unwrap();
        for _ in 0..2 {
            tables.look(&keyspace, &written);
            let version = keyspace.tree.current_version();
            let merged = version.iter_tables().map(|table| table.metadata.file_size).sum();
            assert_eq!(written.volume(), Volume { merged, ..first });
        }
    }
}

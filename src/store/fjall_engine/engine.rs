//! fjall as the engine of a store: what opening finds, what a batch writes and syncs, and what a look reads.

use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use fjall::compaction::Leveled;
use fjall::{AbstractTree as _, Database, Error, Keyspace, KeyspaceCreateOptions, LsmError, PersistMode, Slice};
use parking_lot::Mutex;

use super::durable::Disk;
use super::files::{VERSION, require_files, require_keyspaces, sync_keyspaces};
use super::journal::{self, KEYSPACES};
use super::memtables::Memtables;
use super::transaction::{Transaction, add, write_failed};
use super::upkeep::Task;
use crate::store::embedded::files::directory;
use crate::store::embedded::files::shortage::Descriptors;
use crate::store::embedded::{
    FileDamage, ReadError, RecordWritesFn, StorageEngine, TOTALS, Totals, Transacted, Volume, Writes,
};
use crate::store::error::is_shortage;
use crate::store::{CommitError, OpenError, StoreError};

/// The name of the store's keyspace.
pub(super) const RECORDS: &str = "tower-idempotency";
/// The most keyspaces of the application's. When fjall opens a database, it has a place in a queue for each of 1,000,
/// and waits for ever for one more.
pub(super) const MAX_KEYSPACES: usize = 256;
/// The most bytes of journals beyond which fjall writes out the keyspaces that hold up their removal: the least that it
/// accepts. An idle keyspace of the application's would otherwise keep half a gigabyte of journals.
const MAX_JOURNALS: u64 = 64 * 1024 * 1024;

/// The most files of tables that fjall keeps open. With its default, few of those that many systems allow a process are
/// left for its connections: on Linux 900 of 1,024, on macOS 150 of 256.
const MAX_OPEN_TABLES: usize = 128;

/// fjall's handles.
#[derive(Clone)]
pub struct FjallEngine {
    /// The store's own keyspace, which has all keys of `layout/keys.rs`.
    pub(super) records: Keyspace,
    /// The database around that keyspace.
    pub(super) db: Database,
    /// By this the journal is made durable.
    disk: Arc<Mutex<Disk>>,
    pub(super) memtables: Arc<Memtables>,
}

/// The settings of fjall.
#[derive(Debug, Clone)]
pub(crate) struct FjallOptions {
    /// The bytes of memory in which fjall keeps blocks of its tables.
    pub(super) cache_bytes: u64,
    /// The bytes of new records that are kept in memory before they are written to a table, and the most bytes of a
    /// table, unless the store is large.
    pub(super) memtable_bytes: u64,
}

impl Default for FjallOptions {
    fn default() -> Self {
        const MIB: u64 = 1024 * 1024;
        // A memtable is written and synced at once, and a sync of the journal then waits for the disk: with fjall's own
        // 64 MiB, for up to 70 ms. At the end of a compaction fjall syncs the last table that it has written while all
        // other calls wait: with 64 MiB, a quarter of a second. With 8 MiB, stalls and new keys in a large store take
        // longer.
        Self { cache_bytes: 64 * MIB, memtable_bytes: 4 * MIB }
    }
}

/// Shows only its name: fjall's handles would show paths and settings.
impl fmt::Debug for FjallEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FjallEngine")
    }
}

impl StorageEngine for FjallEngine {
    const NAME: &'static str = "fjall";
    // Tables, and those that a merge reads and writes.
    const FILES: u64 = 4 * MAX_OPEN_TABLES as u64;

    type Options = FjallOptions;
    type Value = Slice;
    type Transaction = Transaction;
    type Maintenance = ();

    fn examine(path: &Path, was_used: bool) -> Result<Option<FileDamage>, OpenError> {
        if !Self::is_closed(path) {
            return Err(OpenError::InUse { path: path.into() });
        }
        if was_used {
            require_files(path)?;
        }
        let examined = journal::examine(path).map_err(directory::io_error("reading the journals in", path));
        let (damage, keyspaces) = examined?;
        if was_used {
            require_keyspaces(path, &keyspaces)?;
        }
        Ok(damage)
    }

    fn open(options: &FjallOptions, path: &Path, damage: Option<&FileDamage>) -> Result<Self, OpenError> {
        if damage.is_some() {
            journal::cut_off(path).map_err(directory::io_error("cutting off a damaged journal in", path))?;
        }
        sync_keyspaces(path)?;
        // From several journals, fjall's worker writes tables at once, and removes journals: an opening that is refused
        // would take away what shows the damage. So the steps are checked without a worker.
        let are_several = journal::numbers(path).map_err(directory::io_error("reading", path))?.len() > 1;
        if are_several {
            let (_db, records) = open_database(options, path, 0)?;
            check_steps(path, &records)?;
        }
        // One worker, because releases of fjall before this one have lost inserts with several (fjall-rs/fjall#230).
        let (db, records) = open_database(options, path, 1)?;
        if !are_several {
            check_steps(path, &records)?;
        }
        let disk = Disk::open(path).map_err(directory::io_error("opening the journal in", path))?;
        // Any file: it is opened again to learn whether there are descriptors left.
        let any = File::open(path.join(VERSION)).map_err(directory::io_error("reading", path))?;
        let descriptors = Arc::new(Descriptors(any));
        let memtables = Memtables::new(&db, records.clone(), options.memtable_bytes, descriptors)?;
        Ok(Self { records, db, disk: Arc::new(Mutex::new(disk)), memtables: Arc::new(memtables) })
    }

    fn get(&self, key: &[u8]) -> Result<Option<Slice>, ReadError> {
        Ok(self.records.get(key)?)
    }

    fn range(&self, from: Vec<u8>) -> impl Iterator<Item = Result<(Slice, Slice), ReadError>> {
        self.records.range(from..).map(|entry| Ok(entry.into_inner()?))
    }

    /// Every step is atomic: fjall recovers all of a batch or nothing.
    fn write(&self, step: Writes) -> Result<(), String> {
        self.memtables.wait_for(&self.db, &self.records)?;
        self.memtables.written.add(step.bytes);
        let mut batch = self.db.batch();
        add(&mut batch, &self.records, step);
        batch.commit().map_err(|error| write_failed(&error))
    }

    fn sync(&self) -> Result<(), String> {
        self.db.persist(PersistMode::Buffer).map_err(|error| write_failed(&error))?;
        self.disk.lock().sync().map_err(|error| format!("syncing failed: {error}"))
    }

    fn after_sync(&self, cleared: &[Range<Vec<u8>>]) -> Result<(), String> {
        cleared.iter().for_each(|keys| self.memtables.send(Task::DropTables(keys.clone())));
        self.memtables.write_full()
    }

    fn transact(&self, effect: &mut Transaction, writes_of: RecordWritesFn<'_>) -> Transacted<(Bytes, usize)> {
        let failed = |reason| CommitError::Store(StoreError::uncertain(reason));
        let (outcome, bytes, changes) = effect.call(&self.records)?;
        let writes = writes_of(&outcome)?;
        let all = bytes + writes.bytes;
        let mut batch = self.db.batch();
        add(&mut batch, &self.records, writes);
        self.memtables.wait_for(&self.db, &self.records).map_err(failed)?;
        for (keyspace, changes) in effect.keyspaces.iter().zip(changes) {
            if !changes.borrow().is_empty() {
                self.memtables.wait_for(&self.db, keyspace).map_err(failed)?;
            }
            for (key, value) in changes.into_inner() {
                match value {
                    Some(value) => batch.insert(keyspace, key, value),
                    None => batch.remove(keyspace, key),
                }
            }
        }
        batch.commit().map_err(|error| failed(write_failed(&error)))?;
        self.memtables.written.add(all);
        Ok((outcome, bytes))
    }

    fn volume(&self) -> Option<Volume> {
        Some(self.memtables.written.volume())
    }

    /// fjall locks a file of its own while a handle of the database or of a keyspace is there.
    fn is_closed(path: &Path) -> bool {
        directory::is_unlocked(&path.join("lock"))
    }
}

impl From<Error> for ReadError {
    fn from(error: Error) -> Self {
        match error {
            Error::Storage(LsmError::Io(io)) | Error::Io(io) if is_shortage(&io) => Self::Exhausted(io),
            // The file ends too early, or a checksum, tag or header is not what was written.
            Error::Storage(LsmError::Io(io)) if io.kind() != io::ErrorKind::UnexpectedEof => Self::Failed(io.into()),
            Error::Io(io) => Self::Failed(io.into()),
            Error::Storage(_) => Self::Corrupt(error.to_string()),
            error => Self::Failed(error.into()),
        }
    }
}

/// Opens the database with this many workers, and the store's keyspace.
fn open_database(options: &FjallOptions, path: &Path, workers: usize) -> Result<(Database, Keyspace), OpenError> {
    let builder = Database::builder(path).cache_size(options.cache_bytes).worker_threads_unchecked(workers);
    let builder = builder.manual_journal_persist(true).max_journaling_size(MAX_JOURNALS);
    let builder = builder.max_cached_files(Some(MAX_OPEN_TABLES));
    let db = builder.open().map_err(|error| open_failed(path, error))?;
    // Its worker never finds a level too large: `upkeep.rs` merges.
    let unmerged = Leveled::default().with_l0_threshold(u8::MAX).with_table_target_size(1 << 48);
    let settings = || KeyspaceCreateOptions::default().compaction_strategy(Arc::new(unmerged));
    let records = open_keyspace(&db, path, RECORDS, settings)?;
    sync_names(path)?;
    Ok((db, records))
}

/// Makes the names of the keyspaces durable: fjall syncs what is in their directories alone.
pub(super) fn sync_names(path: &Path) -> Result<(), OpenError> {
    directory::sync_one(&path.join(KEYSPACES))
}

/// Opens a keyspace. The store decides when its memtable is full. Its name is durable after [`sync_names`].
pub(super) fn open_keyspace(
    db: &Database,
    path: &Path,
    name: &str,
    options: impl FnOnce() -> KeyspaceCreateOptions,
) -> Result<Keyspace, OpenError> {
    let keyspace = db.keyspace(name, || options().max_memtable_size(u64::MAX));
    keyspace.map_err(|error| open_failed(path, error))
}

/// Refuses a database that lacks a step of the store's: the tables end with one, and each batch of the journals that
/// fjall takes has the next one. A step is missing if the oldest journal is, or if the number of a batch is damaged, so
/// that fjall takes it for one that is in a table. No worker may write tables meanwhile.
fn check_steps(path: &Path, records: &Keyspace) -> Result<(), OpenError> {
    let last = records.tree.get_highest_persisted_seqno();
    // Reads see the numbers below the one that is given.
    let totals = last.map_or(Ok(None), |last| records.tree.get(TOTALS, last + 1));
    let totals = totals.map_err(|error| open_failed(path, Error::Storage(error)))?;
    let step = totals.and_then(|totals| Totals::decode(&totals)).map_or(0, |totals| totals.step);
    match journal::gap(path, records.id(), last, step).map_err(directory::io_error("reading the journals in", path))? {
        None => Ok(()),
        Some((last, next)) => {
            let reason =
                format!("batch {next} follows batch {last} in its tables and journals, and those between are missing");
            Err(directory::broken(path, &reason))
        }
    }
}

/// Returns what an error of fjall's says of the database in `path`.
fn open_failed(path: &Path, error: Error) -> OpenError {
    let refused = |error: io::Error| match error.kind() {
        // These are about which files there are, and what is in them.
        io::ErrorKind::NotFound | io::ErrorKind::AlreadyExists | io::ErrorKind::UnexpectedEof => {
            directory::broken(path, &error.to_string())
        }
        _ if error.raw_os_error().is_none() => directory::broken(path, &error.to_string()),
        _ => directory::io_error("opening the database in", path)(error),
    };
    match error {
        Error::Locked => OpenError::InUse { path: path.into() },
        Error::InvalidVersion(Some(_)) => {
            OpenError::Incompatible { path: path.into(), reason: "another version of fjall has made it".to_owned() }
        }
        Error::Io(error) | Error::Storage(LsmError::Io(error)) => refused(error),
        error => directory::broken(path, &error.to_string()),
    }
}

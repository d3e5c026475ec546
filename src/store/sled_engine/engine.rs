//! sled as the engine of a store: what a batch writes and syncs, and what a retry reads that no cache has.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::{RwLock, RwLockReadGuard};
use sled::IVec;
use tokio::sync::Semaphore;

use super::durable::{Disk, wake};
use super::epochs::{EpochGuards, pinned};
use super::segments;
use super::transaction::{self, Transaction, as_batch};
use crate::store::OpenError;
use crate::store::embedded::files::directory;
use crate::store::embedded::{FileDamage, ReadError, RecordWritesFn, StorageEngine, Transacted, Writes};

/// The size of a segment, sled's unit of space, and how often sled makes durable what its space collection has moved.
/// (sled would accept 16 MiB too, but it keeps offsets within a segment in 24 bits, in which the last byte of so long a
/// segment does not fit.)
///
/// Before sled uses a segment again, it fills two others with what was moved out of that segment and what came later.
/// It makes none of that durable first. Two facts protect it: sled's flusher collects for half of its interval at most,
/// and it has synced what it moved when the next interval ends. So at most what it moves in 25 ms is unsynced, and to
/// fill two segments of 8 MiB it would have to move 670 MB a second, page by page. The writer's thread itself syncs
/// what it writes, at most 192 KiB at a time. With the default 512 KiB and 500 ms a power cut could leave the old place
/// overwritten and the new one empty. A longer interval would save syncs of an idle store, of which there are 40 a
/// second, and leave more unsynced.
const SEGMENT_BYTES: usize = 8 * 1024 * 1024;
const FLUSH_EVERY_MS: u64 = 25;

/// The name of the store's tree.
const TREE: &str = "tower-idempotency";

/// sled's handles, and a descriptor of the store's own for sled's file.
#[derive(Clone)]
pub struct SledEngine {
    /// The store's own tree, which has all keys of `layout/keys.rs`.
    pub(super) tree: sled::Tree,
    /// The database around that tree. The application may hold handles of it, too.
    pub(super) db: sled::Db,
    /// Makes durable what was written.
    disk: Arc<Disk>,
    /// The permit to wake the threads that wait within sled for a failed write.
    wakes: Arc<Semaphore>,
    /// `true` once the application has a handle: from then on it may read at any time. A step holds it while it is
    /// written key by key.
    is_lent: Arc<RwLock<bool>>,
}

/// The settings of sled.
#[derive(Debug, Clone)]
pub(crate) struct SledOptions {
    /// The bytes of memory in which sled keeps pages.
    pub(super) cache_bytes: u64,
}

impl Default for SledOptions {
    fn default() -> Self {
        Self { cache_bytes: 64 * 1024 * 1024 }
    }
}

/// Shows only its name: a tree of sled's would show all its keys and values.
impl fmt::Debug for SledEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SledEngine")
    }
}

impl SledEngine {
    /// Returns the database, for the application's trees.
    pub(super) fn lend(&self) -> sled::Db {
        if !*self.is_lent.read() {
            *self.is_lent.write() = true;
        }
        self.db.clone()
    }

    /// Holds the application off while a step is written key by key. `None`: it is to be written as one batch.
    ///
    /// sled may make new pages while it reads, if one has grown too long, and two threads should not do so at once. The
    /// store's own readers are counted, and the application's are not.
    fn alone(&self, step: &Writes) -> Option<RwLockReadGuard<'_, bool>> {
        Some(self.is_lent.read()).filter(|is_lent| !step.is_atomic && !**is_lent)
    }
}

impl StorageEngine for SledEngine {
    const NAME: &'static str = "sled";
    const FILES: u64 = 64;

    type Options = SledOptions;
    type Value = IVec;
    type Transaction = Transaction;
    type Maintenance = EpochGuards;

    /// This reads sled's file, and may change a header in it.
    fn examine(path: &Path, was_used: bool) -> Result<Option<FileDamage>, OpenError> {
        // sled would make a new one. An opening makes it before it says that the directory was used.
        if was_used {
            directory::require_files(path, &["db"])?;
        }
        remove_torn_snapshots(path)?;
        segments::mark_the_end(path, SEGMENT_BYTES, was_used)
    }

    fn open(options: &SledOptions, path: &Path, _: Option<&FileDamage>) -> Result<Self, OpenError> {
        let config = sled::Config::new().path(path).cache_capacity(options.cache_bytes);
        let config = config.segment_size(SEGMENT_BYTES).flush_every_ms(Some(FLUSH_EVERY_MS));
        let db = config.open().map_err(|error| open_failed(path, error))?;
        let tree = db.open_tree(TREE).map_err(|error| open_failed(path, error))?;
        let disk = Disk::open(path).map_err(directory::io_error("opening", &path.join("db")))?;
        Ok(Self { tree, db, disk: Arc::new(disk), wakes: Arc::new(Semaphore::new(1)), is_lent: Arc::default() })
    }

    fn get(&self, key: &[u8]) -> Result<Option<IVec>, ReadError> {
        Ok(self.tree.get(key)?)
    }

    fn range(&self, from: Vec<u8>) -> impl Iterator<Item = Result<(IVec, IVec), ReadError>> {
        self.tree.range(from..).map(|entry| Ok(entry?))
    }

    fn write(&self, step: Writes) -> Result<(), String> {
        let written = match self.alone(&step) {
            None => self.tree.apply_batch(as_batch(step)),
            Some(_alone) => step.in_order().into_iter().try_for_each(|(key, value)| match value {
                Some(value) => self.tree.insert(key, &*value).map(drop),
                None => self.tree.remove(key).map(drop),
            }),
        };
        written.map_err(|error| format!("writing failed: {error}"))
    }

    fn sync(&self) -> Result<(), String> {
        self.disk.sync(&self.db)
    }

    fn transact(&self, effect: &mut Transaction, writes_of: RecordWritesFn<'_>) -> Transacted<(Bytes, usize)> {
        transaction::run(&self.tree, effect, writes_of)
    }

    fn wake_stuck_threads(&self) {
        let db = self.db.clone();
        wake(&self.wakes, move || drop(pinned(move || db.flush())));
    }

    fn maintain(guards: &mut EpochGuards) {
        guards.renew();
    }

    /// The last handle writes once more when it is dropped, and panics if that fails.
    fn close(self) {
        pinned(|| drop(self));
    }

    /// sled's threads may hold its file a little longer, and the application holds a lent handle for as long as it
    /// likes.
    fn is_closed(path: &Path) -> bool {
        directory::is_unlocked(&path.join("db"))
    }
}

impl From<sled::Error> for ReadError {
    fn from(error: sled::Error) -> Self {
        match error {
            sled::Error::Corruption { .. } => Self::Corrupt(error.to_string()),
            // Every other error counts as a failure of the disk or of sled, and poisons the store.
            error => Self::Failed(error.into()),
        }
    }
}

/// Returns what an error of sled's says of the database in `path`.
fn open_failed(path: &Path, error: sled::Error) -> OpenError {
    match error {
        // A handle that an earlier opening lent is still held.
        sled::Error::Io(error) if error.to_string().contains("lock") => OpenError::InUse { path: path.into() },
        // A flipped bit in the version that sled wrote down looks the same.
        sled::Error::Unsupported(reason) => {
            let reason =
                format!("{reason}. If this release made it, its file conf is damaged: restore it from a backup");
            OpenError::Incompatible { path: path.into(), reason }
        }
        sled::Error::Io(error) if !is_of_the_content(&error) => {
            directory::io_error("opening the database in", path)(error)
        }
        error => directory::broken(path, &error.to_string()),
    }
}

/// Returns whether an error is about the content of a file. sled reports that in errors of these kinds, which the
/// operating system never uses.
fn is_of_the_content(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidData, Other, UnexpectedEof};
    error.raw_os_error().is_none() && matches!(error.kind(), InvalidData | Other | UnexpectedEof)
}

/// Removes torn snapshots. A snapshot that was being written when the process died can have the highest number, and
/// then every opening fails with "Read corrupted data"; without it, all records are there.
fn remove_torn_snapshots(path: &Path) -> Result<(), OpenError> {
    for entry in fs::read_dir(path).map_err(directory::io_error("reading", path))? {
        let entry = entry.map_err(directory::io_error("reading", path))?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            fs::remove_file(entry.path()).map_err(directory::io_error("removing", &entry.path()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trap_131_once_the_application_has_a_handle_each_step_is_one_batch() {
        let directory = tempfile::tempdir().unwrap();
        let engine = SledEngine::open(&SledOptions::default(), directory.path(), None).unwrap();
        let (same, step) = (engine.clone(), Writes::default());
        let writing = engine.alone(&step).unwrap();
        // The first handle has to wait for the step.
        assert!(same.is_lent.try_write().is_none());
        drop(writing);
        drop(same.lend());
        assert!(engine.alone(&step).is_none() && same.alone(&step).is_none());
    }
}

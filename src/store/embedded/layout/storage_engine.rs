//! The contract of an embedded engine: it holds an ordered map of bytes that is written in steps. It is here and not
//! with the engines, because the layout of the keys and the order of writes are part of it. An opening examines and
//! reads through it, and each batch is written through it.

use std::fmt::Debug;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;

use super::totals::Checkpoint;
use super::writes::Writes;
use crate::store::OpenError;
use crate::store::embedded::transact::Transacted;

/// The most bytes that are written at once, where each key counts 64 bytes more. It bounds how long a transaction holds
/// up the others.
///
/// If the process ends within a batch, sled undoes the whole batch, and with it what its space collection has moved
/// meanwhile. If the batch was so long that the old places of what was moved are overwritten already, the database can
/// no longer be opened. So nothing that long is written at once, by a transaction or by the store itself.
pub(in crate::store) const MAX_STEP: usize = 128 * 1024;

/// An open engine. A value is a handle, and clones share the engine.
///
/// Products have two engines, `store/sled_engine` and `store/fjall_engine`. Tests have another one, a map in memory in
/// which they inject faults (`tests/map_engine.rs`).
///
/// # Contract
/// - One thread, the writer, calls `write`, `sync`, `after_sync` and `transact`. It and a few other threads call `get`
///   and `range`, meanwhile too. Each call may block.
/// - Reads see what was written before, synced or not. A `range` may see later writes or not, also a part of them.
/// - What was written before a `sync` that returned `Ok` survives SIGKILL and a power cut, names of files included.
///   What was not synced may survive, as far as `write` says.
/// - A failed `write` or `sync` poisons the store, and is not tried again. It is unknown what of it was done. A panic
///   poisons the store too.
/// - Damage is never passed over in silence: `examine` reports it, or `open` fails, or a read returns
///   [`ReadError::Corrupt`]. A loss from the end of the log is found by the checkpoint (`files/checkpoint.rs`), if the
///   totals are lost with it. An engine that copies its log into other files, and so may keep newer totals than
///   records, reports such damage as certain; if what is left is of no single moment, it fails with `Database`, which
///   can't be accepted.
/// - `examine` changes nothing but what makes the opening safe. A loss is refused before `open` if `examine` returns
///   [`FileDamage::last`] or certain damage. Otherwise the checkpoint is compared after it: until then `open`, and the
///   release of the engine after a refusal, must leave what shows the damage.
///
/// [`OpenError`] has the errors of an opening: `InUse`, from `examine` and from `open`, if a handle of an earlier
/// opening is still held; `Io` for what the operating system refuses; `Incompatible` for another version's files; and
/// `Database` for files that can't be read. In a directory in which nothing can have been recorded, files that lead to
/// `Database` are set aside, and the opening begins anew: so it never means EIO or ENOSPC. `files/directory.rs` has
/// `io_error`, `broken`, `require_files`, `sync` and `sync_one`. For an engine without a lock of its own, whose files
/// are in a directory below, it has `acquire`, which makes that directory with a lock file of the same name as the
/// store's. Call `sync` on it before the engine has files open, keep the lock until the last handle is gone, and give
/// its file to `is_unlocked`. Errors name the store's directory.
///
/// The engine's type is `pub`, in a private module: the store's alias names it.
pub(crate) trait StorageEngine: Clone + Debug + Send + Sync + 'static {
    /// The engine's name, in errors and in the lock file.
    const NAME: &'static str;

    /// The files that a process should be allowed to open that has the store: those of the engine, and as many more.
    const FILES: u64;

    /// The most bytes that are written in one step, or one transaction. Between two syncs there are at most half as
    /// many more. An engine that can take only less says so: the texts of errors then have to be changed.
    const MAX_STEP: usize = MAX_STEP;

    /// The time for which the last handle is waited for when an opening fails, or a store is dropped without `close`.
    const RELEASE_TIMEOUT: Duration = Duration::from_secs(5);

    /// The settings of the engine.
    type Options: Clone + Debug + Default + Send + Sync + 'static;
    /// A key or a value, in the form in which it is read.
    type Value: AsRef<[u8]>;
    /// A transaction that an application writes together with a record. The application's own values in it are wrapped
    /// in [`AppValue`](crate::store::embedded::transact::AppValue). An engine that offers applications no transactions
    /// takes `AppValue<Bytes>`: an outcome, with which it writes the record alone.
    type Transaction: Send + 'static;
    /// The state that a thread keeps to maintain the engine; see [`maintain`](Self::maintain).
    type Maintenance: Default;

    /// Examines the engine's files in `path`, which this process has locked. `was_used` says that something may have
    /// been recorded there, so the engine must not take it for an empty one: without a file that it would make anew, it
    /// returns `Database`, and changes nothing. An engine that has nothing to look at returns `Ok(None)`, if its `open`
    /// is safe for both.
    fn examine(path: &Path, was_used: bool) -> Result<Option<FileDamage>, OpenError>;

    /// Opens the engine in `path`, which this process has locked and examined, and makes it if there is none. `damage`
    /// is what was found: it is the trace of a crash, or its loss is accepted. The directory has files of the store's
    /// own, whose names begin with `tower-idempotency.`. Each file directly in it is opened, synced and closed
    /// afterwards, while the engine is open: an engine with POSIX locks, which a process loses when it closes the file,
    /// keeps its files in a directory below, and syncs the names there itself.
    fn open(options: &Self::Options, path: &Path, damage: Option<&FileDamage>) -> Result<Self, OpenError>;

    /// Returns the value of a key. `None` says that it was never written, or was removed: a record that is missed runs
    /// again. An engine whose search may be misled by a damaged key has to find that out. A new key is not asked for as
    /// a rule, because the store remembers which records there are.
    fn get(&self, key: &[u8]) -> Result<Option<Self::Value>, ReadError>;

    /// Returns the entries from a key on, in the order of their keys. It may go on after `Corrupt`. If it can't, it
    /// returns `Failed` or `Exhausted`: what follows is otherwise taken for absent.
    fn range(&self, from: Vec<u8>) -> impl Iterator<Item = Result<(Self::Value, Self::Value), ReadError>>;

    /// Writes a step. If it is atomic, all of it is recovered or nothing; if not, any prefix of it [in
    /// order](Writes::in_order). No thread reads through the store while a step that is not atomic is written, because
    /// a read may make an engine write too. An engine whose reads may see the beginning of an atomic step applies it in
    /// order, so that they find what a record refers to.
    fn write(&self, step: Writes) -> Result<(), String>;

    /// Makes durable everything that was written before this call, the application's own writes included. An engine
    /// whose `write` is durable returns `Ok`; each step of a batch costs a sync then.
    fn sync(&self) -> Result<(), String>;

    /// Does what can wait until the answers of a batch are sent. The writer calls it after each batch, which is
    /// durable then, and eight times a second while it has nothing to write. All keys in the ranges of `cleared` are
    /// removed, durably, and none of them is written again. They are read again only if the note of them is lost; the
    /// lists are then made anew. So an engine that frees removed keys late, or never, frees these at once. If it
    /// brings some of them back, that does no harm. A failure poisons the store, and takes nothing back. By default
    /// this does nothing.
    fn after_sync(&self, cleared: &[Range<Vec<u8>>]) -> Result<(), String> {
        let _ = cleared;
        Ok(())
    }

    /// Returns what the engine has written since it was opened, if it counts that. The writer asks after each batch,
    /// and eight times a second while it has nothing to write.
    fn volume(&self) -> Option<Volume> {
        None
    }

    /// Runs `effect`, and writes its writes together with those that `writes_of` returns for its outcome. Returns the
    /// outcome, and how many bytes the effect wrote, without those of `writes_of`. `writes_of` may be called again;
    /// what it returned before was then undone. The part of an effect that all engines share is
    /// [`AppEffect`](crate::store::embedded::AppEffect). An engine without transactions writes what `writes_of` returns
    /// for the outcome, and returns that outcome with 0 bytes, as the engine of the tests does.
    ///
    /// A table of another database, the store's own, and one that is given twice are refused with `CommitError::Trees`.
    /// If the engine fails to write, it returns `CommitError::Store(StoreError::uncertain(…))`; if it fails to read,
    /// `CommitError::Refused(TransactionError::Database(…))`. Both poison the store. Every other error says that
    /// nothing was written.
    fn transact(&self, effect: &mut Self::Transaction, writes_of: RecordWritesFn<'_>) -> Transacted<(Bytes, usize)>;

    /// Helps a write that has been under way for a second. It is called again and again until the write is over. Does
    /// nothing if no thread waits within the engine for a write that has failed, as by default.
    fn wake_stuck_threads(&self) {}

    /// Maintains the engine. It is called eight times a second, from before an engine is opened until its last handle
    /// is gone, lent ones included. It is called by one thread after the other, each with a value of its own, which
    /// begins before the last one ends. By default it does nothing.
    fn maintain(_maintenance: &mut Self::Maintenance) {}

    /// Releases this handle, by default as a drop does. The last one may block and panic.
    fn close(self) {
        drop(self);
    }

    /// Returns whether all handles are gone, lent ones included, so that `path` can be opened again. It may lock the
    /// engine's files for a moment.
    fn is_closed(path: &Path) -> bool;
}

/// The bytes that an engine has written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Volume {
    /// Those of new entries, in each place that they are written to.
    pub(crate) written: u64,
    /// Those that were there already, and were written anew to make room or order.
    pub(crate) merged: u64,
}

/// What is wrong with an engine's files, found before they are opened.
#[derive(Debug)]
pub(crate) struct FileDamage {
    /// A clause for an error. It says from which byte of which file on nothing can be read: `FILE can't be read from
    /// byte N on`.
    pub(crate) what: String,
    /// If `false`, it may be the trace of a crash, so only an error about lost records names it; the checkpoint
    /// decides. If `true`, no crash leaves this, and the engine would open without some records. Damage in a log is not
    /// certain while the totals that follow it are lost with it: then the checkpoint says how much is missing.
    pub(crate) is_certain: bool,
    /// The last step before the damage, if the engine can tell: `Totals::decode` of the value of the key `TOTALS` has
    /// it. The engine drops what follows when it is opened.
    pub(crate) last: Option<Checkpoint>,
}

/// The reason why a read failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// The engine failed. This poisons the store.
    #[error("{0}")]
    Failed(Box<dyn std::error::Error + Send + Sync>),
    /// The process has no descriptor or memory left for this read. Nothing was done, and a later read may succeed.
    #[error("{0}")]
    #[cfg_attr(not(feature = "fjall"), allow(dead_code, reason = "sled has its files open from the start"))]
    Exhausted(io::Error),
    /// The bytes that were read are not those that were written, or they are missing though they were written. This
    /// refuses one record, and is counted. Records and chunks have checksums of the store's own. Keys and all other
    /// values have none: an engine that can't tell whether they are damaged has to add one.
    #[error("{0}")]
    Corrupt(String),
}

/// A function that returns what the store writes together with an outcome.
pub(crate) type RecordWritesFn<'a> = &'a mut dyn FnMut(&Bytes) -> Transacted<Writes>;

/// An entry that is read, or the error of the read.
type Entry<E> = Result<(<E as StorageEngine>::Value, <E as StorageEngine>::Value), ReadError>;

/// Returns all entries whose keys begin with `prefix`.
pub(crate) fn scan<'a, E: StorageEngine>(engine: &'a E, prefix: &[u8]) -> impl Iterator<Item = Entry<E>> + use<'a, E> {
    scan_within(engine, prefix.to_vec(), prefix.to_vec())
}

/// Returns the entries from a key on that are of its kind.
pub(crate) fn scan_from<E: StorageEngine>(engine: &E, from: Vec<u8>) -> impl Iterator<Item = Entry<E>> {
    let kind = from.get(..1).unwrap_or_default().to_vec();
    scan_within(engine, from, kind)
}

fn scan_within<E: StorageEngine>(engine: &E, from: Vec<u8>, prefix: Vec<u8>) -> impl Iterator<Item = Entry<E>> {
    let entries = engine.range(from);
    entries.take_while(move |entry| entry.as_ref().map_or(true, |(key, _)| key.as_ref().starts_with(&prefix)))
}

/// Returns all keys that begin with `prefix`.
pub(crate) fn scan_keys<'a, E: StorageEngine>(
    engine: &'a E,
    prefix: &[u8],
) -> impl Iterator<Item = Result<E::Value, ReadError>> + use<'a, E> {
    scan(engine, prefix).map(|entry| entry.map(|(key, _)| key))
}

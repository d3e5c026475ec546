//! The store that keeps records in sled.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};

use super::builder::SledStoreBuilder;
use super::engine::SledEngine;
use super::transaction::Transaction;
use crate::key::RecordId;
use crate::record::{Applied, Record, Transition};
use crate::slots::Slots;
use crate::store::contract::{Health, InterruptedRun, Page, Records, Sealed, Store};
use crate::store::embedded::{Embedded, Transact};
use crate::store::{OpenError, StoreError};

/// Keeps records in a [sled](https://docs.rs/sled/0.34) database in a directory of its own: they survive crashes of
/// the process and power cuts.
///
/// A handle; clones share the open store. One process at a time, and one opening in it, may use a directory.
///
/// # Durability
/// What is answered is on disk: written, flushed, and made durable with `fdatasync`, together with what else came in
/// meanwhile, and, while few have come and other runs are under way, within some 0.2 ms more (group commit). If a
/// write, sync or read fails, or a write does not return within a minute, the store is [poisoned](Health::Poisoned): it
/// answers only what memory can, and the process must be restarted.
///
/// # Memory
/// Its two caches, and some 20 bytes for each record, by which a new key is known to be new without a read; and sled's
/// own tables: 150 bytes for each of a million records, all in all.
#[derive(Debug, Clone)]
pub struct SledStore(pub(super) Embedded<SledEngine>);

impl SledStore {
    /// Opens the store in `directory`, which is made if it is not there, with mode 0700.
    ///
    /// Blocks while what lists the records is read: 0.2 s for a million; if that is damaged, all records are read, and
    /// listed anew.
    ///
    /// # Errors
    /// [`OpenError`]: in use, not a store's directory, or refused by the operating system.
    pub fn open(directory: impl AsRef<Path>) -> Result<Self, OpenError> {
        Self::builder().open(directory)
    }

    /// Opens the store in `directory` as [`open`](Self::open) does, and waits for at most `patience` where it is in
    /// use: see [`SledStoreBuilder::open_within`].
    ///
    /// # Errors
    /// As [`open`](Self::open); [`OpenError::InUse`] only after `patience`.
    pub fn open_within(directory: impl AsRef<Path>, patience: Duration) -> Result<Self, OpenError> {
        Self::builder().open_within(directory, patience)
    }

    /// Sets what differs from the defaults.
    pub fn builder() -> SledStoreBuilder {
        SledStoreBuilder::default()
    }

    /// Records it holds: those that have expired and are not swept yet included, and without the runs whose claims
    /// leave no trace (`Rerun`).
    #[must_use]
    pub fn len(&self) -> u64 {
        self.0.len()
    }

    /// Whether it holds no record.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Lends the database, for trees of the application. Open them at the start, and write to them with
    /// [`transaction`](Self::transaction), which is bounded, and durable when it returns.
    ///
    /// What is written past that, with sled's own `transaction` or `apply_batch`, is durable after
    /// [`sync`](Self::sync). Keep values below 4 KiB and keys below 256 bytes: sled writes large pages to files that
    /// nothing syncs; keep each below 128 KiB in all: a power cut in a longer one can leave a database that can't be
    /// opened; and **don't `insert`**: two threads, the store's being one, that make new pages at once can be cut
    /// short, by SIGKILL or a power cut, so that sled panics at every later opening. sled has one lock for all
    /// transactions of the process, and every read waits for it: **a long transaction holds up every request with a
    /// key**, past all timeouts. Make durable what you write with [`sync`](Self::sync), not with sled's `flush` or
    /// `flush_async`, and keep the trees that you open as long as the store is open: sled 0.34 reads a log buffer there
    /// that may be freed meanwhile; what the store itself calls is protected.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] once the store is closed.
    pub fn db(&self) -> Result<sled::Db, StoreError> {
        self.0.engine().map(|engine| engine.lend())
    }

    /// Returns when all that was written to the database before this call is durable.
    ///
    /// # Errors
    /// [`StoreError::Uncertain`] when the sync failed, which poisons the store; [`StoreError::Unavailable`] for a store
    /// that is closed or poisoned.
    ///
    /// # Cancel safety
    /// The sync takes place whether or not its answer is waited for.
    pub fn sync(&self) -> impl Future<Output = Result<(), StoreError>> + Send + use<> {
        self.0.sync()
    }

    /// Finishes what was asked for and closes the store, for all its handles. Returns when the directory can be opened
    /// again, or after ten seconds.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: the application still holds a handle that [`db`](Self::db) lent, or the disk
    /// doesn't return. [`StoreError::Uncertain`]: closed, but the store was poisoned, before or just now. What was
    /// answered is durable all the same.
    ///
    /// # Cancel safety
    /// If dropped, the store may be closed or on its way to it; call it again.
    pub async fn close(&self) -> Result<(), StoreError> {
        self.0.close().await
    }

    /// Sends a transaction to the writer, now. It is answered in any case.
    pub(crate) fn transact(&self, transact: Transact<Transaction>) {
        self.0.transact(transact);
    }
}

impl SledStoreBuilder {
    /// Opens the store in `directory`.
    ///
    /// # Errors
    /// As [`SledStore::open`].
    pub fn open(self, directory: impl AsRef<Path>) -> Result<SledStore, OpenError> {
        self.0.open(directory.as_ref()).map(SledStore)
    }

    /// Opens the store in `directory`, and waits for at most `patience` where another process, or another opening in
    /// this one, has it open: so that a new process may start while the last one is still closing. Blocks its thread.
    ///
    /// # Errors
    /// As [`SledStore::open`]; [`OpenError::InUse`] only after `patience`.
    pub fn open_within(self, directory: impl AsRef<Path>, patience: Duration) -> Result<SledStore, OpenError> {
        self.0.open_within(directory.as_ref(), patience).map(SledStore)
    }
}

impl Sealed for SledStore {}

impl Records for SledStore {
    fn slots(&self) -> &Arc<Slots> {
        self.0.slots()
    }

    fn is_exclusive(&self) -> bool {
        true
    }

    fn load(&self, id: RecordId) -> impl Future<Output = Result<Option<Record>, StoreError>> + Send {
        self.0.load(id)
    }

    fn apply(&self, id: RecordId, transition: Transition) -> impl Future<Output = Result<Applied, StoreError>> + Send {
        self.0.apply(id, transition)
    }

    fn interrupted(&self, page: Page) -> impl Future<Output = Result<Vec<InterruptedRun>, StoreError>> + Send {
        self.0.interrupted(page)
    }

    fn sweep(&self, limit: usize) -> impl Future<Output = Result<usize, StoreError>> + Send {
        self.0.sweep(limit)
    }

    fn changed(&self) -> BoxStream<'static, RecordId> {
        stream::pending().boxed()
    }
}

impl Store for SledStore {
    fn health(&self) -> Health {
        self.0.health()
    }

    fn close(&self) -> impl Future<Output = Result<(), StoreError>> + Send {
        self.0.close()
    }
}

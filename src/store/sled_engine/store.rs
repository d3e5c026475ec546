//! The store that keeps records in sled.

use std::future::{Future, pending, ready};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use super::builder::SledStoreBuilder;
use super::engine::SledEngine;
use super::transaction::Transaction;
use crate::clock::Timestamp;
use crate::key::RecordId;
use crate::record::{Applied, Record, Transition};
use crate::slots::Slots;
use crate::store::contract::{After, Gauges, Health, InterruptedRun, Records, Sealed, Store};
use crate::store::embedded::{Embedded, Transact};
use crate::store::listed::{ListedRecord, Scanned};
use crate::store::{OpenError, StoreError};

/// Keeps records in a [sled](https://docs.rs/sled/0.34) database in a directory of its own. They survive crashes of the
/// process and power cuts.
///
/// A value is a handle, and clones share the open store. One process at a time, and one opening in it, may use a
/// directory.
///
/// # Durability
/// The store answers when its data is on disk: written, flushed, and made durable with `fdatasync`. One sync serves all
/// that came in meanwhile (group commit). While few commands have come and other runs are under way, it waits for
/// theirs for up to some 0.2 ms more. If a write, sync or read fails, or a write does not return within a minute, the
/// store is [poisoned](Health::Poisoned): it answers only what memory can, and the process must be restarted.
///
/// # Memory
/// The store takes memory for its two caches, some 20 bytes for each record, by which it recognises a new key without a
/// read, and sled's own tables. With a million records that is 150 bytes for each, all in all.
#[derive(Debug, Clone)]
pub struct SledStore(pub(super) Embedded<SledEngine>);

impl SledStore {
    /// Opens the store in `directory`, which is made with mode 0700 if it does not exist.
    ///
    /// Blocks while the lists of the records are read, which takes 0.2 s for a million. If the lists are damaged, all
    /// records are read, and listed anew.
    ///
    /// # Errors
    /// [`OpenError`]: the directory is in use or not a store's, or the operating system refused.
    pub fn open(directory: impl AsRef<Path>) -> Result<Self, OpenError> {
        Self::builder().open(directory)
    }

    /// Opens the store in `directory` as [`open`](Self::open) does, and waits for at most `patience` while it is in
    /// use; see [`SledStoreBuilder::open_within`].
    ///
    /// # Errors
    /// As [`open`](Self::open); [`OpenError::InUse`] only after `patience`.
    pub fn open_within(directory: impl AsRef<Path>, patience: Duration) -> Result<Self, OpenError> {
        Self::builder().open_within(directory, patience)
    }

    /// Returns a builder, to set what differs from the defaults.
    pub fn builder() -> SledStoreBuilder {
        SledStoreBuilder::default()
    }

    /// Returns the number of records. Expired records that are not swept yet count; runs whose claims leave no trace
    /// (`Rerun`) do not.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.0.len()
    }

    /// Returns whether the store holds no record.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Lends the database, for trees of the application. Open them at the start, and write to them with
    /// [`transaction`](Self::transaction), which is bounded, and durable when it returns.
    ///
    /// If you write with sled's own `transaction` or `apply_batch` instead, the data is durable after
    /// [`sync`](Self::sync), and these rules apply:
    /// - Keep values below 4 KiB and keys below 256 bytes: sled writes large pages to files that nothing syncs.
    /// - Keep each transaction or batch below 128 KiB in all: a power cut in a longer one can leave a database that
    ///   cannot be opened.
    /// - **Don't `insert`**: if SIGKILL or a power cut interrupts your thread and the store's while both make new
    ///   pages, sled may panic at every later opening.
    /// - **A long transaction holds up every request with a key**, past all timeouts: sled has one lock for all
    ///   transactions of the process, and every read waits for it.
    /// - Make your data durable with [`sync`](Self::sync), not with sled's `flush` or `flush_async`, and keep the trees
    ///   that you open for as long as the store is open: in a flush, and when a handle is dropped, sled 0.34 reads a
    ///   log buffer that may be freed meanwhile. The store's own calls are protected.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] once the store is closed.
    pub fn db(&self) -> Result<sled::Db, StoreError> {
        self.0.engine().map(|engine| engine.lend())
    }

    /// Returns when everything that was written to the database before this call is durable.
    ///
    /// # Errors
    /// [`StoreError::Uncertain`] if the sync failed, which poisons the store; [`StoreError::Unavailable`] if the store
    /// is closed or poisoned.
    ///
    /// # Cancel safety
    /// The sync takes place even if its answer is not awaited.
    pub fn sync(&self) -> impl Future<Output = Result<(), StoreError>> + Send + use<> {
        self.0.sync()
    }

    /// Finishes the work that was sent and closes the store, for all its handles. Returns when the directory can be
    /// opened again, or after ten seconds.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the application still holds a handle that [`db`](Self::db) lent, or the disk does
    /// not return. [`StoreError::Uncertain`] if the store is closed, but was poisoned, before or just now. What was
    /// answered is durable even then.
    ///
    /// # Cancel safety
    /// If the future is dropped, the store may be closed or still closing; call it again.
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

    /// Opens the store in `directory`, and waits for at most `patience` while another process, or another opening in
    /// this one, has it open. So a new process may start while the last one is still closing. Blocks its thread.
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

    fn recall(&self, _: RecordId) -> Option<Record> {
        None
    }

    fn load(&self, id: RecordId) -> impl Future<Output = Result<Option<Record>, StoreError>> + Send {
        self.0.load(id)
    }

    fn apply(&self, id: RecordId, transition: Transition) -> impl Future<Output = Result<Applied, StoreError>> + Send {
        self.0.apply(id, transition)
    }

    fn interrupted(
        &self,
        after: Option<After>,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<InterruptedRun>, StoreError>> + Send {
        self.0.interrupted(after, limit)
    }

    fn now(&self) -> Timestamp {
        self.0.now()
    }

    fn scan(&self, after: Option<RecordId>, limit: usize) -> impl Future<Output = Result<Scanned, StoreError>> + Send {
        self.0.scan(after, limit)
    }

    async fn inspect(&self, id: RecordId) -> Result<Option<ListedRecord>, StoreError> {
        ListedRecord::of_load(id, self.load(id).await)
    }

    fn running(&self) -> impl Future<Output = Result<Vec<ListedRecord>, StoreError>> + Send {
        ready(self.0.running())
    }

    fn sweep(&self, limit: usize) -> impl Future<Output = Result<usize, StoreError>> + Send {
        self.0.sweep(limit)
    }

    fn changed(&self, _: RecordId) -> BoxFuture<'static, ()> {
        pending().boxed()
    }
}

impl Store for SledStore {
    fn name(&self) -> &'static str {
        "sled"
    }

    fn health(&self) -> Health {
        self.0.health()
    }

    fn gauges(&self) -> Gauges {
        self.0.gauges()
    }

    fn close(&self) -> impl Future<Output = Result<(), StoreError>> + Send {
        self.0.close()
    }
}

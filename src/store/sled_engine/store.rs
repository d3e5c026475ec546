//! The store that keeps records in sled.

use super::engine::SledEngine;
use crate::store::StoreError;
use crate::store::embedded::{EmbeddedStore, EmbeddedStoreBuilder};

/// Keeps records in a [sled](https://docs.rs/sled/0.34) database in a directory of its own. They survive crashes of the
/// process and power cuts.
///
/// # Memory
/// The store takes memory for its two caches, some 30 bytes for each record, by which it recognises a new key and
/// sweeps without a read, and sled's own tables. With a million records that is some 580 bytes for each beyond the
/// caches, all in all. Opening a million takes 0.3 s.
pub type SledStore = EmbeddedStore<SledEngine>;

/// Sets up a [`SledStore`].
pub type SledStoreBuilder = EmbeddedStoreBuilder<SledEngine>;

impl SledStoreBuilder {
    /// Sets the bytes of memory in which sled keeps pages of the database. Default: 64 MiB.
    pub fn cache_bytes(mut self, bytes: u64) -> Self {
        self.engine_options.cache_bytes = bytes;
        self
    }
}

impl SledStore {
    /// Lends the database, for trees of the application. Open them at the start, and write to them with
    /// [`transaction`](Self::transaction), which is bounded, and durable when it returns.
    ///
    /// If you write with sled's own `transaction` or `apply_batch` instead, the data is durable after
    /// [`sync`](Self::sync), and these rules apply:
    /// - Keep to the [limits](mod@crate::guide::exactly_once) of `transaction`: sled writes large pages to files that
    ///   nothing syncs, and a power cut in a long transaction or batch can leave a database that cannot be opened.
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
        self.engine().map(|engine| engine.lend())
    }
}

//! The store that keeps records in fjall.

use fjall::{Keyspace, KeyspaceCreateOptions};

use super::engine::{FjallEngine, MAX_KEYSPACES, RECORDS, open_keyspace, sync_names};
use crate::store::embedded::{EmbeddedStore, EmbeddedStoreBuilder};
use crate::store::{OpenError, StoreError};

/// Keeps records in a [fjall](https://docs.rs/fjall/3) database in a directory of its own. They survive crashes of the
/// process and power cuts.
///
/// # Memory
/// The store takes memory for its two caches, for new records that are not in a table yet (4 MiB, and more while tables
/// wait to be merged), and some 100 bytes for each record: 30 by which it recognises a new key and sweeps without a
/// read, and the indexes and filters of fjall's tables.
///
/// # Open files
/// Leave it 200 of the files that the process may open, and bound the connections of your server. If fjall's worker
/// finds no free file for a table, the store is poisoned: nothing is lost, but it refuses until the process is started
/// again, also if files are free a second later.
pub type FjallStore = EmbeddedStore<FjallEngine>;

/// Sets up a [`FjallStore`].
pub type FjallStoreBuilder = EmbeddedStoreBuilder<FjallEngine>;

impl FjallStoreBuilder {
    /// Sets the bytes of memory in which fjall keeps blocks of its tables. Default: 64 MiB.
    pub fn cache_bytes(mut self, bytes: u64) -> Self {
        self.engine_options.cache_bytes = bytes;
        self
    }

    /// Sets how many bytes of new records fjall keeps in memory before it writes them to a table. For tests, which
    /// would otherwise have to write much before fjall writes tables.
    #[doc(hidden)]
    pub fn memtable_bytes(mut self, bytes: u64) -> Self {
        self.engine_options.memtable_bytes = bytes;
        self
    }
}

impl FjallStore {
    /// Returns the store's own keyspace. For tests, which damage what is in it.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] once the store is closed.
    #[doc(hidden)]
    pub fn records(&self) -> Result<Keyspace, StoreError> {
        self.engine().map(|engine| engine.records)
    }

    /// Opens a keyspace of the application's in the same database, and makes it with `options` if there is none of this
    /// name. Blocks its thread for the disk. Open keyspaces at the start, and write to them with
    /// [`transaction`](Self::transaction), which is durable when it returns.
    ///
    /// What you write with the keyspace's own functions is durable after [`sync`](Self::sync). The store decides when a
    /// memtable is written to a table, so `max_memtable_size` of `options` has no effect. Don't call its `clear`: fjall
    /// then keeps journals that it could remove.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the name is empty, longer than 255 bytes, or the store's own; if it is new and
    /// there are 256 keyspaces already; if the store is closed; or if fjall or the disk refuses. If the disk fails to
    /// sync the keyspace's name, the store is poisoned.
    pub fn keyspace(
        &self,
        name: &str,
        options: impl FnOnce() -> KeyspaceCreateOptions,
    ) -> Result<Keyspace, StoreError> {
        if name == RECORDS || !(1..=255).contains(&name.len()) {
            let reason = format!("a keyspace's name has 1 to 255 bytes, and is not `{RECORDS}`");
            return Err(StoreError::unavailable(reason));
        }
        let engine = self.engine()?;
        // One of them is the store's own.
        if engine.db.keyspace_count() > MAX_KEYSPACES && !engine.db.keyspace_exists(name) {
            let reason = format!("there are {MAX_KEYSPACES} keyspaces already; share one, with a prefix for each use");
            return Err(StoreError::unavailable(reason));
        }
        let unavailable = |error: OpenError| StoreError::unavailable_by("the keyspace can't be opened", error);
        let keyspace = open_keyspace(&engine.db, self.path(), name, options).map_err(unavailable)?;
        engine.memtables.add(keyspace.clone());
        sync_names(self.path()).map_err(|error| {
            // Another sync may succeed without the name, and what is written to the keyspace would be lost with it.
            self.poison(format!("syncing the name of a keyspace failed: {error}"));
            unavailable(error)
        })?;
        Ok(keyspace)
    }
}

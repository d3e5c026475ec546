//! The engines of embedded stores, by their names, and the stores over them.
//!
//! A laboratory of embedded stores runs on every engine. The variable `ENGINE` names one, for a long form. What the
//! stores have in common is in `testkit::lab::disk`; here the engine is chosen while the program runs.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use testkit::lab::disk::{Disk as _, DiskBuilder, View};
use testkit::payment_server::Setup;
use tower_idempotency::clock::Clock;
use tower_idempotency::engine::Completable;
use tower_idempotency::store::{Abort, CommitError, OpenError, StoreError, TransactionError};
use tower_idempotency::{AnyStore, FjallStore, SledStore, fjall, sled};

/// The variable that names the engine.
pub const ENGINE: &str = "ENGINE";
/// The bytes of each cache of a store that is to keep little in memory.
const LITTLE: u64 = 1 << 20;
/// The bytes of new records that fjall then keeps in memory, in a store of a laboratory's own and in a server: it
/// writes them to a file each time that they are more.
const MEMTABLE: u64 = 8 << 10;
const MEMTABLE_OF_SERVER: u64 = 64 << 10;
/// The bytes that make fjall begin another journal, and more than it then has in memory at once.
const JOURNAL: usize = 72 << 20;
const CHUNK: usize = 1 << 20;

/// An engine of embedded stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Engine {
    Sled,
    Fjall,
}

/// The settings of a store.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// The clock; `None`: the machine's.
    pub clock: Option<Arc<dyn Clock>>,
    /// `true` if the store is to keep little in memory, so that it often reads and writes.
    pub is_small: bool,
    /// The bytes of the disk that are to be left free.
    pub min_free: Option<u64>,
}

/// A store over one of the engines. Clones share it.
#[derive(Debug, Clone)]
pub enum Embedded {
    Sled(SledStore),
    Fjall(FjallStore),
}

/// A table of the application's own in the database of a store: a tree of sled's, or a keyspace of fjall's.
#[derive(Clone)]
pub enum Table {
    Sled(SledStore, sled::Tree),
    Fjall(FjallStore, fjall::Keyspace),
}

/// The rows of a table, in a transaction.
pub trait Rows {
    /// Returns the value of `key`.
    ///
    /// # Errors
    /// Those of the table.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, TransactionError>;

    /// Sets the value of `key`.
    ///
    /// # Errors
    /// Those of the table.
    fn insert(&self, key: &[u8], value: &[u8]) -> Result<(), TransactionError>;
}

impl<V: View> Rows for V {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, TransactionError> {
        View::get(self, key)
    }

    fn insert(&self, key: &[u8], value: &[u8]) -> Result<(), TransactionError> {
        View::insert(self, key, value)
    }
}

impl Engine {
    pub const ALL: [Self; 2] = [Self::Sled, Self::Fjall];

    /// Returns the engine that `ENGINE` names, or all of them.
    pub fn chosen() -> Vec<Self> {
        let name = std::env::var(ENGINE).ok();
        let chosen: Vec<_> =
            Self::ALL.into_iter().filter(|engine| name.as_ref().is_none_or(|name| name == engine.name())).collect();
        assert!(!chosen.is_empty(), "{ENGINE} is {name:?}; there are {:?}", Self::ALL);
        chosen
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Sled => SledStore::NAME,
            Self::Fjall => FjallStore::NAME,
        }
    }

    /// Returns the same server with its records in a store over this engine, in its directory.
    pub fn serves(self, setup: Setup) -> Setup {
        match self {
            Self::Sled => setup.with("--store sled"),
            Self::Fjall => setup.with("--store fjall --memtable-bytes").with(&MEMTABLE_OF_SERVER.to_string()),
        }
    }

    /// Opens the store in `directory`.
    ///
    /// # Errors
    /// Those of the store.
    pub fn open(self, directory: impl AsRef<Path>, settings: Settings) -> Result<Embedded, OpenError> {
        match self {
            Self::Sled => {
                let mut builder = settings.apply(SledStore::builder());
                if settings.is_small {
                    builder = builder.cache_bytes(LITTLE);
                }
                builder.open(directory).map(Embedded::Sled)
            }
            Self::Fjall => {
                let mut builder = settings.apply(FjallStore::builder());
                if settings.is_small {
                    builder = builder.cache_bytes(LITTLE).memtable_bytes(MEMTABLE);
                }
                builder.open(directory).map(Embedded::Fjall)
            }
        }
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Settings {
    /// Applies the settings that each engine has.
    fn apply<B: DiskBuilder>(&self, mut builder: B) -> B {
        if self.is_small {
            builder = builder.outcome_cache_bytes(LITTLE);
        }
        if let Some(clock) = &self.clock {
            builder = builder.clock(Arc::clone(clock));
        }
        if let Some(bytes) = self.min_free {
            builder = builder.min_free_space(bytes);
        }
        builder
    }
}

impl Embedded {
    /// The same store, for layers and consumers.
    pub fn any(&self) -> AnyStore {
        match self {
            Self::Sled(store) => AnyStore::new(store.clone()),
            Self::Fjall(store) => AnyStore::new(store.clone()),
        }
    }

    /// Returns the number of records.
    pub fn records(&self) -> u64 {
        match self {
            Self::Sled(store) => store.len(),
            Self::Fjall(store) => store.len(),
        }
    }

    /// Makes the application's own writes durable.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn sync(&self) -> Result<(), StoreError> {
        match self {
            Self::Sled(store) => store.sync().await,
            Self::Fjall(store) => store.sync().await,
        }
    }

    /// Closes the store, for all its handles.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn close(&self) -> Result<(), StoreError> {
        match self {
            Self::Sled(store) => store.close().await,
            Self::Fjall(store) => store.close().await,
        }
    }

    /// Opens a table.
    ///
    /// # Errors
    /// Those of the store and of its engine, in words.
    pub fn table(&self, name: &str) -> Result<Table, String> {
        match self {
            Self::Sled(store) => {
                let tree = store.db().map_err(text)?.open_tree(name).map_err(text)?;
                Ok(Table::Sled(store.clone(), tree))
            }
            Self::Fjall(store) => {
                let keyspace = store.keyspace(name, fjall::KeyspaceCreateOptions::default).map_err(text)?;
                Ok(Table::Fjall(store.clone(), keyspace))
            }
        }
    }

    /// Writes so much that fjall begins another journal, and something that keeps it from removing the full one.
    ///
    /// # Errors
    /// Those of the store and of fjall, in words.
    pub fn fill_journal(&self) -> Result<(), String> {
        let Self::Fjall(store) = self else { return Ok(()) };
        let kept = store.keyspace("kept", fjall::KeyspaceCreateOptions::default).map_err(text)?;
        kept.insert("row", "this stays in memory").map_err(text)?;
        let filler = store.keyspace("filler", fjall::KeyspaceCreateOptions::default).map_err(text)?;
        for number in 0..JOURNAL / CHUNK {
            filler.insert("row", vec![1; CHUNK]).map_err(text)?;
            if number % 8 == 7 {
                filler.rotate_memtable_and_wait().map_err(text)?;
            }
        }
        Ok(())
    }
}

impl Table {
    /// Returns the value of `key`.
    ///
    /// # Errors
    /// Those of the engine, in words.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, String> {
        match self {
            Self::Sled(_, tree) => Ok(tree.get(key).map_err(text)?.map(|value| value.to_vec())),
            Self::Fjall(_, keyspace) => Ok(keyspace.get(key).map_err(text)?.map(|value| value.to_vec())),
        }
    }

    /// Sets the value of `key`, in a write of its own. It is not durable yet.
    ///
    /// # Errors
    /// Those of the engine, in words.
    pub fn insert(&self, key: &[u8], value: &[u8]) -> Result<(), String> {
        match self {
            Self::Sled(_, tree) => {
                // The write is alone, as `SledStore::db` requires.
                let mut batch = sled::Batch::default();
                batch.insert(key, value);
                tree.apply_batch(batch).map_err(text)
            }
            Self::Fjall(_, keyspace) => keyspace.insert(key, value).map_err(text),
        }
    }

    /// Returns all values.
    ///
    /// # Errors
    /// Those of the engine, in words.
    pub fn values(&self) -> Result<Vec<Vec<u8>>, String> {
        match self {
            Self::Sled(_, tree) => tree.iter().values().map(|value| Ok(value.map_err(text)?.to_vec())).collect(),
            Self::Fjall(_, keyspace) => keyspace.iter().map(|row| Ok(row.value().map_err(text)?.to_vec())).collect(),
        }
    }

    /// Writes the effect of a run and the record of its outcome in one transaction.
    pub fn complete<R: Completable, E: Send + 'static>(
        &self,
        run: &R,
        mut effect: impl FnMut(&dyn Rows) -> Result<R::Outcome, Abort<E>> + Send + 'static,
    ) -> BoxFuture<'static, Result<R::Committed, CommitError<E>>> {
        match self {
            Self::Sled(store, tree) => store.complete_in(run, [tree], move |[rows]| effect(&rows)).boxed(),
            Self::Fjall(store, keyspace) => store.complete_in(run, [keyspace], move |[rows]| effect(&rows)).boxed(),
        }
    }
}

fn text(error: impl fmt::Display) -> String {
    error.to_string()
}

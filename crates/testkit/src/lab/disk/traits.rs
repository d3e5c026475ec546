//! What the embedded stores have in common, as traits.

use std::fs;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tempfile::TempDir;
use tower_idempotency::clock::Clock;
use tower_idempotency::engine::Completable;
use tower_idempotency::store::{Abort, CommitError, OpenError, Store, StoreError, TransactionError};

/// The name of the store's own table.
pub(super) const RECORDS: &str = "tower-idempotency";

/// A transaction that was sent, and its answer.
pub type Sent<T, E> = BoxFuture<'static, Result<T, CommitError<E>>>;

/// A store over an embedded engine.
pub trait Disk: Store + Clone {
    /// The engine's name.
    const NAME: &'static str;
    /// The file in which all records of a small store are, and the one with the engine's settings or its version.
    const LOG: &'static str;
    const SETTINGS: &'static str;
    /// Whether the engine makes the first of its files longer than what is in it, until it opens the database again.
    const IS_LONG_AT_FIRST: bool;
    /// What a power cut in a first opening may leave of that: its length without its bytes. The engine must refuse it.
    const TORN: &'static [u8];
    /// A file or directory that the engine can't do without.
    const OBSTACLE: &'static str;
    /// The most bytes of a key, and of a value, in a transaction.
    const MAX_KEY: usize;
    const MAX_VALUE: usize;

    type Builder: DiskBuilder<Disk = Self> + Sync;
    /// An application's tree or keyspace, or the store's own.
    type Table: Table;
    /// Such a table within a transaction.
    type View<'a>: View;

    fn builder() -> Self::Builder {
        Self::Builder::default()
    }

    fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        Self::builder().open(path)
    }

    fn open_within(path: impl AsRef<Path>, timeout: Duration) -> Result<Self, OpenError> {
        Self::builder().open_within(path, timeout)
    }

    fn len(&self) -> u64;

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn sync(&self) -> BoxFuture<'static, Result<(), StoreError>>;

    /// Opens a table of the application's.
    fn try_table(&self, name: &str) -> Result<Self::Table, StoreError>;

    fn table(&self, name: &str) -> Self::Table {
        self.try_table(name).expect("the store is open")
    }

    /// The store's own table, past the store.
    fn records(&self) -> Self::Table;

    /// Opens the database in `path` without the store, and lets `act` write to the store's table. What it writes is
    /// durable.
    fn past_the_store(path: &Path, act: impl FnOnce(&Self::Table));

    /// A table of a database that is no store's, in a directory of its own.
    fn elsewhere() -> (TempDir, Self::Table);

    /// How many tables there are in the database of this store, which is in `path`.
    fn tables(&self, path: &Path) -> usize;

    /// Leaves what a power cut in a first opening may leave.
    fn tear_first_opening(path: &Path) {
        fs::create_dir_all(path).expect("a directory");
        fs::write(path.join(Self::SETTINGS), Self::TORN).expect("a file");
    }

    /// A transaction of the application's own.
    fn transaction<const N: usize, T, E, F>(&self, tables: [&Self::Table; N], closure: F) -> Sent<T, E>
    where
        F: FnMut([Self::View<'_>; N]) -> Result<T, Abort<E>> + Send + 'static,
        T: Send + 'static,
        E: Send + 'static;

    /// A run's effect and its outcome in one transaction.
    fn complete_in<R: Completable, const N: usize, E, F>(
        &self,
        run: &R,
        tables: [&Self::Table; N],
        closure: F,
    ) -> Sent<R::Committed, E>
    where
        F: FnMut([Self::View<'_>; N]) -> Result<R::Outcome, Abort<E>> + Send + 'static,
        E: Send + 'static;
}

/// The settings of such a store.
pub trait DiskBuilder: Clone + Default + Send + 'static {
    type Disk: Disk<Builder = Self>;

    fn accept_loss_after(self, batch: u64) -> Self;
    fn clock(self, clock: impl Clock) -> Self;
    fn create(self, create: bool) -> Self;
    fn max_bytes(self, bytes: u64) -> Self;
    fn max_records(self, records: u64) -> Self;
    fn min_free_space(self, bytes: u64) -> Self;
    fn outcome_cache_bytes(self, bytes: u64) -> Self;
    fn open(self, path: impl AsRef<Path>) -> Result<Self::Disk, OpenError>;
    fn open_within(self, path: impl AsRef<Path>, timeout: Duration) -> Result<Self::Disk, OpenError>;
}

/// A tree or a keyspace. What is written to it is durable after [`Disk::sync`].
pub trait Table: Clone + Send + Sync + 'static {
    fn get(&self, key: impl AsRef<[u8]>) -> Option<Bytes>;
    fn insert(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>);
    fn remove(&self, key: impl AsRef<[u8]>);
    /// Inserts entries until the disk refuses one.
    fn fill(&self);
    /// Holds up all reads until the result is dropped. Does nothing only if a transaction that is under way holds them
    /// up by itself: a test of stalled reads may pass on an engine whose reads go on.
    fn hold_up_reads(&self) -> impl Sized;
    /// The entries whose keys begin with `prefix`, in their order.
    fn scan(&self, prefix: impl AsRef<[u8]>) -> Vec<(Bytes, Bytes)>;

    /// How many keys begin with `prefix`.
    fn count(&self, prefix: impl AsRef<[u8]>) -> usize {
        self.scan(prefix).len()
    }

    fn is_empty(&self) -> bool {
        self.count("") == 0
    }
}

/// A tree or a keyspace within a transaction.
pub trait View {
    fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Bytes>, TransactionError>;
    fn insert(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<(), TransactionError>;
    fn remove(&self, key: impl AsRef<[u8]>) -> Result<(), TransactionError>;
}

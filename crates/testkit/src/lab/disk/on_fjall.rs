//! The store on fjall.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tempfile::TempDir;
use tower_idempotency::clock::Clock;
use tower_idempotency::engine::Completable;
use tower_idempotency::fjall::AbstractTree as _;
use tower_idempotency::store::{
    Abort, FjallStoreBuilder, OpenError, StoreError, TransactionError, TransactionKeyspace,
};
use tower_idempotency::{FjallStore, fjall};

use super::forward::{builds, forwards};
use super::traits::{Disk, DiskBuilder, RECORDS, Sent, Table, View};

builds!(FjallStore, FjallStoreBuilder);

impl Disk for FjallStore {
    const NAME: &'static str = "fjall";
    const LOG: &'static str = "0.jnl";
    const SETTINGS: &'static str = "version";
    const IS_LONG_AT_FIRST: bool = true;
    const TORN: &'static [u8] = &[];
    const OBSTACLE: &'static str = "lock";
    const MAX_KEY: usize = 65_535;
    const MAX_VALUE: usize = 128 * 1024;

    type Builder = FjallStoreBuilder;
    type Table = fjall::Keyspace;

    forwards!(TransactionKeyspace);

    fn try_table(&self, name: &str) -> Result<fjall::Keyspace, StoreError> {
        self.keyspace(name, fjall::KeyspaceCreateOptions::default)
    }

    fn records(&self) -> fjall::Keyspace {
        FjallStore::records(self).expect("it is open")
    }

    fn past_the_store(path: &Path, act: impl FnOnce(&fjall::Keyspace)) {
        let db = fjall::Database::builder(path).open().expect("no store has it open");
        act(&db.keyspace(RECORDS, fjall::KeyspaceCreateOptions::default).expect("the database works"));
        db.persist(fjall::PersistMode::SyncAll).expect("the disk works");
    }

    fn elsewhere() -> (TempDir, fjall::Keyspace) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let db = fjall::Database::builder(directory.path()).open().expect("a new database");
        (directory, db.keyspace("elsewhere", fjall::KeyspaceCreateOptions::default).expect("the database works"))
    }

    fn tables(&self, path: &Path) -> usize {
        // fjall lists them in one of its own.
        path.join("keyspaces").read_dir().expect("it is there").count() - 1
    }
}

impl Table for fjall::Keyspace {
    fn get(&self, key: impl AsRef<[u8]>) -> Option<Bytes> {
        // The name of a method of its own, which is called here.
        fjall::Keyspace::get(self, key).expect("the database works").map(|value| Bytes::copy_from_slice(&value))
    }

    fn insert(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        fjall::Keyspace::insert(self, key.as_ref(), value.as_ref()).expect("the database works");
    }

    fn remove(&self, key: impl AsRef<[u8]>) {
        fjall::Keyspace::remove(self, key.as_ref()).expect("the database works");
    }

    fn fill(&self) {
        let fits = |number: &u32| fjall::Keyspace::insert(self, number.to_be_bytes(), vec![1; 4_000]).is_ok();
        (0..).find(|number| !fits(number));
    }

    fn hold_up_reads(&self) -> impl Sized {
        self.tree.get_version_history_lock()
    }

    fn scan(&self, prefix: impl AsRef<[u8]>) -> Vec<(Bytes, Bytes)> {
        let entries = self.prefix(prefix).map(|entry| entry.into_inner().expect("it can be read"));
        entries.map(|(key, value)| (Bytes::copy_from_slice(&key), Bytes::copy_from_slice(&value))).collect()
    }
}

impl View for TransactionKeyspace<'_> {
    fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Bytes>, TransactionError> {
        Ok(self.get(key)?.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn insert(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<(), TransactionError> {
        self.insert(key, value.as_ref())
    }

    fn remove(&self, key: impl AsRef<[u8]>) -> Result<(), TransactionError> {
        self.remove(key)
    }
}

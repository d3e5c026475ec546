//! The store on sled.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tempfile::TempDir;
use tower_idempotency::clock::Clock;
use tower_idempotency::engine::Completable;
use tower_idempotency::store::{Abort, OpenError, SledStoreBuilder, StoreError, TransactionError, TransactionTree};
use tower_idempotency::{SledStore, sled};

use super::forward::{builds, forwards};
use super::traits::{Disk, DiskBuilder, RECORDS, Sent, Table, View};

builds!(SledStore, SledStoreBuilder);

impl Disk for SledStore {
    const NAME: &'static str = "sled";
    const LOG: &'static str = "db";
    const SETTINGS: &'static str = "conf";
    const IS_LONG_AT_FIRST: bool = false;
    const TORN: &'static [u8] = &[0; 62];
    const OBSTACLE: &'static str = "blobs";
    const MAX_KEY: usize = 256;
    const MAX_VALUE: usize = 4_096;

    type Builder = SledStoreBuilder;
    type Table = sled::Tree;

    forwards!(TransactionTree);

    fn try_table(&self, name: &str) -> Result<sled::Tree, StoreError> {
        Ok(self.db()?.open_tree(name).expect("the database works"))
    }

    fn records(&self) -> sled::Tree {
        self.table(RECORDS)
    }

    fn past_the_store(path: &Path, act: impl FnOnce(&sled::Tree)) {
        // The settings of a new database belong to the format.
        let db = sled::Config::new().path(path).segment_size(8 * 1024 * 1024).open().expect("no store has it open");
        act(&db.open_tree(RECORDS).expect("the database works"));
        db.flush().expect("the disk works");
        drop(db);
        // sled leaves its lock to the end of the descriptor. A child process that another test is just starting has a
        // copy of that until it runs its program.
        let file = File::open(path.join("db")).expect("it was just written");
        file.lock().and_then(|()| file.unlock()).expect("it can be locked");
    }

    fn elsewhere() -> (TempDir, sled::Tree) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let db = sled::open(directory.path()).expect("a new database");
        (directory, db.open_tree("elsewhere").expect("the database works"))
    }

    fn tables(&self, _: &Path) -> usize {
        // sled has one of its own.
        self.db().expect("it is open").tree_names().len() - 1
    }
}

impl Table for sled::Tree {
    fn get(&self, key: impl AsRef<[u8]>) -> Option<Bytes> {
        self.get(key).expect("the database works").map(|value| Bytes::copy_from_slice(&value))
    }

    fn insert(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        self.insert(key, value.as_ref()).expect("the database works");
    }

    fn remove(&self, key: impl AsRef<[u8]>) {
        self.remove(key).expect("the database works");
    }

    fn fill(&self) {
        let fits = |number: &u32| self.insert(number.to_be_bytes(), vec![1; 4_000]).is_ok() && self.flush().is_ok();
        (0..).find(|number| !fits(number));
    }

    fn hold_up_reads(&self) -> impl Sized {}

    fn scan(&self, prefix: impl AsRef<[u8]>) -> Vec<(Bytes, Bytes)> {
        let entries = self.scan_prefix(prefix).map(|entry| entry.expect("it can be read"));
        entries.map(|(key, value)| (Bytes::copy_from_slice(&key), Bytes::copy_from_slice(&value))).collect()
    }
}

impl View for TransactionTree<'_> {
    fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Bytes>, TransactionError> {
        Ok(self.get(key)?.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn insert(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<(), TransactionError> {
        self.insert(key.as_ref(), value.as_ref()).map(drop)
    }

    fn remove(&self, key: impl AsRef<[u8]>) -> Result<(), TransactionError> {
        self.remove(key.as_ref()).map(drop)
    }
}

//! A store on fjall in a process at its limit of open files. `descriptors.rs` has what it shares with sled.

use std::path::Path;

use futures_util::future::join_all;
use testkit::lab::steps::{Claimed, Steps as _, wish};
use testkit::lab::time::DAY;
use testkit::lab::{done, hold, id};
use testkit::process::until;
use tower_idempotency::FjallStore;
use tower_idempotency::fjall::AbstractTree as _;
use tower_idempotency::internals::Records as _;
use tower_idempotency::store::{Health, Store as _, StoreError};

use super::descriptors::{PLACE, take_all, with_files};

/// The records that are there before the shortage, which fill more tables than fjall keeps open, and those that are
/// made in it.
const MEMTABLE: u64 = 8 * 1024;
const BEFORE: usize = 1_000;
const MEANWHILE: usize = 120;

// fjall reads tables that are not open, and would write new ones. Seeded faults: a read for which no file is left
// poisons the store; a table is written without a look at what is left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fjall_store_refuses_what_it_cannot_read_without_a_free_descriptor_and_goes_on() {
    if let Some(place) = std::env::var_os(PLACE) {
        return with_tables(place.as_ref()).await;
    }
    let place = tempfile::tempdir().unwrap();
    let test = "a_fjall_store_refuses_what_it_cannot_read_without_a_free_descriptor_and_goes_on";
    with_files("ulimit -n 256", &format!("store::fjall_descriptors::{test}"), place.path());
    has_all(&FjallStore::open(place.path().join("s")).unwrap()).await;
}

fn open(place: &Path) -> FjallStore {
    FjallStore::builder().memtable_bytes(MEMTABLE).open(place.join("s")).unwrap()
}

async fn write(store: &FjallStore, number: usize) {
    let held = hold(store, &format!("k{number}")).await;
    store.complete(done(held, "answer ".repeat(400), DAY)).await.unwrap();
}

async fn has_all(store: &FjallStore) {
    for number in 0..BEFORE + MEANWHILE {
        assert!(store.load(id(&format!("k{number}"))).await.unwrap().is_some(), "k{number}");
    }
}

async fn with_tables(place: &Path) {
    let store = open(place);
    for numbers in (0..BEFORE).collect::<Vec<_>>().chunks(100) {
        join_all(numbers.iter().map(|number| write(&store, *number))).await;
    }
    store.close().await.unwrap();
    // None of its answers is in memory.
    let store = open(place);
    // A table that is being written when the last descriptor goes can't be written later.
    let records = store.records().unwrap();
    let is_written =
        async || records.tree.sealed_memtable_count() == 0 && records.tree.active_memtable().size() <= MEMTABLE;
    until("the tables", is_written).await;
    drop(records);
    let files = take_all(place);
    assert!(!files.is_empty());
    let (mut refused, mut claims) = (0, 0);
    for number in 0..BEFORE {
        let key = format!("k{number}");
        match store.load(id(&key)).await {
            Ok(record) => assert!(record.is_some(), "{key}"),
            Err(StoreError::Unavailable { .. }) => refused += 1,
            Err(error) => panic!("{key}: {error}"),
        }
        match store.claim(wish(&key)).await {
            Ok(Claimed::Held(_)) => {}
            Err(StoreError::Unavailable { .. }) => claims += 1,
            other => panic!("{key}: {other:?}"),
        }
    }
    assert!(refused > 0 && claims > 0, "{refused} {claims}: no table had to be opened");
    for number in BEFORE..BEFORE + MEANWHILE {
        write(&store, number).await;
    }
    assert_eq!(store.health(), Health::Good);
    drop(files);
    has_all(&store).await;
    store.close().await.unwrap();
}

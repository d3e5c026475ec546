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

// What `docs/running/embedded.md` says of the limit. fjall's worker has found no free file for a table: it takes no
// more writes, though files are free again. Seeded fault: memtables wait for a free descriptor for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fjall_store_whose_worker_has_found_no_free_descriptor_loses_nothing_and_serves_again_after_a_restart() {
    if let Some(place) = std::env::var_os(PLACE) {
        return until_poisoned(place.as_ref()).await;
    }
    let place = tempfile::tempdir().unwrap();
    let test = "a_fjall_store_whose_worker_has_found_no_free_descriptor_loses_nothing_and_serves_again_after_a_restart";
    with_files("ulimit -n 256", &format!("store::fjall_descriptors::{test}"), place.path());
    let written: usize = std::fs::read_to_string(place.path().join("written")).unwrap().parse().unwrap();
    let store = FjallStore::open(place.path().join("s")).unwrap();
    for number in 0..written {
        assert!(store.load(id(&format!("k{number}"))).await.unwrap().is_some(), "k{number} of {written}");
    }
    write(&store, MOST).await;
    assert_eq!(store.health(), Health::Good);
}

/// More than are in memory and in the journal before a table is written all the same.
const MOST: usize = 2_000;

async fn until_poisoned(place: &Path) {
    let store = open(place);
    let files = take_all(place);
    let mut written = 0;
    let failed = loop {
        assert!(written < MOST, "it was never refused");
        let outcome = match store.claim(wish(&format!("k{written}"))).await {
            Ok(Claimed::Fresh(held)) => store.complete(done(held, "answer ".repeat(400), DAY)).await.map(drop),
            Ok(Claimed::Held(record)) => panic!("k{written} is held: {record:?}"),
            Err(error) => Err(error),
        };
        match outcome {
            Ok(()) => written += 1,
            Err(error) => break error,
        }
    };
    // Of the one that has met it, this is not known.
    assert!(matches!(failed, StoreError::Uncertain { .. } | StoreError::Unavailable { .. }), "{failed}");
    drop(files);
    assert!(matches!(store.health(), Health::Poisoned { .. }), "{:?}", store.health());
    let later = store.claim(wish("later")).await.map(drop);
    assert!(later.is_err_and(|error| error.to_string().contains("restart the process")), "files are free");
    std::fs::write(place.join("written"), written.to_string()).unwrap();
    let _ = store.close().await;
}

//! A process at its limit of open files, as a server with many connections may be.

use std::fs::File;
use std::path::Path;
use std::process::Command;

use futures_util::future::join_all;
use testkit::lab::disk::Disk;
use testkit::lab::steps::{Claimed, Steps as _, wish};
use testkit::lab::time::DAY;
use testkit::lab::{done, hold, id};
use testkit::log::Log;
use testkit::on_both;
use testkit::process::until;
use tower_idempotency::FjallStore;
use tower_idempotency::fjall::AbstractTree as _;
use tower_idempotency::internals::Records as _;
use tower_idempotency::store::{Health, Store as _, StoreError};
use tracing::Level;

/// The variable with the place of the child's store.
const PLACE: &str = "TOWER_IDEMPOTENCY_DESCRIPTORS";
/// The variable that says that the hard limit is low, too.
const LIMITED: &str = "TOWER_IDEMPOTENCY_LIMITED";
const KEYS: usize = 10;

// Seeded faults: the limit is not raised; it is raised, and nothing is said of one that is low all the same.
on_both!(opening_a_store_raises_the_limit_of_files_and_warns_of_one_that_is_too_low);
async fn opening_a_store_raises_the_limit_of_files_and_warns_of_one_that_is_too_low<D: Disk>() {
    if let Some(place) = std::env::var_os(PLACE) {
        let place: &Path = place.as_ref();
        let log = Log::begin(Level::WARN);
        let store = D::open(place).unwrap();
        let files = take_all(place).len();
        let log = log.lines().concat();
        let is_low = log.contains("the process may open few files");
        let limited = std::env::var_os(LIMITED).is_some();
        assert_eq!((files > 100, is_low), (!limited, limited), "{files} {log}");
        return store.close().await.unwrap();
    }
    let place = tempfile::tempdir().unwrap();
    let test = format!("opening_a_store_raises_the_limit_of_files_and_warns_of_one_that_is_too_low::on_{}", D::NAME);
    with_files("ulimit -S -n 100 && ulimit -H -n 1000", &test, place.path());
    with_files("ulimit -n 60; export TOWER_IDEMPOTENCY_LIMITED=1", &test, place.path());
}

// Seeded fault: the store opens a file at each sync.
on_both!(a_store_writes_on_without_a_free_descriptor);
async fn a_store_writes_on_without_a_free_descriptor<D: Disk>() {
    if let Some(place) = std::env::var_os(PLACE) {
        return without_descriptors::<D>(place.as_ref()).await;
    }
    let place = tempfile::tempdir().unwrap();
    with_files("ulimit -n 64", &format!("a_store_writes_on_without_a_free_descriptor::on_{}", D::NAME), place.path());
    let store = D::open(place.path()).unwrap();
    for number in 0..KEYS {
        assert!(store.load(id(&format!("k{number}"))).await.unwrap().is_some(), "k{number}");
    }
}

/// Runs a test in a process of its own, once the shell has set its limit of open files.
fn with_files(limit: &str, test: &str, place: &Path) {
    let mut child = Command::new("sh");
    child.args(["-c", &format!(r#"{limit}; exec "$0" "$@""#)]).arg(std::env::current_exe().unwrap());
    let test = format!("store::descriptors::{test}");
    let output = child.args(["--exact", &test, "--nocapture"]).env(PLACE, place).output().unwrap();
    assert!(output.status.success(), "{}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
}

/// Opens files until the process may open no more.
fn take_all(place: &Path) -> Vec<File> {
    std::iter::from_fn(|| File::open(place).ok()).collect()
}

async fn without_descriptors<D: Disk>(place: &Path) {
    let store = D::open(place).unwrap();
    let files = take_all(place);
    assert!((1..64).contains(&files.len()));
    for number in 0..KEYS {
        let held = hold(&store, &format!("k{number}")).await;
        store.complete(done(held, "recorded", DAY)).await.unwrap();
    }
    assert_eq!(store.health(), Health::Good);
    drop(files);
    store.close().await.unwrap();
}

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
    with_files("ulimit -n 256", test, place.path());
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

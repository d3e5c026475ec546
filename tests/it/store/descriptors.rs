//! A process at its limit of open files, as a server with many connections may be.

use std::fs::File;
use std::path::Path;
use std::process::Command;

use testkit::lab::disk::Disk;
use testkit::lab::steps::Steps as _;
use testkit::lab::time::DAY;
use testkit::lab::{done, hold, id};
use testkit::log::Log;
use testkit::on_both;
use tower_idempotency::store::Health;
use tracing::Level;

/// The variable with the place of the child's store.
pub(super) const PLACE: &str = "TOWER_IDEMPOTENCY_DESCRIPTORS";
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
    let test = "opening_a_store_raises_the_limit_of_files_and_warns_of_one_that_is_too_low";
    let test = format!("store::descriptors::{test}::on_{}", D::NAME);
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
    let test = format!("store::descriptors::a_store_writes_on_without_a_free_descriptor::on_{}", D::NAME);
    with_files("ulimit -n 64", &test, place.path());
    let store = D::open(place.path()).unwrap();
    for number in 0..KEYS {
        assert!(store.load(id(&format!("k{number}"))).await.unwrap().is_some(), "k{number}");
    }
}

/// Runs a test in a process of its own, once the shell has set its limit of open files.
pub(super) fn with_files(limit: &str, test: &str, place: &Path) {
    let mut child = Command::new("sh");
    child.args(["-c", &format!(r#"{limit}; exec "$0" "$@""#)]).arg(std::env::current_exe().unwrap());
    let output = child.args(["--exact", test, "--nocapture"]).env(PLACE, place).output().unwrap();
    assert!(output.status.success(), "{}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
}

/// Opens files until the process may open no more.
pub(super) fn take_all(place: &Path) -> Vec<File> {
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

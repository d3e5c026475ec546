//! A process at its limit of open files, as a server with many connections may be.

use std::fs::File;
use std::path::Path;
use std::process::Command;

use testkit::lab::disk::Disk;
use testkit::lab::steps::Steps as _;
use testkit::lab::time::DAY;
use testkit::lab::{done, hold, id};
use testkit::on_both;
use tower_idempotency::store::Health;

/// The variable with the place of the child's store.
const PLACE: &str = "TOWER_IDEMPOTENCY_DESCRIPTORS";
const KEYS: usize = 10;

// Seeded fault: the store opens a file at each sync.
on_both!(a_store_writes_on_without_a_free_descriptor);
async fn a_store_writes_on_without_a_free_descriptor<D: Disk>() {
    if let Some(place) = std::env::var_os(PLACE) {
        return without_descriptors::<D>(place.as_ref()).await;
    }
    let place = tempfile::tempdir().unwrap();
    let test = format!("store::descriptors::a_store_writes_on_without_a_free_descriptor::on_{}", D::NAME);
    let mut child = Command::new("sh");
    child.args(["-c", r#"ulimit -n 64; exec "$0" "$@""#]).arg(std::env::current_exe().unwrap());
    let output = child.args(["--exact", &test, "--nocapture"]).env(PLACE, place.path()).output().unwrap();
    assert!(output.status.success(), "{}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    let store = D::open(place.path()).unwrap();
    for number in 0..KEYS {
        assert!(store.load(id(&format!("k{number}"))).await.unwrap().is_some(), "k{number}");
    }
}

async fn without_descriptors<D: Disk>(place: &Path) {
    let store = D::open(place).unwrap();
    let mut files = Vec::new();
    while let Ok(file) = File::open(place) {
        files.push(file);
    }
    assert!((1..64).contains(&files.len()));
    for number in 0..KEYS {
        let held = hold(&store, &format!("k{number}")).await;
        store.complete(done(held, "recorded", DAY)).await.unwrap();
    }
    assert_eq!(store.health(), Health::Good);
    drop(files);
    store.close().await.unwrap();
}

//! A power cut during the very first opening leaves a directory that can be opened. A store that was complete once is
//! never created again.

use std::fs;
use std::path::Path;

use testkit::lab::disk::Disk;
use testkit::lab::steps::Steps as _;
use testkit::lab::time::HOUR;
use testkit::lab::{Lab, done, hold, id, on_disk};
use testkit::on_both;
use tower_idempotency::store::OpenError;
use tower_idempotency::{IdempotencyLayer, SledStore};

const LOCK: &str = "tower-idempotency.lock";

on_both!(a_first_opening_that_a_power_cut_interrupted_begins_anew_and_deletes_nothing);
async fn a_first_opening_that_a_power_cut_interrupted_begins_anew_and_deletes_nothing<D: Disk>() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    for attempt in 0..2 {
        // Twice: files that were set aside before do no harm.
        D::tear_first_opening(&path);
        fs::write(path.join(LOCK), []).unwrap();
        // A first opening makes it at its end.
        let _ = fs::remove_file(path.join("tower-idempotency.checkpoint"));
        let store = D::open(&path).unwrap_or_else(|error| panic!("attempt {attempt}: {error}"));
        let key = format!("k{attempt}");
        let held = hold(&store, &key).await;
        store.complete(done(held, "recorded", HOUR)).await.unwrap();
        store.close().await.unwrap();
        let store = D::open(&path).unwrap();
        assert!(store.load(id(&key)).await.unwrap().is_some());
        store.close().await.unwrap();
        assert!(path.join(format!("unfinished.{}.old", D::SETTINGS)).exists());
    }
    assert!(path.join(format!("unfinished.{}.old", D::LOG)).exists(), "it held the records of the first attempt");
}

on_both!(a_store_that_was_complete_once_is_never_begun_anew);
async fn a_store_that_was_complete_once_is_never_begun_anew<D: Disk>() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    D::open(&path).unwrap().close().await.unwrap();
    assert!(fs::metadata(path.join(LOCK)).unwrap().len() > 0);
    D::tear_first_opening(&path);
    let error = D::open(&path).unwrap_err();
    assert!(matches!(error, OpenError::Database { .. }), "{error}");
    assert!(path.join(D::LOG).exists() && !has_set_aside(&path));
}

#[test]
fn a_database_of_sleds_that_another_release_made_is_never_begun_anew_and_the_error_says_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    // Other settings than ours, and no checkpoint.
    let database = sled::Config::new().path(&path).open().unwrap();
    database.insert("charge", "made").unwrap();
    drop(database);
    fs::write(path.join(LOCK), []).unwrap();
    let error = SledStore::open(&path).unwrap_err();
    assert!(matches!(error, OpenError::Incompatible { .. }), "{error}");
    assert!(error.to_string().contains("use that release"), "{error}");
    let database = sled::Config::new().path(&path).open().unwrap();
    assert_eq!(database.get("charge").unwrap().unwrap(), "made");
}

on_both!(a_healthy_store_without_the_checkpoint_is_opened_as_it_is_and_marked);
async fn a_healthy_store_without_the_checkpoint_is_opened_as_it_is_and_marked<D: Disk>() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let store = D::open(&path).unwrap();
    let held = hold(&store, "k").await;
    store.complete(done(held, "recorded", HOUR)).await.unwrap();
    store.close().await.unwrap();
    fs::write(path.join(LOCK), []).unwrap();
    let store = D::open(&path).unwrap();
    assert!(store.load(id("k")).await.unwrap().is_some());
    assert!(fs::metadata(path.join(LOCK)).unwrap().len() > 0);
}

/// Returns whether something in `path` was set aside.
fn has_set_aside(path: &Path) -> bool {
    fs::read_dir(path).unwrap().any(|entry| entry.unwrap().file_name().to_string_lossy().starts_with("unfinished."))
}

// "A store without its checkpoint whose opening meets one transient I/O error is begun anew: all keys forgotten."
on_both!(
    a_store_without_the_checkpoint_whose_opening_the_operating_system_refuses_once_is_opened_as_it_is_the_next_time
);
async fn a_store_without_the_checkpoint_whose_opening_the_operating_system_refuses_once_is_opened_as_it_is_the_next_time<
    D: Disk,
>() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let store = D::open(&path).unwrap();
    let held = hold(&store, "k").await;
    store.complete(done(held, "recorded", HOUR)).await.unwrap();
    store.close().await.unwrap();
    fs::write(path.join(LOCK), []).unwrap();
    // A file is where the engine has a directory, or the other way round.
    let (obstacle, aside) = (path.join(D::OBSTACLE), directory.path().join("aside"));
    fs::rename(&obstacle, &aside).unwrap();
    if aside.is_dir() { fs::write(&obstacle, []) } else { fs::create_dir(&obstacle) }.unwrap();
    let refused = D::open(&path).map(drop);
    assert!(!has_set_aside(&path), "{refused:?}");
    assert!(matches!(refused, Err(OpenError::Io { .. })), "{refused:?}");
    if aside.is_dir() { fs::remove_file(&obstacle) } else { fs::remove_dir(&obstacle) }.unwrap();
    fs::rename(&aside, &obstacle).unwrap();
    let store = D::open(&path).unwrap();
    assert!(store.load(id("k")).await.unwrap().is_some());
}

on_both!(trap_60_a_second_opening_is_an_error_that_names_the_remedy);
async fn trap_60_a_second_opening_is_an_error_that_names_the_remedy<D: Disk>() {
    let (directory, store) = on_disk(D::builder());
    let error = D::open(directory.path()).unwrap_err();
    assert!(matches!(&error, OpenError::InUse { path } if path == directory.path()), "{error:?}");
    let message = error.to_string();
    assert!(message.contains(&directory.path().display().to_string()), "{message}");
    assert!(
        message.contains("Clone the store that is open") && message.contains("stop the other process"),
        "{message}"
    );

    let lab = Lab::counting(IdempotencyLayer::new(store.clone()));
    assert_eq!(lab.post("k", "a").await.text(), "effect 1", "the first goes on working");
    store.close().await.unwrap();
    let lab = Lab::counting(IdempotencyLayer::new(D::open(directory.path()).unwrap()));
    assert!(lab.post("k", "a").await.is_replay());
    assert_eq!(lab.effects(), 0);
}

//! A power cut during the very first opening leaves a directory that can be opened. A store that was complete once is
//! never created again.

use std::fs;
use std::path::Path;

use testkit::lab::steps::Steps as _;
use testkit::lab::time::HOUR;
use testkit::lab::{Lab, done, hold, id, on_disk};
use tower_idempotency::internals::Records as _;
use tower_idempotency::store::OpenError;
use tower_idempotency::{IdempotencyLayer, SledStore};

const LOCK: &str = "tower-idempotency.lock";

/// sled's file of settings, as a power cut may leave it: its length without its bytes.
fn torn_settings(directory: &Path) {
    fs::create_dir_all(directory).unwrap();
    fs::write(directory.join("conf"), [0; 62]).unwrap();
}

#[tokio::test]
async fn a_first_opening_that_a_power_cut_interrupted_begins_anew_and_deletes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    for attempt in 0..2 {
        // Twice: files that were set aside before do no harm.
        torn_settings(&path);
        fs::write(path.join(LOCK), []).unwrap();
        // A first opening makes it at its end.
        let _ = fs::remove_file(path.join("tower-idempotency.mark"));
        let store = SledStore::open(&path).unwrap_or_else(|error| panic!("attempt {attempt}: {error}"));
        let key = format!("k{attempt}");
        let held = hold(&store, &key).await;
        store.complete(done(held, "recorded", HOUR)).await.unwrap();
        store.close().await.unwrap();
        let store = SledStore::open(&path).unwrap();
        assert!(store.load(id(&key)).await.unwrap().is_some());
        store.close().await.unwrap();
        assert!(path.join("unfinished.conf.old").exists());
    }
    assert!(path.join("unfinished.db.old").exists(), "it held the records of the first attempt");
}

#[tokio::test]
async fn a_store_that_was_complete_once_is_never_begun_anew() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    SledStore::open(&path).unwrap().close().await.unwrap();
    assert!(fs::metadata(path.join(LOCK)).unwrap().len() > 0);
    torn_settings(&path);
    let error = SledStore::open(&path).unwrap_err();
    assert!(matches!(error, OpenError::Database { .. }), "{error}");
    assert!(path.join("db").exists() && !path.join("unfinished.db.old").exists());
}

#[test]
fn a_database_that_another_release_made_is_never_begun_anew_and_the_error_says_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    // Other settings than ours, and no mark.
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

#[tokio::test]
async fn a_healthy_store_without_the_mark_is_opened_as_it_is_and_marked() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let store = SledStore::open(&path).unwrap();
    let held = hold(&store, "k").await;
    store.complete(done(held, "recorded", HOUR)).await.unwrap();
    store.close().await.unwrap();
    fs::write(path.join(LOCK), []).unwrap();
    let store = SledStore::open(&path).unwrap();
    assert!(store.load(id("k")).await.unwrap().is_some());
    assert!(fs::metadata(path.join(LOCK)).unwrap().len() > 0);
}

/// Returns whether something in `path` was set aside.
fn has_set_aside(path: &Path) -> bool {
    fs::read_dir(path).unwrap().any(|entry| entry.unwrap().file_name().to_string_lossy().starts_with("unfinished."))
}

// "A store without its mark whose opening meets one transient I/O error is begun anew: all keys forgotten."
#[tokio::test]
async fn a_store_without_the_mark_whose_opening_the_operating_system_refuses_once_is_opened_as_it_is_the_next_time() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let store = SledStore::open(&path).unwrap();
    let held = hold(&store, "k").await;
    store.complete(done(held, "recorded", HOUR)).await.unwrap();
    store.close().await.unwrap();
    fs::write(path.join(LOCK), []).unwrap();
    // sled can't make its directory: EEXIST.
    let blobs = path.join("blobs");
    fs::remove_dir(&blobs).unwrap();
    fs::write(&blobs, []).unwrap();
    let refused = SledStore::open(&path).map(drop);
    assert!(!has_set_aside(&path), "{refused:?}");
    assert!(matches!(refused, Err(OpenError::Io { .. })), "{refused:?}");
    fs::remove_file(&blobs).unwrap();
    let store = SledStore::open(&path).unwrap();
    assert!(store.load(id("k")).await.unwrap().is_some());
}

#[tokio::test]
async fn trap_60_a_second_opening_is_an_error_that_names_the_remedy() {
    let (directory, store) = on_disk(SledStore::builder());
    let error = SledStore::open(directory.path()).unwrap_err();
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
    let lab = Lab::counting(IdempotencyLayer::new(SledStore::open(directory.path()).unwrap()));
    assert!(lab.post("k", "a").await.is_replay());
    assert_eq!(lab.effects(), 0);
}

//! The directory of a `SledStore`: its owner, and the processes that may have it open.

use std::fs;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use tower_idempotency::SledStore;
use tower_idempotency::store::OpenError;

use super::on_disk::{Place, run};

#[tokio::test]
async fn open_within_waits_for_another_to_let_the_directory_go_and_no_longer_than_it_is_told() {
    let place = Place::new();
    let store = place.open();
    run(&store, "k", Bytes::from("before")).await;
    let error = SledStore::open_within(&place.path, Duration::from_millis(1)).unwrap_err();
    assert!(matches!(error, OpenError::InUse { .. }), "{error:?}");
    let path = place.path.clone();
    let waiting = std::thread::spawn(move || SledStore::open_within(path, Duration::from_secs(60)).unwrap());
    store.close().await.unwrap();
    let store = tokio::task::spawn_blocking(|| waiting.join().unwrap()).await.unwrap();
    assert_eq!(store.len(), 1);
    // Other errors are returned at once.
    let other = tempfile::tempdir().unwrap();
    fs::write(other.path().join("not ours"), b"x").unwrap();
    let error = SledStore::open_within(other.path(), Duration::from_secs(60)).unwrap_err();
    assert!(!matches!(error, OpenError::InUse { .. }), "{error:?}");
}

#[cfg(unix)]
#[tokio::test]
async fn the_directory_is_private_whatever_the_umask() {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let place = Place::new();
    let store = place.open();
    assert_eq!(mode(&place.path), 0o700);
    store.close().await.unwrap();
    fs::set_permissions(&place.path, fs::Permissions::from_mode(0o755)).unwrap();
    let _store = place.open();
    assert_eq!(mode(&place.path), 0o700);
}

#[test]
fn a_directory_with_other_files_is_left_alone() {
    let parent = tempfile::tempdir().unwrap();
    fs::write(parent.path().join("thesis.tex"), b"mine").unwrap();
    let error = SledStore::open(parent.path()).unwrap_err();
    assert!(matches!(&error, OpenError::NotAStore { found, .. } if found == "thesis.tex"), "{error:?}");
    assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 1);
}

#[test]
fn a_directory_of_a_later_format_is_refused_and_left_as_it_is() {
    let place = Place::new();
    place.plant([(b"mformat".to_vec(), vec![2])]);
    for _ in 0..2 {
        let error = SledStore::open(&place.path).unwrap_err();
        assert!(matches!(error, OpenError::Format { format: 2, known: 1, .. }), "{error:?}");
    }
}

#[tokio::test]
async fn a_lent_database_that_is_still_held_keeps_the_directory() {
    let place = Place::new();
    let store = place.open();
    let held = store.db().unwrap();
    drop(store);
    // The writer ends with the last handle; sled's own lock goes with the last lent one.
    let error = SledStore::open(&place.path).unwrap_err();
    assert!(matches!(error, OpenError::InUse { .. }), "{error:?}");
    drop(held);
    let reopened = async {
        while let Err(error) = SledStore::open(&place.path) {
            assert!(matches!(error, OpenError::InUse { .. }), "{error:?}");
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), reopened).await.expect("it is free once all handles are gone");
}

#[test]
fn another_program_s_database_is_left_alone() {
    let place = Place::new();
    drop(place.database());
    let error = SledStore::open(&place.path).unwrap_err();
    assert!(matches!(error, OpenError::NotAStore { .. }), "{error:?}");
}

//! The directory of a store on disk: its owner, and the processes that may have it open.

use std::fs;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use testkit::lab::disk::{Disk, Table as _};
use testkit::on_both;
use tower_idempotency::store::OpenError;

use super::on_disk::{Place, run};

on_both!(open_within_waits_for_another_to_let_the_directory_go_and_no_longer_than_it_is_told);
async fn open_within_waits_for_another_to_let_the_directory_go_and_no_longer_than_it_is_told<D: Disk>() {
    let place = Place::new();
    let store: D = place.open();
    run(&store, "k", Bytes::from("before")).await;
    let error = D::open_within(&place.path, Duration::from_millis(1)).unwrap_err();
    assert!(matches!(error, OpenError::InUse { .. }), "{error:?}");
    let path = place.path.clone();
    let waiting = std::thread::spawn(move || D::open_within(path, Duration::from_secs(60)).unwrap());
    store.close().await.unwrap();
    let store = tokio::task::spawn_blocking(|| waiting.join().unwrap()).await.unwrap();
    assert_eq!(store.len(), 1);
    // Other errors are returned at once.
    let other = tempfile::tempdir().unwrap();
    fs::write(other.path().join("not ours"), b"x").unwrap();
    let error = D::open_within(other.path(), Duration::from_secs(60)).unwrap_err();
    assert!(!matches!(error, OpenError::InUse { .. }), "{error:?}");
}

#[cfg(unix)]
on_both!(the_directory_is_private_whatever_the_umask);
async fn the_directory_is_private_whatever_the_umask<D: Disk>() {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let place = Place::new();
    let store: D = place.open();
    assert_eq!(mode(&place.path), 0o700);
    store.close().await.unwrap();
    fs::set_permissions(&place.path, fs::Permissions::from_mode(0o755)).unwrap();
    let _store: D = place.open();
    assert_eq!(mode(&place.path), 0o700);
}

on_both!(fn a_directory_with_other_files_is_left_alone);
fn a_directory_with_other_files_is_left_alone<D: Disk>() {
    let parent = tempfile::tempdir().unwrap();
    fs::write(parent.path().join("thesis.tex"), b"mine").unwrap();
    let error = D::open(parent.path()).unwrap_err();
    assert!(matches!(&error, OpenError::NotAStore { found, .. } if found == "thesis.tex"), "{error:?}");
    assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 1);
}

on_both!(fn a_directory_of_a_later_format_is_refused_and_left_as_it_is);
fn a_directory_of_a_later_format_is_refused_and_left_as_it_is<D: Disk>() {
    let place = Place::new();
    D::past_the_store(&place.path, |records| records.insert("mformat", [2]));
    fs::write(place.path.join("tower-idempotency.lock"), []).unwrap();
    for _ in 0..2 {
        let error = D::open(&place.path).unwrap_err();
        assert!(matches!(error, OpenError::Format { format: 2, known: 1, .. }), "{error:?}");
    }
}

on_both!(a_lent_database_that_is_still_held_keeps_the_directory);
async fn a_lent_database_that_is_still_held_keeps_the_directory<D: Disk>() {
    let place = Place::new();
    let store: D = place.open();
    let held = store.table("lent");
    drop(store);
    // The writer ends with the last handle; the engine's own lock goes with the last lent one.
    let error = D::open(&place.path).unwrap_err();
    assert!(matches!(error, OpenError::InUse { .. }), "{error:?}");
    drop(held);
    let reopened = async {
        while let Err(error) = D::open(&place.path) {
            assert!(matches!(error, OpenError::InUse { .. }), "{error:?}");
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), reopened).await.expect("it is free once all handles are gone");
}

on_both!(fn another_program_s_database_is_left_alone);
fn another_program_s_database_is_left_alone<D: Disk>() {
    let place = Place::new();
    D::past_the_store(&place.path, |_| ());
    let error = D::open(&place.path).unwrap_err();
    assert!(matches!(error, OpenError::NotAStore { .. }), "{error:?}");
}

//! sled's snapshot is gone, by a power cut during an opening or by somebody's hand: nothing is lost, or the opening says so.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod common;

use std::fs;
use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use common::lab::{done, hold, id};
use tower_idempotency::SledStore;
use tower_idempotency::clock::Timestamp;
use tower_idempotency::record::State;
use tower_idempotency::store::{OpenError, Store as _};
use tower_idempotency::test_util::ManualClock;

const DAY: Duration = Duration::from_secs(86_400);
const NOON: Timestamp = Timestamp::from_millis(1_000_000);
const SEGMENT: usize = 16 * 1024 * 1024;
static LONG: LazyLock<String> = LazyLock::new(|| "x".repeat(1024 * 1024));

struct Place {
    directory: tempfile::TempDir,
    clock: ManualClock,
}

impl Place {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), clock: ManualClock::new(NOON) }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn open(&self) -> Result<SledStore, OpenError> {
        SledStore::builder().clock(self.clock.clone()).open(self.path())
    }

    fn bytes(&self) -> Vec<u8> {
        fs::read(self.path().join("db")).unwrap()
    }

    /// Which of the segments begin with a header.
    fn headers(&self) -> Vec<bool> {
        self.bytes().chunks(SEGMENT).map(|segment| segment.iter().take(20).any(|byte| *byte != 0)).collect()
    }

    fn lose_the_snapshot(&self) {
        let names = fs::read_dir(self.path()).unwrap().map(|entry| entry.unwrap().path());
        let snapshots = names.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("snap."));
        assert_eq!(snapshots.map(fs::remove_file).map(Result::unwrap).count(), 1);
    }
}

async fn record(store: &SledStore, name: &str, outcome: &'static str) {
    let held = hold(store, name).await;
    let retention = if name == "kept" { 1_000 * DAY } else { DAY };
    store.complete(done(held, outcome, retention)).await.unwrap();
}

/// A store of which one record is left, in the last of its segments; the one before has been overwritten.
async fn emptied() -> Place {
    let place = Place::new();
    let store = place.open().unwrap();
    while place.headers().len() < 2 {
        record(&store, "long", &LONG).await;
        place.clock.advance(2 * DAY);
        while store.sweep(1_000).await.unwrap() > 0 {}
    }
    record(&store, "kept", "an answer").await;
    store.close().await.unwrap();
    // sled moves what is left of a segment when it comes to it, and overwrites what it has left when it is opened.
    for _ in 0..100 {
        let store = place.open().unwrap();
        record(&store, "another", "which is over").await;
        place.clock.advance(2 * DAY);
        store.close().await.unwrap();
        if place.headers() == [false, true] {
            return place;
        }
    }
    panic!("sled never let go of the first segment: {:?}", place.headers());
}

#[tokio::test]
async fn a_store_whose_snapshot_is_lost_has_all_its_records() {
    let place = emptied().await;
    place.lose_the_snapshot();
    for _ in 0..2 {
        let store = place.open().unwrap();
        let record = store.load(id("kept")).await.unwrap().expect("it is not lost");
        assert!(matches!(record.state, State::Completed { outcome, .. } if outcome == "an answer"));
        store.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_store_of_which_sled_would_find_nothing_is_not_opened_and_stays_as_it_is() {
    let place = Place::new();
    let store = place.open().unwrap();
    record(&store, "kept", "an answer").await;
    store.close().await.unwrap();
    let mut damaged = place.bytes();
    damaged[7] ^= 1;
    for bytes in [damaged, vec![0; SEGMENT]] {
        fs::write(place.path().join("db"), &bytes).unwrap();
        let error = place.open().unwrap_err();
        assert!(matches!(error, OpenError::Database { .. }), "{error}");
        assert!(error.to_string().contains("restore the directory from a backup"), "{error}");
        assert!(place.bytes() == bytes, "nothing was overwritten");
    }
}

#[tokio::test]
async fn a_damaged_segment_is_not_taken_for_one_that_sled_has_let_go() {
    let place = emptied().await;
    place.lose_the_snapshot();
    let mut bytes = place.bytes();
    bytes[3] = 1;
    fs::write(place.path().join("db"), &bytes).unwrap();
    let error = place.open().unwrap_err();
    assert!(matches!(error, OpenError::Database { .. }), "{error}");
    assert!(place.bytes() == bytes, "nothing was overwritten");
}

#[tokio::test]
async fn a_store_whose_database_was_removed_is_not_begun_anew() {
    let place = Place::new();
    place.open().unwrap().close().await.unwrap();
    fs::remove_file(place.path().join("db")).unwrap();
    let error = place.open().unwrap_err();
    assert!(matches!(error, OpenError::Database { .. }), "{error}");
}

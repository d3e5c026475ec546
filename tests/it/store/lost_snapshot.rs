//! sled's snapshot is gone, by a power cut during an opening or deleted by hand: nothing is lost, or the opening
//! reports it.

use std::ffi::OsString;
use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

use testkit::lab::steps::Steps as _;
use testkit::lab::time::DAY;
use testkit::lab::{done, hold, id};
use tokio::sync::OnceCell;
use tower_idempotency::SledStore;
use tower_idempotency::internals::{Records as _, State};
use tower_idempotency::store::OpenError;

const SEGMENT: usize = 8 * 1024 * 1024;

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn open(&self) -> Result<SledStore, OpenError> {
        SledStore::open(self.path())
    }

    fn bytes(&self) -> Vec<u8> {
        fs::read(self.path().join("db")).unwrap()
    }

    /// The names and the bytes of the files.
    fn files(&self) -> Vec<(OsString, Vec<u8>)> {
        let entries = fs::read_dir(self.path()).unwrap().map(Result::unwrap);
        let files = entries.filter(|entry| entry.file_type().unwrap().is_file());
        files.map(|entry| (entry.file_name(), fs::read(entry.path()).unwrap())).collect()
    }

    fn segments(&self) -> usize {
        usize::try_from(fs::metadata(self.path().join("db")).unwrap().len()).unwrap().div_ceil(SEGMENT)
    }

    /// For each of the segments, whether it begins with a header.
    fn headers(&self) -> Vec<bool> {
        let mut header = [0; 20];
        let mut log = fs::File::open(self.path().join("db")).unwrap();
        let mut has_header = |number| {
            log.seek(SeekFrom::Start((number * SEGMENT) as u64)).unwrap();
            log.read_exact(&mut header).unwrap();
            header != [0; 20]
        };
        (0..self.segments()).map(&mut has_header).collect()
    }

    fn lose_the_snapshot(&self) {
        let names = fs::read_dir(self.path()).unwrap().map(|entry| entry.unwrap().path());
        let snapshots = names.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("snap."));
        assert_eq!(snapshots.map(fs::remove_file).map(Result::unwrap).count(), 1);
    }
}

async fn record(store: &SledStore, name: &str, outcome: &'static str) {
    let held = hold(store, name).await;
    store.complete(done(held, outcome, DAY)).await.unwrap();
}

/// A store that has one record left, in the last of its segments; the segment before it has been overwritten. Also
/// returns the log from before that.
async fn emptied() -> (Place, &'static [u8]) {
    /// The files of a place, and the log from before.
    type Emptied = (Vec<(OsString, Vec<u8>)>, Vec<u8>);
    static EMPTIED: OnceCell<Emptied> = OnceCell::const_new();
    let (files, before) = EMPTIED
        .get_or_init(async || {
            // sled decides which of its pages it moves, and when.
            for _ in 0..5 {
                if let Some((place, before)) = try_to_empty().await {
                    return (place.files(), before);
                }
            }
            panic!("sled never let go of the first segment");
        })
        .await;
    let place = Place::new();
    files.iter().for_each(|(name, bytes)| fs::write(place.path().join(name), bytes).unwrap());
    (place, before)
}

async fn try_to_empty() -> Option<(Place, Vec<u8>)> {
    let place = Place::new();
    let store = place.open().unwrap();
    // A value that replaces another one leaves no bytes in the old one's segment.
    let mut number = 0_u8;
    while place.segments() < 2 {
        number = number.wrapping_add(1);
        write(&store, &vec![number; 100_000]).await;
    }
    write(&store, b"").await;
    record(&store, "kept", "an answer").await;
    store.close().await.unwrap();
    // sled's own thread moves the rest of a segment bit by bit, and an opening overwrites the moved part. Only an
    // opening shows the progress.
    for number in 0..100 {
        let before = place.bytes();
        let store = place.open().unwrap();
        if place.headers() == [false, true] {
            store.close().await.unwrap();
            return Some((place, before));
        }
        write(&store, &[number]).await;
        store.close().await.unwrap();
    }
    None
}

/// Writes into a tree of the application's own.
async fn write(store: &SledStore, bytes: &[u8]) {
    store.db().unwrap().open_tree("own").unwrap().insert("key", bytes).unwrap();
    store.sync().await.unwrap();
}

async fn has_its_record(place: &Place) {
    for _ in 0..2 {
        let store = place.open().unwrap();
        let record = store.load(id("kept")).await.unwrap().expect("it is not lost");
        assert!(matches!(record.state, State::Completed { outcome, .. } if outcome == "an answer"));
        store.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_store_whose_snapshot_is_lost_has_all_its_records() {
    let (place, _) = emptied().await;
    place.lose_the_snapshot();
    has_its_record(&place).await;
}

#[tokio::test]
async fn so_has_one_of_which_a_segment_was_overwritten_in_part() {
    // Of what an opening overwrote, this much had not reached the disk.
    for left in [4_096, SEGMENT / 2, SEGMENT - 4_096] {
        let (place, before) = emptied().await;
        place.lose_the_snapshot();
        let mut bytes = place.bytes();
        bytes[..left].copy_from_slice(&before[..left]);
        fs::write(place.path().join("db"), &bytes).unwrap();
        has_its_record(&place).await;
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
async fn a_store_whose_database_was_removed_is_not_begun_anew() {
    let place = Place::new();
    place.open().unwrap().close().await.unwrap();
    fs::remove_file(place.path().join("db")).unwrap();
    let error = place.open().unwrap_err();
    assert!(matches!(error, OpenError::Database { .. }), "{error}");
}

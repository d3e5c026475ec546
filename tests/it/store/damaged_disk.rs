//! A damaged disk, a directory that was restored in part, and a volume that is not mounted: a store that has lost keys
//! reports that before it takes the first request.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use testkit::lab::disk::{Disk, DiskBuilder as _};
use testkit::lab::steps::Steps as _;
use testkit::lab::time::DAY;
use testkit::lab::{Lab, done, hold, id};
use testkit::log::Log;
use testkit::on_both;
use tower_idempotency::internals::Records as _;
use tower_idempotency::store::OpenError;
use tower_idempotency::{IdempotencyLayer, SledStore};
use tracing::Level;

pub(super) const RECORDS: usize = 200;
const LOCK: &str = "tower-idempotency.lock";

/// Records outcomes in a new store, and closes it.
pub(super) async fn recorded<D: Disk>() -> (tempfile::TempDir, PathBuf) {
    recorded_as::<D>("recorded").await
}

pub(super) async fn recorded_as<D: Disk>(outcome: impl Into<Bytes>) -> (tempfile::TempDir, PathBuf) {
    let (directory, outcome) = (tempfile::tempdir().unwrap(), outcome.into());
    let path = directory.path().join("s");
    let store = D::open(&path).unwrap();
    for number in 0..RECORDS {
        let held = hold(&store, &format!("k{number}")).await;
        store.complete(done(held, outcome.clone(), DAY)).await.unwrap();
    }
    store.close().await.unwrap();
    (directory, path)
}

/// Copies the directory of a closed store of sled's.
fn copy_of(path: &Path, copy: &Path) {
    fs::create_dir(copy).unwrap();
    for entry in fs::read_dir(path).unwrap().map(Result::unwrap) {
        let to = copy.join(entry.file_name());
        // The one directory in it is empty.
        if entry.file_type().unwrap().is_dir() { fs::create_dir(to) } else { fs::copy(entry.path(), to).map(drop) }
            .unwrap();
    }
}

/// Flips a bit in the middle of what is written of the engine's log.
fn flip_in_the_middle<D: Disk>(path: &Path) -> u64 {
    let file = path.join(D::LOG);
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.iter().rposition(|byte| *byte != 0).unwrap() / 2;
    bytes[middle] ^= 1;
    fs::write(file, bytes).unwrap();
    middle as u64
}

/// Removes sled's snapshot, without which it reads its log, as after a kill.
fn lose_the_snapshot(path: &Path) {
    for entry in fs::read_dir(path).unwrap() {
        let file = entry.unwrap().path();
        if file.file_name().unwrap().to_string_lossy().starts_with("snap.") {
            fs::remove_file(file).unwrap();
        }
    }
}

// "One byte flipped in the middle of sled's log: 6,912 of 12,000 acknowledged keys charged again, and not a line was
// logged."
on_both!(a_bit_that_flips_in_the_middle_of_the_log_is_noticed_and_no_key_is_forgotten_in_silence);
async fn a_bit_that_flips_in_the_middle_of_the_log_is_noticed_and_no_key_is_forgotten_in_silence<D: Disk>() {
    let (_directory, path) = recorded::<D>().await;
    lose_the_snapshot(&path);
    let at = flip_in_the_middle::<D>(&path);
    let lost = D::open(&path).unwrap_err();
    let OpenError::Lost { last, missing: Some(missing), .. } = &lost else { panic!("{lost:?}") };
    let message = lost.to_string();
    assert!(message.contains(&format!("the last {missing} batches of writes are missing")), "{message}");
    let damage = message.split("can't be read from byte ").nth(1).expect("where the damage is");
    let byte: u64 = damage.split(' ').next().unwrap().parse().unwrap();
    assert!(byte <= at && at < byte + 200_000, "{message}, and the bit is at {at}");
    assert!(matches!(D::open(&path), Err(OpenError::Lost { .. })), "it stays so");

    let log = Log::begin(Level::ERROR);
    let store = D::builder().accept_loss_after(*last).open(&path).unwrap();
    let lines = log.lines();
    assert!(lines.iter().any(|line| line.contains("the store has lost records")), "{lines:?}");
    assert_eq!(IdempotencyLayer::new(store.clone()).stats().losses_accepted, 1);
    let mut kept = 0;
    for number in 0..RECORDS {
        kept += usize::from(store.load(id(&format!("k{number}"))).await.unwrap().is_some());
    }
    assert!(0 < kept && kept < RECORDS, "{kept} of them are there");
    store.close().await.unwrap();
    D::open(&path).unwrap();
}

// "Closed, Flip in store/db: one key ran again." sled skips the rest of the segment with the damage, and as a rule it
// panics then. The checkpoint and the totals were whole. Seeded fault: the segments before the last are not looked at.
#[tokio::test]
async fn trap_121_a_bit_that_flips_before_the_last_segments_is_noticed_before_sled_skips_anything() {
    const SEGMENT: usize = 8 * 1024 * 1024;
    // More than the last two segments can have, although sled may write all of it anew into the last ones.
    let (directory, path) = recorded_as::<SledStore>(vec![b'x'; 140_000]).await;
    // Where it is taken depends on the machine, and sled does not read what is before it.
    lose_the_snapshot(&path);
    let segments = fs::metadata(path.join("db")).unwrap().len() as usize / SEGMENT;
    assert!(segments > 3, "{segments}");
    let (mut noticed, mut last) = (0, 0);
    for segment in (0..segments - 1).rev() {
        if noticed > 1 {
            break;
        }
        let (copy, at) = (directory.path().join(segment.to_string()), segment * SEGMENT + SEGMENT / 64);
        copy_of(&path, &copy);
        let mut bytes = fs::read(copy.join("db")).unwrap();
        bytes[at] ^= 1;
        fs::write(copy.join("db"), bytes).unwrap();
        match SledStore::open(&copy) {
            Err(lost @ OpenError::Lost { missing: None, since: None, .. }) => {
                let message = lost.to_string();
                let damage = message.split("can't be read at byte ").nth(1).expect("where the damage is");
                let byte: usize = damage.split(',').next().unwrap().parse().unwrap();
                assert!(byte <= at && at < byte + 200_000, "{message}, and the bit is at {at}");
                assert_eq!(SledStore::open(&copy).unwrap_err().to_string(), message, "it stays so");
                noticed += 1;
            }
            // sled's search for the end of the log ends in this segment, or begins in it.
            Err(OpenError::Lost { .. }) => last += 1,
            Err(error) => panic!("{error:?}"),
            // sled had written all pages of this segment anew, so nothing is lost with it.
            Ok(store) => {
                for number in 0..RECORDS {
                    assert!(store.load(id(&format!("k{number}"))).await.unwrap().is_some(), "{number} of {segment}");
                }
                store.close().await.unwrap();
            }
        }
    }
    assert!(noticed > 0 && last <= 2, "{noticed}, {last}");
}

on_both!(an_older_database_under_a_newer_checkpoint_is_not_opened);
async fn an_older_database_under_a_newer_checkpoint_is_not_opened<D: Disk>() {
    let (_directory, path) = recorded::<D>().await;
    let (log, older) = (path.join(D::LOG), fs::read(path.join(D::LOG)).unwrap());
    let snapshots: Vec<_> = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()).collect();
    let store = D::open(&path).unwrap();
    let held = hold(&store, "later").await;
    store.complete(done(held, "recorded", DAY)).await.unwrap();
    store.close().await.unwrap();
    // The database alone is restored.
    fs::write(log, older).unwrap();
    for entry in fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.file_name().unwrap().to_string_lossy().starts_with("snap.") && !snapshots.contains(&entry) {
            fs::remove_file(entry).unwrap();
        }
    }
    let lost = D::open(&path).unwrap_err();
    assert!(matches!(lost, OpenError::Lost { missing: Some(1..), .. }), "{lost:?}");
}

// An engine would make a new file, and the next opening would not know what is missing.
on_both!(a_directory_without_its_log_is_refused_before_a_new_one_is_made);
async fn a_directory_without_its_log_is_refused_before_a_new_one_is_made<D: Disk>() {
    let (_directory, path) = recorded::<D>().await;
    fs::remove_file(path.join(D::LOG)).unwrap();
    lose_the_snapshot(&path);
    let files = || {
        let mut files: Vec<_> = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files.into_iter().map(|file| (fs::read(&file).ok(), file)).collect::<Vec<_>>()
    };
    let before = files();
    for _ in 0..2 {
        let error = D::open(&path).unwrap_err();
        let OpenError::Database { reason, .. } = &error else { panic!("{error:?}") };
        assert!(reason.contains("db is missing") || reason.contains("no journal"), "{reason}");
        assert!(files() == before, "no file is changed");
    }
}

on_both!(a_directory_that_was_restored_without_its_lock_file_is_not_called_somebody_else_s);
async fn a_directory_that_was_restored_without_its_lock_file_is_not_called_somebody_else_s<D: Disk>() {
    let (_directory, path) = recorded::<D>().await;
    fs::remove_file(path.join(LOCK)).unwrap();
    let error = D::open(&path).unwrap_err();
    assert!(matches!(error, OpenError::LockMissing { .. }), "{error:?}");
    let message = error.to_string();
    assert!(message.contains(LOCK) && message.contains("restore the whole directory"), "{message}");
    assert!(!path.join(LOCK).exists(), "nothing is changed");
    // This is the remedy that the error names.
    fs::write(path.join(LOCK), format!("complete\n{}\n", D::NAME)).unwrap();
    let store = D::open(&path).unwrap();
    assert!(store.load(id("k0")).await.unwrap().is_some());
}

on_both!(a_store_whose_lock_file_is_emptied_is_still_known_to_have_been_used);
async fn a_store_whose_lock_file_is_emptied_is_still_known_to_have_been_used<D: Disk>() {
    let (_directory, path) = recorded::<D>().await;
    fs::write(path.join(LOCK), []).unwrap();
    D::tear_first_opening(&path);
    let error = D::open(&path).unwrap_err();
    assert!(!matches!(error, OpenError::NotFound { .. }), "{error:?}");
    assert!(!path.join(format!("unfinished.{}.old", D::LOG)).exists(), "it is not begun anew");
}

// "A container that is started without its volume forgets every key today, with one INFO line."
on_both!(where_no_store_is_to_be_made_none_is_made);
async fn where_no_store_is_to_be_made_none_is_made<D: Disk>() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let open = || D::builder().create(false).open(&path);
    let is_not_found = || {
        let error = open().unwrap_err();
        assert!(matches!(error, OpenError::NotFound { .. }), "{error:?}");
        assert!(error.to_string().contains("volume"), "{error}");
    };
    is_not_found();
    assert!(!path.exists());
    fs::create_dir(&path).unwrap();
    is_not_found();
    assert_eq!(fs::read_dir(&path).unwrap().count(), 0);
    // The first opening of all was interrupted: nothing was recorded.
    fs::write(path.join(LOCK), []).unwrap();
    is_not_found();
    D::open(&path).unwrap().close().await.unwrap();
    open().unwrap().close().await.unwrap();
}

on_both!(a_store_that_is_made_anew_warns_that_no_key_is_known);
async fn a_store_that_is_made_anew_warns_that_no_key_is_known<D: Disk>() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let log = Log::begin(Level::WARN);
    D::open(&path).unwrap().close().await.unwrap();
    let lines = log.lines();
    assert!(lines.iter().any(|line| line.starts_with("WARN") && line.contains("no key is known")), "{lines:?}");
    let lab = Lab::counting(IdempotencyLayer::new(D::open(&path).unwrap()));
    lab.post("k", "a").await;
    assert_eq!(log.lines(), [""; 0], "only the first time");
}

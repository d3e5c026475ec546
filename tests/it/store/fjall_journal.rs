//! Damage in fjall's journals, which fjall takes for their end, or for something that its tables have.

use std::fs;
use std::path::{Path, PathBuf};

use testkit::lab::disk::{Disk as _, written};
use testkit::lab::steps::Steps as _;
use testkit::lab::time::DAY;
use testkit::lab::{done, hold, id};
use tower_idempotency::internals::Records as _;
use tower_idempotency::store::OpenError;
use tower_idempotency::{FjallStore, fjall};

use super::damaged_disk::{RECORDS, recorded};

const CHECKPOINT: &str = "tower-idempotency.checkpoint";
/// The place of the sequence number in a batch.
const NUMBER: std::ops::Range<usize> = 5..13;
/// The key of the totals, which each step of the store's writes. `step` is the fifth of its numbers.
const TOTALS: &[u8] = b"mtotals";
const STEP: std::ops::Range<usize> = 32..40;

pub(super) fn journal(path: &Path, number: usize) -> PathBuf {
    path.join(format!("{number}.jnl"))
}

/// Returns the batches of the only journal.
pub(super) fn batches(path: &Path) -> Vec<Vec<u8>> {
    const END: &[u8] = b"FJL\x03";
    let (journal, mut batches, mut from) = (written(&journal(path, 0)).unwrap(), Vec::new(), 0);
    for at in 0..journal.len() {
        if journal[at..].starts_with(END) {
            batches.push(journal[from..at + END.len()].to_vec());
            from = at + END.len();
        }
    }
    batches
}

/// Makes the batches those of journals in a row.
pub(super) fn write(path: &Path, journals: &[&[Vec<u8>]]) {
    for (number, batches) in journals.iter().enumerate() {
        fs::write(journal(path, number), batches.concat()).unwrap();
    }
}

fn is_step(batch: &[u8]) -> bool {
    batch.windows(TOTALS.len()).any(|key| key == TOTALS)
}

pub(super) async fn record(store: &FjallStore, key: &str) {
    let held = hold(store, key).await;
    store.complete(done(held, "recorded", DAY)).await.unwrap();
}

pub(super) async fn has_all(store: &FjallStore) {
    for number in 0..RECORDS {
        assert!(store.load(id(&format!("k{number}"))).await.unwrap().is_some(), "k{number}");
    }
}

/// Opens the store several times, which is refused. Returns the error.
fn refused(path: &Path) -> OpenError {
    for _ in 0..4 {
        FjallStore::open(path).unwrap_err();
    }
    FjallStore::open(path).unwrap_err()
}

/// Damages batches of the only journal. Each time the opening is refused as a loss, and the journal stays as it is.
async fn each_is_a_loss(damage: &[fn(&mut Vec<u8>)], places: impl Fn(usize) -> Vec<usize>) {
    let (_directory, path) = recorded::<FjallStore>().await;
    // The checkpoint does not cover what comes now.
    let checkpoint = fs::read(path.join(CHECKPOINT)).unwrap();
    let store = FjallStore::open(&path).unwrap();
    record(&store, "later").await;
    store.close().await.unwrap();
    fs::write(path.join(CHECKPOINT), checkpoint).unwrap();
    let sound = batches(&path);
    for at in places(sound.len()) {
        for (number, damage) in damage.iter().enumerate() {
            let mut batches = sound.clone();
            damage(&mut batches[at]);
            write(&path, &[&batches]);
            let error = refused(&path);
            assert!(matches!(error, OpenError::Lost { .. }), "damage {number} in batch {at}: {error:?}");
            assert!(fs::read(journal(&path, 0)).unwrap() == batches.concat(), "damage {number} in batch {at}");
        }
    }
    write(&path, &[&sound]);
    has_all(&FjallStore::open(&path).unwrap()).await;
}

// fjall-rs/fjall#311: one flipped byte cuts off all batches that follow. Seeded fault: whole batches after damage at
// the beginning prove nothing.
#[tokio::test]
async fn a_flipped_byte_at_the_beginning_or_in_the_middle_of_a_journal_is_a_loss_and_changes_no_file() {
    let damage: [fn(&mut Vec<u8>); 6] = [
        |batch| batch[0] ^= 4,
        |batch| batch[1] ^= 1,
        |batch| batch[NUMBER.end - 2] ^= 1,
        |batch| batch[NUMBER.end] ^= 1,
        |batch| *batch.last_mut().unwrap() ^= 1,
        |batch| {
            let middle = batch.len() / 2;
            batch[middle] ^= 1;
        },
    ];
    each_is_a_loss(&damage, |count| vec![0, 1, count / 2]).await;
}

// A write may fail halfway, and fjall's worker begin another journal before the process ends. Seeded faults: damage
// before an empty journal is a loss; damage before a batch that the checkpoint does not cover is none, in the next
// journal or before it.
#[tokio::test]
async fn a_torn_batch_before_an_empty_journal_is_cut_off_and_before_a_batch_it_is_a_loss() {
    let (_directory, path) = recorded::<FjallStore>().await;
    let checkpoint = fs::read(path.join(CHECKPOINT)).unwrap();
    let sound = batches(&path);
    let torn = [&sound[..], &[sound[0][..sound[0].len() / 2].to_vec()]].concat();
    let mut later = Vec::new();
    for empty in [vec![], vec![0; 4_096]] {
        fs::write(path.join(CHECKPOINT), &checkpoint).unwrap();
        write(&path, &[&torn, &[empty]]);
        let store = FjallStore::open(&path).unwrap();
        has_all(&store).await;
        record(&store, "later").await;
        store.close().await.unwrap();
        later = batches(&path).split_off(sound.len());
    }
    // The batch is torn before other batches of the same journal, or of the next one.
    for journals in [[&torn[..], &later], [&[&torn, &later[..]].concat(), &[]]] {
        fs::write(path.join(CHECKPOINT), &checkpoint).unwrap();
        write(&path, &journals);
        let error = refused(&path);
        assert!(matches!(error, OpenError::Lost { .. }), "{error:?}");
    }
}

// Seeded faults: the damage is cut off before the checkpoint is compared; what was kept of an earlier loss is
// overwritten.
#[tokio::test]
async fn what_a_loss_leaves_is_kept_until_it_is_accepted_and_then_too() {
    let (_directory, path) = recorded::<FjallStore>().await;
    let sound = batches(&path);
    let (first, rest) = sound.split_at(sound.len() / 2);
    let torn = [first, &[rest[0][..rest[0].len() / 2].to_vec()]].concat();
    for (kept, checkpoint) in [("1.lost", None), ("1.1.lost", Some("damaged")), ("1.2.lost", None)] {
        match checkpoint {
            Some(damaged) => fs::write(path.join(CHECKPOINT), damaged).unwrap(),
            None => fs::remove_file(path.join(CHECKPOINT)).unwrap(),
        }
        write(&path, &[&torn, rest, &[vec![0; 9]]]);
        let error = refused(&path);
        let OpenError::Lost { last, .. } = error else { panic!("{error:?}") };
        assert_eq!(fs::read(journal(&path, 0)).unwrap(), torn.concat());
        assert_eq!(fs::read(journal(&path, 1)).unwrap(), rest.concat());
        let store = FjallStore::builder().accept_loss_after(last).open(&path).unwrap();
        store.close().await.unwrap();
        assert_eq!(fs::read(path.join(kept)).unwrap(), rest.concat());
        assert!(!journal(&path, 1).exists() && !journal(&path, 2).exists());
    }
}

// fjall panics when it comes to give out such a number. Seeded faults: they are taken; they prove nothing.
#[tokio::test]
async fn a_sequence_number_that_fjall_never_gives_out_is_a_loss_even_in_a_last_batch_that_the_checkpoint_does_not_cover()
 {
    each_is_a_loss(&[|batch| batch[NUMBER.end - 1] ^= 0x80], |count| vec![0, count / 2, count - 1]).await;
}

// The journal begins after what the tables have, as it does once fjall has removed the ones before. Seeded fault: the
// steps are not compared.
#[tokio::test]
async fn a_first_batch_that_fjall_takes_for_one_in_a_table_is_missed() {
    let (_directory, path) = recorded::<FjallStore>().await;
    let store = FjallStore::open(&path).unwrap();
    store.records().unwrap().rotate_memtable_and_wait().unwrap();
    let in_tables = batches(&path).len();
    for key in ["one", "two", "three"] {
        record(&store, key).await;
    }
    store.close().await.unwrap();
    let later = batches(&path).split_off(in_tables);
    assert!(later.iter().filter(|batch| is_step(batch)).count() >= 3);
    let mut damaged = later.clone();
    damaged[0][NUMBER].fill(0);
    write(&path, &[&damaged]);
    let error = refused(&path);
    assert!(matches!(&error, OpenError::Database { reason, .. } if reason.contains("are missing")), "{error:?}");
    write(&path, &[&later]);
    let store = FjallStore::open(&path).unwrap();
    has_all(&store).await;
    assert!(store.load(id("one")).await.unwrap().is_some());
}

// Seeded faults: the steps are not compared; they are compared while fjall's worker writes tables, so that the second
// opening finds nothing wrong.
#[tokio::test]
async fn a_step_that_is_missing_in_one_journal_or_between_two_is_missed_at_each_opening() {
    let (_directory, path) = recorded::<FjallStore>().await;
    let sound = batches(&path);
    let at = (sound.len() / 2..).find(|at| is_step(&sound[*at])).unwrap();
    let (before, after) = (&sound[..at], &sound[at + 1..]);
    let (next, last) = after.split_at(after.len() / 2);
    // fjall writes what complete journals have to tables.
    for journals in [&[&[before, after].concat()[..]][..], &[before, after], &[before, next, last]] {
        write(&path, journals);
        let error = refused(&path);
        assert!(matches!(&error, OpenError::Database { reason, .. } if reason.contains("are missing")), "{error:?}");
    }
    write(&path, &[before, &sound[at..=at], after]);
    has_all(&FjallStore::open(&path).unwrap()).await;
}

// fjall judges each keyspace by itself, and gives out numbers again that only keys of a cleared keyspace had. Seeded
// fault: numbers rise over all keyspaces.
#[tokio::test]
async fn a_keyspace_that_the_application_has_cleared_is_not_taken_for_damage() {
    let (_directory, path) = recorded::<FjallStore>().await;
    let store = FjallStore::open(&path).unwrap();
    let own = store.table("own");
    for number in 0..20 {
        own.insert("key", number.to_string()).unwrap();
    }
    own.clear().unwrap();
    drop(own);
    store.close().await.unwrap();
    for key in ["one", "two"] {
        let store = FjallStore::open(&path).unwrap();
        record(&store, key).await;
        has_all(&store).await;
        store.close().await.unwrap();
    }
}

// Seeded fault: the totals of any keyspace are the store's.
#[tokio::test]
async fn a_key_of_the_application_is_never_taken_for_the_totals() {
    let (_directory, path) = recorded::<FjallStore>().await;
    let step = {
        let db = fjall::Database::builder(&path).open().unwrap();
        let open = |name| db.keyspace(name, fjall::KeyspaceCreateOptions::default).unwrap();
        let (records, own) = (open("tower-idempotency"), open("own"));
        let mut totals = records.get(TOTALS).unwrap().unwrap().to_vec();
        let step = u64::from_be_bytes(totals[STEP].try_into().unwrap()) + 1;
        totals[STEP].copy_from_slice(&step.to_be_bytes());
        // A transaction's batch, with the store's part before and after the application's.
        let mut batch = db.batch();
        batch.insert(&records, TOTALS, &*totals);
        batch.insert(&own, TOTALS, vec![0xff; totals.len()]);
        batch.commit().unwrap();
        own.insert(TOTALS, vec![0; totals.len()]).unwrap();
        db.persist(fjall::PersistMode::SyncAll).unwrap();
        step
    };
    let store = FjallStore::open(&path).unwrap();
    record(&store, "later").await;
    store.close().await.unwrap();
    // The damage is in the batch of the opening, which follows.
    let mut batches = batches(&path);
    let opening = batches.iter().rposition(|batch| batch.windows(4).any(|key| key == [0xff; 4])).unwrap() + 2;
    batches[opening][0] ^= 4;
    write(&path, &[&batches]);
    let error = refused(&path);
    assert!(matches!(error, OpenError::Lost { last, .. } if last == step), "{error:?}, and {step} is there");
}

// fjall deletes a keyspace without the file that names its tables, and leaves out what the journals have for it. Seeded
// fault: such a file may be missing if there are no tables.
#[tokio::test]
async fn a_keyspace_that_a_journal_writes_to_is_missed_before_fjall_deletes_the_rest_of_it() {
    let (_directory, path) = recorded::<FjallStore>().await;
    let store = FjallStore::open(&path).unwrap();
    store.table("charges").insert("charge", "5").unwrap();
    store.close().await.unwrap();
    let aside = path.join("aside");
    for keyspace in ["keyspaces/1", "keyspaces/2"] {
        for missing in [path.join(keyspace).join("current"), path.join(keyspace)] {
            fs::rename(&missing, &aside).unwrap();
            let error = refused(&path);
            assert!(matches!(error, OpenError::Database { .. }), "{error:?}");
            assert!(error.to_string().contains(&format!("{keyspace}/current is missing")), "{error}");
            fs::rename(&aside, &missing).unwrap();
        }
    }
    let store = FjallStore::open(&path).unwrap();
    has_all(&store).await;
    assert_eq!(store.table("charges").get("charge").unwrap().as_deref(), Some(&b"5"[..]));
}

// Seeded fault: the store goes on, and the next call finds the keyspace in memory.
#[tokio::test]
async fn a_keyspace_whose_name_may_not_be_durable_poisons_the_store() {
    let (_directory, path) = recorded::<FjallStore>().await;
    let store = FjallStore::open(&path).unwrap();
    let settings = fjall::KeyspaceCreateOptions::default;
    store.keyspace("charges", settings).unwrap();
    // The directory that has the names can't be synced.
    fs::rename(path.join("keyspaces"), path.join("aside")).unwrap();
    store.keyspace("charges", settings).map(drop).unwrap_err();
    fs::rename(path.join("aside"), path.join("keyspaces")).unwrap();
    let error = store.sync().await.unwrap_err();
    assert!(error.to_string().contains("syncing the name of a keyspace failed"), "{error}");
}

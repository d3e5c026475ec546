//! Problems of fjall's that its users have reported, and that a store must not have. `fjall_journal.rs` has #311.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use futures_util::future::join_all;
use testkit::lab::disk::Disk as _;
use testkit::lab::on_disk;
use testkit::lab::time::{DAY, clock};
use testkit::process::until;
use tower_idempotency::fjall::AbstractTree as _;
use tower_idempotency::internals::Records as _;
use tower_idempotency::store::CommitError;
use tower_idempotency::{FjallStore, IdempotencyLayer, fjall};

use super::damaged_disk::{RECORDS, recorded};
use super::fjall_journal::{batches, has_all, record, write};

/// A bound that no machine needs.
const LONG: Duration = Duration::from_secs(120);
const MIB: usize = 1024 * 1024;
/// The bytes after which fjall begins another journal, at the least.
const JOURNAL: usize = 64 * MIB;

/// Writes so many bytes to a keyspace of the application's.
async fn fill(store: &FjallStore, bytes: usize) {
    let filler = store.table("filler");
    for number in 0..bytes / MIB {
        filler.insert("row", vec![1; MIB]).unwrap();
        if number % 8 == 7 {
            store.sync().await.unwrap();
        }
    }
}

/// Returns the names and the lengths of the files that may be journals.
fn journals(path: &Path) -> Vec<(String, u64)> {
    let entries = fs::read_dir(path).unwrap().map(Result::unwrap);
    let named = entries.map(|entry| (entry.file_name().into_string().unwrap(), entry.metadata().unwrap()));
    let is_other =
        |name: &str| name.starts_with("tower-idempotency.") || ["version", "lock", "keyspaces"].contains(&name);
    named.filter(|(name, _)| !is_other(name)).map(|(name, metadata)| (name, metadata.len())).collect()
}

// fjall-rs/fjall#257: after a kill, each full journal leaves a sealed memtable, and from four on a write waits for
// fjall's worker.
#[tokio::test]
async fn a_store_that_is_opened_with_many_full_journals_writes_on() {
    let (_directory, path) = recorded::<FjallStore>().await;
    let all = batches(&path);
    let journals: Vec<&[Vec<u8>]> = all.chunks(all.len() / 12).collect();
    assert!(journals.len() >= 12);
    write(&path, &journals);
    let writes = async {
        // The opening writes, too. The end of the test does not wait for a thread of its own.
        let (opened, opening) = tokio::sync::oneshot::channel();
        thread::spawn(move || opened.send(FjallStore::open(&path).unwrap()).unwrap());
        let store = opening.await.unwrap();
        for number in 0..RECORDS {
            record(&store, &format!("later{number}")).await;
        }
        store
    };
    let store = tokio::time::timeout(LONG, writes).await.expect("writes return");
    has_all(&store).await;
}

// fjall-rs/fjall#288: a keyspace with one entry keeps every journal since. Seeded fault: fjall's own bound, which is
// half a gigabyte.
#[tokio::test]
async fn an_idle_keyspace_does_not_keep_journals_without_bound() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let store = FjallStore::open(&path).unwrap();
    store.table("idle").insert("row", "kept").unwrap();
    for number in 0..6 {
        fill(&store, JOURNAL).await;
        record(&store, &format!("k{number}")).await;
    }
    let bytes = || journals(&path).iter().map(|(_, length)| length).sum::<u64>();
    // fjall's worker removes them.
    until("the journals are few again", async || bytes() <= 4 * JOURNAL as u64).await;
    store.close().await.unwrap();
    let store = FjallStore::open(&path).unwrap();
    assert_eq!(store.table("idle").get("row").unwrap().as_deref(), Some(&b"kept"[..]));
}

// fjall would write out a full memtable by itself, and the store has taken that over. Seeded fault: memtables are
// looked at after batches with commands alone.
#[tokio::test]
async fn what_is_written_past_the_store_is_written_to_tables() {
    let directory = tempfile::tempdir().unwrap();
    let store = FjallStore::open(directory.path().join("s")).unwrap();
    let filler = store.table("filler");
    (0..16).for_each(|number: u8| filler.insert([number], vec![1; MIB]).unwrap());
    until("the first memtable is written", async || filler.table_count() > 0).await;
}

// Four full memtables of the other database would hold up every write to it. Seeded fault: keyspaces are waited for
// before they are checked, and the transaction does not return.
#[tokio::test]
async fn a_transaction_does_not_wait_for_a_keyspace_of_another_database() {
    let directory = tempfile::tempdir().unwrap();
    let elsewhere =
        fjall::Database::builder(directory.path().join("other")).worker_threads_unchecked(0).open().unwrap();
    let foreign = elsewhere.keyspace("rows", fjall::KeyspaceCreateOptions::default).unwrap();
    for _ in 0..4 {
        foreign.insert("row", "value").unwrap();
        foreign.rotate_memtable().unwrap();
    }
    let store = FjallStore::open(directory.path().join("s")).unwrap();
    let refused: Result<(), CommitError<()>> = store.transaction([&foreign], |_| Ok(())).await;
    assert!(matches!(refused, Err(CommitError::Trees(_))), "{refused:?}");
}

// fjall-rs/fjall#317: the journal that followed a recovered one had a wrong extension, and was not read again.
#[tokio::test]
async fn a_journal_that_follows_a_recovered_one_is_read_again() {
    let (_directory, path) = recorded::<FjallStore>().await;
    let store = FjallStore::open(&path).unwrap();
    // What keeps the journals.
    store.table("idle").insert("row", "kept").unwrap();
    fill(&store, JOURNAL + 16 * MIB).await;
    let names = || journals(&path).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    until("fjall begins another journal", async || names().contains(&"1.jnl".to_owned())).await;
    record(&store, "later").await;
    store.close().await.unwrap();
    for name in names() {
        let number = name.strip_suffix(".jnl").and_then(|number| number.parse::<u32>().ok());
        assert!(number.is_some(), "{name}");
    }
    let store = FjallStore::open(&path).unwrap();
    has_all(&store).await;
    assert_eq!(store.len(), RECORDS as u64 + 1);
    assert_eq!(store.table("idle").get("row").unwrap().as_deref(), Some(&b"kept"[..]));
}

// fjall-rs/fjall#230: inserts were lost while several threads wrote to several keyspaces and memtables rotated.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_insert_is_lost_while_memtables_rotate_under_writers_to_several_keyspaces() {
    const EACH: u32 = 3_000;
    const NAMES: [&str; 3] = ["one", "two", "three"];
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let store = FjallStore::builder().memtable_bytes(16 * 1024).open(&path).unwrap();
    let writers = NAMES.map(|name| {
        let keyspace: fjall::Keyspace = store.table(name);
        thread::spawn(move || {
            for number in 0..EACH {
                keyspace.insert(number.to_be_bytes(), [7; 64]).unwrap();
            }
        })
    });
    for number in 0..RECORDS {
        record(&store, &format!("k{number}")).await;
    }
    // These end before the runtime does, and without it.
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    store.sync().await.unwrap();
    let tables = store.records().unwrap().table_count();
    assert!(tables > 1, "memtables have rotated: {tables}");
    for _ in 0..2 {
        has_all(&store).await;
        for name in NAMES {
            assert_eq!(store.table(name).len().unwrap(), EACH as usize, "{name}");
        }
    }
    store.close().await.unwrap();
    let store = FjallStore::open(&path).unwrap();
    has_all(&store).await;
    for name in NAMES {
        assert_eq!(store.table(name).len().unwrap(), EACH as usize, "{name}");
    }
}

// fjall makes one merge for each memtable, and chooses those that write the least. So a large store fell behind until
// every write waited for ever; and the lists of what had expired stayed for ever, because a table of removals lies over
// many tables of lists. Seeded faults: the store makes no merges; it drops no tables; memtables stay small meanwhile.
#[tokio::test]
async fn trap_125_a_large_store_whose_records_come_and_go_does_not_fall_behind() {
    const ROUNDS: u32 = 48;
    const EACH: u32 = 1_000;
    const KEPT: u32 = 8;
    /// In a list, an id and a fence.
    const LISTED: u32 = 40;
    let clock = clock();
    let (directory, store) = on_disk(FjallStore::builder().memtable_bytes(8 * 1024).clock(clock.clone()));
    let rounds = async {
        for round in 0..ROUNDS {
            let keys: Vec<_> = (0..EACH).map(|number| format!("{round} {number}")).collect();
            join_all(keys.iter().map(|key| record(&store, key))).await;
            clock.advance(DAY / KEPT);
            while store.len() > u64::from(EACH * KEPT) {
                store.sweep(EACH as usize).await.unwrap();
            }
        }
    };
    tokio::time::timeout(LONG, rounds).await.expect("writes return");
    let lists = || {
        let version = store.records().unwrap().tree.current_version();
        let items = version.iter_tables().flat_map(|table| table.iter()).map(Result::unwrap);
        items.filter(|item| item.key.user_key.starts_with(b"e")).map(|item| item.value.len()).sum::<usize>()
    };
    until("most lists of what is gone are gone", async || lists() < (3 * KEPT * EACH * LISTED) as usize).await;
    // So that the store does not go on with it by itself.
    while store.sweep(EACH as usize).await.unwrap() > 0 {}
    let live = store.len();
    store.close().await.unwrap();
    let store = FjallStore::builder().clock(clock).open(directory.path()).unwrap();
    assert_eq!((store.len(), IdempotencyLayer::new(store).stats().corrupt), (live, 0));
}

// fjall waits for ever at an opening with over 1,000 keyspaces that have tables. Seeded fault: the bound is not kept.
#[tokio::test]
async fn a_keyspace_too_many_is_refused_and_all_others_open_again() {
    const MOST: usize = 256;
    let (_directory, path) = recorded::<FjallStore>().await;
    let settings = fjall::KeyspaceCreateOptions::default;
    for _ in 0..2 {
        let store = FjallStore::open(&path).unwrap();
        for number in 0..MOST {
            let keyspace = store.keyspace(&format!("{number}"), settings).unwrap();
            keyspace.insert("row", "").unwrap();
            keyspace.rotate_memtable().unwrap();
        }
        let error = store.keyspace("one more", settings).map(drop).unwrap_err();
        assert!(error.to_string().contains("there are 256 keyspaces already"), "{error}");
        has_all(&store).await;
        store.close().await.unwrap();
    }
}

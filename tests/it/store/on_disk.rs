//! The promises of `SledStore` beyond the contract: restarts, one owner, the details of durability.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use testkit::lab::steps::{Claimed, Steps as _, Wish};
use testkit::lab::time::DAY;
use tower_idempotency::SledStore;
use tower_idempotency::clock::Timestamp;
use tower_idempotency::internals::{Completion, Hold, Origin, Records as _, Reply, RunResult, State};
use tower_idempotency::store::{Health, OpenError, Store as _, StoreError};
use tower_idempotency::test_util::ManualClock;
use tower_idempotency::{Fingerprint, Key, RecordId};

pub(super) struct Place {
    _parent: tempfile::TempDir,
    pub(super) path: PathBuf,
}

impl Place {
    pub(super) fn new() -> Self {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("payments.db");
        Self { _parent: parent, path }
    }

    pub(super) fn open(&self) -> SledStore {
        SledStore::open(&self.path).unwrap()
    }

    /// The database itself, without the store, which is closed.
    pub(super) fn database(&self) -> sled::Db {
        // The settings of a new database belong to the format.
        sled::Config::new().path(&self.path).segment_size(8 * 1024 * 1024).open().unwrap()
    }

    /// Writes to the store's tree without the store.
    pub(super) fn plant(&self, entries: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>) {
        let db = self.database();
        let tree = db.open_tree("tower-idempotency").unwrap();
        entries.into_iter().for_each(|(key, value)| drop(tree.insert(key, value).unwrap()));
        db.flush().unwrap();
        fs::write(self.path.join("tower-idempotency.lock"), b"").unwrap();
    }
}

pub(super) fn wish(name: &str) -> Wish {
    let id = RecordId::new(None, &Key::new(name).unwrap());
    let fingerprint = Fingerprint::of(name.as_bytes());
    Wish::new(id, fingerprint)
}

pub(super) async fn claim(store: &SledStore, name: &str) -> Hold {
    match store.claim(wish(name)).await.unwrap() {
        Claimed::Fresh(hold) => hold,
        Claimed::Held(record) => panic!("held: {record:?}"),
    }
}

pub(super) async fn run(store: &SledStore, name: &str, outcome: Bytes) -> Hold {
    let hold = claim(store, name).await;
    let result = RunResult::Outcome(outcome);
    let completion =
        Completion { hold, fingerprint: wish(name).fingerprint, origin: Origin::default(), result, retention: DAY };
    assert_eq!(store.complete(completion).await.unwrap(), Reply::Taken);
    hold
}

pub(super) async fn outcome(store: &SledStore, name: &str) -> Bytes {
    match store.load(wish(name).id).await.unwrap().unwrap().state {
        State::Completed { outcome, .. } => outcome,
        other => panic!("not completed: {other:?}"),
    }
}

#[tokio::test]
async fn outcomes_small_and_large_are_there_after_a_restart() {
    let place = Place::new();
    let store = place.open();
    let large = Bytes::from(vec![7; 300_000]);
    run(&store, "small", Bytes::from("x")).await;
    run(&store, "large", large.clone()).await;
    store.close().await.unwrap();
    let store = place.open();
    assert_eq!(outcome(&store, "small").await, "x");
    assert_eq!(outcome(&store, "large").await, large);
    assert!(
        !place.path.join("blobs").read_dir().is_ok_and(|mut blobs| blobs.next().is_some()),
        "sled never syncs blobs"
    );
}

#[tokio::test]
async fn a_run_of_an_earlier_process_is_interrupted_at_once_and_its_fence_never_comes_back() {
    let place = Place::new();
    let store = place.open();
    let mut holds = Vec::new();
    for number in 0..1_100 {
        holds.push(claim(&store, &format!("k{number}")).await);
    }
    store.close().await.unwrap();
    let store = place.open();
    assert_eq!(store.interrupted(None, 2_000).await.unwrap().len(), 1_100);
    let record = store.load(holds[0].id).await.unwrap().unwrap();
    assert!(matches!(record.state, State::Interrupted { .. }), "{record:?}");
    assert_eq!(record.fence, holds[0].fence);
    let last = holds.iter().map(|hold| hold.fence).max().unwrap();
    assert!(claim(&store, "new").await.fence > last);
    let fence = store.reclaim(wish("k0"), holds[0].fence).await.unwrap().unwrap().fence;
    assert!(fence > last);
}

#[tokio::test]
async fn after_close_everything_is_refused_and_the_directory_can_be_opened_again() {
    let place = Place::new();
    for round in 0..5 {
        let store = place.open();
        run(&store, &format!("k{round}"), Bytes::from("x")).await;
        store.clone().close().await.unwrap();
        assert_eq!(store.health(), Health::Closed);
        assert!(matches!(store.claim(wish("other")).await, Err(StoreError::Unavailable { .. })));
        assert!(store.db().is_err());
        store.close().await.unwrap();
    }
}

#[tokio::test]
async fn what_was_asked_before_close_is_done() {
    let place = Place::new();
    let store = place.open();
    let holds = [claim(&store, "a").await, claim(&store, "b").await];
    let answers = holds.map(|hold| store.interrupt(hold.id, hold.fence));
    store.close().await.unwrap();
    for answer in answers {
        assert_eq!(answer.await.unwrap(), Reply::Taken);
    }
}

#[tokio::test]
async fn the_remains_of_a_torn_snapshot_do_not_stop_an_opening() {
    let place = Place::new();
    let store = place.open();
    run(&store, "k", Bytes::from("x")).await;
    store.close().await.unwrap();
    fs::write(place.path.join("snap.7FFFFFFFFFFFFFFF.generating"), b"torn").unwrap();
    let store = place.open();
    assert_eq!(outcome(&store, "k").await, "x");
}

#[tokio::test]
async fn trap_72_a_key_claimed_anew_leaves_nothing_of_its_old_record_behind() {
    let place = Place::new();
    let clock = ManualClock::new(Timestamp::from_millis(1_000_000));
    let store = SledStore::builder().clock(clock.clone()).open(&place.path).unwrap();
    let keys = |store: &SledStore| store.db().unwrap().open_tree("tower-idempotency").unwrap().len();
    run(&store, "k", Bytes::from("x")).await;
    let with_one_small = keys(&store);
    clock.advance(DAY);
    run(&store, "k", Bytes::from(vec![1; 50_000])).await;
    assert_eq!(store.sweep(100).await.unwrap(), 0, "the old list names the new record no more");
    assert_eq!(keys(&store), with_one_small + 13, "50,000 bytes are 13 chunks");
    clock.advance(DAY - Duration::from_secs(1));
    assert_eq!(store.sweep(100).await.unwrap(), 0, "it expires as it should");
    clock.advance(Duration::from_secs(1));
    run(&store, "k", Bytes::from("x")).await;
    store.sweep(100).await.unwrap();
    swept_clean(&store).await;
    assert_eq!(keys(&store), with_one_small);
}

/// Sweeps until nothing is left of outcomes whose records are gone.
async fn swept_clean(store: &SledStore) {
    let tree = store.db().unwrap().open_tree("tower-idempotency").unwrap();
    while tree.scan_prefix("g").next().is_some() {
        store.sweep(100).await.unwrap();
    }
}

#[tokio::test]
async fn a_damaged_interrupted_record_hides_no_other_and_is_freed_when_its_time_is_over() {
    let place = Place::new();
    let clock = ManualClock::new(Timestamp::from_millis(1_000_000));
    let store = SledStore::builder().clock(clock.clone()).open(&place.path).unwrap();
    for name in ["damaged", "whole"] {
        let hold = claim(&store, name).await;
        store.interrupt(hold.id, hold.fence).await.unwrap();
    }
    let tree = store.db().unwrap().open_tree("tower-idempotency").unwrap();
    tree.insert([b"r".as_slice(), wish("damaged").id.as_bytes()].concat(), "garbage").unwrap();
    let listed = store.interrupted(None, 10).await.unwrap();
    assert_eq!(listed.iter().map(|record| record.id).collect::<Vec<_>>(), [wish("whole").id]);
    assert!(matches!(store.claim(wish("damaged")).await, Err(StoreError::Corrupt { .. })));
    clock.advance(DAY);
    while tree.scan_prefix("r").next().is_some() {
        store.sweep(10).await.unwrap();
    }
    assert_eq!(tree.scan_prefix("i").count(), 0, "it is not listed under its old entry");
    let hold = claim(&store, "damaged").await;
    store.interrupt(hold.id, hold.fence).await.unwrap();
    assert_eq!(store.interrupted(None, 10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_damaged_running_record_is_freed_thirty_days_after_the_next_opening() {
    let place = Place::new();
    let clock = ManualClock::new(Timestamp::from_millis(1_000_000));
    let open = || SledStore::builder().clock(clock.clone()).open(&place.path).unwrap();
    let store = open();
    claim(&store, "k").await;
    let key = [b"r".as_slice(), wish("k").id.as_bytes()].concat();
    store.db().unwrap().open_tree("tower-idempotency").unwrap().insert(&key, "garbage").unwrap();
    store.close().await.unwrap();
    let store = open();
    clock.advance(DAY * 29);
    store.sweep(10).await.unwrap();
    assert!(matches!(store.claim(wish("k")).await, Err(StoreError::Corrupt { .. })));
    clock.advance(DAY);
    let tree = store.db().unwrap().open_tree("tower-idempotency").unwrap();
    while tree.contains_key(&key).unwrap() {
        store.sweep(10).await.unwrap();
    }
    claim(&store, "k").await;
}

#[tokio::test]
async fn a_damaged_boot_number_is_an_error_and_no_fence_comes_back() {
    let worst = [u8::MAX; 8].as_slice();
    for (key, value) in [
        ("mboot", Some(b"junk".as_slice())),
        ("mboot", Some(worst)),
        ("mboot", None),
        ("mtotals", Some(b"junk")),
        ("mtotals", None),
    ] {
        let place = Place::new();
        let store = place.open();
        store.close().await.unwrap();
        let db = place.database();
        let tree = db.open_tree("tower-idempotency").unwrap();
        match value {
            Some(value) => drop(tree.insert(key, value).unwrap()),
            None => drop(tree.remove(key).unwrap()),
        }
        db.flush().unwrap();
        drop((tree, db));
        let error = SledStore::open(&place.path).unwrap_err();
        assert!(matches!(&error, OpenError::Database { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn a_record_that_expired_is_swept_without_anybody_asking() {
    let place = Place::new();
    let clock = ManualClock::new(Timestamp::from_millis(1_000_000));
    let store = SledStore::builder().clock(clock.clone()).open(&place.path).unwrap();
    let tree = store.db().unwrap().open_tree("tower-idempotency").unwrap();
    for number in 0..50 {
        run(&store, &format!("k{number}"), Bytes::from("x")).await;
    }
    let before = tree.len();
    assert_eq!((store.len(), store.is_empty()), (50, false));
    let mut events = tree.watch_prefix("r");
    clock.advance(DAY);
    let removed = tokio::task::spawn_blocking(move || {
        let removals = std::iter::from_fn(|| events.next()).filter(|event| matches!(event, sled::Event::Remove { .. }));
        removals.take(50).count()
    });
    assert_eq!(tokio::time::timeout(Duration::from_secs(60), removed).await.unwrap().unwrap(), 50);
    // The batch is visible as a whole once a later call is answered.
    store.sweep(0).await.unwrap();
    assert_eq!(tree.len(), before - 100, "records and expiry entries");
    assert!(store.is_empty());
}

#[tokio::test]
async fn trap_75_a_clock_that_was_set_back_across_a_restart_does_not_turn_time_back() {
    let place = Place::new();
    let start = Timestamp::from_millis(10 * 86_400_000);
    let clock = ManualClock::new(start);
    let store = SledStore::builder().clock(clock.clone()).open(&place.path).unwrap();
    run(&store, "k", Bytes::from("x")).await;
    clock.advance(DAY / 2);
    let last = run(&store, "later", Bytes::from("x")).await;
    store.close().await.unwrap();
    let clock = ManualClock::new(Timestamp::from_millis(86_400_000));
    let store = SledStore::builder().clock(clock.clone()).open(&place.path).unwrap();
    clock.advance(DAY / 2);
    assert_eq!(store.load(wish("k").id).await.unwrap(), None, "a day has passed by the store's clock");
    assert!(store.load(wish("later").id).await.unwrap().is_some());
    assert!(claim(&store, "k").await.fence > last.fence, "fences come from a counter");
}

// Seeded fault: it begins by the store's time, which never goes back. Then a charge of the operation seems to be from
// before the operation began.
#[tokio::test]
async fn trap_112_after_the_clock_was_days_ahead_an_operation_does_not_begin_in_the_future() {
    for opened_anew in [false, true] {
        let place = Place::new();
        let clock = ManualClock::new(Timestamp::from_millis(10 * 86_400_000));
        let mut store = SledStore::builder().clock(clock.clone()).open(&place.path).unwrap();
        run(&store, "k", Bytes::from("x")).await;
        let right = Timestamp::from_millis(5 * 86_400_000);
        clock.jump(right);
        if opened_anew {
            store.close().await.unwrap();
            store = SledStore::builder().clock(clock.clone()).open(&place.path).unwrap();
        }
        let hold = claim(&store, "later").await;
        store.interrupt(hold.id, hold.fence).await.unwrap();
        let listed = store.interrupted(None, 9).await.unwrap();
        assert_eq!(listed.iter().map(|run| run.began).collect::<Vec<_>>(), [right], "{opened_anew}");
    }
}

#[tokio::test]
async fn a_full_store_refuses_new_keys_and_finishes_what_has_begun() {
    let place = Place::new();
    let store = SledStore::builder().max_records(3).open(&place.path).unwrap();
    let holds = [claim(&store, "a").await, claim(&store, "b").await, claim(&store, "c").await];
    for may_repeat in [false, true] {
        let refused = store.claim(Wish { may_repeat, ..wish("d") }).await;
        assert!(matches!(refused, Err(StoreError::Full { limit: "max_records" })), "{refused:?}");
    }
    for (hold, name) in holds.iter().zip(["a", "b", "c"]) {
        let result = RunResult::Outcome(Bytes::from(vec![1; 100_000]));
        let completion = Completion {
            hold: *hold,
            fingerprint: wish(name).fingerprint,
            origin: Origin::default(),
            result,
            retention: DAY,
        };
        assert_eq!(store.complete(completion).await.unwrap(), Reply::Taken);
    }
    store.close().await.unwrap();
    let store = SledStore::builder().max_records(3).open(&place.path).unwrap();
    assert!(matches!(store.claim(wish("d")).await, Err(StoreError::Full { .. })), "counted across a restart");
}

#[tokio::test]
async fn the_application_s_own_trees_are_durable_after_sync() {
    let place = Place::new();
    let store = place.open();
    store.db().unwrap().open_tree("charges").unwrap().insert("ch_1", "100").unwrap();
    store.sync().await.unwrap();
    store.close().await.unwrap();
    let store = place.open();
    assert_eq!(store.db().unwrap().open_tree("charges").unwrap().get("ch_1").unwrap().unwrap(), "100");
}

//! The promises of a store on disk beyond the contract: restarts, one owner, the details of durability.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use testkit::lab::disk::{Disk, DiskBuilder as _, Table as _};
use testkit::lab::done;
use testkit::lab::events::Events;
use testkit::lab::listed::interrupted;
use testkit::lab::steps::{Claimed, Hold, Steps as _, Wish};
use testkit::lab::time::DAY;
use testkit::on_both;
use testkit::process::until;
use tower_idempotency::SledStore;
use tower_idempotency::clock::Timestamp;
use tower_idempotency::internals::{Cause, Completion, Reply, State};
use tower_idempotency::store::{Health, OpenError, StoreError};
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

    pub(super) fn open<D: Disk>(&self) -> D {
        D::open(&self.path).unwrap()
    }
}

pub(super) fn wish(name: &str) -> Wish {
    let id = RecordId::new(None, &Key::new(name).unwrap());
    let fingerprint = Fingerprint::of(name.as_bytes());
    Wish::new(id, fingerprint)
}

pub(super) async fn claim(store: &impl Disk, name: &str) -> Hold {
    match store.claim(wish(name)).await.unwrap() {
        Claimed::Fresh(hold) => hold,
        Claimed::Held(record) => panic!("held: {record:?}"),
    }
}

pub(super) async fn run(store: &impl Disk, name: &str, outcome: Bytes) -> Hold {
    let hold = claim(store, name).await;
    let completion = Completion { operation: wish(name).claim().operation, ..done(hold, outcome, DAY) };
    assert_eq!(store.complete(completion).await.unwrap(), Reply::Taken);
    hold
}

pub(super) async fn outcome(store: &impl Disk, name: &str) -> Bytes {
    match store.load(wish(name).id).await.unwrap().unwrap().state {
        State::Completed { outcome, .. } => outcome,
        other => panic!("not completed: {other:?}"),
    }
}

on_both!(outcomes_small_and_large_are_there_after_a_restart);
async fn outcomes_small_and_large_are_there_after_a_restart<D: Disk>() {
    let place = Place::new();
    let store = place.open::<D>();
    let large = Bytes::from(vec![7; 300_000]);
    run(&store, "small", Bytes::from("x")).await;
    run(&store, "large", large.clone()).await;
    store.close().await.unwrap();
    let store = place.open::<D>();
    assert_eq!(outcome(&store, "small").await, "x");
    assert_eq!(outcome(&store, "large").await, large);
    assert!(
        !place.path.join("blobs").read_dir().is_ok_and(|mut blobs| blobs.next().is_some()),
        "sled never syncs blobs"
    );
}

on_both!(a_run_of_an_earlier_process_is_interrupted_at_once_and_its_fence_never_comes_back);
async fn a_run_of_an_earlier_process_is_interrupted_at_once_and_its_fence_never_comes_back<D: Disk>() {
    let place = Place::new();
    let store = place.open::<D>();
    let mut holds = Vec::new();
    for number in 0..1_100 {
        holds.push(claim(&store, &format!("k{number}")).await);
    }
    store.close().await.unwrap();
    let store = place.open::<D>();
    assert_eq!(interrupted(&store, 2_000).await.len(), 1_100);
    let events = Events::default();
    store.observe(events.clone()).unwrap();
    assert_eq!(events.take(), vec!["interrupted process-ended"; 1_100], "runs of which the observer learns");
    let record = store.load(holds[0].id).await.unwrap().unwrap();
    assert!(matches!(record.state, State::Interrupted { cause: Cause::ProcessEnded, .. }), "{record:?}");
    assert_eq!(record.fence, holds[0].fence);
    let last = holds.iter().map(|hold| hold.fence).max().unwrap();
    assert!(claim(&store, "new").await.fence > last);
    let fence = store.reclaim(wish("k0"), holds[0].fence).await.unwrap().unwrap().fence;
    assert!(fence > last);
    // What was found once is not found again.
    store.close().await.unwrap();
    let store = place.open::<D>();
    let events = Events::default();
    store.observe(events.clone()).unwrap();
    assert_eq!(events.take(), ["interrupted process-ended"; 2], "the new run, and the one that was claimed again");
}

on_both!(after_close_everything_is_refused_and_the_directory_can_be_opened_again);
async fn after_close_everything_is_refused_and_the_directory_can_be_opened_again<D: Disk>() {
    let place = Place::new();
    for round in 0..5 {
        let store = place.open::<D>();
        run(&store, &format!("k{round}"), Bytes::from("x")).await;
        store.clone().close().await.unwrap();
        assert_eq!(store.health(), Health::Closed);
        assert!(matches!(store.claim(wish("other")).await, Err(StoreError::Unavailable { .. })));
        assert!(store.try_table("charges").is_err());
        store.close().await.unwrap();
    }
}

on_both!(what_was_asked_before_close_is_done);
async fn what_was_asked_before_close_is_done<D: Disk>() {
    let place = Place::new();
    let store = place.open::<D>();
    let holds = [claim(&store, "a").await, claim(&store, "b").await];
    let answers = holds.map(|hold| store.interrupt(hold.id, hold.fence));
    store.close().await.unwrap();
    for answer in answers {
        assert_eq!(answer.await.unwrap(), Reply::Taken);
    }
}

#[tokio::test]
async fn the_remains_of_a_torn_snapshot_of_sleds_do_not_stop_an_opening() {
    let place = Place::new();
    let store = place.open::<SledStore>();
    run(&store, "k", Bytes::from("x")).await;
    store.close().await.unwrap();
    fs::write(place.path.join("snap.7FFFFFFFFFFFFFFF.generating"), b"torn").unwrap();
    let store = place.open::<SledStore>();
    assert_eq!(outcome(&store, "k").await, "x");
}

on_both!(trap_72_a_key_claimed_anew_leaves_nothing_of_its_old_record_behind);
async fn trap_72_a_key_claimed_anew_leaves_nothing_of_its_old_record_behind<D: Disk>() {
    let place = Place::new();
    let clock = ManualClock::new(Timestamp::from_millis(1_000_000));
    let store = D::builder().clock(clock.clone()).open(&place.path).unwrap();
    let keys = |store: &D| store.records().count("");
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
async fn swept_clean(store: &impl Disk) {
    while store.records().count("g") > 0 {
        store.sweep(100).await.unwrap();
    }
}

on_both!(a_damaged_interrupted_record_hides_no_other_and_is_freed_when_its_time_is_over);
async fn a_damaged_interrupted_record_hides_no_other_and_is_freed_when_its_time_is_over<D: Disk>() {
    let place = Place::new();
    let clock = ManualClock::new(Timestamp::from_millis(1_000_000));
    let store = D::builder().clock(clock.clone()).open(&place.path).unwrap();
    for name in ["damaged", "whole"] {
        let hold = claim(&store, name).await;
        store.interrupt(hold.id, hold.fence).await.unwrap();
    }
    let records = store.records();
    records.insert([b"r".as_slice(), wish("damaged").id.as_bytes()].concat(), "garbage");
    let listed = interrupted(&store, 10).await;
    assert_eq!(listed.iter().map(|record| record.id).collect::<Vec<_>>(), [wish("whole").id]);
    assert!(matches!(store.claim(wish("damaged")).await, Err(StoreError::Corrupt { .. })));
    clock.advance(DAY);
    while records.count("r") > 0 {
        store.sweep(10).await.unwrap();
    }
    assert_eq!(records.count("i"), 0, "it is not listed under its old entry");
    let hold = claim(&store, "damaged").await;
    store.interrupt(hold.id, hold.fence).await.unwrap();
    assert_eq!(interrupted(&store, 10).await.len(), 1);
}

on_both!(a_damaged_running_record_is_freed_thirty_days_after_the_next_opening);
async fn a_damaged_running_record_is_freed_thirty_days_after_the_next_opening<D: Disk>() {
    let place = Place::new();
    let clock = ManualClock::new(Timestamp::from_millis(1_000_000));
    let open = || D::builder().clock(clock.clone()).open(&place.path).unwrap();
    let store = open();
    claim(&store, "k").await;
    let key = [b"r".as_slice(), wish("k").id.as_bytes()].concat();
    store.records().insert(&key, "garbage");
    store.close().await.unwrap();
    let store = open();
    clock.advance(DAY * 29);
    store.sweep(10).await.unwrap();
    assert!(matches!(store.claim(wish("k")).await, Err(StoreError::Corrupt { .. })));
    clock.advance(DAY);
    while store.records().get(&key).is_some() {
        store.sweep(10).await.unwrap();
    }
    claim(&store, "k").await;
}

on_both!(a_damaged_boot_number_is_an_error_and_no_fence_comes_back);
async fn a_damaged_boot_number_is_an_error_and_no_fence_comes_back<D: Disk>() {
    let worst = [u8::MAX; 8].as_slice();
    for (key, value) in [
        ("mboot", Some(b"junk".as_slice())),
        ("mboot", Some(worst)),
        ("mboot", None),
        ("mtotals", Some(b"junk")),
        ("mtotals", None),
    ] {
        let place = Place::new();
        let store = place.open::<D>();
        store.close().await.unwrap();
        D::past_the_store(&place.path, |records| match value {
            Some(value) => records.insert(key, value),
            None => records.remove(key),
        });
        let error = D::open(&place.path).unwrap_err();
        assert!(matches!(&error, OpenError::Database { .. }), "{error:?}");
    }
}

on_both!(a_record_that_expired_is_swept_without_anybody_asking);
async fn a_record_that_expired_is_swept_without_anybody_asking<D: Disk>() {
    let place = Place::new();
    let clock = ManualClock::new(Timestamp::from_millis(1_000_000));
    let store = D::builder().clock(clock.clone()).open(&place.path).unwrap();
    for number in 0..50 {
        run(&store, &format!("k{number}"), Bytes::from("x")).await;
    }
    // All but those about the store as a whole.
    let keys = || store.records().count("") - store.records().count("m");
    assert_eq!((keys(), store.records().count("r")), (100, 50), "records and expiry entries");
    assert_eq!((store.len(), store.is_empty()), (50, false));
    clock.advance(DAY);
    until("all are swept", async || store.is_empty()).await;
    // The batch is visible as a whole once a later call is answered.
    store.sweep(0).await.unwrap();
    assert_eq!(keys(), 0, "nothing is left of them");
}

on_both!(trap_75_a_clock_that_was_set_back_across_a_restart_does_not_turn_time_back);
async fn trap_75_a_clock_that_was_set_back_across_a_restart_does_not_turn_time_back<D: Disk>() {
    let place = Place::new();
    let start = Timestamp::from_millis(10 * 86_400_000);
    let clock = ManualClock::new(start);
    let store = D::builder().clock(clock.clone()).open(&place.path).unwrap();
    run(&store, "k", Bytes::from("x")).await;
    clock.advance(DAY / 2);
    let last = run(&store, "later", Bytes::from("x")).await;
    store.close().await.unwrap();
    let clock = ManualClock::new(Timestamp::from_millis(86_400_000));
    let store = D::builder().clock(clock.clone()).open(&place.path).unwrap();
    clock.advance(DAY / 2);
    assert_eq!(store.load(wish("k").id).await.unwrap(), None, "a day has passed by the store's clock");
    assert!(store.load(wish("later").id).await.unwrap().is_some());
    assert!(claim(&store, "k").await.fence > last.fence, "fences come from a counter");
}

// Seeded fault: it begins by the store's time, which never goes back. Then a charge of the operation seems to be from
// before the operation began.
on_both!(trap_112_after_the_clock_was_days_ahead_an_operation_does_not_begin_in_the_future);
async fn trap_112_after_the_clock_was_days_ahead_an_operation_does_not_begin_in_the_future<D: Disk>() {
    for opened_anew in [false, true] {
        let place = Place::new();
        let clock = ManualClock::new(Timestamp::from_millis(10 * 86_400_000));
        let mut store = D::builder().clock(clock.clone()).open(&place.path).unwrap();
        run(&store, "k", Bytes::from("x")).await;
        let right = Timestamp::from_millis(5 * 86_400_000);
        clock.jump(right);
        if opened_anew {
            store.close().await.unwrap();
            store = D::builder().clock(clock.clone()).open(&place.path).unwrap();
        }
        let hold = claim(&store, "later").await;
        store.interrupt(hold.id, hold.fence).await.unwrap();
        let listed = interrupted(&store, 9).await;
        assert_eq!(listed.iter().map(|run| run.began).collect::<Vec<_>>(), [right], "{opened_anew}");
    }
}

on_both!(a_full_store_refuses_new_keys_and_finishes_what_has_begun);
async fn a_full_store_refuses_new_keys_and_finishes_what_has_begun<D: Disk>() {
    let place = Place::new();
    let store = D::builder().max_records(3).open(&place.path).unwrap();
    let holds = [claim(&store, "a").await, claim(&store, "b").await, claim(&store, "c").await];
    for may_repeat in [false, true] {
        let refused = store.claim(Wish { may_repeat, ..wish("d") }).await;
        assert!(matches!(refused, Err(StoreError::Full { limit: "max_records" })), "{refused:?}");
    }
    for (hold, name) in holds.iter().zip(["a", "b", "c"]) {
        let done = done(*hold, vec![1; 100_000], DAY);
        let completion = Completion { operation: wish(name).claim().operation, ..done };
        assert_eq!(store.complete(completion).await.unwrap(), Reply::Taken);
    }
    store.close().await.unwrap();
    let store = D::builder().max_records(3).open(&place.path).unwrap();
    assert!(matches!(store.claim(wish("d")).await, Err(StoreError::Full { .. })), "counted across a restart");
}

on_both!(the_application_s_own_tables_are_durable_after_sync);
async fn the_application_s_own_tables_are_durable_after_sync<D: Disk>() {
    let place = Place::new();
    let store = place.open::<D>();
    store.table("charges").insert("ch_1", "100");
    store.sync().await.unwrap();
    store.close().await.unwrap();
    let store = place.open::<D>();
    assert_eq!(store.table("charges").get("ch_1").unwrap(), "100");
}

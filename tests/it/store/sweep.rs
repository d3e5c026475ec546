//! A sweep deletes a slice of the records that are past their time, with all their parts, and nothing else.

use std::time::Duration;

use testkit::lab::disk::{Disk, DiskBuilder as _, Table as _};
use testkit::lab::listed::interrupted;
use testkit::lab::steps::Steps as _;
use testkit::lab::time::{HOUR, NOON, SECOND, clock};
use testkit::lab::{Lab, done, hold, id, on_disk};
use testkit::on_both;
use tower_idempotency::internals::{Records as _, Reply, Resolution, State};
use tower_idempotency::store::Store;
use tower_idempotency::test_util::ManualClock;
use tower_idempotency::{IdempotencyLayer, MemoryStore, SledStore};

async fn complete<St: Store>(store: &St, key: &str, retention: Duration) {
    let hold = hold(store, key).await;
    assert_eq!(store.complete(done(hold, "done", retention)).await.unwrap(), Reply::Taken);
}

#[tokio::test]
async fn trap_54_a_sweep_deletes_a_slice_and_no_more() {
    let clock = clock();
    let store = MemoryStore::builder().clock(clock.clone()).build();
    for number in 0..5 {
        complete(&store, &format!("old {number}"), HOUR).await;
    }
    complete(&store, "young", HOUR * 2).await;
    assert_eq!(store.sweep(2).await.unwrap(), 0, "nothing has expired");
    clock.advance(HOUR);
    for swept in [2, 2, 1, 0] {
        assert_eq!(store.sweep(2).await.unwrap(), swept);
    }
    assert_eq!(store.len(), 1);
    assert!(store.load(id("young")).await.unwrap().is_some());
}

on_both!(trap_54_on_disk_too_a_sweep_deletes_a_slice_with_all_that_belongs_to_it);
async fn trap_54_on_disk_too_a_sweep_deletes_a_slice_with_all_that_belongs_to_it<D: Disk>() {
    let clock = clock();
    let (_directory, store) = on_disk(D::builder().clock(clock.clone()));
    for number in 0..5 {
        complete(&store, &format!("old {number}"), HOUR).await;
    }
    complete(&store, "young", HOUR * 2).await;
    let large: &'static str = String::leak("x".repeat(10_000));
    let chunked = hold(&store, "chunked").await;
    store.complete(done(chunked, large, HOUR)).await.unwrap();
    assert_eq!(store.sweep(2).await.unwrap(), 0, "nothing has expired");
    clock.advance(HOUR);
    // The store sweeps by itself as well, so that a slice may be smaller.
    while store.records().count("r") > 1 {
        assert!(store.sweep(2).await.unwrap() <= 2);
    }
    assert_eq!(store.sweep(2).await.unwrap(), 0);
    assert!(store.load(id("young")).await.unwrap().is_some());
    let left = ["r", "e", "n", "i", "c"].map(|kind| store.records().count(kind));
    assert_eq!(left, [1, 1, 0, 0, 0], "records, expiries, running, interrupted, chunks");
}

async fn sweep_spares_the_running<St: Store>(store: St, clock: &ManualClock) {
    let running = hold(&store, "running").await;
    let cut = hold(&store, "cut").await;
    complete(&store, "done", HOUR).await;
    clock.advance(HOUR * 24 * 365 * 10);
    store.interrupt(cut.id, cut.fence).await.unwrap();
    assert!(store.sweep(100).await.unwrap() <= 1);
    assert_eq!(store.sweep(100).await.unwrap(), 0);
    let record = store.load(id("running")).await.unwrap().expect("the running one is there");
    assert!(matches!(record.state, State::Running { .. }), "{record:?}");
    assert_eq!(record.fence, running.fence);
    assert_eq!(interrupted(&store, 10).await.len(), 1, "kept a day from when it was interrupted");
    assert_eq!(store.complete(done(running, "late", HOUR)).await.unwrap(), Reply::Taken);
    let record = store.load(id("running")).await.unwrap().expect("the completed one is there");
    assert!(matches!(&record.state, State::Completed { outcome, .. } if outcome == "late"), "{record:?}");
}

#[tokio::test]
async fn trap_55_a_sweep_spares_a_running_claim_however_old() {
    let clock = clock();
    sweep_spares_the_running(MemoryStore::builder().clock(clock.clone()).build(), &clock).await;
    let (_directory, store) = on_disk(SledStore::builder().clock(clock.clone()));
    sweep_spares_the_running(store, &clock).await;
    #[cfg(feature = "fjall")]
    {
        let (_directory, store) = on_disk(tower_idempotency::FjallStore::builder().clock(clock.clone()));
        sweep_spares_the_running(store, &clock).await;
    }
}

async fn claimed_again<St: Store + Clone>(store: St, clock: &ManualClock) {
    let lab = Lab::counting(IdempotencyLayer::new(store.clone()).retention(HOUR));
    lab.post("done", "a").await;
    lab.post("running", "a").await;
    clock.advance(HOUR * 2);
    assert_eq!(lab.post("done", "a").await.text(), "effect 3");
    let running = hold(&store, "running").await;
    while store.sweep(100).await.unwrap() > 0 {}
    clock.advance(HOUR - SECOND);
    assert_eq!(store.sweep(100).await.unwrap(), 0);
    let retry = lab.post("done", "a").await;
    assert_eq!((retry.text(), retry.is_replay(), lab.effects()), ("effect 3", true, 3));
    let record = store.load(running.id).await.unwrap().expect("the new claim is there");
    assert!(matches!(record.state, State::Running { .. }) && record.fence == running.fence, "{record:?}");
}

#[tokio::test]
async fn trap_72_the_old_expiry_of_a_key_claimed_again_does_not_sweep_the_new_record() {
    let clock = ManualClock::new(NOON);
    claimed_again(MemoryStore::builder().clock(clock.clone()).build(), &clock).await;
}

on_both!(trap_72_on_disk_too_the_old_expiry_of_a_key_claimed_again_does_not_sweep_the_new_record);
async fn trap_72_on_disk_too_the_old_expiry_of_a_key_claimed_again_does_not_sweep_the_new_record<D: Disk>() {
    let clock = ManualClock::new(NOON);
    let (_directory, store) = on_disk(D::builder().clock(clock.clone()));
    claimed_again(store.clone(), &clock).await;
    assert_eq!(store.records().count("e"), 1, "the old lists went when their time was over");
}

// Seeded faults: the deleted outcome stays counted; nothing leads to its chunks; its record is listed no more.
on_both!(a_forgotten_answer_frees_its_bytes_and_the_record_goes_at_its_expiry);
async fn a_forgotten_answer_frees_its_bytes_and_the_record_goes_at_its_expiry<D: Disk>() {
    let clock = clock();
    let (directory, store) = on_disk(D::builder().clock(clock.clone()));
    let large: &'static str = String::leak("x".repeat(9_000));
    let (inline, chunked) = (hold(&store, "inline").await, hold(&store, "chunked").await);
    for (hold, outcome) in [(inline, "done"), (chunked, large)] {
        assert_eq!(store.complete(done(hold, outcome, HOUR)).await.unwrap(), Reply::Taken);
    }
    assert_eq!(store.gauges().bytes, Some(9_004));
    for hold in [inline, chunked] {
        let forget = Resolution::ForgetAnswer { status: 201 };
        assert_eq!(store.settle(hold.id, hold.fence, forget).await.unwrap(), Reply::Taken);
    }
    assert_eq!((store.gauges().records, store.gauges().bytes), (Some(2), Some(0)));
    store.close().await.unwrap();
    drop(store);
    let store = D::builder().clock(clock.clone()).open(directory.path()).unwrap();
    store.sweep(1_000).await.unwrap();
    assert_eq!(store.records().count("c"), 0, "no chunk is left");
    clock.advance(HOUR - SECOND);
    assert_eq!(store.sweep(1_000).await.unwrap(), 0);
    for hold in [inline, chunked] {
        let record = store.load(hold.id).await.unwrap().expect("the fact is there");
        assert_eq!((record.fence, record.state), (hold.fence, State::Consumed { status: 201 }));
    }
    assert_eq!((store.gauges().records, store.gauges().bytes), (Some(2), Some(0)));
    clock.advance(SECOND);
    while store.records().count("r") > 0 {
        store.sweep(1_000).await.unwrap();
    }
    assert_eq!((store.gauges().records, store.gauges().bytes), (Some(0), Some(0)));
}

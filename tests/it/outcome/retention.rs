//! An outcome is kept from the end of its run for its retention, by a clock that can't be set, and never replayed after
//! that.

use std::time::Duration;

use testkit::Gate;
use testkit::lab::asked::leave_interrupted_under;
use testkit::lab::time::{DAY, HOUR, NOON, SECOND, clock};
use testkit::lab::{Lab, gated, on_disk, post, settle};
use tower_idempotency::clock::{Clock, Timestamp};
use tower_idempotency::internals::ClaimPolicy;
use tower_idempotency::store::Store;
use tower_idempotency::test_util::{ManualClock, StoreCall, TestStore};
use tower_idempotency::{IdempotencyLayer, MemoryStore, OnInterrupted, SledStore};

fn in_memory(clock: impl Clock) -> MemoryStore {
    MemoryStore::builder().clock(clock).build()
}

async fn retention_from_completion<St: Store>(layer: IdempotencyLayer<St>, clock: &ManualClock) {
    let gate = Gate::default();
    let lab = gated(layer.retention(HOUR), &gate);
    let first = lab.spawn(post("k", "a"));
    gate.arrival().await;
    clock.advance(HOUR * 5);
    gate.open();
    assert_eq!(first.await.unwrap().text(), "effect 1");
    clock.advance(HOUR - Duration::from_millis(1));
    let retry = lab.post("k", "a").await;
    assert_eq!((retry.text(), retry.is_replay(), lab.effects()), ("effect 1", true, 1));
    clock.advance(Duration::from_millis(1));
    assert_eq!((lab.post("k", "a").await.text(), lab.effects()), ("effect 2", 2));
}

#[tokio::test]
async fn trap_02_retention_starts_when_the_run_completes() {
    let clock = clock();
    retention_from_completion(IdempotencyLayer::new(in_memory(clock.clone())), &clock).await;
    let (_directory, store) = on_disk(SledStore::builder().clock(clock.clone()));
    retention_from_completion(IdempotencyLayer::new(store), &clock).await;
    #[cfg(feature = "fjall")]
    {
        let (_directory, store) = on_disk(tower_idempotency::FjallStore::builder().clock(clock.clone()));
        retention_from_completion(IdempotencyLayer::new(store), &clock).await;
    }
}

#[tokio::test]
async fn trap_05_a_record_that_expires_before_the_claim_is_claimed_and_runs_once() {
    let clock = clock();
    let store = TestStore::with_clock(clock.clone());
    leave_interrupted_under(ClaimPolicy::Rerun, &store, "k").await;
    // Under `Refuse` it would be refused by the look-up alone.
    let lab = Lab::counting(IdempotencyLayer::new(store.clone()).on_interrupted(OnInterrupted::Rerun));
    let stall = store.stall(StoreCall::Claim);
    let request = lab.spawn(post("k", "a"));
    settle().await;
    clock.advance(HOUR * 24);
    stall.release();
    assert_eq!(request.await.unwrap().text(), "effect 1");
    assert!(lab.post("k", "a").await.is_replay());
    assert_eq!(lab.effects(), 1);
}

#[tokio::test]
async fn trap_05_a_record_that_expires_between_claim_and_reclaim_is_claimed_again_not_run_without() {
    let clock = clock();
    let store = TestStore::with_clock(clock.clone());
    leave_interrupted_under(ClaimPolicy::Rerun, &store, "k").await;
    let lab = Lab::counting(IdempotencyLayer::new(store.clone()).on_interrupted(OnInterrupted::Rerun));
    let stall = store.stall(StoreCall::Reclaim);
    let request = lab.spawn(post("k", "a"));
    settle().await;
    clock.advance(HOUR * 24 * 31);
    stall.release();
    assert_eq!(request.await.unwrap().text(), "effect 1");
    assert!(lab.post("k", "a").await.is_replay());
    assert_eq!(lab.effects(), 1);
}

async fn expired_never_answers<St: Store>(layer: IdempotencyLayer<St>, clock: &ManualClock) {
    let lab = Lab::counting(layer.retention(HOUR));
    lab.post("k", "a").await;
    clock.advance(HOUR - Duration::from_millis(1));
    assert!(lab.post("k", "a").await.is_replay());
    clock.advance(Duration::from_millis(1));
    // Another request may have it too: nothing of the expired one is compared.
    let again = lab.post("k", "b").await;
    assert_eq!((again.text(), again.is_replay(), lab.effects()), ("effect 2", false, 2));
    assert_eq!(lab.post("k", "b").await.text(), "effect 2");
    assert_eq!(lab.effects(), 2);
}

#[tokio::test]
async fn trap_10_a_record_past_its_retention_never_answers_swept_or_not() {
    let clock = clock();
    expired_never_answers(IdempotencyLayer::new(in_memory(clock.clone())), &clock).await;
    expired_never_answers(IdempotencyLayer::new(TestStore::with_clock(clock.clone())), &clock).await;
    let (_directory, store) = on_disk(SledStore::builder().clock(clock.clone()));
    expired_never_answers(IdempotencyLayer::new(store), &clock).await;
    #[cfg(feature = "fjall")]
    {
        let (_directory, store) = on_disk(tower_idempotency::FjallStore::builder().clock(clock.clone()));
        expired_never_answers(IdempotencyLayer::new(store), &clock).await;
    }
}

async fn jumps<St: Store>(layer: IdempotencyLayer<St>, clock: &ManualClock) {
    let lab = Lab::counting(layer.retention(HOUR));
    lab.post("k", "a").await;
    for wall in [NOON.as_millis() + 86_400_000, NOON.as_millis() - 86_400_000, 0] {
        clock.jump(Timestamp::from_millis(wall));
        assert!(lab.post("k", "a").await.is_replay(), "the wall clock shows {wall}");
    }
    clock.advance(HOUR - SECOND);
    assert!(lab.post("k", "a").await.is_replay());
    clock.advance(SECOND);
    assert_eq!((lab.post("k", "a").await.text(), lab.effects()), ("effect 2", 2), "nor does it live longer");
}

#[tokio::test]
async fn trap_75_a_wall_clock_that_jumps_neither_expires_nor_prolongs_a_record() {
    let clock = ManualClock::new(NOON);
    jumps(IdempotencyLayer::new(MemoryStore::builder().clock(clock.clone()).build()), &clock).await;
    let clock = ManualClock::new(NOON);
    let (_directory, store) = on_disk(SledStore::builder().clock(clock.clone()));
    jumps(IdempotencyLayer::new(store), &clock).await;
    #[cfg(feature = "fjall")]
    {
        let clock = ManualClock::new(NOON);
        let (_directory, store) = on_disk(tower_idempotency::FjallStore::builder().clock(clock.clone()));
        jumps(IdempotencyLayer::new(store), &clock).await;
    }
}

#[tokio::test]
async fn interrupted_retention_ends_and_the_key_is_new() {
    let clock = ManualClock::new(Timestamp::from_millis(1));
    let layer = IdempotencyLayer::new(TestStore::with_clock(clock.clone())).interrupted_retention(DAY * 3);
    let lab = Lab::new(layer, |n| async move { if n == 1 { panic!("on purpose") } else { "done" } });
    assert_eq!(lab.post("k", "a").await.problem(), "outcome-unknown");
    clock.advance(DAY * 3 - SECOND);
    lab.post("k", "a").await.assert_refusal(409, "outcome-unknown", false, None);
    clock.advance(SECOND);
    assert_eq!(lab.post("k", "a").await.text(), "done");
}

#[tokio::test]
async fn a_shorter_retention_applies_to_new_records_only() {
    let clock = clock();
    let store = in_memory(clock.clone());
    let before = Lab::counting(IdempotencyLayer::new(store.clone()).retention(DAY));
    before.post("old", "a").await;
    let after = Lab::counting(IdempotencyLayer::new(store).retention(HOUR));
    after.post("new", "a").await;
    clock.advance(HOUR * 2);
    assert!(after.post("old", "a").await.is_replay());
    assert!(!after.post("new", "a").await.is_replay());
    clock.advance(HOUR * 22);
    assert!(!after.post("old", "a").await.is_replay());
}

//! Asking the application while the store is away, slow, or forgets: found by a review, kept as promises.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod common;

use std::time::Duration;

use common::asked::{Asked, asking, cut_short, found};
use common::lab::{Gate, Lab, settle};
use tower_idempotency::clock::Timestamp;
use tower_idempotency::engine::{InterruptedRun, Reconciled, Reconciler};
use tower_idempotency::test_util::{ManualClock, TestStore, Verb};
use tower_idempotency::{IdempotencyLayer, OnInterrupted};

const DAY: Duration = Duration::from_secs(86_400);
const NOON: Timestamp = Timestamp::from_millis(1_800_000_000_000);

/// The look-up has shown that the operation was cut short; then the claim, where there is one, fails.
#[tokio::test]
async fn fail_open_does_not_run_what_was_just_seen_to_be_interrupted() {
    let asked = Asked::default();
    let reconcile = OnInterrupted::Reconcile(asked.says([found("charged")]));
    for (policy, status, slug) in
        [(OnInterrupted::Refuse, 409, "outcome-unknown"), (reconcile, 503, "store-unavailable")]
    {
        let store = TestStore::new();
        cut_short(&store, "k").await;
        let layer = IdempotencyLayer::new(store.clone()).on_interrupted(policy.clone()).fail_open(true);
        let lab = Lab::counting(layer.clone());
        store.fail_next(Verb::Claim);
        assert_eq!(lab.post("k", "a").await.refusal(), (status, slug.to_owned()));
        assert_eq!((lab.effects(), layer.counts().unprotected), (0, 0), "{policy:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_retry_does_not_wait_for_ever_for_the_look_up_of_reconcile_all() {
    let (store, asked) = (TestStore::new(), Asked::default());
    cut_short(&store, "k").await;
    let layer = asking(store.clone(), asked.says([found("charged")]));
    let lab = Lab::counting(layer.clone());
    let _stall = store.stall(Verb::Load);
    tokio::spawn(async move { layer.reconcile_all().await });
    settle().await;
    let retry = tokio::time::timeout(DAY, lab.post("k", "a")).await;
    assert!(retry.is_ok(), "no answer within a day");
}

#[tokio::test(start_paused = true)]
async fn reconcile_all_itself_ends_while_the_store_stalls() {
    for verb in [Verb::Load, Verb::Resolve] {
        let (store, asked) = (TestStore::new(), Asked::default());
        cut_short(&store, "k").await;
        let layer = asking(store.clone(), asked.says([found("charged")]));
        let _stall = store.stall(verb);
        let sum = tokio::time::timeout(DAY, layer.reconcile_all()).await;
        assert!(sum.is_ok(), "{verb:?}");
    }
}

/// "Run it again", but the take-over fails: the store is known to hold an interrupted operation.
#[tokio::test]
async fn fail_open_does_not_run_unprotected_what_may_run_again() {
    let (store, asked) = (TestStore::new(), Asked::default());
    cut_short(&store, "k").await;
    let layer = asking(store.clone(), asked.says([Reconciled::RunAgain])).fail_open(true);
    let lab = Lab::counting(layer.clone());
    store.fail_next(Verb::Reclaim);
    lab.post("k", "a").await.assert_refusal(503, "store-unavailable", true, Some("1"));
    assert_eq!(lab.post("k", "a").await.text(), "effect 1");
    assert_eq!((layer.counts().unprotected, lab.effects()), (0, 1));
}

/// The store works; the operation expired while it was asked about.
#[tokio::test]
async fn fail_open_does_not_run_unprotected_while_the_store_works() {
    for fail_open in [false, true] {
        let clock = ManualClock::new(NOON);
        let store = TestStore::with_clock(clock.clone());
        cut_short(&store, "k").await;
        let reconciler = Reconciler::new(move |_: InterruptedRun| {
            clock.advance(DAY);
            std::future::ready(Reconciled::RunAgain)
        });
        let layer = asking(store.clone(), reconciler).fail_open(fail_open);
        let lab = Lab::counting(layer.clone());
        assert_eq!(lab.post("k", "a").await.text(), "effect 1", "fail_open {fail_open}");
        assert_eq!(layer.counts().unprotected, 0);
    }
}

/// The store fails to record what was found: "come again", not "nobody knows".
#[tokio::test]
async fn a_verdict_that_the_store_fails_to_record_is_refused_as_unavailable() {
    let (store, asked) = (TestStore::new(), Asked::default());
    cut_short(&store, "k").await;
    let lab = Lab::counting(asking(store.clone(), asked.says([found("charged")])));
    (0..3).for_each(|_| store.fail_next(Verb::Resolve));
    lab.post("k", "a").await.assert_refusal(503, "store-unavailable", true, Some("1"));
}

/// Operations that expire between the listing and their question count as unknown.
#[tokio::test]
async fn what_is_no_longer_there_is_not_counted() {
    let (asked, clock, gate) = (Asked::default(), ManualClock::new(NOON), Gate::default());
    let store = TestStore::with_clock(clock.clone());
    for number in 0..20 {
        cut_short(&store, &format!("k{number}")).await;
    }
    let layer = asking(store, asked.says_behind(&gate, [Reconciled::Unknown]));
    let sweep = tokio::spawn(async move { layer.reconcile_all().await.unwrap() });
    gate.arrival().await;
    settle().await;
    clock.advance(DAY);
    gate.open();
    let sum = sweep.await.unwrap();
    assert_eq!((sum.unknown, asked.times()), (16, 16));
}

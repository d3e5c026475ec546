//! Outcomes that the store has not recorded yet and that only this process knows.

use std::time::Duration;

use futures_util::FutureExt as _;
use http::StatusCode;
use testkit::lab::operator::Operated as _;
use testkit::lab::time::HOUR;
use testkit::lab::{Lab, id, post, settle};
use testkit::{Answer, Gate};
use tokio::task::JoinHandle;
use tower_idempotency::internals::Fence;
use tower_idempotency::operations::{Action, ChangeError};
use tower_idempotency::store::StoreError;
use tower_idempotency::test_util::{StoreCall, TestStore};
use tower_idempotency::{IdempotencyLayer, OnInterrupted};

use super::overload::KIB;

/// A layer whose store can't record outcomes of 1 MiB.
fn unrecordable(store: &TestStore, policy: OnInterrupted) -> (Lab, IdempotencyLayer<TestStore>) {
    let layer = IdempotencyLayer::new(store.clone()).on_interrupted(policy).max_response_body(usize::MAX);
    (Lab::new(layer.clone(), |number| async move { (number.to_string(), vec![b'x'; 1024 * KIB]).1 }), layer)
}

/// Begins 70 runs that return 1 MiB each once the gate is open.
async fn seventy_runs(layer: &IdempotencyLayer<TestStore>) -> (Lab, Vec<JoinHandle<Answer>>, Gate) {
    let gate = Gate::default();
    let waits = gate.clone();
    let lab = Lab::new(layer.clone(), move |_| {
        let gate = waits.clone();
        async move {
            gate.pass().await;
            vec![b'x'; 1024 * KIB]
        }
    });
    let requests = (0..70).map(|number| lab.spawn(post(&format!("k{number}"), "a"))).collect();
    settle().await;
    (lab, requests, gate)
}

#[tokio::test(start_paused = true)]
async fn outcomes_that_cannot_be_recorded_are_bounded_and_nothing_runs_again() {
    for policy in [OnInterrupted::Refuse, OnInterrupted::Rerun] {
        let store = TestStore::new();
        let (lab, layer) = unrecordable(&store, policy);
        // From outside, so that new runs are not refused before the bound is reached.
        let (under_way, requests, gate) = seventy_runs(&layer).await;
        assert_eq!(layer.stats().live, 70);
        for call in [StoreCall::Complete, StoreCall::Interrupt] {
            (0..1_000).for_each(|_| store.fail_next(call));
        }
        gate.open();
        for request in requests {
            assert_eq!(request.await.unwrap().status, StatusCode::OK, "who ran gets the answer");
        }
        lab.post("new", "a").await.assert_refusal(503, "overloaded", true, Some("2"));
        let mut told = [0, 0];
        for number in 0..70 {
            let retry = lab.post(&format!("k{number}"), "a").await;
            if retry.is_replay() {
                told[0] += 1;
            } else {
                assert_eq!(retry.refusal(), (409, "outcome-unknown".to_owned()));
                told[1] += 1;
            }
        }
        assert!(told[0] >= 60 && told[1] >= 5 && told[0] + told[1] == 70, "{told:?}");
        assert_eq!((lab.effects(), under_way.effects()), (0, 70));
        let drained = layer.drain(Duration::from_millis(1)).await;
        assert_eq!((drained.runs, drained.unsaved, drained.is_complete()), (0, 70, false));
    }
}

#[tokio::test(start_paused = true)]
async fn what_only_this_process_knows_ends_with_the_retention() {
    let store = TestStore::new();
    let layer = IdempotencyLayer::new(store.clone()).retention(HOUR).on_interrupted(OnInterrupted::Rerun);
    let lab = Lab::counting(layer.clone());
    (0..1_000).for_each(|_| store.fail_next(StoreCall::Complete));
    assert_eq!(lab.post("k", "a").await.text(), "effect 1");
    tokio::time::advance(HOUR - Duration::from_secs(60)).await;
    assert!(lab.post("k", "a").await.is_replay());
    tokio::time::advance(Duration::from_secs(61)).await;
    assert_eq!(lab.post("k", "a").await.text(), "effect 2", "as if it had been recorded");
}

#[tokio::test(start_paused = true)]
async fn trap_88_drain_waits_for_outcomes_that_the_store_is_still_being_told() {
    let store = TestStore::new();
    let layer = IdempotencyLayer::new(store.clone());
    let lab = Lab::counting(layer.clone());
    (0..4).for_each(|_| store.fail_next(StoreCall::Complete));
    assert_eq!(lab.post("k", "a").await.text(), "effect 1");
    assert_eq!((layer.stats().unsaved, layer.stats().live), (1, 0));
    let mut drained = Box::pin(layer.drain(HOUR));
    assert!((&mut drained).now_or_never().is_none());
    assert!(drained.await.is_complete());
    let after = lab.behind(IdempotencyLayer::new(store.reopen()), |_| async { "again" });
    assert_eq!(after.post("k", "a").await.text(), "effect 1", "it was recorded before drain returned");
}

#[tokio::test(start_paused = true)]
async fn settling_by_hand_what_this_process_knows_says_so() {
    let store = TestStore::new();
    let layer = IdempotencyLayer::new(store.clone());
    let lab = Lab::counting(layer.clone());
    (0..1_000).for_each(|_| store.fail_next(StoreCall::Complete));
    assert_eq!(lab.post("k", "a").await.text(), "effect 1");
    let held = layer.resolve(id("k"), Fence(1), Action::Release).await;
    assert!(
        matches!(&held, Err(ChangeError::Store(StoreError::Unavailable { reason, .. })) if reason.contains("this process holds")),
        "{held:?}"
    );
}

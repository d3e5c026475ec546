//! Answers of a reconciler that cannot be recorded: the operation stays unknown.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::Body;
use http::Response;
use testkit::lab::asked::{counted, leave_interrupted};
use testkit::lab::operator::Operated as _;
use testkit::lab::{Lab, frames};
use tower_idempotency::IdempotencyLayer;
use tower_idempotency::engine::{Reconciled, Reconciler};
use tower_idempotency::test_util::TestStore;

/// A layer that records answers of at most ten bytes, and whose application found one with this body.
fn finding(store: TestStore, asked: &Arc<AtomicUsize>, body: fn() -> Body) -> IdempotencyLayer<TestStore> {
    let asked = Arc::clone(asked);
    let reconciler = Reconciler::new(move |_| {
        asked.fetch_add(1, Ordering::SeqCst);
        async move { Reconciled::Outcome(Response::new(body())) }
    });
    IdempotencyLayer::new(store).max_response_body(10).reconcile_with(reconciler)
}

async fn is_unknown(what: &str, body: fn() -> Body) {
    let (store, asked) = (TestStore::new(), Arc::default());
    let fence = leave_interrupted(&store, "k").await.fence;
    let layer = finding(store.clone(), &asked, body);
    let lab = Lab::counting(layer.clone());
    for times in 1..=2 {
        lab.post("k", "a").await.assert_refusal(409, "outcome-unknown", true, None);
        assert_eq!(asked.load(Ordering::SeqCst), times, "{what}: the next retry asks again");
    }
    assert_eq!(counted(layer.reconcile_all().await.unwrap()), (0, 0, 1), "{what}");
    let Ok([left]) = <[_; 1]>::try_from(layer.interrupted(9).await.unwrap()) else {
        panic!("{what}: it is still interrupted")
    };
    assert!(left.fence > fence, "{what}: each question has a fence of its own");
    let counts = layer.stats();
    assert_eq!((counts.reconciled, counts.runs, counts.replays, counts.live), (0, 0, 0, 0), "{what}");

    // An answer that just fits is recorded.
    let restarted = Lab::counting(finding(store.reopen(), &asked, || frames([Ok("ten "), Ok("bytes.")])));
    let found = restarted.post("k", "a").await;
    assert_eq!((found.text(), found.is_replay()), ("ten bytes.", true), "{what}");
    assert_eq!((lab.effects(), restarted.effects()), (0, 0), "{what}");
}

#[tokio::test]
async fn an_answer_whose_body_fails_counts_as_unknown_and_nothing_is_recorded_or_run() {
    is_unknown("fails at once", || frames([Err("gone")])).await;
    is_unknown("fails half-way", || frames([Ok("half"), Err("gone")])).await;
}

#[tokio::test]
async fn an_answer_that_is_too_long_to_record_counts_as_unknown_and_nothing_is_recorded_or_run() {
    is_unknown("says that it is", || Body::from("eleven byte")).await;
    is_unknown("turns out to be", || frames([Ok("ten bytes."), Ok("!")])).await;
}

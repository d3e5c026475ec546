//! A client that goes away changes nothing: the run goes on, its outcome is recorded, and the retry gets it (promise
//! 4); a process that shuts down waits for such runs.

use http::StatusCode;
use testkit::Gate;
use testkit::lab::time::SECOND;
use testkit::lab::{Lab, at_once, gated, layer, post, settle};
use tower_http::timeout::TimeoutLayer;
use tower_idempotency::test_util::{StoreCall, TestStore};
use tower_idempotency::{IdempotencyLayer, MemoryStore};

// Row: client goes away → the run goes on and is recorded.

#[tokio::test]
async fn trap_11_a_client_that_goes_away_changes_nothing() {
    let layer = layer();
    let (lab, gate) = Lab::gated(layer.clone());
    let request = lab.spawn(post("k", "a"));
    gate.arrival().await;
    request.abort();
    assert!(request.await.unwrap_err().is_cancelled());
    gate.open();
    let retry = lab.post("k", "a").await;
    assert_eq!((retry.text(), retry.is_replay(), lab.effects()), ("effect 1", true, 1));
}

#[tokio::test]
async fn a_client_that_goes_away_before_the_handler_is_called_changes_nothing() {
    let lab = Lab::counting(layer());
    let mut request = Box::pin(lab.send(post("k", "a")));
    assert!(at_once(&mut request).is_none(), "the run was spawned and has not begun");
    drop(request);
    let retry = lab.post("k", "a").await;
    assert_eq!((retry.text(), retry.is_replay(), lab.effects()), ("effect 1", true, 1));
}

#[tokio::test(start_paused = true)]
async fn trap_11_an_outer_timeout_stops_the_answer_and_not_the_run() {
    let gate = Gate::default();
    let mut lab = gated(IdempotencyLayer::new(MemoryStore::new()), &gate);
    lab.app = lab.app.layer(TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, SECOND));
    assert_eq!(lab.post("k", "a").await.status, StatusCode::REQUEST_TIMEOUT);
    gate.open();
    let retry = lab.post("k", "a").await;
    assert_eq!((retry.text(), retry.is_replay(), lab.effects()), ("effect 1", true, 1));
}

#[tokio::test]
async fn trap_12_the_record_is_written_though_its_request_was_dropped() {
    let store = TestStore::new();
    let lab = Lab::counting(IdempotencyLayer::new(store.clone()));
    let stall = store.stall(StoreCall::Complete);
    let request = lab.spawn(post("k", "a"));
    settle().await;
    assert_eq!(lab.effects(), 1, "the handler is done, the record is under way");
    request.abort();
    assert!(request.await.unwrap_err().is_cancelled());
    stall.release();
    settle().await;
    // Another process finds the record: the store has it, and not this process alone.
    let lab = Lab::counting(IdempotencyLayer::new(store.reopen()));
    let retry = lab.post("k", "a").await;
    assert_eq!((retry.text(), retry.is_replay(), lab.effects()), ("effect 1", true, 0));
}

// Row: shutdown → `drain()` waits for runs up to a deadline and says how many were left. Row: shutting down, new key →
// 503 `shutting-down`; replays are still given.

#[tokio::test(start_paused = true)]
async fn trap_17_drain_waits_for_detached_runs_and_says_how_many_are_left() {
    let (store, gate) = (TestStore::new(), Gate::default());
    let layer = IdempotencyLayer::new(store.clone());
    let done = Lab::counting(layer.clone());
    done.post("old", "a").await;
    let lab = gated(layer.clone(), &gate);
    let request = lab.spawn(post("k", "a"));
    gate.arrival().await;
    request.abort();

    assert_eq!(layer.drain(SECOND).await.runs, 1);
    let refused = lab.post("new", "a").await;
    assert_eq!(refused.refusal(), (503, "shutting-down".to_owned()));
    assert_eq!(refused.headers["retry-after"], "1");
    assert!(done.post("old", "a").await.is_replay(), "replays are still given");

    let (drained, ()) = tokio::join!(layer.drain(SECOND * 60), async { gate.open() });
    assert!(drained.is_complete());
    assert_eq!(layer.stats().live, 0);
    assert!(lab.post("k", "a").await.is_replay());
    lab.post("k", "b").await.assert_refusal(422, "key-reused", false, None);
    let reopened = Lab::counting(IdempotencyLayer::new(store.reopen()));
    assert!(reopened.post("k", "a").await.is_replay(), "recorded before drain returned");
    assert_eq!((lab.effects(), reopened.effects()), (1, 0));
}

#[tokio::test]
async fn trap_68_a_claim_whose_requester_is_gone_is_run_and_recorded() {
    let store = TestStore::new();
    let layer = IdempotencyLayer::new(store.clone());
    let lab = Lab::counting(layer.clone());
    let stall = store.stall(StoreCall::Claim);
    let request = lab.spawn(post("k", "a"));
    settle().await;
    assert_eq!((layer.stats().live, lab.effects()), (1, 0), "its claim is under way");
    request.abort();
    assert!(request.await.unwrap_err().is_cancelled());
    stall.release();
    let retry = lab.post("k", "a").await;
    assert_eq!((retry.text(), lab.effects()), ("effect 1", 1));
    assert_eq!(layer.stats().live, 0);
}

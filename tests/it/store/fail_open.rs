//! `fail_open` runs a request without protection while the store is away, and counts it; never while
//! another run is under way, and never if the end is known.

use axum::Router;
use axum::routing::post as route;
use testkit::Gate;
use testkit::lab::time::HOUR;
use testkit::lab::{Lab, effect, gated, post, settle};
use tower_idempotency::test_util::{StoreCall, TestStore};
use tower_idempotency::{IdempotencyContext, IdempotencyLayer, Release};

// … with `fail_open` and no slot or remembered outcome for the key: runs unprotected, counted, logged.

fn open(store: &TestStore) -> (Lab, IdempotencyLayer<TestStore>) {
    let layer = IdempotencyLayer::new(store.clone()).fail_open(true);
    (Lab::counting(layer.clone()), layer)
}

#[tokio::test]
async fn fail_open_runs_unprotected_while_the_store_is_away() {
    let store = TestStore::new();
    let (lab, layer) = open(&store);
    store.crash();
    for is_replay in [false, true] {
        let answer = lab.post("k", "a").await;
        assert_eq!((answer.text(), answer.is_replay()), ("effect 1", is_replay), "this process remembers it");
    }
    let counts = layer.stats();
    assert_eq!((counts.fail_open_runs, counts.runs, counts.unsaved, counts.live), (1, 1, 0, 0));
    let restarted = lab.behind(IdempotencyLayer::new(store.reopen()), effect);
    assert_eq!(restarted.post("k", "a").await.text(), "effect 2", "a retry is a second effect, as documented");
}

// A seeded fault: the outcome of a fail-open run is not recorded.
#[tokio::test(start_paused = true)]
async fn what_fail_open_has_run_is_recorded_once_the_store_works_again() {
    let store = TestStore::new();
    let (lab, layer) = open(&store);
    (0..3).for_each(|_| store.fail_next(StoreCall::Claim));
    assert_eq!(lab.post("k", "a").await.text(), "effect 1");
    assert!(layer.drain(HOUR).await.is_complete());
    let replay = lab.behind(IdempotencyLayer::new(store.reopen()), effect).post("k", "a").await;
    assert_eq!((replay.text(), replay.is_replay(), lab.effects()), ("effect 1", true, 1));
}

#[tokio::test]
async fn a_handler_can_ask_whether_its_run_is_protected() {
    let store = TestStore::new();
    let layer = IdempotencyLayer::new(store.clone()).fail_open(true);
    let handler = async |context: IdempotencyContext| context.is_protected().to_string();
    let lab = Lab::of(Router::new().route("/charges", route(handler)).layer(layer));
    assert_eq!(lab.post("k1", "a").await.text(), "true");
    store.crash();
    assert_eq!(lab.post("k2", "a").await.text(), "false");
}

// A seeded fault: this process remembers that the key was freed, and refuses its retries until the store is back.
#[tokio::test]
async fn a_key_that_a_fail_open_run_has_freed_is_free_at_once() {
    let store = TestStore::new();
    let layer = IdempotencyLayer::new(store.clone()).fail_open(true);
    let lab = Lab::new(layer, |number| async move { (Release, format!("effect {number}")) });
    store.crash();
    for expected in ["effect 1", "effect 2"] {
        assert_eq!(lab.post("k", "a").await.text(), expected);
        settle().await;
    }
}

// A seeded fault: the outcomes of fail-open runs take all the room, and then new keys are refused.
#[tokio::test]
async fn fail_open_goes_on_however_many_outcomes_the_store_was_not_told() {
    const LENGTH: usize = 1 << 20;
    let store = TestStore::new();
    let layer = IdempotencyLayer::new(store.clone()).fail_open(true);
    let lab = Lab::new(layer.clone(), |_| async { "x".repeat(LENGTH) });
    store.crash();
    for number in 0..60 {
        assert_eq!(lab.post(&format!("k{number}"), "a").await.body.len(), LENGTH, "{number}");
    }
    assert!(lab.post("k0", "a").await.is_replay(), "what came first is remembered");
    assert_eq!(layer.stats().fail_open_runs, 60);
}

#[tokio::test(start_paused = true)]
async fn fail_open_runs_unprotected_when_the_claim_times_out_and_records_the_outcome_under_the_late_claim() {
    let store = TestStore::new();
    let (lab, layer) = open(&store);
    let stall = store.hold_answers(StoreCall::Claim);
    assert_eq!(lab.post("k", "a").await.text(), "effect 1");
    assert!(lab.post("k", "a").await.is_replay(), "its claim is still on its way; this process remembers it");
    stall.release();
    assert!(layer.drain(HOUR).await.is_complete());
    let replay = lab.behind(IdempotencyLayer::new(store.reopen()), effect).post("k", "a").await;
    assert_eq!((replay.text(), replay.is_replay(), lab.effects()), ("effect 1", true, 1));
    assert_eq!(layer.stats().fail_open_runs, 1);
}

// A seeded fault: a claim whose answer was lost is taken for one under which nothing ran.
#[tokio::test]
async fn a_run_that_fail_open_let_go_ahead_under_a_claim_of_which_nobody_learned_is_not_run_again() {
    let store = TestStore::new();
    let (lab, layer) = open(&store);
    store.lose_answer(StoreCall::Claim);
    assert_eq!(lab.post("k", "a").await.text(), "effect 1");
    assert_eq!(layer.stats().fail_open_runs, 1);
    assert!(layer.drain(HOUR).await.is_complete());
    let replay = lab.behind(IdempotencyLayer::new(store.reopen()), effect).post("k", "a").await;
    assert_eq!((replay.text(), replay.is_replay()), ("effect 1", true), "the claim is that of a handler that ran");
    assert_eq!(lab.effects(), 1);
}

#[tokio::test]
async fn fail_open_starts_nothing_once_the_process_is_shutting_down() {
    let store = TestStore::new();
    let (lab, layer) = open(&store);
    assert!(layer.drain(HOUR).await.is_complete(), "no run is left, and drain does not wait for one that begins now");
    store.crash();
    assert_eq!(lab.post("k", "a").await.status, 503);
    assert_eq!(lab.effects(), 0);
}

#[tokio::test]
async fn trap_70_fail_open_opens_nothing_for_a_key_with_a_run_under_way() {
    let (store, gate) = (TestStore::new(), Gate::default());
    let layer = IdempotencyLayer::new(store.clone()).fail_open(true);
    let lab = gated(layer.clone(), &gate);
    let first = lab.spawn(post("k", "a"));
    gate.arrival().await;
    store.crash();
    let duplicate = lab.spawn(post("k", "a"));
    settle().await;
    assert_eq!((duplicate.is_finished(), lab.effects()), (false, 1), "it waits for the run");
    gate.open();
    assert_eq!(first.await.unwrap().text(), "effect 1");
    assert!(duplicate.await.unwrap().is_replay());
    let late = lab.post("k", "a").await;
    assert_eq!((late.text(), late.is_replay()), ("effect 1", true), "this process remembers the outcome");
    assert_eq!((lab.effects(), layer.stats().fail_open_runs), (1, 0));
    assert_eq!(lab.post("new", "a").await.text(), "effect 2", "of a new key nothing is known");
    assert_eq!(layer.stats().fail_open_runs, 1);
}

// A seeded fault: `fail_open` does not look whether the process shuts down.
#[tokio::test(start_paused = true)]
async fn fail_open_begins_nothing_once_the_process_shuts_down() {
    for answers_in_time in [true, false] {
        let store = TestStore::new();
        let (lab, layer) = open(&store);
        let stall = store.stall(StoreCall::Claim);
        store.fail_next(StoreCall::Claim);
        let claiming = lab.spawn(post("k", "a"));
        settle().await;
        let draining = tokio::spawn({
            let layer = layer.clone();
            async move { layer.drain(HOUR).await }
        });
        settle().await;
        let stall = (!answers_in_time).then_some(stall);
        claiming.await.unwrap().assert_refusal(503, "store-unavailable", true, Some("1"));
        drop(stall);
        assert!(draining.await.unwrap().is_complete());
        assert_eq!((lab.effects(), layer.stats().fail_open_runs), (0, 0));
    }
}

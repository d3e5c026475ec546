//! The decision table (DESIGN.md, section 4), fourth part: what the store does, and what is answered.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod common;

use std::time::Duration;

use common::lab::{Lab, post};
use tower_idempotency::engine::{OnInFlight, OnInterrupted};
use tower_idempotency::record::Reply;
use tower_idempotency::server::Resolve;
use tower_idempotency::test_util::{TestStore, Verb};
use tower_idempotency::{IdempotencyLayer, MemoryStore, Release};

const HOUR: Duration = Duration::from_secs(3_600);

fn lab(store: &TestStore) -> (Lab, IdempotencyLayer<TestStore>) {
    let layer = IdempotencyLayer::new(store.clone());
    (Lab::counting(layer.clone()), layer)
}

async fn done(number: usize) -> String {
    format!("effect {number}")
}

/// Lets the detached runs go on until none is left.
async fn no_run_is_left(layer: &IdempotencyLayer<TestStore>) {
    for _ in 0..1_000 {
        if layer.counts().live == 0 {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("{} runs are left", layer.counts().live);
}

// Row: store away, poisoned or timed out at the claim → 503 `store-unavailable` + `Retry-After`.

#[tokio::test]
async fn a_store_that_is_away_is_a_refusal_and_nothing_runs() {
    let store = TestStore::new();
    let (lab, layer) = lab(&store);
    store.fail_next(Verb::Claim);
    lab.post("k", "a").await.assert_refusal(503, "store-unavailable", true, Some("1"));
    assert_eq!((lab.effects(), layer.counts().runs), (0, 0));
    assert_eq!(lab.post("k", "a").await.text(), "effect 1", "the key is free");
    store.crash();
    lab.post("k", "a").await.assert_refusal(503, "store-unavailable", true, Some("1"));
    lab.post("new", "a").await.assert_refusal(503, "store-unavailable", true, Some("1"));
    assert_eq!((lab.effects(), layer.counts().live), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_times_out_is_refused_and_undone_when_the_store_is_back() {
    for policy in [OnInterrupted::Refuse, OnInterrupted::Rerun] {
        let store = TestStore::new();
        let layer = IdempotencyLayer::new(store.clone()).on_interrupted(policy);
        let lab = Lab::counting(layer.clone());
        let stall = store.hold_answers(Verb::Claim);
        lab.post("k", "a").await.assert_refusal(503, "store-unavailable", true, Some("1"));
        // The claim is still on its way, so that its slot is kept.
        lab.post("k", "a").await.assert_refusal(503, "store-unavailable", true, Some("1"));
        assert_eq!((lab.effects(), layer.counts().live), (0, 1));
        stall.release();
        assert!(layer.drain(HOUR).await.is_complete(), "the claim was answered, and given back");
        let after = lab.behind(IdempotencyLayer::new(store.reopen()), done);
        assert_eq!(after.post("k", "a").await.text(), "effect 1", "it left no trace");
    }
}

// "A recovering disk first makes all those dead claims durable and then releases them, ahead of the living."
#[tokio::test(start_paused = true)]
async fn trap_83_a_claim_to_which_the_store_comes_too_late_is_not_done() {
    for policy in [OnInterrupted::Refuse, OnInterrupted::Rerun] {
        let store = TestStore::new();
        let layer = IdempotencyLayer::new(store.clone()).on_interrupted(policy);
        let lab = Lab::counting(layer.clone());
        let (stall, released) = (store.stall(Verb::Claim), store.stall(Verb::Release));
        lab.post("k", "a").await.assert_refusal(503, "store-unavailable", true, Some("1"));
        stall.release();
        assert!(layer.drain(HOUR).await.is_complete(), "there is nothing to be given back");
        drop(released);
        let after = lab.behind(IdempotencyLayer::new(store.reopen()), done);
        assert_eq!(after.post("k", "a").await.text(), "effect 1");
    }
}

#[tokio::test(start_paused = true)]
async fn a_retry_after_a_claim_that_timed_out_runs_once_the_store_is_back() {
    let store = TestStore::new();
    let (lab, layer) = lab(&store);
    let stall = store.stall(Verb::Claim);
    lab.post("k", "a").await.assert_refusal(503, "store-unavailable", true, Some("1"));
    stall.release();
    no_run_is_left(&layer).await;
    assert_eq!(lab.post("k", "a").await.text(), "effect 1");
    assert!(lab.post("k", "a").await.is_replay());
    assert_eq!(lab.effects(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_look_up_that_never_ends_is_bounded_and_the_claim_decides() {
    let store = TestStore::new();
    let (lab, layer) = lab(&store);
    let _stall = store.stall(Verb::Load);
    let began = tokio::time::Instant::now();
    for replayed in [false, true] {
        let answer = lab.post("k", "a").await;
        assert_eq!((answer.text(), answer.is_replay()), ("effect 1", replayed));
    }
    let stall = store.stall(Verb::Claim);
    lab.post("new", "a").await.assert_refusal(503, "store-unavailable", true, Some("1"));
    assert_eq!(
        (began.elapsed().as_secs(), lab.effects()),
        (10, 1),
        "two and a half seconds each, of the paused clock, and as many for the claim"
    );
    stall.release();
    no_run_is_left(&layer).await;
}

#[tokio::test]
async fn a_request_that_is_refused_for_its_own_sake_touches_no_store() {
    let store = TestStore::new();
    let (lab, _) = lab(&store);
    store.crash();
    let cut_off = post("k", common::lab::frames([Ok("ha"), Err("reset by peer")]));
    lab.send(cut_off).await.assert_refusal(400, "body-incomplete", true, None);
    lab.post("", "a").await.assert_refusal(400, "key-malformed", false, None);
    assert_eq!(lab.effects(), 0);
}

#[tokio::test]
async fn a_claim_of_which_nobody_learns_whether_it_was_made_runs_nothing_and_is_not_mistaken_for_a_run() {
    let store = TestStore::new();
    let (lab, layer) = lab(&store);
    store.lose_answer(Verb::Claim);
    lab.post("k", "a").await.assert_refusal(503, "store-unavailable", true, Some("1"));
    // The store may hold it: this process knows that no run of its own is under way.
    lab.post("k", "a").await.assert_refusal(409, "outcome-unknown", false, None);
    lab.post("k", "b").await.assert_refusal(422, "key-reused", false, None);
    let listed = layer.interrupted(9).await.unwrap();
    assert_eq!((listed.len(), lab.effects()), (1, 0));
    assert_eq!(layer.resolve(listed[0].id, listed[0].fence, Resolve::Forget).await.unwrap(), Reply::Taken);
    assert_eq!(lab.post("k", "a").await.text(), "effect 1", "an operator frees it");
}

#[tokio::test]
async fn under_rerun_a_claim_of_which_nobody_learns_does_not_block_its_key() {
    let store = TestStore::new();
    let lab = Lab::counting(IdempotencyLayer::new(store.clone()).on_interrupted(OnInterrupted::Rerun));
    store.lose_answer(Verb::Claim);
    lab.post("k", "a").await.assert_refusal(503, "store-unavailable", true, Some("1"));
    assert_eq!(lab.effects(), 0);
    assert_eq!(lab.post("k", "a").await.text(), "effect 1");
    assert!(lab.post("k", "a").await.is_replay());
}

#[tokio::test]
async fn an_outcome_whose_acknowledgement_was_lost_is_recorded_once() {
    for policy in [OnInterrupted::Refuse, OnInterrupted::Rerun] {
        let store = TestStore::new();
        let layer = IdempotencyLayer::new(store.clone()).on_interrupted(policy);
        let lab = Lab::counting(layer.clone());
        store.lose_answer(Verb::Complete);
        assert_eq!(lab.post("k", "a").await.text(), "effect 1");
        assert!(lab.post("k", "a").await.is_replay());
        assert_eq!((lab.effects(), layer.counts().unrecorded), (1, 0));
    }
}

#[tokio::test]
async fn a_release_whose_acknowledgement_was_lost_frees_the_key() {
    let store = TestStore::new();
    let lab = Lab::new(IdempotencyLayer::new(store.clone()), |n| async move { (Release, format!("busy {n}")) });
    store.lose_answer(Verb::Release);
    assert_eq!(lab.post("k", "a").await.text(), "busy 1");
    assert_eq!(lab.post("k", "a").await.text(), "busy 2");
}

#[tokio::test]
async fn a_look_up_that_fails_is_made_good_by_the_claim() {
    for fail_open in [false, true] {
        let store = TestStore::new();
        let layer = IdempotencyLayer::new(store.clone()).fail_open(fail_open);
        let lab = Lab::counting(layer.clone());
        for replayed in [false, true] {
            store.fail_next(Verb::Load);
            let answer = lab.post("k", "a").await;
            assert_eq!((answer.text(), answer.is_replay()), ("effect 1", replayed));
        }
        assert_eq!((lab.effects(), layer.counts().unprotected), (1, 0));
    }
}

#[tokio::test]
async fn taking_over_a_run_that_was_cut_short_survives_faults_of_the_store() {
    let store = TestStore::new();
    let cut_short = Lab::new(IdempotencyLayer::new(store.clone()), |_| async { panic!("on purpose") as &str });
    assert_eq!(cut_short.post("k", "a").await.problem(), "outcome-unknown");
    let lab = cut_short.behind(IdempotencyLayer::new(store.clone()).on_interrupted(OnInterrupted::Rerun), done);
    store.fail_next(Verb::Reclaim);
    lab.post("k", "a").await.assert_refusal(503, "store-unavailable", true, Some("1"));
    assert_eq!(lab.effects(), 1);
    store.lose_answer(Verb::Reclaim);
    lab.post("k", "a").await.assert_refusal(503, "store-unavailable", true, Some("1"));
    assert_eq!(lab.effects(), 1);
    assert_eq!(lab.post("k", "a").await.text(), "effect 2");
    assert!(lab.post("k", "a").await.is_replay());
    assert_eq!(lab.effects(), 2);
}

#[tokio::test(start_paused = true)]
async fn taking_over_that_timed_out_leaves_the_earlier_outcome_unknown() {
    let store = TestStore::new();
    let cut_short = Lab::new(IdempotencyLayer::new(store.clone()), |_| async { panic!("on purpose") as &str });
    assert_eq!(cut_short.post("k", "a").await.problem(), "outcome-unknown");
    let rerun = IdempotencyLayer::new(store.clone()).on_interrupted(OnInterrupted::Rerun);
    let stall = store.hold_answers(Verb::Reclaim);
    cut_short.behind(rerun.clone(), done).post("k", "a").await.assert_refusal(
        503,
        "store-unavailable",
        true,
        Some("1"),
    );
    stall.release();
    no_run_is_left(&rerun).await;
    // What the first run did is as unknown as before.
    assert_eq!(rerun.interrupted(9).await.unwrap().len(), 1);
    let refuse = cut_short.behind(IdempotencyLayer::new(store), done);
    refuse.post("k", "a").await.assert_refusal(409, "outcome-unknown", false, None);
    assert_eq!(cut_short.effects(), 1);
}

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
    for run in ["effect 1", "effect 2"] {
        let answer = lab.post("k", "a").await;
        assert_eq!((answer.text(), answer.is_replay()), (run, false), "a retry is a second effect, as documented");
    }
    let counts = layer.counts();
    assert_eq!((counts.unprotected, counts.runs, counts.unrecorded, counts.live), (2, 2, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn fail_open_runs_unprotected_when_the_claim_times_out_and_the_late_claim_is_refused_from_then_on() {
    let store = TestStore::new();
    let (lab, layer) = open(&store);
    let stall = store.hold_answers(Verb::Claim);
    assert_eq!(lab.post("k", "a").await.text(), "effect 1");
    // Its claim is still on its way, so that the run has its slot: nothing runs beside it.
    lab.post("k", "a").await.assert_refusal(409, "in-flight", true, Some("1"));
    stall.release();
    no_run_is_left(&layer).await;
    assert_eq!(layer.interrupted(9).await.unwrap().len(), 1, "operators see that it ran under no claim of its own");
    lab.post("k", "a").await.assert_refusal(409, "outcome-unknown", false, None);
    assert_eq!((lab.effects(), layer.counts().unprotected), (1, 1));
}

// A seeded fault: the claim of which nobody learned is taken for one under which nothing ran.
#[tokio::test]
async fn a_run_that_fail_open_let_go_ahead_under_a_claim_of_which_nobody_learned_is_not_run_again() {
    let store = TestStore::new();
    let (lab, layer) = open(&store);
    store.lose_answer(Verb::Claim);
    assert_eq!(lab.post("k", "a").await.text(), "effect 1");
    assert_eq!(layer.counts().unprotected, 1);
    lab.post("k", "a").await.assert_refusal(409, "outcome-unknown", false, None);
    assert_eq!(lab.effects(), 1, "the claim is that of a handler that ran");
}

#[tokio::test]
async fn fail_open_never_runs_beside_a_run_that_is_under_way() {
    let store = TestStore::new();
    let layer = IdempotencyLayer::new(store.clone()).fail_open(true).on_in_flight(OnInFlight::Reject);
    let (lab, gate) = Lab::gated(layer.clone());
    let first = lab.spawn(post("k", "a"));
    gate.arrival().await;
    store.crash();
    lab.post("k", "a").await.assert_refusal(409, "in-flight", true, Some("1"));
    gate.open();
    assert_eq!(first.await.unwrap().text(), "effect 1");
    assert_eq!((lab.effects(), layer.counts().unprotected), (1, 0));
}

#[tokio::test]
async fn fail_open_never_runs_what_this_process_remembers() {
    let store = TestStore::new();
    let (lab, gate) = Lab::gated(IdempotencyLayer::new(store.clone()).fail_open(true));
    let first = lab.spawn(post("k", "a"));
    gate.arrival().await;
    store.crash();
    gate.open();
    assert_eq!(first.await.unwrap().text(), "effect 1");
    let retry = lab.post("k", "a").await;
    assert_eq!((retry.text(), retry.is_replay(), lab.effects()), ("effect 1", true, 1));
}

#[tokio::test]
async fn fail_open_starts_nothing_once_the_process_is_shutting_down() {
    let store = TestStore::new();
    let (lab, layer) = open(&store);
    assert!(layer.drain(HOUR).await.is_complete(), "no run is left, and nobody waits for one that begins now");
    store.crash();
    assert_eq!(lab.post("k", "a").await.status, 503);
    assert_eq!(lab.effects(), 0);
}

// Row: store full, over quota → 503 `store-full`, before the handler; never opened by `fail_open`.

#[tokio::test]
async fn a_full_store_refuses_new_keys_and_is_never_opened() {
    for fail_open in [false, true] {
        let store = MemoryStore::builder().max_records(1).build();
        let lab = Lab::counting(IdempotencyLayer::new(store).fail_open(fail_open));
        assert_eq!(lab.post("first", "a").await.text(), "effect 1");
        lab.post("second", "a").await.assert_refusal(503, "store-full", true, None);
        assert!(lab.post("first", "a").await.is_replay());
        assert_eq!(lab.effects(), 1);
    }
}

#[tokio::test]
async fn a_full_store_takes_the_outcomes_of_what_is_running() {
    let store = MemoryStore::builder().max_bytes(1).build();
    let layer = IdempotencyLayer::new(store);
    let lab = Lab::new(layer.clone(), |_| async { "x".repeat(100_000) });
    assert_eq!(lab.post("first", "a").await.body.len(), 100_000);
    assert_eq!(lab.post("first", "a").await.body.len(), 100_000);
    lab.post("second", "a").await.assert_refusal(503, "store-full", true, None);
    assert_eq!((lab.effects(), layer.counts().unrecorded), (1, 0));
}

// Row: recording fails after the effect → the real answer, counted; the claim is **not** released; retries in this
// process are answered from memory; after a restart the run is interrupted.

#[tokio::test(start_paused = true)]
async fn an_answer_that_could_not_be_recorded_is_given_and_remembered_until_a_restart() {
    let store = TestStore::new();
    let (lab, layer) = lab(&store);
    (0..100).for_each(|_| store.fail_next(Verb::Complete));
    let first = lab.post("k", "a").await;
    assert_eq!((first.status.as_u16(), first.text(), first.is_replay()), (200, "effect 1", false));
    for _ in 0..2 {
        let retry = lab.post("k", "a").await;
        assert_eq!((retry.text(), retry.is_replay()), ("effect 1", true));
        lab.post("k", "b").await.assert_refusal(422, "key-reused", false, None);
    }
    assert_eq!((lab.effects(), layer.counts().unrecorded), (1, 1));
    let restarted = lab.behind(IdempotencyLayer::new(store.reopen()), done);
    restarted.post("k", "a").await.assert_refusal(409, "outcome-unknown", false, None);
    assert_eq!(lab.effects(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_for_a_moment_is_tried_again() {
    let store = TestStore::new();
    let (lab, layer) = lab(&store);
    (0..2).for_each(|_| store.fail_next(Verb::Complete));
    assert_eq!(lab.post("k", "a").await.text(), "effect 1");
    assert_eq!(layer.counts().unrecorded, 0);
    let restarted = lab.behind(IdempotencyLayer::new(store.reopen()), done);
    assert!(restarted.post("k", "a").await.is_replay());
    assert_eq!(lab.effects(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_could_not_be_recorded_is_recorded_later() {
    let store = TestStore::new();
    let (lab, layer) = lab(&store);
    (0..5).for_each(|_| store.fail_next(Verb::Complete));
    assert_eq!(lab.post("k", "a").await.text(), "effect 1");
    assert_eq!(layer.counts().unrecorded, 1);
    // Of the paused clock: longer than the pauses between the tries.
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(lab.post("k", "a").await.is_replay());
    let restarted = lab.behind(IdempotencyLayer::new(store.reopen()), done);
    assert!(restarted.post("k", "a").await.is_replay());
    assert_eq!(lab.effects(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_release_that_could_not_be_recorded_frees_nothing_until_it_is() {
    let store = TestStore::new();
    let lab =
        Lab::new(
            IdempotencyLayer::new(store.clone()),
            |n| async move { (tower_idempotency::Release, format!("busy {n}")) },
        );
    (0..3).for_each(|_| store.fail_next(Verb::Release));
    assert_eq!(lab.post("k", "a").await.text(), "busy 1");
    lab.post("k", "a").await.assert_refusal(503, "store-unavailable", true, Some("1"));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(lab.post("k", "a").await.text(), "busy 2");
    assert_eq!(lab.effects(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_panic_that_could_not_be_recorded_is_an_unknown_outcome_all_the_same() {
    let store = TestStore::new();
    let lab = Lab::new(IdempotencyLayer::new(store.clone()), |_| async { panic!("on purpose") as &str });
    (0..100).for_each(|_| store.fail_next(Verb::Interrupt));
    lab.post("k", "a").await.assert_refusal(500, "outcome-unknown", false, None);
    lab.post("k", "a").await.assert_refusal(409, "outcome-unknown", false, None);
    let restarted = lab.behind(IdempotencyLayer::new(store.reopen()), done);
    restarted.post("k", "a").await.assert_refusal(409, "outcome-unknown", false, None);
    assert_eq!(lab.effects(), 1);
}

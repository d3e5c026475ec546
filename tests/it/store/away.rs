//! In doubt, refuse: while the store is away, slow or silent, nothing runs (promise 7).

use testkit::lab::asked::leave_interrupted_under;
use testkit::lab::operator::Operated as _;
use testkit::lab::time::HOUR;
use testkit::lab::{Lab, effect, frames, no_run_is_left, post};
use tower_idempotency::internals::ClaimPolicy;
use tower_idempotency::operations::{Action, Applied};
use tower_idempotency::test_util::{StoreCall, TestStore};
use tower_idempotency::{IdempotencyLayer, OnInterrupted};

// Row: store away, poisoned or timed out at the claim → 503 `store-unavailable` + `Retry-After`.

#[tokio::test]
async fn trap_56_a_store_that_is_away_refuses_before_the_handler() {
    let store = TestStore::new();
    let (lab, layer) = Lab::with_layer(&store);
    store.fail_next(StoreCall::Claim);
    lab.post("k", "a").await.assert_refusal(503, "store-unavailable", true, Some("1"));
    assert_eq!((lab.effects(), layer.stats().runs), (0, 0));
    assert_eq!(lab.post("k", "a").await.text(), "effect 1", "the key is free");
    store.crash();
    lab.post("k", "a").await.assert_refusal(503, "store-unavailable", true, Some("1"));
    lab.post("new", "a").await.assert_refusal(503, "store-unavailable", true, Some("1"));
    assert_eq!((lab.effects(), layer.stats().live), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn trap_68_a_claim_that_takes_too_long_is_given_back() {
    for policy in [OnInterrupted::Refuse, OnInterrupted::Rerun] {
        let store = TestStore::new();
        let layer = IdempotencyLayer::new(store.clone()).on_interrupted(policy);
        let lab = Lab::counting(layer.clone());
        let stall = store.hold_answers(StoreCall::Claim);
        lab.post("k", "a").await.assert_refusal(503, "store-unavailable", true, Some("1"));
        // The claim is still on its way, so that its slot is kept.
        lab.post("k", "a").await.assert_refusal(503, "store-unavailable", true, Some("1"));
        assert_eq!((lab.effects(), layer.stats().live), (0, 1));
        stall.release();
        assert!(layer.drain(HOUR).await.is_complete(), "the claim was answered, and given back");
        let after = lab.behind(IdempotencyLayer::new(store.reopen()), effect);
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
        let (stall, released) = (store.stall(StoreCall::Claim), store.stall(StoreCall::Release));
        lab.post("k", "a").await.assert_refusal(503, "store-unavailable", true, Some("1"));
        stall.release();
        assert!(layer.drain(HOUR).await.is_complete(), "there is nothing to be given back");
        drop(released);
        let after = lab.behind(IdempotencyLayer::new(store.reopen()), effect);
        assert_eq!(after.post("k", "a").await.text(), "effect 1");
    }
}

#[tokio::test(start_paused = true)]
async fn a_retry_after_a_claim_that_timed_out_runs_once_the_store_is_back() {
    let store = TestStore::new();
    let (lab, layer) = Lab::with_layer(&store);
    let stall = store.stall(StoreCall::Claim);
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
    let (lab, layer) = Lab::with_layer(&store);
    let _stall = store.stall(StoreCall::Load);
    let began = tokio::time::Instant::now();
    for replayed in [false, true] {
        let answer = lab.post("k", "a").await;
        assert_eq!((answer.text(), answer.is_replay()), ("effect 1", replayed));
    }
    let stall = store.stall(StoreCall::Claim);
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
    let (lab, _) = Lab::with_layer(&store);
    store.crash();
    let cut_off = post("k", frames([Ok("ha"), Err("reset by peer")]));
    lab.send(cut_off).await.assert_refusal(400, "body-incomplete", true, None);
    lab.post("", "a").await.assert_refusal(400, "key-malformed", false, None);
    assert_eq!(lab.effects(), 0);
}

#[tokio::test]
async fn a_claim_of_which_nobody_learns_whether_it_was_made_runs_nothing_and_is_not_mistaken_for_a_run() {
    let store = TestStore::new();
    let (lab, layer) = Lab::with_layer(&store);
    store.lose_answer(StoreCall::Claim);
    lab.post("k", "a").await.assert_refusal(503, "store-unavailable", true, Some("1"));
    // The store may hold it: this process knows that no run of its own is under way.
    lab.post("k", "a").await.assert_refusal(409, "outcome-unknown", false, None);
    lab.post("k", "b").await.assert_refusal(422, "key-reused", false, None);
    let listed = layer.interrupted(9).await.unwrap();
    assert_eq!((listed.len(), lab.effects()), (1, 0));
    assert_eq!(layer.resolve(listed[0].id, listed[0].fence, Action::Release).await.unwrap(), Applied::Done);
    assert_eq!(lab.post("k", "a").await.text(), "effect 1", "an operator frees it");
}

#[tokio::test]
async fn under_rerun_a_claim_of_which_nobody_learns_does_not_block_its_key() {
    let store = TestStore::new();
    let lab = Lab::counting(IdempotencyLayer::new(store.clone()).on_interrupted(OnInterrupted::Rerun));
    store.lose_answer(StoreCall::Claim);
    lab.post("k", "a").await.assert_refusal(503, "store-unavailable", true, Some("1"));
    assert_eq!(lab.effects(), 0);
    assert_eq!(lab.post("k", "a").await.text(), "effect 1");
    assert!(lab.post("k", "a").await.is_replay());
}

#[tokio::test]
async fn a_look_up_that_fails_is_made_good_by_the_claim() {
    for fail_open in [false, true] {
        let store = TestStore::new();
        let layer = IdempotencyLayer::new(store.clone()).fail_open(fail_open);
        let lab = Lab::counting(layer.clone());
        for replayed in [false, true] {
            store.fail_next(StoreCall::Load);
            let answer = lab.post("k", "a").await;
            assert_eq!((answer.text(), answer.is_replay()), ("effect 1", replayed));
        }
        assert_eq!((lab.effects(), layer.stats().fail_open_runs), (1, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn taking_over_that_timed_out_leaves_the_earlier_outcome_unknown() {
    let store = TestStore::new();
    leave_interrupted_under(ClaimPolicy::Rerun, &store, "k").await;
    let rerun = IdempotencyLayer::new(store.clone()).on_interrupted(OnInterrupted::Rerun);
    let stall = store.hold_answers(StoreCall::Reclaim);
    let lab = Lab::counting(rerun.clone());
    lab.post("k", "a").await.assert_refusal(503, "store-unavailable", true, Some("1"));
    stall.release();
    no_run_is_left(&rerun).await;
    // The first run's effect is as unknown as before.
    assert_eq!(rerun.interrupted(9).await.unwrap().len(), 1);
    let refuse = lab.behind(IdempotencyLayer::new(store), effect);
    refuse.post("k", "a").await.assert_refusal(409, "outcome-unknown", false, None);
    assert_eq!(lab.effects(), 0);
}

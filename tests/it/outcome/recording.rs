//! No answer is given before it is durable (promise 3). If recording fails, the real answer is given and counted, the
//! key stays taken, and the record is written later.

use std::time::Duration;

use futures_util::poll;
use http::StatusCode;
use testkit::Answer;
use testkit::lab::time::{HOUR, SECOND};
use testkit::lab::{Lab, effect, id, post, settle};
use tokio::time::timeout;
use tower::ServiceExt as _;
use tower_idempotency::internals::{Records as _, State};
use tower_idempotency::test_util::{StoreCall, TestStore};
use tower_idempotency::{IdempotencyLayer, OnInFlight, OnInterrupted, Release};

#[tokio::test]
async fn trap_13_no_byte_of_the_answer_is_sent_before_its_record_is_durable() {
    let store = TestStore::new();
    let lab = Lab::counting(IdempotencyLayer::new(store.clone()));
    let stall = store.stall(StoreCall::Complete);
    let first = lab.app.clone().oneshot(post("k", "a"));
    let duplicate = lab.app.clone().oneshot(post("k", "a"));
    tokio::pin!(first, duplicate);
    for _ in 0..3 {
        assert!(poll!(&mut first).is_pending());
        assert!(poll!(&mut duplicate).is_pending());
        settle().await;
    }
    assert_eq!(lab.effects(), 1, "the handler is done");
    stall.release();
    let (first, duplicate) = (Answer::of(first.await.unwrap()).await, Answer::of(duplicate.await.unwrap()).await);
    assert_eq!((first.text(), first.is_replay()), ("effect 1", false));
    assert_eq!((duplicate.text(), duplicate.is_replay(), lab.effects()), ("effect 1", true, 1));
}

async fn completed(store: &TestStore, key: &str) -> bool {
    let record = store.load(id(key)).await.unwrap();
    record.is_some_and(|record| matches!(record.state, State::Completed { .. }))
}

// Row: recording fails after the effect → the real answer, counted; the claim is **not** released; retries in this
// process are answered from memory; after a restart the run is interrupted.

#[tokio::test(start_paused = true)]
async fn trap_14_where_recording_fails_the_real_answer_is_given_and_the_claim_kept() {
    let store = TestStore::new();
    let layer = IdempotencyLayer::new(store.clone());
    let lab = Lab::counting(layer.clone());
    (0..4).for_each(|_| store.fail_next(StoreCall::Complete));
    let first = lab.post("k", "a").await;
    assert_eq!((first.status, first.text(), first.is_replay()), (StatusCode::OK, "effect 1", false));
    assert_eq!(layer.stats().unsaved, 1);
    assert!(!completed(&store, "k").await);
    assert!(lab.post("k", "a").await.is_replay(), "answered from memory");
    assert_eq!(lab.post("k", "b").await.status, StatusCode::UNPROCESSABLE_ENTITY);

    // It is tried again, until the store knows it.
    let recorded = async {
        while !completed(&store, "k").await {
            tokio::time::sleep(SECOND).await;
        }
    };
    timeout(HOUR, recorded).await.expect("the store is told");
    let reopened = Lab::counting(IdempotencyLayer::new(store.reopen()));
    assert!(reopened.post("k", "a").await.is_replay());
    assert_eq!((lab.effects(), reopened.effects()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn trap_14_a_restart_before_the_record_was_written_refuses_and_never_reruns() {
    let store = TestStore::new();
    let lab = Lab::counting(IdempotencyLayer::new(store.clone()));
    (0..3).for_each(|_| store.fail_next(StoreCall::Complete));
    assert_eq!(lab.post("k", "a").await.text(), "effect 1");
    let reopened = Lab::counting(IdempotencyLayer::new(store.reopen()));
    assert_eq!(reopened.post("k", "a").await.refusal(), (409, "outcome-unknown".to_owned()));
    assert_eq!((lab.effects(), reopened.effects()), (1, 0));
}

/// The duplicate looked at the free slot before the first came, and loads when the first's record can be seen, but the
/// store has not yet reported it as durable. The second look prevents a wrong answer.
#[tokio::test(start_paused = true)]
async fn trap_71_a_record_that_can_be_seen_but_is_not_known_to_be_durable_is_not_replayed() {
    let store = TestStore::new();
    let lab = Lab::counting(IdempotencyLayer::new(store.clone()).on_in_flight(OnInFlight::Wait(HOUR)));
    let loading = store.stall(StoreCall::Load);
    let duplicate = lab.spawn(post("k", "a"));
    settle().await;
    store.stall(StoreCall::Load).release();
    store.lose_answer(StoreCall::Complete);
    let first = lab.spawn(post("k", "a"));
    settle().await;
    let seen = store.load(id("k")).await.unwrap().expect("a record");
    assert!(matches!(seen.state, State::Completed { .. }), "{seen:?}");
    loading.release();
    settle().await;
    assert_eq!((first.is_finished(), duplicate.is_finished()), (false, false), "no client was answered");
    assert!(!first.await.unwrap().is_replay());
    assert!(duplicate.await.unwrap().is_replay());
    assert_eq!(lab.effects(), 1);
}

#[tokio::test]
async fn trap_71_no_duplicate_is_answered_before_the_record_is_durable() {
    let store = TestStore::new();
    let lab = Lab::counting(IdempotencyLayer::new(store.clone()).on_in_flight(OnInFlight::Wait(HOUR)));
    let stall = store.stall(StoreCall::Complete);
    let mut requests: Vec<_> = (0..20).map(|_| Box::pin(lab.app.clone().oneshot(post("k", "a")))).collect();
    for _ in 0..3 {
        for request in &mut requests {
            assert!(poll!(request).is_pending());
        }
        settle().await;
    }
    // The power fails now: no client got an answer that is not on the disk.
    let reopened = Lab::counting(IdempotencyLayer::new(store.reopen()));
    assert_eq!(reopened.post("k", "a").await.refusal(), (409, "outcome-unknown".to_owned()));
    assert_eq!((lab.effects(), reopened.effects()), (1, 0));
    drop((requests, stall));
}

// The engine does not send a claim again: a store does that if its network can lose answers.
#[tokio::test]
async fn trap_09_an_outcome_whose_answer_was_lost_is_known_for_its_own() {
    for policy in [OnInterrupted::Refuse, OnInterrupted::Rerun] {
        let store = TestStore::new();
        let layer = IdempotencyLayer::new(store.clone()).on_interrupted(policy);
        let lab = Lab::counting(layer.clone());
        store.lose_answer(StoreCall::Complete);
        assert_eq!(lab.post("k", "a").await.text(), "effect 1");
        assert!(lab.post("k", "a").await.is_replay());
        let restarted = lab.behind(IdempotencyLayer::new(store.reopen()), effect);
        assert!(restarted.post("k", "a").await.is_replay());
        assert_eq!((lab.effects(), layer.stats().unsaved), (1, 0));
    }
}

#[tokio::test]
async fn a_release_whose_acknowledgement_was_lost_frees_the_key() {
    let store = TestStore::new();
    let lab = Lab::new(IdempotencyLayer::new(store.clone()), |n| async move { (Release, format!("busy {n}")) });
    store.lose_answer(StoreCall::Release);
    assert_eq!(lab.post("k", "a").await.text(), "busy 1");
    assert_eq!(lab.post("k", "a").await.text(), "busy 2");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_for_a_moment_is_tried_again() {
    let store = TestStore::new();
    let (lab, layer) = Lab::with_layer(&store);
    (0..2).for_each(|_| store.fail_next(StoreCall::Complete));
    assert_eq!(lab.post("k", "a").await.text(), "effect 1");
    assert_eq!(layer.stats().unsaved, 0);
    let restarted = lab.behind(IdempotencyLayer::new(store.reopen()), effect);
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
    (0..3).for_each(|_| store.fail_next(StoreCall::Release));
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
    (0..100).for_each(|_| store.fail_next(StoreCall::Interrupt));
    lab.post("k", "a").await.assert_refusal(500, "outcome-unknown", false, None);
    lab.post("k", "a").await.assert_refusal(409, "outcome-unknown", false, None);
    let restarted = lab.behind(IdempotencyLayer::new(store.reopen()), effect);
    restarted.post("k", "a").await.assert_refusal(409, "outcome-unknown", false, None);
    assert_eq!(lab.effects(), 1);
}

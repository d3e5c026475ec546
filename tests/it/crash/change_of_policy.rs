//! A deploy changes the policy, and an operation that was interrupted before keeps the promise under which it was
//! claimed: it runs again by policy only if it was claimed as repeatable.

use std::time::Duration;

use testkit::lab::asked::{Asked, asking, leave_interrupted_under};
use testkit::lab::disk::Disk;
use testkit::lab::operator::Operated as _;
use testkit::lab::{Lab, effect, gated, id, on_disk, post};
use testkit::log::Log;
use testkit::{Gate, on_both};
use tower_idempotency::engine::{Cause, ClaimPolicy, Reconciled};
use tower_idempotency::operations::{Action, Applied, OperationState};
use tower_idempotency::test_util::TestStore;
use tower_idempotency::{IdempotencyLayer, OnInterrupted, RejectionKind, Unsure};
use tracing::Level;

const NOT_REPEATABLE: [ClaimPolicy; 3] = [ClaimPolicy::Unreadable, ClaimPolicy::Refuse, ClaimPolicy::Ask];

fn reruns(store: &TestStore) -> IdempotencyLayer<TestStore> {
    IdempotencyLayer::new(store.clone()).on_interrupted(OnInterrupted::Rerun)
}

#[tokio::test]
async fn what_was_interrupted_under_refuse_does_not_run_again_after_a_deploy_to_rerun() {
    for policy in NOT_REPEATABLE {
        let store = TestStore::new();
        leave_interrupted_under(policy, &store, "k").await;
        let layer = reruns(&store);
        let lab = Lab::counting(layer.clone());
        for _ in 0..3 {
            lab.post("k", "a").await.assert_refusal(409, "outcome-unknown", false, None);
        }
        lab.post("k", "b").await.assert_refusal(422, "key-reused", false, None);
        assert_eq!(lab.effects(), 0, "{policy:?}");
        let listed = layer.interrupted(9).await.unwrap();
        let state = OperationState::Interrupted { cause: Cause::Unknown, policy };
        assert_eq!(listed.iter().map(|run| (run.id, run.state.clone())).collect::<Vec<_>>(), [(id("k"), state)]);
        let counts = layer.stats();
        assert_eq!((counts.not_rerun, counts.refused(RejectionKind::OutcomeUnknown)), (3, 3), "{policy:?}");

        // An operator and a reconciler are not bound by the policy.
        let settled = layer.resolve(listed[0].id, listed[0].fence, Action::Release).await.unwrap();
        assert_eq!(settled, Applied::Done);
        assert_eq!(lab.post("k", "a").await.text(), "effect 1");
        leave_interrupted_under(policy, &store, "asked").await;
        let asks = lab.behind(asking(store.clone(), Asked::default().says([Reconciled::RunAgain])), effect);
        assert_eq!(asks.post("asked", "a").await.text(), "effect 2");
        assert_eq!(layer.stats().not_rerun, 3, "{policy:?}");
    }
}

#[tokio::test]
async fn what_was_interrupted_under_rerun_is_refused_or_asked_about_after_a_deploy_that_says_so() {
    let store = TestStore::new();
    leave_interrupted_under(ClaimPolicy::Rerun, &store, "k").await;
    let refuses = Lab::counting(IdempotencyLayer::new(store.clone()));
    refuses.post("k", "a").await.assert_refusal(409, "outcome-unknown", false, None);
    let asked = Asked::default();
    let asks = Lab::counting(asking(store.clone(), asked.says([Reconciled::StillUnknown])));
    asks.post("k", "a").await.assert_refusal(409, "outcome-unknown", true, None);
    assert_eq!(asked.questions().iter().map(|run| run.policy).collect::<Vec<_>>(), [ClaimPolicy::Rerun]);
    assert_eq!((refuses.effects(), asks.effects(), reruns(&store).stats().not_rerun), (0, 0, 0));
    // The question has not changed the policy of the claim.
    assert_eq!(Lab::counting(reruns(&store)).post("k", "a").await.text(), "effect 1");
}

#[tokio::test]
async fn a_run_that_the_application_lets_run_again_is_claimed_under_the_policy_of_that_time() {
    let store = TestStore::new();
    leave_interrupted_under(ClaimPolicy::Rerun, &store, "k").await;
    let asks = asking(store.clone(), Asked::default().says([Reconciled::RunAgain]));
    let cut = Lab::new(asks, |_| async { (Unsure, "perhaps") });
    assert_eq!(cut.post("k", "a").await.text(), "perhaps");
    let lab = Lab::counting(reruns(&store));
    lab.post("k", "a").await.assert_refusal(409, "outcome-unknown", false, None);
    assert_eq!(lab.effects(), 0);
}

#[tokio::test]
async fn an_answer_that_means_unknown_keeps_the_policy_of_its_claim() {
    let store = TestStore::new();
    let unknown = |_| async { (Unsure, "perhaps") };
    assert_eq!(Lab::new(IdempotencyLayer::new(store.clone()), unknown).post("k", "a").await.text(), "perhaps");
    let lab = Lab::counting(reruns(&store));
    lab.post("k", "a").await.assert_refusal(409, "outcome-unknown", false, None);
    // Under `Rerun`, such an answer frees the key.
    assert_eq!(Lab::new(reruns(&store), unknown).post("free", "a").await.text(), "perhaps");
    assert_eq!(lab.post("free", "a").await.text(), "effect 1");
    assert_eq!(lab.effects(), 1);
}

on_both!(a_run_of_a_dead_process_keeps_its_policy_on_disk);
async fn a_run_of_a_dead_process_keeps_its_policy_on_disk<D: Disk>() {
    let (directory, store) = on_disk(D::builder());
    let gate = Gate::default();
    let run = gated(IdempotencyLayer::new(store.clone()), &gate).spawn(post("k", "a"));
    gate.arrival().await;
    run.abort();
    store.close().await.unwrap();
    drop(store);
    let store = loop {
        // The run that was detached may still hold it.
        match D::open(directory.path()) {
            Ok(store) => break store,
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    };
    let lab = Lab::counting(IdempotencyLayer::new(store).on_interrupted(OnInterrupted::Rerun));
    lab.post("k", "a").await.assert_refusal(409, "outcome-unknown", false, None);
    assert_eq!(lab.effects(), 0);
}

#[tokio::test(start_paused = true)]
async fn that_it_does_not_run_again_is_logged_once_a_minute_with_a_count() {
    let store = TestStore::new();
    leave_interrupted_under(ClaimPolicy::Refuse, &store, "k").await;
    let lab = Lab::counting(reruns(&store));
    let log = Log::begin(Level::WARN);
    let said = |log: &Log| -> Vec<_> {
        let lines = log.lines().into_iter();
        lines.filter(|line| line.contains("not claimed under Rerun")).collect()
    };
    for _ in 0..5 {
        lab.post("k", "a").await;
    }
    let first = said(&log);
    assert!(matches!(&first[..], [line] if line.contains("count=1") && line.contains(&id("k").short())), "{first:?}");
    tokio::time::advance(Duration::from_secs(60)).await;
    lab.post("k", "a").await;
    let next = said(&log);
    assert!(matches!(&next[..], [line] if line.contains("count=5")), "{next:?}");
}

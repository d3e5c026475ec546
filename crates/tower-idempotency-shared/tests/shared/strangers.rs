//! A key reveals nothing over a shared store either: a client with other credentials gets one answer, whichever process
//! has the operation.

use std::collections::BTreeSet;

use testkit::Gate;
use testkit::lab::strangers::{alice, by, found, interrupted, patient, strangers};
use testkit::lab::{Lab, gated, post, settle};
use tower_idempotency::{IdempotencyLayer, OnInterrupted};
use tower_idempotency_conformance::memory_backend::Call;

use crate::world::{lapse, two};

#[tokio::test(start_paused = true)]
async fn a_stranger_sees_the_same_in_every_process_whatever_became_of_the_operation() {
    let mut seen = BTreeSet::new();

    // The operation is in flight, here and in another process, and then completed.
    let ([(_, store), (_, other)], gate) = (two().await, Gate::default());
    let lab = gated(patient(&store), &gate);
    let first = lab.spawn(alice());
    gate.arrival().await;
    for store in [&store, &other] {
        seen.extend(strangers(&patient(store)).await);
    }
    gate.open();
    assert_eq!(first.await.unwrap().text(), "effect 1");
    for store in [&store, &other] {
        seen.extend(strangers(&patient(store)).await);
    }
    assert!(lab.send(alice()).await.is_replay());
    assert_eq!(lab.effects(), 1);

    // It was interrupted, and a retry is refused, runs again, or is asked about.
    let [(_, store), (_, other)] = two().await;
    interrupted(&store).await;
    for layer in [patient(&store), patient(&other)] {
        let rerun = layer.clone().on_interrupted(OnInterrupted::Rerun);
        for layer in [layer.clone(), rerun, layer.reconcile_with(found())] {
            seen.extend(strangers(&layer).await);
        }
    }
    assert_eq!(Lab::counting(patient(&store)).send(alice()).await.problem(), "outcome-unknown");

    assert_eq!(seen.len(), 1, "{seen:#?}");
}

// The claim of a stranger's request meets the operation; a retry of its owner meets the stranger's slot meanwhile.
#[tokio::test(start_paused = true)]
async fn an_owner_that_meets_a_stranger_s_claim_is_told_to_come_again_and_not_that_the_outcome_is_unknown() {
    for runs_again in [true, false] {
        let [(dies, one), (way, other)] = two().await;
        let gate = Gate::default();
        let run = gated(patient(&one).on_interrupted(OnInterrupted::Rerun), &gate).spawn(alice());
        gate.arrival().await;
        lapse(&dies).await;
        run.abort();
        let layer = IdempotencyLayer::new(other);
        let layer = if runs_again { layer.on_interrupted(OnInterrupted::Rerun) } else { layer.reconcile_with(found()) };
        let lab = Lab::counting(layer);
        let claim = way.hold(Call::Put);
        let stranger = lab.spawn(by("Bearer mallory", post("k", "a")));
        settle().await;
        let owner = lab.spawn(alice());
        settle().await;
        claim.release();
        stranger.await.unwrap().assert_refusal(422, "credentials-changed", false, None);
        owner.await.unwrap().assert_refusal(409, "in-flight", true, Some("1"));
        assert_eq!(lab.send(alice()).await.text(), if runs_again { "effect 1" } else { "found" });
    }
    // If the layer can state no more than this, it states this.
    let [(way, store), _] = two().await;
    interrupted(&store).await;
    let lab = Lab::counting(IdempotencyLayer::new(store));
    let claim = way.hold(Call::Put);
    let stranger = lab.spawn(by("Bearer mallory", post("k", "a")));
    settle().await;
    let owner = lab.spawn(alice());
    settle().await;
    claim.release();
    stranger.await.unwrap().assert_refusal(422, "credentials-changed", false, None);
    owner.await.unwrap().assert_refusal(409, "outcome-unknown", false, None);
}

// While it is not known whose the operation is, the answer to a request beyond the bound says neither that it is its
// own nor that it is another's. Otherwise it would look for the end of the run in another process, as if the run was
// its own, and the owner would get `credentials-changed`.
#[tokio::test(start_paused = true)]
async fn strangers_that_take_all_places_to_wait_do_not_make_the_owner_a_stranger() {
    let ([(_, one), (way, other)], gate) = (two().await, Gate::default());
    let elsewhere = gated(patient(&one), &gate);
    let first = elsewhere.spawn(alice());
    gate.arrival().await;
    let lab = Lab::counting(patient(&other));
    let claim = way.hold(Call::Put);
    let strangers: Vec<_> = (0..1_025).map(|_| lab.spawn(by("Bearer mallory", post("k", "a")))).collect();
    settle().await;
    let one_more = lab.spawn(by("Bearer mallory", post("k", "a")));
    settle().await;
    let owner = lab.spawn(alice());
    settle().await;
    one_more.await.unwrap().assert_refusal(503, "overloaded", true, Some("2"));
    owner.await.unwrap().assert_refusal(503, "overloaded", true, Some("2"));
    claim.release();
    for stranger in strangers {
        stranger.await.unwrap().assert_refusal(422, "credentials-changed", false, None);
    }
    let owner = lab.spawn(alice());
    settle().await;
    gate.open();
    assert_eq!(first.await.unwrap().text(), "effect 1");
    assert!(owner.await.unwrap().is_replay());
    assert_eq!((lab.effects(), elsewhere.effects()), (0, 1));
}

//! A process that closes its store, or drains, while handlers run.

use std::time::Duration;

use testkit::Gate;
use testkit::lab::{id, post};
use tower_idempotency::engine::{Reconciled, Reconciler};
use tower_idempotency::store::Store as _;
use tower_idempotency::{IdempotencyLayer, OnInFlight, OnInterrupted};
use tower_idempotency_conformance::memory_backend::{Call, Fault};
use tower_idempotency_shared::Kind;

use crate::world::{Effects, LEASE, Store, two};

#[tokio::test(start_paused = true)]
async fn a_process_that_closes_its_store_leaves_no_lease_to_be_waited_for() {
    let [(here, one), _] = two().await;
    let server = Effects::default().server(&one, OnInterrupted::Refuse);
    assert_eq!(server.post("k", "a").await.text(), "effect 1");
    one.close().await.unwrap();
    assert_eq!(here.database().rows("").iter().filter(|row| row.kind == Kind::Session).count(), 1, "the other's");
    assert_eq!(server.post("new", "a").await.problem(), "store-unavailable");
}

// "Drain never ends the claim of a handler that still runs." Seeded faults: the session ends, whatever runs; it does
// so when its next renewal is due; it never ends.
#[tokio::test(start_paused = true)]
async fn trap_103_a_store_that_is_closed_ends_no_claim_of_a_handler_that_still_runs() {
    let [(here, one), (_, other)] = two().await;
    let (effects, gate) = (Effects::default(), Gate::default());
    let server = effects.behind(IdempotencyLayer::new(one.clone()), &gate);
    let run = server.spawn(post("k", "a"));
    gate.arrival().await;
    one.close().await.unwrap();
    let open = Gate::default();
    open.open();
    let layer = IdempotencyLayer::new(other).on_interrupted(OnInterrupted::Rerun).on_in_flight(OnInFlight::Reject);
    let elsewhere = effects.behind(layer, &open);
    for pause in [Duration::ZERO, LEASE, LEASE] {
        tokio::time::sleep(pause).await;
        assert_eq!(elsewhere.post("k", "a").await.problem(), "in-flight");
    }
    gate.open();
    assert_eq!(run.await.unwrap().text(), "effect 1", "and its outcome is recorded");
    assert!(elsewhere.post("k", "a").await.is_replay());
    assert_eq!(effects.count(), 1);
    tokio::time::sleep(LEASE).await;
    let sessions = here.database().rows("").iter().filter(|row| row.kind == Kind::Session).count();
    assert_eq!(sessions, 1, "the other's: it ends with the last run");
}

// A seeded fault: the session ends with the last run, before its end is recorded.
#[tokio::test(start_paused = true)]
async fn trap_103_a_store_that_is_closed_ends_no_claim_of_a_run_whose_end_is_not_recorded_yet() {
    let [(here, one), (_, other)] = two().await;
    let (effects, gate) = (Effects::default(), Gate::default());
    let layer =
        |store| IdempotencyLayer::new(store).on_interrupted(OnInterrupted::Rerun).on_in_flight(OnInFlight::Reject);
    let run = effects.behind(layer(one.clone()), &gate).spawn(post("k", "a"));
    gate.arrival().await;
    let locked = here.database().lock("", id("k"));
    // The end may be recorded, so it is sent again until something is known of it.
    here.fail_next(Call::Put, Fault::LoseCall);
    gate.open();
    assert_eq!(run.await.unwrap().text(), "effect 1", "the client has its answer");
    one.close().await.unwrap();
    let elsewhere = effects.behind(layer(other), &gate);
    for _ in 0..3 {
        tokio::time::sleep(LEASE).await;
        assert_eq!(elsewhere.post("k", "a").await.problem(), "in-flight");
    }
    locked.release();
    tokio::time::sleep(LEASE).await;
    let replay = elsewhere.post("k", "a").await;
    assert_eq!((replay.text(), replay.is_replay(), effects.count()), ("effect 1", true, 1));
}

// "Under `Rerun` and `Reconcile` it drops those futures first; then the session ends." A seeded fault: drain leaves
// them.
#[tokio::test(start_paused = true)]
async fn trap_103_drain_drops_handlers_that_others_may_run_again_and_leaves_the_others_their_claims() {
    let limit = LEASE / 3;
    let reconciler = || Reconciler::<http::Response<axum::body::Body>>::new(|_| async { Reconciled::RunAgain });
    type Policy = fn(IdempotencyLayer<Store>, Reconciler<http::Response<axum::body::Body>>) -> IdempotencyLayer<Store>;
    let policies: [(Policy, bool); 3] = [
        (|layer, _| layer.on_interrupted(OnInterrupted::Rerun), true),
        (|layer, reconciler| layer.reconcile_with(reconciler), true),
        (|layer, _| layer, false),
    ];
    for (number, (policy, is_dropped)) in policies.into_iter().enumerate() {
        let [(here, one), (_, other)] = two().await;
        let (effects, gate, open) = (Effects::default(), Gate::default(), Gate::default());
        let layer = policy(IdempotencyLayer::new(one.clone()), reconciler());
        let run = effects.behind(layer.clone(), &gate).spawn(post("k", "a"));
        gate.arrival().await;
        let began = tokio::time::Instant::now();
        let left = layer.drain(limit).await;
        assert!(began.elapsed() <= limit, "{number}");
        assert_eq!(left.is_complete(), is_dropped, "{number}: {left:?}");
        one.close().await.unwrap();
        let sessions = here.database().rows("").iter().filter(|row| row.kind == Kind::Session).count();
        assert_eq!(sessions, if is_dropped { 1 } else { 2 }, "{number}");
        open.open();
        let elsewhere = policy(IdempotencyLayer::new(other).on_in_flight(OnInFlight::Reject), reconciler());
        let told = effects.behind(elsewhere, &open).post("k", "a").await;
        assert_eq!(told.text().starts_with("effect 2"), is_dropped, "{number}: {told:?}");
        gate.open();
        assert_eq!(run.await.unwrap().text() == "effect 1", !is_dropped, "{number}");
    }
}

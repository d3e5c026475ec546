//! Operations that an operator settles or forgets while something else is under way with them.

use std::time::Duration;

use axum::response::Response;
use testkit::Gate;
use testkit::lab::operator::Operated as _;
use testkit::lab::{id, post};
use tokio::time::sleep;
use tower_idempotency::engine::{Reconciled, Reconciler};
use tower_idempotency::internals::Records as _;
use tower_idempotency::operations::{Action, Applied};
use tower_idempotency::{IdempotencyLayer, OnInFlight, OnInterrupted};
use tower_idempotency_conformance::memory_backend::Call;

use crate::world::{DEATH, Effects, row, two};
use crate::writes::slow_link::answering;

// Seeded faults: the read puts the record back into the cache, in its own place or over that of the next run.
async fn forgotten_while_it_is_read(runs_meanwhile: bool) {
    let [(_, one), (there, other)] = two().await;
    let effects = Effects::default();
    assert_eq!(effects.server(&one, OnInterrupted::Refuse).post("k", "a").await.text(), "effect 1");
    let row = row(&there, id("k")).unwrap();
    // A row of a restarted server is returned only behind a barrier, a write. It is lost, and sent again later.
    there.database().restart();
    let barrier = there.hold(Call::Put);
    let reader = other.clone();
    let read = tokio::spawn(async move { reader.load(id("k")).await });
    barrier.wait_until_held(1).await;
    barrier.drop_held();
    barrier.release();
    let layer = IdempotencyLayer::new(other.clone());
    assert_eq!(layer.resolve(row.id, row.fence, Action::Forget).await.unwrap(), Applied::Done);
    assert!(!read.is_finished());
    let server = effects.server(&other, OnInterrupted::Refuse);
    if runs_meanwhile {
        assert_eq!(server.post("k", "a").await.text(), "effect 2");
    }
    assert!(read.await.unwrap().unwrap().is_some(), "it was there when it was read");
    assert_eq!(server.post("k", "a").await.text(), "effect 2");
}

#[tokio::test(start_paused = true)]
async fn what_an_operator_has_forgotten_runs_again_though_it_was_being_read_meanwhile() {
    for runs_meanwhile in [false, true] {
        forgotten_while_it_is_read(runs_meanwhile).await;
    }
}

// A seeded fault: what was under way comes into the cache.
#[tokio::test(start_paused = true)]
async fn a_large_answer_that_is_seen_to_be_forgotten_on_its_way_is_not_replayed_again() {
    let [(_, one), (there, other)] = two().await;
    let server = answering(&other, 1 << 20);
    assert_eq!(answering(&one, 1 << 20).post("k", "a").await.status, 200);
    let row = row(&there, id("k")).unwrap();
    let answers = there.hold_answers(Call::Get);
    let retry = server.spawn(post("k", "a"));
    answers.wait_until_held(1).await;
    let layer = IdempotencyLayer::new(one);
    assert_eq!(layer.resolve(row.id, row.fence, Action::Forget).await.unwrap(), Applied::Done);
    assert!(IdempotencyLayer::new(other).operations().inspect(id("k")).await.unwrap().is_none());
    answers.release();
    assert!(retry.await.unwrap().is_replay(), "it was there when it was read");
    assert!(!server.post("k", "a").await.is_replay());
}

// The handler is dropped before the lease ends, and its process records that when the store is back.
#[tokio::test(start_paused = true)]
async fn what_an_operator_has_forgotten_runs_again_also_where_its_run_was_dropped() {
    let [(here, one), (_, other)] = two().await;
    let layer = |store| {
        let reconciler = Reconciler::<Response>::new(|_| async { Reconciled::StillUnknown });
        IdempotencyLayer::new(store).on_in_flight(OnInFlight::Reject).reconcile_with(reconciler)
    };
    let (effects, gate) = (Effects::default(), Gate::default());
    let own = layer(one);
    let server = effects.behind(own.clone(), &gate);
    let run = server.spawn(post("k", "a"));
    gate.arrival().await;
    here.cut();
    sleep(DEATH * 2).await;
    let operator = layer(other);
    let listed = operator.interrupted(9).await.unwrap();
    let settled = operator.resolve(listed[0].id, listed[0].fence, Action::Release).await.unwrap();
    assert_eq!(settled, Applied::Done);
    gate.open();
    here.mend();
    assert_eq!(run.await.unwrap().problem(), "outcome-unknown");
    sleep(Duration::from_secs(3_600)).await;
    assert_eq!(own.interrupted(9).await.unwrap(), [], "nothing is left to settle");
    assert_eq!(server.post("k", "a").await.text(), "effect 2");
}

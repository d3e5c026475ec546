//! Operations that an operator settles or forgets while something else is under way with them.

use std::time::Duration;

use axum::response::Response;
use testkit::Gate;
use testkit::lab::operator::Operated as _;
use testkit::lab::{id, post};
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tower_idempotency::engine::{Reconciled, Reconciler};
use tower_idempotency::internals::{Record, Records as _, State};
use tower_idempotency::operations::{Action, Applied};
use tower_idempotency::{IdempotencyLayer, OnInFlight, OnInterrupted};
use tower_idempotency_conformance::memory_backend::{Call, MemoryBackend, Replication};
use tower_idempotency_shared::Kind;

use crate::world::{DEATH, Effects, LEASE, Store, disputed, row, two};
use crate::writes::slow_link::answering;

/// Begins to read `k`, of which the row is there, until the barrier behind which it is returned.
async fn being_read(there: &MemoryBackend, store: Store) -> JoinHandle<Option<Record>> {
    // A row of a restarted server is returned only behind a barrier, a write. It is lost, and sent again later.
    there.database().restart();
    let barrier = there.hold(Call::Put);
    let read = tokio::spawn(async move { store.load(id("k")).await.unwrap() });
    barrier.wait_until_held(1).await;
    barrier.drop_held();
    barrier.release();
    read
}

// Seeded faults: the read puts the record back into the cache, in its own place or over that of the next run.
async fn forgotten_while_it_is_read(runs_meanwhile: bool) {
    let [(_, one), (there, other)] = two().await;
    let effects = Effects::default();
    assert_eq!(effects.server(&one, OnInterrupted::Refuse).post("k", "a").await.text(), "effect 1");
    let row = row(&there, id("k")).unwrap();
    let read = being_read(&there, other.clone()).await;
    let layer = IdempotencyLayer::new(other.clone());
    assert_eq!(layer.resolve(row.id, row.fence, Action::Forget).await.unwrap(), Applied::Done);
    assert!(!read.is_finished());
    let server = effects.server(&other, OnInterrupted::Refuse);
    if runs_meanwhile {
        assert_eq!(server.post("k", "a").await.text(), "effect 2");
    }
    assert!(read.await.unwrap().is_some(), "it was there when it was read");
    assert_eq!(server.post("k", "a").await.text(), "effect 2");
}

#[tokio::test(start_paused = true)]
async fn what_an_operator_has_forgotten_runs_again_though_it_was_being_read_meanwhile() {
    for runs_meanwhile in [false, true] {
        forgotten_while_it_is_read(runs_meanwhile).await;
    }
}

// A seeded fault: the read puts the answer back into the cache.
#[tokio::test(start_paused = true)]
async fn a_forgotten_answer_does_not_come_back_from_a_read_under_way() {
    let [(_, one), (there, other)] = two().await;
    let effects = Effects::default();
    assert_eq!(effects.server(&one, OnInterrupted::Refuse).post("k", "a").await.text(), "effect 1");
    let row = row(&there, id("k")).unwrap();
    let read = being_read(&there, other.clone()).await;
    let layer = IdempotencyLayer::new(other.clone());
    assert_eq!(layer.resolve(row.id, row.fence, Action::ForgetAnswer).await.unwrap(), Applied::Done);
    assert!(!read.is_finished());
    let read = read.await.unwrap().unwrap();
    assert!(matches!(read.state, State::Completed { .. }), "it was there when it was read");
    let retry = effects.server(&other, OnInterrupted::Refuse).post("k", "a").await;
    retry.assert_refusal(409, "not-replayable", false, None);
    assert_eq!((retry.json()["original_status"].as_u64(), effects.count()), (Some(200), 1));
}

// Seeded faults: the forgotten answer's record has a new fence; the process that has a copy keeps it.
#[tokio::test(start_paused = true)]
async fn a_failover_leaves_no_disputed_outcome_of_a_forgotten_answer() {
    let [(here, one), (_, other)] = two().await;
    let effects = Effects::default();
    let server = effects.server(&one, OnInterrupted::Refuse);
    assert_eq!(server.post("k", "a").await.text(), "effect 1");
    let before = row(&here, id("k")).unwrap();
    let operator = IdempotencyLayer::new(other.clone());
    assert_eq!(operator.resolve(before.id, before.fence, Action::ForgetAnswer).await.unwrap(), Applied::Done);
    assert!(server.post("k", "a").await.is_replay(), "its process has a copy");
    here.database().fail_over();
    tokio::time::sleep(LEASE).await;
    assert!(disputed(&other).await.is_empty());
    let after = row(&here, id("k")).unwrap();
    assert_eq!((after.kind, after.fence), (Kind::Consumed, before.fence));
    server.post("k", "a").await.assert_refusal(409, "not-replayable", false, None);
    assert_eq!(effects.count(), 1);
}

// Seeded faults: the process that forgets an answer, or that sees that it was forgotten, keeps nothing of it.
#[tokio::test(start_paused = true)]
async fn the_fact_of_a_forgotten_answer_outlives_a_failover_that_loses_both_writes() {
    for forgets_there in [false, true] {
        let [(here, one), (_, other)] = two().await;
        let effects = Effects::default();
        let server = effects.server(&one, OnInterrupted::Refuse);
        // The standby gets neither the outcome nor that its answer was forgotten.
        here.database().replication(Replication::Behind);
        assert_eq!(server.post("k", "a").await.text(), "effect 1");
        let before = row(&here, id("k")).unwrap();
        let operator = IdempotencyLayer::new(if forgets_there { other.clone() } else { one.clone() });
        assert_eq!(operator.resolve(before.id, before.fence, Action::ForgetAnswer).await.unwrap(), Applied::Done);
        if forgets_there {
            assert!(IdempotencyLayer::new(one.clone()).operations().inspect(id("k")).await.unwrap().is_some());
        }
        here.database().fail_over();
        here.database().replication(Replication::InStep);
        tokio::time::sleep(LEASE).await;
        let after = row(&here, id("k")).unwrap();
        assert_eq!((after.kind, after.fence), (Kind::Consumed, before.fence), "{forgets_there}");
        let retry = effects.server(&other, OnInterrupted::Refuse).post("k", "a").await;
        retry.assert_refusal(409, "not-replayable", false, None);
        assert_eq!(effects.count(), 1);
    }
}

// A seeded fault: an answer that is forgotten already is forgotten again.
#[tokio::test(start_paused = true)]
async fn two_servers_that_forget_at_once_forget_once() {
    let [(here, one), (_, other)] = two().await;
    let effects = Effects::default();
    effects.server(&one, OnInterrupted::Refuse).post("k", "a").await;
    let row = row(&here, id("k")).unwrap();
    let [one, other] = [one, other].map(IdempotencyLayer::new);
    let forget = |layer: IdempotencyLayer<_>| async move {
        layer.resolve(row.id, row.fence, Action::ForgetAnswer).await.unwrap()
    };
    let (first, second) = tokio::join!(forget(one), forget(other));
    assert!(matches!((first, second), (Applied::Done, Applied::Stale) | (Applied::Stale, Applied::Done)));
}

// A seeded fault: the process that is asked keeps its copy.
#[tokio::test(start_paused = true)]
async fn a_process_that_has_a_copy_of_a_forgotten_answer_drops_it_when_it_is_asked() {
    let [(here, one), (_, other)] = two().await;
    let effects = Effects::default();
    let server = effects.server(&one, OnInterrupted::Refuse);
    server.post("k", "a").await;
    let row = row(&here, id("k")).unwrap();
    let operator = IdempotencyLayer::new(other);
    assert_eq!(operator.resolve(row.id, row.fence, Action::ForgetAnswer).await.unwrap(), Applied::Done);
    assert!(server.post("k", "a").await.is_replay());
    assert!(IdempotencyLayer::new(one).operations().inspect(id("k")).await.unwrap().is_some());
    server.post("k", "a").await.assert_refusal(409, "not-replayable", false, None);
}

async fn large_and_seen_to_be_forgotten(action: Action) {
    let is_kept = matches!(action, Action::ForgetAnswer);
    let [(_, one), (there, other)] = two().await;
    let server = answering(&other, 1 << 20);
    assert_eq!(answering(&one, 1 << 20).post("k", "a").await.status, 200);
    let row = row(&there, id("k")).unwrap();
    let answers = there.hold_answers(Call::Get);
    let retry = server.spawn(post("k", "a"));
    answers.wait_until_held(1).await;
    let layer = IdempotencyLayer::new(one);
    assert_eq!(layer.resolve(row.id, row.fence, action).await.unwrap(), Applied::Done);
    assert_eq!(IdempotencyLayer::new(other).operations().inspect(id("k")).await.unwrap().is_some(), is_kept);
    answers.release();
    assert!(retry.await.unwrap().is_replay(), "it was there when it was read");
    assert!(!server.post("k", "a").await.is_replay());
}

// A seeded fault, for each action: what was under way comes into the cache.
#[tokio::test(start_paused = true)]
async fn a_large_answer_that_is_seen_to_be_forgotten_on_its_way_is_not_replayed_again() {
    for action in [Action::Forget, Action::ForgetAnswer] {
        large_and_seen_to_be_forgotten(action).await;
    }
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

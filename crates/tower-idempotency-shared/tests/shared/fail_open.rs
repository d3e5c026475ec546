//! `fail_open`: runs without protection while the database is away, and their records afterwards.

use std::time::Duration;

use testkit::Gate;
use testkit::lab::{post, settle};
use tower_idempotency::{IdempotencyLayer, OnInFlight, OnInterrupted};
use tower_idempotency_conformance::memory_backend::Call;

use crate::world::{DEATH, Effects, LEASE, two};

const MINUTE: Duration = Duration::from_secs(60);

// A seeded fault: what has no claim is dropped with the lease.
#[tokio::test(start_paused = true)]
async fn fail_open_runs_a_handler_to_its_end_though_the_lease_is_over() {
    let [(here, one), _] = two().await;
    let effects = Effects::default();
    let gate = Gate::default();
    let layer = IdempotencyLayer::new(one).on_interrupted(OnInterrupted::Rerun).fail_open(true);
    let server = effects.behind(layer, &gate);
    here.database().stop();
    tokio::time::sleep(MINUTE).await;
    let run = server.spawn(post("k", "a"));
    gate.arrival().await;
    settle().await;
    gate.open();
    assert_eq!(run.await.unwrap().text(), "effect 1");
}

// A seeded fault: a fail-open run is not recorded.
#[tokio::test(start_paused = true)]
async fn what_fail_open_has_run_is_recorded_when_the_database_is_back() {
    let [(here, one), (_, other)] = two().await;
    let (effects, gate) = (Effects::default(), Gate::default());
    gate.open();
    let layer = IdempotencyLayer::new(one).fail_open(true);
    let server = effects.behind(layer.clone(), &gate);
    here.database().stop();
    assert_eq!(server.post("k", "a").await.text(), "effect 1");
    tokio::time::sleep(MINUTE).await;
    let retry = server.post("k", "a").await;
    assert_eq!((retry.text(), retry.is_replay()), ("effect 1", true), "this process remembers it");
    here.database().start();
    tokio::time::sleep(MINUTE).await;
    let replay = effects.server(&other, OnInterrupted::Refuse).post("k", "a").await;
    assert_eq!((replay.text(), replay.is_replay(), effects.count()), ("effect 1", true, 1));
    assert_eq!(layer.stats().fail_open_runs, 1);
    assert!(layer.drain(MINUTE).await.is_complete(), "nothing is left to be recorded");
}

// A seeded fault: a claim that is granted to a fail-open run is interrupted.
#[tokio::test(start_paused = true)]
async fn a_fail_open_run_has_the_claim_that_is_granted_late() {
    let [(here, one), (_, other)] = two().await;
    let (effects, gate) = (Effects::default(), Gate::default());
    let server = effects.behind(IdempotencyLayer::new(one).fail_open(true), &gate);
    let held = here.hold_answers(Call::Put);
    let run = server.spawn(post("k", "a"));
    gate.arrival().await;
    held.release();
    tokio::time::sleep(LEASE / 6).await;
    let layer = IdempotencyLayer::new(other.clone()).on_in_flight(OnInFlight::Reject);
    assert_eq!(effects.behind(layer, &gate).post("k", "a").await.problem(), "in-flight");
    gate.open();
    assert_eq!(run.await.unwrap().text(), "effect 1");
    settle().await;
    let replay = effects.server(&other, OnInterrupted::Refuse).post("k", "a").await;
    assert_eq!((replay.text(), replay.is_replay(), effects.count()), ("effect 1", true, 1));
}

// A seeded fault: nothing stops a run that had no claim when it began.
#[tokio::test(start_paused = true)]
async fn a_fail_open_run_whose_claim_is_granted_late_is_dropped_before_others_may_run_it_again() {
    let [(here, one), (_, other)] = two().await;
    let (effects, gate) = (Effects::default(), Gate::default());
    let layer = IdempotencyLayer::new(one).on_interrupted(OnInterrupted::Rerun).fail_open(true);
    let held = here.hold_answers(Call::Put);
    let run = effects.behind(layer, &gate).spawn(post("k", "a"));
    gate.arrival().await;
    held.release();
    settle().await;
    here.cut();
    let dropped = tokio::time::timeout(LEASE, run).await.expect("it is dropped before its lease is over");
    assert_eq!((dropped.unwrap().problem(), effects.count()), ("outcome-unknown".to_owned(), 1));
    tokio::time::sleep(DEATH).await;
    gate.open();
    assert_eq!(effects.server(&other, OnInterrupted::Rerun).post("k", "a").await.text(), "effect 2");
}

#[tokio::test(start_paused = true)]
async fn what_another_process_has_recorded_meanwhile_counts_and_not_what_fail_open_has_run() {
    let [(here, one), (_, other)] = two().await;
    let (effects, gate) = (Effects::default(), Gate::default());
    gate.open();
    let server = effects.behind(IdempotencyLayer::new(one).fail_open(true), &gate);
    here.cut();
    assert_eq!(server.post("k", "a").await.text(), "effect 1");
    assert_eq!(effects.server(&other, OnInterrupted::Refuse).post("k", "a").await.text(), "effect 2");
    here.mend();
    tokio::time::sleep(MINUTE).await;
    let replay = server.post("k", "a").await;
    assert_eq!((replay.text(), replay.is_replay(), effects.count()), ("effect 2", true, 2));
}

// A seeded fault: a claim that has met a record waits for longer than its requester, which takes the store for away.
#[tokio::test(start_paused = true)]
async fn fail_open_runs_nothing_whose_record_was_met() {
    let [(_, one), (there, other)] = two().await;
    let (effects, gate) = (Effects::default(), Gate::default());
    gate.open();
    assert_eq!(effects.server(&one, OnInterrupted::Refuse).post("k", "a").await.text(), "effect 1");
    there.database().restart();
    let server = effects.behind(IdempotencyLayer::new(other).fail_open(true), &gate);
    let claim = there.hold(Call::Put);
    let retry = server.spawn(post("k", "a"));
    settle().await;
    claim.release();
    // The barrier before the replay is held up.
    let barrier = there.hold(Call::Put);
    assert_eq!(retry.await.unwrap().problem(), "overloaded");
    barrier.release();
    tokio::time::sleep(LEASE).await;
    assert_eq!((server.post("k", "a").await.text(), effects.count()), ("effect 1", 1));
}

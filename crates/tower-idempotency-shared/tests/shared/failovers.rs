//! A failover to a standby that lacks writes which the database has answered.

use std::time::Duration;

use testkit::lab::operator::{Operated as _, answer};
use testkit::lab::{Lab, hold, id, post, settle};
use testkit::{Answer, Gate};
use tower_idempotency::internals::{Records as _, State};
use tower_idempotency::operations::Applied;
use tower_idempotency::{IdempotencyLayer, OnInFlight, OnInterrupted};
use tower_idempotency_conformance::memory_backend::{Call, Fault, MemoryBackend, Replication};
use tower_idempotency_shared::Kind;

use crate::world::{Effects, LEASE, disputed, lapse, process, two};

const MINUTE: Duration = Duration::from_secs(60);

/// A run of `k` begins behind `server`, and a failover loses its claim before the gate lets it end.
async fn run_whose_claim_is_lost(here: &MemoryBackend, server: &Lab, gate: &Gate) -> Answer {
    here.database().replication(Replication::Behind);
    let run = server.spawn(post("k", "a"));
    gate.arrival().await;
    here.database().fail_over();
    here.database().replication(Replication::InStep);
    gate.open();
    run.await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_a_failover_lost_is_recorded_when_its_run_ends() {
    let [(here, one), (_, other)] = two().await;
    let (effects, gate) = (Effects::default(), Gate::default());
    let layer = IdempotencyLayer::new(one);
    let answer = run_whose_claim_is_lost(&here, &effects.behind(layer.clone(), &gate), &gate).await;
    assert_eq!(answer.text(), "effect 1");
    assert_eq!(layer.stats().lost, 1);
    let replay = effects.server(&other, OnInterrupted::Refuse).post("k", "a").await;
    assert_eq!((replay.text(), replay.is_replay(), effects.count()), ("effect 1", true, 1));
}

/// `server` answers `k`, and a failover loses the outcome.
async fn lose_an_outcome(here: &MemoryBackend, server: &Lab) {
    here.database().replication(Replication::Behind);
    assert_eq!(server.post("k", "a").await.text(), "effect 1");
    here.database().fail_over();
    here.database().replication(Replication::InStep);
}

/// A failover loses an outcome that a living process knows, and that process puts it back. `then` changes that
/// process's connection to the database as soon as the outcome is lost.
async fn a_lost_outcome_is_put_back(then: impl FnOnce(&MemoryBackend)) {
    let [(here, one), (_, other)] = two().await;
    let effects = Effects::default();
    lose_an_outcome(&here, &effects.server(&one, OnInterrupted::Refuse)).await;
    then(&here);
    tokio::time::sleep(LEASE).await;
    let replay = effects.server(&other, OnInterrupted::Refuse).post("k", "a").await;
    assert_eq!((replay.text(), replay.is_replay(), effects.count()), ("effect 1", true, 1));
}

// Seeded faults: an older record counts as one that has run again, whether it is running or interrupted.
#[tokio::test(start_paused = true)]
async fn trap_138_an_outcome_is_put_back_over_the_row_from_before_a_take_over_or_a_settlement() {
    for policy in [OnInterrupted::Rerun, OnInterrupted::Refuse] {
        let [(here, one), (there, other)] = two().await;
        let (effects, gate) = (Effects::default(), Gate::default());
        let _cut = effects.behind(IdempotencyLayer::new(one).on_interrupted(policy), &gate).spawn(post("k", "a"));
        gate.arrival().await;
        lapse(&here).await;
        there.database().replication(Replication::Behind);
        let (server, operated) = (effects.server(&other, policy), IdempotencyLayer::new(other.clone()));
        if policy == OnInterrupted::Refuse {
            let listed = operated.interrupted(1).await.unwrap().remove(0);
            let settled = operated.resolve(listed.id, listed.fence, answer("effect 2")).await;
            assert_eq!(settled.unwrap(), Applied::Done);
        }
        assert_eq!(server.post("k", "a").await.text(), "effect 2");
        let before = effects.count();
        there.database().fail_over();
        there.database().replication(Replication::InStep);
        // The process notices that another server answers.
        tokio::time::sleep(LEASE).await;
        let third = process(&there.another_process()).await;
        let replay = effects.server(&third, policy).post("k", "a").await;
        assert_eq!((replay.text(), effects.count()), ("effect 2", before), "{policy:?}");
        assert_eq!((disputed(&third).await.len(), operated.stats().lost), (0, 1), "{policy:?}");
    }
}

// A seeded fault: the store does not put back the outcome that a failover has lost.
#[tokio::test(start_paused = true)]
async fn an_outcome_that_a_failover_lost_is_put_back_by_a_process_that_knows_it() {
    a_lost_outcome_is_put_back(|_| {}).await;
}

// A seeded fault: it is tried once.
#[tokio::test(start_paused = true)]
async fn an_outcome_that_a_failover_lost_is_put_back_though_the_database_refuses_to_be_asked_at_first() {
    a_lost_outcome_is_put_back(|here| here.fail_next(Call::Get, Fault::Refuse)).await;
}

// Seeded faults: it is tried three times; it is tried for ever, so that the next change of the server goes unnoticed.
#[tokio::test(start_paused = true)]
async fn an_outcome_that_a_failover_lost_is_put_back_for_minutes_and_then_at_the_next_change_of_the_server() {
    for (refusals, is_given_up) in [(12, false), (20, true)] {
        let [(here, one), (_, other)] = two().await;
        let effects = Effects::default();
        lose_an_outcome(&here, &effects.server(&one, OnInterrupted::Refuse)).await;
        (0..refusals).for_each(|_| here.fail_next(Call::Get, Fault::Refuse));
        tokio::time::sleep(MINUTE * 4).await;
        let is_back = || here.database().rows("").iter().any(|row| row.kind == Kind::Completed);
        assert_eq!(is_back(), !is_given_up);
        if is_given_up {
            here.database().fail_over();
            tokio::time::sleep(MINUTE * 4).await;
        }
        let replay = effects.server(&other, OnInterrupted::Refuse).post("k", "a").await;
        assert_eq!((replay.text(), replay.is_replay(), effects.count()), ("effect 1", true, 1));
    }
}

// A seeded fault: this process replays its outcome although the database has another one.
#[tokio::test(start_paused = true)]
async fn an_outcome_that_a_failover_lost_is_disputed_if_the_operation_has_run_again() {
    let [(here, one), (_, other)] = two().await;
    let effects = Effects::default();
    let server = effects.server(&one, OnInterrupted::Refuse);
    lose_an_outcome(&here, &server).await;
    // This makes sure that the next claim has another fence.
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(effects.server(&other, OnInterrupted::Refuse).post("k", "a").await.text(), "effect 2");
    assert_eq!(server.post("k", "a").await.text(), "effect 1", "it has not noticed yet");
    tokio::time::sleep(LEASE).await;
    assert_eq!(server.post("k", "a").await.text(), "effect 2");
    let disputed = disputed(&other).await;
    assert_eq!(disputed.iter().map(|outcome| outcome.id).collect::<Vec<_>>(), [id("k")]);
    assert_eq!(effects.count(), 2);
}

// A seeded fault: the tombstone of the later run is taken for that of an operator who had the outcome forgotten.
#[tokio::test(start_paused = true)]
async fn an_outcome_that_a_failover_lost_is_disputed_if_the_operation_has_run_again_without_an_effect() {
    let [(here, one), (_, other)] = two().await;
    let effects = Effects::default();
    lose_an_outcome(&here, &effects.server(&one, OnInterrupted::Refuse)).await;
    // This makes sure that the next claim has another fence.
    tokio::time::sleep(Duration::from_millis(1)).await;
    let freeing =
        Lab::new(IdempotencyLayer::new(other.clone()), |_| async { (tower_idempotency::Release, "not started") });
    assert_eq!(freeing.post("k", "a").await.text(), "not started");
    for _ in 0..2 {
        tokio::time::sleep(LEASE).await;
        assert_eq!(disputed(&other).await.iter().map(|outcome| outcome.id).collect::<Vec<_>>(), [id("k")]);
        // Each later change of the server meets the row of the first.
        assert_eq!(IdempotencyLayer::new(one.clone()).stats().disputed, 1);
        here.database().fail_over();
    }
}

// A seeded fault: the tombstone of a released key, older than the run, refuses its outcome.
#[tokio::test(start_paused = true)]
async fn a_claim_that_a_failover_lost_is_recorded_though_the_key_had_been_released_before() {
    let [(here, one), (_, other)] = two().await;
    let freeing =
        Lab::new(IdempotencyLayer::new(one.clone()), |_| async { (tower_idempotency::Release, "not started") });
    assert_eq!(freeing.post("k", "a").await.text(), "not started");
    let (effects, gate) = (Effects::default(), Gate::default());
    let layer = IdempotencyLayer::new(one);
    let answer = run_whose_claim_is_lost(&here, &effects.behind(layer.clone(), &gate), &gate).await;
    assert_eq!(answer.text(), "effect 1");
    let replay = effects.server(&other, OnInterrupted::Refuse).post("k", "a").await;
    assert_eq!((replay.text(), replay.is_replay(), effects.count()), ("effect 1", true, 1));
    assert_eq!(layer.stats().disputed, 0);
}

// Seeded faults: a run whose claim is lost is not interrupted, and leaves its key free; it is interrupted for as long
// as outcomes are kept.
#[tokio::test(start_paused = true)]
async fn a_claim_that_a_failover_lost_leaves_no_free_key_if_nobody_knows_how_its_run_ended() {
    for has_trace in [false, true] {
        let [(here, one), (_, other)] = two().await;
        if has_trace {
            let freeing = Lab::new(IdempotencyLayer::new(one.clone()), |_| async { (tower_idempotency::Release, "") });
            freeing.post("k", "a").await;
        }
        let (effects, gate) = (Effects::default(), Gate::default());
        let handler_gate = gate.clone();
        let unknown = Lab::new(IdempotencyLayer::new(one.clone()).retention(MINUTE * 10), move |_| {
            let gate = handler_gate.clone();
            async move {
                gate.pass().await;
                (tower_idempotency::Unsure, "perhaps")
            }
        });
        assert_eq!(run_whose_claim_is_lost(&here, &unknown, &gate).await.text(), "perhaps");
        for minutes in [0, 11] {
            tokio::time::sleep(MINUTE * minutes).await;
            for store in [&one, &other] {
                let refused = effects.server(store, OnInterrupted::Refuse).post("k", "a").await;
                refused.assert_refusal(409, "outcome-unknown", false, None);
            }
        }
        assert_eq!(effects.count(), 0);
        let listed = IdempotencyLayer::new(other).interrupted(9).await.unwrap();
        assert_eq!(listed.iter().map(|run| (run.id, run.state.status())).collect::<Vec<_>>(), [(id("k"), Some(200))]);
    }
}

// A seeded fault: a session whose row has an older token of this process is taken for dead.
#[tokio::test(start_paused = true)]
async fn a_failover_that_lost_a_renewal_costs_no_process_its_session() {
    let [(here, one), (_, other)] = two().await;
    let (effects, gate) = (Effects::default(), Gate::default());
    let run = effects.behind(IdempotencyLayer::new(one), &gate).spawn(post("k", "a"));
    gate.arrival().await;
    let sessions = || -> Vec<_> {
        let rows = here.database().rows("").into_iter();
        rows.filter(|row| row.kind == Kind::Session).map(|row| row.id).collect()
    };
    let before = sessions();
    here.database().replication(Replication::Behind);
    tokio::time::sleep(LEASE / 2).await;
    here.database().fail_over();
    here.database().replication(Replication::InStep);
    let layer = IdempotencyLayer::new(other).on_interrupted(OnInterrupted::Rerun).on_in_flight(OnInFlight::Reject);
    let elsewhere = effects.behind(layer, &gate);
    for _ in 0..90 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(elsewhere.post("k", "a").await.problem(), "in-flight");
    }
    assert_eq!(sessions(), before);
    gate.open();
    assert_eq!(run.await.unwrap().text(), "effect 1");
}

// A seeded fault: a row that a restarted server shows is replayed without a barrier.
#[tokio::test(start_paused = true)]
async fn trap_99_what_a_restart_has_made_visible_is_told_only_when_it_is_durable() {
    let [(here, one), (there, other)] = two().await;
    let (effects, gate) = (Effects::default(), Gate::default());
    gate.open();
    let layer = |store| IdempotencyLayer::new(store).on_in_flight(OnInFlight::Reject);
    let (server, elsewhere) = (effects.behind(layer(one), &gate), effects.behind(layer(other), &gate));
    // The claim is durable; the outcome is written, and its standby never gets it.
    let claimed = here.hold_answers(Call::Put);
    let run = server.spawn(post("k", "a"));
    settle().await;
    here.database().replication(Replication::Awaited);
    claimed.release();
    settle().await;
    here.database().restart();
    // It is visible now, and not durable: no answer yet.
    let asked = elsewhere.spawn(post("k", "a"));
    settle().await;
    assert!(!asked.is_finished(), "{:?}", asked.await);
    here.database().fail_over();
    here.database().replication(Replication::InStep);
    let told = asked.await.unwrap();
    assert!(!told.is_replay(), "{told:?}");
    drop((run, there));
}

// The run of a request ended without settling. A request with another fingerprint has its record interrupted, and a
// failover loses the row before that. A seeded fault: the row is written anew as the later request's.
#[tokio::test(start_paused = true)]
async fn an_interruption_whose_row_was_lost_is_written_anew_as_the_claimed_request_s() {
    let [(here, one), (_, other)] = two().await;
    here.database().replication(Replication::Behind);
    hold(&one, "k").await;
    let claimed = one.load(id("k")).await.unwrap().unwrap();
    let lab = Lab::counting(IdempotencyLayer::new(one).label(|_: &http::request::Parts| "a stranger's".to_owned()));
    let answers = here.hold_answers(Call::Put);
    let stranger = lab.spawn(post("k", "another request"));
    answers.wait_until_held(1).await;
    here.database().fail_over();
    here.database().replication(Replication::InStep);
    answers.release();
    assert_ne!(stranger.await.unwrap().status, 200);
    let record = other.load(id("k")).await.unwrap().unwrap();
    assert!(matches!(record.state, State::Interrupted { .. }), "{record:?}");
    assert_eq!((record.fingerprint, record.origin), (claimed.fingerprint, claimed.origin));
}

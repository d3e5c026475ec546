//! A database that is away, started again, replaced by its standby, or set to another time.

use std::pin::Pin;
use std::time::Duration;

use testkit::Gate;
use testkit::lab::steps::Wish;
use testkit::lab::{Lab, at_once, id, post, settle};
use tokio::time::timeout;
use tower_idempotency::internals::{Records as _, Reply, Transition};
use tower_idempotency::store::shared::Kind;
use tower_idempotency::store::{Health, Store as _, StoreError};
use tower_idempotency::{Fingerprint, IdempotencyLayer, OnInFlight, OnInterrupted};
use tower_idempotency_conformance::memory_backend::{Call, Fault, Hold, MemoryBackend, Replication};

use crate::world::{DEATH, Effects, LEASE, builder, database, two};

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn while_the_database_is_away_new_keys_are_refused_and_nothing_runs() {
    let [(here, one), _] = two().await;
    let effects = Effects::default();
    let server = effects.server(&one, OnInterrupted::Refuse);
    assert_eq!(server.post("done", "a").await.text(), "effect 1");
    here.database().stop();
    for number in 0..9 {
        assert_eq!(server.post(&format!("k{number}"), "a").await.problem(), "store-unavailable");
    }
    assert!(matches!(one.health(), Health::Away { .. }));
    assert!(server.post("done", "a").await.is_replay(), "what this process knows needs no database");
    here.database().start();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(server.post("k0", "a").await.text(), "effect 2");
    assert_eq!(one.health(), Health::Good);
}

// A seeded fault: leases are trusted as soon as the database is back.
#[tokio::test(start_paused = true)]
async fn trap_100_an_outage_of_a_minute_costs_no_living_run_its_right() {
    let [(here, one), (_, other)] = two().await;
    let (effects, gate) = (Effects::default(), Gate::default());
    let run = effects.behind(IdempotencyLayer::new(one), &gate).spawn(post("k", "a"));
    gate.arrival().await;
    let layer = IdempotencyLayer::new(other).on_interrupted(OnInterrupted::Rerun).on_in_flight(OnInFlight::Reject);
    let elsewhere = effects.behind(layer, &gate);
    here.database().stop();
    tokio::time::sleep(MINUTE).await;
    // Its owner is not the first to come back.
    let slow = here.hold(Call::Put);
    here.database().start();
    let mut slow = Some(slow);
    let mut refused = 0;
    for round in 0..300 {
        if round == 60 {
            slow.take();
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        match elsewhere.post("k", "a").await.problem().as_str() {
            "in-flight" => {}
            "store-unavailable" => refused += 1,
            other => panic!("{other}"),
        }
    }
    assert!(refused < 300, "the store comes back");
    gate.open();
    assert_eq!(run.await.unwrap().text(), "effect 1");
    assert_eq!(effects.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_ends_while_the_database_is_away_is_recorded_when_it_is_back() {
    let [(here, one), (_, other)] = two().await;
    let (effects, gate) = (Effects::default(), Gate::default());
    let layer = IdempotencyLayer::new(one);
    let run = effects.behind(layer.clone(), &gate).spawn(post("k", "a"));
    gate.arrival().await;
    here.database().stop();
    gate.open();
    assert_eq!(run.await.unwrap().text(), "effect 1", "the effect took place");
    assert_eq!(layer.counts().unrecorded, 1);
    here.database().start();
    tokio::time::sleep(MINUTE).await;
    let replay = effects.server(&other, OnInterrupted::Refuse).post("k", "a").await;
    assert_eq!((replay.text(), replay.is_replay(), effects.count()), ("effect 1", true, 1));
}

// A seeded fault: the store does not check whether the database is back, and the pauses grow to half a minute and more.
#[tokio::test(start_paused = true)]
async fn what_ends_during_a_long_outage_is_recorded_seconds_after_it() {
    let [(here, one), _] = two().await;
    let (effects, gate) = (Effects::default(), Gate::default());
    let server = effects.behind(IdempotencyLayer::new(one), &gate);
    let mut runs = Vec::new();
    for number in 0..8 {
        runs.push(server.spawn(post(&format!("k{number}"), "a")));
        gate.arrival().await;
    }
    here.database().stop();
    gate.open();
    for run in runs {
        assert!(run.await.unwrap().status.is_success(), "the effect took place");
    }
    tokio::time::sleep(MINUTE * 5).await;
    here.database().start();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let rows = here.database().rows("");
    assert_eq!(rows.iter().filter(|row| row.kind == Kind::Completed).count(), 8);
}

// A seeded fault: a run waits for its record for as long as the database is away.
#[tokio::test(start_paused = true)]
async fn a_client_is_answered_though_the_database_does_not_answer_while_its_outcome_is_written() {
    let [(here, one), (_, other)] = two().await;
    let (effects, gate) = (Effects::default(), Gate::default());
    let layer = IdempotencyLayer::new(one);
    let run = effects.behind(layer.clone(), &gate).spawn(post("k", "a"));
    gate.arrival().await;
    let held = here.hold(Call::Put);
    gate.open();
    let began = tokio::time::Instant::now();
    assert_eq!(run.await.unwrap().text(), "effect 1", "the effect took place");
    assert!(began.elapsed() < MINUTE, "{:?}", began.elapsed());
    assert_eq!(layer.counts().unrecorded, 1);
    tokio::time::sleep(MINUTE * 10).await;
    let before = here.counts().puts;
    tokio::time::sleep(MINUTE).await;
    assert!(
        here.counts().puts - before < 500,
        "what is told again is not sent again and again: {}",
        here.counts().puts
    );
    held.release();
    tokio::time::sleep(MINUTE).await;
    let replay = effects.server(&other, OnInterrupted::Refuse).post("k", "a").await;
    assert_eq!((replay.text(), replay.is_replay(), effects.count()), ("effect 1", true, 1));
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_a_failover_lost_is_recorded_when_its_run_ends() {
    let [(here, one), (_, other)] = two().await;
    let (effects, gate) = (Effects::default(), Gate::default());
    here.database().replication(Replication::Behind);
    let layer = IdempotencyLayer::new(one);
    let run = effects.behind(layer.clone(), &gate).spawn(post("k", "a"));
    gate.arrival().await;
    here.database().fail_over();
    here.database().replication(Replication::InStep);
    gate.open();
    assert_eq!(run.await.unwrap().text(), "effect 1");
    assert_eq!(layer.counts().lost, 1);
    let replay = effects.server(&other, OnInterrupted::Refuse).post("k", "a").await;
    assert_eq!((replay.text(), replay.is_replay(), effects.count()), ("effect 1", true, 1));
}

/// A failover loses an outcome that a living process knows, and that is put back. `then` is done to that process's way
/// to the database as soon as it is lost.
async fn a_lost_outcome_is_put_back(then: impl FnOnce(&MemoryBackend)) {
    let [(here, one), (_, other)] = two().await;
    let effects = Effects::default();
    here.database().replication(Replication::Behind);
    assert_eq!(effects.server(&one, OnInterrupted::Refuse).post("k", "a").await.text(), "effect 1");
    here.database().fail_over();
    here.database().replication(Replication::InStep);
    then(&here);
    tokio::time::sleep(LEASE).await;
    let replay = effects.server(&other, OnInterrupted::Refuse).post("k", "a").await;
    assert_eq!((replay.text(), replay.is_replay(), effects.count()), ("effect 1", true, 1));
}

// A seeded fault: the store does not put back what a failover has lost.
#[tokio::test(start_paused = true)]
async fn an_outcome_that_a_failover_lost_is_put_back_by_a_process_that_knows_it() {
    a_lost_outcome_is_put_back(|_| {}).await;
}

// A seeded fault: it is tried once.
#[tokio::test(start_paused = true)]
async fn an_outcome_that_a_failover_lost_is_put_back_though_the_database_refuses_to_be_asked_at_first() {
    a_lost_outcome_is_put_back(|here| here.fail_next(Call::Get, Fault::Refuse)).await;
}

// A seeded fault: this process replays its outcome although the database has another one.
#[tokio::test(start_paused = true)]
async fn an_outcome_that_a_failover_lost_is_disputed_if_the_operation_has_run_again() {
    let [(here, one), (_, other)] = two().await;
    let effects = Effects::default();
    let server = effects.server(&one, OnInterrupted::Refuse);
    here.database().replication(Replication::Behind);
    assert_eq!(server.post("k", "a").await.text(), "effect 1");
    here.database().fail_over();
    here.database().replication(Replication::InStep);
    // So that the next claim has another fence.
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(effects.server(&other, OnInterrupted::Refuse).post("k", "a").await.text(), "effect 2");
    assert_eq!(server.post("k", "a").await.text(), "effect 1", "it has not noticed yet");
    tokio::time::sleep(LEASE).await;
    assert_eq!(server.post("k", "a").await.text(), "effect 2");
    let disputed = other.disputed(9).await.unwrap();
    assert_eq!(disputed.iter().map(|outcome| outcome.id).collect::<Vec<_>>(), [id("k")]);
    assert_eq!(effects.count(), 2);
}

// A seeded fault: the trace of a released key, older than the run, refuses its outcome.
#[tokio::test(start_paused = true)]
async fn a_claim_that_a_failover_lost_is_recorded_though_the_key_had_been_released_before() {
    let [(here, one), (_, other)] = two().await;
    let freeing =
        Lab::new(IdempotencyLayer::new(one.clone()), |_| async { (tower_idempotency::Release, "not started") });
    assert_eq!(freeing.post("k", "a").await.text(), "not started");
    let (effects, gate) = (Effects::default(), Gate::default());
    here.database().replication(Replication::Behind);
    let layer = IdempotencyLayer::new(one);
    let run = effects.behind(layer.clone(), &gate).spawn(post("k", "a"));
    gate.arrival().await;
    here.database().fail_over();
    here.database().replication(Replication::InStep);
    gate.open();
    assert_eq!(run.await.unwrap().text(), "effect 1");
    let replay = effects.server(&other, OnInterrupted::Refuse).post("k", "a").await;
    assert_eq!((replay.text(), replay.is_replay(), effects.count()), ("effect 1", true, 1));
    assert_eq!(layer.counts().disputed, 0);
}

// Seeded faults: a run whose claim is lost is not interrupted, and leaves its key free; it is interrupted for as long as
// outcomes are kept.
#[tokio::test(start_paused = true)]
async fn a_claim_that_a_failover_lost_leaves_no_free_key_if_nobody_knows_how_its_run_ended() {
    for has_trace in [false, true] {
        let [(here, one), (_, other)] = two().await;
        if has_trace {
            let freeing = Lab::new(IdempotencyLayer::new(one.clone()), |_| async { (tower_idempotency::Release, "") });
            freeing.post("k", "a").await;
        }
        let (effects, gate) = (Effects::default(), Gate::default());
        here.database().replication(Replication::Behind);
        let handler_gate = gate.clone();
        let unknown = Lab::new(IdempotencyLayer::new(one.clone()).retention(MINUTE * 10), move |_| {
            let gate = handler_gate.clone();
            async move {
                gate.pass().await;
                (tower_idempotency::Unknown, "perhaps")
            }
        });
        let run = unknown.spawn(post("k", "a"));
        gate.arrival().await;
        here.database().fail_over();
        here.database().replication(Replication::InStep);
        gate.open();
        assert_eq!(run.await.unwrap().text(), "perhaps");
        for minutes in [0, 11] {
            tokio::time::sleep(MINUTE * minutes).await;
            for store in [&one, &other] {
                let refused = effects.server(store, OnInterrupted::Refuse).post("k", "a").await;
                refused.assert_refusal(409, "outcome-unknown", false, None);
            }
        }
        assert_eq!(effects.count(), 0);
        let listed = IdempotencyLayer::new(other).interrupted(9).await.unwrap();
        assert_eq!(listed.iter().map(|run| (run.id, run.status)).collect::<Vec<_>>(), [(id("k"), Some(200))]);
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

// A seeded fault: an unprotected run is not recorded.
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
    assert_eq!(layer.counts().unprotected, 1);
    assert!(layer.drain(MINUTE).await.is_complete(), "nothing is left to be recorded");
}

// A seeded fault: a claim that is granted to an unprotected run is interrupted.
#[tokio::test(start_paused = true)]
async fn an_unprotected_run_has_the_claim_that_is_granted_late() {
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
async fn an_unprotected_run_whose_claim_is_granted_late_is_dropped_before_others_may_run_it_again() {
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

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_does_not_make_living_processes_look_dead() {
    let clock = crate::world::SetClock::default();
    let here = tower_idempotency_conformance::memory_backend::MemoryBackend::with_clock(clock.clone());
    let there = here.another_process();
    let [one, other] = [crate::world::process(&here).await, crate::world::process(&there).await];
    let (effects, gate) = (Effects::default(), Gate::default());
    let run = effects.behind(IdempotencyLayer::new(one), &gate).spawn(post("k", "a"));
    gate.arrival().await;
    let layer = IdempotencyLayer::new(other).on_interrupted(OnInterrupted::Rerun).on_in_flight(OnInFlight::Reject);
    let elsewhere = effects.behind(layer, &gate);
    for step in [60_000, -120_000, 60_000] {
        clock.step(step);
        for _ in 0..60 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert_eq!(elsewhere.post("k", "a").await.problem(), "in-flight");
        }
    }
    gate.open();
    assert_eq!(run.await.unwrap().text(), "effect 1");
    assert_eq!(effects.count(), 1);
}

// A seeded fault: a claim begins while less than half of the lease is left.
#[tokio::test(start_paused = true)]
async fn nothing_begins_while_less_than_half_of_the_lease_is_left() {
    let [(here, one), _] = two().await;
    let effects = Effects::default();
    let server = effects.server(&one, OnInterrupted::Refuse);
    here.cut();
    tokio::time::sleep(LEASE * 2 / 3).await;
    here.mend();
    assert_eq!(server.post("k", "a").await.problem(), "store-unavailable");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!((server.post("k", "a").await.text(), effects.count()), ("effect 1", 1));
}

#[tokio::test(start_paused = true)]
async fn a_database_that_is_away_at_the_start_is_tried_for_ten_seconds() {
    let backend = database();
    backend.database().stop();
    let began = tokio::time::Instant::now();
    assert!(builder(&backend).open(backend.clone()).await.is_err());
    assert!((10..13).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    let opening = tokio::spawn(builder(&backend).open(backend.clone()));
    tokio::time::sleep(LEASE / 6).await;
    backend.database().start();
    assert!(opening.await.unwrap().is_ok());
    let short = builder(&backend).lease(Duration::from_secs(5)).open(backend.clone()).await.unwrap_err();
    assert!(short.to_string().contains("six times"), "{short}");
    backend.fail_next(Call::Guarantee, Fault::Refuse);
}

/// Polls the future until it waits for what is held up.
async fn is_held_up<F: Future>(future: &mut Pin<Box<F>>, held: &Hold) {
    for _ in 0..200 {
        assert!(at_once(future).is_none());
        tokio::task::yield_now().await;
    }
    assert_eq!(held.held(), 1);
}

// A seeded fault: a look-up holds the session's lock in the caller's task.
#[tokio::test(start_paused = true)]
async fn a_look_up_that_nobody_goes_on_with_costs_no_process_its_session() {
    let [(_, one), (there, other)] = two().await;
    let effects = Effects::default();
    assert_eq!(effects.server(&one, OnInterrupted::Refuse).post("k", "a").await.text(), "effect 1");
    there.database().restart();
    // A row of a restarted server is replayed only after a write, the barrier, which is held up.
    let held = there.hold(Call::Put);
    let mut look_up = Box::pin(other.load(id("k")));
    is_held_up(&mut look_up, &held).await;
    held.release();
    tokio::time::sleep(LEASE * 3).await;
    assert_eq!(effects.server(&other, OnInterrupted::Refuse).post("new", "a").await.text(), "effect 2");
    assert!(look_up.await.unwrap().is_some());
}

// A seeded fault: a claim that met a record waits for a write with the session's lock held in the caller's task.
#[tokio::test(start_paused = true)]
async fn a_claim_that_nobody_goes_on_with_costs_no_process_its_session() {
    let [(_, one), (there, other)] = two().await;
    let effects = Effects::default();
    assert_eq!(effects.server(&one, OnInterrupted::Refuse).post("k", "a").await.text(), "effect 1");
    there.database().restart();
    let claim = Wish::new(id("k"), Fingerprint::of(b"a")).claim();
    let mut claiming = Box::pin(other.apply(id("k"), Transition::Claim(claim)));
    // The claim itself; then the barrier before the row of the restarted server is used.
    for _ in 0..2 {
        let held = there.hold(Call::Put);
        is_held_up(&mut claiming, &held).await;
        held.release();
    }
    tokio::time::sleep(LEASE * 3).await;
    assert_eq!(effects.server(&other, OnInterrupted::Refuse).post("new", "a").await.text(), "effect 2");
    assert_eq!(claiming.await.unwrap().reply, Reply::Refused);
}

// A seeded fault: a claim that has met a record waits for longer than its requester, who takes the store for away.
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

// A seeded fault: the answer comes at the moment at which the requester gives up, and takes the store for away.
#[tokio::test(start_paused = true)]
async fn what_a_claim_has_met_is_told_before_its_requester_gives_up() {
    let [(_, one), (there, other)] = two().await;
    assert_eq!(Effects::default().server(&one, OnInterrupted::Refuse).post("k", "a").await.text(), "effect 1");
    there.database().restart();
    let patience = Duration::from_secs(5);
    let claim = Wish { patience, ..Wish::new(id("k"), Fingerprint::of(b"a")) }.claim();
    let claiming = other.apply(id("k"), Transition::Claim(claim));
    let mut claiming = Box::pin(timeout(patience.saturating_sub(Duration::from_millis(1)), claiming));
    let held = there.hold(Call::Put);
    is_held_up(&mut claiming, &held).await;
    held.release();
    // The write that has to be durable before the answer is held up.
    let _barrier = there.hold(Call::Put);
    let told = claiming.await.expect("its requester still waits");
    assert!(matches!(told, Err(StoreError::Overloaded { .. })), "{told:?}");
}

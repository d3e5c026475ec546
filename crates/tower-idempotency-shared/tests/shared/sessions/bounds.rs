//! The bound of a run whose process lives.

use std::time::Duration;

use testkit::lab::operator::Operated as _;
use testkit::lab::steps::{Claimed, Steps as _, Wish, wish};
use testkit::lab::{Lab, at_once, charge_print, done, id, post, settle};
use testkit::{Answer, Gate};
use tokio::task::JoinHandle;
use tower_idempotency::internals::Records as _;
use tower_idempotency::store::StoreError;
use tower_idempotency::{IdempotencyLayer, OnInFlight, OnInterrupted};
use tower_idempotency_conformance::memory_backend::{Call, Fault, MemoryBackend, Replication};
use tower_idempotency_shared::SharedStoreBuilder;

use crate::world::{Effects, LEASE, SetClock, Store, builder, database, two};

const SECOND: Duration = Duration::from_secs(1);

/// A layer whose runs may take `max_run`, and run again if they are interrupted. Duplicates do not wait.
fn rerun(store: Store, max_run: Duration) -> IdempotencyLayer<Store> {
    let layer = IdempotencyLayer::new(store).on_interrupted(OnInterrupted::Rerun);
    layer.on_in_flight(OnInFlight::Reject).max_run(max_run)
}

/// Lets the run of `k` end while its row is locked until long after its bound. Then its request is sent to `elsewhere`
/// for a minute.
async fn end_while_its_row_is_locked(here: &MemoryBackend, run: JoinHandle<Answer>, gate: &Gate, elsewhere: &Lab) {
    let locked = here.database().lock("", id("k"));
    gate.open();
    assert_eq!(run.await.unwrap().text(), "effect 1", "the client has its answer");
    tokio::time::sleep(200 * SECOND).await;
    locked.release();
    for _ in 0..600 {
        let _ = elsewhere.post("k", "a").await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

// A seeded fault: it is recorded anew under the policy of the layer that finds it, which lets it run again.
#[tokio::test(start_paused = true)]
async fn a_run_whose_claim_is_lost_when_it_is_found_to_be_over_keeps_the_policy_of_its_claim() {
    let [(here, one), _] = two().await;
    let wish = wish("k");
    let wish = Wish { fingerprint: charge_print(&wish.id).with_credentials().finish(), ..wish };
    // It has no slot.
    assert!(matches!(one.claim(wish).await.unwrap(), Claimed::Fresh(_)));
    let effects = Effects::default();
    let puts = here.hold(Call::Put);
    let retry = effects.server(&one, OnInterrupted::Rerun).spawn(post("k", "a"));
    puts.wait_until_held(1).await;
    puts.release_one();
    puts.wait_until_held(1).await;
    here.database().delete("", id("k"));
    puts.release();
    retry.await.unwrap().assert_refusal(409, "outcome-unknown", false, None);
    assert_eq!(effects.count(), 0);
}

/// A run ends, and its client is answered, while the database is away for this time.
async fn an_outage_after_the_effect(outage: Duration, max_run: Duration) -> usize {
    let [(here, one), (_, other)] = two().await;
    let (effects, gate) = (Effects::default(), Gate::default());
    let layer = |store| rerun(store, max_run);
    let run = effects.behind(layer(one), &gate).spawn(post("k", "a"));
    gate.arrival().await;
    let elsewhere = effects.behind(layer(other), &gate);
    here.database().stop();
    gate.open();
    assert_eq!(run.await.unwrap().text(), "effect 1", "the client has its answer");
    tokio::time::sleep(outage).await;
    // Its owner is not the first process that comes back.
    let slow = here.hold(Call::Put);
    here.database().start();
    let mut slow = Some(slow);
    for round in 0..300 {
        if round == 60 {
            slow.take();
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        let _ = elsewhere.post("k", "a").await;
    }
    effects.count()
}

#[tokio::test(start_paused = true)]
async fn what_ended_during_an_outage_of_a_minute_does_not_run_again_where_its_process_lives() {
    assert_eq!(an_outage_after_the_effect(60 * SECOND, SECOND).await, 1);
}

#[tokio::test(start_paused = true)]
async fn what_ended_during_an_outage_of_two_minutes_does_not_run_again_where_its_process_lives() {
    assert_eq!(an_outage_after_the_effect(120 * SECOND, SECOND).await, 1);
}

#[tokio::test(start_paused = true)]
async fn what_ended_during_an_outage_of_a_quarter_of_an_hour_does_not_run_again_by_default() {
    assert_eq!(an_outage_after_the_effect(15 * 60 * SECOND, 600 * SECOND).await, 1);
}

/// One process can't reach the database for two minutes of its lease of ten.
#[tokio::test(start_paused = true)]
async fn no_other_process_takes_a_run_over_while_its_process_holds_its_lease() {
    let here = database();
    let there = here.another_process();
    let lease = 600 * SECOND;
    let one = builder(&here).lease(lease).open(here.clone()).await.unwrap();
    let other = builder(&there).lease(lease).open(there.clone()).await.unwrap();
    tokio::time::sleep(lease * 3).await;
    let (effects, gate) = (Effects::default(), Gate::default());
    let layer = |store| rerun(store, SECOND);
    let run = effects.behind(layer(one), &gate).spawn(post("k", "a"));
    gate.arrival().await;
    let elsewhere = effects.behind(layer(other), &gate);
    let held = here.hold(Call::Put);
    gate.open();
    assert_eq!(run.await.unwrap().text(), "effect 1", "the client has its answer");
    for _ in 0..120 {
        tokio::time::sleep(SECOND).await;
        let _ = elsewhere.post("k", "a").await;
    }
    held.release();
    tokio::time::sleep(5 * SECOND).await;
    assert_eq!(effects.count(), 1);
}

/// Nothing delays the owner; retries come at once.
#[tokio::test(start_paused = true)]
async fn trap_117_none_of_a_hundred_keys_runs_again_after_an_outage_of_a_hundred_seconds() {
    for (seconds, expected) in [(60, 100), (100, 100)] {
        let [(here, one), (_, other)] = two().await;
        let (effects, gate) = (Effects::default(), Gate::default());
        let layer = |store| rerun(store, SECOND);
        let server = effects.behind(layer(one), &gate);
        let mut runs = Vec::new();
        for number in 0..100 {
            runs.push(server.spawn(post(&format!("k{number}"), "a")));
            gate.arrival().await;
        }
        let elsewhere = effects.behind(layer(other), &gate);
        here.database().stop();
        gate.open();
        for run in runs {
            assert!(run.await.unwrap().status.is_success());
        }
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        here.database().start();
        for _ in 0..300 {
            tokio::time::sleep(Duration::from_millis(50)).await;
            for number in 0..100 {
                let _ = elsewhere.post(&format!("k{number}"), "a").await;
            }
        }
        assert_eq!(effects.count(), expected, "{seconds} s");
    }
}

/// Seeded fault: a session never states that a bound is over.
#[tokio::test(start_paused = true)]
async fn a_claim_without_a_run_is_interrupted_after_its_bound_though_its_process_lives() {
    let [(_, one), (_, other)] = two().await;
    let bound = 300 * SECOND;
    one.claim(Wish { bound, ..wish("k") }).await.unwrap();
    let elsewhere = IdempotencyLayer::new(other).on_in_flight(OnInFlight::Reject);
    tokio::time::sleep(bound - SECOND).await;
    assert!(elsewhere.interrupted(9).await.unwrap().is_empty());
    // Its process renews its session each third of the lease, and the other one reads the sessions as often.
    tokio::time::sleep(SECOND + LEASE).await;
    let interrupted = elsewhere.interrupted(9).await.unwrap();
    assert_eq!(interrupted.iter().map(|run| run.id).collect::<Vec<_>>(), [id("k")]);
}

// Seeded fault: the store forgets a run whose row is locked while its end is recorded.
#[tokio::test(start_paused = true)]
async fn what_ended_while_its_row_was_locked_beyond_its_bound_does_not_run_again_where_its_process_lives() {
    let [(here, one), (_, other)] = two().await;
    let (effects, gate) = (Effects::default(), Gate::default());
    let layer = |store| rerun(store, SECOND);
    let run = effects.behind(layer(one), &gate).spawn(post("k", "a"));
    gate.arrival().await;
    let elsewhere = effects.behind(layer(other), &gate);
    end_while_its_row_is_locked(&here, run, &gate, &elsewhere).await;
    assert_eq!(effects.count(), 1);
}

/// The database's clock is an hour ahead when an operation is claimed, and is set right. A second copy of the claim,
/// which was on its way meanwhile, comes after that.
// Seeded fault: a copy of a write lowers the bound of its row.
#[tokio::test(start_paused = true)]
async fn a_late_copy_of_a_claim_does_not_end_its_run_whose_process_lives() {
    let clock = SetClock::default();
    let here = MemoryBackend::with_clock(clock.clone());
    let there = here.another_process();
    let open = |backend: MemoryBackend| SharedStoreBuilder::default().clock(clock.another_process()).open(backend);
    let (one, other) = (open(here.clone()).await.unwrap(), open(there.clone()).await.unwrap());
    tokio::time::sleep(LEASE * 5 / 4 + SECOND * 3).await;
    let (effects, gate) = (Effects::default(), Gate::default());
    let layer = |store| rerun(store, SECOND);
    clock.step(3_600_000);
    here.fail_next(Call::Put, Fault::Double);
    let run = effects.behind(layer(one), &gate).spawn(post("k", "a"));
    gate.arrival().await;
    let bound = || here.database().rows("").into_iter().find(|row| row.id == id("k")).and_then(|row| row.until);
    let answered = bound();
    clock.step(-3_600_000);
    assert_eq!(here.deliver_late(), 1);
    assert_eq!(bound(), answered, "its process goes by the answer");
    let elsewhere = effects.behind(layer(other), &gate);
    end_while_its_row_is_locked(&here, run, &gate, &elsewhere).await;
    assert_eq!(effects.count(), 1);
}

/// The run has no slot any more. A first copy of its outcome is lost, and its row is locked until after its bound.
// Seeded fault: a row is forgotten after its bound while the end of its run is on its way.
#[tokio::test(start_paused = true)]
async fn a_run_without_a_slot_whose_end_is_on_its_way_beyond_its_bound_is_not_interrupted() {
    let [(here, one), (_, other)] = two().await;
    let bound = 100 * SECOND;
    let Ok(Claimed::Fresh(hold)) = one.claim(Wish { bound, ..wish("k") }).await else { panic!("the key is not free") };
    let locked = here.database().lock("", id("k"));
    here.fail_next(Call::Put, Fault::LoseCall);
    drop(one.complete(done(hold, "done", 3_600 * SECOND)));
    tokio::time::sleep(bound + LEASE * 2).await;
    let elsewhere = IdempotencyLayer::new(other.clone());
    assert!(elsewhere.interrupted(9).await.unwrap().is_empty(), "its process lives, and its end is on its way");
    locked.release();
    tokio::time::sleep(5 * SECOND).await;
    assert!(other.load(id("k")).await.unwrap().is_some_and(|record| record.state.is_done()));
}

/// The task that claims stalls, and the tasks of its store do not: the session states that bounds are over, and does
/// not know the claim.
// Seeded fault: the answer to a claim is taken however long ago the bound was over.
#[tokio::test(start_paused = true)]
async fn a_claim_whose_answer_is_taken_after_its_bound_is_given_back() {
    let [(_, one), (_, other)] = two().await;
    let claim = Wish { bound: 100 * SECOND, timeout: 5 * SECOND, ..wish("k") };
    let mut claiming = Box::pin(one.claim(claim));
    assert!(at_once(&mut claiming).is_none());
    tokio::time::sleep(claim.bound + LEASE * 2).await;
    let elsewhere = IdempotencyLayer::new(other.clone());
    let interrupted = elsewhere.interrupted(9).await.unwrap();
    assert_eq!(interrupted.len(), 1, "its session says that its bound is over");
    let late = claiming.await;
    assert!(matches!(late, Err(StoreError::Overloaded { .. })), "{late:?}");
    assert!(matches!(other.claim(claim).await, Ok(Claimed::Fresh(_))), "it was given back");
}

/// The database answers before its standby has the write. A claim is sent twice, as its first answer was lost, and a
/// failover loses the second copy, which was answered.
// Seeded fault: a session relies on the bounds of its runs as they were answered.
#[tokio::test(start_paused = true)]
async fn a_failover_that_loses_a_copy_of_a_claim_does_not_end_its_run_whose_process_lives() {
    let [(here, one), (_, other)] = two().await;
    let (effects, gate) = (Effects::default(), Gate::default());
    let layer = |store| rerun(store, SECOND);
    let bound = || here.database().rows("").into_iter().find(|row| row.id == id("k")).and_then(|row| row.until);
    here.database().replication(Replication::Behind);
    here.fail_next(Call::Put, Fault::LoseAnswer);
    let run = effects.behind(layer(one), &gate).spawn(post("k", "a"));
    settle().await;
    here.database().replicate();
    let first = bound();
    gate.arrival().await;
    assert!(first.is_some() && first < bound(), "it was sent twice");
    here.database().fail_over();
    assert_eq!(bound(), first, "the second copy is lost");
    let elsewhere = effects.behind(layer(other), &gate);
    end_while_its_row_is_locked(&here, run, &gate, &elsewhere).await;
    assert_eq!(effects.count(), 1);
}

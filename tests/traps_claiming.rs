//! Traps 1–10 of published middleware: claiming. Each test is named after what is promised instead.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod common;

use std::time::Duration;

use common::lab::{Gate, Lab, done, gated, hold, id, on_disk, post, settle};
use common::steps::{Claimed, Steps as _, wish};
use futures_util::future::join_all;
use futures_util::{FutureExt as _, poll};
use http::StatusCode;
use tower_idempotency::clock::{Clock, Timestamp};
use tower_idempotency::engine::{Effect, OnceError};
use tower_idempotency::record::{Reply, State};
use tower_idempotency::server::Resolve;
use tower_idempotency::store::Store;
use tower_idempotency::test_util::{ManualClock, TestStore, Verb};
use tower_idempotency::{Fingerprint, IdempotencyLayer, MemoryStore, OnInFlight, OnInterrupted, Once, SledStore};

const HOUR: Duration = Duration::from_secs(3_600);

fn clock() -> ManualClock {
    ManualClock::new(Timestamp::from_millis(1_800_000_000_000))
}

fn in_memory(clock: impl Clock) -> MemoryStore {
    MemoryStore::builder().clock(clock).build()
}

async fn one_of_many_claims<St: Store + Clone>(store: St) {
    let claims = (0..32).map(|_| {
        let store = store.clone();
        tokio::spawn(async move { store.claim(wish("k")).await.unwrap() })
    });
    let claimed: Vec<_> = join_all(claims).await.into_iter().map(Result::unwrap).collect();
    let fresh: Vec<_> = claimed.iter().filter(|claimed| matches!(claimed, Claimed::Fresh(_))).collect();
    let [Claimed::Fresh(winner)] = fresh[..] else { panic!("{} claims won", fresh.len()) };
    for loser in claimed.iter().filter(|claimed| matches!(claimed, Claimed::Held(_))) {
        let Claimed::Held(record) = loser else { continue };
        assert_eq!(record.fence, winner.fence, "a claim that lost is shown the one that won");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn trap_01_of_many_claims_at_once_one_is_given() {
    let (_directory, on_disk) = on_disk(SledStore::builder());
    one_of_many_claims(on_disk).await;
    one_of_many_claims(MemoryStore::new()).await;
    one_of_many_claims(TestStore::new()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn trap_01_of_many_requests_at_once_one_runs() {
    let (_directory, store) = on_disk(SledStore::builder());
    let lab = Lab::counting(IdempotencyLayer::new(store));
    let answers = join_all((0..32).map(|_| lab.spawn(post("k", "a")))).await;
    let answers: Vec<_> = answers.into_iter().map(Result::unwrap).collect();
    assert!(answers.iter().all(|answer| answer.text() == "effect 1"), "{answers:?}");
    assert_eq!(answers.iter().filter(|answer| !answer.is_replay()).count(), 1);
    assert_eq!(lab.effects(), 1);
}

#[tokio::test]
async fn trap_02_a_crash_shows_at_once_and_an_operator_can_free_the_key() {
    let (store, gate) = (TestStore::new(), Gate::default());
    let crashed = gated(IdempotencyLayer::new(store.clone()), &gate);
    let running = crashed.spawn(post("k", "a"));
    gate.arrival().await;
    let layer = IdempotencyLayer::new(store.reopen());
    let lab = Lab::counting(layer.clone());
    assert_eq!(lab.post("k", "a").await.refusal(), (409, "outcome-unknown".to_owned()));
    assert_eq!(lab.effects(), 0);

    let listed = layer.interrupted(10).await.unwrap();
    assert_eq!(listed.iter().map(|record| record.id).collect::<Vec<_>>(), [id("k")]);
    let settled = layer.resolve(listed[0].id, listed[0].fence, Resolve::Forget).await.unwrap();
    assert_eq!(settled, Reply::Taken);
    assert_eq!(lab.post("k", "a").await.text(), "effect 1");
    assert_eq!(lab.effects(), 1);
    running.abort();
}

async fn retention_from_completion<St: Store>(layer: IdempotencyLayer<St>, clock: &ManualClock) {
    let gate = Gate::default();
    let lab = gated(layer.retention(HOUR), &gate);
    let first = lab.spawn(post("k", "a"));
    gate.arrival().await;
    clock.advance(HOUR * 5);
    gate.open();
    assert_eq!(first.await.unwrap().text(), "effect 1");
    clock.advance(HOUR - Duration::from_millis(1));
    let retry = lab.post("k", "a").await;
    assert_eq!((retry.text(), retry.is_replay(), lab.effects()), ("effect 1", true, 1));
    clock.advance(Duration::from_millis(1));
    assert_eq!((lab.post("k", "a").await.text(), lab.effects()), ("effect 2", 2));
}

#[tokio::test]
async fn trap_02_retention_starts_when_the_run_completes() {
    let clock = clock();
    retention_from_completion(IdempotencyLayer::new(in_memory(clock.clone())), &clock).await;
    let (_directory, store) = on_disk(SledStore::builder().clock(clock.clone()));
    retention_from_completion(IdempotencyLayer::new(store), &clock).await;
}

async fn a_late_holder_changes_nothing<St: Store>(store: St) {
    let late = hold(&store, "k").await;
    assert_eq!(store.interrupt(late.id, late.fence).await.unwrap(), Reply::Taken);
    let second = store.reclaim(wish("k"), late.fence).await.unwrap().unwrap();
    assert!(second.fence > late.fence);
    assert_eq!(second.attempt, 2);

    assert_eq!(store.complete(done(late, "late", HOUR)).await.unwrap(), Reply::Refused);
    assert_eq!(store.release(late.id, late.fence).await.unwrap(), Reply::Refused);
    assert_eq!(store.interrupt(late.id, late.fence).await.unwrap(), Reply::Refused);
    let record = store.load(late.id).await.unwrap().unwrap();
    assert!(matches!(record.state, State::Running { .. }), "{record:?}");
    assert_eq!(record.fence, second.fence);

    assert_eq!(store.complete(done(second, "second", HOUR)).await.unwrap(), Reply::Taken);
    assert_eq!(store.complete(done(late, "late", HOUR)).await.unwrap(), Reply::Refused);
    let record = store.load(late.id).await.unwrap().unwrap();
    assert!(matches!(&record.state, State::Completed { outcome, .. } if outcome == "second"), "{record:?}");
}

#[tokio::test]
async fn trap_04_a_late_holder_neither_overwrites_nor_frees_the_second() {
    let (_directory, on_disk) = on_disk(SledStore::builder());
    a_late_holder_changes_nothing(on_disk).await;
    a_late_holder_changes_nothing(MemoryStore::new()).await;
    a_late_holder_changes_nothing(TestStore::new()).await;
}

/// A store in which the run of `k` was cut short.

#[tokio::test]
async fn trap_05_a_record_that_expires_before_the_claim_is_claimed_and_runs_once() {
    let clock = clock();
    let store = TestStore::with_clock(clock.clone());
    let layer = || IdempotencyLayer::new(store.clone()).interrupted_retention(HOUR * 24);
    let cut = Lab::new(layer(), |_| async { panic!("on purpose") as &str });
    assert_eq!(cut.post("k", "a").await.problem(), "outcome-unknown");
    // Under `Refuse` it would be refused by the look-up alone.
    let lab = Lab::counting(layer().on_interrupted(OnInterrupted::Rerun));
    let stall = store.stall(Verb::Claim);
    let request = lab.spawn(post("k", "a"));
    settle().await;
    clock.advance(HOUR * 24);
    stall.release();
    assert_eq!(request.await.unwrap().text(), "effect 1");
    assert!(lab.post("k", "a").await.is_replay());
    assert_eq!(lab.effects(), 1);
}

#[tokio::test]
async fn trap_05_a_record_that_expires_between_claim_and_reclaim_is_claimed_again_not_run_without() {
    let clock = clock();
    let store = TestStore::with_clock(clock.clone());
    let gate = Gate::default();
    let layer = |store| IdempotencyLayer::new(store).on_interrupted(OnInterrupted::Rerun);
    // The claim of an application that refuses leaves a trace, which the one that reruns finds.
    let cut = gated(IdempotencyLayer::new(store.clone()), &gate).spawn(post("k", "a"));
    gate.arrival().await;
    let store = store.reopen();
    cut.abort();

    let lab = Lab::counting(layer(store.clone()));
    let stall = store.stall(Verb::Reclaim);
    let request = lab.spawn(post("k", "a"));
    settle().await;
    clock.advance(HOUR * 24 * 31);
    stall.release();
    assert_eq!(request.await.unwrap().text(), "effect 1");
    assert!(lab.post("k", "a").await.is_replay());
    assert_eq!(lab.effects(), 1);
}

#[tokio::test]
async fn trap_06_another_request_with_the_key_is_told_so_even_in_flight() {
    for policy in [OnInFlight::Wait(HOUR), OnInFlight::Reject] {
        let gate = Gate::default();
        let lab = gated(IdempotencyLayer::new(MemoryStore::new()).on_in_flight(policy), &gate);
        let first = lab.spawn(post("k", "a"));
        gate.arrival().await;
        assert_eq!(lab.post("k", "b").await.refusal(), (422, "key-reused".to_owned()), "{policy:?}");
        gate.open();
        assert_eq!(first.await.unwrap().text(), "effect 1");
        assert_eq!(lab.post("k", "b").await.refusal(), (422, "key-reused".to_owned()));
        assert_eq!(lab.effects(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn trap_07_a_waiter_that_gives_up_leaves_the_claim_alone() {
    let (store, gate) = (MemoryStore::new(), Gate::default());
    let layer = IdempotencyLayer::new(store.clone()).on_in_flight(OnInFlight::Wait(Duration::from_secs(1)));
    let lab = gated(layer.clone(), &gate);
    let first = lab.spawn(post("k", "a"));
    gate.arrival().await;
    let claimed = store.load(id("k")).await.unwrap();

    let gone = lab.spawn(post("k", "a"));
    settle().await;
    gone.abort();
    let late = lab.post("k", "a").await;
    assert_eq!(late.refusal(), (409, "in-flight".to_owned()));
    assert_eq!(late.headers["retry-after"], "1");
    assert_eq!(store.load(id("k")).await.unwrap(), claimed);
    assert_eq!((layer.counts().live, layer.counts().runs), (1, 1));

    gate.open();
    assert_eq!(first.await.unwrap().text(), "effect 1");
    assert!(lab.post("k", "a").await.is_replay());
    assert_eq!(lab.effects(), 1);
}

#[tokio::test]
async fn trap_08_at_most_1024_wait_for_one_run() {
    let gate = Gate::default();
    let lab = gated(IdempotencyLayer::new(MemoryStore::new()).on_in_flight(OnInFlight::Wait(HOUR)), &gate);
    let first = lab.spawn(post("k", "a"));
    gate.arrival().await;
    let waiting: Vec<_> = (0..1_024).map(|_| lab.spawn(post("k", "a"))).collect();
    settle().await;
    assert!(waiting.iter().all(|waiter| !waiter.is_finished()));
    let answer = lab.post("k", "a").await;
    assert_eq!(answer.refusal(), (409, "in-flight".to_owned()));
    assert_eq!(answer.headers["retry-after"], "1");
    assert_eq!(lab.post("k", "b").await.status, StatusCode::UNPROCESSABLE_ENTITY, "a mismatch is still told first");

    gate.open();
    assert_eq!(first.await.unwrap().text(), "effect 1");
    assert!(join_all(waiting).await.iter().all(|answer| answer.as_ref().unwrap().is_replay()));
    assert_eq!(lab.effects(), 1);
}

#[tokio::test]
async fn trap_08_at_most_16384_wait_in_all() {
    let gate = Gate::default();
    let once = Once::new(MemoryStore::new()).on_in_flight(OnInFlight::Wait(HOUR));
    let run = |key: usize| {
        let gate = gate.clone();
        let effect = move |_| async move {
            gate.pass().await;
            Ok::<_, Effect<()>>(bytes::Bytes::new())
        };
        let once = once.clone();
        async move { once.run(id(&format!("k{key}")), Fingerprint::of(b"m"), effect).await }.boxed()
    };
    let mut running: Vec<_> = (0..17).map(run).collect();
    for run in &mut running {
        assert!(poll!(run).is_pending());
    }
    settle().await;
    let mut waiting: Vec<_> = (0..16 * 1_024).map(|number| run(number % 16)).collect();
    for waiter in &mut waiting {
        assert!(poll!(waiter).is_pending());
    }
    let refused = run(16).await;
    assert!(matches!(refused, Err(OnceError::InFlight)), "{refused:?}");

    drop(waiting.pop());
    let mut last = run(16);
    assert!(poll!(&mut last).is_pending(), "a waiter that leaves makes room");
    gate.open();
    assert!(join_all(running).await.iter().all(|outcome| !outcome.as_ref().unwrap().replayed));
    assert!(last.await.unwrap().replayed);
    assert_eq!(once.counts().runs, 17);
}

// A claim is not sent again by the engine: the store does that, where it has a network that loses answers.
#[tokio::test]
async fn trap_09_an_outcome_whose_answer_was_lost_is_known_for_its_own() {
    let store = TestStore::new();
    let lab = Lab::counting(IdempotencyLayer::new(store.clone()));
    store.lose_answer(Verb::Complete);
    assert_eq!(lab.post("k", "a").await.text(), "effect 1");
    assert!(lab.post("k", "a").await.is_replay());
    assert!(lab.behind(IdempotencyLayer::new(store.reopen()), |_| async { "again" }).post("k", "a").await.is_replay());
    assert_eq!(lab.effects(), 1);
}

#[tokio::test]
async fn trap_09_a_reclaim_whose_answer_was_lost_is_not_mistaken_for_a_run() {
    let (store, gate) = (TestStore::new(), Gate::default());
    let cut = gated(IdempotencyLayer::new(store.clone()), &gate).spawn(post("k", "a"));
    gate.arrival().await;
    let store = store.reopen();
    cut.abort();
    let lab = Lab::counting(IdempotencyLayer::new(store.clone()).on_interrupted(OnInterrupted::Rerun));
    store.lose_answer(Verb::Reclaim);
    lab.post("k", "a").await.assert_refusal(503, "store-unavailable", true, Some("1"));
    assert_eq!(lab.post("k", "a").await.text(), "effect 1");
    assert!(lab.post("k", "a").await.is_replay());
    assert_eq!(lab.effects(), 1);
}

async fn expired_never_answers<St: Store>(layer: IdempotencyLayer<St>, clock: &ManualClock) {
    let lab = Lab::counting(layer.retention(HOUR));
    lab.post("k", "a").await;
    clock.advance(HOUR - Duration::from_millis(1));
    assert!(lab.post("k", "a").await.is_replay());
    clock.advance(Duration::from_millis(1));
    // Another request may have it too: nothing of the expired one is compared.
    let again = lab.post("k", "b").await;
    assert_eq!((again.text(), again.is_replay(), lab.effects()), ("effect 2", false, 2));
    assert_eq!(lab.post("k", "b").await.text(), "effect 2");
    assert_eq!(lab.effects(), 2);
}

#[tokio::test]
async fn trap_10_a_record_past_its_retention_never_answers_swept_or_not() {
    let clock = clock();
    expired_never_answers(IdempotencyLayer::new(in_memory(clock.clone())), &clock).await;
    expired_never_answers(IdempotencyLayer::new(TestStore::with_clock(clock.clone())), &clock).await;
    let (_directory, store) = on_disk(SledStore::builder().clock(clock.clone()));
    expired_never_answers(IdempotencyLayer::new(store), &clock).await;
}

//! A database that is away, started again, or replaced by its standby.

use std::pin::Pin;
use std::time::Duration;

use testkit::Gate;
use testkit::lab::steps::Wish;
use testkit::lab::{at_once, id, post};
use tokio::time::timeout;
use tower_idempotency::internals::{Records as _, Reply, Transition};
use tower_idempotency::server::health;
use tower_idempotency::store::{Health, Store as _, StoreError};
use tower_idempotency::{Fingerprint, IdempotencyLayer, OnInFlight, OnInterrupted};
use tower_idempotency_conformance::memory_backend::{Call, Fault, Hold};
use tower_idempotency_shared::Kind;

use crate::world::{Effects, LEASE, builder, database, two};

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
    // Its owner is not the first process that comes back.
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
    assert_eq!(layer.stats().unsaved, 1);
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
    assert_eq!(layer.stats().unsaved, 1);
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

/// Polls the future until it waits for the call that is held up.
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

// A seeded fault: the answer comes at the moment at which the requester gives up, and takes the store for away.
#[tokio::test(start_paused = true)]
async fn what_a_claim_has_met_is_told_before_its_requester_gives_up() {
    let [(_, one), (there, other)] = two().await;
    assert_eq!(Effects::default().server(&one, OnInterrupted::Refuse).post("k", "a").await.text(), "effect 1");
    there.database().restart();
    let limit = Duration::from_secs(5);
    let claim = Wish { timeout: limit, ..Wish::new(id("k"), Fingerprint::of(b"a")) }.claim();
    let claiming = other.apply(id("k"), Transition::Claim(claim));
    let mut claiming = Box::pin(timeout(limit.saturating_sub(Duration::from_millis(1)), claiming));
    let held = there.hold(Call::Put);
    is_held_up(&mut claiming, &held).await;
    held.release();
    // The write that has to be durable before the answer is held up.
    let _barrier = there.hold(Call::Put);
    let told = claiming.await.expect("its requester still waits");
    assert!(matches!(told, Err(StoreError::Overloaded { .. })), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn a_process_without_its_database_is_not_ready_until_it_is_back_and_needs_no_request_or_restart() {
    let [(here, one), _] = two().await;
    let (stores, mut probes) = ([one], Vec::new());
    let mut probe = || {
        let [live, ready] = [health::livez(&stores), health::readyz(&stores)];
        let body = String::from_utf8(ready.body().to_vec()).unwrap();
        probes.push(body);
        (live.status().as_u16(), ready.status().as_u16())
    };
    assert_eq!(probe(), (200, 200));
    here.database().stop();
    tokio::time::sleep(LEASE).await;
    assert_eq!(probe(), (200, 503));
    here.database().start();
    tokio::time::sleep(LEASE).await;
    assert_eq!(probe(), (200, 200));
    let reasons = ["", "\"away\"", ""].map(|reason| format!("\"reasons\":[{reason}]"));
    assert!(probes.iter().zip(&reasons).all(|(body, reasons)| body.contains(reasons)), "{probes:?}");
    assert!(probes.iter().all(|body| body.contains("\"store\":\"shared\"")), "{probes:?}");
}

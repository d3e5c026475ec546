//! The operators' interface over a shared store: every process sees the operations of all of them.

use std::time::Duration;

use testkit::Gate;
use testkit::lab::{id, post};
use testkit::log::Log;
use tower_idempotency::operations::{Action, Applied, Change, Filter, Operations, Server, StateKind};
use tower_idempotency::{IdempotencyLayer, OnInterrupted};
use tower_idempotency_conformance::memory_backend::{Call, Fault};
use tracing::Level;

use super::world::{Effects, LEASE, Store, row, two, until_over};

#[tokio::test(start_paused = true)]
async fn a_run_is_listed_as_running_by_all_processes_until_its_own_is_dead() {
    let log = Log::begin(Level::INFO);
    let [(here, one), (_, other)] = two().await;
    let (effects, gate) = (Effects::default(), Gate::default());
    let layer = IdempotencyLayer::new(one);
    let run = effects.behind(layer.clone(), &gate).spawn(post("k", "a"));
    gate.arrival().await;
    let [mine, theirs] = [layer.operations(), IdempotencyLayer::new(other).operations()];
    let running = Filter::all().in_state(StateKind::Running);
    for (operations, server) in [(&mine, Server::Here), (&theirs, Server::Elsewhere)] {
        let listed = operations.list(&running, None, 9).await.unwrap().operations;
        assert_eq!(listed.iter().map(|run| (run.id, run.server)).collect::<Vec<_>>(), [(id("k"), server)]);
        let all = operations.list(&Filter::all(), None, 9).await.unwrap().operations;
        assert_eq!(all, listed, "no session is an operation");
    }
    // To settle what runs elsewhere changes nothing.
    let seen = theirs.inspect(id("k")).await.unwrap().unwrap();
    let release = |fence| Change::new(seen.id, fence, Action::Release);
    assert_eq!(theirs.by("alice").apply(release(seen.fence)).await.unwrap(), Applied::Stale);
    // Its process says which one it is, and no other says the same.
    let session = seen.session.expect("its process's session");
    let said = log.lines().into_iter().filter(|line| line.contains("know this one by its session"));
    let said: Vec<_> = said.map(|line| line.contains(&format!("session=\"{}\"", session.short()))).collect();
    assert_eq!(said, [true, false]);
    here.cut();
    until_over().await;
    assert!(theirs.list(&running, None, 9).await.unwrap().operations.is_empty());
    let dead =
        theirs.list(&Filter::all().in_state(StateKind::Interrupted), None, 9).await.unwrap().operations.remove(0);
    assert_eq!(
        (dead.id, dead.server, dead.session),
        (id("k"), Server::None, Some(session)),
        "it is known who has left it"
    );
    assert_eq!(theirs.by("alice").apply(release(dead.fence)).await.unwrap(), Applied::Done);
    run.abort();
}

/// An operator forgets `k`.
async fn forget(operations: &Operations<Store>) {
    let seen = operations.inspect(id("k")).await.unwrap().unwrap();
    let forget = Change::new(seen.id, seen.fence, Action::Forget);
    assert_eq!(operations.by("alice").apply(forget).await.unwrap(), Applied::Done);
}

#[tokio::test(start_paused = true)]
async fn what_one_process_forgets_runs_again_in_all_that_have_no_copy() {
    let [(_, one), (_, other)] = two().await;
    let effects = Effects::default();
    let [first, second] = [&one, &other].map(|store| effects.server(store, OnInterrupted::Refuse));
    assert_eq!(first.post("k", "a").await.text(), "effect 1");
    // The other process, which has not seen it, forgets it, and then runs it.
    let operations = IdempotencyLayer::new(other).operations();
    let done = operations.list(&Filter::all(), None, 9).await.unwrap().operations.remove(0);
    let forget = Change::new(done.id, done.fence, Action::Forget);
    assert_eq!(operations.by("alice").apply(forget).await.unwrap(), Applied::Done);
    assert!(operations.list(&Filter::all(), None, 9).await.unwrap().operations.is_empty());
    assert!(first.post("k", "a").await.is_replay(), "it has a copy");
    assert_eq!(second.post("k", "a").await.text(), "effect 2");
    assert!(second.post("k", "a").await.is_replay());
}

#[tokio::test(start_paused = true)]
async fn a_process_that_has_a_copy_shows_what_the_database_has_and_drops_the_copy() {
    let [(_, one), (_, other)] = two().await;
    let effects = Effects::default();
    let server = effects.server(&one, OnInterrupted::Refuse);
    server.post("k", "a").await;
    let [mine, theirs] = [IdempotencyLayer::new(one), IdempotencyLayer::new(other)].map(|layer| layer.operations());
    forget(&theirs).await;
    assert!(server.post("k", "a").await.is_replay());
    assert!(mine.inspect(id("k")).await.unwrap().is_none());
    assert!(mine.outcome(id("k")).await.unwrap().is_none());
    assert_eq!(server.post("k", "a").await.text(), "effect 2");
}

// Seeded fault: the outcome is that of the copy, and the rest is that of the later run.
#[tokio::test(start_paused = true)]
async fn a_process_whose_copy_is_of_an_earlier_run_shows_no_outcome_in_place_of_the_later_one() {
    let [(_, one), (_, other)] = two().await;
    let effects = Effects::default();
    let server = effects.server(&one, OnInterrupted::Refuse);
    server.post("k", "a").await;
    let [mine, theirs] = [one, other.clone()].map(IdempotencyLayer::new).map(|layer| layer.operations());
    forget(&theirs).await;
    // This makes sure that the next claim has another fence.
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(effects.server(&other, OnInterrupted::Refuse).post("k", "a").await.text(), "effect 2");
    assert!(server.post("k", "a").await.is_replay(), "of its copy");
    let error = mine.outcome(id("k")).await.unwrap_err();
    assert!(error.to_string().contains("an earlier run"), "{error}");
    assert!(theirs.outcome(id("k")).await.unwrap().is_some());
}

// What a process that has a copy takes for lost after a failover would come back, with the data that was to be deleted.
#[tokio::test(start_paused = true)]
async fn what_was_forgotten_stays_forgotten_after_a_failover() {
    for wait in [Duration::ZERO, Duration::from_secs(3_600)] {
        let [(here, one), (_, other)] = two().await;
        let effects = Effects::default();
        let layer = IdempotencyLayer::new(one);
        let gate = Gate::default();
        gate.open();
        let server = effects.behind(layer.clone(), &gate);
        server.post("k", "a").await;
        let operations = IdempotencyLayer::new(other).operations();
        forget(&operations).await;
        tokio::time::sleep(wait).await;
        here.database().restart();
        tokio::time::sleep(LEASE).await;
        assert!(operations.inspect(id("k")).await.unwrap().is_none(), "after {wait:?}");
        assert!(operations.disputed(None, 9).await.unwrap().operations.is_empty());
        assert_eq!((layer.stats().lost, layer.stats().disputed), (0, 0));
        assert_eq!(server.post("k", "a").await.text(), "effect 2", "the copy is dropped");
    }
}

// A seeded fault: what is forgotten while lost outcomes are put back is kept as disputed.
#[tokio::test(start_paused = true)]
async fn what_is_forgotten_before_it_is_looked_for_after_a_failover_stays_forgotten() {
    let [(here, one), _] = two().await;
    let effects = Effects::default();
    let layer = IdempotencyLayer::new(one.clone());
    assert_eq!(effects.server(&one, OnInterrupted::Refuse).post("k", "a").await.text(), "effect 1");
    let row = row(&here, id("k")).unwrap();
    // The new server is noticed, and its rows are asked for a minute later.
    here.database().restart();
    (0..12).for_each(|_| here.fail_next(Call::Get, Fault::Refuse));
    tokio::time::sleep(LEASE).await;
    let forget = Change::new(row.id, row.fence, Action::Forget);
    while !matches!(layer.operations().by("alice").apply(forget.clone()).await, Ok(Applied::Done)) {}
    tokio::time::sleep(LEASE * 10).await;
    assert!(layer.operations().disputed(None, 9).await.unwrap().operations.is_empty());
    assert_eq!((layer.stats().lost, layer.stats().disputed), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_large_outcome_is_listed_with_its_status() {
    let [(_, one), (_, other)] = two().await;
    let layer = IdempotencyLayer::new(one);
    testkit::lab::Lab::new(layer, |_| async { vec![b'x'; 100_000] }).post("k", "a").await;
    let operations = IdempotencyLayer::new(other).operations();
    let listed = operations.list(&Filter::all().answered_with(200), None, 9).await.unwrap().operations;
    assert_eq!(listed.len(), 1);
}

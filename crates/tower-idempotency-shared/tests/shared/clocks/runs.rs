//! Runs, sessions and outcomes under wrong clocks.

use std::time::Duration;

use testkit::Gate;
use testkit::lab::listed::interrupted;
use testkit::lab::steps::{Claimed, Steps as _, wish};
use testkit::lab::{Lab, id, post};
use testkit::log::Log;
use tokio::time::sleep;
use tower_idempotency::clock::Clock as _;
use tower_idempotency::engine::{Reconciled, Reconciler};
use tower_idempotency::internals::Records as _;
use tower_idempotency::store::{Health, Store as _, StoreError};
use tower_idempotency::{IdempotencyLayer, OnInFlight, OnInterrupted};
use tower_idempotency_conformance::memory_backend::{Call, MemoryBackend};
use tower_idempotency_shared::Kind;
use tracing::Level;

use crate::world::{DEATH, Effects, LEASE, SetClock};

use super::{HOUR, MINUTE, SECOND, World, builder, open};

// Seeded fault: rows are judged by the database's clock alone.
#[tokio::test(start_paused = true)]
async fn a_database_whose_clock_is_a_day_ahead_lets_no_key_run_again() {
    let world = World::new().await;
    for number in 0..20 {
        world.server(0).post(&format!("k{number}"), "a").await;
    }
    assert_eq!(world.effects.count(), 20);
    world.database.step(25 * HOUR);
    sleep(SECOND).await;
    // A process that starts meanwhile knows no earlier time.
    let third = open(&world.here.another_process(), &world.walls[0].another_process()).await;
    let third = world.effects.server(&third, OnInterrupted::Refuse);
    for number in 0..10 {
        for server in [&world.server(1), &third] {
            assert!(server.post(&format!("k{number}"), "a").await.is_replay());
        }
    }
    sleep(SECOND * 14).await;
    world.database.step(-25 * HOUR);
    sleep(MINUTE * 30).await;
    for number in 0..20 {
        assert!(world.server(1).post(&format!("k{number}"), "a").await.is_replay(), "{number}");
    }
    assert_eq!(world.effects.count(), 20);
}

// Seeded fault: the bound of a run is judged by the database's clock.
#[tokio::test(start_paused = true)]
async fn no_clock_makes_the_run_of_a_living_process_run_again() {
    // The database's clock alone is set; then all clocks are.
    let alone = [HOUR / 4, -HOUR / 4, 25 * HOUR, -25 * HOUR].map(|step| (step, false));
    for (step, is_of_all) in alone.into_iter().chain([(60_000, true), (-60_000, true)]) {
        let world = World::new().await;
        let [one, other] = world.stores.clone();
        let gate = Gate::default();
        let layer = |store| IdempotencyLayer::new(store).on_interrupted(OnInterrupted::Rerun).max_run(MINUTE * 5);
        let run = world.effects.behind(layer(one), &gate).spawn(post("k", "a"));
        gate.arrival().await;
        let elsewhere = world.effects.behind(layer(other).on_in_flight(OnInFlight::Reject), &gate);
        for step in [step, -step] {
            world.database.step(step);
            world.walls.iter().filter(|_| is_of_all).for_each(|wall| wall.step(step));
            for _ in 0..60 {
                sleep(SECOND * 2).await;
                assert_eq!(elsewhere.post("k", "a").await.problem(), "in-flight", "{step}");
            }
        }
        gate.open();
        assert_eq!((run.await.unwrap().text(), world.effects.count()), ("effect 1", 1), "{step}");
    }
}

// Seeded fault: the bound of a run is `max_run`, and the time within which its end is recorded.
#[tokio::test(start_paused = true)]
async fn a_run_keeps_its_right_for_max_run_though_the_clocks_that_judge_it_go_faster_by_a_quarter() {
    const MAX_RUN: Duration = Duration::from_secs(3_600);
    let world = World::new().await;
    let gate = Gate::default();
    let layer = |store| IdempotencyLayer::new(store).on_in_flight(OnInFlight::Reject).max_run(MAX_RUN);
    let run = world.effects.behind(layer(world.stores[0].clone()), &gate).spawn(post("k", "a"));
    gate.arrival().await;
    sleep(MAX_RUN - MINUTE).await;
    // The database's machine and that of a third process have gained a quarter of an hour.
    world.database.step(HOUR / 4);
    let third = open(&world.here.another_process(), &world.database).await;
    sleep(LEASE * 5 / 4 + SECOND * 3).await;
    assert_eq!(world.effects.behind(layer(third), &gate).post("k", "a").await.problem(), "in-flight");
    gate.open();
    assert_eq!((run.await.unwrap().text(), world.effects.count()), ("effect 1", 1));
}

// Seeded fault: a session is over when its row's `until` is past by the database's clock.
#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_back_keeps_no_key_of_a_dead_process_in_flight() {
    let world = World::new().await;
    let [one, other] = world.stores.clone();
    let gate = Gate::default();
    let run = world.effects.behind(IdempotencyLayer::new(one), &gate).spawn(post("k", "a"));
    gate.arrival().await;
    world.here.cut();
    world.database.step(-HOUR / 6);
    sleep(DEATH).await;
    let layer = IdempotencyLayer::new(other).on_in_flight(OnInFlight::Reject);
    assert_eq!(world.effects.behind(layer, &gate).post("k", "a").await.problem(), "outcome-unknown");
    run.abort();
}

// "Declare the session dead before taking over." Seeded fault: not where the run's bound is over by the latest clock.
#[tokio::test(start_paused = true)]
async fn a_process_is_declared_dead_before_its_run_is_taken_over_though_one_clock_is_past_the_run_s_bound() {
    let world = World::new().await;
    let [one, other] = world.stores.clone();
    let gate = Gate::default();
    let layer = |store| IdempotencyLayer::new(store).on_interrupted(OnInterrupted::Rerun);
    let run = world.effects.behind(layer(one), &gate).spawn(post("k", "a"));
    gate.arrival().await;
    world.here.cut();
    world.database.step(25 * HOUR);
    sleep(DEATH).await;
    gate.open();
    assert_eq!(world.effects.behind(layer(other), &gate).post("k", "a").await.text(), "effect 2");
    let rows = world.here.database().rows("");
    assert_eq!(rows.iter().filter(|row| row.kind == Kind::Released).count(), 1);
    run.abort();
}

// Seeded fault: rows are stamped by the database's clock alone.
#[tokio::test(start_paused = true)]
async fn an_outcome_that_is_recorded_while_the_database_is_a_day_behind_is_kept() {
    let world = World::new().await;
    world.database.step(-25 * HOUR);
    sleep(SECOND).await;
    world.server(0).post("k", "a").await;
    world.database.step(25 * HOUR);
    sleep(MINUTE * 60 * 23).await;
    assert!(world.server(1).post("k", "a").await.is_replay());
    assert_eq!(world.effects.count(), 1);
}

// Seeded fault: an outcome in memory is judged by the earliest clock.
#[tokio::test(start_paused = true)]
async fn a_process_whose_clock_is_behind_gives_no_answer_of_an_operation_whose_key_was_used_again() {
    let world = World::new().await;
    world.walls[1].step(-120_000);
    let retention = MINUTE * 60;
    let [one, other] = [0, 1].map(|number| {
        let gate = Gate::default();
        gate.open();
        world.effects.behind(IdempotencyLayer::new(world.stores[number].clone()).retention(retention), &gate)
    });
    assert_eq!(one.post("k", "a").await.text(), "effect 1");
    assert_eq!(other.post("k", "a").await.text(), "effect 1");
    sleep(retention).await;
    assert_eq!(one.post("k", "a").await.text(), "effect 2");
    assert_eq!(other.post("k", "a").await.text(), "effect 2");
}

// Seeded fault: a question that is over at once is owned until now.
#[tokio::test(start_paused = true)]
async fn where_clocks_differ_another_process_may_ask_at_once_all_the_same() {
    let world = World::new().await;
    let [one, other] = world.stores.clone();
    let gate = Gate::default();
    let run = world.effects.behind(IdempotencyLayer::new(one), &gate).spawn(post("k", "a"));
    gate.arrival().await;
    world.here.cut();
    let ahead = world.database.another_process();
    ahead.step(10_000);
    let third = open(&world.here.another_process(), &ahead).await;
    sleep(DEATH * 2).await;
    let asking = |store, says: Reconciled<http::Response<String>>| {
        let layer = IdempotencyLayer::new(store).on_in_flight(OnInFlight::Reject);
        Lab::counting(layer.reconcile_with(Reconciler::new(move |_| std::future::ready(says.clone()))))
    };
    let ignorant = asking(third, Reconciled::StillUnknown).post("k", "a").await;
    ignorant.assert_refusal(409, "outcome-unknown", true, None);
    let knowing = asking(other, Reconciled::Outcome(http::Response::new("found".to_owned())));
    assert_eq!(knowing.post("k", "a").await.text(), "found");
    run.abort();
}

// Seeded fault: the store ignores the difference.
#[tokio::test(start_paused = true)]
async fn clocks_that_differ_are_counted_and_the_store_is_as_healthy_as_it_was() {
    let world = World::new().await;
    let layer = IdempotencyLayer::new(world.stores[0].clone());
    world.server(0).post("k", "a").await;
    assert_eq!(layer.stats().skewed, 0);
    world.walls[0].step(6_000);
    world.server(0).post("other", "a").await;
    assert!(layer.stats().skewed > 0);
    assert!(matches!(world.stores[0].health(), Health::Good), "{:?}", world.stores[0].health());
    assert_eq!(IdempotencyLayer::new(world.stores[1].clone()).stats().skewed, 0);
}

// Seeded faults: each answer is a line; a line about the kept clock hides one about the others.
#[tokio::test(start_paused = true)]
async fn that_clocks_differ_is_a_line_a_minute_with_both_times_and_says_which_one_is_wrong() {
    let (database, effects) = (SetClock::default(), Effects::default());
    let wall = database.another_process();
    let store = open(&MemoryBackend::with_clock(database.clone()), &wall).await;
    let server = effects.server(&store, OnInterrupted::Refuse);
    let log = Log::begin(Level::WARN);
    let lines = async || {
        for _ in 0..20 {
            // An answer from memory asks no clock.
            server.post(&format!("k{}", effects.count()), "a").await;
        }
        log.lines().into_iter().filter(|line| line.contains("five seconds")).collect::<Vec<_>>()
    };
    assert_eq!(lines().await, [""; 0]);
    // As after a pause of the process: only the clock that it keeps differs.
    database.step(HOUR);
    wall.step(HOUR);
    let warned = lines().await;
    let [warned] = &warned[..] else { panic!("one line: {warned:?}") };
    assert!(warned.starts_with("WARN") && warned.contains("keeps differs from the others"), "{warned}");
    wall.step(600_000);
    let errors = lines().await;
    let [error] = &errors[..] else { panic!("one line: {errors:?}") };
    for part in ["ERROR", "count=1 ", "clock=\"this process's wall clock\"", "database=179000", "wall=179000"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    assert_eq!(lines().await, [""; 0], "within the minute");
    sleep(MINUTE).await;
    let errors = lines().await;
    let [error] = &errors[..] else { panic!("one line: {errors:?}") };
    assert!(error.contains("ERROR") && !error.contains("count=1 "), "{error}");
}

// Seeded faults: such a store opens; it grants claims; it records no outcome.
#[tokio::test(start_paused = true)]
async fn clocks_that_are_more_than_a_week_apart_let_nothing_begin_and_what_runs_end() {
    let world = World::new().await;
    let gate = Gate::default();
    let layer = IdempotencyLayer::new(world.stores[0].clone()).fail_open(true);
    let server = world.effects.behind(layer, &gate);
    let run = server.spawn(post("k", "a"));
    gate.arrival().await;
    world.server(1).post("done", "a").await;
    world.database.step(8 * 24 * HOUR);
    sleep(LEASE).await;
    // `fail_open` does not let it run either: the database may know the key.
    server.post("new", "a").await.assert_refusal(503, "overloaded", true, Some("2"));
    assert!(server.post("done", "a").await.is_replay());
    gate.open();
    assert_eq!(run.await.unwrap().text(), "effect 1");
    assert!(world.server(1).post("k", "a").await.is_replay(), "and its outcome is recorded");
    let refused = builder(&world.walls[0]).open(world.here.another_process()).await.unwrap_err();
    let (database, wall) = (1_790_000_000_000_u64 + 8 * 24 * 3_600_000, 1_790_000_000_000_u64);
    let hours = |time: u64| (time / 10_000_000).to_string();
    let text = refused.to_string();
    assert!(matches!(refused, StoreError::Unavailable { .. }), "{refused:?}");
    assert!(
        text.contains(&hours(database)) && text.contains(&hours(wall)) && text.contains("of 691200 seconds"),
        "{text}"
    );
    builder(&world.walls[0]).clocks_apart(MINUTE * 60 * 24 * 30).open(world.here.another_process()).await.unwrap();
    world.database.step(-8 * 24 * HOUR);
    sleep(LEASE).await;
    assert_eq!(server.post("new", "a").await.text(), "effect 3");
}

// Seeded fault: sweeping begins at once.
#[tokio::test(start_paused = true)]
async fn a_process_that_was_just_opened_deletes_nothing_for_ten_minutes() {
    let world = World::new().await;
    world.server(0).post("k", "a").await;
    let is_there = || world.here.database().rows("").iter().any(|row| row.id == id("k"));
    // Both of its clocks are wrong, and it has seen no other time. The others are stopped.
    for store in &world.stores {
        store.close().await.unwrap();
    }
    sleep(LEASE).await;
    world.database.step(48 * HOUR);
    let wall = world.database.another_process();
    wall.step(48 * HOUR);
    let third = open(&world.here.another_process(), &wall).await;
    sleep(MINUTE * 9).await;
    assert!(is_there());
    world.database.step(-48 * HOUR);
    wall.step(-48 * HOUR);
    sleep(MINUTE * 30).await;
    assert!(is_there(), "the clocks are right again");
    let counts = world.here.database().rows("").iter().filter(|row| row.kind == Kind::Completed).count();
    assert_eq!(counts, 1);
    drop(third);
}

// Seeded fault: the row of a session is kept for an hour.
#[tokio::test(start_paused = true)]
async fn sessions_outlive_a_clock_that_jumps_by_days() {
    let world = World::new().await;
    // A third process was started while its own clock and the database's were ahead. Its own is never set right.
    world.database.step(25 * HOUR);
    let wall = world.database.another_process();
    wall.step(25 * HOUR);
    let third = open(&world.here.another_process(), &wall).await;
    world.database.step(-25 * HOUR);
    sleep(MINUTE * 30).await;
    let sessions = || {
        let rows = world.here.database().rows("");
        let mut ids: Vec<_> = rows.iter().filter(|row| row.kind == Kind::Session).map(|row| row.id).collect();
        ids.sort();
        ids
    };
    let before = sessions();
    assert_eq!(before.len(), 3);
    for step in [25 * HOUR, 6 * 24 * HOUR] {
        world.database.step(step);
        // No session is renewed yet, and no answer has shown the step.
        third.sweep(1_000).await.unwrap();
        sleep(MINUTE * 30).await;
        world.database.step(-step);
        sleep(MINUTE * 30).await;
    }
    assert_eq!(sessions(), before);
}

// Seeded fault: it begins by the database's clock. A charge of the operation, which is then found, looks as if it had
// been made before the operation began.
#[tokio::test(start_paused = true)]
async fn trap_112_an_operation_begins_by_the_earliest_clock() {
    for number in 0..4 {
        let world = World::new().await;
        let right = world.database.another_process();
        match number {
            0 => world.database.step(25 * HOUR),
            1 => world.walls[0].step(25 * HOUR),
            2 => world.database.step(-25 * HOUR),
            _ => {}
        }
        let Claimed::Fresh(run) = world.stores[0].claim(wish("k")).await.unwrap() else { panic!("it is there") };
        world.stores[0].interrupt(run.id, run.fence).await.unwrap();
        let began = interrupted(&world.stores[0], 9).await[0].began;
        assert!(began <= right.wall(), "{number}: {began:?}");
    }
}

// Seeded fault: the row of a living run is forgotten when its bound is over by the database's clock.
#[tokio::test(start_paused = true)]
async fn a_run_ends_though_the_clock_was_past_its_bound_meanwhile() {
    let world = World::new().await;
    let gate = Gate::default();
    let layer = IdempotencyLayer::new(world.stores[0].clone()).max_run(MINUTE);
    let run = world.effects.behind(layer, &gate).spawn(post("k", "a"));
    gate.arrival().await;
    world.database.step(HOUR / 5);
    sleep(SECOND * 30).await;
    let gets = world.here.counts().gets;
    let held = world.here.hold(Call::Get);
    gate.open();
    assert_eq!(run.await.unwrap().text(), "effect 1");
    assert_eq!(world.here.counts().gets, gets, "the process still knew its row");
    drop(held);
}

// Seeded fault: the question stays open until its bound.
#[tokio::test(start_paused = true)]
async fn where_an_operation_may_run_again_and_is_refused_another_process_may_ask_at_once() {
    let world = World::new().await;
    let server = |number: usize, reconciler: Reconciler<http::Response<String>>| {
        let layer = IdempotencyLayer::new(world.stores[number].clone()).on_in_flight(OnInFlight::Reject);
        Lab::counting(layer.reconcile_with(reconciler))
    };
    // No run begins while the clocks are so far apart.
    let database = world.database.clone();
    let refused = server(
        0,
        Reconciler::new(move |_| {
            let database = database.clone();
            async move {
                database.step(8 * 24 * HOUR);
                sleep(LEASE / 2).await;
                Reconciled::RunAgain
            }
        })
        .timeout(LEASE),
    );
    let knowing =
        server(1, Reconciler::new(|_| async { Reconciled::Outcome(http::Response::new("found".to_owned())) }));
    let too_long = IdempotencyLayer::new(world.stores[0].clone()).max_run(SECOND);
    assert_eq!(world.effects.behind(too_long, &Gate::default()).post("k", "a").await.problem(), "outcome-unknown");
    assert_eq!(refused.post("k", "a").await.status, 503);
    world.database.step(-8 * 24 * HOUR);
    sleep(SECOND).await;
    assert_eq!(knowing.post("k", "a").await.text(), "found");
    assert_eq!(refused.effects(), 0);
}

//! Processes that die, or stall for longer than their lease.

use std::time::Duration;

use axum::Router;
use axum::routing::any;
use testkit::Gate;
use testkit::lab::operator::{Operated as _, answer};
use testkit::lab::{Lab, id, post};
use tower_idempotency::engine::{Reconciled, Reconciler};
use tower_idempotency::internals::{Records as _, Transition};
use tower_idempotency::operations::{Action, Applied};
use tower_idempotency::{IdempotencyContext, IdempotencyLayer, OnInFlight, OnInterrupted, Unsure};
use tower_idempotency_conformance::memory_backend::{Call, MemoryDatabase};
use tower_idempotency_shared::Kind;

use crate::world::{DEATH, Effects, LEASE, Store, builder, disputed, process, two};

/// A process whose run waits at the gate and that is cut off from the database; the other process; the run.
struct Cut {
    here: tower_idempotency_conformance::memory_backend::MemoryBackend,
    gate: Gate,
    effects: Effects,
    one: Lab,
    other: Store,
    run: tokio::task::JoinHandle<testkit::Answer>,
}

async fn cut(policy: OnInterrupted) -> Cut {
    let [(here, one), (_, other)] = two().await;
    let (effects, gate) = (Effects::default(), Gate::default());
    let one = effects.behind(IdempotencyLayer::new(one).on_interrupted(policy), &gate);
    let run = one.spawn(post("k", "a"));
    gate.arrival().await;
    here.cut();
    Cut { here, gate, effects, one, other, run }
}

impl Cut {
    /// A server of the other process with a reconciler that answers `RunAgain`.
    fn again(&self) -> Lab {
        let (layer, gate) = (IdempotencyLayer::new(self.other.clone()), Gate::default());
        gate.open();
        let says = Reconciler::<http::Response<String>>::new(|_| async { Reconciled::RunAgain });
        self.effects.behind(layer.on_in_flight(OnInFlight::Reject).reconcile_with(says), &gate)
    }

    /// A server of the other process whose handlers don't wait.
    fn elsewhere(&self, policy: OnInterrupted) -> Lab {
        let (layer, gate) = (IdempotencyLayer::new(self.other.clone()), Gate::default());
        gate.open();
        self.effects.behind(layer.on_in_flight(OnInFlight::Reject).on_interrupted(policy), &gate)
    }
}

#[tokio::test(start_paused = true)]
async fn the_run_of_a_dead_process_is_in_flight_until_its_lease_is_over_and_then_interrupted() {
    let cut = cut(OnInterrupted::Refuse).await;
    let elsewhere = cut.elsewhere(OnInterrupted::Refuse);
    // Its last renewal may have been a third of a lease before.
    let least = LEASE * 5 / 4 - LEASE / 3;
    let second = Duration::from_secs(1);
    for _ in 1..least.as_secs() {
        tokio::time::sleep(second).await;
        elsewhere.post("k", "a").await.assert_refusal(409, "in-flight", true, Some("1"));
        assert!(IdempotencyLayer::new(cut.other.clone()).interrupted(9).await.unwrap().is_empty());
    }
    tokio::time::sleep(DEATH - least + second).await;
    elsewhere.post("k", "a").await.assert_refusal(409, "outcome-unknown", false, None);
    assert_eq!(IdempotencyLayer::new(cut.other.clone()).interrupted(9).await.unwrap().len(), 1);
    assert_eq!(cut.effects.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_run_of_a_dead_process_that_may_run_again_is_taken_over_and_its_late_outcome_is_disputed() {
    let cut = cut(OnInterrupted::Refuse).await;
    let elsewhere = cut.again();
    tokio::time::sleep(DEATH).await;
    assert_eq!(elsewhere.post("k", "a").await.text(), "effect 2");
    cut.here.mend();
    cut.gate.open();
    assert_eq!(cut.run.await.unwrap().problem(), "outcome-unknown");
    for lab in [&elsewhere, &cut.one] {
        let replay = lab.post("k", "a").await;
        assert_eq!((replay.text(), replay.is_replay()), ("effect 2", true));
    }
    let disputed = disputed(&cut.other).await;
    assert_eq!(disputed.iter().map(|outcome| outcome.id).collect::<Vec<_>>(), [id("k")], "it is kept for operators");
    assert_eq!(cut.effects.count(), 2);
}

// A seeded fault: a waiter gets the state of the record when the lease ends, whatever the policy.
#[tokio::test(start_paused = true)]
async fn who_waits_for_the_run_of_a_dead_process_is_told_to_come_again_if_it_runs_again_or_is_asked_about() {
    for runs_again in [true, false] {
        let cut = cut(if runs_again { OnInterrupted::Rerun } else { OnInterrupted::Refuse }).await;
        let layer = IdempotencyLayer::new(cut.other.clone()).on_in_flight(OnInFlight::Wait(LEASE * 3));
        let asks = Reconciler::new(|_| async { Reconciled::Outcome(http::Response::new("found".to_owned())) });
        let layer = if runs_again { layer.on_interrupted(OnInterrupted::Rerun) } else { layer.reconcile_with(asks) };
        let elsewhere = Lab::counting(layer);
        elsewhere.post("k", "a").await.assert_refusal(409, "in-flight", true, Some("1"));
        let expected = if runs_again { "effect 1" } else { "found" };
        assert_eq!(elsewhere.post("k", "a").await.text(), expected);
        assert_eq!(elsewhere.effects(), usize::from(runs_again));
    }
    let cut = cut(OnInterrupted::Refuse).await;
    let refuses = IdempotencyLayer::new(cut.other.clone()).on_in_flight(OnInFlight::Wait(LEASE * 3));
    Lab::counting(refuses).post("k", "a").await.assert_refusal(409, "outcome-unknown", false, None);
}

#[tokio::test(start_paused = true)]
async fn the_late_outcome_of_a_run_that_was_thought_dead_is_recorded_if_nobody_took_it_over() {
    let cut = cut(OnInterrupted::Refuse).await;
    let elsewhere = cut.elsewhere(OnInterrupted::Refuse);
    tokio::time::sleep(DEATH).await;
    assert_eq!(elsewhere.post("k", "a").await.problem(), "outcome-unknown");
    cut.here.mend();
    cut.gate.open();
    assert_eq!(cut.run.await.unwrap().text(), "effect 1");
    assert!(elsewhere.post("k", "a").await.is_replay());
    assert_eq!(cut.effects.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_a_reconciler_found_out_counts_and_the_run_that_wakes_is_refused() {
    let cut = cut(OnInterrupted::Refuse).await;
    let reconciler = Reconciler::new(|_| async { Reconciled::Outcome(http::Response::new("found".to_owned())) });
    let elsewhere = Lab::counting(IdempotencyLayer::new(cut.other.clone()).reconcile_with(reconciler));
    tokio::time::sleep(DEATH).await;
    assert_eq!(elsewhere.post("k", "a").await.text(), "found");
    cut.here.mend();
    cut.gate.open();
    assert_eq!(cut.run.await.unwrap().problem(), "outcome-unknown");
    assert_eq!(cut.one.post("k", "a").await.text(), "found");
    assert_eq!((cut.effects.count(), elsewhere.effects()), (1, 0));
}

// A seeded fault: a question stays open that was answered with "still unknown".
#[tokio::test(start_paused = true)]
async fn where_one_process_does_not_know_another_may_ask_at_once() {
    let cut = cut(OnInterrupted::Refuse).await;
    let third = process(&cut.here.another_process()).await;
    tokio::time::sleep(LEASE).await;
    let asking = |store, says: Reconciled<http::Response<String>>| {
        let layer = IdempotencyLayer::new(store).on_in_flight(OnInFlight::Reject);
        Lab::counting(layer.reconcile_with(Reconciler::new(move |_| std::future::ready(says.clone()))))
    };
    let ignorant = asking(cut.other.clone(), Reconciled::StillUnknown);
    ignorant.post("k", "a").await.assert_refusal(409, "outcome-unknown", true, None);
    let knowing = asking(third.clone(), Reconciled::Outcome(http::Response::new("found".to_owned())));
    assert_eq!(knowing.post("k", "a").await.text(), "found");
    assert_eq!(ignorant.post("k", "a").await.text(), "found");
}

// A seeded fault: a question without a waiter stays open until its bound.
#[tokio::test(start_paused = true)]
async fn a_question_that_nobody_asks_any_more_keeps_no_other_from_asking() {
    let cut = cut(OnInterrupted::Refuse).await;
    let third = process(&cut.here.another_process()).await;
    let fence = IdempotencyLayer::new(third.clone()).interrupted(9).await.unwrap()[0].fence;
    drop(cut.other.apply(id("k"), Transition::Inquire { fence, bound: LEASE * 99 }));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let knows = Reconciler::new(|_| async { Reconciled::Outcome(http::Response::new("found".to_owned())) });
    let layer = IdempotencyLayer::new(third).on_in_flight(OnInFlight::Reject).reconcile_with(knows);
    assert_eq!(Lab::counting(layer).post("k", "a").await.text(), "found");
}

// A seeded fault, as above.
#[tokio::test(start_paused = true)]
async fn a_question_whose_asker_is_dropped_keeps_no_other_from_asking() {
    let cut = cut(OnInterrupted::Refuse).await;
    let third = process(&cut.here.another_process()).await;
    let asking = |store| IdempotencyLayer::new(store).on_in_flight(OnInFlight::Reject);
    let waits = Reconciler::new(|_| std::future::pending::<Reconciled<http::Response<String>>>()).timeout(LEASE * 9);
    let dropped = asking(cut.other.clone()).reconcile_with(waits).wrap_run(|run| async move {
        let _ = tokio::time::timeout(Duration::from_secs(1), run).await;
    });
    assert!(!Lab::counting(dropped).post("k", "a").await.status.is_success());
    tokio::time::sleep(Duration::from_secs(1)).await;
    let knows = Reconciler::new(|_| async { Reconciled::Outcome(http::Response::new("found".to_owned())) });
    assert_eq!(Lab::counting(asking(third).reconcile_with(knows)).post("k", "a").await.text(), "found");
}

// A seeded fault, as above.
#[tokio::test(start_paused = true)]
async fn what_is_to_run_again_runs_again_elsewhere_at_once() {
    let cut = cut(OnInterrupted::Refuse).await;
    let third = process(&cut.here.another_process()).await;
    tokio::time::sleep(LEASE).await;
    let asking = |store| {
        let layer = IdempotencyLayer::new(store).on_in_flight(OnInFlight::Reject);
        layer.reconcile_with(Reconciler::<http::Response<String>>::new(|_| async { Reconciled::RunAgain }))
    };
    assert_eq!(asking(cut.other.clone()).reconcile_all().await.unwrap().run_again, 1);
    assert_eq!(Lab::counting(asking(third)).post("k", "a").await.text(), "effect 1");
}

#[tokio::test(start_paused = true)]
async fn an_operator_elsewhere_settles_the_run_of_a_dead_process() {
    for forgets in [true, false] {
        let mut cut = cut(OnInterrupted::Refuse).await;
        let operator = IdempotencyLayer::new(cut.other.clone());
        tokio::time::sleep(DEATH).await;
        let listed = operator.interrupted(9).await.unwrap().remove(0);
        let told = answer("told");
        let resolution = if forgets { Action::Release } else { told };
        assert_eq!(operator.resolve(listed.id, listed.fence, resolution).await.unwrap(), Applied::Done);
        assert!(operator.interrupted(9).await.unwrap().is_empty());
        cut.here.mend();
        cut.gate.open();
        assert_eq!((&mut cut.run).await.unwrap().problem(), "outcome-unknown", "it was settled meanwhile");
        let expected = if forgets { "effect 2" } else { "told" };
        assert_eq!(cut.elsewhere(OnInterrupted::Refuse).post("k", "a").await.text(), expected);
    }
}

// A seeded fault: a session that was marked dead is renewed.
#[tokio::test(start_paused = true)]
async fn a_process_that_was_marked_dead_goes_on_under_another_session() {
    let cut = cut(OnInterrupted::Rerun).await;
    tokio::time::sleep(DEATH).await;
    assert_eq!(cut.elsewhere(OnInterrupted::Rerun).post("k", "a").await.text(), "effect 2");
    let sessions = |kind| cut.here.database().rows("").iter().filter(|row| row.kind == kind).count();
    assert_eq!((sessions(Kind::Session), sessions(Kind::Released)), (1, 1));
    cut.here.mend();
    tokio::time::sleep(LEASE).await;
    assert_eq!((sessions(Kind::Session), sessions(Kind::Released)), (2, 1));
    cut.gate.open();
    assert_eq!(cut.one.post("new", "a").await.text(), "effect 3");
}

#[tokio::test(start_paused = true)]
async fn a_run_whose_bound_is_over_is_taken_over_though_its_process_lives() {
    let [(_, one), (_, other)] = two().await;
    let (effects, gate) = (Effects::default(), Gate::default());
    let bound = std::time::Duration::from_secs(600);
    let server = effects.behind(IdempotencyLayer::new(one).max_run(bound * 100), &gate);
    let run = server.spawn(post("k", "a"));
    gate.arrival().await;
    let elsewhere = effects.server(&other, OnInterrupted::Refuse);
    tokio::time::sleep(bound * 99).await;
    assert_eq!(elsewhere.post("k", "a").await.problem(), "in-flight");
    tokio::time::sleep(bound * 2).await;
    assert_eq!(elsewhere.post("k", "a").await.problem(), "outcome-unknown");
    assert_eq!(run.await.unwrap().problem(), "outcome-unknown", "it exceeded max_run");
}

// A seeded fault: its bound is `max_run`.
#[tokio::test(start_paused = true)]
async fn a_run_that_ended_in_time_keeps_its_right_while_its_end_is_recorded() {
    let [(here, one), (_, other)] = two().await;
    let (effects, gate, max_run) = (Effects::default(), Gate::default(), LEASE * 2);
    let layer = |store| IdempotencyLayer::new(store).on_interrupted(OnInterrupted::Rerun).max_run(max_run);
    let run = effects.behind(layer(one), &gate).spawn(post("k", "a"));
    gate.arrival().await;
    tokio::time::sleep(max_run - Duration::from_secs(1)).await;
    let end = here.hold(Call::Put);
    gate.open();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let elsewhere = effects.behind(layer(other).on_in_flight(OnInFlight::Reject), &gate);
    assert_eq!(elsewhere.post("k", "a").await.problem(), "in-flight");
    end.release();
    assert_eq!(run.await.unwrap().text(), "effect 1");
    assert_eq!(elsewhere.post("k", "a").await.text(), "effect 1");
}

// Seeded faults: watching goes on after another server has answered; after an outage.
#[tokio::test(start_paused = true)]
async fn watching_starts_over_when_the_store_is_opened_after_an_outage_and_with_another_server() {
    type Happens = fn(&MemoryDatabase);
    let happens: [(&str, Option<Happens>, bool); 5] = [
        ("opened", None, false),
        ("restart", Some(MemoryDatabase::restart), false),
        ("failover", Some(MemoryDatabase::fail_over), false),
        ("outage", Some(|_| ()), true),
        ("outage and restart", Some(MemoryDatabase::restart), true),
    ];
    for (what, happens, is_outage) in happens {
        let cut = cut(OnInterrupted::Refuse).await;
        let database = cut.here.database();
        tokio::time::sleep(DEATH).await;
        let mut elsewhere = cut.elsewhere(OnInterrupted::Refuse);
        assert_eq!(elsewhere.post("k", "a").await.problem(), "outcome-unknown", "its lease is over");
        if is_outage {
            database.stop();
            tokio::time::sleep(LEASE).await;
        }
        match happens {
            Some(happens) => happens(database),
            None => {
                let opened = builder(&cut.here).open(cut.here.another_process()).await.unwrap();
                elsewhere = Lab::counting(IdempotencyLayer::new(opened).on_in_flight(OnInFlight::Reject));
            }
        }
        database.start();
        // It takes a moment until the database is found to be back.
        let second = Duration::from_secs(1);
        tokio::time::sleep(second * 2).await;
        for _ in 0..(LEASE * 5 / 4).as_secs() - 3 {
            assert_eq!(elsewhere.post("k", "a").await.problem(), "in-flight", "{what}");
            tokio::time::sleep(second).await;
        }
        tokio::time::sleep(second * 5 + LEASE / 6).await;
        assert_eq!(elsewhere.post("k", "a").await.problem(), "outcome-unknown", "{what}");
    }
}

// Seeded fault: no trace is no run, as under the other policies.
#[tokio::test(start_paused = true)]
async fn trap_113_under_rerun_a_run_that_has_freed_its_key_may_have_taken_effect() {
    let [(_, one), _] = two().await;
    let layer = IdempotencyLayer::new(one).on_interrupted(OnInterrupted::Rerun);
    let handler =
        |context: IdempotencyContext| async move { (Unsure, format!("{} {:?}", context.attempt(), context.rerun())) };
    let server = Lab::of(Router::new().fallback(any(handler)).layer(layer));
    for _ in 0..2 {
        assert_eq!(server.post("k", "a").await.text(), "1 Maybe");
    }
}

// A seeded fault: the handler is not dropped.
#[tokio::test(start_paused = true)]
async fn trap_03_a_handler_that_others_may_run_again_is_dropped_before_its_lease_ends_and_one_that_is_refused_goes_on()
{
    for (policy, goes_on) in [(OnInterrupted::Rerun, false), (OnInterrupted::Refuse, true)] {
        let cut = cut(policy).await;
        tokio::time::sleep(DEATH).await;
        assert_eq!(cut.run.is_finished() || !goes_on, !goes_on, "{policy:?}");
        cut.here.mend();
        cut.gate.open();
        let answer = cut.run.await.unwrap();
        assert_eq!(answer.status.is_success(), goes_on, "{policy:?} {answer:?}");
    }
}

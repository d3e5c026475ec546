//! A second process over the same records, and this process's engine. A run elsewhere is in flight while its process
//! lives; its duplicates wait for its end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use testkit::Gate;
use testkit::lab::asked::{Asked, asking, found, leave_interrupted, leave_interrupted_under};
use testkit::lab::listed::interrupted;
use testkit::lab::operator::{Operated as _, answer};
use testkit::lab::time::SECOND;
use testkit::lab::{Lab, gated, id, post, settle};
use tower_idempotency::engine::{ClaimPolicy, Reconciled};
use tower_idempotency::internals::Records as _;
use tower_idempotency::operations::{Action, Applied};
use tower_idempotency::{IdempotencyLayer, OnInFlight, OnInterrupted, Release};
use tower_idempotency_conformance::memory_backend::{Call, Fault, MemoryBackend};

use crate::world::{LEASE, Store, builder, database, lapse, two};

const POLICIES: [OnInterrupted; 2] = [OnInterrupted::Refuse, OnInterrupted::Rerun];

/// A process whose handler waits at `gate`, and another one.
async fn two_labs(policy: OnInterrupted, gate: &Gate) -> ([(MemoryBackend, Store); 2], [Lab; 2]) {
    let processes = two().await;
    let layer = |store: &Store| IdempotencyLayer::new(store.clone()).on_interrupted(policy);
    let [(_, one), (_, other)] = &processes;
    let labs = [gated(layer(one), gate), Lab::new(layer(other), |n| async move { format!("elsewhere {n}") })];
    (processes, labs)
}

#[tokio::test(start_paused = true)]
async fn a_living_run_elsewhere_is_in_flight_and_compared_and_never_run_at_once() {
    for policy in POLICIES {
        let gate = Gate::default();
        let (_processes, [here, elsewhere]) = two_labs(policy, &gate).await;
        let run = here.spawn(post("k", "a"));
        gate.arrival().await;
        elsewhere.post("k", "a").await.assert_refusal(409, "in-flight", true, Some("1"));
        elsewhere.post("k", "b").await.assert_refusal(422, "key-reused", false, None);
        gate.open();
        assert_eq!(run.await.unwrap().text(), "effect 1");
        let replay = elsewhere.post("k", "a").await;
        assert_eq!((replay.text(), replay.is_replay(), elsewhere.effects()), ("effect 1", true, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_that_was_thought_dead_is_refused_elsewhere_until_its_late_outcome_is_recorded() {
    let gate = Gate::default();
    let ([(way, _), _], [here, elsewhere]) = two_labs(OnInterrupted::Refuse, &gate).await;
    let run = here.spawn(post("k", "a"));
    gate.arrival().await;
    lapse(&way).await;
    elsewhere.post("k", "a").await.assert_refusal(409, "outcome-unknown", false, None);
    way.mend();
    gate.open();
    assert_eq!(run.await.unwrap().text(), "effect 1");
    for lab in [&elsewhere, &here] {
        let replay = lab.post("k", "a").await;
        assert_eq!((replay.text(), replay.is_replay()), ("effect 1", true));
    }
    assert_eq!((here.effects(), elsewhere.effects()), (1, 0));
}

// If the operation was taken over or settled, the outcome is refused, and the client gets `outcome-unknown`.
#[tokio::test(start_paused = true)]
async fn a_run_that_was_taken_over_tells_its_client_that_nobody_knows_and_everybody_the_outcome_that_counts() {
    for policy in POLICIES {
        let gate = Gate::default();
        let ([(way, _), (_, other)], [here, elsewhere]) = two_labs(policy, &gate).await;
        let run = here.spawn(post("k", "a"));
        gate.arrival().await;
        lapse(&way).await;
        let is_rerun = policy == OnInterrupted::Rerun;
        let runs_again = if is_rerun {
            IdempotencyLayer::new(other).on_interrupted(policy)
        } else {
            asking(other, Asked::default().says([Reconciled::RunAgain]))
        };
        let runs_again = Lab::new(runs_again, |n| async move { format!("elsewhere {n}") });
        assert_eq!(runs_again.post("k", "a").await.text(), "elsewhere 1");
        way.mend();
        gate.open();
        // Under `Rerun` the run was dropped before its lease was over.
        run.await.unwrap().assert_refusal(500, "outcome-unknown", is_rerun, None);
        // The process reaches the database again by then.
        tokio::time::sleep(LEASE / 6).await;
        for lab in [&elsewhere, &here] {
            let replay = lab.post("k", "a").await;
            assert_eq!((replay.text(), replay.is_replay()), ("elsewhere 1", true));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_operator_elsewhere_settles_a_run_that_was_thought_dead_and_has_the_last_word() {
    let gate = Gate::default();
    let ([(way, _), (_, other)], [here, _]) = two_labs(OnInterrupted::Refuse, &gate).await;
    let run = here.spawn(post("k", "a"));
    gate.arrival().await;
    lapse(&way).await;
    let operator = IdempotencyLayer::new(other);
    let listed = operator.interrupted(9).await.unwrap().remove(0);
    assert_eq!(operator.resolve(listed.id, listed.fence, answer("told")).await.unwrap(), Applied::Done);
    way.mend();
    // A duplicate that waits for the run gets what counts, as a later one does.
    let waits = here.spawn(post("k", "a"));
    settle().await;
    gate.open();
    assert_eq!(run.await.unwrap().problem(), "outcome-unknown");
    assert_eq!(waits.await.unwrap().text(), "told");
    assert_eq!(here.post("k", "a").await.text(), "told");
}

// A released row is not an absent one: what an operator forgot is not recorded, and the key is free.
#[tokio::test(start_paused = true)]
async fn what_an_operator_elsewhere_forgot_is_not_recorded_when_its_run_ends_after_all() {
    let gate = Gate::default();
    let ([(way, _), (_, other)], [here, elsewhere]) = two_labs(OnInterrupted::Refuse, &gate).await;
    let run = here.spawn(post("k", "a"));
    gate.arrival().await;
    lapse(&way).await;
    let operator = IdempotencyLayer::new(other);
    let listed = operator.interrupted(9).await.unwrap().remove(0);
    assert_eq!(operator.resolve(listed.id, listed.fence, Action::Release).await.unwrap(), Applied::Done);
    way.mend();
    gate.open();
    assert_eq!(run.await.unwrap().problem(), "outcome-unknown");
    assert_eq!(elsewhere.post("k", "a").await.text(), "elsewhere 1");
}

// The retry of a late outcome whose answer was lost, after a question about its run.
#[tokio::test(start_paused = true)]
async fn trap_102_a_late_outcome_that_is_told_twice_after_a_question_is_known_for_its_own() {
    let gate = Gate::default();
    let ([(way, _), (_, other)], [here, elsewhere]) = two_labs(OnInterrupted::Refuse, &gate).await;
    let run = here.spawn(post("k", "a"));
    gate.arrival().await;
    lapse(&way).await;
    let unknown = Lab::counting(asking(other, Asked::default().says([Reconciled::StillUnknown])));
    assert_eq!(unknown.post("k", "a").await.problem(), "outcome-unknown");
    way.mend();
    // The process has another session by then.
    tokio::time::sleep(LEASE / 6).await;
    let before = way.counts().puts;
    way.fail_next(Call::Put, Fault::LoseAnswer);
    gate.open();
    assert_eq!(run.await.unwrap().text(), "effect 1");
    assert!(before < way.counts().puts);
    assert!(elsewhere.post("k", "a").await.is_replay());
}

#[tokio::test(start_paused = true)]
async fn of_two_askers_one_asks_and_the_other_is_told_that_it_is_in_flight() {
    let ([(_, one), (_, other)], gate, asked) = (two().await, Gate::default(), Asked::default());
    leave_interrupted(&one, "k").await;
    let here = Lab::counting(asking(one, asked.says_behind(&gate, [found("charged")])));
    let elsewhere = Lab::counting(asking(other, asked.says([Reconciled::RunAgain])));
    let first = here.spawn(post("k", "a"));
    gate.arrival().await;
    elsewhere.post("k", "a").await.assert_refusal(409, "in-flight", true, Some("1"));
    gate.open();
    assert_eq!(first.await.unwrap().text(), "charged");
    assert_eq!(elsewhere.post("k", "a").await.text(), "charged");
    assert_eq!((asked.times(), elsewhere.effects()), (1, 0));
}

// A seeded fault: the question stays open until its bound.
#[tokio::test(start_paused = true)]
async fn where_the_store_fails_to_take_over_what_may_run_again_another_process_may_ask_at_once() {
    let ([(way, one), (_, other)], gate, asked) = (two().await, Gate::default(), Asked::default());
    leave_interrupted(&one, "k").await;
    let here = Lab::counting(asking(one, asked.says_behind(&gate, [Reconciled::RunAgain])));
    let elsewhere = Lab::counting(asking(other, asked.says([Reconciled::RunAgain])));
    let first = here.spawn(post("k", "a"));
    gate.arrival().await;
    way.fail_next(Call::Put, Fault::Refuse);
    gate.open();
    first.await.unwrap().assert_refusal(503, "overloaded", true, Some("2"));
    assert_eq!(elsewhere.post("k", "a").await.text(), "effect 1");
    assert_eq!((asked.times(), here.effects()), (2, 0));
}

// A seeded fault: the bound of a question covers the question alone.
#[tokio::test(start_paused = true)]
async fn while_what_the_application_said_is_being_recorded_no_other_process_asks() {
    let ([(way, one), (_, other)], gate, asked) = (two().await, Gate::default(), Asked::default());
    leave_interrupted(&one, "k").await;
    let [here, elsewhere] = [one, other].map(|store| {
        let reconciler = asked.says_behind(&gate, [found("charged"), found("asked again")]).timeout(SECOND / 10);
        Lab::counting(asking(store, reconciler).on_in_flight(OnInFlight::Reject))
    });
    let first = here.spawn(post("k", "a"));
    gate.arrival().await;
    let recording = way.hold(Call::Put);
    gate.open();
    tokio::time::sleep(SECOND).await;
    elsewhere.post("k", "a").await.assert_refusal(409, "in-flight", true, Some("1"));
    recording.release();
    assert_eq!(first.await.unwrap().text(), "charged");
    assert_eq!((elsewhere.post("k", "a").await.text(), asked.times()), ("charged", 1));
}

// Its client got the answer that it does not run again. A seeded fault: it counts as claimed under another policy.
#[tokio::test(start_paused = true)]
async fn what_another_process_asks_about_before_it_is_taken_over_runs_when_its_retry_comes_again() {
    let [(way, one), (_, other)] = two().await;
    leave_interrupted_under(ClaimPolicy::Rerun, &one, "k").await;
    let layer = IdempotencyLayer::new(one).on_interrupted(OnInterrupted::Rerun);
    let here = Lab::counting(layer.clone());
    let elsewhere = Lab::counting(asking(other, Asked::default().says([Reconciled::StillUnknown])));
    let puts = way.hold(Call::Put);
    let retry = here.spawn(post("k", "a"));
    puts.wait_until_held(1).await;
    assert!(puts.release_one(), "the claim, which finds the record");
    puts.wait_until_held(1).await;
    elsewhere.post("k", "a").await.assert_refusal(409, "outcome-unknown", true, None);
    puts.release();
    retry.await.unwrap().assert_refusal(409, "in-flight", true, Some("1"));
    assert_eq!((here.effects(), layer.stats().not_rerun), (0, 0));
    assert_eq!(here.post("k", "a").await.text(), "effect 1");
}

#[tokio::test(start_paused = true)]
async fn an_asker_that_dies_leaves_the_question_to_the_next_and_its_verdict_counts_for_nothing() {
    let ([(way, one), (_, other)], gate, asked) = (two().await, Gate::default(), Asked::default());
    leave_interrupted(&one, "k").await;
    let runs_again = asked.says_behind(&gate, [Reconciled::RunAgain]).timeout(LEASE * 9);
    let here = Lab::counting(asking(one, runs_again));
    let elsewhere = Lab::counting(asking(other, asked.says([found("charged")])));
    let first = here.spawn(post("k", "a"));
    gate.arrival().await;
    lapse(&way).await;
    assert_eq!(elsewhere.post("k", "a").await.text(), "charged");
    way.mend();
    // The process has another session by then.
    tokio::time::sleep(LEASE / 6).await;
    gate.open();
    assert_eq!(first.await.unwrap().text(), "charged", "what found there now");
    assert_eq!((asked.times(), here.effects() + elsewhere.effects()), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn an_outcome_that_was_recorded_and_never_acknowledged_is_replayed_elsewhere() {
    let gate = Gate::default();
    let ([(way, _), _], [here, elsewhere]) = two_labs(OnInterrupted::Refuse, &gate).await;
    let run = here.spawn(post("k", "a"));
    gate.arrival().await;
    let _answers = [way.hold_answers(Call::Put), way.hold_answers(Call::Get)];
    gate.open();
    assert_eq!(run.await.unwrap().text(), "effect 1");
    way.cut();
    let replay = elsewhere.post("k", "a").await;
    assert_eq!((replay.text(), replay.is_replay(), elsewhere.effects()), ("effect 1", true, 0));
}

#[tokio::test(start_paused = true)]
async fn a_store_says_what_other_processes_have_changed() {
    let ([(_, one), _], [_, elsewhere]) = two_labs(OnInterrupted::Refuse, &Gate::default()).await;
    let (changed, other) = (one.changed(id("k")), one.changed(id("other")));
    assert_eq!(elsewhere.post("k", "a").await.text(), "elsewhere 1");
    changed.await;
    assert!(futures_util::poll!(other).is_pending());
}

// A seeded fault: waiters are notified of changes, and do not read.
#[tokio::test(start_paused = true)]
async fn a_duplicate_of_a_run_elsewhere_waits_for_its_end_and_is_given_its_outcome() {
    let gate = Gate::default();
    let (_processes, [here, elsewhere]) = two_labs(OnInterrupted::Refuse, &gate).await;
    let run = here.spawn(post("k", "a"));
    gate.arrival().await;
    let duplicates = [elsewhere.spawn(post("k", "a")), elsewhere.spawn(post("k", "a"))];
    settle().await;
    assert!(duplicates.iter().all(|duplicate| !duplicate.is_finished()));
    elsewhere.post("k", "b").await.assert_refusal(422, "key-reused", false, None);
    gate.open();
    assert_eq!(run.await.unwrap().text(), "effect 1");
    for duplicate in duplicates {
        let replay = duplicate.await.unwrap();
        assert_eq!((replay.text(), replay.is_replay(), elsewhere.effects()), ("effect 1", true, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_duplicate_of_a_run_elsewhere_that_dies_is_told_so_and_never_runs() {
    // Under `Rerun` the next try runs it.
    for (policy, told) in POLICIES.into_iter().zip(["outcome-unknown", "in-flight"]) {
        let gate = Gate::default();
        let ([(way, _), (_, other)], [here, _]) = two_labs(policy, &gate).await;
        let run = here.spawn(post("k", "a"));
        gate.arrival().await;
        let waits = IdempotencyLayer::new(other).on_interrupted(policy).on_in_flight(OnInFlight::Wait(LEASE * 3));
        let elsewhere = Lab::counting(waits);
        let duplicate = elsewhere.spawn(post("k", "a"));
        settle().await;
        way.cut();
        assert_eq!(duplicate.await.unwrap().problem(), told);
        assert_eq!(elsewhere.effects(), 0, "who waits does not run, whatever the policy");
        run.abort();
    }
}

// A seeded fault: after the wait for a run of this process, a duplicate waits as long for one of another.
#[tokio::test(start_paused = true)]
async fn a_duplicate_waits_no_longer_than_the_policy_says_whichever_process_runs() {
    let gate = Gate::default();
    let (_processes, [here, elsewhere]) = two_labs(OnInterrupted::Refuse, &gate).await;
    let _run = here.spawn(post("k", "a"));
    gate.arrival().await;
    for process in [elsewhere, here] {
        let began = tokio::time::Instant::now();
        process.post("k", "a").await.assert_refusal(409, "in-flight", true, Some("1"));
        assert_eq!(began.elapsed().as_secs(), 2);
    }
}

// Seeded fault: it waits for as long as the policy says.
#[tokio::test(start_paused = true)]
async fn a_duplicate_of_a_run_elsewhere_that_frees_its_key_does_not_wait_any_longer() {
    let ([(_, one), (_, other)], gate) = (two().await, Gate::default());
    let waits_at = gate.clone();
    let here = Lab::new(IdempotencyLayer::new(one), move |_| {
        let gate = waits_at.clone();
        async move {
            gate.pass().await;
            Release
        }
    });
    let elsewhere = Lab::counting(IdempotencyLayer::new(other));
    let run = here.spawn(post("k", "a"));
    gate.arrival().await;
    let duplicate = elsewhere.spawn(post("k", "a"));
    settle().await;
    assert!(!duplicate.is_finished());
    gate.open();
    assert_eq!(run.await.unwrap().status, 503);
    settle().await;
    assert!(duplicate.is_finished(), "the key is free");
    assert_eq!((duplicate.await.unwrap().problem().as_str(), elsewhere.effects()), ("in-flight", 0));
}

// Two processes, of which one has another policy.
#[tokio::test(start_paused = true)]
async fn a_run_of_a_dead_process_keeps_its_policy_between_processes() {
    let ([(way, one), (_, other)], gate) = (two().await, Gate::default());
    let run = gated(IdempotencyLayer::new(one), &gate).spawn(post("k", "a"));
    gate.arrival().await;
    lapse(&way).await;
    let reruns = IdempotencyLayer::new(other.clone()).on_interrupted(OnInterrupted::Rerun);
    let lab = Lab::counting(reruns.clone());
    lab.post("k", "a").await.assert_refusal(409, "outcome-unknown", false, None);
    assert_eq!((lab.effects(), reruns.stats().not_rerun), (0, 1));
    let Ok([listed]) = <[_; 1]>::try_from(interrupted(&other, 9).await) else { panic!("one is interrupted") };
    assert_eq!(listed.policy, ClaimPolicy::Refuse);
    run.abort();
}

// When a stopped process wakes up, two futures are ready: the handler, whose next step may be the charge, and the one
// that ends the run.
#[tokio::test(start_paused = true)]
async fn trap_114_a_run_whose_lease_or_time_is_over_takes_no_further_step() {
    const LONG: Duration = Duration::from_secs(3_600);
    for (lease, max_run) in [(LEASE, LONG), (LONG, LEASE)] {
        assert!(!charges_after_standing_still(lease, max_run, LEASE * 2).await);
    }
    assert!(charges_after_standing_still(LONG, LONG, LEASE * 2).await);
}

/// Returns whether a handler takes its next step after its process was paused for `still`.
async fn charges_after_standing_still(lease: Duration, max_run: Duration, still: Duration) -> bool {
    let way = database();
    let store = builder(&way).lease(lease).open(way.clone()).await.unwrap();
    let charged = Arc::new(AtomicBool::new(false));
    let charges = Arc::clone(&charged);
    let layer = IdempotencyLayer::new(store).on_interrupted(OnInterrupted::Rerun).max_run(max_run);
    let lab = Lab::new(layer, move |_| {
        let charges = Arc::clone(&charges);
        async move {
            tokio::time::sleep(still / 2).await;
            charges.store(true, Ordering::SeqCst);
            "charged"
        }
    });
    let run = lab.spawn(post("k", "a"));
    settle().await;
    assert_eq!(lab.effects(), 1);
    tokio::time::advance(still).await;
    let is_own = run.await.unwrap().status.is_success();
    assert_eq!(charged.load(Ordering::SeqCst), is_own);
    is_own
}

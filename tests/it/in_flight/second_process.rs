//! A second process over the same records, played by the test store, and this process's engine. A run elsewhere is in
//! flight while its process lives; its duplicates wait for its end.

use testkit::Gate;
use testkit::lab::asked::{Asked, asking, found, leave_interrupted, leave_interrupted_under};
use testkit::lab::time::{NOON, SECOND};
use testkit::lab::{Lab, gated, id, post, settle};
use tower_idempotency::Resolution;
use tower_idempotency::engine::{ClaimPolicy, Reconciled, Resolved};
use tower_idempotency::internals::Records as _;
use tower_idempotency::test_util::{ManualClock, StoreCall, TestStore};
use tower_idempotency::{IdempotencyLayer, OnInterrupted, Release};

const POLICIES: [OnInterrupted; 2] = [OnInterrupted::Refuse, OnInterrupted::Rerun];

/// A process whose handler waits at `gate`, and another one.
fn two(policy: &OnInterrupted, gate: &Gate) -> ([TestStore; 2], [Lab; 2]) {
    let store = TestStore::new();
    let stores = [store.another_process(), store.another_process()];
    let layer = |store: &TestStore| IdempotencyLayer::new(store.clone()).on_interrupted(*policy);
    let labs =
        [gated(layer(&stores[0]), gate), Lab::new(layer(&stores[1]), |n| async move { format!("elsewhere {n}") })];
    (stores, labs)
}

#[tokio::test(start_paused = true)]
async fn a_living_run_elsewhere_is_in_flight_and_compared_and_never_run_at_once() {
    for policy in POLICIES {
        let gate = Gate::default();
        let (_, [here, elsewhere]) = two(&policy, &gate);
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

#[tokio::test]
async fn a_run_that_was_thought_dead_is_refused_elsewhere_until_its_late_outcome_is_recorded() {
    let gate = Gate::default();
    let (stores, [here, elsewhere]) = two(&OnInterrupted::Refuse, &gate);
    let run = here.spawn(post("k", "a"));
    gate.arrival().await;
    stores[0].lapse();
    elsewhere.post("k", "a").await.assert_refusal(409, "outcome-unknown", false, None);
    gate.open();
    assert_eq!(run.await.unwrap().text(), "effect 1");
    for lab in [&elsewhere, &here] {
        let replay = lab.post("k", "a").await;
        assert_eq!((replay.text(), replay.is_replay()), ("effect 1", true));
    }
    assert_eq!((here.effects(), elsewhere.effects()), (1, 0));
}

// If the operation was taken over or settled, the outcome is refused, and the client gets `outcome-unknown`.
#[tokio::test]
async fn a_run_that_was_taken_over_tells_its_client_that_nobody_knows_and_everybody_the_outcome_that_counts() {
    let gate = Gate::default();
    let (stores, [here, elsewhere]) = two(&OnInterrupted::Rerun, &gate);
    let run = here.spawn(post("k", "a"));
    gate.arrival().await;
    stores[0].lapse();
    assert_eq!(elsewhere.post("k", "a").await.text(), "elsewhere 1");
    gate.open();
    run.await.unwrap().assert_refusal(500, "outcome-unknown", true, None);
    for lab in [&elsewhere, &here] {
        let replay = lab.post("k", "a").await;
        assert_eq!((replay.text(), replay.is_replay()), ("elsewhere 1", true));
    }
}

#[tokio::test]
async fn an_operator_elsewhere_settles_a_run_that_was_thought_dead_and_has_the_last_word() {
    let gate = Gate::default();
    let (stores, [here, _]) = two(&OnInterrupted::Refuse, &gate);
    let run = here.spawn(post("k", "a"));
    gate.arrival().await;
    stores[0].lapse();
    let operator = IdempotencyLayer::new(stores[1].clone());
    let listed = operator.interrupted(9).await.unwrap().remove(0);
    let answer = Resolution::Outcome(http::Response::new("told".into()));
    assert_eq!(operator.resolve(listed.id, listed.fence, answer).await.unwrap(), Resolved::Settled);
    gate.open();
    assert_eq!(run.await.unwrap().problem(), "outcome-unknown");
    assert_eq!(here.post("k", "a").await.text(), "told");
}

// A released row is not an absent one: what an operator forgot is not recorded, and the key is free.
#[tokio::test]
async fn what_an_operator_elsewhere_forgot_is_not_recorded_when_its_run_ends_after_all() {
    let gate = Gate::default();
    let (stores, [here, elsewhere]) = two(&OnInterrupted::Refuse, &gate);
    let run = here.spawn(post("k", "a"));
    gate.arrival().await;
    stores[0].lapse();
    let operator = IdempotencyLayer::new(stores[1].clone());
    let listed = operator.interrupted(9).await.unwrap().remove(0);
    assert_eq!(operator.resolve(listed.id, listed.fence, Resolution::Release).await.unwrap(), Resolved::Settled);
    gate.open();
    assert_eq!(run.await.unwrap().problem(), "outcome-unknown");
    assert_eq!(elsewhere.post("k", "a").await.text(), "elsewhere 1");
}

// The retry of a late outcome whose answer was lost, after a question about its run.
#[tokio::test(start_paused = true)]
async fn trap_102_a_late_outcome_that_is_told_twice_after_a_question_is_known_for_its_own() {
    let gate = Gate::default();
    let (stores, [here, elsewhere]) = two(&OnInterrupted::Refuse, &gate);
    let run = here.spawn(post("k", "a"));
    gate.arrival().await;
    stores[0].lapse();
    let asked = Asked::default();
    let unknown = Lab::counting(asking(stores[1].clone(), asked.says([Reconciled::StillUnknown])));
    assert_eq!(unknown.post("k", "a").await.problem(), "outcome-unknown");
    stores[0].lose_answer(StoreCall::Complete);
    gate.open();
    assert_eq!(run.await.unwrap().text(), "effect 1");
    assert!(elsewhere.post("k", "a").await.is_replay());
}

#[tokio::test(start_paused = true)]
async fn of_two_askers_one_asks_and_the_other_is_told_that_it_is_in_flight() {
    let store = TestStore::new();
    let (stores, gate, asked) = ([store.another_process(), store.another_process()], Gate::default(), Asked::default());
    leave_interrupted(&store, "k").await;
    store.crash();
    let here = Lab::counting(asking(stores[0].clone(), asked.says_behind(&gate, [found("charged")])));
    let elsewhere = Lab::counting(asking(stores[1].clone(), asked.says([Reconciled::RunAgain])));
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
    let store = TestStore::new();
    let (stores, asked) = ([store.another_process(), store.another_process()], Asked::default());
    leave_interrupted(&store, "k").await;
    store.crash();
    let [here, elsewhere] =
        stores.each_ref().map(|store| Lab::counting(asking(store.clone(), asked.says([Reconciled::RunAgain]))));
    stores[0].fail_next(StoreCall::Reclaim);
    here.post("k", "a").await.assert_refusal(503, "store-unavailable", true, Some("1"));
    assert_eq!(elsewhere.post("k", "a").await.text(), "effect 1");
    assert_eq!((asked.times(), here.effects()), (2, 0));
}

// A seeded fault: the bound of a question covers the question alone.
#[tokio::test(start_paused = true)]
async fn while_what_the_application_said_is_being_recorded_no_other_process_asks() {
    let clock = ManualClock::new(NOON);
    let store = TestStore::with_clock(clock.clone());
    let (stores, asked) = ([store.another_process(), store.another_process()], Asked::default());
    leave_interrupted(&store, "k").await;
    store.crash();
    let [here, elsewhere] = stores.each_ref().map(|store| {
        let reconciler = asked.says([found("charged"), found("asked again")]).timeout(SECOND);
        Lab::counting(asking(store.clone(), reconciler))
    });
    let recording = stores[0].stall(StoreCall::Resolve);
    let first = here.spawn(post("k", "a"));
    settle().await;
    clock.advance(SECOND * 10);
    elsewhere.post("k", "a").await.assert_refusal(409, "in-flight", true, Some("1"));
    recording.release();
    assert_eq!(first.await.unwrap().text(), "charged");
    assert_eq!((elsewhere.post("k", "a").await.text(), asked.times()), ("charged", 1));
}

// Its client got the answer that it does not run again. A seeded fault: it counts as claimed under another policy.
#[tokio::test(start_paused = true)]
async fn what_another_process_asks_about_before_it_is_taken_over_runs_when_its_retry_comes_again() {
    let store = TestStore::new();
    let stores = [store.another_process(), store.another_process()];
    leave_interrupted_under(ClaimPolicy::Rerun, &store, "k").await;
    store.crash();
    let layer = IdempotencyLayer::new(stores[0].clone()).on_interrupted(OnInterrupted::Rerun);
    let here = Lab::counting(layer.clone());
    let elsewhere = Lab::counting(asking(stores[1].clone(), Asked::default().says([Reconciled::StillUnknown])));
    let taking_over = stores[0].stall(StoreCall::Reclaim);
    let retry = here.spawn(post("k", "a"));
    settle().await;
    elsewhere.post("k", "a").await.assert_refusal(409, "outcome-unknown", true, None);
    taking_over.release();
    retry.await.unwrap().assert_refusal(409, "in-flight", true, Some("1"));
    assert_eq!((here.effects(), layer.stats().not_rerun), (0, 0));
    assert_eq!(here.post("k", "a").await.text(), "effect 1");
}

#[tokio::test]
async fn an_asker_that_dies_leaves_the_question_to_the_next_and_its_verdict_counts_for_nothing() {
    let store = TestStore::new();
    let (stores, gate, asked) = ([store.another_process(), store.another_process()], Gate::default(), Asked::default());
    leave_interrupted(&store, "k").await;
    store.crash();
    let here = Lab::counting(asking(stores[0].clone(), asked.says_behind(&gate, [Reconciled::RunAgain])));
    let elsewhere = Lab::counting(asking(stores[1].clone(), asked.says([found("charged")])));
    let first = here.spawn(post("k", "a"));
    gate.arrival().await;
    stores[0].lapse();
    assert_eq!(elsewhere.post("k", "a").await.text(), "charged");
    gate.open();
    assert_eq!(first.await.unwrap().text(), "charged", "what found there now");
    assert_eq!((asked.times(), here.effects() + elsewhere.effects()), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn an_outcome_that_was_recorded_and_never_acknowledged_is_replayed_elsewhere() {
    let gate = Gate::default();
    let (stores, [here, elsewhere]) = two(&OnInterrupted::Refuse, &gate);
    (0..9).for_each(|_| stores[0].lose_answer(StoreCall::Complete));
    gate.open();
    assert_eq!(here.post("k", "a").await.text(), "effect 1");
    stores[0].crash();
    let replay = elsewhere.post("k", "a").await;
    assert_eq!((replay.text(), replay.is_replay(), elsewhere.effects()), ("effect 1", true, 0));
}

#[tokio::test]
async fn a_store_says_what_other_processes_have_changed() {
    let (stores, labs) = two(&OnInterrupted::Refuse, &Gate::default());
    let changed = stores[0].changed(id("k"));
    let (own, other) = (stores[1].changed(id("k")), stores[0].changed(id("other")));
    assert_eq!(labs[1].post("k", "a").await.text(), "elsewhere 1");
    changed.await;
    assert!(futures_util::poll!(own).is_pending(), "its own changes do not count");
    assert!(futures_util::poll!(other).is_pending());
}

// A seeded fault: waiters are notified of changes, and do not read.
#[tokio::test(start_paused = true)]
async fn a_duplicate_of_a_run_elsewhere_waits_for_its_end_and_is_given_its_outcome() {
    let gate = Gate::default();
    let (_, [here, elsewhere]) = two(&OnInterrupted::Refuse, &gate);
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
        let (stores, [here, elsewhere]) = two(&policy, &gate);
        let run = here.spawn(post("k", "a"));
        gate.arrival().await;
        let duplicate = elsewhere.spawn(post("k", "a"));
        settle().await;
        stores[0].lapse();
        assert_eq!(duplicate.await.unwrap().problem(), told);
        assert_eq!(elsewhere.effects(), 0, "who waits does not run, whatever the policy");
        run.abort();
    }
}

// A seeded fault: after the wait for a run of this process, a duplicate waits as long for one of another.
#[tokio::test(start_paused = true)]
async fn a_duplicate_waits_no_longer_than_the_policy_says_whichever_process_runs() {
    let gate = Gate::default();
    let (_, [here, elsewhere]) = two(&OnInterrupted::Refuse, &gate);
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
    let (gate, store) = (Gate::default(), TestStore::new());
    let waits_at = gate.clone();
    let here = Lab::new(IdempotencyLayer::new(store.another_process()), move |_| {
        let gate = waits_at.clone();
        async move {
            gate.pass().await;
            Release
        }
    });
    let elsewhere = Lab::counting(IdempotencyLayer::new(store.another_process()));
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

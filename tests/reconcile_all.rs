//! Trap 74, and questions that no client waits for: one question at a time about an operation, verdicts that come too late,
//! and `reconcile_all`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod common;

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use common::asked::{Asked, asking, cut_short, found};
use common::lab::{Answer, Gate, Lab, id, on_disk, post, settle};
use common::steps::{Steps as _, wish};
use futures_util::FutureExt as _;
use futures_util::future::join_all;
use http::Response;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tower_idempotency::engine::{InterruptedRun, Reconciled, Reconciler, Reconciliation};
use tower_idempotency::record::Reply;
use tower_idempotency::record::Resolution::Forget;
use tower_idempotency::store::Store;
use tower_idempotency::test_util::{TestStore, Verb};
use tower_idempotency::{IdempotencyLayer, MemoryStore, OnInFlight, OnInterrupted, Once, SledStore};

const SECOND: Duration = Duration::from_secs(1);

type Verdict = Reconciled<Response<Bytes>>;

// Trap 74: two reconcilers, or a late verdict after its time-out.

/// A layer whose duplicates wait for as long as it takes.
fn patient<St: Store>(store: St, reconciler: Reconciler<Response<Bytes>>) -> IdempotencyLayer<St> {
    asking(store, reconciler).on_in_flight(OnInFlight::Wait(SECOND * 60))
}

/// Half of them come before the application is asked, half meanwhile.
async fn twenty_retries(lab: &Lab, gate: &Gate) -> Vec<JoinHandle<Answer>> {
    let ten = || (0..10).map(|_| lab.spawn(post("k", "a")));
    let mut retries: Vec<_> = ten().collect();
    gate.arrival().await;
    retries.extend(ten());
    settle().await;
    retries
}

#[tokio::test]
async fn trap_74_concurrent_retries_share_one_question_and_its_verdict() {
    for (verdict, answer, effects) in [(found("charged"), "charged", 0), (Reconciled::RunAgain, "effect 1", 1)] {
        let (store, gate, asked) = (TestStore::new(), Gate::default(), Asked::default());
        cut_short(&store, "k").await;
        let lab = Lab::counting(patient(store, asked.says_behind(&gate, [verdict])));
        let retries = twenty_retries(&lab, &gate).await;
        assert!(retries.iter().all(|retry| !retry.is_finished()));
        gate.open();
        for retry in join_all(retries).await {
            assert_eq!(retry.unwrap().text(), answer);
        }
        assert_eq!((asked.times(), lab.effects()), (1, effects));
    }
}

#[tokio::test]
async fn trap_74_concurrent_retries_of_what_is_still_unknown_are_all_refused_after_one_question() {
    let (store, gate, asked) = (TestStore::new(), Gate::default(), Asked::default());
    cut_short(&store, "k").await;
    let lab = Lab::counting(patient(store, asked.says_behind(&gate, [Reconciled::Unknown])));
    let retries = twenty_retries(&lab, &gate).await;
    gate.open();
    for retry in join_all(retries).await {
        retry.unwrap().assert_refusal(409, "outcome-unknown", true, None);
    }
    assert_eq!(asked.times(), 1);
}

async fn racing_retries<St: Store + Clone>(store: St, rounds: usize) {
    let asked = Asked::default();
    let layer = patient(store.clone(), asked.says([found("charged")]));
    let lab = Lab::counting(layer.clone());
    for round in 1..=rounds {
        let key = format!("k{round}");
        cut_short(&store, &key).await;
        // An operator's sweep comes between.
        let (answers, _) = tokio::join!(join_all((0..6).map(|_| lab.spawn(post(&key, "a")))), layer.reconcile_all());
        assert!(answers.into_iter().all(|answer| answer.unwrap().text() == "charged"));
        assert_eq!((asked.times(), lab.effects()), (round, 0), "one question a key");
    }
    assert_eq!(layer.counts().reconciled, rounds as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn trap_74_retries_that_race_for_the_question_ask_once() {
    racing_retries(MemoryStore::new(), 200).await;
    racing_retries(TestStore::new(), 200).await;
    let (_directory, store) = on_disk(SledStore::builder());
    racing_retries(store, 30).await;
}

#[tokio::test(start_paused = true)]
async fn trap_74_a_verdict_after_its_time_out_counts_for_nothing() {
    for verdict in [found("too late"), Reconciled::RunAgain] {
        let (store, gate, asked) = (TestStore::new(), Gate::default(), Asked::default());
        cut_short(&store, "k").await;
        let reconciler = asked.says_behind(&gate, [verdict, found("in time")]).time_out(SECOND);
        let layer = asking(store.clone(), reconciler);
        let lab = Lab::counting(layer.clone());
        let began = Instant::now();
        lab.post("k", "a").await.assert_refusal(409, "outcome-unknown", true, None);
        assert_eq!(began.elapsed().as_secs(), 1, "of the paused clock");
        let left = store.load(id("k")).await.unwrap();
        gate.open();
        settle().await;
        assert_eq!(store.load(id("k")).await.unwrap(), left, "nobody acts on it");
        assert_eq!((layer.counts().live, layer.interrupted(9).await.unwrap().len()), (0, 1));
        assert_eq!((lab.post("k", "a").await.text(), asked.times(), lab.effects()), ("in time", 2, 0));
    }
}

#[tokio::test]
async fn trap_74_what_was_said_to_an_earlier_question_changes_nothing_once_another_is_open() {
    let (store, gate, asked) = (TestStore::new(), Gate::default(), Asked::default());
    let run = cut_short(&store, "k").await;
    let ask_once = asking(store.clone(), asked.says([Reconciled::Unknown]));
    Lab::counting(ask_once).post("k", "a").await.assert_refusal(409, "outcome-unknown", true, None);
    let earlier = asked.questions()[0].fence;
    let lab = Lab::counting(asking(store.clone(), asked.says_behind(&gate, [found("charged")])));
    let retry = lab.spawn(post("k", "a"));
    gate.arrival().await;
    for fence in [run.fence, earlier] {
        assert_eq!(store.settle(id("k"), fence, Forget).await.unwrap(), Reply::Refused);
        assert_eq!(store.reclaim(wish("k"), fence).await.unwrap(), None);
    }
    gate.open();
    assert_eq!(retry.await.unwrap().text(), "charged");
}

#[tokio::test]
async fn trap_74_a_verdict_changes_nothing_once_another_process_has_asked() {
    for verdict in [found("charged"), Reconciled::RunAgain] {
        let (store, gate, asked) = (TestStore::new(), Gate::default(), Asked::default());
        cut_short(&store, "k").await;
        let lab = Lab::counting(asking(store.clone(), asked.says_behind(&gate, [verdict])));
        let retry = lab.spawn(post("k", "a"));
        gate.arrival().await;
        // What another process does that takes this one for dead.
        let newer = store.inquire(id("k"), asked.questions()[0].fence).await.unwrap();
        gate.open();
        retry.await.unwrap().assert_refusal(409, "outcome-unknown", true, None);
        let left = store.load(id("k")).await.unwrap().unwrap();
        assert_eq!((Some(left.fence), lab.effects()), (newer, 0));
    }
}

#[tokio::test]
async fn trap_74_a_verdict_of_a_process_that_was_replaced_meanwhile_changes_nothing() {
    for verdict in [found("of the old one"), Reconciled::RunAgain] {
        let (store, gate, asked) = (TestStore::new(), Gate::default(), Asked::default());
        cut_short(&store, "k").await;
        let old = Lab::counting(asking(store.clone(), asked.says_behind(&gate, [verdict])));
        let retry = old.spawn(post("k", "a"));
        gate.arrival().await;
        // The first question was the old one's.
        let said = [Reconciled::Unknown, Reconciled::Unknown, found("of the new one")];
        let new = asking(store.reopen(), asked.says(said));
        let new = old.behind(new, |number| async move { format!("effect {number}") });
        new.post("k", "a").await.assert_refusal(409, "outcome-unknown", true, None);
        gate.open();
        retry.await.unwrap().assert_refusal(503, "store-unavailable", true, Some("1"));
        assert_eq!((new.post("k", "a").await.text(), asked.times(), new.effects()), ("of the new one", 3, 0));
        let fences: Vec<_> = asked.questions().iter().map(|question| question.fence).collect();
        assert!(fences.is_sorted_by(|one, next| one < next), "{fences:?}");
    }
}

/// The ways to say nothing at all.
fn silences() -> [(&'static str, Reconciler<Response<Bytes>>); 3] {
    let panics = |_: InterruptedRun| -> futures_util::future::Ready<Verdict> { panic!("on purpose") };
    let panics_later = |_: InterruptedRun| async {
        tokio::task::yield_now().await;
        panic!("on purpose")
    };
    let hangs = Reconciler::new(|_: InterruptedRun| pending());
    [("panics", Reconciler::new(panics)), ("panics later", Reconciler::new(panics_later)), ("hangs", hangs)]
}

#[tokio::test(start_paused = true)]
async fn trap_74_an_application_that_panics_or_hangs_does_not_know() {
    for (how, reconciler) in silences() {
        let (store, asked) = (TestStore::new(), Asked::default());
        cut_short(&store, "k").await;
        let layer = asking(store.clone(), reconciler);
        let lab = Lab::counting(layer.clone());
        let began = Instant::now();
        for _ in 0..2 {
            lab.post("k", "a").await.assert_refusal(409, "outcome-unknown", true, None);
        }
        let sum = layer.reconcile_all().await.unwrap();
        assert_eq!(began.elapsed().as_secs(), if how == "hangs" { 30 } else { 0 }, "{how}: of the paused clock");
        assert_eq!((counted(sum), layer.counts().live, lab.effects()), ((0, 0, 1), 0, 0), "{how}");
        let lab = Lab::counting(asking(store, asked.says([found("charged")])));
        assert_eq!((lab.post("k", "a").await.text(), asked.times()), ("charged", 1), "{how}");
    }
}

// `reconcile_all`

fn counted(sum: Reconciliation) -> (usize, usize, usize) {
    let Reconciliation { settled, run_again, unknown, .. } = sum;
    (settled, run_again, unknown)
}

const ONE_OF_EACH: [&str; 3] = ["found", "to-run-again", "unknown"];

/// Knows of each operation what its key says.
fn by_key(run: InterruptedRun) -> Verdict {
    let verdicts = [found("charged"), Reconciled::RunAgain, Reconciled::Unknown];
    let key = ONE_OF_EACH.iter().position(|key| id(key) == run.id).expect("one of these");
    verdicts[key].clone()
}

async fn all_are_settled_that_can_be<St: Store + Clone>(store: St) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let reconciler = Reconciler::new(move |run| {
        count.fetch_add(1, Ordering::SeqCst);
        std::future::ready(by_key(run))
    });
    let layer = asking(store, reconciler);
    let lab = Lab::counting(layer.clone());
    assert_eq!(lab.post("done", "a").await.text(), "effect 1");
    for times in [3, 5] {
        let sum = layer.reconcile_all().await.unwrap();
        let settled = usize::from(times == 3);
        assert_eq!((counted(sum), asked.load(Ordering::SeqCst)), ((settled, 1, 1), times));
    }
    let left: Vec<_> = layer.interrupted(9).await.unwrap().iter().map(|record| record.id).collect();
    assert!(left.len() == 2 && left.contains(&id("to-run-again")) && left.contains(&id("unknown")), "{left:?}");
    let counts = layer.counts();
    assert_eq!((counts.reconciled, counts.runs, counts.live, lab.effects()), (1, 1, 0, 1), "nothing runs by itself");
    // Then the clients come.
    let retry = lab.post("found", "a").await;
    assert_eq!((retry.text(), retry.is_replay(), asked.load(Ordering::SeqCst)), ("charged", true, 5));
    for replayed in [false, true] {
        let retry = lab.post("to-run-again", "a").await;
        assert_eq!((retry.text(), retry.is_replay(), asked.load(Ordering::SeqCst)), ("effect 2", replayed, 6));
    }
    lab.post("unknown", "a").await.assert_refusal(409, "outcome-unknown", true, None);
}

#[tokio::test]
async fn what_a_dead_process_left_is_settled_without_its_clients() {
    let store = TestStore::new();
    join_all(ONE_OF_EACH.map(|key| cut_short(&store, key))).await;
    all_are_settled_that_can_be(store.reopen()).await;
    let (directory, store) = on_disk(SledStore::builder());
    join_all(ONE_OF_EACH.map(|key| cut_short(&store, key))).await;
    store.close().await.unwrap();
    all_are_settled_that_can_be(SledStore::open(directory.path()).unwrap()).await;
}

#[tokio::test]
async fn a_consumer_settles_what_a_dead_process_left_without_redeliveries() {
    let (store, asked) = (TestStore::new(), Asked::default());
    cut_short(&store, "k").await;
    let reconciler = asked.says([Reconciled::Outcome(Bytes::from("it was sent"))]);
    let once = Once::new(store.reopen()).on_interrupted(OnInterrupted::Reconcile(reconciler));
    assert_eq!(counted(once.reconcile_all().await.unwrap()), (1, 0, 0));
    assert_eq!(counted(once.reconcile_all().await.unwrap()), (0, 0, 0));
    assert_eq!((once.interrupted(9).await.unwrap().len(), once.counts().reconciled, asked.times()), (0, 1, 1));
}

#[tokio::test]
async fn under_another_policy_nobody_is_asked_and_nothing_is_even_listed() {
    for policy in [OnInterrupted::Refuse, OnInterrupted::Rerun] {
        let store = TestStore::new();
        cut_short(&store, "k").await;
        let layer = IdempotencyLayer::new(store.clone()).on_interrupted(policy);
        store.fail_next(Verb::Interrupted);
        assert_eq!(counted(layer.reconcile_all().await.unwrap()), (0, 0, 0));
        layer.interrupted(9).await.unwrap_err();
        assert_eq!(layer.interrupted(9).await.unwrap().len(), 1);
    }
}

#[tokio::test]
async fn what_a_retry_is_asking_about_just_now_is_left_to_it() {
    let (store, gate, asked) = (TestStore::new(), Gate::default(), Asked::default());
    join_all(["asked", "other"].map(|key| cut_short(&store, key))).await;
    let layer = asking(store.clone(), asked.says_behind(&gate, [found("charged")]));
    let lab = Lab::counting(layer);
    let retry = lab.spawn(post("asked", "a"));
    gate.arrival().await;
    let other = Asked::default();
    let sweep = asking(store, other.says([found("charged by another name")]));
    assert_eq!(counted(sweep.reconcile_all().await.unwrap()), (1, 0, 0));
    assert_eq!(other.questions()[0].id, id("other"));
    gate.open();
    assert_eq!((retry.await.unwrap().text(), asked.times(), other.times()), ("charged", 1, 1));
}

#[tokio::test]
async fn a_retry_of_what_is_asked_about_without_a_client_shares_the_question() {
    for (verdict, status) in [(found("charged"), 201), (Reconciled::Unknown, 409), (Reconciled::RunAgain, 409)] {
        let (store, gate, asked) = (TestStore::new(), Gate::default(), Asked::default());
        cut_short(&store, "k").await;
        let layer = patient(store, asked.says_behind(&gate, [verdict]));
        let lab = Lab::counting(layer.clone());
        let sweep = tokio::spawn(async move { layer.reconcile_all().await.unwrap() });
        gate.arrival().await;
        let retry = lab.spawn(post("k", "a"));
        lab.post("k", "b").await.assert_refusal(422, "key-reused", false, None);
        gate.open();
        let retry = retry.await.unwrap();
        assert_eq!((retry.status.as_u16(), asked.times(), lab.effects()), (status, 1, 0), "{retry:?}");
        assert!(retry.status != 409 || retry.json()["retry_with_same_key"] == true);
        sweep.await.unwrap();
    }
}

/// Forty operations that were cut short, and a layer whose questions about them wait at a gate.
async fn forty() -> (IdempotencyLayer<TestStore>, Gate, Asked) {
    let (store, gate, asked) = (TestStore::new(), Gate::default(), Asked::default());
    for number in 0..40 {
        cut_short(&store, &format!("k{number}")).await;
    }
    (asking(store, asked.says_behind(&gate, [found("charged")])), gate, asked)
}

/// The same, while all of them are asked about: as many questions wait as may at a time.
async fn forty_asked() -> (IdempotencyLayer<TestStore>, Gate, Asked, JoinHandle<Reconciliation>) {
    let (layer, gate, asked) = forty().await;
    let sweep = tokio::spawn({
        let layer = layer.clone();
        async move { layer.reconcile_all().await.unwrap() }
    });
    gate.arrival().await;
    settle().await;
    (layer, gate, asked, sweep)
}

#[tokio::test]
async fn an_application_is_asked_sixteen_questions_at_a_time_and_in_the_end_all() {
    let (layer, gate, asked, sweep) = forty_asked().await;
    assert_eq!((asked.times(), layer.counts().live), (16, 16));
    gate.open();
    assert_eq!(counted(sweep.await.unwrap()), (40, 0, 0));
    assert_eq!((asked.times(), layer.interrupted(99).await.unwrap().len()), (40, 0));
}

#[tokio::test]
async fn questions_whose_asker_goes_away_are_seen_through_and_no_more_are_asked() {
    let (layer, gate, asked) = forty().await;
    let mut sweep = Box::pin(layer.reconcile_all());
    assert!((&mut sweep).now_or_never().is_none());
    gate.arrival().await;
    settle().await;
    drop(sweep);
    gate.open();
    assert_eq!(layer.drain(SECOND * 60).await.runs, 0);
    assert_eq!((asked.times(), layer.counts().reconciled, layer.interrupted(99).await.unwrap().len()), (16, 16, 24));
}

// While the process is shutting down.

#[tokio::test]
async fn while_draining_nobody_is_asked_and_nothing_is_lost() {
    let (store, asked) = (TestStore::new(), Asked::default());
    cut_short(&store, "k").await;
    let layer = asking(store.clone(), asked.says([found("charged")]));
    let lab = Lab::counting(layer.clone());
    lab.post("done", "a").await;
    assert_eq!(layer.drain(SECOND).await.runs, 0);
    lab.post("k", "a").await.assert_refusal(503, "shutting-down", true, Some("1"));
    lab.post("k", "b").await.assert_refusal(422, "key-reused", false, None);
    assert!(lab.post("done", "a").await.is_replay());
    assert_eq!(counted(layer.reconcile_all().await.unwrap()), (0, 0, 1));
    assert_eq!((asked.times(), lab.effects()), (0, 1));
    let next = Lab::counting(asking(store.reopen(), asked.says([found("charged")])));
    assert_eq!((next.post("k", "a").await.text(), asked.times()), ("charged", 1));
}

#[tokio::test]
async fn draining_waits_for_the_questions_that_are_open_and_asks_no_more() {
    let (layer, gate, asked, sweep) = forty_asked().await;
    let mut drained = Box::pin(layer.drain(SECOND * 60));
    assert!((&mut drained).now_or_never().is_none());
    gate.open();
    assert!(drained.await.is_complete());
    assert_eq!(counted(sweep.await.unwrap()), (16, 0, 24));
    assert_eq!((asked.times(), layer.counts().reconciled), (16, 16));
}

//! However many requests come at once, the application gets one question about an operation, and only its answer to
//! that question counts.

use std::future::pending;

use bytes::Bytes;
use futures_util::future::join_all;
use http::Response;
use http_body_util::Full;
use testkit::lab::asked::{Asked, Verdict, asking, counted, found, leave_interrupted, patient};
use testkit::lab::operator::Operated as _;
use testkit::lab::steps::{Steps as _, wish};
use testkit::lab::time::SECOND;
use testkit::lab::{Lab, id, on_disk, post, settle};
use testkit::{Answer, Gate};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tower_idempotency::engine::{Reconciled, Reconciler};
use tower_idempotency::internals::{Records as _, Reply, Resolution::Release};
use tower_idempotency::store::InterruptedRun;
use tower_idempotency::store::Store;
use tower_idempotency::test_util::TestStore;
use tower_idempotency::{MemoryStore, SledStore};

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
        leave_interrupted(&store, "k").await;
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
    leave_interrupted(&store, "k").await;
    let lab = Lab::counting(patient(store, asked.says_behind(&gate, [Reconciled::StillUnknown])));
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
        leave_interrupted(&store, &key).await;
        // An operator's sweep comes between.
        let (answers, _) = tokio::join!(join_all((0..6).map(|_| lab.spawn(post(&key, "a")))), layer.reconcile_all());
        assert!(answers.into_iter().all(|answer| answer.unwrap().text() == "charged"));
        assert_eq!((asked.times(), lab.effects()), (round, 0), "one question a key");
    }
    assert_eq!(layer.stats().reconciled, rounds as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn trap_74_retries_that_race_for_the_question_ask_once() {
    racing_retries(MemoryStore::new(), 200).await;
    racing_retries(TestStore::new(), 200).await;
    let (_directory, store) = on_disk(SledStore::builder());
    racing_retries(store, 30).await;
    #[cfg(feature = "fjall")]
    {
        let (_directory, store) = on_disk(tower_idempotency::FjallStore::builder());
        racing_retries(store, 30).await;
    }
}

#[tokio::test(start_paused = true)]
async fn trap_74_a_verdict_after_its_timeout_counts_for_nothing() {
    for verdict in [found("too late"), Reconciled::RunAgain] {
        let (store, gate, asked) = (TestStore::new(), Gate::default(), Asked::default());
        leave_interrupted(&store, "k").await;
        let reconciler = asked.says_behind(&gate, [verdict, found("in time")]).timeout(SECOND);
        let layer = asking(store.clone(), reconciler);
        let lab = Lab::counting(layer.clone());
        let began = Instant::now();
        lab.post("k", "a").await.assert_refusal(409, "outcome-unknown", true, None);
        assert_eq!(began.elapsed().as_secs(), 1, "of the paused clock");
        let left = store.load(id("k")).await.unwrap();
        gate.open();
        settle().await;
        assert_eq!(store.load(id("k")).await.unwrap(), left, "its answer is not used");
        assert_eq!((layer.stats().live, layer.interrupted(9).await.unwrap().len()), (0, 1));
        assert_eq!((lab.post("k", "a").await.text(), asked.times(), lab.effects()), ("in time", 2, 0));
    }
}

#[tokio::test]
async fn trap_74_what_was_said_to_an_earlier_question_changes_nothing_once_another_is_open() {
    let (store, gate, asked) = (TestStore::new(), Gate::default(), Asked::default());
    let run = leave_interrupted(&store, "k").await;
    let ask_once = asking(store.clone(), asked.says([Reconciled::StillUnknown]));
    Lab::counting(ask_once).post("k", "a").await.assert_refusal(409, "outcome-unknown", true, None);
    let earlier = asked.questions()[0].fence;
    let lab = Lab::counting(asking(store.clone(), asked.says_behind(&gate, [found("charged")])));
    let retry = lab.spawn(post("k", "a"));
    gate.arrival().await;
    for fence in [run.fence, earlier] {
        assert_eq!(store.settle(id("k"), fence, Release).await.unwrap(), Reply::Refused);
        assert_eq!(store.reclaim(wish("k"), fence).await.unwrap(), None);
    }
    gate.open();
    assert_eq!(retry.await.unwrap().text(), "charged");
}

#[tokio::test]
async fn trap_74_a_verdict_changes_nothing_once_another_process_has_asked() {
    for verdict in [found("charged"), Reconciled::RunAgain] {
        let (store, gate, asked) = (TestStore::new(), Gate::default(), Asked::default());
        leave_interrupted(&store, "k").await;
        let lab = Lab::counting(asking(store.clone(), asked.says_behind(&gate, [verdict])));
        let retry = lab.spawn(post("k", "a"));
        gate.arrival().await;
        // Another process that takes this one for dead does this.
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
        leave_interrupted(&store, "k").await;
        let old = Lab::counting(asking(store.clone(), asked.says_behind(&gate, [verdict])));
        let retry = old.spawn(post("k", "a"));
        gate.arrival().await;
        // The first question was the old one's.
        let said = [Reconciled::StillUnknown, Reconciled::StillUnknown, found("of the new one")];
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
fn silences() -> [(&'static str, Reconciler<Response<Full<Bytes>>>); 3] {
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
        leave_interrupted(&store, "k").await;
        let layer = asking(store.clone(), reconciler);
        let lab = Lab::counting(layer.clone());
        let began = Instant::now();
        for _ in 0..2 {
            lab.post("k", "a").await.assert_refusal(409, "outcome-unknown", true, None);
        }
        let sum = layer.reconcile_all().await.unwrap();
        assert_eq!(began.elapsed().as_secs(), if how == "hangs" { 30 } else { 0 }, "{how}: of the paused clock");
        assert_eq!((counted(sum), layer.stats().live, lab.effects()), ((0, 0, 1), 0, 0), "{how}");
        let lab = Lab::counting(asking(store, asked.says([found("charged")])));
        assert_eq!((lab.post("k", "a").await.text(), asked.times()), ("charged", 1), "{how}");
    }
}

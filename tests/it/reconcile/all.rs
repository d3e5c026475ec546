//! The operations that a dead process left are settled without its clients: each one once, a limited number at a time,
//! and none is lost while the process shuts down.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::FutureExt as _;
use futures_util::future::join_all;
use testkit::lab::asked::{Asked, Verdict, asking, counted, found, leave_interrupted, patient};
use testkit::lab::disk::Disk;
use testkit::lab::operator::Operated as _;
use testkit::lab::time::{DAY, NOON, SECOND};
use testkit::lab::{Lab, id, on_disk, post, settle};
use testkit::log::Log;
use testkit::{Gate, on_both};
use tokio::task::JoinHandle;
use tower_idempotency::engine::{Reconciled, Reconciler};
use tower_idempotency::operations::{Action, Applied, Reconciliation};
use tower_idempotency::store::InterruptedRun;
use tower_idempotency::store::Store;
use tower_idempotency::test_util::{ManualClock, StoreCall, TestStore};
use tower_idempotency::{IdempotencyLayer, OnInterrupted, Once};
use tracing::Level;

const ONE_OF_EACH: [&str; 3] = ["found", "to-run-again", "unknown"];

/// A verdict for each operation by its key.
fn by_key(run: InterruptedRun) -> Verdict {
    let verdicts = [found("charged"), Reconciled::RunAgain, Reconciled::StillUnknown];
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
    let counts = layer.stats();
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
    join_all(ONE_OF_EACH.map(|key| leave_interrupted(&store, key))).await;
    all_are_settled_that_can_be(store.reopen()).await;
}

on_both!(on_disk_too_what_a_dead_process_left_is_settled_without_its_clients);
async fn on_disk_too_what_a_dead_process_left_is_settled_without_its_clients<D: Disk>() {
    let (directory, store) = on_disk(D::builder());
    join_all(ONE_OF_EACH.map(|key| leave_interrupted(&store, key))).await;
    store.close().await.unwrap();
    all_are_settled_that_can_be(D::open(directory.path()).unwrap()).await;
}

#[tokio::test]
async fn each_question_leaves_an_audit_event_that_names_who_asked() {
    let store = TestStore::new();
    join_all(ONE_OF_EACH.map(|key| leave_interrupted(&store, key))).await;
    let layer = asking(store.reopen(), Reconciler::new(|run| std::future::ready(by_key(run))));
    let log = Log::begin(Level::INFO);
    let sum = layer.operations().by("startup").reconcile_all().await.unwrap();
    assert_eq!(counted(sum), (1, 1, 1));
    let mut events: Vec<_> = log.lines().into_iter().filter(|line| line.contains("::audit")).collect();
    events.sort_by_key(|line| line.split("result=").nth(1).map(str::to_owned));
    for (event, result) in events.iter().zip(["done", "runs-again", "still-unknown"]) {
        let said = format!("result=\"{result}\"");
        let parts = ["actor=\"startup\"", "action=\"reconcile\"", "record_id=", "fence=", &said];
        assert!(parts.iter().all(|part| event.contains(part)), "{event}");
    }
    assert_eq!(events.len(), 3, "{events:?}");
}

#[tokio::test]
async fn a_consumer_settles_what_a_dead_process_left_without_redeliveries() {
    let (store, asked) = (TestStore::new(), Asked::default());
    leave_interrupted(&store, "k").await;
    let reconciler = asked.says([Reconciled::Outcome("it was sent".to_owned())]);
    let once = Once::new(store.reopen()).reconcile_with(reconciler);
    assert_eq!(counted(once.reconcile_all().await.unwrap()), (1, 0, 0));
    assert_eq!(counted(once.reconcile_all().await.unwrap()), (0, 0, 0));
    assert_eq!((once.interrupted(9).await.unwrap().len(), once.stats().reconciled, asked.times()), (0, 1, 1));
}

#[tokio::test]
async fn under_another_policy_nobody_is_asked_and_nothing_is_even_listed() {
    for policy in [OnInterrupted::Refuse, OnInterrupted::Rerun] {
        let store = TestStore::new();
        leave_interrupted(&store, "k").await;
        let layer = IdempotencyLayer::new(store.clone()).on_interrupted(policy);
        store.fail_next(StoreCall::List);
        assert_eq!(counted(layer.reconcile_all().await.unwrap()), (0, 0, 0));
        layer.interrupted(9).await.unwrap_err();
        assert_eq!(layer.interrupted(9).await.unwrap().len(), 1);
    }
}

#[tokio::test]
async fn what_a_retry_is_asking_about_just_now_is_left_to_it() {
    let (store, gate, asked) = (TestStore::new(), Gate::default(), Asked::default());
    join_all(["asked", "other"].map(|key| leave_interrupted(&store, key))).await;
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
    for (verdict, status) in [(found("charged"), 201), (Reconciled::StillUnknown, 409), (Reconciled::RunAgain, 409)] {
        let (store, gate, asked) = (TestStore::new(), Gate::default(), Asked::default());
        leave_interrupted(&store, "k").await;
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

/// Forty interrupted operations, and a layer whose questions about them wait at a gate.
async fn forty() -> (IdempotencyLayer<TestStore>, Gate, Asked) {
    let (store, gate, asked) = (TestStore::new(), Gate::default(), Asked::default());
    for number in 0..40 {
        leave_interrupted(&store, &format!("k{number}")).await;
    }
    (asking(store, asked.says_behind(&gate, [found("charged")])), gate, asked)
}

/// The same, while all of them are asked about: the greatest possible number of questions waits.
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
    assert_eq!((asked.times(), layer.stats().live), (16, 16));
    gate.open();
    assert_eq!(counted(sweep.await.unwrap()), (40, 0, 0));
    assert_eq!((asked.times(), layer.interrupted(99).await.unwrap().len()), (40, 0));
}

// Seeded fault: an operation is asked about only under the fence with which it was listed.
#[tokio::test]
async fn an_operation_that_a_retry_has_asked_about_meanwhile_is_asked_about_again() {
    let (layer, gate, asked, sweep) = forty_asked().await;
    let last = layer.interrupted(99).await.unwrap().pop().unwrap();
    let other = asking(layer.operations().store().clone(), Asked::default().says([Reconciled::StillUnknown]));
    let meanwhile = other.resolve(last.id, last.fence, Action::Reconcile).await.unwrap();
    assert_eq!(meanwhile, Applied::StillUnknown);
    gate.open();
    assert_eq!((counted(sweep.await.unwrap()), asked.times()), ((40, 0, 0), 40));
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
    assert_eq!((asked.times(), layer.stats().reconciled, layer.interrupted(99).await.unwrap().len()), (16, 16, 24));
}

// While the process is shutting down.

#[tokio::test]
async fn while_draining_nobody_is_asked_and_nothing_is_lost() {
    let (store, asked) = (TestStore::new(), Asked::default());
    leave_interrupted(&store, "k").await;
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
    assert_eq!((asked.times(), layer.stats().reconciled), (16, 16));
}

#[tokio::test(start_paused = true)]
async fn a_retry_does_not_wait_for_ever_for_the_look_up_of_reconcile_all() {
    let (store, asked) = (TestStore::new(), Asked::default());
    leave_interrupted(&store, "k").await;
    let layer = asking(store.clone(), asked.says([found("charged")]));
    let lab = Lab::counting(layer.clone());
    let _stall = store.stall(StoreCall::Load);
    tokio::spawn(async move { layer.reconcile_all().await });
    settle().await;
    let retry = tokio::time::timeout(DAY, lab.post("k", "a")).await;
    assert!(retry.is_ok(), "no answer within a day");
}

#[tokio::test(start_paused = true)]
async fn reconcile_all_itself_ends_while_the_store_stalls() {
    for call in [StoreCall::Load, StoreCall::Resolve] {
        let (store, asked) = (TestStore::new(), Asked::default());
        leave_interrupted(&store, "k").await;
        let layer = asking(store.clone(), asked.says([found("charged")]));
        let _stall = store.stall(call);
        let sum = tokio::time::timeout(DAY, layer.reconcile_all()).await;
        assert!(sum.is_ok(), "{call:?}");
    }
}

/// Operations that expire between the listing and their question count as unknown.
#[tokio::test]
async fn what_is_no_longer_there_is_not_counted() {
    let (asked, clock, gate) = (Asked::default(), ManualClock::new(NOON), Gate::default());
    let store = TestStore::with_clock(clock.clone());
    for number in 0..20 {
        leave_interrupted(&store, &format!("k{number}")).await;
    }
    let layer = asking(store, asked.says_behind(&gate, [Reconciled::StillUnknown]));
    let sweep = tokio::spawn(async move { layer.reconcile_all().await.unwrap() });
    gate.arrival().await;
    settle().await;
    clock.advance(DAY);
    gate.open();
    let sum = sweep.await.unwrap();
    assert_eq!((sum.unknown, asked.times()), (16, 16));
}

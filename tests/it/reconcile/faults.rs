//! Questions about interrupted operations, and their faults: the store fails before, while and after the application is
//! asked; clients, processes and runtimes go away meanwhile.

use testkit::lab::asked::{Asked, Verdict, asking, counted, found, leave_interrupted};
use testkit::lab::disk::Disk;
use testkit::lab::listed::interrupted;
use testkit::lab::operator::Operated as _;
use testkit::lab::time::{DAY, NOON, SECOND};
use testkit::lab::{Lab, id, on_disk, post, settle};
use testkit::{Gate, on_both};
use tower_idempotency::IdempotencyLayer;
use tower_idempotency::engine::{Reconciled, Reconciler};
use tower_idempotency::internals::{Records as _, State};
use tower_idempotency::operations::OperationRecord;
use tower_idempotency::store::{InterruptedRun, Store};
use tower_idempotency::test_util::{ManualClock, Stall, StoreCall, TestStore};

/// The fault of the store's next call.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    Fails,
    LosesAnswer,
    Stalls,
}

const FAULTS: [Fault; 3] = [Fault::Fails, Fault::LosesAnswer, Fault::Stalls];

impl Fault {
    fn strike(self, store: &TestStore, call: StoreCall) -> Option<Stall> {
        match self {
            Self::Fails => store.fail_next(call),
            Self::LosesAnswer => store.lose_answer(call),
            Self::Stalls => return Some(store.stall(call)),
        }
        None
    }
}

/// One operation that was interrupted, a layer that asks about it, and a handler that counts.
struct Scene {
    store: TestStore,
    asked: Asked,
    layer: IdempotencyLayer<TestStore>,
    lab: Lab,
}

impl Scene {
    async fn new(said: impl Into<Vec<Verdict>>) -> Self {
        let (store, asked) = (TestStore::new(), Asked::default());
        leave_interrupted(&store, "k").await;
        let layer = asking(store.clone(), asked.says(said));
        Self { lab: Lab::counting(layer.clone()), store, asked, layer }
    }

    /// The same, where handlers run without protection while the store is away.
    async fn open(said: impl Into<Vec<Verdict>>) -> Self {
        let mut scene = Self::new(said).await;
        scene.layer = scene.layer.fail_open(true);
        scene.lab = Lab::counting(scene.layer.clone());
        scene
    }

    async fn refused_as_unavailable(&self) {
        self.lab.post("k", "a").await.assert_refusal(503, "store-unavailable", true, Some("1"));
    }

    /// Lets the store go on, and all calls that wait for it.
    async fn recovers(&self, stall: Option<Stall>) {
        drop(stall);
        settle().await;
        assert_eq!(self.layer.stats().live, 0, "no slot is left");
    }

    async fn left(&self) -> OperationRecord {
        self.layer.interrupted(9).await.unwrap().remove(0)
    }

    fn happened(&self) -> (usize, usize) {
        (self.asked.times(), self.lab.effects())
    }
}

// The store fails.

#[tokio::test(start_paused = true)]
async fn a_question_that_the_store_fails_before_is_not_asked_and_a_later_retry_asks_it() {
    for fault in FAULTS {
        let scene = Scene::new([found("charged")]).await;
        let before = scene.left().await;
        let stall = fault.strike(&scene.store, StoreCall::Inquire);
        scene.refused_as_unavailable().await;
        assert_eq!(scene.happened(), (0, 0), "{fault:?}");
        scene.recovers(stall).await;
        let mut after = scene.left().await;
        let newest = std::mem::replace(&mut after.fence, before.fence);
        assert_eq!(after, before, "{fault:?}");
        assert_eq!(newest > before.fence, fault != Fault::Fails, "{fault:?}: a fence without a question");
        assert_eq!(scene.lab.post("k", "a").await.text(), "charged", "{fault:?}");
        assert!(scene.asked.questions()[0].fence > newest);
        assert_eq!(scene.happened(), (1, 0), "{fault:?}");
    }
}

#[tokio::test]
async fn a_verdict_that_the_store_fails_to_record_is_told_to_nobody_and_asked_for_again() {
    let scene = Scene::new([found("charged"), found("charged, found again")]).await;
    (0..3).for_each(|_| scene.store.fail_next(StoreCall::Resolve));
    scene.refused_as_unavailable().await;
    assert_eq!((scene.happened(), scene.layer.stats().reconciled), ((1, 0), 0));
    assert_eq!(scene.left().await.fence, scene.asked.questions()[0].fence);
    assert_eq!(scene.lab.post("k", "a").await.text(), "charged, found again");
    assert_eq!((scene.happened(), scene.layer.stats().reconciled), ((2, 0), 1));
}

#[tokio::test]
async fn a_verdict_whose_record_was_not_acknowledged_is_sent_again_and_never_changes() {
    let scene = Scene::new([found("charged"), found("something else")]).await;
    scene.store.lose_answer(StoreCall::Resolve);
    for _ in 0..2 {
        assert_eq!(scene.lab.post("k", "a").await.text(), "charged");
    }
    assert_eq!(scene.layer.stats().reconciled, 1);
    let restarted = Lab::counting(IdempotencyLayer::new(scene.store.reopen()));
    assert_eq!(restarted.post("k", "a").await.text(), "charged");
    assert_eq!(scene.happened(), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_verdict_that_can_be_seen_but_was_never_acknowledged_is_told_to_nobody_until_it_is() {
    let scene = Scene::new([found("charged"), found("something else")]).await;
    (0..4).for_each(|_| scene.store.lose_answer(StoreCall::Resolve));
    scene.refused_as_unavailable().await;
    let record = scene.store.load(id("k")).await.unwrap().unwrap();
    assert!(matches!(record.state, State::Completed { .. }), "{record:?}");
    // It may not be durable.
    scene.refused_as_unavailable().await;
    // Longer than it takes the store to be asked again, twice.
    tokio::time::sleep(10 * SECOND).await;
    let retry = scene.lab.post("k", "a").await;
    assert_eq!((retry.text(), retry.is_replay(), scene.happened()), ("charged", true, (1, 0)));
}

#[tokio::test(start_paused = true)]
async fn a_verdict_that_the_store_takes_too_long_to_record_is_recorded_when_it_is_back() {
    let scene = Scene::new([found("charged"), found("something else")]).await;
    let stall = scene.store.stall(StoreCall::Resolve);
    for _ in 0..2 {
        scene.refused_as_unavailable().await;
    }
    assert_eq!(scene.layer.stats().live, 1, "the slot is held");
    scene.recovers(Some(stall)).await;
    let retry = scene.lab.post("k", "a").await;
    assert_eq!((retry.text(), retry.is_replay(), scene.happened()), ("charged", true, (1, 0)));
    assert_eq!(scene.layer.stats().reconciled, 1);
}

#[tokio::test(start_paused = true)]
async fn what_may_run_again_does_not_where_the_store_fails_to_take_it_over_and_is_asked_about_again() {
    for fault in [Fault::Fails, Fault::Stalls] {
        let scene = Scene::new([Reconciled::RunAgain]).await;
        let stall = fault.strike(&scene.store, StoreCall::Reclaim);
        scene.refused_as_unavailable().await;
        assert_eq!(scene.happened(), (1, 0), "{fault:?}");
        scene.recovers(stall).await;
        assert_eq!(scene.layer.interrupted(9).await.unwrap().len(), 1, "{fault:?}");
        for replayed in [false, true] {
            let retry = scene.lab.post("k", "a").await;
            assert_eq!((retry.text(), retry.is_replay()), ("effect 1", replayed), "{fault:?}");
        }
        assert_eq!(scene.happened(), (2, 1), "{fault:?}");
    }
}

#[tokio::test]
async fn a_take_over_of_which_nobody_learns_runs_nothing_and_is_asked_about_again() {
    let scene = Scene::new([Reconciled::RunAgain]).await;
    scene.store.lose_answer(StoreCall::Reclaim);
    scene.refused_as_unavailable().await;
    assert_eq!(scene.happened(), (1, 0));
    assert_eq!(scene.lab.post("k", "a").await.text(), "effect 1");
    assert_eq!(scene.happened(), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn fail_open_never_runs_what_was_interrupted_because_nobody_could_be_asked() {
    for fault in FAULTS {
        let scene = Scene::open([found("charged")]).await;
        let stall = fault.strike(&scene.store, StoreCall::Inquire);
        scene.refused_as_unavailable().await;
        scene.recovers(stall).await;
        assert_eq!(scene.lab.post("k", "a").await.text(), "charged", "{fault:?}");
        assert_eq!((scene.happened(), scene.layer.stats().fail_open_runs), ((1, 0), 0), "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn fail_open_runs_nothing_for_what_the_application_found_or_does_not_know() {
    for fault in FAULTS {
        let scene = Scene::open([found("charged")]).await;
        let stall = fault.strike(&scene.store, StoreCall::Resolve);
        scene.lab.post("k", "a").await;
        scene.recovers(stall).await;
        assert_eq!(scene.lab.post("k", "a").await.text(), "charged", "{fault:?}");
        assert_eq!((scene.lab.effects(), scene.layer.stats().fail_open_runs), (0, 0), "{fault:?}");
    }
    let scene = Scene::open([Reconciled::StillUnknown]).await;
    scene.lab.post("k", "a").await.assert_refusal(409, "outcome-unknown", true, None);
    assert_eq!((scene.happened(), scene.layer.stats().fail_open_runs), ((1, 0), 0));
}

#[tokio::test]
async fn operations_whose_own_records_fail_are_left_and_the_others_settled() {
    for (call, times) in [(StoreCall::Load, 2), (StoreCall::Inquire, 2)] {
        let scene = Scene::new([found("charged")]).await;
        leave_interrupted(&scene.store, "k2").await;
        leave_interrupted(&scene.store, "k3").await;
        scene.store.fail_next(call);
        assert_eq!(counted(scene.layer.reconcile_all().await.unwrap()), (2, 0, 1), "{call:?}");
        assert_eq!((scene.happened(), scene.layer.stats().live), ((times, 0), 0), "{call:?}");
        assert_eq!(counted(scene.layer.reconcile_all().await.unwrap()), (1, 0, 0), "{call:?}");
    }
    let scene = Scene::new([found("charged")]).await;
    (0..3).for_each(|_| scene.store.fail_next(StoreCall::Resolve));
    assert_eq!(counted(scene.layer.reconcile_all().await.unwrap()), (0, 0, 1), "it was told three times");
    assert_eq!(counted(scene.layer.reconcile_all().await.unwrap()), (1, 0, 0));
}

#[tokio::test]
async fn operations_that_cannot_be_listed_are_a_fault() {
    let scene = Scene::new([found("charged")]).await;
    scene.store.fail_next(StoreCall::List);
    scene.layer.reconcile_all().await.unwrap_err();
    assert_eq!(scene.happened(), (0, 0));
}

// A requester goes away.

#[tokio::test]
async fn a_question_whose_client_goes_away_is_seen_through_and_done_what_it_comes_to() {
    for (verdict, answer, effects) in [(found("charged"), "charged", 0), (Reconciled::RunAgain, "effect 1", 1)] {
        let (store, gate, asked) = (TestStore::new(), Gate::default(), Asked::default());
        leave_interrupted(&store, "k").await;
        let layer = asking(store.clone(), asked.says_behind(&gate, [verdict]));
        let lab = Lab::counting(layer.clone());
        let request = lab.spawn(post("k", "a"));
        gate.arrival().await;
        request.abort();
        assert!(request.await.unwrap_err().is_cancelled());
        assert_eq!(layer.stats().live, 1, "the question is open");
        gate.open();
        assert_eq!(layer.drain(SECOND * 60).await.runs, 0);
        let record = store.load(id("k")).await.unwrap().unwrap();
        assert!(matches!(record.state, State::Completed { .. }), "{record:?}");
        let restarted = Lab::counting(IdempotencyLayer::new(store.reopen()));
        let retry = restarted.post("k", "a").await;
        assert_eq!((retry.text(), retry.is_replay(), asked.times(), lab.effects()), (answer, true, 1, effects));
    }
}

/// A question is open, and a retry waits for it.
async fn question_is_open<St: Store + Clone>(store: &St, gate: &Gate, asked: &Asked) -> Lab {
    leave_interrupted(store, "k").await;
    let lab = Lab::counting(asking(store.clone(), asked.says_behind(gate, [found("charged")])));
    drop(lab.spawn(post("k", "a")));
    gate.arrival().await;
    lab
}

#[tokio::test]
async fn an_operation_whose_process_crashes_during_the_question_is_still_interrupted_and_asked_about_again() {
    let (store, gate, asked) = (TestStore::new(), Gate::default(), Asked::default());
    question_is_open(&store, &gate, &asked).await;
    let store = store.reopen();
    assert_eq!(interrupted(&store, 9).await.len(), 1);
    gate.open();
    let restarted = Lab::counting(asking(store, asked.says([found("charged")])));
    assert_eq!((restarted.post("k", "a").await.text(), asked.times(), restarted.effects()), ("charged", 2, 0));
}

on_both!(an_operation_whose_store_is_closed_during_the_question_is_still_interrupted_and_asked_about_again);
async fn an_operation_whose_store_is_closed_during_the_question_is_still_interrupted_and_asked_about_again<D: Disk>() {
    let (directory, store) = on_disk(D::builder());
    let (gate, asked) = (Gate::default(), Asked::default());
    let old = question_is_open(&store, &gate, &asked).await;
    store.close().await.unwrap();
    let store = D::open(directory.path()).unwrap();
    let restarted = Lab::counting(asking(store.clone(), asked.says([found("found by the next process")])));
    gate.open();
    old.post("k", "a").await.assert_refusal(503, "store-unavailable", true, Some("1"));
    assert_eq!(interrupted(&store, 9).await.len(), 1, "the old verdict came to nothing");
    assert_eq!((restarted.post("k", "a").await.text(), asked.times()), ("found by the next process", 2));
    assert!(asked.questions()[1].fence > asked.questions()[0].fence);
}

#[test]
fn a_question_whose_runtime_is_gone_leaves_no_stuck_key() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let (store, gate, asked) = (TestStore::new(), Gate::default(), Asked::default());
    let first = runtime();
    let lab = first.block_on(question_is_open(&store, &gate, &asked));
    let layer = asking(store.clone(), asked.says([found("charged")]));
    assert_eq!(layer.stats().live, 1);
    drop(first);
    assert_eq!(layer.stats().live, 0);
    let left = runtime().block_on(store.load(id("k"))).unwrap().unwrap();
    assert!(matches!(left.state, State::Interrupted { .. }), "{left:?}");
    gate.open();
    let retry = runtime().block_on(lab.post("k", "a"));
    assert_eq!((retry.text(), asked.times(), lab.effects()), ("charged", 2, 0));
}

#[tokio::test]
async fn a_question_that_a_hook_drops_leaves_no_stuck_key() {
    let scene = Scene::new([found("charged")]).await;
    let dropping = scene.layer.clone().wrap_run(|run| {
        drop(run);
        std::future::ready(())
    });
    assert_eq!(counted(dropping.reconcile_all().await.unwrap()), (0, 0, 1));
    Lab::counting(dropping).post("k", "a").await.assert_refusal(503, "store-unavailable", true, Some("1"));
    assert_eq!((scene.happened(), scene.layer.stats().live), ((0, 0), 0));
    assert_eq!((scene.lab.post("k", "a").await.text(), scene.happened()), ("charged", (1, 0)));
}

/// The look-up has shown that the operation was interrupted. Then the claim, if there is one, fails.
#[tokio::test]
async fn fail_open_does_not_run_what_was_just_seen_to_be_interrupted() {
    let asked = Asked::default();
    let reconciler = asked.says([found("charged")]);
    for (reconciler, status, slug) in [(None, 409, "outcome-unknown"), (Some(reconciler), 503, "store-unavailable")] {
        let store = TestStore::new();
        leave_interrupted(&store, "k").await;
        let asks = reconciler.is_some();
        let layer = IdempotencyLayer::new(store.clone()).fail_open(true);
        let layer = reconciler.into_iter().fold(layer, IdempotencyLayer::reconcile_with);
        let lab = Lab::counting(layer.clone());
        store.fail_next(StoreCall::Claim);
        assert_eq!(lab.post("k", "a").await.refusal(), (status, slug.to_owned()));
        assert_eq!((lab.effects(), layer.stats().fail_open_runs), (0, 0), "asks: {asks}");
    }
}

/// "Run it again", but the take-over fails: the store is known to hold an interrupted operation.
#[tokio::test]
async fn fail_open_does_not_run_unprotected_what_may_run_again() {
    let (store, asked) = (TestStore::new(), Asked::default());
    leave_interrupted(&store, "k").await;
    let layer = asking(store.clone(), asked.says([Reconciled::RunAgain])).fail_open(true);
    let lab = Lab::counting(layer.clone());
    store.fail_next(StoreCall::Reclaim);
    lab.post("k", "a").await.assert_refusal(503, "store-unavailable", true, Some("1"));
    assert_eq!(lab.post("k", "a").await.text(), "effect 1");
    assert_eq!((layer.stats().fail_open_runs, lab.effects()), (0, 1));
}

/// The store works; the operation expired while it was asked about.
#[tokio::test]
async fn fail_open_does_not_run_unprotected_while_the_store_works() {
    for fail_open in [false, true] {
        let clock = ManualClock::new(NOON);
        let store = TestStore::with_clock(clock.clone());
        leave_interrupted(&store, "k").await;
        let reconciler = Reconciler::new(move |_: InterruptedRun| {
            clock.advance(DAY);
            std::future::ready(Reconciled::RunAgain)
        });
        let layer = asking(store.clone(), reconciler).fail_open(fail_open);
        let lab = Lab::counting(layer.clone());
        assert_eq!(lab.post("k", "a").await.text(), "effect 1", "fail_open {fail_open}");
        assert_eq!(layer.stats().fail_open_runs, 0);
    }
}

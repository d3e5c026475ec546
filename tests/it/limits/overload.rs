//! When more is under way than there is room for: what is refused, what goes on, and what is given back.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _};
use http::StatusCode;
use http_body::Frame;
use http_body_util::StreamBody;
use testkit::lab::steps::{Claimed, Steps as _, Wish, wish};
use testkit::lab::time::HOUR;
use testkit::lab::{Lab, gated, hold, id, on_disk, post, settle};
use testkit::{Answer, Gate};
use tokio::sync::mpsc;
use tower_idempotency::Resolution;
use tower_idempotency::engine::{Counts, EffectError, OnceError, Resolved, RunContext};
use tower_idempotency::internals::{Fence, Records as _};
use tower_idempotency::store::{Abort, Health, Store as _, StoreError, TransactionTree};
use tower_idempotency::store::{CommitError, Page};
use tower_idempotency::test_util::{StoreCall, TestStore};
use tower_idempotency::{
    Fingerprint, IdempotencyLayer, MemoryStore, OnInFlight, OnInterrupted, Once, RejectionKind, SledStore,
};

pub(super) const KIB: usize = 1024;

pub(super) fn overloaded() -> (u16, String) {
    (503, "overloaded".to_owned())
}

/// An upload that goes on until `None` is sent.
pub(super) struct Upload {
    bytes: mpsc::UnboundedSender<Bytes>,
    answer: tokio::task::JoinHandle<Answer>,
}

impl Upload {
    fn begin(lab: &Lab, key: &str) -> Self {
        Self::begin_as(lab, |body| post(key, body))
    }

    /// Begins the upload of which `request` makes a request.
    pub(super) fn begin_as(lab: &Lab, request: impl FnOnce(Body) -> axum::extract::Request) -> Self {
        let (bytes, mut sent) = mpsc::unbounded_channel();
        let frames = futures_util::stream::poll_fn(move |cx| sent.poll_recv(cx))
            .map(|bytes| Ok::<_, std::io::Error>(Frame::data(bytes)));
        let body = Body::new(StreamBody::new(frames));
        Self { bytes, answer: lab.spawn(request(body)) }
    }

    /// Returns whether it was answered already.
    pub(super) fn is_over(&self) -> bool {
        self.answer.is_finished()
    }

    pub(super) async fn send(&self, bytes: usize) {
        let _ = self.bytes.send(vec![b'x'; bytes].into());
        settle().await;
    }

    pub(super) async fn end(self) -> Answer {
        drop(self.bytes);
        self.answer.await.unwrap()
    }
}

/// A request whose body, of 60 KiB, has come to its end.
async fn whole(lab: &Lab, key: &str) -> tokio::task::JoinHandle<Answer> {
    let upload = Upload::begin(lab, key);
    upload.send(60 * KIB).await;
    drop(upload.bytes);
    settle().await;
    upload.answer
}

#[tokio::test(start_paused = true)]
async fn max_runs_refuses_new_keys_and_neither_duplicates_nor_replays() {
    let gate = Gate::default();
    // Of four, one client has two.
    let layer = IdempotencyLayer::new(MemoryStore::new()).max_runs(4).on_in_flight(OnInFlight::Wait(HOUR));
    let done = Lab::counting(layer.clone());
    assert_eq!(done.post("done", "a").await.text(), "effect 1");
    let lab = gated(layer.clone(), &gate);
    let running = [lab.spawn(post("one", "a")), lab.spawn(post("two", "a"))];
    settle().await;
    assert_eq!(layer.counts().live, 2);
    let duplicate = lab.spawn(post("one", "a"));
    settle().await;
    lab.post("new", "a").await.assert_refusal(503, "overloaded", true, Some("2"));
    assert!(done.post("done", "a").await.is_replay());
    gate.open();
    for answer in running {
        assert_eq!(answer.await.unwrap().status, StatusCode::OK);
    }
    assert!(duplicate.await.unwrap().is_replay());
    assert_eq!(lab.post("new", "a").await.status, StatusCode::OK);
    assert_eq!(counted(&layer.counts()), 1);
}

#[tokio::test]
async fn at_max_runs_an_operation_whose_outcome_is_unknown_is_still_said_to_be_so() {
    let store = MemoryStore::new();
    let panics = Lab::new(IdempotencyLayer::new(store.clone()), |_| async { panic!("on purpose") as &str });
    assert_eq!(panics.post("k", "a").await.problem(), "outcome-unknown");
    let full = panics.behind(IdempotencyLayer::new(store).max_runs(0), |_| async { "again" });
    full.post("k", "a").await.assert_refusal(409, "outcome-unknown", false, None);
    full.post("k", "b").await.assert_refusal(422, "key-reused", false, None);
    full.post("new", "a").await.assert_refusal(503, "overloaded", true, Some("2"));
}

// A seeded fault: an operator needs a place among the runs.
#[tokio::test]
async fn at_max_runs_an_operator_settles_what_was_interrupted() {
    let store = MemoryStore::new();
    let panics = Lab::new(IdempotencyLayer::new(store.clone()), |_| async { panic!("on purpose") as &str });
    assert_eq!(panics.post("k", "a").await.problem(), "outcome-unknown");
    let full = IdempotencyLayer::new(store).max_runs(0);
    let listed = full.interrupted(9).await.unwrap()[0];
    let settled = full.resolve(listed.id, listed.fence, Resolution::Forget).await;
    assert_eq!(settled.unwrap(), Resolved::Settled);
    assert!(full.interrupted(9).await.unwrap().is_empty());
}

fn counted(counts: &Counts) -> u64 {
    counts.refused(RejectionKind::Overloaded)
}

#[tokio::test(start_paused = true)]
async fn fail_open_opens_nothing_that_is_overloaded() {
    let gate = Gate::default();
    let layer = IdempotencyLayer::new(MemoryStore::new()).max_runs(1).fail_open(true);
    let lab = gated(layer.clone(), &gate);
    let running = lab.spawn(post("one", "a"));
    gate.arrival().await;
    assert_eq!(lab.post("two", "a").await.refusal(), overloaded());
    gate.open();
    running.await.unwrap();
    assert_eq!(layer.counts().unprotected, 0);
}

#[tokio::test(start_paused = true)]
async fn bodies_that_are_read_are_bounded_in_sum_with_a_quarter_for_small_ones() {
    let layer = IdempotencyLayer::new(MemoryStore::new()).max_buffered(1024 * KIB);
    let lab = Lab::counting(layer);
    let large = Upload::begin(&lab, "large");
    large.send(700 * KIB).await;
    let other = Upload::begin(&lab, "other");
    other.send(100 * KIB).await;
    assert_eq!(other.end().await.refusal(), overloaded(), "three quarters are taken");
    let small = Upload::begin(&lab, "small");
    small.send(60 * KIB).await;
    assert_eq!(small.end().await.text(), "effect 1");
    assert_eq!(large.end().await.text(), "effect 2");
    // All of it was given back.
    let whole = Upload::begin(&lab, "whole");
    whole.send(768 * KIB).await;
    assert_eq!(whole.end().await.text(), "effect 3");
}

#[tokio::test(start_paused = true)]
async fn a_body_counts_until_its_run_takes_it_over_or_its_request_is_gone() {
    let gate = Gate::default();
    let layer = IdempotencyLayer::new(MemoryStore::new()).max_buffered(100 * KIB).on_in_flight(OnInFlight::Wait(HOUR));
    let lab = gated(layer.clone(), &gate);
    // Each run has taken its body over, and a duplicate that waits needs none.
    let under_way = [whole(&lab, "k").await, whole(&lab, "other").await, whole(&lab, "k").await];
    assert!(under_way.iter().all(|answer| !answer.is_finished()));
    assert_eq!(layer.counts().live, 2);
    let unfinished = Upload::begin(&lab, "unfinished");
    unfinished.send(60 * KIB).await;
    assert_eq!(whole(&lab, "new").await.await.unwrap().refusal(), overloaded());
    unfinished.answer.abort();
    settle().await;
    let new = whole(&lab, "new").await;
    assert!(!new.is_finished(), "it runs");
    gate.open();
    for answer in under_way.into_iter().chain([new]) {
        assert_eq!(answer.await.unwrap().status, StatusCode::OK);
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_of_which_nothing_comes_for_30_s_or_too_little_is_refused_and_a_slow_one_is_not() {
    let lab = Lab::counting(IdempotencyLayer::new(MemoryStore::new()));
    let [slow, dripping, silent] = ["slow", "dripping", "silent"].map(|key| Upload::begin(&lab, key));
    silent.send(1).await;
    for _ in 0..10 {
        // Half a kibibyte a second, and nearly nothing.
        slow.send(29 * 512).await;
        dripping.send(1).await;
        tokio::time::advance(Duration::from_secs(29)).await;
        settle().await;
    }
    for refused in [silent, dripping] {
        let refused = tokio::time::timeout(HOUR, refused.answer).await.expect("it is given up").unwrap();
        refused.assert_refusal(408, "body-incomplete", true, None);
        assert_eq!(refused.header("connection"), Some("close"));
    }
    assert_eq!(slow.end().await.text(), "effect 1");
}

#[tokio::test(start_paused = true)]
async fn a_burst_at_the_beginning_does_not_let_an_upload_drip_afterwards() {
    let lab = Lab::counting(IdempotencyLayer::new(MemoryStore::new()));
    // The layer has to wait for this burst. Those of the others are there when it begins to read.
    let late = Upload::begin(&lab, "late");
    settle().await;
    let [burst, steady, uneven] = ["burst", "steady", "uneven"].map(|key| Upload::begin(&lab, key));
    for upload in [&late, &burst, &steady, &uneven] {
        upload.send(500 * KIB).await;
    }
    let mut refused_after = [None; 2];
    for second in 1..=120 {
        tokio::time::advance(Duration::from_secs(1)).await;
        settle().await;
        // Eight bytes a second for each of two, 512, and 512 on average.
        late.send(8).await;
        burst.send(8).await;
        steady.send(512).await;
        if second % 25 == 0 {
            uneven.send(25 * 512).await;
        }
        for (upload, refused_after) in [&late, &burst].into_iter().zip(&mut refused_after) {
            *refused_after = refused_after.or(upload.is_over().then_some(second));
        }
    }
    assert_eq!(refused_after, [Some(31); 2], "the burst is worth the half minute that everyone has");
    for refused in [late, burst] {
        refused.end().await.assert_refusal(408, "body-incomplete", true, None);
    }
    assert_eq!(steady.end().await.status, 200);
    assert_eq!(uneven.end().await.status, 200);
}

// A seeded fault: a body that was read to its end counts no more, although its request waits for the store.
#[tokio::test(start_paused = true)]
async fn a_body_counts_while_its_claim_is_waited_for() {
    let store = TestStore::new();
    let lab = Lab::counting(IdempotencyLayer::new(store.clone()).max_buffered(100 * KIB));
    let stall = store.stall(StoreCall::Claim);
    let first = whole(&lab, "first").await;
    assert!(!first.is_finished());
    assert_eq!(whole(&lab, "second").await.await.unwrap().refusal(), overloaded());
    stall.release();
    assert_eq!(first.await.unwrap().text(), "effect 1");
    assert_eq!(whole(&lab, "second").await.await.unwrap().text(), "effect 2");
}

/// A layer whose store can't record outcomes of 1 MiB.
fn unrecordable(store: &TestStore, policy: OnInterrupted) -> (Lab, IdempotencyLayer<TestStore>) {
    let layer = IdempotencyLayer::new(store.clone()).on_interrupted(policy).max_response_body(usize::MAX);
    (Lab::new(layer.clone(), |number| async move { (number.to_string(), vec![b'x'; 1024 * KIB]).1 }), layer)
}

#[tokio::test(start_paused = true)]
async fn outcomes_that_cannot_be_recorded_are_bounded_and_nothing_runs_again() {
    for policy in [OnInterrupted::Refuse, OnInterrupted::Rerun] {
        let store = TestStore::new();
        let (lab, layer) = unrecordable(&store, policy);
        // From outside, so that new runs are not refused before the bound is reached.
        let gate = Gate::default();
        let large = gate.clone();
        let under_way = Lab::new(layer.clone(), move |_| {
            let gate = large.clone();
            async move {
                gate.pass().await;
                vec![b'x'; 1024 * KIB]
            }
        });
        let requests: Vec<_> = (0..70).map(|number| under_way.spawn(post(&format!("k{number}"), "a"))).collect();
        settle().await;
        assert_eq!(layer.counts().live, 70);
        for verb in [StoreCall::Complete, StoreCall::Interrupt] {
            (0..1_000).for_each(|_| store.fail_next(verb));
        }
        gate.open();
        for request in requests {
            assert_eq!(request.await.unwrap().status, StatusCode::OK, "who ran gets the answer");
        }
        lab.post("new", "a").await.assert_refusal(503, "overloaded", true, Some("2"));
        let mut told = [0, 0];
        for number in 0..70 {
            let retry = lab.post(&format!("k{number}"), "a").await;
            if retry.is_replay() {
                told[0] += 1;
            } else {
                assert_eq!(retry.refusal(), (409, "outcome-unknown".to_owned()));
                told[1] += 1;
            }
        }
        assert!(told[0] >= 60 && told[1] >= 5 && told[0] + told[1] == 70, "{told:?}");
        assert_eq!((lab.effects(), under_way.effects()), (0, 70));
        let drained = layer.drain(Duration::from_millis(1)).await;
        assert_eq!((drained.runs, drained.unrecorded, drained.is_complete()), (0, 70, false));
    }
}

// A seeded fault: where there is no room for an outcome that is on its way, an interruption overtakes it, and the next
// retry runs.
#[tokio::test(start_paused = true)]
async fn an_outcome_that_is_on_its_way_to_a_shared_store_is_not_overtaken_by_an_interruption() {
    let store = TestStore::new().beside();
    let (lab, layer) = unrecordable(&store, OnInterrupted::Rerun);
    let stall = store.stall(StoreCall::Complete);
    let gate = Gate::default();
    let waits = gate.clone();
    let under_way = Lab::new(layer.clone(), move |_| {
        let gate = waits.clone();
        async move {
            gate.pass().await;
            vec![b'x'; 1024 * KIB]
        }
    });
    let requests: Vec<_> = (0..70).map(|number| under_way.spawn(post(&format!("k{number}"), "a"))).collect();
    settle().await;
    let ended = tokio::time::Instant::now();
    gate.open();
    for request in requests {
        assert_eq!(request.await.unwrap().status, StatusCode::OK);
    }
    assert_eq!(ended.elapsed().as_secs(), 5, "a requester waits so long for its record");
    let retries = async || {
        let mut replays = 0;
        for number in 0..70 {
            let retry = lab.post(&format!("k{number}"), "a").await;
            replays += usize::from(retry.is_replay());
            assert!(retry.is_replay() || retry.refusal() == (409, "outcome-unknown".to_owned()), "{retry:?}");
        }
        replays
    };
    assert!(retries().await < 70, "some had no room");
    stall.release();
    settle().await;
    assert_eq!(retries().await, 70, "each is recorded");
    assert_eq!((lab.effects(), under_way.effects()), (0, 70));
}

#[tokio::test(start_paused = true)]
async fn what_only_this_process_knows_ends_with_the_retention() {
    let store = TestStore::new();
    let layer = IdempotencyLayer::new(store.clone()).retention(HOUR).on_interrupted(OnInterrupted::Rerun);
    let lab = Lab::counting(layer.clone());
    (0..1_000).for_each(|_| store.fail_next(StoreCall::Complete));
    assert_eq!(lab.post("k", "a").await.text(), "effect 1");
    tokio::time::advance(HOUR - Duration::from_secs(60)).await;
    assert!(lab.post("k", "a").await.is_replay());
    tokio::time::advance(Duration::from_secs(61)).await;
    assert_eq!(lab.post("k", "a").await.text(), "effect 2", "as if it had been recorded");
}

#[tokio::test(start_paused = true)]
async fn trap_88_drain_waits_for_outcomes_that_the_store_is_still_being_told() {
    let store = TestStore::new();
    let layer = IdempotencyLayer::new(store.clone());
    let lab = Lab::counting(layer.clone());
    (0..4).for_each(|_| store.fail_next(StoreCall::Complete));
    assert_eq!(lab.post("k", "a").await.text(), "effect 1");
    assert_eq!((layer.counts().unrecorded, layer.counts().live), (1, 0));
    let mut drained = Box::pin(layer.drain(HOUR));
    assert!((&mut drained).now_or_never().is_none());
    assert!(drained.await.is_complete());
    let after = lab.behind(IdempotencyLayer::new(store.reopen()), |_| async { "again" });
    assert_eq!(after.post("k", "a").await.text(), "effect 1", "it was recorded before drain returned");
}

#[tokio::test(start_paused = true)]
async fn settling_by_hand_what_this_process_knows_says_so() {
    let store = TestStore::new();
    let layer = IdempotencyLayer::new(store.clone());
    let lab = Lab::counting(layer.clone());
    (0..1_000).for_each(|_| store.fail_next(StoreCall::Complete));
    assert_eq!(lab.post("k", "a").await.text(), "effect 1");
    let held = layer.resolve(id("k"), Fence(1), Resolution::Forget).await;
    assert!(
        matches!(&held, Err(StoreError::Unavailable { reason, .. }) if reason.contains("this process holds")),
        "{held:?}"
    );
}

/// Runs `act` on a thread of its own, where a runtime that stalls is noticed.
fn without_standing_still(act: impl AsyncFnOnce() + Send + 'static) {
    let (done, finished) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(act());
        done.send(()).unwrap();
    });
    finished.recv_timeout(Duration::from_secs(60)).expect("the runtime stands still, or the test failed");
}

/// A store whose writer stalls in the middle of a batch, with its lock held, until the sender is used.
fn blocked(store: &SledStore) -> std::sync::mpsc::Sender<()> {
    let tree = store.db().unwrap().open_tree("elsewhere").unwrap();
    let ((go_on, gate), (began, begun)) = (std::sync::mpsc::channel::<()>(), std::sync::mpsc::channel());
    let closure = move |[_]: [TransactionTree<'_>; 1]| {
        began.send(()).unwrap();
        let _ = gate.recv();
        Ok::<_, Abort<()>>(())
    };
    drop(store.transaction([&tree], closure));
    begun.recv().unwrap();
    go_on
}

#[test]
fn trap_84_a_read_that_hangs_holds_up_nobody_but_who_waits_for_it() {
    without_standing_still(async || {
        let (directory, store) = on_disk(SledStore::builder());
        let lab = Lab::counting(IdempotencyLayer::new(store.clone()));
        assert_eq!(lab.post("cold", "a").await.text(), "effect 1");
        drop(lab);
        store.close().await.unwrap();
        let store = SledStore::open(directory.path()).unwrap();
        let lab = Lab::counting(IdempotencyLayer::new(store.clone()));
        let go_on = blocked(&store);
        let cold = lab.spawn(post("cold", "a"));
        let listed = tokio::spawn({
            let store = store.clone();
            async move { store.interrupted(Page::first(1)).await }
        });
        settle().await;
        // The runtime, which has one thread, goes on.
        assert!(!cold.is_finished() && !listed.is_finished());
        assert_eq!(lab.send(axum::http::Request::get("/").body(Body::empty()).unwrap()).await.text(), "effect 1");
        assert!(store.health() == Health::Good);
        go_on.send(()).unwrap();
        assert!(cold.await.unwrap().is_replay());
        assert!(listed.await.unwrap().unwrap().is_empty());
    });
}

#[test]
fn trap_83_claims_queued_behind_a_batch_that_hangs_are_not_done_when_it_returns() {
    without_standing_still(async || {
        let (_directory, store) = on_disk(SledStore::builder());
        let before = hold(&store, "before").await;
        let go_on = blocked(&store);
        let late: Vec<_> = (0..100)
            .map(|number| store.claim(Wish { patience: Duration::ZERO, ..wish(&format!("late{number}")) }))
            .collect();
        let patient = store.claim(wish("patient"));
        go_on.send(()).unwrap();
        for refused in futures_util::future::join_all(late).await {
            assert!(matches!(refused, Err(StoreError::Unavailable { .. })), "{refused:?}");
        }
        let Ok(Claimed::Fresh(after)) = patient.await else { panic!("refused") };
        assert!(after.fence.0 - before.fence.0 < 20, "none of them was given a fence: {before:?}, {after:?}");
        assert_eq!(store.len(), 2);
    });
}

#[test]
fn while_4096_verbs_wait_neither_new_keys_nor_the_applications_own_transactions_are_taken() {
    without_standing_still(async || {
        let (_directory, store) = on_disk(SledStore::builder());
        let tree = store.db().unwrap().open_tree("ours").unwrap();
        let lab = Lab::counting(IdempotencyLayer::new(store.clone()).fail_open(true));
        let go_on = blocked(&store);
        let write = |key: u64| {
            store.transaction([&tree], move |[tree]| {
                tree.insert(&key.to_be_bytes(), b"")?;
                Ok::<_, Abort<()>>(())
            })
        };
        let waiting: Vec<_> = (0..4_096).map(write).collect();
        let refused = write(4_096).await;
        assert!(matches!(refused, Err(CommitError::Store(StoreError::Overloaded { .. }))), "{refused:?}");
        assert_eq!(lab.post("new", "a").await.refusal(), overloaded());
        go_on.send(()).unwrap();
        let done = futures_util::future::join_all(waiting).await.into_iter().filter(Result::is_ok).count();
        // Those that the store came to too late, if any, were not begun.
        assert_eq!(done, tree.len());
        assert_eq!(lab.post("new", "a").await.text(), "effect 1");
    });
}

#[tokio::test]
async fn a_consumer_is_bounded_too() {
    let once = Once::new(MemoryStore::new()).max_runs(0);
    let effect = |_: RunContext| async { Ok::<_, EffectError<()>>(Bytes::new()) };
    let refused = once.run(id("k"), Fingerprint::of(b"m"), effect).await;
    assert!(matches!(refused, Err(OnceError::Overloaded)), "{refused:?}");
}

//! More requests than there is room for: those that are refused, those that go on, and the room that is given back.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::StreamExt as _;
use http::StatusCode;
use http_body::Frame;
use http_body_util::StreamBody;
use testkit::lab::operator::Operated as _;
use testkit::lab::time::HOUR;
use testkit::lab::{Lab, gated, id, post, settle};
use testkit::{Answer, Gate};
use tokio::sync::mpsc;
use tower_idempotency::engine::{EffectError, OnceContext, OnceError, Stats};
use tower_idempotency::operations::{Action, Applied};
use tower_idempotency::test_util::{StoreCall, TestStore};
use tower_idempotency::{Fingerprint, IdempotencyLayer, MemoryStore, OnInFlight, Once, RejectionKind};

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

    /// Begins the upload, with the request that `request` makes of its body.
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
    assert_eq!(layer.stats().live, 2);
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
    assert_eq!(counted(&layer.stats()), 1);
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
    let listed = full.interrupted(9).await.unwrap().remove(0);
    let settled = full.resolve(listed.id, listed.fence, Action::Release).await;
    assert_eq!(settled.unwrap(), Applied::Done);
    assert!(full.interrupted(9).await.unwrap().is_empty());
}

fn counted(counts: &Stats) -> u64 {
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
    assert_eq!(layer.stats().fail_open_runs, 0);
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
    assert_eq!(layer.stats().live, 2);
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

#[tokio::test]
async fn a_consumer_is_bounded_too() {
    let once = Once::new(MemoryStore::new()).max_runs(0);
    let effect = |_: OnceContext<()>| async { Ok::<_, EffectError<()>>(()) };
    let refused = once.run(id("k"), Fingerprint::of(b"m"), effect).await;
    assert!(matches!(refused, Err(OnceError::Overloaded)), "{refused:?}");
}

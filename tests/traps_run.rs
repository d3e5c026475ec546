//! Traps 11–18 of published middleware: the run. Each test is named after what is promised instead.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod common;

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use common::lab::{Answer, Gate, Lab, gated, id, post, settle};
use futures_util::future::BoxFuture;
use futures_util::poll;
use http::{Request, Response, StatusCode};
use tower::{Service, ServiceBuilder, ServiceExt as _, service_fn};
use tower_http::timeout::TimeoutLayer;
use tower_idempotency::record::State;
use tower_idempotency::store::Store;
use tower_idempotency::test_util::{TestStore, Verb};
use tower_idempotency::{IdempotencyLayer, MemoryStore, OnInterrupted};
use tracing::Instrument as _;

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn trap_11_an_outer_timeout_stops_the_answer_and_not_the_run() {
    let gate = Gate::default();
    let mut lab = gated(IdempotencyLayer::new(MemoryStore::new()), &gate);
    lab.app = lab.app.layer(TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, SECOND));
    assert_eq!(lab.post("k", "a").await.status, StatusCode::REQUEST_TIMEOUT);
    gate.open();
    let retry = lab.post("k", "a").await;
    assert_eq!((retry.text(), retry.is_replay(), lab.effects()), ("effect 1", true, 1));
}

#[tokio::test]
async fn trap_12_the_record_is_written_though_its_request_was_dropped() {
    let store = TestStore::new();
    let lab = Lab::counting(IdempotencyLayer::new(store.clone()));
    let stall = store.stall(Verb::Complete);
    let request = lab.spawn(post("k", "a"));
    settle().await;
    assert_eq!(lab.effects(), 1, "the handler is done, the record is under way");
    request.abort();
    assert!(request.await.unwrap_err().is_cancelled());
    stall.release();
    settle().await;
    // Another process finds the record: it is the store that knows, not this process alone.
    let lab = Lab::counting(IdempotencyLayer::new(store.reopen()));
    let retry = lab.post("k", "a").await;
    assert_eq!((retry.text(), retry.is_replay(), lab.effects()), ("effect 1", true, 0));
}

#[tokio::test]
async fn trap_13_no_byte_of_the_answer_is_sent_before_its_record_is_durable() {
    let store = TestStore::new();
    let lab = Lab::counting(IdempotencyLayer::new(store.clone()));
    let stall = store.stall(Verb::Complete);
    let first = lab.app.clone().oneshot(post("k", "a"));
    let duplicate = lab.app.clone().oneshot(post("k", "a"));
    tokio::pin!(first, duplicate);
    for _ in 0..3 {
        assert!(poll!(&mut first).is_pending());
        assert!(poll!(&mut duplicate).is_pending());
        settle().await;
    }
    assert_eq!(lab.effects(), 1, "the handler is done");
    stall.release();
    let (first, duplicate) = (Answer::of(first.await.unwrap()).await, Answer::of(duplicate.await.unwrap()).await);
    assert_eq!((first.text(), first.is_replay()), ("effect 1", false));
    assert_eq!((duplicate.text(), duplicate.is_replay(), lab.effects()), ("effect 1", true, 1));
}

async fn completed(store: &TestStore, key: &str) -> bool {
    let record = store.load(id(key)).await.unwrap();
    record.is_some_and(|record| matches!(record.state, State::Completed { .. }))
}

#[tokio::test(start_paused = true)]
async fn trap_14_where_recording_fails_the_real_answer_is_given_and_the_claim_kept() {
    let store = TestStore::new();
    let layer = IdempotencyLayer::new(store.clone());
    let lab = Lab::counting(layer.clone());
    (0..4).for_each(|_| store.fail_next(Verb::Complete));
    let first = lab.post("k", "a").await;
    assert_eq!((first.status, first.text(), first.is_replay()), (StatusCode::OK, "effect 1", false));
    assert_eq!(layer.counts().unrecorded, 1);
    assert!(!completed(&store, "k").await);
    assert!(lab.post("k", "a").await.is_replay(), "answered from memory");
    assert_eq!(lab.post("k", "b").await.status, StatusCode::UNPROCESSABLE_ENTITY);

    // It is tried again, until the store knows it.
    while !completed(&store, "k").await {
        tokio::time::sleep(SECOND).await;
    }
    let reopened = Lab::counting(IdempotencyLayer::new(store.reopen()));
    assert!(reopened.post("k", "a").await.is_replay());
    assert_eq!((lab.effects(), reopened.effects()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn trap_14_a_restart_before_the_record_was_written_refuses_and_never_reruns() {
    let store = TestStore::new();
    let lab = Lab::counting(IdempotencyLayer::new(store.clone()));
    (0..3).for_each(|_| store.fail_next(Verb::Complete));
    assert_eq!(lab.post("k", "a").await.text(), "effect 1");
    let reopened = Lab::counting(IdempotencyLayer::new(store.reopen()));
    assert_eq!(reopened.post("k", "a").await.refusal(), (409, "outcome-unknown".to_owned()));
    assert_eq!((lab.effects(), reopened.effects()), (1, 0));
}

#[tokio::test]
async fn trap_15_whether_a_panic_frees_the_key_is_policy() {
    for (policy, retry, effects) in [(OnInterrupted::Refuse, 409, 1), (OnInterrupted::Rerun, 200, 2)] {
        let layer = IdempotencyLayer::new(TestStore::new()).on_interrupted(policy.clone());
        let lab = Lab::new(layer.clone(), |number| async move {
            assert_ne!(number, 1, "the first run panics, on purpose");
            "done"
        });
        let first = lab.post("k", "a").await;
        assert_eq!(first.refusal(), (500, "outcome-unknown".to_owned()), "{policy:?}");
        assert_eq!(first.json()["retry_with_same_key"], matches!(policy, OnInterrupted::Rerun));
        assert_eq!(lab.post("k", "a").await.status, retry, "{policy:?}");
        assert_eq!((lab.effects(), layer.counts().interrupted), (effects, 1), "{policy:?}");
    }
}

#[tokio::test]
async fn trap_15_whether_an_error_frees_the_key_is_policy() {
    for (policy, retry, effects) in [(OnInterrupted::Refuse, 409, 1), (OnInterrupted::Rerun, 200, 2)] {
        let called = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&called);
        let handler = service_fn(move |_: Request<Body>| {
            let first = counted.fetch_add(1, Ordering::SeqCst) == 0;
            async move { if first { Err(io::Error::other("cut off")) } else { Ok(Response::new(Body::empty())) } }
        });
        let layer = IdempotencyLayer::new(TestStore::new()).on_interrupted(policy.clone());
        let service = ServiceBuilder::new().layer(layer).service(handler);
        let error = service.clone().oneshot(post("k", "a")).await.unwrap_err();
        assert_eq!(error.to_string(), "cut off", "the inner error is left alone");
        assert_eq!(service.oneshot(post("k", "a")).await.unwrap().status(), retry, "{policy:?}");
        assert_eq!(called.load(Ordering::SeqCst), effects, "{policy:?}");
    }
}

/// Panics when it is called without having been polled ready; a clone has not been.
struct Picky {
    ready: bool,
    called: Arc<AtomicUsize>,
}

impl Clone for Picky {
    fn clone(&self) -> Self {
        Self { ready: false, called: Arc::clone(&self.called) }
    }
}

impl Service<Request<Body>> for Picky {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        assert!(std::mem::take(&mut self.ready), "called without having been polled ready");
        self.called.fetch_add(1, Ordering::SeqCst);
        Box::pin(async { Ok(Response::new(Body::empty())) })
    }
}

/// Calls one service, as a connection does, with keys, without, and with one again.
async fn exercise<S>(mut service: S)
where
    S: Service<Request<Body>, Response = Response<Body>, Error: std::fmt::Debug>,
{
    let bare = || Request::post("/charges").body(Body::empty()).unwrap();
    for request in [post("1", "a"), bare(), post("2", "a"), post("2", "a"), bare(), post("3", "a")] {
        let response = service.ready().await.unwrap().call(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
    }
}

#[tokio::test]
async fn trap_16_the_service_that_was_polled_ready_is_the_one_that_is_called() {
    let called = Arc::new(AtomicUsize::new(0));
    let picky = || Picky { ready: false, called: Arc::clone(&called) };
    let stack = || ServiceBuilder::new().layer(IdempotencyLayer::new(MemoryStore::new()));
    // A clone that was never polled panics in Picky, a concurrency limit and a buffer, and is shed by load shed.
    exercise(stack().service(picky())).await;
    assert_eq!(called.load(Ordering::SeqCst), 5, "two without a key, and three keys");
    exercise(stack().concurrency_limit(1).service(picky())).await;
    exercise(stack().buffer(1).service(picky())).await;
    exercise(stack().load_shed().service(picky())).await;
    exercise(stack().load_shed().buffer(2).concurrency_limit(1).service(picky())).await;
    assert_eq!(called.load(Ordering::SeqCst), 5 * 5);
}

#[tokio::test(start_paused = true)]
async fn trap_17_drain_waits_for_detached_runs_and_says_how_many_are_left() {
    let (store, gate) = (TestStore::new(), Gate::default());
    let layer = IdempotencyLayer::new(store.clone());
    let done = Lab::counting(layer.clone());
    done.post("old", "a").await;
    let lab = gated(layer.clone(), &gate);
    let request = lab.spawn(post("k", "a"));
    gate.arrival().await;
    request.abort();

    assert_eq!(layer.drain(SECOND).await.runs, 1);
    let refused = lab.post("new", "a").await;
    assert_eq!(refused.refusal(), (503, "shutting-down".to_owned()));
    assert_eq!(refused.headers["retry-after"], "1");
    assert!(done.post("old", "a").await.is_replay(), "replays are still given");

    let (drained, ()) = tokio::join!(layer.drain(SECOND * 60), async { gate.open() });
    assert!(drained.is_complete());
    assert_eq!(layer.counts().live, 0);
    assert!(lab.post("k", "a").await.is_replay());
    let reopened = Lab::counting(IdempotencyLayer::new(store.reopen()));
    assert!(reopened.post("k", "a").await.is_replay(), "recorded before drain returned");
    assert_eq!((lab.effects(), reopened.effects()), (1, 0));
}

#[tokio::test]
async fn trap_18_the_span_goes_along_with_the_run() {
    let lab = Lab::new(IdempotencyLayer::new(MemoryStore::new()), |_| async { tracing::info!("charging") });
    // A span that another test's thread is the first to reach would be off for this thread's subscriber too.
    lab.post("before", "a").await;
    let log = tempfile::NamedTempFile::new().unwrap();
    let writer = Arc::new(log.reopen().unwrap());
    let subscriber = tracing_subscriber::fmt().with_writer(writer).with_ansi(false).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    lab.post("k", "a").instrument(tracing::info_span!("request", tenant = 7)).await;

    let log = std::fs::read_to_string(log.path()).unwrap();
    let line = log.lines().find(|line| line.contains("charging")).expect("the handler's line");
    let record_id = &id("k").to_string()[..8];
    assert!(line.contains(&format!("request{{tenant=7}}:exchange{{record_id=\"{record_id}\"")), "{line}");
    assert_eq!(lab.effects(), 2);
}

tokio::task_local! {
    static TENANT: u32;
}

#[tokio::test]
async fn trap_18_task_locals_go_along_where_wrap_run_carries_them() {
    let tenant = || TENANT.try_with(|tenant| *tenant).ok();
    let plain = Lab::new(IdempotencyLayer::new(MemoryStore::new()), move |_| async move { format!("{:?}", tenant()) });
    assert_eq!(TENANT.scope(7, plain.post("k", "a")).await.text(), "None", "a task of its own has none");

    let layer = IdempotencyLayer::new(MemoryStore::new());
    let layer = layer.wrap_run(|run| TENANT.scope(TENANT.get(), run));
    let lab = Lab::new(layer, move |_| async move { format!("{:?}", tenant()) });
    assert_eq!(TENANT.scope(7, lab.post("k", "a")).await.text(), "Some(7)");
    let retry = TENANT.scope(8, lab.post("k", "a")).await;
    assert_eq!((retry.text(), retry.is_replay(), lab.effects()), ("Some(7)", true, 1));
}

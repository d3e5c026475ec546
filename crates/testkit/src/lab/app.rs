//! A layer around a handler, in process: requests go in, answers come out, effects are counted.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderValue, Request};
use tower::load_shed::error::Overloaded;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, ServiceExt as _, service_fn};
use tower_idempotency::FingerprintBuilder;
use tower_idempotency::Meaning;
use tower_idempotency::internals::{self, Claim, Completion, Operation, Origin, Reply, RunResult, Transition};
use tower_idempotency::server::Classify;
use tower_idempotency::store::Store;
use tower_idempotency::test_util::TestStore;
use tower_idempotency::{Fingerprint, IdempotencyLayer, Key, MemoryStore, OnInFlight, OnInterrupted, RecordId};

use super::disk::DiskBuilder;
use super::steps::{Claimed, Hold, Steps as _, Wish, wish};
use super::time::{DAY, HOUR};
use crate::{Answer, Gate};

/// A router with one handler, behind a layer.
#[derive(Clone)]
pub struct Lab {
    pub app: Router,
    effects: Arc<AtomicUsize>,
}

impl Lab {
    /// Puts `layer` around a handler that counts an effect each time it is called, and then answers what `answer`
    /// says for that number, beginning with 1.
    pub fn new<St, F, Fut, R>(layer: IdempotencyLayer<St>, answer: F) -> Self
    where
        St: Store,
        F: Fn(usize) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = R> + Send + 'static,
        R: IntoResponse + 'static,
    {
        Self::sharing(Arc::default(), layer, answer)
    }

    fn sharing<St, F, Fut, R>(effects: Arc<AtomicUsize>, layer: IdempotencyLayer<St>, answer: F) -> Self
    where
        St: Store,
        F: Fn(usize) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = R> + Send + 'static,
        R: IntoResponse + 'static,
    {
        let answer = move |number| -> BoxFuture<'static, Response> {
            let answer = answer.clone();
            Box::pin(async move { answer(number).await.into_response() })
        };
        Self { app: counting(Arc::clone(&effects), Arc::new(answer)).layer(layer), effects }
    }

    /// Like [`new`](Self::new), with a handler that answers `effect N`.
    pub fn counting<St: Store>(layer: IdempotencyLayer<St>) -> Self {
        Self::new(layer, effect)
    }

    /// Like [`counting`](Self::counting), over `store`, with the layer, which counts too.
    pub fn with_layer(store: &TestStore) -> (Self, IdempotencyLayer<TestStore>) {
        let layer = IdempotencyLayer::new(store.clone());
        (Self::counting(layer.clone()), layer)
    }

    /// Like [`counting`](Self::counting), with a handler that waits at a gate after its effect.
    pub fn gated<St: Store>(layer: IdempotencyLayer<St>) -> (Self, Gate) {
        let gate = Gate::default();
        let handler = gate.clone();
        let answer = move |number| {
            let gate = handler.clone();
            async move {
                gate.pass().await;
                format!("effect {number}")
            }
        };
        (Self::new(layer, answer), gate)
    }

    /// An application of the test's own, which counts effects, if it does, by itself.
    pub fn of(app: Router) -> Self {
        Self { app, effects: Arc::default() }
    }

    /// The same effects, behind another layer: another server, or the same one after a restart.
    pub fn behind<St, F, Fut, R>(&self, layer: IdempotencyLayer<St>, answer: F) -> Self
    where
        St: Store,
        F: Fn(usize) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = R> + Send + 'static,
        R: IntoResponse + 'static,
    {
        Self::sharing(Arc::clone(&self.effects), layer, answer)
    }

    pub fn effects(&self) -> usize {
        self.effects.load(Ordering::SeqCst)
    }

    pub async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.app.clone().oneshot(request).await.expect("a router never fails");
        Answer::of(response).await
    }

    /// Posts `body` to `/charges` with `key`.
    pub async fn post(&self, key: &str, body: &'static str) -> Answer {
        self.send(post(key, body)).await
    }

    /// The answers of two tries, of which the second is a replay.
    pub async fn two_tries(&self) -> [Answer; 2] {
        let [first, mut retry] = [self.post("k", "a").await, self.post("k", "a").await];
        assert!(!first.is_replay() && retry.is_replay(), "by `Idempotent-Replayed`: {first:?} {retry:?}");
        assert_eq!(self.effects(), 1);
        retry.headers.remove("idempotent-replayed");
        [first, retry]
    }

    /// Posts in a task of its own.
    pub fn spawn(&self, request: Request<Body>) -> tokio::task::JoinHandle<Answer> {
        let lab = self.clone();
        tokio::spawn(async move { lab.send(request).await })
    }
}

/// A router with one handler. It is no part of a generic function: what axum makes of a handler is much code, which the
/// compiler would make anew for each of some hundred handlers.
fn counting(
    effects: Arc<AtomicUsize>,
    answer: Arc<dyn Fn(usize) -> BoxFuture<'static, Response> + Send + Sync>,
) -> Router {
    let handler = move || answer(effects.fetch_add(1, Ordering::SeqCst) + 1);
    Router::new().fallback(any(handler))
}

/// The answer of a handler that counts.
pub async fn effect(number: usize) -> String {
    format!("effect {number}")
}

/// A layer without options, over a store in memory.
pub fn layer() -> IdempotencyLayer<MemoryStore> {
    IdempotencyLayer::new(MemoryStore::new())
}

/// Likewise, under which what was interrupted runs again.
pub fn rerun() -> IdempotencyLayer<MemoryStore> {
    layer().on_interrupted(OnInterrupted::Rerun)
}

/// Likewise, whose duplicates wait for as long as it takes.
pub fn patient() -> IdempotencyLayer<MemoryStore> {
    layer().on_in_flight(OnInFlight::Wait(HOUR))
}

/// Counts an effect for every request, and answers `effect N`; the one with the key `slow` waits at the gate.
pub fn numbered(gate: &Gate, effects: &Arc<AtomicUsize>) -> BoxCloneSyncService<Request<Body>, Response, BoxError> {
    let (gate, effects) = (gate.clone(), Arc::clone(effects));
    BoxCloneSyncService::new(service_fn(move |request: Request<Body>| {
        let (gate, number) = (gate.clone(), effects.fetch_add(1, Ordering::SeqCst) + 1);
        async move {
            if request.headers()["idempotency-key"] == "slow" {
                gate.pass().await;
            }
            Ok(format!("effect {number}").into_response())
        }
    }))
}

/// Says of tower's load shed that nothing was started.
#[derive(Debug, Clone, Copy)]
pub struct Shedding;

impl Classify for Shedding {
    fn error(&self, error: &dyn Any) -> Meaning {
        let shed = error.downcast_ref::<BoxError>().is_some_and(|error| error.is::<Overloaded>());
        if shed { Meaning::NotStarted } else { Meaning::Unknown }
    }
}

/// A POST to `/charges` with `key`.
pub fn post(key: &str, body: impl Into<Body>) -> Request<Body> {
    let request = Request::post("/charges").header("host", "pay.example").header("idempotency-key", key);
    request.body(body.into()).expect("a valid request")
}

/// `post("k", "a")`, with one header besides, or instead.
pub fn with(name: &'static str, value: &str) -> Request<Body> {
    let mut request = post("k", "a");
    request.headers_mut().insert(name, HeaderValue::from_bytes(value.as_bytes()).expect("a valid header"));
    request
}

/// A request to `uri` with `key`, to be changed before it is given a body.
pub fn keyed(method: &str, uri: &str, key: &str) -> http::request::Builder {
    Request::builder().method(method).uri(uri).header("host", "pay.example").header("idempotency-key", key)
}

/// A body whose frames come one by one, without a known length; `Err` breaks it off.
pub fn frames(frames: impl IntoIterator<Item = Result<&'static str, &'static str>>) -> Body {
    let frames: Vec<_> = frames.into_iter().map(|frame| frame.map_err(std::io::Error::other)).collect();
    Body::from_stream(futures_util::stream::iter(frames))
}

/// Polls once: an answer that is there at once, without any waiting.
pub fn at_once<F: Future>(future: &mut std::pin::Pin<Box<F>>) -> Option<F::Output> {
    use futures_util::FutureExt as _;
    future.as_mut().now_or_never()
}

/// The record id of `key` where no scope is configured.
pub fn id(key: &str) -> RecordId {
    RecordId::new(None, &Key::new(key).expect("a valid key"))
}

/// Lets every task of a current-thread runtime go as far as it can without time passing.
pub async fn settle() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}

/// Lets the detached runs go on until none is left.
pub async fn no_run_is_left(layer: &IdempotencyLayer<TestStore>) {
    for _ in 0..1_000 {
        if layer.stats().live == 0 {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("{} runs are left", layer.stats().live);
}

/// A store on disk, in a directory that goes with the first value.
pub fn on_disk<B: DiskBuilder>(builder: B) -> (tempfile::TempDir, B::Disk) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = builder.open(directory.path()).expect("a new store");
    (directory, store)
}

/// The end of the run that has `hold`, to be sent to a store.
pub fn done(hold: Hold, outcome: impl Into<Bytes>, retention: Duration) -> Completion {
    let result = RunResult::Outcome(outcome.into());
    let Hold { id, fence, attempt } = hold;
    let operation = Operation { id, fingerprint: Fingerprint::of(b"m"), origin: Origin::default() };
    Completion { operation, hold: internals::Hold { fence, attempt }, result, retention, began: None }
}

/// Claims `key`, which is free.
pub async fn hold<St: Store>(store: &St, key: &str) -> Hold {
    match store.claim(wish(key)).await.expect("the store works") {
        Claimed::Fresh(hold) => hold,
        Claimed::Held(record) => panic!("{key} is held: {record:?}"),
    }
}

/// A lab whose handlers wait at `gate`, which others may share, and answer `effect N`.
pub fn gated<St: Store>(layer: IdempotencyLayer<St>, gate: &Gate) -> Lab {
    let gate = gate.clone();
    Lab::new(layer, move |number| {
        let gate = gate.clone();
        async move {
            gate.pass().await;
            format!("effect {number}")
        }
    })
}

/// The fingerprint of `post(_, "a")` under the record `id`, field by field, without credentials.
pub fn charge_print(id: &RecordId) -> FingerprintBuilder {
    let print = Fingerprint::builder(id).field("method", b"POST").context_field("host", b"pay.example");
    print.field("target", b"/charges").field("body", b"a")
}

/// A fingerprint as another release, or a layer with other options, would have stored it: version and options come
/// first, the options behind their length.
pub fn foreign(fingerprint: Fingerprint, version: u8, options: [u8; 8]) -> Fingerprint {
    let mut stored = postcard::to_allocvec(&fingerprint).expect("it can be stored");
    stored[0] = version;
    stored[2..10].copy_from_slice(&options);
    postcard::from_bytes(&stored).expect("it was stored so")
}

/// Records an answer 200 with the body `recorded` for `id`, in format 1 of `server/answer/snapshot.rs`.
pub async fn insert_answer<St: Store>(store: &St, id: RecordId, fingerprint: Fingerprint) {
    insert_bytes(store, id, fingerprint, Origin::default(), b"\x01\xc8\x01\x00\x00recorded".as_slice()).await;
}

/// Records these bytes for `id`, whatever they are.
pub async fn insert_bytes<St: Store>(
    store: &St,
    id: RecordId,
    fingerprint: Fingerprint,
    origin: Origin,
    outcome: impl Into<Bytes>,
) {
    let operation = Operation { id, fingerprint, origin };
    let claim = Claim { operation: operation.clone(), ..Wish::new(id, fingerprint).claim() };
    let claimed = store.apply(id, Transition::Claim(claim)).await.expect("the store works").record.expect("it is free");
    let hold = Hold { id, fence: claimed.fence, attempt: claimed.attempt };
    let completion = Completion { operation, ..done(hold, outcome, DAY) };
    assert_eq!(store.complete(completion).await.expect("the store works"), Reply::Taken);
}

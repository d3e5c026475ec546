//! A layer around a handler, in process: requests go in, answers come out, effects are counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt as _;
use tokio::sync::{Notify, watch};
use tower::ServiceExt as _;
use tower_idempotency::IdempotencyLayer;
use tower_idempotency::store::Store;

/// An answer, read to its end.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub trailers: Option<HeaderMap>,
}

impl Answer {
    /// Reads an answer to its end; a body that fails is a panic.
    pub async fn of(response: Response) -> Self {
        let (parts, body) = response.into_parts();
        let body = body.collect().await.expect("the answer's body failed");
        let trailers = body.trailers().cloned();
        Self { status: parts.status, headers: parts.headers, body: body.to_bytes(), trailers }
    }

    pub fn is_replay(&self) -> bool {
        self.headers.get("idempotent-replayed").is_some_and(|value| value == "true")
    }

    /// The end of the problem's type, such as `in-flight`; empty for what is no problem.
    pub fn problem(&self) -> String {
        let is_problem = self.headers.get("content-type").is_some_and(|value| value == "application/problem+json");
        if !is_problem {
            return String::new();
        }
        let uri = self.json()["type"].as_str().expect("a problem has a type").to_owned();
        uri.rsplit_once('#').map_or(uri.clone(), |(_, slug)| slug.to_owned())
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("the body is JSON")
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body is text")
    }

    /// Status and problem, to compare in one line.
    pub fn refusal(&self) -> (u16, String) {
        (self.status.as_u16(), self.problem())
    }
}

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
        Fut: Future<Output = R> + Send,
        R: IntoResponse,
    {
        let effects = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&effects);
        let handler = move || {
            let number = counted.fetch_add(1, Ordering::SeqCst) + 1;
            let answer = answer.clone();
            async move { answer(number).await.into_response() }
        };
        Self { app: Router::new().fallback(any(handler)).layer(layer), effects }
    }

    /// Like [`new`](Self::new), with a handler that answers `effect N`.
    pub fn counting<St: Store>(layer: IdempotencyLayer<St>) -> Self {
        Self::new(layer, |number| async move { format!("effect {number}") })
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

    /// Posts in a task of its own.
    pub fn spawn(&self, request: Request<Body>) -> tokio::task::JoinHandle<Answer> {
        let lab = self.clone();
        tokio::spawn(async move { lab.send(request).await })
    }
}

/// A POST to `/charges` with `key`.
pub fn post(key: &str, body: impl Into<Body>) -> Request<Body> {
    let request = Request::post("/charges").header("host", "pay.example").header("idempotency-key", key);
    request.body(body.into()).expect("a valid request")
}

/// A place in a handler where it waits until the test lets it go on; the test can wait until it is there.
#[derive(Clone)]
pub struct Gate {
    arrived: Arc<Notify>,
    open: Arc<watch::Sender<bool>>,
}

impl Default for Gate {
    fn default() -> Self {
        Self { arrived: Arc::default(), open: Arc::new(watch::channel(false).0) }
    }
}

impl Gate {
    /// For the handler: says that it is here, and waits.
    pub async fn pass(&self) {
        self.arrived.notify_one();
        let mut open = self.open.subscribe();
        open.wait_for(|open| *open).await.expect("the gate is held by its own clones");
    }

    /// For the test: waits until a handler is at the gate.
    pub async fn arrival(&self) {
        self.arrived.notified().await;
    }

    /// For the test: lets everybody through from now on.
    pub fn open(&self) {
        self.open.send_replace(true);
    }
}

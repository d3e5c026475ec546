//! The layer as a Tower service: it calls the service that was polled ready, and one that is not ready reports that
//! before any claim.

use std::any::Any;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use futures_util::future::BoxFuture;
use http::{Request, StatusCode};
use testkit::Answer;
use testkit::lab::{Lab, layer, post};
use tower::{BoxError, Layer as _, Service, ServiceBuilder, ServiceExt as _, service_fn};
use tower_idempotency::server::Classify;
use tower_idempotency::{IdempotencyLayer, Keep, Meaning, MemoryStore, Release, Unsure};

#[derive(Clone)]
struct NeverReady;

impl Service<Request<Body>> for NeverReady {
    type Response = Response;
    type Error = BoxError;
    type Future = std::future::Ready<Result<Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Err("not ready".into()))
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        panic!("called, though it was not ready")
    }
}

#[tokio::test]
async fn a_service_that_is_not_ready_says_so_before_any_claim() {
    let store = MemoryStore::new();
    let service = IdempotencyLayer::new(store.clone()).layer(NeverReady);
    assert_eq!(service.oneshot(post("k", "a")).await.unwrap_err().to_string(), "not ready");
    assert!(store.is_empty());
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

/// Takes every error for an outcome.
struct FinalErrors;

impl Classify for FinalErrors {
    fn error(&self, _: &dyn Any) -> Meaning {
        Meaning::Final
    }
}

// An error can't be replayed.
#[tokio::test]
async fn an_error_that_is_classified_as_final_is_unknown() {
    let fails = service_fn(|_: Request<Body>| async { Err::<Response, _>(BoxError::from("refused")) });
    let service = layer().classify(FinalErrors).layer(fails);
    assert!(service.clone().oneshot(post("k", "a")).await.is_err());
    let retry = Answer::of(service.oneshot(post("k", "a")).await.unwrap()).await;
    retry.assert_refusal(409, "outcome-unknown", false, None);
}

#[tokio::test]
async fn the_body_of_a_stream_and_of_an_answer_that_is_marked_as_not_final_is_not_read() {
    let made = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&made);
    let lab = Lab::new(layer(), move |number| {
        let counted = Arc::clone(&counted);
        let endless = Body::from_stream(futures_util::stream::repeat_with(move || {
            counted.fetch_add(1, Ordering::SeqCst);
            Ok::<_, BoxError>("tick")
        }));
        async move {
            match number {
                1 => (Release, endless).into_response(),
                2 => (Unsure, endless).into_response(),
                _ => (Keep, [("content-type", "text/event-stream")], endless).into_response(),
            }
        }
    });
    for key in ["k", "k", "stream"] {
        let answer = lab.app.clone().oneshot(post(key, "a")).await.unwrap();
        assert_eq!((answer.status(), made.load(Ordering::SeqCst)), (StatusCode::OK, 0), "{key}");
    }
    lab.post("k", "a").await.assert_refusal(409, "outcome-unknown", false, None);
    lab.post("stream", "a").await.assert_refusal(409, "not-replayable", false, None);
    assert_eq!(lab.effects(), 3);
}

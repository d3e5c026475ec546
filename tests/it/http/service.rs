//! The layer as a Tower service: the service that was polled ready is the one that is called, and one that is not ready
//! says so before any claim.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use axum::body::Body;
use axum::response::Response;
use futures_util::future::BoxFuture;
use http::{Request, StatusCode};
use testkit::lab::post;
use tower::{BoxError, Layer as _, Service, ServiceBuilder, ServiceExt as _};
use tower_idempotency::{IdempotencyLayer, MemoryStore};

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

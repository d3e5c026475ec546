//! The exchange that is measured: a small charge, answered with so many bytes.

use axum::Router;
use axum::body::Body;
use axum::routing::post;
use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use tower::ServiceExt as _;
use tower_idempotency::store::Store;
use tower_idempotency::{IdempotencyLayer, OnInterrupted};

pub const KEY: &str = "idempotency-key";
const CHARGE: &str = "amount=100&currency=eur&source=tok_visa";
/// The answer of most servers.
pub const SMALL: usize = 200;

/// A charge; with a key, a protected one.
pub fn request(key: Option<&str>) -> Request<Body> {
    keyed(key.map(|key| HeaderValue::from_str(key).expect("a key")))
}

/// A charge with this header for its key, if there is one.
pub fn keyed(key: Option<HeaderValue>) -> Request<Body> {
    let builder = Request::post("/charges").header("host", "pay.example");
    let builder = builder.header("content-type", "application/x-www-form-urlencoded");
    let mut request = builder.body(Body::from(CHARGE)).expect("a request");
    if let Some(key) = key {
        request.headers_mut().insert(KEY, key);
    }
    request
}

/// The handler alone: it answers with the same bytes, shared.
pub fn bare(length: usize) -> Router {
    let body = Bytes::from(vec![b'x'; length]);
    Router::new().route("/charges", post(async move || body.clone()))
}

/// A layer over `store`, as the policy says.
pub fn layer<St: Store>(store: St, on_interrupted: OnInterrupted) -> IdempotencyLayer<St> {
    IdempotencyLayer::new(store).on_interrupted(on_interrupted)
}

/// The handler behind a layer over `store`. Given its state, as `axum::serve` does for each connection.
pub fn protected<St: Store>(length: usize, store: St, on_interrupted: OnInterrupted) -> Router {
    bare(length).layer(layer(store, on_interrupted)).with_state(())
}

/// Sends a request, and takes the answer's head.
///
/// # Panics
/// If the charge is refused.
pub async fn send(app: &Router, key: Option<&str>) -> Response<Body> {
    let Ok(response) = app.clone().oneshot(request(key)).await;
    assert_eq!(response.status(), 200, "it is answered");
    response
}

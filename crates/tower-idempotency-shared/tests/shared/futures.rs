//! The sizes of the futures of an exchange, as those over the embedded stores have them.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::Body;
use http::{Request, Response};
use testkit::bench::exchange::{layer, request};
use tower::{Layer as _, Service as _, service_fn};
use tower_idempotency::OnInterrupted;
use tower_idempotency::internals::exchange_bytes;
use tower_idempotency_conformance::memory_backend::MemoryBackend;
use tower_idempotency_shared::SharedStore;

/// Section 12 of `docs/design.md` says why.
const MAX_BYTES: usize = 1_032;

#[tokio::test]
async fn no_future_of_an_exchange_is_longer_than_what_a_thread_keeps() {
    let store = SharedStore::open(MemoryBackend::new()).await.unwrap();
    let run = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&run);
    let layer = layer(store, OnInterrupted::Rerun).wrap_run(move |run| {
        seen.store(size_of_val(&*run), Ordering::Relaxed);
        run
    });
    let charge = service_fn(async |_: Request<Body>| Ok::<_, Infallible>(Response::new(Body::empty())));
    let answering = layer.layer(charge).call(request(Some("key")));
    let exchange = exchange_bytes(&answering);
    answering.await.unwrap();
    let run = run.load(Ordering::Relaxed);
    assert!((1..=MAX_BYTES).contains(&exchange) && (1..=MAX_BYTES).contains(&run), "{exchange}, {run}");
}

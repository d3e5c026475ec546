//! A charge in axum that a client may retry: `cargo run -p examples --example axum`.
//!
//! The same request is sent twice. The second answer is the first one, with `idempotent-replayed: true`.
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::Request;
use axum::routing::post;
use tower::ServiceExt as _;
use tower_idempotency::{IdempotencyLayer, SledStore};

static CHARGES: AtomicU64 = AtomicU64::new(0);

async fn charge(amount: String) -> String {
    let number = CHARGES.fetch_add(1, Ordering::SeqCst) + 1;
    format!("charge {number}: {amount}")
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = tempfile::tempdir()?;
    // In a server of your own: SledStore::open("idempotency")?
    let store = SledStore::open(directory.path())?;
    let app: Router = Router::new()
        .route("/charges", post(charge))
        // `route_layer`, and not `layer`, which would also record the answer to an unknown path.
        .route_layer(IdempotencyLayer::new(store.clone()));

    // `layer` instead of `route_layer` would also record the answer to an unknown path.
    for attempt in ["the first try", "its retry"] {
        let request = Request::post("/charges").header("idempotency-key", "order-17").body(Body::from("5 EUR"))?;
        let response = app.clone().oneshot(request).await?;
        let is_replay = response.headers().contains_key("idempotent-replayed");
        let body = to_bytes(response.into_body(), 1 << 20).await?;
        println!("{attempt}: {} (replayed: {is_replay})", String::from_utf8_lossy(&body));
    }
    assert_eq!(CHARGES.load(Ordering::SeqCst), 1);
    store.close().await?;
    Ok(())
}

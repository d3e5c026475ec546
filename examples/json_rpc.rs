//! A JSON-RPC service whose calls have their keys in the body: `cargo run -p examples --example json_rpc`.
//!
//! A key is in `params._meta.idempotencyKey`, or in another place that the profile names. A call without one runs each
//! time that it comes.
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::sync::atomic::{AtomicU32, Ordering};

use axum::body::{Body, to_bytes};
use axum::http::Request;
use axum::routing::post;
use axum::{Json, Router};
use serde::Deserialize;
use tower::ServiceExt as _;
use tower_idempotency::server::Profile;
use tower_idempotency::{IdempotencyLayer, MemoryStore};

static CHARGES: AtomicU32 = AtomicU32::new(0);

#[derive(Deserialize)]
struct Call {
    id: u32,
    params: Params,
}

#[derive(Deserialize)]
struct Params {
    amount: u32,
}

async fn charge(Json(Call { id, params }): Json<Call>) -> String {
    let number = CHARGES.fetch_add(1, Ordering::Relaxed) + 1;
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":"charge {number} of {}"}}"#, params.amount)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let layer = IdempotencyLayer::new(MemoryStore::new()).profile(Profile::json_rpc());
    let app: Router = Router::new().route("/rpc", post(charge)).route_layer(layer);

    // A retry has an `id` of its own, and so has its answer.
    let message = |id: u32, key: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","id":{id},"method":"charge","params":{{"_meta":{{"idempotencyKey":"{key}"}},"amount":500}}}}"#
        )
    };
    for (id, key) in [(1, "order-42"), (2, "order-42"), (3, "order-43")] {
        let request = Request::post("/rpc").header("content-type", "application/json");
        let response = app.clone().oneshot(request.body(Body::from(message(id, key)))?).await?;
        let (status, is_replay) = (response.status(), response.headers().contains_key("idempotent-replayed"));
        let body = to_bytes(response.into_body(), 1 << 20).await?;
        println!("message {id}, {key}: {status} (replayed: {is_replay}) {}", String::from_utf8_lossy(&body));
    }
    assert_eq!(CHARGES.load(Ordering::Relaxed), 2, "one charge for each key");
    Ok(())
}

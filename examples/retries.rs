//! What a retry gets, if its application says so: `cargo run -p examples --example retries`.
//!
//! A secret that is shown once is not kept, a replay is asked before it is given, and a client looks without running
//! anything.
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::sync::atomic::{AtomicU32, Ordering};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use axum::routing::post;
use bytes::Bytes;
use tower::ServiceExt as _;
use tower_idempotency::server::Replay;
use tower_idempotency::{IdempotencyLayer, MemoryStore, Rejection, Secret};

static RUNS: AtomicU32 = AtomicU32::new(0);

/// The answer shows the secret to the first request alone: it is in no store.
async fn new_key() -> (StatusCode, Secret, String) {
    (StatusCode::CREATED, Secret, format!("sk_live_{}", RUNS.fetch_add(1, Ordering::Relaxed)))
}

async fn export() -> String {
    format!("export {}, signed at noon", RUNS.fetch_add(1, Ordering::Relaxed))
}

/// The grant may have been revoked since the first request, and a signed link may have expired.
async fn before_a_replay(parts: Parts, stored: Response<Bytes>) -> Replay {
    if parts.headers.contains_key("x-revoked") {
        return Replay::Refuse(Rejection::from(StatusCode::FORBIDDEN));
    }
    Replay::Replace(stored.map(|body| String::from_utf8_lossy(&body).replace("at noon", "now").into()))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let layer = IdempotencyLayer::new(MemoryStore::new()).on_replay(before_a_replay);
    let app: Router = Router::new().route("/keys", post(new_key)).route("/exports", post(export)).route_layer(layer);

    let with =
        |name: &'static str| HeaderMap::from_iter([(HeaderName::from_static(name), HeaderValue::from_static("?1"))]);
    let nothing = HeaderMap::new();
    for (what, path, headers) in [
        ("a new secret", "/keys", nothing.clone()),
        ("a retry", "/keys", nothing.clone()),
        ("a look, before anything has run", "/exports", with("idempotency-probe")),
        ("an export", "/exports", nothing.clone()),
        ("a retry", "/exports", nothing),
        ("a look", "/exports", with("idempotency-probe")),
        ("a retry whose grant was revoked", "/exports", with("x-revoked")),
    ] {
        let mut request = Request::post(path).header("idempotency-key", path).body(Body::empty())?;
        request.headers_mut().extend(headers);
        let response = app.clone().oneshot(request).await?;
        let (status, is_replay) = (response.status(), response.headers().contains_key("idempotent-replayed"));
        let body = to_bytes(response.into_body(), 1 << 20).await?;
        println!("{what}: {status} (replayed: {is_replay})\n  {}", String::from_utf8_lossy(&body));
    }
    assert_eq!(RUNS.load(Ordering::Relaxed), 2, "one run for each key");
    Ok(())
}
